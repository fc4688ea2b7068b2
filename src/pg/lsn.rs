//! A place in the write-ahead log.

use std::fmt;
use std::str::FromStr;

/// A log sequence number: bytes since the beginning of the write-ahead log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Returns how many bytes `self` is ahead of `other`; none if it is behind.
    pub fn ahead_of(self, other: Lsn) -> u64 {
        self.0.saturating_sub(other.0)
    }
}

/// The text is no log sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoLsn;

impl FromStr for Lsn {
    type Err = NoLsn;

    /// Parses PostgreSQL's form: two hexadecimal numbers of up to 32 bits with a
    /// slash between them.
    fn from_str(text: &str) -> Result<Lsn, NoLsn> {
        let (high, low) = text.split_once('/').ok_or(NoLsn)?;
        let part = |text: &str| {
            let plain =
                (1..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
            u32::from_str_radix(text, 16).ok().filter(|_| plain)
        };
        let (high, low) = (part(high).ok_or(NoLsn)?, part(low).ok_or(NoLsn)?);
        Ok(Lsn((u64::from(high) << 32) | u64::from(low)))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_printed_as_postgresql_does() {
        for (text, value) in [
            ("0/0", 0),
            ("0/3000060", 0x300_0060),
            ("16/B374D848", 0x16_B374_D848),
            ("FFFFFFFF/FFFFFFFF", u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(Lsn(value)), "{text}");
            assert_eq!(Lsn(value).to_string(), text);
        }
        for text in [
            "",
            "/",
            "0",
            "0/",
            "/0",
            "0/0/0",
            "+0/1",
            "0/1FFFFFFFF",
            "g/0",
            " 0/0",
        ] {
            assert_eq!(text.parse::<Lsn>(), Err(NoLsn), "{text:?}");
        }
    }

    #[test]
    fn who_is_behind_is_not_ahead() {
        assert_eq!(Lsn(10).ahead_of(Lsn(4)), 6);
        assert_eq!(Lsn(4).ahead_of(Lsn(10)), 0);
    }
}
