//! The fault matrix: what the probe says while PostgreSQL is in trouble, how
//! fast, and how soon it is well again.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::load::{self, Load, Sample};
use crate::support::postgres::conninfo;
use crate::support::{Pair, Postgres, Probe, eventually, measured, ms, percentile};

/// What may be said about a server that is gone. Which one depends on how far
/// its going had come.
const GONE: [&str; 3] = ["refused", "shutting_down", "unresolved"];

/// An answer about a node that is known to be overdue comes at once.
const AT_ONCE: Duration = ms(5);

/// The number of requests a second that must not change anything.
const BUSY: u32 = 1_000;

/// tiny_http's threads wait 5 s for another connection before they end.
const THREADS_LINGER: Duration = Duration::from_secs(10);

/// One longer than a watcher may be stuck before it is abandoned (10 s).
const LONGER_THAN_STUCK: Duration = Duration::from_secs(12);

#[test]
fn killed_primary_is_not_ready_on_the_very_next_request_and_ready_once_it_is_back() {
    let primary = Postgres::start();
    let probe = Probe::watching(&primary);
    let _health = probe.watch_health();

    primary.kill();
    probe.is_not_ready(&GONE);

    primary.start_again();
    probe.becomes_ready();
    assert_eq!(primary.pgpair_backends().len(), 1);
}

#[test]
fn stopped_primary_is_not_ready_on_the_very_next_request_and_ready_once_it_is_back() {
    let primary = Postgres::start();
    let probe = Probe::watching(&primary);
    let _health = probe.watch_health();

    primary.stop();
    probe.is_not_ready(&GONE);

    primary.start_again();
    probe.becomes_ready();
    assert_eq!(primary.pgpair_backends().len(), 1);
}

#[test]
fn primary_that_stays_away_is_never_ready_and_recovers_all_the_same() {
    let primary = Postgres::start();
    let probe = Probe::watching(&primary);
    primary.kill();
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        assert_eq!(probe.ready().status, 503);
    }
    primary.start_again();
    probe.becomes_ready();
}

#[test]
fn no_request_sent_after_a_kill_is_answered_200() {
    let primary = Postgres::start();
    let probe = Probe::watching(&primary);
    assert_nothing_after_is_200(&probe, || primary.kill());
    primary.start_again();
    probe.becomes_ready();
}

#[test]
fn no_request_sent_after_a_pause_is_answered_200() {
    let primary = Postgres::start();
    let probe = Probe::watching(&primary);
    assert_nothing_after_is_200(&probe, || primary.pause());
    primary.unpause();
    probe.becomes_ready();
}

fn assert_nothing_after_is_200(probe: &Probe, fault: impl FnOnce()) {
    let load = Load::start(probe.address, "/ready", 500, 8);
    thread::sleep(ms(300));
    fault();
    let dead_since = Instant::now();
    // Who asked before may wait for the deadline; then they ask again.
    thread::sleep(probe.deadline * 2);
    let samples = load.finish();
    let (before, after): (Vec<Sample>, Vec<Sample>) = samples
        .into_iter()
        .partition(|sample| sample.sent < dead_since);
    assert!(load::answers(&before).any(|answer| answer.status == 200));
    for answer in load::answers(&after) {
        probe.check_verdict(answer);
        assert_eq!(
            answer.status, 503,
            "the server was dead by then: {answer:?}"
        );
    }
}

#[test]
fn frozen_primary_is_timed_out_at_the_deadline() {
    let primary = Postgres::start();
    // No observation of its own, so that the request is the first to wait.
    let probe = Probe::of(primary.conninfo()).with("interval", "1h").start();
    probe.becomes_ready();

    primary.pause();
    let first = probe.is_not_ready(&["timed_out"]);
    assert!(
        first.took >= probe.deadline - ms(10),
        "gave up early: {first:?}"
    );

    primary.unpause();
    probe.becomes_ready();
}

#[test]
fn frozen_primary_is_overdue_at_once_under_load_for_longer_than_a_watcher_lives() {
    let primary = Postgres::start();
    let probe = Probe::watching(&primary);
    let health = probe.watch_health();
    let threads = probe.threads();

    primary.pause();
    let paused = Instant::now();
    probe.becomes_not_ready("overdue");
    let samples = measured(
        || Load::during(probe.address, "/ready", BUSY, 16, Duration::from_secs(2)),
        |samples| load::p99(samples) < AT_ONCE,
    );
    assert_all_overdue(&samples);
    assert!(
        load::p99(&samples) < AT_ONCE,
        "took {:?} at p99",
        load::p99(&samples)
    );

    let rest = LONGER_THAN_STUCK.saturating_sub(paused.elapsed());
    let samples = Load::during(probe.address, "/ready", 100, 4, rest);
    assert_all_overdue(&samples);
    // Ten seconds cannot be taken again, and the machine is not alone.
    let most = percentile(load::answers(&samples).map(|answer| answer.took), 0.9);
    assert!(most < AT_ONCE, "took {most:?} at p90");
    assert!(
        probe.log().contains("event=abandoned"),
        "a watcher was stuck for over 10 s"
    );

    primary.unpause();
    probe.becomes_ready();
    drop(health);
    eventually(Duration::from_secs(2), "one connection is left", || {
        (primary.pgpair_backends().len() == 1).then_some(())
    });
    eventually(THREADS_LINGER, "no thread is left behind", || {
        (probe.threads() <= threads).then_some(())
    });
}

