//! How the primary moves to the other node: stop, fence, prove, promote,
//! verify, rejoin. The same for a switchover and a failover, for a first try
//! and for one that takes up where a killed command was.

use std::time::{Duration, Instant};

use super::control::Ended;
use super::disk::{self, NodeDisk};
use super::ground::{Pair, START_AT_MOST, Stop, Stopping, until};
use super::journal::{Held, Kind, Move, Step};
use super::layout::Node;
use super::trouble::{Trouble, failed};
use super::{loss, rejoin, sync};

/// In which the standby must have what a cleanly stopped primary sent it.
const CATCH_UP_AT_MOST: Duration = Duration::from_secs(10);

/// Longest for a promotion.
const PROMOTE_AT_MOST: Duration = Duration::from_secs(60);

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
    pub alone: Option<Trouble>,
}

/// Takes a move to its end from wherever it is.
///
/// # Errors
///
/// Fails if it had to be rolled back, or could not be, and says which.
pub fn carry_out(pair: &Pair, held: &Held, mut there: Move) -> Result<Moved, Trouble> {
    // A roll-back that was not finished may have taken the fence away already.
    if there.step == Step::Promoting && NodeDisk::read(&pair.layout, there.from).may_write() {
        there.step = Step::Stopping;
    }
    let began = (there.step == Step::Stopping).then(Instant::now);
    let mut stopping = None;
    if there.step == Step::Stopping {
        held.record(&there)?;
        match hand_over(pair, &there) {
            Ok(under_way) => stopping = Some(under_way),
            Err(trouble) => return Err(roll_back(pair, held, &there, trouble)),
        }
    }
    if there.step == Step::Stopping {
        there.step = Step::Promoting;
        if let Err(trouble) = held.record(&there) {
            let _ = stopping.map(Stopping::end);
            return Err(roll_back(pair, held, &there, trouble));
        }
    }
    match promote(pair, there.to) {
        Ok(()) => {}
        Err(trouble) if there.step == Step::Promoting => {
            let _ = stopping.map(Stopping::end);
            return Err(retreat(pair, held, &there, trouble));
        }
        Err(trouble) => return Err(trouble.on_the_way()),
    }
    let timeline = takes_writes(pair, there.to).map_err(Trouble::on_the_way)?;
    let gap = began.map(|began| began.elapsed());
    pair.say(&match gap {
        Some(gap) => format!(
            "{} takes writes, timeline {timeline}, after {} ms without a primary",
            there.to,
            gap.as_millis()
        ),
        None => format!("{} takes writes, timeline {timeline}", there.to),
    });
    there.step = Step::Rejoining;
    if let Err(trouble) = held.record(&there) {
        // The disk is full: who takes it up finds a promotion that is done.
        log::warn!("journal cause={:?}", trouble.to_string());
    }
    // What it was made from, if that is still kept: it has proven itself.
    rejoin::forget_old_data(pair, there.to)?;
    // If Docker could not, the rejoin meets that again, or it has passed.
    let _ = stopping.map(Stopping::end);
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
fn hand_over(pair: &Pair, there: &Move) -> Result<Stopping, Trouble> {
    let (from, to) = (there.from, there.to);
    let how = match there.kind {
        Kind::Switchover => Stop::Gently,
        Kind::Failover => Stop::Now,
    };
    let stopping = pair.stop_and_fence(from, how)?;
    pair.say(&format!("{from} is stopped and fenced"));
    let proven = match there.kind {
        Kind::Switchover => has_everything(pair, from, to),
        Kind::Failover => loss::accepted(pair, from, there.accept_loss),
    };
    if let Err(trouble) = proven {
        // It is started again: a stop that is still under way would end it.
        let _ = stopping.end();
        return Err(trouble);
    }
    Ok(stopping)
}

/// Waits until the standby has replayed the record with which the primary shut
/// down: it then has everything.
fn has_everything(pair: &Pair, from: Node, to: Node) -> Result<(), Trouble> {
    let control = NodeDisk::read(&pair.layout, from).control()?;
    if control.ended != Ended::ShutDown {
        return Err(failed(format!(
            "{from} did not shut down cleanly (its log says why: docker logs {})",
            pair.layout.container(from)
        )));
    }
    let end = control.checkpoint;
    let sql = format!("SELECT pg_last_wal_replay_lsn() > '{end}'::pg_lsn");
    until(CATCH_UP_AT_MOST, || match pair.value(to, &sql)?.as_str() {
        "t" => Ok(()),
        _ => Err(failed(format!(
            "{to} has not replayed the end of {from}'s WAL at {end} within {CATCH_UP_AT_MOST:?}"
        ))),
    })?;
    pair.say(&format!("{to} has everything up to {from}'s end at {end}"));
    Ok(())
}

/// Promotes a node; one that is promoted already stays so.
fn promote(pair: &Pair, node: Node) -> Result<(), Trouble> {
    let recovering = || pair.value(node, "SELECT pg_is_in_recovery()");
    let answer = recovering().or_else(|_| {
        // A command that was killed may have left it in any state.
        pair.start_at_last(node)?;
        pair.answers(node, START_AT_MOST)?;
        recovering()
    })?;
    if answer == "f" {
        return Ok(());
    }
    sync::before_promotion(pair, node)?;
    let sql = format!("SELECT pg_promote(true, {})", PROMOTE_AT_MOST.as_secs());
    let promoted = pair
        .server(node)
        .value(&sql, PROMOTE_AT_MOST + Duration::from_secs(5))
        .map_err(|error| pair.no_answer(node, &error))?;
    match promoted.as_str() {
        "t" => Ok(()),
        _ => Err(failed(format!(
            "{node} was not promoted within {PROMOTE_AT_MOST:?}"
        ))),
    }
}

/// Sees that a node is a primary on disk and takes a commit; returns its
/// timeline.
fn takes_writes(pair: &Pair, node: Node) -> Result<u32, Trouble> {
    // A transactional message needs no table, and its commit is flushed.
    let sql = "BEGIN; SELECT pg_logical_emit_message(true, 'pgpair', ''); COMMIT; \
               SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)";
    let rows = until(START_AT_MOST, || {
        pair.server(node).rows(sql, super::ground::SQL_AT_MOST)
    })
    .map_err(|error| pair.no_answer(node, &error))?;
    if NodeDisk::read(&pair.layout, node).fenced {
        return Err(failed(format!(
            "{node} takes writes and is still fenced on disk: run this again"
        )));
    }
    let name = rows
        .into_iter()
        .next_back()
        .and_then(|row| row.into_iter().next());
    let timeline = name
        .flatten()
        .and_then(|name| u32::from_str_radix(&name, 16).ok());
    timeline.ok_or_else(|| failed(format!("{node} does not tell its timeline")))
}

/// Goes back after a promotion that failed, if it is certain that it does not
/// come about after all.
fn retreat(pair: &Pair, held: &Held, there: &Move, trouble: Trouble) -> Trouble {
    let stays = format!(
        "{} is fenced, and {} could not be promoted: see docker logs {}, then run this again",
        there.from,
        there.to,
        pair.layout.container(there.to)
    );
    let stopped = pair.stop(there.to, Stop::Now);
    if stopped.is_err() || !NodeDisk::read(&pair.layout, there.to).fenced {
        return trouble.on_the_way().and(&stays);
    }
    let told = roll_back(pair, held, there, trouble);
    match pair.start(there.to) {
        Ok(()) => told,
        Err(more) => told.and(&more.to_string()),
    }
}

/// Gives the old primary its right back. The standby is fenced, and nobody has
/// told it to be promoted, or it is down.
fn roll_back(pair: &Pair, held: &Held, there: &Move, trouble: Trouble) -> Trouble {
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

fn back(pair: &Pair, held: &Held, there: &Move) -> Result<(), Trouble> {
    if !NodeDisk::read(&pair.layout, there.to).fenced {
        return Err(failed(format!("{} is no standby any more", there.to)));
    }
    pair.unfence(there.from)?;
    if there.ran {
        pair.start_at_last(there.from)?;
        pair.answers(there.from, START_AT_MOST)?;
    }
    held.forget()
}

/// Says whether a file system has room for what a move writes.
///
/// # Errors
///
/// Says how much is missing.
pub fn has_room(pair: &Pair, node: Node) -> Result<(), String> {
    /// A few WAL segments.
    const NEEDED: u64 = 64 * 1024 * 1024;
    let place = pair.layout.data(node);
    match disk::free_bytes(&place) {
        Ok(free) if free >= NEEDED => Ok(()),
        Ok(free) => Err(format!(
            "{} has {} MB free, and {} MB are needed: free some",
            place.display(),
            free >> 20,
            NEEDED >> 20
        )),
        Err(error) => Err(format!("{}: {error}", place.display())),
    }
}
