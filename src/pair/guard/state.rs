//! What the guard remembers: its own memory, the pause, and who has the lock.

use std::fs;
use std::io;

use serde_json::Value;

use crate::pair::error::{Error, Why, failed};
use crate::pair::files;
use crate::pair::layout::{Layout, Node};
use crate::pair::state_file::{self, Format};
use crate::runtime::document::{self, Content, Object};
use crate::runtime::lock_holder;
use crate::runtime::text::value_of;

const MEMORY: &str = "guard";
const PAUSE: &str = "guard.pause";

/// Held by the guard that is at work.
pub const LOCK: &str = "guard.lock";

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

/// How the guard's memory is read.
const FORMAT: Format<GuardState> = Format {
    json: |value| {
        let failovers = value.get("failovers")?.as_array()?;
        let failovers: Option<Vec<u64>> = failovers.iter().map(Value::as_u64).collect();
        let pending_rejoin = match value.get("pending_rejoin")? {
            Value::Null => None,
            node => Some(Node::named(node.as_str()?)?),
        };
        Some(GuardState {
            failovers: failovers?,
            pending_rejoin,
        })
    },
    older: |line| {
        let failovers = value_of(line, "failovers")?.split(',');
        let failovers = failovers.filter(|it| !it.is_empty()).map(str::parse);
        let pending_rejoin = match value_of(line, "owed")? {
            "none" => None,
            node => Some(Node::named(node)?),
        };
        Some(GuardState {
            failovers: failovers.collect::<Result<_, _>>().ok()?,
            pending_rejoin,
        })
    },
    cure: "remove it to have the guard count its failovers anew, and run pgpair rejoin if a \
        node is not back",
};

impl GuardState {
    /// Reads it; what was never written is empty.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be read: how many primaries were replaced is unknown then.
    pub fn read(layout: &Layout) -> Result<GuardState, Error> {
        let read = state_file::read(&layout.file(MEMORY), &FORMAT);
        let read = read.map_err(|text| failed(Why::FileUnusable, text))?;
        Ok(read.unwrap_or_default())
    }

    /// Writes what the file says of it.
    pub fn fields(&self, object: &mut Object) {
        let failovers: Vec<String> = self.failovers.iter().map(u64::to_string).collect();
        object.list("failovers", &failovers);
        object.text("pending_rejoin", self.pending_rejoin.map(Node::name));
    }

    /// Writes it for good.
    ///
    /// # Errors
    ///
    /// Fails if the disk does not take it.
    pub fn write(&self, layout: &Layout) -> io::Result<()> {
        let mut object = Object::versioned();
        self.fields(&mut object);
        let text = object.line();
        files::replace(&layout.file(MEMORY), text.as_bytes(), 0o600)
    }

    /// Takes in what was remembered in a file that could not be read until now.
    pub fn add(&mut self, remembered: GuardState) {
        self.failovers.splice(0..0, remembered.failovers);
        self.pending_rejoin = self.pending_rejoin.or(remembered.pending_rejoin);
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
    let text = match is_of_the_version_before(layout) {
        true => until.to_string(),
        false => number("until", until),
    };
    files::replace(&layout.file(PAUSE), text.as_bytes(), 0o600)
}

/// Ends a pause; none is no error.
///
/// # Errors
///
/// Fails if it cannot be removed.
pub fn resume(layout: &Layout) -> io::Result<()> {
    files::absent(fs::remove_file(layout.file(PAUSE)))
}

/// How a pause is read.
const PAUSED: Format<u64> = Format {
    json: |value| value.get("until")?.as_u64(),
    older: |line| line.parse().ok(),
    cure: "run pgpair guard pause or pgpair guard resume",
};

/// Returns until when the guard is paused, if it is.
///
/// # Errors
///
/// Fails if that cannot be read: somebody wanted a pause then, and nobody knows for how
/// long.
pub fn paused_until(layout: &Layout, now: u64) -> Result<Option<u64>, Error> {
    let read = state_file::read(&layout.file(PAUSE), &PAUSED);
    let until = read.map_err(|text| failed(Why::FileUnusable, text))?;
    Ok(until.filter(|until| *until > now))
}

/// Returns the process of the guard that is at work, if one is.
pub fn at_work(layout: &Layout) -> Option<u32> {
    lock_holder::holder_of(&layout.file(LOCK))
}

/// What a guard leaves in its lock: that it reads JSON.
pub fn lock_text() -> String {
    number("pid", std::process::id().into())
}

fn number(key: &str, value: u64) -> String {
    let mut object = Object::versioned();
    object.number(key, Some(value));
    object.line()
}

/// Says whether the guard at work is one that left nothing in its lock, and that reads a
/// pause as a number only.
fn is_of_the_version_before(layout: &Layout) -> bool {
    let Some(pid) = at_work(layout) else {
        return false;
    };
    let text = fs::read_to_string(layout.file(LOCK)).unwrap_or_default();
    let Ok(Content::Json(own)) = document::parse(&text) else {
        return true;
    };
    own.get("pid").and_then(Value::as_u64) != Some(u64::from(pid))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use rustix::fs::{FlockOperation, flock};

    use super::*;

    fn pair() -> (tempfile::TempDir, Layout) {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new("p", folder.path().to_str()).expect("a short path");
        (folder, layout)
    }

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
        let (_folder, layout) = pair();
        assert_eq!(GuardState::read(&layout), Ok(GuardState::default()));
        for (failovers, pending_rejoin, older) in [
            (vec![], None, "failovers= owed=none\n"),
            (vec![1, 2], Some(Node::B), "failovers=1,2 owed=b\n"),
        ] {
            let memory = GuardState {
                failovers,
                pending_rejoin,
            };
            memory.write(&layout).expect("writes");
            assert_eq!(GuardState::read(&layout), Ok(memory.clone()));
            fs::write(layout.file(MEMORY), older).expect("writes");
            assert_eq!(GuardState::read(&layout), Ok(memory), "{older}");
        }
    }

