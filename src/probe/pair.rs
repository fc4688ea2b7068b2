//! The pair as a whole, by what is known at this moment: for logs, `/status`
//! and metrics. Pure functions.

use std::borrow::Cow;
use std::fmt;
use std::time::Instant;

use super::lag::{Lag, Trail};
use super::node::{Facts, Failure, Observation, Reason, Replication, Sender};

/// The state of the pair in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairVerdict {
    /// One writable primary, and a standby streams.
    Ok,
    /// One writable primary, and no standby streams.
    Degraded,
    /// No node is a writable primary.
    NoPrimary,
    /// More than one node is a writable primary.
    SplitBrain,
    /// A node cannot belong to the primary: another system, or ahead of it.
    Diverged,
    /// Not every node has been seen yet, or who streams may not be seen.
    Unknown,
}

impl PairVerdict {
    /// Every verdict, in the order of the documentation.
    pub const ALL: [PairVerdict; 6] = [
        PairVerdict::Ok,
        PairVerdict::Degraded,
        PairVerdict::NoPrimary,
        PairVerdict::SplitBrain,
        PairVerdict::Diverged,
        PairVerdict::Unknown,
    ];

    /// Returns the word for this verdict.
    pub const fn word(self) -> &'static str {
        match self {
            PairVerdict::Ok => "ok",
            PairVerdict::Degraded => "degraded",
            PairVerdict::NoPrimary => "no_primary",
            PairVerdict::SplitBrain => "split_brain",
            PairVerdict::Diverged => "diverged",
            PairVerdict::Unknown => "unknown",
        }
    }
}

impl fmt::Display for PairVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What is known of a node, however old.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// The last round trip that ended.
    pub latest: Option<&'a Observation>,
    /// What it said about replication last, and the round trip's begin and
    /// end; those after it may not have asked.
    pub replication: Option<(&'a Replication, [Instant; 2])>,
    /// Since when it is known to hold the position that it told then.
    pub held_since: Option<Instant>,
    /// It owes an answer; what went wrong so far, if anything has.
    pub overdue: Option<Option<&'a Failure>>,
}

impl<'a> Known<'a> {
    /// Returns the facts that may still be relied on.
    pub fn facts(&self) -> Option<&'a Facts> {
        match self.overdue {
            None => self.latest.and_then(Observation::facts),
            Some(_) => None,
        }
    }

    /// Returns what may still be relied on about replication.
    pub fn replication(&self) -> Option<&'a Replication> {
        self.facts().and(self.replication).map(|(told, _)| told)
    }

    /// Returns when the round trip began and ended that told of replication.
    fn asked(&self) -> Option<[Instant; 2]> {
        self.replication.map(|(_, asked)| asked)
    }
}

/// One node's state.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeState {
    /// `ok`, or what is wrong with it.
    pub reason: Reason,
    /// A phrase for a person.
    pub detail: Option<Cow<'static, str>>,
    /// `primary` or `standby`, when known.
    pub role: Option<&'static str>,
    /// How far behind it is; all unknown for a primary.
    pub lag: Lag,
}

impl NodeState {
    /// Says in one word what the server does.
    pub fn state(&self) -> &'static str {
        match (self.role, self.reason) {
            (Some(_), _) => "running",
            (None, Reason::Starting) => "starting",
            (None, Reason::ShuttingDown) => "stopping",
            (None, Reason::Refused | Reason::Unresolved) => "stopped",
            (None, _) => "unknown",
        }
    }
}

/// The pair's state.
#[derive(Clone, Debug, PartialEq)]
pub struct Assessment {
    /// In one word.
    pub verdict: PairVerdict,
    /// The one writable primary, if there is exactly one.
    pub primary: Option<usize>,
    /// How many nodes are writable primaries.
    pub writable_primaries: usize,
    /// Every node, in the order of the configuration.
    pub nodes: Vec<NodeState>,
}

