//! A front door that has died is renewed in place: nobody who comes is turned
//! away, and it is never alive and deaf.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::docker::docker;
use crate::support::fake;
use crate::support::http::Connection;
use crate::support::probe::{Recipe, binary};
use crate::support::{Postgres, Probe, eventually, ms};

/// In which the front door is renewed, by the contract.
const RENEWED_WITHIN: Duration = Duration::from_secs(5);

/// Requests that lose a connection for good, and how many of them are too many.
const LEAK: &str = "GET /health HTTP/2.0\r\n\r\n";
const TOO_MANY_LEAKS: usize = 100;

/// The recipe of a probe of nobody.
fn recipe() -> Recipe {
    let port = fake::nobody().port();
    Probe::of(format!("host=127.0.0.1 port={port} user=pgpair"))
}

/// How often the probe has begun anew; `None` while it does not answer.
fn renewals(address: SocketAddr) -> Option<u32> {
    let metrics = Connection::try_open(address)
        .ok()?
        .try_get("/metrics")
        .ok()?;
    let name = "pgpair_http_renewals_total ";
    let line = metrics.body.lines().find_map(|it| it.strip_prefix(name));
    line?.parse().ok()
}

/// Waits until the probe has begun anew at least so often.
fn is_renewed(address: SocketAddr, times: u32) {
    eventually(RENEWED_WITHIN, &format!("renewed {times} times"), || {
        renewals(address).filter(|count| *count >= times)
    });
}

/// A client that comes anew for every request. Nobody may turn it away, and an
/// answer may take as long as a renewal.
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
                match connection.try_get("/health") {
                    Ok(answer) => {
                        assert_eq!(answer.status, 200);
                        assert!(answer.took < RENEWED_WITHIN, "{answer:?}");
                        answered += 1;
                    }
                    // It was let in and then there was nothing left for it.
                    Err(error) => assert!(
                        matches!(
                            error.kind(),
                            ErrorKind::ConnectionReset
                                | ErrorKind::UnexpectedEof
                                | ErrorKind::BrokenPipe
                        ),
                        "{error}"
                    ),
                }
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

/// Opens connections that say nothing, as many as are let in or wait.
fn silent_flood(address: SocketAddr, count: usize) -> Vec<Connection> {
    (0..count)
        .map_while(|_| Connection::try_open(address).ok())
        .collect()
}

#[test]
fn front_door_without_descriptors_is_renewed_and_nobody_is_turned_away() {
    let probe = recipe().descriptors(100).start();
    assert!(
        probe
            .log()
            .contains("limit resource=descriptors available=100 connections=18")
    );
    let pid = probe.pid();
    let newcomer = Newcomer::start(probe.address);
    let flood = silent_flood(probe.address, 200);
    assert_eq!(flood.len(), 200, "some were turned away");
    is_renewed(probe.address, 1);
    eventually(RENEWED_WITHIN, "answered at once again", || {
        let answer = probe.connect().try_get("/health").ok()?;
        (answer.status == 200 && answer.took < ms(100)).then_some(())
    });
    drop(flood);
    assert!(newcomer.stop() > 0);
    assert_eq!(probe.pid(), pid, "in place: it is the same process");
    assert!(probe.log().contains("listen event=died"), "{}", probe.log());
}

#[test]
fn front_door_without_threads_is_renewed_as_first_process_of_its_container() {
    let probe = recipe()
        .docker_option("--pids-limit=60")
        .start_in_container();
    let pid = probe.pid();
    let newcomer = Newcomer::start(probe.address);
    let flood = silent_flood(probe.address, 200);
    assert_eq!(flood.len(), 200, "some were turned away");
    is_renewed(probe.address, 1);
    drop(flood);
    assert!(newcomer.stop() > 0);
    assert_eq!(probe.pid(), pid, "in place: it is the same process");
    assert!(
        probe
            .log()
            .contains("limit resource=threads available=60 connections=20")
    );
}

/// Loses so many connections to requests that tiny_http cannot let go of.
fn leak(probe: &Probe, count: usize) {
    for _ in 0..count {
        let mut connection = probe.connect();
        // The server may have begun to leave.
        if connection.try_send(LEAK).is_ok() {
            connection.finish_sending();
        }
    }
}

