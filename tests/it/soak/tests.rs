//! The checker itself, on made-up evidence: what was so is right, what was not
//! is found, and what nobody knows is neither.

use serde_json::{Value, json};

use super::checker::{Asked, Checker, Excuse, Excused, Heard, Stalls, falsified};
use super::truth::{At, Evidence, Look, Outcome, Said, Truth, WAYS, Way};
use crate::support::ms;

/// Looks are this far apart and take half of it.
const EVERY: u64 = 100;

/// The primary writes so many bytes a millisecond.
const BYTES: u64 = 10;

fn primary(at: u64, boot: &str, senders: &str) -> Outcome {
    Outcome::Said(Said {
        boot: boot.to_owned(),
        lsn: at * BYTES,
        received: at * BYTES,
        senders: senders.to_owned(),
        ..Said::default()
    })
}

fn standby(replayed: u64, received: u64, receiver: &str) -> Outcome {
    Outcome::Said(Said {
        in_recovery: true,
        boot: "b".to_owned(),
        lsn: replayed * BYTES,
        received: received * BYTES,
        receiver: receiver.to_owned(),
        ..Said::default()
    })
}

/// What a well pair says at a moment, in milliseconds.
fn well(node: usize, way: Way, at: u64) -> Outcome {
    match (node, way) {
        (0, Way::Commit) => Outcome::Committed,
        (_, Way::Commit) => Outcome::Failed,
        (0, _) => primary(at, "a", "streaming:async"),
        _ => standby(at, at, "streaming:7"),
    }
}

/// What the observer sees in 20 s.
fn truth(scene: impl Fn(usize, Way, u64) -> Outcome) -> Truth {
    let mut servers = vec![Evidence::default(); 2];
    for at in (0..20_000).step_by(EVERY as usize) {
        for (node, evidence) in servers.iter_mut().enumerate() {
            for way in WAYS {
                let look = Look {
                    began: ms(at),
                    ended: ms(at + EVERY / 2),
                    outcome: scene(node, way, at),
                };
                evidence.add(way, look);
            }
        }
    }
    Truth::of(&servers)
}

/// From 8 s to 12 s the primary is down, and the standby without a stream for
/// a little longer.
fn outage(node: usize, way: Way, at: u64) -> Outcome {
    match (node, at) {
        (0, 8_000..12_000) => Outcome::Failed,
        (0, 12_000..) if way != Way::Commit => primary(at, "a again", "streaming:async"),
        (1, 8_000..12_200) if way != Way::Commit => standby(8_000, 8_000, ""),
        _ => well(node, way, at),
    }
}

fn verdict(status: u16, reason: &str, node: &str) -> Heard {
    Heard {
        status,
        body: json!({ "reason": reason, "node": node }),
    }
}

fn asked(path: &str, sent: u64, heard: Heard) -> Asked {
    took(path, sent, 10, heard)
}

fn took(path: &str, sent: u64, took: u64, heard: Heard) -> Asked {
    Asked {
        path: path.to_owned(),
        sent: ms(sent),
        received: ms(sent + took),
        heard,
    }
}

fn check(truth: &Truth, asked: &Asked) -> Result<(), String> {
    let checker = Checker {
        truth,
        excuses: &[],
        stalls: &Stalls::default(),
    };
    checker.check(asked)
}

/// Checks a yes and a no at a moment: `y` must be right, `n` too where they stand
/// in `right`, and wrong where they do not.
fn holds(truth: &Truth, path: &str, at: u64, right: &str) {
    for (letter, heard) in [
        ('y', verdict(200, "ok", "a")),
        ('n', verdict(503, "refused", "a")),
    ] {
        let found = check(truth, &asked(path, at, heard));
        assert_eq!(
            found.is_ok(),
            right.contains(letter),
            "{letter} to {path} at {at}: {found:?}"
        );
    }
}

