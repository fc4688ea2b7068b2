//! Text that somebody else wrote, made fit to be shown.

/// Returns `text` with a `?` for every character that a terminal or a log would
/// not print as itself, cut at `at_most` characters.
pub fn printable(text: &str, at_most: usize) -> String {
    let shown = text.chars().take(at_most);
    shown.map(|c| if is_shown(c) { c } else { '?' }).collect()
}

/// Control characters, line separators, and what reorders or hides text.
fn is_shown(c: char) -> bool {
    let hides = matches!(
        c,
        '\u{61C}'
            | '\u{200B}'
            | '\u{200E}'..='\u{200F}'
            | '\u{2028}'..='\u{202E}'
            | '\u{2066}'..='\u{2069}'
            | '\u{FEFF}'
            | '\u{FFF9}'..='\u{FFFB}'
    );
    !c.is_control() && !hides
}

/// Returns the value of `key` in a line of `key=value` words.
pub fn value_of<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let mut words = line.split_whitespace();
    words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_printable_becomes_a_question_mark_and_the_rest_stays() {
        for (text, shown) in [
            ("b", "b"),
            ("José / 名前 / 🐘", "José / 名前 / 🐘"),
            ("a\0b\u{1b}[31mc\u{7}\r\n\t", "a?b?[31mc????"),
            ("\u{7f}\u{80}\u{9b}\u{9f}\u{a0}", "????\u{a0}"),
            (
                "\u{202e}\u{2066}\u{200f}\u{61c}\u{2028}\u{feff}\u{200b}",
                "???????",
            ),
            ("", ""),
        ] {
            assert_eq!(printable(text, 64), shown, "{text:?}");
        }
    }

    #[test]
    fn text_is_cut_at_characters_not_bytes() {
        assert_eq!(printable(&"é".repeat(65), 64), "é".repeat(64));
    }

    #[test]
    fn values_are_found_by_their_whole_key() {
        let line = "from=a to=b ran=true\n";
        assert_eq!(value_of(line, "to"), Some("b"));
        assert_eq!(value_of(line, "ran"), Some("true"));
        assert_eq!(value_of(line, "ra"), None);
        assert_eq!(value_of("", "to"), None);
    }
}
