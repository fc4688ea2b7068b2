//! Why a command did not do what it was asked: one line that says why, and what
//! to do next.

use std::fmt;

/// Why a command ended without having done all of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing was touched.
    Refused(String),
    /// It went wrong on the way; the line says what the pair is left in.
    Failed(String),
}

impl Trouble {
    /// Says the same of something that had already been begun.
    pub fn on_the_way(self) -> Trouble {
        match self {
            Trouble::Refused(text) | Trouble::Failed(text) => Trouble::Failed(text),
        }
    }

    /// Adds what came of it.
    pub fn and(self, more: &str) -> Trouble {
        match self {
            Trouble::Refused(text) => Trouble::Refused(format!("{text}; {more}")),
            Trouble::Failed(text) => Trouble::Failed(format!("{text}; {more}")),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Refused(text) => write!(f, "refused: {}", one_line(text)),
            Trouble::Failed(text) => write!(f, "failed: {}", one_line(text)),
        }
    }
}

impl std::error::Error for Trouble {}

/// Makes a refusal.
pub fn refused(text: impl Into<String>) -> Trouble {
    Trouble::Refused(text.into())
}

/// Makes a failure on the way.
pub fn failed(text: impl Into<String>) -> Trouble {
    Trouble::Failed(text.into())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
