//! Flags and environment become one validated [`Config`]. The only reader of
//! the environment.

mod account;
mod names;
mod nodes;
pub mod value;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use account::Account;
use log::LevelFilter;

use crate::pair::guard;
use crate::pair::layout::Layout;
use crate::pair::sync::Mode;
use crate::probe::observer::connect::Settings;
use crate::probe::verdict::Policy;
use crate::runtime::socket_activation::{self, Handover};

/// One setting: its names, what it means and what it is without being set.
#[derive(Debug)]
pub struct Setting {
    /// Name of the environment variable.
    pub environment: &'static str,
    /// Flag, without the two dashes.
    pub flag: &'static str,
    /// What its value looks like, for the help.
    pub value: &'static str,
    /// What it means, ending in "Defaults to …".
    pub meaning: &'static str,
}

/// The connection string.
pub const DATABASE_URL: Setting = Setting {
    environment: "DATABASE_URL",
    flag: "database-url",
    value: "URL",
    meaning: "libpq URI or key=value string; several hosts are the pair's nodes in order. \
              libpq's variables (PGHOST, PGPORT, PGUSER, PGPASSFILE, PGSSLMODE ...) fill in what \
              it leaves out. Each means what it means to libpq, or is refused by name. \
              Defaults to what those say; one of the two must name a host",
};

/// Names for the nodes.
pub const NODES: Setting = Setting {
    environment: "PGPAIR_NODES",
    flag: "nodes",
    value: "A,B",
    meaning: "names for the hosts, in their order: 1 to 63 letters, digits, '-', '_', '.'. \
              Of a host name that is too long the first label is taken. Defaults to the host names",
};

/// Where to listen.
pub const LISTEN: Setting = Setting {
    environment: "PGPAIR_LISTEN",
    flag: "listen",
    value: "ADDRESS:PORT",
    meaning: "where to answer HTTP; port 0 takes a free one. A socket that systemd hands over \
              (LISTEN_FDS) is used instead. Defaults to 0.0.0.0:5000",
};

/// Where details are told.
pub const LISTEN_DETAILS: Setting = Setting {
    environment: "PGPAIR_LISTEN_DETAILS",
    flag: "listen-details",
    value: "ADDRESS:PORT",
    meaning: "where /status, /metrics and /ui are told to other hosts too; it may be the same as \
              --listen. At --listen they are told to this host's own clients only. Defaults to none",
};

/// By which names details may be asked for.
pub const HOSTS: Setting = Setting {
    environment: "PGPAIR_HOSTS",
    flag: "hosts",
    value: "A,B",
    meaning: "host names by which clients may ask for /status, /metrics, /ui and ?write or ?login; \
              addresses and localhost always may. Defaults to any; none at a loopback address",
};

/// When the pair is ready.
pub const READY: Setting = Setting {
    environment: "PGPAIR_READY",
    flag: "ready",
    value: "POLICY",
    meaning: "who must answer for /ready to be 200: primary (a writable primary), any (any node) \
              or all (every node). Defaults to primary",
};

/// Longest that an answer may take.
pub const DEADLINE: Setting = Setting {
    environment: "PGPAIR_DEADLINE",
    flag: "deadline",
    value: "DURATION",
    meaning: "longest that an answer may take, 10ms to 1m. Defaults to 900ms",
};

/// Time between own observations.
pub const INTERVAL: Setting = Setting {
    environment: "PGPAIR_INTERVAL",
    flag: "interval",
    value: "DURATION",
    meaning: "time between observations that no request asked for, 100ms to 1h. Defaults to 1s",
};

/// HTTP connections held at once.
pub const MAX_CONNECTIONS: Setting = Setting {
    environment: "PGPAIR_MAX_CONNECTIONS",
    flag: "max-connections",
    value: "NUMBER",
    meaning: "HTTP connections held at once, 1 to 100000; above it those that wait longest \
              without a request are closed. Defaults to 512",
};

