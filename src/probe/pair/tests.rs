//! Assessments by what is known, as tables.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::probe::lsn::Lsn;
use crate::probe::node::{Receiver, Rows};

/// A node in a few letters: P primary, R read-only primary, S streaming
/// standby, s one that does not stream, b one that may not be looked at, X
/// refused, O overdue, ? unseen; then a digit for its system and a position.
struct Made {
    seen: Option<Observation>,
    replication: Option<Arc<Replication>>,
    overdue: bool,
}

fn made(text: &str, when: Instant) -> Made {
    let letter = text.chars().next().expect("a letter");
    let (system, lsn) = text[1..].split_once('@').unwrap_or((&text[1..], "100"));
    let standby = matches!(letter, 'S' | 's' | 'b');
    let replication = Replication {
        system_identifier: system.parse().ok(),
        timeline: Some(1),
        lsn: lsn.parse().ok().map(Lsn),
        received: lsn.parse().ok().map(Lsn),
        receiver: Some(matches!(letter, 'S' | 'b').then(|| Receiver {
            status: (letter == 'S').then(|| "streaming".to_owned()),
            ..Receiver::default()
        })),
        ..Replication::default()
    };
    let replication = Arc::new(replication);
    let outcome = match letter {
        'X' => Err(Failure::new(Reason::Refused, "phrase")),
        _ => Ok(Facts {
            in_recovery: standby,
            read_only: standby || letter == 'R',
            replication: Some(Arc::clone(&replication)),
        }),
    };
    Made {
        seen: (letter != '?').then_some(Observation {
            began: when,
            ended: when,
            outcome,
        }),
        replication: Some(replication),
        overdue: letter == 'O',
    }
}

/// Assesses nodes that were observed in the order of `nodes`.
fn assessed(nodes: &str) -> Assessment {
    let now = Instant::now();
    let made: Vec<Made> = nodes
        .split(' ')
        .enumerate()
        .map(|(place, text)| made(text, now + Duration::from_millis(place as u64)))
        .collect();
    let known: Vec<Known<'_>> = made
        .iter()
        .map(|made| Known {
            latest: made.seen.as_ref(),
            replication: made
                .replication
                .as_deref()
                .zip(made.seen.as_ref().map(|seen| [seen.began, seen.ended])),
            held_since: made.seen.as_ref().map(|seen| seen.ended),
            overdue: made.overdue.then_some(None),
        })
        .collect();
    assess(&known, &Trail::default(), now)
}

#[test]
fn the_pair_has_one_verdict_for_every_situation() {
    for (nodes, verdict, primary, reasons) in [
        ("P1 S1", "ok", Some(0), "ok ok"),
        ("S1 P1", "ok", Some(1), "ok ok"),
        ("P1", "ok", Some(0), "ok"),
        ("P1 s1", "degraded", Some(0), "ok not_streaming"),
        ("P1 b1", "unknown", Some(0), "ok ok"),
        ("P1 X", "degraded", Some(0), "ok refused"),
        ("P1 O", "degraded", Some(0), "ok timed_out"),
        ("P1 ?", "unknown", Some(0), "ok starting"),
        ("? ?", "unknown", None, "starting starting"),
        ("X S1", "no_primary", None, "refused ok"),
        ("X X", "no_primary", None, "refused refused"),
        ("O S1", "no_primary", None, "timed_out ok"),
        ("S1 S1", "no_primary", None, "ok ok"),
        ("R1 S1", "no_primary", None, "read_only ok"),
        ("P1 P1", "split_brain", None, "split_brain split_brain"),
        ("P1 S2", "diverged", Some(0), "ok wrong_system"),
        ("P1 P2", "diverged", None, "split_brain wrong_system"),
        // Asked before the primary, a standby that is ahead has other WAL.
        ("s1@200 P1@100", "diverged", Some(1), "not_streaming ok"),
        ("P1@100 s1@200", "degraded", Some(0), "ok not_streaming"),
        ("S1@200 P1@100", "ok", Some(1), "ok ok"),
    ] {
        let found = assessed(nodes);
        let words: Vec<_> = found.nodes.iter().map(|it| it.reason.word()).collect();
        assert_eq!(found.verdict.word(), verdict, "{nodes}");
        assert_eq!(found.primary, primary, "{nodes}");
        assert_eq!(words.join(" "), reasons, "{nodes}");
    }
}

#[test]
fn lag_is_told_for_standbys_only_and_never_zero_when_broken() {
    for (nodes, lag) in [
        ("P1@100 S1@90", Some(10)),
        ("P1@100 S1@100", Some(0)),
        ("P1@100 s1@90", Some(10)),
        ("P1@100 s1@100", None),
        ("P1@100 X", None),
        ("P1@100 O", None),
    ] {
        let found = assessed(nodes);
        assert_eq!(found.nodes[1].lag.apply_bytes, lag, "{nodes}");
        assert_eq!(found.nodes[0].lag, Lag::default(), "{nodes}");
    }
}

#[test]
fn states_are_words_for_what_the_server_does() {
    for (nodes, state) in [
        ("P1", "running"),
        ("s1", "running"),
        ("X", "stopped"),
        ("O", "unknown"),
    ] {
        assert_eq!(assessed(nodes).nodes[0].state(), state, "{nodes}");
    }
}

#[test]
fn a_sender_is_found_by_slot_then_by_name_then_by_being_the_only_one() {
    let sender = |name: &str, slot: Option<&str>| Sender {
        application_name: name.to_owned(),
        state: Some("streaming".to_owned()),
        sync_state: Some("async".to_owned()),
        slot: slot.map(str::to_owned),
        ..Sender::default()
    };
    let primary = |senders: Vec<Sender>| Replication {
        senders: Some(Rows::from(senders)),
        ..Replication::default()
    };
    let standby = |slot: Option<&str>| Replication {
        receiver: Some(Some(Receiver {
            slot: slot.map(str::to_owned),
            ..Receiver::default()
        })),
        ..Replication::default()
    };
    let two = primary(vec![sender("x", Some("other")), sender("b", Some("mine"))]);
    let found = |it: &Replication, slot, name| {
        sender_of(it, &standby(slot), name, 2).map(|it| it.application_name.clone())
    };
    assert_eq!(found(&two, Some("other"), "b").as_deref(), Some("x"));
    assert_eq!(found(&two, None, "b").as_deref(), Some("b"));
    assert_eq!(found(&two, None, "c"), None);
    let one = primary(vec![sender("walreceiver", None)]);
    assert_eq!(found(&one, None, "c").as_deref(), Some("walreceiver"));
}

#[test]
fn standby_that_stays_ahead_is_diverged_whoever_was_asked_last() {
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    let primary = made("P1@100", now + Duration::from_millis(500));
    let standby = made("s1@200", later);
    let verdict = |held_since| {
        let known = [&primary, &standby].map(|made| Known {
            latest: made.seen.as_ref(),
            replication: made
                .replication
                .as_deref()
                .zip(made.seen.as_ref().map(|seen| [seen.began, seen.ended])),
            held_since: Some(held_since),
            overdue: None,
        });
        assess(&known, &Trail::default(), later).verdict
    };
    assert_eq!(verdict(now), PairVerdict::Diverged);
    // It may have got that from the primary since that was asked.
    assert_eq!(verdict(later), PairVerdict::Degraded);
}
