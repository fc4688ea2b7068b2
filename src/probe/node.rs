//! Pure data about one node: what a round trip to it showed, and when.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lsn::Lsn;

/// Why a verdict is what it is: one word, the same in JSON, logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// All that was asked for is so.
    Ok,
    /// The server is starting up or recovering from a crash.
    Starting,
    /// Nobody accepts connections there, or the server closed ours.
    Refused,
    /// The host name does not resolve.
    Unresolved,
    /// No answer within the deadline, or the host did not react at all.
    TimedOut,
    /// Wrong password, no such role, or not let in by `pg_hba.conf`.
    AuthFailed,
    /// The server, the database or the role has no connection left.
    TooManyConnections,
    /// TLS could not be agreed on, or the certificate was not acceptable.
    TlsFailed,
    /// The server is shutting down.
    ShuttingDown,
    /// A primary whose transactions are read-only by default.
    ReadOnly,
    /// The node is a standby, and a primary was asked for.
    InRecovery,
    /// The standby's WAL receiver is not streaming.
    NotStreaming,
    /// The standby is further behind than was allowed.
    Lagging,
    /// More than one node is a writable primary.
    SplitBrain,
    /// Every node answered and none is a writable primary.
    NoPrimary,
    /// The node belongs to another PostgreSQL system than its pair.
    WrongSystem,
    /// The primary does not get a commit through.
    WriteStalled,
    /// Known to owe an answer for longer than the deadline.
    Overdue,
    /// pgpair itself is about to stop.
    Draining,
    /// Anything else; the log has the cause.
    Error,
}

impl Reason {
    /// Every reason, in the order of the documentation.
    pub const ALL: [Reason; 20] = [
        Reason::Ok,
        Reason::Starting,
        Reason::Refused,
        Reason::Unresolved,
        Reason::TimedOut,
        Reason::AuthFailed,
        Reason::TooManyConnections,
        Reason::TlsFailed,
        Reason::ShuttingDown,
        Reason::ReadOnly,
        Reason::InRecovery,
        Reason::NotStreaming,
        Reason::Lagging,
        Reason::SplitBrain,
        Reason::NoPrimary,
        Reason::WrongSystem,
        Reason::WriteStalled,
        Reason::Overdue,
        Reason::Draining,
        Reason::Error,
    ];

    /// The reasons for which a round trip fails.
    pub const OF_FAILURES: [Reason; 9] = [
        Reason::Starting,
        Reason::Refused,
        Reason::Unresolved,
        Reason::TimedOut,
        Reason::AuthFailed,
        Reason::TooManyConnections,
        Reason::TlsFailed,
        Reason::ShuttingDown,
        Reason::Error,
    ];

    /// Returns the word that stands for this reason.
    pub const fn word(self) -> &'static str {
        match self {
            Reason::Ok => "ok",
            Reason::Starting => "starting",
            Reason::Refused => "refused",
            Reason::Unresolved => "unresolved",
            Reason::TimedOut => "timed_out",
            Reason::AuthFailed => "auth_failed",
            Reason::TooManyConnections => "too_many_connections",
            Reason::TlsFailed => "tls_failed",
            Reason::ShuttingDown => "shutting_down",
            Reason::ReadOnly => "read_only",
            Reason::InRecovery => "in_recovery",
            Reason::NotStreaming => "not_streaming",
            Reason::Lagging => "lagging",
            Reason::SplitBrain => "split_brain",
            Reason::NoPrimary => "no_primary",
            Reason::WrongSystem => "wrong_system",
            Reason::WriteStalled => "write_stalled",
            Reason::Overdue => "overdue",
            Reason::Draining => "draining",
            Reason::Error => "error",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// How much one round trip asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Who is primary: cheap enough for every `/ready`.
    Role,
    /// Replication too.
    Replication,
}

/// What a round trip does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It asks.
    Observe(Depth),
    /// It commits a transaction that changes nothing.
    Commit,
}

/// What a node said about itself in one round trip.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The node replays another's WAL (`pg_is_in_recovery()`): a standby.
    pub in_recovery: bool,
    /// New transactions are read-only; always so on a standby.
    pub read_only: bool,
    /// What was asked with [`Depth::Replication`].
    pub replication: Option<Arc<Replication>>,
}

