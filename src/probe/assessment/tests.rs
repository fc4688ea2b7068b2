//! Assessments by what is known, as tables.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::pg::lsn::Lsn;
use crate::probe::node::Receiver;

/// A node in a few letters: P primary, N one that nobody reads from, D one of one
/// server, R read-only primary, S streaming standby, L one on a later timeline, s
/// one that does not stream, b one that may not be looked at, X refused, A login
/// refused, U unresolved, O overdue, ? unseen; then a digit for its system and a
/// position.
struct Made {
    seen: Option<Observation>,
    replication: Option<Arc<Replication>>,
    overdue: bool,
}

impl Made {
    /// What is known after it was seen like this twice, the second time at `seen`.
    fn known(&self) -> Known<'_> {
        let seen = self.seen.as_ref();
        let twice =
            seen.map(|seen| Span::begin([seen.began - BEFORE; 2]).extend(seen.round_trip()));
        let facts = seen.and_then(Observation::facts);
        let writable = facts.is_some_and(Facts::is_writable_primary);
        let streams = self.replication.as_ref().and_then(|it| it.streams()) == Some(true);
        Known {
            latest: seen,
            replication: facts
                .and(self.replication.as_deref())
                .zip(seen.map(Observation::round_trip)),
            held_since: seen.map(|seen| seen.ended),
            overdue: self.overdue.then_some(None),
            writable: twice.filter(|_| writable),
            lost_at: None,
            streaming: twice.filter(|_| streams && facts.is_some_and(|it| it.in_recovery)),
            is_new: false,
        }
    }
}

/// How long before it was seen for the first time.
const BEFORE: Duration = Duration::from_millis(500);

fn names(count: usize) -> Vec<String> {
    ["a", "b", "c"][..count]
        .iter()
        .map(|it| (*it).to_owned())
        .collect()
}

