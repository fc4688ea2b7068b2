//! What the guard remembers: its own memory, and the pause.

use std::fs;
use std::io;

use crate::pair::files;
use crate::pair::layout::{Layout, Node};
use crate::runtime::text::value_of;

const MEMORY: &str = "guard";
const PAUSE: &str = "guard.pause";

/// Failovers count for this long.
const HOUR: u64 = 3600;

/// What outlives the guard itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardState {
    /// When it replaced a primary, in seconds since 1970; of the last hour.
    pub failovers: Vec<u64>,
    /// The node that it must still bring back.
    pub pending_rejoin: Option<Node>,
}

impl GuardState {
    /// Reads it; what cannot be read is forgotten.
    pub fn read(layout: &Layout) -> GuardState {
        let text = fs::read_to_string(layout.file(MEMORY)).unwrap_or_default();
        let failovers = value_of(&text, "failovers").unwrap_or_default();
        GuardState {
            failovers: failovers.split(',').flat_map(str::parse).collect(),
            pending_rejoin: value_of(&text, "owed").and_then(Node::named),
        }
    }

    /// Writes it for good.
    ///
    /// # Errors
    ///
    /// Fails if the disk does not take it.
    pub fn write(&self, layout: &Layout) -> io::Result<()> {
        let failovers: Vec<String> = self.failovers.iter().map(u64::to_string).collect();
        let owed = self.pending_rejoin.map_or("none", Node::name);
        let text = format!("failovers={} owed={owed}\n", failovers.join(","));
        files::replace(&layout.file(MEMORY), text.as_bytes(), 0o600)
    }

    /// Returns how many failovers there were in the last hour.
    pub fn recent(&mut self, now: u64) -> usize {
        // A clock that jumped back must not keep one for ever.
        self.failovers.retain(|at| *at <= now && now - *at < HOUR);
        self.failovers.len()
    }
}

/// Pauses the guard until then, in seconds since 1970.
///
/// # Errors
///
/// Fails if it cannot be written.
pub fn pause(layout: &Layout, until: u64) -> io::Result<()> {
    files::replace(&layout.file(PAUSE), until.to_string().as_bytes(), 0o600)
}

/// Ends a pause; none is no error.
///
/// # Errors
///
/// Fails if it cannot be removed.
pub fn resume(layout: &Layout) -> io::Result<()> {
    files::absent(fs::remove_file(layout.file(PAUSE)))
}

/// Returns until when the guard is paused, if it is.
pub fn paused_until(layout: &Layout, now: u64) -> Option<u64> {
    let text = fs::read_to_string(layout.file(PAUSE)).ok()?;
    text.trim().parse().ok().filter(|until| *until > now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failovers_count_for_an_hour() {
        let mut memory = GuardState {
            failovers: vec![1_000, 4_000, 9_000],
            pending_rejoin: None,
        };
        assert_eq!(
            memory.recent(4_600),
            1,
            "one is of another time, one too old"
        );
        assert_eq!(memory.failovers, [4_000]);
    }

    #[test]
    fn what_is_remembered_is_read_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new("p", folder.path().to_str()).expect("a short path");
        assert_eq!(GuardState::read(&layout), GuardState::default());
        for (failovers, owed) in [(vec![], None), (vec![1, 2], Some(Node::B))] {
            let memory = GuardState {
                failovers,
                pending_rejoin: owed,
            };
            memory.write(&layout).expect("writes");
            assert_eq!(GuardState::read(&layout), memory);
        }
    }

    #[test]
    fn a_pause_ends_by_itself_or_when_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new("p", folder.path().to_str()).expect("a short path");
        assert_eq!(paused_until(&layout, 0), None);
        pause(&layout, 100).expect("writes");
        assert_eq!(paused_until(&layout, 99), Some(100));
        assert_eq!(paused_until(&layout, 100), None);
        pause(&layout, 200).expect("writes");
        for _ in 0..2 {
            resume(&layout).expect("removes");
            assert_eq!(paused_until(&layout, 99), None);
        }
    }
}
