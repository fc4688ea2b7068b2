//! Pure data about one node: what a round trip to it showed, and when.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::pg::lsn::Lsn;

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
    /// It logs in anew, beside the connection that is held.
    Login,
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

/// What a node said about replication. `None` is "not known": the server has
/// nothing to tell, is too old to, or does not let the probe see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replication {
    /// PostgreSQL's version as a number, 170002 for 17.2.
    pub server_version: Option<u32>,
    /// Tells one PostgreSQL system (one initdb) from another.
    pub system_identifier: Option<u64>,
    /// When the server was started, in microseconds since 1970 by its clock.
    /// Two nodes of one system that were started at the same microsecond are one
    /// server.
    pub started_us: Option<u64>,
    /// The timeline that the node writes or replays.
    pub timeline: Option<u32>,
    /// On a primary what is written, on a standby what is replayed.
    pub lsn: Option<Lsn>,
    /// On a standby: what it has received and flushed.
    pub received: Option<Lsn>,
    /// On a standby: replay was paused by hand.
    pub replay_paused: Option<bool>,
    /// On a standby: since the commit of the last transaction that it replayed,
    /// by the servers' clocks.
    pub replay_age_seconds: Option<f64>,
    /// A setting waits for a restart.
    pub pending_restart: Option<bool>,
    /// The node's `cluster_name`; often the name by which it replicates.
    pub cluster_name: Option<String>,
    /// The transactions of the probe's role or database are read-only by a
    /// setting of their own, which is not the server's and does not count.
    pub own_read_only: bool,
    /// On a standby: the WAL receiver. `Some(None)`: there is none.
    pub receiver: Option<Option<Receiver>>,
    /// Who streams from this node.
    pub senders: Option<Rows<Sender>>,
    /// The node's replication slots.
    pub slots: Option<Rows<Slot>>,
    /// What the server refuses to tell the probe.
    pub denied: Vec<Denied>,
}

/// The rows of a view, as many as are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows<T> {
    /// The first rows.
    pub kept: Vec<T>,
    /// How many there are beyond them.
    pub more: u64,
}

impl<T> From<Vec<T>> for Rows<T> {
    fn from(kept: Vec<T>) -> Rows<T> {
        Rows { kept, more: 0 }
    }
}

/// A value or a view that a server may refuse by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// [`Replication::system_identifier`].
    SystemIdentifier,
    /// [`Replication::started_us`].
    StartTime,
    /// [`Replication::timeline`] as a primary writes it.
    Timeline,
    /// [`Replication::timeline`] of the control file.
    ControlTimeline,
    /// [`Replication::lsn`].
    Lsn,
    /// [`Replication::received`].
    Received,
    /// [`Replication::replay_paused`].
    ReplayPaused,
    /// [`Replication::replay_age_seconds`].
    ReplayAge,
    /// [`Replication::pending_restart`].
    PendingRestart,
    /// [`Replication::cluster_name`].
    ClusterName,
    /// [`Replication::receiver`].
    Receiver,
    /// [`Replication::senders`].
    Senders,
    /// [`Sender::slot`].
    SenderSlots,
    /// [`Replication::slots`].
    Slots,
    /// [`Slot::retained_bytes`].
    RetainedBytes,
}

impl Part {
    /// Every part, in the order in which they are told.
    pub const ALL: [Part; 15] = [
        Part::SystemIdentifier,
        Part::StartTime,
        Part::Timeline,
        Part::ControlTimeline,
        Part::Lsn,
        Part::Received,
        Part::ReplayPaused,
        Part::ReplayAge,
        Part::PendingRestart,
        Part::ClusterName,
        Part::Receiver,
        Part::Senders,
        Part::SenderSlots,
        Part::Slots,
        Part::RetainedBytes,
    ];

    /// Returns the word for this part, the same in `/status` and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Part::SystemIdentifier => "system_identifier",
            Part::StartTime => "start_time",
            Part::Timeline => "timeline",
            Part::ControlTimeline => "control_timeline",
            Part::Lsn => "lsn",
            Part::Received => "received",
            Part::ReplayPaused => "replay_paused",
            Part::ReplayAge => "replay_age",
            Part::PendingRestart => "pending_restart",
            Part::ClusterName => "cluster_name",
            Part::Receiver => "receiver",
            Part::Senders => "senders",
            Part::SenderSlots => "sender_slots",
            Part::Slots => "slots",
            Part::RetainedBytes => "retained_bytes",
        }
    }
}

/// A part that the server refused, and how it put that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The part.
    pub part: Part,
    /// The server's message, for the log only.
    pub cause: String,
}

