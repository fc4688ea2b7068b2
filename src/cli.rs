//! Arguments become one command, ready to run.

mod help;
pub mod table;

use std::ffi::OsString;
use std::fmt;

use lexopt::prelude::*;
use log::LevelFilter;

pub use help::{help, synopsis};
use table::{Switch, Usage};

use crate::commands::http_client::Target;
use crate::commands::pair::{self, Action};
use crate::commands::{check, status};
use crate::config::value::{self, shown};
use crate::config::{self, Config, ConfigError, Environment, Flags};
use crate::pair::guard::pause::Pause;
use crate::pair::layout::Node;
use crate::pair::rejoin::Extent;
use crate::pair::{failover, switchover};
use crate::runtime::exit;

/// What to do.
#[derive(Debug)]
pub enum Command {
    /// Print this and end well.
    Print(String),
    /// Answer HTTP about the pair.
    Serve(Box<Config>),
    /// Ask an endpoint once and tell by the exit code.
    Check(Target),
    /// Show the pair as a table.
    Status(status::Options),
    /// Change a pair on this host.
    Pair(pair::Command),
}

/// Arguments or settings that cannot be used: one line, and the exit code.
#[derive(Debug)]
pub struct UsageError {
    message: String,
    /// The exit code that the command promises for this.
    pub exit_code: u8,
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<lexopt::Error> for UsageError {
    fn from(error: lexopt::Error) -> UsageError {
        let problem = match error {
            lexopt::Error::MissingValue { option } => match option {
                Some(option) => format!("{option} needs a value"),
                None => "a value is missing".to_owned(),
            },
            lexopt::Error::UnexpectedOption(name) => format!("unknown option {}", shown(&name)),
            // A value may be a connection string: it is not repeated.
            lexopt::Error::UnexpectedValue { option, .. } => format!("{option} takes no value"),
            _ => "an argument is not UTF-8".to_owned(),
        };
        usage(format!("{problem}; see pgpair --help"))
    }
}

impl From<ConfigError> for UsageError {
    fn from(error: ConfigError) -> UsageError {
        usage(error.to_string())
    }
}

/// Every message of ours is shorter, in characters; the name of a file may not be.
const MAX_MESSAGE: usize = 900;

fn usage(message: String) -> UsageError {
    // A value may contain a line break; the message is one line all the same.
    let plain = message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c });
    UsageError {
        message: plain.take(MAX_MESSAGE).collect(),
        exit_code: exit::USAGE,
    }
}

/// Parses arguments, without the program's name.
///
/// # Errors
///
/// Fails on an unknown command or flag, and on settings that cannot be used.
pub fn parse(
    arguments: impl Iterator<Item = OsString>,
    environment: &Environment,
) -> Result<Command, UsageError> {
    let arguments: Vec<OsString> = arguments.collect();
    let asks = |word: &OsString| word == "check" || word == "status";
    let is_client = arguments.first().is_some_and(asks);
    let parsed = parse_words(arguments.into_iter(), environment);
    // With those two, 2 means that there is no connection.
    if is_client {
        parsed.map_err(bad_arguments)
    } else {
        parsed
    }
}

fn parse_words(
    arguments: impl Iterator<Item = OsString>,
    environment: &Environment,
) -> Result<Command, UsageError> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut flags = Flags::new();
    let mut words: Vec<String> = Vec::new();
    let mut switches: Vec<&'static str> = Vec::new();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Print(help())),
            Short('V') | Long("version") => return Ok(Command::Print(version())),
            Long(name) => match (table::switch(name), table::setting(name)) {
                (Some(switch), _) => switches.push(switch.flag),
                (None, Some(setting)) => {
                    flags.insert(setting.flag, parser.value()?.string()?);
                }
                (None, None) => return Err(argument.unexpected().into()),
            },
            Value(word) => words.push(word.string()?),
            Short(_) => return Err(argument.unexpected().into()),
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let given = Given {
        flags: &flags,
        switches: &switches,
        environment,
    };
    match words.as_slice() {
        [] | ["serve"] => given.serve(),
        ["check", urls @ ..] => given.check(urls).map_err(bad_arguments),
        ["status", urls @ ..] => given.status(urls).map_err(bad_arguments),
        ["switchover", nodes @ ..] => given.switchover(nodes),
        ["failover", nodes @ ..] => given.failover(nodes),
        ["rejoin", nodes @ ..] => given.rejoin(nodes),
        ["guard", words @ ..] => given.guard(words),
        ["inspect"] => given.inspect(),
        ["inspect", extra, ..] => Err(usage(format!(
            "inspect takes no argument {}; see pgpair --help",
            shown(extra)
        ))),
        ["serve", extra, ..] => Err(usage(format!(
            "serve takes no argument {}; see pgpair --help",
            shown(extra)
        ))),
        [other, ..] => Err(unknown(other)),
    }
}

