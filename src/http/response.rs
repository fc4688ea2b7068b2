//! Answers and their bytes on the wire.

use std::borrow::Cow;
use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::probe::verdict::Verdict;

/// Methods that every path takes, as the `Allow` header lists them.
pub const ALLOW: &str = "GET, HEAD, OPTIONS";

/// An answer, before it is known how the client wants it framed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The document.
    pub body: Cow<'static, str>,
    /// What the document is.
    pub content_type: &'static str,
    /// The `Content-Security-Policy` of a page.
    pub policy: Option<&'static str>,
    /// The connection ends with this answer.
    pub close: bool,
}

/// How an answer goes onto one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    /// What of the body is sent.
    pub body: BodyPart,
    /// The client speaks HTTP/1.0.
    pub http_1_0: bool,
    /// The connection stays open after the answer.
    pub keep_alive: bool,
}

/// What of a body is sent, by method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyPart {
    /// All of it: GET, and every refusal.
    Whole,
    /// Its length only: HEAD.
    Length,
    /// Nothing, and the length says so: OPTIONS.
    Nothing,
}

#[derive(Serialize)]
struct VerdictBody<'a> {
    ok: bool,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_ms: Option<u64>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    ok: bool,
    error: &'a str,
    detail: &'a str,
}

impl Response {
    /// Answers with a document.
    pub fn document(
        status: u16,
        content_type: &'static str,
        body: impl Into<Cow<'static, str>>,
    ) -> Response {
        Response {
            status,
            body: body.into(),
            content_type,
            policy: None,
            close: false,
        }
    }

    /// Answers with a JSON document.
    pub fn json(status: u16, body: impl Into<Cow<'static, str>>) -> Response {
        Response::document(status, "application/json", body)
    }

    /// Says a verdict: 200 or 503.
    pub fn verdict(verdict: &Verdict, nodes: &[String]) -> Response {
        let age = |age: std::time::Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let body = VerdictBody {
            ok: verdict.ok,
            reason: verdict.reason.word(),
            node: verdict.node.map(|node| nodes[node].as_str()),
            detail: verdict.detail.as_deref(),
            age_ms: verdict.age.map(age),
        };
        Response::json(if verdict.ok { 200 } else { 503 }, json(&body))
    }

    /// Says whether our own machinery turns.
    pub fn health(turns: bool) -> Response {
        if turns {
            return Response::json(200, Cow::Borrowed("{\"ok\":true}\n"));
        }
        let body = ErrorBody {
            ok: false,
            error: "stuck",
            detail: "pgpair's own loop does not turn",
        };
        Response::json(503, json(&body))
    }

    /// Refuses a request: `error` is a word, `detail` says what would do.
    pub fn refusal(status: u16, error: &str, detail: &str) -> Response {
        let body = ErrorBody {
            ok: false,
            error,
            detail,
        };
        Response::json(status, json(&body))
    }

    /// Ends the connection after this answer.
    pub fn and_close(mut self) -> Response {
        self.close = true;
        self
    }

    /// Renders the whole answer, head and body.
    pub fn render(&self, framing: Framing) -> Vec<u8> {
        DATE.with_borrow_mut(|date| self.put_together(framing, date.now()))
    }

    /// Joins the pieces in one allocation and formats nothing but the length.
    fn put_together(&self, framing: Framing, date: &str) -> Vec<u8> {
        let length = match framing.body {
            BodyPart::Nothing => 0,
            BodyPart::Whole | BodyPart::Length => self.body.len(),
        };
        let version = if framing.http_1_0 { "1.0 " } else { "1.1 " };
        let connection = match (framing.keep_alive && !self.close, framing.http_1_0) {
            (false, _) => "Connection: close\r\n",
            (true, true) => "Connection: keep-alive\r\n",
            (true, false) => "",
        };
        let [allow, methods, allow_end] = match (framing.body, self.status) {
            (BodyPart::Nothing, _) | (_, 405) => ["Allow: ", ALLOW, "\r\n"],
            _ => [""; 3],
        };
        let retry = if self.status == 503 {
            "Retry-After: 1\r\n"
        } else {
            ""
        };
        let [policy, rules, policy_end] = self.policy.map_or([""; 3], |rules| {
            [
                "Content-Security-Policy: ",
                rules,
                "\r\nReferrer-Policy: no-referrer\r\n",
            ]
        });
        let body = match framing.body {
            BodyPart::Whole => &*self.body,
            BodyPart::Length | BodyPart::Nothing => "",
        };
        let pieces = [
            "HTTP/",
            version,
            status_line(self.status),
            "\r\nServer: pgpair\r\nDate: ",
            date,
            // No page of somebody else's reads this, whatever it takes it for.
            "\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
             Cross-Origin-Resource-Policy: same-origin\r\nContent-Type: ",
            self.content_type,
            "\r\nContent-Length: ",
            &length.to_string(),
            "\r\n",
            policy,
            rules,
            policy_end,
            allow,
            methods,
            allow_end,
            retry,
            connection,
            "\r\n",
            body,
        ];
        pieces.concat().into_bytes()
    }
}

thread_local! {
    /// Every thread that answers keeps the date of the last answer.
    static DATE: RefCell<Date> = const { RefCell::new(Date::new()) };
}

/// The date as HTTP says it; it changes once a second only.
struct Date {
    /// Seconds since 1970 for which `text` is right.
    second: u64,
    text: String,
}

impl Date {
    const fn new() -> Date {
        Date {
            second: 0,
            text: String::new(),
        }
    }

    fn now(&mut self) -> &str {
        self.at(SystemTime::now())
    }

    fn at(&mut self, now: SystemTime) -> &str {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.text.is_empty() || self.second != since.as_secs() {
            self.second = since.as_secs();
            self.text = httpdate::fmt_http_date(UNIX_EPOCH + since);
        }
        &self.text
    }
}

fn json(value: &impl Serialize) -> Cow<'static, str> {
    let mut text = serde_json::to_string(value).expect("strings, numbers and booleans only");
    text.push('\n');
    Cow::Owned(text)
}

/// Every status that is ever answered: see `STATUSES` in `counts.rs`.
fn status_line(status: u16) -> &'static str {
    match status {
        200 => "200 OK",
        400 => "400 Bad Request",
        403 => "403 Forbidden",
        404 => "404 Not Found",
        405 => "405 Method Not Allowed",
        408 => "408 Request Timeout",
        413 => "413 Payload Too Large",
        431 => "431 Request Header Fields Too Large",
        503 => "503 Service Unavailable",
        505 => "505 HTTP Version Not Supported",
        _ => "500 Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
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
}
