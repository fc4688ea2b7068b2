//! What `/health`, `/ready` and every other path answer, and how.

use std::net::SocketAddr;

use crate::support::fake::{self, Fake};
use crate::support::http::{Answer, Connection, request};
use crate::support::{Pair, Postgres, Probe, eventually, ms};

/// A probe of a server that is not there: all that needs no PostgreSQL.
fn probe_of_nobody() -> Probe {
    Probe::of(refusing(fake::nobody())).start()
}

fn refusing(address: SocketAddr) -> String {
    let (host, port) = (address.ip(), address.port());
    format!("host={host} port={port} user=pgpair password=hunter2 sslmode=disable")
}

fn raw(probe: &Probe, bytes: &str) -> Answer {
    let mut connection = probe.connect();
    connection.send(bytes);
    connection.answer_to(bytes.split(' ').next().expect("a method"))
}

#[test]
fn running_primary_is_ready_and_the_answer_says_which_and_how_old() {
    let primary = Postgres::start();
    let probe = Probe::watching(&primary);
    let answer = probe.ready();
    let said = answer.json();
    assert_eq!(
        (answer.status, &said["node"]),
        (200, &primary.name().into())
    );
    let age = said["age_ms"].as_u64().expect("a number");
    assert!(
        u128::from(age) <= answer.took.as_millis(),
        "older than the request: {answer:?}"
    );
    assert_eq!(answer.header("Retry-After"), None);
}

#[test]
fn nobody_listening_is_refused_at_once() {
    let probe = probe_of_nobody();
    let answer = probe.is_not_ready(&["refused"]);
    assert!(answer.took < probe.deadline, "{answer:?}");
}

#[test]
fn every_name_of_a_path_answers_alike() {
    let probe = probe_of_nobody();
    for path in ["/health", "/liveness", "/livez"] {
        let answer = probe.get(path);
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, "{\"ok\":true}\n"),
            "{path}"
        );
    }
    for path in [
        "/ready",
        "/readyz",
        "/nodes/127.0.0.1/ready",
        "/nodes/127.0.0.1/readyz",
    ] {
        let answer = probe.get(path);
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (503, "refused"),
            "{path}"
        );
    }
    assert_eq!(probe.get("/nodes/127.0.0.1/health").status, 200);
}

#[test]
fn each_node_is_asked_for_alone_by_its_name() {
    let pair = Pair::start();
    let probe = Probe::of(pair.conninfo()).with("nodes", "a,b").start();
    probe.becomes_ready();
    for (path, status, reason) in [
        ("/ready", 200, "ok"),
        ("/nodes/a/ready", 200, "ok"),
        ("/nodes/b/ready", 503, "in_recovery"),
    ] {
        let answer = probe.get(path);
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (status, reason),
            "{path}"
        );
    }
    let unknown = probe.get("/nodes/c/ready");
    assert_eq!(unknown.status, 404);
    assert!(
        unknown.body.contains("a, b"),
        "it lists the known: {}",
        unknown.body
    );
}

#[test]
fn ready_policy_decides_which_nodes_must_answer() {
    let pair = Pair::start();
    let one_gone = [pair.standby.conninfo(), pair.conninfo()];
    for (policy, standby_alone, both) in
        [("primary", 503, 200), ("any", 200, 200), ("all", 200, 200)]
    {
        for (conninfo, expected) in one_gone.iter().zip([standby_alone, both]) {
            let probe = Probe::of(conninfo).with("ready", policy).start();
            assert_eq!(probe.ready().status, expected, "{policy}: {conninfo}");
        }
    }
    let any = Probe::of(pair.conninfo()).with("ready", "any").start();
    let all = Probe::of(pair.conninfo()).with("ready", "all").start();
    all.becomes_ready();
    pair.primary.kill();
    all.is_not_ready(&["refused", "shutting_down", "timed_out"]);
    any.becomes_ready();
}

#[test]
fn head_has_the_head_of_get_and_options_says_what_is_allowed() {
    let probe = probe_of_nobody();
    for path in ["/health", "/ready", "/nope"] {
        let mut connection = probe.connect();
        let get = connection.get(path);
        let head = connection.ask("HEAD", path);
        let options = connection.ask("OPTIONS", path);
        assert_eq!(
            (head.status, options.status),
            (get.status, get.status),
            "{path}"
        );
        for name in ["Content-Type", "Cache-Control", "Server", "Retry-After"] {
            assert_eq!(head.header(name), get.header(name), "{path} {name}");
        }
        assert!(
            head.header("Content-Length")
                .is_some_and(|length| length != "0")
        );
        assert_eq!(options.header("Allow"), Some("GET, HEAD, OPTIONS"));
        assert_eq!(options.body, "");
        // Nothing is left over that would be taken for the next answer.
        assert_eq!(connection.get("/health").status, 200);
    }
}

#[test]
fn every_answer_says_that_it_must_not_be_kept_and_who_gave_it() {
    let probe = probe_of_nobody();
    for path in ["/health", "/ready", "/nope", "/ready?x", "/"] {
        let answer = probe.get(path);
        assert_eq!(answer.header("Cache-Control"), Some("no-store"), "{path}");
        assert_eq!(answer.header("Server"), Some("pgpair"), "{path}");
        assert_eq!(
            answer.header("Content-Type"),
            Some("application/json"),
            "{path}"
        );
        assert!(answer.body.ends_with("}\n"), "{path}: {}", answer.body);
        assert!(answer.json()["ok"].is_boolean(), "{path}: {}", answer.body);
    }
}

