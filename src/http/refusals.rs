//! Says which requests are refused, and not every time: whoever sends nonsense may send
//! a lot of it.

use std::time::{Duration, Instant};

use super::client::Client;
use super::head::Refusal;

/// Time between two lines about the same kind of refusal.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// What was said, by kind.
#[derive(Debug, Default)]
pub struct RefusalLog {
    kinds: [Said; Refusal::ALL.len()],
}

#[derive(Clone, Copy, Debug, Default)]
struct Said {
    at: Option<Instant>,
    /// Refusals since then.
    unsaid: u64,
}

impl RefusalLog {
    /// Logs a refusal, unless one of its kind was logged a moment ago.
    pub fn log(&mut self, why: Refusal, client: &Client) {
        let Some(count) = self.count(why, Instant::now()) else {
            return;
        };
        let reason = why.word();
        match client.stream().peer_addr() {
            Ok(peer) => {
                log::info!("request event=refused reason={reason} count={count} from={peer}")
            }
            Err(_) => log::info!("request event=refused reason={reason} count={count}"),
        }
    }

    /// Returns how many there were since the last line, if it is time for another.
    fn count(&mut self, why: Refusal, now: Instant) -> Option<u64> {
        let place = Refusal::ALL.iter().position(|it| *it == why);
        let kind = &mut self.kinds[place.unwrap_or(0)];
        kind.unsaid += 1;
        let is_time = kind.at.is_none_or(|at| now.duration_since(at) >= SAY_EVERY);
        is_time.then(|| {
            kind.at = Some(now);
            std::mem::take(&mut kind.unsaid)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_said_once_a_minute_with_how_many_there_were() {
        let mut log = RefusalLog::default();
        let now = Instant::now();
        assert_eq!(log.count(Refusal::Host, now), Some(1));
        assert_eq!(log.count(Refusal::Host, now), None);
        assert_eq!(log.count(Refusal::Version, now), Some(1));
        assert_eq!(log.count(Refusal::Host, now + SAY_EVERY), Some(2));
    }
}
