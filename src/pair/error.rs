//! Why a command did not do what it was asked: one line that says why, and what
//! to do next.

use std::fmt;

/// Why a command ended without having done all of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Error {
    /// Nothing was touched.
    Refused(String),
    /// It went wrong on the way; the line says what the pair is left in.
    Failed(String),
}

impl Error {
    /// Says the same of something that had already been begun.
    pub fn on_the_way(self) -> Error {
        match self {
            Error::Refused(text) | Error::Failed(text) => Error::Failed(text),
        }
    }

    /// Adds what came of it.
    pub fn and(self, more: &str) -> Error {
        match self {
            Error::Refused(text) => Error::Refused(format!("{text}; {more}")),
            Error::Failed(text) => Error::Failed(format!("{text}; {more}")),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Refused(text) => write!(f, "refused: {}", one_line(text)),
            Error::Failed(text) => write!(f, "failed: {}", one_line(text)),
        }
    }
}

impl std::error::Error for Error {}

/// Makes a refusal.
pub fn refused(text: impl Into<String>) -> Error {
    Error::Refused(text.into())
}

/// Makes a failure on the way.
pub fn failed(text: impl Into<String>) -> Error {
    Error::Failed(text.into())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