#[test]
fn what_cannot_be_answered_is_refused_with_what_would_do() {
    let probe = probe_of_nobody();
    for (method, path, status, named) in [
        ("GET", "/nope", 404, "/nope"),
        ("GET", "/ready/", 404, "/ready/"),
        ("GET", "/nodes/other/ready", 404, "127.0.0.1"),
        ("GET", "/ready?lag=1", 400, "lag"),
        ("GET", "/health?verbose", 400, "verbose"),
        ("POST", "/ready", 405, "GET"),
        ("PUT", "/health", 405, "GET"),
        ("DELETE", "/nope", 405, "GET"),
        ("TRACE", "/health", 405, "GET"),
        ("BREW", "/health", 405, "GET"),
    ] {
        let answer = probe.connect().ask(method, path);
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert!(
            answer.body.contains(named),
            "{method} {path}: {}",
            answer.body
        );
        let allow = answer.header("Allow");
        assert_eq!(allow.is_some(), status == 405, "{method} {path}: {allow:?}");
    }
}

#[test]
fn http_1_0_without_host_works_and_closes_unless_asked_to_stay() {
    let probe = probe_of_nobody();
    let answer = raw(&probe, "GET /health HTTP/1.0\r\n\r\n");
    assert_eq!((answer.status, answer.version.as_str()), (200, "HTTP/1.0"));

    let mut closing = probe.connect();
    closing.send("OPTIONS /health HTTP/1.0\r\n\r\n");
    assert_eq!(closing.answer_to("OPTIONS").status, 200);
    assert!(closing.closes_within(ms(1_000)));

    let mut staying = probe.connect();
    for _ in 0..2 {
        staying.send("GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let answer = staying.answer();
        assert_eq!(
            (answer.status, answer.header("Connection")),
            (200, Some("keep-alive"))
        );
    }
}

#[test]
fn targets_are_understood_in_the_forms_that_clients_send() {
    let probe = probe_of_nobody();
    for (target, status) in [
        ("http://pgpair:5000/health", 200),
        ("http://pgpair:5000/ready", 503),
        ("http://pgpair:5000/nope", 404),
        ("/health?", 200),
        ("*", 404),
    ] {
        let answer = raw(&probe, &request("GET", target));
        assert_eq!(answer.status, status, "{target}: {answer:?}");
    }
}

#[test]
fn connection_close_is_honoured() {
    let probe = probe_of_nobody();
    let mut connection = probe.connect();
    connection.send("GET /health HTTP/1.1\r\nHost: pgpair\r\nConnection: close\r\n\r\n");
    assert!(connection.answer().closes());
    assert!(connection.closes_within(ms(1_000)));
}

#[test]
fn pipelined_requests_are_answered_in_order_and_hold_up_nobody_else() {
    let primary = Postgres::start();
    let probe = Probe::of(primary.conninfo()).with("interval", "1h").start();
    probe.becomes_ready();
    primary.pause();

    let mut pipelining = probe.connect();
    pipelining.send([request("GET", "/ready"), request("GET", "/health")].concat());
    let other = probe.get("/health");
    assert_eq!(other.status, 200);
    assert!(
        other.took < ms(500),
        "held up by another's request: {other:?}"
    );
    let first = pipelining.answer();
    probe.check_verdict(&first);
    assert_eq!((first.status, first.reason().as_str()), (503, "timed_out"));
    assert_eq!(pipelining.answer().body, "{\"ok\":true}\n");
    primary.unpause();
}

#[test]
fn before_the_first_observation_ready_waits_and_is_never_200() {
    let fake = Fake::silent();
    let probe = Probe::of(fake.conninfo()).deadline(300).start();
    let _health = probe.watch_health();
    probe.is_not_ready(&["timed_out", "overdue"]);
    probe.becomes_not_ready("overdue");
}

#[test]
fn servers_that_are_not_postgresql_are_not_ready_and_asked_at_a_modest_pace() {
    for bytes in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"\x00\x00\x00\x00",
        b"N",
        &[0xff; 512],
    ] {
        let fake = Fake::saying(bytes);
        let probe = Probe::of(fake.conninfo()).start();
        let _health = probe.watch_health();
        let mut asked = 0;
        let before = fake.accepted();
        let began = std::time::Instant::now();
        while began.elapsed() < ms(500) {
            probe.is_not_ready(&["error", "refused", "timed_out", "overdue"]);
            asked += 1;
        }
        // One try in 100 ms, and one on either side.
        let tries = fake.accepted() - before;
        assert!(
            tries <= 7,
            "{bytes:?}: {tries} connections for {asked} requests"
        );
    }
}

#[test]
fn connections_of_clients_that_left_are_given_back() {
    let probe = probe_of_nobody();
    let before = probe.descriptors();
    let clients: Vec<Connection> = (0..50).map(|_| probe.connect()).collect();
    eventually(ms(2_000), "they are accepted", || {
        (probe.descriptors() >= before + 50).then_some(())
    });
    drop(clients);
    eventually(ms(2_000), "they are given back", || {
        (probe.descriptors() <= before).then_some(())
    });
}

#[test]
fn state_is_logged_when_it_changes_and_not_per_request() {
    let primary = Postgres::start();
    let probe = Probe::watching(&primary);
    for _ in 0..100 {
        assert_eq!(probe.ready().status, 200);
    }
    let lines = |log: &str, word: &str| log.lines().filter(|line| line.contains(word)).count();
    assert_eq!(
        probe.log().lines().count(),
        3,
        "listen, node, pair: {}",
        probe.log()
    );
    primary.stop();
    probe.logs("ready=false");
    primary.start_again();
    eventually(ms(3_000), "the recovery is logged", || {
        (lines(&probe.log(), "ready=true") == 2).then_some(())
    });
}
