//! One thread a node that observes, and one that sweeps: answers what is late
//! and replaces watchers that are stuck.

use std::io;
use std::sync::Arc;

use super::board::{Asker, Board};
use super::node::{Facts, Failure, What};
use crate::runtime::panic;
use crate::runtime::threads::spawn;

/// Abandoned watchers of a node that may still be stuck somewhere. Their
/// sockets are shut down, so they end at once unless they hang elsewhere (in a
/// name look-up, say); three of them are reason enough to wait for one to end.
const MAX_ABANDONED: usize = 3;

/// Asks one node, over one connection at a time.
pub trait Observer: Send {
    /// Makes one round trip. `note` takes what has gone wrong on the way
    /// while it still tries.
    fn observe(&mut self, what: What, note: &mut dyn FnMut(Failure)) -> Result<Facts, Failure>;
}

/// Makes observers of one node.
pub trait Target: Send + Sync + 'static {
    /// Makes an observer with connections of its own.
    fn observer(&self) -> Box<dyn Observer>;

    /// Counts the observers made so far that still hold anything: a
    /// connection, or a thread that is stuck while connecting.
    fn alive(&self) -> usize;

    /// Cuts the connections of every observer made so far, so that what is
    /// stuck on them returns.
    fn cut(&self);
}

/// Starts a watcher for every lane of the board and the sweep. `lanes` are the
/// targets in the order of the board's lanes: every node's for what it says,
/// then every node's for commits.
///
/// # Errors
///
/// Fails if a thread cannot be started.
pub fn start<A: Asker>(board: &Arc<Board<A>>, lanes: Vec<Arc<dyn Target>>) -> io::Result<()> {
    for (lane, target) in lanes.iter().enumerate() {
        watch(board, lane, 0, target)?;
    }
    let board = Arc::clone(board);
    spawn("sweep".to_owned(), move || sweep(&board, &lanes))
}

/// Starts a watcher. Nothing changes for its predecessor if that fails.
fn watch<A: Asker>(
    board: &Arc<Board<A>>,
    lane: usize,
    epoch: u64,
    target: &Arc<dyn Target>,
) -> io::Result<()> {
    let name = board.lane_name(lane);
    let board = Arc::clone(board);
    let target = Arc::clone(target);
    let observer = panic::unless_exhausted(|| target.observer());
    let mut observer = observer.ok_or_else(|| io::Error::other("no thread to connect with"))?;
    spawn(name, move || {
        if epoch > 0 {
            board.take_over(lane, epoch);
            target.cut();
        }
        while let Some((number, what)) = board.begin(lane, epoch) {
            let outcome = observer.observe(what, &mut |failure| board.note(lane, epoch, failure));
            if !board.publish(lane, epoch, number, outcome) {
                break;
            }
        }
    })
}

fn sweep<A: Asker>(board: &Arc<Board<A>>, lanes: &[Arc<dyn Target>]) {
    while let Some(stuck) = board.sweep() {
        for lane in stuck {
            if let Err(why) = abandon(board, lane, &lanes[lane]) {
                let name = board.lane_name(lane);
                log::debug!("watcher name={name} event=still_stuck cause={why:?}");
                lanes[lane].cut();
                board.leave_stuck(lane);
            }
        }
    }
}

/// Replaces the stuck watcher of a lane by a new one with its own connections.
fn abandon<A: Asker>(
    board: &Arc<Board<A>>,
    lane: usize,
    target: &Arc<dyn Target>,
) -> Result<(), String> {
    if target.alive() > MAX_ABANDONED {
        return Err(format!("{} watchers have not ended yet", target.alive()));
    }
    let epoch = board.next_epoch(lane);
    watch(board, lane, epoch, target).map_err(|error| error.to_string())?;
    // Until it has taken over, the old one would be found stuck again.
    board.leave_stuck(lane);
    log::warn!(
        "watcher name={} event=abandoned stuck_seconds={:.0}",
        board.lane_name(lane),
        board.rules().stuck_after.as_secs_f64()
    );
    Ok(())
}

#[cfg(test)]
mod tests;
