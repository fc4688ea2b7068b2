//! The board without a database: whose turn it is and what is answered.

use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;

use super::*;

const DEADLINE: Duration = Duration::from_millis(80);

/// Generous for a busy machine; nothing waits that long unless it is broken.
const SOON: Duration = Duration::from_secs(5);

struct Probe(Sender<Verdict>);

impl Asker for Probe {
    fn settle(self, verdict: Verdict) {
        let _ = self.0.send(verdict);
    }
}

fn board(nodes: &[&str]) -> Arc<Board<Probe>> {
    Arc::new(Board::new(Rules {
        nodes: nodes.iter().map(|name| (*name).to_owned()).collect(),
        policy: Policy::Primary,
        deadline: DEADLINE,
        interval: Duration::from_secs(3600),
        stuck_after: DEADLINE * 3,
    }))
}

fn ask(board: &Board<Probe>, scope: Scope) -> Receiver<Verdict> {
    let (sender, receiver) = channel();
    board.ask(scope, Probe(sender));
    receiver
}

fn primary() -> Result<Facts, Failure> {
    Ok(Facts {
        in_recovery: false,
        read_only: false,
    })
}

fn standby() -> Result<Facts, Failure> {
    Ok(Facts {
        in_recovery: true,
        read_only: true,
    })
}

fn refused() -> Result<Facts, Failure> {
    Err(Failure::new(Reason::Refused, "phrase"))
}

fn unanswered(receiver: &Receiver<Verdict>) -> bool {
    receiver.try_recv() == Err(TryRecvError::Empty)
}

fn answer(receiver: &Receiver<Verdict>) -> Verdict {
    receiver.recv_timeout(SOON).expect("an answer")
}

/// Sweeps on a thread of its own until the board is closed.
fn sweeping(board: &Arc<Board<Probe>>) {
    let board = Arc::clone(board);
    thread::spawn(move || while board.sweep().is_some() {});
}

#[test]
fn an_observation_that_began_before_the_request_does_not_settle_it() {
    let board = board(&["a"]);
    let first = board.begin(0, 0).expect("the first is due");
    let asked = ask(&board, Scope::Pair);
    assert!(board.publish(0, 0, first, primary()));
    assert!(unanswered(&asked), "it rests on an older round trip");

    let second = board.begin(0, 0).expect("somebody waits");
    assert!(board.publish(0, 0, second, primary()));
    let verdict = answer(&asked);
    assert!(verdict.ok, "{verdict:?}");
}

#[test]
fn one_observation_settles_everybody_who_waits() {
    let board = board(&["a"]);
    let all: Vec<_> = (0..100).map(|_| ask(&board, Scope::Pair)).collect();
    assert_eq!(board.waiting(), 100);
    let number = board.begin(0, 0).expect("somebody waits");
    board.publish(0, 0, number, primary());
    assert!(all.iter().all(|asked| answer(asked).ok));
    assert_eq!(board.waiting(), 0);
}

#[test]
fn a_primary_settles_the_pair_without_the_other_node() {
    let board = board(&["a", "b"]);
    let pair = ask(&board, Scope::Pair);
    let other = ask(&board, Scope::Node(1));
    let number = board.begin(0, 0).expect("somebody waits");
    board.publish(0, 0, number, primary());
    assert_eq!(answer(&pair).node, Some(0));
    assert!(unanswered(&other));
    let number = board.begin(1, 0).expect("somebody waits");
    board.publish(1, 0, number, standby());
    assert_eq!(answer(&other).reason, Reason::InRecovery);
}

#[test]
fn a_silent_node_is_timed_out_at_the_deadline_and_overdue_at_once_afterwards() {
    let board = board(&["a"]);
    sweeping(&board);
    let first = ask(&board, Scope::Pair);
    let _number = board.begin(0, 0).expect("somebody waits");
    let asked = Instant::now();
    assert_eq!(answer(&first).reason, Reason::TimedOut);
    assert!(asked.elapsed() + Duration::from_millis(5) >= DEADLINE);

    let verdict = ask(&board, Scope::Pair).try_recv().expect("at once");
    assert_eq!(verdict.reason, Reason::Overdue);
    board.close();
}

