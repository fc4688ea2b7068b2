//! Sizes, durations and log positions, against models in whole numbers.

use std::ffi::OsString;
use std::time::Duration;

use pgpair::config::{Config, Environment, Flags, value};
use pgpair::pg::lsn::Lsn;
use pgpair::probe::lag;

/// Splits a number from its unit, both as they stand; the number has digits and
/// at most one point, and a digit at least.
fn number_and_unit(text: &str) -> Option<(&str, &str, &str)> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = &text[..text.len() - unit.len()];
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = whole.len() + part.len() > 0;
    (digits && !part.contains('.')).then_some((whole, part, unit))
}

/// As Patroni reads `lag=`: C's `strtol` takes a leading zero for octal, so such
/// a number is refused here rather than meant in another way.
pub fn size(bytes: &[u8]) {
    let text = &*String::from_utf8_lossy(bytes);
    let units = ["B", "kB", "MB", "GB", "TB"];
    let expected = || {
        let (whole, _, unit) = number_and_unit(text).filter(|_| !text.contains('.'))?;
        let power = match unit {
            "" => 0,
            unit => units.iter().position(|known| *known == unit)?,
        };
        let octal = whole.len() > 1 && whole.starts_with('0');
        let number: u128 = whole.parse().ok().filter(|_| !octal)?;
        let bytes = number.checked_mul(1 << (10 * power))?;
        u64::try_from(bytes).ok()
    };
    let found = lag::parse_bytes(text);
    assert_eq!(found.ok(), expected(), "{text:?}");
    if let Ok(bytes) = found {
        assert_eq!(lag::parse_bytes(&bytes.to_string()), Ok(bytes));
    }
}

/// In nanoseconds, which may be off by what a double cannot hold.
pub fn duration(bytes: &[u8]) {
    let text = &*String::from_utf8_lossy(bytes);
    let expected = nanoseconds(text);
    let found = value::duration(text);
    match (found, expected) {
        (Ok(found), Some(expected)) => {
            let apart = (found.as_nanos() as f64 - expected).abs();
            assert!(
                apart <= 1.0 + expected * 1e-12,
                "{text:?}: {found:?}, not {expected} ns"
            );
        }
        (Ok(found), None) => panic!("{text:?} is no duration, and was {found:?}"),
        // A `Duration` ends at 2^64 seconds.
        (Err(_), Some(expected)) => assert!(expected > 1.8e28, "{text:?} is {expected} ns"),
        (Err(_), None) => {}
    }
    bounds_are_kept(text, found.ok());
}

fn nanoseconds(text: &str) -> Option<f64> {
    let (whole, part, unit) = number_and_unit(text)?;
    let unit = match unit {
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 6e10,
        "h" => 3.6e12,
        _ => return None,
    };
    let digit = |c: char| f64::from(c.to_digit(10).expect("digits"));
    let whole = whole.chars().fold(0.0, |sum, c| sum * 10.0 + digit(c));
    let part = part
        .chars()
        .rev()
        .fold(0.0, |sum, c| (sum + digit(c)) / 10.0);
    Some((whole + part) * unit)
}

fn bounds_are_kept(text: &str, found: Option<Duration>) {
    let milliseconds = Duration::from_millis;
    for (flag, least, most) in [
        ("deadline", milliseconds(10), milliseconds(60_000)),
        ("interval", milliseconds(100), milliseconds(3_600_000)),
        ("drain", Duration::ZERO, milliseconds(3_600_000)),
    ] {
        let flags: Flags = [(flag, text.to_owned())].into_iter().collect();
        let url = ("DATABASE_URL".to_owned(), OsString::from("postgres://u@h"));
        let environment: Environment = [url].into_iter().collect();
        let config = Config::new(&flags, &environment);
        let fine = found.is_some_and(|found| (least..=most).contains(&found));
        assert_eq!(config.is_ok(), fine, "--{flag}={text:?}: {config:?}");
        if let Err(error) = config {
            assert!(error.to_string().starts_with(&format!("--{flag} ")));
        }
    }
}

/// Both ways, and ordered as the numbers are.
pub fn lsn(bytes: &[u8]) {
    let text = &*String::from_utf8_lossy(bytes);
    let part = |text: &str| {
        let fine = (1..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        let digits = text.chars().filter_map(|c| c.to_digit(16));
        fine.then(|| digits.fold(0_u64, |sum, digit| sum << 4 | u64::from(digit)))
    };
    let expected = match text.split('/').collect::<Vec<_>>()[..] {
        [high, low] => part(high).zip(part(low)),
        _ => None,
    };
    let expected = expected.map(|(high, low)| Lsn(high << 32 | low));
    let found = text.parse::<Lsn>().ok();
    assert_eq!(found, expected, "{text:?}");
    let mut number = [0; 8];
    let length = bytes.len().min(8);
    number[..length].copy_from_slice(&bytes[..length]);
    for lsn in found.into_iter().chain([Lsn(u64::from_be_bytes(number))]) {
        assert_eq!(lsn.to_string().parse(), Ok(lsn));
    }
}