/// How long a connection may take over a request.
pub const REQUEST_TIMEOUT: Setting = Setting {
    environment: "PGPAIR_REQUEST_TIMEOUT",
    flag: "request-timeout",
    value: "DURATION",
    meaning: "an HTTP connection that finishes no request for this long is closed, 100ms to 1h. \
              Defaults to 10s",
};

/// How long to answer on after being told to stop.
pub const DRAIN: Setting = Setting {
    environment: "PGPAIR_DRAIN",
    flag: "drain",
    value: "DURATION",
    meaning: "after SIGTERM or SIGINT, answer on this long as not ready (draining), 0s to 1h. \
              Defaults to 0s",
};

/// Where the guard reports.
pub const GUARD_REPORT: Setting = Setting {
    environment: "PGPAIR_GUARD_REPORT",
    flag: "guard-report",
    value: "FILE",
    meaning: "where pgpair guard reports (probe/guard in the pair's folder), to tell of it \
              in /status, /metrics and /ui. Defaults to none",
};

/// How much to log.
pub const LOG: Setting = Setting {
    environment: "PGPAIR_LOG",
    flag: "log",
    value: "LEVEL",
    meaning: "least level of what is logged to stderr: error, warn, info or debug. \
              Defaults to info",
};

/// Every setting of `pgpair serve`, in the order of the documentation.
pub const SETTINGS: [&Setting; 13] = [
    &DATABASE_URL,
    &NODES,
    &LISTEN,
    &LISTEN_DETAILS,
    &HOSTS,
    &READY,
    &DEADLINE,
    &INTERVAL,
    &MAX_CONNECTIONS,
    &REQUEST_TIMEOUT,
    &DRAIN,
    &GUARD_REPORT,
    &LOG,
];

/// Which pair the commands are about.
pub const PREFIX: Setting = Setting {
    environment: "PGPAIR_PREFIX",
    flag: "prefix",
    value: "NAME",
    meaning: "name of the pair: its containers are NAME-a and NAME-b. Defaults to pgpair",
};

/// Where that pair lies.
pub const ROOT: Setting = Setting {
    environment: "PGPAIR_ROOT",
    flag: "root",
    value: "FOLDER",
    meaning: "folder of all that the pair has on the host. Defaults to /srv/NAME",
};

/// What an acknowledged commit promises.
pub const SYNC: Setting = Setting {
    environment: "PGPAIR_SYNC",
    flag: "sync",
    value: "MODE",
    meaning: "guard: what a commit waits for: async (the primary's disk), sync (the standby's \
              too, except while that is gone) or strict (always). Defaults to async",
};

/// How long a primary must be silent.
pub const CONFIRM: Setting = Setting {
    environment: "PGPAIR_CONFIRM",
    flag: "confirm",
    value: "DURATION",
    meaning: "guard: a primary that has not answered three times over this long is replaced, \
              1s to 1h. Defaults to 5s",
};

/// How long commits wait for a standby that is gone.
pub const SYNC_LIMIT: Setting = Setting {
    environment: "PGPAIR_SYNC_LIMIT",
    flag: "sync-limit",
    value: "DURATION",
    meaning: "guard: with sync, commits wait no more for a standby that has been gone for this \
              long, 1s to 1h. Defaults to 10s",
};

/// How often the guard replaces a primary.
pub const MAX_FAILOVERS: Setting = Setting {
    environment: "PGPAIR_MAX_FAILOVERS",
    flag: "max-failovers",
    value: "NUMBER",
    meaning: "guard: primaries that it replaces within an hour, 0 to 1000. Defaults to 3",
};

/// What is told of the guard's events.
pub const HOOK: Setting = Setting {
    environment: "PGPAIR_HOOK",
    flag: "hook",
    value: "PROGRAM",
    meaning: "guard: a program that is run at every event, with the event and key=value as its \
              arguments. Defaults to none",
};

