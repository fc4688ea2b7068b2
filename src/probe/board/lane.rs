//! A lane: one watcher's work, and what came of it last.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Arrival, Rules};
use crate::probe::node::{Depth, Failure, Observation, Reason, Replication, What};
use crate::probe::pair::Known;
use crate::probe::verdict::{Sight, Silence};

/// After a failure the next try waits this long (a quarter of the deadline if
/// that is less), so that many requests do not hammer a server that refuses.
const PACE_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Commits are tried at most this often; the last one speaks for requests that
/// arrive until then.
const COMMIT_AT_MOST_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Lane {
    /// It tries commits; other lanes observe.
    pub commits: bool,
    /// The watcher that may speak for the lane; others were abandoned.
    pub epoch: u64,
    /// The watcher waits for something to do.
    pub idle: bool,
    /// What somebody waits for that has not begun yet.
    pub wanted: Option<What>,
    /// The next observation that nobody asked for.
    pub due: Instant,
    /// Not before this, whoever asks.
    not_before: Instant,
    pub under_way: Option<UnderWay>,
    latest: Option<Latest>,
    /// The latest in which the node told of replication. Shallower ones may
    /// follow it while a question waits for another node.
    deep: Option<Latest>,
    /// The last that the node said about replication, and when the round trip
    /// began and ended.
    pub replication: Option<(Arc<Replication>, [Instant; 2])>,
    /// Since when the node is known to hold the position that it told last.
    held_since: Instant,
    /// When the node last answered, or when pgpair began to ask.
    pub silent_since: Instant,
    /// It owes an answer for longer than the deadline.
    overdue: bool,
}

pub(super) struct UnderWay {
    pub number: u64,
    pub began: Instant,
    /// From then on its watcher is stuck; `None` is never.
    pub stuck_at: Option<Instant>,
    pub so_far: Option<Failure>,
}

#[derive(Clone)]
struct Latest {
    number: u64,
    seen: Observation,
}

impl Lane {
    pub(super) fn new(commits: bool, now: Instant) -> Lane {
        Lane {
            commits,
            epoch: 0,
            idle: false,
            wanted: None,
            due: now,
            not_before: now,
            under_way: None,
            latest: None,
            deep: None,
            replication: None,
            held_since: now,
            silent_since: now,
            overdue: false,
        }
    }

    /// Returns what to do now, or how long to wait; `None` is until woken.
    pub(super) fn next(&self, now: Instant) -> Result<What, Option<Duration>> {
        let own = (!self.commits).then_some(self.due);
        let due = match (self.wanted, own) {
            (Some(_), _) => self.not_before,
            (None, Some(due)) => due.max(self.not_before),
            (None, None) => return Err(None),
        };
        if due > now {
            return Err(Some(due - now));
        }
        // When our own is due as well, it goes along.
        match self.wanted {
            Some(what) if own.is_none_or(|own| own > now) => Ok(what),
            _ => Ok(What::Observe(Depth::Replication)),
        }
    }

    pub(super) fn take_in(&mut self, number: u64, seen: Observation, rules: &Rules) {
        let late = seen.took() > rules.deadline;
        let failed = seen.outcome.is_err();
        // What took longer than the deadline would keep everybody waiting as
        // long again. So the node stays overdue, and if it did answer it is
        // asked again at once, in case it is fast by now.
        self.overdue = late && (failed || !self.commits);
        if late && !failed {
            self.due = seen.ended;
        }
        if !(late && failed) {
            self.silent_since = seen.ended;
        }
        self.not_before = if self.commits {
            seen.began + COMMIT_AT_MOST_EVERY
        } else if failed {
            seen.began + PACE_AFTER_FAILURE.min(rules.deadline / 4)
        } else {
            seen.ended
        };
        if let Some(replication) = seen.facts().and_then(|facts| facts.replication.clone()) {
            let before = self.replication.as_ref().map(|(told, _)| told.lsn);
            if before != Some(replication.lsn) {
                self.held_since = seen.ended;
            }
            self.replication = Some((replication, [seen.began, seen.ended]));
        }
        if failed {
            self.replication = None;
        }
        let latest = Latest { number, seen };
        if depth_of(&latest.seen) == Some(Depth::Replication) {
            self.deep = Some(latest.clone());
        }
        self.latest = Some(latest);
    }