#[test]
fn leaked_threads_and_descriptors_are_given_back_by_a_renewal() {
    let probe = recipe().with("request-timeout", "1s").start();
    assert_eq!(probe.ready().status, 503);
    let before = (probe.threads(), probe.descriptors());
    let newcomer = Newcomer::start(probe.address);
    leak(&probe, TOO_MANY_LEAKS + 5);
    eventually(Duration::from_secs(20), "it is renewed", || {
        renewals(probe.address).filter(|count| *count == 1)
    });
    assert!(newcomer.stop() > 0);
    eventually(Duration::from_secs(15), "all is given back", || {
        let now = (probe.threads(), probe.descriptors());
        (now.0 <= before.0 + 4 && now.1 <= before.1).then_some(())
    });
}

#[test]
fn probe_knows_postgresql_again_at_once_after_a_renewal() {
    let primary = Postgres::start();
    let probe = Probe::of(primary.conninfo()).descriptors(100).start();
    probe.becomes_ready();
    let flood = silent_flood(probe.address, 100);
    is_renewed(probe.address, 1);
    drop(flood);
    probe.becomes_ready();
    assert_eq!(primary.pgpair_backends().len(), 1, "the old one is gone");
}

#[test]
fn sigterm_during_a_renewal_is_obeyed() {
    for pause in (0..250).step_by(10) {
        let mut probe = recipe().descriptors(100).start();
        let flood = silent_flood(probe.address, 100);
        probe.logs("listen event=died");
        thread::sleep(ms(pause));
        probe.signal(Signal::TERM);
        let status = probe.ends_within(Duration::from_secs(3));
        assert_eq!(status.code(), Some(0), "after {pause} ms: {}", probe.log());
        drop(flood);
    }
}

/// Keeps a container from connecting to its own port, as a dead accept thread
/// would, until it is dropped.
struct Deaf {
    pid: String,
}

impl Deaf {
    fn make(probe: &Probe) -> Deaf {
        let deaf = Deaf {
            pid: probe.pid().to_string(),
        };
        deaf.rule("-I");
        deaf
    }

    fn rule(&self, change: &str) {
        let network = ["-t", &self.pid, "-n", "iptables", "-w", change, "INPUT"];
        let packets = ["-i", "lo", "-p", "tcp", "--dport", "5000", "-j", "DROP"];
        let done = Command::new("nsenter").args(network).args(packets).status();
        assert!(done.expect("nsenter is installed").success());
    }
}

impl Drop for Deaf {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.rule("-D");
        }
    }
}

#[test]
fn door_that_does_not_hear_the_watchdog_is_renewed_until_it_does() {
    let probe = recipe().start_in_container();
    let pid = probe.pid();
    // A knock was heard: its connection has come and gone.
    thread::sleep(ms(200));
    let deaf = Deaf::make(&probe);
    let made = Instant::now();
    eventually(RENEWED_WITHIN, "it is renewed", || {
        let log = probe.log();
        (log.contains("cause=\"nobody hears the watchdog\"") && log.contains("renewals=1"))
            .then_some(())
    });
    assert!(made.elapsed() > ms(1_000), "one unheard knock is no reason");
    drop(deaf);
    assert_eq!(probe.get("/health").status, 200);
    assert_eq!(probe.pid(), pid);
}

#[test]
fn watchdog_that_is_kept_out_while_others_come_in_does_no_more_harm() {
    let probe = recipe().start_in_container();
    thread::sleep(ms(200));
    let _deaf = Deaf::make(&probe);
    let newcomer = Newcomer::start(probe.address);
    eventually(Duration::from_secs(15), "it knows that it is blind", || {
        probe.log().contains("watchdog event=blind").then_some(())
    });
    let so_far = renewals(probe.address).expect("it answers");
    assert_eq!(so_far, 1);
    thread::sleep(Duration::from_secs(5));
    assert_eq!(renewals(probe.address), Some(so_far));
    assert!(newcomer.stop() > 0);
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
    let next = recipe().listener(listener).start();
    assert_eq!(early.answer().status, 200);
    assert!(next.log().contains("renewals=0"), "{}", next.log());
}

#[test]
fn container_begins_anew_without_being_started_again_by_docker() {
    let probe = recipe()
        .docker_option("--pids-limit=60")
        .docker_option("--restart=unless-stopped")
        .start_in_container();
    let flood = silent_flood(probe.address, 200);
    is_renewed(probe.address, 1);
    drop(flood);
    let restarts = docker(&[
        "inspect",
        "--format",
        "{{.RestartCount}}",
        &probe.container().name,
    ]);
    assert_eq!(restarts, "0");
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
