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
mod tests;
