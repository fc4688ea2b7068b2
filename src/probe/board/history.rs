//! What happened over time: changes, lag, outages, counts.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use log::Level;

use crate::probe::assessment::{self, Assessment, Former, Known, PairVerdict};
use crate::probe::lag::Trail;
use crate::probe::node::{Denied, Facts, Failure, Observation, Part, Reason};
use crate::probe::verdict::Verdict;

/// Changes that are remembered.
const TRANSITIONS: usize = 50;

/// Samples of lag that are remembered: five minutes at one a second.
const SAMPLES: usize = 300;

/// Bounds of the histogram of observations, in seconds: from a fast round trip
/// on one host to a stuck watcher.
pub const BUCKETS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0,
];

/// One change of a node's or the pair's state.
#[derive(Clone, Debug)]
pub struct Transition {
    /// When, by the wall clock.
    pub at: SystemTime,
    /// When, by the steady one.
    pub when: Instant,
    /// The node, or `None` for the pair.
    pub node: Option<usize>,
    /// The word before; none at the first.
    pub from: Option<&'static str>,
    /// The word since.
    pub to: &'static str,
    /// The node's role since.
    pub role: Option<&'static str>,
}

/// What was counted of a node.
#[derive(Clone, Debug, Default)]
pub struct NodeCounts {
    /// Observations, by how long they took: one count a bound of
    /// [`BUCKETS`], and one above them all. Not cumulative.
    pub buckets: [u64; BUCKETS.len() + 1],
    /// The time that all observations took together, in seconds.
    pub seconds: f64,
    /// Failed observations by reason.
    pub failures: BTreeMap<&'static str, u64>,
    /// Watchers that were abandoned.
    pub abandoned: u64,
    /// Time without an answer, altogether.
    pub outage: Duration,
    /// When its state last changed.
    pub last_transition: Option<SystemTime>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Logged {
    reason: Reason,
    role: Option<&'static str>,
}

pub(super) struct Record {
    trail: Trail,
    followed: Option<Instant>,
    transitions: VecDeque<Transition>,
    nodes: Vec<NodeRecord>,
    pair: Option<(PairVerdict, bool, Reason)>,
    former: Option<Former>,
    next_sample: Instant,
}

#[derive(Default)]
struct NodeRecord {
    logged: Option<Logged>,
    login: Option<Reason>,
    /// What the server refuses to tell, as far as it was logged.
    denied: Vec<Part>,
    counts: NodeCounts,
    down_since: Option<Instant>,
    lag_bytes: VecDeque<Option<u64>>,
}

impl Record {
    pub(super) fn new(nodes: usize, now: Instant) -> Record {
        Record {
            trail: Trail::default(),
            followed: None,
            transitions: VecDeque::new(),
            nodes: (0..nodes).map(|_| NodeRecord::default()).collect(),
            pair: None,
            former: None,
            next_sample: now,
        }
    }

    /// Assesses the pair by what is known, and by what it was before.
    pub(super) fn assess(&self, known: &[Known<'_>], names: &[String], now: Instant) -> Assessment {
        assessment::assess(known, names, &self.trail, self.former, now)
    }

    pub(super) fn next_sample(&self) -> Instant {
        self.next_sample
    }

    pub(super) fn transitions(&self) -> Vec<Transition> {
        self.transitions.iter().cloned().collect()
    }

    pub(super) fn lag_bytes(&self, node: usize) -> Vec<Option<u64>> {
        self.nodes[node].lag_bytes.iter().copied().collect()
    }

    pub(super) fn counts(&self, node: usize, now: Instant) -> NodeCounts {
        let record = &self.nodes[node];
        let mut counts = record.counts.clone();
        if let Some(since) = record.down_since {
            counts.outage += now.saturating_duration_since(since);
        }
        counts
    }

    pub(super) fn abandoned(&mut self, node: usize) {
        self.nodes[node].counts.abandoned += 1;
    }

    pub(super) fn observed(&mut self, node: usize, seen: &Observation) {
        let counts = &mut self.nodes[node].counts;
        let seconds = seen.took().as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound);
        counts.buckets[bucket.unwrap_or(BUCKETS.len())] += 1;
        counts.seconds += seconds;
        if let Err(failure) = &seen.outcome {
            *counts.failures.entry(failure.reason.word()).or_default() += 1;
        }
    }

