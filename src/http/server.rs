//! The front door: takes requests from tiny_http until it is told to stop.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::net::sockopt::{Timeout, set_socket_send_buffer_size, set_socket_timeout};
use rustix::net::{Shutdown, listen, shutdown};
use tiny_http::{Request, Response, Server};

use super::bouncer::{self, Limits};
use super::clerk::{Clerk, Phase, Waiter};
use super::conversation::Conversations;
use super::counts::Counts;
use super::orders::Orders;
use super::watchdog::{self, Watchdog};
use crate::crash;
use crate::handover::{self, Handover};
use crate::probe::board::Board;
use crate::probe::guard::GuardWatch;
use crate::threads::{self, lock};
use crate::{EXIT_FRONT_DOOR, EXIT_OK, logging};

/// Longest that writing one answer may block. An answer fits into the socket's
/// buffer at once unless the client has left many unread; 20 ms of one such
/// client do not hurt the others.
const WRITE_AT_MOST: Duration = Duration::from_millis(20);

/// The socket's buffer holds the longest answer (a page or the metrics of many
/// nodes, tens of kilobytes) however slow the client's line is.
const SEND_BUFFER_BYTES: usize = 256 * 1024;

/// Connections that may wait to be let in, as far as the kernel allows
/// (`net.core.somaxconn`): the standard library asks for 128, and what comes
/// above is silently dropped and tries again a second later.
const BACKLOG: i32 = 4096;

/// After the drain: leave when nothing came for this long …
const QUIET: Duration = Duration::from_millis(100);

/// … and in any case after this, well within the promised second.
const CLOSING_AT_MOST: Duration = Duration::from_millis(700);

/// The process begins anew at most this often; whoever waits meanwhile is kept by
/// the kernel.
const RENEW_EVERY: Duration = Duration::from_millis(200);

/// A signal that the main thread took before it held them back has been told to
/// us within this.
const OBEYED_WITHIN: Duration = Duration::from_millis(20);

/// After so many lives in a row in which no request came in, another is no use. A
/// flood that takes all there is comes to an end sooner: each life takes in as
/// many connections as there is room for.
const UNUSED_AT_MOST: u32 = 20;

/// In which the front door closes after it was found dead; else the watchdog
/// renews it from its own thread.
const RENEWED_WITHIN: Duration = Duration::from_secs(2);

/// Longest wait for our own connection that wakes tiny_http's accept thread.
const WAKE_AT_MOST: Duration = Duration::from_millis(100);

/// What the front door needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// HTTP connections held at once.
    pub max_connections: usize,
    /// Time without a finished request.
    pub request_timeout: Duration,
    /// Time to answer `draining` once told to stop.
    pub drain: Duration,
    /// Who reads what the guard says of itself, if it was said where.
    pub guard: Option<Arc<GuardWatch>>,
}

/// How answering ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Told to stop.
    Stopped,
    /// Nobody could come in any more; [`Door::renew`] is the cure.
    Died,
}

/// The front door, open but not yet answering.
pub struct Door {
    server: Arc<Server>,
    /// The listening socket once more, to stop accepting and to hand it over.
    listener: TcpListener,
    address: SocketAddr,
    opened: Instant,
    handover: Handover,
    watchdog: Watchdog,
    told: Arc<Told>,
    /// A request has come in.
    used: AtomicBool,
}

/// What the front door was told from other threads.
#[derive(Default)]
struct Told(Mutex<Words>);

#[derive(Clone, Default)]
struct Words {
    stops: Vec<Instant>,
    /// Why nobody can come in any more.
    died: Option<String>,
    /// Whom to wake, once there is one.
    server: Option<Arc<Server>>,
}

impl Told {
    fn words(&self) -> Words {
        lock(&self.0).clone()
    }

    fn stop(&self) {
        lock(&self.0).stops.push(Instant::now());
        self.wake();
    }

    fn died(&self, cause: String) {
        lock(&self.0).died.get_or_insert(cause);
        self.wake();
    }

    fn wake(&self) {
        if let Some(server) = &lock(&self.0).server {
            server.unblock();
        }
    }
}

