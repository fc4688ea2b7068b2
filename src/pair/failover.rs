//! `pgpair failover`: replaces a primary that is dead or frozen.

use std::thread;
use std::time::{Duration, Instant};

use super::disk::Disks;
use super::ground::Pair;
use super::journal::{Held, Kind, Move, Step};
use super::layout::Node;
use super::moving::{self, Moved};
use super::switchover::{can_be_promoted, take_up};
use super::trouble::{Trouble, refused};

/// A primary whose container runs is given up after this many questions
/// without an answer, over at least [`MISSES_OVER`].
const MISSES: usize = 3;

/// See [`MISSES`]: longer than a crashed server takes to be started again.
const MISSES_OVER: Duration = Duration::from_secs(5);

/// Longest for an answer that counts.
const ANSWER_AT_MOST: Duration = Duration::from_secs(2);

/// Time between two questions.
const ASK_EVERY: Duration = Duration::from_millis(500);

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
pub fn failover(pair: &Pair, options: &Options) -> Result<Option<Moved>, Trouble> {
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
pub fn replace(pair: &Pair, held: &Held, from: Node, accept_loss: bool) -> Result<Moved, Trouble> {
    let to = from.other();
    let state = pair.container(to)?;
    if !state.running || state.paused {
        return Err(refused(format!(
            "the standby {} is {}: start it, or start the primary",
            pair.layout.container(to),
            state.status
        )));
    }
    can_be_promoted(pair, to)?;
    moving::has_room(pair, to).map_err(refused)?;
    let ran = !pair.is_down(from)?;
    let there = Move {
        kind: Kind::Failover,
        from,
        to,
        step: Step::Stopping,
        accept_loss,
        ran,
    };
    moving::carry_out(pair, held, there)
}

/// Sees that the primary is dead, or says nothing for long enough.
fn confirm(pair: &Pair, from: Node) -> Result<(), Trouble> {
    let container = pair.layout.container(from);
    let began = Instant::now();
    let mut misses = 0;
    while misses < MISSES || began.elapsed() < MISSES_OVER {
        if pair.is_down(from)? {
            pair.say(&format!("{from} does not run"));
            return Ok(());
        }
        let asked = pair.server(from).value("SELECT 1", ANSWER_AT_MOST);
        match asked {
            Ok(_) => {
                return Err(refused(format!(
                    "{container} answers: use pgpair switchover"
                )));
            }
            Err(error) if error.is_alive() => {
                return Err(refused(format!(
                    "{container} is alive ({error}): use pgpair switchover"
                )));
            }
            Err(_) => misses += 1,
        }
        thread::sleep(ASK_EVERY);
    }
    pair.say(&format!("{from} runs, and did not answer {misses} times"));
    Ok(())
}