/// Assesses the pair by what is known.
pub fn assess(known: &[Known<'_>], trail: &Trail, now: Instant) -> Assessment {
    let writable: Vec<usize> = (0..known.len())
        .filter(|&node| known[node].facts().is_some_and(Facts::is_writable_primary))
        .collect();
    let primary = match writable.as_slice() {
        [one] => Some(*one),
        _ => None,
    };
    let reference = writable.first().and_then(|&node| known[node].replication());
    let nodes: Vec<NodeState> = known
        .iter()
        .map(|it| node_state(it, reference, primary.is_some(), writable.len(), trail, now))
        .collect();
    let verdict = pair_verdict(known, &nodes, primary, writable.len());
    Assessment {
        verdict,
        primary,
        writable_primaries: writable.len(),
        nodes,
    }
}

fn pair_verdict(
    known: &[Known<'_>],
    nodes: &[NodeState],
    primary: Option<usize>,
    writable: usize,
) -> PairVerdict {
    let unseen = known
        .iter()
        .any(|it| it.latest.is_none() && it.overdue.is_none());
    if unseen {
        return PairVerdict::Unknown;
    }
    if nodes.iter().any(|node| node.reason == Reason::WrongSystem) {
        return PairVerdict::Diverged;
    }
    if writable > 1 {
        return PairVerdict::SplitBrain;
    }
    let Some(primary) = primary else {
        return PairVerdict::NoPrimary;
    };
    if known.iter().any(|it| is_ahead(it, &known[primary])) {
        return PairVerdict::Diverged;
    }
    let streams = |it: &Known<'_>| {
        let standby = it.facts().is_some_and(|facts| facts.in_recovery);
        it.replication()
            .filter(|_| standby)
            .map(Replication::streams)
    };
    let standbys: Vec<Option<bool>> = known.iter().filter_map(streams).collect();
    if known.len() == 1 || standbys.contains(&Some(true)) {
        PairVerdict::Ok
    } else if standbys.contains(&None) {
        PairVerdict::Unknown
    } else {
        PairVerdict::Degraded
    }
}

/// A standby that does not stream and has what the primary, asked after that
/// was seen, does not have: it followed somebody else. It keeps what it has, so
/// the verdict does not depend on who was asked last.
fn is_ahead(standby: &Known<'_>, primary: &Known<'_>) -> bool {
    let (Some(facts), Some(own)) = (standby.facts(), standby.replication()) else {
        return false;
    };
    let Some(theirs) = primary.replication() else {
        return false;
    };
    if !facts.in_recovery || own.streams() == Some(true) {
        return false;
    }
    let asked_later = match (standby.held_since, primary.asked()) {
        (Some(held_since), Some([began, _])) => began >= held_since,
        _ => false,
    };
    own.timeline > theirs.timeline || (asked_later && own.lsn > theirs.lsn)
}

fn node_state(
    known: &Known<'_>,
    reference: Option<&Replication>,
    one_primary: bool,
    writable: usize,
    trail: &Trail,
    now: Instant,
) -> NodeState {
    let Some(facts) = known.facts() else {
        return absent(known);
    };
    let own = known.replication();
    let (reason, detail) = match own {
        Some(own) if of_another_system(own, reference) => (
            Reason::WrongSystem,
            Some("another system than the primary's"),
        ),
        _ if facts.is_writable_primary() && writable > 1 => (
            Reason::SplitBrain,
            Some("more than one node is a writable primary"),
        ),
        _ if facts.is_writable_primary() => (Reason::Ok, None),
        _ if !facts.in_recovery => (Reason::ReadOnly, Some("its transactions are read-only")),
        Some(own) if own.streams() == Some(false) => (
            Reason::NotStreaming,
            Some("the WAL receiver is not streaming"),
        ),
        _ => (Reason::Ok, None),
    };
    let lag = match own {
        Some(own) if facts.in_recovery => {
            let primary = reference.filter(|_| one_primary);
            let when = known.asked().map_or(now, |[_, ended]| ended);
            Lag::measure(own, primary, trail, when)
        }
        _ => Lag::default(),
    };
    NodeState {
        reason,
        detail: detail.map(Cow::Borrowed),
        role: Some(facts.role()),
        lag,
    }
}

fn absent(known: &Known<'_>) -> NodeState {
    let failure = match known.overdue {
        Some(so_far) => so_far,
        None => known.latest.and_then(|seen| seen.outcome.as_ref().err()),
    };
    let (reason, detail) = match failure {
        Some(failure) => (failure.reason, failure.detail.clone()),
        None if known.overdue.is_some() => (Reason::TimedOut, Cow::Borrowed("no answer")),
        None => (Reason::Starting, Cow::Borrowed("not asked yet")),
    };
    NodeState {
        reason,
        detail: Some(detail),
        role: None,
        lag: Lag::default(),
    }
}

/// Says whether two nodes are known to be of different PostgreSQL systems.
pub fn of_another_system(node: &Replication, primary: Option<&Replication>) -> bool {
    let theirs = primary.and_then(|it| it.system_identifier);
    match (node.system_identifier, theirs) {
        (Some(own), Some(theirs)) => own != theirs,
        _ => false,
    }
}

/// Finds the primary's row for a standby: by the slot that it uses, else by its
/// name, else, in a pair, the only one that streams.
pub fn sender_of<'a>(
    primary: &'a Replication,
    standby: &Replication,
    name: &str,
    nodes: usize,
) -> Option<&'a Sender> {
    let slot = standby.receiver().and_then(|it| it.slot.as_deref());
    let by_slot = |it: &&Sender| slot.is_some() && it.slot.as_deref() == slot;
    let by_name = |it: &&Sender| {
        it.application_name == name
            || standby.cluster_name.as_deref() == Some(it.application_name.as_str())
    };
    let senders = || primary.senders().iter();
    let streaming = || senders().filter(|it| it.state.as_deref() == Some("streaming"));
    senders()
        .find(by_slot)
        .or_else(|| senders().find(by_name))
        .or_else(|| {
            let only = streaming().count() == 1 && nodes == 2;
            streaming().next().filter(|_| only)
        })
}

#[cfg(test)]
mod tests;
