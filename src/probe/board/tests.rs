//! The board without a database: whose turn it is and what is answered.

use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;

use super::*;
use crate::pg::lsn::Lsn;
use crate::probe::assessment::PairVerdict;
use crate::probe::node::Replication;
use crate::probe::verdict::Kind;

const WRITE: Trials = Trials {
    write: true,
    login: false,
};

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
    ask_for(board, Ask::Ready(Trials::default()), scope)
}

fn ask_for(board: &Board<Probe>, ask: Ask, scope: Scope) -> Receiver<Verdict> {
    let (sender, receiver) = channel();
    board.ask(Question { ask, scope }, Probe(sender));
    receiver
}

/// Begins the next observation of a lane; it must be due.
fn begin(board: &Board<Probe>, lane: usize, epoch: u64) -> u64 {
    board.begin(lane, epoch).expect("something to do").0
}

fn primary() -> Result<Facts, Failure> {
    Ok(Facts {
        in_recovery: false,
        read_only: false,
        replication: Some(Arc::new(Replication::default())),
    })
}

fn primary_at(lsn: Lsn) -> Result<Facts, Failure> {
    let mut facts = primary()?;
    facts.replication = Some(Arc::new(Replication {
        lsn: Some(lsn),
        ..Replication::default()
    }));
    Ok(facts)
}

fn standby() -> Result<Facts, Failure> {
    Ok(Facts {
        in_recovery: true,
        read_only: true,
        replication: Some(Arc::new(Replication::default())),
    })
}

/// Has a node that was not asked yet tell its role, and then all of it.
fn meet(board: &Board<Probe>, node: usize, outcome: Result<Facts, Failure>) {
    for (depth, outcome) in [
        (Depth::Role, shallow(outcome.clone())),
        (Depth::Replication, outcome),
    ] {
        let (number, what) = board.begin(node, 0).expect("its own");
        assert_eq!(what, What::Observe(depth));
        board.publish(node, 0, number, outcome);
    }
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
    let first = begin(&board, 0, 0);
    let asked = ask(&board, Scope::Pair);
    assert!(board.publish(0, 0, first, primary()));
    assert!(unanswered(&asked), "it rests on an older round trip");

    let second = begin(&board, 0, 0);
    assert!(board.publish(0, 0, second, primary()));
    let verdict = answer(&asked);
    assert!(verdict.ok, "{verdict:?}");
}

#[test]
fn one_observation_settles_everybody_who_waits() {
    let board = board(&["a"]);
    let all: Vec<_> = (0..100).map(|_| ask(&board, Scope::Pair)).collect();
    assert_eq!(board.waiting(), 100);
    let number = begin(&board, 0, 0);
    board.publish(0, 0, number, primary());
    assert!(all.iter().all(|asked| answer(asked).ok));
    assert_eq!(board.waiting(), 0);
}

#[test]
fn a_primary_settles_the_pair_without_the_other_node() {
    let board = board(&["a", "b"]);
    let pair = ask(&board, Scope::Pair);
    let other = ask(&board, Scope::Node(1));
    let number = begin(&board, 0, 0);
    board.publish(0, 0, number, primary());
    assert_eq!(answer(&pair).node, Some(0));
    assert!(unanswered(&other));
    let number = begin(&board, 1, 0);
    board.publish(1, 0, number, standby());
    assert_eq!(answer(&other).reason, Reason::InRecovery);
}

#[test]
fn a_silent_node_is_timed_out_at_the_deadline_and_overdue_at_once_afterwards() {
    let board = board(&["a"]);
    sweeping(&board);
    let first = ask(&board, Scope::Pair);
    let _number = begin(&board, 0, 0);
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
    begin(&board, 0, 0);
    board.note(0, 0, Failure::new(Reason::ShuttingDown, "phrase"));
    assert_eq!(answer(&asked).reason, Reason::ShuttingDown);
    board.close();
}

