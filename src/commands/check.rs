//! `pgpair check`: one request, told by the exit code. It is the image's
//! HEALTHCHECK, so it needs no shell and no other program.

use std::time::Duration;

use super::http_client::{self, Target, Wanted};
use crate::runtime::exit;

/// What is asked when no URL is given.
pub const DEFAULT_PATH: &str = "/health";

/// Longest for the whole check: the deadline of an answer at its default, and
/// a tenth of a second for the way. Docker's own limit for a HEALTHCHECK must
/// be above it.
const TIME_LIMIT: Duration = Duration::from_secs(1);

/// Asks once, says on stderr what is wrong, and returns the exit code.
pub fn check(target: &Target) -> u8 {
    match http_client::get(target, Wanted::Status, TIME_LIMIT) {
        Ok(answer) if (200..300).contains(&answer.status) => exit::OK,
        Ok(answer) => {
            eprintln!("pgpair: not healthy: status {}", answer.status);
            exit::NOT_WELL
        }
        Err(trouble) => {
            eprintln!("pgpair: {trouble}");
            trouble.exit_code
        }
    }
}
