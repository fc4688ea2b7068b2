//! This process's own TCP sockets, found through `/proc/self/fd`: the only way
//! to reach a socket that a library keeps to itself.

use std::collections::HashSet;
use std::fs;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use rustix::fs::fstat;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::sockopt::socket_acceptconn;
use rustix::net::{getpeername, getsockname};

/// A private duplicate of one of this process's connected TCP sockets.
///
/// The duplicate keeps the connection open until it is dropped, whatever the
/// owner does, so it should be held for moments only.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// Our end.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
}

impl Connection {
    /// Ends the connection both ways: whoever reads or writes it returns.
    pub fn cut(&self) {
        // Already ended is as good.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Ends our half of the connection.
    pub fn finish(&self) {
        // Already ended is as good.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Borrows the socket as a stream.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

/// This process's TCP sockets of one kind, each once, however many descriptors
/// it has.
#[derive(Debug, Default)]
pub struct Found {
    /// Those that are connected.
    pub connected: Vec<Connection>,
    /// Inodes of those whose connection has ended but which are still held.
    pub ended: Vec<u64>,
}

/// Finds the sockets that `wanted` (given our end) picks.
pub fn find(wanted: impl Fn(SocketAddr) -> bool) -> Found {
    let mut found = Found::default();
    let mut seen = HashSet::new();
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return found;
    };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    for number in numbers {
        let Some(inode) = socket_inode(number).filter(|inode| seen.insert(*inode)) else {
            continue;
        };
        match duplicate(number, inode, &wanted) {
            Some(State::Connected(connection)) => found.connected.push(connection),
            Some(State::Ended) => found.ended.push(inode),
            None => {}
        }
    }
    found
}

enum State {
    Connected(Connection),
    Ended,
}

fn socket_inode(number: RawFd) -> Option<u64> {
    let link = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
    let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
    inode.parse().ok()
}

/// Duplicates descriptor `number` if it still is the socket with this inode:
/// another thread may have closed it and the number may be in use again.
fn duplicate(number: RawFd, inode: u64, wanted: impl Fn(SocketAddr) -> bool) -> Option<State> {
    let copy = dup(number)?;
    if fstat(&copy).ok()?.st_ino != inode {
        return None;
    }
    let local = SocketAddr::try_from(getsockname(&copy).ok()?).ok()?;
    if !wanted(local) || socket_acceptconn(&copy).ok()? {
        return None;
    }
    let peer = match getpeername(&copy) {
        Ok(peer) => SocketAddr::try_from(peer?).ok()?,
        Err(_) => return Some(State::Ended),
    };
    Some(State::Connected(Connection {
        stream: TcpStream::from(copy),
        local,
        peer,
    }))
}

#[allow(unsafe_code)]
fn dup(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: the number may be closed or reused by another thread at any
    // time. It is borrowed for one `fcntl` call only, which then fails, or
    // duplicates something else, which the caller finds out by its inode.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl_dupfd_cloexec(borrowed, 3).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_connection_is_found_once_and_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let mut client = TcpStream::connect(("127.0.0.1", port)).expect("connects");
        let (server, _) = listener.accept().expect("accepts");
        let second = server.try_clone().expect("clones");

        let ours = |local: SocketAddr| local.port() == port;
        let found = find(ours);
        assert_eq!(found.connected.len(), 1, "{found:?}");
        assert!(found.ended.is_empty(), "the listener is none: {found:?}");
        let peer = found.connected[0].peer;
        assert_eq!(peer, client.local_addr().expect("connected"));

        found.connected[0].cut();
        let mut rest = Vec::new();
        assert_eq!(client.read_to_end(&mut rest).expect("ends"), 0);
        drop((client, found));
        let found = find(ours);
        assert!(found.connected.is_empty(), "{found:?}");
        assert_eq!(found.ended.len(), 1, "still held: {found:?}");

        drop((server, second));
        assert!(find(ours).ended.is_empty());
    }

    #[test]
    fn a_number_that_is_no_socket_is_passed_over() {
        assert_eq!(socket_inode(RawFd::MAX), None);
        assert!(duplicate(RawFd::MAX, 1, |_| true).is_none());
    }
}