impl Door {
    /// Opens the front door at `listener`, which clients can connect to from
    /// now on.
    ///
    /// # Errors
    ///
    /// Fails if the socket does not take its options.
    pub fn open(listener: TcpListener, handover: Handover) -> io::Result<Door> {
        // Accepted sockets inherit it. (A limit on receiving would be
        // inherited too, but it would also end `accept` when nobody calls.)
        set_socket_timeout(&listener, Timeout::Send, Some(WRITE_AT_MOST))?;
        set_socket_send_buffer_size(&listener, SEND_BUFFER_BYTES)?;
        listen(&listener, BACKLOG)?;
        let told = Arc::new(Told::default());
        let to_tell = Arc::clone(&told);
        crash::when_exhausted(move |cause| to_tell.died(cause));
        let server = Server::from_listener(listener.try_clone()?, None).map(Arc::new);
        let server = server.map_err(io::Error::other)?;
        lock(&told.0).server = Some(Arc::clone(&server));
        let address = listener.local_addr()?;
        Ok(Door {
            address,
            server,
            listener,
            opened: Instant::now(),
            handover,
            watchdog: Watchdog::new(crate::config::reachable(address), handover.heard),
            told,
            used: AtomicBool::new(false),
        })
    }

    /// Returns the address that was bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells the door to stop: drain, answer what is in flight, return. Told
    /// twice, it does not drain any longer.
    pub fn stop(&self) {
        self.told.stop();
    }

    /// Answers requests until it is told to stop or nobody can come in any more.
    ///
    /// # Errors
    ///
    /// Fails if a thread cannot be started.
    pub fn answer(
        self: &Arc<Self>,
        board: &Arc<Board<Waiter>>,
        options: Options,
    ) -> io::Result<End> {
        let (orders, queue) = Orders::channel();
        let counts = Arc::new(Counts::after(self.handover.renewals));
        let conversations = Arc::new(Conversations::new(orders.clone(), Arc::clone(&counts)));
        let limits = Limits {
            address: crate::config::reachable(self.address),
            max_connections: options.max_connections,
            request_timeout: options.request_timeout,
        };
        let guests = Arc::clone(&conversations);
        let told = Arc::clone(&self.told);
        let tally = Arc::clone(&counts);
        threads::spawn("bouncer".to_owned(), move || {
            bouncer::run(&queue, limits, &guests, &tally, |cause| told.died(cause));
        })?;
        let door = Arc::clone(self);
        threads::spawn("watchdog".to_owned(), move || door.keep_watch())?;
        let clerk = Clerk {
            board,
            conversations: &conversations,
            counts: &counts,
            orders,
            started: SystemTime::now(),
            guard: options.guard,
        };
        handover::release_signals();
        Ok(self.serve(&clerk, options.drain))
    }

    /// Begins anew in place: another life of the process with the same listening
    /// socket, so that who waits to be let in is not turned away. Returns the
    /// exit code if that cannot be, has been of no use, or if the process is
    /// told to stop.
    pub fn renew(&self) -> u8 {
        let unused = match self.used.load(Ordering::Relaxed) {
            true => 0,
            false => self.handover.unused + 1,
        };
        let renewals = self.handover.renewals;
        if unused > UNUSED_AT_MOST {
            log::error!("listen event=gave_up renewals={renewals}");
            return EXIT_FRONT_DOOR;
        }
        handover::hold_signals();
        thread::sleep(
            RENEW_EVERY
                .saturating_sub(self.opened.elapsed())
                .max(OBEYED_WITHIN),
        );
        logging::flush();
        if !self.told.words().stops.is_empty() {
            return EXIT_OK;
        }
        let next = Handover {
            renewals: renewals.saturating_add(1),
            unused,
            heard: self.watchdog.heard() || (unused > 0 && self.handover.heard),
            lent: self.handover.lent,
        };
        let error = handover::renew(&self.listener, next);
        log::error!("listen event=not_renewed cause={error:?}");
        EXIT_FRONT_DOOR
    }

