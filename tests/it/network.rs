//! The fault matrix, the network's side: packets that vanish, servers that
//! accept and do not answer or answer nonsense, names that move.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::docker::this_run;
use crate::support::load::{self, Load};
use crate::support::probe::RECOVERY;
use crate::support::proxy::{Does, Proxy};
use crate::support::tls::Authority;
use crate::support::trial::{ALONE, GONE, Holding, SILENT, Says, Words};
use crate::support::{PASSWORD, Postgres, Probe, Trial, eventually, ms, names, seconds_by};

/// A watcher that is stuck for 10 s is abandoned; the next needs a moment.
const WITHOUT_THE_STUCK: Duration = Duration::from_secs(15);

/// How long the network is a black hole, in seconds, unless the environment says
/// otherwise: four watchers are abandoned one after the other.
const FOUR_WATCHERS: u64 = 47;

/// How many threads and descriptors a black hole may cost: those of the three
/// watchers that may remain, two threads and a few descriptors each.
const COST_AT_MOST: usize = 12;

/// What may be said where a connection was reset and the next login stalls.
const STALLED: Words = &["refused", "timed_out", "overdue"];

// Row 5: packets are dropped, both ways.

#[test]
fn black_hole_costs_a_bounded_number_of_threads_and_descriptors() {
    let seconds = seconds_by("PGPAIR_TEST_BLACK_HOLE_SECONDS", FOUR_WATCHERS);
    let (dark, deaf) = (Postgres::start(), Postgres::start());
    let proxy = Proxy::before(&deaf);
    let dark_probe = Probe::watching(&dark);
    let deaf_probe = Probe::of(proxy.conninfo("disable")).start();
    let mut dark_trial = Trial::of(&dark_probe, &[&dark], ALONE);
    let mut deaf_trial = Trial::of(&deaf_probe, &[&deaf], ALONE);

    let dark_fault = dark.black_holed();
    let deaf_fault = proxy.starts_to(Does::Stalls);
    dark_trial.flips(&dark_fault, Says::alone(SILENT));
    deaf_trial.flips(&deaf_fault, Says::alone(STALLED));
    dark_trial.is_told_at_once(SILENT);
    deaf_trial.is_told_at_once(STALLED);
    let begin = Instant::now();
    let loads = [&dark_probe, &deaf_probe].map(|it| Load::start(it.address, "/ready", 20, 2));
    let middle = Duration::from_secs(seconds) / 2;
    thread::sleep(middle);
    let half = Instant::now();
    thread::sleep(middle);
    for samples in loads.map(Load::finish) {
        for answer in load::answers(&samples) {
            assert_eq!(answer.status, 503, "{answer:?}");
        }
    }
    for (trial, probe) in [(&dark_trial, &dark_probe), (&deaf_trial, &deaf_probe)] {
        assert_bounded(&trial.held_since(begin), &trial.held_since(half));
        println!(
            "figures of a black hole of {seconds} s: abandoned={} {:?}",
            abandoned(probe),
            most(&trial.held_since(begin))
        );
    }
    let least = seconds / 12;
    assert!(abandoned(&deaf_probe) >= least, "{}", deaf_probe.log());
    dark_trial.counts_connections();
    dark_trial.recovers(dark_fault);
    deaf_trial.recovers_within(WITHOUT_THE_STUCK, deaf_fault);
}

/// Counts the watchers that were abandoned.
fn abandoned(probe: &Probe) -> u64 {
    let told = probe.log().matches("event=abandoned").count();
    u64::try_from(told).expect("few")
}

/// The most threads and descriptors that were held.
fn most(held: &[Holding]) -> (usize, usize) {
    let threads = held.iter().map(|it| it.threads.values().sum());
    let descriptors = held.iter().map(|it| it.descriptors);
    (threads.max().unwrap_or(0), descriptors.max().unwrap_or(0))
}

/// No more was held in the second half than in all, and never much.
fn assert_bounded(all: &[Holding], later: &[Holding]) {
    let (first, whole, half) = (most(&all[..1]), most(all), most(later));
    assert!(
        whole.0 <= first.0 + COST_AT_MOST && whole.1 <= first.1 + COST_AT_MOST,
        "{first:?} became {whole:?}"
    );
    assert!(
        half.0 <= whole.0 && half.1 <= whole.1,
        "{whole:?} became {half:?}"
    );
}

