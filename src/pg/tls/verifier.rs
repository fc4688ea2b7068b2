//! How much of a server's certificate is believed, with libpq's meanings.
//!
//! Chains are webpki's business. It takes neither certificates of version 1 nor an
//! authority's as a server's, though PostgreSQL's manual makes both: those are
//! followed here, and by rules that are no weaker.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};

use super::certificate::{Certificate, Key};
use super::watch::CertificateWatch;

/// Longest chain of authorities that is followed here, as in webpki.
const MAX_AUTHORITIES: usize = 6;

/// Signatures that are checked for one chain here; webpki's limit is 100.
const MAX_SIGNATURES: usize = 50;

/// Sizes of an RSA key that ring checks signatures with: 2,048 to 8,192 bits.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1_024;

/// RSA-PSS by keys that are for nothing else. Such a signature is like any other.
const PSS_ONLY: [(SignatureScheme, SignatureScheme); 3] = [
    (
        SignatureScheme::Unknown(0x0809),
        SignatureScheme::RSA_PSS_SHA256,
    ),
    (
        SignatureScheme::Unknown(0x080a),
        SignatureScheme::RSA_PSS_SHA384,
    ),
    (
        SignatureScheme::Unknown(0x080b),
        SignatureScheme::RSA_PSS_SHA512,
    ),
];

/// Offered though ring cannot check them: where nothing is verified they are as
/// good as any, and where something is, the error can say what is missing.
const UNCHECKED: [SignatureScheme; 2] = [
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED448,
];

/// The server's key is of a kind that cannot be verified.
#[derive(Debug)]
pub struct UnknownKind;

impl fmt::Display for UnknownKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no signature of this kind of key can be checked")
    }
}

impl std::error::Error for UnknownKind {}

impl From<UnknownKind> for Error {
    fn from(kind: UnknownKind) -> Error {
        CertificateError::Other(OtherError(Arc::new(kind))).into()
    }
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    default_provider().signature_verification_algorithms
}

/// Says whether the key's signatures can be checked. A channel is bound to the
/// certificates of such keys only: others anybody may show.
pub fn is_checkable(key: &Key<'_>) -> bool {
    if let Some(bytes) = key.modulus_bytes() {
        return RSA_BYTES.contains(&bytes);
    }
    let mut known = algorithms().all.iter();
    known.any(|known| known.public_key_alg_id().as_ref() == key.algorithm)
}

/// The certificates that vouch for servers.
#[derive(Debug, Default)]
pub struct Roots {
    /// Those that end a chain, each with what webpki makes of it.
    anchors: Vec<(CertificateDer<'static>, TrustAnchor<'static>)>,
    /// Authorities between those and a server, which need not send them.
    between: Vec<CertificateDer<'static>>,
}

impl Roots {
    /// Adds a certificate.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be understood.
    pub fn add(&mut self, der: CertificateDer<'static>) -> Result<(), Error> {
        let parsed = Certificate::parse(&der).ok_or(CertificateError::BadEncoding)?;
        // OpenSSL ends a chain only where nobody stands above.
        if !parsed.is_self_issued() {
            self.between.push(der);
            return Ok(());
        }
        let mut store = RootCertStore::empty();
        store.add(der.clone())?;
        self.anchors
            .extend(store.roots.into_iter().map(|root| (der.clone(), root)));
        Ok(())
    }

    /// Says whether there is no certificate.
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty() && self.between.is_empty()
    }

    fn vouch_for(&self, leaf: &Leaf<'_>) -> Result<(), Error> {
        let now = leaf.now.as_secs();
        if self.anchors.iter().any(|(der, _)| der == leaf.der) {
            return leaf.is_good();
        }
        let current = |der: &CertificateDer<'_>| {
            Certificate::parse(der).is_some_and(|it| it.is_good_at(now) && it.may_issue())
        };
        let anchors = self.anchors.iter().filter(|(der, _)| current(der));
        let between = [leaf.intermediates, &self.between[..]].concat();
        if leaf.parsed.version == 3 && !leaf.parsed.is_authority() {
            let store = RootCertStore {
                roots: anchors.map(|(_, root)| root.clone()).collect(),
            };
            let webpkis = ParsedCertificate::try_from(leaf.der)?;
            let known = algorithms().all;
            return verify_server_cert_signed_by_trust_anchor(
                &webpkis, &store, &between, leaf.now, known,
            );
        }
        leaf.is_good()?;
        let parsed = |der| Certificate::parse(der).map(Rc::new);
        let mut search = Search {
            anchors: anchors.filter_map(|(der, _)| parsed(der)).collect(),
            between: between.iter().filter_map(|der| parsed(der)).collect(),
            now,
            signatures_left: MAX_SIGNATURES,
            met_unknown_kind: false,
        };
        match search.ends_in_anchor(&leaf.parsed, 0) {
            true => Ok(()),
            false if search.met_unknown_kind => Err(UnknownKind.into()),
            false => Err(CertificateError::UnknownIssuer.into()),
        }
    }
}

/// A server's certificate, and what came with it.
struct Leaf<'a> {
    der: &'a CertificateDer<'a>,
    parsed: Certificate<'a>,
    intermediates: &'a [CertificateDer<'a>],
    now: UnixTime,
}