/// What a node said about replication. `None` is "not told", by a server that
/// has nothing to tell or a role that may not see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replication {
    /// PostgreSQL's version as a number, 170002 for 17.2.
    pub server_version: Option<u32>,
    /// Tells one PostgreSQL system (one initdb) from another.
    pub system_identifier: Option<u64>,
    /// The timeline that the node writes or replays.
    pub timeline: Option<u32>,
    /// On a primary what is written, on a standby what is replayed.
    pub lsn: Option<Lsn>,
    /// On a standby: what it has received and flushed.
    pub received: Option<Lsn>,
    /// On a standby: replay was paused by hand.
    pub replay_paused: bool,
    /// On a standby: since the commit of the last transaction that it replayed,
    /// by the servers' clocks.
    pub replay_age_seconds: Option<f64>,
    /// A setting waits for a restart.
    pub pending_restart: Option<bool>,
    /// The node's `cluster_name`; often the name by which it replicates.
    pub cluster_name: Option<String>,
    /// On a standby: the WAL receiver, if there is one.
    pub receiver: Option<Receiver>,
    /// Who streams from this node.
    pub senders: Vec<Sender>,
    /// The node's replication slots.
    pub slots: Vec<Slot>,
}

/// A standby's WAL receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receiver {
    /// `streaming`, `starting`, `waiting`, …; absent without `pg_monitor`.
    pub status: Option<String>,
    /// The sender's last end of WAL that the receiver heard of.
    pub latest_end: Option<Lsn>,
    /// The slot that it uses on the sender.
    pub slot: Option<String>,
}

/// A row of `pg_stat_replication`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sender {
    /// The name that the standby gave.
    pub application_name: String,
    /// `streaming`, `catchup`, `backup`, …
    pub state: Option<String>,
    /// `async`, `potential`, `sync` or `quorum`.
    pub sync_state: Option<String>,
    /// The slot that it reads from.
    pub slot: Option<String>,
}

/// A replication slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Somebody reads from it.
    pub active: bool,
    /// WAL that it holds back, in bytes.
    pub retained_bytes: Option<u64>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
}

impl Replication {
    /// Says whether the WAL receiver streams; `None` if that cannot be seen.
    pub fn streams(&self) -> Option<bool> {
        match &self.receiver {
            None => Some(false),
            Some(receiver) => receiver.status.as_ref().map(|it| it == "streaming"),
        }
    }
}

impl Facts {
    /// Says whether the node takes writes.
    pub fn is_writable_primary(&self) -> bool {
        !self.in_recovery && !self.read_only
    }

    /// Names the node's role: `primary` or `standby`.
    pub fn role(&self) -> &'static str {
        if self.in_recovery {
            "standby"
        } else {
            "primary"
        }
    }
}

/// Why a round trip failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The one word for it.
    pub reason: Reason,
    /// Our own phrase for clients: no user name, address or driver text.
    pub detail: Cow<'static, str>,
    /// The chain of causes, for the log only. Empty when there is nothing to add.
    pub cause: String,
}

impl Failure {
    /// Makes a failure that needs no further cause.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Failure {
        Failure {
            reason,
            detail: detail.into(),
            cause: String::new(),
        }
    }

    /// Adds the chain of causes that the log will show.
    pub fn with_cause(mut self, cause: impl Into<String>) -> Failure {
        self.cause = cause.into();
        self
    }
}

/// One round trip to a node, successful or not.
#[derive(Clone, Debug)]
pub struct Observation {
    /// When the round trip began; what arrived before may rest on it.
    pub began: Instant,
    /// When it ended.
    pub ended: Instant,
    /// What it showed.
    pub outcome: Result<Facts, Failure>,
}

impl Observation {
    /// Returns how long the round trip took.
    pub fn took(&self) -> Duration {
        self.ended.duration_since(self.began)
    }

    /// Returns the facts, when the node answered.
    pub fn facts(&self) -> Option<&Facts> {
        self.outcome.as_ref().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_words_are_distinct_and_lower_case() {
        let mut words: Vec<_> = Reason::ALL.iter().map(|reason| reason.word()).collect();
        for word in &words {
            assert!(word.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
        }
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Reason::ALL.len());
    }

    #[test]
    fn only_a_node_out_of_recovery_that_takes_writes_is_a_writable_primary() {
        for (in_recovery, read_only, expected) in [
            (false, false, true),
            (false, true, false),
            (true, false, false),
            (true, true, false),
        ] {
            let facts = Facts {
                in_recovery,
                read_only,
                replication: None,
            };
            assert_eq!(facts.is_writable_primary(), expected, "{facts:?}");
        }
    }
}