#[test]
fn what_went_wrong_so_far_is_the_reason_when_the_rest_is_late() {
    let board = board(&["a"]);
    sweeping(&board);
    let asked = ask(&board, Scope::Pair);
    board.begin(0, 0).expect("somebody waits");
    board.note(0, 0, Failure::new(Reason::ShuttingDown, "phrase"));
    assert_eq!(answer(&asked).reason, Reason::ShuttingDown);
    board.close();
}

#[test]
fn a_success_after_the_deadline_ends_the_silence() {
    let board = board(&["a"]);
    sweeping(&board);
    let first = ask(&board, Scope::Pair);
    let number = board.begin(0, 0).expect("somebody waits");
    assert_eq!(answer(&first).reason, Reason::TimedOut);
    board.publish(0, 0, number, primary());

    let second = ask(&board, Scope::Pair);
    assert!(unanswered(&second), "a fresh observation is waited for");
    let number = board.begin(0, 0).expect("somebody waits");
    board.publish(0, 0, number, primary());
    assert!(answer(&second).ok);
    board.close();
}

#[test]
fn a_failure_after_the_deadline_does_not_make_the_next_request_wait() {
    let board = board(&["a"]);
    sweeping(&board);
    let first = ask(&board, Scope::Pair);
    let number = board.begin(0, 0).expect("somebody waits");
    assert_eq!(answer(&first).reason, Reason::TimedOut);
    board.publish(0, 0, number, refused());

    let verdict = ask(&board, Scope::Pair).try_recv().expect("at once");
    assert!(!verdict.ok, "{verdict:?}");
    board.close();
}

#[test]
fn after_a_failure_the_next_try_keeps_its_pace() {
    let board = board(&["a"]);
    let number = board.begin(0, 0).expect("the first is due");
    let began = Instant::now();
    board.publish(0, 0, number, refused());
    let asked = ask(&board, Scope::Pair);
    let number = board.begin(0, 0).expect("somebody waits");
    assert!(began.elapsed() + Duration::from_millis(5) >= DEADLINE / 4);
    board.publish(0, 0, number, refused());
    assert_eq!(answer(&asked).reason, Reason::Refused);
}

#[test]
fn a_stuck_watcher_is_reported_and_its_words_are_ignored_once_replaced() {
    let board = board(&["a"]);
    let asked = ask(&board, Scope::Pair);
    let old = board.begin(0, 0).expect("somebody waits");
    let limit = Instant::now() + SOON;
    while board.sweep().expect("open").is_empty() {
        assert!(Instant::now() < limit, "never reported as stuck");
    }
    assert!(!answer(&asked).ok);

    let epoch = board.next_epoch(0);
    board.take_over(0, epoch);
    assert!(!board.publish(0, 0, old, primary()), "it was replaced");
    assert_eq!(board.begin(0, 0), None);

    let number = board.begin(0, epoch).expect("due at once");
    assert!(board.publish(0, epoch, number, primary()));
    let asked = ask(&board, Scope::Pair);
    let number = board.begin(0, epoch).expect("somebody waits");
    board.publish(0, epoch, number, primary());
    assert!(answer(&asked).ok);
}

#[test]
fn a_closed_board_answers_draining_and_ends_its_watchers() {
    let board = board(&["a"]);
    let before = ask(&board, Scope::Pair);
    board.close();
    assert_eq!(answer(&before).reason, Reason::Draining);
    assert_eq!(answer(&ask(&board, Scope::Pair)).reason, Reason::Draining);
    assert_eq!(board.begin(0, 0), None);
    assert!(board.sweep().is_none());
}

#[test]
fn the_pulse_shows_that_the_sweep_comes_round() {
    let board = board(&["a"]);
    assert!(board.turns());
    board.pulse_ms.store(0, Ordering::Relaxed);
    let stopped = Board::<Probe> {
        made: Instant::now() - PULSE_LIMIT,
        ..Arc::into_inner(board).expect("the only owner")
    };
    assert!(!stopped.turns());
}

#[test]
fn log_lines_quote_what_may_hold_spaces() {
    let failure = Failure::new(Reason::Error, "a \"phrase\"").with_cause("a: b\nc");
    assert_eq!(
        node_line("a", Reason::Error, None, Some(&failure)),
        "node node=a reason=error detail=\"a \\\"phrase\\\"\" cause=\"a: b\\nc\""
    );
    assert_eq!(
        node_line("a", Reason::Ok, Some("primary"), None),
        "node node=a reason=ok role=primary"
    );
}
