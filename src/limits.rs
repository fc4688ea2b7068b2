//! What the operating system lets us have: descriptors and threads, and how many
//! HTTP connections that is.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Every HTTP connection takes two descriptors …
const DESCRIPTORS_EACH: u64 = 2;

/// … and the rest needs some dozens: PostgreSQL's connections, name look-ups,
/// and what the bouncer holds for a moment.
const DESCRIPTORS_BESIDE: u64 = 64;

/// Connections that may come before the bouncer has sent others away: it looks
/// ten times a second, and one client can open twenty thousand in a second.
const BURST: u64 = 2048;

/// Every HTTP connection takes a thread; the rest needs these: two a node and
/// those that replace stuck ones, a dozen of the probe's own, and tiny_http's.
const THREADS_BESIDE: u64 = 40;

/// Raises the limit on descriptors as far as `max_connections` needs and the
/// hard limit goes; returns how many connections there is room for, at most
/// `max_connections` and at least one. Says so where it is less.
pub fn room_for(max_connections: usize) -> usize {
    let wanted = u64::try_from(max_connections).unwrap_or(u64::MAX / 4);
    let descriptors = raise_descriptors(DESCRIPTORS_EACH * (wanted + BURST) + DESCRIPTORS_BESIDE);
    let rooms = [
        (
            "descriptors",
            descriptors,
            descriptors.saturating_sub(DESCRIPTORS_BESIDE) / DESCRIPTORS_EACH,
        ),
        (
            "threads",
            threads(),
            threads().saturating_sub(THREADS_BESIDE),
        ),
    ];
    for (resource, available, room) in rooms {
        if room < wanted {
            log::warn!("limit resource={resource} available={available} connections={room}");
        }
    }
    let room = rooms.iter().map(|(_, _, room)| *room).min();
    let room = room.unwrap_or(wanted).clamp(1, wanted);
    usize::try_from(room).unwrap_or(max_connections)
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

/// Returns how many threads our control group may have.
fn threads() -> u64 {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let files = groups.lines().flat_map(pids_files);
    let limits = files.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    limits.min().unwrap_or(u64::MAX)
}

/// Returns where the limit of a line of `/proc/self/cgroup` may stand: a container
/// sees its own group at the top, whatever its path is outside.
fn pids_files(line: &str) -> Vec<String> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
        return Vec::new();
    };
    let top = match controllers {
        "" => "/sys/fs/cgroup",
        _ if controllers.split(',').any(|it| it == "pids") => "/sys/fs/cgroup/pids",
        _ => return Vec::new(),
    };
    let path = path.trim_end_matches('/');
    vec![format!("{top}{path}/pids.max"), format!("{top}/pids.max")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_is_looked_for_where_either_version_of_control_groups_has_it() {
        assert_eq!(
            pids_files("0::/system.slice/pgpair.service"),
            [
                "/sys/fs/cgroup/system.slice/pgpair.service/pids.max",
                "/sys/fs/cgroup/pids.max"
            ]
        );
        assert_eq!(
            pids_files("4:pids:/docker/0f"),
            [
                "/sys/fs/cgroup/pids/docker/0f/pids.max",
                "/sys/fs/cgroup/pids/pids.max"
            ]
        );
        for line in ["3:memory:/docker/0f", "1:name=systemd:/", "", "nonsense"] {
            assert_eq!(pids_files(line), [""; 0], "{line:?}");
        }
    }

    #[test]
    fn there_is_never_room_for_more_than_was_asked_for_or_for_nobody() {
        assert_eq!(room_for(1), 1);
        assert!((1..=512).contains(&room_for(512)));
    }
}
