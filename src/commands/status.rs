//! `pgpair status`: the pair as a table, for a person at a terminal.

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::http_client::{self, Target, Wanted};
use crate::runtime::document::word;
use crate::runtime::{exit, text};

/// What is asked when no path is given.
pub const DEFAULT_PATH: &str = "/status";

/// `/status` never waits for PostgreSQL: two seconds are a long time for it.
const TIME_LIMIT: Duration = Duration::from_secs(2);

/// Longest reason that is shown, of one who may be anybody.
const MAX_CAUSE: usize = 200;

/// Time between two looks with `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// How the command was called.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// Whom to ask.
    pub target: Target,
    /// Print the JSON as it came.
    pub json: bool,
    /// Look again and again until stopped.
    pub watch: bool,
    /// The environment asks for no colours (`NO_COLOR`).
    pub no_color: bool,
}

/// The part of `/status` that is shown.
pub struct Status {
    verdict: String,
    ready: bool,
    reason: String,
    detail: Option<String>,
    primary: Option<String>,
    version: String,
    guard: Option<Guard>,
    nodes: Vec<Node>,
}

struct Guard {
    state: String,
    detail: Option<String>,
    mode: Option<String>,
    synchronous: Option<bool>,
}

struct Node {
    name: String,
    state: String,
    role: Option<String>,
    reason: String,
    detail: Option<String>,
    age_ms: Option<u64>,
    timeline: Option<u32>,
    replication_state: Option<String>,
    lag_bytes: Option<u64>,
    lag_seconds: Option<f64>,
    login: Option<Login>,
}

struct Login {
    reason: String,
}

impl Node {
    fn of(value: &Value) -> Option<Node> {
        let number = |key: &str| value.get(key).and_then(Value::as_u64);
        let login = value.get("login").and_then(|it| owned(it, "reason"));
        Some(Node {
            name: owned(value, "name")?,
            state: owned(value, "state")?,
            role: owned(value, "role"),
            reason: owned(value, "reason")?,
            detail: owned(value, "detail"),
            age_ms: number("age_ms"),
            timeline: number("timeline").and_then(|it| it.try_into().ok()),
            replication_state: owned(value, "replication_state"),
            lag_bytes: number("lag_bytes"),
            lag_seconds: value.get("lag_seconds").and_then(Value::as_f64),
            login: login.map(|reason| Login { reason }),
        })
    }
}

fn json(body: &[u8]) -> Option<Value> {
    serde_json::from_str(str::from_utf8(body).ok()?).ok()
}

fn owned(value: &Value, key: &str) -> Option<String> {
    word(value, key).map(str::to_owned)
}

/// Asks, prints, and returns the exit code: 0 only if the pair is whole.
pub fn status(options: &Options) -> u8 {
    let terminal = io::stdout().is_terminal();
    loop {
        let (text, exit_code) = look(options, terminal && !options.no_color);
        let clear = if options.watch && terminal {
            "\x1b[H\x1b[2J"
        } else {
            ""
        };
        let mut out = io::stdout().lock();
        let printed = write!(out, "{clear}{text}").and_then(|()| out.flush());
        drop(out);
        if printed.is_err() {
            // Whoever read this has gone.
            return exit::FAILURE;
        }
        if !options.watch {
            return exit_code;
        }
        thread::sleep(WATCH_EVERY);
    }
}

fn look(options: &Options, colors: bool) -> (String, u8) {
    let answer = match http_client::get(&options.target, Wanted::Whole, TIME_LIMIT) {
        Ok(answer) => answer,
        Err(trouble) => {
            eprintln!("pgpair: {trouble}");
            return (String::new(), trouble.exit_code);
        }
    };
    let Some(status) = Status::parse(&answer.body) else {
        // What pgpair says instead.
        let refused = json(&answer.body);
        let detail = refused.as_ref().and_then(|it| word(it, "detail"));
        let why = detail.map_or_else(
            || "the answer is not a /status".to_owned(),
            |it| text::printable(it, MAX_CAUSE),
        );
        eprintln!("pgpair: {why} (HTTP status {})", answer.status);
        return (String::new(), exit::NO_ANSWER);
    };
    let exit_code = if status.verdict == "ok" && status.ready {
        exit::OK
    } else {
        exit::NOT_WELL
    };
    let text = if options.json {
        String::from_utf8_lossy(&answer.body).into_owned()
    } else {
        status.table(colors)
    };
    (text, exit_code)
}

