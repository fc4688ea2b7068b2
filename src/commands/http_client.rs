//! A small HTTP client for our own commands: one GET, everything bounded.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::config::{self, value::shown};
use crate::runtime::exit;

/// No answer of pgpair is longer.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// An HTTP endpoint to ask.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// `host:port`, as it goes into the Host header.
    authority: String,
    path: String,
}

impl Target {
    /// Makes the target for a path of the pgpair that listens at `listen` on
    /// this host.
    pub fn own(listen: SocketAddr, path: &str) -> Target {
        Target {
            authority: config::reachable(listen).to_string(),
            path: path.to_owned(),
        }
    }

    /// Asks for `path` where no path was given.
    pub fn or_path(mut self, path: &str) -> Target {
        if self.path == "/" {
            path.clone_into(&mut self.path);
        }
        self
    }

    /// Parses `http://host[:port][/path]`.
    ///
    /// # Errors
    ///
    /// Says in one line what is wrong.
    pub fn parse(url: &str) -> Result<Target, String> {
        let refused = |what: &str| Err(format!("{}: {what}", shown(url)));
        let Some(rest) = url.strip_prefix("http://") else {
            return refused("use http://host:port/path");
        };
        if rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return refused("must not contain white space");
        }
        // What is behind # is for who shows the document.
        let rest = rest.split('#').next().unwrap_or("");
        let split = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(split);
        if authority.contains('@') {
            return refused("must not contain a user");
        }
        let Some((host, port)) = host_and_port(authority) else {
            return refused("must name a host, an IPv6 address in brackets");
        };
        let port = match port {
            None => Some(80),
            Some(text) => config::value::port(text),
        };
        let Some(port) = port else {
            return refused("has a port that is not 1 to 65535");
        };
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Target {
            authority: format!("{host}:{port}"),
            path: format!("{slash}{path}"),
        })
    }
}

impl Target {
    /// Renders the request.
    pub fn request_head(&self) -> String {
        format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: pgpair/{}\r\nConnection: close\r\n\r\n",
            self.path,
            self.authority,
            env!("CARGO_PKG_VERSION"),
        )
    }
}

/// Splits `host[:port]`, the host perhaps an IPv6 address in brackets.
fn host_and_port(authority: &str) -> Option<(&str, Option<&str>)> {
    let end = match authority.strip_prefix('[') {
        Some(rest) => {
            let address = &rest[..rest.find(']')?];
            let plain = address.split('%').next().unwrap_or("");
            plain.parse::<Ipv6Addr>().ok()?;
            address.len() + 2
        }
        None => authority.find([':', '[', ']']).unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(end);
    match rest.strip_prefix(':') {
        _ if host.is_empty() => None,
        None => rest.is_empty().then_some((host, None)),
        Some(port) => Some((host, Some(port))),
    }
}

/// Why there is no answer: one line, and the exit code for it.
#[derive(Debug)]
pub struct Trouble {
    message: String,
    /// What the command exits with.
    pub exit_code: u8,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body, as far as it was wanted.
    pub body: Vec<u8>,
}

impl Answer {
    /// Parses what came until the connection was closed, or at least its first
    /// line; `None` if that is not HTTP/1.
    pub fn parse(bytes: &[u8]) -> Option<Answer> {
        let line = std::str::from_utf8(bytes.split(|b| *b == b'\n').next()?).ok()?;
        let mut versions = ["HTTP/1.1 ", "HTTP/1.0 "].into_iter();
        let rest = versions.find_map(|version| line.strip_prefix(version))?;
        let status = rest.split_ascii_whitespace().next()?;
        let status = status
            .parse()
            .ok()
            .filter(|it| *it >= 100 && status.len() == 3)?;
        let head = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let body = head.map_or(&[][..], |at| &bytes[at + 4..]);
        Some(Answer {
            status,
            body: body.to_vec(),
        })
    }
}

/// How much of an answer is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The status only.
    Status,
    /// All of it.
    Whole,
}

