//! Compares a host with the names in a certificate, as libpq does it.

use std::net::IpAddr;

/// Says whether a name in a certificate, which may begin with `*.`, is the host's.
/// A star stands for the first label, and for nothing else.
pub fn matches(name: &[u8], host: &str) -> bool {
    let host = host.as_bytes();
    if name.eq_ignore_ascii_case(host) {
        return true;
    }
    let Some(suffix) = name.strip_prefix(b"*").filter(|it| it.len() > 1) else {
        return false;
    };
    let dot = host.iter().position(|byte| *byte == b'.');
    let rest = dot
        .filter(|dot| *dot > 0)
        .map_or(&[][..], |dot| &host[dot..]);
    suffix.starts_with(b".") && suffix.eq_ignore_ascii_case(rest)
}

/// Says whether the bytes of an address in a certificate are this address.
pub fn is_address(name: &[u8], address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => name == address.octets(),
        IpAddr::V6(address) => name == address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_stands_for_the_first_label_only() {
        for (name, host, expected) in [
            ("db.example.com", "db.example.com", true),
            ("DB.Example.com", "db.example.COM", true),
            ("*.example.com", "db.example.com", true),
            ("*.EXAMPLE.com", "db.example.com", true),
            ("*.example.com", ".example.com", false),
            ("*.example.com", "a.db.example.com", false),
            ("*.example.com", "example.com", false),
            ("*.com", "example.com", true),
            ("*", "db", false),
            ("*.", "db.", false),
            ("d*.example.com", "db.example.com", false),
            ("*example.com", "dbexample.com", false),
            ("db.*.com", "db.example.com", false),
            ("db", "db.example.com", false),
            ("db\0.example.com", "db", false),
            ("", "", true),
            ("*.0.0.1", "127.0.0.1", true),
        ] {
            assert_eq!(matches(name.as_bytes(), host), expected, "{name} {host}");
        }
    }

    #[test]
    fn address_is_compared_by_its_bytes() {
        let (four, six) = ("127.0.0.1", "::1");
        let parsed = |text: &str| text.parse().expect("an address");
        assert!(is_address(&[127, 0, 0, 1], parsed(four)));
        assert!(!is_address(&[127, 0, 0, 2], parsed(four)));
        assert!(!is_address(four.as_bytes(), parsed(four)));
        assert!(is_address(
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            parsed(six)
        ));
    }
}
