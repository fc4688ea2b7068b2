//! Every parser that meets outside bytes, held to its properties: by the corpus
//! first, then by what proptest makes of it. `make fuzz` holds the same
//! properties by coverage-guided fuzzing.

#![allow(clippy::unwrap_used, missing_docs)]

mod near;
mod properties;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};

/// Inventions a property: all of them together take seconds. `PROPTEST_CASES`
/// asks for more.
const CASES: u32 = 1_000;

/// Reads the hand-made inputs of a property, by name.
fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = here().join("corpus").join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort_unstable();
    assert!(!paths.is_empty(), "{folder:?} is empty");
    let read = |path: PathBuf| (fs::read(&path).unwrap(), path);
    paths
        .into_iter()
        .map(read)
        .map(|(bytes, path)| (path, bytes))
        .collect()
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

/// Says which input it was, should the property not hold.
struct Naming<'a>(&'a Path);

impl Drop for Naming<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the property does not hold for {}", self.0.display());
        }
    }
}

fn hold(name: &'static str) {
    let property = properties::named(name);
    let corpus = corpus(name);
    for (path, bytes) in &corpus {
        let _naming = Naming(path);
        property(bytes);
    }
    let seeds = corpus.into_iter().map(|(_, bytes)| bytes).collect();
    let file = here().join("regressions").join(format!("{name}.txt"));
    // Lives as long as the tests: proptest wants it so.
    let file: &'static str = Box::leak(file.to_str().unwrap().into());
    let mut config = Config {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(file))),
        ..Config::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    let inventions = near::near(seeds, near::words(&here(), name));
    TestRunner::new(config)
        .run(&inventions, |bytes| {
            property(&bytes);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

macro_rules! held {
    ($($test:ident: $name:literal;)*) => {
        $(#[test]
        fn $test() {
            hold($name);
        })*

        #[test]
        fn every_property_is_held() {
            let held = [$($name),*];
            let all = properties::ALL.map(|(name, _)| name);
            assert_eq!(held, all);
        }
    };
}

held! {
    accept_chooses_the_format_that_the_client_prefers: "accept";
    answers_are_taken_apart_as_they_were_put_together: "answer";
    certificates_are_understood_or_refused_without_harm: "certificate";
    command_lines_run_or_say_why_not_in_one_line_without_secrets: "cli";
    connection_strings_mean_what_they_mean_to_libpq: "conninfo";
    durations_are_exact_and_bounded: "duration";
    labels_come_out_of_the_exposition_as_they_went_in: "exposition";
    log_positions_are_read_as_postgresql_prints_them: "lsn";
    password_files_mean_what_they_mean_to_libpq: "passfile";
    only_known_paths_are_answered: "route";
    settings_make_nodes_that_can_be_told_apart_and_reached: "settings";
    sizes_are_what_patroni_makes_of_them_or_refused: "size";
    status_steers_no_terminal: "status";
    urls_are_asked_for_as_they_stand_or_refused: "url";
}
