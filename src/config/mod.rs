//! Flags and environment become one validated [`Config`]. The only reader of
//! the environment.

mod account;
mod names;
mod nodes;
pub mod settings;
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
use settings::{
    CONFIRM, DEADLINE, DRAIN, GUARD_REPORT, HOOK, HOSTS, INTERVAL, LISTEN, LISTEN_DETAILS, LOG,
    MAX_CONNECTIONS, MAX_FAILOVERS, PREFIX, READY, REQUEST_TIMEOUT, ROOT, SYNC, SYNC_LIMIT,
    Setting,
};

use crate::pair::guard;
use crate::pair::layout::Layout;
use crate::pair::sync::Mode;
use crate::probe::observer::connect::Settings;
use crate::probe::verdict::Policy;
use crate::runtime::socket_activation::{self, Handover};

/// A watcher is stuck after this, or after twice the deadline if that is more:
/// long enough for a server that is only slow, short enough that one frozen
/// server process is left behind within 15 s.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// Levels of the log, in the order of their words in [`LOG`].
const LEVELS: [LevelFilter; 4] = [
    LevelFilter::Error,
    LevelFilter::Warn,
    LevelFilter::Info,
    LevelFilter::Debug,
];

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
        let deadline = source.duration(&DEADLINE)?;
        Ok(Config {
            listen: listen(flags, environment)?,
            listen_details: source.parsed(&LISTEN_DETAILS, address)?,
            hosts: source.parsed(&HOSTS, hosts)?,
            handover: handover(environment)?,
            nodes: nodes::nodes(&source)?,
            ready: source.word(&READY, &Policy::ALL)?,
            deadline,
            interval: source.duration(&INTERVAL)?,
            stuck_after: STUCK_AFTER.max(deadline * 2),
            max_connections: source.number(&MAX_CONNECTIONS)?,
            request_timeout: source.duration(&REQUEST_TIMEOUT)?,
            drain: source.duration(&DRAIN)?,
            guard_report: source.get(&GUARD_REPORT)?.map(|(_, path)| path.into()),
            log: source.word(&LOG, &LEVELS)?,
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
    source.or_default(&LISTEN, address)
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
            let made = Layout::new(PREFIX.default_words(), root);
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
    let level = source.parsed(&LOG, |text| LOG.kind.word(&LEVELS, text))?;
    Ok(level.unwrap_or(default))
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
        mode: source.word(&SYNC, &Mode::ALL)?,
        confirm: source.duration(&CONFIRM)?,
        sync_limit: source.duration(&SYNC_LIMIT)?,
        max_failovers: source.number(&MAX_FAILOVERS)?,
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

    /// Reads a setting that is as if its default had been given.
    fn or_default<T>(
        &self,
        setting: &Setting,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let found = self.parsed(setting, &parse)?;
        Ok(found.unwrap_or_else(|| parse(setting.default_words()).expect("a default that parses")))
    }

    fn duration(&self, setting: &Setting) -> Result<Duration, ConfigError> {
        self.or_default(setting, |text| setting.kind.duration(text))
    }

    fn number(&self, setting: &Setting) -> Result<usize, ConfigError> {
        self.or_default(setting, |text| setting.kind.number(text))
    }

    /// Reads which of `all` is meant, in the order of the setting's words.
    fn word<T: Copy>(&self, setting: &Setting, all: &[T]) -> Result<T, ConfigError> {
        self.or_default(setting, |text| setting.kind.word(all, text))
    }
}

#[cfg(test)]
mod tests;
