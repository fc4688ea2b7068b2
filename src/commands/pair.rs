//! The commands about a pair on this host: what they are told, how they end and
//! what they say at the end.

use std::fmt;
use std::time::Duration;

use log::LevelFilter;

use crate::pair::error::Error;
use crate::pair::host::Pair;
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
    /// `pgpair guard pause`: for how long.
    Pause(Duration),
    /// `pgpair guard resume`.
    Resume,
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
    /// Least level of what is logged.
    pub log: LevelFilter,
}

/// Runs a command; returns the exit code.
pub fn run(command: Command) -> u8 {
    panic::install(exit::FAILURE);
    if let Err(error) = logging::start(command.log) {
        eprintln!("pgpair: cannot log: {error}");
        return exit::FAILURE;
    }
    // The guard's words are its log.
    let quiet = matches!(command.action, Action::Guard(_));
    let pair = Pair::new(command.layout, quiet);
    let outcome = match command.action {
        Action::Switchover(options) => {
            switchover::switchover(&pair, &options).map(|done| match done {
                Done::Nothing => exit::OK,
                Done::Moved(moved) => told("switchover", &moved),
            })
        }
        Action::Failover(options) => failover::failover(&pair, &options)
            .map(|moved| moved.map_or(exit::OK, |moved| told("failover", &moved))),
        Action::Rejoin(node, extent) => rejoin_one(&pair, node, extent),
        Action::Guard(options) => guard::guard(&pair, options).map(|()| exit::OK),
        Action::Pause(length) => guard::pause(&pair, length).map(|()| exit::OK),
        Action::Resume => guard::resume(&pair).map(|()| exit::OK),
    };
    let exit_code = outcome.unwrap_or_else(|trouble| {
        say(&trouble);
        match trouble {
            Error::Refused(_) => exit::REFUSED,
            Error::Failed(_) => exit::FAILURE,
        }
    });
    logging::flush();
    exit_code
}

fn rejoin_one(pair: &Pair, node: Option<Node>, extent: Extent) -> Result<u8, Error> {
    let held = Held::take(&pair.layout, "rejoin")?;
    if let Some(unfinished) = held.unfinished()? {
        return switchover::take_up(pair, &held, unfinished).map(|moved| told("rejoin", &moved));
    }
    let standby = files::Disks::read(&pair.layout)?.primary.other();
    rejoin::rejoin(pair, node.unwrap_or(standby), extent)?;
    Ok(exit::OK)
}

/// Says how a move ended.
fn told(what: &str, moved: &Moved) -> u8 {
    let (primary, timeline) = (moved.primary, moved.timeline);
    let gap = moved.gap.map(|gap| gap.as_millis());
    let shown = gap.map_or("unknown".to_owned(), |gap| gap.to_string());
    log::info!("{what} primary={primary} timeline={timeline} gap_ms={shown}");
    match &moved.alone {
        None => exit::OK,
        Some(trouble) => {
            say(&format!(
                "{primary} is the primary, and {} is not back ({trouble}): see to that, then run pgpair rejoin",
                primary.other()
            ));
            exit::ALONE
        }
    }
}

fn say(line: &dyn fmt::Display) {
    eprintln!("pgpair: {line}");
}
