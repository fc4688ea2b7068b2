//! The one table of settings. Parsing, `--help`, README, the man page and the shells'
//! completions are made from it.

use std::time::Duration;

use super::value;
use crate::pair::sync::Mode;
use crate::probe::verdict::Policy;

/// One setting: its names, what it takes and what it means.
///
/// Texts hold code between backticks, which `--help` leaves out.
#[derive(Debug)]
pub struct Setting {
    /// Name of the environment variable.
    pub environment: &'static str,
    /// Flag, without the two dashes.
    pub flag: &'static str,
    /// What its value is, and its bounds.
    pub kind: Kind,
    /// What it is without being set.
    pub default: DefaultValue,
    /// What it means: a sentence without a full stop, which the bounds follow.
    pub meaning: &'static str,
    /// What there is to know beyond that: whole sentences, or nothing.
    pub more: &'static str,
}

/// What a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A connection string.
    Url,
    /// Names, separated by commas.
    Names,
    /// An address and a port.
    Address,
    /// A number and a unit, within bounds.
    Duration {
        /// The shortest.
        least: &'static str,
        /// The longest.
        most: &'static str,
    },
    /// A whole number, within bounds.
    Number {
        /// The least.
        least: usize,
        /// The most.
        most: usize,
    },
    /// One of these.
    Word(&'static [&'static str]),
    /// A name.
    Name,
    /// The path of a file.
    File,
    /// The path of a folder.
    Folder,
    /// The path of a program.
    Program,
}

/// What a setting is without being set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultValue {
    /// As if this had been given.
    Value(&'static str),
    /// What depends on something else, in words.
    Words(&'static str),
    /// Nothing.
    None,
}

impl Kind {
    /// Returns what stands for the value in a synopsis.
    pub fn placeholder(self) -> String {
        match self {
            Kind::Url => "URL".to_owned(),
            Kind::Names => "A,B".to_owned(),
            Kind::Address => "ADDRESS:PORT".to_owned(),
            Kind::Duration { .. } => "DURATION".to_owned(),
            Kind::Number { .. } => "NUMBER".to_owned(),
            Kind::Word(words) => words.join("|"),
            Kind::Name => "NAME".to_owned(),
            Kind::File => "FILE".to_owned(),
            Kind::Folder => "FOLDER".to_owned(),
            Kind::Program => "PROGRAM".to_owned(),
        }
    }

    /// Returns the least and the most that it takes, where there are bounds.
    pub fn bounds(self) -> Option<String> {
        match self {
            Kind::Duration { least, most } => Some(format!("{least} to {most}")),
            Kind::Number { least, most } => Some(format!("{least} to {most}")),
            _ => None,
        }
    }

    /// Parses a duration, within the bounds.
    pub(super) fn duration(self, text: &str) -> Result<Duration, String> {
        let parsed = value::duration(text).map_err(str::to_owned)?;
        let is_within = match self {
            Kind::Duration { least, most } => {
                let known = |text| value::duration(text).expect("a bound that parses");
                (known(least)..=known(most)).contains(&parsed)
            }
            _ => true,
        };
        match (is_within, self.bounds()) {
            (false, Some(bounds)) => Err(format!("must be {bounds}")),
            _ => Ok(parsed),
        }
    }

    /// Parses a whole number, within the bounds.
    pub(super) fn number(self, text: &str) -> Result<usize, String> {
        let (least, most) = match self {
            Kind::Number { least, most } => (least, most),
            _ => (0, usize::MAX),
        };
        let found = text.parse().ok().filter(|it| (least..=most).contains(it));
        found.ok_or_else(|| format!("must be a whole number, {least} to {most}"))
    }

    /// Parses a word: returns which of `all`, in the order of the words, it stands for.
    pub(super) fn word<T: Copy>(self, all: &[T], text: &str) -> Result<T, String> {
        let words = match self {
            Kind::Word(words) => words,
            _ => &[],
        };
        let place = words.iter().position(|word| *word == text);
        let found = place.and_then(|place| all.get(place).copied());
        found.ok_or_else(|| match words {
            [others @ .., last] => format!("use {} or {last}", others.join(", ")),
            [] => "takes no word".to_owned(),
        })
    }
}

impl Setting {
    /// Says what it means, within which bounds: whole sentences.
    pub fn sentences(&self) -> String {
        let bounds = self.kind.bounds();
        let bounds = bounds.map(|it| format!(", {it}")).unwrap_or_default();
        let more = if self.more.is_empty() { "" } else { " " };
        format!("{}{bounds}.{more}{}", self.meaning, self.more)
    }

    /// Says what it is without being set.
    pub fn default_words(&self) -> &'static str {
        match self.default {
            DefaultValue::Value(text) | DefaultValue::Words(text) => text,
            DefaultValue::None => "none",
        }
    }
}

