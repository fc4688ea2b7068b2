//! What a server is asked, and what its answers mean: SQL and parsing. Knows no
//! connection.
//!
//! Who owns the database that the probe asks must not run code as the probe: so
//! every name is qualified, operators too, whatever the search path says.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::probe::node::{
    Denied, Depth, Facts, Failure, Part, Reason, Receiver, Replication, Rows, Sender, Slot, What,
};

/// Settings of the session, given with the connection: they outrank those of the
/// role and the database, and a pooler that cannot keep them says so instead of
/// handing them to others. What a role or a database sets must neither bend what
/// is asked nor slow it, and a commit that waits for a standby must not be
/// cancelled into one that does not. The server notices by itself that we are gone,
/// as fast as we would: who vanishes behind a network that drops packets cannot
/// tell it, and each connection given up that way would be held for hours, out
/// of few.
pub const OPTIONS: &str = "-c search_path=pg_catalog -c client_min_messages=error \
    -c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 \
    -c default_transaction_isolation=read\\ committed -c default_transaction_deferrable=off \
    -c max_parallel_workers_per_gather=0 \
    -c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3";

/// Asks for the version.
const GREETING: &str = "SHOW server_version_num";

/// Gives the session those settings that not every version knows, where
/// [`OPTIONS`] are in force: behind a pooler that dropped them, what is set stays
/// with a server's session that is given to somebody else next. A server that works
/// on a query, or waits for a lock, is to notice that we are gone: otherwise each
/// watcher that was abandoned would leave a server process behind for as long as
/// that takes. The function rather than its view: somebody may have locked that, and a
/// new connection is to know the role all the same.
const SETTINGS: &str = "SELECT pg_catalog.set_config(s.name, v.value, false) \
    FROM (VALUES ('jit', 'off'), ('client_connection_check_interval', '1000'), \
      ('idle_session_timeout', '0'), ('transaction_timeout', '0')) AS v (name, value) \
    JOIN pg_catalog.pg_show_all_settings() s ON s.name OPERATOR(pg_catalog.=) v.name \
    WHERE pg_catalog.current_setting('search_path') OPERATOR(pg_catalog.=) 'pg_catalog'";

/// Who is primary: one round trip in the simple protocol, which needs no
/// prepared statement, so that a pooler in between may hand every query to
/// another server process.
const ROLE: &str = "SELECT pg_catalog.pg_is_in_recovery(), \
    pg_catalog.current_setting('transaction_read_only')";

/// The same without any function, which may have been revoked. Since
/// PostgreSQL 14.
const ROLE_SHOWN: &str = "SHOW in_hot_standby; SHOW transaction_read_only";

/// Whose setting it is that transactions are read-only.
const READ_ONLY_SOURCE: &str = "SELECT source FROM pg_catalog.pg_settings \
    WHERE name OPERATOR(pg_catalog.=) 'default_transaction_read_only'";

/// Sources of a setting that hold for every session of the server. Another one,
/// that of the probe's role, its database or a pooler's session, outranks and hides
/// what the server's is.
const OF_SERVER: [&str; 6] = [
    "default",
    "environment variable",
    "configuration file",
    "command line",
    "global",
    "override",
];

/// A commit that needs no table: a transactional logical message makes the
/// transaction write WAL, so its commit is flushed and replicated like any.
const COMMIT: &str = "SELECT pg_catalog.pg_logical_emit_message(true, \
    'pgpair'::pg_catalog.text, ''::pg_catalog.text)";

/// Rows of a view that are kept. `max_wal_senders` and `max_replication_slots` are
/// 10 by default.
const MAX_ROWS: usize = 100;

/// The parts that are one value each, in the order of their columns.
const VALUES: [Part; 10] = [
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
];

/// The parts that are rows, in the order of their results.
const TABLES: [Part; 3] = [Part::Receiver, Part::Senders, Part::Slots];

/// How long parts may be asked one by one in one observation. The rest follows in
/// the next: what is known must not come too late for those who wait.
const ASK_SINGLY_FOR: Duration = Duration::from_millis(250);

/// When to ask again for what was refused: a role is seldom given more, and each
/// refusal is a line in the server's log.
const ASK_REFUSED_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// When to ask again for what failed in another way, as by a conflict with
/// recovery.
const ASK_FAILED_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// A row, as text. `None` is NULL.
pub type Row = Vec<Option<String>>;

/// The rows of one statement.
pub type Table = Vec<Row>;

