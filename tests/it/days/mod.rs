//! Bad days of the commands that change a pair: the Docker engine restarts, hangs
//! and is gone under them, containers are stopped and started in every order,
//! removed, and slow to stop, the disk is full. Each command is refused or gets
//! through, with one line that says why; nothing is lost, and nobody ever sees
//! a second primary.

mod alarms;
mod engine;
mod ground;
mod orders;
mod stops;

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::support::command::{dies_with_us, told};
use crate::support::deployment::Deployment;
use crate::support::eventually;
use crate::support::process::{self, Outcome};

/// The engine's /srv is memory: what a container writes to it counts as its own.
const MEMORY: &str = "postgres_pair_memory=1G";

/// Longest for what ends by itself, on a machine that is very busy.
const BY_ITSELF: Duration = Duration::from_secs(90);

/// Writes a row that must still be there at the end.
fn has_a_row(pair: &Deployment, primary: &str) {
    pair.sql(primary, "CREATE TABLE IF NOT EXISTS days (id int)");
    pair.sql(primary, "INSERT INTO days VALUES (1)");
}

/// Checks that a command ended as it was asked, or with one line that says why
/// it did not.
fn did_it_or_said_why(done: &Outcome) {
    match done.code() {
        0 => assert_eq!(done.stderr, ""),
        code => told(done, code, &["pgpair: "]),
    }
}

/// Says whether a node is a primary that answers.
fn is_primary(pair: &Deployment, node: &str) -> bool {
    let asked = pair
        .socket_client(node)
        .and_then(|mut client| client.query_one("SELECT pg_is_in_recovery()", &[]));
    asked.is_ok_and(|row| !row.get::<_, bool>(0))
}

fn becomes_primary(pair: &Deployment, node: &str) {
    eventually(BY_ITSELF, &format!("{node} takes writes"), || {
        is_primary(pair, node).then_some(())
    });
}

fn signal(name: &str, pid: &str) {
    let done = process::run(Command::new("kill").args(["-s", name, pid]), b"", BY_ITSELF);
    assert!(done.status.success(), "{done:?}");
}

/// A guard that outlived a test that was killed would go on to move its pair.
#[test]
fn command_ends_with_the_thread_that_started_it() {
    let started = thread::spawn(|| {
        let mut command = dies_with_us("sleep".to_owned());
        let child = command.arg("600").spawn().expect("sleep runs");
        // Until then it is what arranges that.
        let name = format!("/proc/{}/comm", child.id());
        eventually(BY_ITSELF, "sleep runs", || {
            let name = fs::read_to_string(&name).expect("it is our own child");
            (name == "sleep\n").then_some(())
        });
        child
    });
    let mut child = started.join().expect("it only starts it");
    eventually(BY_ITSELF, "it has ended", || {
        child.try_wait().expect("it is our own child")
    });
}
