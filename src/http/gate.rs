//! The front door: one thread that owns the listening socket and every client's, and
//! never waits for any of them.
//!
//! Each connection has one request at a time worked on; what a client pipelines
//! beyond stays in the kernel's buffers. So answers are in order, and what a client
//! can have us hold is bounded, by how everything is done and not by counting.

mod arrivals;
mod exchange;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::sockopt::{
    set_socket_recv_buffer_size, set_socket_send_buffer_size, set_tcp_nodelay,
};
use rustix::net::{Shutdown, listen, shutdown};

use self::arrivals::{MAX_ACCEPTED, SWEEP_EVERY};
use super::access::{Hosts, Listener};
use super::client::{Client, READ_BYTES, State};
use super::clients::{Clients, Token};
use super::control::{Control, Stops};
use super::counters::Counters;
use super::handler::{Handler, Phase, Waiter};
use super::refusals::RefusalLog;
use super::server::Server;
use super::watchdog;
use crate::pg::tls::CertificateWatch;
use crate::probe::board::Board;
use crate::probe::guard_status::GuardWatch;
use crate::probe::verdict::Verdict;
use crate::runtime::limits::Room;

/// Connections that may wait to be let in, as far as the kernel allows
/// (`net.core.somaxconn`): the standard library asks for 128, and what comes
/// above is silently dropped and tries again a second later.
const BACKLOG: i32 = 4096;

/// What the kernel holds of one connection, each way (it doubles these). Most answers
/// fit; the rest of a longer one waits here.
const SEND_BUFFER_BYTES: usize = 32 * 1024;
const RECEIVE_BUFFER_BYTES: usize = 16 * 1024;

/// So often at the end: as many as can wait.
const MAX_LAST_ACCEPTS: usize = BACKLOG as usize / MAX_ACCEPTED;

/// Events taken at once.
const MAX_EVENTS: usize = 256;

/// Longest sleep, so that the watchdog sees that the gate turns.
const MAX_SLEEP: Duration = Duration::from_secs(1);

/// After the drain: leave when nothing came for this long …
const QUIET: Duration = Duration::from_millis(100);

/// … and in any case after this, well within the promised second.
const MAX_CLOSING: Duration = Duration::from_millis(700);

/// Who was let in last has so long for a request, which was sent already.
const LAST_QUIET: Duration = Duration::from_millis(30);
const MAX_LEAVING: Duration = Duration::from_millis(150);

/// What epoll says of these, instead of a client.
const LISTENER: u64 = u64::MAX;
const CONTROL: u64 = u64::MAX - 1;

/// What the front door needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many connections there is room for.
    pub room: Room,
    /// Time without a finished request, and for reading one answer.
    pub request_timeout: Duration,
    /// Time to answer `draining` once told to stop.
    pub drain: Duration,
    /// The listening socket is a supervisor's: others go on using it after us.
    pub is_lent: bool,
    /// Who reads what the guard says of itself, if it was said where.
    pub guard: Option<Arc<GuardWatch>>,
    /// Names by which details may be asked for.
    pub hosts: Hosts,
    /// Who sees the nodes' certificates.
    pub certificates: Vec<CertificateWatch>,
}

/// The front door, open but not yet answering.
pub struct Gate {
    /// The first is `--listen`'s.
    listeners: Vec<(TcpListener, Listener)>,
    epoll: OwnedFd,
    control: Arc<Control>,
    server: Server,
}

impl Gate {
    /// Opens the front door at `listeners`, which clients can connect to from now on.
    ///
    /// # Errors
    ///
    /// Fails if a socket does not take its options, or for want of descriptors or
    /// threads.
    pub fn open(listeners: Vec<(TcpListener, Listener)>) -> io::Result<Gate> {
        let control = Arc::new(Control::new()?);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (listener, _) in &listeners {
            // Accepted sockets inherit them.
            set_socket_send_buffer_size(listener, SEND_BUFFER_BYTES)?;
            set_socket_recv_buffer_size(listener, RECEIVE_BUFFER_BYTES)?;
            set_tcp_nodelay(listener, true)?;
            listener.set_nonblocking(true)?;
            listen(listener, BACKLOG)?;
            watch(&epoll, listener, LISTENER, epoll::EventFlags::IN)?;
        }
        watch(&epoll, control.wakes(), CONTROL, epoll::EventFlags::IN)?;
        Ok(Gate {
            listeners,
            epoll,
            control,
            server: Server::open()?,
        })
    }

