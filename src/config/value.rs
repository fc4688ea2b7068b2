//! Single values of settings: durations, numbers, words, names.

use std::time::Duration;

/// Parses a duration: a number, which may have a fraction, and `ms`, `s`, `m`
/// or `h`.
///
/// # Errors
///
/// Says what would do.
pub fn duration(text: &str) -> Result<Duration, &'static str> {
    const WOULD_DO: &str = "use a number and a unit (ms, s, m or h), for example 900ms";
    let split = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .ok_or(WOULD_DO)?;
    let (number, unit) = text.split_at(split);
    let milliseconds = match unit {
        "ms" => 1.0,
        "s" => 1_000.0,
        "m" => 60_000.0,
        "h" => 3_600_000.0,
        _ => return Err(WOULD_DO),
    };
    let number: f64 = number.parse().map_err(|_| WOULD_DO)?;
    Duration::try_from_secs_f64(number * milliseconds / 1_000.0).map_err(|_| WOULD_DO)
}

/// Parses a port: decimal digits, 1 to 65535.
pub fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

/// The longest piece of a word that is repeated in an error.
const MAX_SHOWN: usize = 60;

/// Quotes a word of the command line for an error: cut where it is long, and not
/// at all where it may be a connection string, which may hold a password.
pub fn shown(word: &str) -> String {
    if word.contains(['@', '=']) {
        return "\"…\"".to_owned();
    }
    let shown: String = word.chars().take(MAX_SHOWN).collect();
    format!("{shown:?}")
}

/// Longest name of a node: that of a label in DNS.
pub const MAX_NODE_NAME: usize = 63;

/// Says whether `name` will do for a node: it stands in paths, logs and labels.
pub fn is_node_name(name: &str) -> bool {
    (1..=MAX_NODE_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && name.bytes().any(|b| b.is_ascii_alphanumeric())
}

/// Longest name of a host: that of DNS.
const MAX_HOST_NAME: usize = 253;

/// Says whether `name` can be a host's: letters, digits, `-`, `_` and `.`, no dot at
/// either end.
pub fn is_host_name(name: &str) -> bool {
    name.len() <= MAX_HOST_NAME
        && name.split('.').all(|label| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            !label.is_empty() && label.bytes().all(plain)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        for (text, milliseconds) in [
            ("900ms", 900),
            ("1s", 1_000),
            ("1.5s", 1_500),
            ("0s", 0),
            ("2m", 120_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(
                duration(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        for text in [
            "",
            "1",
            "s",
            "ms",
            "-1s",
            "1 s",
            "1S",
            "1d",
            "1e3s",
            ".s",
            "1..5s",
            "1s1s",
            "inf",
            "nans",
            "99999999999999999999999999h",
        ] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn node_names_are_plain() {
        for name in ["a", "pgpair-a", "db.example.com", "A_1"] {
            assert!(is_node_name(name), "{name}");
        }
        let long = "x".repeat(64);
        for name in ["", "a/b", "a b", "ä", "..", "-", "a\n", long.as_str()] {
            assert!(!is_node_name(name), "{name:?}");
        }
    }

    #[test]
    fn host_names_have_labels() {
        for name in ["a", "pgpair-probe", "db_1.example.com"] {
            assert!(is_host_name(name), "{name}");
        }
        let long = "x".repeat(254);
        for name in [
            "", ".", "a.", ".a", "a..b", "a:1", "ä", "a b", "[::1]", "*", &long,
        ] {
            assert!(!is_host_name(name), "{name:?}");
        }
    }
}
