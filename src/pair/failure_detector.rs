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
mod tests {
    use super::*;

    const CONFIRM: Duration = Duration::from_secs(5);

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A primary that is dead: its container does not run.
    const DEAD: Witnesses = Witnesses {
        primary: Primary::Silent,
        unserved: s(6),
        silent: s(6),
        counted: s(6),
        misses: 9,
        known: true,
        shut_down: false,
        container: Container::Down,
        processes: Processes::None,
        standby: Standby {
            took: Some(Duration::from_millis(3)),
            heard: Some(s(6)),
            runs_for: Some(s(3600)),
        },
        host_overloaded: false,
    };

    /// One that runs, and does not move at all.
    const STILL: Witnesses = Witnesses {
        container: Container::Runs(s(3600)),
        processes: Processes::Still,
        ..DEAD
    };

    const WORKS: Witnesses = Witnesses {
        processes: Processes::Work,
        ..STILL
    };

    const FROZEN: Witnesses = Witnesses {
        processes: Processes::Frozen,
        ..STILL
    };

    fn standby(took: Option<u64>, heard: Option<Duration>) -> Standby {
        let took = took.map(Duration::from_millis);
        Standby {
            took,
            heard,
            runs_for: Some(s(3600)),
        }
    }

    #[test]
    fn each_witness_counts() {
        use Decision::{Replace, Serves, Unconfirmed, Wait};
        use WaitReason::*;
        let slow = standby(Some(1_200), Some(s(6)));
        let mute = standby(None, Some(s(6)));
        let hears = standby(Some(3), Some(s(1)));
        let just_started = Standby {
            runs_for: Some(s(4)),
            ..DEAD.standby
        };
        let paused = Witnesses {
            container: Container::Paused,
            ..STILL
        };
        let begins = Witnesses {
            processes: Processes::None,
            container: Container::Runs(s(3)),
            ..STILL
        };
        let long = Witnesses {
            unserved: s(61),
            silent: s(61),
            counted: s(61),
            standby: standby(Some(3), Some(s(61))),
            ..WORKS
        };
        for (what, seen, decision) in [
            (
                "it answers",
                Witnesses {
                    primary: Primary::Answers,
                    ..DEAD
                },
                Serves,
            ),
            (
                "not for long",
                Witnesses {
                    unserved: s(4),
                    ..DEAD
                },
                Unconfirmed,
            ),
            ("not often", Witnesses { misses: 2, ..DEAD }, Unconfirmed),
            ("dead", DEAD, Replace),
            (
                "dead on a busy host",
                Witnesses {
                    host_overloaded: true,
                    counted: s(0),
                    ..DEAD
                },
                Replace,
            ),
            (
                "dead beside a slow standby",
                Witnesses {
                    standby: slow,
                    ..DEAD
                },
                Replace,
            ),
            (
                "dead, and was starting again and again",
                Witnesses {
                    silent: s(1),
                    ..DEAD
                },
                Replace,
            ),
            (
                "dead before anybody looked",
                Witnesses {
                    known: false,
                    ..DEAD
                },
                Wait(PairStarting),
            ),
            (
                "frozen, its standby younger",
                Witnesses {
                    standby: just_started,
                    ..paused
                },
                Replace,
            ),
            (
                "dead, its standby younger",
                Witnesses {
                    standby: just_started,
                    ..DEAD
                },
                Wait(PairStarting),
            ),
            (
                "shut down, waits for others",
                Witnesses {
                    primary: Primary::Starting,
                    shut_down: true,
                    ..WORKS
                },
                Replace,
            ),
            (
                "too many clients",
                Witnesses {
                    primary: Primary::Speaks,
                    silent: s(0),
                    ..WORKS
                },
                Wait(PrimaryAnswers),
            ),
            (
                "cannot fork, standby mute",
                Witnesses {
                    primary: Primary::Speaks,
                    standby: mute,
                    ..WORKS
                },
                Wait(PrimaryAnswers),
            ),
            (
                "recovers",
                Witnesses {
                    primary: Primary::Starting,
                    silent: s(0),
                    ..WORKS
                },
                Wait(PrimaryStarting),
            ),
            (
                "its container has just begun",
                begins,
                Wait(PrimaryStarting),
            ),
            (
                "nobody at work in its container",
                Witnesses {
                    container: Container::Runs(s(90)),
                    ..begins
                },
                Replace,
            ),
            ("frozen", FROZEN, Replace),
            (
                "frozen on a busy host",
                Witnesses {
                    host_overloaded: true,
                    counted: s(0),
                    ..FROZEN
                },
                Replace,
            ),
            ("paused", paused, Replace),
            (
                "paused, both slow",
                Witnesses {
                    standby: slow,
                    ..paused
                },
                Wait(StandbySlow),
            ),
            (
                "paused, both silent",
                Witnesses {
                    standby: mute,
                    ..paused
                },
                Wait(StandbySilent),
            ),
            (
                "frozen, its standby still hears",
                Witnesses {
                    standby: hears,
                    ..FROZEN
                },
                Wait(WitnessDisagrees),
            ),
            ("still", STILL, Replace),
            (
                "still, no receiver",
                Witnesses {
                    standby: standby(Some(3), None),
                    ..STILL
                },
                Replace,
            ),
            (
                "still, its standby hears",
                Witnesses {
                    standby: hears,
                    ..STILL
                },
                Wait(WitnessDisagrees),
            ),
            (
                "still, host busy",
                Witnesses {
                    host_overloaded: true,
                    ..STILL
                },
                Wait(HostOverloaded),
            ),
            (
                "still, host was busy",
                Witnesses {
                    counted: s(2),
                    ..STILL
                },
                Wait(HostOverloaded),
            ),
            (
                "still, both slow",
                Witnesses {
                    standby: slow,
                    ..STILL
                },
                Wait(StandbySlow),
            ),
            (
                "still, both silent",
                Witnesses {
                    standby: mute,
                    ..STILL
                },
                Wait(StandbySilent),
            ),
            ("works", WORKS, Wait(WitnessDisagrees)),
            ("works, silent for long", long, Replace),
            (
                "works, silent for long, both slow",
                Witnesses {
                    standby: standby(Some(1_200), None),
                    ..long
                },
                Wait(StandbySlow),
            ),
            (
                "works, silent for long, host busy",
                Witnesses {
                    host_overloaded: true,
                    ..long
                },
                Wait(HostOverloaded),
            ),
            (
                "works, silent for long, host was busy",
                Witnesses {
                    counted: s(30),
                    ..long
                },
                Wait(WitnessDisagrees),
            ),
            (
                "works, silent for long, its standby hears",
                Witnesses {
                    standby: standby(Some(3), Some(s(29))),
                    ..long
                },
                Wait(WitnessDisagrees),
            ),
            (
                "Docker is mute",
                Witnesses {
                    container: Container::Unknown,
                    ..DEAD
                },
                Wait(EngineSilent),
            ),
        ] {
            assert_eq!(decide(&seen, CONFIRM), decision, "{what}");
        }
    }