fn made(text: &str, when: Instant) -> Made {
    let letter = text.chars().next().expect("a letter");
    let (system, lsn) = text[1..].split_once('@').unwrap_or((&text[1..], "100"));
    let standby = matches!(letter, 'S' | 's' | 'b' | 'L');
    let replication = Replication {
        system_identifier: system.parse().ok(),
        started_us: (letter == 'D').then_some(7),
        timeline: Some(if letter == 'L' { 2 } else { 1 }),
        senders: (letter == 'N').then(|| Vec::new().into()),
        lsn: lsn.parse().ok().map(Lsn),
        received: lsn.parse().ok().map(Lsn),
        receiver: Some(matches!(letter, 'S' | 'b' | 'L').then(|| Receiver {
            status: (letter != 'b').then(|| "streaming".to_owned()),
            ..Receiver::default()
        })),
        ..Replication::default()
    };
    let replication = Arc::new(replication);
    let outcome = match letter {
        'X' => Err(Failure::new(Reason::Refused, "phrase")),
        'A' => Err(Failure::new(Reason::AuthFailed, "phrase")),
        'U' => Err(Failure::new(Reason::Unresolved, "phrase")),
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
    let now = Instant::now() + BEFORE;
    let made: Vec<Made> = nodes
        .split(' ')
        .enumerate()
        .map(|(place, text)| made(text, now + Duration::from_millis(place as u64)))
        .collect();
    let known: Vec<Known<'_>> = made.iter().map(Made::known).collect();
    assess(&known, &names(known.len()), &Trail::default(), None, now)
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
        // Who does not let the probe in may be a primary.
        ("O S1", "unknown", None, "timed_out ok"),
        ("A S1", "unknown", None, "auth_failed ok"),
        ("U S1", "unknown", None, "unresolved ok"),
        ("A A", "unknown", None, "auth_failed auth_failed"),
        ("A X", "unknown", None, "auth_failed refused"),
        ("P1 A", "degraded", Some(0), "ok auth_failed"),
        ("P1 S1 S1", "ok", Some(0), "ok ok ok"),
        ("P1 S1 X", "degraded", Some(0), "ok ok refused"),
        ("P1 S1 s1", "degraded", Some(0), "ok ok not_streaming"),
        ("P1 S1 b1", "unknown", Some(0), "ok ok ok"),
        ("P1 s1 b1", "degraded", Some(0), "ok not_streaming ok"),
        ("P1 S1 R1", "degraded", Some(0), "ok ok read_only"),
        // It streams, and from somebody else.
        ("N1 S1", "degraded", Some(0), "ok not_streaming"),
        ("P1 L1", "diverged", Some(0), "ok not_streaming"),
        ("S1 N1", "degraded", Some(1), "not_streaming ok"),
        // Two names of one server.
        ("D1 D1", "degraded", Some(0), "ok not_streaming"),
        (
            "D1 D1 P1",
            "split_brain",
            None,
            "split_brain not_streaming split_brain",
        ),
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
fn a_sender_is_found_by_its_slot_or_by_the_one_row_of_its_name_and_never_guessed() {
    let sender = |name: &str, slot: Option<&str>| Sender {
        application_name: name.to_owned(),
        state: Some("streaming".to_owned()),
        sync_state: Some("async".to_owned()),
        replayed: Some(Lsn(1)),
        slot: slot.map(str::to_owned),
        ..Sender::default()
    };
    let receiving = Sender {
        replayed: None,
        ..sender("pg_receivewal", None)
    };
    let standby = |slot: Option<&str>, own: Option<&str>, cluster: Option<&str>| Replication {
        cluster_name: cluster.map(str::to_owned),
        receiver: Some(Some(Receiver {
            slot: slot.map(str::to_owned),
            application_name: own.map(str::to_owned),
            ..Receiver::default()
        })),
        ..Replication::default()
    };
    let two = [sender("x", Some("other")), sender("b", Some("mine"))];
    let same = [sender("s", None), sender("s", None)];
    let apart = [sender("s", Some("one")), sender("s", Some("two"))];
    let unnamed = [sender("walreceiver", None), receiving.clone()];
    for (rows, standby, expected) in [
        (&two[..], standby(Some("other"), None, None), Some(0)),
        (&two, standby(None, None, None), Some(1)),
        (&two, standby(None, Some("x"), None), Some(0)),
        (&two, standby(None, Some("y"), None), None),
        (&two, standby(Some("third"), None, None), None),
        (&same, standby(None, None, Some("s")), None),
        (&apart, standby(Some("two"), None, Some("s")), Some(1)),
        (&unnamed, standby(None, None, None), Some(0)),
        (&unnamed, standby(None, None, Some("s")), None),
        (&[receiving], standby(None, None, None), None),
    ] {
        let primary = Replication {
            senders: Some(rows.to_vec().into()),
            ..Replication::default()
        };
        let found = sender_of(&primary, &standby, "b");
        let place = found.map(|found| primary.senders().iter().position(|it| it == found));
        assert_eq!(place.flatten(), expected, "{rows:?} {standby:?}");
    }
}

#[test]
fn standby_that_stays_ahead_is_diverged_whoever_was_asked_last() {
    let now = Instant::now() + BEFORE;
    let later = now + Duration::from_secs(1);
    let primary = made("P1@100", now + Duration::from_millis(500));
    let standby = made("s1@200", later);
    let verdict = |held_since| {
        let known = [&primary, &standby].map(|made| Known {
            held_since: Some(held_since),
            ..made.known()
        });
        assess(&known, &names(2), &Trail::default(), None, later).verdict
    };
    assert_eq!(verdict(now), PairVerdict::Diverged);
    // It may have got that from the primary since that was asked.
    assert_eq!(verdict(later), PairVerdict::Degraded);
}

const SECOND: Duration = Duration::from_secs(1);

fn former(verdict: PairVerdict, primary: Option<usize>) -> Option<Former> {
    Some(Former {
        verdict,
        primary,
        writable_primaries: usize::from(primary.is_some()),
    })
}

#[test]
fn two_primaries_are_a_split_only_if_both_were_writable_at_one_moment() {
    let now = Instant::now() + BEFORE;
    let at = |ms| now + Duration::from_millis(ms);
    let span = |since, until| Some(Span::begin([at(since); 2]).extend([at(until); 2]));
    let (old, new) = (made("P1", at(400)), made("P1", at(1_000)));
    for (first, second, verdict, primary, count, again) in [
        // a was the primary until 0.6 s ago, for all that is known, and b is now.
        (span(0, 400), span(1_000, 1_000), "ok", Some(0), 1, &[0][..]),
        (span(0, 400), span(900, 1_000), "ok", Some(0), 1, &[0]),
        // Asked again, a still is.
        (
            span(0, 1_001),
            span(1_000, 1_000),
            "split_brain",
            None,
            2,
            &[],
        ),
        (span(0, 400), span(300, 1_000), "split_brain", None, 2, &[]),
    ] {
        let known = [
            Known {
                writable: first,
                ..old.known()
            },
            Known {
                writable: second,
                ..new.known()
            },
        ];
        let was = former(PairVerdict::Ok, Some(0));
        let found = assess(&known, &names(2), &Trail::default(), was, now);
        assert_eq!(found.verdict.word(), verdict, "{first:?} {second:?}");
        assert_eq!(found.primary, primary, "{first:?} {second:?}");
        assert_eq!(found.writable_primaries, count, "{first:?} {second:?}");
        assert_eq!(found.ask_again, again, "{first:?} {second:?}");
    }
}

#[test]
fn that_nobody_is_primary_needs_answers_of_after_the_primary_was_lost() {
    let now = Instant::now() + BEFORE;
    let at = |ms| now + Duration::from_millis(ms);
    let gone = made("X", at(900));
    for (standby_asked, verdict, again) in [(300, "ok", &[1][..]), (500, "no_primary", &[])] {
        let standby = made("S1", at(standby_asked));
        let known = [
            Known {
                lost_at: Some(at(400)),
                ..gone.known()
            },
            standby.known(),
        ];
        let was = former(PairVerdict::Ok, Some(0));
        let found = assess(&known, &names(2), &Trail::default(), was, at(900));
        assert_eq!(found.verdict.word(), verdict, "{standby_asked}");
        assert_eq!(found.ask_again, again, "{standby_asked}");
    }
}

#[test]
fn facts_that_are_too_old_are_not_told() {
    let now = Instant::now() + BEFORE;
    let (primary, standby) = (made("P1", now), made("S1", now));
    let frozen = Known {
        replication: None,
        streaming: None,
        ..standby.known()
    };
    let found = assess(
        &[primary.known(), frozen],
        &names(2),
        &Trail::default(),
        None,
        now + SECOND,
    );
    assert_eq!(found.verdict, PairVerdict::Unknown);
    assert_eq!(found.nodes[1].lag, Lag::default());
    assert_eq!(found.nodes[1].lag_asked, None);
}

#[test]
fn node_that_has_just_begun_to_answer_is_asked_again_before_the_verdict_changes() {
    let now = Instant::now() + BEFORE;
    let (primary, standby) = (made("P1", now), made("S1", now));
    for (was, is_new, verdict) in [
        (PairVerdict::Degraded, true, PairVerdict::Degraded),
        (PairVerdict::Ok, true, PairVerdict::Ok),
        (PairVerdict::Ok, false, PairVerdict::Unknown),
    ] {
        let role_only = Known {
            replication: None,
            streaming: None,
            is_new,
            ..standby.known()
        };
        let known = [primary.known(), role_only];
        let was = former(was, Some(0));
        let found = assess(&known, &names(2), &Trail::default(), was, now);
        assert_eq!(found.verdict, verdict);
        assert_eq!(found.primary, Some(0));
        assert_eq!(found.ask_again.is_empty(), !is_new);
    }
}

#[test]
fn standby_that_streams_only_since_the_primary_was_asked_is_not_said_to_stray() {
    let now = Instant::now() + BEFORE;
    let (primary, standby) = (made("N1", now), made("S1", now));
    let at = |ms: u64| now - BEFORE + Duration::from_millis(ms);
    for (since, verdict) in [(400, PairVerdict::Degraded), (501, PairVerdict::Ok)] {
        let streams = Known {
            streaming: Some(Span::begin([at(since); 2])),
            ..standby.known()
        };
        let known = [primary.known(), streams];
        let found = assess(&known, &names(2), &Trail::default(), None, now);
        assert_eq!(found.verdict, verdict, "since {since}");
    }
}

#[test]
fn lag_is_as_old_as_the_older_of_the_answers_it_rests_on() {
    let now = Instant::now() + BEFORE;
    let (primary, standby) = (made("P1@100", now), made("S1@90", now + SECOND));
    let known = [primary.known(), standby.known()];
    let found = assess(&known, &names(2), &Trail::default(), None, now + SECOND);
    assert_eq!(found.nodes[1].lag_asked, Some(now));
    assert_eq!(found.nodes[0].lag_asked, None);
}
