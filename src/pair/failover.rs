//! `pgpair failover`: replaces a primary that is dead or frozen.

use std::time::Duration;

use super::error::{Error, Why, refused};
use super::failure_detector::Decision;
use super::files::Disks;
use super::host::Pair;
use super::layout::Node;
use super::switchover::{can_be_promoted, take_up};
use super::transition::journal::{Held, Kind, Move, Step};
use super::transition::{self, Moved};
use super::witnesses::{POLL_INTERVAL, Watch};

/// A primary whose container runs is given up after being silent for this long:
/// longer than a crashed server takes to be started again.
const SILENT_FOR: Duration = Duration::from_secs(5);

/// Longest until the witnesses agree.
const MAX_CONFIRM: Duration = Duration::from_secs(20);

/// A standby that takes longer than this to say that it can be promoted would
/// make no better primary than one that is alive.
const QUICK: Duration = Duration::from_secs(1);

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// Who is to be the primary; by default the standby.
    pub to: Option<Node>,
    /// Give up what the standby does not have.
    pub accept_loss: bool,
}

/// Replaces the primary.
///
/// # Errors
///
/// Refuses while the primary answers, and when something would be lost that
/// nobody gave up; fails if it had to be rolled back.
pub fn failover(pair: &Pair, options: &Options) -> Result<Option<Moved>, Error> {
    let held = Held::take(&pair.layout, Kind::Failover.word())?;
    if let Some(mut unfinished) = held.unfinished()? {
        unfinished.accept_loss |= options.accept_loss;
        let moved = take_up(pair, &held, unfinished)?;
        if options.to.is_none_or(|to| to == moved.primary) {
            return Ok(Some(moved));
        }
    }
    let from = Disks::read(&pair.layout)?.primary;
    if options.to == Some(from) {
        pair.say(&format!("{from} is the primary already"));
        return Ok(None);
    }
    confirm(pair, from)?;
    replace(pair, &held, from, options.accept_loss).map(Some)
}

/// Replaces a primary that is known to be dead or frozen.
///
/// # Errors
///
/// As [`failover`].
pub fn replace(pair: &Pair, held: &Held, from: Node, accept_loss: bool) -> Result<Moved, Error> {
    let to = from.other();
    let state = pair.container(to)?;
    if !state.running || state.paused {
        return Err(refused(
            Why::StandbyDown,
            format!(
                "the standby {} is {}: start it, or start the primary",
                pair.layout.container(to),
                state.status
            ),
        ));
    }
    let asked = pair.now();
    can_be_promoted(pair, to)?;
    let took = pair.since(asked);
    pair.has_room(to)?;
    let ran = !pair.is_down(from)?;
    if ran && took > QUICK {
        return Err(refused(
            Why::StandbySlow,
            format!("{from} runs, and {to} took {took:.1?} to answer: it would do no better"),
        ));
    }
    let there = Move {
        kind: Kind::Failover,
        from,
        to,
        step: Step::Stopping,
        accept_loss,
        ran,
    };
    transition::run(pair, held, there)
}

/// Sees that the primary is dead, or silent with nobody to say that it lives.
fn confirm(pair: &Pair, from: Node) -> Result<(), Error> {
    let container = pair.layout.container(from);
    let began = pair.now();
    let mut watch = Watch::of(pair, from)?;
    loop {
        let looked = pair.now();
        if pair.is_down(from)? {
            pair.say(&format!("{from} does not run"));
            return Ok(());
        }
        // Who is asked by an operator need not have seen it alive.
        match watch.look(pair, SILENT_FOR, Duration::MAX).decision {
            Decision::Serves => {
                return Err(refused(
                    Why::PrimaryAnswers,
                    format!("{container} answers: use pgpair switchover"),
                ));
            }
            Decision::Replace => break,
            Decision::Wait(reason) if pair.since(began) > MAX_CONFIRM || reason.is_life() => {
                return Err(refused(
                    Why::PrimaryMayLive,
                    format!(
                        "{container} runs and {} ({}): wait, or end it if it is of no use (docker kill {container}), then run this again",
                        reason.sentence(),
                        reason.word()
                    ),
                ));
            }
            _ => pair.sleep(POLL_INTERVAL.saturating_sub(pair.since(looked))),
        }
    }
    pair.say(&format!(
        "{from} runs, and did not answer {} times",
        watch.misses()
    ));
    Ok(())
}
