//! From a request to its answer, or to the board that will answer it.

use std::mem;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tiny_http::{HTTPVersion, Method, Request};

use super::conversation::{Conversations, Ticket};
use super::counts::Counts;
use super::exposition::Format;
use super::orders::Orders;
use super::reply::{BodyPart, Framing, Reply};
use super::routes::{self, Route};
use super::{metrics, page, status};
use crate::crash::DISPOSABLE;
use crate::probe::board::{Asker, Board};
use crate::probe::guard::{Guard, GuardWatch};
use crate::probe::verdict::Verdict;
use crate::threads::lock;

/// tiny_http itself has read bodies up to this; larger ones are read when the
/// request is dropped.
const BODY_ALREADY_READ: usize = 1024;

/// A body up to this is read and dropped by a disposable thread, so that a
/// client that sends one sees its answer. tiny_http allocates what is missing
/// at once, so anything larger is not waited for.
const BODY_DISCARDED: usize = 1024 * 1024;

/// A disposable thread looks this often whether earlier answers are written.
const OWED_AGAIN: Duration = Duration::from_millis(5);

/// How far the front door is on its way to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Everybody is answered.
    Open,
    /// Told to stop: nobody is ready any more.
    Draining,
    /// Each is answered for the last time.
    Closing,
}

/// Works on one request after the other; never waits for anything.
pub struct Clerk<'a> {
    /// Who is asked.
    pub board: &'a Board<Waiter>,
    /// What is owed on which connection.
    pub conversations: &'a Arc<Conversations>,
    /// What is counted.
    pub counts: &'a Counts,
    /// What the bouncer is told.
    pub orders: Orders,
    /// When the process began.
    pub started: SystemTime,
    /// Who reads what the guard says of itself.
    pub guard: Option<Arc<GuardWatch>>,
}

/// A parked request: it will be answered with the verdict.
pub struct Waiter {
    ticket: Ticket,
    nodes: Arc<[String]>,
    last: bool,
}

impl Asker for Waiter {
    fn settle(self, verdict: Verdict) {
        let mut reply = Reply::verdict(&verdict, &self.nodes);
        reply.close = self.last;
        self.ticket.answer(reply);
    }
}

