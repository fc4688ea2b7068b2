//! Keeps synchronous replication as it was asked for: what has to be done next,
//! by what was seen. Pure: it neither asks nor sets anything.

use std::time::{Duration, Instant};

use crate::pair::sync::Mode;
use crate::pg::lsn::Lsn;

/// A server has told all its processes of a new setting after this.
const TOLD_AFTER: Duration = Duration::from_secs(1);

/// What the primary says of itself and its standby.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Where its WAL ends.
    pub end: Lsn,
    /// Its commits wait for the standby.
    pub waits: bool,
    /// The standby, if it streams.
    pub standby: Option<Standby>,
}

/// A standby that streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standby {
    /// The primary counts it as synchronous.
    pub synchronous: bool,
    /// What it has on its disk.
    pub flushed: Lsn,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    Nothing,
    /// Have commits wait for the standby.
    Wait,
    /// See that every process knows: a checkpoint begins after it does.
    Settle,
    /// The promise is in force.
    Promise,
    /// Take the promise back, then have commits wait no more.
    Degrade,
}

/// Where keeping the mode is.
#[derive(Debug)]
pub struct SyncController {
    mode: Mode,
    limit: Duration,
    stage: Stage,
    well_at: Instant,
    flushed: Option<Lsn>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Commits do not wait.
    Off,
    /// They were told to.
    Told(Instant),
    /// All of them do; what was acknowledged before must reach the standby.
    Settled(Option<Lsn>),
    /// The promise is in force.
    InForce,
}

impl SyncController {
    /// Begins; `in_force` is what was promised before.
    pub fn new(mode: Mode, limit: Duration, in_force: bool, now: Instant) -> SyncController {
        SyncController {
            mode,
            limit,
            stage: if in_force { Stage::InForce } else { Stage::Off },
            well_at: now,
            flushed: None,
        }
    }

    /// Says whether the promise is in force.
    pub fn in_force(&self) -> bool {
        self.stage == Stage::InForce
    }

    /// Decides what to do, and takes it for done.
    pub fn next(&mut self, seen: &Seen, now: Instant) -> Act {
        self.note(seen, now);
        if !seen.waits && self.stage != Stage::Off {
            // Somebody else has taken the setting back.
            self.stage = Stage::Off;
            return Act::Degrade;
        }
        let gone = now.duration_since(self.well_at) > self.limit;
        match (self.mode, self.stage) {
            (Mode::Async, _) if seen.waits => self.degrade(),
            (Mode::Async, _) => Act::Nothing,
            (Mode::Sync, _) if seen.waits && gone => self.degrade(),
            (Mode::Sync, Stage::Off) if seen.standby.is_none() || gone => Act::Nothing,
            (_, Stage::Off) => {
                self.stage = Stage::Told(now);
                Act::Wait
            }
            (_, Stage::Told(at)) if now.duration_since(at) >= TOLD_AFTER => {
                self.stage = Stage::Settled(None);
                Act::Settle
            }
            (_, Stage::Settled(None)) => {
                self.stage = Stage::Settled(Some(seen.end));
                Act::Nothing
            }
            (_, Stage::Settled(Some(end))) if has(seen.standby, end) => {
                self.stage = Stage::InForce;
                Act::Promise
            }
            _ => Act::Nothing,
        }
    }

    /// Takes back that every process knows: that could not be seen to.
    pub fn not_settled(&mut self, now: Instant) {
        self.stage = Stage::Told(now);
    }

    /// Notes when the standby was last seen to keep up.
    fn note(&mut self, seen: &Seen, now: Instant) {
        let flushed = seen.standby.map(|standby| standby.flushed);
        let moves = flushed != self.flushed;
        if flushed.is_some_and(|flushed| moves || flushed >= seen.end) {
            self.well_at = now;
        }
        self.flushed = flushed;
    }

    fn degrade(&mut self) -> Act {
        self.stage = Stage::Off;
        Act::Degrade
    }
}

fn has(standby: Option<Standby>, end: Lsn) -> bool {
    standby.is_some_and(|standby| standby.synchronous && standby.flushed >= end)
}

#[cfg(test)]
mod tests;