/// Settings of the commands about a pair, which take [`LOG`] too.
pub const PAIR_SETTINGS: [&Setting; 7] = [
    &PREFIX,
    &ROOT,
    &SYNC,
    &CONFIRM,
    &SYNC_LIMIT,
    &MAX_FAILOVERS,
    &HOOK,
];

/// A watcher is stuck after this, or after twice the deadline if that is more:
/// long enough for a server that is only slow, short enough that one frozen
/// server process is left behind within 15 s.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// Everything that `pgpair serve` needs to know, validated.
#[derive(Debug)]
pub struct Config {
    /// Where to answer HTTP. Defaults to `0.0.0.0:5000`.
    pub listen: SocketAddr,
    /// Where details are told to other hosts too. Defaults to nowhere.
    pub listen_details: Option<SocketAddr>,
    /// Names by which details may be asked for, in small letters. Defaults to any, and
    /// to none at a loopback address.
    pub hosts: Option<Vec<String>>,
    /// A listening socket that was left to us, which is then used instead.
    pub handover: Option<Handover>,
    /// The pair's nodes, each with its name. At least one.
    pub nodes: Vec<(String, Settings)>,
    /// When the pair is ready. Defaults to [`Policy::Primary`].
    pub ready: Policy,
    /// Longest that an answer may take. Defaults to 900 ms.
    pub deadline: Duration,
    /// Time between own observations. Defaults to 1 s.
    pub interval: Duration,
    /// After this an observation under way is stuck.
    pub stuck_after: Duration,
    /// HTTP connections held at once. Defaults to 512.
    pub max_connections: usize,
    /// A connection without a finished request. Defaults to 10 s.
    pub request_timeout: Duration,
    /// Time to answer `draining` after SIGTERM. Defaults to none.
    pub drain: Duration,
    /// Where the guard reports. Defaults to nowhere.
    pub guard_report: Option<PathBuf>,
    /// Least level of what is logged. Defaults to `info`.
    pub log: LevelFilter,
}

/// The environment as it was found. `Debug` shows no values: one may be a
/// password.
#[derive(Default, Clone)]
pub struct Environment {
    variables: HashMap<String, OsString>,
    account: Option<Account>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

impl Environment {
    /// Takes this process's environment.
    pub fn of_process() -> Environment {
        let variables = std::env::vars_os();
        let known: Environment = variables
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .collect();
        Environment {
            account: Account::of_process(),
            ..known
        }
    }

    /// Returns a variable that is set and not empty.
    ///
    /// # Errors
    ///
    /// Fails if its value is not UTF-8.
    pub fn get(&self, name: &'static str) -> Result<Option<&str>, ConfigError> {
        Ok(self.given(name)?.filter(|text| !text.is_empty()))
    }

    /// Returns a variable that is set, be it to nothing.
    fn given(&self, name: &'static str) -> Result<Option<&str>, ConfigError> {
        let Some(value) = self.variables.get(name) else {
            return Ok(None);
        };
        let text = value.to_str().map(Some);
        text.ok_or_else(|| ConfigError::new(name, None, "must be UTF-8"))
    }

    /// Returns the name of the user who runs this process.
    fn account_name(&self) -> Option<&str> {
        self.account.as_ref().map(|account| account.name.as_str())
    }

    /// Returns the user's home directory, where one is known.
    fn home(&self) -> Result<Option<&Path>, ConfigError> {
        let account = self.account.as_ref().map(|account| account.home.as_path());
        Ok(self.get("HOME")?.map(Path::new).or(account))
    }
}

impl FromIterator<(String, OsString)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, OsString)>>(variables: I) -> Environment {
        Environment {
            variables: variables.into_iter().collect(),
            account: None,
        }
    }
}

/// A setting that cannot be used: one line that names it, its value (never a
/// secret) and what would do.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError {
    setting: String,
    value: Option<String>,
    problem: String,
}

/// A value longer than this is cut in an error.
const MAX_SHOWN: usize = 60;

