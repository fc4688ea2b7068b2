//! `/status`: all that is known, as JSON. Unknown is absent, never zero.

use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::probe::assessment::{self, NodeState};
use crate::probe::board::{NodeReport, Report, Rules, Transition};
use crate::probe::guard_report::WaitReason;
use crate::probe::guard_status::Guard;
use crate::probe::node::{Replication, Slot};

/// The whole document. Keys of a node follow Patroni's where it has them.
#[derive(Serialize)]
struct Status<'a> {
    verdict: &'static str,
    ready: bool,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    primary: Option<&'a str>,
    /// Nodes for which the pair is not whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unwell: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    guard: Option<GuardState<'a>>,
    at: String,
    version: &'static str,
    uptime_ms: u64,
    interval_ms: u64,
    deadline_ms: u64,
    nodes: Vec<Node<'a>>,
    transitions: Vec<Change<'a>>,
    history: History,
}

/// The guard, as it says itself.
#[derive(Serialize)]
struct GuardState<'a> {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    synchronous: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failovers: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused_until: Option<String>,
}

#[derive(Serialize)]
struct Node<'a> {
    name: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    /// Of role and state.
    #[serde(skip_serializing_if = "Option::is_none")]
    age_ms: Option<u64>,
    #[serde(flatten)]
    told: Option<Told<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_seconds: Option<f64>,
    /// Of the older of the two answers that the lag rests on.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_age_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<LoginState>,
    /// The end of the certificate that the node showed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_good_until: Option<String>,
}

/// What became of the last new login.
#[derive(Serialize)]
struct LoginState {
    reason: &'static str,
    age_ms: u64,
}

/// What a node told of replication.
#[derive(Serialize)]
struct Told<'a> {
    /// Of all that is told here.
    #[serde(skip_serializing_if = "Option::is_none")]
    replication_age_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeline: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    database_system_identifier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pending_restart: Option<bool>,
    xlog: Xlog,
    #[serde(skip_serializing_if = "Option::is_none")]
    replication_state: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replication: Option<Vec<Sender<'a>>>,
    #[serde(skip_serializing_if = "is_zero")]
    replication_more: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    slots: Option<Vec<SlotState<'a>>>,
    #[serde(skip_serializing_if = "is_zero")]
    slots_more: u64,
    /// What the server does not let the probe know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown: Vec<&'static str>,
}

#[derive(Serialize, Default)]
struct Xlog {
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    received_location: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed_location: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<bool>,
}

#[derive(Serialize)]
struct Sender<'a> {
    /// Of a node of ours. Others may have any name, and nobody else is to learn it.
    #[serde(skip_serializing_if = "Option::is_none")]
    application_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sync_state: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
}

#[derive(Serialize)]
struct SlotState<'a> {
    name: &'a str,
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    retained_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wal_status: Option<&'a str>,
}

#[derive(Serialize)]
struct Change<'a> {
    at: String,
    age_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'static str>,
    to: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
}

#[derive(Serialize)]
struct History {
    interval_ms: u64,
    nodes: serde_json::Map<String, serde_json::Value>,
}

/// Renders the document, one line.
pub fn render(report: &Report, rules: &Rules, uptime: Duration, guard: Option<&Guard>) -> String {
    let names = &rules.nodes;
    let assessment = &report.assessment;
    let status = Status {
        verdict: assessment.verdict.word(),
        ready: report.ready.ok,
        reason: report.ready.reason.word(),
        node: report.ready.node.map(|node| names[node].as_str()),
        detail: report.ready.detail.as_deref(),
        primary: assessment.primary.map(|node| names[node].as_str()),
        unwell: assessment
            .unwell()
            .map(|node| names[node].as_str())
            .collect(),
        guard: guard.map(guard_of),
        at: rfc3339(SystemTime::now()),
        version: env!("CARGO_PKG_VERSION"),
        uptime_ms: milliseconds(uptime),
        interval_ms: milliseconds(rules.interval),
        deadline_ms: milliseconds(rules.deadline),
        nodes: (0..names.len())
            .map(|node| node_of(report, node, names))
            .collect(),
        transitions: report
            .transitions
            .iter()
            .map(|change| change_of(change, names))
            .collect(),
        history: history_of(report, rules),
    };
    let mut text = serde_json::to_string(&status).expect("keys are text and numbers are finite");
    text.push('\n');
    text
}

/// In seconds since 1970: no time is written beyond it.
const YEAR_10000: u64 = 253_402_300_800;

fn guard_of(guard: &Guard) -> GuardState<'_> {
    let report = guard.report.as_ref();
    GuardState {
        state: guard.state,
        reason: report.and_then(|it| {
            let waits = it.reason.map(WaitReason::word);
            it.blocked.as_deref().or(waits)
        }),
        detail: guard.detail.as_deref(),
        age_ms: guard.age.map(milliseconds),
        mode: report.map(|it| it.mode.as_str()),
        synchronous: report.map(|it| it.synchronous),
        failovers: report.map(|it| it.failovers),
        paused_until: report
            .and_then(|it| it.paused_until)
            .filter(|at| *at < YEAR_10000)
            .map(|at| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(at))),
    }
}

