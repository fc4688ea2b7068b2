//! What a probe tells while the pair changes, and those who ask it meanwhile.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::http::Connection;
use super::load::Load;
use super::ms;

/// The usual load balancers: one asks about the pair every 0.3 s, one about a node
/// every 50 ms. They ask for roles and nothing else.
pub struct Balancers([Load; 3]);

impl Balancers {
    pub fn of(probe: SocketAddr) -> Balancers {
        let paths = [("/primary", 3), ("/ready", 3), ("/nodes/b/ready", 20)];
        Balancers(paths.map(|(path, per_second)| Load::start(probe, path, per_second, 1)))
    }

    /// Stops asking: every request was answered.
    pub fn finish(self) {
        for samples in self.0.map(Load::finish) {
            assert!(samples.iter().all(|sample| sample.answer.is_ok()));
        }
    }
}

/// Reads `/status` and `/metrics` over and over, and keeps every verdict.
pub struct Watch {
    enough: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<Vec<(String, u64)>>>,
}

impl Watch {
    pub fn of(probe: SocketAddr) -> Watch {
        let enough = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&enough);
        let mut connection = Connection::open(probe);
        let thread = thread::spawn(move || {
            let mut seen = Vec::new();
            while !until.load(Ordering::Relaxed) {
                let status = connection.get("/status").json();
                let verdict = status["verdict"].as_str().expect("a word").to_owned();
                let metrics = connection.get("/metrics").body;
                let line = "pgpair_writable_primaries ";
                let primaries = metrics.lines().find_map(|it| it.strip_prefix(line));
                let primaries = primaries.map_or(0, |it| it.parse().expect("a number"));
                seen.push((verdict, primaries));
                thread::sleep(ms(20));
            }
            seen
        });
        Watch {
            enough,
            thread: Some(thread),
        }
    }

    pub fn finish(mut self) -> Vec<(String, u64)> {
        self.enough.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("once");
        thread.join().expect("it was answered")
    }
}
