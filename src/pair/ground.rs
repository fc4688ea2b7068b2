//! The pair as a whole: its containers, servers and disks under one hand, and
//! what every command does with them.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::disk;
use super::docker::{self, Container, DockerError};
use super::layout::{Layout, Node};
use super::sql::{Server, SqlError};
use super::trouble::{Trouble, failed, refused};
use crate::threads;

/// Longest for a question to a server that is well.
pub const SQL_AT_MOST: Duration = Duration::from_secs(5);

/// Longest for a server to start and let us in: a crash recovery may be in it.
pub const START_AT_MOST: Duration = Duration::from_secs(120);

/// Time between two looks at something that is about to happen.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Longest for an engine that is being restarted, while nobody is primary.
const ENGINE_BACK_AT_MOST: Duration = Duration::from_secs(30);

/// Time between two tries to reach it.
const ASK_ENGINE_EVERY: Duration = Duration::from_millis(250);

/// How often a container is stopped anew that somebody else starts.
const STOP_TRIES: usize = 3;

/// A pair on this host.
#[derive(Debug)]
pub struct Pair {
    /// What it is called and where it lies.
    pub layout: Layout,
    began: Instant,
    quiet: bool,
}

/// How a node is brought to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Cleanly, as long as its own stop time-out lets it.
    Gently,
    /// At once, however it feels.
    Now,
}

impl Pair {
    /// Makes the pair; touches nothing. A quiet one says nothing on stdout.
    pub fn new(layout: Layout, quiet: bool) -> Pair {
        Pair {
            layout,
            began: Instant::now(),
            quiet,
        }
    }

    /// Says what was done: a line for a person, and one for the log.
    pub fn say(&self, text: &str) {
        log::info!(
            "step at_ms={} text={text:?}",
            self.began.elapsed().as_millis()
        );
        if !self.quiet {
            let at = self.began.elapsed().as_secs_f64();
            // Who reads may have gone: the work goes on.
            let _ = writeln!(io::stdout(), "{at:8.3} s  {text}");
        }
    }

    /// Returns a node's server.
    pub fn server(&self, node: Node) -> Server {
        Server::at(self.layout.run(node))
    }

    /// Asks a node for one value.
    ///
    /// # Errors
    ///
    /// Fails if it does not answer, or says no.
    pub fn value(&self, node: Node, sql: &str) -> Result<String, Trouble> {
        let answer = self.server(node).value(sql, SQL_AT_MOST);
        answer.map_err(|error| self.no_answer(node, &error))
    }

    /// Says that a node did not answer.
    pub fn no_answer(&self, node: Node, error: &SqlError) -> Trouble {
        failed(format!("{}: {error}", self.layout.container(node)))
    }

    /// Returns what Docker says of a node's container.
    ///
    /// # Errors
    ///
    /// Refuses without Docker, without the container, and one that is not the
    /// pair's.
    pub fn container(&self, node: Node) -> Result<Container, Trouble> {
        let name = self.layout.container(node);
        let found = self.container_if_any(node)?;
        found.ok_or_else(|| refused(format!("there is no container {name}: run site.yml")))
    }

    /// As [`Pair::container`]; nothing if there is none.
    ///
    /// # Errors
    ///
    /// As [`Pair::container`].
    pub fn container_if_any(&self, node: Node) -> Result<Option<Container>, Trouble> {
        let name = self.layout.container(node);
        let found = docker::inspect(&name).map_err(|error| {
            refused(format!(
                "{error}: see that Docker answers (docker ps), then run this again"
            ))
        })?;
        if let Some(container) = &found
            && container.pair != self.layout.prefix
        {
            return Err(refused(format!(
                "the container {name} is not this pair's: rename or remove it"
            )));
        }
        Ok(found)
    }

    /// Says whether nothing of a node is at work any more: by Docker, and by the
    /// processes that work in its data.
    ///
    /// # Errors
    ///
    /// Fails without Docker.
    pub fn is_down(&self, node: Node) -> Result<bool, Trouble> {
        let container = self.container_if_any(node)?;
        let runs = container.is_some_and(|container| container.running);
        Ok(!runs && disk::processes_in(&self.layout.pgdata(node)).is_empty())
    }

    /// Stops a node and sees that it is down.
    ///
    /// # Errors
    ///
    /// Fails if Docker cannot, or something still works in its data.
    pub fn stop(&self, node: Node, how: Stop) -> Result<(), Trouble> {
        let mut stopping = Stopping::begin(self.layout.container(node), how)?;
        self.nobody_is_at_work(node, &mut stopping)?;
        stopping.end()
    }

    /// Stops a node and makes certain that it cannot take a write any more,
    /// whoever starts it. Docker may still be busy with the container then: what
    /// counts is that the fence is there, and after that nobody at work in the
    /// data. Whoever comes later finds the fence.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be stopped, or the fence not written.
    pub fn stop_and_fence(&self, node: Node, how: Stop) -> Result<Stopping, Trouble> {
        let pgdata = self.layout.pgdata(node);
        for _ in 0..STOP_TRIES {
            // One that must go has its fence first: nothing can revive it as a
            // primary. One that is well keeps its right until it has stopped.
            if how == Stop::Now {
                self.fence(node)?;
            }
            let mut stopping = Stopping::begin(self.layout.container(node), how)?;
            self.nobody_is_at_work(node, &mut stopping)?;
            self.fence(node)?;
            // Between the two somebody may have started it as a primary.
            if disk::processes_in(&pgdata).is_empty() {
                return Ok(stopping);
            }
            stopping.end()?;
        }
        Err(failed(format!(
            "{node} is started again and again by somebody else"
        )))
    }

