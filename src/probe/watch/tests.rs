//! Watchers that get stuck, without a database.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use super::*;
use crate::probe::board::Rules;
use crate::probe::verdict::{Ask, Policy, Question, Scope, Trials, Verdict};

struct Client(Sender<Verdict>);

impl Asker for Client {
    fn settle(self, verdict: Verdict) {
        let _ = self.0.send(verdict);
    }
}

/// A server whose first `stuck` connections never answer until they are freed;
/// `cut` frees them only if it may.
struct Frozen {
    stuck: usize,
    cut_frees: bool,
    made: AtomicUsize,
    alive: Arc<AtomicUsize>,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

struct Connection {
    stuck: bool,
    alive: Arc<AtomicUsize>,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl Observer for Connection {
    fn observe(&mut self, _: What, _: &mut dyn FnMut(Failure)) -> Result<Facts, Failure> {
        if self.stuck {
            let mut free = self.gate.0.lock().expect("not poisoned");
            while !*free {
                free = self.gate.1.wait(free).expect("not poisoned");
            }
        }
        Ok(Facts {
            in_recovery: false,
            read_only: false,
            replication: Some(Arc::default()),
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Frozen {
    fn free(&self) {
        *self.gate.0.lock().expect("not poisoned") = true;
        self.gate.1.notify_all();
    }
}

impl Target for Frozen {
    fn observer(&self) -> Box<dyn Observer> {
        self.alive.fetch_add(1, Ordering::SeqCst);
        Box::new(Connection {
            stuck: self.made.fetch_add(1, Ordering::SeqCst) < self.stuck,
            alive: Arc::clone(&self.alive),
            gate: Arc::clone(&self.gate),
        })
    }

    fn alive(&self) -> usize {
        self.alive.load(Ordering::SeqCst)
    }

    fn cut(&self) {
        if self.cut_frees {
            self.free();
        }
    }
}

fn watched(stuck: usize, cut_frees: bool) -> (Arc<Board<Client>>, Arc<Frozen>) {
    let board = Arc::new(Board::new(Rules {
        nodes: ["a".to_owned()].into(),
        policy: Policy::Primary,
        deadline: Duration::from_millis(20),
        interval: Duration::from_millis(10),
        stuck_after: Duration::from_millis(60),
    }));
    let target = Arc::new(Frozen {
        stuck,
        cut_frees,
        made: AtomicUsize::new(0),
        alive: Arc::new(AtomicUsize::new(0)),
        gate: Arc::new((Mutex::new(false), Condvar::new())),
    });
    let commits = Arc::new(Frozen {
        stuck: 0,
        cut_frees: false,
        made: AtomicUsize::new(0),
        alive: Arc::new(AtomicUsize::new(0)),
        gate: Arc::clone(&target.gate),
    });
    let lanes: Vec<Arc<dyn Target>> = vec![Arc::clone(&target) as Arc<dyn Target>, commits];
    start(&board, lanes).expect("threads start");
    (board, target)
}

fn ready(board: &Board<Client>) -> bool {
    let (sender, receiver): (_, Receiver<Verdict>) = channel();
    let question = Question {
        ask: Ask::Ready(Trials::default()),
        scope: Scope::Pair,
    };
    board.ask(question, Client(sender));
    let verdict = receiver.recv_timeout(Duration::from_secs(5));
    verdict.expect("an answer in any case").ok
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < limit, "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_stuck_watcher_is_abandoned_and_its_successor_answers() {
    let (board, target) = watched(1, false);
    eventually("ready again", || ready(&board));
    assert_eq!(target.made.load(Ordering::SeqCst), 2);
    assert_eq!(target.alive(), 2, "the abandoned one is still stuck");
    target.free();
    eventually("the abandoned one ends", || target.alive() == 1);
    board.close();
}

#[test]
fn abandoned_watchers_are_few_however_long_the_server_is_frozen() {
    let (board, target) = watched(usize::MAX, false);
    let full = MAX_ABANDONED + 1;
    eventually("as many as allowed", || target.alive() == full);
    for _ in 0..20 {
        assert!(!ready(&board));
        std::thread::sleep(Duration::from_millis(10));
        assert!(target.alive() <= full, "{}", target.alive());
    }
    target.free();
    eventually("ready again", || ready(&board));
    eventually("one is left", || target.alive() == 1);
    board.close();
}

#[test]
fn cutting_the_connection_leaves_one_watcher() {
    let (board, target) = watched(1, true);
    eventually("ready again", || ready(&board));
    eventually("one is left", || target.alive() == 1);
    board.close();
    eventually("none is left", || target.alive() == 0);
}
