//! Many requests at a steady rate, each with its time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::http::{Answer, Connection};
use super::percentile;

/// One request and what became of it.
#[derive(Clone, Debug)]
pub struct Sample {
    pub sent: Instant,
    /// The answer, or why there was none.
    pub answer: Result<Answer, String>,
}

/// Requests under way, on keep-alive connections.
pub struct Load {
    clients: Vec<JoinHandle<Vec<Sample>>>,
    enough: Arc<AtomicBool>,
}

impl Load {
    /// Starts to ask for `path`, `per_second` times a second over
    /// `connections` connections, until told to stop.
    pub fn start(address: SocketAddr, path: &str, per_second: u32, connections: u32) -> Load {
        let enough = Arc::new(AtomicBool::new(false));
        let began = Instant::now();
        let clients = (0..connections)
            .map(|client| {
                let path = path.to_owned();
                let enough = Arc::clone(&enough);
                let schedule = Schedule {
                    first: began + Duration::from_secs(1) * client / per_second,
                    step: Duration::from_secs(1) * connections / per_second,
                };
                thread::spawn(move || ask(address, &path, schedule, &enough))
            })
            .collect();
        Load { clients, enough }
    }

    /// Asks for so long and returns what came.
    pub fn during(
        address: SocketAddr,
        path: &str,
        per_second: u32,
        connections: u32,
        lasting: Duration,
    ) -> Vec<Sample> {
        let load = Load::start(address, path, per_second, connections);
        thread::sleep(lasting);
        load.finish()
    }

    /// Stops and returns what came.
    pub fn finish(self) -> Vec<Sample> {
        self.enough.store(true, Ordering::Relaxed);
        let done = self
            .clients
            .into_iter()
            .map(|client| client.join().expect("a client failed"));
        done.flatten().collect()
    }
}

/// Returns the time that 99 of 100 answers did not exceed.
pub fn p99(samples: &[Sample]) -> Duration {
    percentile(answers(samples).map(|answer| answer.took), 0.99)
}

/// Returns the answers; fails the test if a request got none.
pub fn answers(samples: &[Sample]) -> impl Iterator<Item = &Answer> {
    assert!(!samples.is_empty(), "nothing was asked");
    samples.iter().map(|sample| match &sample.answer {
        Ok(answer) => answer,
        Err(error) => panic!("a request was not answered: {error}"),
    })
}

/// Returns the answers of those requests that got one.
pub fn answers_that_came(samples: &[Sample]) -> impl Iterator<Item = &Answer> {
    samples
        .iter()
        .filter_map(|sample| sample.answer.as_ref().ok())
}

#[derive(Clone, Copy)]
struct Schedule {
    first: Instant,
    step: Duration,
}

fn ask(address: SocketAddr, path: &str, schedule: Schedule, enough: &AtomicBool) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut connection = None;
    let mut next = schedule.first;
    while !enough.load(Ordering::Relaxed) {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        next += schedule.step;
        let sent = Instant::now();
        let open = match connection.take() {
            Some(open) => Ok(open),
            None => Connection::try_open(address),
        };
        let answer = open.and_then(|mut open| {
            let answer = open.try_get(path)?;
            connection = Some(open).filter(|_| !answer.closes());
            Ok(answer)
        });
        samples.push(Sample {
            sent,
            answer: answer.map_err(|error| error.to_string()),
        });
    }
    samples
}