#[test]
fn a_success_after_the_deadline_is_followed_up_at_once_and_a_timely_one_ends_the_silence() {
    let board = board(&["a"]);
    sweeping(&board);
    let first = ask(&board, Scope::Pair);
    let number = begin(&board, 0, 0);
    assert_eq!(answer(&first).reason, Reason::TimedOut);
    board.publish(0, 0, number, primary());

    let second = ask(&board, Scope::Pair).try_recv().expect("at once");
    assert_eq!(second.reason, Reason::Overdue, "it may be as slow again");
    let number = begin(&board, 0, 0);
    board.publish(0, 0, number, primary());
    let third = ask(&board, Scope::Pair);
    assert!(unanswered(&third), "a fresh observation is waited for");
    let number = begin(&board, 0, 0);
    board.publish(0, 0, number, primary());
    assert!(answer(&third).ok);
    board.close();
}

#[test]
fn a_failure_after_the_deadline_does_not_make_the_next_request_wait() {
    let board = board(&["a"]);
    sweeping(&board);
    let first = ask(&board, Scope::Pair);
    let number = begin(&board, 0, 0);
    assert_eq!(answer(&first).reason, Reason::TimedOut);
    board.publish(0, 0, number, refused());

    let verdict = ask(&board, Scope::Pair).try_recv().expect("at once");
    assert!(!verdict.ok, "{verdict:?}");
    board.close();
}

#[test]
fn after_a_failure_the_next_try_keeps_its_pace() {
    let board = board(&["a"]);
    let number = begin(&board, 0, 0);
    let began = Instant::now();
    board.publish(0, 0, number, refused());
    let asked = ask(&board, Scope::Pair);
    let number = begin(&board, 0, 0);
    assert!(began.elapsed() + Duration::from_millis(5) >= DEADLINE / 4);
    board.publish(0, 0, number, refused());
    assert_eq!(answer(&asked).reason, Reason::Refused);
}

