//! The end of the probe: nothing that was accepted is cut off, and it is quick.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::docker::docker;
use crate::support::fake::Fake;
use crate::support::http::{Connection, request};
use crate::support::{Postgres, Probe, ms};

/// In which the probe has ended, by the contract.
const STOP_AT_MOST: Duration = Duration::from_secs(1);

/// What docker itself may add to stopping a container.
const DOCKER_ADDS: Duration = Duration::from_secs(2);

/// How a client's last conversation ended.
#[derive(Debug, PartialEq)]
enum End {
    /// The server announced it, or took no connection any more.
    InOrder,
    /// A request that was sent got no answer, or half of one.
    CutOff(String),
}

/// Asks without a pause, over one connection, until the server ends it.
fn ask_on_one_connection(address: SocketAddr, path: &str, answered: &Sender<()>) -> End {
    let mut connection = Connection::open(address);
    loop {
        match connection.try_get(path) {
            Ok(answer) if answer.closes() => return End::InOrder,
            Ok(_) => {}
            Err(error) => return End::CutOff(error.to_string()),
        }
        // Nobody may listen any more.
        let _ = answered.send(());
    }
}

/// Asks without a pause, over a new connection each time, until there is none.
/// The kernel resets those that came in the last moment and that the probe
/// never saw: what it did see is answered in full.
fn ask_on_new_connections(address: SocketAddr, path: &str, answered: &Sender<()>) -> End {
    loop {
        let Ok(mut connection) = Connection::try_open(address) else {
            return End::InOrder;
        };
        match connection.try_get(path) {
            Ok(_) => {}
            Err(error)
                if error.kind() == ErrorKind::ConnectionReset && connection.is_untouched() =>
            {
                return End::InOrder;
            }
            Err(error) => return End::CutOff(error.to_string()),
        }
        let _ = answered.send(());
    }
}

type Client = fn(SocketAddr, &str, &Sender<()>) -> End;

/// Lets many clients ask, stops the probe meanwhile; nobody may be cut off.
fn stop_under_load(mut probe: Probe, client: Client, path: &'static str) {
    let address = probe.address;
    let (answered, answers) = mpsc::channel();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let answered = answered.clone();
            thread::spawn(move || client(address, path, &answered))
        })
        .collect();
    for _ in 0..500 {
        answers
            .recv_timeout(Duration::from_secs(5))
            .expect("the load runs");
    }
    let told = Instant::now();
    probe.signal(Signal::TERM);
    let status = probe.ends_within(Duration::from_secs(3));
    let took = told.elapsed();
    for client in clients {
        assert_eq!(client.join().expect("a client failed"), End::InOrder);
    }
    assert_eq!(status.code(), Some(0));
    assert!(took < STOP_AT_MOST, "it took {took:?}");
}

#[test]
fn sigterm_under_load_cuts_off_no_request_on_an_open_connection() {
    let primary = Postgres::start();
    stop_under_load(Probe::watching(&primary), ask_on_one_connection, "/ready");
}

#[test]
fn sigterm_under_load_leaves_no_half_answer_on_a_new_connection() {
    let primary = Postgres::start();
    stop_under_load(Probe::watching(&primary), ask_on_new_connections, "/ready");
}

#[test]
fn requests_that_wait_for_a_frozen_server_are_answered_before_the_end() {
    let primary = Postgres::start();
    let mut probe = Probe::of(primary.conninfo())
        .with("interval", "1h")
        .deadline(5_000)
        .start();
    probe.becomes_ready();
    primary.pause();
    let mut waiting: Vec<Connection> = (0..4).map(|_| probe.connect()).collect();
    for connection in &mut waiting {
        connection.send(request("GET", "/ready"));
    }
    // They are parked once a later one on another connection is answered.
    thread::sleep(ms(100));
    assert_eq!(probe.get("/health").status, 200);

    let told = Instant::now();
    probe.signal(Signal::TERM);
    for connection in &mut waiting {
        let answer = connection.answer();
        assert_eq!((answer.status, answer.reason().as_str()), (503, "draining"));
    }
    assert_eq!(probe.ends_within(Duration::from_secs(3)).code(), Some(0));
    assert!(
        told.elapsed() < STOP_AT_MOST,
        "it took {:?}",
        told.elapsed()
    );
    primary.unpause();
}