#[test]
fn black_hole_of_some_seconds_is_over_when_it_is_over() {
    let primary = Postgres::start();
    let probe = Probe::watching(&primary);
    let mut trial = Trial::of(&probe, &[&primary], ALONE);
    // Between two of TCP's own attempts, which grow ever rarer.
    for lasting in [ms(1_200), ms(7_000)] {
        let fault = primary.black_holed();
        trial.flips(&fault, Says::alone(SILENT));
        trial.holds(
            Says::alone(SILENT),
            lasting.saturating_sub(fault.since.elapsed()),
        );
        trial.recovers(fault);
    }
}

#[test]
fn server_whose_network_is_gone_is_silent_and_well_when_it_is_back() {
    let primary = Postgres::start();
    let probe = Probe::watching(&primary);
    let mut trial = Trial::of(&probe, &[&primary], ALONE);
    let fault = primary.unplugged();
    trial.flips(&fault, Says::alone(SILENT));
    trial.is_overdue_at_once();
    trial.recovers(fault);
}

// Row 6: the port accepts and never answers.

#[test]
fn three_logins_that_stall_after_accept_do_not_wedge_the_pool() {
    let primary = Postgres::start();
    let proxy = Proxy::before(&primary);
    let probe = Probe::of(proxy.conninfo("disable")).start();
    let mut trial = Trial::of(&probe, &[&primary], ALONE);
    let fault = proxy.starts_to(Does::StallsTimes(3));
    trial.flips(&fault, Says::alone(STALLED));
    trial.is_told_at_once(STALLED);
    // A watcher a login: the third stalls when two have been abandoned.
    let third = eventually(WITHOUT_THE_STUCK * 2, "the third stalls", || {
        trial.says(Says::alone(STALLED));
        (proxy.stalled() == 3).then(Instant::now)
    });
    trial.is_well_within(WITHOUT_THE_STUCK, third);
    assert_eq!(proxy.stalled(), 3);
    drop(fault);
}

// Row 7: the port accepts, and what it says is no PostgreSQL.

/// In TLS: a fatal alert, `handshake_failure`; then a plain one, `close_notify`.
const HANDSHAKE_FAILURE: &[u8] = &[21, 3, 3, 0, 2, 2, 40];
const CLOSE_NOTIFY: &[u8] = &[21, 3, 3, 0, 2, 1, 0];

/// What a port does that is no PostgreSQL, with which `sslmode` it is asked and
/// what is said of it. `refused` is for connections that the server closed.
const NONSENSE: [(Does, &str, Words); 10] = [
    (Does::Resets, "disable", &["refused"]),
    (Does::Resets, "require", &["refused"]),
    // A length of 0; an authentication that there is not; another protocol.
    (Does::Says(&[&[0; 8]]), "disable", &["error"]),
    (
        Does::Says(&[b"R\0\0\0\x08\0\0\0\x63"]),
        "disable",
        &["error"],
    ),
    (
        Does::Says(&[b"HTTP/1.1 400 Bad Request\r\n\r\n"]),
        "disable",
        &["error"],
    ),
    (
        Does::Says(&[b"S", b"HTTP/1.1 400 Bad Request\r\n\r\n"]),
        "require",
        &["tls_failed"],
    ),
    (
        Does::Says(&[b"S", HANDSHAKE_FAILURE]),
        "require",
        &["tls_failed"],
    ),
    (Does::Says(&[b"S", CLOSE_NOTIFY]), "require", &["refused"]),
    (Does::Says(&[HANDSHAKE_FAILURE]), "require", &["tls_failed"]),
    (Does::Says(&[b"N"]), "require", &["tls_failed"]),
];

#[test]
fn resets_garbage_and_tls_alerts_are_told_once_and_asked_at_a_modest_pace() {
    let primary = Postgres::start();
    let authority = Authority::new("ours");
    primary.turn_tls_on(&authority.certificate_for("db.pgpair.test"));
    for some in NONSENSE.chunks(3) {
        thread::scope(|scope| {
            for &(does, sslmode, words) in some {
                let server = &primary;
                scope.spawn(move || is_no_postgresql(server, does, sslmode, words));
            }
        });
    }
}