#[test]
fn a_yes_needs_a_moment_and_a_no_is_allowed_for_two_seconds_after() {
    let truth = truth(outage);
    for (path, at, right) in [
        ("/ready", 5_000, "y"),
        ("/ready", 10_000, "n"),
        // Nobody knows when exactly it went.
        ("/ready", 7_995, "yn"),
        ("/ready", 13_500, "yn"),
        ("/ready", 15_000, "y"),
        ("/nodes/a/ready", 5_000, "y"),
        ("/nodes/b/ready", 5_000, "n"),
        ("/primary", 5_000, "y"),
        ("/primary", 10_000, "n"),
        ("/primary", 15_000, "y"),
        ("/nodes/b/primary", 5_000, "n"),
        ("/replica", 5_000, "y"),
        ("/replica", 10_000, "n"),
        ("/replica", 13_000, "yn"),
        ("/replica", 15_000, "y"),
        ("/nodes/a/replica", 5_000, "n"),
        ("/read-only", 5_000, "y"),
        ("/read-only", 10_000, "n"),
        ("/async", 5_000, "y"),
        ("/async", 10_000, "n"),
        ("/sync", 5_000, "n"),
        ("/ready?write", 5_000, "y"),
        ("/ready?write", 10_000, "n"),
        ("/ready?write", 15_000, "y"),
    ] {
        holds(&truth, path, at, right);
    }
}

#[test]
fn health_and_the_page_are_always_there() {
    let truth = truth(outage);
    for path in ["/health", "/ui"] {
        let right = asked(path, 10_000, verdict(200, "ok", "a"));
        assert_eq!(check(&truth, &right), Ok(()));
        assert!(check(&truth, &falsified(&right)).is_err());
    }
}

#[test]
fn a_second_primary_is_noticed_within_two_seconds() {
    let truth = truth(|node, way, at| match (node, way) {
        (1, Way::Commit) if at >= 8_000 => Outcome::Committed,
        (1, _) if at >= 8_000 => primary(at, "b", ""),
        _ => well(node, way, at),
    });
    holds(&truth, "/primary", 9_000, "yn");
    holds(&truth, "/primary", 11_000, "n");
    holds(&truth, "/ready", 11_000, "y");
    holds(&truth, "/ready?write", 6_000, "y");
    holds(&truth, "/ready?write", 11_000, "yn");
    let split = |at| asked("/primary", at, verdict(503, "split_brain", ""));
    assert_eq!(check(&truth, &split(11_000)), Ok(()));
    assert!(check(&truth, &split(6_000)).is_err());
    for (verdict, at, right) in [
        ("ok", 6_000, true),
        ("ok", 9_000, true),
        ("ok", 11_000, false),
        ("split_brain", 11_000, true),
        ("split_brain", 6_000, false),
    ] {
        assert_eq!(
            check(&truth, &status(at, verdict, None)).is_ok(),
            right,
            "{verdict} at {at}"
        );
    }
}

/// A `/status` with this verdict; the roles are those that it implies, or given.
fn status(at: u64, verdict: &str, roles: Option<[&str; 2]>) -> Asked {
    let roles = roles.unwrap_or(match verdict {
        "no_primary" | "unknown" => ["none", "standby"],
        "split_brain" => ["primary", "primary"],
        _ => ["primary", "standby"],
    });
    let role = |word: &str| match word {
        "standby" if verdict == "ok" => json!({ "role": word, "streams": true, "lag": 0 }),
        "none" => json!({}),
        word => json!({ "role": word }),
    };
    let body = json!({ "verdict": verdict, "nodes": roles.map(role) });
    asked("/status", at, Heard { status: 200, body })
}

fn metrics(at: u64, verdict: &str, up: [f64; 2]) -> Asked {
    let nodes = [
        json!({ "up": up[0] }),
        match verdict {
            "ok" => json!({ "up": up[1], "streams": true, "lag": 0 }),
            _ => json!({ "up": up[1] }),
        },
    ];
    let body: Value = json!({ "verdict": verdict, "nodes": nodes });
    asked("/metrics", at, Heard { status: 200, body })
}

#[test]
fn what_is_told_of_the_pair_may_be_two_seconds_old() {
    let truth = truth(outage);
    for (document, right) in [
        (status(5_000, "ok", None), true),
        (status(9_500, "ok", None), true),
        (status(10_500, "ok", None), false),
        (status(10_500, "no_primary", None), true),
        (status(5_000, "no_primary", None), false),
        (status(13_500, "no_primary", None), true),
        (status(15_000, "no_primary", None), false),
        (status(5_000, "degraded", None), false),
        (status(5_000, "diverged", None), false),
        (status(5_000, "unknown", None), false),
        (status(10_500, "unknown", None), true),
        (status(5_000, "nonsense", None), false),
        (status(5_000, "ok", Some(["standby", "standby"])), false),
        (status(5_000, "ok", Some(["primary", "primary"])), false),
        (status(5_000, "ok", Some(["none", "standby"])), false),
        (
            status(10_500, "no_primary", Some(["primary", "standby"])),
            false,
        ),
        (metrics(5_000, "ok", [1.0, 1.0]), true),
        (metrics(5_000, "no_primary", [1.0, 1.0]), false),
        (metrics(5_000, "ok", [0.0, 1.0]), false),
        (metrics(10_500, "no_primary", [0.0, 1.0]), true),
        (metrics(10_500, "no_primary", [1.0, 1.0]), false),
    ] {
        assert_eq!(check(&truth, &document).is_ok(), right, "{document:?}");
    }
}

