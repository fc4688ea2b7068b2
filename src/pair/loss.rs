//! What a failover would lose. The dead primary's disk is on this host, so that
//! is not guessed: its WAL is read from where the standby's ends.

use std::fmt;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::disk::NodeDisk;
use super::docker::{self, OneShot};
use super::ground::{Pair, docker_failed};
use super::layout::{LABEL, MOUNT, Node};
use super::rejoin::highest_history;
use super::sync;
use super::trouble::{Trouble, failed, refused};
use crate::probe::lsn::Lsn;

/// The standby has replayed all that it received when it gets no further for
/// this long.
const STILL_FOR: Duration = Duration::from_millis(250);

/// Longest for replaying what it received.
const REPLAY_AT_MOST: Duration = Duration::from_secs(600);

/// Longest for reading what it did not receive.
const READ_AT_MOST: Duration = Duration::from_secs(300);

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
    },
    /// That cannot be told.
    Unknown(String),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Nothing => f.write_str("no transaction"),
            Missing::Commits { count, bytes } => {
                write!(f, "{count} transactions ({bytes} bytes of WAL)")
            }
            Missing::Unknown(why) => write!(f, "an unknown amount ({why})"),
        }
    }
}

/// Sees that nothing is lost, or that the loss is accepted.
///
/// # Errors
///
/// Refuses with how much would be lost.
pub fn accepted(pair: &Pair, from: Node, accept_loss: bool) -> Result<(), Trouble> {
    let to = from.other();
    if sync::proves(&pair.layout, from) {
        pair.say(&format!(
            "{from} acknowledged nothing that {to} does not have"
        ));
        return Ok(());
    }
    let missing = missing(pair, from)?;
    if missing == Missing::Nothing {
        pair.say(&format!("{to} has every transaction of {from}"));
        return Ok(());
    }
    if accept_loss {
        pair.say(&format!(
            "{to} lacks {missing} of {from}, which is accepted"
        ));
        return Ok(());
    }
    Err(refused(format!(
        "{to} lacks {missing} of {from}: start {from} again (docker start {}), or give up what is lost with --accept-loss",
        pair.layout.container(from)
    )))
}

/// Finds what the standby lacks. The primary must be down.
///
/// # Errors
///
/// Fails if the standby or Docker does not answer.
fn missing(pair: &Pair, from: Node) -> Result<Missing, Trouble> {
    let end = end_of_replay(pair, from.other())?;
    let disk = NodeDisk::read(&pair.layout, from);
    let folder = disk.pgdata.join("pg_wal");
    let Ok(control) = disk.control() else {
        return Ok(Missing::Unknown(format!("{from}'s data cannot be read")));
    };
    // A primary that was promoted a moment before has not told its control file.
    let timeline = control.timeline.max(highest_history(&folder).unwrap_or(0));
    match segment_at(&folder, timeline, end) {
        Segment::There => read_wal(pair, from, timeline, end),
        Segment::Beyond => Ok(Missing::Nothing),
        Segment::Gone => Ok(Missing::Unknown(format!(
            "{from} has removed the WAL at {end} already"
        ))),
    }
}

/// Waits until the standby has replayed what it has; returns where that ends.
fn end_of_replay(pair: &Pair, to: Node) -> Result<Lsn, Trouble> {
    let began = Instant::now();
    let (mut last, mut since) = (String::new(), began);
    loop {
        let now = pair.value(to, "SELECT pg_last_wal_replay_lsn()")?;
        if now != last {
            (last, since) = (now, Instant::now());
        } else if since.elapsed() >= STILL_FOR {
            break;
        }
        if began.elapsed() > REPLAY_AT_MOST {
            return Err(failed(format!(
                "{to} still replays after {REPLAY_AT_MOST:?}"
            )));
        }
        thread::sleep(STILL_FOR / 10);
    }
    let end = last.parse();
    end.map_err(|_| failed(format!("{to} does not tell how far it has replayed")))
}

/// Where a place of the WAL is among the files.
#[derive(Debug, PartialEq, Eq)]
enum Segment {
    There,
    /// Nothing was written there yet.
    Beyond,
    /// What was there has been removed.
    Gone,
}

fn segment_at(folder: &Path, timeline: u32, place: Lsn) -> Segment {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let own = format!("{timeline:08X}");
    let mut names = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.len() == 24 && name.starts_with(&own) {
            bytes = entry.metadata().map_or(bytes, |about| about.len());
            names.push(name);
        }
    }
    // WAL segments are powers of two from 1 MiB to 1 GiB.
    if !(1 << 20..=1 << 30).contains(&bytes) {
        return Segment::Gone;
    }
    let (number, of_each) = (place.0 / bytes, (1 << 32) / bytes);
    let wanted = format!("{own}{:08X}{:08X}", number / of_each, number % of_each);
    if names.contains(&wanted) {
        Segment::There
    } else if names.iter().all(|name| *name < wanted) {
        Segment::Beyond
    } else {
        Segment::Gone
    }
}