#[test]
fn idle_probe_ends_at_once_on_sigterm_and_on_sigint() {
    for signal in [Signal::TERM, Signal::INT] {
        let fake = Fake::silent();
        let mut probe = Probe::of(fake.conninfo()).start();
        let _idle = probe.connect();
        let told = Instant::now();
        probe.signal(signal);
        assert_eq!(probe.ends_within(Duration::from_secs(3)).code(), Some(0));
        assert!(
            told.elapsed() < STOP_AT_MOST,
            "it took {:?}",
            told.elapsed()
        );
        assert!(
            probe.log().contains("shutdown event=done"),
            "{}",
            probe.log()
        );
    }
}

#[test]
fn sigterm_is_obeyed_from_the_first_log_line_on() {
    for _ in 0..20 {
        let mut probe = Probe::of(Fake::silent().conninfo()).start();
        probe.signal(Signal::TERM);
        let status = probe.ends_within(Duration::from_secs(3));
        assert_eq!(status.code(), Some(0), "it ended with {status}");
    }
}

#[test]
fn draining_probe_is_not_ready_but_healthy_until_the_drain_ends() {
    let drain = ms(1_000);
    let primary = Postgres::start();
    let mut probe = Probe::of(primary.conninfo()).with("drain", "1s").start();
    probe.becomes_ready();
    let mut open = probe.connect();
    assert_eq!(open.get("/ready").status, 200);

    let told = Instant::now();
    probe.signal(Signal::TERM);
    probe.becomes_not_ready("draining");
    while told.elapsed() < drain - ms(200) {
        let ready = open.get("/ready");
        assert_eq!((ready.status, ready.reason().as_str()), (503, "draining"));
        assert!(!ready.closes(), "it goes on until the drain ends");
        assert_eq!(probe.get("/health").status, 200, "on a new connection too");
        thread::sleep(ms(20));
    }
    assert_eq!(probe.ends_within(Duration::from_secs(3)).code(), Some(0));
    let took = told.elapsed();
    assert!(took >= drain, "it left after {took:?}");
    assert!(took < drain + STOP_AT_MOST, "it took {took:?}");
}

#[test]
fn second_signal_ends_the_drain() {
    let fake = Fake::silent();
    let mut probe = Probe::of(fake.conninfo()).with("drain", "1m").start();
    assert_eq!(probe.get("/health").status, 200);
    probe.signal(Signal::TERM);
    probe.becomes_not_ready("draining");
    let told = Instant::now();
    probe.signal(Signal::TERM);
    assert_eq!(probe.ends_within(Duration::from_secs(3)).code(), Some(0));
    assert!(
        told.elapsed() < STOP_AT_MOST,
        "it took {:?}",
        told.elapsed()
    );
}

#[test]
fn probe_as_first_process_of_a_container_stops_fast_and_cuts_nobody_off() {
    let primary = Postgres::start();
    let probe = Probe::of(primary.conninfo_by_name()).start_in_container();
    probe.becomes_ready();
    let address = probe.address;
    let (answered, answers) = mpsc::channel();
    let client = thread::spawn(move || ask_on_one_connection(address, "/ready", &answered));
    answers
        .recv_timeout(Duration::from_secs(5))
        .expect("the load runs");

    let told = Instant::now();
    docker(&["stop", &probe.container().name]);
    let took = told.elapsed();
    assert_eq!(client.join().expect("the client failed"), End::InOrder);
    assert_eq!(probe.container().exit_code(), 0);
    assert!(took < STOP_AT_MOST + DOCKER_ADDS, "it took {took:?}");
}
