//! `pgpair switchover`: moves the primary, which is well, to the standby, which
//! is too.

use std::time::Duration;

use super::error::{Error, Why, refused};
use super::files::Disks;
use super::host::{MAX_START, Pair};
use super::layout::Node;
use super::sync;
use super::transition::checks;
use super::transition::journal::{self, Held, Kind, Move, Step};
use super::transition::{self, Moved};

/// A standby may be this far behind: what it replays in well under a second.
const MAX_BEHIND: u64 = 16 * 1024 * 1024;

/// How long it is waited for it to be no further behind.
const MAX_CATCH_UP: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// Who is to be the primary; by default the standby.
    pub to: Option<Node>,
    /// Only look, and say what would be done.
    pub dry_run: bool,
}

/// What was done.
#[derive(Debug)]
pub enum Done {
    /// The primary was there already, or this was a dry run.
    Nothing,
    /// It moved.
    Moved(Moved),
}

/// Moves the primary.
///
/// # Errors
///
/// Refuses while anything is not well; fails if it had to be rolled back.
pub fn switchover(pair: &Pair, options: &Options) -> Result<Done, Error> {
    if options.dry_run {
        return dry_run(pair, options);
    }
    let held = Held::take(&pair.layout, Kind::Switchover.word())?;
    if let Some(unfinished) = held.unfinished()? {
        let moved = take_up(pair, &held, unfinished)?;
        if options.to.is_none_or(|to| to == moved.primary) {
            return Ok(Done::Moved(moved));
        }
    }
    let from = Disks::read(&pair.layout)?.primary;
    if options.to == Some(from) {
        pair.say(&format!("{from} is the primary already"));
        return Ok(Done::Nothing);
    }
    is_well(pair, from)?;
    checks::what_a_stop_would_meet(pair, from)?;
    pair.say(&format!(
        "{from} is the primary, {} streams from it",
        from.other()
    ));
    // What the stop would else have to write, it writes while writes go on.
    let checkpoint = pair.server(from).rows("CHECKPOINT", MAX_START);
    checkpoint.map_err(|error| {
        refused(
            Why::NoCheckpoint,
            format!("{from} makes no checkpoint: {error}"),
        )
    })?;
    pair.say("checkpoint made");
    is_well(pair, from)?;
    for line in checks::what_a_stop_would_meet(pair, from)? {
        pair.say(&line);
    }
    checks::cut_silent_receivers_off(pair, from)?;
    let there = Move {
        kind: Kind::Switchover,
        from,
        to: from.other(),
        step: Step::Stopping,
        accept_loss: false,
        ran: true,
    };
    transition::run(pair, &held, there).map(Done::Moved)
}

/// Takes up what a killed command left.
///
/// # Errors
///
/// As the command itself.
pub fn take_up(pair: &Pair, held: &Held, unfinished: Move) -> Result<Moved, Error> {
    pair.say(&format!(
        "taking up a {} from {} to {} that was not finished",
        unfinished.kind.word(),
        unfinished.from,
        unfinished.to
    ));
    transition::run(pair, held, unfinished)
}

fn dry_run(pair: &Pair, options: &Options) -> Result<Done, Error> {
    if let Some(left) = journal::read(&pair.layout)? {
        pair.say(&format!(
            "would take up a {} from {} to {} that was not finished",
            left.kind.word(),
            left.from,
            left.to
        ));
        return Ok(Done::Nothing);
    }
    let from = Disks::read(&pair.layout)?.primary;
    let to = from.other();
    if options.to == Some(from) {
        pair.say(&format!(
            "{from} is the primary already: nothing would be done"
        ));
        return Ok(Done::Nothing);
    }
    is_well(pair, from)?;
    for line in checks::what_a_stop_would_meet(pair, from)? {
        pair.say(&line);
    }
    for line in [
        format!("would stop {from} cleanly: connections to it end, and writes wait"),
        format!(
            "would write standby.signal into {from}'s data, so that it cannot take a write whoever starts it"
        ),
        format!(
            "would wait until {to} has everything up to {from}'s end, and else start {from} again"
        ),
        format!("would promote {to}: writes go on there"),
        format!("would start {from} as the standby of {to}"),
    ] {
        pair.say(&line);
    }
    Ok(Done::Nothing)
}

/// Refuses unless the primary and its standby are both as they should be.
fn is_well(pair: &Pair, from: Node) -> Result<(), Error> {
    let to = from.other();
    for node in Node::BOTH {
        let state = pair.container(node)?;
        if !state.running || state.paused {
            return Err(refused(
                Why::ContainerDown,
                format!(
                    "{} is {}: {}",
                    pair.layout.container(node),
                    state.status,
                    if node == from {
                        "run pgpair failover"
                    } else {
                        "start it, or run pgpair rejoin"
                    }
                ),
            ));
        }
        pair.has_room(node)?;
    }
    pair.until(MAX_CATCH_UP, || has_caught_up(pair, from))?;
    can_be_promoted(pair, to)
}

fn has_caught_up(pair: &Pair, from: Node) -> Result<(), Error> {
    let to = from.other();
    let sql = format!(
        "SELECT (SELECT greatest(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn), 0)::bigint \
           FROM pg_stat_replication WHERE application_name = '{}' AND state = 'streaming')",
        pair.layout.slot(to)
    );
    let behind = pair
        .server(from)
        .value(&sql, super::host::MAX_SQL)
        .map_err(|error| {
            refused(
                Why::PrimarySilent,
                format!("the primary {from} does not answer ({error}): run pgpair failover"),
            )
        })?;
    match behind.parse::<u64>() {
        Ok(bytes) if bytes <= MAX_BEHIND => Ok(()),
        Ok(bytes) => Err(refused(
            Why::StandbyBehind,
            format!(
                "{to} is {} MB behind: wait until it has caught up",
                bytes >> 20
            ),
        )),
        Err(_) => Err(refused(
            Why::NotStreaming,
            format!("{to} does not stream from {from}: run pgpair rejoin"),
        )),
    }
}

/// Refuses a standby that would not become a primary when told so.
///
/// # Errors
///
/// Says why, and what to do.
pub fn can_be_promoted(pair: &Pair, to: Node) -> Result<(), Error> {
    sync::is_readable(&pair.layout)?;
    let sql = "SELECT pg_is_in_recovery(), \
               CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() END, \
               current_setting('recovery_min_apply_delay')";
    let row = pair
        .server(to)
        .row(sql, super::host::MAX_SQL)
        .map_err(|error| {
            refused(
                Why::StandbySilent,
                format!("the standby {to} does not answer ({error}): start it"),
            )
        })?;
    let cells: Vec<&str> = row
        .iter()
        .map(|cell| cell.as_deref().unwrap_or(""))
        .collect();
    match cells[..] {
        ["t", "f", "0"] => Ok(()),
        ["t", "t", _] => Err(refused(
            Why::ReplayPaused,
            format!("replay is paused on {to}: run SELECT pg_wal_replay_resume() there"),
        )),
        ["t", _, delay] => Err(refused(
            Why::ReplayDelayed,
            format!(
                "{to} replays with a delay (recovery_min_apply_delay = {delay}): set that to 0"
            ),
        )),
        _ => Err(refused(
            Why::TwoPrimaries,
            format!(
                "{to} is a primary too, though its disk says standby: decide which is right and stop the other"
            ),
        )),
    }
}