impl Leaf<'_> {
    fn is_good(&self) -> Result<(), Error> {
        if !self.parsed.is_good_at(self.now.as_secs()) {
            return Err(CertificateError::Expired.into());
        }
        if !self.parsed.is_for_servers() || self.parsed.demands_more() {
            return Err(CertificateError::InvalidPurpose.into());
        }
        Ok(())
    }
}

/// Follows a chain from a server's certificate to an anchor.
struct Search<'a> {
    anchors: Vec<Rc<Certificate<'a>>>,
    between: Vec<Rc<Certificate<'a>>>,
    now: u64,
    signatures_left: usize,
    /// An issuer was found whose signature cannot be checked.
    met_unknown_kind: bool,
}

impl<'a> Search<'a> {
    /// `below` authorities stand between `signed` and the server.
    fn ends_in_anchor(&mut self, signed: &Certificate<'a>, below: usize) -> bool {
        for anchor in self.anchors.clone() {
            if anchor.allows_below(below) && self.is_signed_by(signed, &anchor) {
                return true;
            }
        }
        below < MAX_AUTHORITIES
            && self.between.clone().iter().any(|authority| {
                self.may_stand_between(authority, below)
                    && self.is_signed_by(signed, authority)
                    && self.ends_in_anchor(authority, below + 1)
            })
    }

    fn may_stand_between(&self, authority: &Certificate<'_>, below: usize) -> bool {
        authority.version == 3
            && authority.is_authority()
            && authority.may_issue()
            && authority.allows_below(below)
            && authority.is_for_server_authentication()
            && !authority.demands_more()
            && authority.is_good_at(self.now)
    }

    fn is_signed_by(&mut self, signed: &Certificate<'_>, by: &Certificate<'_>) -> bool {
        if signed.issuer != by.subject || self.signatures_left == 0 {
            return false;
        }
        self.signatures_left -= 1;
        let mut known = algorithms().all.iter().filter(|it| {
            it.signature_alg_id().as_ref() == signed.signature_algorithm
                && it.public_key_alg_id().as_ref() == by.key.algorithm
        });
        let Some(algorithm) = known.next() else {
            self.met_unknown_kind = true;
            return false;
        };
        let checked = algorithm.verify_signature(by.key.bits, signed.signed, signed.signature);
        checked.is_ok()
    }
}

/// Verifies as much of a server's certificate as the mode asks for. The
/// handshake's signature is always verified if that is possible.
#[derive(Debug)]
pub struct Verifier {
    /// Who vouches for servers; nobody needs to where this is none.
    pub roots: Option<Arc<Roots>>,
    /// The host that the certificate must be for.
    pub host: Option<String>,
    /// Who wants to know until when certificates are good.
    pub watch: CertificateWatch,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = Certificate::parse(end_entity);
        self.watch.saw(parsed.as_ref());
        let Some(roots) = &self.roots else {
            return Ok(ServerCertVerified::assertion());
        };
        let parsed = parsed.ok_or(CertificateError::BadEncoding)?;
        let leaf = Leaf {
            der: end_entity,
            parsed,
            intermediates,
            now,
        };
        roots.vouch_for(&leaf)?;
        match &self.host {
            Some(host) if !leaf.parsed.is_for(host) => {
                Err(CertificateError::NotValidForName.into())
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signature, usize::MAX)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        use SignatureScheme as It;
        if let It::RSA_PKCS1_SHA256 | It::RSA_PKCS1_SHA384 | It::RSA_PKCS1_SHA512 = signature.scheme
        {
            return Err(CertificateError::BadSignature.into());
        }
        // The first algorithm is the one of the scheme's own curve.
        self.verify_signature(message, certificate, signature, 1)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = algorithms().supported_schemes();
        schemes.extend(PSS_ONLY.map(|(scheme, _)| scheme));
        schemes.extend(UNCHECKED);
        schemes
    }
}

impl Verifier {
    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
        algorithms_at_most: usize,
    ) -> Result<HandshakeSignatureValid, Error> {
        let parsed = Certificate::parse(certificate).ok_or(CertificateError::BadEncoding)?;
        let key = parsed.key;
        if !is_checkable(&key) {
            return match self.roots {
                None => Ok(HandshakeSignatureValid::assertion()),
                Some(_) => Err(UnknownKind.into()),
            };
        }
        let pss = PSS_ONLY
            .iter()
            .find(|(scheme, _)| *scheme == signature.scheme);
        let scheme = pss.map_or(signature.scheme, |(_, scheme)| *scheme);
        let mut mapping = algorithms().mapping.iter();
        let found = mapping.find(|(known, _)| *known == scheme);
        let candidates = found.map(|(_, algorithms)| *algorithms).unwrap_or_default();
        let is_right = candidates.iter().take(algorithms_at_most).any(|it| {
            let fits = it.public_key_alg_id().as_ref() == key.algorithm || key.is_rsa_pss();
            fits && it
                .verify_signature(key.bits, message, signature.signature())
                .is_ok()
        });
        match is_right {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(CertificateError::BadSignature.into()),
        }
    }
}
