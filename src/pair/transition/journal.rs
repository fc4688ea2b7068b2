//! One command at a time, and where a killed one was: a lock and a small file
//! in the pair's folder. Who is primary is never read from here, only from the
//! disks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::pair::error::{Error, Why, failed, refused};
use crate::pair::layout::{Layout, Node};
use crate::pair::state_file::{self, Format};
use crate::pair::{fault_point, files};
use crate::runtime::document::{Object, word};
use crate::runtime::lock_holder;
use crate::runtime::text::value_of;

/// Who is at work, for the message to who comes second.
const LOCK: &str = "lock";

/// A program that a killed command was about to run holds the lock until it is
/// under way.
const LET_GO_WITHIN: Duration = Duration::from_secs(1);

/// What is under way.
const JOURNAL: &str = "journal";

/// Why the primary moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is well, and is stopped cleanly.
    Switchover,
    /// It is dead or frozen.
    Failover,
}

impl Kind {
    const ALL: [Kind; 2] = [Kind::Switchover, Kind::Failover];

    /// Returns the command's name.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Switchover => "switchover",
            Kind::Failover => "failover",
        }
    }
}

/// How far a move has come. Each step is written down before it is begun, and
/// can be taken again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The old primary is stopped and fenced, and the standby proven to have
    /// everything. It can be rolled back.
    Stopping,
    /// The standby is promoted. There is no way back from here.
    Promoting,
    /// The old primary is made a standby.
    Rejoining,
}

impl Step {
    const ALL: [Step; 3] = [Step::Stopping, Step::Promoting, Step::Rejoining];

    fn word(self) -> &'static str {
        match self {
            Step::Stopping => "stopping",
            Step::Promoting => "promoting",
            Step::Rejoining => "rejoining",
        }
    }
}

/// A primary on its way to the other node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Why it moves.
    pub kind: Kind,
    /// The old primary.
    pub from: Node,
    /// The new primary.
    pub to: Node,
    /// How far it has come.
    pub step: Step,
    /// The operator accepts the loss of what the standby does not have.
    pub accept_loss: bool,
    /// The old primary's container ran when this began: a roll-back starts it.
    pub ran: bool,
}

/// How the journal is read.
const FORMAT: Format<Move> = Format {
    json: |value| {
        let yes = |key| value.get(key)?.as_bool();
        Move::of(|key| word(value, key), yes)
    },
    older: |line| {
        let yes = |key| value_of(line, key)?.parse().ok();
        Move::of(|key| value_of(line, key), yes)
    },
    cure: "remove it if no pgpair is at work",
};

impl Move {
    /// Writes what the journal says of it.
    pub fn fields(&self, object: &mut Object) {
        object.text("kind", Some(self.kind.word()));
        object.text("from", Some(self.from.name()));
        object.text("to", Some(self.to.name()));
        object.text("step", Some(self.step.word()));
        object.yes("accept_loss", self.accept_loss);
        object.yes("ran", self.ran);
    }

    fn text(&self) -> String {
        let mut object = Object::versioned();
        self.fields(&mut object);
        object.line()
    }

    /// Makes one of what the journal says, by its keys.
    fn of<'a>(
        word: impl Fn(&'static str) -> Option<&'a str>,
        yes: impl Fn(&'static str) -> Option<bool>,
    ) -> Option<Move> {
        let (kind, step) = (word("kind")?, word("step")?);
        Some(Move {
            kind: Kind::ALL.into_iter().find(|it| it.word() == kind)?,
            from: Node::named(word("from")?)?,
            to: Node::named(word("to")?)?,
            step: Step::ALL.into_iter().find(|it| it.word() == step)?,
            accept_loss: yes("accept_loss")?,
            ran: yes("ran")?,
        })
        .filter(|it| it.from != it.to)
    }
}

/// The right to change the pair, held by one command at a time. The kernel
/// takes it back when the process ends, however that comes about.
#[derive(Debug)]
pub struct Held {
    layout: Layout,
    _lock: File,
}

impl Held {
    /// Takes the lock.
    ///
    /// # Errors
    ///
    /// Refuses while another command has it, and a folder that is not the pair's.
    pub fn take(layout: &Layout, command: &str) -> Result<Held, Error> {
        Held::lock(layout, command)?.map_err(|holder| {
            refused(
                Why::Busy,
                format!("pgpair {holder} is at work on this pair: wait until it has ended"),
            )
        })
    }

