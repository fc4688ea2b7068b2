//! The man page, in the language of man(7).

use std::fmt::Write;

use pgpair::cli::synopsis;
use pgpair::cli::table::{COMMANDS, SETTINGS_OF, exit_codes, switches};
use pgpair::config::settings::Setting;

/// When what the page says changed last.
const DATE: &str = "2026-12-01";

/// Lines of the source are shorter.
const WIDTH: usize = 79;

const DESCRIPTION: &str = "
.B pgpair
answers HTTP about a PostgreSQL primary and its standby: who takes writes,
who is ready, how far the standby is behind.
A 200 from
.I /ready
rests on a round trip to PostgreSQL that began after the request arrived.
Every answer comes within the deadline.
.PP
On a Docker host it also moves the primary, replaces a dead one, and makes the
other node a standby again.
These commands need root.
";

const FILES: &str = "
.TP
.I ~/.pgpass
Passwords, as in libpq.
A file that others can read is refused.
.TP
.I /srv/pgpair
What the pair has on the Docker host.
";

const EXAMPLES: &str = "
Answer for two servers:
.PP
.in +4n
.EX
pgpair \\-\\-database\\-url \\(aqpostgresql://probe@db1,db2/postgres\\(aq
.EE
.in
.PP
Say what a switchover would do:
.PP
.in +4n
.EX
pgpair switchover \\-\\-dry\\-run
.EE
.in
.SH SEE ALSO
.BR psql (1),
.BR pg_rewind (1),
.BR docker (1)
";

/// Returns the page.
pub fn page() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!(
        ".\\\" Made by make generate.\n.TH PGPAIR 1 {DATE} \"pgpair {version}\" \"User Commands\"\n\
         .SH NAME\npgpair \\- tells the truth about a PostgreSQL primary and its standby\n\
         .SH SYNOPSIS\n.nf\n"
    );
    for command in COMMANDS {
        let _ = writeln!(text, ".B {}", code(&synopsis(command)));
    }
    text += ".B pgpair \\-\\-help | \\-\\-version\n.fi\n.SH DESCRIPTION";
    text += DESCRIPTION;
    text += ".SH COMMANDS\n";
    for command in COMMANDS {
        let _ = write!(text, ".TP\n.B {}\n{}", command.words, said(command.meaning));
    }
    text += ".SH OPTIONS\nA switch is taken by the commands that are named with it.\n";
    for (switch, takers) in switches() {
        let (flag, takers) = (code(switch.flag), takers.join(", "));
        let _ = write!(text, ".TP\n.BR \\-\\-{flag} \" (\" \"{takers}\" )\n");
        text += &said(switch.meaning);
    }
    text += ".TP\n.BR \\-h \", \" \\-\\-help\nShow all commands and settings.\n";
    text += ".TP\n.BR \\-V \", \" \\-\\-version\nShow the version.\n";
    text += ".SH SETTINGS\nA flag wins over its environment variable.\n\
             A duration is a number and a unit: 900ms, 1.5s, 2m, 1h.\n\
             .B check\nand\n.B status\ntake\n.B \\-\\-listen\ntoo.\n\
             The commands that change a pair take\n.B \\-\\-log\ntoo.\n";
    for (whose, settings) in SETTINGS_OF {
        let _ = writeln!(text, ".SS Settings of {whose}");
        settings.iter().for_each(|it| setting(&mut text, it));
    }
    text += ".SH EXIT STATUS\n";
    for (commands, codes) in exit_codes() {
        let _ = writeln!(text, ".SS {}", commands.join(", "));
        for (code, meaning) in codes {
            let _ = write!(text, ".TP\n.B {code}\n{}", said(meaning));
        }
    }
    text + ".SH FILES" + FILES + ".SH EXAMPLES" + EXAMPLES
}

fn setting(text: &mut String, setting: &Setting) {
    let (flag, value) = (code(setting.flag), code(&setting.kind.placeholder()));
    let variable = setting.environment;
    let _ = writeln!(
        text,
        ".TP\n.BI \\-\\-{flag} \" {value}\" \"\\fR, \" \\fB{variable}"
    );
    let default = setting.default_words();
    text.push_str(&said(&format!(
        "{} Defaults to {default}.",
        setting.sentences()
    )));
}

/// Writes sentences, each from the beginning of a line, in lines that fit a terminal.
fn said(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in roff(text).split(' ') {
        let last = lines.last_mut().expect("there is always a first line");
        let is_full = last.ends_with('.') || last.len() + word.len() >= WIDTH;
        match last.is_empty() {
            true => last.push_str(word),
            false if is_full => lines.push(word.to_owned()),
            false => *last += &format!(" {word}"),
        }
    }
    let safe = |line: &String| match line.starts_with(['.', '\'']) {
        true => format!("\\&{line}\n"),
        false => format!("{line}\n"),
    };
    lines.iter().map(safe).collect()
}

/// Makes of a text what roff prints as that text, and bold what is between backticks.
fn roff(text: &str) -> String {
    let parts = text.split('`').enumerate();
    let part = |(place, part): (usize, &str)| match place % 2 {
        0 => part.replace('\\', "\\e"),
        _ => format!("\\fB{}\\fR", code(part)),
    };
    parts.map(part).collect()
}

/// Code: its hyphens can be copied.
fn code(text: &str) -> String {
    text.replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('\'', "\\(aq")
}
