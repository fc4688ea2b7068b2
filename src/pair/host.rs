//! The pair as a whole: its containers, servers and disks under one hand, and
//! what every command does with them.

use std::io::{self, Write};
use std::sync::mpsc::TryRecvError;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::docker::{Container, DockerError, MAX_ASK};
use super::error::{Error, Why, failed, refused};
use super::files::{self, NodeDisk};
use super::layout::{Layout, Node};
use super::local_client::{Row, SqlError};
use super::machine::{Machine, STOP_GENTLY, Stop, Stopped, ThisMachine};
use super::process_table::Whose;
use crate::pg::control_file::Ended;
use crate::pg::data_dir::{Folder, Place};
use crate::pg::lsn::Lsn;
use crate::runtime::threads::lock;

/// Longest for a question to a server that is well.
pub const MAX_SQL: Duration = Duration::from_secs(5);

/// Longest for a server to start and let us in: a crash recovery may be in it.
pub const MAX_START: Duration = Duration::from_secs(120);

/// Time between two looks at something that is about to happen.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Longest for an engine that is being restarted, while nobody is primary.
const MAX_ENGINE_BACK: Duration = Duration::from_secs(30);

/// Time between two tries to reach it.
const ASK_ENGINE_EVERY: Duration = Duration::from_millis(250);

/// How often a container is stopped anew that somebody else starts.
const STOP_TRIES: usize = 3;

/// Longest for a primary to write down that it is shut down. A checkpoint was
/// made a moment before.
const MAX_SHUT_DOWN: Duration = Duration::from_secs(10);

/// Longest that senders of WAL to others than the standby hold that up.
const MAX_SENDERS: Duration = Duration::from_secs(1);

/// What is left of a primary that is shut down ends by itself within this, or is
/// killed.
const MAX_LEFT: Duration = Duration::from_millis(300);

/// Longest until what was killed is gone.
const MAX_KILL: Duration = Duration::from_secs(15);

/// A pair on this host.
#[derive(Debug)]
pub struct Pair {
    /// What it is called and where it lies.
    pub layout: Layout,
    /// Where it runs.
    pub machine: Arc<dyn Machine>,
    began: Instant,
    output: Output,
    /// The ids of the nodes' containers, as they were last seen.
    containers: Mutex<[Option<String>; 2]>,
}

/// Where the steps of a command are told, besides the log.
#[derive(Debug)]
pub enum Output {
    /// A line each on stdout.
    Lines,
    /// Kept until the command ends.
    Kept(Mutex<Vec<String>>),
    /// Nowhere.
    Log,
}

impl Pair {
    /// Makes the pair; touches nothing.
    pub fn new(layout: Layout, output: Output) -> Pair {
        let machine = Arc::new(ThisMachine::of(&layout));
        Pair::on(machine, layout, output)
    }

    /// As [`Pair::new`], on this machine.
    pub fn on(machine: Arc<dyn Machine>, layout: Layout, output: Output) -> Pair {
        Pair {
            layout,
            began: machine.now(),
            machine,
            output,
            containers: Mutex::default(),
        }
    }

    /// Returns the time.
    pub fn now(&self) -> Instant {
        self.machine.now()
    }

    /// Returns the time since then.
    pub fn since(&self, then: Instant) -> Duration {
        self.now().saturating_duration_since(then)
    }

    /// Waits.
    pub fn sleep(&self, time: Duration) {
        self.machine.sleep(time);
    }

    /// Tries until it works; returns the last error once the time is up.
    ///
    /// # Errors
    ///
    /// Fails with the last try's error.
    pub fn until<T, E>(
        &self,
        within: Duration,
        mut attempt: impl FnMut() -> Result<T, E>,
    ) -> Result<T, E> {
        let limit = self.now() + within;
        loop {
            match attempt() {
                Err(_) if self.now() < limit => self.sleep(POLL_INTERVAL),
                outcome => return outcome,
            }
        }
    }

    /// Says what was done: a line for a person, and one for the log.
    pub fn say(&self, text: &str) {
        log::info!(
            "step at_ms={} text={text:?}",
            self.since(self.began).as_millis()
        );
        match &self.output {
            Output::Lines => {
                let at = self.since(self.began).as_secs_f64();
                // Who reads may have gone: the work goes on.
                let _ = writeln!(io::stdout(), "{at:8.3} s  {text}");
            }
            Output::Kept(steps) => lock(steps).push(text.to_owned()),
            Output::Log => {}
        }
    }