fn assert_all_overdue(samples: &[Sample]) {
    for answer in load::answers(samples) {
        assert_eq!((answer.status, answer.reason().as_str()), (503, "overdue"));
    }
}

#[test]
fn frozen_backend_is_left_behind_and_the_primary_ready_again_within_15_s() {
    let primary = Postgres::start();
    let probe = Probe::watching(&primary);
    let _health = probe.watch_health();
    let backend = primary.pgpair_backend();

    primary.freeze_backend(backend);
    probe.is_not_ready(&["timed_out", "overdue"]);
    probe.becomes_not_ready("overdue");
    probe.becomes_ready_within(Duration::from_secs(15));

    assert!(
        primary.is_frozen(backend),
        "it was ready because of another backend"
    );
    assert!(primary.pgpair_backends().len() <= 2);
    primary.thaw_backend(backend);
    eventually(
        Duration::from_secs(2),
        "the abandoned connection ends",
        || (primary.pgpair_backends().len() == 1).then_some(()),
    );
}

#[test]
fn server_in_crash_recovery_is_starting_and_ready_when_that_ends() {
    let primary = Postgres::start();
    let probe = Probe::watching(&primary);
    let _health = probe.watch_health();

    primary.hold_in_recovery();
    probe.becomes_not_ready("starting");
    probe.is_not_ready(&["starting"]);

    primary.let_recovery_end();
    primary.wait_until_up();
    probe.becomes_ready();
}

#[test]
fn standby_that_lets_nobody_in_is_starting() {
    let primary = Postgres::start();
    let standby = Postgres::closed_standby_of(&primary);
    let probe = Probe::of(standby.conninfo()).start();
    let _health = probe.watch_health();
    probe.becomes_not_ready("starting");
}

#[test]
fn standby_promoted_while_the_primary_is_down_is_ready_without_a_restart() {
    let pair = Pair::start();
    let probe = Probe::of(pair.conninfo()).start();
    probe.becomes_ready();
    let _health = probe.watch_health();
    assert_eq!(probe.ready().json()["node"], pair.primary.name());

    pair.primary.kill();
    probe.is_not_ready(&GONE);

    pair.standby.promote();
    probe.becomes_ready();
    assert_eq!(probe.ready().json()["node"], pair.standby.name());
    assert_eq!(pair.standby.pgpair_backends().len(), 1);
}

#[test]
fn frozen_standby_does_not_hold_up_what_the_primary_answers() {
    let pair = Pair::start();
    let probe = Probe::of(pair.conninfo()).start();
    probe.becomes_ready();

    pair.standby.pause();
    thread::sleep(probe.deadline);
    let samples = measured(
        || Load::during(probe.address, "/ready", 200, 4, ms(500)),
        |samples| load::p99(samples) < ms(50),
    );
    assert!(load::answers(&samples).all(|answer| answer.status == 200));
    assert!(load::p99(&samples) < ms(50));
    pair.standby.unpause();
}

#[test]
fn pair_without_a_primary_says_so() {
    let primary = Postgres::start();
    let one = Postgres::standby_of(&primary, &[]);
    let two = Postgres::standby_of(&primary, &[]);
    let probe = Probe::of(conninfo(&[&one, &two])).start();
    probe.is_not_ready(&["no_primary"]);
    assert_eq!(
        Probe::of(one.conninfo()).start().ready().reason(),
        "in_recovery"
    );
}

#[test]
fn read_only_primary_is_not_ready_until_it_takes_writes_again() {
    let primary = Postgres::start();
    primary.sql("ALTER ROLE pgpair SET default_transaction_read_only = on");
    let probe = Probe::of(primary.conninfo()).start();
    probe.is_not_ready(&["read_only"]);
}

#[test]
fn container_that_comes_back_at_another_address_is_followed_by_name() {
    let primary = Postgres::start();
    let probe = Probe::of(primary.conninfo_by_name()).start_in_container();
    probe.becomes_ready();
    let _health = probe.watch_health();

    primary.kill();
    probe.is_not_ready(&GONE);
    probe.becomes_not_ready("unresolved");

    let before = primary.address();
    let primary = primary.move_to_another_address();
    assert_ne!(primary.address(), before);
    probe.becomes_ready();
    assert_eq!(primary.pgpair_backends().len(), 1);
}

#[test]
fn name_that_does_not_resolve_is_unresolved() {
    let probe = Probe::of("host=no-such-host.invalid user=pgpair").start_in_container();
    probe.is_not_ready(&["unresolved"]);
}