impl ConfigError {
    /// Makes an error about `setting`; `value` is shown, so it is no secret.
    pub fn new(
        setting: impl Into<String>,
        value: Option<&str>,
        problem: impl Into<String>,
    ) -> ConfigError {
        ConfigError {
            setting: setting.into(),
            value: value.map(|value| value.chars().take(MAX_SHOWN).collect()),
            problem: problem.into(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} {value:?}: {}", self.setting, self.problem),
            None => write!(f, "{} {}", self.setting, self.problem),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Flags given on the command line, by their name without dashes.
pub type Flags = HashMap<&'static str, String>;

impl Config {
    /// Makes the configuration from flags, which win, and the environment.
    ///
    /// # Errors
    ///
    /// Fails at the first setting that is missing, malformed, out of range or
    /// names a file that cannot be used.
    pub fn new(flags: &Flags, environment: &Environment) -> Result<Config, ConfigError> {
        let source = Source { flags, environment };
        let deadline = source.duration(&DEADLINE, "900ms", "10ms", "1m")?;
        Ok(Config {
            listen: listen(flags, environment)?,
            listen_details: source.parsed(&LISTEN_DETAILS, address)?,
            hosts: source.parsed(&HOSTS, hosts)?,
            handover: handover(environment)?,
            nodes: nodes::nodes(&source)?,
            ready: source.parsed(&READY, policy)?.unwrap_or_default(),
            deadline,
            interval: source.duration(&INTERVAL, "1s", "100ms", "1h")?,
            stuck_after: STUCK_AFTER.max(deadline * 2),
            max_connections: source.parsed(&MAX_CONNECTIONS, connections)?.unwrap_or(512),
            request_timeout: source.duration(&REQUEST_TIMEOUT, "10s", "100ms", "1h")?,
            drain: source.duration(&DRAIN, "0s", "0s", "1h")?,
            guard_report: source.get(&GUARD_REPORT)?.map(|(_, path)| path.into()),
            log: source.parsed(&LOG, level)?.unwrap_or(LevelFilter::Info),
        })
    }
}

/// Reads where `pgpair serve` listens; `pgpair check` asks there.
///
/// # Errors
///
/// Fails if it is no address and port.
pub fn listen(flags: &Flags, environment: &Environment) -> Result<SocketAddr, ConfigError> {
    let source = Source { flags, environment };
    let found = source.parsed(&LISTEN, address)?;
    Ok(found.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 5000))))
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "use address:port, for example 127.0.0.1:5000 or [::]:5000".to_owned())
}

fn hosts(text: &str) -> Result<Vec<String>, String> {
    let hosts = text.split(',').map(str::to_ascii_lowercase);
    hosts
        .map(|host| match value::is_host_name(&host) {
            true => Ok(host),
            false => Err("use host names without a port, separated by commas".to_owned()),
        })
        .collect()
}

/// Reads whether somebody leaves us a listening socket, as systemd does it.
fn handover(environment: &Environment) -> Result<Option<Handover>, ConfigError> {
    let [pid, fds, names] = socket_activation::VARIABLES;
    let values = [
        environment.get(pid)?,
        environment.get(fds)?,
        environment.get(names)?,
    ];
    socket_activation::announced(values, process::id())
        .map_err(|problem| ConfigError::new(fds, values[1], problem))
}

/// Reads which pair the commands are about, and where it lies.
///
/// # Errors
///
/// Fails if a name or a path will not do.
pub fn layout(flags: &Flags, environment: &Environment) -> Result<Layout, ConfigError> {
    let source = Source { flags, environment };
    let root = source.get(&ROOT)?.map(|(_, value)| value.to_owned());
    let root = root.as_deref();
    let found = source.parsed(&PREFIX, |prefix| Layout::new(prefix, root))?;
    found.map_or_else(
        || {
            let made = Layout::new("pgpair", root);
            made.map_err(|problem| ConfigError::new("--root", root, problem))
        },
        Ok,
    )
}

