//! The round trip to PostgreSQL: the SQL, the connection pool and the meaning
//! of its errors. The only file that names `postgres` and `r2d2`.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use postgres::config::SslMode as PgSslMode;
use postgres::error::{DbError, Severity, SqlState};
use postgres::{Client, SimpleQueryMessage, SimpleQueryRow};
use r2d2::{ManageConnection, Pool, PooledConnection};
use scheduled_thread_pool::{OnPoolDropBehavior, ScheduledThreadPool};

use super::node::{
    Depth, Facts, Failure, Reason, Receiver, Replication, Rows as Listed, Sender, Slot, What,
};
use super::passfile::{self, Secret};
use super::tls::{Connector, SslMode, TlsError};
use super::watch::{Observer, Target};
use crate::sockets;
use crate::threads::lock;

/// Who is primary: one round trip in the simple protocol, which needs no
/// prepared statement, so that a pooler in between may hand every query to
/// another server process.
const ROLE: &str = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')";

/// Replication too, in the same round trip. What a role without `pg_monitor`
/// may not see comes back as NULL. The timeline of a primary is that of the
/// WAL file it writes; the control file lags behind until a checkpoint.
const REPLICATION: &str = "\
    SELECT pg_is_in_recovery(), current_setting('transaction_read_only'); \
    SELECT current_setting('server_version_num'), \
           (SELECT system_identifier FROM pg_control_system()), \
           CASE WHEN pg_is_in_recovery() THEN NULL \
                ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END, \
           (SELECT greatest(timeline_id, r.received_tli) FROM pg_control_checkpoint() \
              LEFT JOIN pg_stat_get_wal_receiver() r ON true), \
           CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
                ELSE pg_current_wal_lsn() END, \
           pg_last_wal_receive_lsn(), \
           CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() END, \
           (SELECT bool_or(pending_restart) FROM pg_settings), \
           current_setting('cluster_name'), \
           CASE WHEN pg_is_in_recovery() \
                THEN extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END; \
    SELECT status, latest_end_lsn, slot_name FROM pg_stat_get_wal_receiver() WHERE pid IS NOT NULL; \
    SELECT s.application_name, s.state, s.sync_state, l.slot_name \
      FROM pg_stat_replication s LEFT JOIN pg_replication_slots l ON l.active_pid = s.pid; \
    SELECT slot_name, active, \
           CASE WHEN NOT pg_is_in_recovery() \
                THEN greatest(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0) END, \
           wal_status FROM pg_replication_slots";

/// A commit that needs no table: a transactional logical message makes the
/// transaction write WAL, so its commit is flushed and replicated like any.
const COMMIT: &str = "SELECT pg_logical_emit_message(true, 'pgpair', '')";

/// Longest wait for a connection from the pool. A watcher counts as stuck
/// earlier and is abandoned then; this lets its thread end some time after.
const POOL_PATIENCE: Duration = Duration::from_secs(60);

/// Keepalives free what hangs on a host that is really gone. Idle 5 s + 3 probes
/// 2 s apart = 11 s, about as long as a stuck watcher is left alone.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_RETRIES: u32 = 3;

/// The limit on unacknowledged data. TCP sends again after 0.2 s, 0.4 s, 0.8 s, …:
/// who waited longer than 3 s would go on waiting for as long again when the
/// network is back, and a new connection takes a moment. A frozen server's kernel
/// acknowledges all the same.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(3);

/// Has the server find out by itself that we are gone, as fast as we would: who
/// vanishes behind a network that drops packets cannot tell it, and each
/// connection given up that way would be held for hours, out of few.
const NOTICE_SILENCE: &str = "SET tcp_keepalives_idle = 5; \
    SET tcp_keepalives_interval = 2; \
    SET tcp_keepalives_count = 3";