/// Why a query has no answer.
pub enum Trouble {
    /// The server refused it and goes on.
    Refused {
        /// The SQLSTATE.
        state: String,
        /// What that means for an observation.
        failure: Failure,
    },
    /// There is no server to ask any more.
    Lost(Failure),
}

impl Trouble {
    fn failure(self) -> Failure {
        match self {
            Trouble::Refused { failure, .. } | Trouble::Lost(failure) => failure,
        }
    }
}

/// Answers queries: one table a statement.
pub trait Server {
    /// Asks all that `sql` says in one round trip.
    fn query(&mut self, sql: &str) -> Result<Vec<Table>, Trouble>;
}

/// What was learnt about the server of one connection.
pub struct Session {
    version: Option<u32>,
    /// What answers, asked together.
    good: Vec<Part>,
    /// What is to be asked by itself.
    doubtful: Vec<Part>,
    refused: Vec<(Denied, Instant)>,
}

impl Session {
    /// Greets the server. `pinned`: [`OPTIONS`] were given with the connection.
    pub fn begin(server: &mut dyn Server, pinned: bool) -> Result<Session, Failure> {
        let with_settings = format!("{GREETING}; {SETTINGS}");
        let greetings = [with_settings.as_str(), GREETING];
        for greeting in greetings.into_iter().skip(usize::from(!pinned)) {
            match server.query(greeting) {
                Ok(told) => return Ok(Session::new(version(&told))),
                Err(Trouble::Lost(failure)) => return Err(failure),
                // A server of another make need not know them.
                Err(Trouble::Refused { .. }) => {}
            }
        }
        Ok(Session::new(None))
    }

