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
                                || processes == Processes::Work && container != Container::Paused
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