    /// Returns the steps that were kept.
    pub fn kept(&self) -> Vec<String> {
        match &self.output {
            Output::Kept(steps) => lock(steps).clone(),
            Output::Lines | Output::Log => Vec::new(),
        }
    }

    /// Returns a node's server.
    pub fn server(&self, node: Node) -> Server<'_> {
        Server { pair: self, node }
    }

    /// Asks a node for one value.
    ///
    /// # Errors
    ///
    /// Fails if it does not answer, or says no.
    pub fn value(&self, node: Node, sql: &str) -> Result<String, Error> {
        let answer = self.server(node).value(sql, MAX_SQL);
        answer.map_err(|error| self.no_answer(node, &error))
    }

    /// Says that a node did not answer.
    pub fn no_answer(&self, node: Node, error: &SqlError) -> Error {
        failed(
            Why::ServerFailed,
            format!("{}: {error}", self.layout.container(node)),
        )
    }

    /// Returns what Docker says of a node's container.
    ///
    /// # Errors
    ///
    /// Refuses without Docker, without the container, and one that is not the
    /// pair's.
    pub fn container(&self, node: Node) -> Result<Container, Error> {
        let name = self.layout.container(node);
        let found = self.container_if_any(node)?;
        found.ok_or_else(|| {
            refused(
                Why::NoContainer,
                format!("there is no container {name}: run site.yml"),
            )
        })
    }

    /// As [`Pair::container`]; nothing if there is none.
    ///
    /// # Errors
    ///
    /// As [`Pair::container`].
    pub fn container_if_any(&self, node: Node) -> Result<Option<Container>, Error> {
        let name = self.layout.container(node);
        let found = self.machine.inspect(&name, MAX_ASK).map_err(|error| {
            refused(
                Why::EngineSilent,
                format!("{error}: see that Docker answers (docker ps), then run this again"),
            )
        })?;
        if let Some(container) = &found
            && container.pair != self.layout.prefix
        {
            return Err(refused(
                Why::ForeignContainer,
                format!("the container {name} is not this pair's: rename or remove it"),
            ));
        }
        if let Some(container) = &found {
            lock(&self.containers)[node.index()] = Some(container.id.clone());
        }
        Ok(found)
    }

    /// Takes note of which container a node has. Where Docker does not tell, it is
    /// the one that was seen last.
    fn know_container(&self, node: Node) {
        if let Err(trouble) = self.container_if_any(node) {
            log::warn!("container node={node} cause={:?}", trouble.to_string());
        }
    }

    /// Lists the processes that work in a node's data.
    ///
    /// # Errors
    ///
    /// Fails if that cannot be told: somebody may.
    pub fn processes(&self, node: Node) -> Result<Vec<u32>, Error> {
        self.look(node, None)
    }

    /// Lists the processes that work in a node's data, or in its container.
    ///
    /// # Errors
    ///
    /// As [`Pair::processes`].
    pub fn at_work(&self, node: Node) -> Result<Vec<u32>, Error> {
        let container = lock(&self.containers)[node.index()].clone();
        self.look(node, container)
    }

    fn look(&self, node: Node, container: Option<String>) -> Result<Vec<u32>, Error> {
        let place = self.place_of(node)?;
        let found = self.machine.processes(Whose { place, container });
        found.ok_or_else(|| processes_unknown(node))
    }

    fn place_of(&self, node: Node) -> Result<Option<Place>, Error> {
        files::place_of(&self.layout, node).map_err(|error| {
            failed(
                Why::FileUnusable,
                format!("{}: {error}", self.layout.pgdata(node).display()),
            )
        })
    }

    /// Sends a signal to processes that are at work for a node, and to nobody who
    /// has come to have their number. What is gone is no error.
    ///
    /// # Errors
    ///
    /// As [`Pair::processes`].
    pub fn signal(&self, node: Node, pids: &[u32], signal: Signal) -> Result<(), Error> {
        let place = self.place_of(node)?;
        let container = lock(&self.containers)[node.index()].clone();
        let sent = self
            .machine
            .signal(Whose { place, container }, pids, signal);
        sent.ok_or_else(|| processes_unknown(node))
    }

    /// Says whether a process calls itself so: PostgreSQL's tell their work.
    pub fn is_called(&self, pid: u32, title: &str) -> bool {
        let process = self.machine.process(pid);
        process.is_some_and(|process| process.title.contains(title))
    }

    /// Says whether nothing of a node is at work any more: by Docker, and by the
    /// processes that work in its data or its container.
    ///
    /// # Errors
    ///
    /// Fails without Docker.
    pub fn is_down(&self, node: Node) -> Result<bool, Error> {
        let container = self.container_if_any(node)?;
        let runs = container.is_some_and(|container| container.running);
        Ok(!runs && self.at_work(node)?.is_empty())
    }

    fn begin_stop(&self, node: Node, how: Stop) -> Result<Stopping, Error> {
        let stopped = self.machine.stop(&self.layout.container(node), how);
        let stopped = stopped.map_err(|error| no_thread(&error))?;
        Ok(Stopping {
            stopped,
            known: None,
        })
    }

    /// Stops a node and sees that it is down.
    ///
    /// # Errors
    ///
    /// Fails if Docker cannot, or something still works in its data.
    pub fn stop(&self, node: Node, how: Stop) -> Result<(), Error> {
        let mut stopping = self.begin_stop(node, how)?;
        self.nobody_is_at_work(node, &mut stopping)?;
        stopping.end(self)
    }

    /// Stops a node and makes certain that it cannot take a write any more,
    /// whoever starts it. Docker may still be busy with the container then: what
    /// counts is that the fence is there, and after that nobody at work in the
    /// data. Whoever comes later finds the fence.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be stopped, or the fence not written.
    pub fn stop_and_fence(&self, node: Node, how: Stop) -> Result<Stopping, Error> {
        self.know_container(node);
        let place = self.place_of(node)?;
        for _ in 0..STOP_TRIES {
            // One that must go has its fence first: nothing can revive it as a
            // primary. One that is well keeps its right until it has stopped.
            if how == Stop::Now {
                self.fence(node, place)?;
            }
            let mut stopping = self.begin_stop(node, how)?;
            self.nobody_is_at_work(node, &mut stopping)?;
            self.fence(node, place)?;
            // Between the two somebody may have started it as a primary.
            if self.at_work(node)?.is_empty() {
                return Ok(stopping);
            }
            stopping.end(self)?;
        }
        Err(failed(
            Why::StartedByAnother,
            format!("{node} is started again and again by somebody else"),
        ))
    }

    /// Shuts a primary down cleanly and fences it. It has written its last when
    /// its control file says so: then it is fenced, and whoever it still waits
    /// for, an archiver or somebody who receives its WAL, does not matter. Of those
    /// who send WAL, only `sender` is given all the time.
    ///
    /// # Errors
    ///
    /// Fails if it does not shut down in its time; it is killed then.
    pub fn shut_down_and_fence(&self, node: Node, sender: Option<u32>) -> Result<ShutDown, Error> {
        self.know_container(node);
        let place = self.place_of(node)?;
        let mut stopping = self.begin_stop(node, Stop::Gently)?;
        let shut_down = self.is_shut_down(node, sender, &mut stopping);
        let fenced = shut_down.and_then(|end| self.fence(node, place).map(|()| end));
        match fenced {
            Ok(end) => Ok(ShutDown {
                end,
                place,
                fenced_at: self.now(),
                stopping,
            }),
            Err(trouble) => {
                if self.is_no_primary(node) {
                    self.kill_what_is_left(node);
                }
                stopping.end_within(self, MAX_KILL);
                Err(trouble)
            }
        }
    }

    /// Waits until a primary that is being stopped has written its last record;
    /// returns where that begins.
    fn is_shut_down(
        &self,
        node: Node,
        sender: Option<u32>,
        stopping: &mut Stopping,
    ) -> Result<Lsn, Error> {
        let began = self.now();
        let limit = began + MAX_SHUT_DOWN;
        loop {
            let pids = self.processes(node)?;
            if sender.is_some() && self.since(began) > MAX_SENDERS {
                // One whose receiver takes nothing holds up the last checkpoint.
                let others = |pid: &u32| sender != Some(*pid) && self.is_called(*pid, "walsender");
                let others: Vec<u32> = pids.iter().copied().filter(others).collect();
                self.signal(node, &others, Signal::TERM)?;
            }
            let control = NodeDisk::read(&self.layout, node).control()?;
            if control.ended == Ended::ShutDown {
                return Ok(control.checkpoint);
            }
            let name = self.layout.container(node);
            let why = match stopping.outcome() {
                Some(Err(error)) => error.to_string(),
                _ if pids.is_empty() => {
                    format!("its log says why: docker logs {name}")
                }
                _ if self.now() > limit => {
                    format!(
                        "processes {pids:?} still work in its data after {MAX_SHUT_DOWN:?}: docker logs {name}"
                    )
                }
                _ => {
                    self.sleep(POLL_INTERVAL);
                    continue;
                }
            };
            return Err(failed(
                Why::NotStopped,
                format!("{node} did not shut down cleanly ({why})"),
            ));
        }
    }

    /// Sees that nothing of a fenced node is at work that was there before its
    /// fence. What was started after it is a standby.
    ///
    /// # Errors
    ///
    /// Fails if something cannot be killed, or if the node was a primary again
    /// before its fence.
    pub fn end_what_is_left(&self, node: Node, shut_down: &ShutDown) -> Result<(), Error> {
        let since = shut_down.fenced_at;
        let left = || self.at_work_since_before(node, since);
        let limit = self.now() + MAX_LEFT;
        while !left()?.is_empty() && self.now() < limit {
            self.sleep(POLL_INTERVAL);
        }
        let pids = left()?;
        if !pids.is_empty() {
            self.say(&format!(
                "killing what is left of {node}: the processes {pids:?} wait for others"
            ));
        }
        let limit = self.now() + MAX_KILL;
        loop {
            let pids = left()?;
            if pids.is_empty() {
                break;
            }
            self.signal(node, &pids, Signal::KILL)?;
            if self.now() > limit {
                return Err(failed(
                    Why::NotStopped,
                    format!("processes {pids:?} of {node} cannot be killed"),
                ));
            }
            self.sleep(POLL_INTERVAL);
        }
        let disk = NodeDisk::read(&self.layout, node);
        if disk.control()?.ended == Ended::InProduction {
            return Err(failed(
                Why::StartedByAnother,
                format!("{node} was started again by somebody else"),
            ));
        }
        // What was at work until now may have taken the fence away; and who was
        // started while there was none is a primary.
        self.fence(node, shut_down.place)?;
        match disk.fenced || self.at_work(node)?.is_empty() {
            true => Ok(()),
            false => Err(failed(
                Why::StartedByAnother,
                format!("{node} had lost its fence when somebody else started it"),
            )),
        }
    }

    /// Says whether a node's server runs, and is no primary that takes sessions: it
    /// starts, stops, or is a standby.
    pub fn is_no_primary(&self, node: Node) -> bool {
        let runs = self.processes(node).is_ok_and(|pids| !pids.is_empty());
        let status = || NodeDisk::read(&self.layout, node).status;
        runs && status().is_some_and(|status| status != "ready")
    }

    /// Kills whatever works in a node's data, if that can be seen.
    pub fn kill_what_is_left(&self, node: Node) {
        let left = self.processes(node);
        if let Err(trouble) = left.and_then(|pids| self.signal(node, &pids, Signal::KILL)) {
            log::warn!("not_killed node={node} cause={:?}", trouble.to_string());
        }
    }

    /// Kills what works in a node's data now; what is started after it does not
    /// know what the killed had been told.
    ///
    /// # Errors
    ///
    /// Fails if it does not end.
    pub fn kill(&self, node: Node) -> Result<(), Error> {
        let since = self.now();
        // A frozen container must be thawed to end.
        let mut stopping = self.begin_stop(node, Stop::Now)?;
        let limit = since + MAX_KILL;
        loop {
            let left = self.at_work_since_before(node, since)?;
            if left.is_empty() {
                break;
            }
            if self.now() > limit {
                return Err(failed(
                    Why::NotStopped,
                    format!("processes {left:?} of {node} do not end"),
                ));
            }
            self.signal(node, &left, Signal::KILL)?;
            self.sleep(POLL_INTERVAL);
        }
        stopping.end_within(self, MAX_KILL);
        Ok(())
    }

    /// Lists the processes of a node that are older than `since`.
    fn at_work_since_before(&self, node: Node, since: Instant) -> Result<Vec<u32>, Error> {
        // The kernel tells a process's age in hundredths of a second.
        let margin = Duration::from_millis(50);
        let mut pids = self.at_work(node)?;
        pids.retain(|pid| {
            let process = self.machine.process(*pid);
            process.is_some_and(|process| process.age + margin > self.since(since))
        });
        Ok(pids)
    }

    /// Waits until no process works in a node's data.
    fn nobody_is_at_work(&self, node: Node, stopping: &mut Stopping) -> Result<(), Error> {
        let limit = self.now() + STOP_GENTLY + MAX_KILL;
        loop {
            let done = stopping.outcome();
            let pids = self.at_work(node)?;
            match done {
                _ if pids.is_empty() => return Ok(()),
                None if self.now() < limit => self.sleep(POLL_INTERVAL),
                None => {
                    return Err(failed(
                        Why::NotStopped,
                        format!("processes {pids:?} of {node} do not end"),
                    ));
                }
                Some(Err(error)) => return Err(docker_failed(error)),
                Some(Ok(())) => {
                    return Err(failed(
                        Why::NotStopped,
                        format!(
                            "{} is stopped, but processes {pids:?} still work in its data: end them",
                            self.layout.container(node)
                        ),
                    ));
                }
            }
        }
    }

    /// Fences a node, and sees that this is still the data that it had before:
    /// `place`. Without data there is nothing that could take a write.
    fn fence(&self, node: Node, place: Option<Place>) -> Result<(), Error> {
        let pgdata = self.layout.pgdata(node);
        let fenced = files::fence(&self.layout, node).map_err(|error| {
            failed(
                Why::NotFenced,
                format!("cannot fence {}: {error}", pgdata.display()),
            )
        })?;
        if fenced == place && self.place_of(node)? == place {
            return Ok(());
        }
        Err(failed(
            Why::NotFenced,
            format!(
                "{} was put in another's place while {node} was stopped",
                pgdata.display()
            ),
        ))
    }

    /// Takes the fence from a node.
    ///
    /// # Errors
    ///
    /// Fails if the disk does not let it.
    pub fn unfence(&self, node: Node) -> Result<(), Error> {
        let pgdata = self.layout.pgdata(node);
        files::unfence(&self.layout, node).map_err(|error| {
            failed(
                Why::NotFenced,
                format!("cannot unfence {}: {error}", pgdata.display()),
            )
        })
    }

    /// Says whether a node's file system has room for what a move writes.
    ///
    /// # Errors
    ///
    /// Says how much is missing.
    pub fn has_room(&self, node: Node) -> Result<(), Error> {
        /// A few WAL segments.
        const NEEDED: u64 = 64 * 1024 * 1024;
        let place = self.layout.data(node);
        match files::in_data(&self.layout, node, Folder::free_bytes) {
            Ok(Some(free)) if free >= NEEDED => Ok(()),
            Ok(Some(free)) => Err(refused(
                Why::NoSpace,
                format!(
                    "{} has {} MB free, and {} MB are needed: free some",
                    place.display(),
                    free >> 20,
                    NEEDED >> 20
                ),
            )),
            Ok(None) => Err(refused(
                Why::FileUnusable,
                format!("{} is not there", place.display()),
            )),
            Err(error) => Err(refused(
                Why::FileUnusable,
                format!("{}: {error}", place.display()),
            )),
        }
    }

    /// Starts a node's container, whatever state it is in.
    ///
    /// # Errors
    ///
    /// Fails if Docker cannot.
    pub fn start(&self, node: Node) -> Result<(), Error> {
        let name = self.layout.container(node);
        let container = self.container(node)?;
        let started = match container.paused {
            true => self.machine.unpause(&name),
            false => self.machine.start(&name),
        };
        started.map_err(|error| docker_failed(&error))
    }

    /// As [`Pair::start`], through a restart of the engine.
    ///
    /// # Errors
    ///
    /// Fails with what Docker said last.
    pub fn start_at_last(&self, node: Node) -> Result<(), Error> {
        self.until(MAX_ENGINE_BACK, || {
            let started = self.start(node);
            started.inspect_err(|_| self.sleep(ASK_ENGINE_EVERY))
        })
    }

    /// Waits until a node answers SQL.
    ///
    /// # Errors
    ///
    /// Fails with what it said last.
    pub fn answers(&self, node: Node, within: Duration) -> Result<(), Error> {
        let server = self.server(node);
        let asked = self.until(within, || server.value("SELECT 1", MAX_SQL));
        asked
            .map(drop)
            .map_err(|error| self.no_answer(node, &error))
    }

    /// Says whether a node streams from the other.
    ///
    /// # Errors
    ///
    /// Fails if the primary does not answer.
    pub fn streams(&self, node: Node) -> Result<bool, Error> {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_replication \
             WHERE application_name = '{}' AND state = 'streaming'",
            self.layout.slot(node)
        );
        Ok(self.value(node.other(), &sql)? != "0")
    }
}

