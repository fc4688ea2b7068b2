use std::time::Duration;

use super::*;
use crate::probe::node::Reason;

const PLAIN: Framing = Framing {
    body: BodyPart::Whole,
    http_1_0: false,
    keep_alive: true,
};

fn text(reply: &Response, framing: Framing) -> String {
    String::from_utf8(reply.render(framing)).expect("text")
}

#[test]
fn the_date_is_that_of_the_second() {
    let mut date = Date::new();
    for (milliseconds, expected) in [
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (784_111_777_000, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (784_111_777_999, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (784_111_778_000, "Sun, 06 Nov 1994 08:49:38 GMT"),
        // A clock that was set back.
        (784_111_777_500, "Sun, 06 Nov 1994 08:49:37 GMT"),
    ] {
        let now = UNIX_EPOCH + Duration::from_millis(milliseconds);
        assert_eq!(date.at(now), expected, "{milliseconds}");
    }
}

#[test]
fn an_answer_is_these_bytes() {
    let reply = Response {
        policy: Some("default-src 'none'"),
        ..Response::document(503, "text/html", "x")
    };
    let framing = Framing {
        body: BodyPart::Nothing,
        http_1_0: true,
        keep_alive: true,
    };
    let said = reply.put_together(framing, "today");
    let expected = "HTTP/1.0 503 Service Unavailable\r\nServer: pgpair\r\nDate: today\r\n\
        Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
        Cross-Origin-Resource-Policy: same-origin\r\nContent-Type: text/html\r\n\
        Content-Length: 0\r\nContent-Security-Policy: default-src 'none'\r\n\
        Referrer-Policy: no-referrer\r\nAllow: GET, HEAD, OPTIONS\r\nRetry-After: 1\r\n\
        Connection: keep-alive\r\n\r\n";
    assert_eq!(String::from_utf8_lossy(&said), expected);
}

#[test]
fn a_verdict_is_one_json_line() {
    let verdict = Verdict {
        ok: false,
        reason: Reason::TimedOut,
        node: Some(1),
        detail: Some("no answer for 4.2 s".into()),
        age: Some(Duration::from_millis(4_200)),
    };
    let reply = Response::verdict(&verdict, &["a".to_owned(), "b".to_owned()]);
    assert_eq!(reply.status, 503);
    assert_eq!(
        reply.body,
        "{\"ok\":false,\"reason\":\"timed_out\",\"node\":\"b\",\
         \"detail\":\"no answer for 4.2 s\",\"age_ms\":4200}\n"
    );
    assert!(text(&reply, PLAIN).contains("\r\nRetry-After: 1\r\n"));
}

#[test]
fn head_has_the_length_and_options_has_none() {
    let reply = Response::health(true);
    for (part, length, ends) in [
        (BodyPart::Whole, 12, "\r\n\r\n{\"ok\":true}\n"),
        (BodyPart::Length, 12, "\r\n\r\n"),
        (BodyPart::Nothing, 0, "\r\n\r\n"),
    ] {
        let said = text(
            &reply,
            Framing {
                body: part,
                ..PLAIN
            },
        );
        assert!(
            said.contains(&format!("\r\nContent-Length: {length}\r\n")),
            "{said}"
        );
        assert!(said.ends_with(ends), "{said}");
        assert_eq!(said.contains("\r\nAllow: "), part == BodyPart::Nothing);
    }
}

#[test]
fn the_connection_header_says_what_the_version_does_not() {
    for (http_1_0, keep_alive, close, expected) in [
        (false, true, false, None),
        (false, true, true, Some("close")),
        (false, false, false, Some("close")),
        (true, true, false, Some("keep-alive")),
        (true, true, true, Some("close")),
        (true, false, false, Some("close")),
    ] {
        let mut reply = Response::health(true);
        reply.close = close;
        let said = text(
            &reply,
            Framing {
                http_1_0,
                keep_alive,
                ..PLAIN
            },
        );
        let found = said
            .lines()
            .find_map(|line| line.strip_prefix("Connection: "));
        assert_eq!(found, expected, "{said}");
        let version = if http_1_0 {
            "HTTP/1.0 200 OK"
        } else {
            "HTTP/1.1 200 OK"
        };
        assert!(said.starts_with(version));
    }
}
