//! What is known of a primary, its standby and the host, look after look: the
//! witnesses on which [`super::failure_detector`] decides.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::docker;
use super::error::Error;
use super::failure_detector::{
    Container, Decision, GRACE, Primary, Processes, Standby, Witnesses, decide,
};
use super::files::NodeDisk;
use super::host::{Pair, no_thread};
use super::layout::Node;
use super::local_client::{Row, SqlError};
use super::machine::Machine;
use super::session::{Answer, Ask};
use crate::pg::control_file::Ended;

/// Time between two looks.
pub const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Longest for an answer that counts.
pub const MAX_ANSWER: Duration = Duration::from_secs(2);

/// Docker answers in less on a host that is well.
const MAX_ENGINE: Duration = Duration::from_secs(2);

/// An idle server that lives does something within this: its writers wake up
/// every few seconds, and the health check needs a process every two.
const STILL_AFTER: Duration = Duration::from_secs(15);

/// The standby is as quick as a standby is on a host that is well.
const USUAL: Duration = Duration::from_millis(500);

/// Asks the primary how far it is and how its standby does.
fn question(slot: &str) -> String {
    format!(
        "SELECT CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_flush_lsn() END, \
                current_setting('synchronous_standby_names') <> '', \
                s.sync_state IN ('sync', 'quorum'), s.flush_lsn \
         FROM (SELECT 1) one LEFT JOIN pg_stat_replication s \
           ON s.application_name = '{slot}' AND s.state = 'streaming'"
    )
}

/// Asks the standby when its server was started, and what it has heard last.
const STANDBY: &str = "SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time()), \
     r.last_msg_receipt_time FROM (SELECT 1) one LEFT JOIN pg_stat_wal_receiver r \
       ON r.status = 'streaming'";

/// A pair under watch.
#[derive(Debug)]
pub struct Watch {
    /// Who is the primary.
    pub node: Node,
    primary: Box<dyn Ask>,
    standby: Box<dyn Ask>,
    looked_at: Instant,
    /// It was seen alive, ever.
    was_alive: bool,
    served_at: Instant,
    alive_at: Instant,
    misses: u32,
    counted: Duration,
    last: Primary,
    standby_says: Option<Said>,
    /// Which of its processes are frozen, and how long each has run for.
    processes: BTreeMap<u32, (bool, u64)>,
    worked_at: Instant,
}

/// What the standby said last.
#[derive(Clone, Debug)]
struct Said {
    took: Duration,
    arrived: Instant,
    runs_for: Option<Duration>,
    heard: Option<String>,
    /// When the time at which it heard something was another for the first time.
    heard_at: Option<Instant>,
}

/// What came of a look.
#[derive(Debug)]
pub struct Look {
    /// What the primary answered, if it did.
    pub row: Option<Row>,
    /// What to do about it.
    pub decision: Decision,
}

impl Watch {
    /// Begins to watch a primary.
    ///
    /// # Errors
    ///
    /// Fails if no thread can be started.
    pub fn of(pair: &Pair, node: Node) -> Result<Watch, Error> {
        let now = pair.now();
        let pulse = pair.machine.begin_pulse();
        pulse.map_err(|error| no_thread(&error))?;
        Ok(Watch {
            node,
            primary: pair.machine.session(node, MAX_ANSWER),
            standby: pair.machine.session(node.other(), MAX_ANSWER),
            looked_at: now,
            was_alive: false,
            served_at: now,
            alive_at: now,
            misses: 0,
            counted: Duration::ZERO,
            last: Primary::Silent,
            standby_says: None,
            processes: BTreeMap::new(),
            worked_at: now,
        })
    }

    /// Forgets how long it was silent: that must be confirmed anew.
    pub fn forget(&mut self, now: Instant) {
        (self.served_at, self.alive_at) = (now, now);
        (self.misses, self.counted) = (0, Duration::ZERO);
    }