/// The same while it works on a query, or waits for a lock: otherwise each
/// watcher that was abandoned would leave a server process behind for as long
/// as that takes. Since PostgreSQL 14.
const NOTICE_CLOSE: &str = "SET client_connection_check_interval = 1000";

/// Where a server is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name or an address.
    Tcp(String),
    /// The directory of a Unix socket.
    Unix(PathBuf),
}

/// Where the password comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// None is needed or known.
    None,
    /// Given with the connection.
    Given(Secret),
    /// Looked up in a password file at every connection, so that a rotated
    /// password is picked up.
    File(PathBuf),
}

/// How to connect to one node.
#[derive(Clone)]
pub struct Settings {
    /// The server's name or socket; also the name that its certificate must
    /// carry with `verify-full`.
    pub host: Host,
    /// Its address, where that should not be looked up.
    pub hostaddr: Option<IpAddr>,
    /// Its port.
    pub port: u16,
    /// The role to log in as.
    pub user: String,
    /// The database.
    pub dbname: String,
    /// The role's password.
    pub password: Password,
    /// The name shown in `pg_stat_activity`.
    pub application_name: String,
    /// Longest wait for TCP to connect.
    pub connect_timeout: Duration,
    /// How the connection is protected.
    pub sslmode: SslMode,
    /// The connector that goes with `sslmode`.
    pub tls: Connector,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("dbname", &self.dbname)
            .field("sslmode", &self.sslmode)
            .finish_non_exhaustive()
    }
}

/// One node, and the observers that were made for it.
pub struct NodeTarget {
    settings: Arc<Settings>,
    /// Every round trip has a connection of its own.
    anew: bool,
    leases: Mutex<Vec<Weak<Lease>>>,
}

/// Held by an observer, its pool and whatever still works for them; knows the
/// addresses that they connected to.
#[derive(Default)]
struct Lease {
    addresses: Mutex<Vec<SocketAddr>>,
}

impl NodeTarget {
    /// Makes the target for a node, which keeps its connection.
    pub fn new(settings: Settings) -> NodeTarget {
        NodeTarget {
            settings: Arc::new(settings),
            anew: false,
            leases: Mutex::new(Vec::new()),
        }
    }

    /// Makes the target for new logins to a node.
    pub fn for_logins(settings: Settings) -> NodeTarget {
        NodeTarget {
            anew: true,
            ..NodeTarget::new(settings)
        }
    }

