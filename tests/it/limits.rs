//! Descriptors or threads run out: those who ask are answered all the same, and what
//! could not be done is done when there is room again.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::support::docker::docker;
use crate::support::http::Connection;
use crate::support::probe::{Recipe, binary};
use crate::support::{Postgres, Probe, eventually, fake, ms};

/// Longest wait for an answer beside a flood, on a machine that is busy.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

/// The recipe of a probe of nobody.
fn recipe() -> Recipe {
    let port = fake::nobody().port();
    Probe::of(format!("host=127.0.0.1 port={port} user=pgpair"))
}

/// A client that comes anew for every request. Nobody may turn it away.
struct Newcomer {
    enough: Arc<AtomicBool>,
    asking: JoinHandle<usize>,
}

impl Newcomer {
    fn start(address: SocketAddr) -> Newcomer {
        let enough = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&enough);
        let asking = thread::spawn(move || {
            let mut answered = 0;
            while !stop.load(Ordering::Relaxed) {
                let mut connection = Connection::try_open(address).expect("never turned away");
                let answer = connection.try_get("/health").expect("never cut off");
                assert_eq!(answer.status, 200);
                assert!(answer.took < ANSWERED_WITHIN, "{answer:?}");
                answered += 1;
                thread::sleep(ms(2));
            }
            answered
        });
        Newcomer { enough, asking }
    }

    /// Ends it; returns how many answers it got.
    fn stop(self) -> usize {
        self.enough.store(true, Ordering::Relaxed);
        self.asking.join().expect("the client failed")
    }
}

/// Opens connections that say nothing; all are let in, or wait.
fn silent_flood(address: SocketAddr, count: usize) -> Vec<Connection> {
    (0..count).map(|_| Connection::open(address)).collect()
}

/// Floods a probe; everybody else must be answered, by the same process.
fn answers_beside_a_flood(probe: &Probe) {
    let pid = probe.pid();
    let newcomer = Newcomer::start(probe.address);
    for _ in 0..5 {
        let flood = silent_flood(probe.address, 200);
        thread::sleep(ms(200));
        drop(flood);
    }
    let answered = newcomer.stop();
    assert!(answered > 5, "only {answered}");
    assert_eq!(probe.pid(), pid, "it is the same process");
}

#[test]
fn probe_with_few_descriptors_answers_beside_a_flood() {
    let probe = recipe().descriptors(100).start();
    let log = probe.log();
    let said = "limit resource=descriptors available=100 connections=36";
    assert!(log.contains(said), "{log}");
    answers_beside_a_flood(&probe);
}

#[test]
fn probe_with_few_threads_answers_beside_a_flood() {
    let probe = recipe()
        .docker_option("--pids-limit=20")
        .docker_option("--restart=unless-stopped")
        .start_in_container();
    answers_beside_a_flood(&probe);
    let name = &probe.container().name;
    let restarts = docker(&["inspect", "--format", "{{.RestartCount}}", name]);
    assert_eq!(restarts, "0");
}

/// Limits the descriptors of a running probe.
fn limit_descriptors(probe: &Probe, count: usize) {
    let done = Command::new("prlimit")
        .arg(format!("--pid={}", probe.pid()))
        .arg(format!("--nofile={count}:4096"))
        .status();
    assert!(done.expect("prlimit is installed").success());
}

#[test]
fn probe_that_has_no_descriptor_left_answers_and_recovers() {
    let primary = Postgres::start();
    let probe = Probe::watching(&primary);
    let mut client = probe.connect();
    assert_eq!(client.get("/ready").status, 200);
    // As soon as its connection has gone, it gets no other.
    limit_descriptors(&probe, probe.descriptors() - 5);
    primary.stop();
    primary.start_again();
    eventually(Duration::from_secs(5), "it says so", || {
        probe.log().contains("limit thread=").then_some(())
    });
    for _ in 0..20 {
        assert_eq!(client.get("/health").status, 200);
        assert_eq!(client.get("/ready").status, 503);
        thread::sleep(ms(50));
    }
    limit_descriptors(&probe, 1024);
    probe.becomes_ready_within(Duration::from_secs(5));
    assert_eq!(client.get("/ready").status, 200);
    assert_eq!(primary.pgpair_backends().len(), 1);
}

#[test]
fn who_finds_no_descriptor_is_let_in_when_another_has_gone() {
    // Nothing else in it comes and goes.
    let probe = recipe().with("interval", "1h").start();
    assert_eq!(probe.ready().status, 503);
    let mut clients: Vec<Connection> = (0..20).map(|_| probe.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/health").status, 200);
    }
    limit_descriptors(&probe, probe.descriptors());
    // Those who were there and are idle make room.
    let newcomers: Vec<Connection> = (0..10)
        .map(|_| {
            let mut newcomer = probe.connect();
            assert_eq!(newcomer.get("/health").status, 200);
            newcomer
        })
        .collect();
    let mut closed = 0;
    for mut client in clients {
        closed += usize::from(client.closes_within(ms(10)));
    }
    assert!((1..=10).contains(&closed), "{closed} of 20 have gone");
    drop(newcomers);
}

#[test]
fn listening_socket_of_a_supervisor_is_used() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let probe = recipe()
        .listener(listener.try_clone().expect("a descriptor"))
        .start();
    assert_eq!(probe.address, address);
    assert_eq!(probe.get("/health").status, 200);
    drop(probe);
    // The supervisor still has it: who comes now waits for the next one.
    let mut early = Connection::open(address);
    early.send("GET /health HTTP/1.1\r\nHost: pgpair\r\n\r\n");
    let _next = recipe().listener(listener).start();
    assert_eq!(early.answer().status, 200);
}

#[test]
fn what_is_no_listening_socket_is_refused_in_one_line() {
    for (count, redirected, exit_code, said) in [
        ("1", "3</dev/null", 1, "descriptor 3"),
        ("1", "3<&-", 1, "descriptor 3"),
        ("2", "3</dev/null", 2, "LISTEN_FDS \"2\""),
    ] {
        let script = format!("LISTEN_PID=$$ LISTEN_FDS={count} exec \"$@\" {redirected}");
        let done = Command::new("/bin/sh")
            .args(["-c", &script, "sh", &binary()])
            .env("DATABASE_URL", "postgresql://u@h/d")
            .output()
            .expect("a shell is there");
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(exit_code), "{stderr}");
        assert!(stderr.contains(said), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}
