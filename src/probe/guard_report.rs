//! What the guard says of itself, in a file that the probe reads.

use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::runtime::document::{self, Content, Object, word};
use crate::runtime::text::value_of;

/// Where it lies: in the folder that the probe's container has.
pub const FILE: &str = "probe/guard";

/// A guard writes at least once a second; one that has not for this long is
/// gone, or cannot do its work.
pub const SILENT_AFTER: Duration = Duration::from_secs(10);

/// What it says that it does.
pub const STATES: [&str; 5] = ["watching", "waiting", "working", "paused", "blocked"];

/// What it says last.
pub const STOPPED: &str = "stopped";

/// No report is as long as this.
const MAX_BYTES: u64 = 64 << 10;

/// Why a primary that does not do what it is asked is not replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitReason {
    /// It says that it cannot do it now: it is alive.
    PrimaryAnswers,
    /// It says that it starts, recovers or shuts down, or its container has only
    /// just been started.
    PrimaryStarting,
    /// The standby, or the guard, was itself started a moment ago.
    PairStarting,
    /// The standby does not answer.
    StandbySilent,
    /// The standby takes too long to answer.
    StandbySlow,
    /// It says nothing, but its processes work or its standby hears from it.
    WitnessDisagrees,
    /// The host is too busy for silence to mean anything.
    HostOverloaded,
    /// Docker does not answer.
    EngineSilent,
}

impl WaitReason {
    /// Every reason.
    pub const ALL: [WaitReason; 8] = [
        WaitReason::PrimaryAnswers,
        WaitReason::PrimaryStarting,
        WaitReason::PairStarting,
        WaitReason::StandbySilent,
        WaitReason::StandbySlow,
        WaitReason::WitnessDisagrees,
        WaitReason::HostOverloaded,
        WaitReason::EngineSilent,
    ];

    /// Returns the word for it.
    pub fn word(self) -> &'static str {
        match self {
            WaitReason::PrimaryAnswers => "primary_answers",
            WaitReason::PrimaryStarting => "primary_starting",
            WaitReason::PairStarting => "pair_starting",
            WaitReason::StandbySilent => "standby_silent",
            WaitReason::StandbySlow => "standby_slow",
            WaitReason::WitnessDisagrees => "witness_disagrees",
            WaitReason::HostOverloaded => "host_overloaded",
            WaitReason::EngineSilent => "engine_silent",
        }
    }

    /// Finds a reason by its word.
    pub fn named(word: &str) -> Option<WaitReason> {
        WaitReason::ALL.into_iter().find(|it| it.word() == word)
    }

    /// Says whether the primary has given a sign of life.
    pub fn is_life(self) -> bool {
        matches!(
            self,
            WaitReason::PrimaryAnswers | WaitReason::PrimaryStarting
        )
    }

    /// Says it in a sentence of which the primary is the subject.
    pub fn sentence(self) -> &'static str {
        match self {
            WaitReason::PrimaryAnswers => "is alive, but does not do what it is asked",
            WaitReason::PrimaryStarting => "is starting, recovering or shutting down",
            WaitReason::PairStarting => "does not answer, but the pair was started a moment ago",
            WaitReason::StandbySilent => "does not answer, and its standby does not answer either",
            WaitReason::StandbySlow => "does not answer, and its standby is slow too",
            WaitReason::WitnessDisagrees => {
                "does not answer, but works, or its standby hears from it"
            }
            WaitReason::HostOverloaded => "does not answer, but the host is overloaded",
            WaitReason::EngineSilent => "does not answer, and neither does Docker",
        }
    }
}

/// What the guard says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// When this was written, in milliseconds since 1970 by the host's clock.
    pub at_ms: u64,
    /// One of [`STATES`], or [`STOPPED`].
    pub state: String,
    /// What keeps it from replacing a primary, for a person.
    pub detail: Option<String>,
    /// Why a primary that does not answer is not replaced.
    pub reason: Option<WaitReason>,
    /// Why it cannot do what it would have to, in a word.
    pub blocked: Option<String>,
    /// `async`, `sync` or `strict`.
    pub mode: String,
    /// Every acknowledged commit is on the standby's disk.
    pub synchronous: bool,
    /// The end of a pause, in seconds since 1970.
    pub paused_until: Option<u64>,
    /// Primaries that it replaced in the last hour.
    pub failovers: usize,
}

impl Report {
    /// Makes one of now that says no more than this.
    pub fn now(state: &str) -> Report {
        Report {
            at_ms: now_ms(),
            state: state.to_owned(),
            ..Report::default()
        }
    }

    /// Puts it, as of now, where the probe finds it, if there is one.
    ///
    /// # Errors
    ///
    /// Fails if the disk does not take it.
    pub fn write(&mut self, root: &Path) -> io::Result<()> {
        let path = root.join(FILE);
        let Some(folder) = path.parent().filter(|folder| folder.exists()) else {
            return Ok(());
        };
        self.at_ms = now_ms();
        // Not for good: what is lost with the host is of no interest after it.
        let beside = folder.join("guard.new");
        let mut object = Object::versioned();
        self.fields(&mut object);
        fs::write(&beside, object.line())?;
        // The probe is another user; there is nothing secret in it.
        fs::set_permissions(&beside, Permissions::from_mode(0o644))?;
        fs::rename(&beside, &path)
    }

