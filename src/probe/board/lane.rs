//! A lane: one watcher's work, and what came of it last.

use std::time::{Duration, Instant};

use super::{Arrival, Rules};
use crate::probe::assessment::Known;
use crate::probe::node::{Depth, Facts, Failure, Observation, Reason, Replication, What};
use crate::probe::span::Span;
use crate::probe::verdict::{Sight, Silence};

/// After a failure the next try waits this long (a quarter of the deadline if
/// that is less), so that many requests do not hammer a server that refuses.
const PACE_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Commits are tried at most this often; the last one speaks for requests that
/// arrive until then.
const COMMIT_AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// A login that went through speaks for this long, and is then tried again.
pub const LOGIN_INTERVAL: Duration = Duration::from_secs(10);

/// The first login is tried this long after the start.
const FIRST_LOGIN_AFTER: Duration = Duration::from_secs(1);

/// What a lane is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What the node says.
    Observe,
    /// Whether a commit goes through there.
    Commit,
    /// Whether a new login goes through there.
    Login,
}

impl Kind {
    /// Every kind, in the order of the board's lanes.
    pub const ALL: [Kind; 3] = [Kind::Observe, Kind::Commit, Kind::Login];
}

pub(super) struct Lane {
    /// What it is for.
    pub kind: Kind,
    /// The watcher that may speak for the lane; others were abandoned.
    pub epoch: u64,
    /// The watcher waits for something to do.
    pub idle: bool,
    /// What somebody waits for that has not begun yet.
    pub wanted: Option<What>,
    /// The next deep observation, or login, that nobody asked for.
    pub due: Instant,
    /// A shallow one is due before that: nobody is known to be primary.
    pub again_at: Option<Instant>,
    /// Not before this, whoever asks.
    not_before: Instant,
    pub under_way: Option<UnderWay>,
    latest: Option<Latest>,
    /// The latest in which the node told of replication, in the role that it
    /// has now. Shallower ones may follow it.
    deep: Option<Latest>,
    /// Since when the node has answered in the role that it has now.
    in_role_since: Option<Instant>,
    /// Since when the node is known to hold the position that it told last.
    held_since: Instant,
    /// While it is seen to be a writable primary.
    writable: Option<Span>,
    /// When it was first seen to be one no more: the end of that round trip.
    lost_at: Option<Instant>,
    /// While it is seen to stream as a standby.
    streaming: Option<Span>,
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
    pub(super) fn new(kind: Kind, now: Instant) -> Lane {
        Lane {
            kind,
            epoch: 0,
            idle: false,
            wanted: None,
            // The first observation has the server to itself.
            due: match kind {
                Kind::Login => now + FIRST_LOGIN_AFTER,
                Kind::Observe | Kind::Commit => now,
            },
            again_at: None,
            not_before: now,
            under_way: None,
            latest: None,
            deep: None,
            in_role_since: None,
            held_since: now,
            writable: None,
            lost_at: None,
            streaming: None,
            silent_since: now,
            overdue: false,
        }
    }

    /// Returns what to do now, or how long to wait; `None` is until woken.
    pub(super) fn next(&self, now: Instant) -> Result<What, Option<Duration>> {
        let own = self.own();
        let due = match (self.wanted, own) {
            (Some(_), _) => self.not_before,
            (None, Some(due)) => due.max(self.not_before),
            (None, None) => return Err(None),
        };
        if due > now {
            return Err(Some(due - now));
        }
        Ok(match self.kind {
            Kind::Commit => What::Commit,
            Kind::Login => What::Login,
            // The role stands alone: a server that was just reached may take its time
            // for all the rest. Otherwise, when the deep one is due as well, it goes
            // along, and without one to rest on, whoever asks gets one.
            Kind::Observe => match self.wanted {
                Some(What::Observe(Depth::Replication)) => What::Observe(Depth::Replication),
                _ if !self.has_answered() => What::Observe(Depth::Role),
                _ if self.due <= now || self.deep.is_none() => What::Observe(Depth::Replication),
                _ => What::Observe(Depth::Role),
            },
        })
    }

    /// Says whether its last round trip went through.
    pub(super) fn has_answered(&self) -> bool {
        self.latest
            .as_ref()
            .is_some_and(|latest| latest.seen.outcome.is_ok())
    }

    /// When the next of its own is due.
    fn own(&self) -> Option<Instant> {
        let again_at = self.again_at.unwrap_or(self.due);
        (self.kind != Kind::Commit).then(|| self.due.min(again_at))
    }

    /// Takes note of what begins now.
    pub(super) fn begin(&mut self, number: u64, what: What, now: Instant, rules: &Rules) {
        self.wanted = None;
        self.again_at = None;
        // A shallow one does not put off the deep one: whoever asks for roles more
        // often than the interval would freeze all else that is known.
        if what != What::Observe(Depth::Role) {
            self.due = now + self.interval(rules);
        }
        self.under_way = Some(UnderWay {
            number,
            began: now,
            // A commit that waits for a synchronous standby goes on waiting in
            // the server when its connection ends; every new one would take
            // another connection from the role.
            stuck_at: (self.kind != Kind::Commit).then(|| now + rules.stuck_after),
            so_far: None,
        });
    }

    fn interval(&self, rules: &Rules) -> Duration {
        match self.kind {
            Kind::Login => rules.interval.max(LOGIN_INTERVAL),
            Kind::Observe | Kind::Commit => rules.interval,
        }
    }

