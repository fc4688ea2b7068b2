//! This process's own TCP sockets, found through `/proc/self/fd`: the only way
//! to reach a socket that a library keeps to itself.

use std::collections::HashSet;
use std::fs;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::fs::fstat;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::sockopt::{set_socket_linger, socket_acceptconn};
use rustix::net::{getpeername, getsockname};

/// A private duplicate of one of this process's connected TCP sockets.
///
/// The duplicate keeps the connection open until it is dropped, whatever the
/// owner does, so it should be held for moments only.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// Which socket it is: its inode, which no other has while it is held.
    pub inode: u64,
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

    /// Ends the connection both ways, and tells a peer that goes on sending so as
    /// soon as the owner has let go of the socket.
    pub fn reset(&self) {
        // Not to be had any more is as good.
        let _ = set_socket_linger(&self.stream, Some(Duration::ZERO));
        self.cut();
    }

    /// Ends our half of the connection.
    pub fn finish(&self) {
        // Already ended is as good.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Returns how many bytes the other end has sent so far, read or not;
    /// `None` where the kernel does not tell (before Linux 4.1).
    pub fn received_bytes(&self) -> Option<u64> {
        tcp_info(&self.stream)?
            .get(BYTES_RECEIVED..BYTES_RECEIVED + 8)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u64::from_ne_bytes)
    }

    /// Borrows the socket as a stream.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

/// Where `tcpi_bytes_received` stands in the kernel's `struct tcp_info`: after 8
/// bytes of flags, 24 numbers of 32 bits and 3 of 64 bits (`linux/tcp.h`; fields
/// are only ever added at the end).
const BYTES_RECEIVED: usize = 8 + 24 * 4 + 3 * 8;

/// Asks the kernel about a connection; the answer is as long as its structure.
#[allow(unsafe_code)]
fn tcp_info(stream: &TcpStream) -> Option<Vec<u8>> {
    let mut info = vec![0_u8; BYTES_RECEIVED + 8];
    let mut length = libc::socklen_t::try_from(info.len()).ok()?;
    // SAFETY: the descriptor is open as long as `stream` is borrowed, and the
    // kernel writes at most `length` bytes, which is the size of `info`.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    info.truncate(usize::try_from(length).ok()?);
    (result == 0).then_some(info)
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
        inode,
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
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Instant;

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
        client.write_all(&[0; 1_000]).expect("sends");
        let limit = Instant::now() + Duration::from_secs(5);
        while found.connected[0].received_bytes() != Some(1_000) {
            assert!(
                Instant::now() < limit,
                "{:?}",
                found.connected[0].received_bytes()
            );
        }

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
