//! The pair as a whole, by what is known at this moment: for logs, `/status`
//! and metrics. Pure functions.

use std::borrow::Cow;
use std::fmt;
use std::time::Instant;

use super::lag::{Lag, Trail};
use super::node::{Facts, Failure, Observation, Reason, Replication, Sender};
use super::span::Span;

/// The state of the pair in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairVerdict {
    /// One writable primary, and every other node streams from it.
    Ok,
    /// One writable primary, and a node is no standby that streams from it.
    Degraded,
    /// No node is a writable primary: each answered, or certainly does not serve.
    NoPrimary,
    /// More than one node is a writable primary, at one and the same moment.
    SplitBrain,
    /// A node cannot belong to the primary: another system, ahead of it, or on a
    /// later timeline.
    Diverged,
    /// What is known does not allow to say: a node was not seen, does not answer,
    /// or may not tell.
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

/// What is known of a node at one moment. Nothing in it is older than facts live.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// The last round trip that ended.
    pub latest: Option<&'a Observation>,
    /// What it said about replication last, in the role that it has now, and
    /// the round trip's begin and end; those after it may not have asked.
    pub replication: Option<(&'a Replication, [Instant; 2])>,
    /// Since when it is known to hold the position that it told then.
    pub held_since: Option<Instant>,
    /// It owes an answer; what went wrong so far, if anything has.
    pub overdue: Option<Option<&'a Failure>>,
    /// For how long it has been seen to be a writable primary.
    pub writable: Option<Span>,
    /// When it was first seen to be one no more.
    pub lost_at: Option<Instant>,
    /// For how long it has been seen to stream.
    pub streaming: Option<Span>,
    /// It has told its role only just now, and of replication nothing yet.
    pub is_new: bool,
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
    pub fn asked(&self) -> Option<[Instant; 2]> {
        self.replication.map(|(_, asked)| asked)
    }

    fn is_writable(&self) -> bool {
        self.facts().is_some_and(Facts::is_writable_primary)
    }

    fn is_standby(&self) -> bool {
        self.facts().is_some_and(|facts| facts.in_recovery)
    }

    fn failure(&self) -> Option<&'a Failure> {
        match self.overdue {
            Some(so_far) => so_far,
            None => self.latest?.outcome.as_ref().err(),
        }
    }

    /// Says whether nobody can write there now, though it gives no answer. A login
    /// that is refused, TLS, a name that does not resolve or silence show nothing.
    fn does_not_serve(&self) -> bool {
        let reason = self.failure().map(|failure| failure.reason);
        let serves_nobody = [Reason::Refused, Reason::Starting, Reason::ShuttingDown];
        self.overdue.is_none() && reason.is_some_and(|it| serves_nobody.contains(&it))
    }
}

/// Says whether two nodes lead to one and the same server.
pub fn are_one_server(one: &Known<'_>, other: &Known<'_>) -> bool {
    let server = |it: &Known<'_>| {
        let told = it.replication()?;
        Some((told.system_identifier?, told.started_us?))
    };
    server(one).is_some_and(|it| server(other) == Some(it))
}

/// Says whether two nodes were certainly writable primaries at one moment.
pub fn rivals(one: &Known<'_>, other: &Known<'_>) -> bool {
    let (Some(first), Some(second)) = (one.writable, other.writable) else {
        return false;
    };
    first.meets(&second) && !are_one_server(one, other)
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
    /// When the older of the two round trips began that the lag rests on.
    pub lag_asked: Option<Instant>,
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

/// What the pair was a moment ago: it stays so while what is known does not
/// allow a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Former {
    verdict: PairVerdict,
    primary: Option<usize>,
    writable_primaries: usize,
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
    /// Nodes whose answer is too old to be held against another's: asked again,
    /// they allow a verdict.
    pub ask_again: Vec<usize>,
}

impl Assessment {
    /// Returns what the next assessment may have to hold on to.
    pub fn as_former(&self) -> Former {
        Former {
            verdict: self.verdict,
            primary: self.primary,
            writable_primaries: self.writable_primaries,
        }
    }

    /// Names the nodes for which the pair is not whole.
    pub fn unwell(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|&node| self.nodes[node].reason != Reason::Ok)
    }
}