/// The connection string.
pub const DATABASE_URL: Setting = Setting {
    environment: "DATABASE_URL",
    flag: "database-url",
    kind: Kind::Url,
    default: DefaultValue::Words("what libpq's variables say; one of the two must name a host"),
    meaning: "A libpq URI or key=value string; several hosts are the pair's nodes in order",
    more: "libpq's variables (`PGHOST`, `PGPORT`, `PGUSER`, `PGPASSFILE`, `PGSSLMODE` and others) \
           fill in what it leaves out. Each means what it means to libpq, or is refused by name. \
           The flag refuses a password, because every user can list the arguments of processes.",
};

/// Names for the nodes.
pub const NODES: Setting = Setting {
    environment: "PGPAIR_NODES",
    flag: "nodes",
    kind: Kind::Names,
    default: DefaultValue::Words("the host names"),
    meaning: "Names for the hosts, in their order, separated by commas",
    more: "A name has 1 to 63 letters, digits, `.`, `-` or `_`. \
           Of a host name that is too long the first label is taken.",
};

/// Where to listen.
pub const LISTEN: Setting = Setting {
    environment: "PGPAIR_LISTEN",
    flag: "listen",
    kind: Kind::Address,
    default: DefaultValue::Value("0.0.0.0:5000"),
    meaning: "Address and port to answer HTTP at",
    more: "Port 0 takes a free one. \
           A socket that systemd hands over (`LISTEN_FDS`) is used instead.",
};

/// Where details are told.
pub const LISTEN_DETAILS: Setting = Setting {
    environment: "PGPAIR_LISTEN_DETAILS",
    flag: "listen-details",
    kind: Kind::Address,
    default: DefaultValue::None,
    meaning: "Address and port where other hosts too may ask for `/status`, `/metrics` and `/ui`",
    more: "It may be the same as `--listen`. At `--listen` alone they are for this host's own \
           clients only, and others get 403 (`details_not_here`).",
};

/// By which names details may be asked for.
pub const HOSTS: Setting = Setting {
    environment: "PGPAIR_HOSTS",
    flag: "hosts",
    kind: Kind::Names,
    default: DefaultValue::Words("any; none at a loopback address"),
    meaning: "Host names, separated by commas, by which clients may ask for `/status`, \
              `/metrics`, `/ui`, `?write` and `?login`",
    more: "Addresses and `localhost` always may; other names get 403 (`unknown_host`).",
};

/// When the pair is ready.
pub const READY: Setting = Setting {
    environment: "PGPAIR_READY",
    flag: "ready",
    kind: Kind::Word(&[
        Policy::Primary.word(),
        Policy::Any.word(),
        Policy::All.word(),
    ]),
    default: DefaultValue::Value(Policy::Primary.word()),
    meaning: "Who must answer for `/ready` to be 200: `primary` (a writable primary), \
              `any` (any node) or `all` (every node)",
    more: "",
};