    /// Takes in what came of the round trip. `anew`: its connection was replaced
    /// on the way, so that another server may have answered than before.
    pub(super) fn take_in(&mut self, number: u64, seen: Observation, anew: bool, rules: &Rules) {
        let late = seen.took() > rules.deadline;
        let failed = seen.outcome.is_err();
        // What took longer than the deadline would keep everybody waiting as
        // long again. So the node stays overdue, and if it did answer it is
        // asked again at once, in case it is fast by now.
        self.overdue = late && (failed || self.kind == Kind::Observe);
        if late && !failed {
            self.due = seen.ended;
        }
        if failed && self.kind != Kind::Commit {
            self.due = seen.began + rules.interval;
        }
        if !(late && failed) {
            self.silent_since = seen.ended;
        }
        self.not_before = match self.kind {
            Kind::Commit => seen.began + COMMIT_AT_MOST_EVERY,
            Kind::Login => seen.began + rules.interval.min(LOGIN_INTERVAL),
            Kind::Observe if failed => seen.began + PACE_AFTER_FAILURE.min(rules.deadline / 4),
            Kind::Observe => seen.ended,
        };
        let latest = Latest { number, seen };
        if self.kind == Kind::Observe {
            self.follow(&latest, anew);
        }
        self.latest = Some(latest);
    }

    /// Follows for how long the node has shown the same, and keeps the deep facts.
    fn follow(&mut self, latest: &Latest, anew: bool) {
        let seen = &latest.seen;
        let facts = seen.facts();
        let role = |it: &Observation| it.facts().map(|facts| facts.in_recovery);
        let writable = facts.is_some_and(Facts::is_writable_primary);
        if writable {
            self.lost_at = None;
        } else if self.writable.is_some() {
            self.lost_at = Some(seen.ended);
        }
        if anew {
            self.writable = None;
            self.streaming = None;
        }
        self.writable = Span::follow(self.writable, seen.round_trip(), writable);
        // What it told of replication in another role, or before it was gone, is
        // over.
        let former = self.latest.as_ref().and_then(|latest| role(&latest.seen));
        if role(seen).is_none() || role(seen) != former {
            self.deep = None;
            self.in_role_since = role(seen).map(|_| seen.ended);
        }
        let Some(replication) = facts.and_then(|facts| facts.replication.as_deref()) else {
            self.streaming.take_if(|_| self.deep.is_none());
            return;
        };
        let streams = facts.is_some_and(|it| it.in_recovery) && replication.streams() == Some(true);
        self.streaming = Span::follow(self.streaming, seen.round_trip(), streams);
        if self.told().map(|told| told.lsn) != Some(replication.lsn) {
            self.held_since = seen.ended;
        }
        self.deep = Some(latest.clone());
    }

    pub(super) fn take_over(&mut self, epoch: u64, now: Instant) {
        self.epoch = epoch;
        self.under_way = None;
        self.due = now;
        self.not_before = now;
    }

    /// Asks for a shallow observation of its own by then.
    pub(super) fn ask_again_by(&mut self, instant: Instant) {
        self.again_at = Some(self.again_at.map_or(instant, |at| at.min(instant)));
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

    /// What a request that arrived then may know of a commit, or of a login: one
    /// is enough that began when another could not have been tried yet.
    pub(super) fn trial_sight(&self, arrival: Arrival, now: Instant) -> Sight<'_> {
        let fresh = self.latest.as_ref().filter(|latest| {
            let speaks_for = match self.kind {
                Kind::Login if latest.seen.outcome.is_ok() => LOGIN_INTERVAL,
                _ => COMMIT_AT_MOST_EVERY,
            };
            latest.number > arrival.begun || latest.seen.began + speaks_for > arrival.at
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

    /// What is known of the node, if it is not too old to be a fact.
    pub(super) fn last_sight(&self, now: Instant, rules: &Rules) -> Sight<'_> {
        match &self.latest {
            _ if self.overdue => Sight::Overdue(self.silence()),
            Some(latest) if rules.has_expired(&latest.seen, now) => Sight::Overdue(self.silence()),
            Some(latest) => Sight::Fresh(&latest.seen),
            None => Sight::Pending,
        }
    }

    /// What is known of the node now: what is too old is not.
    pub(super) fn known(&self, now: Instant, rules: &Rules) -> Known<'_> {
        let deep = self.deep.as_ref().map(|deep| &deep.seen);
        let deep = deep.filter(|seen| !rules.has_expired(seen, now));
        let is_young = |since: Instant| now.saturating_duration_since(since) <= rules.lifetime();
        let latest = self.latest.as_ref().map(|latest| &latest.seen);
        let owes = self.overdue || latest.is_some_and(|seen| rules.has_expired(seen, now));
        Known {
            latest,
            replication: deep.and_then(|seen| Some((replication_of(seen)?, seen.round_trip()))),
            held_since: self.deep.as_ref().map(|_| self.held_since),
            overdue: owes.then(|| self.silence().so_far),
            writable: self.writable,
            lost_at: self.lost_at,
            streaming: self.streaming,
            is_new: self.deep.is_none() && self.in_role_since.is_some_and(is_young),
        }
    }

    /// What the node told of replication last, however long ago.
    pub(super) fn told(&self) -> Option<&Replication> {
        replication_of(&self.deep.as_ref()?.seen)
    }

    /// What became of the last trial that ended.
    pub(super) fn trial(&self) -> Option<&Observation> {
        self.latest.as_ref().map(|latest| &latest.seen)
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

fn replication_of(seen: &Observation) -> Option<&Replication> {
    seen.facts()?.replication.as_deref()
}

/// How much a node told; `None` if it failed to.
fn depth_of(seen: &Observation) -> Option<Depth> {
    seen.facts().map(|facts| match facts.replication {
        Some(_) => Depth::Replication,
        None => Depth::Role,
    })
}
