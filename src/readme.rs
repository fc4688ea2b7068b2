//! The README's tables that are written by hand say what the code does. Those between
//! markers are made by `tests/generated`.

use crate::http::routes::PATHS;
use crate::pair::error::Why;
use crate::pg::parameters::PARAMETERS;
use crate::probe::assessment::PairVerdict;
use crate::probe::node::Reason;

const README: &str = include_str!("../README.md");

/// The cells of every row whose first cell is code.
fn rows() -> impl Iterator<Item = Vec<&'static str>> {
    README
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
}

#[test]
fn every_reason_and_every_verdict_has_its_row() {
    let mut found: Vec<_> = rows()
        .filter(|row| row.len() == 2)
        .map(|row| row[0].trim_matches('`'))
        .collect();
    let reasons = Reason::ALL.iter().map(|reason| reason.word());
    let verdicts = PairVerdict::ALL.iter().map(|verdict| verdict.word());
    let mut expected: Vec<_> = reasons.chain(verdicts).collect();
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn every_reason_of_a_command_has_its_row() {
    for why in Why::ALL {
        let row = format!("\n  | `{}` | ", why.word());
        assert!(README.contains(&row), "{}", why.word());
    }
}

#[test]
fn every_path_is_listed() {
    for (path, _) in PATHS {
        let listed = rows().any(|row| row[0].contains(&format!("`{path}`")));
        assert!(listed, "{path}");
    }
}

#[test]
fn every_parameter_of_a_connection_string_is_listed() {
    for parameter in &PARAMETERS {
        let listed = README.contains(&format!("`{}`", parameter.name));
        assert!(listed, "{}", parameter.name);
    }
}
