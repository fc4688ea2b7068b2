//! The README's tables say what the code does.

use crate::config::{PAIR_SETTINGS, SETTINGS};
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
fn every_setting_has_its_row_with_the_same_default() {
    let settings: Vec<_> = rows().filter(|row| row[1].starts_with("`--")).collect();
    assert_eq!(settings.len(), SETTINGS.len() + PAIR_SETTINGS.len());
    for (row, setting) in settings.iter().zip(SETTINGS.iter().chain(&PAIR_SETTINGS)) {
        assert_eq!(row[0], format!("`{}`", setting.environment));
        assert_eq!(row[1], format!("`--{}`", setting.flag));
        let default = row[3].trim_matches('`');
        let (_, said) = setting
            .meaning
            .rsplit_once("Defaults to ")
            .expect("a default");
        let same = said.starts_with(default) || (setting.flag == "database-url");
        assert!(
            same || said.contains(default),
            "{default:?} is not {said:?}"
        );
        for bound in setting
            .meaning
            .split(", ")
            .filter(|part| part.contains(" to "))
        {
            let range = bound.split(['.', ';']).next().expect("a first part");
            if range.starts_with(|c: char| c.is_ascii_digit()) {
                assert!(row[2].contains(range), "{}: {range}", setting.flag);
            }
        }
    }
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
