//! Arguments become one command, ready to run.

use std::ffi::OsString;
use std::fmt;

use lexopt::prelude::*;
use log::LevelFilter;

use crate::commands::http_client::Target;
use crate::commands::pair::{self, Action};
use crate::commands::{check, status};
use crate::config::value::{self, shown};
use crate::config::{self, Config, ConfigError, Environment, Flags, PAIR_SETTINGS, SETTINGS};
use crate::pair::guard::pause::Pause;
use crate::pair::layout::Node;
use crate::pair::rejoin::Extent;
use crate::pair::{failover, switchover};
use crate::runtime::exit;

/// Flags without a value.
const SWITCHES: [&str; 8] = [
    "json",
    "watch",
    "dry-run",
    "accept-loss",
    "data-only",
    "wait",
    "unless-paused",
    "sizes",
];

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
            Long(name) if SWITCHES.contains(&name) => {
                switches.extend(SWITCHES.into_iter().find(|switch| *switch == name));
            }
            Long(name) => {
                let mut settings = SETTINGS.iter().chain(&PAIR_SETTINGS);
                let Some(setting) = settings.find(|setting| setting.flag == name) else {
                    return Err(argument.unexpected().into());
                };
                flags.insert(setting.flag, parser.value()?.string()?);
            }
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
        [other, ..] => Err(usage(format!(
            "unknown command {}; use serve, check, status, switchover, failover, rejoin, guard \
             or inspect, or see pgpair --help",
            shown(other)
        ))),
    }
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
        self.takes("serve", &[], &SETTINGS)?;
        let config = Config::new(self.flags, self.environment)?;
        Ok(Command::Serve(Box::new(config)))
    }

    fn check(&self, urls: &[&str]) -> Result<Command, UsageError> {
        self.takes("check", &[], &[&config::LISTEN])?;
        let target = self.target("check", urls, check::DEFAULT_PATH)?;
        Ok(Command::Check(target))
    }

    fn status(&self, urls: &[&str]) -> Result<Command, UsageError> {
        self.takes("status", &["json", "watch"], &[&config::LISTEN])?;
        let target = self.target("status", urls, status::DEFAULT_PATH)?;
        Ok(Command::Status(status::Options {
            target: target.or_path(status::DEFAULT_PATH),
            json: self.switches.contains(&"json"),
            watch: self.switches.contains(&"watch"),
            no_color: self.environment.get("NO_COLOR")?.is_some(),
        }))
    }

    fn switchover(&self, nodes: &[&str]) -> Result<Command, UsageError> {
        self.takes("switchover", &["dry-run", "json"], &OF_A_PAIR)?;
        self.pair(Action::Switchover(switchover::Options {
            to: node("switchover", nodes)?,
            dry_run: self.switches.contains(&"dry-run"),
        }))
    }

    fn failover(&self, nodes: &[&str]) -> Result<Command, UsageError> {
        self.takes("failover", &["accept-loss", "json"], &OF_A_PAIR)?;
        self.pair(Action::Failover(failover::Options {
            to: node("failover", nodes)?,
            accept_loss: self.switches.contains(&"accept-loss"),
        }))
    }

    fn rejoin(&self, nodes: &[&str]) -> Result<Command, UsageError> {
        self.takes("rejoin", &["data-only", "json"], &OF_A_PAIR)?;
        let extent = match self.switches.contains(&"data-only") {
            true => Extent::DataOnly,
            false => Extent::Whole,
        };
        self.pair(Action::Rejoin(node("rejoin", nodes)?, extent))
    }

    fn inspect(&self) -> Result<Command, UsageError> {
        self.takes("inspect", &["json", "sizes"], &OF_A_PAIR)?;
        let sizes = self.switches.contains(&"sizes");
        self.pair(Action::Inspect { sizes })
    }

    fn guard(&self, words: &[&str]) -> Result<Command, UsageError> {
        let own = [&OF_A_PAIR[..], &PAIR_SETTINGS].concat();
        let settings = if words.is_empty() {
            &own[..]
        } else {
            &OF_A_PAIR
        };
        let switches: &[&str] = match words.first() {
            None => &[],
            Some(&"pause") => &["json", "wait", "unless-paused"],
            Some(_) => &["json"],
        };
        self.takes("guard", switches, settings)?;
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
        let unless_paused = self.switches.contains(&"unless-paused");
        if own.is_some() && !unless_paused {
            return Err(usage(
                "guard pause: UNTIL goes with --unless-paused".to_owned(),
            ));
        }
        match value::duration(length) {
            Ok(length) => self.pair(Action::Pause(Pause {
                length,
                wait: self.switches.contains(&"wait"),
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
            json: self.switches.contains(&"json"),
            log: config::command_log(self.flags, self.environment, default)?,
        }))
    }

    /// Refuses flags that are another command's.
    fn takes(
        &self,
        command: &str,
        switches: &[&str],
        settings: &[&config::Setting],
    ) -> Result<(), UsageError> {
        let flags = self.flags.keys().copied();
        let known = |flag: &str| settings.iter().any(|setting| setting.flag == flag);
        let mut odd = flags.filter(|flag| !known(flag)).chain(
            self.switches
                .iter()
                .copied()
                .filter(|switch| !switches.contains(switch)),
        );
        match odd.next() {
            None => Ok(()),
            Some(flag) => Err(usage(format!("{command} does not take --{flag}"))),
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

/// What every command about a pair takes.
const OF_A_PAIR: [&config::Setting; 3] = [&config::PREFIX, &config::ROOT, &config::LOG];

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

/// The whole `--help`.
pub fn help() -> String {
    let mut text = format!(
        "pgpair {} — tells the truth about a PostgreSQL primary and its standby\n\
         \n\
         Usage:\n  \
           pgpair [serve] [SETTINGS]          answer HTTP about the pair\n  \
           pgpair check [URL]                 ask URL once, by default {} of this host's pgpair\n  \
           pgpair status [--json] [--watch] [URL]   show the pair as a table, once or every second\n  \
           pgpair switchover [--dry-run] [NODE]     move the primary (to NODE), which is well\n  \
           pgpair failover [--accept-loss] [NODE]   replace the primary, which is dead or frozen\n  \
           pgpair rejoin [--data-only] [NODE]       make the other node a standby again\n  \
           pgpair guard [SETTINGS]                  do all that by itself, and keep replication as asked\n  \
           pgpair guard pause [--wait] [--unless-paused] DURATION [UNTIL]   have it replace no primary\n  \
           pgpair guard resume [UNTIL]              end that; with UNTIL only a pause that ends then\n  \
           (--wait: until the guard heeds it and is at no work; --unless-paused: leave a pause of\n  \
           somebody else's alone, and pause no guard that is not there; UNTIL: one's own pause)\n  \
           pgpair inspect [--json] [--sizes]        say what is known of the pair on this host\n  \
           (with --json, switchover, failover, rejoin, pause and resume end with one JSON object)\n  \
           pgpair --help | --version\n\
         \n\
         Settings of serve (a flag wins over the environment):\n",
        env!("CARGO_PKG_VERSION"),
        check::DEFAULT_PATH,
    );
    SETTINGS
        .iter()
        .for_each(|setting| describe(&mut text, setting));
    text.push_str(
        "\nSettings of switchover, failover, rejoin, guard and inspect, which run on the Docker host as root:\n",
    );
    PAIR_SETTINGS
        .iter()
        .for_each(|setting| describe(&mut text, setting));
    text.push_str(
        "\nDurations are a number and a unit: 900ms, 1.5s, 2m, 1h.\n\
         \n\
         Exit codes of serve: 0 stopped as told, 1 failed while running (for example the\n\
         port is taken), 2 bad usage, 70 HTTP could not be answered any more.\n\
         Exit codes of check and status: 0 healthy (the pair is whole), 1 bad arguments,\n\
         2 no connection, 3 no answer in time, 4 not healthy (not whole).\n\
         Exit codes of switchover, failover, rejoin, guard, inspect: 0 done, 1 failed on the way (run it\n\
         again to complete it), 2 bad usage, 3 refused and nothing touched, 4 the primary\n\
         moved and the other node is not back.\n",
    );
    text
}

fn describe(text: &mut String, setting: &config::Setting) {
    text.push_str(&format!(
        "  --{} {}, {}\n",
        setting.flag, setting.value, setting.environment
    ));
    for line in wrap(setting.meaning, 72) {
        text.push_str(&format!("        {line}\n"));
    }
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is always a first line");
        if last.is_empty() {
            last.push_str(word);
        } else if last.len() + 1 + word.len() <= width {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
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

    #[test]
    fn help_lists_every_setting_and_fits_a_terminal() {
        let text = help();
        for setting in SETTINGS {
            assert!(
                text.contains(setting.environment),
                "{}",
                setting.environment
            );
            assert!(text.contains(&format!("--{}", setting.flag)));
            assert!(setting.meaning.contains("Defaults to "), "{}", setting.flag);
        }
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
}
