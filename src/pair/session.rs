//! A session with a node's server that is kept, so that asking needs nothing new
//! of the server: no process, no memory, no descriptor. It is replaced only when
//! it is broken or owes an answer for too long.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::local_client::{Connection, Row, Server, SqlError};
use crate::runtime::threads::{self, lock};

/// Threads that may wait for one server at once. A frozen one holds them until it
/// goes on or ends.
const MAX_WAITING: usize = 3;

/// A session with a server.
pub trait Ask: fmt::Debug {
    /// Asks something, unless an answer is still owed.
    fn ask(&mut self, sql: &str);

    /// Waits for the answer until then.
    fn answer(&mut self, until: Instant) -> Option<Answer>;

    /// Returns when the server last gave a sign of life of any kind.
    fn alive_at(&self) -> Option<Instant>;

    /// Returns for how long it has owed an answer.
    fn owes_for(&self) -> Option<Duration>;
}

/// A session, and what is known of who is at its other end.
#[derive(Debug)]
pub struct Session {
    server: Server,
    within: Duration,
    worker: Option<Worker>,
    waiting: Arc<AtomicUsize>,
    alive_at: Arc<Mutex<Option<Instant>>>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// What was said.
    pub rows: Result<Vec<Row>, SqlError>,
    /// When the question was asked.
    pub asked: Instant,
    /// When the answer was there.
    pub arrived: Instant,
}

#[derive(Debug)]
struct Worker {
    questions: Sender<(String, Instant)>,
    answers: Receiver<Answer>,
    owes_since: Option<Instant>,
}

impl Session {
    /// Makes a session; connects when it is asked something. The server gives up
    /// what it cannot answer `within` this time.
    pub fn with(server: Server, within: Duration) -> Session {
        Session {
            server,
            within,
            worker: None,
            waiting: Arc::default(),
            alive_at: Arc::default(),
        }
    }

    fn start(&self) -> Option<Worker> {
        let (questions, asked) = channel::<(String, Instant)>();
        let (answered, answers) = channel();
        let (server, within) = (self.server.clone(), self.within);
        let (waiting, alive_at) = (Arc::clone(&self.waiting), Arc::clone(&self.alive_at));
        waiting.fetch_add(1, Ordering::Relaxed);
        let counted = Arc::clone(&waiting);
        let run = move || {
            let mut connection = None;
            for (sql, asked) in asked {
                let rows = ask(&server, &mut connection, &sql, within);
                let arrived = Instant::now();
                if rows.as_ref().err().is_none_or(SqlError::is_a_sign_of_life) {
                    *lock(&alive_at) = Some(arrived);
                }
                // Nobody waits for it any more when it took too long.
                let _ = answered.send(Answer {
                    rows,
                    asked,
                    arrived,
                });
            }
            drop(connection);
            waiting.fetch_sub(1, Ordering::Relaxed);
        };
        match threads::spawn("session".to_owned(), run) {
            Ok(()) => Some(Worker {
                questions,
                answers,
                owes_since: None,
            }),
            Err(_) => {
                counted.fetch_sub(1, Ordering::Relaxed);
                None
            }
        }
    }
}

impl Ask for Session {
    fn alive_at(&self) -> Option<Instant> {
        *lock(&self.alive_at)
    }

    fn owes_for(&self) -> Option<Duration> {
        let since = self.worker.as_ref()?.owes_since;
        since.map(|since| since.elapsed())
    }

    fn ask(&mut self, sql: &str) {
        let now = Instant::now();
        let late = |worker: &Worker| {
            let owes = worker.owes_since;
            owes.is_some_and(|since| now.duration_since(since) > self.within)
        };
        // One process of the server may hang while all others work.
        if self.worker.as_ref().is_some_and(late)
            && self.waiting.load(Ordering::Relaxed) < MAX_WAITING
        {
            self.worker = None;
        }
        if self.worker.is_none() {
            self.worker = self.start();
        }
        if let Some(worker) = &mut self.worker
            && worker.owes_since.is_none()
        {
            match worker.questions.send((sql.to_owned(), now)) {
                Ok(()) => worker.owes_since = Some(now),
                Err(_) => self.worker = None,
            }
        }
    }

    fn answer(&mut self, until: Instant) -> Option<Answer> {
        let worker = self.worker.as_mut()?;
        worker.owes_since?;
        let left = until.saturating_duration_since(Instant::now());
        let answer = worker.answers.recv_timeout(left).ok()?;
        worker.owes_since = None;
        Some(answer)
    }
}

fn ask(
    server: &Server,
    held: &mut Option<Connection>,
    sql: &str,
    within: Duration,
) -> Result<Vec<Row>, SqlError> {
    if let Some(connection) = held {
        let rows = connection.ask(sql);
        if !connection.is_closed() {
            return rows;
        }
        *held = None;
    }
    // It is broken, or there never was one.
    held.insert(server.open(within)?).ask(sql)
}
