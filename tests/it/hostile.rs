//! Clients that mean harm, or are merely broken: whatever they do, others are
//! answered and the process lives.

use std::fs::File;
use std::io::Write;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::fake::{self, Fake};
use crate::support::http::{Connection, request};
use crate::support::{Postgres, Probe, eventually, ms};

/// In which everything that a hostile client held is given back, beyond the
/// request's time limit.
const GIVEN_BACK: Duration = Duration::from_secs(5);

/// A probe of nobody, with short limits.
fn probe() -> Probe {
    let conninfo = format!("host=127.0.0.1 port={} user=pgpair", fake::nobody().port());
    Probe::of(conninfo).with("request-timeout", "1s").start()
}

/// Sends bytes; returns all that comes back until the connection is closed.
fn exchange(probe: &Probe, bytes: &[u8]) -> String {
    let mut connection = probe.connect();
    connection.send(bytes);
    connection
        .rest_within(ms(1_000) + GIVEN_BACK)
        .unwrap_or_else(|| panic!("still open: {:?}", String::from_utf8_lossy(bytes)))
}

/// Returns the statuses of all answers in what came back.
fn statuses(text: &str) -> Vec<u16> {
    let heads = text.split("HTTP/1.1 ").skip(1);
    heads
        .filter_map(|head| head.get(..3)?.parse().ok())
        .collect()
}

#[test]
fn announced_bodies_are_refused_and_hold_up_nobody() {
    let mut probe = probe();
    let _health = probe.watch_health();
    for (headers, body, status) in [
        ("Content-Length: 2000", "abc", 413),
        ("Content-Length: 5000000000", "abc", 413),
        ("Content-Length: 200000000000000", "abc", 413),
        ("Content-Length: 18446744073709551615", "abc", 413),
        ("Content-Length: 18446744073709551616", "abc", 413),
        ("Content-Length: 99999999999999999999999999", "", 413),
        ("Content-Length: abc", "abc", 400),
        ("Content-Length: +5", "hello", 400),
        ("Content-Length: -1", "", 400),
        ("Content-Length:", "", 400),
        ("Content-Length: 5\r\nContent-Length: 6", "hello", 400),
        ("Content-Length: 5, 5", "hello", 400),
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "hello",
            400,
        ),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n", 413),
        ("Transfer-Encoding: chunked", "", 413),
        ("Transfer-Encoding: chunked", "ffffffffffffffff\r\n", 413),
        ("Transfer-Encoding: gzip", "abc", 413),
    ] {
        let sent = format!("POST /ready HTTP/1.1\r\nHost: pgpair\r\n{headers}\r\n\r\n{body}");
        let said = exchange(&probe, sent.as_bytes());
        assert_eq!(statuses(&said), [status], "{headers:?}: {said:?}");
        assert!(probe.is_running(), "{headers:?}");
    }
}

#[test]
fn clients_that_expect_to_be_told_to_go_on_are_refused_and_hold_up_nobody() {
    let mut probe = probe();
    let _health = probe.watch_health();
    for length in ["5", "2000", "5000000000", "18446744073709551615"] {
        let sent = format!(
            "PUT /ready HTTP/1.1\r\nHost: pgpair\r\nContent-Length: {length}\r\n\
             Expect: 100-continue\r\n\r\n"
        );
        let said = exchange(&probe, sent.as_bytes());
        assert_eq!(statuses(&said), [413], "{length}: {said:?}");
        assert!(probe.is_running(), "{length}");
    }
}

#[test]
fn body_is_never_taken_for_the_next_request() {
    let probe = probe();
    let smuggled = request("GET", "/health");
    for headers in [
        format!("Content-Length: {}", smuggled.len()),
        format!("Content-Length: {}", smuggled.len() + 1_000),
        "Content-Length: 5\r\nContent-Length: 0".to_owned(),
        "Content-Length: 0\r\nContent-Length: 5".to_owned(),
        "Content-Length: abc".to_owned(),
        "Content-Length: 18446744073709551616".to_owned(),
        "Content-Length: 0\r\nTransfer-Encoding: chunked".to_owned(),
        "Transfer-Encoding: chunked".to_owned(),
        "Transfer-Encoding: chunked, identity".to_owned(),
    ] {
        let sent = format!("GET /nope HTTP/1.1\r\nHost: pgpair\r\n{headers}\r\n\r\n{smuggled}");
        let said = exchange(&probe, sent.as_bytes());
        assert!(!statuses(&said).contains(&200), "{headers:?}: {said:?}");
    }
}

