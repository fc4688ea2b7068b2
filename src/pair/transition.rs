//! How the primary moves to the other node: stop, fence, prove, promote,
//! verify, rejoin. The same for a switchover and a failover, for a first try
//! and for one that takes up where a killed command was.

pub mod checks;
pub mod data_loss;
pub mod journal;

use std::time::Duration;

use self::journal::{Held, Kind, Move, Step};
use super::error::{Error, Why, failed};
use super::files::NodeDisk;
use super::host::{MAX_START, Pair, Stopping};
use super::layout::Node;
use super::machine::Stop;
use super::{rejoin, sync};
use crate::pg::lsn::Lsn;

/// In which a standby that has caught up a moment ago must replay the rest: it is
/// given up when it gets no further for the shorter time, and after the longer.
/// On a host that is overloaded a new segment alone may take seconds.
const MAX_STILL: Duration = Duration::from_secs(2);
const MAX_CATCH_UP: Duration = Duration::from_secs(3);
const OVERLOADED: u32 = 4;

/// Longest for a question while nobody is primary.
const MAX_ASK: Duration = Duration::from_millis(500);

/// Longest for a standby that answered a moment ago to do so again, while the old
/// primary could be started instead.
const MAX_ANSWER: Duration = Duration::from_secs(3);

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Longest for a promotion: it writes and flushes one segment of WAL.
const MAX_PROMOTE: Duration = Duration::from_secs(15);

/// What came of a move.
#[derive(Debug)]
pub struct Moved {
    /// The new primary.
    pub primary: Node,
    /// Its timeline.
    pub timeline: u32,
    /// Time without a writable primary; unknown of a move that was taken up.
    pub gap: Option<Duration>,
    /// Why the old primary is not back, if it is not.
    pub alone: Option<Error>,
}

/// Takes a move to its end from wherever it is.
///
/// # Errors
///
/// Fails if it had to be rolled back, or could not be, and says which.
pub fn run(pair: &Pair, held: &Held, mut there: Move) -> Result<Moved, Error> {
    // A roll-back that was not finished may have taken the fence away already.
    if there.step == Step::Promoting && NodeDisk::read(&pair.layout, there.from).may_write() {
        there.step = Step::Stopping;
    }
    let began = (there.step == Step::Stopping).then(|| pair.now());
    let mut stopping = None;
    if there.step == Step::Stopping {
        held.record(&there)?;
        match stop_old_primary(pair, &there) {
            Ok(under_way) => stopping = Some(under_way),
            Err(trouble) => return Err(roll_back(pair, held, &there, trouble)),
        }
    }
    if there.step == Step::Stopping {
        there.step = Step::Promoting;
        if let Err(trouble) = held.record(&there) {
            if let Some(stopping) = &mut stopping {
                stopping.end_within(pair, MAX_ANSWER);
            }
            return Err(roll_back(pair, held, &there, trouble));
        }
    }
    if let Err(not) = promote(pair, &there, began.is_some()) {
        if there.step != Step::Promoting {
            return Err(not.trouble.on_the_way());
        }
        if let Some(stopping) = &mut stopping {
            stopping.end_within(pair, MAX_ANSWER);
        }
        abort_promotion(pair, held, &there, not)?;
    }
    let timeline = takes_writes(pair, there.to).map_err(Error::on_the_way)?;
    let gap = began.map(|began| pair.since(began));
    let after = gap.map(|gap| format!(", after {} ms without a primary", gap.as_millis()));
    let after = after.unwrap_or_default();
    pair.say(&format!(
        "{} takes writes, timeline {timeline}{after}",
        there.to
    ));
    there.step = Step::Rejoining;
    if let Err(trouble) = held.record(&there) {
        // The disk is full: who takes it up finds a promotion that is done.
        log::warn!("journal cause={:?}", trouble.to_string());
    }
    checks::hand_archiving_over(pair, there.from, there.to);
    // What it was made from, if that is still kept: it has proven itself.
    rejoin::forget_old_data(pair, there.to);
    // If Docker could not, the rejoin meets that again, or it has passed.
    let _ = stopping.map(|it| it.end(pair));
    let alone = rejoin::rejoin(pair, there.from, rejoin::Extent::Whole).err();
    held.forget()?;
    Ok(Moved {
        primary: there.to,
        timeline,
        gap,
        alone,
    })
}

