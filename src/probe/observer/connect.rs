//! Connecting to a node: where it is, as whom, and how protected, with libpq's
//! meanings.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use postgres::config::ChannelBinding;
use postgres::config::{SslMode as PgSslMode, SslNegotiation};
use postgres::{Client, Config};

use super::Unconnected;
use super::stream::{Bounded, Meter, Way};
use crate::pg::passfile::{self, Secret};
use crate::pg::resolve::resolve;
use crate::pg::tls::{Connector, SslMode};
use crate::probe::node::{Failure, Reason};

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

/// Where libpq looks for sockets if nobody says where, as its authors and as Debian
/// build it. In a password file `localhost` stands for it.
const DEFAULT_SOCKET_FOLDERS: [&str; 2] = ["/tmp", "/var/run/postgresql"];

/// SQLSTATEs of this class mean that the server does not let the client in.
const NOT_LET_IN: &str = "28";

/// Where a server is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name or an address.
    Tcp(String),
    /// The directory of a Unix socket.
    Unix(PathBuf),
}

impl Host {
    /// The names under which a password file may have it.
    fn names(&self) -> Vec<&str> {
        let folder = match self {
            Host::Tcp(name) => return vec![name],
            Host::Unix(folder) => folder,
        };
        let is_default = DEFAULT_SOCKET_FOLDERS
            .iter()
            .any(|it| Path::new(it) == folder);
        let default = is_default.then_some("localhost");
        folder.to_str().into_iter().chain(default).collect()
    }
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
    /// Whether the login must be bound to the encrypted channel.
    pub channel_binding: ChannelBinding,
    /// The name shown in `pg_stat_activity`.
    pub application_name: String,
    /// Options for the server process, as `-c name=value`.
    pub options: Option<String>,
    /// Longest wait for TCP to connect.
    pub connect_timeout: Duration,
    /// How the connection is protected.
    pub sslmode: SslMode,
    /// TLS begins without being asked for.
    pub is_tls_direct: bool,
    /// The connector that goes with these.
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

/// The way to try first, and the one to fall back to.
fn ways(settings: &Settings) -> (Way, Option<Way>) {
    match settings.sslmode {
        // As in libpq, a Unix socket is never encrypted.
        _ if matches!(settings.host, Host::Unix(_)) => (Way::Plain, None),
        SslMode::Disable => (Way::Plain, None),
        SslMode::Allow => (Way::Plain, Some(Way::Tls)),
        SslMode::Prefer => (Way::TlsIfOffered, Some(Way::Plain)),
        _ if settings.is_tls_direct => (Way::TlsAtOnce, None),
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (Way::Tls, None),
    }
}

/// Connects to a node, with `options` of the session beside its own. Tells
/// beforehand at which addresses.
pub(super) fn connect(
    settings: &Settings,
    options: Option<&str>,
    tell: impl FnOnce(Vec<SocketAddr>),
) -> Result<(Client, Meter), Unconnected> {
    let mut config = config(settings, options);
    tell(locate(&mut config, settings).map_err(Unconnected::Failed)?);
    if let Some(secret) = password(settings).map_err(Unconnected::Failed)? {
        config.password(secret.expose());
    }
    let (first, second) = ways(settings);
    let failed = match try_way(&config, settings, first) {
        Ok(connected) => return Ok(connected),
        Err(failed) => failed,
    };
    let Some(second) = second.filter(|_| failed.may_go_better) else {
        return Err(failed.why);
    };
    try_way(&config, settings, second).map_err(|again| failed.and(again))
}

/// Why a way did not lead in.
struct Failed {
    why: Unconnected,
    /// With or without TLS the outcome may be another.
    may_go_better: bool,
}

impl Failed {
    /// What to tell when the other way failed too: the first failure, unless the
    /// second found the server in trouble.
    fn and(self, second: Failed) -> Unconnected {
        if !second.may_go_better {
            return second.why;
        }
        let (first, second) = (self.why.failure(), second.why.failure());
        let cause = format!("{}; and then: {}", first.cause, second.cause);
        Unconnected::Failed(first.with_cause(cause))
    }
}

fn try_way(config: &Config, settings: &Settings, way: Way) -> Result<(Client, Meter), Failed> {
    let (connector, progress) = settings.tls.for_one_connection();
    let meter = Meter::of_greeting();
    let connected = config.connect(Bounded::new(connector, way, meter.clone()));
    let error = match connected {
        Ok(client) => return Ok((client, meter)),
        Err(error) => error,
    };
    let state = error.as_db_error().map(|it| it.code().code());
    let is_kept_out = state.is_some_and(|it| it.starts_with(NOT_LET_IN));
    let may_go_better = match way {
        Way::TlsIfOffered => progress.is_stuck() || (progress.is_done() && is_kept_out),
        Way::Plain => is_kept_out,
        Way::Tls | Way::TlsAtOnce => progress.is_stuck() || is_kept_out,
    };
    Err(Failed {
        why: Unconnected::of(&error),
        may_go_better,
    })
}

fn config(settings: &Settings, options: Option<&str>) -> Config {
    // Of a setting that is given twice the last counts: the probe's own.
    let options = settings.options.as_deref().into_iter().chain(options);
    let mut config = Config::new();
    config
        .user(&settings.user)
        .dbname(&settings.dbname)
        .application_name(&settings.application_name)
        .channel_binding(settings.channel_binding)
        .connect_timeout(settings.connect_timeout)
        .keepalives(true)
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_RETRIES)
        .tcp_user_timeout(TCP_USER_TIMEOUT)
        .port(settings.port);
    // None is not the same as empty: a pooler refuses both.
    let options = options.collect::<Vec<_>>().join(" ");
    if !options.is_empty() {
        config.options(&options);
    }
    match settings.host {
        Host::Unix(_) => config.ssl_mode(PgSslMode::Disable),
        // The stream agrees on TLS by itself, or on none.
        Host::Tcp(_) => config
            .ssl_mode(PgSslMode::Require)
            .ssl_negotiation(SslNegotiation::Direct),
    };
    config
}

