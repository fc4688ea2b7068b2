//! What the operating system lets us have: descriptors, and how many HTTP
//! connections that is.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is not an HTTP connection needs some dozens of descriptors: PostgreSQL's
/// connections, name look-ups, and the gate's own.
const DESCRIPTORS_BESIDE: u64 = 64;

/// Connections above the wanted number that are kept while each of them waits for an
/// answer: in a deadline's time a thousand probes can come.
const BURST: u64 = 2048;

/// How many HTTP connections there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Those that do not wait for an answer.
    pub connections: usize,
    /// All of them.
    pub at_most: usize,
}

/// Raises the limit on descriptors as far as `max_connections` needs and the hard
/// limit goes; returns how many connections there is room for, at least one. Says so
/// where that is less than was wanted.
pub fn room_for(max_connections: usize) -> Room {
    let wanted = u64::try_from(max_connections).unwrap_or(u64::MAX / 4);
    let available = raise_descriptors(wanted + BURST + DESCRIPTORS_BESIDE);
    let room = available.saturating_sub(DESCRIPTORS_BESIDE).max(1);
    if room < wanted {
        log::warn!("limit resource=descriptors available={available} connections={room}");
    }
    let count = |it: u64| usize::try_from(it).unwrap_or(max_connections);
    Room {
        connections: count(room.min(wanted)),
        at_most: count(room.min(wanted + BURST)),
    }
}

/// Returns the limit on descriptors that holds from now on.
fn raise_descriptors(wanted: u64) -> u64 {
    let now = getrlimit(Resource::Nofile);
    let hard = now.maximum.unwrap_or(u64::MAX);
    let current = now.current.unwrap_or(hard);
    let raised = hard.min(wanted.max(current));
    let done = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(raised),
            maximum: now.maximum,
        },
    );
    if done.is_ok() { raised } else { current }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_never_room_for_more_than_was_asked_for_or_for_nobody() {
        assert_eq!(room_for(1).connections, 1);
        let room = room_for(512);
        assert!((1..=512).contains(&room.connections));
        assert!(room.at_most >= room.connections);
    }
}