    /// Waits until no process works in a node's data.
    fn nobody_is_at_work(&self, node: Node, stopping: &mut Stopping) -> Result<(), Trouble> {
        let pgdata = self.layout.pgdata(node);
        loop {
            let done = stopping.outcome();
            let pids = disk::processes_in(&pgdata);
            match done {
                _ if pids.is_empty() => return Ok(()),
                None => thread::sleep(LOOK_EVERY),
                Some(Err(error)) => return Err(docker_failed(error)),
                Some(Ok(())) => {
                    return Err(failed(format!(
                        "{} is stopped, but processes {pids:?} still work in its data: end them",
                        self.layout.container(node)
                    )));
                }
            }
        }
    }

    fn fence(&self, node: Node) -> Result<(), Trouble> {
        let pgdata = self.layout.pgdata(node);
        // Without data there is nothing that could take a write.
        disk::absent(disk::fence(&pgdata))
            .map_err(|error| failed(format!("cannot fence {}: {error}", pgdata.display())))
    }

    /// Takes the fence from a node.
    ///
    /// # Errors
    ///
    /// Fails if the disk does not let it.
    pub fn unfence(&self, node: Node) -> Result<(), Trouble> {
        let pgdata = self.layout.pgdata(node);
        disk::unfence(&pgdata)
            .map_err(|error| failed(format!("cannot unfence {}: {error}", pgdata.display())))
    }

    /// Starts a node's container, whatever state it is in.
    ///
    /// # Errors
    ///
    /// Fails if Docker cannot.
    pub fn start(&self, node: Node) -> Result<(), Trouble> {
        let name = self.layout.container(node);
        let container = self.container(node)?;
        let started = match container.paused {
            true => docker::unpause(&name),
            false => docker::start(&name),
        };
        started.map_err(|error| docker_failed(&error))
    }

    /// As [`Pair::start`], through a restart of the engine.
    ///
    /// # Errors
    ///
    /// Fails with what Docker said last.
    pub fn start_at_last(&self, node: Node) -> Result<(), Trouble> {
        until(ENGINE_BACK_AT_MOST, || {
            let started = self.start(node);
            started.inspect_err(|_| thread::sleep(ASK_ENGINE_EVERY))
        })
    }

    /// Waits until a node answers SQL.
    ///
    /// # Errors
    ///
    /// Fails with what it said last.
    pub fn answers(&self, node: Node, within: Duration) -> Result<(), Trouble> {
        let server = self.server(node);
        let asked = until(within, || server.value("SELECT 1", SQL_AT_MOST));
        asked
            .map(drop)
            .map_err(|error| self.no_answer(node, &error))
    }

    /// Says whether a node streams from the other.
    ///
    /// # Errors
    ///
    /// Fails if the primary does not answer.
    pub fn streams(&self, node: Node) -> Result<bool, Trouble> {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_replication \
             WHERE application_name = '{}' AND state = 'streaming'",
            self.layout.slot(node)
        );
        Ok(self.value(node.other(), &sql)? != "0")
    }
}

/// A container that Docker is stopping.
#[derive(Debug)]
pub struct Stopping {
    outcome: Receiver<Result<(), DockerError>>,
    known: Option<Result<(), DockerError>>,
}

impl Stopping {
    fn begin(container: String, how: Stop) -> Result<Stopping, Trouble> {
        let (sender, outcome) = channel();
        threads::spawn("stop".to_owned(), move || {
            let stopped = match how {
                Stop::Gently => docker::stop(&container),
                // What is about to be restarted does not run, and must be told.
                Stop::Now => docker::kill(&container).and_then(|()| docker::stop(&container)),
            };
            // Nobody may wait for it any more.
            let _ = sender.send(stopped);
        })
        .map_err(|error| failed(format!("no thread can be started: {error}")))?;
        let known = None;
        Ok(Stopping { outcome, known })
    }

    /// Returns how it ended, if it has.
    fn outcome(&mut self) -> Option<&Result<(), DockerError>> {
        if self.known.is_none() {
            self.known = self.outcome.try_recv().ok();
        }
        self.known.as_ref()
    }

    /// Waits until Docker has done with it.
    ///
    /// # Errors
    ///
    /// Fails if Docker could not stop it.
    pub fn end(self) -> Result<(), Trouble> {
        let outcome = self.known.or_else(|| self.outcome.recv().ok());
        outcome
            .unwrap_or(Ok(()))
            .map_err(|error| docker_failed(&error))
    }
}

/// Tells of a failure of Docker's in the midst of something.
pub fn docker_failed(error: &DockerError) -> Trouble {
    failed(error.to_string())
}

/// Tries until it works; returns the last error once the time is up.
///
/// # Errors
///
/// Fails with the last try's error.
pub fn until<T, E>(within: Duration, mut attempt: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let limit = Instant::now() + within;
    loop {
        match attempt() {
            Err(_) if Instant::now() < limit => thread::sleep(LOOK_EVERY),
            outcome => return outcome,
        }
    }
}
