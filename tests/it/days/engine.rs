//! Days of the Docker engine, on one of the test's own.

use std::thread;
use std::time::Duration;

use super::{BY_ITSELF, MEMORY, becomes_primary, did_it_or_said_why, has_a_row, is_primary};
use crate::guard::{Guard, report};
use crate::support::command::{Observer, Writer, other};
use crate::support::deployment::Deployment;
use crate::support::engine::Engine;
use crate::support::eventually;

/// One pair through all of it, as bringing one up takes the longest.
#[test]
fn pair_outlives_the_engine_under_it() {
    let Some(engine) = Engine::of_its_own(2048) else {
        return;
    };
    let pair = Deployment::new("engine");
    pair.site(&["-e", MEMORY]).changed();
    pair.has_primary("a");
    has_a_row(&pair, "a");
    engine_that_is_gone_or_hangs_is_told(&engine, &pair, "a");
    guard_replaces_nobody_for_the_engines_sake(&engine, &pair, "a");
    restarted_engine_brings_the_same_primary_back(&engine, &pair, "a");
    let primary = engine_restarts_under_every_step_of_a_switchover(&engine, &pair, "a");
    let primary = engine_restarts_under_every_step_of_a_failover(&engine, &pair, primary);
    fenced_primary_outlives_the_engine_as_a_standby(&engine, &pair, primary);
    let primary = other(primary);
    engine_that_hangs_holds_up_no_switchover(&engine, &pair, primary);
    let primary = other(primary);
    assert_eq!(pair.sql(primary, "SELECT count(*) FROM days"), "1");
}

fn engine_that_is_gone_or_hangs_is_told(engine: &Engine, pair: &Deployment, primary: &str) {
    let observer = Observer::start(pair);
    let commands = ["switchover", "failover", "rejoin"];
    let gone = engine.hidden();
    for command in commands {
        pair.is_told(&[command], 3, &["refused: docker inspect: ", "docker ps"]);
    }
    drop(gone);
    let frozen = engine.frozen();
    let hangs = ["refused: docker inspect: no answer within 15s", "docker ps"];
    pair.is_told(&["switchover"], 3, &hangs);
    pair.is_told(&["failover"], 3, &hangs);
    drop(frozen);
    assert!(!pair.root.join("journal").exists());
    assert!(is_primary(pair, primary));
    observer.end();
    pair.has_primary(primary);
}

fn guard_replaces_nobody_for_the_engines_sake(engine: &Engine, pair: &Deployment, primary: &str) {
    let guard = Guard::start(pair, &["--max-failovers", "1000"]);
    guard.says("state", "watching");
    // Longer than it takes to give a primary up.
    let frozen = engine.frozen();
    thread::sleep(Duration::from_secs(8));
    drop(frozen);
    engine.stop();
    engine.start();
    pair.has_primary(primary);
    guard.says("state", "watching");
    assert_eq!(report(pair).expect("it answers")["failovers"], 0);
    guard.stop();
}

/// By its containers' restart policy; Docker's own mistakes need a hand.
fn restarted_engine_brings_the_same_primary_back(
    engine: &Engine,
    pair: &Deployment,
    primary: &str,
) {
    let observer = Observer::start(pair);
    engine.stop();
    engine.start();
    pair.has_primary(primary);
    // Docker 20.10 stops what an engine that was killed has left, and does not
    // start it again.
    engine.kill();
    engine.start();
    pair.each("start", &["a", "b"]);
    pair.has_primary(primary);
    observer.end();
}

/// Restarts the engine after each line that a command says. The command gets
/// through or says why not, and the next one makes the pair whole.
fn engine_restarts_under_every_step_of_a_switchover<'a>(
    engine: &Engine,
    pair: &Deployment,
    mut primary: &'a str,
) -> &'a str {
    let observer = Observer::start(pair);
    let writer = Writer::start(pair, primary);
    for lines in 1.. {
        let target = other(primary);
        let mut switchover = pair.begins(&["switchover", target]);
        let Some(last) = switchover.says(lines) else {
            primary = target;
            break;
        };
        engine.stop();
        engine.start();
        eprintln!("--- the engine restarted after {last:?}");
        did_it_or_said_why(&switchover.ends());
        let again = pair.runs(&["switchover", target]);
        did_it_or_said_why(&again);
        eventually(BY_ITSELF, "somebody takes writes", || {
            ["a", "b"]
                .iter()
                .any(|node| is_primary(pair, node))
                .then_some(())
        });
        // Docker does not start again what was stopped when the engine went.
        pair.does(&["rejoin"]);
        if again.code() != 0 {
            pair.does(&["switchover", target]);
        }
        pair.has_primary(target);
        primary = target;
    }
    pair.has_primary(primary);
    let written = writer.end(primary);
    assert_eq!(written.lost, [0; 0], "of {}", written.acknowledged);
    observer.end();
    primary
}

fn engine_restarts_under_every_step_of_a_failover<'a>(
    engine: &Engine,
    pair: &Deployment,
    mut primary: &'a str,
) -> &'a str {
    let observer = Observer::start(pair);
    for lines in 1.. {
        let target = other(primary);
        pair.each("kill", &[primary]);
        let mut failover = pair.begins(&["failover", target]);
        let Some(last) = failover.says(lines) else {
            primary = target;
            break;
        };
        engine.stop();
        engine.start();
        eprintln!("--- the engine restarted after {last:?}");
        did_it_or_said_why(&failover.ends());
        pair.accepts(target);
        pair.does(&["failover", target]);
        pair.does(&["rejoin"]);
        pair.has_primary(target);
        primary = target;
    }
    pair.has_primary(primary);
    observer.end();
    primary
}

/// The engine restarts while the old primary is fenced and the new one is none
/// yet: `docker restart` and the engine's own restart both start a standby.
fn fenced_primary_outlives_the_engine_as_a_standby(
    engine: &Engine,
    pair: &Deployment,
    primary: &str,
) {
    let observer = Observer::start(pair);
    let mut switchover = pair.begins(&["switchover"]);
    switchover.says_that("stopped and fenced");
    drop(switchover);
    pair.each("restart", &[primary]);
    // A container that is stopped while it starts is killed after two minutes.
    pair.accepts(primary);
    engine.stop();
    engine.start();
    pair.accepts(primary);
    assert_eq!(pair.sql(primary, "SELECT pg_is_in_recovery()"), "t");
    // It ended as a standby, so that where it ended as a primary is not known.
    did_it_or_said_why(&pair.runs(&["switchover", other(primary)]));
    pair.has_primary(primary);
    pair.does(&["switchover", other(primary)]);
    pair.has_primary(other(primary));
    observer.end();
}

/// Once the old primary is down, the way to the new one does not lead through
/// Docker.
fn engine_that_hangs_holds_up_no_switchover(engine: &Engine, pair: &Deployment, primary: &str) {
    let observer = Observer::start(pair);
    let writer = Writer::start(pair, primary);
    let mut switchover = pair.begins(&["switchover"]);
    switchover.says_that("stopped and fenced");
    let frozen = engine.frozen();
    becomes_primary(pair, other(primary));
    drop(frozen);
    assert_eq!(switchover.ends().code(), 0);
    pair.has_primary(other(primary));
    let written = writer.end(other(primary));
    assert_eq!(written.lost, [0; 0], "of {}", written.acknowledged);
    observer.end();
}