/// Ends the old primary for certain and proves that the new one has everything.
fn stop_old_primary(pair: &Pair, there: &Move) -> Result<Stopping, Error> {
    match there.kind {
        Kind::Switchover => stop_old_primary_cleanly(pair, there.from, there.to),
        Kind::Failover => {
            let mut stopping = pair.stop_and_fence(there.from, Stop::Now)?;
            pair.say(&format!("{} is stopped and fenced", there.from));
            // It is started again then: a stop that is under way would end it.
            data_loss::accepted(pair, there)
                .inspect_err(|_| stopping.end_within(pair, MAX_ANSWER))?;
            Ok(stopping)
        }
    }
}

fn stop_old_primary_cleanly(pair: &Pair, from: Node, to: Node) -> Result<Stopping, Error> {
    let sender = checks::sender_of_standby(pair, from);
    let mut shut_down = pair.shut_down_and_fence(from, sender)?;
    pair.say(&format!("{from} is stopped and fenced"));
    let end = shut_down.end;
    let proven =
        has_everything(pair, from, to, end).and_then(|()| pair.end_what_is_left(from, &shut_down));
    if let Err(trouble) = proven {
        // It is started again: what is left of it is in the way.
        pair.kill_what_is_left(from);
        shut_down.stopping.end_within(pair, MAX_ANSWER);
        return Err(trouble);
    }
    Ok(shut_down.stopping)
}

/// Waits until the standby has replayed the record with which the primary shut
/// down: it then has everything.
fn has_everything(pair: &Pair, from: Node, to: Node, end: Lsn) -> Result<(), Error> {
    let server = pair.server(to);
    let began = pair.now();
    let (mut last, mut moved_at) = (None, began);
    let times = match pair.machine.is_overloaded() {
        true => OVERLOADED,
        false => 1,
    };
    loop {
        let asked = server.value("SELECT pg_last_wal_replay_lsn()", MAX_ASK);
        let replayed: Option<Lsn> = asked.ok().and_then(|text| text.parse().ok());
        if replayed.is_some_and(|replayed| replayed > end) {
            break;
        }
        if replayed.is_some() && replayed != last {
            (last, moved_at) = (replayed, pair.now());
        }
        let still = pair.since(moved_at) > MAX_STILL * times;
        if still || pair.since(began) > MAX_CATCH_UP * times {
            return Err(failed(
                Why::NotReplayed,
                format!(
                    "{to} has not replayed the end of {from}'s WAL at {end} within {:.1?}",
                    pair.since(began)
                ),
            ));
        }
        pair.sleep(POLL_INTERVAL);
    }
    pair.say(&format!("{to} has everything up to {from}'s end at {end}"));
    Ok(())
}

/// Why a node was not promoted.
struct NotPromoted {
    trouble: Error,
    /// It was told to, and may still do it.
    told: bool,
}

/// Promotes a node; one that is promoted already stays so.
fn promote(pair: &Pair, there: &Move, first: bool) -> Result<(), NotPromoted> {
    let node = there.to;
    let not_told = |trouble| NotPromoted {
        trouble,
        told: false,
    };
    // There is a way back, as long as nobody knows more of it.
    let patience = match first && there.ran {
        true => MAX_ANSWER,
        false => MAX_START,
    };
    let server = pair.server(node);
    let recovering = || {
        let answer = server.value("SELECT pg_is_in_recovery()", MAX_ANSWER);
        answer.map_err(|error| pair.no_answer(node, &error))
    };
    let answer = recovering().or_else(|_| {
        // A command that was killed may have left it in any state.
        pair.start_at_last(node)?;
        pair.answers(node, patience)?;
        recovering()
    });
    if answer.map_err(not_told)? == "f" {
        return Ok(());
    }
    sync::before_promotion(pair, node).map_err(not_told)?;
    let sql = format!("SELECT pg_promote(true, {})", MAX_PROMOTE.as_secs());
    let promoted = server.value(&sql, MAX_PROMOTE + MAX_ANSWER);
    match promoted {
        Ok(yes) if yes == "t" => Ok(()),
        // Without its fence there is no way back for it.
        _ if !NodeDisk::read(&pair.layout, node).fenced => Ok(()),
        Ok(_) => Err(failed(
            Why::NotPromoted,
            format!("{node} was not promoted within {MAX_PROMOTE:?}"),
        )),
        Err(error) => Err(pair.no_answer(node, &error)),
    }
    .map_err(|trouble| NotPromoted {
        trouble,
        told: true,
    })
}

