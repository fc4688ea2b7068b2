//! Reads X.509 certificates of every version, as far as pgpair looks at them.
//! It decides nothing: see `verifier`.

use std::net::IpAddr;

use super::names;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT: u8 = 0x06;
const BOOLEAN: u8 = 0x01;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]` and `[3]`, which hold the version and the extensions.
const EXPLICIT_0: u8 = 0xa0;
const EXPLICIT_3: u8 = 0xa3;
/// Kinds of names within an alternative name.
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;

/// Object identifiers, without tag and length.
mod oid {
    pub const COMMON_NAME: &[u8] = &[0x55, 4, 3];
    pub const KEY_USAGE: &[u8] = &[0x55, 0x1d, 15];
    pub const ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 17];
    pub const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];
    pub const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 37];
    pub const ANY_EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 37, 0];
    pub const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
    /// RSA of PKCS #1, and what is signed with it.
    pub const PKCS_1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1];
    pub const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4];
    pub const SHA_2: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2];
}

/// The last number of PKCS #1's identifiers for keys.
const RSA_ENCRYPTION: u8 = 1;
const RSASSA_PSS: u8 = 10;

/// Takes pieces off the front of DER.
#[derive(Clone, Copy)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// Takes the next element: its tag, its content, and both with the length.
    fn any(&mut self) -> Option<(u8, &'a [u8], &'a [u8])> {
        let whole = self.0;
        let (&tag, rest) = whole.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let length = match first {
            0..=0x7f => usize::from(first),
            0x81..=0x84 => {
                let (bytes, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
                rest = after;
                let add = |sum: usize, byte: &u8| (sum << 8) | usize::from(*byte);
                bytes.iter().fold(0, add)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content, &whole[..whole.len() - rest.len()]))
    }

    fn take(&mut self, wanted: u8) -> Option<&'a [u8]> {
        let (tag, content, _) = self.any()?;
        (tag == wanted).then_some(content)
    }

    /// Takes the next element if it has this tag.
    fn take_if(&mut self, wanted: u8) -> Option<&'a [u8]> {
        (self.0.first() == Some(&wanted)).then(|| self.take(wanted))?
    }

    /// Takes a string of bits whose number is a multiple of eight.
    fn take_bits(&mut self) -> Option<&'a [u8]> {
        self.take(BIT_STRING)?.strip_prefix(&[0])
    }
}

/// A public key, and of which kind it is.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    /// The content of its `AlgorithmIdentifier`.
    pub algorithm: &'a [u8],
    /// The key itself.
    pub bits: &'a [u8],
}

impl Key<'_> {
    /// Says whether it is an RSA key for RSA-PSS only.
    pub fn is_rsa_pss(&self) -> bool {
        self.rsa_kind() == Some(RSASSA_PSS)
    }

    /// Returns the bytes of an RSA key's modulus.
    pub fn modulus_bytes(&self) -> Option<usize> {
        self.rsa_kind()?;
        let number = Der(Der(self.bits).take(SEQUENCE)?).take(INTEGER)?;
        Some(number.strip_prefix(&[0]).unwrap_or(number).len())
    }

    fn rsa_kind(&self) -> Option<u8> {
        match Der(self.algorithm).take(OBJECT)?.strip_prefix(oid::PKCS_1) {
            Some([kind @ (RSA_ENCRYPTION | RSASSA_PSS)]) => Some(*kind),
            _ => None,
        }
    }
}

/// A digest by which a certificate is signed, as far as one binds a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    /// SHA-256; also in place of the older MD5 and SHA-1 (RFC 5929, 4.1).
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Digest {
    fn of_sha_2(last: u8) -> Option<Digest> {
        match last {
            1 => Some(Digest::Sha256),
            2 => Some(Digest::Sha384),
            3 => Some(Digest::Sha512),
            _ => None,
        }
    }
}

/// One extension.
#[derive(Debug)]
struct Extension<'a> {
    id: &'a [u8],
    is_critical: bool,
    value: &'a [u8],
}

/// A certificate, taken apart.
#[derive(Debug)]
pub struct Certificate<'a> {
    /// 1 to 3.
    pub version: u8,
    /// Who signed it.
    pub issuer: &'a [u8],
    /// Whose it is.
    pub subject: &'a [u8],
    /// From when to when it is good, in seconds since 1970.
    validity: (i64, i64),
    /// The key that it vouches for.
    pub key: Key<'a>,
    extensions: Vec<Extension<'a>>,
    /// What was signed.
    pub signed: &'a [u8],
    /// The content of the `AlgorithmIdentifier` of its signature.
    pub signature_algorithm: &'a [u8],
    /// The signature.
    pub signature: &'a [u8],
}

impl<'a> Certificate<'a> {
    /// Takes a certificate apart; `None` if it is none.
    pub fn parse(der: &'a [u8]) -> Option<Certificate<'a>> {
        let mut outer = Der(Der(der).take(SEQUENCE)?);
        let (tag, body, signed) = outer.any()?;
        let signature_algorithm = outer.take(SEQUENCE)?;
        let signature = outer.take_bits()?;
        let mut body = Der((tag == SEQUENCE).then_some(body)?);
        let version = match body.take_if(EXPLICIT_0) {
            Some(version) => *Der(version).take(INTEGER)?.last()?,
            None => 0,
        };
        body.take(INTEGER)?;
        let same_algorithm = body.take(SEQUENCE)? == signature_algorithm;
        let issuer = body.take(SEQUENCE)?;
        let mut validity = Der(body.take(SEQUENCE)?);
        let validity = (time(validity.any()?)?, time(validity.any()?)?);
        let subject = body.take(SEQUENCE)?;
        let mut key = Der(body.take(SEQUENCE)?);
        let key = Key {
            algorithm: key.take(SEQUENCE)?,
            bits: key.take_bits()?,
        };
        Some(Certificate {
            version: (same_algorithm && version <= 2).then_some(version + 1)?,
            issuer,
            subject,
            validity,
            key,
            extensions: extensions(body)?,
            signed,
            signature_algorithm,
            signature,
        })
    }

    /// Says whether it is good at this time, in seconds since 1970.
    pub fn is_good_at(&self, seconds: u64) -> bool {
        let (from, to) = self.validity;
        i64::try_from(seconds).is_ok_and(|now| (from..=to).contains(&now))
    }

    /// Returns until when it is good, in seconds since 1970.
    pub fn good_until(&self) -> i64 {
        self.validity.1
    }

    /// Says whether it names itself as its issuer.
    pub fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }

    /// Says whether it may vouch for others, as OpenSSL sees it: by what its
    /// extensions say, or because it is too old to say anything.
    pub fn may_issue(&self) -> bool {
        match self.authority() {
            Some(authority) => authority.is_one && self.key_usage() & KEY_CERT_SIGN != 0,
            None if self.version < 3 => self.is_self_issued(),
            None => self.has(oid::KEY_USAGE) && self.key_usage() & KEY_CERT_SIGN != 0,
        }
    }

    /// Says whether so many authorities may stand between it and the server.
    pub fn allows_below(&self, count: usize) -> bool {
        let limit = self.authority().and_then(|it| it.below_at_most);
        limit.is_none_or(|limit| count <= usize::from(limit))
    }

    /// Says whether it is an authority's.
    pub fn is_authority(&self) -> bool {
        self.authority().is_some_and(|it| it.is_one)
    }

    /// Says whether a server may use it.
    pub fn is_for_servers(&self) -> bool {
        self.key_usage() & TLS_USAGE != 0 && self.is_for_server_authentication()
    }

    /// Says whether what it vouches for may be servers.
    pub fn is_for_server_authentication(&self) -> bool {
        let Some(usages) = self.extension(oid::EXTENDED_KEY_USAGE) else {
            return true;
        };
        let mut usages = Der(Der(usages).take(SEQUENCE).unwrap_or_default());
        std::iter::from_fn(|| usages.take(OBJECT))
            .any(|usage| matches!(usage, oid::SERVER_AUTH | oid::ANY_EXTENDED_KEY_USAGE))
    }

    /// Says whether it makes demands that are not looked at here, such as limits
    /// on names.
    pub fn demands_more(&self) -> bool {
        const KNOWN: [&[u8]; 4] = [
            oid::KEY_USAGE,
            oid::ALTERNATIVE_NAME,
            oid::BASIC_CONSTRAINTS,
            oid::EXTENDED_KEY_USAGE,
        ];
        let known = |it: &Extension<'_>| KNOWN.contains(&it.id);
        self.extensions
            .iter()
            .any(|it| it.is_critical && !known(it))
    }

    /// Says whether it is for this host. As in libpq, the common name counts
    /// where no alternative name is of the host's kind.
    pub fn is_for(&self, host: &str) -> bool {
        let address = host.parse::<IpAddr>().ok();
        let kind = if address.is_some() {
            IP_ADDRESS
        } else {
            DNS_NAME
        };
        let alternatives = self.alternative_names();
        let found = alternatives.iter().any(|&(tag, name)| match tag {
            DNS_NAME => names::matches(name, host),
            IP_ADDRESS => address.is_some_and(|it| names::is_address(name, it)),
            _ => false,
        });
        let has_kind = alternatives.iter().any(|&(tag, _)| tag == kind);
        let by_common_name = || {
            self.common_name()
                .is_some_and(|it| names::matches(it, host))
        };
        found || (!has_kind && by_common_name())
    }

    fn alternative_names(&self) -> Vec<(u8, &'a [u8])> {
        let value = self.extension(oid::ALTERNATIVE_NAME).unwrap_or_default();
        let mut names = Der(Der(value).take(SEQUENCE).unwrap_or_default());
        std::iter::from_fn(|| names.any().map(|(tag, name, _)| (tag, name))).collect()
    }

    fn common_name(&self) -> Option<&'a [u8]> {
        let mut sets = Der(self.subject);
        while let Some((_, set, _)) = sets.any() {
            let mut attribute = Der(Der(set).take(SEQUENCE)?);
            if attribute.take(OBJECT)? == oid::COMMON_NAME {
                return attribute.any().map(|(_, name, _)| name);
            }
        }
        None
    }

    /// Returns the digest by which it is signed; `None` if there is none, or none
    /// that is known.
    pub fn digest(&self) -> Option<Digest> {
        let mut algorithm = Der(self.signature_algorithm);
        let id = algorithm.take(OBJECT)?;
        if let Some(kind) = id.strip_prefix(oid::PKCS_1) {
            return match kind {
                [4 | 5] => Some(Digest::Sha256),
                [RSASSA_PSS] => digest_of_pss(algorithm),
                [kind @ 11..=13] => Digest::of_sha_2(kind - 10),
                _ => None,
            };
        }
        match id.strip_prefix(oid::ECDSA)? {
            [1] => Some(Digest::Sha256),
            [3, kind @ 2..=4] => Digest::of_sha_2(kind - 1),
            _ => None,
        }
    }

    fn has(&self, id: &[u8]) -> bool {
        self.extension(id).is_some()
    }

    fn extension(&self, id: &[u8]) -> Option<&'a [u8]> {
        let found = self.extensions.iter().find(|it| it.id == id);
        found.map(|it| it.value)
    }

    fn authority(&self) -> Option<Authority> {
        let value = self.extension(oid::BASIC_CONSTRAINTS)?;
        let mut value = Der(Der(value).take(SEQUENCE).unwrap_or_default());
        let is_one = value.take_if(BOOLEAN).is_some_and(|it| it == [0xff]);
        let below_at_most = value.take_if(INTEGER).map(|it| match it {
            [limit] => *limit,
            _ => 0,
        });
        Some(Authority {
            is_one,
            below_at_most,
        })
    }

    /// The bits of the key's usage; all where nothing is said.
    fn key_usage(&self) -> u8 {
        match self
            .extension(oid::KEY_USAGE)
            .map(|it| Der(it).take(BIT_STRING))
        {
            None => u8::MAX,
            Some(bits) => bits.and_then(|it| it.get(1)).copied().unwrap_or(0),
        }
    }
}

/// `digitalSignature`, `keyEncipherment` or `keyAgreement`.
const TLS_USAGE: u8 = 0b1010_1000;
const KEY_CERT_SIGN: u8 = 0b0000_0100;

/// What basic constraints say.
struct Authority {
    is_one: bool,
    below_at_most: Option<u8>,
}

/// The digest within the parameters of an RSA-PSS signature; SHA-1 where none is.
fn digest_of_pss(mut algorithm: Der<'_>) -> Option<Digest> {
    let mut parameters = Der(algorithm.take(SEQUENCE)?);
    let Some(digest) = parameters.take_if(EXPLICIT_0) else {
        return Some(Digest::Sha256);
    };
    let id = Der(Der(digest).take(SEQUENCE)?).take(OBJECT)?;
    match id.strip_prefix(oid::SHA_2)? {
        [kind] => Digest::of_sha_2(*kind),
        _ => None,
    }
}

/// Finds the extensions after the key, which two unique identifiers may precede.
fn extensions(mut body: Der<'_>) -> Option<Vec<Extension<'_>>> {
    let mut found = Vec::new();
    while let Some((tag, content, _)) = body.any() {
        if tag != EXPLICIT_3 {
            continue;
        }
        let mut list = Der(Der(content).take(SEQUENCE)?);
        while let Some((_, content, _)) = list.any() {
            let mut extension = Der(content);
            found.push(Extension {
                id: extension.take(OBJECT)?,
                is_critical: extension.take_if(BOOLEAN).is_some_and(|it| it == [0xff]),
                value: extension.take(OCTET_STRING)?,
            });
        }
    }
    Some(found)
}

/// Reads `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` as seconds since 1970.
fn time((tag, content, _): (u8, &[u8], &[u8])) -> Option<i64> {
    let digits = content.strip_suffix(b"Z")?;
    let number = |bytes: &[u8]| -> Option<i64> {
        let digits = bytes.iter().all(u8::is_ascii_digit);
        std::str::from_utf8(bytes)
            .ok()
            .filter(|_| digits)?
            .parse()
            .ok()
    };
    let (year, rest) = match tag {
        UTC_TIME => digits.split_at_checked(2)?,
        GENERALIZED_TIME => digits.split_at_checked(4)?,
        _ => return None,
    };
    let year = match (tag, number(year)?) {
        (UTC_TIME, year @ 0..50) => 2_000 + year,
        (UTC_TIME, year) => 1_900 + year,
        (_, year) => year,
    };
    let parts: Vec<i64> = rest.chunks(2).map(number).collect::<Option<_>>()?;
    let &[month @ 1..=12, day @ 1..=31, hour, minute, second] = &parts[..] else {
        return None;
    };
    Some(((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

/// Days since 1970-01-01, by the Gregorian calendar; years begin in March here,
/// so that the day that is added in leap years is the last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_since_1970() {
        for (tag, text, expected) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (UTC_TIME, "500101000000Z", Some(-631_152_000)),
            (GENERALIZED_TIME, "20240229120000Z", Some(1_709_208_000)),
            (GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799)),
            (UTC_TIME, "7001010000Z", None),
            (UTC_TIME, "701301000000Z", None),
            (UTC_TIME, "7001010000+1Z", None),
            (UTC_TIME, "700101000000", None),
            (GENERALIZED_TIME, "700101000000Z", None),
        ] {
            assert_eq!(time((tag, text.as_bytes(), &[])), expected, "{text}");
        }
    }

    #[test]
    fn what_is_cut_off_is_no_certificate() {
        let whole = rcgen::generate_simple_self_signed(vec!["db".to_owned()]).expect("signs");
        let whole = whole.cert.der().to_vec();
        assert!(Certificate::parse(&whole).is_some());
        for end in 0..whole.len() {
            assert!(Certificate::parse(&whole[..end]).is_none(), "{end}");
        }
    }
}
