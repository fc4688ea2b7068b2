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

/// A JSON object that is being written.
#[derive(Debug, Default)]
pub struct Object(String);

impl Object {
    /// Begins the content of a file.
    pub fn versioned() -> Object {
        let mut object = Object::default();
        object.number("version", Some(VERSION));
        object
    }

    /// Adds a field that is JSON already.
    pub fn raw(&mut self, key: &str, json: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.push_str(&quoted(key));
        self.0.push(':');
        self.0.push_str(json);
    }

    /// Adds all fields of another object.
    pub fn fields(&mut self, object: &str) {
        let inner = object.strip_prefix('{').and_then(|it| it.strip_suffix('}'));
        if let Some(inner) = inner.filter(|it| !it.is_empty()) {
            self.0.push(if self.0.is_empty() { '{' } else { ',' });
            self.0.push_str(inner);
        }
    }

    /// Adds text; `null` without it.
    pub fn text(&mut self, key: &str, value: Option<&str>) {
        match value {
            Some(text) => self.raw(key, &quoted(text)),
            None => self.raw(key, "null"),
        }
    }

    /// Adds a number; `null` without it.
    pub fn number(&mut self, key: &str, value: Option<u64>) {
        match value {
            Some(number) => self.raw(key, &number.to_string()),
            None => self.raw(key, "null"),
        }
    }

    /// Adds a yes or no.
    pub fn yes(&mut self, key: &str, value: bool) {
        self.raw(key, if value { "true" } else { "false" });
    }

    /// Adds a list of what is JSON already.
    pub fn list(&mut self, key: &str, items: &[String]) {
        self.raw(key, &format!("[{}]", items.join(",")));
    }

    /// Returns the object.
    pub fn end(mut self) -> String {
        self.0.push_str(if self.0.is_empty() { "{}" } else { "}" });
        self.0
    }

    /// Returns the object as the content of a file.
    pub fn line(self) -> String {
        self.end() + "\n"
    }
}

/// Returns text as JSON.
pub fn quoted(text: &str) -> String {
    // Text has no key that could be none.
    serde_json::to_string(text).unwrap_or_default()
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

    fn seven() -> String {
        let mut object = Object::versioned();
        object.number("n", Some(7));
        object.line()
    }

    #[test]
    fn what_is_written_is_json() {
        let mut object = Object::default();
        object.text("a\"", Some("b\n\u{1}\""));
        object.text("none", None);
        object.fields("{\"yes\":true}");
        object.fields("{}");
        object.list("list", &[quoted("c"), "1".to_owned()]);
        let written: Value = serde_json::from_str(&object.end()).expect("JSON");
        let meant =
            serde_json::json!({"a\"": "b\n\u{1}\"", "none": null, "yes": true, "list": ["c", 1]});
        assert_eq!(written, meant);
        assert_eq!(Object::default().end(), "{}");
    }

    #[test]
    fn this_version_and_what_was_before_it_are_read_and_nothing_else() {
        for (text, expected) in [
            (seven().as_str(), Ok(Some(7))),
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
