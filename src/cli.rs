//! Arguments become one command, ready to run.

use std::ffi::OsString;
use std::fmt;

use lexopt::prelude::*;

use crate::client::Target;
use crate::config::value::shown;
use crate::config::{self, Config, ConfigError, Environment, Flags, SETTINGS};
use crate::{EXIT_BAD_ARGUMENTS, EXIT_USAGE, check, status};

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
const MESSAGE_AT_MOST: usize = 900;

fn usage(message: String) -> UsageError {
    // A value may contain a line break; the message is one line all the same.
    let plain = message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c });
    UsageError {
        message: plain.take(MESSAGE_AT_MOST).collect(),
        exit_code: EXIT_USAGE,
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
            Long("json") => switches.push("json"),
            Long("watch") => switches.push("watch"),
            Long(name) => {
                let setting = SETTINGS.iter().find(|setting| setting.flag == name);
                let Some(setting) = setting else {
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
        ["serve", extra, ..] => Err(usage(format!(
            "serve takes no argument {}; see pgpair --help",
            shown(extra)
        ))),
        [other, ..] => Err(usage(format!(
            "unknown command {}; use serve, check or status, or see pgpair --help",
            shown(other)
        ))),
    }
}

fn bad_arguments(error: UsageError) -> UsageError {
    UsageError {
        exit_code: EXIT_BAD_ARGUMENTS,
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
        if let Some(switch) = self.switches.first() {
            return Err(usage(format!("serve does not take --{switch}")));
        }
        let config = Config::new(self.flags, self.environment)?;
        Ok(Command::Serve(Box::new(config)))
    }

    fn check(&self, urls: &[&str]) -> Result<Command, UsageError> {
        if let Some(switch) = self.switches.first() {
            return Err(usage(format!("check does not take --{switch}")));
        }
        let target = self.target("check", urls, check::DEFAULT_PATH)?;
        Ok(Command::Check(target))
    }

    fn status(&self, urls: &[&str]) -> Result<Command, UsageError> {
        let target = self.target("status", urls, status::DEFAULT_PATH)?;
        Ok(Command::Status(status::Options {
            target: target.or_path(status::DEFAULT_PATH),
            json: self.switches.contains(&"json"),
            watch: self.switches.contains(&"watch"),
            no_color: self.environment.get("NO_COLOR")?.is_some(),
        }))
    }

    /// Finds whom to ask: the URL, or else the pgpair of this host.
    fn target(&self, command: &str, urls: &[&str], path: &str) -> Result<Target, UsageError> {
        let listen = config::LISTEN.flag;
        if let Some(flag) = self.flags.keys().find(|flag| **flag != listen) {
            return Err(usage(format!("{command} does not take --{flag}")));
        }
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
           pgpair --help | --version\n\
         \n\
         Settings of serve (a flag wins over the environment):\n",
        env!("CARGO_PKG_VERSION"),
        check::DEFAULT_PATH,
    );
    for setting in SETTINGS {
        text.push_str(&format!(
            "  --{} {}, {}\n",
            setting.flag, setting.value, setting.environment
        ));
        for line in wrap(setting.meaning, 72) {
            text.push_str(&format!("        {line}\n"));
        }
    }
    text.push_str(
        "\nDurations are a number and a unit: 900ms, 1.5s, 2m, 1h.\n\
         \n\
         Exit codes of serve: 0 stopped as told, 1 failed while running (for example the\n\
         port is taken), 2 bad usage, 70 the front door died and could not be renewed.\n\
         Exit codes of check and status: 0 healthy (the pair is whole), 1 bad arguments,\n\
         2 no connection, 3 no answer in time, 4 not healthy (not whole).\n",
    );
    text
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
