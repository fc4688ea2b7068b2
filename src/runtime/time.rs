//! The host's clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the seconds since 1970, by the host's clock: what survives a restart cannot
/// be told by another.
pub fn unix_time() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
