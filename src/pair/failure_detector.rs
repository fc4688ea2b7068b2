//! Whether a primary that does not answer is to be replaced. Pure: witnesses
//! in, a decision out. On one host slowness is common to both nodes, so that
//! silence alone proves nothing.

use std::time::Duration;

use crate::probe::guard_report::WaitReason;

/// It takes this many questions without an answer.
const MISSES: u32 = 3;

/// A host, an engine or a whole pair that was started a moment ago is given
/// this long: one of the nodes is always the first.
pub const GRACE: Duration = Duration::from_secs(30);

/// A standby that takes longer than this for an answer would make no better
/// primary. On a host that is well it takes a few milliseconds.
const QUICK: Duration = Duration::from_millis(500);

/// A primary whose processes work and that says nothing is hung after this:
/// PostgreSQL's replication has a sign of life every 30 s, even if idle, and
/// gives a connection up after 60 s.
const HUNG_AFTER: Duration = Duration::from_secs(60);

/// A standby hears what was sent just before the primary fell silent, and that
/// is noticed half a second late.
const HEARS_AFTER: Duration = Duration::from_secs(2);

/// What the primary did when it was asked last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Primary {
    /// It answered the question.
    Answers,
    /// It answered something else: too many clients, no memory, no process left.
    Speaks,
    /// It says that it is starting up, recovering or shutting down.
    Starting,
    /// It said nothing, or nobody is there.
    Silent,
}

/// What Docker says of the primary's container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// It does not run, or is not there.
    Down,
    /// Its processes are frozen.
    Paused,
    /// Its first process has been there for this long.
    Runs(Duration),
    /// Docker does not answer.
    Unknown,
}

/// What the processes that work in the primary's data do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processes {
    /// There are none.
    None,
    /// There are some, and all of them are stopped by a signal, or dead.
    Frozen,
    /// None of them used the processor since the last look.
    Still,
    /// They work.
    Work,
}

/// What the standby says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standby {
    /// How long its answer to the last question took; `None` if it owes it.
    pub took: Option<Duration>,
    /// Since its WAL receiver heard from the primary, if it has one.
    pub heard: Option<Duration>,
    /// Since its server was started.
    pub runs_for: Option<Duration>,
}

/// All that is known when a decision is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Witnesses {
    /// What the primary did when it was asked last.
    pub primary: Primary,
    /// Since it did what it was asked.
    pub unserved: Duration,
    /// Since its last sign of life of any kind.
    pub silent: Duration,
    /// Of that, the time in which the host was well and the standby answered as
    /// usual.
    pub counted: Duration,
    /// Questions without an answer that counts.
    pub misses: u32,
    /// The guard saw it alive, or has been there for long enough.
    pub known: bool,
    /// It has written down that it was shut down, and is only waiting for others.
    pub shut_down: bool,
    /// What Docker says.
    pub container: Container,
    /// What its processes do.
    pub processes: Processes,
    /// What the standby says.
    pub standby: Standby,
    /// The host is too busy for silence to mean anything.
    pub host_overloaded: bool,
}

/// What to do about a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: it answers.
    Serves,
    /// Nothing yet: it has not been silent for long enough.
    Unconfirmed,
    /// Wait, for this reason.
    Wait(WaitReason),
    /// Replace it.
    Replace,
}

/// Decides. `confirm` is how long a primary must have been silent.
pub fn decide(seen: &Witnesses, confirm: Duration) -> Decision {
    if seen.primary == Primary::Answers {
        return Decision::Serves;
    }
    if seen.unserved < confirm || seen.misses < MISSES {
        return Decision::Unconfirmed;
    }
    // What is frozen does not start.
    if !seen.known || !is_frozen(seen) && started_since(seen) {
        return Decision::Wait(WaitReason::PairStarting);
    }
    if is_dead(seen) {
        return Decision::Replace;
    }
    match seen.primary {
        Primary::Speaks => Decision::Wait(WaitReason::PrimaryAnswers),
        Primary::Starting => Decision::Wait(WaitReason::PrimaryStarting),
        _ if seen.silent < confirm => Decision::Unconfirmed,
        _ => still_there(seen, confirm).map_or(Decision::Replace, Decision::Wait),
    }
}

/// Says whether it cannot take a write any more, whatever the host is like.
fn is_dead(seen: &Witnesses) -> bool {
    seen.shut_down || seen.container == Container::Down && seen.processes == Processes::None
}

/// Says whether it was frozen. Nobody becomes so by being slow: the host may be as
/// busy as it likes.
fn is_frozen(seen: &Witnesses) -> bool {
    seen.container == Container::Paused || seen.processes == Processes::Frozen
}

/// Says whether the standby was started after the primary fell silent: who
/// restarts the engine, or both containers, starts one of them first. A standby
/// that does not answer gives the primary no time: the failover refuses then.
fn started_since(seen: &Witnesses) -> bool {
    let noticed_within = Duration::from_secs(1);
    let runs_for = seen.standby.runs_for;
    let since = runs_for.is_some_and(|it| it < seen.unserved + noticed_within);
    since && seen.unserved < GRACE
}

/// Returns why a primary that is not dead, and silent, stays.
fn still_there(seen: &Witnesses, confirm: Duration) -> Option<WaitReason> {
    if seen.container == Container::Unknown {
        return Some(WaitReason::EngineSilent);
    }
    let hears = |heard| heard + HEARS_AFTER < seen.silent && heard < HUNG_AFTER;
    if seen.standby.heard.is_some_and(hears) {
        return Some(WaitReason::WitnessDisagrees);
    }
    let frozen = is_frozen(seen);
    if !frozen && seen.host_overloaded {
        return Some(WaitReason::HostOverloaded);
    }
    match seen.standby.took {
        None => return Some(WaitReason::StandbySilent),
        Some(took) if took > QUICK => return Some(WaitReason::StandbySlow),
        Some(_) if frozen => return None,
        Some(_) => {}
    }
    if seen.counted < confirm {
        return Some(WaitReason::HostOverloaded);
    }
    match (seen.processes, seen.container) {
        (Processes::Work, _) if seen.counted < HUNG_AFTER => Some(WaitReason::WitnessDisagrees),
        (Processes::None, Container::Runs(since)) if since < GRACE => {
            Some(WaitReason::PrimaryStarting)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