fn is_no_postgresql(server: &Postgres, does: Does, sslmode: &str, words: Words) {
    let proxy = Proxy::before(server);
    let probe = Probe::of(proxy.conninfo(sslmode)).start();
    let mut trial = Trial::of(&probe, &[], ALONE);
    let told = |probe: &Probe| probe.log().matches(" node node=").count();
    let before = told(&probe);
    let fault = proxy.starts_to(does);
    trial.flips(&fault, Says::alone(words));
    let (accepted, worked) = (proxy.accepted(), probe.cpu_time());
    trial.holds(Says::alone(words), ms(1_000));
    // One try in 100 ms, and one on either side.
    let tries = proxy.accepted() - accepted;
    assert!(tries <= 12, "{does:?}: {tries} connections in a second");
    let worked = probe.cpu_time() - worked;
    assert!(worked < ms(500), "{does:?}: {worked:?} of work in a second");
    let lines = told(&probe) - before;
    assert_eq!(lines, 1, "{does:?}: {}", probe.log());
    trial.recovers(fault);
}

// Row 20: names.

#[test]
fn container_that_comes_back_at_another_address_is_followed_by_name() {
    let primary = Postgres::start();
    let probe = Probe::of(primary.conninfo_by_name()).start_in_container();
    let mut trial = Trial::of(&probe, &[], ALONE);
    primary.kill();
    trial.says(Says::alone(GONE));
    probe.becomes_not_ready("unresolved");

    let before = primary.address();
    let primary = primary.move_to_another_address();
    let moved = Instant::now();
    assert_ne!(primary.address(), before);
    trial.is_well_within(RECOVERY, moved);
    drop(trial);
    assert_eq!(primary.held_connections(), 1);
}

#[test]
fn name_that_does_not_resolve_is_unresolved() {
    let probe = Probe::of("host=no-such-host.invalid user=pgpair").start_in_container();
    let unresolved = Says([&["unresolved"]; 3]);
    let trial = Trial::of(&probe, &[], unresolved);
    trial.holds(unresolved, ms(500));
}

/// Asked for both at once, musl's resolver fails the name.
#[test]
fn name_with_an_address_resolves_whatever_is_said_about_ipv6() {
    let primary = Postgres::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("resolv.conf");
    // Not by way of Docker's, which has ideas of its own.
    let server = format!("nameserver {}\n", this_run().gateway());
    fs::write(&file, server).expect("writes");
    let mount = format!("--volume={}:/etc/resolv.conf:ro", file.display());
    for (label, _) in names::ABOUT_IPV6 {
        let host = names::name_of(label, primary.address());
        let conninfo =
            format!("host={host} user=pgpair password={PASSWORD} dbname=postgres sslmode=disable");
        let probe = Probe::of(conninfo)
            .docker_option(&mount)
            .start_in_container();
        probe.becomes_ready();
        primary
            .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'pgpair'");
        probe.becomes_ready();
    }
}

// Row 21.

#[test]
fn name_that_moves_from_a_frozen_primary_to_the_other_node_is_followed_within_15_s() {
    const NAME: &str = "db";
    let primary = Postgres::start();
    let standby = Postgres::standby_of(&primary, &[]);
    let known_as = |node: &Postgres, names: &[&str]| {
        node.container().disconnect();
        node.container().connect(names);
    };
    known_as(&primary, &[NAME]);
    let conninfo =
        format!("host={NAME} user=pgpair password={PASSWORD} dbname=postgres sslmode=disable");
    let probe = Probe::of(conninfo).start_in_container();
    let mut trial = Trial::of(&probe, &[&primary], ALONE);

    let fault = primary.paused();
    trial.flips(&fault, Says::alone(SILENT));
    standby.promote();
    known_as(&primary, &[]);
    known_as(&standby, &[NAME]);
    let moved = Instant::now();
    trial.nodes_are_now(&[&standby]);
    trial.is_well_within(WITHOUT_THE_STUCK, moved);
    drop(trial);
    drop(fault);
    eventually(WITHOUT_THE_STUCK, "the old one is left alone", || {
        (primary.held_connections() == 0).then_some(())
    });
}