#[test]
fn a_commit_may_have_begun_a_second_before_the_request() {
    let truth = truth(|node, way, at| match (node, way, at) {
        (0, Way::Commit, 8_000..12_000) => Outcome::Slow,
        _ => well(node, way, at),
    });
    for (path, at, right) in [
        ("/ready?write", 8_900, "yn"),
        ("/ready?write", 9_500, "n"),
        ("/ready?write", 13_500, "yn"),
        ("/ready?write", 15_000, "y"),
        ("/ready", 10_000, "y"),
    ] {
        holds(&truth, path, at, right);
    }
}

#[test]
fn slow_looks_before_a_good_one_leave_the_end_of_a_freeze_uncertain() {
    let truth = truth(|node, way, at| match (node, at) {
        (0, 8_000..12_000) => Outcome::Slow,
        _ => well(node, way, at),
    });
    holds(&truth, "/ready", 10_000, "n");
    holds(&truth, "/ready", 11_500, "yn");
    holds(&truth, "/ready", 15_000, "y");
}

#[test]
fn failure_of_a_try_that_began_long_before_tells_of_then() {
    let late = truth(|node, way, at| match (node, way, at) {
        (0, Way::Commit, 8_000..11_900) => Outcome::Slow,
        (0, Way::Commit, 11_900..12_000) => Outcome::Failed,
        _ => well(node, way, at),
    });
    holds(&late, "/ready?write", 10_000, "n");
    holds(&late, "/ready?write", 11_800, "yn");
    let prompt = truth(|node, way, at| match (node, way, at) {
        (0, Way::Commit, 8_000..12_000) => Outcome::Failed,
        _ => well(node, way, at),
    });
    holds(&prompt, "/ready?write", 11_800, "n");
}

#[test]
fn looks_too_far_apart_prove_nothing() {
    let truth = truth(|node, way, at| match (node, way, at) {
        (0, Way::Session, 8_000..8_400) => Outcome::Unclear,
        _ => well(node, way, at),
    });
    holds(&truth, "/ready", 7_000, "y");
    holds(&truth, "/ready", 9_000, "yn");
    holds(&truth, "/ready", 11_000, "y");
}

#[test]
fn lag_is_held_against_where_both_were() {
    // Replay stops at 5 s; 10 s later it is 100,000 bytes behind.
    let truth = truth(|node, way, at| match (node, way) {
        (1, Way::Fresh | Way::Session) => standby(at.min(5_000), at, "streaming:7"),
        _ => well(node, way, at),
    });
    for (path, at, right) in [
        ("/replica?lag=20000", 4_000, "y"),
        ("/replica?lag=20000", 15_000, "n"),
        ("/replica?lag=200000", 15_000, "y"),
        ("/replica?lag=20000&mode=write", 15_000, "y"),
        // Around the limit the looks do not tell.
        ("/replica?lag=100000", 15_000, "yn"),
        ("/replica", 15_000, "y"),
    ] {
        holds(&truth, path, at, right);
    }
}

#[test]
fn what_is_told_of_replication_is_held_against_what_was_so() {
    // Replay stops at 5 s, and streaming at 16 s.
    let truth = truth(|node, way, at| match (node, way) {
        (1, Way::Fresh | Way::Session) if at < 16_000 => standby(at.min(5_000), at, "streaming:7"),
        (1, Way::Fresh | Way::Session) => standby(5_000, 16_000, ""),
        _ => well(node, way, at),
    });
    let told = |at, streams: Value, lag: Value| {
        let mut document = status(at, if streams == false { "degraded" } else { "ok" }, None);
        document.heard.body["nodes"][1]["streams"] = streams;
        document.heard.body["nodes"][1]["lag"] = lag;
        check(&truth, &document).is_ok()
    };
    for (at, streams, lag, right) in [
        (4_000, json!(true), json!(0), true),
        (4_000, json!(false), json!(0), false),
        (4_000, json!(null), json!(0), false),
        (4_000, json!(true), json!(null), false),
        // It is 100,000 bytes behind, and was 80,000 two seconds ago.
        (15_000, json!(true), json!(100_000), true),
        (15_000, json!(true), json!(85_000), true),
        (15_000, json!(true), json!(0), false),
        (15_000, json!(true), json!(50_000), false),
        (15_000, json!(true), json!(200_000), false),
        // Facts that froze.
        (19_000, json!(true), json!(0), false),
        (19_000, json!(false), json!(null), true),
    ] {
        assert_eq!(
            told(at, streams.clone(), lag.clone()),
            right,
            "{at} {streams} {lag}"
        );
    }
}

