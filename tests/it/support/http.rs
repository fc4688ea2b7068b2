//! A small HTTP/1.1 client that hides nothing: raw bytes out, whole answers
//! in, every wait bounded.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{set_socket_linger, set_socket_recv_buffer_size};
use rustix::net::{AddressFamily, SocketType};
use serde_json::Value;

use super::PASSWORD;

/// An answer that takes longer than this does not come: several deadlines.
const ANSWER_AT_MOST: Duration = Duration::from_secs(5);

/// One complete answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub version: String,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// From before the request was written until the last byte was here.
    pub took: Duration,
}

impl Answer {
    /// Returns the first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(it, _)| it.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Returns the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("the body is not JSON: {error}: {self:?}"))
    }

    /// Returns the reason word, or nothing.
    pub fn reason(&self) -> String {
        self.json()["reason"].as_str().unwrap_or("").to_owned()
    }

    /// Says whether the server announced that it closes the connection.
    pub fn closes(&self) -> bool {
        self.header("Connection")
            .is_some_and(|said| said.eq_ignore_ascii_case("close"))
    }
}

/// A connection to an HTTP server.
pub struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
    sent: Instant,
}

impl Connection {
    /// Connects; fails the test if that is refused.
    pub fn open(address: SocketAddr) -> Connection {
        Connection::try_open(address)
            .unwrap_or_else(|error| panic!("connect to {address}: {error}"))
    }

    /// Connects.
    pub fn try_open(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&address, ANSWER_AT_MOST)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(ANSWER_AT_MOST))?;
        Ok(Connection {
            stream,
            unread: Vec::new(),
            sent: Instant::now(),
        })
    }

    /// Connects with the smallest receive buffer that there is.
    pub fn open_small(address: SocketAddr) -> Connection {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let socket = rustix::net::socket(family, SocketType::STREAM, None).expect("a socket");
        set_socket_recv_buffer_size(&socket, 1).expect("it takes the least");
        rustix::net::connect(&socket, &address).expect("it listens");
        let stream = TcpStream::from(socket);
        let patience = Some(Duration::from_millis(100));
        stream.set_write_timeout(patience).expect("a socket");
        Connection {
            stream,
            unread: Vec::new(),
            sent: Instant::now(),
        }
    }

    /// Returns another handle of the same connection, for another thread.
    pub fn also(&self) -> TcpStream {
        self.stream.try_clone().expect("a descriptor")
    }

    /// Writes bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the server takes it");
    }

    /// Writes bytes as they are; the server may have gone.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.sent = Instant::now();
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends a GET and waits for its answer.
    pub fn get(&mut self, path: &str) -> Answer {
        self.ask("GET", path)
    }

    /// Sends a request without a body and waits for its answer.
    pub fn ask(&mut self, method: &str, path: &str) -> Answer {
        self.send(request(method, path));
        self.answer_to(method)
    }

    /// As [`Connection::get`]; the server may have gone.
    pub fn try_get(&mut self, path: &str) -> io::Result<Answer> {
        self.try_send(request("GET", path))?;
        self.try_answer_to("GET")
    }

    /// Waits for the answer to a GET.
    pub fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    /// Waits for the answer to a request of this method.
    pub fn answer_to(&mut self, method: &str) -> Answer {
        self.try_answer_to(method)
            .unwrap_or_else(|error| panic!("no answer to {method}: {error}"))
    }

    /// Waits for the answer to a request of this method; the server may have
    /// gone, which is `UnexpectedEof` or `ConnectionReset`.
    pub fn try_answer_to(&mut self, method: &str) -> io::Result<Answer> {
        let limit = Instant::now() + ANSWER_AT_MOST;
        let head_bytes = loop {
            if let Some(at) = find(&self.unread, b"\r\n\r\n") {
                break at + 4;
            }
            self.read_more(limit)?;
        };
        let head =
            String::from_utf8(self.unread[..head_bytes].to_vec()).map_err(io::Error::other)?;
        let mut answer = parse_head(&head).ok_or_else(|| io::Error::other(head.clone()))?;
        let length: usize = match method {
            "HEAD" => 0,
            _ => answer
                .header("Content-Length")
                .and_then(|length| length.parse().ok())
                .ok_or_else(|| io::Error::other(format!("no Content-Length: {head}")))?,
        };
        while self.unread.len() < head_bytes + length {
            self.read_more(limit)?;
        }
        let body = self.unread[head_bytes..head_bytes + length].to_vec();
        self.unread.drain(..head_bytes + length);
        answer.body = String::from_utf8(body).map_err(io::Error::other)?;
        answer.took = self.sent.elapsed();
        assert!(
            !format!("{answer:?}").contains(PASSWORD),
            "a password: {answer:?}"
        );
        Ok(answer)
    }

    /// Waits for the server to close the connection; says whether it did.
    /// Fails the test if it sends anything first.
    pub fn closes_within(&mut self, within: Duration) -> bool {
        assert_eq!(self.unread, b"", "an answer too many");
        match self.read_more(Instant::now() + within) {
            Ok(()) => panic!(
                "an answer too many: {}",
                String::from_utf8_lossy(&self.unread)
            ),
            Err(error) => error.kind() != ErrorKind::TimedOut,
        }
    }

    /// Reads whatever still comes until the server closes the connection;
    /// `None` if it does not in time.
    pub fn rest_within(&mut self, within: Duration) -> Option<String> {
        let limit = Instant::now() + within;
        loop {
            match self.read_more(limit) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::TimedOut => return None,
                Err(_) => return Some(String::from_utf8_lossy(&self.unread).into_owned()),
            }
        }
    }

    /// Says whether no part of an answer is here.
    pub fn is_untouched(&self) -> bool {
        self.unread.is_empty()
    }

    /// Ends the connection the rude way.
    pub fn reset(self) {
        set_socket_linger(&self.stream, Some(Duration::ZERO)).expect("a socket");
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&mut self) {
        self.stream
            .shutdown(Shutdown::Write)
            .expect("still connected");
    }

    /// Says that nothing more will be sent; the server may have gone.
    pub fn try_finish_sending(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads once; `TimedOut` after `limit`, `UnexpectedEof` at the end.
    fn read_more(&mut self, limit: Instant) -> io::Result<()> {
        let left = limit.saturating_duration_since(Instant::now());
        self.stream
            .set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.unread.extend_from_slice(&bytes[..count]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::TimedOut.into()),
            Err(error) => Err(error),
        }
    }
}

/// Renders a request without a body.
pub fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

fn parse_head(head: &str) -> Option<Answer> {
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ');
    Some(Answer {
        version: words.next()?.to_owned(),
        status: words.next()?.parse().ok()?,
        headers: lines
            .take_while(|line| !line.is_empty())
            .map(|line| {
                line.split_once(": ")
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
            })
            .collect::<Option<Vec<_>>>()?,
        body: String::new(),
        took: Duration::ZERO,
    })
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}
