//! tiny_http, behind the gate: it reads the heads that the gate has checked, over one
//! socket that nobody else can reach, and never meets a client.

use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, bind, connect, getsockname,
    listen, shutdown, socket_with,
};
pub use tiny_http::{Method, Request};

/// Longest wait for tiny_http. It answers within microseconds; this long means that
/// it never will.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// One tiny_http and our connection to it.
pub struct Server {
    /// Never dropped: tiny_http's own destructor wants a name for its socket.
    inner: &'static tiny_http::Server,
    stream: UnixStream,
}

impl Server {
    /// Starts one. Nobody else can connect to it: its socket has no name that is
    /// known before it has stopped listening. (A connection that waits is accepted
    /// from a socket that is shut down; the next look finds that out, and with it
    /// tiny_http's accept thread ends.)
    ///
    /// # Errors
    ///
    /// Fails if there is no descriptor or thread for it.
    pub fn open() -> io::Result<Server> {
        let socket = || {
            socket_with(
                AddressFamily::UNIX,
                SocketType::STREAM,
                SocketFlags::CLOEXEC,
                None,
            )
        };
        let (listening, ours) = (socket()?, socket()?);
        // The kernel gives it a free abstract name.
        bind(&listening, &SocketAddrUnix::new_unnamed())?;
        // Room for one, and that is us, or we find out.
        listen(&listening, 0)?;
        set_socket_timeout(&ours, Timeout::Send, Some(MAX_WAIT))?;
        connect(&ours, &getsockname(&listening)?)?;
        shutdown(&listening, Shutdown::Both)?;
        let inner = tiny_http::Server::from_listener(UnixListener::from(listening), None);
        let inner = Box::leak(Box::new(inner.map_err(io::Error::other)?));
        let mut server = Server {
            inner,
            stream: UnixStream::from(ours),
        };
        server.await_end_of_accepting()?;
        Ok(server)
    }

    /// Hands over heads, each of them [`super::head::Head::write_to`]'s.
    ///
    /// # Errors
    ///
    /// Fails if tiny_http takes nothing any more.
    pub fn write(&mut self, heads: &[u8]) -> io::Result<()> {
        self.stream.write_all(heads)
    }

    /// Returns the request of the next head that was handed over.
    ///
    /// # Errors
    ///
    /// Fails if tiny_http has not read it in time.
    pub fn read(&mut self) -> io::Result<Request> {
        let request = self.inner.recv_timeout(MAX_WAIT)?;
        request.ok_or_else(|| io::ErrorKind::TimedOut.into())
    }

    /// Ends it, as if it had died.
    #[cfg(test)]
    pub fn end(&self) {
        let ended = self.stream.shutdown(std::net::Shutdown::Both);
        ended.expect("it was connected");
    }

    /// The accept thread says once that it has ended, ahead of every request.
    fn await_end_of_accepting(&mut self) -> io::Result<()> {
        match self.inner.recv_timeout(MAX_WAIT) {
            Err(_) => Ok(()),
            Ok(_) => Err(io::Error::other("tiny_http still accepts")),
        }
    }
}

/// Gives a request up without answering through tiny_http.
pub fn consume(request: Request) {
    drop(request.into_writer());
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADS: &[u8] = b"GET /a HTTP/1.1\r\n\r\nHEAD /b HTTP/1.1\r\nAccept: x\r\n\r\n";

    #[test]
    fn requests_come_in_the_order_of_their_heads() {
        let mut server = Server::open().expect("a socket and a thread");
        for _ in 0..1_000 {
            server.write(HEADS).expect("it reads");
            for expected in ["/a", "/b"] {
                let request = server.read().expect("it has read it");
                assert_eq!(request.url(), expected);
                consume(request);
            }
        }
    }

    #[test]
    fn one_that_has_ended_is_found_out() {
        let mut server = Server::open().expect("a socket and a thread");
        server.end();
        let taken = server.write(HEADS).and_then(|()| server.read());
        assert!(taken.is_err());
    }
}
