//! Who is being talked to: the requests of each connection, answered in order.
//!
//! tiny_http makes the answer to a pipelined request wait, on the thread that
//! writes it, until the one before is written. So an answer is written only
//! when its turn has come, and no thread waits for another's request.

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tiny_http::Request;

use super::counts::Counts;
use super::orders::Orders;
use super::reply::{Framing, Reply};
use super::routes;
use crate::threads::lock;

/// Every connection that has sent a whole request, by the client's address.
pub struct Conversations {
    all: Mutex<HashMap<SocketAddr, Arc<Conversation>>>,
    orders: Orders,
    counts: Arc<Counts>,
}

/// The requests of one connection that have not been answered yet.
pub struct Conversation {
    peer: SocketAddr,
    orders: Orders,
    counts: Arc<Counts>,
    inner: Mutex<Inner>,
}

struct Inner {
    waiting: VecDeque<Slot>,
    /// Number of the first slot; numbers go up by one.
    first: u64,
    last_done: Instant,
    broken: bool,
}

struct Slot {
    request: Request,
    framing: Framing,
    label: &'static str,
    arrived: Instant,
    answer: Option<Reply>,
}

/// The right to answer one request, once.
pub struct Ticket {
    conversation: Arc<Conversation>,
    number: u64,
}

/// What the bouncer wants to know of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// A request is waiting for its answer.
    pub busy: bool,
    /// When a request was last answered, or first seen.
    pub last_done: Instant,
}

impl Conversations {
    /// Starts without any.
    pub fn new(orders: Orders, counts: Arc<Counts>) -> Conversations {
        Conversations {
            all: Mutex::new(HashMap::new()),
            orders,
            counts,
        }
    }

    /// Takes a request in. Its body must be of no concern: the request is
    /// dropped where it is answered.
    pub fn take_in(&self, request: Request, peer: SocketAddr, framing: Framing) -> Ticket {
        let conversation = {
            let mut all = lock(&self.all);
            let new = || Arc::new(Conversation::new(peer, self));
            Arc::clone(all.entry(peer).or_insert_with(new))
        };
        let number = conversation.push(request, framing);
        Ticket {
            conversation,
            number,
        }
    }

    /// Counts the requests that have not been answered yet.
    pub fn unanswered(&self) -> usize {
        lock(&self.all)
            .values()
            .map(|conversation| lock(&conversation.inner).waiting.len())
            .sum()
    }

    /// Returns what is known of the connection from `peer`, if it has sent a
    /// whole request.
    pub fn standing(&self, peer: SocketAddr) -> Option<Standing> {
        let all = lock(&self.all);
        let inner = lock(&all.get(&peer)?.inner);
        Some(Standing {
            busy: !inner.waiting.is_empty(),
            last_done: inner.last_done,
        })
    }

    /// Says whether the connection from `peer` still waits for an answer.
    pub fn owes(&self, peer: SocketAddr) -> bool {
        self.standing(peer).is_some_and(|standing| standing.busy)
    }

    /// Forgets the connection from `peer`, which has been ended: another one may
    /// come from there. What it still says is met as said on a new one, and no
    /// answer reaches it.
    pub fn end(&self, peer: SocketAddr) {
        lock(&self.all).remove(&peer);
    }

    /// Forgets idle connections that `exists` does not know any more.
    pub fn forget(&self, exists: impl Fn(&SocketAddr) -> bool) {
        lock(&self.all).retain(|peer, conversation| {
            exists(peer) || !lock(&conversation.inner).waiting.is_empty()
        });
    }
}

impl Conversation {
    fn new(peer: SocketAddr, all: &Conversations) -> Conversation {
        Conversation {
            peer,
            orders: all.orders.clone(),
            counts: Arc::clone(&all.counts),
            inner: Mutex::new(Inner {
                waiting: VecDeque::new(),
                first: 0,
                last_done: Instant::now(),
                broken: false,
            }),
        }
    }

    fn push(&self, request: Request, framing: Framing) -> u64 {
        let mut inner = lock(&self.inner);
        inner.waiting.push_back(Slot {
            label: routes::label(request.url()),
            arrived: Instant::now(),
            request,
            framing,
            answer: None,
        });
        inner.first + inner.waiting.len() as u64 - 1
    }

    fn answer(&self, number: u64, reply: Reply) {
        let mut inner = lock(&self.inner);
        let index = usize::try_from(number - inner.first).expect("a place in the queue");
        inner.waiting[index].answer = Some(reply);
        while let Some(slot) = inner.pop_answered() {
            let Slot {
                request,
                framing,
                label,
                arrived,
                answer: Some(reply),
            } = slot
            else {
                break;
            };
            inner.last_done = Instant::now();
            let mut writer = request.into_writer();
            if inner.broken {
                continue;
            }
            let bytes = reply.render(framing);
            let written = writer.write_all(&bytes).and_then(|()| writer.flush());
            // A client that does not take a few hundred bytes at once has left
            // many answers unread; the next must not wait for it either.
            // After a last answer nothing is: what follows may be a body.
            inner.broken = written.is_err() || reply.close;
            self.counts.answered(label, reply.status, arrived);
            if inner.broken {
                self.orders.cut(self.peer);
            }
        }
    }
}

impl Inner {
    fn pop_answered(&mut self) -> Option<Slot> {
        self.waiting.front()?.answer.as_ref()?;
        self.first += 1;
        self.waiting.pop_front()
    }
}

impl Ticket {
    /// Answers the request, as soon as those before it are answered.
    pub fn answer(self, reply: Reply) {
        self.conversation.answer(self.number, reply);
    }
}
