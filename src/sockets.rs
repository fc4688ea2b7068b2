//! This process's own TCP sockets, found through `/proc/self/fd`: the only way
//! to reach a socket that a library keeps to itself.

use std::fs;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use rustix::fs::fstat;
use rustix::io::fcntl_dupfd_cloexec;
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

    /// Borrows the socket as a stream.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

/// Lists this process's connected TCP sockets that `wanted` (given our end and
/// the other) picks, each once, however many descriptors it has.
pub fn connections(wanted: impl Fn(SocketAddr, SocketAddr) -> bool) -> Vec<Connection> {
    let mut found: Vec<Connection> = Vec::new();
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return found;
    };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    for number in numbers {
        let Some(inode) = socket_inode(number) else {
            continue;
        };
        let Some(connection) = duplicate(number, inode) else {
            continue;
        };
        let known =
            |other: &Connection| other.peer == connection.peer && other.local == connection.local;
        if wanted(connection.local, connection.peer) && !found.iter().any(known) {
            found.push(connection);
        }
    }
    found
}

fn socket_inode(number: RawFd) -> Option<u64> {
    let link = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
    let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
    inode.parse().ok()
}

/// Duplicates descriptor `number` if it still is the socket with this inode:
/// another thread may have closed it and the number may be in use again.
fn duplicate(number: RawFd, inode: u64) -> Option<Connection> {
    let copy = dup(number)?;
    if fstat(&copy).ok()?.st_ino != inode {
        return None;
    }
    let local = SocketAddr::try_from(getsockname(&copy).ok()?).ok()?;
    let peer = SocketAddr::try_from(getpeername(&copy).ok()??).ok()?;
    Some(Connection {
        stream: TcpStream::from(copy),
        local,
        peer,
    })
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

        let found = connections(|local, _| local.port() == port);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].peer, client.local_addr().expect("connected"));

        found[0].cut();
        let mut rest = Vec::new();
        assert_eq!(client.read_to_end(&mut rest).expect("ends"), 0);
        drop((server, second));
    }

    #[test]
    fn a_number_that_is_no_socket_is_passed_over() {
        assert_eq!(socket_inode(RawFd::MAX), None);
        assert!(duplicate(RawFd::MAX, 1).is_none());
    }
}