/// A primary that is shut down and fenced.
#[derive(Debug)]
pub struct ShutDown {
    /// Where its last record begins.
    pub end: Lsn,
    place: Option<Place>,
    fenced_at: Instant,
    /// Docker may still be busy with its container.
    pub stopping: Stopping,
}

/// A node's server, asked over a new connection each time.
#[derive(Debug)]
pub struct Server<'a> {
    pair: &'a Pair,
    node: Node,
}

impl Server<'_> {
    /// Runs statements; returns the rows of all of them.
    ///
    /// # Errors
    ///
    /// Fails if the server does not answer within the limit, or says no.
    pub fn rows(&self, sql: &str, within: Duration) -> Result<Vec<Row>, SqlError> {
        self.pair.machine.sql(self.node, sql, within)
    }

    /// As [`Server::rows`]: the first row's cells, which must be there.
    ///
    /// # Errors
    ///
    /// Also fails if there is no row.
    pub fn row(&self, sql: &str, within: Duration) -> Result<Row, SqlError> {
        let rows = self.rows(sql, within)?;
        let first = rows.into_iter().next();
        first.ok_or_else(|| SqlError::Said("no row where one was expected".to_owned()))
    }

    /// As [`Server::row`]: the first cell, empty for NULL.
    ///
    /// # Errors
    ///
    /// As [`Server::row`].
    pub fn value(&self, sql: &str, within: Duration) -> Result<String, SqlError> {
        let row = self.row(sql, within)?;
        Ok(row.into_iter().next().flatten().unwrap_or_default())
    }
}

