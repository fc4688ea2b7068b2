//! The seam under every move: what a command needs of the machine that it runs on.
//! [`ThisMachine`] is the real one. The disks are not behind it: a test uses real
//! folders.

use std::fmt;
use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::docker::{self, Container, DockerError, OneShot};
use super::layout::{Layout, Node};
use super::local_client::{Row, Server, SqlError};
use super::process_table::{self, Process, Whose};
use super::pulse::Pulse;
use super::session::{Ask, Session};
use crate::runtime::process::Outcome;
use crate::runtime::threads;
use crate::runtime::time::unix_time;

/// Longest for a server that is asked to stop: two minutes, as the containers
/// have before Docker kills them.
pub const STOP_GENTLY: Duration = Duration::from_secs(120);

/// The same for one that may be asked before it listens.
const STOP_SOON: Duration = Duration::from_secs(5);

/// The same for one that is killed already, and that Docker may be starting.
const STOP_NOW: Duration = Duration::from_secs(1);

/// How a node is brought to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Cleanly, as long as it takes.
    Gently,
    /// Cleanly if that comes about soon: it is fenced, and in the way.
    Soon,
    /// At once, however it feels.
    Now,
}

/// The result of a stop, once Docker has finished it.
pub type Stopped = Receiver<Result<(), DockerError>>;

/// A clock, Docker, the nodes' servers and the processes of one machine.
pub trait Machine: fmt::Debug + Send + Sync {
    /// Returns the time, for how long something takes.
    fn now(&self) -> Instant;

    /// Returns the seconds since 1970, by the host's clock.
    fn unix_time(&self) -> u64;

    /// Waits.
    fn sleep(&self, time: Duration);

    /// Says whether the kernel finds the host overloaded.
    fn is_overloaded(&self) -> bool;

    /// Begins to notice when this program itself is not run in time.
    ///
    /// # Errors
    ///
    /// Fails if no thread can be started.
    fn begin_pulse(&self) -> io::Result<()>;

    /// Says whether this program was not run in time since then.
    fn was_late_since(&self, since: Instant) -> bool;

    /// Returns what Docker says of a container; nothing if there is none.
    ///
    /// # Errors
    ///
    /// Fails if Docker does not answer in time.
    fn inspect(&self, container: &str, within: Duration) -> Result<Option<Container>, DockerError>;

    /// Starts a container; one that runs goes on.
    ///
    /// # Errors
    ///
    /// Fails if Docker does not do it in time.
    fn start(&self, container: &str) -> Result<(), DockerError>;

    /// Thaws a container.
    ///
    /// # Errors
    ///
    /// Fails if Docker does not do it in time.
    fn unpause(&self, container: &str) -> Result<(), DockerError>;

    /// Begins to stop a container.
    ///
    /// # Errors
    ///
    /// Fails if no thread can be started.
    fn stop(&self, container: &str, how: Stop) -> io::Result<Stopped>;

    /// Removes a container, running or not; none is no error.
    ///
    /// # Errors
    ///
    /// Fails if Docker does not do it in time.
    fn remove(&self, container: &str) -> Result<(), DockerError>;

