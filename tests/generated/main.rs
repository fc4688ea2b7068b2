//! What is made from the tables of commands, settings and metrics: README's tables, the
//! man page and the shells' completions. They are in the repository, and this holds that
//! they are what would be made now. `make generate` writes them.

#![allow(missing_docs)]

mod bash;
mod fish;
mod man;
mod readme;
mod zsh;

use std::fs;
use std::path::Path;
use std::process::Command;

use pgpair::config::settings::Setting;
use pgpair::probe::assessment::PairVerdict;
use pgpair::probe::guard_report::STATES;

/// Set, it has the files written instead of compared.
const WRITES: &str = "PGPAIR_GENERATE";

/// Takes a text's backticks away.
fn plain(text: &str) -> String {
    text.replace('`', "")
}

/// Says in a few words what a setting means, for a list.
fn brief(setting: &Setting) -> String {
    let bounds = setting.kind.bounds().map(|it| format!(", {it}"));
    plain(setting.meaning) + &bounds.unwrap_or_default()
}

#[test]
fn what_is_generated_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let mut differ = Vec::new();
    for (path, text) in [
        ("README.md", readme::readme(&read("README.md"))),
        ("share/man/man1/pgpair.1", man::page()),
        (
            "share/bash-completion/completions/pgpair",
            bash::completions(),
        ),
        ("share/zsh/site-functions/_pgpair", zsh::completions()),
        (
            "share/fish/vendor_completions.d/pgpair.fish",
            fish::completions(),
        ),
    ] {
        if read(path) == text {
            continue;
        }
        if std::env::var_os(WRITES).is_none() {
            differ.push(path);
            continue;
        }
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("writes");
    }
    assert!(
        differ.is_empty(),
        "{} differ from the tables in src; this writes them:\n    \
         {WRITES}=yes cargo test --locked --test generated",
        differ.join(", ")
    );
}

/// Its states are numbers, which it gives to the words by itself.
#[test]
fn dashboard_has_every_verdict_and_every_state_of_the_guard() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = root.join("ansible/roles/pgpair_probe/files/grafana/pgpair.json");
    let text = fs::read_to_string(file).expect("a dashboard");
    let verdicts = PairVerdict::ALL.map(|it| format!("verdict=\\\"{}\\\"", it.word()));
    let states = STATES.map(|it| format!("state=\\\"{it}\\\""));
    for word in verdicts.iter().chain(&states) {
        assert!(text.contains(word), "{word}");
    }
}

/// Asks bash what it would complete; the last word is the one under the cursor, and `=`
/// is a word of its own, as in a terminal.
fn completed(words: &[&str]) -> Vec<String> {
    let script = bash::completions()
        + "COMP_WORDS=(pgpair \"$@\"); COMP_CWORD=$#; _pgpair; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    let said = bash.args(["--norc", "-c", &script, "bash"]).args(words);
    let said = said.output().expect("bash runs");
    assert!(said.stderr.is_empty(), "{said:?}");
    let text = String::from_utf8(said.stdout).expect("text");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_flags_and_their_words() {
    for (words, expected) in [
        (&["sw"][..], &["switchover"][..]),
        (&["guard", "p"], &["pause"]),
        (&["guard", "pause", "--j"], &["--json"]),
        (&["guard", "pause", "--sy"], &[""]),
        (&["guard", "--sy"], &["--sync", "--sync-limit"]),
        (&["guard", "--sync", "s"], &["sync", "strict"]),
        (&["guard", "--sync", "="], &["async", "sync", "strict"]),
        (&["--ready", "=", "a"], &["any", "all"]),
        (&["--deadline", "1s", "--dr"], &["--drain"]),
        (&["--deadline", "=", "1s", "--dr"], &["--drain"]),
        (&["--deadline", ""], &[""]),
        (&["failover", ""], &["a", "b"]),
        (&["failover", "--accept-loss", "b", "--js"], &["--json"]),
        (&["check", "--"], &["--listen", "--help", "--version"]),
        (&["serve", "s"], &[""]),
    ] {
        assert_eq!(completed(words), expected, "{words:?}");
    }
}
