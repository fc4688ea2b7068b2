//! Ends the process when the gate does not turn any more: Docker starts a process
//! anew that has ended, not one that is deaf.

use std::io;
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::control::Control;
use crate::runtime::{exit, logging, threads};

/// Time between two looks. The gate turns at least as often.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// After so many looks without a turn it is stuck. A busy machine delays one or two;
/// while the whole process stands still, no look is taken either.
const MAX_STILL: u32 = 5;

/// Starts to watch.
///
/// # Errors
///
/// Fails if the thread cannot be started.
pub fn start(control: &Arc<Control>) -> io::Result<()> {
    let control = Arc::downgrade(control);
    threads::spawn("watchdog".to_owned(), move || {
        let mut watch = Watch::default();
        // Without a gate there is nothing to watch any more.
        while let Some(control) = control.upgrade() {
            if watch.is_stuck(control.rounds()) {
                break;
            }
            drop(control);
            thread::sleep(POLL_INTERVAL);
        }
        if control.strong_count() == 0 {
            return;
        }
        log::error!("listen event=died cause=\"the gate is stuck\"");
        logging::flush();
        process::exit(i32::from(exit::NO_HTTP));
    })
}

#[derive(Default)]
struct Watch {
    rounds: u64,
    still: u32,
}

impl Watch {
    /// Takes a look; says whether it was one too many at which nothing had turned.
    fn is_stuck(&mut self, rounds: u64) -> bool {
        self.still = if rounds == self.rounds {
            self.still + 1
        } else {
            0
        };
        self.rounds = rounds;
        self.still > MAX_STILL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_gate_that_does_not_turn_for_long_is_stuck() {
        let mut watch = Watch::default();
        for rounds in [1, 1, 1, 1, 1, 1, 2, 3, 3, 3, 3, 3, 3] {
            assert!(!watch.is_stuck(rounds), "{rounds}");
        }
        assert!(watch.is_stuck(3));
    }
}
