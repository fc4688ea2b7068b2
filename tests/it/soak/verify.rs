//! Takes answers as soon as enough is known to judge them, and counts.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::CERTAIN_AT_LEAST;
use super::checker::{Asked, Checker, Stalls, falsified};
use super::faults::Journal;
use super::truth::{At, Evidence, Truth};
use crate::support::{ms, percentile};

/// So long after an answer all looks have ended that began before it, and the
/// next ones too.
pub const KNOWN_AFTER: Duration = Duration::from_secs(4);

/// Evidence is kept for this long before the first answer that is not judged
/// yet: every window that counts, and the look before.
const KEPT_BEFORE: Duration = Duration::from_secs(10);

/// What `/health` may take, at the 99th percentile.
const HEALTH_AT_MOST: Duration = ms(50);

/// One answer in so many may be late (by up to half a second): where many threads
/// share few processors, each of the hand-overs of a request may have to wait.
const LATE_AT_MOST_ONE_IN: u64 = 1_000;

/// Wrong answers that are shown.
const SHOWN: usize = 20;

/// Everything that is needed to judge answers.
pub struct Verifier {
    began: Instant,
    evidence: Arc<Mutex<Vec<Evidence>>>,
    journal: Arc<Mutex<Journal>>,
    stalls: Arc<Mutex<Stalls>>,
    answers: Arc<Mutex<Vec<Asked>>>,
}

/// What came of a path's answers.
#[derive(Default)]
struct Count {
    asked: u64,
    /// Answers whose opposite would have been called wrong.
    certain: u64,
    wrong: u64,
    by_status: BTreeMap<u16, u64>,
    /// How often the status was not that of the answer before.
    flips: u64,
    last: u16,
}

/// What came of all answers.
#[derive(Default)]
pub struct Tally {
    paths: BTreeMap<String, Count>,
    health: Vec<Duration>,
    slowest: Duration,
    late: u64,
    shown: Vec<String>,
}

impl Verifier {
    pub fn new(
        began: Instant,
        evidence: Arc<Mutex<Vec<Evidence>>>,
        journal: Arc<Mutex<Journal>>,
        stalls: Arc<Mutex<Stalls>>,
        answers: Arc<Mutex<Vec<Asked>>>,
    ) -> Verifier {
        Verifier {
            began,
            evidence,
            journal,
            stalls,
            answers,
        }
    }

    pub fn now(&self) -> At {
        self.began.elapsed()
    }

    /// Judges the answers that are at least so old.
    pub fn verify(&self, tally: &mut Tally, age: Duration) {
        let until = self.now().saturating_sub(age);
        let mut due: Vec<Asked> = {
            let mut answers = self.answers.lock().unwrap();
            let (due, rest) = answers.drain(..).partition(|asked| asked.received <= until);
            *answers = rest;
            due
        };
        due.sort_by_key(|asked| asked.sent);
        let Some(first) = due.first().map(|asked| asked.sent) else {
            return;
        };
        let kept_from = first.saturating_sub(KEPT_BEFORE);
        let truth = {
            let mut evidence = self.evidence.lock().unwrap();
            evidence
                .iter_mut()
                .for_each(|it| it.forget_before(kept_from));
            let copy = evidence.clone();
            drop(evidence);
            Truth::of(&copy)
        };
        let excuses = self.journal.lock().unwrap().excuses.clone();
        let stalls = self.stalls.lock().unwrap().clone();
        let checker = Checker {
            truth: &truth,
            excuses: &excuses,
            stalls: &stalls,
        };
        for asked in due {
            let found = checker.check(&asked);
            let certain = checker.check(&falsified(&asked)).is_err();
            if let Err(why) = &found
                && tally.shown.len() < SHOWN
            {
                let line = self.describe(why, &asked);
                println!("wrong: {line}");
                tally.shown.push(line);
            }
            tally.late += u64::from(checker.is_late(&asked));
            tally.count(&asked, found.is_err(), certain);
        }
    }

    fn describe(&self, why: &str, asked: &Asked) -> String {
        let journal = self.journal.lock().unwrap();
        let near = journal.bands.iter().filter(|band| {
            band.from <= asked.received && asked.sent <= band.until.saturating_add(KEPT_BEFORE)
        });
        let faults: Vec<String> = near
            .map(|band| {
                format!(
                    "{} {:.2}–{:.2}",
                    band.what,
                    seconds(band.from),
                    seconds(band.until)
                )
            })
            .collect();
        format!(
            "{why}: {} sent {:.3} answered {:.3}: {} {}; faults: {}",
            asked.path,
            seconds(asked.sent),
            seconds(asked.received),
            asked.heard.status,
            asked.heard.body,
            faults.join(", ")
        )
    }
}

fn seconds(at: At) -> f64 {
    if at == At::MAX {
        f64::INFINITY
    } else {
        at.as_secs_f64()
    }
}

impl Tally {
    fn count(&mut self, asked: &Asked, wrong: bool, certain: bool) {
        let took = asked.received - asked.sent;
        if asked.path == "/health" {
            self.health.push(took);
        }
        self.slowest = self.slowest.max(took);
        let count = self.paths.entry(asked.path.clone()).or_default();
        let status = asked.heard.status;
        count.asked += 1;
        count.certain += u64::from(certain);
        count.wrong += u64::from(wrong);
        *count.by_status.entry(status).or_default() += 1;
        count.flips += u64::from(count.last != 0 && count.last != status);
        count.last = status;
    }

    fn sum(&self, what: impl Fn(&Count) -> u64) -> u64 {
        self.paths.values().map(what).sum()
    }

    pub fn asked(&self) -> u64 {
        self.sum(|count| count.asked)
    }

    /// Fails the test unless all answers were right, and enough of them certain.
    pub fn assert_right(&self) {
        assert!(
            self.shown.is_empty(),
            "{} answers were wrong:\n{}",
            self.sum(|count| count.wrong),
            self.shown.join("\n")
        );
        let share = self.sum(|count| count.certain) as f64 / self.asked() as f64;
        assert!(
            share >= CERTAIN_AT_LEAST,
            "only {share:.2} of the answers could be judged"
        );
        assert!(
            self.late <= self.asked().div_ceil(LATE_AT_MOST_ONE_IN),
            "{} of {} answers were late",
            self.late,
            self.asked()
        );
        let health = percentile(self.health.iter().copied(), 0.99);
        assert!(health <= HEALTH_AT_MOST, "/health took {health:?} at p99");
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (path, count) in &self.paths {
            writeln!(
                f,
                "{path:32} asked {:6} certain {:6} wrong {:3} flips {:4} {:?}",
                count.asked, count.certain, count.wrong, count.flips, count.by_status
            )?;
        }
        write!(
            f,
            "answers {}, of which certain {}, wrong {}, late {}, flips {}; /health p99 {:?}, slowest answer {:?}",
            self.asked(),
            self.sum(|count| count.certain),
            self.sum(|count| count.wrong),
            self.late,
            self.sum(|count| count.flips),
            percentile(self.health.iter().copied(), 0.99),
            self.slowest
        )
    }
}
