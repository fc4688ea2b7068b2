use super::super::node::{Receiver, Rows, Sender};
use super::super::span::Span;
use super::*;
use crate::pg::lsn::Lsn;

fn answered(now: Instant, in_recovery: bool, read_only: bool) -> Observation {
    Observation {
        began: now,
        ended: now,
        outcome: Ok(Facts {
            in_recovery,
            read_only,
            replication: None,
        }),
    }
}

fn failed(now: Instant, reason: Reason) -> Observation {
    Observation {
        began: now,
        ended: now,
        outcome: Err(Failure::new(reason, "phrase")),
    }
}

/// One letter a node: P primary, R read-only primary, S standby, X refused,
/// T timed out, O overdue, W overdue after `shutting_down`, ? pending.
fn decide(policy: Policy, nodes: &str, last_primary: Option<usize>) -> Option<Verdict> {
    let now = Instant::now();
    let primary = answered(now, false, false);
    let read_only = answered(now, false, true);
    let standby = answered(now, true, true);
    let refused = failed(now, Reason::Refused);
    let stopping = Failure::new(Reason::ShuttingDown, "phrase");
    let quiet = Silence {
        since: now,
        so_far: None,
    };
    let views: Vec<View<'_>> = nodes
        .chars()
        .map(|letter| match letter {
            'P' => Sight::Fresh(&primary),
            'R' => Sight::Fresh(&read_only),
            'S' => Sight::Fresh(&standby),
            'X' => Sight::Fresh(&refused),
            'T' => Sight::TimedOut(quiet),
            'O' => Sight::Overdue(quiet),
            'W' => Sight::Overdue(Silence {
                since: now,
                so_far: Some(&stopping),
            }),
            _ => Sight::Pending,
        })
        .map(|sight| View {
            sight,
            told: None,
            write: Sight::Pending,
            login: Sight::Pending,
        })
        .collect();
    let question = Question {
        ask: Ask::Ready(Trials::default()),
        scope: Scope::Pair,
    };
    decide_with(question, policy, &views, &[], last_primary, now)
}