    fn new(version: Option<u32>) -> Session {
        Session {
            version,
            good: Part::ALL.to_vec(),
            doubtful: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// Makes one observation, or a commit.
    pub fn ask(&mut self, what: What, server: &mut dyn Server) -> Result<Facts, Failure> {
        match what {
            What::Observe(Depth::Role) | What::Login => {
                ask_role(server).map(|role| role.facts(None))
            }
            What::Observe(Depth::Replication) => self.ask_all(server),
            What::Commit => server
                .query(COMMIT)
                .map_err(Trouble::failure)
                .map(|_| Facts {
                    in_recovery: false,
                    read_only: false,
                    replication: None,
                }),
        }
    }

    /// One round trip in which everything is asked that answers, and one more for
    /// each part that may not.
    fn ask_all(&mut self, server: &mut dyn Server) -> Result<Facts, Failure> {
        let began = Instant::now();
        self.try_again(began);
        let sql = format!("{ROLE}; {}", self.sql(&self.good));
        let (role, mut told) = match server.query(&sql) {
            Ok(mut told) if !told.is_empty() => {
                let role = told.remove(0);
                (complete(&[role], server)?, self.answers(&self.good, told))
            }
            Ok(_) => return Err(not_understood()),
            Err(Trouble::Lost(failure)) => return Err(failure),
            Err(Trouble::Refused { .. }) => {
                let role = ask_role(server)?;
                self.doubtful.append(&mut self.good);
                (role, Answers::default())
            }
        };
        while began.elapsed() < ASK_SINGLY_FOR && !self.doubtful.is_empty() {
            self.ask_singly(server, &mut told)?;
        }
        let mut replication = told.replication(self.version, role.in_recovery);
        replication.own_read_only = role.own_read_only;
        replication.denied = self.refused.iter().map(|(it, _)| it.clone()).collect();
        replication.denied.sort_by_key(|it| it.part);
        Ok(role.facts(Some(replication)))
    }

    fn try_again(&mut self, now: Instant) {
        let due = |(_, again): &mut (Denied, Instant)| *again <= now;
        let due: Vec<Part> = self
            .refused
            .extract_if(.., due)
            .map(|(it, _)| it.part)
            .collect();
        self.doubtful.extend(due);
    }

    fn ask_singly(&mut self, server: &mut dyn Server, told: &mut Answers) -> Result<(), Failure> {
        let part = self.doubtful.remove(0);
        // A column of a view is asked with the view.
        let asked = match part {
            Part::SenderSlots => vec![Part::Senders, part],
            Part::RetainedBytes => vec![Part::Slots, part],
            _ => vec![part],
        };
        match server.query(&self.sql(&asked)) {
            Ok(tables) => {
                told.take_from(self.answers(&asked, tables), part);
                self.good.push(part);
            }
            Err(Trouble::Lost(failure)) => return Err(failure),
            Err(Trouble::Refused { state, failure }) => {
                // Access, names and what is not supported: not for this role or
                // this version.
                let patience = match &state[..state.len().min(2)] {
                    "42" | "0A" => ASK_REFUSED_AGAIN_AFTER,
                    _ => ASK_FAILED_AGAIN_AFTER,
                };
                let cause = failure.cause;
                self.refused
                    .push((Denied { part, cause }, Instant::now() + patience));
            }
        }
        Ok(())
    }

    /// Returns the query for these parts, one result for the values and one for
    /// each view.
    fn sql(&self, parts: &[Part]) -> String {
        let asked = |part: Part| parts.contains(&part);
        let values: Vec<&str> = VALUES
            .into_iter()
            .map(|part| if asked(part) { value(part) } else { "NULL" })
            .collect();
        let mut statements = vec![format!("SELECT {}", values.join(", "))];
        if asked(Part::Receiver) {
            statements.push(self.receiver());
        }
        if asked(Part::Senders) {
            statements.push(self.senders(asked(Part::SenderSlots)));
        }
        if asked(Part::Slots) {
            statements.push(self.slots(asked(Part::RetainedBytes)));
        }
        statements.join("; ")
    }

    /// A version that is not known counts as the newest.
    fn since(&self, version: u32) -> bool {
        self.version.is_none_or(|it| it >= version)
    }

    fn receiver(&self) -> String {
        let sender = match self.since(110_000) {
            true => "sender_host, sender_port",
            false => "NULL, NULL",
        };
        // The server prints every option as `name=value` in libpq's order, in
        // which the fallback, always given, follows the name.
        format!(
            "SELECT status, latest_end_lsn, slot_name, received_tli, \
               pg_catalog.split_part(pg_catalog.split_part(\
                 conninfo, ' application_name=', 2), ' fallback_application_name=', 1), \
               pg_catalog.split_part(pg_catalog.split_part(\
                 conninfo, ' fallback_application_name=', 2), ' ', 1), \
               {}, {sender} \
             FROM pg_catalog.pg_stat_get_wal_receiver() WHERE pid IS NOT NULL",
            since("last_msg_receipt_time")
        )
    }

    fn senders(&self, slots: bool) -> String {
        let (columns, join) = match slots {
            true => (
                "l.slot_name, l.slot_type",
                "LEFT JOIN pg_catalog.pg_replication_slots l \
                 ON l.active_pid OPERATOR(pg_catalog.=) s.pid",
            ),
            false => ("NULL, NULL", ""),
        };
        let reply = match self.since(120_000) {
            true => since("s.reply_time"),
            false => "NULL".to_owned(),
        };
        format!(
            "SELECT pg_catalog.count(*) OVER (), s.application_name, s.state, s.sync_state, \
               {columns}, pg_catalog.host(s.client_addr), s.sent_lsn, s.flush_lsn, s.replay_lsn, \
               {}, {reply} \
             FROM pg_catalog.pg_stat_replication s {join} \
             ORDER BY s.replay_lsn IS NULL, s.pid LIMIT {MAX_ROWS}",
            since("s.backend_start")
        )
    }

    fn slots(&self, retained: bool) -> String {
        let retained = match retained {
            true => {
                "CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN \
                   GREATEST(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), \
                     restart_lsn), 0::pg_catalog.numeric) END"
            }
            false => "NULL",
        };
        let status = match self.since(130_000) {
            true => "wal_status",
            false => "NULL",
        };
        format!(
            "SELECT pg_catalog.count(*) OVER (), slot_name, active, slot_type, temporary, \
               {retained}, {status} \
             FROM pg_catalog.pg_replication_slots ORDER BY restart_lsn, slot_name \
             LIMIT {MAX_ROWS}"
        )
    }

    fn answers(&self, asked: &[Part], tables: Vec<Table>) -> Answers {
        let mut tables = tables.into_iter();
        let row = tables.next().and_then(|table| table.into_iter().next());
        let mut values = row.unwrap_or_default();
        values.resize(VALUES.len(), None);
        let mut views = TABLES.map(|part| asked.contains(&part).then(|| tables.next())?);
        Answers {
            values,
            receiver: views[0].take(),
            senders: views[1].take(),
            slots: views[2].take(),
        }
    }
}

/// Seconds since a point in time.
fn since(column: &str) -> String {
    format!("EXTRACT(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) {column})")
}

fn version(told: &[Table]) -> Option<u32> {
    told.first()?.first()?.first()?.as_ref()?.parse().ok()
}

/// The expression of a part that is one value. What a role without `pg_monitor` may
/// not see comes back as NULL. The timeline of a primary is that of the WAL file
/// it writes; the control file lags behind until a checkpoint.
fn value(part: Part) -> &'static str {
    match part {
        Part::SystemIdentifier => "(SELECT system_identifier FROM pg_catalog.pg_control_system())",
        Part::StartTime => {
            "(EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time()) \
             OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8"
        }
        Part::Timeline => {
            "CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.left(\
             pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8) END"
        }
        Part::ControlTimeline => "(SELECT timeline_id FROM pg_catalog.pg_control_checkpoint())",
        Part::Lsn => {
            "CASE WHEN pg_catalog.pg_is_in_recovery() \
             THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END"
        }
        Part::Received => "pg_catalog.pg_last_wal_receive_lsn()",
        Part::ReplayPaused => {
            "CASE WHEN pg_catalog.pg_is_in_recovery() \
             THEN pg_catalog.pg_is_wal_replay_paused() END"
        }
        Part::ReplayAge => {
            "CASE WHEN pg_catalog.pg_is_in_recovery() THEN EXTRACT(epoch FROM \
             pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) \
             pg_catalog.pg_last_xact_replay_timestamp()) END"
        }
        Part::PendingRestart => {
            "(SELECT pg_catalog.bool_or(pending_restart) FROM pg_catalog.pg_settings)"
        }
        Part::ClusterName => "pg_catalog.current_setting('cluster_name')",
        Part::Receiver | Part::Senders | Part::SenderSlots | Part::Slots | Part::RetainedBytes => {
            "NULL"
        }
    }
}

/// Who a server is.
struct Role {
    in_recovery: bool,
    read_only: bool,
    own_read_only: bool,
}

impl Role {
    fn facts(&self, replication: Option<Replication>) -> Facts {
        Facts {
            in_recovery: self.in_recovery,
            read_only: self.read_only,
            replication: replication.map(Arc::new),
        }
    }
}

fn not_understood() -> Failure {
    Failure::new(Reason::Error, "the answer was not understood")
}

/// Asks for the role alone, without functions if those are refused.
fn ask_role(server: &mut dyn Server) -> Result<Role, Failure> {
    let tables = match server.query(ROLE) {
        Ok(tables) => tables,
        Err(Trouble::Lost(failure)) => return Err(failure),
        Err(Trouble::Refused { failure, .. }) => match server.query(ROLE_SHOWN) {
            Ok(tables) => tables,
            Err(Trouble::Lost(failure)) => return Err(failure),
            Err(Trouble::Refused { .. }) => return Err(failure),
        },
    };
    complete(&tables, server)
}

/// Reads the role, and finds out whose setting it is where it looks read-only.
fn complete(tables: &[Table], server: &mut dyn Server) -> Result<Role, Failure> {
    let values: Vec<bool> = tables
        .iter()
        .filter_map(|table| table.first())
        .flatten()
        .map_while(|value| boolean(value.as_deref()?))
        .collect();
    let [in_recovery, read_only] = values[..] else {
        return Err(not_understood());
    };
    let own_read_only = read_only && !in_recovery && !is_of_server(server)?;
    Ok(Role {
        in_recovery,
        read_only: read_only && !own_read_only,
        own_read_only,
    })
}

fn is_of_server(server: &mut dyn Server) -> Result<bool, Failure> {
    let source = match server.query(READ_ONLY_SOURCE) {
        Ok(tables) => tables.into_iter().flatten().flatten().next().flatten(),
        Err(Trouble::Lost(failure)) => return Err(failure),
        Err(Trouble::Refused { .. }) => None,
    };
    Ok(source.is_none_or(|source| OF_SERVER.contains(&source.as_str())))
}

/// What was told, part by part.
#[derive(Default)]
struct Answers {
    values: Row,
    receiver: Option<Table>,
    senders: Option<Table>,
    slots: Option<Table>,
}

impl Answers {
    /// Takes one part's answer over.
    fn take_from(&mut self, other: Answers, part: Part) {
        match part {
            Part::Receiver => self.receiver = other.receiver,
            Part::Senders | Part::SenderSlots => self.senders = other.senders,
            Part::Slots | Part::RetainedBytes => self.slots = other.slots,
            _ => {
                self.values.resize(VALUES.len(), None);
                if let Some(column) = VALUES.iter().position(|it| *it == part) {
                    self.values[column] = other.values.into_iter().nth(column).flatten();
                }
            }
        }
    }