#[test]
fn receiver_whose_sender_was_killed_proves_no_streaming() {
    // Between 8 and 17 s nobody reads from the primary.
    let truth = truth(|node, way, at| match (node, way) {
        (0, Way::Fresh | Way::Session) if (8_000..17_000).contains(&at) => primary(at, "a", ""),
        _ => well(node, way, at),
    });
    let told = |at, verdict, lag: Value| {
        let mut document = status(at, verdict, None);
        document.heard.body["nodes"][1]["streams"] = true.into();
        document.heard.body["nodes"][1]["lag"] = lag;
        check(&truth, &document).is_ok()
    };
    for (at, verdict, lag, right) in [
        (5_000, "degraded", json!(0), false),
        (5_000, "ok", json!(null), false),
        (12_000, "degraded", json!(null), true),
        (19_500, "degraded", json!(null), false),
    ] {
        assert_eq!(
            told(at, verdict, lag.clone()),
            right,
            "{at} {verdict} {lag}"
        );
    }
    for path in ["/replica", "/nodes/b/replica"] {
        holds(&truth, path, 5_000, "y");
        holds(&truth, path, 12_000, "yn");
        holds(&truth, path, 19_500, "y");
    }
}

#[test]
fn a_frozen_postmaster_proves_nothing_while_connections_last() {
    let truth = truth(|node, way, at| match (node, way, at) {
        (0, Way::Fresh, 8_000..14_000) => Outcome::Slow,
        _ => well(node, way, at),
    });
    holds(&truth, "/ready", 12_000, "yn");
    holds(&truth, "/ready", 18_000, "y");
}

#[test]
fn reasons_are_held_against_what_was_so() {
    let truth = truth(outage);
    for (reason, node, at, right) in [
        ("refused", "a", 10_000, true),
        ("no_primary", "", 10_000, false),
        ("in_recovery", "a", 10_000, false),
        ("in_recovery", "b", 10_000, true),
        ("split_brain", "", 10_000, false),
        ("error", "a", 10_000, false),
        ("auth_failed", "a", 10_000, false),
    ] {
        let found = check(&truth, &asked("/ready", at, verdict(503, reason, node)));
        assert_eq!(found.is_ok(), right, "{reason} {node}: {found:?}");
    }
}

#[test]
fn excuses_and_stalls_count_for_their_time_only() {
    let truth = truth(well);
    let (from, until): (At, At) = (ms(5_000), ms(10_000));
    let excuse = |node, what| {
        [Excuse {
            node,
            from,
            until,
            what,
        }]
    };
    let says = |excuses: &[Excuse], path: &str, at: u64| {
        let checker = Checker {
            truth: &truth,
            excuses,
            stalls: &Stalls(vec![(ms(5_500), ms(5_900))]),
        };
        checker
            .check(&asked(path, at, verdict(503, "timed_out", "a")))
            .is_ok()
    };
    let frozen = excuse(0, Excused::Node);
    assert!(says(&frozen, "/ready", 8_000));
    assert!(!says(&frozen, "/ready", 13_000));
    assert!(!says(&frozen, "/replica", 8_000));
    assert!(!says(&excuse(1, Excused::Node), "/ready", 8_000));
    assert!(says(&excuse(0, Excused::Commits), "/ready?write", 8_000));
    assert!(!says(&excuse(0, Excused::Commits), "/ready", 8_000));

    let checker = Checker {
        truth: &truth,
        excuses: &[],
        stalls: &Stalls(vec![(ms(5_500), ms(5_900))]),
    };
    for (at, lasting, late, wrong) in [
        (8_000, 990, false, false),
        (8_000, 1_100, true, false),
        (8_000, 1_600, true, true),
        (5_000, 1_100, false, false),
        (5_000, 1_600, true, false),
    ] {
        let answer = took("/ready", at, lasting, verdict(200, "ok", "a"));
        assert_eq!(checker.is_late(&answer), late, "{lasting} ms at {at}");
        assert_eq!(
            checker.check(&answer).is_err(),
            wrong,
            "{lasting} ms at {at}"
        );
    }
}
