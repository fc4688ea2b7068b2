//! Inventions near what a parser takes: its words strung together, its corpus
//! with pieces taken out, doubled and put in, and plain noise.

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// One change of a seed.
#[derive(Clone, Debug)]
enum Edit {
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Double(Index, usize),
    Overwrite(Index, u8),
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |index: &Index| index.index(bytes.len() + 1);
        match self {
            Edit::Insert(at, word) => {
                let at = place(at);
                bytes.splice(at..at, word.iter().copied());
            }
            Edit::Remove(at, count) => {
                let at = place(at);
                bytes.drain(at..(at + count).min(bytes.len()));
            }
            Edit::Double(at, count) => {
                let at = place(at);
                let piece = bytes[at..(at + count).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            Edit::Overwrite(at, byte) => {
                let at = place(at);
                if let Some(old) = bytes.get_mut(at) {
                    *old = *byte;
                }
            }
        }
    }
}

/// Reads the words of a property: a dictionary as libFuzzer takes it, lines of
/// `"word"` with `\\`, `\"` and `\xNN`.
pub fn words(here: &Path, name: &str) -> Vec<Vec<u8>> {
    let path = here.join("words").join(format!("{name}.dict"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let lines = text.lines().filter(|line| line.starts_with('"'));
    lines
        .map(|line| unescaped(line.strip_prefix('"').unwrap().strip_suffix('"').unwrap()))
        .collect()
}

fn unescaped(word: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = word.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next().expect("a backslash is followed by something") {
                b'x' => {
                    let digits: Vec<u8> = rest.by_ref().take(2).collect();
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other,
            },
            other => other,
        });
    }
    bytes
}

/// Invents inputs.
pub fn near(seeds: Vec<Vec<u8>>, words: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => select(words),
        1 => "[ -~]{1,4}".prop_map(String::into_bytes),
        1 => any::<char>().prop_map(|c| c.to_string().into_bytes()),
        1 => vec(any::<u8>(), 1..4),
    ];
    let edit = prop_oneof![
        3 => (any::<Index>(), piece.clone()).prop_map(|(at, word)| Edit::Insert(at, word)),
        2 => (any::<Index>(), 1..8_usize).prop_map(|(at, count)| Edit::Remove(at, count)),
        1 => (any::<Index>(), 1..8_usize).prop_map(|(at, count)| Edit::Double(at, count)),
        1 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Edit::Overwrite(at, byte)),
    ];
    let edited = (select(seeds), vec(edit, 1..6)).prop_map(|(mut bytes, edits)| {
        for edit in edits {
            edit.apply(&mut bytes);
        }
        bytes
    });
    prop_oneof![
        4 => edited,
        4 => vec(piece, 0..12).prop_map(|pieces| pieces.concat()),
        1 => vec(any::<u8>(), 0..60),
        1 => any::<String>().prop_map(String::into_bytes),
    ]
}
