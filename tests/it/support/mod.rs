//! What every test uses: PostgreSQL in containers, the probe as a process, and
//! a client that sees every byte.

pub mod aws;
pub mod browser;
pub mod clock;
pub mod command;
pub mod deployment;
pub mod docker;
pub mod engine;
pub mod fake;
pub mod fault;
pub mod host;
pub mod http;
pub mod load;
pub mod names;
pub mod packages;
pub mod play;
pub mod postgres;
pub mod probe;
pub mod process;
pub mod proxy;
pub mod psql;
pub mod replication;
pub mod tls;
pub mod told;
pub mod trial;
pub mod versions;

use std::env;
use std::thread;
use std::time::{Duration, Instant};

pub use postgres::{Pair, Postgres};
pub use probe::Probe;
pub use trial::Trial;

/// Every password in the tests is this or contains it, so that one search
/// finds any that leaks.
pub const PASSWORD: &str = "hunter2";

/// Time between two looks of [`eventually`]: short against every limit used.
const LOOK_EVERY: Duration = Duration::from_millis(10);

pub const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Returns the seconds that a variable gives a test; longer than CI has time for.
pub fn seconds_by(variable: &str, default: u64) -> u64 {
    env::var(variable).map_or(default, |text| {
        let seconds = text.parse();
        seconds.unwrap_or_else(|error| panic!("{variable}={text:?}: {error}"))
    })
}

/// Tries until `look` finds something; fails the test when it never does.
pub fn eventually<T>(within: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let limit = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < limit, "not within {within:?}: {what}");
        thread::sleep(LOOK_EVERY);
    }
}

/// Takes a measurement up to three times and returns the first that `holds`:
/// the machine may be busy with something else for a moment, the product may
/// not be slow always. The last one is returned if none holds.
pub fn measured<T>(mut measure: impl FnMut() -> T, holds: impl Fn(&T) -> bool) -> T {
    for _ in 0..2 {
        let found = measure();
        if holds(&found) {
            return found;
        }
    }
    measure()
}

/// Returns the time that `share` (0.99, say) of all did not exceed.
pub fn percentile(times: impl IntoIterator<Item = Duration>, share: f64) -> Duration {
    let mut sorted: Vec<Duration> = times.into_iter().collect();
    assert!(!sorted.is_empty(), "nothing was measured");
    sorted.sort_unstable();
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}