/// A standby's WAL receiver.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Receiver {
    /// `streaming`, `starting`, `waiting`, …; absent without `pg_monitor`.
    pub status: Option<String>,
    /// The sender's last end of WAL that the receiver heard of.
    pub latest_end: Option<Lsn>,
    /// The slot that it uses on the sender.
    pub slot: Option<String>,
    /// The name that it gives to the sender: `application_name` of
    /// `primary_conninfo`, else `cluster_name`, else `walreceiver`.
    pub application_name: Option<String>,
    /// The timeline that it receives.
    pub timeline: Option<u32>,
    /// The host that it receives from, as `primary_conninfo` names it.
    pub sender_host: Option<String>,
    /// That host's port.
    pub sender_port: Option<u16>,
    /// Since it last heard from the sender.
    pub heard_seconds: Option<f64>,
}

/// A row of `pg_stat_replication`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sender {
    /// The name that the standby gave.
    pub application_name: String,
    /// `streaming`, `catchup`, `backup`, …; absent without `pg_monitor`.
    pub state: Option<String>,
    /// `async`, `potential`, `sync` or `quorum`.
    pub sync_state: Option<String>,
    /// The slot that it reads from.
    pub slot: Option<String>,
    /// It reads from a logical slot: a subscription, no standby.
    pub logical: bool,
    /// Where the reader connects from.
    pub client_addr: Option<IpAddr>,
    /// What was sent to the reader.
    pub sent: Option<Lsn>,
    /// What the reader says that it has flushed.
    pub flushed: Option<Lsn>,
    /// What the reader says that it has replayed. Who only stores WAL, as
    /// `pg_receivewal` and `pg_basebackup` do, never replays any.
    pub replayed: Option<Lsn>,
    /// Since the reader connected.
    pub connected_seconds: Option<f64>,
    /// Since the reader sent its last reply, by the clocks of both. Since
    /// PostgreSQL 12.
    pub reply_age_seconds: Option<f64>,
}

/// A replication slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Somebody reads from it.
    pub active: bool,
    /// It is a logical one.
    pub logical: bool,
    /// It goes when its reader does.
    pub temporary: bool,
    /// WAL that it holds back, in bytes.
    pub retained_bytes: Option<u64>,
    /// `reserved`, `extended`, `unreserved` or `lost`. Since PostgreSQL 13.
    pub wal_status: Option<String>,
}

impl Sender {
    /// Says whether the reader is a standby, streaming or catching up, rather than
    /// a base backup, `pg_receivewal` or a subscription.
    pub fn is_standby(&self) -> bool {
        let reads = matches!(self.state.as_deref(), Some("streaming" | "catchup"));
        reads && self.replayed.is_some() && !self.logical
    }
}

impl Replication {
    /// Says whether the WAL receiver streams; `None` if that cannot be seen.
    pub fn streams(&self) -> Option<bool> {
        match self.receiver.as_ref()? {
            None => Some(false),
            Some(receiver) => receiver.status.as_ref().map(|it| it == "streaming"),
        }
    }

    /// Returns the WAL receiver, if there is one and it may be seen.
    pub fn receiver(&self) -> Option<&Receiver> {
        self.receiver.as_ref()?.as_ref()
    }

    /// Returns who is seen to stream from this node.
    pub fn senders(&self) -> &[Sender] {
        self.senders.as_ref().map_or(&[], |rows| &rows.kept)
    }

    /// Returns the slots that are seen.
    pub fn slots(&self) -> &[Slot] {
        self.slots.as_ref().map_or(&[], |rows| &rows.kept)
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
    /// Returns when the round trip began and ended.
    pub fn round_trip(&self) -> [Instant; 2] {
        [self.began, self.ended]
    }

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
    fn words_of_parts_are_distinct() {
        let mut words: Vec<_> = Part::ALL.iter().map(|part| part.word()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Part::ALL.len());
    }

    #[test]
    fn reader_that_replays_nothing_or_reads_a_logical_slot_is_no_standby() {
        let sender = |state: &str, replayed, logical| Sender {
            state: Some(state.to_owned()),
            replayed,
            logical,
            ..Sender::default()
        };
        for (row, expected) in [
            (sender("streaming", Some(Lsn(1)), false), true),
            (sender("catchup", Some(Lsn(1)), false), true),
            (sender("backup", None, false), false),
            (sender("streaming", None, false), false),
            (sender("streaming", Some(Lsn(1)), true), false),
            (Sender::default(), false),
        ] {
            assert_eq!(row.is_standby(), expected, "{row:?}");
        }
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