    /// Every mixture of witnesses: one that is alive by any of them stays, and so
    /// does every one while nobody better is there.
    #[test]
    fn nobody_alive_is_replaced_in_any_mixture() {
        let mut seen_of_each = [0; 2];
        for primary in [
            Primary::Answers,
            Primary::Speaks,
            Primary::Starting,
            Primary::Silent,
        ] {
            for container in [
                Container::Down,
                Container::Paused,
                Container::Runs(s(90)),
                Container::Unknown,
            ] {
                for processes in [
                    Processes::None,
                    Processes::Frozen,
                    Processes::Still,
                    Processes::Work,
                ] {
                    for took in [None, Some(3), Some(900)] {
                        for heard in [None, Some(s(0)), Some(s(40))] {
                            for host_overloaded in [false, true] {
                                let seen = Witnesses {
                                    primary,
                                    container,
                                    processes,
                                    standby: standby(took, heard),
                                    host_overloaded,
                                    unserved: s(40),
                                    silent: s(40),
                                    counted: s(40),
                                    ..DEAD
                                };
                                let replaced = decide(&seen, CONFIRM) == Decision::Replace;
                                seen_of_each[usize::from(replaced)] += 1;
                                let dead = is_dead(&seen);
                                let alive = primary != Primary::Silent
                                    || processes == Processes::Work
                                        && container != Container::Paused
                                    || heard == Some(s(0));
                                let better = took == Some(3);
                                assert!(!replaced || dead || better && !alive, "{seen:?}");
                            }
                        }
                    }
                }
            }
        }
        assert!(
            seen_of_each.iter().all(|count| *count > 20),
            "{seen_of_each:?}"
        );
    }

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        for reason in WaitReason::ALL {
            assert_eq!(WaitReason::named(reason.word()), Some(reason));
            assert!(!reason.sentence().is_empty());
        }
        assert_eq!(WaitReason::named("bad_mood"), None);
    }
}
