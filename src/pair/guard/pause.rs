//! `pgpair guard pause` and `resume`: for a person before maintenance, and for programs
//! that give way to a person.

use std::path::Path;
use std::time::Duration;

use super::state;
use crate::pair::error::{Error, Why, failed, refused};
use crate::pair::files;
use crate::pair::host::Pair;
use crate::pair::transition::journal;
use crate::probe::guard_report::{self, Report};

/// Longest until a guard has brought to its end what it had begun: a copy of a whole
/// node may be in it.
const MAX_WAIT: Duration = Duration::from_secs(120);

/// Time between two looks at what it says.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// What a pause is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// How long it lasts.
    pub length: Duration,
    /// Come back only when the guard heeds it, and nothing that it began is under way.
    pub wait: bool,
    /// Leave a pause alone that somebody else has made, and make none where no guard is
    /// at work.
    pub unless_paused: bool,
    /// The end of a pause that is the caller's own.
    pub own: Option<u64>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paused {
    /// Something was changed.
    pub changed: bool,
    /// The end of the pause, in seconds since 1970, if there is one.
    pub until: Option<u64>,
}

/// Pauses the guard.
///
/// # Errors
///
/// Refuses a folder that is not the pair's; fails if the guard does not heed it in time.
pub fn pause(pair: &Pair, wanted: &Pause) -> Result<Paused, Error> {
    let layout = &pair.layout;
    let known = files::is_the_pairs(layout);
    let may_look = !known.as_ref().is_err_and(|it| it.why() == Why::NotRoot);
    let paused = if wanted.unless_paused && may_look && state::at_work(layout).is_none() {
        pair.say("no guard is at work on this pair");
        Paused {
            changed: false,
            until: None,
        }
    } else {
        known?;
        begin(pair, wanted)?
    };
    if wanted.wait {
        wait_until_heeded(pair)?;
    }
    Ok(paused)
}

fn begin(pair: &Pair, wanted: &Pause) -> Result<Paused, Error> {
    let layout = &pair.layout;
    let now = pair.machine.unix_time();
    if wanted.unless_paused {
        // One that cannot be read is somebody's too.
        let there = paused_until(pair, now)?;
        if there.is_some() && there != wanted.own {
            pair.say("the guard is paused already, by somebody else: that pause is left alone");
            return Ok(Paused {
                changed: false,
                until: there,
            });
        }
    }
    let until = now + wanted.length.as_secs().max(1);
    state::pause(layout, until).map_err(|error| {
        refused(
            Why::FileUnusable,
            format!("the pause cannot be written: {error}"),
        )
    })?;
    let length = wanted.length;
    pair.say(&format!(
        "the guard replaces no primary for {length:?}: pgpair guard resume ends that"
    ));
    Ok(Paused {
        changed: true,
        until: Some(until),
    })
}

/// Ends a pause; with `own` only one that ends then.
///
/// # Errors
///
/// Refuses a folder that is not the pair's.
pub fn resume(pair: &Pair, own: Option<u64>) -> Result<bool, Error> {
    let layout = &pair.layout;
    files::is_the_pairs(layout)?;
    if own.is_some() && paused_until(pair, 0)? != own {
        pair.say("no pause ends then: nothing was changed");
        return Ok(false);
    }
    state::resume(layout).map_err(|error| {
        refused(
            Why::FileUnusable,
            format!("the pause cannot be removed: {error}"),
        )
    })?;
    pair.say("the guard is on watch");
    Ok(true)
}

fn paused_until(pair: &Pair, now: u64) -> Result<Option<u64>, Error> {
    let read = state::paused_until(&pair.layout, now);
    read.map_err(|error| refused(error.why(), error.detail()))
}

