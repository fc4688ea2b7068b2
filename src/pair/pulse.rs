//! Whether this very process gets to run in time: what is late itself cannot say
//! that others are.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::runtime::threads::{self, lock};

/// Time between two beats.
const BEAT: Duration = Duration::from_millis(100);

/// A beat that comes so much too late is told.
const LATE: Duration = Duration::from_millis(500);

/// Late beats that are remembered.
const KEPT: usize = 64;

/// A thread that sleeps and looks how late it wakes up.
#[derive(Debug)]
pub struct Pulse(Mutex<Beats>);

#[derive(Debug)]
struct Beats {
    last: Instant,
    /// When late beats came.
    late: VecDeque<Instant>,
}

impl Pulse {
    /// Begins to beat.
    ///
    /// # Errors
    ///
    /// Fails if the thread cannot be started.
    pub fn start() -> io::Result<Arc<Pulse>> {
        let pulse = Arc::new(Pulse(Mutex::new(Beats {
            last: Instant::now(),
            late: VecDeque::new(),
        })));
        let beats = Arc::downgrade(&pulse);
        threads::spawn("pulse".to_owned(), move || {
            while let Some(pulse) = beats.upgrade() {
                lock(&pulse.0).beat(Instant::now());
                drop(pulse);
                thread::sleep(BEAT);
            }
        })?;
        Ok(pulse)
    }

    /// Says whether it was late at any time since then.
    pub fn was_late_since(&self, since: Instant) -> bool {
        lock(&self.0).were_late_since(since, Instant::now())
    }
}

impl Beats {
    fn beat(&mut self, now: Instant) {
        if now.duration_since(self.last) > BEAT + LATE {
            self.late.push_back(now);
            if self.late.len() > KEPT {
                self.late.pop_front();
            }
        }
        self.last = now;
    }

    fn were_late_since(&self, since: Instant, now: Instant) -> bool {
        // Whoever asks may have been woken up first.
        now.duration_since(self.last) > BEAT + LATE || self.late.iter().any(|at| *at >= since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_beats_are_told_by_when_they_came() {
        let began = Instant::now();
        let at = |milliseconds| began + Duration::from_millis(milliseconds);
        let mut beats = Beats {
            last: began,
            late: VecDeque::new(),
        };
        for beat in [100, 200, 450] {
            beats.beat(at(beat));
        }
        assert!(!beats.were_late_since(began, at(500)));
        assert!(
            beats.were_late_since(began, at(1_200)),
            "the next one is missing"
        );
        beats.beat(at(1_200));
        assert!(beats.were_late_since(at(700), at(1_250)));
        assert!(!beats.were_late_since(at(1_201), at(1_250)));
        for beat in 2..100 {
            beats.beat(at(beat * 1_000));
        }
        assert_eq!(beats.late.len(), KEPT);
    }
}
