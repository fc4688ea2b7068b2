//! The one table of commands. What each takes, `--help`, README's exit codes, the man
//! page and the shells' completions are made from it.

use crate::config::settings::{GUARD_SETTINGS, LISTEN, LOG, PAIR_SETTINGS, SETTINGS, Setting};
use crate::runtime::exit;

/// A flag without a value.
#[derive(Debug, PartialEq, Eq)]
pub struct Switch {
    /// Its name, without the two dashes.
    pub flag: &'static str,
    /// What it does: a sentence.
    pub meaning: &'static str,
}

/// What may follow a command's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// Nothing.
    None,
    /// At most one URL.
    Url,
    /// At most one of the pair's nodes.
    Node,
    /// One length of time, and the end of a pause of one's own.
    Pause,
    /// At most the end of a pause.
    Until,
}

/// One command.
#[derive(Debug)]
pub struct Usage {
    /// Its words, as they are typed.
    pub words: &'static str,
    /// What may follow them.
    pub argument: Argument,
    /// Flags without a value that it takes.
    pub switches: &'static [&'static Switch],
    /// Settings that it takes.
    pub settings: &'static [&'static [&'static Setting]],
    /// What it does: whole sentences, with code between backticks.
    pub meaning: &'static str,
    /// How it ends.
    pub exit_codes: &'static [ExitCode],
}

/// An exit code, and what it means for a command.
pub type ExitCode = (u8, &'static str);

/// Prints one JSON object.
pub const JSON: Switch = Switch {
    flag: "json",
    meaning: "Print one JSON object and nothing else.",
};

/// Goes on.
pub const WATCH: Switch = Switch {
    flag: "watch",
    meaning: "Show it anew every second.",
};

/// Changes nothing.
pub const DRY_RUN: Switch = Switch {
    flag: "dry-run",
    meaning: "Say what would be done, and change nothing.",
};

/// Takes a loss.
pub const ACCEPT_LOSS: Switch = Switch {
    flag: "accept-loss",
    meaning: "Give up commits that the standby lacks and that cannot be brought over.",
};

/// Starts nothing.
pub const DATA_ONLY: Switch = Switch {
    flag: "data-only",
    meaning: "Make the node's data that of a standby, and do not start it.",
};

/// Waits for the guard.
pub const WAIT: Switch = Switch {
    flag: "wait",
    meaning: "Come back only when the guard heeds the pause and nothing that it began is under way, \
              after 120 s at most.",
};

/// Gives way to a person.
pub const UNLESS_PAUSED: Switch = Switch {
    flag: "unless-paused",
    meaning: "Leave a pause of somebody else's alone, and pause no guard that is not there.",
};

/// Reads every file's size.
pub const SIZES: Switch = Switch {
    flag: "sizes",
    meaning: "Add up the bytes of each node's data too, which may take two minutes.",
};

/// Answers HTTP.
pub const SERVE: Usage = Usage {
    words: "serve",
    argument: Argument::None,
    switches: &[],
    settings: &[&SETTINGS],
    meaning: "Answer HTTP about the pair. This is the default command.",
    exit_codes: &[
        (exit::OK, "stopped as told"),
        (
            exit::FAILURE,
            "failed while running, for example because the port is taken",
        ),
        (exit::USAGE, "bad usage"),
        (
            exit::NO_HTTP,
            "HTTP could not be answered any more; a supervisor starts it anew",
        ),
    ],
};

/// Asks an endpoint once.
pub const CHECK: Usage = Usage {
    words: "check",
    argument: Argument::Url,
    switches: &[],
    settings: &[&[&LISTEN]],
    meaning: "Ask URL once, and say by the exit code whether it answers 2xx. \
              Without a URL it asks `/health` of this host's pgpair.",
    exit_codes: &[
        (exit::OK, "the endpoint answered 2xx"),
        (exit::BAD_ARGUMENTS, "bad arguments"),
        (exit::NO_CONNECTION, "no connection"),
        (exit::NO_ANSWER, "no answer within a second"),
        (exit::NOT_WELL, "answered, not 2xx"),
    ],
};

/// Shows the pair.
pub const STATUS: Usage = Usage {
    words: "status",
    argument: Argument::Url,
    switches: &[&JSON, &WATCH],
    settings: &[&[&LISTEN]],
    meaning: "Show the pair as a table. \
              Without a URL it asks `/status` of this host's pgpair.",
    exit_codes: &[
        (exit::OK, "the pair is `ok` and ready"),
        (exit::BAD_ARGUMENTS, "bad arguments"),
        (exit::NO_CONNECTION, "no connection"),
        (exit::NO_ANSWER, "no answer within two seconds"),
        (exit::NOT_WELL, "the pair is not `ok`, or not ready"),
    ],
};

/// How every command about a pair ends.
const OF_A_PAIR: &[ExitCode] = &[
    (exit::OK, "done, or nothing to do"),
    (
        exit::FAILURE,
        "failed on the way and says what the pair is left in; run it again to complete it",
    ),
    (exit::USAGE, "bad usage"),
    (exit::REFUSED, "refused, and nothing was touched"),
    (
        exit::ALONE,
        "the primary moved, and the other node is not back",
    ),
];

/// Moves a healthy primary.
pub const SWITCHOVER: Usage = Usage {
    words: "switchover",
    argument: Argument::Node,
    switches: &[&DRY_RUN, &JSON],
    settings: &[&PAIR_SETTINGS, &[&LOG]],
    meaning: "Move the primary, which is well, to the standby.",
    exit_codes: OF_A_PAIR,
};

/// Replaces a dead primary.
pub const FAILOVER: Usage = Usage {
    words: "failover",
    argument: Argument::Node,
    switches: &[&ACCEPT_LOSS, &JSON],
    settings: &[&PAIR_SETTINGS, &[&LOG]],
    meaning: "Replace the primary, which is dead or frozen, by the standby.",
    exit_codes: OF_A_PAIR,
};

/// Makes a standby.
pub const REJOIN: Usage = Usage {
    words: "rejoin",
    argument: Argument::Node,
    switches: &[&DATA_ONLY, &JSON],
    settings: &[&PAIR_SETTINGS, &[&LOG]],
    meaning: "Make the node that is not the primary a standby again.",
    exit_codes: OF_A_PAIR,
};

/// Looks after a pair.
pub const GUARD: Usage = Usage {
    words: "guard",
    argument: Argument::None,
    switches: &[],
    settings: &[&PAIR_SETTINGS, &GUARD_SETTINGS, &[&LOG]],
    meaning: "Replace a dead primary, rejoin the other node and keep replication as asked, \
              by itself, in the foreground.",
    exit_codes: OF_A_PAIR,
};

/// Has the guard replace no primary.
pub const GUARD_PAUSE: Usage = Usage {
    words: "guard pause",
    argument: Argument::Pause,
    switches: &[&WAIT, &UNLESS_PAUSED, &JSON],
    settings: &[&PAIR_SETTINGS, &[&LOG]],
    meaning: "Have the guard replace no primary for this long. \
              With `--unless-paused`, UNTIL is the end of a pause of one's own, which is renewed: \
              seconds since 1970, as `paused_until` of `--json` says.",
    exit_codes: OF_A_PAIR,
};

/// Ends a pause.
pub const GUARD_RESUME: Usage = Usage {
    words: "guard resume",
    argument: Argument::Until,
    switches: &[&JSON],
    settings: &[&PAIR_SETTINGS, &[&LOG]],
    meaning: "End a pause of the guard; with UNTIL only one that ends then.",
    exit_codes: OF_A_PAIR,
};

/// Says what is known.
pub const INSPECT: Usage = Usage {
    words: "inspect",
    argument: Argument::None,
    switches: &[&JSON, &SIZES],
    settings: &[&PAIR_SETTINGS, &[&LOG]],
    meaning: "Say what is known of the pair on this host, from its disks, Docker and its servers. \
              It changes nothing, and without `--sizes` takes 5 s at most.",
    exit_codes: &[
        (exit::OK, "told what is known, be the pair well or not"),
        (exit::USAGE, "bad usage"),
        (
            exit::REFUSED,
            "refused: the pair's folder can be read by root only",
        ),
    ],
};

/// The parts of the list of settings: whose they are.
pub const SETTINGS_OF: [(&str, &[&Setting]); 3] = [
    ("serve", &SETTINGS),
    (
        "switchover, failover, rejoin, guard and inspect",
        &PAIR_SETTINGS,
    ),
    ("guard alone", &GUARD_SETTINGS),
];

/// Every command, in the order of the documentation.
pub const COMMANDS: [&Usage; 10] = [
    &SERVE,
    &CHECK,
    &STATUS,
    &SWITCHOVER,
    &FAILOVER,
    &REJOIN,
    &GUARD,
    &GUARD_PAUSE,
    &GUARD_RESUME,
    &INSPECT,
];

impl Argument {
    /// Returns how it is written in a synopsis.
    pub const fn placeholder(self) -> &'static str {
        match self {
            Argument::None => "",
            Argument::Url => " [URL]",
            Argument::Node => " [NODE]",
            Argument::Pause => " DURATION [UNTIL]",
            Argument::Until => " [UNTIL]",
        }
    }
}