    /// Returns the addresses that were bound, in the order of the sockets.
    ///
    /// # Errors
    ///
    /// Fails if a socket has none.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let sockets = self.listeners.iter();
        sockets.map(|(socket, _)| socket.local_addr()).collect()
    }

    /// Returns what the gate is told things by.
    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// Answers requests until it is told to stop.
    ///
    /// # Errors
    ///
    /// Fails if a thread cannot be started, or if nobody can be answered any more.
    pub fn answer(self, board: &Board<Waiter>, options: Options) -> io::Result<()> {
        watchdog::start(&self.control)?;
        let counts = Counters::default();
        let handler = Handler {
            board,
            counts: &counts,
            control: Arc::clone(&self.control),
            started: SystemTime::now(),
            guard: options.guard.clone(),
            hosts: &options.hosts,
            certificates: &options.certificates,
            documents: RefCell::default(),
        };
        let mut rounds = Rounds {
            gate: self,
            handler: &handler,
            options: &options,
            clients: Clients::default(),
            queue: VecDeque::new(),
            verdicts: Vec::new(),
            heads: Vec::new(),
            in_flight: VecDeque::new(),
            scratch: vec![0; READ_BYTES].into(),
            is_open: true,
            accept_from: Some(Instant::now()),
            swept: Instant::now(),
            trimmed: Instant::now(),
            waiting: 0,
            restarts: 0,
            refusals: RefusalLog::default(),
            phase: Phase::Open,
            phase_since: Instant::now(),
            quiet_since: Instant::now(),
        };
        rounds.run()
    }
}

fn watch(
    epoll: &OwnedFd,
    source: impl AsFd,
    name: u64,
    events: epoll::EventFlags,
) -> io::Result<()> {
    let data = epoll::EventData::new_u64(name);
    Ok(epoll::add(
        epoll,
        source,
        data,
        events | epoll::EventFlags::ET,
    )?)
}

/// The gate while it turns.
struct Rounds<'a> {
    gate: Gate,
    handler: &'a Handler<'a>,
    options: &'a Options,
    clients: Clients,
    /// Who may have a request, in the order in which it is their turn.
    queue: VecDeque<Token>,
    verdicts: Vec<(Token, Verdict)>,
    /// Heads for tiny_http, one after the other.
    heads: Vec<u8>,
    /// Whose requests tiny_http has not given back yet, in the order of their heads.
    in_flight: VecDeque<Token>,
    scratch: Box<[u8]>,
    is_open: bool,
    /// When to accept; nobody is there to be let in otherwise.
    accept_from: Option<Instant>,
    swept: Instant,
    trimmed: Instant,
    /// Questions that the board has not answered yet.
    waiting: usize,
    restarts: u32,
    refusals: RefusalLog,
    phase: Phase,
    phase_since: Instant,
    /// No request has come since.
    quiet_since: Instant,
}