    #[test]
    fn memory_that_cannot_be_read_is_not_taken_for_an_empty_one() {
        let (_folder, layout) = pair();
        let own = [
            ("failovers=1,2 ow", "remove it"),
            ("failovers=1,x owed=b", "it is garbled"),
            ("{\"version\":1,\"failovers\":[1,2", "it is garbled"),
            ("{\"version\":1,\"failovers\":[1]}", "it is garbled"),
            (
                "{\"version\":1,\"failovers\":[\"1\"],\"pending_rejoin\":null}",
                "it is garbled",
            ),
        ];
        for (text, words) in state_file::UNREADABLE.into_iter().chain(own) {
            fs::write(layout.file(MEMORY), text).expect("writes");
            let said = GuardState::read(&layout).expect_err(text).to_string();
            assert!(
                said.contains("/guard cannot be read (") && said.contains(words),
                "{said}"
            );
        }
    }

    #[test]
    fn what_was_remembered_joins_what_is_known_since() {
        let mut known = GuardState {
            failovers: vec![3],
            pending_rejoin: None,
        };
        known.add(GuardState {
            failovers: vec![1, 2],
            pending_rejoin: Some(Node::A),
        });
        assert_eq!(known.failovers, [1, 2, 3]);
        assert_eq!(known.pending_rejoin, Some(Node::A));
    }

    #[test]
    fn a_pause_ends_by_itself_or_when_told() {
        let (_folder, layout) = pair();
        assert_eq!(paused_until(&layout, 0), Ok(None));
        pause(&layout, 100).expect("writes");
        assert_eq!(paused_until(&layout, 99), Ok(Some(100)));
        assert_eq!(paused_until(&layout, 100), Ok(None));
        fs::write(layout.file(PAUSE), "100").expect("writes");
        assert_eq!(
            paused_until(&layout, 99),
            Ok(Some(100)),
            "by the version before"
        );
        pause(&layout, 200).expect("writes");
        for _ in 0..2 {
            resume(&layout).expect("removes");
            assert_eq!(paused_until(&layout, 99), Ok(None));
        }
    }

    #[test]
    fn a_pause_that_cannot_be_read_is_not_taken_for_none() {
        let (_folder, layout) = pair();
        let own = [
            ("12x", "pgpair guard resume"),
            ("{\"version\":1,\"until\":", "it is garbled"),
        ];
        for (text, words) in state_file::UNREADABLE.into_iter().chain(own) {
            fs::write(layout.file(PAUSE), text).expect("writes");
            let said = paused_until(&layout, 0).expect_err(text).to_string();
            assert!(
                said.contains("/guard.pause cannot be read (") && said.contains(words),
                "{said}"
            );
        }
    }

    #[test]
    fn guard_of_the_version_before_gets_a_pause_that_it_can_read() {
        let (_folder, layout) = pair();
        let mut lock = File::create(layout.file(LOCK)).expect("made");
        flock(&lock, FlockOperation::LockExclusive).expect("it is free");
        pause(&layout, 100).expect("writes");
        let text = fs::read_to_string(layout.file(PAUSE)).expect("reads");
        assert_eq!(text, "100");
        // One of this version.
        lock.write_all(lock_text().as_bytes()).expect("writes");
        pause(&layout, 100).expect("writes");
        let text = fs::read_to_string(layout.file(PAUSE)).expect("reads");
        assert_eq!(text, "{\"version\":1,\"until\":100}\n");
    }
}
