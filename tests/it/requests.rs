//! Requests as clients really send them, byte for byte, and those that are none: each
//! gets an answer, and the right one.

use std::time::Duration;

use crate::support::http::{Connection, request};
use crate::support::{Postgres, Probe, eventually, fake, ms};

/// Every answer to these is there at once.
const ANSWERED_WITHIN: Duration = ms(500);

/// A probe of nobody, with the default time limit: nobody waits for it here.
fn probe() -> Probe {
    let port = fake::nobody().port();
    Probe::of(format!("host=127.0.0.1 port={port} user=pgpair")).start()
}

/// Sends a request on a connection of its own; returns its status and whether the
/// connection can be used again.
fn answered(probe: &Probe, bytes: &[u8]) -> (u16, bool) {
    let text = String::from_utf8_lossy(bytes);
    let mut connection = probe.connect();
    connection.send(bytes);
    let answer = connection.try_answer_to(if bytes.starts_with(b"HEAD") {
        "HEAD"
    } else {
        "GET"
    });
    let answer = answer.unwrap_or_else(|error| panic!("{text:?}: {error}"));
    assert!(answer.took < ANSWERED_WITHIN, "{text:?}: {answer:?}");
    assert_eq!(answer.header("Server"), Some("pgpair"), "{text:?}");
    let kept = !answer.closes() && answer.version == "HTTP/1.1";
    if kept {
        assert_eq!(connection.get("/health").status, 200, "{text:?}");
    }
    (answer.status, kept)
}

#[test]
fn what_nginx_answers_is_answered() {
    let probe = probe();
    for (bytes, kept) in [
        (
            &b"GET /health HTTP/1.1\r\nHost: x\r\nX-User: Jos\xc3\xa9\r\n\r\n"[..],
            true,
        ),
        (
            b"GET /health HTTP/1.1\r\nHost: x\r\nX-User: Jos\xe9\r\n\r\n",
            true,
        ),
        (
            b"GET /health HTTP/1.1\r\nHost: x\r\nJos\xe9: x\r\n\r\n",
            true,
        ),
        (b"GET /health#Jos\xe9 HTTP/1.1\r\nHost: x\r\n\r\n", true),
        (
            b"GET http://Jos\xe9/health HTTP/1.1\r\nHost: Jos\xe9\r\n\r\n",
            true,
        ),
        (b"GET /health HTTP/1.0\n\n", false),
        (b"GET /health HTTP/1.1\nHost: x\n\n", true),
        (b"\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n", true),
        (b"\n\r\n\n\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n", true),
        (b"GET /health HTTP/1.0\r\n\r\n", false),
        (b"GET  /health   HTTP/1.1 \r\nHost: x\r\n\r\n", true),
        (
            b"GET /health HTTP/1.1\r\nHost:x\r\nX: \x01\x1f\r\n\r\n",
            true,
        ),
        (b"GET http://x:1/health HTTP/1.1\r\nHost: x\r\n\r\n", true),
        (b"GET https://x/health HTTP/1.1\r\nHost: x\r\n\r\n", true),
        (
            b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: TE\r\nConnection: close\r\n\r\n",
            false,
        ),
        (
            b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close, TE\r\n\r\n",
            false,
        ),
        (
            b"GET /health HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
            true,
        ),
        (
            b"GET /health HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n",
            true,
        ),
        (
            b"GET /health HTTP/1.1\r\nHost: x\r\nExpect: x\r\n\r\n",
            true,
        ),
        (b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n", true),
    ] {
        let text = String::from_utf8_lossy(bytes);
        assert_eq!(answered(&probe, bytes), (200, kept), "{text:?}");
    }
}

#[test]
fn client_that_closes_has_its_connection_closed() {
    let probe = probe();
    for lines in ["Connection: close", "Connection: TE\r\nConnection: close"] {
        let mut connection = probe.connect();
        connection.send(format!(
            "GET /health HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n"
        ));
        assert_eq!(connection.answer().status, 200);
        assert!(connection.closes_within(ms(500)), "{lines}");
    }
    let mut connection = probe.connect();
    let lines = "Connection: TE\r\nConnection: keep-alive";
    for _ in 0..3 {
        connection.send(format!("GET /health HTTP/1.0\r\n{lines}\r\n\r\n"));
        assert_eq!(connection.answer().status, 200);
    }
}

#[test]
fn options_of_everything_is_the_check_that_haproxy_s_manual_shows() {
    let primary = Postgres::start();
    let probe = Probe::watching(&primary);
    for version in ["1.0", "1.1"] {
        let mut connection = probe.connect();
        connection.send(format!("OPTIONS * HTTP/{version}\r\nHost: x\r\n\r\n"));
        let answer = connection.answer();
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, ""),
            "{version}"
        );
    }
    primary.stop();
    let mut connection = probe.connect();
    connection.send("OPTIONS * HTTP/1.0\r\n\r\n");
    assert_eq!(connection.answer().status, 503);
}

#[test]
fn target_with_bytes_beyond_ascii_is_answered_as_any_other() {
    let probe = probe();
    for (target, status) in [
        (&b"/jos\xe9"[..], 404),
        (b"/nodes/jos\xc3\xa9/primary", 404),
        (b"/health?jos\xe9", 400),
        (b"/replica?lag=\xff", 400),
    ] {
        let bytes = [b"GET ", target, b" HTTP/1.1\r\nHost: x\r\n\r\n"].concat();
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(answered(&probe, &bytes), (status, true), "{text:?}");
    }
}

