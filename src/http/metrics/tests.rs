//! The document and what it is made of.

use std::time::{Duration, Instant};

use super::super::families::FAMILIES;
use super::*;
use crate::probe::assessment::{Assessment, NodeState};
use crate::probe::board::{Login, NodeCounts, NodeReport};
use crate::probe::lag::Lag;
use crate::probe::node::{Receiver, Slot};
use crate::probe::verdict::{Policy, Verdict};

const SECOND: Duration = Duration::from_secs(1);

/// What a standby tells of replication.
fn replication() -> Replication {
    let receiver = Receiver {
        status: Some("streaming".to_owned()),
        ..Receiver::default()
    };
    let slot = Slot {
        name: "s".to_owned(),
        active: true,
        logical: false,
        temporary: false,
        retained_bytes: Some(1),
        wal_status: None,
    };
    Replication {
        timeline: Some(1),
        receiver: Some(Some(receiver)),
        slots: Some(vec![slot].into()),
        ..Replication::default()
    }
}

/// A node of which everything is known.
fn node() -> NodeReport {
    NodeReport {
        facts: Some(Facts {
            in_recovery: true,
            read_only: true,
            replication: Some(replication().into()),
        }),
        age: Some(SECOND),
        replication_age: Some(SECOND),
        login: Some(Login {
            reason: Reason::Ok,
            age: SECOND,
        }),
        certificate_good_until: Some(1),
        counts: NodeCounts {
            last_transition: Some(UNIX_EPOCH),
            ..NodeCounts::default()
        },
        lag_bytes: Vec::new(),
    }
}

/// That standby as the only node.
fn known() -> Report {
    let state = NodeState {
        reason: Reason::Ok,
        detail: None,
        role: Some("standby"),
        lag: Lag {
            apply_bytes: Some(1),
            write_bytes: Some(1),
            seconds: Some(1.0),
        },
        lag_asked: None,
    };
    let assessment = Assessment {
        verdict: PairVerdict::NoPrimary,
        primary: None,
        writable_primaries: 0,
        nodes: vec![state],
        ask_again: Vec::new(),
    };
    Report {
        assessment,
        ready: Verdict::starting(),
        nodes: vec![node()],
        transitions: Vec::new(),
    }
}

#[test]
fn every_family_of_the_table_is_exposed_and_no_other() {
    let rules = Rules {
        nodes: ["b".to_owned()].into(),
        policy: Policy::Primary,
        deadline: SECOND,
        interval: SECOND,
        stuck_after: SECOND,
    };
    let guard = Guard {
        state: STATES[0],
        detail: None,
        age: None,
        report: Some(GuardReport {
            blocked: Some("no_space".to_owned()),
            ..GuardReport::now(STATES[0])
        }),
    };
    let counts = Counters::default();
    counts.answered("/ready", 200, Instant::now());
    let text = render(
        &known(),
        &rules,
        Some(&guard),
        &counts,
        UNIX_EPOCH,
        Format::Text,
    );
    let told = text.lines().filter(|line| line.starts_with('#'));
    let expected = FAMILIES.iter().flat_map(|it| {
        let (name, help, kind) = (it.name, it.help, it.kind.word());
        let help = format!("# HELP {name} {help}");
        [help, format!("# TYPE {name} {kind}")]
    });
    assert_eq!(told.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}

#[test]
fn the_kernels_line_is_read_after_the_name() {
    let line = "1 (a) b) S 0 1 1 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 12 0 99 1000000 256 1";
    let own = OwnProcess::parse(line, 100, 4096).expect("parses");
    assert_eq!(own.cpu_seconds, 2.0);
    assert_eq!(own.threads, 12);
    assert_eq!(own.resident_bytes, 256 * 4096);
}

#[test]
fn this_process_is_read() {
    let own = OwnProcess::read().expect("there is a /proc");
    assert!(own.threads >= 1 && own.resident_bytes > 0);
}