    fn live_leases(&self) -> Vec<Arc<Lease>> {
        let mut leases = lock(&self.leases);
        leases.retain(|lease| lease.strong_count() > 0);
        leases.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Target for NodeTarget {
    fn observer(&self) -> Box<dyn Observer> {
        let lease = Arc::new(Lease::default());
        let weak = Arc::downgrade(&lease);
        lock(&self.leases).push(weak);
        let settings = Arc::clone(&self.settings);
        if self.anew {
            return Box::new(Manager { settings, lease });
        }
        Box::new(NodeObserver::new(settings, lease))
    }

    fn alive(&self) -> usize {
        self.live_leases().len()
    }

    fn cut(&self) {
        let addresses: Vec<SocketAddr> = self
            .live_leases()
            .iter()
            .flat_map(|lease| lease.addresses().clone())
            .collect();
        for connection in sockets::find(|_| true).connected {
            if addresses.contains(&connection.peer) {
                connection.cut();
            }
        }
    }
}

impl Lease {
    fn addresses(&self) -> std::sync::MutexGuard<'_, Vec<SocketAddr>> {
        lock(&self.addresses)
    }
}

/// Observes one node through a pool of one connection.
struct NodeObserver {
    pool: Pool<Manager>,
}

impl NodeObserver {
    fn new(settings: Arc<Settings>, lease: Arc<Lease>) -> NodeObserver {
        let workers = ScheduledThreadPool::builder()
            .num_threads(1)
            .thread_name_pattern("connect-{}")
            .on_drop_behavior(OnPoolDropBehavior::DiscardPendingScheduled)
            .build();
        // Nothing here may wait for a server that does not answer: no test
        // query on check-out, no connection opened in advance, no reaper.
        let pool = Pool::builder()
            .max_size(1)
            .min_idle(Some(0))
            .test_on_check_out(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connection_timeout(POOL_PATIENCE)
            .thread_pool(Arc::new(workers))
            .build_unchecked(Manager { settings, lease });
        NodeObserver { pool }
    }

    fn connection(&self) -> Result<PooledConnection<Manager>, Failure> {
        self.pool.get().map_err(|error| {
            Failure::new(Reason::TimedOut, "no connection in time").with_cause(error.to_string())
        })
    }
}

impl Observer for NodeObserver {
    fn observe(&mut self, what: What, note: &mut dyn FnMut(Failure)) -> Result<Facts, Failure> {
        let mut link = self.connection()?;
        let used_before = std::mem::replace(&mut link.used, true);
        match link.ask(what) {
            // The server went away since the last time. That says nothing of
            // the one that may be there by now.
            Err(failure) if used_before && link.has_ended() => {
                note(failure);
                drop(link);
                let mut link = self.connection()?;
                link.used = true;
                link.ask(what)
            }
            outcome => outcome,
        }
    }
}

/// A connection, or why there is none. A failed attempt is handed out like a
/// connection and dropped as broken: so the pool neither loses the cause nor
/// retries on its own, and the failure is known at once.
struct Link {
    client: Result<Client, Failure>,
    used: bool,
    /// The server has said that it ends the connection.
    ended: bool,
}

impl Link {
    fn ask(&mut self, what: What) -> Result<Facts, Failure> {
        let client = match &mut self.client {
            Ok(client) => client,
            Err(failure) => return Err(failure.clone()),
        };
        let (query, parse): (&str, Parse) = match what {
            What::Observe(Depth::Role) => (ROLE, role),
            What::Observe(Depth::Replication) => (REPLICATION, replication),
            What::Commit => (COMMIT, |_| Some(WRITTEN)),
            What::Login => (ROLE, role),
        };
        let messages = client.simple_query(query).map_err(|error| {
            // The message may be here before the end of the stream.
            self.ended |= is_fatal(&error);
            failure_of(&error)
        })?;
        parse(&results(messages))
            .ok_or_else(|| Failure::new(Reason::Error, "the answer was not understood"))
    }

    fn has_ended(&self) -> bool {
        self.ended || self.client.as_ref().is_ok_and(Client::is_closed)
    }
}

struct Manager {
    settings: Arc<Settings>,
    lease: Arc<Lease>,
}

/// Logs in anew for each round trip: no pool is of any use.
impl Observer for Manager {
    fn observe(&mut self, what: What, _: &mut dyn FnMut(Failure)) -> Result<Facts, Failure> {
        let mut link = match self.connect() {
            Ok(link) => link,
            Err(never) => match never {},
        };
        link.ask(what)
    }
}

impl ManageConnection for Manager {
    type Connection = Link;
    type Error = std::convert::Infallible;

    fn connect(&self) -> Result<Link, Self::Error> {
        Ok(Link {
            client: connect(&self.settings, &self.lease),
            used: false,
            ended: false,
        })
    }

    fn is_valid(&self, _: &mut Link) -> Result<(), Self::Error> {
        Ok(())
    }