    /// Reads what was put there; `None` if nothing ever was.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be read or is no report.
    pub fn read(path: &Path) -> io::Result<Option<Report>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut text = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        let report = document::parse(&text).map(|content| match content {
            Content::Json(value) => Report::of(&value),
            Content::Older(_) => Report::older(&text),
        });
        match report {
            Ok(Some(report)) => Ok(Some(report)),
            Ok(None) => Err(io::Error::other("this is no report of a guard")),
            Err(error) => Err(io::Error::other(format!(
                "this is no report of a guard: {error}"
            ))),
        }
    }

    /// Writes what the file says of it.
    pub fn fields(&self, object: &mut Object) {
        object.number("at_ms", Some(self.at_ms));
        object.text("state", Some(&self.state));
        object.text("detail", self.detail.as_deref());
        object.text("reason", self.reason.map(WaitReason::word));
        object.text("blocked", self.blocked.as_deref());
        object.text("mode", Some(&self.mode));
        object.yes("synchronous", self.synchronous);
        object.number("paused_until", self.paused_until);
        object.number("failovers", self.failovers.try_into().ok());
    }

    fn of(value: &Value) -> Option<Report> {
        Some(Report {
            at_ms: value.get("at_ms")?.as_u64()?,
            state: word(value, "state")?.to_owned(),
            detail: word(value, "detail").map(str::to_owned),
            reason: word(value, "reason").and_then(WaitReason::named),
            blocked: word(value, "blocked").filter(is_word).map(str::to_owned),
            mode: word(value, "mode")?.to_owned(),
            synchronous: value.get("synchronous")?.as_bool()?,
            paused_until: value.get("paused_until").and_then(Value::as_u64),
            failovers: value.get("failovers")?.as_u64()?.try_into().ok()?,
        })
    }

    /// Reads what was written before there were versions: a line of `key=value`, and what
    /// there is to tell a person below it.
    fn older(text: &str) -> Option<Report> {
        let (line, detail) = text.split_once('\n')?;
        Some(Report {
            at_ms: value_of(line, "at_ms")?.parse().ok()?,
            state: value_of(line, "state")?.to_owned(),
            detail: Some(detail.to_owned()).filter(|it| !it.is_empty()),
            reason: value_of(line, "reason").and_then(WaitReason::named),
            blocked: value_of(line, "blocked").filter(is_word).map(str::to_owned),
            mode: value_of(line, "mode")?.to_owned(),
            synchronous: value_of(line, "synchronous")? == "true",
            paused_until: value_of(line, "paused_until").and_then(|it| it.parse().ok()),
            failovers: value_of(line, "failovers")?.parse().ok()?,
        })
    }

    /// Returns how long ago it was written. A clock that was set back since then
    /// makes it new: the next one will come within a second.
    pub fn age(&self) -> Duration {
        Duration::from_millis(now_ms().saturating_sub(self.at_ms))
    }
}

/// Words of another version are taken too; what is none is not.
fn is_word(text: &&str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    (1..=40).contains(&text.len()) && text.bytes().all(plain)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_by_anybody() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut report = Report {
            state: "blocked".to_owned(),
            detail: Some("a \"word\"\n".to_owned()),
            reason: Some(WaitReason::HostOverloaded),
            blocked: Some("would_lose".to_owned()),
            paused_until: Some(7),
            ..Report::default()
        };
        report.write(folder.path()).expect("no probe is no error");
        let path = folder.path().join(FILE);
        assert_eq!(Report::read(&path).expect("none is no error"), None);

        fs::create_dir(path.parent().expect("a folder")).expect("made");
        report.write(folder.path()).expect("writes");
        assert_eq!(Report::read(&path).expect("reads"), Some(report.clone()));
        assert!(report.at_ms > 0 && report.age() < SILENT_AFTER);
        let mode = fs::metadata(&path)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o644);
    }

    #[test]
    fn report_of_the_version_before_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("guard");
        let line = "at_ms=5 state=blocked mode=sync synchronous=true failovers=2 paused_until=7";
        fs::write(&path, format!("{line} blocked=would_lose\nb lacks much")).expect("writes");
        let report = Report::read(&path).expect("reads").expect("is there");
        assert_eq!((report.at_ms, report.failovers), (5, 2));
        assert_eq!(report.blocked.as_deref(), Some("would_lose"));
        assert_eq!(report.detail.as_deref(), Some("b lacks much"));
        assert_eq!((report.synchronous, report.paused_until), (true, Some(7)));
    }

    #[test]
    fn what_is_no_report_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("guard");
        for text in [
            "",
            "{}",
            "at_ms=-1 state=paused mode= failovers=0\n",
            "at_ms=1",
            "\u{0}",
            "{\"version\":1,\"at_ms\":1,\"state\":\"paused\"}",
            "{\"version\":2}",
        ] {
            fs::write(&path, text).expect("writes");
            assert!(Report::read(&path).is_err(), "{text:?}");
        }
        assert!(Report::read(folder.path()).is_err(), "a folder");
    }
}
