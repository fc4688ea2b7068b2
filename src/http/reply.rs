//! Answers and their bytes on the wire.

use std::borrow::Cow;
use std::time::SystemTime;

use serde::Serialize;

use crate::probe::verdict::Verdict;

/// Methods that every path takes, as the `Allow` header lists them.
pub const ALLOW: &str = "GET, HEAD, OPTIONS";

/// An answer, before it is known how the client wants it framed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
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

impl Reply {
    /// Answers with a document.
    pub fn document(
        status: u16,
        content_type: &'static str,
        body: impl Into<Cow<'static, str>>,
    ) -> Reply {
        Reply {
            status,
            body: body.into(),
            content_type,
            policy: None,
            close: false,
        }
    }

    /// Answers with a JSON document.
    pub fn json(status: u16, body: impl Into<Cow<'static, str>>) -> Reply {
        Reply::document(status, "application/json", body)
    }

    /// Says a verdict: 200 or 503.
    pub fn verdict(verdict: &Verdict, nodes: &[String]) -> Reply {
        let age = |age: std::time::Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let body = VerdictBody {
            ok: verdict.ok,
            reason: verdict.reason.word(),
            node: verdict.node.map(|node| nodes[node].as_str()),
            detail: verdict.detail.as_deref(),
            age_ms: verdict.age.map(age),
        };
        Reply::json(if verdict.ok { 200 } else { 503 }, json(&body))
    }

    /// Says whether our own machinery turns.
    pub fn health(turns: bool) -> Reply {
        if turns {
            return Reply::json(200, Cow::Borrowed("{\"ok\":true}\n"));
        }
        let body = ErrorBody {
            ok: false,
            error: "stuck",
            detail: "pgpair's own loop does not turn",
        };
        Reply::json(503, json(&body))
    }

    /// Refuses a request: `error` is a word, `detail` says what would do.
    pub fn refusal(status: u16, error: &str, detail: &str) -> Reply {
        let body = ErrorBody {
            ok: false,
            error,
            detail,
        };
        Reply::json(status, json(&body))
    }

    /// Ends the connection after this answer.
    pub fn and_close(mut self) -> Reply {
        self.close = true;
        self
    }

    /// Renders the whole answer, head and body.
    pub fn render(&self, framing: Framing) -> Vec<u8> {
        let length = match framing.body {
            BodyPart::Nothing => 0,
            BodyPart::Whole | BodyPart::Length => self.body.len(),
        };
        let version = if framing.http_1_0 { "1.0" } else { "1.1" };
        let connection = match (framing.keep_alive && !self.close, framing.http_1_0) {
            (false, _) => "Connection: close\r\n",
            (true, true) => "Connection: keep-alive\r\n",
            (true, false) => "",
        };
        let allow = match (framing.body, self.status) {
            (BodyPart::Nothing, _) | (_, 405) => format!("Allow: {ALLOW}\r\n"),
            _ => String::new(),
        };
        let retry = if self.status == 503 {
            "Retry-After: 1\r\n"
        } else {
            ""
        };
        let policy = self.policy.map_or(String::new(), |policy| {
            format!(
                "Content-Security-Policy: {policy}\r\n\
                 X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
            )
        });
        let head = format!(
            "HTTP/{version} {} {}\r\n\
             Server: pgpair\r\n\
             Date: {}\r\n\
             Cache-Control: no-store\r\n\
             Content-Type: {}\r\n\
             Content-Length: {length}\r\n\
             {policy}{allow}{retry}{connection}\r\n",
            self.status,
            phrase(self.status),
            httpdate::fmt_http_date(SystemTime::now()),
            self.content_type,
        );
        let mut bytes = head.into_bytes();
        if framing.body == BodyPart::Whole {
            bytes.extend_from_slice(self.body.as_bytes());
        }
        bytes
    }
}

fn json(value: &impl Serialize) -> Cow<'static, str> {
    let mut text = serde_json::to_string(value).expect("strings, numbers and booleans only");
    text.push('\n');
    Cow::Owned(text)
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Payload Too Large",
        503 => "Service Unavailable",
        _ => "Unknown",
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

    fn text(reply: &Reply, framing: Framing) -> String {
        String::from_utf8(reply.render(framing)).expect("text")
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
        let reply = Reply::verdict(&verdict, &["a".to_owned(), "b".to_owned()]);
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
        let reply = Reply::health(true);
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
            let mut reply = Reply::health(true);
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