    fn has_broken(&self, link: &mut Link) -> bool {
        link.client.is_err() || link.has_ended()
    }
}

fn connect(settings: &Settings, lease: &Lease) -> Result<Client, Failure> {
    let mut config = postgres::Config::new();
    config
        .user(&settings.user)
        .dbname(&settings.dbname)
        .application_name(&settings.application_name)
        .connect_timeout(settings.connect_timeout)
        .keepalives(true)
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_RETRIES)
        .tcp_user_timeout(TCP_USER_TIMEOUT)
        .port(settings.port)
        .ssl_mode(match settings.sslmode {
            // As in libpq, a Unix socket is never encrypted.
            _ if matches!(settings.host, Host::Unix(_)) => PgSslMode::Disable,
            SslMode::Disable => PgSslMode::Disable,
            SslMode::Prefer => PgSslMode::Prefer,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => PgSslMode::Require,
        });
    locate(&mut config, settings, lease)?;
    if let Some(secret) = password(settings)? {
        config.password(secret.expose());
    }
    let connected = config.connect(settings.tls.clone());
    let mut client = connected.map_err(|error| failure_of(&error))?;
    for setting in [NOTICE_SILENCE, NOTICE_CLOSE] {
        match client.batch_execute(setting) {
            // An older server, or a pooler, need not know it.
            Err(error) if client.is_closed() || is_fatal(&error) => return Err(failure_of(&error)),
            _ => {}
        }
    }
    Ok(client)
}

/// Names the server in `config`; looks its addresses up here, where a failure
/// can be told from the rest.
fn locate(
    config: &mut postgres::Config,
    settings: &Settings,
    lease: &Lease,
) -> Result<(), Failure> {
    let name = match &settings.host {
        Host::Unix(directory) => {
            config.host_path(directory);
            return Ok(());
        }
        Host::Tcp(name) => name,
    };
    let addresses = match settings.hostaddr {
        Some(address) => vec![SocketAddr::new(address, settings.port)],
        None => resolve(name, settings.port)?,
    };
    for address in &addresses {
        config.host(name).hostaddr(address.ip());
    }
    *lease.addresses() = addresses;
    Ok(())
}

fn resolve(name: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
    let unresolved = || Failure::new(Reason::Unresolved, "the host name does not resolve");
    let found: Vec<SocketAddr> = (name, port)
        .to_socket_addrs()
        .map_err(|error| unresolved().with_cause(error.to_string()))?
        .collect();
    if found.is_empty() {
        return Err(unresolved());
    }
    Ok(found)
}

fn password(settings: &Settings) -> Result<Option<Secret>, Failure> {
    match &settings.password {
        Password::None => Ok(None),
        Password::Given(secret) => Ok(Some(secret.clone())),
        Password::File(path) => {
            let entries = passfile::read(path).map_err(|error| {
                Failure::new(Reason::AuthFailed, "the password file cannot be used")
                    .with_cause(error.to_string())
            })?;
            let host = match &settings.host {
                Host::Tcp(name) => name.clone(),
                Host::Unix(_) => "localhost".to_owned(),
            };
            Ok(entries.find(&host, settings.port, &settings.dbname, &settings.user))
        }
    }
}

/// What a commit shows: a primary that takes writes.
const WRITTEN: Facts = Facts {
    in_recovery: false,
    read_only: false,
    replication: None,
};

/// Reads the facts out of the results of all statements.
type Parse = fn(&[Rows]) -> Option<Facts>;

/// The rows of one statement.
type Rows = Vec<SimpleQueryRow>;

/// Splits the answer to several statements into one result each.
fn results(messages: Vec<SimpleQueryMessage>) -> Vec<Rows> {
    let mut results = Vec::new();
    let mut rows = Rows::new();
    for message in messages {
        match message {
            SimpleQueryMessage::Row(row) => rows.push(row),
            SimpleQueryMessage::CommandComplete(_) => results.push(std::mem::take(&mut rows)),
            _ => {}
        }
    }
    results
}

fn role(results: &[Rows]) -> Option<Facts> {
    let row = results.first()?.first()?;
    Some(Facts {
        in_recovery: boolean(row.get(0)?)?,
        read_only: boolean(row.get(1)?)?,
        replication: None,
    })
}

fn replication(results: &[Rows]) -> Option<Facts> {
    let mut facts = role(results)?;
    let [_, node, receiver, senders, slots] = results else {
        return None;
    };
    let row = node.first()?;
    let timeline = || u32::from_str_radix(row.get(2)?, 16).ok();
    facts.replication = Some(Arc::new(Replication {
        server_version: parsed(row, 0),
        system_identifier: parsed(row, 1),
        timeline: timeline().or_else(|| parsed(row, 3)),
        lsn: parsed(row, 4),
        received: parsed(row, 5),
        replay_paused: row.get(6).and_then(boolean),
        pending_restart: row.get(7).and_then(boolean),
        cluster_name: text(row, 8),
        replay_age_seconds: parsed(row, 9),
        receiver: Some(receiver.first().map(|row| Receiver {
            status: text(row, 0),
            latest_end: parsed(row, 1),
            slot: text(row, 2),
            ..Receiver::default()
        })),
        senders: Some(Listed::from(
            senders
                .iter()
                .map(|row| Sender {
                    application_name: text(row, 0).unwrap_or_default(),
                    state: text(row, 1),
                    sync_state: text(row, 2),
                    slot: text(row, 3),
                    ..Sender::default()
                })
                .collect::<Vec<_>>(),
        )),
        slots: Some(Listed::from(
            slots
                .iter()
                .map(|row| Slot {
                    name: text(row, 0).unwrap_or_default(),
                    active: row.get(1).and_then(boolean).unwrap_or(false),
                    retained_bytes: parsed(row, 2),
                    wal_status: text(row, 3),
                    ..Slot::default()
                })
                .collect::<Vec<_>>(),
        )),
        ..Replication::default()
    }));
    Some(facts)
}

/// A value that is not NULL and not empty.
fn text(row: &SimpleQueryRow, column: usize) -> Option<String> {
    row.get(column)
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

fn parsed<T: FromStr>(row: &SimpleQueryRow, column: usize) -> Option<T> {
    row.get(column)?.parse().ok()
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "t" | "on" => Some(true),
        "f" | "off" => Some(false),
        _ => None,
    }
}

/// Says whether the server ends the connection with this error.
fn is_fatal(error: &postgres::Error) -> bool {
    let severity = error.as_db_error().and_then(DbError::parsed_severity);
    matches!(severity, Some(Severity::Fatal | Severity::Panic))
}

/// Finds the word and the phrase for an error of the driver.
fn failure_of(error: &postgres::Error) -> Failure {
    let (reason, detail) = match error.as_db_error() {
        Some(server) => by_sql_state(server.code(), server.message()),
        None => by_cause(error),
    };
    Failure::new(reason, detail).with_cause(chain(error))
}

/// The SQLSTATEs of PostgreSQL's documentation, appendix A. Three situations
/// share `cannot_connect_now`; only the message tells them apart, and where it
/// is translated, "starting" is the safe word: it promises nothing.
fn by_sql_state(state: &SqlState, message: &str) -> (Reason, &'static str) {
    let shutting_down = (Reason::ShuttingDown, "the server is shutting down");
    match *state {
        SqlState::CANNOT_CONNECT_NOW if message.contains("shutting down") => shutting_down,
        SqlState::CANNOT_CONNECT_NOW => (Reason::Starting, "the server is starting up"),
        SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN => shutting_down,
        SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            (Reason::AuthFailed, "the server did not let pgpair in")
        }
        SqlState::TOO_MANY_CONNECTIONS => (
            Reason::TooManyConnections,
            "the server has no connection left",
        ),
        SqlState::UNDEFINED_DATABASE => (Reason::Error, "the database does not exist"),
        SqlState::QUERY_CANCELED => (Reason::TimedOut, "the server cancelled the query"),
        _ => (Reason::Error, "the server reported an error"),
    }
}