fn node_of<'a>(report: &'a Report, node: usize, names: &'a [String]) -> Node<'a> {
    let state: &NodeState = &report.assessment.nodes[node];
    let last: &NodeReport = &report.nodes[node];
    let replication = last
        .facts
        .as_ref()
        .and_then(|facts| facts.replication.as_deref());
    Node {
        name: &names[node],
        state: state.state(),
        role: state.role,
        reason: state.reason.word(),
        detail: state.detail.as_deref(),
        age_ms: last.age.map(milliseconds),
        told: replication.map(|told| Told {
            replication_age_ms: last.replication_age.map(milliseconds),
            ..told_of(told, state.role, report, names)
        }),
        lag_bytes: state.lag.apply_bytes,
        lag_seconds: state.lag.seconds,
        lag_age_ms: state
            .lag_asked
            .map(|at| milliseconds(Instant::now().saturating_duration_since(at))),
        login: last.login.map(|login| LoginState {
            reason: login.reason.word(),
            age_ms: milliseconds(login.age),
        }),
        certificate_good_until: last
            .certificate_good_until
            .and_then(|at| u64::try_from(at).ok())
            .filter(|at| *at < YEAR_10000)
            .map(|at| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(at))),
    }
}

fn told_of<'a>(
    told: &'a Replication,
    role: Option<&'static str>,
    report: &'a Report,
    names: &'a [String],
) -> Told<'a> {
    let standby = role == Some("standby");
    let xlog = if standby {
        Xlog {
            location: None,
            // PostgreSQL tells the begin of a segment until something new comes;
            // what was replayed was received all the same.
            received_location: told.received.max(told.lsn).map(|lsn| lsn.0),
            replayed_location: told.lsn.map(|lsn| lsn.0),
            paused: told.replay_paused,
        }
    } else {
        Xlog {
            location: told.lsn.map(|lsn| lsn.0),
            ..Xlog::default()
        }
    };
    let receiver = told.receiver().filter(|_| standby);
    Told {
        replication_age_ms: None,
        server_version: told.server_version,
        timeline: told.timeline,
        database_system_identifier: told.system_identifier.map(|it| it.to_string()),
        pending_restart: told.pending_restart,
        xlog,
        replication_state: receiver.and_then(|it| it.status.as_deref()),
        slot: receiver.and_then(|it| it.slot.as_deref()),
        replication: told.senders.as_ref().map(|senders| {
            let senders = senders.kept.iter();
            senders
                .map(|sender| sender_of(told, sender, report, names))
                .collect()
        }),
        replication_more: told.senders.as_ref().map_or(0, |senders| senders.more),
        slots: told
            .slots
            .as_ref()
            .map(|slots| slots.kept.iter().map(slot_of).collect()),
        slots_more: told.slots.as_ref().map_or(0, |slots| slots.more),
        unknown: told.denied.iter().map(|it| it.part.word()).collect(),
    }
}

fn sender_of<'a>(
    told: &Replication,
    sender: &'a crate::probe::node::Sender,
    report: &Report,
    names: &'a [String],
) -> Sender<'a> {
    let node = reader(told, sender, report, names);
    Sender {
        application_name: node.map(|_| sender.application_name.as_str()),
        state: sender.state.as_deref(),
        sync_state: sender.sync_state.as_deref(),
        node,
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Names the node that reads from `sender`, if it is one of ours.
fn reader<'a>(
    primary: &Replication,
    sender: &crate::probe::node::Sender,
    report: &Report,
    names: &'a [String],
) -> Option<&'a str> {
    let reads = |node: &usize| {
        let facts = report.nodes[*node].facts.as_ref();
        let standby = facts.filter(|facts| facts.in_recovery);
        let standby = standby.and_then(|facts| facts.replication.as_deref());
        standby
            .and_then(|it| assessment::sender_of(primary, it, &names[*node]))
            .is_some_and(|found| std::ptr::eq(found, sender))
    };
    (0..names.len())
        .find(reads)
        .map(|node| names[node].as_str())
}

fn slot_of(slot: &Slot) -> SlotState<'_> {
    SlotState {
        name: &slot.name,
        active: slot.active,
        retained_bytes: slot.retained_bytes,
        wal_status: slot.wal_status.as_deref(),
    }
}

fn change_of<'a>(change: &Transition, names: &'a [String]) -> Change<'a> {
    Change {
        at: rfc3339(change.at),
        age_ms: milliseconds(Instant::now().saturating_duration_since(change.when)),
        node: change.node.map(|node| names[node].as_str()),
        from: change.from,
        to: change.to,
        role: change.role,
    }
}

fn history_of(report: &Report, rules: &Rules) -> History {
    let samples = |node: usize| &report.nodes[node].lag_bytes;
    let nodes = (0..rules.nodes.len())
        .filter(|&node| samples(node).iter().any(Option::is_some))
        .map(|node| {
            let lag = serde_json::json!({ "lag_bytes": samples(node) });
            (rules.nodes[node].clone(), lag)
        })
        .collect();
    History {
        interval_ms: milliseconds(rules.interval),
        nodes,
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn rfc3339(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at);
    let at = at.replace_millisecond(at.millisecond()).unwrap_or(at);
    at.format(&Rfc3339).unwrap_or_default()
}
