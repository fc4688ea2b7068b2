//! SQL as superuser over a node's Unix socket on the host: PostgreSQL lets the
//! host's root in by peer authentication, so no password is involved. The only
//! file of `pair` that names `postgres`.

use std::fmt;
use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use postgres::config::SslMode;
use postgres::error::SqlState;
use postgres::{Client, SimpleQueryMessage};

use super::layout::{Layout, Node};
use super::socket::{self, Relay};
use crate::pg::tls::Connector;
use crate::runtime::text::printable;
use crate::runtime::threads;

/// Longest text of a server's that is told, in characters, and longest value.
const MAX_TEXT: usize = 500;
const MAX_VALUE: usize = 8192;

/// One row: each cell as text, or NULL.
pub type Row = Vec<Option<String>>;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SqlError {
    /// Nobody listens at the socket.
    Gone(String),
    /// It listens and says nothing.
    Silent(Duration),
    /// It is starting up, recovering or shutting down.
    NotYet(String),
    /// It answered, and that is what it said.
    Said(String),
}

impl SqlError {
    /// Says whether the server works, though it did not do what was asked.
    pub fn is_alive(&self) -> bool {
        matches!(self, SqlError::Said(_))
    }

    /// Says whether a server said this: whatever it says, it is alive.
    pub fn is_a_sign_of_life(&self) -> bool {
        matches!(self, SqlError::Said(_) | SqlError::NotYet(_))
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SqlError::Silent(within) => write!(f, "no answer within {within:?}"),
            SqlError::Gone(text) | SqlError::NotYet(text) | SqlError::Said(text) => {
                f.write_str(&printable(&text.replace('\n', " "), MAX_TEXT))
            }
        }
    }
}

impl std::error::Error for SqlError {}

/// A node's server, by its socket.
#[derive(Clone, Debug)]
pub struct Server {
    layout: Layout,
    node: Node,
}

impl Server {
    /// Makes a node's server. Connects to nothing yet.
    pub fn of(layout: &Layout, node: Node) -> Server {
        Server {
            layout: layout.clone(),
            node,
        }
    }

    /// Runs statements over a connection of their own; returns the rows of all
    /// of them.
    ///
    /// # Errors
    ///
    /// Fails if the server does not answer within the limit, or says no.
    pub fn rows(&self, sql: &str, within: Duration) -> Result<Vec<Row>, SqlError> {
        let answer = self.begin(sql, within)?.recv_timeout(within);
        answer.unwrap_or(Err(SqlError::Silent(within)))
    }

    /// Begins as [`Server::rows`] does; the answer may never come.
    ///
    /// # Errors
    ///
    /// Fails if no thread can be started.
    pub fn begin(
        &self,
        sql: &str,
        within: Duration,
    ) -> Result<Receiver<Result<Vec<Row>, SqlError>>, SqlError> {
        let (sender, receiver) = channel();
        let (server, sql) = (self.clone(), sql.to_owned());
        // The driver's handshake has no time limit: a frozen server would hold
        // us for ever. It holds this thread instead, until it goes on or ends.
        threads::spawn("sql".to_owned(), move || {
            let _ = sender.send(server.ask(&sql, within));
        })
        .map_err(|error| SqlError::Gone(error.to_string()))?;
        Ok(receiver)
    }

    fn ask(&self, sql: &str, within: Duration) -> Result<Vec<Row>, SqlError> {
        Connection(self.connect(within)?).ask(sql)
    }

    /// Opens a connection to ask more than once.
    ///
    /// # Errors
    ///
    /// Fails if the server does not take it.
    pub fn open(&self, within: Duration) -> Result<Connection, SqlError> {
        match self.connect(within) {
            Err(SqlError::Gone(why)) if self.reacts(within) => Err(SqlError::Said(format!(
                "it takes no new connection ({why})"
            ))),
            connected => connected.map(Connection),
        }
    }

    /// Says whether a server reacts at all. One that cannot start a process for
    /// a new connection says so in words that the driver does not understand.
    fn reacts(&self, within: Duration) -> bool {
        /// Asks whether TLS is spoken, as every client may.
        const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
        let mut said = [0];
        let asked = socket::connect(&self.layout, self.node);
        let read = asked.and_then(|mut stream| {
            stream.set_write_timeout(Some(within))?;
            stream.set_read_timeout(Some(within))?;
            stream.write_all(&SSL_REQUEST)?;
            stream.read(&mut said)
        });
        read.is_ok_and(|bytes| bytes > 0)
    }

    fn connect(&self, within: Duration) -> Result<Client, SqlError> {
        // Our own small writes must not wait for a standby that is not there yet,
        // and nobody else's functions are ours.
        let options = format!(
            "-c statement_timeout={} -c synchronous_commit=local -c search_path=pg_catalog",
            within.as_millis()
        );
        let stream = socket::connect(&self.layout, self.node);
        let relay = stream.and_then(|stream| Relay::to(stream, &self.layout));
        let relay = relay.map_err(|error| SqlError::Gone(error.to_string()))?;
        postgres::Config::new()
            .host_path(relay.directory())
            .user("postgres")
            .dbname("postgres")
            .application_name("pgpair-command")
            .options(&options)
            .ssl_mode(SslMode::Disable)
            .connect(Connector::unused())
            .map_err(|error| meaning(&error))
    }
}

/// A connection that is kept.
pub struct Connection(Client);

impl Connection {
    /// Runs statements; returns the rows of all of them.
    ///
    /// # Errors
    ///
    /// Fails if the server does not answer, or says no.
    pub fn ask(&mut self, sql: &str) -> Result<Vec<Row>, SqlError> {
        let messages = self.0.simple_query(sql).map_err(|error| meaning(&error))?;
        Ok(messages.iter().filter_map(cells).collect())
    }

    /// Says whether it has come to its end.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

fn cells(message: &SimpleQueryMessage) -> Option<Row> {
    let SimpleQueryMessage::Row(row) = message else {
        return None;
    };
    let cell = |index| row.get(index).map(|text| printable(text, MAX_VALUE));
    Some((0..row.len()).map(cell).collect())
}

fn meaning(error: &postgres::Error) -> SqlError {
    let Some(said) = error.as_db_error() else {
        let cause = std::error::Error::source(error);
        return SqlError::Gone(cause.map_or_else(|| error.to_string(), |cause| cause.to_string()));
    };
    let text = said.message().to_owned();
    let passing = [
        &SqlState::CANNOT_CONNECT_NOW,
        &SqlState::ADMIN_SHUTDOWN,
        &SqlState::CRASH_SHUTDOWN,
    ];
    if passing.contains(&said.code()) {
        SqlError::NotYet(text)
    } else {
        SqlError::Said(text)
    }
}
