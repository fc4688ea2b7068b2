//! Why a command did not do what it was asked: a word for machines, and one line that
//! says why and what to do next.

use std::fmt;

/// Defines [`Why`]: each reason with its word, and what it means.
macro_rules! reasons {
    ($($name:ident $word:literal $meaning:literal)*) => {
        /// Why a command was refused, or failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Why {
            $(#[doc = $meaning] $name,)*
        }

        impl Why {
            /// Every reason, in the order of the documentation.
            pub const ALL: &[Why] = &[$(Why::$name),*];

            /// Returns the word for this reason, the same in JSON, metrics and logs.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Why::$name => $word,)*
                }
            }
        }
    };
}

reasons! {
    Busy "busy" "Another command, or another guard, works on the pair."
    NotRoot "not_root" "The pair's folder can be read by root only."
    NoPair "no_pair" "The folder holds no pair."
    OtherPair "other_pair" "The folder belongs to another pair."
    NoData "no_data" "No node has data."
    NoPrimary "no_primary" "Both nodes are standbys on disk."
    TwoPrimaries "two_primaries" "Both nodes are primaries."
    DifferentSystems "different_systems" "The nodes hold different databases."
    WrongRole "wrong_role" "A node runs in another role than its disk says."
    IsPrimary "is_primary" "The node is the primary, and cannot be its standby."
    NoContainer "no_container" "A node has no container."
    ForeignContainer "foreign_container" "A container of that name is not the pair's."
    ContainerDown "container_down" "A node's container does not run."
    EngineSilent "engine_silent" "Docker does not answer."
    EngineFailed "engine_failed" "Docker did not do what it was asked."
    PrimarySilent "primary_silent" "The primary does not answer."
    PrimaryAnswers "primary_answers" "The primary answers: a switchover would do."
    PrimaryMayLive "primary_may_live" "The primary is silent, and is probably not dead."
    StandbyDown "standby_down" "The standby's container does not run."
    StandbySilent "standby_silent" "The standby does not answer."
    StandbySlow "standby_slow" "The standby is too slow to be a better primary."
    StandbyBehind "standby_behind" "The standby is far behind."
    NotStreaming "not_streaming" "The standby does not stream from the primary."
    ReplayPaused "replay_paused" "Replay is paused on the standby."
    ReplayDelayed "replay_delayed" "The standby replays with a delay."
    WouldLose "would_lose" "The standby lacks what the primary committed, or may."
    BaseBackup "base_backup" "A base backup is being taken."
    ArchiveStalled "archive_stalled" "The primary cannot archive."
    ProgramRuns "program_runs" "A session of the primary runs a program."
    ProcessesFrozen "processes_frozen" "Processes of the primary are frozen."
    ProcessesUnknown "processes_unknown" "It cannot be seen who works in a node's data."
    NoCheckpoint "no_checkpoint" "CHECKPOINT failed on the primary."
    NoSpace "no_space" "There is no room for a copy."
    TooManyFailovers "too_many_failovers" "The guard replaced too many primaries within an hour."
    JournalUnreadable "journal_unreadable" "The journal of an earlier command cannot be read."
    FileUnusable "file_unusable" "A file or folder cannot be read or written."
    StartedByAnother "started_by_another" "Somebody else starts a node meanwhile."
    NotStopped "not_stopped" "A node does not stop cleanly in time."
    NotFenced "not_fenced" "A node cannot be fenced for certain."
    NotReplayed "not_replayed" "The standby has not replayed everything in time."
    NotPromoted "not_promoted" "The standby was not promoted in time."
    CopyFailed "copy_failed" "pg_rewind or pg_basebackup failed."
    ServerFailed "server_failed" "A server did not do what it was asked."
    NoResources "no_resources" "No thread or signal is to be had."
}

/// Why a command ended without having done all of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Error {
    /// Nothing was touched.
    Refused(Why, String),
    /// It went wrong on the way; the line says what the pair is left in.
    Failed(Why, String),
}

impl Error {
    /// Says the same of something that had already been begun.
    pub fn on_the_way(self) -> Error {
        match self {
            Error::Refused(why, text) | Error::Failed(why, text) => Error::Failed(why, text),
        }
    }

    /// Adds what came of it.
    pub fn and(self, more: &str) -> Error {
        match self {
            Error::Refused(why, text) => Error::Refused(why, format!("{text}; {more}")),
            Error::Failed(why, text) => Error::Failed(why, format!("{text}; {more}")),
        }
    }

    /// Returns the reason.
    pub fn why(&self) -> Why {
        match self {
            Error::Refused(why, _) | Error::Failed(why, _) => *why,
        }
    }

    /// Returns the line without "refused" or "failed".
    pub fn detail(&self) -> String {
        match self {
            Error::Refused(_, text) | Error::Failed(_, text) => one_line(text),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = match self {
            Error::Refused(..) => "refused",
            Error::Failed(..) => "failed",
        };
        write!(f, "{outcome}: {}", self.detail())
    }
}

impl std::error::Error for Error {}

/// Makes a refusal.
pub fn refused(why: Why, text: impl Into<String>) -> Error {
    Error::Refused(why, text.into())
}

/// Makes a failure on the way.
pub fn failed(why: Why, text: impl Into<String>) -> Error {
    Error::Failed(why, text.into())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_distinct_and_plain() {
        let mut words: Vec<_> = Why::ALL.iter().map(|why| why.word()).collect();
        for word in &words {
            assert!(word.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
        }
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Why::ALL.len());
    }

    #[test]
    fn what_is_told_keeps_its_reason_on_the_way() {
        let error = refused(Why::StandbyBehind, "b is\n1 MB behind").on_the_way();
        let error = error.and("rolled back");
        assert_eq!(error.why(), Why::StandbyBehind);
        assert_eq!(error.to_string(), "failed: b is 1 MB behind; rolled back");
        assert_eq!(error.detail(), "b is 1 MB behind; rolled back");
    }
}