/// Longest that an answer may take.
pub const DEADLINE: Setting = Setting {
    environment: "PGPAIR_DEADLINE",
    flag: "deadline",
    kind: Kind::Duration {
        least: "10ms",
        most: "1m",
    },
    default: DefaultValue::Value("900ms"),
    meaning: "Longest time that an answer may take",
    more: "",
};

/// Time between own observations.
pub const INTERVAL: Setting = Setting {
    environment: "PGPAIR_INTERVAL",
    flag: "interval",
    kind: Kind::Duration {
        least: "100ms",
        most: "1h",
    },
    default: DefaultValue::Value("1s"),
    meaning: "Time between observations that no request asked for",
    more: "",
};

/// HTTP connections held at once.
pub const MAX_CONNECTIONS: Setting = Setting {
    environment: "PGPAIR_MAX_CONNECTIONS",
    flag: "max-connections",
    kind: Kind::Number {
        least: 1,
        most: 100_000,
    },
    default: DefaultValue::Value("512"),
    meaning: "HTTP connections held at once",
    more: "Above it those that wait longest without a request are closed. \
           Those that wait for an answer may be more for a moment.",
};

/// How long a connection may take over a request.
pub const REQUEST_TIMEOUT: Setting = Setting {
    environment: "PGPAIR_REQUEST_TIMEOUT",
    flag: "request-timeout",
    kind: Kind::Duration {
        least: "100ms",
        most: "1h",
    },
    default: DefaultValue::Value("10s"),
    meaning: "An HTTP connection that finishes no request for this long is closed",
    more: "",
};

/// How long to answer on after being told to stop.
pub const DRAIN: Setting = Setting {
    environment: "PGPAIR_DRAIN",
    flag: "drain",
    kind: Kind::Duration {
        least: "0s",
        most: "1h",
    },
    default: DefaultValue::Value("0s"),
    meaning: "After SIGTERM or SIGINT, answer on this long as not ready (`draining`)",
    more: "A second signal ends it.",
};

/// Where the guard reports.
pub const GUARD_REPORT: Setting = Setting {
    environment: "PGPAIR_GUARD_REPORT",
    flag: "guard-report",
    kind: Kind::File,
    default: DefaultValue::None,
    meaning: "File in which `pgpair guard` reports (`probe/guard` in the pair's folder), \
              to tell of it in `/status`, `/metrics` and `/ui`",
    more: "`make up` sets it.",
};

/// How much to log.
pub const LOG: Setting = Setting {
    environment: "PGPAIR_LOG",
    flag: "log",
    kind: Kind::Word(&["error", "warn", "info", "debug"]),
    default: DefaultValue::Value("info"),
    meaning: "Least level of what is logged to stderr: `error`, `warn`, `info` or `debug`",
    more: "`switchover`, `failover` and `rejoin` log from `warn` on where it is not set.",
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
    kind: Kind::Name,
    default: DefaultValue::Value("pgpair"),
    meaning: "Name of the pair: its containers are `NAME-a` and `NAME-b`",
    more: "In the playbooks it is `postgres_pair_prefix`.",
};

/// Where that pair lies.
pub const ROOT: Setting = Setting {
    environment: "PGPAIR_ROOT",
    flag: "root",
    kind: Kind::Folder,
    default: DefaultValue::Words("/srv/NAME"),
    meaning: "Folder of all that the pair has on the host",
    more: "In the playbooks it is `postgres_pair_root`.",
};

/// What every command about a pair takes, beside [`LOG`].
pub const PAIR_SETTINGS: [&Setting; 2] = [&PREFIX, &ROOT];

/// What an acknowledged commit promises.
pub const SYNC: Setting = Setting {
    environment: "PGPAIR_SYNC",
    flag: "sync",
    kind: Kind::Word(&[Mode::Async.word(), Mode::Sync.word(), Mode::Strict.word()]),
    default: DefaultValue::Value(Mode::Async.word()),
    meaning: "What a commit waits for: `async` (the primary's disk), `sync` (the standby's too, \
              except while that is gone) or `strict` (both, always)",
    more: "",
};