impl Status {
    /// Parses the body of an answer from `/status`.
    pub fn parse(body: &[u8]) -> Option<Status> {
        let value = json(body)?;
        let guard = value.get("guard").filter(|it| !it.is_null());
        let guard = guard.map(|it| {
            Some(Guard {
                state: owned(it, "state")?,
                detail: owned(it, "detail"),
                mode: owned(it, "mode"),
                synchronous: it.get("synchronous").and_then(Value::as_bool),
            })
        });
        let nodes = value.get("nodes")?.as_array()?;
        Some(Status {
            verdict: owned(&value, "verdict")?,
            ready: value.get("ready")?.as_bool()?,
            reason: owned(&value, "reason")?,
            detail: owned(&value, "detail"),
            primary: owned(&value, "primary"),
            version: owned(&value, "version")?,
            guard: match guard {
                Some(guard) => Some(guard?),
                None => None,
            },
            nodes: nodes.iter().map(Node::of).collect::<Option<_>>()?,
        })
    }

    /// Lays the pair out: one line about it, one a node, one a trouble.
    pub fn table(&self, colors: bool) -> String {
        let paint = |text: &str, good: bool| match (colors, good) {
            (false, _) => text.to_owned(),
            (true, true) => format!("\x1b[32m{text}\x1b[0m"),
            (true, false) => format!("\x1b[31m{text}\x1b[0m"),
        };
        let mut text = format!(
            "pair {}, {}, {}, pgpair {}\n",
            paint(&plain(&self.verdict), self.verdict == "ok"),
            match &self.primary {
                Some(name) => format!("primary {}", plain(name)),
                None => "no primary".to_owned(),
            },
            match self.ready {
                true => "ready".to_owned(),
                false => format!("not ready: {}", plain(&self.reason)),
            },
            plain(&self.version),
        );
        let mut rows = vec![
            [
                "NODE",
                "ROLE",
                "STATE",
                "REASON",
                "TIMELINE",
                "STREAMING",
                "LAG",
                "SEEN",
            ]
            .map(str::to_owned),
        ];
        rows.extend(self.nodes.iter().map(row));
        for (line, cells) in rows.iter().enumerate() {
            for (column, cell) in cells.iter().enumerate() {
                let width = rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
                let padded = format!("{cell:width$}  ");
                let is_reason = line > 0 && column == 3;
                text.push_str(&if is_reason {
                    paint(&padded, cell == "ok")
                } else {
                    padded
                });
            }
            text.truncate(text.trim_end_matches(' ').len());
            text.push('\n');
        }
        text + &self.troubles()
    }

    /// A line each: what is wrong with nodes and logins, why the pair is not ready, and
    /// what the guard does.
    fn troubles(&self) -> String {
        let mut text = String::new();
        for node in self.nodes.iter().filter(|node| node.reason != "ok") {
            if let Some(detail) = &node.detail {
                text.push_str(&format!("{}: {}\n", plain(&node.name), plain(detail)));
            }
        }
        for node in &self.nodes {
            if let Some(login) = node.login.as_ref().filter(|login| login.reason != "ok") {
                text.push_str(&format!(
                    "{}: a new login fails: {}\n",
                    plain(&node.name),
                    plain(&login.reason)
                ));
            }
        }
        if let (false, Some(detail)) = (self.ready, &self.detail) {
            text.push_str(&format!("not ready: {}\n", plain(detail)));
        }
        if let Some(guard) = &self.guard {
            text.push_str(&guard_line(guard));
        }
        text
    }
}

/// `guard watching, sync: synchronous`, and why if it is not.
fn guard_line(guard: &Guard) -> String {
    let mut line = format!("guard {}", plain(&guard.state));
    if let (Some(mode), Some(synchronous)) = (&guard.mode, guard.synchronous) {
        let is = if synchronous { "" } else { "not " };
        line.push_str(&format!(", {}: {is}synchronous", plain(mode)));
    }
    if let Some(detail) = &guard.detail {
        line.push_str(&format!(": {}", plain(detail)));
    }
    line + "\n"
}

