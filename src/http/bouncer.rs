//! Closes connections that tiny_http would keep: it has no time limits and no
//! connection limit of its own, and keeps its sockets to itself.

use std::collections::{HashMap, HashSet};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use rustix::io::ioctl_fionread;
use rustix::net::{SendFlags, send};

use super::conversation::Conversations;
use super::counts::{Closed, Counts};
use super::orders::{Order, OrderQueue};
use crate::sockets::{self, Connection};

/// Time between two looks. A flood is cut back ten times a second; looking
/// costs some tens of microseconds while few connections are open.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A socket whose connection ended this long ago and that is still held will
/// be held for ever: tiny_http's thread for it waits for what cannot come.
const LEAKED_AFTER: Duration = Duration::from_secs(5);

/// Each leaked connection keeps a thread and two descriptors. With this many,
/// beginning anew is cheaper than running out.
const LEAKED_AT_MOST: usize = 100;

/// Time until the next look when connections are left unread, or when there are
/// more than allowed.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Connections of our own in one look, and longest wait for one: a look must
/// not take long even where everybody is unheard.
const WAKES_AT_MOST: usize = 64;
const WAKE_AT_MOST: Duration = Duration::from_millis(20);

/// After so many looks a connection is unread for another reason (it was refused,
/// say, and its client goes on sending), and nothing more is done for it.
const WAKES_FOR_ONE: u32 = 50;

/// A request line and headers hold a few hundred bytes; who has sent this much
/// without finishing a request is not about to. tiny_http would take in any
/// amount, and the memory for it.
const REQUEST_BYTES_AT_MOST: u64 = 64 * 1024;

/// What a connection may hold and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Where we are reached from here.
    pub address: SocketAddr,
    /// Connections held at once.
    pub max_connections: usize,
    /// Time without a finished request.
    pub request_timeout: Duration,
}

/// A connection as the bouncer judges it.
#[derive(Clone, Copy, Debug)]
struct Guest {
    /// Its socket's inode: addresses come again, sockets do not.
    socket: u64,
    /// It has had at least one request answered.
    known: bool,
    /// A request of it is being worked on.
    busy: bool,
    /// Since its last finished request, or since it was first seen.
    idle: Duration,
    /// What it has sent since then, as far as that is known.
    sent_bytes: u64,
}

/// What the bouncer remembers from one look to the next, by the socket's inode.
#[derive(Default)]
struct Memory {
    cut: HashSet<u64>,
    /// Looks at which a connection was found unread, in a row.
    unheard: HashMap<u64, u32>,
    first_seen: HashMap<u64, Instant>,
    /// What each had sent when it was last seen to have finished a request, and
    /// when it had finished it.
    heard: HashMap<u64, (Instant, u64)>,
    ended: HashMap<u64, Instant>,
}