/// Reads the least level that a command about a pair logs.
///
/// # Errors
///
/// Fails if it is no level.
pub fn command_log(
    flags: &Flags,
    environment: &Environment,
    default: LevelFilter,
) -> Result<LevelFilter, ConfigError> {
    let source = Source { flags, environment };
    Ok(source.parsed(&LOG, level)?.unwrap_or(default))
}

/// Reads how the guard is to be.
///
/// # Errors
///
/// Fails at the first setting that is malformed or out of range.
pub fn guard(flags: &Flags, environment: &Environment) -> Result<guard::Options, ConfigError> {
    let source = Source { flags, environment };
    let hook = source.parsed(&HOOK, |text| match Path::new(text) {
        path if path.is_absolute() => Ok(path.to_owned()),
        _ => Err("must be an absolute path".to_owned()),
    })?;
    Ok(guard::Options {
        mode: source.parsed(&SYNC, mode)?.unwrap_or_default(),
        confirm: source.duration(&CONFIRM, "5s", "1s", "1h")?,
        sync_limit: source.duration(&SYNC_LIMIT, "10s", "1s", "1h")?,
        max_failovers: source.parsed(&MAX_FAILOVERS, failovers)?.unwrap_or(3),
        hook,
    })
}

/// Returns an address at which a listener on `listen` can be reached from here.
pub fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Looks settings up: flag first, then environment.
struct Source<'a> {
    flags: &'a Flags,
    environment: &'a Environment,
}

impl Source<'_> {
    /// Returns a setting's value and the name under which it was given.
    fn get(&self, setting: &Setting) -> Result<Option<(String, &str)>, ConfigError> {
        if let Some(value) = self.flags.get(setting.flag) {
            return Ok(Some((format!("--{}", setting.flag), value)));
        }
        let found = self.environment.get(setting.environment)?;
        Ok(found.map(|value| (setting.environment.to_owned(), value)))
    }

    fn parsed<T>(
        &self,
        setting: &Setting,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some((name, value)) = self.get(setting)? else {
            return Ok(None);
        };
        parse(value)
            .map(Some)
            .map_err(|problem| ConfigError::new(name, Some(value), problem))
    }

    fn duration(
        &self,
        setting: &Setting,
        default: &'static str,
        least: &'static str,
        most: &'static str,
    ) -> Result<Duration, ConfigError> {
        let known = |text| value::duration(text).expect("a constant that parses");
        let parse = |text: &str| {
            let parsed = value::duration(text).map_err(str::to_owned)?;
            if parsed < known(least) || parsed > known(most) {
                return Err(format!("must be {least} to {most}"));
            }
            Ok(parsed)
        };
        Ok(self
            .parsed(setting, parse)?
            .unwrap_or_else(|| known(default)))
    }
}

fn policy(text: &str) -> Result<Policy, String> {
    let found = Policy::ALL.into_iter().find(|policy| policy.word() == text);
    found.ok_or_else(|| "use primary, any or all".to_owned())
}

fn connections(text: &str) -> Result<usize, String> {
    let found = text.parse().ok().filter(|n| (1..=100_000).contains(n));
    found.ok_or_else(|| "must be a whole number, 1 to 100000".to_owned())
}

fn mode(text: &str) -> Result<Mode, String> {
    let found = Mode::ALL.into_iter().find(|mode| mode.word() == text);
    found.ok_or_else(|| "use async, sync or strict".to_owned())
}

fn failovers(text: &str) -> Result<usize, String> {
    let found = text.parse().ok().filter(|n| (0..=1000).contains(n));
    found.ok_or_else(|| "must be a whole number, 0 to 1000".to_owned())
}

fn level(text: &str) -> Result<LevelFilter, String> {
    match text {
        "error" => Ok(LevelFilter::Error),
        "warn" => Ok(LevelFilter::Warn),
        "info" => Ok(LevelFilter::Info),
        "debug" => Ok(LevelFilter::Debug),
        _ => Err("use error, warn, info or debug".to_owned()),
    }
}

#[cfg(test)]
mod tests;