/// Names the server in `config`; looks its addresses up here, where a failure
/// can be told from the rest.
fn locate(config: &mut Config, settings: &Settings) -> Result<Vec<SocketAddr>, Failure> {
    let name = match &settings.host {
        Host::Unix(directory) => {
            config.host_path(directory);
            return Ok(Vec::new());
        }
        Host::Tcp(name) => name,
    };
    let addresses = match settings.hostaddr {
        Some(address) => vec![SocketAddr::new(address, settings.port)],
        None => resolve(name, settings.port).map_err(|error| unresolved(&error))?,
    };
    // To the driver a name that begins with a slash is a socket, whatever its address.
    let is_path = name.starts_with('/');
    let name = if is_path {
        format!(".{name}")
    } else {
        name.clone()
    };
    for address in &addresses {
        config.host(&name);
        // An address within a network interface has more to it than its number.
        if !matches!(address, SocketAddr::V6(it) if it.scope_id() != 0) {
            config.hostaddr(address.ip());
        }
    }
    Ok(addresses)
}

fn unresolved(error: &io::Error) -> Failure {
    let failure = Failure::new(Reason::Unresolved, "the host name does not resolve");
    failure.with_cause(error.to_string())
}

fn password(settings: &Settings) -> Result<Option<Secret>, Failure> {
    let path = match &settings.password {
        Password::None => return Ok(None),
        Password::Given(secret) => return Ok(Some(secret.clone())),
        Password::File(path) => path,
    };
    let entries = passfile::read(path).map_err(|error| {
        Failure::new(Reason::AuthFailed, "the password file cannot be used")
            .with_cause(error.to_string())
    })?;
    let hosts = settings.host.names();
    Ok(entries.find(&hosts, settings.port, &settings.dbname, &settings.user))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            host: Host::Tcp("db".to_owned()),
            hostaddr: None,
            port: 5432,
            user: "pgpair".to_owned(),
            dbname: "postgres".to_owned(),
            password: Password::Given(Secret::new("hunter2")),
            channel_binding: ChannelBinding::Prefer,
            application_name: "pgpair".to_owned(),
            options: None,
            connect_timeout: Duration::from_secs(1),
            sslmode: SslMode::Disable,
            is_tls_direct: false,
            tls: Connector::unused(),
        }
    }

    #[test]
    fn settings_do_not_show_the_password() {
        let settings = settings();
        assert!(!format!("{settings:?} {:?}", settings.password).contains("hunter2"));
    }

    #[test]
    fn ways_are_tried_in_the_order_of_libpq() {
        for (mode, expected) in [
            (SslMode::Disable, (Way::Plain, None)),
            (SslMode::Allow, (Way::Plain, Some(Way::Tls))),
            (SslMode::Prefer, (Way::TlsIfOffered, Some(Way::Plain))),
            (SslMode::Require, (Way::Tls, None)),
            (SslMode::VerifyCa, (Way::Tls, None)),
            (SslMode::VerifyFull, (Way::Tls, None)),
        ] {
            let mut settings = settings();
            settings.sslmode = mode;
            assert_eq!(ways(&settings), expected, "{mode:?}");
            settings.host = Host::Unix("/run".into());
            assert_eq!(ways(&settings), (Way::Plain, None), "{mode:?}");
        }
    }

    #[test]
    fn localhost_stands_for_the_default_folder_of_sockets_only() {
        for (folder, names) in [
            ("/run/x", &["/run/x"][..]),
            ("/tmp", &["/tmp", "localhost"]),
            ("/var/run/postgresql", &["/var/run/postgresql", "localhost"]),
        ] {
            assert_eq!(Host::Unix(folder.into()).names(), names);
        }
        assert_eq!(Host::Tcp("/run/x".to_owned()).names(), ["/run/x"]);
    }
}