#[test]
fn small_body_that_arrives_is_refused_with_an_answer() {
    let probe = probe();
    let mut connection = probe.connect();
    connection.send("POST /ready HTTP/1.1\r\nHost: pgpair\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(connection.answer().status, 413);
}

#[test]
fn request_that_announces_no_body_is_answered_as_any_other() {
    let probe = probe();
    let mut connection = probe.connect();
    connection.send("GET /health HTTP/1.1\r\nHost: pgpair\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(connection.answer().status, 200);
    assert_eq!(connection.get("/health").status, 200);
}

#[test]
fn garbage_ends_the_connection_and_nothing_else() {
    let mut probe = probe();
    let _health = probe.watch_health();
    let many_headers = format!("GET /health HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(11_000));
    for bytes in [
        &b""[..],
        b"\r\n\r\n\r\n",
        b"\0\0\0\0",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"GET /health HTTP/2.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /health HTTP/1.1\r\nNo colon\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nX: \xff\r\n\r\n",
        b"GET /health HTTP/1.1\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        b"GET  /health  HTTP/1.1\r\n\r\n",
        many_headers.as_bytes(),
    ] {
        let mut connection = probe.connect();
        connection.send(bytes);
        connection.finish_sending();
        let closed = connection.rest_within(ms(1_000) + GIVEN_BACK);
        assert!(
            closed.is_some(),
            "still open: {:?}",
            String::from_utf8_lossy(bytes)
        );
        assert!(probe.is_running());
    }
}

#[test]
fn client_that_has_said_all_it_will_say_still_gets_its_answer() {
    let primary = Postgres::start();
    let probe = Probe::watching(&primary);
    let mut connection = probe.connect();
    connection.send(request("GET", "/ready"));
    connection.finish_sending();
    assert_eq!(connection.answer().status, 200);
}

#[test]
fn client_that_never_reads_its_answers_holds_up_nobody() {
    let mut probe = probe();
    let _health = probe.watch_health();
    let address = probe.address;
    let flood = thread::spawn(move || {
        let mut connection = Connection::open(address);
        let many = request("GET", "/health").repeat(1_000);
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until && connection.try_send(&many).is_ok() {}
    });
    let asked = Instant::now();
    while asked.elapsed() < Duration::from_secs(3) {
        assert_eq!(probe.get("/health").status, 200);
        thread::sleep(ms(5));
    }
    flood.join().expect("it only writes");
    assert!(probe.is_running());
    assert!(probe.resident_bytes() < 64 << 20);
}

#[test]
fn pipelined_thousand_is_answered_in_full() {
    let probe = probe();
    let _health = probe.watch_health();
    let mut connection = probe.connect();
    let (paths, count) = (["/health", "/ready", "/nope"], 999);
    let all: String = (0..count)
        .map(|index| request("GET", paths[index % 3]))
        .collect();
    connection.send(all);
    for index in 0..count {
        let status = connection.answer().status;
        assert_eq!(status, [200, 503, 404][index % 3], "answer {index}");
    }
}

#[test]
fn connection_without_a_finished_request_is_closed_in_time() {
    let probe = probe();
    let limit = ms(1_000);
    let mut silent = probe.connect();
    let mut slow = probe.connect();
    slow.send("GET /health HTTP/1.1\r\nHost");
    let mut done = probe.connect();
    assert_eq!(done.get("/health").status, 200);
    assert_eq!(slow.answer().status, 408);
    for (what, connection) in [
        ("silent", &mut silent),
        ("slow", &mut slow),
        ("done", &mut done),
    ] {
        assert!(connection.closes_within(limit + ms(1_000)), "{what}");
    }
}

#[test]
fn connection_that_drips_is_closed_although_it_is_never_silent() {
    let probe = probe();
    let mut connection = probe.connect();
    let began = Instant::now();
    while connection.try_send("x").is_ok() {
        assert!(
            began.elapsed() < ms(1_000) + GIVEN_BACK,
            "it may drip for ever"
        );
        thread::sleep(ms(100));
    }
    assert!(began.elapsed() >= ms(900), "closed too early");
}

#[test]
fn client_that_keeps_asking_keeps_its_connection() {
    let probe = probe();
    let mut connection = probe.connect();
    let until = Instant::now() + ms(2_500);
    while Instant::now() < until {
        assert_eq!(connection.get("/health").status, 200);
        thread::sleep(ms(300));
    }
}

#[test]
fn request_that_waits_for_postgresql_longer_than_the_limit_is_not_cut_off() {
    let fake = Fake::silent();
    let probe = Probe::of(fake.conninfo())
        .with("request-timeout", "200ms")
        .with("interval", "1h")
        .deadline(1_500)
        .start();
    let answer = probe.is_not_ready(&["timed_out", "overdue"]);
    assert!(answer.took > ms(400), "{answer:?}");
}

#[test]
fn above_the_limit_silent_connections_go_and_good_clients_stay() {
    let conninfo = format!("host=127.0.0.1 port={} user=pgpair", fake::nobody().port());
    let probe = Probe::of(conninfo).with("max-connections", "20").start();
    let mut good = probe.connect();
    assert_eq!(good.get("/health").status, 200);
    let silent: Vec<Connection> = (0..100).map(|_| probe.connect()).collect();

    for _ in 0..50 {
        assert_eq!(
            good.get("/health").status,
            200,
            "a good client that was there"
        );
        thread::sleep(ms(20));
    }
    assert_eq!(
        probe.get("/health").status,
        200,
        "a good client that came later"
    );
    let mut closed = 0;
    for mut connection in silent {
        closed += usize::from(connection.closes_within(ms(1)));
    }
    assert!(closed >= 80, "{closed} of 100 were closed");
}

#[test]
fn burst_of_new_connections_is_answered_while_all_stay_open() {
    let probe = probe();
    for _ in 0..5 {
        let mut clients: Vec<Connection> = (0..300).map(|_| probe.connect()).collect();
        for _ in 0..3 {
            for client in &mut clients {
                client.send(request("GET", "/health"));
            }
            for client in &mut clients {
                assert_eq!(client.answer().status, 200);
            }
        }
    }
}

/// The container's limit: with more the kernel would end the probe.
const MEMORY_BYTES: u64 = 64 << 20;

#[test]
fn request_line_of_64_mib_is_cut_off_before_it_takes_the_memory() {
    // With the default time limit: it is the amount that counts here.
    let conninfo = format!("host=127.0.0.1 port={} user=pgpair", fake::nobody().port());
    let mut probe = Probe::of(conninfo).start();
    assert_eq!(probe.ready().status, 503);
    let health = probe.watch_health();
    for head in ["GET /", "GET /health HTTP/1.1\r\nX: "] {
        let mut client = probe.connect();
        client.send(head);
        let piece = vec![b'a'; 64 << 10];
        let sent = (0..1024)
            .take_while(|_| client.try_send(&piece).is_ok())
            .inspect(|_| assert!(probe.resident_bytes() < MEMORY_BYTES))
            .count();
        assert!(sent < 1024, "all of it was taken");
    }
    drop(health);
    assert!(probe.is_running());
    let metrics = probe.get("/metrics").body;
    let counted = "pgpair_http_connections_closed_total{reason=\"too_large\"} 2";
    assert!(metrics.contains(counted), "{metrics}");
}

#[test]
fn threads_are_given_back_after_many_clients() {
    let mut probe = probe();
    // Answers come when all its own threads are there.
    assert_eq!(probe.ready().status, 503);
    let before = (probe.threads(), probe.descriptors());
    let clients: Vec<Connection> = (0..200).map(|_| probe.connect()).collect();
    eventually(ms(2_000), "they are let in", || {
        (probe.descriptors() >= before.1 + 190).then_some(())
    });
    drop(clients);
    eventually(Duration::from_secs(15), "all is given back", || {
        let now = (probe.threads(), probe.descriptors());
        (now.0 <= before.0 + 4 && now.1 <= before.1).then_some(())
    });
    assert!(probe.is_running());
}

#[test]
fn stderr_that_nobody_reads_does_not_hold_up_answers() {
    let primary = Postgres::start();
    let (probe, unread) = Probe::of(primary.conninfo()).start_unread();
    probe.becomes_ready();
    let health = probe.watch_health();
    fill_stderr(&probe);
    for _ in 0..3 {
        primary.stop();
        assert_eq!(probe.ready().status, 503);
        primary.start_again();
        probe.becomes_ready();
    }
    drop(health);
    // It also ends as promised.
    drop(probe);
    drop(unread);
}

/// Fills the pipe that is the probe's stderr, and keeps it full until nobody
/// can read it any more: the probe's next line does not fit.
fn fill_stderr(probe: &Probe) {
    let path = format!("/proc/{}/fd/2", probe.pid());
    let mut stderr = File::options()
        .write(true)
        .open(path)
        .expect("its stderr is a pipe");
    let (wrote, written) = mpsc::channel();
    thread::spawn(
        move || {
            while stderr.write_all(&[b'.'; 512]).is_ok() && wrote.send(()).is_ok() {}
        },
    );
    written.recv_timeout(ms(1_000)).expect("something fits");
    while written.recv_timeout(ms(200)).is_ok() {}
}
