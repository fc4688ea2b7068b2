//! What clients ask, and what they are told.

use std::io;
use std::time::Instant;

use super::Rounds;
use crate::http::access::Origin;
use crate::http::client::{Sent, State};
use crate::http::clients::Token;
use crate::http::counters::Closed;
use crate::http::handler::{Caller, Phase};
use crate::http::head::Refusal;
use crate::http::response::Response;
use crate::http::routes;
use crate::http::server::{self, Request, Server};
use crate::probe::verdict::Verdict;

/// What all clients together may have us hold, and what one is always let have: a
/// common request.
const MAX_HELD_BYTES: usize = 16 * 1024 * 1024;
const FREE_BYTES: usize = 4 * 1024;

/// Clients looked at in one round, requests worked on, and the length of their heads:
/// so long others wait who come meanwhile.
const MAX_LOOKS: usize = 256;
const MAX_BATCH: usize = 64;
const MAX_BATCH_BYTES: usize = 64 * 1024;

/// tiny_http is started anew so many times in a row; then something else is wrong.
const MAX_RESTARTS: u32 = 3;

impl Rounds<'_> {
    /// Hands the requests of those whose turn it is to tiny_http, and answers those of
    /// the round before: tiny_http reads while the gate looks who has come.
    pub(super) fn take_requests(&mut self) -> io::Result<()> {
        let read = self.in_flight.len();
        self.collect();
        if !self.in_flight.is_empty() {
            self.quiet_since = Instant::now();
        }
        let written = self.gate.server.write(&self.heads);
        let served = written.and_then(|()| self.serve(read));
        served.or_else(|error| self.restart_server(&error))
    }

    /// Has those ask whose turn it is, at most [`MAX_BATCH`] of them.
    fn collect(&mut self) {
        self.heads.clear();
        let most = self.in_flight.len() + MAX_BATCH;
        for _ in 0..self.queue.len().min(MAX_LOOKS) {
            if self.in_flight.len() == most || self.heads.len() >= MAX_BATCH_BYTES {
                break;
            }
            let next = self.queue.pop_front();
            if let Some((token, client)) = next.and_then(|it| Some((it, self.clients.get(it)?))) {
                client.is_queued = false;
                self.look(token);
            }
        }
    }

    /// Looks for a request of a client, or for the end of its sending.
    fn look(&mut self, token: Token) {
        let Some(client) = self.clients.get(token) else {
            return;
        };
        if client.state == State::Lingering {
            if client.discard(&mut self.scratch).unwrap_or(true) {
                self.clients.remove(token);
            }
            return;
        }
        if client.state != State::Reading {
            return;
        }
        if client.read(&mut self.scratch).is_err() {
            self.clients.remove(token);
            return;
        }
        match client.head() {
            Ok(Some(head)) => {
                let (length, framing, refusal) = (head.length, head.framing, head.refusal);
                let origin = Origin::of(head.headers, &self.options.hosts);
                if refusal.is_none() {
                    head.write_to(&mut self.heads);
                    self.in_flight.push_back(token);
                }
                client.ask(length, framing, origin);
                if let Some(refusal) = refusal {
                    self.refuse(token, refusal);
                }
            }
            Ok(None) => self.await_more(token),
            Err(refusal) => self.refuse(token, refusal),
        }
        self.bound(token, Closed::TooLarge);
    }

    fn await_more(&mut self, token: Token) {
        match self.clients.get(token) {
            Some(client) if client.is_at_end() => drop(self.clients.remove(token)),
            Some(client) if client.is_readable => self.enqueue(token),
            _ => {}
        }
    }

    /// Answers so many requests that tiny_http has read, or is about to.
    fn serve(&mut self, count: usize) -> io::Result<()> {
        for _ in 0..count {
            let request = self.gate.server.read()?;
            if let Some(token) = self.in_flight.pop_front() {
                self.handle(token, request);
            }
            self.restarts = 0;
        }
        Ok(())
    }

    fn handle(&mut self, token: Token, request: Request) {
        if let Some(client) = self.clients.get(token) {
            client.label = routes::label(request.url());
            let caller = Caller {
                client: token,
                standing: client.standing,
                origin: client.origin,
            };
            let is_full = self.waiting >= 2 * self.options.room.at_most;
            let reply = self.handler.handle(&request, caller, self.phase, is_full);
            match reply {
                Ok(Some(reply)) => self.answer(token, reply),
                Ok(None) => self.waiting += 1,
                Err(refusal) => self.refuse(token, refusal),
            }
        }
        server::consume(request);
    }

    /// Takes another tiny_http, as this one does not read. Who waits for it is told
    /// that it failed.
    fn restart_server(&mut self, error: &io::Error) -> io::Result<()> {
        log::error!("listen event=restarted cause={error:?}");
        self.restarts += 1;
        if self.restarts > MAX_RESTARTS {
            return Err(io::Error::other("tiny_http does not read"));
        }
        self.gate.server = Server::open()?;
        while let Some(token) = self.in_flight.pop_front() {
            self.refuse(token, Refusal::Internal);
        }
        Ok(())
    }

    /// Hands out the verdicts that have come.
    pub(super) fn say(&mut self, verdicts: &mut Vec<(Token, Verdict)>) {
        for (token, verdict) in verdicts.drain(..) {
            self.waiting = self.waiting.saturating_sub(1);
            let reply = self.handler.verdict(&verdict);
            self.answer(token, reply);
        }
    }

    /// Refuses what has come from a client, and closes its connection.
    pub(super) fn refuse(&mut self, token: Token, refusal: Refusal) {
        let Some(client) = self.clients.get(token) else {
            return;
        };
        client.give_up();
        self.refusals.log(refusal, client);
        self.handler.counts.refused(refusal);
        self.handler.counts.closed(match refusal {
            Refusal::TooLarge => Closed::TooLarge,
            Refusal::TimedOut => Closed::TimedOut,
            _ => Closed::Refused,
        });
        self.answer(token, refusal.reply());
    }

    fn answer(&mut self, token: Token, mut reply: Response) {
        let Some(client) = self.clients.get(token) else {
            return;
        };
        if client.state != State::Asked {
            return;
        }
        reply.close |= self.phase == Phase::Closing;
        let counts = self.handler.counts;
        counts.answered(client.label, reply.status, client.asked);
        let bytes = reply.render(client.framing());
        let sent = client.answer(bytes, reply.close);
        self.after_sending(token, sent);
    }

    pub(super) fn send_on(&mut self, token: Token) {
        if let Some(client) = self.clients.get(token) {
            let sent = client.send();
            self.after_sending(token, sent);
        }
    }

    fn after_sending(&mut self, token: Token, sent: Sent) {
        let Some(client) = self.clients.get(token) else {
            return;
        };
        match sent {
            Sent::Failed => drop(self.clients.remove(token)),
            Sent::Part => self.bound(token, Closed::Unread),
            Sent::All if client.go_on() => drop(self.clients.remove(token)),
            Sent::All => {
                if client.has_more() {
                    self.enqueue(token);
                }
                self.clients.count_held(token);
            }
        }
    }

    /// Closes a connection that has us hold what would be too much of all together.
    fn bound(&mut self, token: Token, why: Closed) {
        let total = self.clients.count_held(token);
        let own = self
            .clients
            .get(token)
            .map_or(0, |client| client.held_bytes());
        if total > MAX_HELD_BYTES && own > FREE_BYTES {
            self.close(token, why);
        }
    }
}