fn by_cause(error: &postgres::Error) -> (Reason, &'static str) {
    let refused = (Reason::Refused, "the server closed the connection");
    if let Some(cause) = find_cause::<TlsError>(error) {
        return (Reason::TlsFailed, tls_detail(cause));
    }
    if let Some(cause) = find_cause::<io::Error>(error) {
        return match cause.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                (Reason::Refused, "nobody accepts connections there")
            }
            io::ErrorKind::TimedOut => (Reason::TimedOut, "the host did not react"),
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                (Reason::TimedOut, "the host is unreachable")
            }
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset => refused,
            _ => (Reason::Error, "the connection failed"),
        };
    }
    if error.is_closed() {
        return refused;
    }
    match error.to_string().as_str() {
        said if said.contains("TLS") => (Reason::TlsFailed, "the server does not offer TLS"),
        said if said.contains("authentication") || said.contains("configuration") => {
            (Reason::AuthFailed, "the server did not let pgpair in")
        }
        _ => (Reason::Error, "the conversation with the server failed"),
    }
}

fn tls_detail(cause: &TlsError) -> &'static str {
    match cause {
        TlsError::InvalidCertificate(_) => "the server's certificate is not acceptable",
        _ => "TLS could not be agreed on",
    }
}

/// Finds an error of type `E` among the causes, also inside an I/O error.
fn find_cause<E: std::error::Error + 'static>(error: &postgres::Error) -> Option<&E> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = error.source();
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<E>() {
            return Some(found);
        }
        next = match cause.downcast_ref::<io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as _),
            None => cause.source(),
        };
    }
    None
}