    /// Runs a one-shot container to its end.
    ///
    /// # Errors
    ///
    /// Fails if Docker cannot run it or it takes too long; it is removed then.
    fn run_once(&self, shot: &OneShot<'_>, within: Duration) -> Result<Outcome, DockerError>;

    /// Runs statements on a node over a connection of their own; returns the rows
    /// of all of them.
    ///
    /// # Errors
    ///
    /// Fails if the server does not answer within the limit, or says no.
    fn sql(&self, node: Node, sql: &str, within: Duration) -> Result<Vec<Row>, SqlError>;

    /// Makes a session with a node that is kept. It connects when it is asked
    /// something, and gives up what is not answered `within` this time.
    fn session(&self, node: Node, within: Duration) -> Box<dyn Ask>;

    /// Lists the processes that are at work for somebody; nothing if that cannot be
    /// told in time: somebody may be.
    fn processes(&self, whose: Whose) -> Option<Vec<u32>>;

    /// Returns what the kernel says of a process; nothing once it is gone.
    fn process(&self, pid: u32) -> Option<Process>;

    /// Sends a signal to those of these processes that are at work for somebody, and
    /// to nobody who has come to have their number. Nothing if that cannot be told.
    fn signal(&self, whose: Whose, pids: &[u32], signal: Signal) -> Option<()>;
}

/// The machine that this program runs on.
#[derive(Debug)]
pub struct ThisMachine {
    layout: Layout,
    pulse: OnceLock<Arc<Pulse>>,
}

impl ThisMachine {
    /// Makes it, for a pair; touches nothing.
    pub fn of(layout: &Layout) -> ThisMachine {
        ThisMachine {
            layout: layout.clone(),
            pulse: OnceLock::new(),
        }
    }
}

impl Machine for ThisMachine {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn unix_time(&self) -> u64 {
        unix_time()
    }

    fn sleep(&self, time: Duration) {
        thread::sleep(time);
    }

    fn is_overloaded(&self) -> bool {
        process_table::host_is_overloaded()
    }

    fn begin_pulse(&self) -> io::Result<()> {
        if self.pulse.get().is_none() {
            let _ = self.pulse.set(Pulse::start()?);
        }
        Ok(())
    }

    fn was_late_since(&self, since: Instant) -> bool {
        let pulse = self.pulse.get();
        pulse.is_none_or(|pulse| pulse.was_late_since(since))
    }

    fn inspect(&self, container: &str, within: Duration) -> Result<Option<Container>, DockerError> {
        docker::inspect(container, within)
    }

    fn start(&self, container: &str) -> Result<(), DockerError> {
        docker::start(container)
    }

    fn unpause(&self, container: &str) -> Result<(), DockerError> {
        docker::unpause(container)
    }

    fn stop(&self, container: &str, how: Stop) -> io::Result<Stopped> {
        let (sender, stopped) = channel();
        let container = container.to_owned();
        threads::spawn("stop".to_owned(), move || {
            let result = match how {
                Stop::Gently => docker::stop(&container, STOP_GENTLY),
                Stop::Soon => docker::stop(&container, STOP_SOON),
                // What is about to be restarted does not run, and must be told.
                Stop::Now => {
                    docker::kill(&container).and_then(|()| docker::stop(&container, STOP_NOW))
                }
            };
            // Nobody may wait for it any more.
            let _ = sender.send(result);
        })?;
        Ok(stopped)
    }

    fn remove(&self, container: &str) -> Result<(), DockerError> {
        docker::remove(container)
    }

    fn run_once(&self, shot: &OneShot<'_>, within: Duration) -> Result<Outcome, DockerError> {
        docker::run_once(shot, within)
    }

    fn sql(&self, node: Node, sql: &str, within: Duration) -> Result<Vec<Row>, SqlError> {
        Server::of(&self.layout, node).rows(sql, within)
    }

    fn session(&self, node: Node, within: Duration) -> Box<dyn Ask> {
        Box::new(Session::with(Server::of(&self.layout, node), within))
    }

    fn processes(&self, whose: Whose) -> Option<Vec<u32>> {
        process_table::at_work(whose)
    }

    fn process(&self, pid: u32) -> Option<Process> {
        process_table::read(pid)
    }

    fn signal(&self, whose: Whose, pids: &[u32], signal: Signal) -> Option<()> {
        let hold = |pid: &u32| {
            let number = i32::try_from(*pid).ok().and_then(Pid::from_raw)?;
            Some((*pid, pidfd_open(number, PidfdFlags::empty()).ok()?))
        };
        let held: Vec<_> = pids.iter().filter_map(hold).collect();
        // A descriptor is of whoever had the number then.
        let still = process_table::at_work(whose)?;
        for (_, process) in held.iter().filter(|(pid, _)| still.contains(pid)) {
            // What is gone is no error.
            let _ = pidfd_send_signal(process, signal);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests;
