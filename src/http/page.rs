//! `/ui`: one page for a person, whole in itself.

/// The page: markup, style and script.
pub const PAGE: &str = include_str!("ui.html");

/// What the page may do: its own style and script, known by their hashes, and
/// asking this pgpair. Nothing from anywhere else.
pub const POLICY: &str = "default-src 'none'; \
    style-src 'sha256-ppTx2JIootrqqrCRS3IdrLtPkKUtWr3mZMkdGQp7Y5o='; \
    script-src 'sha256-EWQMai3Qd9gWkKDqhRVzNgZn3snXSneDv5ThcdAmqYE='; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

#[cfg(test)]
mod tests {
    use base64::Engine;
    use sha2::{Digest, Sha256};

    use super::*;

    fn between<'a>(begin: &str, end: &str) -> &'a str {
        let (_, rest) = PAGE.split_once(begin).expect(begin);
        let (inside, rest) = rest.split_once(end).expect(end);
        assert!(!rest.contains(begin), "there is one {begin}");
        inside
    }

    #[test]
    fn the_policy_lets_the_page_s_own_style_and_script_in() {
        for (directive, text) in [
            ("style-src", between("<style>", "</style>")),
            ("script-src", between("<script>", "</script>")),
        ] {
            let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(text));
            let expected = format!("{directive} 'sha256-{hash}';");
            assert!(POLICY.contains(&expected), "{expected}");
        }
    }

    #[test]
    fn the_page_asks_nobody_else() {
        for word in [
            "http://", "https://", "src=\"", "@import", "style=\"", "onclick=",
        ] {
            let rest = PAGE.replace("http://www.w3.org/2000/svg", "");
            assert!(!rest.contains(word), "{word}");
        }
    }
}