    fn replication(self, version: Option<u32>, in_recovery: bool) -> Replication {
        let text = |part: Part| {
            let column = VALUES.iter().position(|it| *it == part)?;
            text(&self.values, column)
        };
        let receiver = self.receiver.map(|rows| rows.first().map(receiver));
        let received_timeline = receiver.iter().flatten().find_map(|it| it.timeline);
        let written = text(Part::Timeline).and_then(|it| u32::from_str_radix(&it, 16).ok());
        let control = text(Part::ControlTimeline).and_then(|it| it.parse().ok());
        Replication {
            server_version: version,
            system_identifier: read(text(Part::SystemIdentifier)),
            started_us: read(text(Part::StartTime)),
            timeline: match in_recovery {
                true => control.max(received_timeline),
                false => written.or(control),
            },
            lsn: read(text(Part::Lsn)),
            received: read(text(Part::Received)),
            replay_paused: text(Part::ReplayPaused).as_deref().and_then(boolean),
            replay_age_seconds: seconds(text(Part::ReplayAge)),
            pending_restart: text(Part::PendingRestart).as_deref().and_then(boolean),
            cluster_name: text(Part::ClusterName),
            own_read_only: false,
            receiver,
            senders: self.senders.map(|table| rows(table, sender)),
            slots: self.slots.map(|table| distinct(rows(table, slot))),
            denied: Vec::new(),
        }
    }
}

fn receiver(row: &Row) -> Receiver {
    Receiver {
        status: text(row, 0),
        latest_end: read(text(row, 1)),
        slot: text(row, 2),
        timeline: read(text(row, 3)),
        application_name: text(row, 4).or_else(|| text(row, 5)),
        heard_seconds: seconds(text(row, 6)),
        sender_host: text(row, 7),
        sender_port: read(text(row, 8)),
    }
}

fn sender(row: &Row) -> Sender {
    Sender {
        application_name: text(row, 1).unwrap_or_default(),
        state: text(row, 2),
        sync_state: text(row, 3),
        slot: text(row, 4),
        logical: text(row, 5).as_deref() == Some("logical"),
        client_addr: read(text(row, 6)),
        sent: read(text(row, 7)),
        flushed: read(text(row, 8)),
        replayed: read(text(row, 9)),
        connected_seconds: seconds(text(row, 10)),
        reply_age_seconds: seconds(text(row, 11)),
    }
}

fn slot(row: &Row) -> Slot {
    Slot {
        name: text(row, 1).unwrap_or_default(),
        active: text(row, 2).as_deref().and_then(boolean).unwrap_or(false),
        logical: text(row, 3).as_deref() == Some("logical"),
        temporary: text(row, 4).as_deref().and_then(boolean).unwrap_or(false),
        retained_bytes: read(text(row, 5)),
        wal_status: text(row, 6),
    }
}

/// Reads a view whose first column says how many rows it has.
fn rows<T>(table: Table, read_row: fn(&Row) -> T) -> Rows<T> {
    let kept: Vec<T> = table.iter().take(MAX_ROWS).map(read_row).collect();
    let all: u64 = table
        .first()
        .and_then(|row| read(text(row, 0)))
        .unwrap_or(0);
    let more = all.saturating_sub(kept.len() as u64);
    Rows { kept, more }
}

/// Names are distinct in every server, and may not be once they are printable:
/// one that is there twice would spoil all of the metrics.
fn distinct(mut slots: Rows<Slot>) -> Rows<Slot> {
    let mut names = std::collections::HashSet::new();
    let before = slots.kept.len();
    slots.kept.retain(|slot| names.insert(slot.name.clone()));
    slots.more += (before - slots.kept.len()) as u64;
    slots
}

/// A value that is not NULL and not empty.
fn text(row: &Row, column: usize) -> Option<String> {
    row.get(column)?.clone().filter(|text| !text.is_empty())
}

fn read<T: FromStr>(text: Option<String>) -> Option<T> {
    text?.parse().ok()
}

/// A number that can be shown and calculated with.
fn seconds(text: Option<String>) -> Option<f64> {
    read(text).filter(|seconds: &f64| seconds.is_finite())
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "t" | "on" => Some(true),
        "f" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