/// Asks once, within `limit`.
///
/// # Errors
///
/// Fails if nobody accepts the connection, or if what was wanted has not come
/// within the limit.
pub fn get(target: &Target, wanted: Wanted, limit: Duration) -> Result<Answer, Trouble> {
    let deadline = Instant::now() + limit;
    let mut stream = connect(target, deadline)?;
    let late = |error: io::Error| {
        no_answer(
            target,
            &match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                    format!("nothing within {} ms", limit.as_millis())
                }
                _ => error.to_string(),
            },
        )
    };
    stream
        .set_write_timeout(Some(limit))
        .and_then(|()| stream.write_all(target.request_head().as_bytes()))
        .map_err(late)?;
    let bytes = read(&mut stream, wanted, deadline).map_err(late)?;
    Answer::parse(&bytes).ok_or_else(|| no_answer(target, "it does not speak HTTP"))
}

fn read(stream: &mut TcpStream, wanted: Wanted, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    while bytes.len() < ANSWER_BYTES {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // A server that drips would never let a single wait end.
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let count = stream.read(&mut piece)?;
        bytes.extend_from_slice(&piece[..count]);
        if count == 0 || (wanted == Wanted::Status && bytes.contains(&b'\n')) {
            break;
        }
    }
    Ok(bytes)
}

fn connect(target: &Target, deadline: Instant) -> Result<TcpStream, Trouble> {
    let no_connection = |why: String| Trouble {
        message: format!("no connection to {}: {why}", target.authority),
        exit_code: exit::NO_CONNECTION,
    };
    let addresses = target
        .authority
        .to_socket_addrs()
        .map_err(|error| no_connection(error.to_string()))?;
    let mut trouble = no_connection("the name has no address".to_owned());
    for address in addresses {
        let left = deadline.saturating_duration_since(Instant::now());
        match TcpStream::connect_timeout(&address, left.max(Duration::from_millis(1))) {
            Ok(stream) => return Ok(stream),
            Err(error) => trouble = no_connection(error.to_string()),
        }
    }
    Err(trouble)
}

fn no_answer(target: &Target, why: &str) -> Trouble {
    Trouble {
        message: format!("no answer from {}: {why}", target.authority),
        exit_code: exit::NO_ANSWER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (url, authority, path) in [
            ("http://h", "h:80", "/"),
            ("http://h:5000/ready", "h:5000", "/ready"),
            ("http://[::1]:5000/x?y", "[::1]:5000", "/x?y"),
            ("http://[::1]", "[::1]:80", "/"),
            ("http://h?x", "h:80", "/?x"),
            ("http://h:1/x#part", "h:1", "/x"),
            ("http://h/a@b", "h:80", "/a@b"),
        ] {
            let target = Target::parse(url).expect("parses");
            assert_eq!(
                (target.authority.as_str(), target.path.as_str()),
                (authority, path)
            );
        }
        for url in [
            "",
            "h:5000",
            "https://h",
            "http://",
            "http://:80",
            "http://h:0",
            "http://h:99999",
            "http://h:x",
            "http://u@h",
            "http://h/a b",
            "http://h/\r\nX: y",
            "http://h:+80",
            "http://[::1]x:80",
            "http://]:80",
            "http://::1",
        ] {
            assert!(Target::parse(url).is_err(), "{url:?}");
        }
    }

    #[test]
    fn our_own_is_asked_at_an_address_that_can_be_reached() {
        for (listen, authority) in [
            ("0.0.0.0:5000", "127.0.0.1:5000"),
            ("[::]:5000", "[::1]:5000"),
            ("10.0.0.1:80", "10.0.0.1:80"),
        ] {
            let target = Target::own(listen.parse().expect("an address"), "/health");
            assert_eq!(target.authority, authority);
        }
    }

    #[test]
    fn only_http_has_a_status() {
        for (head, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\n{}", Some(200)),
            ("HTTP/1.0 503 x\r\n", Some(503)),
            ("HTTP/1.1", None),
            ("SSH-2.0-x\r\n", None),
            ("HTTP/1.1 65535 x\r\n", None),
            ("HTTP/1.1 +20 x\r\n", None),
            (" HTTP/1.1 200\r\n", None),
            ("", None),
        ] {
            let status = Answer::parse(head.as_bytes()).map(|answer| answer.status);
            assert_eq!(status, expected, "{head:?}");
        }
    }
}