fn unknown(word: &str) -> UsageError {
    let known = table::COMMANDS.iter().map(|command| command.words);
    let known: Vec<&str> = known.filter(|words| !words.contains(' ')).collect();
    usage(format!(
        "unknown command {}; use {}, or see pgpair --help",
        shown(word),
        known.join(", ")
    ))
}

fn bad_arguments(error: UsageError) -> UsageError {
    UsageError {
        exit_code: exit::BAD_ARGUMENTS,
        ..error
    }
}

/// What was given beside the command's own words.
struct Given<'a> {
    flags: &'a Flags,
    switches: &'a [&'static str],
    environment: &'a Environment,
}

impl Given<'_> {
    fn serve(&self) -> Result<Command, UsageError> {
        self.takes(&table::SERVE)?;
        let config = Config::new(self.flags, self.environment)?;
        Ok(Command::Serve(Box::new(config)))
    }

    fn check(&self, urls: &[&str]) -> Result<Command, UsageError> {
        self.takes(&table::CHECK)?;
        let target = self.target("check", urls, check::DEFAULT_PATH)?;
        Ok(Command::Check(target))
    }

    fn status(&self, urls: &[&str]) -> Result<Command, UsageError> {
        self.takes(&table::STATUS)?;
        let target = self.target("status", urls, status::DEFAULT_PATH)?;
        Ok(Command::Status(status::Options {
            target: target.or_path(status::DEFAULT_PATH),
            json: self.has(&table::JSON),
            watch: self.has(&table::WATCH),
            no_color: self.environment.get("NO_COLOR")?.is_some(),
        }))
    }

    fn switchover(&self, nodes: &[&str]) -> Result<Command, UsageError> {
        self.takes(&table::SWITCHOVER)?;
        self.pair(Action::Switchover(switchover::Options {
            to: node("switchover", nodes)?,
            dry_run: self.has(&table::DRY_RUN),
        }))
    }

    fn failover(&self, nodes: &[&str]) -> Result<Command, UsageError> {
        self.takes(&table::FAILOVER)?;
        self.pair(Action::Failover(failover::Options {
            to: node("failover", nodes)?,
            accept_loss: self.has(&table::ACCEPT_LOSS),
        }))
    }

    fn rejoin(&self, nodes: &[&str]) -> Result<Command, UsageError> {
        self.takes(&table::REJOIN)?;
        let extent = match self.has(&table::DATA_ONLY) {
            true => Extent::DataOnly,
            false => Extent::Whole,
        };
        self.pair(Action::Rejoin(node("rejoin", nodes)?, extent))
    }

    fn inspect(&self) -> Result<Command, UsageError> {
        self.takes(&table::INSPECT)?;
        let sizes = self.has(&table::SIZES);
        self.pair(Action::Inspect { sizes })
    }

    fn guard(&self, words: &[&str]) -> Result<Command, UsageError> {
        self.takes(match words {
            [] => &table::GUARD,
            ["pause", ..] => &table::GUARD_PAUSE,
            _ => &table::GUARD_RESUME,
        })?;
        match words {
            [] => self.pair(Action::Guard(config::guard(self.flags, self.environment)?)),
            ["pause", length] => self.pause(length, None),
            ["pause", length, until] => self.pause(length, Some(end_of_pause("pause", until)?)),
            ["pause"] => Err(usage(
                "guard pause: for how long, for example 1h".to_owned(),
            )),
            ["resume"] => self.pair(Action::Resume(None)),
            ["resume", until] => self.pair(Action::Resume(Some(end_of_pause("resume", until)?))),
            [other, ..] => Err(usage(format!(
                "guard takes pause DURATION [UNTIL] or resume [UNTIL], not {}",
                shown(other)
            ))),
        }
    }

    fn pause(&self, length: &str, own: Option<u64>) -> Result<Command, UsageError> {
        let unless_paused = self.has(&table::UNLESS_PAUSED);
        if own.is_some() && !unless_paused {
            return Err(usage(
                "guard pause: UNTIL goes with --unless-paused".to_owned(),
            ));
        }
        match value::duration(length) {
            Ok(length) => self.pair(Action::Pause(Pause {
                length,
                wait: self.has(&table::WAIT),
                unless_paused,
                own,
            })),
            Err(problem) => Err(usage(format!("guard pause {}: {problem}", shown(length)))),
        }
    }

    fn pair(&self, action: Action) -> Result<Command, UsageError> {
        // The others say themselves what they do.
        let default = match action {
            Action::Guard(_) => LevelFilter::Info,
            _ => LevelFilter::Warn,
        };
        Ok(Command::Pair(pair::Command {
            layout: config::layout(self.flags, self.environment)?,
            action,
            json: self.has(&table::JSON),
            log: config::command_log(self.flags, self.environment, default)?,
        }))
    }

    fn has(&self, switch: &Switch) -> bool {
        self.switches.contains(&switch.flag)
    }

    /// Refuses flags that are another command's.
    fn takes(&self, command: &Usage) -> Result<(), UsageError> {
        let mut given = self.flags.keys().chain(self.switches);
        match given.find(|flag| !command.takes(flag)) {
            None => Ok(()),
            Some(flag) => Err(usage(format!("{} does not take --{flag}", command.first()))),
        }
    }

    /// Finds whom to ask: the URL, or else the pgpair of this host.
    fn target(&self, command: &str, urls: &[&str], path: &str) -> Result<Target, UsageError> {
        match urls {
            [] => Ok(Target::own(
                config::listen(self.flags, self.environment)?,
                path,
            )),
            [url] => Target::parse(url).map_err(usage),
            [_, extra, ..] => Err(usage(format!(
                "{command} takes one URL, not also {}",
                shown(extra)
            ))),
        }
    }
}

