//! This process's own TCP sockets, found through `/proc/self/fd`: the only way
//! to reach a socket that a library keeps to itself.

use std::fs;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use rustix::fs::fstat;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::getpeername;

/// Ends the connections of this process to those whom `wanted` names: whoever reads
/// or writes one returns.
pub fn cut(wanted: impl Fn(SocketAddr) -> bool) {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return;
    };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    for stream in numbers.filter_map(|number| connected(number, &wanted)) {
        // Already ended is as good.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// Duplicates descriptor `number` if it is a wanted connection: another thread may
/// have closed it, and the number may be in use again.
fn connected(number: RawFd, wanted: impl Fn(SocketAddr) -> bool) -> Option<TcpStream> {
    let inode = socket_inode(number)?;
    let copy = dup(number)?;
    if fstat(&copy).ok()?.st_ino != inode {
        return None;
    }
    let peer = SocketAddr::try_from(getpeername(&copy).ok()??).ok()?;
    wanted(peer).then(|| TcpStream::from(copy))
}

fn socket_inode(number: RawFd) -> Option<u64> {
    let link = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
    let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
    inode.parse().ok()
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
    fn a_wanted_connection_is_cut_and_no_other() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let connect = || {
            let client = TcpStream::connect(address).expect("connects");
            let (server, from) = listener.accept().expect("accepts");
            (client, server, from)
        };
        let (mut wanted, _server, from) = connect();
        let (mut other, mut others_server, _) = connect();
        cut(|peer| peer == from);
        assert_eq!(wanted.read(&mut [0]).expect("ends"), 0);
        std::io::Write::write_all(&mut others_server, b"x").expect("it is open");
        assert_eq!(other.read(&mut [0]).expect("reads"), 1);
    }

    #[test]
    fn a_number_that_is_no_socket_is_passed_over() {
        assert_eq!(socket_inode(RawFd::MAX), None);
        assert!(connected(RawFd::MAX, |_| true).is_none());
    }
}