/// A container that Docker is stopping.
#[derive(Debug)]
pub struct Stopping {
    stopped: Stopped,
    known: Option<Result<(), DockerError>>,
}

impl Stopping {
    /// Returns how it ended, if it has.
    fn outcome(&mut self) -> Option<&Result<(), DockerError>> {
        if self.known.is_none() {
            self.known = match self.stopped.try_recv() {
                Ok(result) => Some(result),
                Err(TryRecvError::Empty) => None,
                // The thread is gone, and Docker with it: nobody will say more.
                Err(TryRecvError::Disconnected) => Some(Ok(())),
            };
        }
        self.known.as_ref()
    }

    /// Waits until Docker has done with it, but no longer than this.
    pub fn end_within(&mut self, pair: &Pair, within: Duration) {
        let limit = pair.now() + within;
        while self.outcome().is_none() && pair.now() < limit {
            pair.sleep(POLL_INTERVAL);
        }
    }

    /// Waits until Docker has done with it.
    ///
    /// # Errors
    ///
    /// Fails if Docker could not stop it.
    pub fn end(mut self, pair: &Pair) -> Result<(), Error> {
        while self.outcome().is_none() {
            pair.sleep(POLL_INTERVAL);
        }
        match self.known {
            Some(Err(error)) => Err(docker_failed(&error)),
            _ => Ok(()),
        }
    }
}

/// Tells that no thread can be started.
pub fn no_thread(error: &io::Error) -> Error {
    failed(
        Why::NoResources,
        format!("no thread can be started: {error}"),
    )
}

/// Tells of a failure of Docker's in the midst of something.
pub fn docker_failed(error: &DockerError) -> Error {
    failed(Why::EngineFailed, error.to_string())
}

fn processes_unknown(node: Node) -> Error {
    failed(
        Why::ProcessesUnknown,
        format!("it cannot be seen in time who works for {node}: a file system may be dead"),
    )
}