/// Reads the end of a pause, as `paused_until` of a command's JSON.
fn end_of_pause(command: &str, text: &str) -> Result<u64, UsageError> {
    text.parse().map_err(|_| {
        usage(format!(
            "guard {command}: {} is no end of a pause: use seconds since 1970, such as --json says",
            shown(text)
        ))
    })
}

/// Reads the name of at most one node.
fn node(command: &str, names: &[&str]) -> Result<Option<Node>, UsageError> {
    match names {
        [] => Ok(None),
        [name] => Node::named(name).map(Some).ok_or_else(|| {
            usage(format!(
                "{command}: there is no node {name:?}, only a and b"
            ))
        }),
        [_, extra, ..] => Err(usage(format!(
            "{command} takes one node, not also {}",
            shown(extra)
        ))),
    }
}

fn version() -> String {
    format!("pgpair {}\n", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Command, UsageError> {
        let environment = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), OsString::from(value)))
            .collect();
        parse(arguments.iter().map(OsString::from), &environment)
    }

    #[test]
    fn serve_is_the_default_command() {
        for arguments in [&["serve"][..], &[]] {
            let command = parsed(arguments, &[("DATABASE_URL", "postgres://u@h/d")]);
            assert!(matches!(command, Ok(Command::Serve(_))), "{command:?}");
        }
    }

    #[test]
    fn unknown_words_and_flags_are_bad_usage_that_names_them() {
        for (arguments, named, exit_code) in [
            (&["sevre"][..], "sevre", 2),
            (&["serve", "now"], "now", 2),
            (&["--dead-line=1s"], "dead-line", 2),
            (&["-x"], "-x", 2),
            (&["--deadline"], "deadline", 2),
            (&["check", "ftp://x"], "ftp", 1),
            (&["check", "http://a/", "http://b/"], "http://b/", 1),
            (&["check", "--deadline=1s"], "deadline", 1),
            (&["check", "--json"], "json", 1),
            (&["serve", "--watch"], "watch", 2),
            (&["status", "--drain=1s"], "drain", 1),
            (&["status", "--colour"], "colour", 1),
            (&["check", "--json=x"], "json", 1),
            (&["status", "x"], "http://", 1),
            (&["postgres://u:hunter2@h"], "unknown command", 2),
            (&["serve", "host=h password=hunter2"], "no argument", 2),
            (&["status", "http://u:hunter2@h"], "a user", 1),
            (&["--json=postgres://u:hunter2@h"], "--json", 2),
            (&["\x1b[2J"], "unknown command", 2),
        ] {
            let error = parsed(arguments, &[]).expect_err("refused");
            assert!(error.message.contains(named), "{arguments:?}: {error}");
            assert_eq!(error.exit_code, exit_code, "{arguments:?}");
            assert!(!error.message.contains(char::is_control));
            assert!(!error.message.contains("hunter2"), "{error}");
        }
    }
}