/// What is no request, the status that it gets, and the reason that is counted.
const NONE: [(&[u8], u16, &str); 21] = [
    (b"GET /health\r\n\r\n", 400, "bad_request_line"),
    (
        b"GET /health HTTP/1.1 x\r\nHost: x\r\n\r\n",
        400,
        "bad_request_line",
    ),
    (b"GET /health HTTP/0.9\r\n\r\n", 400, "bad_request_line"),
    (
        b"GET /he\talth HTTP/1.1\r\nHost: x\r\n\r\n",
        400,
        "bad_request_line",
    ),
    (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        400,
        "bad_request_line",
    ),
    (b"\0\0\0\0", 400, "bad_request_line"),
    (b"SSH-2.0-OpenSSH_9.2\r\n", 400, "bad_request_line"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "bad_version"),
    (b"GET /health HTTP/2.0\r\n\r\n", 505, "bad_version"),
    (b"GET /health HTTP/9.9\r\n\r\n", 505, "bad_version"),
    (b"GET /health HTTP/1.1\r\n\r\n", 400, "bad_host"),
    (b"GET http://x/health HTTP/1.1\r\n\r\n", 400, "bad_host"),
    (
        b"GET /health HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
        400,
        "bad_host",
    ),
    (
        b"GET /health HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n",
        400,
        "bad_host",
    ),
    (
        b"GET /health HTTP/1.1\r\nHost: a b\r\n\r\n",
        400,
        "bad_host",
    ),
    (
        b"GET /health HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
        400,
        "bad_header_value",
    ),
    (
        b"GET /health HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n",
        400,
        "bad_header_value",
    ),
    (
        b"GET /health HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
        400,
        "bad_header",
    ),
    (
        b"GET /health HTTP/1.1\r\nHost : x\r\n\r\n",
        400,
        "bad_header",
    ),
    (
        b"GET /health HTTP/1.1\r\nHost: x\r\nNo colon\r\n\r\n",
        400,
        "bad_header",
    ),
    (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
        413,
        "body_refused",
    ),
];

#[test]
fn what_is_no_request_is_answered_closed_logged_and_counted() {
    let probe = probe();
    for (bytes, status, reason) in NONE {
        let text = String::from_utf8_lossy(bytes);
        let counted = |probe: &Probe| {
            let name = format!("pgpair_http_requests_refused_total{{reason=\"{reason}\"}} ");
            let metrics = probe.get("/metrics").body;
            let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
            line.and_then(|it| it.parse::<u64>().ok()).expect(&name)
        };
        let before = counted(&probe);
        let mut connection = probe.connect();
        connection.send(bytes);
        let answer = connection.try_answer_to("GET");
        let answer = answer.unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!(answer.status, status, "{text:?}: {answer:?}");
        assert!(
            answer.took < ANSWERED_WITHIN && answer.closes(),
            "{answer:?}"
        );
        assert_eq!(answer.json()["error"], reason, "{text:?}");
        assert!(connection.closes_within(ms(500)), "{text:?}");
        assert_eq!(counted(&probe), before + 1, "{text:?}");
        probe.logs(&format!("request event=refused reason={reason} "));
    }
    let lines = probe.log().matches("event=refused").count();
    assert_eq!(lines, 6, "one a reason: {}", probe.log());
    let code = |code: u16| format!("pgpair_http_requests_total{{path=\"other\",code=\"{code}\"}}");
    let metrics = probe.get("/metrics").body;
    assert!(
        [400, 413, 505]
            .iter()
            .all(|it| metrics.contains(&code(*it))),
        "{metrics}"
    );
}

#[test]
fn what_came_before_what_is_no_request_is_answered_first() {
    let probe = probe();
    let mut connection = probe.connect();
    connection.send(request("GET", "/health") + &request("GET", "/nope") + "\0");
    for status in [200, 404, 400] {
        assert_eq!(connection.answer().status, status);
    }
    assert!(connection.closes_within(ms(500)));
}

#[test]
fn request_that_is_left_unfinished_is_answered_when_its_time_is_over() {
    let port = fake::nobody().port();
    let recipe = Probe::of(format!("host=127.0.0.1 port={port} user=pgpair"));
    let probe = recipe.with("request-timeout", "1s").start();
    let mut slow = probe.connect();
    slow.send("GET /health HTTP/1.1\r\nHost");
    let answer = slow.answer();
    assert_eq!(answer.status, 408);
    assert!(answer.closes() && answer.took > ms(900), "{answer:?}");
    let mut gone = probe.connect();
    gone.send("GET /health HTTP/1.1\r\nHost");
    gone.finish_sending();
    assert_eq!(gone.answer().status, 400, "it will never be whole");
}

#[test]
fn refusal_of_a_head_request_has_no_body() {
    let probe = probe();
    let mut connection = probe.connect();
    connection.send("HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(connection.answer_to("HEAD").status, 413);
    assert!(connection.closes_within(ms(500)), "nothing comes after it");
}

#[test]
fn client_that_sends_a_long_body_reads_why_it_is_refused() {
    let probe = probe();
    for length in [1, 1_000, 100_000, 1_000_000] {
        let mut connection = probe.connect();
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        connection.send(head + &"x".repeat(length));
        connection.finish_sending();
        assert_eq!(connection.answer().status, 413, "{length}");
    }
}

#[test]
fn answer_that_the_kernel_does_not_take_at_once_is_whole_when_it_is_read() {
    let probe = probe();
    let page = probe.get("/ui").body;
    let mut connection = Connection::open_small(probe.address);
    connection.send(request("GET", "/ui").repeat(20));
    // By now nothing more fits into any buffer.
    eventually(ms(2_000), "an answer waits", || {
        let metrics = probe.get("/metrics").body;
        let unread = metrics
            .lines()
            .find_map(|it| it.strip_prefix("pgpair_http_unread_bytes "));
        unread.filter(|bytes| *bytes != "0").map(drop)
    });
    for _ in 0..20 {
        assert!(connection.answer().body == page, "changed on its way");
    }
}