impl Usage {
    /// Returns the first word.
    pub fn first(&self) -> &'static str {
        self.words.split(' ').next().unwrap_or(self.words)
    }

    /// Says whether it takes a flag.
    pub fn takes(&self, flag: &str) -> bool {
        self.switches.iter().any(|it| it.flag == flag) || self.settings().any(|it| it.flag == flag)
    }

    /// Returns every setting that it takes.
    pub fn settings(&self) -> impl Iterator<Item = &'static Setting> {
        self.settings.iter().flat_map(|part| part.iter().copied())
    }
}

/// Lists every flag without a value, each with the commands that take it.
pub fn switches() -> impl Iterator<Item = (&'static Switch, Vec<&'static str>)> {
    let all = [
        &WATCH,
        &DRY_RUN,
        &ACCEPT_LOSS,
        &DATA_ONLY,
        &WAIT,
        &UNLESS_PAUSED,
        &SIZES,
        &JSON,
    ];
    all.into_iter().map(|switch| {
        let takers = COMMANDS.iter().filter(|it| it.switches.contains(&switch));
        (switch, takers.map(|it| it.words).collect())
    })
}

/// Lists the ways to end, each with the commands that end so.
pub fn exit_codes() -> impl Iterator<Item = (Vec<&'static str>, &'static [ExitCode])> {
    let firsts = COMMANDS.iter().enumerate().filter(|(at, command)| {
        let before = &COMMANDS[..*at];
        !before.iter().any(|it| it.exit_codes == command.exit_codes)
    });
    firsts.map(|(_, first)| {
        let same = COMMANDS
            .iter()
            .filter(|it| it.exit_codes == first.exit_codes);
        (same.map(|it| it.words).collect(), first.exit_codes)
    })
}

/// Finds a flag without a value, be it any command's.
pub fn switch(flag: &str) -> Option<&'static Switch> {
    let mut all = COMMANDS.iter().flat_map(|command| command.switches);
    all.find(|switch| switch.flag == flag).copied()
}

/// Finds a setting by its flag, be it any command's.
pub fn setting(flag: &str) -> Option<&'static Setting> {
    let mut all = COMMANDS.iter().flat_map(|command| command.settings());
    all.find(|setting| setting.flag == flag)
}