/// Prints an error with all its causes: `a: b: c`.
fn chain(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !said.ends_with(&more) {
            said.push_str(": ");
            said.push_str(&more);
        }
        next = cause.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::tls::connector;

    #[test]
    fn sql_states_have_their_words() {
        for (state, message, expected) in [
            (
                SqlState::CANNOT_CONNECT_NOW,
                "the database system is starting up",
                Reason::Starting,
            ),
            (
                SqlState::CANNOT_CONNECT_NOW,
                "the database system is in recovery mode",
                Reason::Starting,
            ),
            (
                SqlState::CANNOT_CONNECT_NOW,
                "the database system is shutting down",
                Reason::ShuttingDown,
            ),
            (
                SqlState::CANNOT_CONNECT_NOW,
                "Datenbanksystem startet",
                Reason::Starting,
            ),
            (
                SqlState::ADMIN_SHUTDOWN,
                "terminating connection",
                Reason::ShuttingDown,
            ),
            (SqlState::INVALID_PASSWORD, "", Reason::AuthFailed),
            (
                SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
                "",
                Reason::AuthFailed,
            ),
            (
                SqlState::TOO_MANY_CONNECTIONS,
                "",
                Reason::TooManyConnections,
            ),
            (SqlState::UNDEFINED_DATABASE, "", Reason::Error),
            (SqlState::SYNTAX_ERROR, "", Reason::Error),
        ] {
            assert_eq!(
                by_sql_state(&state, message).0,
                expected,
                "{state:?} {message}"
            );
        }
    }

    #[test]
    fn booleans_are_read_as_postgresql_prints_them() {
        for (text, expected) in [
            ("t", Some(true)),
            ("on", Some(true)),
            ("f", Some(false)),
            ("off", Some(false)),
            ("", None),
            ("yes", None),
        ] {
            assert_eq!(boolean(text), expected, "{text:?}");
        }
    }

    #[test]
    fn settings_do_not_show_the_password() {
        let settings = Settings {
            host: Host::Tcp("db".to_owned()),
            hostaddr: None,
            port: 5432,
            user: "pgpair".to_owned(),
            dbname: "postgres".to_owned(),
            password: Password::Given(Secret::new("hunter2")),
            application_name: "pgpair".to_owned(),
            connect_timeout: Duration::from_secs(1),
            sslmode: SslMode::Disable,
            tls: connector(SslMode::Disable, None).expect("without roots"),
        };
        assert!(!format!("{settings:?} {:?}", settings.password).contains("hunter2"));
    }
}
