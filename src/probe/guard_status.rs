//! What the pair's guard says of itself, as far as it can be believed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::guard_report::{Report, SILENT_AFTER, STATES, STOPPED};
use crate::runtime::threads::{self, lock};

/// The state of a guard that never was.
pub const ABSENT: &str = "absent";

/// Time between two looks: as often as it is written.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Reads the guard's report over and over, on a thread of its own: a disk that
/// does not answer holds up nobody else.
#[derive(Debug)]
pub struct GuardWatch {
    last: Mutex<Result<Option<Report>, String>>,
}

/// What is known of the guard.
#[derive(Debug, PartialEq, Eq)]
pub struct Guard {
    /// What it does, or why that is not known: `absent` (there never was one),
    /// `stopped`, `silent` (it reports no more) or `unreadable`.
    pub state: &'static str,
    /// More about the state, for a person.
    pub detail: Option<String>,
    /// Since its last report.
    pub age: Option<Duration>,
    /// Its last report, if it still holds.
    pub report: Option<Report>,
}

impl GuardWatch {
    /// Begins to read the report at `path`.
    ///
    /// # Errors
    ///
    /// Fails if the thread cannot be started.
    pub fn start(path: PathBuf) -> io::Result<Arc<GuardWatch>> {
        let watch = Arc::new(GuardWatch {
            last: Mutex::new(read(&path)),
        });
        let reader = Arc::clone(&watch);
        threads::spawn("guard".to_owned(), move || {
            loop {
                thread::sleep(POLL_INTERVAL);
                let read = read(&path);
                *lock(&reader.last) = read;
            }
        })?;
        Ok(watch)
    }

    /// Returns what is known now.
    pub fn guard(&self) -> Guard {
        let last = lock(&self.last);
        Guard::by(last.clone())
    }
}

fn read(path: &Path) -> Result<Option<Report>, String> {
    Report::read(path).map_err(|error| error.to_string())
}

impl Guard {
    fn by(read: Result<Option<Report>, String>) -> Guard {
        let nothing = |state, detail| Guard {
            state,
            detail,
            age: None,
            report: None,
        };
        let report = match read {
            Ok(Some(report)) => report,
            Ok(None) => return nothing(ABSENT, None),
            Err(problem) => return nothing("unreadable", Some(problem)),
        };
        let age = report.age();
        let known = STATES.into_iter().find(|state| *state == report.state);
        let (state, holds) = match known {
            _ if report.state == STOPPED => (STOPPED, false),
            _ if age > SILENT_AFTER => ("silent", false),
            Some(state) => (state, true),
            None => return nothing("unreadable", Some("a state of another version".to_owned())),
        };
        Guard {
            state,
            detail: report.detail.clone().filter(|_| holds),
            age: Some(age),
            report: Some(report).filter(|_| holds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(report: Report) -> (&'static str, bool) {
        let guard = Guard::by(Ok(Some(report)));
        (guard.state, guard.report.is_some())
    }

    #[test]
    fn a_report_holds_while_it_is_young() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("guard");
        for word in STATES {
            let young = Report::now(word);
            assert_eq!(state(young.clone()), (word, true));
            let mut old = young;
            old.at_ms -= 10_500;
            assert_eq!(state(old), ("silent", false));
        }
        let mut stopped = Report::now(STOPPED);
        assert_eq!(state(stopped.clone()), (STOPPED, false));
        stopped.at_ms = 0;
        assert_eq!(state(stopped), (STOPPED, false));
        assert_eq!(state(Report::now("dancing")), ("unreadable", false));
        assert_eq!(Guard::by(read(&path)).state, ABSENT);
        assert_eq!(Guard::by(read(folder.path())).state, "unreadable");
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_make_it_old() {
        let mut report = Report::now("watching");
        report.at_ms += 3_600_000;
        assert_eq!(state(report), ("watching", true));
    }
}