    pub(super) fn take_over(&mut self, epoch: u64, now: Instant) {
        self.epoch = epoch;
        self.under_way = None;
        self.due = now;
        self.not_before = now;
    }

    /// Marks the lane overdue if what is under way is late.
    pub(super) fn mark_overdue(&mut self, now: Instant, deadline: Duration) {
        let under_way = self.under_way.as_ref();
        self.overdue |= under_way.is_some_and(|it| it.began + deadline <= now);
    }

    /// When this lane needs the sweep next.
    pub(super) fn next_limit(&self, deadline: Duration) -> Option<Instant> {
        let under_way = self.under_way.as_ref()?;
        if self.overdue {
            under_way.stuck_at
        } else {
            Some(under_way.began + deadline)
        }
    }

    /// What a request that arrived then may know of the node.
    pub(super) fn sight(&self, depth: Depth, arrival: Arrival, now: Instant) -> Sight<'_> {
        let enough = |latest: &&Latest| {
            // A failure answers every question.
            latest.number > arrival.begun && depth_of(&latest.seen).is_none_or(|it| it >= depth)
        };
        let latest = self.latest.as_ref().filter(enough);
        let fresh = latest.or(self.deep.as_ref().filter(enough));
        self.sight_of(fresh, arrival, now)
    }

    /// What a request that arrived then may know of a commit: one is enough
    /// that began when another could not have been tried yet.
    pub(super) fn commit_sight(&self, arrival: Arrival, now: Instant) -> Sight<'_> {
        let fresh = self.latest.as_ref().filter(|latest| {
            latest.number > arrival.begun || latest.seen.began + COMMIT_AT_MOST_EVERY > arrival.at
        });
        self.sight_of(
            fresh.filter(|_| self.under_way.is_none() || !self.overdue),
            arrival,
            now,
        )
    }

    fn sight_of<'a>(
        &'a self,
        fresh: Option<&'a Latest>,
        arrival: Arrival,
        now: Instant,
    ) -> Sight<'a> {
        match fresh {
            Some(latest) => Sight::Fresh(&latest.seen),
            None if arrival.deadline <= now => Sight::TimedOut(self.silence()),
            None if self.overdue => Sight::Overdue(self.silence()),
            None => Sight::Pending,
        }
    }

    /// What is known of the node, however old.
    pub(super) fn last_sight(&self) -> Sight<'_> {
        match &self.latest {
            _ if self.overdue => Sight::Overdue(self.silence()),
            Some(latest) => Sight::Fresh(&latest.seen),
            None => Sight::Pending,
        }
    }

    pub(super) fn known(&self) -> Known<'_> {
        Known {
            latest: self.latest.as_ref().map(|latest| &latest.seen),
            replication: self
                .replication
                .as_ref()
                .map(|(told, asked)| (told.as_ref(), *asked)),
            held_since: self.replication.as_ref().map(|_| self.held_since),
            overdue: self.overdue.then(|| self.silence().so_far),
        }
    }

    /// What is wrong with the node, with its cause for the log.
    pub(super) fn failure(&self) -> Option<&Failure> {
        match self.overdue {
            true => self.silence().so_far,
            false => self.latest.as_ref()?.seen.outcome.as_ref().err(),
        }
    }

    fn silence(&self) -> Silence<'_> {
        let under_way = self.under_way.as_ref().and_then(|it| it.so_far.as_ref());
        let late = self
            .latest
            .as_ref()
            .and_then(|latest| latest.seen.outcome.as_ref().err())
            .filter(|failure| self.overdue && failure.reason != Reason::TimedOut);
        Silence {
            since: self.silent_since,
            so_far: under_way.or(late),
        }
    }
}

/// How much a node told; `None` if it failed to.
fn depth_of(seen: &Observation) -> Option<Depth> {
    seen.facts().map(|facts| match facts.replication {
        Some(_) => Depth::Replication,
        None => Depth::Role,
    })
}
