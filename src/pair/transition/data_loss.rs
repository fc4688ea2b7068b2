//! What a failover would lose. The dead primary's disk is on this host, so that
//! is not guessed: its WAL is read from where the standby's ends.

use std::fmt;
use std::time::Duration;

use super::journal::Move;
use crate::pair::error::{Error, Why, failed, refused};
use crate::pair::files::{self, NodeDisk};
use crate::pair::host::Pair;
use crate::pair::layout::Node;
use crate::pair::machine::Stop;
use crate::pair::sync;
use crate::pg::lsn::Lsn;
use crate::pg::wal;

/// The standby has replayed all that it received when it gets no further for
/// this long.
const STILL_FOR: Duration = Duration::from_millis(250);

/// Longest for replaying what it received, where the old primary is dead; and
/// where it ran and can be started again.
const MAX_REPLAY: Duration = Duration::from_secs(600);
const MAX_REPLAY_INSTEAD: Duration = Duration::from_secs(10);

/// The dead primary, started as a standby, has recovered and sends what the other
/// lacks, or nothing comes of it any more for this long.
const BRINGS_WITHIN: Duration = Duration::from_secs(15);

/// What the standby lacks of the dead primary's WAL.
#[derive(Debug, PartialEq, Eq)]
pub enum Missing {
    /// No transaction.
    Nothing,
    /// This many transactions, within so many bytes.
    Commits {
        /// Transactions that the primary had committed or prepared.
        count: u64,
        /// Bytes of WAL from the standby's end to the primary's.
        bytes: u64,
        /// Where the primary's ends.
        end: Lsn,
    },
    /// That cannot be told.
    Unknown(String),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Nothing => f.write_str("no transaction"),
            Missing::Commits { count, bytes, .. } => {
                write!(f, "{count} transactions ({bytes} bytes of WAL)")
            }
            Missing::Unknown(why) => write!(f, "an unknown amount ({why})"),
        }
    }
}

/// Sees that nothing is lost, or that the loss is accepted. The dead disk is
/// read in every mode: what was promised holds for those only who did not ask for
/// less (`synchronous_commit`), and is of use where the disk cannot be read.
///
/// # Errors
///
/// Refuses with how much would be lost.
pub fn accepted(pair: &Pair, there: &Move) -> Result<(), Error> {
    let (from, to) = (there.from, there.to);
    let missing = missing(pair, there)?;
    let mut why = String::new();
    match &missing {
        Missing::Nothing => {
            pair.say(&format!("{to} has every transaction of {from}"));
            return Ok(());
        }
        Missing::Commits { end, .. } => match bring_over(pair, there, *end) {
            Ok(()) => {
                pair.say(&format!("{to} has got {missing} from {from}'s disk"));
                return Ok(());
            }
            Err(trouble) => why = format!(", which could not be brought over ({trouble})"),
        },
        Missing::Unknown(cause) if sync::proves(&pair.layout, from) => {
            pair.say(&format!(
                "{from}'s WAL cannot be read ({cause}); {from} acknowledged nothing that {to} does not have, \
                 but to sessions that set synchronous_commit to local or off"
            ));
            return Ok(());
        }
        Missing::Unknown(_) => {}
    }
    if there.accept_loss {
        pair.say(&format!(
            "{to} lacks {missing} of {from}, which is accepted"
        ));
        return Ok(());
    }
    Err(refused(
        Why::WouldLose,
        format!(
            "{to} lacks {missing} of {from}{why}: start {from} again (docker start {}), or give up what is lost with --accept-loss",
            pair.layout.container(from)
        ),
    ))
}

/// Finds what the standby lacks. The primary must be down.
///
/// # Errors
///
/// Fails if the standby does not answer.
fn missing(pair: &Pair, there: &Move) -> Result<Missing, Error> {
    let limit = match there.ran {
        true => MAX_REPLAY_INSTEAD,
        false => MAX_REPLAY,
    };
    let start = end_of_replay(pair, there.to, limit)?;
    let disk = NodeDisk::read(&pair.layout, there.from);
    let Ok(control) = disk.control() else {
        return Ok(Missing::Unknown(format!(
            "{}'s data cannot be read",
            there.from
        )));
    };
    let walked = files::in_pg_wal(&pair.layout, there.from, |folder| {
        // A primary that was promoted a moment before has not told its control file.
        let timeline = wal::newest_timeline(folder, &control);
        wal::walk(folder, timeline, control.system, start)
    });
    Ok(match walked {
        Err(why) => Missing::Unknown(why),
        Ok(walk) if walk.commits == 0 => Missing::Nothing,
        Ok(walk) => Missing::Commits {
            count: walk.commits,
            bytes: walk.end.ahead_of(start),
            end: walk.end,
        },
    })
}

/// Has the standby get the rest from the dead primary: that is started with its
/// fence, recovers as a standby, and sends what it has to who asks for it.
fn bring_over(pair: &Pair, there: &Move, end: Lsn) -> Result<(), Error> {
    let (from, to) = (there.from, there.to);
    pair.say(&format!(
        "starting {from} as a standby: it has what {to} lacks"
    ));
    pair.start(from)?;
    let brought = replays(pair, to, end);
    if brought.is_err() {
        pair.stop(from, Stop::Now)?;
    }
    brought
}

/// Waits until a standby has replayed everything before `end`.
fn replays(pair: &Pair, to: Node, end: Lsn) -> Result<(), Error> {
    let (mut last, mut moved_at) = (None, pair.now());
    // It may wait for a peer that is no more.
    end_receiver(pair, to);
    loop {
        let now = pair.value(to, "SELECT pg_last_wal_replay_lsn()");
        let now: Option<Lsn> = now.ok().and_then(|text| text.parse().ok());
        if now.is_some_and(|now| now >= end) {
            return Ok(());
        }
        if now.is_some() && now != last {
            (last, moved_at) = (now, pair.now());
        }
        if pair.since(moved_at) > BRINGS_WITHIN {
            return Err(failed(
                Why::NotReplayed,
                format!("{to} gets no further than {last:?}"),
            ));
        }
        pair.sleep(STILL_FOR / 10);
    }
}

/// Ends a standby's WAL receiver, frozen or not; the server starts another.
fn end_receiver(pair: &Pair, node: Node) {
    use rustix::process::Signal;

    let Ok(mut pids) = pair.processes(node) else {
        return;
    };
    pids.retain(|pid| pair.is_called(*pid, "walreceiver"));
    for signal in [Signal::TERM, Signal::CONT] {
        // It is waited for in either case.
        let _ = pair.signal(node, &pids, signal);
    }
}

/// Waits until the standby has replayed what it has; returns where that ends.
fn end_of_replay(pair: &Pair, to: Node, within: Duration) -> Result<Lsn, Error> {
    let began = pair.now();
    let (mut last, mut since) = (String::new(), began);
    loop {
        let now = pair.value(to, "SELECT pg_last_wal_replay_lsn()")?;
        if now != last {
            (last, since) = (now, pair.now());
        } else if pair.since(since) >= STILL_FOR {
            break;
        }
        if pair.since(began) > within {
            return Err(failed(
                Why::NotReplayed,
                format!("{to} still replays after {within:?}"),
            ));
        }
        pair.sleep(STILL_FOR / 10);
    }
    let end = last.parse();
    end.map_err(|_| {
        failed(
            Why::ServerFailed,
            format!("{to} does not tell how far it has replayed"),
        )
    })
}