impl Clerk<'_> {
    /// Answers a request, or sees to it that it will be answered.
    pub fn take(&self, request: Request, phase: Phase) {
        let Some(peer) = request.remote_addr().copied() else {
            // Only Unix sockets have none, and we do not listen on one.
            return mem::forget(request);
        };
        if let Some(refusal) = unwanted_body(&request) {
            return self.refuse_body(request, peer, refusal);
        }
        let route = match method_part(request.method()) {
            None => Route::Refused(routes::wrong_method()),
            Some(_) => routes::route(request.url(), &self.board.rules().nodes),
        };
        let framing = framing(&request);
        let format = Format::accepted(header(&request, "Accept"));
        let ticket = self.conversations.take_in(request, peer, framing);
        let answer = |mut reply: Reply| {
            reply.close |= phase == Phase::Closing;
            reply
        };
        match route {
            Route::Health => ticket.answer(answer(Reply::health(self.board.turns()))),
            Route::Refused(reply) => ticket.answer(answer(reply)),
            Route::Status => ticket.answer(answer(self.status())),
            Route::Metrics => ticket.answer(answer(self.metrics(format))),
            Route::Page => ticket.answer(answer(page())),
            Route::Question(_) if phase != Phase::Open => {
                let nodes = &self.board.rules().nodes;
                ticket.answer(answer(Reply::verdict(&Verdict::draining(), nodes)));
            }
            Route::Question(question) => self.board.ask(
                question,
                Waiter {
                    ticket,
                    nodes: Arc::clone(&self.board.rules().nodes),
                    last: phase == Phase::Closing,
                },
            ),
        }
    }

    fn status(&self) -> Reply {
        let text = status::render(
            &self.board.report(),
            self.board.rules(),
            self.board.uptime(),
            self.guard().as_ref(),
        );
        Reply::json(200, text)
    }

    fn guard(&self) -> Option<Guard> {
        self.guard.as_ref().map(|watch| watch.guard())
    }

    fn metrics(&self, format: Format) -> Reply {
        let (report, rules) = (self.board.report(), self.board.rules());
        let text = metrics::render(
            &report,
            rules,
            self.guard().as_ref(),
            self.counts,
            self.started,
            format,
        );
        Reply::document(200, format.content_type(), text)
    }

    /// Refuses a request with a body, on a thread that may be lost to it.
    fn refuse_body(&self, request: Request, peer: SocketAddr, refusal: Reply) {
        let length = request.body_length().unwrap_or(0);
        let label = routes::label(request.url());
        if length > BODY_DISCARDED {
            self.counts.answered(label, refusal.status, Instant::now());
            return self.forget(request, peer, &refusal);
        }
        let waits = length > BODY_ALREADY_READ || has_header(&request, "Expect");
        if !waits && !has_header(&request, "Transfer-Encoding") {
            let framing = framing(&request);
            let ticket = self.conversations.take_in(request, peer, framing);
            return ticket.answer(refusal);
        }
        self.counts.answered(label, refusal.status, Instant::now());
        self.discard(request, peer, &refusal);
    }

    /// Answers and drops the request where nobody waits: reading its body may
    /// take until the bouncer closes the connection.
    fn discard(&self, request: Request, peer: SocketAddr, refusal: &Reply) {
        let farewell = refusal.render(framing(&request));
        let conversations = Arc::clone(self.conversations);
        let owed_until = Instant::now() + self.board.rules().deadline;
        // Kept outside the closure: a thread that cannot be started must not
        // drop the request on this one.
        let held = Arc::new(Mutex::new(Some(request)));
        let taken = Arc::clone(&held);
        let orders = self.orders.clone();
        let started = thread::Builder::new()
            .name(DISPOSABLE.to_owned())
            .stack_size(64 * 1024)
            .spawn(move || {
                let request = lock(&taken).take();
                if let Some(request) = request {
                    // It comes after the answers that are still owed.
                    while conversations.owes(peer) && Instant::now() < owed_until {
                        thread::sleep(OWED_AGAIN);
                    }
                    orders.say_last(peer, farewell);
                    // Reads what was announced, until the bouncer's limit.
                    drop(request);
                    orders.cut(peer);
                }
            });
        if started.is_err() {
            let request = lock(&held).take();
            if let Some(request) = request {
                self.forget(request, peer, refusal);
            }
        }
    }

    /// Gives a request up without dropping it, and ends its connection.
    fn forget(&self, request: Request, peer: SocketAddr, refusal: &Reply) {
        // The answer goes past tiny_http, so not before one that it owes.
        let farewell = if self.conversations.owes(peer) {
            Vec::new()
        } else {
            refusal.render(framing(&request))
        };
        mem::forget(request);
        self.orders.cut_with(peer, farewell);
    }
}

/// Returns the refusal if the request brings a body or is unclear about it.
fn unwanted_body(request: &Request) -> Option<Reply> {
    let mut lengths = request
        .headers()
        .iter()
        .filter(|header| header.field.equiv("Content-Length"))
        .map(|header| header.value.as_str());
    let encoded = has_header(request, "Transfer-Encoding");
    let first = lengths.next();
    let clear = first.is_none_or(is_digits) && lengths.all(|other| Some(other) == first);
    if !clear || (encoded && first.is_some()) {
        return Some(routes::unclear_length());
    }
    let empty = first.is_none_or(|text| text.bytes().all(|b| b == b'0'));
    (encoded || !empty).then(routes::no_body_wanted)
}

fn page() -> Reply {
    Reply {
        policy: Some(page::POLICY),
        ..Reply::document(200, "text/html; charset=utf-8", page::PAGE)
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn has_header(request: &Request, name: &'static str) -> bool {
    header(request, name).is_some()
}

fn header<'a>(request: &'a Request, name: &'static str) -> Option<&'a str> {
    let mut headers = request.headers().iter();
    let found = headers.find(|header| header.field.equiv(name))?;
    Some(found.value.as_str())
}

fn method_part(method: &Method) -> Option<BodyPart> {
    match method {
        Method::Get => Some(BodyPart::Whole),
        Method::Head => Some(BodyPart::Length),
        Method::Options => Some(BodyPart::Nothing),
        _ => None,
    }
}

/// Says how the client wants its answer; the rule for keeping the connection
/// is tiny_http's own, which decides.
fn framing(request: &Request) -> Framing {
    let http_1_0 = *request.http_version() <= HTTPVersion(1, 0);
    let connection = header(request, "Connection").map(str::to_ascii_lowercase);
    let keep_alive = match connection.as_deref() {
        Some(said) if said.contains("close") || said.contains("upgrade") => false,
        Some(said) => !http_1_0 || said.contains("keep-alive"),
        None => !http_1_0,
    };
    Framing {
        body: method_part(request.method()).unwrap_or(BodyPart::Whole),
        http_1_0,
        keep_alive,
    }
}
