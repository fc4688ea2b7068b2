//! `pgpair inspect`: what is known of a pair on this host, as a table or as JSON.

use std::io::{self, Write};

use serde_json::Value;

use crate::pair::error::Why;
use crate::pair::inspect;
use crate::pair::layout::{Layout, Node};
use crate::runtime::exit;

/// Looks, prints, and returns the exit code.
pub fn run(layout: &Layout, sizes: bool, json: bool) -> u8 {
    let text = inspect::inspect(layout, sizes);
    let found: Value = serde_json::from_str(&text).unwrap_or_default();
    let text = match json {
        true => text + "\n",
        false => table(&found),
    };
    // Who reads may have gone.
    let _ = io::stdout().write_all(text.as_bytes());
    let refused = found.pointer("/refusal/reason").and_then(Value::as_str);
    match refused == Some(Why::NotRoot.word()) {
        true => exit::REFUSED,
        false => exit::OK,
    }
}

/// What is shown of what is unknown, or is not there.
const UNKNOWN: &str = "-";

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => UNKNOWN.to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// What is shown of each node: a heading, and where it is in the JSON.
const COLUMNS: [(&str, &str); 6] = [
    ("DISK", "on_disk"),
    ("TIMELINE", "timeline"),
    ("ENDED", "ended"),
    ("CONTAINER", "container/state"),
    ("SERVER", "server/is"),
    ("STREAMS", "streams"),
];

/// What is said below, where there is something to say.
const LINES: [(&str, &str); 8] = [
    ("at work", "/lock"),
    ("unfinished", "/unfinished"),
    ("promise", "/promise"),
    ("guard", "/guard/state"),
    (
        "guard paused until, in seconds since 1970",
        "/guard/paused_until",
    ),
    ("guard must bring back", "/guard/pending_rejoin"),
    ("refused", "/refusal/detail"),
    ("unreadable", "/unreadable"),
];

fn table(found: &Value) -> String {
    let at = |pointer: &str| cell(found.pointer(pointer));
    let mut text = format!(
        "pair {} in {}, primary on disk: {}\nNODE",
        at("/prefix"),
        at("/root"),
        at("/primary")
    );
    let nodes =
        Node::BOTH.map(|node| COLUMNS.map(|(_, pointer)| at(&format!("/nodes/{node}/{pointer}"))));
    let width = |column: usize| {
        let [a, b] = &nodes;
        let (a, b) = (a[column].len(), b[column].len());
        a.max(b).max(COLUMNS[column].0.len())
    };
    for (column, (head, _)) in COLUMNS.iter().enumerate() {
        text.push_str(&format!("  {head:0$}", width(column)));
    }
    for (node, cells) in Node::BOTH.iter().zip(&nodes) {
        text.push_str(&format!("\n{node}   "));
        for (column, cell) in cells.iter().enumerate() {
            text.push_str(&format!("  {cell:0$}", width(column)));
        }
    }
    text.push('\n');
    for (label, pointer) in LINES {
        let said = at(pointer);
        if said != UNKNOWN && said != "[]" {
            text.push_str(&format!("{label}: {said}\n"));
        }
    }
    text
}