/// Who is a writable primary.
struct Primaries {
    /// One node for each server that was seen to be one.
    servers: Vec<usize>,
    /// Those of them that certainly were at the same moment as another.
    rivals: Vec<usize>,
    /// Nodes that lead to the server of an earlier one.
    doubles: Vec<(usize, usize)>,
}

impl Primaries {
    fn among(known: &[Known<'_>]) -> Primaries {
        let mut servers: Vec<usize> = Vec::new();
        let mut doubles = Vec::new();
        for node in (0..known.len()).filter(|&node| known[node].is_writable()) {
            let same = |&&other: &&usize| are_one_server(&known[node], &known[other]);
            match servers.iter().find(same) {
                Some(&other) => doubles.push((node, other)),
                None => servers.push(node),
            }
        }
        let has_rival = |&node: &usize| {
            let others = servers.iter().filter(|&&other| other != node);
            others
                .into_iter()
                .any(|&other| rivals(&known[node], &known[other]))
        };
        Primaries {
            rivals: servers.iter().copied().filter(has_rival).collect(),
            servers,
            doubles,
        }
    }

    fn only(&self) -> Option<usize> {
        match self.servers.as_slice() {
            [one] => Some(*one),
            _ => None,
        }
    }
}

/// Assesses the pair by what is known.
pub fn assess(
    known: &[Known<'_>],
    names: &[String],
    trail: &Trail,
    former: Option<Former>,
    now: Instant,
) -> Assessment {
    let primaries = Primaries::among(known);
    let nodes: Vec<NodeState> = (0..known.len())
        .map(|node| node_state(known, names, node, &primaries, trail, now))
        .collect();
    let held = |ask_again: Vec<usize>| {
        let former = former.unwrap_or(Former {
            verdict: PairVerdict::Unknown,
            primary: None,
            writable_primaries: 0,
        });
        (former, ask_again)
    };
    let seen = |verdict| {
        let is = Former {
            verdict,
            primary: primaries.only(),
            writable_primaries: primaries.rivals.len().max(primaries.servers.len().min(1)),
        };
        (is, Vec::new())
    };
    let unseen = |it: &Known<'_>| it.latest.is_none() && it.overdue.is_none();
    let (is, ask_again) = if known.iter().any(unseen) {
        seen(PairVerdict::Unknown)
    } else if nodes.iter().any(|node| node.reason == Reason::WrongSystem) {
        seen(PairVerdict::Diverged)
    } else if !primaries.rivals.is_empty() {
        seen(PairVerdict::SplitBrain)
    } else if let Some(primary) = primaries.only() {
        match with_primary(known, &nodes, primary) {
            Ok(verdict) => seen(verdict),
            Err(ask_again) => held(ask_again),
        }
    } else if primaries.servers.is_empty() {
        match without_primary(known) {
            Ok(verdict) => seen(verdict),
            Err(ask_again) => held(ask_again),
        }
    } else {
        held(older(known, &primaries.servers))
    };
    Assessment {
        verdict: is.verdict,
        primary: is.primary,
        writable_primaries: is.writable_primaries,
        nodes,
        ask_again,
    }
}

/// All of `nodes` but the one that was asked last.
fn older(known: &[Known<'_>], nodes: &[usize]) -> Vec<usize> {
    let began = |node: &usize| known[*node].latest.map(|seen| seen.began);
    let newest = nodes.iter().copied().max_by_key(began);
    nodes
        .iter()
        .copied()
        .filter(|&it| Some(it) != newest)
        .collect()
}

/// The verdict where one node is the primary, or the nodes that have to tell of
/// replication first: they have just begun to answer.
fn with_primary(
    known: &[Known<'_>],
    nodes: &[NodeState],
    primary: usize,
) -> Result<PairVerdict, Vec<usize>> {
    let others = || (0..known.len()).filter(|&node| node != primary);
    if others().any(|node| cannot_belong(&known[node], &known[primary])) {
        return Ok(PairVerdict::Diverged);
    }
    if others().any(|node| nodes[node].reason != Reason::Ok) {
        return Ok(PairVerdict::Degraded);
    }
    let streams = |node: usize| known[node].replication().and_then(Replication::streams);
    if others().all(|node| streams(node) == Some(true)) {
        return Ok(PairVerdict::Ok);
    }
    let new: Vec<usize> = others().filter(|&node| known[node].is_new).collect();
    if new.is_empty() {
        Ok(PairVerdict::Unknown)
    } else {
        Err(new)
    }
}

/// The verdict where no node is known to be a writable primary, or the nodes
/// that have to be asked again first: that one was a standby before the primary
/// was lost does not show that it has not been promoted since.
fn without_primary(known: &[Known<'_>]) -> Result<PairVerdict, Vec<usize>> {
    let lost_at = known.iter().filter_map(|it| it.lost_at).max();
    let says_so = |it: &Known<'_>| it.facts().is_some() || it.does_not_serve();
    if !known.iter().all(says_so) {
        return Ok(PairVerdict::Unknown);
    }
    let is_old = |it: &Known<'_>| {
        let began = it.latest.map(|seen| seen.began);
        it.facts().is_some_and(|facts| facts.in_recovery) && began < lost_at
    };
    let old: Vec<usize> = (0..known.len()).filter(|&it| is_old(&known[it])).collect();
    if old.is_empty() {
        Ok(PairVerdict::NoPrimary)
    } else {
        Err(old)
    }
}

/// A standby that cannot follow this primary, or does not.
fn cannot_belong(standby: &Known<'_>, primary: &Known<'_>) -> bool {
    is_ahead(standby, primary) || is_on_later_timeline(standby, primary)
}

/// A standby that streams on a later timeline than the primary writes: from
/// another primary.
fn is_on_later_timeline(standby: &Known<'_>, primary: &Known<'_>) -> bool {
    let timeline = |it: &Known<'_>| it.replication().and_then(|told| told.timeline);
    match (timeline(standby), timeline(primary)) {
        (Some(own), Some(theirs)) => standby.streaming.is_some() && own > theirs,
        _ => false,
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
    known: &[Known<'_>],
    names: &[String],
    node: usize,
    primaries: &Primaries,
    trail: &Trail,
    now: Instant,
) -> NodeState {
    let it = &known[node];
    let Some(facts) = it.facts() else {
        return absent(it);
    };
    let reference = primaries.servers.first().copied();
    let (reason, detail) = judged(known, names, node, primaries);
    let lag = match it.replication() {
        Some(own) if facts.in_recovery && reason != Reason::WrongSystem => {
            let primary = primaries.only().and_then(|node| known[node].replication());
            let when = it.asked().map_or(now, |[_, ended]| ended);
            let streams = reason == Reason::Ok || own.streams() != Some(true);
            // What streams from somebody else is measured against nobody.
            streams.then(|| Lag::measure(own, primary, trail, when))
        }
        _ => None,
    };
    let asked = |node: Option<usize>| known[node?].asked().map(|[began, _]| began);
    NodeState {
        reason,
        detail,
        role: Some(facts.role()),
        lag_asked: lag
            .and_then(|lag| lag.apply_bytes)
            .and_then(|_| asked(Some(node)).into_iter().chain(asked(reference)).min()),
        lag: lag.unwrap_or_default(),
    }
}

/// Judges a node that answered.
fn judged(
    known: &[Known<'_>],
    names: &[String],
    node: usize,
    primaries: &Primaries,
) -> (Reason, Option<Cow<'static, str>>) {
    let it = &known[node];
    let told = |node: usize| known[node].replication();
    let own = it.replication();
    let reference = primaries.servers.first().and_then(|&first| told(first));
    let phrase = |reason, detail: &'static str| (reason, Some(Cow::Borrowed(detail)));
    if own.is_some_and(|own| of_another_system(own, reference)) {
        return phrase(Reason::WrongSystem, "another system than the primary's");
    }
    if let Some((_, first)) = primaries.doubles.iter().find(|(double, _)| *double == node) {
        let detail = format!("leads to the same server as {}", names[*first]);
        return (Reason::NotStreaming, Some(Cow::Owned(detail)));
    }
    if primaries.rivals.contains(&node) {
        return phrase(
            Reason::SplitBrain,
            "more than one node is a writable primary",
        );
    }
    if it.is_writable() && own.is_some_and(|own| own.own_read_only) {
        return phrase(
            Reason::Ok,
            "only the probe's own transactions are read-only, by a setting of its role or database",
        );
    }
    if it.is_writable() {
        return (Reason::Ok, None);
    }
    if !it.is_standby() {
        return phrase(Reason::ReadOnly, "its transactions are read-only");
    }
    match own.and_then(Replication::streams) {
        Some(false) => phrase(Reason::NotStreaming, "the WAL receiver is not streaming"),
        Some(true) => match strays(known, names, node) {
            Some(detail) => phrase(Reason::NotStreaming, detail),
            None => (Reason::Ok, None),
        },
        None => (Reason::Ok, None),
    }
}

/// Says why a standby that streams certainly does not stream from the primary, or
/// from a node that cascades; `None` where it does, or where that cannot be seen.
pub fn strays(known: &[Known<'_>], names: &[String], node: usize) -> Option<&'static str> {
    let standby = &known[node];
    let (own, streaming) = (standby.replication()?, standby.streaming?);
    let primary = (0..known.len()).find(|&other| known[other].is_writable())?;
    if is_on_later_timeline(standby, &known[primary]) {
        return Some("it streams from a server on a later timeline than the primary's");
    }
    let others = (0..known.len()).filter(|&other| other != node);
    for other in others {
        // A node that does not answer may cascade.
        let told = known[other].replication()?;
        let asked = known[other].asked()?;
        // Who was seen to stream before that either streamed from there then, or not
        // at all any more.
        if !streaming.has_begun_by(asked[0]) || may_feed(told, own, &names[node]) {
            return None;
        }
    }
    Some("no node of this pair sends to it")
}

/// Says whether the standby may be one of those who stream from a node: what may
/// not be seen may be so.
fn may_feed(sender: &Replication, standby: &Replication, name: &str) -> bool {
    let Some(rows) = &sender.senders else {
        return true;
    };
    let may_be_standby = |it: &&Sender| it.state.as_deref() != Some("backup") && !it.logical;
    let mut readers = rows.kept.iter().filter(may_be_standby).peekable();
    if readers.peek().is_none() {
        return rows.more > 0;
    }
    let names = names_of(standby, name);
    let is_known = standby
        .receiver()
        .is_some_and(|it| it.application_name.is_some());
    let may_be = |it: &Sender| {
        it.state.is_none() || !is_known || names.contains(&it.application_name.as_str())
    };
    rows.more > 0 || readers.any(may_be)
}

fn absent(known: &Known<'_>) -> NodeState {
    let (reason, detail) = match known.failure() {
        Some(failure) => (failure.reason, failure.detail.clone()),
        None if known.overdue.is_some() => (Reason::TimedOut, Cow::Borrowed("no answer")),
        None => (Reason::Starting, Cow::Borrowed("not asked yet")),
    };
    NodeState {
        reason,
        detail: Some(detail),
        role: None,
        lag: Lag::default(),
        lag_asked: None,
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

/// The names by which a standby may be known to its sender: by its own word, or,
/// where that may not be seen, by PostgreSQL's rule for a standby that is given
/// no name, or by the node's.
fn names_of<'a>(standby: &'a Replication, name: &'a str) -> Vec<&'a str> {
    let own = standby
        .receiver()
        .and_then(|it| it.application_name.as_deref());
    match own {
        Some(own) => vec![own],
        None => vec![
            name,
            standby.cluster_name.as_deref().unwrap_or("walreceiver"),
        ],
    }
}

/// Finds a node's row for a standby: by the slot that it uses, else by its name.
/// No guess is made: `None` where more than one row could be meant.
pub fn sender_of<'a>(
    sender: &'a Replication,
    standby: &Replication,
    name: &str,
) -> Option<&'a Sender> {
    let slot = standby.receiver().and_then(|it| it.slot.as_deref());
    let readers = || sender.senders().iter().filter(|it| it.is_standby());
    if let Some(found) = readers().find(|it| slot.is_some() && it.slot.as_deref() == slot) {
        return Some(found);
    }
    let names = names_of(standby, name);
    let mut found = readers().filter(|it| {
        let other_slot = slot.is_some() && it.slot.is_some();
        !other_slot && names.contains(&it.application_name.as_str())
    });
    found.next().filter(|_| found.next().is_none())
}

#[cfg(test)]
mod tests;
