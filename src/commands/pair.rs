//! The commands about a pair on this host: what they are told, how they end and
//! what they say at the end.

use std::io::{self, Write};
use std::sync::Mutex;

use log::LevelFilter;
use serde::Serialize;

use super::inspect;
use crate::pair::error::Error;
use crate::pair::guard::pause::{self, Pause, Paused};
use crate::pair::host::{Output, Pair};
use crate::pair::layout::{Layout, Node};
use crate::pair::rejoin::{self, Extent};
use crate::pair::switchover::{self, Done};
use crate::pair::transition::Moved;
use crate::pair::transition::journal::Held;
use crate::pair::{failover, files, guard};
use crate::runtime::{exit, logging, panic};

/// What a command does.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// `pgpair switchover`.
    Switchover(switchover::Options),
    /// `pgpair failover`.
    Failover(failover::Options),
    /// `pgpair guard`.
    Guard(guard::Options),
    /// `pgpair guard pause`.
    Pause(Pause),
    /// `pgpair guard resume`: any pause, or one that ends then.
    Resume(Option<u64>),
    /// `pgpair inspect`: with how much the data takes, or without.
    Inspect {
        /// Add up how much the data takes.
        sizes: bool,
    },
    /// `pgpair rejoin`: who, by default the node that is not the primary.
    Rejoin(Option<Node>, Extent),
}

/// A command about a pair.
#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    /// Which pair.
    pub layout: Layout,
    /// What to do.
    pub action: Action,
    /// Say how it ended as one JSON object, and nothing else.
    pub json: bool,
    /// Least level of what is logged.
    pub log: LevelFilter,
}

/// How a command ended, for machines.
#[derive(Debug, Default, Serialize)]
struct Ended {
    /// `done`, `nothing` (there was nothing to do), `planned` (a dry run), `alone` (the
    /// primary moved, and the other node is not back), `refused` or `failed`.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    primary: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeline: Option<u32>,
    /// Time without a writable primary.
    #[serde(skip_serializing_if = "Option::is_none")]
    gap_ms: Option<u128>,
    /// The end of the guard's pause, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    paused_until: Option<u64>,
    /// A word of [`Why`](crate::pair::error::Why).
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// What was done, or would be, for a person.
    steps: Vec<String>,
}

/// Runs a command; returns the exit code.
pub fn run(command: Command) -> u8 {
    panic::install(exit::FAILURE);
    if let Err(error) = logging::start(command.log) {
        eprintln!("pgpair: cannot log: {error}");
        return exit::FAILURE;
    }
    if let Action::Inspect { sizes } = command.action {
        return inspect::run(&command.layout, sizes, command.json);
    }
    let output = match command.action {
        // The guard's words are its log.
        Action::Guard(_) => Output::Log,
        _ if command.json => Output::Kept(Mutex::default()),
        _ => Output::Lines,
    };
    let pair = Pair::new(command.layout, output);
    let (ended, exit_code) = match carry_out(&pair, command.action) {
        Ok(ended) => told(ended, command.json),
        Err(error) => not_done(&error, command.json),
    };
    if command.json {
        let steps = pair.kept();
        let text = serde_json::to_string(&Ended { steps, ..ended });
        // Who reads may have gone.
        let _ = writeln!(io::stdout(), "{}", text.expect("text and numbers"));
    }
    logging::flush();
    exit_code
}

/// What came of a command that was neither refused nor failed.
enum Outcome {
    Done,
    Nothing,
    Planned,
    Paused(Paused),
    Moved(&'static str, Moved),
}

fn carry_out(pair: &Pair, action: Action) -> Result<Outcome, Error> {
    Ok(match action {
        Action::Switchover(options) => match switchover::switchover(pair, &options)? {
            Done::Nothing if options.dry_run => Outcome::Planned,
            Done::Nothing => Outcome::Nothing,
            Done::Moved(moved) => Outcome::Moved("switchover", moved),
        },
        Action::Failover(options) => match failover::failover(pair, &options)? {
            None => Outcome::Nothing,
            Some(moved) => Outcome::Moved("failover", moved),
        },
        Action::Rejoin(node, extent) => rejoin_one(pair, node, extent)?,
        // It has ended already: it changes nothing, and has words of its own.
        Action::Inspect { .. } => Outcome::Nothing,
        Action::Guard(options) => guard::guard(pair, options).map(|()| Outcome::Done)?,
        Action::Pause(wanted) => Outcome::Paused(pause::pause(pair, &wanted)?),
        Action::Resume(own) => match pause::resume(pair, own)? {
            true => Outcome::Done,
            false => Outcome::Nothing,
        },
    })
}

fn rejoin_one(pair: &Pair, node: Option<Node>, extent: Extent) -> Result<Outcome, Error> {
    let held = Held::take(&pair.layout, "rejoin")?;
    if let Some(unfinished) = held.unfinished()? {
        let moved = switchover::take_up(pair, &held, unfinished)?;
        return Ok(Outcome::Moved("rejoin", moved));
    }
    let standby = files::Disks::read(&pair.layout)?.primary.other();
    match rejoin::rejoin(pair, node.unwrap_or(standby), extent)? {
        true => Ok(Outcome::Done),
        false => Ok(Outcome::Nothing),
    }
}

/// Says how a command ended that did what it could.
fn told(outcome: Outcome, json: bool) -> (Ended, u8) {
    let ended = |outcome| Ended {
        outcome,
        ..Ended::default()
    };
    let (what, moved) = match outcome {
        Outcome::Done => return (ended("done"), exit::OK),
        Outcome::Nothing => return (ended("nothing"), exit::OK),
        Outcome::Planned => return (ended("planned"), exit::OK),
        Outcome::Paused(paused) => {
            let ended = Ended {
                paused_until: paused.until,
                ..ended(if paused.changed { "done" } else { "nothing" })
            };
            return (ended, exit::OK);
        }
        Outcome::Moved(what, moved) => (what, moved),
    };
    let (primary, timeline) = (moved.primary, moved.timeline);
    let gap = moved.gap.map(|gap| gap.as_millis());
    let shown = gap.map_or("unknown".to_owned(), |gap| gap.to_string());
    log::info!("{what} primary={primary} timeline={timeline} gap_ms={shown}");
    let ended = Ended {
        primary: Some(primary.name()),
        timeline: Some(timeline),
        gap_ms: gap,
        ..ended("done")
    };
    let Some(error) = &moved.alone else {
        return (ended, exit::OK);
    };
    let detail = format!(
        "{primary} is the primary, and {} is not back ({error}): see to that, then run pgpair rejoin",
        primary.other()
    );
    if !json {
        eprintln!("pgpair: {detail}");
    }
    let ended = Ended {
        outcome: "alone",
        reason: Some(error.why().word()),
        detail: Some(detail),
        ..ended
    };
    (ended, exit::ALONE)
}

/// Says why a command was refused, or failed.
fn not_done(error: &Error, json: bool) -> (Ended, u8) {
    if !json {
        eprintln!("pgpair: {error}");
    }
    let (outcome, exit_code) = match error {
        Error::Refused(..) => ("refused", exit::REFUSED),
        Error::Failed(..) => ("failed", exit::FAILURE),
    };
    let ended = Ended {
        outcome,
        reason: Some(error.why().word()),
        detail: Some(error.detail()),
        ..Ended::default()
    };
    (ended, exit_code)
}
