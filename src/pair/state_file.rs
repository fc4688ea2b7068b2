//! The pair's small files: JSON with a version. What cannot be read is refused by one
//! line that names the file and the cure, and is never written over.

use std::fmt::Display;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde_json::Value;

use crate::runtime::document::{self, Content, Unreadable};

/// None of these files is as long as this.
const MAX_BYTES: u64 = 64 << 10;

/// How a file is read.
pub struct Format<T> {
    /// What JSON of this version says.
    pub json: fn(&Value) -> Option<T>,
    /// What was written before there were versions.
    pub older: fn(&str) -> Option<T>,
    /// What to do about a file that is damaged.
    pub cure: &'static str,
}

/// Reads a file; nothing if there is none.
///
/// # Errors
///
/// Says in one line which file cannot be read, why, and what to do.
pub fn read<T>(path: &Path, format: &Format<T>) -> Result<Option<T>, String> {
    let Some(content) = content(path, format.cure)? else {
        return Ok(None);
    };
    let found = match &content {
        Content::Json(value) => (format.json)(value),
        Content::Older(text) => (format.older)(text),
    };
    let garbled = || cannot(path, &Unreadable::Garbled, format.cure);
    found.map(Some).ok_or_else(garbled)
}

fn content(path: &Path, cure: &str) -> Result<Option<Content>, String> {
    let mut bytes = Vec::new();
    let opened = File::open(path).map(|file| file.take(MAX_BYTES));
    match opened.and_then(|mut file| file.read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot(path, &error, "see why, and run this again")),
    }
    let parsed = document::parse(&String::from_utf8_lossy(&bytes));
    parsed.map(Some).map_err(|error| match error {
        Unreadable::Newer(_) => {
            cannot(path, &error, "use the pgpair that wrote it, or a later one")
        }
        _ => cannot(path, &error, cure),
    })
}

fn cannot(path: &Path, why: &dyn Display, cure: &str) -> String {
    format!("{} cannot be read ({why}): {cure}", path.display())
}

/// What a file that cannot be read may hold, and words that must be said of it.
#[cfg(test)]
pub const UNREADABLE: [(&str, &str); 6] = [
    ("", "it is empty"),
    ("\n", "it is empty"),
    ("what is this?", "it is garbled"),
    ("\0\0\0\0", "it is garbled"),
    ("{\"version\":1,", "it is garbled"),
    (
        "{\"version\":2}",
        "it has version 2, and this pgpair knows version 1): use the pgpair that wrote it",
    ),
];