/// Sees that a node is a primary on disk and takes a commit; returns its
/// timeline.
fn takes_writes(pair: &Pair, node: Node) -> Result<u32, Error> {
    // A transactional message needs no table, and its commit is flushed.
    let sql = "BEGIN; SELECT pg_logical_emit_message(true, 'pgpair', ''); COMMIT; \
               SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)";
    let rows = pair
        .until(MAX_START, || {
            pair.server(node).rows(sql, super::host::MAX_SQL)
        })
        .map_err(|error| pair.no_answer(node, &error))?;
    if NodeDisk::read(&pair.layout, node).fenced {
        return Err(failed(
            Why::NotFenced,
            format!("{node} takes writes and is still fenced on disk: run this again"),
        ));
    }
    let name = rows
        .into_iter()
        .next_back()
        .and_then(|row| row.into_iter().next());
    let timeline = name
        .flatten()
        .and_then(|name| u32::from_str_radix(&name, 16).ok());
    timeline.ok_or_else(|| {
        failed(
            Why::ServerFailed,
            format!("{node} does not tell its timeline"),
        )
    })
}

/// Goes back after a promotion that failed, if it is certain that it does not
/// come about after all; if it has, all is well. The old primary is started
/// first, and then whoever is in its way.
fn abort_promotion(pair: &Pair, held: &Held, there: &Move, not: NotPromoted) -> Result<(), Error> {
    if !not.told {
        return Err(roll_back(pair, held, there, not.trouble));
    }
    pair.kill(there.to)
        .map_err(|trouble| not_known(pair, there, &trouble))?;
    if !NodeDisk::read(&pair.layout, there.to).fenced {
        return pair
            .start_at_last(there.to)
            .map_err(|trouble| not_known(pair, there, &trouble));
    }
    let told = roll_back(pair, held, there, not.trouble);
    Err(match pair.start(there.to) {
        Ok(()) => told,
        Err(more) => told.and(&more.to_string()),
    })
}

fn not_known(pair: &Pair, there: &Move, trouble: &Error) -> Error {
    failed(
        trouble.why(),
        format!(
            "{trouble}; {} is fenced, and {} could not be promoted: see docker logs {}, then run this again",
            there.from,
            there.to,
            pair.layout.container(there.to)
        ),
    )
}

/// Gives the old primary its right back. The standby is fenced, and nobody has
/// told it to be promoted, or it is down.
fn roll_back(pair: &Pair, held: &Held, there: &Move, trouble: Error) -> Error {
    match back(pair, held, there) {
        // It did not run and does not run: nothing came of it.
        Ok(()) if !there.ran => trouble,
        Ok(()) => trouble
            .on_the_way()
            .and(&format!("rolled back: {} is the primary again", there.from)),
        Err(more) => trouble.on_the_way().and(&format!(
            "and it could not be rolled back ({more}): see to that, then run this again"
        )),
    }
}

fn back(pair: &Pair, held: &Held, there: &Move) -> Result<(), Error> {
    if !NodeDisk::read(&pair.layout, there.to).fenced {
        return Err(failed(
            Why::WrongRole,
            format!("{} is no standby any more", there.to),
        ));
    }
    // What was started with the fence, or is still stopping, is no primary.
    if pair.is_no_primary(there.from) {
        pair.kill(there.from)?;
    }
    pair.unfence(there.from)?;
    if there.ran {
        pair.start_at_last(there.from)?;
        pair.answers(there.from, MAX_START)?;
    }
    held.forget()
}
