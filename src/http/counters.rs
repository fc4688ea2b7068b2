//! What the front door counts: requests, time, connections.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::head::Refusal;
use super::routes::PATHS;

/// Statuses that are answered; the order of the counters.
const STATUSES: [u16; 11] = [200, 400, 403, 404, 405, 408, 413, 431, 500, 503, 505];

/// Bounds of the histogram of requests, in seconds: from an answer at once to
/// beyond the default deadline.
pub const BUCKETS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5];

/// Why the gate closed a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// It finished no request in time.
    TimedOut,
    /// There were more than allowed.
    TooMany,
    /// It sent more than a request may hold.
    TooLarge,
    /// It sent what cannot be served any further.
    Refused,
    /// It did not read its answer.
    Unread,
}

impl Closed {
    /// Every reason.
    pub const ALL: [Closed; 5] = [
        Closed::TimedOut,
        Closed::TooMany,
        Closed::TooLarge,
        Closed::Refused,
        Closed::Unread,
    ];

    /// Returns the word for this reason.
    pub const fn word(self) -> &'static str {
        match self {
            Closed::TimedOut => "timed_out",
            Closed::TooMany => "too_many",
            Closed::TooLarge => "too_large",
            Closed::Refused => "refused",
            Closed::Unread => "unread",
        }
    }
}

/// Counters of one path.
#[derive(Default)]
struct PathCounts {
    by_status: [AtomicU64; STATUSES.len()],
    by_time: [AtomicU64; BUCKETS.len() + 1],
    microseconds: AtomicU64,
}

/// All counters. Adding to one costs a few nanoseconds and takes no lock.
#[derive(Default)]
pub struct Counters {
    /// One a documented path, and one for all others.
    paths: [PathCounts; PATHS.len() + 1],
    closed: [AtomicU64; Closed::ALL.len()],
    refused: [AtomicU64; Refusal::ALL.len()],
    connections: AtomicU64,
    waiting: AtomicU64,
    unsent_bytes: AtomicU64,
}

/// One path's figures.
#[derive(Debug, PartialEq)]
pub struct PathFigures {
    /// The documented path, or `other`.
    pub path: &'static str,
    /// Answers by status, those that were given.
    pub by_status: Vec<(u16, u64)>,
    /// Answers by time: one count a bound of [`BUCKETS`], and one above all.
    pub by_time: Vec<u64>,
    /// All their time together, in seconds.
    pub seconds: f64,
}

impl Counters {
    /// Counts an answer. `path` is a label of [`super::routes::label`].
    pub fn answered(&self, path: &'static str, status: u16, began: Instant) {
        let place = PATHS.iter().position(|(known, _)| *known == path);
        let counts = &self.paths[place.unwrap_or(PATHS.len())];
        if let Some(status) = STATUSES.iter().position(|known| *known == status) {
            counts.by_status[status].fetch_add(1, Ordering::Relaxed);
        }
        let took: Duration = began.elapsed();
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound);
        counts.by_time[bucket.unwrap_or(BUCKETS.len())].fetch_add(1, Ordering::Relaxed);
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        counts
            .microseconds
            .fetch_add(microseconds, Ordering::Relaxed);
    }

    /// Counts a connection that was closed.
    pub fn closed(&self, why: Closed) {
        let place = Closed::ALL.iter().position(|known| *known == why);
        self.closed[place.unwrap_or(0)].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that was refused before anybody looked what it asks for.
    pub fn refused(&self, why: Refusal) {
        let place = Refusal::ALL.iter().position(|known| *known == why);
        self.refused[place.unwrap_or(0)].fetch_add(1, Ordering::Relaxed);
    }

    /// Says how many connections there are, how many requests wait for a verdict,
    /// and how many bytes of answers the kernel has not taken.
    pub fn connected(&self, connections: usize, waiting: usize, unsent_bytes: usize) {
        for (gauge, value) in [
            (&self.connections, connections),
            (&self.waiting, waiting),
            (&self.unsent_bytes, unsent_bytes),
        ] {
            gauge.store(u64::try_from(value).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// Returns how many connections there were at the last look.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Returns how many requests waited for a verdict then.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Returns how many bytes of answers were unread then, beyond what the kernel
    /// holds.
    pub fn unsent_bytes(&self) -> u64 {
        self.unsent_bytes.load(Ordering::Relaxed)
    }

    /// Returns how many requests were refused, by reason.
    pub fn refused_by_reason(&self) -> impl Iterator<Item = (Refusal, u64)> {
        let values = self.refused.iter().map(|it| it.load(Ordering::Relaxed));
        Refusal::ALL.into_iter().zip(values)
    }

    /// Returns how many connections were closed, by reason.
    pub fn closed_by_reason(&self) -> impl Iterator<Item = (Closed, u64)> {
        let values = self.closed.iter().map(|it| it.load(Ordering::Relaxed));
        Closed::ALL.into_iter().zip(values)
    }

    /// Returns the figures of every path that was asked for.
    pub fn by_path(&self) -> Vec<PathFigures> {
        let labels = PATHS.iter().map(|(path, _)| *path).chain(["other"]);
        labels
            .zip(&self.paths)
            .map(|(path, counts)| counts.figures(path))
            .filter(|figures| !figures.by_status.is_empty())
            .collect()
    }
}

impl PathCounts {
    fn figures(&self, path: &'static str) -> PathFigures {
        let load = |it: &AtomicU64| it.load(Ordering::Relaxed);
        PathFigures {
            path,
            by_status: STATUSES
                .into_iter()
                .zip(self.by_status.iter().map(load))
                .filter(|(_, count)| *count > 0)
                .collect(),
            by_time: self.by_time.iter().map(load).collect(),
            seconds: load(&self.microseconds) as f64 / 1e6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_under_their_path_and_status() {
        let counts = Counters::default();
        let now = Instant::now();
        for (path, status) in [
            ("/ready", 200),
            ("/ready", 503),
            ("/ready", 200),
            ("other", 404),
        ] {
            counts.answered(path, status, now);
        }
        let figures = counts.by_path();
        assert_eq!(figures.len(), 2, "{figures:?}");
        assert_eq!(
            (figures[0].path, &figures[0].by_status[..]),
            ("/ready", &[(200, 2), (503, 1)][..])
        );
        assert_eq!(figures[0].by_time.iter().sum::<u64>(), 3);
        assert_eq!(
            (figures[1].path, &figures[1].by_status[..]),
            ("other", &[(404, 1)][..])
        );
    }

    #[test]
    fn closed_connections_are_counted_by_reason() {
        let counts = Counters::default();
        counts.closed(Closed::TooMany);
        let found: Vec<u64> = counts.closed_by_reason().map(|(_, count)| count).collect();
        assert_eq!(found, [0, 1, 0, 0, 0]);
    }
}