/// Runs the bouncer; returns when nobody can give orders any more. It calls
/// `worn_out`, once and with the cause, when too many connections have leaked.
pub fn run(
    orders: &OrderQueue,
    limits: Limits,
    conversations: &Conversations,
    counts: &Counts,
    worn_out: impl FnOnce(String),
) {
    let mut worn_out = Some(worn_out);
    let mut memory = Memory::default();
    let mut next_look = Instant::now();
    loop {
        let wait = next_look.saturating_duration_since(Instant::now());
        let mut told: Vec<Order> = match orders.0.recv_timeout(wait) {
            Ok(order) => vec![order],
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        told.extend(orders.0.try_iter());
        let found = sockets::find(|local| local.port() == limits.address.port());
        carry_out(told, &found.connected, conversations, counts);
        counts.connected(found.connected.len());
        if Instant::now() < next_look {
            continue;
        }
        let unheard = memory.unheard(&found.connected, conversations);
        (0..unheard.min(WAKES_AT_MOST)).for_each(|_| wake(limits.address));
        let hurry = unheard > 0 || found.connected.len() > limits.max_connections;
        let pace = if hurry { LOOK_AGAIN } else { LOOK_EVERY };
        next_look = Instant::now() + pace;
        look(&found.connected, limits, conversations, counts, &mut memory);
        let leaked = memory.leaked(&found.ended);
        if leaked >= LEAKED_AT_MOST
            && let Some(worn_out) = worn_out.take()
        {
            worn_out(format!("{leaked} connections have leaked"));
        }
    }
}

/// Connects to our own port and leaves: a thread that has seen that takes up
/// the next connection of the queue.
fn wake(address: SocketAddr) {
    // A full backlog means that the accept thread has enough to do already.
    let _ = TcpStream::connect_timeout(&address, WAKE_AT_MOST);
}

impl Memory {
    /// Counts the connections that have sent something which nobody reads, each
    /// for [`WAKES_FOR_ONE`] looks. tiny_http takes a thread that was just woken
    /// for one that waits, so of connections that come together some are queued
    /// behind threads that are all taken.
    fn unheard(&mut self, connections: &[Connection], conversations: &Conversations) -> usize {
        let waits = |it: &&Connection| {
            !conversations.owes(it.peer) && ioctl_fionread(it.stream()).is_ok_and(|bytes| bytes > 0)
        };
        let waiting = connections.iter().filter(waits).map(|it| it.inode);
        let waiting: HashSet<u64> = waiting.collect();
        self.unheard.retain(|socket, _| waiting.contains(socket));
        let mut count = 0;
        for socket in waiting {
            let looks = self.unheard.entry(socket).or_default();
            *looks += 1;
            count += usize::from(*looks <= WAKES_FOR_ONE);
        }
        count
    }

    fn leaked(&mut self, ended: &[u64]) -> usize {
        let now = Instant::now();
        self.ended.retain(|inode, _| ended.contains(inode));
        for inode in ended {
            self.ended.entry(*inode).or_insert(now);
        }
        let old = |since: &&Instant| now.duration_since(**since) >= LEAKED_AFTER;
        self.ended.values().filter(old).count()
    }
}

fn carry_out(
    told: Vec<Order>,
    connections: &[Connection],
    conversations: &Conversations,
    counts: &Counts,
) {
    for order in told {
        let found = connections.iter().find(|it| it.peer == order.peer);
        if let Some(connection) = found {
            if !order.farewell.is_empty() {
                // Sent if it fits at once: nobody is waited for here.
                let _ = send(connection.stream(), &order.farewell, SendFlags::DONTWAIT);
            }
            if order.listen_on {
                connection.finish();
            } else {
                connection.cut();
                conversations.end(order.peer);
            }
            counts.closed(Closed::Refused);
        }
    }
}

fn look(
    connections: &[Connection],
    limits: Limits,
    conversations: &Conversations,
    counts: &Counts,
    memory: &mut Memory,
) {
    let Memory {
        first_seen, heard, ..
    } = memory;
    let now = Instant::now();
    let present: HashMap<u64, &Connection> = connections.iter().map(|it| (it.inode, it)).collect();
    let peers: HashSet<SocketAddr> = connections.iter().map(|it| it.peer).collect();
    first_seen.retain(|socket, _| present.contains_key(socket));
    heard.retain(|socket, _| present.contains_key(socket));
    conversations.forget(|peer| peers.contains(peer));
    let guests: Vec<Guest> = connections
        .iter()
        .map(|connection| {
            let seen = *first_seen.entry(connection.inode).or_insert(now);
            let standing = conversations.standing(connection.peer);
            let since = standing.map_or(seen, |standing| standing.last_done.max(seen));
            let received = connection.received_bytes().unwrap_or(0);
            let before = if standing.is_some() { received } else { 0 };
            let heard = heard.entry(connection.inode).or_insert((since, before));
            if heard.0 != since {
                *heard = (since, received);
            }
            Guest {
                sent_bytes: received.saturating_sub(heard.1),
                socket: connection.inode,
                known: standing.is_some(),
                busy: standing.is_some_and(|standing| standing.busy),
                idle: now.saturating_duration_since(since),
            }
        })
        .collect();
    for (socket, why) in unwelcome(guests, limits) {
        // Once cut it may stay for a while: it is told and counted once.
        if let Some(connection) = present.get(&socket)
            && memory.cut.insert(socket)
        {
            log::debug!("connection event=closed reason={}", why.word());
            match why {
                Closed::TooLarge => connection.reset(),
                _ => connection.cut(),
            }
            counts.closed(why);
        }
    }
    memory.cut.retain(|socket| present.contains_key(socket));
}

/// Picks those who have to go: all who are idle too long or have sent too much,
/// and above the limit first those who never finished a request, then those
/// idle for longest.
fn unwelcome(guests: Vec<Guest>, limits: Limits) -> Vec<(u64, Closed)> {
    let total = guests.len();
    let mut idle: Vec<Guest> = guests.into_iter().filter(|guest| !guest.busy).collect();
    idle.sort_by_key(|guest| (guest.known, std::cmp::Reverse(guest.idle)));
    let too_many = total.saturating_sub(limits.max_connections);
    let verdict = |(place, guest): (usize, &Guest)| {
        if place < too_many {
            Some((guest.socket, Closed::TooMany))
        } else if guest.sent_bytes > REQUEST_BYTES_AT_MOST {
            Some((guest.socket, Closed::TooLarge))
        } else if guest.idle > limits.request_timeout {
            Some((guest.socket, Closed::TimedOut))
        } else {
            None
        }
    };
    idle.iter().enumerate().filter_map(verdict).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        address: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1),
        max_connections: 2,
        request_timeout: Duration::from_secs(10),
    };

    const NOBODY: [u64; 0] = [];

    fn guest(socket: u64, known: bool, busy: bool, idle_seconds: u64) -> Guest {
        Guest {
            socket,
            known,
            busy,
            idle: Duration::from_secs(idle_seconds),
            sent_bytes: 0,
        }
    }

    fn cut(guests: &[Guest]) -> Vec<u64> {
        let cut = unwelcome(guests.to_vec(), LIMITS);
        let mut sockets: Vec<u64> = cut.into_iter().map(|(socket, _)| socket).collect();
        sockets.sort_unstable();
        sockets
    }

    #[test]
    fn who_is_idle_too_long_goes_and_who_is_busy_stays() {
        assert_eq!(
            cut(&[guest(1, true, false, 11), guest(2, false, false, 11)]),
            [1, 2]
        );
        assert_eq!(
            cut(&[guest(1, true, true, 60), guest(2, true, false, 9)]),
            NOBODY
        );
    }

    #[test]
    fn who_sends_more_than_a_request_holds_goes() {
        let sends = |bytes, busy| Guest {
            sent_bytes: bytes,
            ..guest(1, true, busy, 0)
        };
        assert_eq!(cut(&[sends(REQUEST_BYTES_AT_MOST + 1, false)]), [1]);
        assert_eq!(cut(&[sends(REQUEST_BYTES_AT_MOST, false)]), NOBODY);
        assert_eq!(cut(&[sends(REQUEST_BYTES_AT_MOST + 1, true)]), NOBODY);
    }

    #[test]
    fn above_the_limit_strangers_go_first_then_the_longest_idle() {
        let four = [
            guest(1, true, false, 5),
            guest(2, false, false, 1),
            guest(3, true, false, 2),
            guest(4, true, true, 9),
        ];
        assert_eq!(cut(&four), [1, 2]);
        assert_eq!(cut(&four[..3]), [2]);
        assert_eq!(cut(&four[..2]), NOBODY);
    }
}
