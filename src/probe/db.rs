//! The round trip to PostgreSQL: the SQL, the connection pool and the meaning
//! of its errors. The only file that names `postgres` and `r2d2`.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use postgres::config::{SslMode as PgSslMode, SslNegotiation};
use postgres::error::{DbError, Severity, SqlState};
use postgres::fallible_iterator::FallibleIterator;
use postgres::{Client, SimpleQueryMessage, SimpleQueryRow};
use r2d2::{ManageConnection, Pool, PooledConnection};
use scheduled_thread_pool::{OnPoolDropBehavior, ScheduledThreadPool};

use super::node::{Facts, Failure, Reason, What};
use super::passfile::{self, Secret};
use super::query::{self, Row, Session, Table, Trouble};
use super::stream::{Bounded, Meter, TooMuch};
use super::tls::{Connector, SslMode, TlsError};
use super::watch::{Observer, Target};
use crate::sockets;
use crate::text::printable;
use crate::threads::lock;

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

/// How long a server that refused the session's settings is not offered them
/// again: it may be a pooler now and the server itself later.
const OFFER_OPTIONS_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Longest value that is read. Names are at most 63 bytes long.
const VALUE_AT_MOST: usize = 64;

/// Longest message of a server that is logged.
const CAUSE_AT_MOST: usize = 500;

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

    /// Makes the target for new logins to a node. They have a name of their own in
    /// `pg_stat_activity`: `pgpair-login`.
    pub fn for_logins(mut settings: Settings) -> NodeTarget {
        settings.application_name.push_str("-login");
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
            return Box::new(Manager::new(settings, lease));
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
            .build_unchecked(Manager::new(settings, lease));
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
    connected: Result<(Server, Session), Failure>,
    used: bool,
}

/// The server at the other end of a connection.
struct Server {
    client: Client,
    meter: Meter,
    /// It has said that it ends the connection, or was cut off.
    ended: bool,
}

impl Link {
    fn ask(&mut self, what: What) -> Result<Facts, Failure> {
        match &mut self.connected {
            Ok((server, session)) => session.ask(what, server),
            Err(failure) => Err(failure.clone()),
        }
    }

    fn has_ended(&self) -> bool {
        let server = self.connected.as_ref().map(|(server, _)| server);
        server.is_ok_and(|server| server.ended || server.client.is_closed())
    }
}

impl query::Server for Server {
    fn query(&mut self, sql: &str) -> Result<Vec<Table>, Trouble> {
        self.meter.expect_reply();
        let outcome = self.client.simple_query(sql);
        // Nobody asked for notifications; kept they would pile up.
        let mut notifications = self.client.notifications();
        if !notifications.is_empty() {
            let _ = notifications.iter().count();
        }
        let error = match outcome {
            Ok(messages) => return Ok(tables(messages)),
            Err(error) => error,
        };
        // The message may be here before the end of the stream.
        self.ended |= is_fatal(&error) || find_cause::<TooMuch>(&error).is_some();
        let failure = failure_of(&error);
        match error.code() {
            Some(state) if !self.ended => Err(Trouble::Refused {
                state: state.code().to_owned(),
                failure,
            }),
            _ => Err(Trouble::Lost(failure)),
        }
    }
}

struct Manager {
    settings: Arc<Settings>,
    lease: Arc<Lease>,
    /// When the server refused the session's settings last.
    options_refused: Mutex<Option<Instant>>,
}

impl Manager {
    fn new(settings: Arc<Settings>, lease: Arc<Lease>) -> Manager {
        Manager {
            settings,
            lease,
            options_refused: Mutex::new(None),
        }
    }
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
            connected: self.connect_with_or_without_options(),
            used: false,
        })
    }

    fn is_valid(&self, _: &mut Link) -> Result<(), Self::Error> {
        Ok(())
    }

    fn has_broken(&self, link: &mut Link) -> bool {
        link.connected.is_err() || link.has_ended()
    }
}