fn read_wal(pair: &Pair, from: Node, timeline: u32, start: Lsn) -> Result<Missing, Trouble> {
    let to = pair.container(from.other())?;
    let done = docker::run_once(
        &OneShot {
            name: &format!("{}-copy", pair.layout.container(from)),
            label: format!("{LABEL}={}", pair.layout.prefix),
            image: &to.image,
            user: owner_of(&pair.layout.data(from))?,
            network: "none",
            memory_bytes: to.memory_bytes,
            mounts: vec![(pair.layout.data(from), MOUNT, true)],
            script: &format!(
                "pg_waldump --path={MOUNT}/pgdata/pg_wal --timeline={timeline} --start={start} --stats=record"
            ),
        },
        READ_AT_MOST,
    )
    .map_err(|error| docker_failed(&error))?;
    // It ends with an error in any case: at the end of the WAL.
    Ok(judged(&done.stdout, &done.stderr))
}

fn owner_of(folder: &Path) -> Result<(u32, u32), Trouble> {
    use std::os::unix::fs::MetadataExt;

    let about = fs::metadata(folder);
    about
        .map(|about| (about.uid(), about.gid()))
        .map_err(|error| failed(format!("{}: {error}", folder.display())))
}

/// Reads what pg_waldump says of the WAL's rest.
fn judged(stdout: &str, stderr: &str) -> Missing {
    if stderr.contains("could not find a valid record after") {
        return Missing::Nothing;
    }
    let Some(bytes) = stdout.lines().find_map(bytes_between) else {
        let last = stderr.lines().last().unwrap_or("pg_waldump says nothing");
        return Missing::Unknown(last.trim().to_owned());
    };
    let count = stdout.lines().filter_map(commits).sum();
    match count {
        0 => Missing::Nothing,
        count => Missing::Commits { count, bytes },
    }
}

/// Reads `WAL statistics between 0/3000028 and 0/3000148:`.
fn bytes_between(line: &str) -> Option<u64> {
    let range = line.strip_prefix("WAL statistics between ")?;
    let (start, end) = range.trim_end_matches(':').split_once(" and ")?;
    let (start, end): (Lsn, Lsn) = (start.parse().ok()?, end.parse().ok()?);
    Some(end.ahead_of(start))
}

/// Reads how many transactions a row of the statistics stands for.
fn commits(line: &str) -> Option<u64> {
    let mut words = line.split_whitespace();
    let kind = words.next()?.strip_prefix("Transaction/")?;
    let counts = kind.starts_with("COMMIT") || kind.starts_with("PREPARE");
    words.next()?.parse().ok().filter(|_| counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
WAL statistics between 0/3000028 and 0/3000148:
Type                                           N      (%)          Record size      (%)
----                                           -      ---          -----------      ---
Heap/INSERT                                    9 ( 50.00)                  558 ( 50.00)
Transaction/COMMIT                             7 ( 30.00)                  238 ( 30.00)
Transaction/PREPARE                            1 ( 10.00)                  238 ( 10.00)
Transaction/ABORT                              1 ( 10.00)                   34 ( 10.00)
                                        --------                      --------
Total                                         18                          1068 [100%]
";

    #[test]
    fn transactions_are_counted_and_what_is_none_is_not() {
        let lost = Missing::Commits {
            count: 8,
            bytes: 0x120,
        };
        let end = "pg_waldump: error: error in WAL record at 0/3000110: invalid record length";
        assert_eq!(judged(TABLE, end), lost);
        let none: String = TABLE
            .lines()
            .filter(|line| !line.contains("COMMIT") && !line.contains("PREPARE"))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(judged(&none, end), Missing::Nothing);
        let nothing = "pg_waldump: error: could not find a valid record after 0/3000148";
        assert_eq!(judged("", nothing), Missing::Nothing);
    }

    #[test]
    fn what_cannot_be_read_is_unknown_and_never_nothing() {
        for (stdout, stderr) in [
            ("", ""),
            (
                "",
                "pg_waldump: error: could not open directory \"x\": Permission denied",
            ),
            ("WAL statistics between x and y:", ""),
        ] {
            assert!(
                matches!(judged(stdout, stderr), Missing::Unknown(_)),
                "{stderr}"
            );
        }
    }

    #[test]
    fn removed_wal_is_told_from_wal_that_is_still_to_come() {
        let folder = tempfile::tempdir().expect("a folder");
        let megabyte = vec![0; 1 << 20];
        for name in [
            "000000020000000000000003",
            "000000020000000000000004",
            "000000010000000000000009",
        ] {
            fs::write(folder.path().join(name), &megabyte).expect("writes");
        }
        for (place, found) in [
            (0x30_0000, Segment::There),
            (0x4F_FFFF, Segment::There),
            (0x50_0000, Segment::Beyond),
            (0x2F_FFFF, Segment::Gone),
        ] {
            assert_eq!(segment_at(folder.path(), 2, Lsn(place)), found, "{place:x}");
        }
        assert_eq!(
            segment_at(folder.path(), 3, Lsn(0)),
            Segment::Gone,
            "nothing there"
        );
    }
}