    /// As [`Held::take`]; nothing while another command has it.
    ///
    /// # Errors
    ///
    /// Refuses a folder that is not the pair's.
    pub fn take_if_free(layout: &Layout, command: &str) -> Result<Option<Held>, Error> {
        Ok(Held::lock(layout, command)?.ok())
    }

    /// Takes the lock, or says who has it.
    fn lock(layout: &Layout, command: &str) -> Result<Result<Held, String>, Error> {
        files::is_the_pairs(layout)?;
        let path = layout.file(LOCK);
        let cannot =
            |error: io::Error| refused(Why::FileUnusable, format!("{}: {error}", path.display()));
        let mut open = OpenOptions::new();
        let open = open.read(true).write(true).create(true).truncate(false);
        let mut file = open.mode(0o600).open(&path).map_err(cannot)?;
        let patience = Instant::now() + LET_GO_WITHIN;
        while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(cannot(error.into()));
            }
            let holder = fs::read_to_string(&path).unwrap_or_default();
            if is_alive(&holder) || Instant::now() > patience {
                return Ok(Err(holder.trim().to_owned()));
            }
            thread::sleep(LET_GO_WITHIN / 100);
        }
        // Only for the message: what cannot be written is no reason to stop.
        let _ = file.set_len(0).and_then(|()| file.rewind());
        let _ = writeln!(file, "{command} (pid {})", std::process::id());
        Ok(Ok(Held {
            layout: layout.clone(),
            _lock: file,
        }))
    }

    /// Returns the move that a command left unfinished.
    ///
    /// # Errors
    ///
    /// Refuses a journal that cannot be read.
    pub fn unfinished(&self) -> Result<Option<Move>, Error> {
        read(&self.layout)
    }

    /// Writes down how far a move has come, for good.
    ///
    /// # Errors
    ///
    /// Refuses if the disk does not take it.
    pub fn record(&self, step: &Move) -> Result<(), Error> {
        let path = self.layout.file(JOURNAL);
        let text = step.text();
        files::replace(&path, text.as_bytes(), 0o600).map_err(|error| {
            refused(
                Why::FileUnusable,
                format!("cannot write {}: {error}", path.display()),
            )
        })
    }

    /// Forgets the move: it is done, or rolled back.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be removed.
    pub fn forget(&self) -> Result<(), Error> {
        let path = self.layout.file(JOURNAL);
        fault_point::pass("before the journal goes")
            .and_then(|()| files::absent(fs::remove_file(&path)))
            .and_then(|()| fault_point::pass("after the journal is gone"))
            .and_then(|()| files::sync_folder(self.layout.root()))
            .map_err(|error| {
                failed(
                    Why::FileUnusable,
                    format!("cannot remove {}: {error}", path.display()),
                )
            })
    }
}

/// Returns the move that is under way or was left unfinished.
///
/// # Errors
///
/// Refuses a journal that cannot be read.
pub fn read(layout: &Layout) -> Result<Option<Move>, Error> {
    let read = state_file::read(&layout.file(JOURNAL), &FORMAT);
    read.map_err(|text| refused(Why::JournalUnreadable, text))
}

/// Returns the command that is at work on the pair, with its process; nothing if none is.
pub fn holder(layout: &Layout) -> Option<String> {
    let path = layout.file(LOCK);
    lock_holder::holder_of(&path)?;
    let text = fs::read_to_string(&path).unwrap_or_default();
    Some(text.trim().to_owned())
}

