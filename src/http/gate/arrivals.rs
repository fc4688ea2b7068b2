//! Who comes in, and who has to go.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::{Rounds, watch};
use crate::http::access::{Listener, Standing};
use crate::http::client::{Client, State};
use crate::http::clients::Token;
use crate::http::counters::Closed;
use crate::http::head::Refusal;

/// Connections let in in one round.
pub(super) const MAX_ACCEPTED: usize = 64;

/// Where accepting fails for want of something, it is tried again after this.
const ACCEPT_AGAIN: Duration = Duration::from_millis(10);

/// Time between two looks at who has been idle for too long.
pub(super) const SWEEP_EVERY: Duration = Duration::from_millis(100);

/// Time between two looks at who is one too many.
const TRIM_EVERY: Duration = Duration::from_millis(10);

/// Longest time in which the client may go on sending after its last answer.
const MAX_LINGER: Duration = Duration::from_secs(2);

impl Rounds<'_> {
    /// Lets in those who have connected, a few at a time.
    pub(super) fn accept(&mut self) {
        if !self.is_open || self.accept_from.is_none_or(|at| at > Instant::now()) {
            return;
        }
        let all = 0..self.gate.listeners.len();
        self.accept_from = all.filter_map(|at| self.accept_at(at)).min();
    }

    /// Lets in those who have connected to one socket. Returns when to go on with it.
    fn accept_at(&mut self, at: usize) -> Option<Instant> {
        for _ in 0..MAX_ACCEPTED {
            if self.clients.count() >= self.options.room.at_most && !self.make_room() {
                return later();
            }
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let (socket, kind) = &self.gate.listeners[at];
            match accept_with(socket, flags) {
                Ok(socket) => self.let_in(socket, *kind),
                Err(Errno::WOULDBLOCK) => return None,
                // It has gone already, or a network was in the way.
                Err(error) if is_of_one_connection(error) => {}
                Err(error) => return self.accept_without(at, error),
            }
        }
        Some(Instant::now())
    }

    /// Goes on although something is missing that a connection needs: a descriptor,
    /// most likely. That is said of an empty queue too.
    fn accept_without(&mut self, at: usize, error: Errno) -> Option<Instant> {
        log::debug!("listen event=accept_failed cause={error:?}");
        let mut queue = [PollFd::new(&self.gate.listeners[at].0, PollFlags::IN)];
        if poll(&mut queue, Some(&Timespec::default())) == Ok(0) {
            return None;
        }
        self.make_room();
        later()
    }

    /// Has one go for another. Returns whether there is one.
    fn make_room(&mut self) -> bool {
        let token = self.clients.first_to_go(1, true).pop();
        token.is_some_and(|token| self.close(token, Closed::TooMany))
    }

    /// Has those go that are too many, of those who do not wait for an answer.
    pub(super) fn trim(&mut self) {
        let most = self.options.room.connections;
        if self.clients.count() <= most || self.trimmed.elapsed() < TRIM_EVERY {
            return;
        }
        self.trimmed = Instant::now();
        let idle = |client: &Client| client.state != State::Asked;
        let idle = self.clients.iter().filter(|(_, it)| idle(it)).count();
        let too_many = idle.saturating_sub(most);
        for token in self.clients.first_to_go(too_many, false) {
            self.close(token, Closed::TooMany);
        }
    }

    fn let_in(&mut self, socket: OwnedFd, listener: Listener) {
        let stream = TcpStream::from(socket);
        let standing = Standing::of(&stream, listener);
        let token = self.clients.insert(Client::new(stream, standing));
        let Some(client) = self.clients.get(token) else {
            return;
        };
        let all = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP;
        match watch(&self.gate.epoll, client.stream(), token.to_u64(), all) {
            Ok(()) => self.enqueue(token),
            Err(error) => {
                log::debug!("connection event=not_watched cause={error:?}");
                self.close(token, Closed::TooMany);
            }
        }
    }

    /// Closes a connection without another word. Returns whether it was there.
    pub(super) fn close(&mut self, token: Token, why: Closed) -> bool {
        let was_there = self.clients.remove(token).is_some();
        if was_there {
            log::debug!("connection event=closed reason={}", why.word());
            self.handler.counts.closed(why);
        }
        was_there
    }

    /// Sends those away whose time is over, and counts who is there.
    pub(super) fn sweep(&mut self) {
        if self.swept.elapsed() < SWEEP_EVERY {
            return;
        }
        self.swept = Instant::now();
        let limit = self.options.request_timeout;
        let over = |client: &Client| match client.state {
            State::Asked => false,
            State::Reading | State::Writing => client.since.elapsed() > limit,
            State::Lingering => client.since.elapsed() > MAX_LINGER,
        };
        let all = self.clients.iter().filter(|(_, client)| over(client));
        let all: Vec<Token> = all.map(|(token, _)| token).collect();
        all.into_iter().for_each(|token| self.send_away(token));
        self.count();
    }

    /// Ends what a client has taken too long for.
    fn send_away(&mut self, token: Token) {
        let Some(client) = self.clients.get(token) else {
            return;
        };
        match client.state {
            State::Reading if client.has_begun() => self.refuse(token, Refusal::TimedOut),
            State::Reading => _ = self.close(token, Closed::TimedOut),
            State::Writing => _ = self.close(token, Closed::Unread),
            // It has had its answer.
            State::Lingering | State::Asked => _ = self.clients.remove(token),
        }
    }

    fn count(&self) {
        let unsent = self.clients.iter().map(|(_, it)| it.unsent_bytes()).sum();
        let counts = self.handler.counts;
        counts.connected(self.clients.count(), self.waiting, unsent);
    }
}

/// When those are let in who have to wait in the kernel's queue for a moment.
#[allow(clippy::unnecessary_wraps)]
fn later() -> Option<Instant> {
    Some(Instant::now() + ACCEPT_AGAIN)
}

/// Errors of `accept` that concern the connection only that was to be accepted
/// (accept(2) has the list), or nothing at all.
fn is_of_one_connection(error: Errno) -> bool {
    matches!(
        error,
        Errno::INTR
            | Errno::CONNABORTED
            | Errno::PERM
            | Errno::PROTO
            | Errno::NETDOWN
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::NONET
            | Errno::HOSTUNREACH
            | Errno::OPNOTSUPP
            | Errno::NETUNREACH
    )
}