/// Waits until the guard has seen the pause, and has brought to its end what it had
/// begun before.
fn wait_until_heeded(pair: &Pair) -> Result<(), Error> {
    let limit = pair.now() + MAX_WAIT;
    while let Some(why) = not_heeded(pair) {
        if pair.now() > limit {
            return Err(failed(
                Why::Busy,
                format!("{why} after {MAX_WAIT:?}: wait until it has ended, and run this again"),
            ));
        }
        pair.sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// Says what is waited for; nothing once the guard heeds the pause.
fn not_heeded(pair: &Pair) -> Option<String> {
    let layout = &pair.layout;
    state::at_work(layout)?;
    let until = state::paused_until(layout, pair.machine.unix_time())
        .ok()
        .flatten()?;
    if let Some(holder) = journal::holder(layout) {
        let by_guard = holder.starts_with("guard ");
        return by_guard.then(|| format!("pgpair {holder} is still at work"));
    }
    let path = layout.file(guard_report::FILE);
    // Without that folder no guard says anything.
    if !path.parent().is_some_and(Path::exists) {
        return None;
    }
    match Report::read(&path) {
        Ok(Some(report)) if report.paused_until == Some(until) => None,
        Ok(Some(report)) => Some(format!("the guard still says that it is {}", report.state)),
        Ok(None) => Some("the guard has not said anything yet".to_owned()),
        Err(error) => Some(format!("the guard's report cannot be read ({error})")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;

    use rustix::fs::{FlockOperation, flock};

    use super::*;
    use crate::pair::host::Output;
    use crate::pair::layout::Layout;

    const HOUR: Duration = Duration::from_secs(3600);

    fn pair() -> (tempfile::TempDir, Pair) {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new("p", folder.path().to_str()).expect("a short path");
        fs::write(layout.marker(), "p\n").expect("writes");
        (folder, Pair::new(layout, Output::Log))
    }

    /// A guard that is at work, as far as its lock tells.
    fn guard(pair: &Pair) -> File {
        let mut lock = File::create(pair.layout.file(state::LOCK)).expect("made");
        flock(&lock, FlockOperation::LockExclusive).expect("it is free");
        lock.write_all(state::lock_text().as_bytes())
            .expect("writes");
        lock
    }

    fn unless_paused(own: Option<u64>) -> Pause {
        Pause {
            length: HOUR,
            wait: true,
            unless_paused: true,
            own,
        }
    }

    #[test]
    fn guard_that_is_not_there_is_paused_only_by_a_person() {
        let (_folder, pair) = pair();
        let none = Paused {
            changed: false,
            until: None,
        };
        assert_eq!(pause(&pair, &unless_paused(None)), Ok(none));
        let by_a_person = Pause {
            unless_paused: false,
            ..unless_paused(None)
        };
        assert!(pause(&pair, &by_a_person).expect("writes").changed);
    }

    #[test]
    fn folder_without_a_pair_has_no_guard() {
        let (_folder, pair) = pair();
        fs::remove_file(pair.layout.marker()).expect("it is there");
        let paused = pause(&pair, &unless_paused(None)).expect("nothing to do");
        assert!(!paused.changed);
    }

    #[test]
    fn pause_of_somebody_else_is_left_alone_and_ones_own_is_renewed() {
        let (_folder, pair) = pair();
        let _guard = guard(&pair);
        let theirs = pair.machine.unix_time() + 60;
        state::pause(&pair.layout, theirs).expect("writes");
        for own in [None, Some(theirs + 1)] {
            let left = Paused {
                changed: false,
                until: Some(theirs),
            };
            assert_eq!(pause(&pair, &unless_paused(own)), Ok(left));
        }
        assert_eq!(resume(&pair, Some(theirs + 1)), Ok(false));
        let renewed = pause(&pair, &unless_paused(Some(theirs))).expect("writes");
        assert!(renewed.changed && renewed.until > Some(theirs));
        assert_eq!(resume(&pair, renewed.until), Ok(true));
        assert_eq!(resume(&pair, renewed.until), Ok(false));
        assert_eq!(resume(&pair, None), Ok(true), "without a word of when");
    }

    #[test]
    fn pause_that_cannot_be_read_is_somebodys() {
        let (_folder, pair) = pair();
        let _guard = guard(&pair);
        fs::write(pair.layout.file("guard.pause"), "{").expect("writes");
        let error = pause(&pair, &unless_paused(None)).expect_err("refused");
        assert_eq!(error.why(), Why::FileUnusable);
        assert!(error.to_string().contains("pgpair guard resume"), "{error}");
        assert_eq!(resume(&pair, None), Ok(true));
    }

    #[test]
    fn what_is_waited_for_is_said() {
        let (_folder, pair) = pair();
        let layout = &pair.layout;
        let _guard = guard(&pair);
        assert_eq!(not_heeded(&pair), None, "there is no pause");
        let until = pair.machine.unix_time() + 60;
        state::pause(layout, until).expect("writes");
        assert_eq!(not_heeded(&pair), None, "there is no folder for a report");
        fs::create_dir(layout.file("probe")).expect("made");
        let said = |words: &str| {
            let why = not_heeded(&pair).expect("it is waited for");
            assert!(why.contains(words), "{why}");
        };
        said("has not said anything");
        let mut report = Report::now("working");
        report.write(&layout.root).expect("writes");
        said("says that it is working");
        report = Report::now("paused");
        report.paused_until = Some(until - 1);
        report.write(&layout.root).expect("writes");
        said("says that it is paused");
        report.paused_until = Some(until);
        report.write(&layout.root).expect("writes");
        assert_eq!(not_heeded(&pair), None);
        let held = journal::Held::take(layout, "guard").expect("nobody has it");
        said("pgpair guard (pid ");
        drop(held);
        assert_eq!(not_heeded(&pair), None);
    }
}
