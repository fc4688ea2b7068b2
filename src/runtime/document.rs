//! Our own small files: one JSON object with a version, so that a later pgpair can
//! tell what an earlier one wrote, and an earlier one sees that it cannot.

use std::fmt;

use serde_json::Value;

/// The version that is written.
pub const VERSION: u64 = 1;

/// What is in a file.
#[derive(Debug, PartialEq)]
pub enum Content {
    /// An object of this version.
    Json(Value),
    /// What was written before there were versions.
    Older(String),
}

/// Why a file's content says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Nothing is in it.
    Empty,
    /// It is damaged, or was never such a file.
    Garbled,
    /// A later pgpair wrote it, in this version.
    Newer(u64),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Empty => f.write_str("it is empty"),
            Unreadable::Garbled => f.write_str("it is garbled"),
            Unreadable::Newer(version) => write!(
                f,
                "it has version {version}, and this pgpair knows version {VERSION}"
            ),
        }
    }
}

impl std::error::Error for Unreadable {}

/// Reads a file's content.
///
/// # Errors
///
/// Says why it cannot be read.
pub fn parse(text: &str) -> Result<Content, Unreadable> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Unreadable::Empty);
    }
    if !text.starts_with('{') {
        return Ok(Content::Older(text.to_owned()));
    }
    let value: Value = serde_json::from_str(text).map_err(|_| Unreadable::Garbled)?;
    match value.get("version").and_then(Value::as_u64) {
        Some(VERSION) => Ok(Content::Json(value)),
        Some(version) if version > VERSION => Err(Unreadable::Newer(version)),
        _ => Err(Unreadable::Garbled),
    }
}

/// Returns the content of a file that says this.
pub fn text(fields: &[(&str, Value)]) -> String {
    let mut text = format!("{{\"version\":{VERSION}");
    for (key, value) in fields {
        text.push_str(&format!(",\"{key}\":{value}"));
    }
    text.push_str("}\n");
    text
}

/// Returns a field that is text.
pub fn word<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Result<Option<u64>, Unreadable> {
        parse(text).map(|content| match content {
            Content::Json(value) => value["n"].as_u64(),
            Content::Older(line) => line.parse().ok(),
        })
    }

    #[test]
    fn this_version_and_what_was_before_it_are_read_and_nothing_else() {
        for (text, expected) in [
            (text(&[("n", 7.into())]).as_str(), Ok(Some(7))),
            ("{\"n\":7,\"version\":1,\"more\":[1]}", Ok(Some(7))),
            ("{\"version\":1}", Ok(None)),
            ("8\n", Ok(Some(8))),
            ("n=8", Ok(None)),
            ("", Err(Unreadable::Empty)),
            (" \n", Err(Unreadable::Empty)),
            ("{\"n\":7}", Err(Unreadable::Garbled)),
            ("{\"n\":7,\"version\":0}", Err(Unreadable::Garbled)),
            ("{\"n\":7,\"version\":\"1\"}", Err(Unreadable::Garbled)),
            ("{\"n\":7,\"vers", Err(Unreadable::Garbled)),
            ("{\"n\":7,\"version\":1}{", Err(Unreadable::Garbled)),
            ("{\"n\":7,\"version\":2}", Err(Unreadable::Newer(2))),
        ] {
            assert_eq!(said(text), expected, "{text:?}");
        }
    }
}