    /// Since the primary answered last, or the watch began.
    pub fn unserved(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.served_at)
    }

    /// Questions since then.
    pub fn misses(&self) -> u32 {
        self.misses
    }

    /// Looks once. `known_for` is how long somebody has been there who would know
    /// if it had lived.
    pub fn look(&mut self, pair: &Pair, confirm: Duration, known_for: Duration) -> Look {
        let since = std::mem::replace(&mut self.looked_at, pair.now());
        self.primary
            .ask(&question(&pair.layout.slot(self.node.other())));
        self.standby.ask(STANDBY);
        let until = pair.now() + POLL_INTERVAL;
        let answer = self.primary.answer(until);
        let heard = self
            .standby
            .answer(until.min(pair.now() + POLL_INTERVAL / 2));
        self.note_standby(heard);
        let row = self.note(answer, pair.now());
        if row.is_some() {
            let decision = Decision::Serves;
            return Look { row, decision };
        }
        let decision = self.decide(pair, confirm, known_for, since);
        Look { row, decision }
    }

    fn note(&mut self, answer: Option<Answer>, now: Instant) -> Option<Row> {
        let alive_at = self.primary.alive_at();
        if alive_at.is_some_and(|at| at > self.alive_at) {
            self.alive_at = alive_at.unwrap_or(self.alive_at);
            self.counted = Duration::ZERO;
            self.was_alive = true;
        }
        let (said, row) = match answer {
            None => (Primary::Silent, None),
            Some(answer) => meaning(answer),
        };
        self.last = said;
        if said == Primary::Answers {
            self.misses = 0;
            self.served_at = now;
            self.worked_at = self.served_at;
            self.processes.clear();
        } else {
            self.misses += 1;
        }
        row
    }

    fn note_standby(&mut self, answer: Option<Answer>) {
        let Some(answer) = answer else { return };
        let Some(row) = answer.rows.ok().and_then(|rows| rows.into_iter().next()) else {
            self.standby_says = None;
            return;
        };
        let mut cells = row.into_iter();
        let runs_for = cells.next().flatten().and_then(|text| text.parse().ok());
        let heard = cells.next().flatten();
        // By our own clock: the host's may be set meanwhile.
        let before = self.standby_says.take();
        let heard_at = match &before {
            Some(before) if before.heard == heard => before.heard_at,
            Some(before) if before.heard.is_some() && heard.is_some() => Some(answer.arrived),
            _ => None,
        };
        self.standby_says = Some(Said {
            took: answer.arrived - answer.asked,
            arrived: answer.arrived,
            runs_for: runs_for.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            heard,
            heard_at,
        });
    }

    fn decide(
        &mut self,
        pair: &Pair,
        confirm: Duration,
        known_for: Duration,
        since: Instant,
    ) -> Decision {
        let mut seen = self.cheap_witnesses(known_for, pair.now());
        if decide(&seen, confirm) == Decision::Unconfirmed && self.misses < 2 {
            return Decision::Unconfirmed;
        }
        let asked = pair.now();
        let container = pair.layout.container(self.node);
        let found = pair.machine.inspect(&container, MAX_ENGINE);
        seen.container = match found {
            Err(_) => Container::Unknown,
            Ok(found) => state_of(&*pair.machine, found),
        };
        let engine_late = pair.since(asked) > MAX_ENGINE / 2;
        seen.processes = self.processes(pair);
        seen.shut_down = is_shut_down(pair, self.node);
        let late = engine_late || pair.machine.was_late_since(since);
        seen.host_overloaded = late || pair.machine.is_overloaded();
        let usual = seen.standby.took.is_some_and(|took| took <= USUAL);
        if usual && !late {
            self.counted += self.looked_at.duration_since(since);
        }
        // What was silent while all was well was silent for no longer than that.
        self.counted = self.counted.min(pair.since(self.alive_at));
        seen.counted = self.counted;
        decide(&seen, confirm)
    }

    /// What is known without asking anybody else.
    fn cheap_witnesses(&self, known_for: Duration, now: Instant) -> Witnesses {
        let young = POLL_INTERVAL + MAX_ANSWER;
        let said = self.standby_says.as_ref();
        let said = said.filter(|said| now.duration_since(said.arrived) < young);
        Witnesses {
            primary: self.last,
            unserved: now.duration_since(self.served_at),
            silent: now.duration_since(self.alive_at),
            counted: self.counted,
            misses: self.misses,
            known: self.was_alive || known_for > GRACE,
            shut_down: false,
            container: Container::Unknown,
            processes: Processes::None,
            standby: said.map_or(Standby::default(), |said| Standby {
                // One that owes an answer now takes at least as long.
                took: Some(said.took.max(self.standby.owes_for().unwrap_or_default())),
                heard: said.heard_at.map(|at| now.duration_since(at)),
                runs_for: said.runs_for,
            }),
            host_overloaded: false,
        }
    }

    fn processes(&mut self, pair: &Pair) -> Processes {
        let Ok(pids) = pair.processes(self.node) else {
            // Not known: somebody may be at work.
            self.worked_at = pair.now();
            return Processes::Work;
        };
        let read = |pid| {
            let process = pair.machine.process(pid)?;
            Some((pid, (process.frozen, process.ran)))
        };
        let now = pids.into_iter().filter_map(read).collect();
        let before = std::mem::replace(&mut self.processes, now);
        if before != self.processes {
            self.worked_at = pair.now();
        }
        if self.processes.is_empty() {
            Processes::None
        } else if self.processes.values().all(|(frozen, _)| *frozen) {
            Processes::Frozen
        } else if pair.since(self.worked_at) < STILL_AFTER {
            Processes::Work
        } else {
            Processes::Still
        }
    }
}