    /// Follows where the primary is, once an observation.
    pub(super) fn follow(&mut self, known: &[Known<'_>], now: Instant) {
        for it in known {
            let primary = it.facts().is_some_and(Facts::is_writable_primary);
            let (Some([began, _]), Some(told)) = (it.asked(), it.replication()) else {
                continue;
            };
            let new = self.followed.is_none_or(|at| began > at);
            if primary
                && new
                && let Some(lsn) = told.lsn
            {
                self.trail.record(began, lsn);
                self.followed = Some(began);
            }
        }
        debug_assert!(self.followed.is_none_or(|at| at <= now));
    }

    /// Remembers every node's lag, once an interval.
    pub(super) fn sample(&mut self, assessment: &Assessment, now: Instant, interval: Duration) {
        if now < self.next_sample {
            return;
        }
        // After a pause the samples go on from now.
        self.next_sample = (self.next_sample + interval).max(now);
        for (record, state) in self.nodes.iter_mut().zip(&assessment.nodes) {
            if record.lag_bytes.len() == SAMPLES {
                record.lag_bytes.pop_front();
            }
            record.lag_bytes.push_back(state.lag.apply_bytes);
        }
    }

    /// Takes note of a new login, and returns the line to log if that changed.
    pub(super) fn login(
        &mut self,
        node: usize,
        name: &str,
        seen: &Observation,
    ) -> Option<(Level, String)> {
        let failure = seen.outcome.as_ref().err();
        let is = failure.map_or(Reason::Ok, |it| it.reason);
        let was = self.nodes[node].login.replace(is);
        // The first that goes through is nothing new.
        if was == Some(is) || (was.is_none() && is == Reason::Ok) {
            return None;
        }
        let mut line = format!("login node={name} reason={is}");
        append_cause(&mut line, failure);
        Some((level(is == Reason::Ok), line))
    }

    /// Takes note of what changed and returns the lines to log.
    pub(super) fn changes(
        &mut self,
        names: &[String],
        assessment: &Assessment,
        ready: &Verdict,
        causes: &[Option<&Failure>],
        now: Instant,
    ) -> Vec<(Level, String)> {
        let mut lines = Vec::new();
        for (node, state) in assessment.nodes.iter().enumerate() {
            let is = Logged {
                reason: state.reason,
                role: state.role,
            };
            let record = &mut self.nodes[node];
            record.keep_outage(state.role.is_none(), now);
            // Before it has been asked there is nothing to tell.
            let unseen =
                state.role.is_none() && causes[node].is_none() && is.reason == Reason::Starting;
            if record.logged == Some(is) || unseen {
                continue;
            }
            let was = record.logged.replace(is);
            record.counts.last_transition = Some(SystemTime::now());
            lines.push((
                level(is.reason == Reason::Ok),
                node_line(&names[node], is, state.detail.as_deref(), causes[node]),
            ));
            self.remember(Transition {
                at: SystemTime::now(),
                when: now,
                node: Some(node),
                from: was.map(|was| was.reason.word()),
                to: is.reason.word(),
                role: is.role,
            });
        }
        lines.extend(self.pair_change(names, assessment, ready, now));
        self.former = Some(assessment.as_former());
        lines
    }

    /// Returns the lines about what a server began, or ceased, to refuse.
    pub(super) fn refusals(
        &mut self,
        names: &[String],
        known: &[Known<'_>],
    ) -> Vec<(Level, String)> {
        let mut lines = Vec::new();
        for (node, record) in self.nodes.iter_mut().enumerate() {
            // What a server that is away would refuse is not known.
            if let Some(told) = known[node].replication() {
                lines.extend(record.refused(&names[node], &told.denied));
            }
        }
        lines
    }

    fn pair_change(
        &mut self,
        names: &[String],
        assessment: &Assessment,
        ready: &Verdict,
        now: Instant,
    ) -> Option<(Level, String)> {
        let is = (assessment.verdict, ready.ok, ready.reason);
        if self.pair == Some(is) || (self.pair.is_none() && is.0 == PairVerdict::Unknown) {
            return None;
        }
        let was = self.pair.replace(is).map(|(verdict, _, _)| verdict);
        if was != Some(is.0) {
            self.remember(Transition {
                at: SystemTime::now(),
                when: now,
                node: None,
                from: was.map(PairVerdict::word),
                to: is.0.word(),
                role: None,
            });
        }
        let primary = assessment
            .primary
            .map_or(String::new(), |node| format!(" primary={}", names[node]));
        let unwell: Vec<&str> = assessment
            .unwell()
            .map(|node| names[node].as_str())
            .collect();
        let unwell = match unwell.as_slice() {
            [] => String::new(),
            some => format!(" unwell={}", some.join(",")),
        };
        let line = format!(
            "pair verdict={} ready={} reason={}{primary}{unwell}",
            is.0, is.1, is.2
        );
        Some((level(is.0 == PairVerdict::Ok && ready.ok), line))
    }

    fn remember(&mut self, transition: Transition) {
        self.transitions.push_front(transition);
        self.transitions.truncate(TRANSITIONS);
    }
}

impl NodeRecord {
    fn refused(&mut self, name: &str, denied: &[Denied]) -> Vec<(Level, String)> {
        let is: Vec<Part> = denied.iter().map(|it| it.part).collect();
        let was = std::mem::replace(&mut self.denied, is);
        let begun = denied.iter().filter(|it| !was.contains(&it.part));
        let begun = begun.map(|it| {
            let (part, cause) = (it.part.word(), &it.cause);
            let line = format!("node node={name} part={part} event=denied cause={cause:?}");
            (Level::Warn, line)
        });
        let ended = was.iter().filter(|part| !self.denied.contains(part));
        let ended = ended.map(|part| {
            let line = format!("node node={name} part={} event=told", part.word());
            (Level::Info, line)
        });
        begun.chain(ended).collect()
    }

    fn keep_outage(&mut self, down: bool, now: Instant) {
        match (down, self.down_since) {
            (true, None) => self.down_since = Some(now),
            (false, Some(since)) => {
                self.counts.outage += now.saturating_duration_since(since);
                self.down_since = None;
            }
            _ => {}
        }
    }
}

fn level(good: bool) -> Level {
    if good { Level::Info } else { Level::Warn }
}

fn node_line(name: &str, is: Logged, detail: Option<&str>, cause: Option<&Failure>) -> String {
    let mut line = format!("node node={name} reason={}", is.reason);
    if let Some(role) = is.role {
        line.push_str(&format!(" role={role}"));
    }
    if let Some(detail) = detail {
        line.push_str(&format!(" detail={detail:?}"));
    }
    append_cause(&mut line, cause);
    line
}

fn append_cause(line: &mut String, failure: Option<&Failure>) {
    if let Some(failure) = failure.filter(|failure| !failure.cause.is_empty()) {
        line.push_str(&format!(" cause={:?}", failure.cause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_quote_what_may_hold_spaces() {
        let failure = Failure::new(Reason::Error, "phrase").with_cause("a: \"b\"\nc");
        let is = |reason, role| Logged { reason, role };
        assert_eq!(
            node_line(
                "a",
                is(Reason::Error, None),
                Some("a \"phrase\""),
                Some(&failure)
            ),
            "node node=a reason=error detail=\"a \\\"phrase\\\"\" cause=\"a: \\\"b\\\"\\nc\""
        );
        assert_eq!(
            node_line("a", is(Reason::Ok, Some("primary")), None, None),
            "node node=a reason=ok role=primary"
        );
    }

    #[test]
    fn refusal_is_logged_when_it_begins_and_when_it_ends() {
        let denied = |parts: &[Part]| -> Vec<Denied> {
            let cause = "permission denied".to_owned();
            let denied = |&part: &Part| Denied {
                part,
                cause: cause.clone(),
            };
            parts.iter().map(denied).collect()
        };
        let mut record = NodeRecord::default();
        let mut lines = |parts: &[Part]| -> Vec<String> {
            let lines = record.refused("a", &denied(parts));
            lines.into_iter().map(|(_, line)| line).collect()
        };
        let slots = "node node=a part=slots event=denied cause=\"permission denied\"";
        assert_eq!(lines(&[]), [""; 0]);
        assert_eq!(lines(&[Part::Slots]), [slots]);
        assert_eq!(lines(&[Part::Slots]), [""; 0]);
        assert_eq!(
            lines(&[Part::Lsn]),
            [
                "node node=a part=lsn event=denied cause=\"permission denied\"",
                "node node=a part=slots event=told"
            ]
        );
    }

    #[test]
    fn outages_add_up() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut record = NodeRecord::default();
        for (seconds, down) in [
            (0, false),
            (1, true),
            (2, true),
            (4, false),
            (5, false),
            (6, true),
            (7, false),
        ] {
            record.keep_outage(down, at(seconds));
        }
        assert_eq!(record.counts.outage, Duration::from_secs(4));
    }
}
