//! A playbook's run: how it ended, what it changed, and the one line by which it
//! refused.

use std::process::Command;
use std::time::Duration;

use super::process;

/// Longest that a playbook may take: ten times what it takes on two idle cores.
const PLAY_AT_MOST: Duration = Duration::from_secs(900);

/// How a playbook ended and what it said.
#[derive(Debug)]
pub struct Play {
    host: String,
    code: i32,
    pub stdout: String,
    stderr: String,
}

impl Play {
    /// Runs a playbook of which one host is told, by its name in the inventory.
    pub fn run(command: &mut Command, host: &str) -> Play {
        let done = process::run(command, b"", PLAY_AT_MOST);
        Play {
            host: host.to_owned(),
            code: done.code(),
            stdout: done.stdout,
            stderr: done.stderr,
        }
    }

    /// Says whether these words are anywhere in what it said.
    pub fn tells(&self, words: &str) -> bool {
        self.stdout.contains(words) || self.stderr.contains(words)
    }

    /// Checks that it succeeded; returns how many tasks changed something.
    pub fn changed(&self) -> u32 {
        assert_eq!(self.code, 0, "{}\n{}", self.stdout, self.stderr);
        let recap = self
            .stdout
            .rsplit("PLAY RECAP")
            .next()
            .expect("at least one");
        let mut words = recap.split_whitespace();
        let count = words.find_map(|word| word.strip_prefix("changed="));
        count.and_then(|count| count.parse().ok()).expect("a recap")
    }

    /// Checks that it succeeded and changed nothing.
    pub fn changed_nothing(&self) {
        let changes: Vec<&str> = self
            .stdout
            .lines()
            .filter(|line| line.starts_with("changed:"))
            .collect();
        assert_eq!(self.changed(), 0, "{changes:#?} in\n{}", self.stdout);
    }

    /// Checks that it refused, and that its last line says so with all of
    /// these words; no other line on stderr but Ansible's own warnings.
    pub fn refused(&self, words: &[&str]) {
        let told = format!("{}\n{}", self.stdout, self.stderr);
        assert_ne!(self.code, 0, "not refused: {told}");
        let lines: Vec<&str> = self
            .stderr
            .lines()
            .filter(|line| !line.is_empty())
            .collect();
        let host = format!("{}: ", self.host);
        let last = lines
            .last()
            .unwrap_or_else(|| panic!("no last line: {told}"));
        assert!(last.starts_with(&host), "{last:?} in {told}");
        let others = lines.iter().filter(|line| line.starts_with(&host)).count();
        assert_eq!(others, 1, "one line says it: {told}");
        for word in words {
            assert!(last.contains(word), "{word:?} is not in {last:?}");
        }
    }
}

/// What drill.yml said.
#[derive(Debug)]
pub struct Drill {
    pub acknowledged: u32,
    pub lost: u32,
    /// From the kill, in seconds.
    pub detected: f64,
    pub moved: f64,
    pub whole: f64,
}

impl Drill {
    /// Reads it, in whichever lines it was broken.
    pub fn read(stdout: &str) -> Drill {
        let said = stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        let after = |words: &str| {
            let (_, rest) = said
                .split_once(words)
                .unwrap_or_else(|| panic!("{words:?} is not in {said}"));
            let number = rest.split([' ', ',']).find(|word| !word.is_empty());
            number.and_then(|number| number.parse::<f64>().ok())
        };
        let number = |words| after(words).unwrap_or_else(|| panic!("{words}: {said}"));
        let rows = number("rows: ");
        Drill {
            acknowledged: rows as u32,
            lost: number("acknowledged, ") as u32,
            detected: number("detected after "),
            moved: number("first commit on the other after "),
            whole: number("pair whole again after "),
        }
    }

    /// Says whether one thing came after the other.
    pub fn in_order(&self) -> bool {
        0.0 < self.detected && self.detected < self.moved && self.moved < self.whole
    }
}