impl Manager {
    /// Poolers refuse what they cannot keep for a session.
    fn connect_with_or_without_options(&self) -> Result<(Server, Session), Failure> {
        let mut refused = lock(&self.options_refused);
        let lately = refused.is_some_and(|at| at.elapsed() < OFFER_OPTIONS_AGAIN_AFTER);
        if !lately {
            match connect(&self.settings, &self.lease, Some(query::OPTIONS)) {
                Err(Unconnected::OptionsRefused(_)) => {}
                outcome => return outcome.map_err(Unconnected::failure),
            }
        }
        let connected = connect(&self.settings, &self.lease, None);
        if !lately && connected.is_ok() {
            *refused = Some(Instant::now());
        }
        connected.map_err(Unconnected::failure)
    }
}

/// Why there is no connection.
enum Unconnected {
    /// Perhaps because of the options.
    OptionsRefused(Failure),
    Failed(Failure),
}

impl Unconnected {
    fn failure(self) -> Failure {
        match self {
            Unconnected::OptionsRefused(failure) | Unconnected::Failed(failure) => failure,
        }
    }

    fn of(error: &postgres::Error) -> Unconnected {
        let failure = failure_of(error);
        match error.code().map(|state| state.code().get(..2)) {
            // Not supported, protocol, value, name or access. Whoever knows
            // better ends with the same error without them.
            Some(Some("0A" | "08" | "22" | "42")) => Unconnected::OptionsRefused(failure),
            _ => Unconnected::Failed(failure),
        }
    }
}

fn connect(
    settings: &Settings,
    lease: &Lease,
    options: Option<&str>,
) -> Result<(Server, Session), Unconnected> {
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
        .options(options.unwrap_or_default());
    match settings.host {
        // As in libpq, a Unix socket is never encrypted.
        Host::Unix(_) => config.ssl_mode(PgSslMode::Disable),
        Host::Tcp(_) => config
            .ssl_mode(PgSslMode::Require)
            .ssl_negotiation(SslNegotiation::Direct),
    };
    locate(&mut config, settings, lease).map_err(Unconnected::Failed)?;
    if let Some(secret) = password(settings).map_err(Unconnected::Failed)? {
        config.password(secret.expose());
    }
    let meter = Meter::of_greeting();
    let stream = Bounded::new(settings.tls.clone(), settings.sslmode, meter.clone());
    let client = config.connect(stream);
    let mut server = Server {
        client: client.map_err(|error| Unconnected::of(&error))?,
        meter,
        ended: false,
    };
    let session = Session::begin(&mut server, options.is_some()).map_err(Unconnected::Failed)?;
    Ok((server, session))
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

/// Reads the answer to several statements, one table each.
fn tables(messages: Vec<SimpleQueryMessage>) -> Vec<Table> {
    let mut tables = Vec::new();
    let mut table = Table::new();
    for message in messages {
        match message {
            SimpleQueryMessage::Row(row) => table.push(values(&row)),
            SimpleQueryMessage::CommandComplete(_) => tables.push(std::mem::take(&mut table)),
            _ => {}
        }
    }
    tables
}

fn values(row: &SimpleQueryRow) -> Row {
    let value = |column| Some(printable(row.try_get(column).ok()??, VALUE_AT_MOST));
    (0..row.len()).map(value).collect()
}

/// Says whether the server ends the connection with this error.
fn is_fatal(error: &postgres::Error) -> bool {
    let severity = error.as_db_error().and_then(DbError::parsed_severity);
    matches!(severity, Some(Severity::Fatal | Severity::Panic))
}

/// Finds the word and the phrase for an error of the driver.
fn failure_of(error: &postgres::Error) -> Failure {
    let (reason, detail) = match error.as_db_error() {
        Some(server) => by_sql_state(
            server.code(),
            Said {
                message: server.message(),
                detail: server.detail(),
                hint: server.hint(),
            },
        ),
        None => by_cause(error),
    };
    Failure::new(reason, detail).with_cause(printable(&chain(error), CAUSE_AT_MOST))
}

/// The SQLSTATEs of PostgreSQL's documentation, appendix A.
fn by_sql_state(state: &SqlState, said: Said<'_>) -> (Reason, &'static str) {
    let shutting_down = (Reason::ShuttingDown, "the server is shutting down");
    match *state {
        SqlState::CANNOT_CONNECT_NOW if said.message.contains("shutting down") => shutting_down,
        SqlState::CANNOT_CONNECT_NOW => by_recovery(said),
        SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN => shutting_down,
        SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            (Reason::AuthFailed, "the server did not let pgpair in")
        }
        SqlState::TOO_MANY_CONNECTIONS => (
            Reason::TooManyConnections,
            "the server has no connection left",
        ),
        SqlState::UNDEFINED_DATABASE => (Reason::Error, "the database does not exist"),
        SqlState::INSUFFICIENT_PRIVILEGE => (
            Reason::Error,
            "the server does not allow pgpair's role what it asked",
        ),
        SqlState::QUERY_CANCELED => (Reason::TimedOut, "the server cancelled the query"),
        _ => (Reason::Error, "the server reported an error"),
    }
}