fn state_of(machine: &dyn Machine, found: Option<docker::Container>) -> Container {
    let runs = found.filter(|it| it.running);
    let age = |pid| machine.process(pid).map(|it| it.age);
    match runs.map(|it| (it.paused, age(it.pid))) {
        Some((true, _)) => Container::Paused,
        Some((false, Some(age))) => Container::Runs(age),
        // Docker may take seconds to notice that the first process is gone.
        Some((false, None)) | None => Container::Down,
    }
}

fn meaning(answer: Answer) -> (Primary, Option<Row>) {
    match answer.rows {
        // An answer to an old question says nothing of now, but that it lives.
        Ok(_) if answer.arrived - answer.asked > MAX_ANSWER => (Primary::Speaks, None),
        Ok(rows) => (
            Primary::Answers,
            Some(rows.into_iter().next().unwrap_or_default()),
        ),
        Err(SqlError::Said(_)) => (Primary::Speaks, None),
        Err(SqlError::NotYet(_)) => (Primary::Starting, None),
        Err(SqlError::Gone(_) | SqlError::Silent(_)) => (Primary::Silent, None),
    }
}

/// Says whether a primary has written down that it was shut down, and is
/// stopping: it cannot take a write any more, whoever it still waits for.
fn is_shut_down(pair: &Pair, node: Node) -> bool {
    let disk = NodeDisk::read(&pair.layout, node);
    let ended = disk.control().is_ok_and(|it| it.ended == Ended::ShutDown);
    ended && disk.status.is_some_and(|status| status == "stopping")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::layout::Layout;
    use crate::pair::machine::ThisMachine;

    #[test]
    fn a_container_without_its_first_process_is_down_whatever_docker_says() {
        let layout = Layout::new("p", None).expect("a fine name");
        let machine = ThisMachine::of(&layout);
        let found = |running, paused, pid| {
            let container = docker::Container {
                id: String::new(),
                status: String::new(),
                running,
                paused,
                pid,
                image: String::new(),
                memory_bytes: None,
                pair: String::new(),
            };
            state_of(&machine, Some(container))
        };
        let own = std::process::id();
        assert!(matches!(found(true, false, own), Container::Runs(_)));
        assert_eq!(found(true, true, own), Container::Paused);
        assert_eq!(found(true, false, u32::MAX), Container::Down);
        assert_eq!(found(false, false, 0), Container::Down);
        assert_eq!(state_of(&machine, None), Container::Down);
    }
}