/// How long a primary must be silent.
pub const CONFIRM: Setting = Setting {
    environment: "PGPAIR_CONFIRM",
    flag: "confirm",
    kind: Kind::Duration {
        least: "1s",
        most: "1h",
    },
    default: DefaultValue::Value("5s"),
    meaning: "A primary that has not answered three times over this long is replaced",
    more: "",
};

/// How long commits wait for a standby that is gone.
pub const SYNC_LIMIT: Setting = Setting {
    environment: "PGPAIR_SYNC_LIMIT",
    flag: "sync-limit",
    kind: Kind::Duration {
        least: "1s",
        most: "1h",
    },
    default: DefaultValue::Value("10s"),
    meaning: "With `sync`, commits wait no more for a standby that has been gone for this long",
    more: "",
};

/// How often the guard replaces a primary.
pub const MAX_FAILOVERS: Setting = Setting {
    environment: "PGPAIR_MAX_FAILOVERS",
    flag: "max-failovers",
    kind: Kind::Number {
        least: 0,
        most: 1000,
    },
    default: DefaultValue::Value("3"),
    meaning: "Primaries that the guard replaces within an hour",
    more: "",
};

/// What is told of the guard's events.
pub const HOOK: Setting = Setting {
    environment: "PGPAIR_HOOK",
    flag: "hook",
    kind: Kind::Program,
    default: DefaultValue::None,
    meaning: "Absolute path of a program that is run at every event",
    more: "Its arguments are the event and `key=value` pairs.",
};

/// What only the guard takes.
pub const GUARD_SETTINGS: [&Setting; 5] = [&SYNC, &CONFIRM, &SYNC_LIMIT, &MAX_FAILOVERS, &HOOK];

#[cfg(test)]
mod tests {
    use log::LevelFilter;

    use super::super::LEVELS;
    use super::*;

    fn all() -> impl Iterator<Item = &'static Setting> {
        SETTINGS
            .into_iter()
            .chain(PAIR_SETTINGS)
            .chain(GUARD_SETTINGS)
    }

    #[test]
    fn every_default_is_within_its_bounds() {
        for setting in all() {
            let DefaultValue::Value(text) = setting.default else {
                continue;
            };
            let is_good = match setting.kind {
                Kind::Duration { .. } => setting.kind.duration(text).is_ok(),
                Kind::Number { .. } => setting.kind.number(text).is_ok(),
                Kind::Word(words) => words.contains(&text),
                Kind::Address => text.parse::<std::net::SocketAddr>().is_ok(),
                _ => !text.is_empty(),
            };
            assert!(is_good, "{}: {text}", setting.flag);
        }
    }

    #[test]
    fn words_are_those_of_what_they_choose() {
        let words = |kind| match kind {
            Kind::Word(words) => words.to_vec(),
            _ => Vec::new(),
        };
        assert_eq!(words(READY.kind), Policy::ALL.map(Policy::word));
        assert_eq!(words(SYNC.kind), Mode::ALL.map(Mode::word));
        let levels = LEVELS.map(|it: LevelFilter| it.as_str().to_lowercase());
        assert_eq!(words(LOG.kind), levels);
    }

    #[test]
    fn names_have_one_stem_and_texts_can_stand_in_a_table() {
        for setting in all() {
            let stem = setting.flag.replace('-', "_").to_uppercase();
            let ours = format!("PGPAIR_{stem}");
            assert!(setting.environment == ours || setting.environment == stem);
            assert!(!setting.meaning.ends_with('.'), "{}", setting.flag);
            let text = setting.sentences() + setting.default_words();
            assert!(!text.contains(['|', '\n', '\\']), "{text}");
            assert_eq!(text.matches('`').count() % 2, 0, "{text}");
            if let Kind::Word(words) = setting.kind {
                for word in words {
                    assert!(text.contains(&format!("`{word}`")), "{word}: {text}");
                }
            }
        }
    }
}