/// What a server says besides the SQLSTATE, in its own language.
#[derive(Clone, Copy, Default)]
struct Said<'a> {
    message: &'a str,
    detail: Option<&'a str>,
    hint: Option<&'a str>,
}

/// "Hot standby" in the languages that PostgreSQL speaks and translates it to.
const HOT_STANDBY: [&str; 7] = [
    "hot standby",
    "hot-standby",
    "ホットスタンバイ",
    "热备",
    "горяч",
    "гаряч",
    "ცხელი",
];

/// Several situations share `cannot_connect_now`. A server that is about to let
/// sessions in and cannot yet says why in a detail; one that never will names hot
/// standby there, and has no hint what would change that. Where this is not
/// understood, "starting" is the safe word: it promises nothing.
fn by_recovery(said: Said<'_>) -> (Reason, &'static str) {
    let detail = said.detail.unwrap_or_default().to_lowercase();
    let names_hot_standby = HOT_STANDBY.iter().any(|words| detail.contains(words));
    match said {
        _ if detail.is_empty() => (Reason::Starting, "the server is starting up"),
        Said { hint: None, .. } if names_hot_standby => (
            Reason::Refused,
            "a standby with hot_standby = off: it will let nobody in until it is promoted",
        ),
        _ => (
            Reason::Starting,
            "the server recovers and does not let anybody in yet",
        ),
    }
}

fn by_cause(error: &postgres::Error) -> (Reason, &'static str) {
    let refused = (Reason::Refused, "the server closed the connection");
    if let Some(cause) = find_cause::<TlsError>(error) {
        return (Reason::TlsFailed, tls_detail(cause));
    }
    if find_cause::<TooMuch>(error).is_some() {
        return (
            Reason::Error,
            "the server sends more than an answer can have",
        );
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
            let said = Said {
                message,
                ..Said::default()
            };
            assert_eq!(
                by_sql_state(&state, said).0,
                expected,
                "{state:?} {message}"
            );
        }
    }

    #[test]
    fn standby_that_will_let_nobody_in_is_told_from_one_that_is_not_ready() {
        let hint = Some("To enable hot standby, close write transactions with more than 64 …");
        for (detail, hint, expected) in [
            (Some("Hot standby mode is disabled."), None, Reason::Refused),
            (
                Some("Hot-Standby-Modus ist deaktiviert."),
                None,
                Reason::Refused,
            ),
            (
                Some("ホットスタンバイモードは無効です。"),
                None,
                Reason::Refused,
            ),
            (
                Some("Consistent recovery state has not been yet reached."),
                None,
                Reason::Starting,
            ),
            (
                Some("Recovery snapshot is not yet ready for hot standby."),
                hint,
                Reason::Starting,
            ),
            (None, None, Reason::Starting),
        ] {
            let said = Said {
                message: "the database system is not accepting connections",
                detail,
                hint,
            };
            let (reason, phrase) = by_sql_state(&SqlState::CANNOT_CONNECT_NOW, said);
            assert_eq!(reason, expected, "{detail:?}");
            assert_eq!(phrase.contains("hot_standby"), reason == Reason::Refused);
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