/// Says whether the process that wrote this is there.
fn is_alive(holder: &str) -> bool {
    let pid = holder.trim().strip_suffix(')');
    let pid = pid.and_then(|text| text.rsplit_once("(pid "));
    pid.is_some_and(|(_, pid)| Path::new("/proc").join(pid).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (tempfile::TempDir, Layout) {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new("p", folder.path().to_str()).expect("a short path");
        fs::write(layout.marker(), "p\n").expect("writes");
        (folder, layout)
    }

    const BEGUN: Move = Move {
        kind: Kind::Switchover,
        from: Node::A,
        to: Node::B,
        step: Step::Stopping,
        accept_loss: false,
        ran: true,
    };

    #[test]
    fn the_second_command_is_refused_and_told_of_the_first() {
        let (_folder, layout) = pair();
        let held = Held::take(&layout, "switchover").expect("nobody has it");
        let trouble = Held::take(&layout, "failover").expect_err("it is held");
        assert!(holder(&layout).is_some_and(|it| it.starts_with("switchover (pid ")));
        let words = format!("switchover (pid {}) is at work", std::process::id());
        assert!(trouble.to_string().contains(&words), "{trouble}");
        drop(held);
        assert_eq!(holder(&layout), None, "it was given back");
        Held::take(&layout, "failover").expect("it was given back");
    }

    #[test]
    fn a_lock_whose_holder_is_gone_is_waited_for() {
        let (_folder, layout) = pair();
        let held = Held::take(&layout, "switchover").expect("nobody has it");
        // No process has that number.
        fs::write(layout.file(LOCK), "switchover (pid 0)\n").expect("writes");
        let next = thread::spawn({
            let layout = layout.clone();
            move || Held::take(&layout, "failover").map(drop)
        });
        thread::sleep(LET_GO_WITHIN / 10);
        drop(held);
        assert_eq!(next.join().expect("it ends"), Ok(()));
    }

    #[test]
    fn a_move_is_remembered_until_it_is_done() {
        let (_folder, layout) = pair();
        let held = Held::take(&layout, "switchover").expect("nobody has it");
        assert_eq!(held.unfinished(), Ok(None));
        for step in [Step::Stopping, Step::Promoting, Step::Rejoining] {
            let there = Move { step, ..BEGUN };
            held.record(&there).expect("writes");
            assert_eq!(read(&layout), Ok(Some(there)));
        }
        for _ in 0..2 {
            held.forget().expect("removes");
            assert_eq!(held.unfinished(), Ok(None));
        }
    }

    #[test]
    fn a_journal_that_cannot_be_read_is_refused() {
        let (_folder, layout) = pair();
        let path = layout.file(JOURNAL);
        let whole = BEGUN.text();
        let half = &whole[..whole.len() / 2];
        let own = [
            (half, "it is garbled"),
            ("{\"version\":1,\"kind\":\"switchover\"}", "it is garbled"),
            ("kind=switch", "it is garbled"),
            (
                "kind=switchover from=a to=a step=stopping accept_loss=false ran=true",
                "remove it if no pgpair is at work",
            ),
        ];
        for (text, words) in state_file::UNREADABLE.into_iter().chain(own) {
            fs::write(&path, text).expect("writes");
            let trouble = read(&layout).expect_err(text);
            assert_eq!(trouble.why(), Why::JournalUnreadable);
            let said = trouble.to_string();
            let named = said.contains(&path.display().to_string()) && said.contains(words);
            assert!(named, "{text:?}: {said}");
            assert_eq!(fs::read_to_string(&path).expect("it stays"), text);
        }
    }

    #[test]
    fn journal_of_the_version_before_is_read() {
        let (_folder, layout) = pair();
        let line = "kind=switchover from=a to=b step=stopping accept_loss=false ran=true\n";
        fs::write(layout.file(JOURNAL), line).expect("writes");
        assert_eq!(read(&layout), Ok(Some(BEGUN)));
    }
}
