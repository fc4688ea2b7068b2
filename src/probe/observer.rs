//! The round trip to PostgreSQL: the SQL, the connection pool and the meaning
//! of its errors. The only file that names `r2d2`.

pub mod connect;
pub mod query;
pub mod stream;

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use postgres::error::{DbError, Severity, SqlState};
use postgres::fallible_iterator::FallibleIterator;
use postgres::{Client, SimpleQueryMessage, SimpleQueryRow};
use r2d2::{ManageConnection, Pool, PooledConnection};
use scheduled_thread_pool::{OnPoolDropBehavior, ScheduledThreadPool};

use self::connect::Settings;
use self::query::{Row, Session, Table, Trouble};
use self::stream::{Meter, TooMuch};
use super::node::{Facts, Failure, Reason, What};
use super::watch::{Observer, Target};
use crate::pg::tls::{self, TlsError};
use crate::runtime::text::printable;
use crate::runtime::threads::lock;
use crate::runtime::{panic, sockets};

/// Longest wait for a connection from the pool. A watcher counts as stuck
/// earlier and is abandoned then; this lets its thread end some time after.
const POOL_PATIENCE: Duration = Duration::from_secs(60);

/// How long a server that refused the session's settings is not offered them
/// again: it may be a pooler now and the server itself later.
const OFFER_OPTIONS_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Longest value that is read. Names are at most 63 bytes long.
const MAX_VALUE: usize = 64;

/// Longest message of a server that is logged.
const MAX_CAUSE: usize = 500;

/// One node, and the observers that were made for it.
pub struct NodeTarget {
    settings: Arc<Settings>,
    /// Every round trip has a connection of its own.
    anew: bool,
    leases: Mutex<Vec<Weak<Lease>>>,
}

/// Why a connection was not even tried.
const EXHAUSTED: &str = "no thread or descriptor left to connect with";

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
        sockets::cut(|peer| addresses.contains(&peer));
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
            connected: panic::unless_exhausted(|| self.connect_with_or_without_options())
                .unwrap_or_else(|| Err(Failure::new(Reason::Error, EXHAUSTED))),
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
pub(super) enum Unconnected {
    /// Perhaps because of the options.
    OptionsRefused(Failure),
    Failed(Failure),
}

impl Unconnected {
    pub(super) fn failure(self) -> Failure {
        match self {
            Unconnected::OptionsRefused(failure) | Unconnected::Failed(failure) => failure,
        }
    }

    pub(super) fn of(error: &postgres::Error) -> Unconnected {
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
    let tell = |addresses| *lease.addresses() = addresses;
    let (client, meter) = connect::connect(settings, options, tell)?;
    let mut server = Server {
        client,
        meter,
        ended: false,
    };
    let session = Session::begin(&mut server, options.is_some()).map_err(Unconnected::Failed)?;
    Ok((server, session))
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
    let value = |column| Some(printable(row.try_get(column).ok()??, MAX_VALUE));
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
    Failure::new(reason, detail).with_cause(printable(&chain(error), MAX_CAUSE))
}

/// The SQLSTATEs of PostgreSQL's documentation, appendix A.
fn by_sql_state(state: &SqlState, said: Said<'_>) -> (Reason, &'static str) {
    let shutting_down = (Reason::ShuttingDown, "the server is shutting down");
    match *state {
        SqlState::CANNOT_CONNECT_NOW if said.message.contains("shutting down") => shutting_down,
        SqlState::CANNOT_CONNECT_NOW => by_recovery(said),
        SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN => shutting_down,
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION
            if said.message.contains("client certificate") =>
        {
            (
                Reason::AuthFailed,
                "the server asks for a client's certificate, which is not supported",
            )
        }
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
    "standby a caldo",
    "ホットスタンバイ",
    "热备",
    "горяч",
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
        return (Reason::TlsFailed, tls::detail(cause));
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
            (Reason::AuthFailed, login_detail(&chain(error)))
        }
        _ => (Reason::Error, "the conversation with the server failed"),
    }
}

/// What the driver says where it ends a login by itself.
fn login_detail(said: &str) -> &'static str {
    match said {
        _ if said.contains("password missing") => {
            "the server asks for a password, and none is known"
        }
        _ if said.contains("channel binding") => {
            "the server binds no channel, which channel_binding=require asks for"
        }
        _ if said.contains("unsupported") => {
            "the server asks for a way to log in that is not supported"
        }
        _ => "the server did not let pgpair in",
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
        let closed = [
            "Hot standby mode is disabled.",
            "Hot-Standby-Modus ist deaktiviert.",
            "El modo hot standby está desactivado.",
            "Le mode Hot Standby est désactivé",
            "La modalità standby a caldo è disabilitata.",
            "ホットスタンバイモードは無効です。",
            "ცხელი ლოდინის რეჟიმი გამორთულია.",
            "Hot standby 모드가 비활성화 되었습니다.",
            "Режим горячего резерва отключён.",
            "Hot standby-läge är avstängt.",
            "Режим Hot standby вимкнений.",
        ];
        let not_yet = [
            "Consistent recovery state has not been yet reached.",
            "Konsistenter Wiederherstellungszustand wurde noch nicht erreicht.",
            "Согласованное состояние восстановления ещё не достигнуто.",
            "リカバリの一貫性はまだ確保されていません。",
        ];
        let snapshot = "Recovery snapshot is not yet ready for hot standby.";
        let closed = closed.map(|detail| (Some(detail), None, Reason::Refused));
        let not_yet = not_yet.map(|detail| (Some(detail), None, Reason::Starting));
        let rest = [
            (Some(snapshot), hint, Reason::Starting),
            (None, None, Reason::Starting),
        ];
        for (detail, hint, expected) in closed.into_iter().chain(not_yet).chain(rest) {
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
}
