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
mod tests {
    use std::time::Duration;

    use super::super::node::Receiver;
    use super::*;

    fn primary(lsn: u64) -> Replication {
        Replication {
            lsn: Some(Lsn(lsn)),
            ..Replication::default()
        }
    }

    fn standby(replayed: u64, received: u64, status: Option<&str>) -> Replication {
        Replication {
            lsn: Some(Lsn(replayed)),
            received: Some(Lsn(received)),
            receiver: Some(status.map(|status| Receiver {
                status: Some(status.to_owned()),
                latest_end: Some(Lsn(received + 5)),
                ..Receiver::default()
            })),
            ..Replication::default()
        }
    }

    #[test]
    fn bytes_are_exact_and_unknown_rather_than_zero_when_broken() {
        let streaming = Some("streaming");
        for (standby, primary, apply, write) in [
            (
                standby(100, 100, streaming),
                Some(primary(100)),
                Some(0),
                Some(0),
            ),
            (
                standby(90, 100, streaming),
                Some(primary(120)),
                Some(30),
                Some(20),
            ),
            (
                standby(120, 100, streaming),
                Some(primary(120)),
                Some(0),
                Some(0),
            ),
            // Observed a little later than the primary.
            (
                standby(130, 130, streaming),
                Some(primary(120)),
                Some(0),
                Some(0),
            ),
            // Not streaming: behind what is known, or unknown.
            (
                standby(90, 100, None),
                Some(primary(120)),
                Some(30),
                Some(20),
            ),
            (standby(100, 100, None), Some(primary(100)), None, None),
            (
                standby(100, 100, Some("waiting")),
                Some(primary(100)),
                None,
                None,
            ),
            // Without a primary: against what the receiver heard of.
            (standby(90, 100, streaming), None, Some(15), Some(5)),
            (standby(90, 100, None), None, Some(10), None),
            (standby(100, 100, None), None, None, None),
        ] {
            assert_eq!(
                bytes(&standby, primary.as_ref(), Mode::Apply),
                apply,
                "{standby:?}"
            );
            assert_eq!(
                bytes(&standby, primary.as_ref(), Mode::Write),
                write,
                "{standby:?}"
            );
        }
    }

    #[test]
    fn a_role_without_rights_sees_no_lag() {
        let mut blind = standby(100, 100, Some("streaming"));
        if let Some(receiver) = blind.receiver.as_mut().and_then(Option::as_mut) {
            receiver.status = None;
        }
        assert_eq!(bytes(&blind, Some(&primary(100)), Mode::Apply), None);
        assert_eq!(
            bytes(&Replication::default(), Some(&primary(1)), Mode::Apply),
            None
        );
    }

    #[test]
    fn seconds_are_the_time_since_the_primary_was_where_the_standby_is() {
        let now = Instant::now() + Duration::from_secs(100);
        let ago = |seconds| now - Duration::from_secs(seconds);
        let mut trail = Trail::default();
        for (seconds, at) in [(30, 100), (20, 100), (10, 200), (5, 300)] {
            trail.record(ago(seconds), Lsn(at));
        }
        for (replayed, status, behind, expected) in [
            (300, "streaming", 0, Some(0.0)),
            (250, "streaming", 50, Some(10.0)),
            (100, "streaming", 200, Some(20.0)),
            (50, "streaming", 250, Some(30.0)),
            (300, "streaming", 1, Some(5.0)),
            (250, "waiting", 50, None),
        ] {
            let standby = standby(replayed, replayed, Some(status));
            assert_eq!(trail.seconds(&standby, behind, now), expected, "{replayed}");
        }
        assert_eq!(
            Trail::default().seconds(&standby(1, 1, Some("streaming")), 1, now),
            None
        );
    }

    #[test]
    fn the_last_replayed_transaction_bounds_the_seconds_unless_clocks_disagree() {
        let now = Instant::now() + Duration::from_secs(100);
        let mut trail = Trail::default();
        trail.record(now - Duration::from_secs(10), Lsn(100));
        for (age, expected) in [
            (Some(0.5), Some(0.5)),
            (Some(3_600.0), Some(10.0)),
            (Some(-3_600.0), Some(10.0)),
            (None, Some(10.0)),
        ] {
            let mut standby = standby(150, 150, Some("streaming"));
            standby.replay_age_seconds = age;
            assert_eq!(trail.seconds(&standby, 50, now), expected, "{age:?}");
        }
    }

    #[test]
    fn what_is_written_after_the_standby_was_seen_is_no_lag() {
        let now = Instant::now() + Duration::from_secs(100);
        let mut trail = Trail::default();
        trail.record(now - Duration::from_secs(2), Lsn(100));
        trail.record(now, Lsn(1_000));
        let seen = now - Duration::from_secs(1);
        let measure = |standby: &Replication| {
            Lag::measure(standby, Some(&primary(1_000)), &trail, seen).apply_bytes
        };
        let mut caught_up = standby(105, 105, Some("streaming"));
        if let Some(receiver) = caught_up.receiver.as_mut().and_then(Option::as_mut) {
            receiver.latest_end = Some(Lsn(105));
        }
        assert_eq!(measure(&caught_up), Some(0));
        assert_eq!(measure(&standby(90, 95, Some("streaming"))), Some(10));
        assert_eq!(measure(&standby(90, 95, None)), Some(910));
    }

    #[test]
    fn a_primary_that_goes_back_begins_a_new_trail() {
        let now = Instant::now();
        let mut trail = Trail::default();
        trail.record(now, Lsn(500));
        trail.record(now, Lsn(400));
        assert_eq!(trail.0.len(), 1);
    }

    #[test]
    fn sizes_have_postgresql_units() {
        for (text, expected) in [
            ("0", 0),
            ("10", 10),
            ("10B", 10),
            ("1kB", 1024),
            ("10MB", 10 * 1024 * 1024),
            ("2GB", 2 << 30),
            ("1TB", 1 << 40),
        ] {
            assert_eq!(parse_bytes(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "MB",
            "1mb",
            "1KB",
            "-1",
            "+1",
            "1.5MB",
            "1 MB",
            "99999999TB",
            "1e3",
            "010MB",
        ] {
            assert!(parse_bytes(text).is_err(), "{text:?}");
        }
    }
}