impl Rounds<'_> {
    fn run(&mut self) -> io::Result<()> {
        while self.phase != Phase::Closing || !self.is_done(MAX_CLOSING, QUIET) {
            self.round()?;
        }
        self.turn_away();
        self.phase_since = Instant::now();
        while !self.is_done(MAX_LEAVING, LAST_QUIET) {
            self.round()?;
        }
        log::info!("shutdown event=done");
        Ok(())
    }

    fn round(&mut self) -> io::Result<()> {
        self.gate.control.turned();
        self.wait()?;
        self.handler.forget_documents();
        let mut verdicts = mem::take(&mut self.verdicts);
        let stops = self.gate.control.take(&mut verdicts);
        self.enter(self.phase_now(stops));
        self.accept();
        self.say(&mut verdicts);
        self.verdicts = verdicts;
        self.take_requests()?;
        self.trim();
        self.sweep();
        Ok(())
    }

    fn phase_now(&self, stops: Stops) -> Phase {
        match stops.first {
            None => Phase::Open,
            Some(at) if at.elapsed() < self.options.drain && stops.count < 2 => Phase::Draining,
            Some(_) => Phase::Closing,
        }
    }

    fn enter(&mut self, phase: Phase) {
        if phase == self.phase {
            return;
        }
        if self.phase == Phase::Open {
            let drain = self.options.drain.as_secs_f64();
            log::info!("shutdown event=begun drain_seconds={drain}");
        }
        self.phase = phase;
        self.phase_since = Instant::now();
        self.quiet_since = self.phase_since;
    }

    /// Says whether everybody has been answered and nothing new came for a while, or
    /// whether there was `limit` time for it.
    fn is_done(&self, limit: Duration, quiet: Duration) -> bool {
        let owes = |client: &Client| matches!(client.state, State::Asked | State::Writing);
        let owed = !self.queue.is_empty() || self.clients.iter().any(|(_, it)| owes(it));
        self.phase_since.elapsed() >= limit || (self.quiet_since.elapsed() >= quiet && !owed)
    }

    /// Lets in who has connected, refuses who comes from now on, and has everybody
    /// answered who still waits. Who connects to a supervisor's socket waits for
    /// whoever uses it next.
    fn turn_away(&mut self) {
        self.gate
            .listeners
            .drain(..usize::from(self.options.is_lent));
        self.accept_from = Some(Instant::now());
        (0..MAX_LAST_ACCEPTS).for_each(|_| self.accept());
        for (listener, _) in &self.gate.listeners {
            // Not listening any more is as good.
            let _ = shutdown(listener, Shutdown::Read);
        }
        self.is_open = false;
        self.handler.board.close();
    }

    /// Waits until something happens, and takes note of it.
    fn wait(&mut self) -> io::Result<()> {
        let patience = self.patience();
        let mut events = Vec::with_capacity(MAX_EVENTS);
        match epoll::wait(
            &self.gate.epoll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&patience),
        ) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events {
            let flags = event.flags;
            match event.data.u64() {
                LISTENER => self.accept_from = self.accept_from.or_else(|| Some(Instant::now())),
                CONTROL => {}
                data => self.note(Token::from_u64(data), flags),
            }
        }
        Ok(())
    }

    fn patience(&self) -> Timespec {
        let now = Instant::now();
        let until = |at: Instant| at.saturating_duration_since(now);
        let mut patience = MAX_SLEEP;
        if self.clients.count() > 0 {
            patience = patience.min(until(self.swept + SWEEP_EVERY));
        }
        if let Some(at) = self.accept_from.filter(|_| self.is_open) {
            patience = patience.min(until(at));
        }
        if self.phase != Phase::Open {
            patience = patience.min(QUIET / 10);
        }
        let has_work = !self.queue.is_empty() || !self.in_flight.is_empty();
        if has_work || !self.gate.control.may_sleep() {
            patience = Duration::ZERO;
        }
        Timespec {
            tv_sec: 0,
            tv_nsec: patience
                .min(MAX_SLEEP - Duration::from_nanos(1))
                .subsec_nanos()
                .into(),
        }
    }

    /// Takes note of what has happened to a client.
    fn note(&mut self, token: Token, flags: epoll::EventFlags) {
        let Some(client) = self.clients.get(token) else {
            return;
        };
        if flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP) {
            self.clients.remove(token);
            return;
        }
        client.is_readable |= flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::RDHUP);
        match client.state {
            State::Asked => {}
            State::Writing => self.send_on(token),
            State::Reading | State::Lingering => self.enqueue(token),
        }
    }

    fn enqueue(&mut self, token: Token) {
        if let Some(client) = self.clients.get(token)
            && !mem::replace(&mut client.is_queued, true)
        {
            self.queue.push_back(token);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::thread;

    use super::*;
    use crate::probe::board::Rules;
    use crate::probe::verdict::Policy;

    fn ask(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).expect("it listens");
        let asked = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(asked).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }

    #[test]
    fn tiny_http_that_has_ended_is_replaced() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let gate = Gate::open(vec![(listener, Listener::Roles)]).expect("it opens");
        let address = gate.addresses().expect("bound")[0];
        let control = Arc::clone(gate.control());
        gate.server.end();
        let board = Board::new(Rules {
            nodes: Arc::from(["a".to_owned()]),
            policy: Policy::Primary,
            deadline: Duration::from_secs(1),
            interval: Duration::from_secs(1),
            stuck_after: Duration::from_secs(10),
        });
        let options = Options {
            room: crate::runtime::limits::room_for(8),
            request_timeout: Duration::from_secs(10),
            drain: Duration::ZERO,
            is_lent: false,
            guard: None,
            hosts: None,
            certificates: Vec::new(),
        };
        let answering = thread::spawn(move || gate.answer(&board, options));
        assert!(ask(address).starts_with("HTTP/1.1 500 "));
        assert!(ask(address).starts_with("HTTP/1.1 200 "));
        control.stop();
        let ended = answering.join().expect("no panic");
        assert!(ended.is_ok(), "{ended:?}");
    }
}
