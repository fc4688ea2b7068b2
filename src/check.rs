//! `pgpair check`: one request, told by the exit code. It is the image's
//! HEALTHCHECK, so it needs no shell and no other program.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::config;

/// The endpoint answered 2xx.
pub const EXIT_HEALTHY: u8 = 0;
/// The arguments cannot be used.
pub const EXIT_BAD_ARGUMENTS: u8 = 1;
/// Nobody accepts connections there.
pub const EXIT_NO_CONNECTION: u8 = 2;
/// No complete answer within the time limit.
pub const EXIT_NO_ANSWER: u8 = 3;
/// The endpoint answered, but not 2xx.
pub const EXIT_NOT_HEALTHY: u8 = 4;

/// What is asked when no URL is given.
pub const DEFAULT_PATH: &str = "/health";

/// Longest for the whole check: the deadline of an answer at its default, and
/// a tenth of a second for the way. Docker's own limit for a HEALTHCHECK must
/// be above it.
const TIME_LIMIT: Duration = Duration::from_secs(1);

/// The status line is all that counts; nobody's is longer.
const HEAD_BYTES: usize = 64;

/// An HTTP endpoint to ask.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// `host:port`, as it goes into the Host header.
    authority: String,
    path: String,
}

impl Target {
    /// Makes the target for the pgpair that listens at `listen` on this host.
    pub fn own_health(listen: SocketAddr) -> Target {
        Target {
            authority: config::reachable(listen).to_string(),
            path: DEFAULT_PATH.to_owned(),
        }
    }

    /// Parses `http://host[:port][/path]`.
    ///
    /// # Errors
    ///
    /// Says in one line what is wrong.
    pub fn parse(url: &str) -> Result<Target, String> {
        let refused = |what: &str| Err(format!("{url:?}: {what}"));
        let Some(rest) = url.strip_prefix("http://") else {
            return refused("use http://host:port/path");
        };
        if rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return refused("must not contain white space");
        }
        let split = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(split);
        if authority.contains('@') {
            return refused("must not contain a user");
        }
        let bracketed = authority.rfind(']').map_or(0, |at| at + 1);
        let (host, port) = match authority[bracketed..].split_once(':') {
            Some((host, port)) => (&authority[..bracketed + host.len()], Some(port)),
            None => (authority, None),
        };
        if host.is_empty() {
            return refused("must name a host");
        }
        let port: u16 = match port.map(str::parse) {
            None => 80,
            Some(Ok(port)) if port > 0 => port,
            Some(_) => return refused("has a port that is not 1 to 65535"),
        };
        Ok(Target {
            authority: format!("{host}:{port}"),
            path: if path.is_empty() { "/" } else { path }.to_owned(),
        })
    }
}

/// Asks once, says on stderr what is wrong, and returns the exit code.
pub fn check(target: &Target) -> u8 {
    match ask(target, Instant::now() + TIME_LIMIT) {
        Ok(status) if (200..300).contains(&status) => EXIT_HEALTHY,
        Ok(status) => {
            eprintln!("pgpair: not healthy: status {status}");
            EXIT_NOT_HEALTHY
        }
        Err(Trouble::NoConnection(why)) => {
            eprintln!("pgpair: no connection to {}: {why}", target.authority);
            EXIT_NO_CONNECTION
        }
        Err(Trouble::NoAnswer(why)) => {
            eprintln!("pgpair: no answer from {}: {why}", target.authority);
            EXIT_NO_ANSWER
        }
    }
}

enum Trouble {
    NoConnection(String),
    NoAnswer(String),
}

fn ask(target: &Target, deadline: Instant) -> Result<u16, Trouble> {
    let mut stream = connect(target, deadline)?;
    let late = |error: std::io::Error| {
        Trouble::NoAnswer(match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                format!("nothing within {} ms", TIME_LIMIT.as_millis())
            }
            _ => error.to_string(),
        })
    };
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: pgpair/{}\r\nConnection: close\r\n\r\n",
        target.path,
        target.authority,
        env!("CARGO_PKG_VERSION"),
    );
    stream
        .set_write_timeout(Some(TIME_LIMIT))
        .and_then(|()| stream.write_all(request.as_bytes()))
        .map_err(late)?;
    let mut head = Vec::new();
    while head.len() < HEAD_BYTES && !head.contains(&b'\n') {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = left.max(Duration::from_millis(1));
        let mut bytes = [0; HEAD_BYTES];
        let count = stream
            .set_read_timeout(Some(left))
            .and_then(|()| stream.read(&mut bytes))
            .map_err(late)?;
        if count == 0 {
            break;
        }
        head.extend_from_slice(&bytes[..count]);
    }
    status(&head).ok_or_else(|| Trouble::NoAnswer("it does not speak HTTP".to_owned()))
}

fn connect(target: &Target, deadline: Instant) -> Result<TcpStream, Trouble> {
    let no_connection = |error: std::io::Error| Trouble::NoConnection(error.to_string());
    let addresses = target.authority.to_socket_addrs().map_err(no_connection)?;
    let mut trouble = Trouble::NoConnection("the name has no address".to_owned());
    for address in addresses {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = left.max(Duration::from_millis(1));
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => trouble = no_connection(error),
        }
    }
    Err(trouble)
}

fn status(head: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(head.split(|b| *b == b'\n').next()?).ok()?;
    let mut words = line.split_ascii_whitespace();
    words.next().filter(|word| word.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
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
        ] {
            assert!(Target::parse(url).is_err(), "{url:?}");
        }
    }

    #[test]
    fn own_health_is_asked_at_an_address_that_can_be_reached() {
        for (listen, authority) in [
            ("0.0.0.0:5000", "127.0.0.1:5000"),
            ("[::]:5000", "[::1]:5000"),
            ("10.0.0.1:80", "10.0.0.1:80"),
        ] {
            let target = Target::own_health(listen.parse().expect("an address"));
            assert_eq!(target.authority, authority);
        }
    }

    #[test]
    fn only_http_has_a_status() {
        for (head, expected) in [
            ("HTTP/1.1 200 OK\r\n", Some(200)),
            ("HTTP/1.0 503 x\r\n", Some(503)),
            ("HTTP/1.1", None),
            ("SSH-2.0-x\r\n", None),
            ("", None),
        ] {
            assert_eq!(status(head.as_bytes()), expected, "{head:?}");
        }
    }
}
