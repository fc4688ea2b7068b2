//! One thread a node that observes, and one that sweeps: answers what is late
//! and replaces watchers that are stuck.

use std::io;
use std::sync::Arc;
use std::thread;

use super::board::{Asker, Board};
use super::node::{Facts, Failure};

/// Abandoned watchers of a node that may still be stuck somewhere. Their
/// sockets are shut down, so they end at once unless they hang elsewhere (in a
/// name look-up, say); three of them are reason enough to wait for one to end.
const ABANDONED_AT_MOST: usize = 3;

/// Stack of our threads. They call into the PostgreSQL driver and TLS, whose
/// deepest frames stay well under half of this; pages are used only if touched.
const STACK_BYTES: usize = 512 * 1024;

/// Asks one node, over one connection at a time.
pub trait Observer: Send {
    /// Makes one round trip. `note` takes what has gone wrong on the way
    /// while it still tries.
    fn observe(&mut self, note: &mut dyn FnMut(Failure)) -> Result<Facts, Failure>;
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

/// Starts a watcher for every node and the sweep.
///
/// # Errors
///
/// Fails if a thread cannot be started.
pub fn start<A: Asker>(board: &Arc<Board<A>>, targets: Vec<Arc<dyn Target>>) -> io::Result<()> {
    for (node, target) in targets.iter().enumerate() {
        watch(board, node, 0, target)?;
    }
    let board = Arc::clone(board);
    spawn("sweep".to_owned(), move || sweep(&board, &targets))
}

/// Starts one of our named threads: a panic in it ends the process.
///
/// # Errors
///
/// Fails if the thread cannot be started.
pub fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new()
        .name(name)
        .stack_size(STACK_BYTES)
        .spawn(run)
        .map(drop)
}

/// Starts a watcher. Nothing changes for its predecessor if that fails.
fn watch<A: Asker>(
    board: &Arc<Board<A>>,
    node: usize,
    epoch: u64,
    target: &Arc<dyn Target>,
) -> io::Result<()> {
    let name = format!("watch-{}", board.rules().nodes[node]);
    let board = Arc::clone(board);
    let target = Arc::clone(target);
    spawn(name, move || {
        if epoch > 0 {
            board.take_over(node, epoch);
            target.cut();
        }
        let mut observer = target.observer();
        while let Some(number) = board.begin(node, epoch) {
            let outcome = observer.observe(&mut |failure| board.note(node, epoch, failure));
            if !board.publish(node, epoch, number, outcome) {
                break;
            }
        }
    })
}

fn sweep<A: Asker>(board: &Arc<Board<A>>, targets: &[Arc<dyn Target>]) {
    while let Some(stuck) = board.sweep() {
        for node in stuck {
            if let Err(why) = abandon(board, node, &targets[node]) {
                let name = &board.rules().nodes[node];
                log::debug!("watcher node={name} event=still_stuck cause={why:?}");
                targets[node].cut();
                board.leave_stuck(node);
            }
        }
    }
}

/// Replaces the stuck watcher of `node` by a new one with its own connections.
fn abandon<A: Asker>(
    board: &Arc<Board<A>>,
    node: usize,
    target: &Arc<dyn Target>,
) -> Result<(), String> {
    if target.alive() > ABANDONED_AT_MOST {
        return Err(format!("{} watchers have not ended yet", target.alive()));
    }
    let epoch = board.next_epoch(node);
    watch(board, node, epoch, target).map_err(|error| error.to_string())?;
    // Until it has taken over, the old one would be found stuck again.
    board.leave_stuck(node);
    log::warn!(
        "watcher node={} event=abandoned stuck_seconds={:.0}",
        board.rules().nodes[node],
        board.rules().stuck_after.as_secs_f64()
    );
    Ok(())
}

#[cfg(test)]
mod tests;
