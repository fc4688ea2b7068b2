//! The front door: takes requests from tiny_http, asks the board, answers.

use std::io;
use std::mem;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::net::sockopt::{Timeout, set_socket_send_buffer_size, set_socket_timeout};
use rustix::net::{Shutdown, shutdown};
use tiny_http::{HTTPVersion, Method, Request, Server};

use super::bouncer::{self, Limits};
use super::conversation::{Conversations, Ticket};
use super::counts::Counts;
use super::exposition::Format;
use super::orders::Orders;
use super::reply::{BodyPart, Framing, Reply};
use super::routes::{self, Route};
use super::{metrics, page, status};
use crate::crash::DISPOSABLE;
use crate::probe::board::{Asker, Board};
use crate::probe::verdict::Verdict;
use crate::threads;
use crate::{EXIT_FRONT_DOOR, EXIT_OK};

/// Longest that writing one answer may block. An answer fits into the socket's
/// buffer at once unless the client has left many unread; 20 ms of one such
/// client do not hurt the others.
const WRITE_AT_MOST: Duration = Duration::from_millis(20);

/// The socket's buffer holds the longest answer (a page or the metrics of many
/// nodes, tens of kilobytes) however slow the client's line is.
const SEND_BUFFER_BYTES: usize = 256 * 1024;

/// tiny_http itself has read bodies up to this; larger ones are read when the
/// request is dropped.
const BODY_ALREADY_READ: usize = 1024;

/// A body up to this is read and dropped by a disposable thread, so that a
/// client that sends one sees its answer. tiny_http allocates what is missing
/// at once, so anything larger is not waited for.
const BODY_DISCARDED: usize = 1024 * 1024;

/// A disposable thread looks this often whether earlier answers are written.
const OWED_AGAIN: Duration = Duration::from_millis(5);

/// After the drain: leave when nothing came for this long …
const QUIET: Duration = Duration::from_millis(100);

/// … and in any case after this, well within the promised second.
const CLOSING_AT_MOST: Duration = Duration::from_millis(700);

/// What the front door needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// HTTP connections held at once.
    pub max_connections: usize,
    /// Time without a finished request.
    pub request_timeout: Duration,
    /// Time to answer `draining` once told to stop.
    pub drain: Duration,
}

/// The front door, open but not yet answering.
pub struct Door {
    server: Arc<Server>,
    /// The listening socket once more, to stop accepting.
    listener: TcpListener,
    address: SocketAddr,
    stop: Stop,
}

/// Tells the front door to stop; may be told from any thread.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<Mutex<Vec<Instant>>>);

impl Stop {
    fn told(&self) -> Vec<Instant> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn tell(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Instant::now());
    }
}

impl Door {
    /// Binds the address.
    ///
    /// # Errors
    ///
    /// Fails if the address cannot be bound, for example because it is taken.
    pub fn open(address: SocketAddr) -> io::Result<Door> {
        let listener = TcpListener::bind(address)?;
        // Accepted sockets inherit it. (A limit on receiving would be
        // inherited too, but it would also end `accept` when nobody calls.)
        set_socket_timeout(&listener, Timeout::Send, Some(WRITE_AT_MOST))?;
        set_socket_send_buffer_size(&listener, SEND_BUFFER_BYTES)?;
        Ok(Door {
            address: listener.local_addr()?,
            server: Arc::new(
                Server::from_listener(listener.try_clone()?, None).map_err(io::Error::other)?,
            ),
            listener,
            stop: Stop::default(),
        })
    }

    /// Returns the address that was bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells the door to stop: drain, answer what is in flight, return. Told
    /// twice, it does not drain any longer.
    pub fn stop(&self) {
        self.stop.tell();
        self.server.unblock();
    }

    /// Answers requests until it is told to stop; returns the exit code.
    ///
    /// # Errors
    ///
    /// Fails if the bouncer's thread cannot be started.
    pub fn answer(&self, board: &Arc<Board<Waiter>>, options: Options) -> io::Result<u8> {
        let (orders, queue) = Orders::channel();
        let counts = Arc::new(Counts::default());
        let conversations = Arc::new(Conversations::new(orders.clone(), Arc::clone(&counts)));
        let limits = Limits {
            address: crate::config::reachable(self.address),
            max_connections: options.max_connections,
            request_timeout: options.request_timeout,
        };
        let guests = Arc::clone(&conversations);
        let server = Arc::clone(&self.server);
        let tally = Arc::clone(&counts);
        threads::spawn("bouncer".to_owned(), move || {
            // Without being told to stop, that is the death of the server.
            bouncer::run(&queue, limits, &guests, &tally, || server.unblock());
        })?;
        let clerk = Clerk {
            board,
            conversations: &conversations,
            counts: &counts,
            orders,
            started: SystemTime::now(),
        };
        Ok(self.serve(&clerk, options.drain))
    }

    fn serve(&self, clerk: &Clerk<'_>, drain: Duration) -> u8 {
        let told = loop {
            match self.server.recv() {
                Ok(request) => clerk.take(request, Phase::Open),
                Err(error) => match self.stop.told().first() {
                    Some(told) => break *told,
                    None => {
                        log::error!("listen event=died cause={error:?}");
                        return EXIT_FRONT_DOOR;
                    }
                },
            }
        };
        log::info!("shutdown event=begun drain_seconds={}", drain.as_secs_f64());
        self.drain(clerk, told + drain);
        self.close(clerk);
        log::info!("shutdown event=done");
        EXIT_OK
    }

    fn drain(&self, clerk: &Clerk<'_>, until: Instant) {
        while Instant::now() < until && self.stop.told().len() < 2 {
            let left = until.saturating_duration_since(Instant::now());
            if let Ok(Some(request)) = self.server.recv_timeout(left) {
                clerk.take(request, Phase::Draining);
            }
        }
    }

    /// Accepts nobody any more, answers who is there, each for the last time.
    fn close(&self, clerk: &Clerk<'_>) {
        // Not listening any more is as good.
        let _ = shutdown(&self.listener, Shutdown::Read);
        let began = Instant::now();
        let mut last = began;
        while began.elapsed() < CLOSING_AT_MOST
            && (last.elapsed() < QUIET || clerk.conversations.unanswered() > 0)
        {
            if let Ok(Some(request)) = self.server.recv_timeout(QUIET / 10) {
                last = Instant::now();
                clerk.take(request, Phase::Closing);
            }
        }
        clerk.board.close();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Draining,
    Closing,
}

/// Works on one request after the other; never waits for anything.
struct Clerk<'a> {
    board: &'a Board<Waiter>,
    conversations: &'a Arc<Conversations>,
    counts: &'a Counts,
    orders: Orders,
    started: SystemTime,
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
    fn take(&self, request: Request, phase: Phase) {
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
        );
        Reply::json(200, text)
    }

    fn metrics(&self, format: Format) -> Reply {
        let (report, rules) = (self.board.report(), self.board.rules());
        let text = metrics::render(&report, rules, self.counts, self.started, format);
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
                let request = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
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
            let request = held.lock().unwrap_or_else(PoisonError::into_inner).take();
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
