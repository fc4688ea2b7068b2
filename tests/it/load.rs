//! What many requests cost PostgreSQL and the probe.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::http::request;
use crate::support::load::{self, Load};
use crate::support::postgres::backends;
use crate::support::probe::{RECOVERY, is_release_binary};
use crate::support::{Postgres, Probe, eventually, ms};

/// Resident memory of the binary that is shipped, under load.
const RESIDENT_AT_MOST: u64 = 5 * 1024 * 1024;

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn thousand_requests_a_second_for_a_minute_cost_one_connection_and_little_memory() {
    let primary = Postgres::start();
    let probe = Probe::watching(&primary);
    let health = probe.watch_health();
    let mut client = primary.client();

    let load = Load::start(probe.address, "/ready", 1_000, 16);
    let only = backends(&mut client);
    assert_eq!(only.len(), 1);
    let mut most_resident = 0;
    let began = Instant::now();
    while began.elapsed() < MINUTE {
        assert_eq!(
            backends(&mut client),
            only,
            "another connection, or one more"
        );
        most_resident = most_resident.max(probe.resident_bytes());
        thread::sleep(ms(50));
    }
    let samples = load.finish();
    drop(health);

    assert!(load::answers(&samples).all(|answer| answer.status == 200));
    assert!(
        samples.len() > 48_000,
        "the load was no load: {}",
        samples.len()
    );
    if is_release_binary() {
        assert!(
            most_resident < RESIDENT_AT_MOST,
            "{most_resident} bytes resident"
        );
    }
}

#[test]
fn requests_that_wait_together_share_one_query() {
    const CLIENTS: usize = 200;
    let primary = Postgres::start();
    primary.sql("ALTER SYSTEM SET log_statement = 'all'");
    primary.sql("SELECT pg_reload_conf()");
    let probe = Probe::of(primary.conninfo())
        .with("interval", "1h")
        .deadline(10_000)
        .start();
    probe.becomes_ready();
    // The first new login is over: it asks too.
    assert_eq!(probe.get("/ready?login").status, 200);
    let backend = eventually(RECOVERY, "the login's connection has ended", || {
        let backends = backends(&mut primary.client());
        (backends.len() == 1).then(|| backends[0])
    });
    let queries = || observations(&primary);

    primary.freeze_backend(backend);
    let before = queries();
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| probe.connect()).collect();
    for client in &mut clients {
        client.send(request("GET", "/ready"));
    }
    thread::sleep(ms(200));
    primary.thaw_backend(backend);
    for client in &mut clients {
        assert_eq!(client.answer().status, 200);
    }
    // One that the first of them began, one for all that came after it had.
    let cost = queries() - before;
    assert!(
        (1..=2).contains(&cost),
        "{cost} queries for {CLIENTS} requests"
    );
}

#[test]
fn without_requests_the_probe_asks_once_per_interval() {
    let primary = Postgres::start();
    primary.sql("ALTER SYSTEM SET log_statement = 'all'");
    primary.sql("SELECT pg_reload_conf()");
    let probe = Probe::of(primary.conninfo())
        .with("interval", "200ms")
        .start();
    probe.becomes_ready();
    let queries = || observations(&primary);
    let before = queries();
    thread::sleep(Duration::from_secs(2));
    let asked = queries() - before;
    assert!((5..=12).contains(&asked), "{asked} queries in 10 intervals");
}

/// Counts what the probe has asked, in a server that logs every statement:
/// nobody else there uses the simple protocol.
fn observations(server: &Postgres) -> usize {
    server
        .logs()
        .matches("LOG:  statement: SELECT pg_catalog.pg_is_in_recovery()")
        .count()
}