    /// Watches whether anybody can still come in. Where that is not seen to be
    /// mended, mends it itself.
    fn keep_watch(&self) {
        self.watchdog.watch(|| self.used.load(Ordering::Relaxed));
        let stops = || !self.told.words().stops.is_empty();
        if stops() {
            return;
        }
        self.told.died("nobody hears the watchdog".to_owned());
        thread::sleep(RENEWED_WITHIN);
        if !stops() {
            log::error!("listen event=died cause=\"the main thread is stuck\"");
            let exit_code = self.renew();
            logging::flush();
            process::exit(i32::from(exit_code));
        }
    }

    fn serve(&self, clerk: &Clerk<'_>, drain: Duration) -> End {
        match self.take_in(clerk) {
            Ok(told) => {
                log::info!("shutdown event=begun drain_seconds={}", drain.as_secs_f64());
                self.drain(clerk, told + drain);
                self.close(clerk, End::Stopped);
                log::info!("shutdown event=done");
                End::Stopped
            }
            Err(cause) => {
                log::error!("listen event=died cause={cause:?}");
                self.close(clerk, End::Died);
                End::Died
            }
        }
    }

    /// Takes requests in until told to stop, and returns when that was; or why
    /// there are none any more.
    fn take_in(&self, clerk: &Clerk<'_>) -> Result<Instant, String> {
        loop {
            let words = match self.server.recv() {
                Ok(request) if self.is_knock(&request) => {
                    answer_knock(request);
                    continue;
                }
                Ok(request) => {
                    self.used.store(true, Ordering::Relaxed);
                    clerk.take(request, Phase::Open);
                    continue;
                }
                Err(error) => (self.told.words(), error),
            };
            match words {
                (Words { stops, .. }, _) if !stops.is_empty() => return Ok(stops[0]),
                (words, error) => return Err(words.died.unwrap_or_else(|| error.to_string())),
            }
        }
    }

    fn is_knock(&self, request: &Request) -> bool {
        let from = request.remote_addr();
        request.url() == watchdog::TARGET && from.is_some_and(|it| self.watchdog.is_knock(*it))
    }

    fn drain(&self, clerk: &Clerk<'_>, until: Instant) {
        while Instant::now() < until && self.told.words().stops.len() < 2 {
            let left = until.saturating_duration_since(Instant::now());
            if let Ok(Some(request)) = self.server.recv_timeout(left) {
                clerk.take(request, Phase::Draining);
            }
        }
    }

    /// Accepts nobody any more, answers who is there, each for the last time.
    fn close(&self, clerk: &Clerk<'_>, end: End) {
        self.accept_no_more();
        let began = Instant::now();
        let mut last = began;
        while began.elapsed() < CLOSING_AT_MOST
            && (last.elapsed() < QUIET || clerk.conversations.unanswered() > 0)
        {
            match self.server.recv_timeout(QUIET / 10) {
                Ok(Some(request)) => {
                    last = Instant::now();
                    clerk.take(request, Phase::Closing);
                }
                Ok(None) => {}
                // Nobody is accepted any more.
                Err(_) if end == End::Stopped => self.turn_away(),
                Err(_) => {}
            }
        }
        if end == End::Stopped {
            self.turn_away();
        }
        clerk.board.close();
    }

    /// Has tiny_http's accept thread take in who has already connected, and end
    /// where it would wait. Who comes later waits in the kernel's queue.
    fn accept_no_more(&self) {
        // The thread has an open file description in common with us.
        let changed = self.listener.set_nonblocking(true);
        let reachable = crate::config::reachable(self.address);
        // Dead or deaf already is as good.
        let _ = changed.and_then(|()| TcpStream::connect_timeout(&reachable, WAKE_AT_MOST));
    }

    /// Refuses new connections from now on; those to a supervisor's socket wait
    /// for whoever uses it next.
    fn turn_away(&self) {
        if !self.handover.lent {
            // Not listening any more is as good.
            let _ = shutdown(&self.listener, Shutdown::Read);
        }
    }
}

fn answer_knock(request: Request) {
    // A knock that has gone away is none.
    let _ = request.respond(Response::empty(204));
}
