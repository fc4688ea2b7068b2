//! The fault matrix: what the probe says while PostgreSQL is in trouble, how
//! fast, and how soon it is well again.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::load::{self, Load, Sample};
use crate::support::postgres::conninfo;
use crate::support::probe::RECOVERY;
use crate::support::proxy::Proxy;
use crate::support::trial::{ALONE, AT_ONCE, BOTH, GONE, SILENT, Says};
use crate::support::{Pair, Postgres, Probe, Trial, eventually, measured, ms, percentile};

/// The number of requests a second that must not change anything.
const BUSY: u32 = 1_000;

/// tiny_http's threads wait 5 s for another connection before they end.
const THREADS_LINGER: Duration = Duration::from_secs(10);

/// One longer than a watcher may be stuck before it is abandoned (10 s).
const LONGER_THAN_STUCK: Duration = Duration::from_secs(12);

// Rows 1 and 2: the server goes, and comes back.

#[test]
fn killed_primary_is_not_ready_on_the_very_next_request_and_ready_once_it_is_back() {
    let primary = Postgres::start();
    let probe = Probe::watching(&primary);
    let mut trial = Trial::of(&probe, &[&primary], ALONE);
    let fault = primary.killed();
    trial.flips(&fault, Says::alone(GONE));
    trial.recovers(fault);
}

#[test]
fn stopped_primary_is_not_ready_on_the_very_next_request_and_ready_once_it_is_back() {
    let primary = Postgres::start();
    let probe = Probe::watching(&primary);
    let mut trial = Trial::of(&probe, &[&primary], ALONE);
    let fault = primary.stopped();
    trial.flips(&fault, Says::alone(GONE));
    trial.recovers(fault);
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
fn every_process_frozen_by_a_signal_is_overdue_at_once_and_well_when_thawed() {
    let primary = Postgres::start();
    let probe = Probe::watching(&primary);
    let mut trial = Trial::of(&probe, &[&primary], ALONE);
    let fault = primary.frozen();
    trial.flips(&fault, Says::alone(SILENT));
    trial.is_overdue_at_once();
    trial.recovers(fault);
}

// Row 4.

#[test]
fn frozen_backend_is_left_behind_and_the_primary_ready_again_within_15_s() {
    let primary = Postgres::start();
    let probe = Probe::watching(&primary);
    let backend = primary.pgpair_backend();
    let mut trial = Trial::of(&probe, &[&primary], ALONE);
    let fault = primary.backend_frozen(backend);
    trial.flips(&fault, Says::alone(SILENT));
    trial.is_overdue_at_once();
    trial.is_well_within(Duration::from_secs(15), fault.since);
    assert!(
        primary.is_frozen(backend),
        "it was well because of another backend"
    );
    trial.counts_connections();
    trial.recovers(fault);
}

// Row 11: nothing is broken, and yet nothing is answered.

#[test]
fn lock_on_a_catalogue_is_a_silent_server_and_piles_nothing_up() {
    let (open, shut) = (Postgres::start(), Postgres::start());
    let (open_probe, shut_probe) = (Probe::watching(&open), Probe::watching(&shut));
    let mut open_trial = Trial::of(&open_probe, &[&open], ALONE);
    let mut shut_trial = Trial::of(&shut_probe, &[&shut], ALONE);
    // The second lets nobody log in either.
    let open_fault = open.locked("pg_settings");
    let shut_fault = shut.locked("pg_authid, pg_proc, pg_settings");
    // Known to the next observation that reads them, which is a second away.
    let within = Duration::from_secs(2);
    open_trial.flips_within(within, &open_fault, Says::alone(SILENT));
    shut_trial.flips_within(within, &shut_fault, Says::alone(SILENT));
    open_trial.is_overdue_at_once();
    shut_trial.is_overdue_at_once();
    // Two watchers are abandoned, one after the other.
    open_trial.holds(Says::alone(SILENT), LONGER_THAN_STUCK * 2);
    shut_trial.says(Says::alone(SILENT));
    open_trial.counts_connections();
    open_trial.recovers(open_fault);
    shut_trial.recovers(shut_fault);
}

#[test]
fn slow_query_is_a_silent_server_until_it_is_fast_again() {
    let primary = Postgres::start();
    let proxy = Proxy::before(&primary);
    let probe = Probe::of(proxy.conninfo("disable")).start();
    let mut trial = Trial::of(&probe, &[&primary], ALONE);
    let fault = proxy.slow();
    trial.flips(&fault, Says::alone(SILENT));
    // An answer comes now and then, and always too late.
    trial.is_overdue_at_once();
    let samples = Load::during(probe.address, "/ready", 100, 4, Duration::from_secs(10));
    assert_all_overdue(&samples);
    trial.counts_connections();
    trial.recovers(fault);
}

// Row 10.

#[test]
fn server_in_crash_recovery_is_starting_and_ready_when_that_ends() {
    let primary = Postgres::start();
    let probe = Probe::watching(&primary);
    let mut trial = Trial::of(&probe, &[&primary], ALONE);
    let fault = primary.held_in_recovery();
    // How far the restart has come is the machine's affair.
    probe.becomes_not_ready("starting");
    trial.flips(&fault, Says::alone(&["starting"]));
    trial.holds(Says::alone(&["starting"]), ms(500));
    trial.recovers(fault);
}

#[test]
fn standby_that_will_let_nobody_in_is_told_from_one_that_is_starting() {
    let primary = Postgres::start();
    let standby = Postgres::closed_standby_of(&primary);
    let probe = Probe::of(standby.conninfo()).start();
    let _health = probe.watch_health();
    // Nobody listens there at first.
    eventually(ms(20_000), "it is told that this will not pass", || {
        let answer = probe.ready().json();
        let detail = answer["detail"].as_str().unwrap_or_default();
        (answer["reason"] == "refused" && detail.contains("hot_standby")).then_some(())
    });
}

// Row 17.

#[test]
fn standby_promoted_while_the_primary_is_down_is_ready_without_a_restart() {
    let pair = Pair::start();
    let probe = Probe::of(pair.conninfo()).start();
    probe.becomes_ready();
    assert_eq!(probe.ready().json()["node"], pair.primary.name());
    let mut trial = Trial::of(&probe, &[&pair.primary, &pair.standby], BOTH);

    let fault = pair.primary.killed();
    let streamed = &["ok", "not_streaming"];
    trial.flips(&fault, Says([GONE, GONE, streamed]));
    pair.standby.promote();
    trial.nodes_are_now(&[&pair.standby]);
    let promoted = Instant::now();
    trial.well_is_now(Says([
        &["ok"],
        &["ok"],
        &["timed_out", "overdue", "refused"],
    ]));
    trial.is_well_within(RECOVERY, promoted);
    assert_eq!(probe.ready().json()["node"], pair.standby.name());
    drop(trial);
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
    let probe = Probe::watching(&primary);
    primary.set("default_transaction_read_only", "on");
    probe.becomes_not_ready("read_only");
    primary.set("default_transaction_read_only", "off");
    probe.becomes_ready();
}