fn row(node: &Node) -> [String; 8] {
    let or_dash = |value: Option<&str>| value.map_or("-".to_owned(), plain);
    let standby = node.role.as_deref() == Some("standby");
    [
        plain(&node.name),
        or_dash(node.role.as_deref()),
        plain(&node.state),
        plain(&node.reason),
        node.timeline.map_or("-".to_owned(), |it| it.to_string()),
        match (standby, node.replication_state.as_deref()) {
            (true, Some("streaming")) => "yes".to_owned(),
            (true, _) => "no".to_owned(),
            (false, _) => "-".to_owned(),
        },
        match (standby, node.lag_bytes, node.lag_seconds) {
            (false, ..) => "-".to_owned(),
            (true, None, _) => "unknown".to_owned(),
            (true, Some(behind), None) => bytes(behind),
            (true, Some(behind), Some(seconds)) => format!("{} {seconds:.1}s", bytes(behind)),
        },
        node.age_ms.map_or("-".to_owned(), |age| {
            format!("{:.1}s ago", age as f64 / 1_000.0)
        }),
    ]
}

/// Prints a size in the largest unit that leaves at least one before the point.
fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1_024.0 {
            return if unit == "B" {
                format!("{bytes}B")
            } else {
                format!("{value:.1}{unit}")
            };
        }
        value /= 1_024.0;
    }
    format!("{value:.1}TB")
}

/// Takes out what could steer a terminal: the text comes over the network.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !steers(*c)).collect()
}

/// Control characters, further ends of lines, and what turns the direction of text.
fn steers(character: char) -> bool {
    let turns = matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    turns || character.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: &str = r#"{"verdict":"ok","ready":true,"reason":"ok","primary":"a","version":"1","nodes":[
        {"name":"a","state":"running","role":"primary","reason":"ok","age_ms":12,"timeline":3},
        {"name":"b","state":"running","role":"standby","reason":"ok","age_ms":1500,"timeline":3,
         "replication_state":"streaming","lag_bytes":2048,"lag_seconds":0.25}]}"#;

    fn shown(json: &str, colors: bool) -> String {
        let status = Status::parse(json.as_bytes()).expect("a status");
        status.table(colors)
    }

    #[test]
    fn a_whole_pair_is_a_line_and_a_table() {
        assert_eq!(
            shown(WELL, false),
            "pair ok, primary a, ready, pgpair 1\n\
             NODE  ROLE     STATE    REASON  TIMELINE  STREAMING  LAG         SEEN\n\
             a     primary  running  ok      3         -          -           0.0s ago\n\
             b     standby  running  ok      3         yes        2.0kB 0.2s  1.5s ago\n"
        );
    }

    #[test]
    fn what_is_wrong_is_said_in_words_and_unknown_lag_is_not_zero() {
        let json = r#"{"verdict":"degraded","ready":false,"reason":"refused","detail":"nobody there","version":"1","nodes":[
            {"name":"b","state":"running","role":"standby","reason":"not_streaming","detail":"no receiver","age_ms":0},
            {"name":"a","state":"stopped","reason":"refused","detail":"nobody there","age_ms":9000,
             "login":{"reason":"auth_failed","age_ms":1}}]}"#;
        let text = shown(json, false);
        for words in [
            "pair degraded, no primary, not ready: refused",
            "no         unknown",
            "b: no receiver",
            "a: nobody there",
            "a: a new login fails: auth_failed",
        ] {
            assert!(text.contains(words), "{words:?} in\n{text}");
        }
    }

    #[test]
    fn the_guard_is_told_of_where_it_is_known() {
        for (guard, line) in [
            (
                r#"{"state":"watching","mode":"sync","synchronous":true,"age_ms":2}"#,
                "\nguard watching, sync: synchronous\n",
            ),
            (
                r#"{"state":"blocked","mode":"sync","synchronous":false,"detail":"no \u001bstandby"}"#,
                "\nguard blocked, sync: not synchronous: no standby\n",
            ),
            (r#"{"state":"absent"}"#, "\nguard absent\n"),
        ] {
            let json = WELL.replacen('{', &format!("{{\"guard\":{guard},"), 1);
            let text = shown(&json, false);
            assert!(text.ends_with(line), "{line:?} in\n{text}");
        }
    }

    #[test]
    fn colours_and_nothing_else_steer_the_terminal() {
        assert!(shown(WELL, true).contains("\x1b[32mok"));
        assert!(!shown(WELL, false).contains('\x1b'));
        let evil = WELL.replace("\"name\":\"a\"", "\"name\":\"\\u001b[2Ja\"");
        assert!(!shown(&evil, false).contains('\x1b'));
    }

    #[test]
    fn sizes_are_short() {
        for (value, text) in [
            (0, "0B"),
            (1_023, "1023B"),
            (1_536, "1.5kB"),
            (10 << 20, "10.0MB"),
            (5 << 40, "5.0TB"),
        ] {
            assert_eq!(bytes(value), text);
        }
    }
}