fn decide_with(
    question: Question,
    policy: Policy,
    views: &[View<'_>],
    known: &[Known<'_>],
    last_primary: Option<usize>,
    now: Instant,
) -> Option<Verdict> {
    let names = ["a".to_owned(), "b".to_owned()];
    let of = Circumstances {
        policy,
        views,
        known,
        names: &names,
        last_primary,
        late: false,
        now,
    };
    super::decide(question, &of)
}

fn said(verdict: Option<Verdict>) -> String {
    match verdict {
        None => "wait".to_owned(),
        Some(v) => {
            let node = v.node.map_or("-".to_owned(), |node| node.to_string());
            format!("{} {} {node}", if v.ok { 200 } else { 503 }, v.reason)
        }
    }
}

#[test]
fn ready_needs_a_writable_primary_by_default() {
    for (nodes, last, expected) in [
        ("P", None, "200 ok 0"),
        ("R", None, "503 read_only 0"),
        ("S", None, "503 in_recovery 0"),
        ("X", None, "503 refused 0"),
        ("T", None, "503 timed_out 0"),
        ("O", None, "503 overdue 0"),
        ("W", None, "503 shutting_down 0"),
        ("?", None, "wait"),
        ("PS", None, "200 ok 0"),
        ("SP", None, "200 ok 1"),
        ("P?", None, "200 ok 0"),
        ("?P", None, "200 ok 1"),
        ("OP", Some(0), "200 ok 1"),
        ("PP", None, "200 ok 0"),
        ("SS", None, "503 no_primary -"),
        ("SS", Some(1), "503 no_primary -"),
        ("XS", None, "503 refused 0"),
        ("SX", None, "503 refused 1"),
        ("S?", None, "wait"),
        ("X?", None, "wait"),
        ("O?", Some(0), "wait"),
        ("OS", Some(0), "503 overdue 0"),
        ("XO", Some(0), "503 refused 0"),
        ("XO", Some(1), "503 overdue 1"),
        ("XO", None, "503 refused 0"),
        ("SR", None, "503 read_only 1"),
    ] {
        assert_eq!(
            said(decide(Policy::Primary, nodes, last)),
            expected,
            "{nodes}"
        );
    }
}

#[test]
fn ready_any_needs_one_answer_and_all_needs_every_answer() {
    for (nodes, any, all) in [
        ("PS", "200 ok 0", "200 ok -"),
        ("SS", "200 ok 0", "200 ok -"),
        ("XS", "200 ok 1", "503 refused 0"),
        ("X?", "wait", "503 refused 0"),
        ("S?", "200 ok 0", "wait"),
        ("XT", "503 refused 0", "503 refused 0"),
        ("RO", "200 ok 0", "503 overdue 1"),
    ] {
        assert_eq!(said(decide(Policy::Any, nodes, None)), any, "any {nodes}");
        assert_eq!(said(decide(Policy::All, nodes, None)), all, "all {nodes}");
    }
}

#[test]
fn pending_nodes_never_yield_200() {
    for policy in Policy::ALL {
        assert_eq!(decide(policy, "??", None), None);
    }
}

#[test]
fn silence_is_told_in_seconds() {
    let now = Instant::now();
    let silence = Silence {
        since: now - Duration::from_millis(4_200),
        so_far: None,
    };
    let view = View {
        sight: Sight::Overdue(silence),
        told: None,
        write: Sight::Pending,
        login: Sight::Pending,
    };
    let question = Question {
        ask: Ask::Ready(Trials::default()),
        scope: Scope::Pair,
    };
    let verdict = decide_with(question, Policy::Primary, &[view], &[], None, now)
        .expect("nothing is pending");
    assert_eq!(verdict.detail.as_deref(), Some("no answer for 4.2 s"));
    assert_eq!(verdict.age, Some(Duration::from_millis(4_200)));
}

/// What the board knows of a node in such a letter: seen like this for a while.
fn known(letter: char, seen: &Observation) -> Known<'_> {
    let begin = seen.began - Duration::from_secs(1);
    let span = Span::begin([begin; 2]).extend(seen.round_trip());
    let facts = seen.facts().filter(|_| !matches!(letter, 'X' | 'O' | '?'));
    let replication = facts.and_then(|facts| facts.replication.as_deref());
    Known {
        latest: facts.map(|_| seen),
        replication: replication.map(|told| (told, seen.round_trip())),
        writable: facts.filter(|it| it.is_writable_primary()).map(|_| span),
        streaming: (letter == 'S').then_some(span),
        ..Known::default()
    }
}

/// Nodes in letters as above, with replication: P and Q primaries of systems 1
/// and 2 at position 100; S a streaming standby at 90, s one that does not
/// stream, b one that may not be looked at; lower-case p and q are pending
/// and were primaries, ? is pending and was none.
fn decide_replication(ask: Ask, scope: Scope, nodes: &str) -> String {
    let now = Instant::now();
    let replication = |system, lsn, status: Option<Option<&str>>| {
        Some(std::sync::Arc::new(Replication {
            system_identifier: Some(system),
            lsn: Some(Lsn(lsn)),
            received: Some(Lsn(lsn + 5)),
            receiver: Some(status.map(|status| Receiver {
                status: status.map(str::to_owned),
                ..Receiver::default()
            })),
            senders: Some(Rows::from(vec![Sender {
                application_name: "b".to_owned(),
                state: Some("streaming".to_owned()),
                sync_state: Some("sync".to_owned()),
                replayed: Some(Lsn(80)),
                ..Sender::default()
            }])),
            ..Replication::default()
        }))
    };
    let facts = |letter| match letter {
        'P' | 'p' | 'Q' | 'q' => Facts {
            in_recovery: false,
            read_only: false,
            replication: replication(if matches!(letter, 'Q' | 'q') { 2 } else { 1 }, 100, None),
        },
        letter => Facts {
            in_recovery: true,
            read_only: true,
            replication: replication(
                1,
                90,
                match letter {
                    'S' => Some(Some("streaming")),
                    'b' => Some(None),
                    _ => None,
                },
            ),
        },
    };
    let refused = failed(now, Reason::Refused);
    let quiet = Silence {
        since: now,
        so_far: None,
    };
    let seen: Vec<_> = nodes
        .chars()
        .map(|letter| Observation {
            began: now,
            ended: now,
            outcome: Ok(facts(letter)),
        })
        .collect();
    let views: Vec<_> = nodes
        .chars()
        .zip(&seen)
        .map(|(letter, seen)| View {
            sight: match letter {
                'p' | 'q' | '?' => Sight::Pending,
                'X' => Sight::Fresh(&refused),
                'O' => Sight::Overdue(quiet),
                _ => Sight::Fresh(seen),
            },
            told: seen
                .facts()
                .filter(|_| matches!(letter, 'p' | 'q'))
                .and_then(|facts| facts.replication.as_deref()),
            write: Sight::Pending,
            login: Sight::Pending,
        })
        .collect();
    let known: Vec<_> = nodes
        .chars()
        .zip(&seen)
        .map(|(letter, seen)| known(letter, seen))
        .collect();
    let question = Question { ask, scope };
    let last_primary = nodes.find(['p', 'q']);
    said(decide_with(
        question,
        Policy::Primary,
        &views,
        &known,
        last_primary,
        now,
    ))
}

#[test]
fn a_primary_is_the_only_one() {
    for (nodes, pair, first) in [
        ("PS", "200 ok 0", "200 ok 0"),
        ("SP", "200 ok 1", "503 in_recovery 0"),
        ("PP", "503 split_brain -", "503 split_brain -"),
        ("PX", "200 ok 0", "200 ok 0"),
        ("PO", "200 ok 0", "200 ok 0"),
        ("P?", "200 ok 0", "200 ok 0"),
        // It was a primary a moment ago: worth waiting for.
        ("Pp", "wait", "wait"),
        ("SS", "503 no_primary -", "503 in_recovery 0"),
        ("XS", "503 refused 0", "503 refused 0"),
        ("S?", "wait", "503 in_recovery 0"),
    ] {
        let decided = |scope| decide_replication(Ask::Primary, scope, nodes);
        assert_eq!(decided(Scope::Pair), pair, "{nodes}");
        assert_eq!(decided(Scope::Node(0)), first, "{nodes}, node 0");
    }
}

#[test]
fn a_replica_streams_and_is_not_further_behind_than_allowed() {
    let limit = |max_bytes| {
        let limit = LagLimit {
            max_bytes,
            mode: Mode::Apply,
        };
        Ask::Replica(Kind::Any, limit)
    };
    for (nodes, any, ten, nine) in [
        ("PS", "200 ok 1", "200 ok 1", "503 lagging 1"),
        ("SP", "200 ok 0", "200 ok 0", "503 lagging 0"),
        (
            "Ps",
            "503 not_streaming 1",
            "503 not_streaming 1",
            "503 not_streaming 1",
        ),
        (
            "Pb",
            "503 not_streaming 1",
            "503 not_streaming 1",
            "503 not_streaming 1",
        ),
        ("PX", "503 refused 1", "503 refused 1", "503 refused 1"),
        (
            "QS",
            "503 wrong_system 1",
            "503 wrong_system 1",
            "503 wrong_system 1",
        ),
        (
            "P",
            "503 not_streaming -",
            "503 not_streaming -",
            "503 not_streaming -",
        ),
        (
            "PP",
            "503 not_streaming -",
            "503 not_streaming -",
            "503 not_streaming -",
        ),
        // Without a primary, by what the receiver heard of.
        ("XS", "200 ok 1", "200 ok 1", "200 ok 1"),
        ("OS", "200 ok 1", "200 ok 1", "200 ok 1"),
        // The primary's position decides, and is waited for.
        ("?S", "200 ok 1", "wait", "wait"),
        ("pS", "200 ok 1", "wait", "wait"),
        ("P?", "wait", "wait", "wait"),
        // Of which system the primary is was known before.
        ("qS", "wait", "wait", "wait"),
    ] {
        let decided = |max| decide_replication(limit(max), Scope::Pair, nodes);
        assert_eq!(decided(None), any, "{nodes} without a limit");
        assert_eq!(decided(Some(10)), ten, "{nodes} with 10");
        assert_eq!(decided(Some(9)), nine, "{nodes} with 9");
    }
}

#[test]
fn one_node_s_replica_is_that_node() {
    for (nodes, node, expected) in [
        ("PS", 1, "200 ok 1"),
        ("PS", 0, "503 not_streaming 0"),
        ("SS", 0, "200 ok 0"),
        ("SX", 1, "503 refused 1"),
        ("pS", 1, "200 ok 1"),
        ("qS", 1, "503 wrong_system 1"),
    ] {
        let ask = Ask::Replica(Kind::Any, LagLimit::default());
        let found = decide_replication(ask, Scope::Node(node), nodes);
        assert_eq!(found, expected, "{nodes} {node}");
    }
}

#[test]
fn read_only_is_either() {
    for (nodes, expected) in [
        ("PS", "200 ok"),
        ("Ps", "200 ok"),
        ("XS", "200 ok"),
        ("Xs", "503 not_streaming"),
        ("P?", "200 ok"),
        ("S?", "200 ok"),
        ("s?", "wait"),
        ("PP", "503 split_brain"),
    ] {
        let ask = Ask::ReadOnly(Kind::Any, LagLimit::default());
        let found = decide_replication(ask, Scope::Pair, nodes);
        assert!(found.starts_with(expected), "{nodes}: {found}");
    }
}

#[test]
fn the_primary_says_who_is_synchronous() {
    for (nodes, sync, asynchronous) in [
        ("PS", "200 ok 1", "503 not_streaming 1"),
        ("Ps", "503 not_streaming 1", "503 not_streaming 1"),
        ("XS", "503 not_streaming 1", "503 not_streaming 1"),
        ("?S", "wait", "wait"),
    ] {
        let decided = |ask| decide_replication(ask, Scope::Pair, nodes);
        let of_kind = |kind| decided(Ask::Replica(kind, LagLimit::default()));
        assert_eq!(of_kind(Kind::Sync), sync, "{nodes}");
        assert_eq!(of_kind(Kind::Async), asynchronous, "{nodes}");
    }
}
