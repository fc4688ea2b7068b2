//! `pgpair status`: what comes over the network goes to a terminal.

use pgpair::commands::status::Status;
use serde_json::json;

/// A table has its lines and no other, and colours are all that steers.
pub fn status(bytes: &[u8]) {
    if let Some(status) = Status::parse(bytes) {
        is_a_table(&status);
    }
    let text = String::from_utf8_lossy(bytes);
    let node = json!({"name": text, "state": text, "role": "standby", "reason": text,
        "detail": text, "age_ms": bytes.len(), "timeline": 1, "replication_state": text,
        "lag_bytes": u64::MAX, "lag_seconds": 1e300});
    let document = json!({"verdict": text, "ready": false, "reason": text, "detail": text,
        "primary": text, "version": text, "nodes": [node, node]});
    let status = Status::parse(document.to_string().as_bytes()).expect("a status");
    is_a_table(&status);
    // The pair, a heading, two nodes, and no more than three troubles.
    let lines = status.table(false).lines().count();
    assert!((4..=7).contains(&lines), "{}", status.table(false));
}

fn is_a_table(status: &Status) {
    let (plain, painted) = (status.table(false), status.table(true));
    assert!(
        plain.ends_with('\n') && !plain.contains("\n\n"),
        "{plain:?}"
    );
    assert!(!plain.contains(steers), "{plain:?}");
    let mut bare = painted;
    for color in ["\x1b[32m", "\x1b[31m", "\x1b[0m"] {
        bare = bare.replace(color, "");
    }
    assert!(!bare.contains(steers), "{bare:?}");
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(squeezed(&bare), squeezed(&plain));
}

/// Control characters, other ends of lines, and what turns the direction of text.
fn steers(character: char) -> bool {
    let turns = matches!(character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (character.is_control() && character != '\n') || turns
}
