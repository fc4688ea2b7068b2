//! How far a standby is behind: honest when the pair is idle (0) and when
//! replication is broken (growing or unknown, never 0).

use std::collections::VecDeque;
use std::time::Instant;

use super::node::Replication;
use crate::pg::lsn::Lsn;

/// Samples of the primary's position that are kept: an hour at one a second.
const TRAIL_SAMPLES: usize = 3_600;

/// Which part of a standby's work is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// What is replayed, so that queries see it.
    #[default]
    Apply,
    /// What is received and flushed, so that it survives the primary.
    Write,
}

impl Mode {
    /// Returns the word for this mode.
    pub const fn word(self) -> &'static str {
        match self {
            Mode::Apply => "apply",
            Mode::Write => "write",
        }
    }
}

/// Returns how many bytes `standby` is behind; `None` if that is unknown.
///
/// Measured against the primary's own position; without one, against the end
/// of WAL that the receiver last heard of. A standby that does not stream and
/// is not known to be behind may be behind what nobody told it: unknown.
pub fn bytes(standby: &Replication, primary: Option<&Replication>, mode: Mode) -> Option<u64> {
    let reached = match mode {
        Mode::Apply => standby.lsn?,
        // What was replayed was there, wherever it came from.
        Mode::Write => standby.received.max(standby.lsn)?,
    };
    let heard_of = || {
        let receiver = standby.receiver();
        receiver.and_then(|it| it.latest_end).max(standby.received)
    };
    let end = primary.and_then(|it| it.lsn).or_else(heard_of)?;
    let behind = end.ahead_of(reached);
    (behind > 0 || standby.streams() == Some(true)).then_some(behind)
}

/// Where the primary was when: turns a position into a time, by our own clock.
#[derive(Debug, Default)]
pub struct Trail(VecDeque<(Instant, Lsn)>);

impl Trail {
    /// Records where the primary was. Positions that go back belong to another
    /// primary: the trail begins anew.
    pub fn record(&mut self, when: Instant, at: Lsn) {
        if self.0.back().is_some_and(|(_, last)| *last > at) {
            self.0.clear();
        }
        if self.0.len() == TRAIL_SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back((when, at));
    }

    /// Returns where the primary was at `when`, by the last sample until then.
    fn at(&self, when: Instant) -> Option<Lsn> {
        let until = self.0.partition_point(|(sampled, _)| *sampled <= when);
        self.0.get(until.checked_sub(1)?).map(|(_, at)| *at)
    }

    /// Returns how long before `when` the standby, seen then, had what the
    /// primary had; `None` if that is unknown.
    ///
    /// Zero when nothing is missing. Otherwise the least of what is certain: it
    /// has what the primary had at a sample (as exact as samples are apart, by
    /// our own clock), and it has the last transaction that it replayed (by
    /// the servers' clocks). A standby behind all that is remembered is behind
    /// for at least that long.
    pub fn seconds(&self, standby: &Replication, behind_bytes: u64, when: Instant) -> Option<f64> {
        if standby.streams() != Some(true) {
            return None;
        }
        if behind_bytes == 0 {
            return Some(0.0);
        }
        let replayed = standby.lsn?;
        let reached = self.0.partition_point(|(_, at)| *at <= replayed);
        let sample = self.0.get(reached.saturating_sub(1));
        let by_sample = sample.map(|(at, _)| when.saturating_duration_since(*at).as_secs_f64());
        let by_commit = standby.replay_age_seconds.filter(|age| *age >= 0.0);
        match (by_sample, by_commit) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }
}

/// Parses `10MB`, `512kB`, `1024` (bytes), as PostgreSQL writes sizes.
///
/// # Errors
///
/// Says what would do.
pub fn parse_bytes(text: &str) -> Result<u64, &'static str> {
    const WOULD_DO: &str = "a whole number of bytes, or with kB, MB, GB or TB";
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let power = match unit {
        "" | "B" => 0,
        "kB" => 1,
        "MB" => 2,
        "GB" => 3,
        "TB" => 4,
        _ => return Err(WOULD_DO),
    };
    // To PostgreSQL and Patroni a leading zero means octal: better none at all.
    if number.len() > 1 && number.starts_with('0') {
        return Err(WOULD_DO);
    }
    let number: u64 = number.parse().map_err(|_| WOULD_DO)?;
    number.checked_mul(1024_u64.pow(power)).ok_or(WOULD_DO)
}

/// A standby's lag in every way it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lag {
    /// Not yet replayed, in bytes.
    pub apply_bytes: Option<u64>,
    /// Not yet received, in bytes.
    pub write_bytes: Option<u64>,
    /// Not yet replayed, in seconds.
    pub seconds: Option<f64>,
}

impl Lag {
    /// Measures a standby, seen at `when`, against a primary, if there is one.
    ///
    /// While it streams, against where the primary was at that moment: what was
    /// written between the two observations is no lag.
    pub fn measure(
        standby: &Replication,
        primary: Option<&Replication>,
        trail: &Trail,
        when: Instant,
    ) -> Lag {
        let then = match primary {
            Some(primary) if standby.streams() == Some(true) => {
                let heard_of = standby.receiver().and_then(|it| it.latest_end);
                let lsn = trail.at(when).max(heard_of).or(primary.lsn);
                Some(Replication {
                    lsn,
                    ..Replication::default()
                })
            }
            other => other.cloned(),
        };
        let apply_bytes = bytes(standby, then.as_ref(), Mode::Apply);
        Lag {
            apply_bytes,
            write_bytes: bytes(standby, then.as_ref(), Mode::Write),
            seconds: apply_bytes.and_then(|behind| trail.seconds(standby, behind, when)),
        }
    }
}

#[cfg(test)]
mod tests;