#[test]
fn a_stuck_watcher_is_reported_and_its_words_are_ignored_once_replaced() {
    let board = board(&["a"]);
    let asked = ask(&board, Scope::Pair);
    let old = begin(&board, 0, 0);
    let limit = Instant::now() + SOON;
    while board.sweep().expect("open").is_empty() {
        assert!(Instant::now() < limit, "never reported as stuck");
    }
    assert!(!answer(&asked).ok);

    let epoch = board.next_epoch(0);
    board.take_over(0, epoch);
    assert!(!board.publish(0, 0, old, primary()), "it was replaced");
    assert_eq!(board.begin(0, 0), None);

    let number = begin(&board, 0, epoch);
    assert!(board.publish(0, epoch, number, primary()));
    let asked = ask(&board, Scope::Pair);
    let number = begin(&board, 0, epoch);
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
fn a_question_about_replication_is_not_settled_by_a_shallow_observation() {
    let board = board(&["a"]);
    meet(&board, 0, standby());

    let role = ask(&board, Scope::Pair);
    let (number, what) = board.begin(0, 0).expect("somebody waits");
    assert_eq!(what, What::Observe(Depth::Role));
    let shallow = Facts {
        replication: None,
        ..standby().expect("an answer")
    };
    let deep = ask_for(
        &board,
        Ask::Replica(Kind::Any, Default::default()),
        Scope::Pair,
    );
    board.publish(0, 0, number, Ok(shallow));
    assert_eq!(answer(&role).reason, Reason::InRecovery);
    assert!(unanswered(&deep));

    let (_, what) = board.begin(0, 0).expect("somebody waits");
    assert_eq!(what, What::Observe(Depth::Replication));
}

#[test]
fn a_question_about_replication_is_not_starved_by_shallow_observations() {
    let shallow = |outcome: Result<Facts, Failure>| {
        outcome.map(|facts| Facts {
            replication: None,
            ..facts
        })
    };
    let board = board(&["a", "b"]);
    let asked = ask_for(
        &board,
        Ask::Replica(Kind::Async, Default::default()),
        Scope::Pair,
    );
    let slow = begin(&board, 0, 0);
    let number = begin(&board, 1, 0);
    board.publish(1, 0, number, standby());
    assert!(unanswered(&asked), "the other node counts too");
    let _ready = ask(&board, Scope::Node(1));
    let number = begin(&board, 1, 0);
    board.publish(1, 0, number, shallow(standby()));
    board.publish(0, 0, slow, primary());
    assert!(!unanswered(&asked), "both have told since it was asked");
}

#[test]
fn a_commit_is_tried_where_the_primary_is_and_at_most_once_a_second() {
    let board = board(&["a", "b"]);
    let asked = ask_for(&board, Ask::Ready(WRITE), Scope::Pair);
    let number = begin(&board, 1, 0);
    board.publish(1, 0, number, standby());
    let number = begin(&board, 0, 0);
    board.publish(0, 0, number, primary());
    assert!(unanswered(&asked), "the commit is missing");

    let (number, what) = board.begin(2, 0).expect("a commit is wanted");
    assert_eq!(what, What::Commit);
    board.publish(2, 0, number, primary());
    assert!(answer(&asked).ok);

    // The next one rests on the same commit.
    let asked = ask_for(&board, Ask::Ready(WRITE), Scope::Pair);
    let number = begin(&board, 0, 0);
    board.publish(0, 0, number, primary());
    assert!(answer(&asked).ok);
}

#[test]
fn a_commit_that_hangs_is_write_stalled_and_leaves_ready_alone() {
    let board = board(&["a"]);
    sweeping(&board);
    let number = begin(&board, 0, 0);
    board.publish(0, 0, number, primary());
    let writes = ask_for(&board, Ask::Ready(WRITE), Scope::Pair);
    let reads = ask(&board, Scope::Pair);
    let number = begin(&board, 0, 0);
    begin(&board, 1, 0);
    board.publish(0, 0, number, primary());
    assert!(answer(&reads).ok);
    assert_eq!(answer(&writes).reason, Reason::WriteStalled);
    board.close();
}

#[test]
fn the_report_has_what_changed_newest_first() {
    let board = board(&["a"]);
    assert_eq!(board.report().assessment.verdict.word(), "unknown");
    assert_eq!(board.report().nodes[0].age, None);
    for outcome in [primary(), refused(), primary()] {
        let asked = ask(&board, Scope::Pair);
        let number = begin(&board, 0, 0);
        board.publish(0, 0, number, outcome);
        answer(&asked);
    }
    let report = board.report();
    assert_eq!(report.assessment.verdict.word(), "ok");
    let words: Vec<_> = report
        .transitions
        .iter()
        .map(|it| (it.node, it.from, it.to))
        .collect();
    assert_eq!(
        words,
        [
            (None, Some("no_primary"), "ok"),
            (Some(0), Some("refused"), "ok"),
            (None, Some("ok"), "no_primary"),
            (Some(0), Some("ok"), "refused"),
            (None, None, "ok"),
            (Some(0), None, "ok"),
        ]
    );
    assert!(report.nodes[0].counts.outage > Duration::ZERO);
    assert_eq!(report.nodes[0].counts.failures.get("refused"), Some(&1));
}

#[test]
fn what_is_published_while_the_sweep_waits_for_the_board_is_not_ahead_of_its_clock() {
    let board = board(&["a"]);
    let mut state = board.lock();
    let sweep = thread::spawn({
        let board = Arc::clone(&board);
        move || board.sweep().is_some()
    });
    // Until it waits for the board; too short a pause makes the test miss its
    // point, it does not fail it.
    thread::sleep(Duration::from_millis(20));
    let began = Instant::now();
    let number = board.begun(&mut state, 0, What::Observe(Depth::Replication), began);
    state.lanes[0].under_way = None;
    let seen = Observation {
        began,
        ended: began,
        outcome: primary_at(Lsn(1)),
    };
    state.lanes[0].take_in(number, seen, false, &board.rules);
    let State { lanes, record, .. } = &mut *state;
    record.follow(&[lanes[0].known(began, &board.rules)], began);
    drop(state);
    assert!(sweep.join().expect("it goes on"));
    board.close();
}

fn shallow(outcome: Result<Facts, Failure>) -> Result<Facts, Failure> {
    outcome.map(|facts| Facts {
        replication: None,
        ..facts
    })
}

/// A board with an interval that passes within a test.
fn quick_board(nodes: &[&str]) -> Arc<Board<Probe>> {
    let rules = Rules {
        interval: Duration::from_millis(100),
        ..board(nodes).rules().clone()
    };
    Arc::new(Board::new(rules))
}

#[test]
fn roles_that_are_asked_for_without_pause_do_not_put_off_what_is_asked_about_replication() {
    let board = quick_board(&["a"]);
    let mut deep = Vec::new();
    let limit = Instant::now() + SOON;
    while deep.len() < 5 {
        assert!(Instant::now() < limit, "asked {} times", deep.len());
        let asked = ask(&board, Scope::Pair);
        let (number, what) = board.begin(0, 0).expect("somebody waits");
        let outcome = if what == What::Observe(Depth::Replication) {
            deep.push(Instant::now());
            standby()
        } else {
            shallow(standby())
        };
        board.publish(0, 0, number, outcome);
        answer(&asked);
    }
    // Nor is it asked about more often than the interval says.
    let apart = deep[1].duration_since(deep[0]);
    assert!(
        apart + Duration::from_millis(1) >= board.rules().interval,
        "{apart:?}"
    );
}

#[test]
fn what_was_told_of_replication_is_told_no_more_once_it_is_too_old() {
    let board = quick_board(&["a"]);
    let number = begin(&board, 0, 0);
    board.publish(0, 0, number, standby());
    let known = || board.report().nodes[0].clone();
    assert!(known().replication_age.is_some());
    let limit = Instant::now() + SOON;
    // Somebody keeps asking, and only the role is told.
    while let Some(age) = known().replication_age {
        assert!(
            age <= board.rules().lifetime() && Instant::now() < limit,
            "{age:?}"
        );
        let asked = ask(&board, Scope::Pair);
        let number = begin(&board, 0, 0);
        board.publish(0, 0, number, shallow(standby()));
        answer(&asked);
    }
    let known = known();
    assert!(known.facts.is_some_and(|facts| facts.replication.is_none()));
    assert!(known.age.is_some_and(|age| age < board.rules().lifetime()));
}

#[test]
fn a_node_that_is_not_asked_in_time_is_not_known() {
    let board = quick_board(&["a"]);
    let number = begin(&board, 0, 0);
    board.publish(0, 0, number, primary());
    assert!(board.report().ready.ok);
    let limit = Instant::now() + SOON;
    while board.report().ready.ok {
        assert!(Instant::now() < limit, "{:?}", board.report());
        thread::sleep(Duration::from_millis(5));
    }
    let report = board.report();
    assert_eq!(report.assessment.nodes[0].role, None);
    assert_eq!(report.assessment.verdict, PairVerdict::Unknown);
}

#[test]
fn after_a_failure_or_in_another_role_what_was_told_of_replication_is_over() {
    let told = |board: &Board<Probe>| board.report().nodes[0].replication_age.is_some();
    for between in [refused(), shallow(primary())] {
        let board = board(&["a"]);
        meet(&board, 0, standby());
        assert!(told(&board));
        let _asked = ask(&board, Scope::Pair);
        let number = begin(&board, 0, 0);
        board.publish(0, 0, number, between.clone());
        assert!(!told(&board), "{between:?}");
        if between.is_err() {
            let _asked = ask(&board, Scope::Pair);
            let (number, what) = board.begin(0, 0).expect("somebody waits");
            assert_eq!(what, What::Observe(Depth::Role), "the role stands alone");
            board.publish(0, 0, number, shallow(standby()));
        }
        // Who asks next gets all of it, though that is not due.
        let _asked = ask(&board, Scope::Pair);
        let (_, what) = board.begin(0, 0).expect("somebody waits");
        assert_eq!(what, What::Observe(Depth::Replication), "{between:?}");
    }
}

#[test]
fn a_second_primary_is_a_split_once_the_first_was_asked_again() {
    let board = board(&["a", "b"]);
    let verdict = || board.report().assessment.verdict;
    for (node, outcome) in [(0, primary()), (1, standby())] {
        let number = begin(&board, node, 0);
        board.publish(node, 0, number, outcome);
    }
    let before = verdict();
    let asked = ask_for(&board, Ask::Primary, Scope::Node(1));
    let _role = ask(&board, Scope::Node(1));
    let number = begin(&board, 1, 0);
    board.publish(1, 0, number, primary());
    assert_eq!(verdict(), before, "a was the primary some time ago");
    assert!(unanswered(&asked));

    // Nobody asked for it: it is needed for the verdict.
    let (number, what) = board.begin(0, 0).expect("a is asked again");
    assert_eq!(what, What::Observe(Depth::Replication));
    board.publish(0, 0, number, primary());
    assert_eq!(verdict(), PairVerdict::SplitBrain);
    assert_eq!(answer(&asked).reason, Reason::SplitBrain);
}

#[test]
fn a_switchover_is_never_a_split_nor_without_a_primary_once_the_standby_was_promoted() {
    let board = board(&["a", "b"]);
    for (node, outcome) in [(0, primary()), (1, standby())] {
        let number = begin(&board, node, 0);
        board.publish(node, 0, number, outcome);
    }
    let words = || {
        let report = board.report();
        report
            .transitions
            .iter()
            .filter(|it| it.node.is_none())
            .map(|it| it.to)
            .collect::<Vec<_>>()
    };
    let before = words();
    // b was promoted: a, which was the primary when it was asked last, is gone.
    let _asked = ask(&board, Scope::Node(1));
    let number = begin(&board, 1, 0);
    board.publish(1, 0, number, primary());
    let number = begin(&board, 0, 0);
    board.publish(0, 0, number, refused());
    assert_eq!(board.report().assessment.primary, Some(1));

    // And back: a is promoted while b, which is gone, is asked first.
    let _asked = ask(&board, Scope::Node(0));
    let number = begin(&board, 0, 0);
    board.publish(0, 0, number, standby());
    let _asked = ask(&board, Scope::Node(1));
    let number = begin(&board, 1, 0);
    board.publish(1, 0, number, refused());
    let number = begin(&board, 0, 0);
    board.publish(0, 0, number, primary());
    assert_eq!(board.report().assessment.primary, Some(0));
    let after = words();
    let new = &after[..after.len() - before.len()];
    assert!(
        !new.contains(&"split_brain") && !new.contains(&"no_primary"),
        "{new:?}"
    );
}

#[test]
fn while_nobody_is_primary_those_that_answer_are_asked_without_being_asked_for() {
    let board = board(&["a", "b"]);
    let number = begin(&board, 0, 0);
    board.publish(0, 0, number, refused());
    meet(&board, 1, standby());
    assert_eq!(board.report().assessment.verdict, PairVerdict::NoPrimary);
    let began = Instant::now();
    let (number, what) = board.begin(1, 0).expect("its own");
    assert!(began.elapsed() < SOON, "the interval is an hour");
    assert_eq!(what, What::Observe(Depth::Role));
    board.publish(1, 0, number, shallow(primary()));
    assert_eq!(board.report().assessment.primary, Some(1));
}

#[test]
fn a_new_login_counts_where_that_is_asked_for() {
    let login = Ask::Ready(Trials {
        login: true,
        write: false,
    });
    let board = board(&["a"]);
    let login_is_due = || board.next(&board.lock(), 2, Instant::now() + SOON).is_ok();
    assert!(!login_is_due(), "the node has not answered yet");
    meet(&board, 0, primary());
    assert!(login_is_due());
    for (outcome, expected) in [(standby(), Reason::Ok), (refused(), Reason::Refused)] {
        let number = begin(&board, 2, 0);
        board.publish(2, 0, number, outcome);
        let asked = [
            ask_for(&board, login, Scope::Pair),
            ask(&board, Scope::Pair),
        ];
        let number = begin(&board, 0, 0);
        board.publish(0, 0, number, primary());
        let [with, without] = asked.map(|it| answer(&it));
        assert_eq!(with.reason, expected);
        assert!(without.ok);
        assert_eq!(
            board.report().nodes[0].login.map(|it| it.reason),
            Some(expected)
        );
        // The next one is tried only after a while.
        board.lock().lanes[2].due = Instant::now();
        board.lock().lanes[2].take_over(0, Instant::now());
    }
}
