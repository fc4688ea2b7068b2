//! Knocks at our own front door, as a client would, to find out whether anybody
//! can still come in.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::threads::lock;

/// The target of a knock, which no client has a use for.
pub const TARGET: &str = "*";

/// Time between two knocks.
const KNOCK_EVERY: Duration = Duration::from_secs(1);

/// Longest that a knock may take. The answer needs neither PostgreSQL nor a
/// disk: it is there within a millisecond, and within some hundred on a machine
/// that is too small for what comes in.
const KNOCK_AT_MOST: Duration = Duration::from_millis(700);

/// Pause after a knock that nobody heard.
const KNOCK_AGAIN: Duration = Duration::from_millis(200);

/// After so many in a row the front door is dead. With the times above that is
/// known within 1 + 3 × 0.9 = 3.7 s.
const UNHEARD_AT_MOST: u32 = 3;

/// The watchdog of one front door.
#[derive(Debug)]
pub struct Watchdog {
    address: SocketAddr,
    /// Our end of the knock that is under way.
    knocking: Mutex<Option<SocketAddr>>,
    /// A knock was answered.
    heard: AtomicBool,
    /// One was answered before the process began anew.
    heard_before: bool,
}

impl Watchdog {
    /// Makes one that knocks at `address`. `heard_before` says that knocks were
    /// answered before the process began anew.
    pub fn new(address: SocketAddr, heard_before: bool) -> Watchdog {
        Watchdog {
            address,
            knocking: Mutex::new(None),
            heard: AtomicBool::new(false),
            heard_before,
        }
    }

    /// Says whether a knock was answered since the process began, or began anew.
    pub fn heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    /// Says whether the connection from `peer` is a knock.
    pub fn is_knock(&self, peer: SocketAddr) -> bool {
        *self.knocking() == Some(peer)
    }

    /// Knocks until nobody hears it any more; then returns. Where something keeps
    /// us from connecting to ourselves, silence means nothing, which is said
    /// once: where knocks were never heard, or not since the process began anew
    /// although others come in (`used`).
    pub fn watch(&self, used: impl Fn() -> bool) {
        let mut unheard = 0;
        loop {
            if self.knock().is_ok() {
                self.heard.store(true, Ordering::Relaxed);
                unheard = 0;
                thread::sleep(KNOCK_EVERY);
                continue;
            }
            unheard += 1;
            if unheard == UNHEARD_AT_MOST {
                if self.heard() || (self.heard_before && !used()) {
                    return;
                }
                log::warn!("watchdog event=blind address={}", self.address);
            }
            thread::sleep(KNOCK_AGAIN);
        }
    }

    /// Comes in, asks, and waits for the whole answer.
    fn knock(&self) -> io::Result<()> {
        let until = Instant::now() + KNOCK_AT_MOST;
        let mut stream = TcpStream::connect_timeout(&self.address, KNOCK_AT_MOST)?;
        *self.knocking() = Some(stream.local_addr()?);
        let answered = ask(&mut stream, until);
        *self.knocking() = None;
        answered
    }

    fn knocking(&self) -> MutexGuard<'_, Option<SocketAddr>> {
        lock(&self.knocking)
    }
}

fn ask(stream: &mut TcpStream, until: Instant) -> io::Result<()> {
    stream
        .write_all(format!("OPTIONS {TARGET} HTTP/1.1\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = [0; 512];
    let mut taken = 0;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        // Zero would mean no limit at all.
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match stream.read(&mut answer[taken..])? {
            0 if answer.starts_with(b"HTTP/1.1 204 ") => return Ok(()),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => taken += count,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Answers one connection with `text`, after it has asked.
    fn answer_once(listener: &TcpListener, text: &str) {
        let (mut stream, _) = listener.accept().expect("somebody knocks");
        let mut asked = [0; 1024];
        assert!(stream.read(&mut asked).expect("it asks") > 0);
        stream.write_all(text.as_bytes()).expect("it listens");
    }

    #[test]
    fn only_an_answer_is_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        for (text, good) in [
            ("HTTP/1.1 204 No Content\r\n\r\n", true),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", false),
            ("", false),
        ] {
            let watchdog = Watchdog::new(address, false);
            let heard = thread::scope(|scope| {
                scope.spawn(|| answer_once(&listener, text));
                watchdog.knock().is_ok()
            });
            assert_eq!(heard, good, "{text:?}");
        }
        let watchdog = Watchdog::new(address, false);
        assert!(watchdog.knock().is_err(), "nobody lets it in");
        drop(listener);
        assert!(watchdog.knock().is_err(), "nobody is there");
    }

    #[test]
    fn silence_ends_the_watch_once_knocks_were_heard() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        let began = Instant::now();
        Watchdog::new(address, true).watch(|| false);
        assert!(began.elapsed() >= 2 * KNOCK_AGAIN);
    }
}
