//! Days on which something would hold up the stop of a primary: a switchover
//! names it before, and nobody waits for who does not matter.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::{BY_ITSELF, signal};
use crate::support::command::{Observer, Writer, on_this_machine, other, told};
use crate::support::deployment::Deployment;
use crate::support::docker::{docker, postgres_image, try_docker};
use crate::support::{eventually, process};

/// Without a primary, on a machine that is not overloaded.
const GAP: Duration = Duration::from_secs(3);

/// One pair through all of it, as bringing one up takes the longest.
#[test]
fn nobody_who_does_not_matter_holds_up_a_switchover() {
    let pair = Deployment::new("stops");
    pair.site(&["-e", ARCHIVES, "-e", RECEIVES]).changed();
    pair.has_primary("a");
    let observer = Observer::start(&pair);
    what_cannot_be_stopped_is_refused(&pair, "a");
    archiver_that_hangs_holds_up_nobody(&pair, "a");
    receiver_that_takes_nothing_holds_up_nobody(&pair, "b");
    primary_that_does_not_shut_down_stays(&pair, "a");
    standby_that_restarts_or_stops_to_replay_is_no_outage(&pair, "a");
    observer.end();
}

/// A container that is no node may replicate.
const RECEIVES: &str = r#"{"postgres_pair_replication_addresses": ["samenet"]}"#;

const ARCHIVES: &str =
    r#"{"postgres_pair_settings": {"archive_mode": "on", "archive_command": "true"}}"#;

fn set_on_both(pair: &Deployment, setting: &str) {
    for node in ["a", "b"] {
        pair.sql(node, &format!("ALTER SYSTEM SET {setting}"));
        pair.sql(node, "SELECT pg_reload_conf()");
    }
}

/// Returns the process of a node whose title has this in it.
fn process_of(pair: &Deployment, node: &str, title: &str) -> Option<String> {
    let listed = docker(&["top", &pair.container(node), "-eo", "pid,args"]);
    let line = listed.lines().find(|line| line.contains(title))?;
    line.split_whitespace().next().map(str::to_owned)
}

fn what_cannot_be_stopped_is_refused(pair: &Deployment, primary: &str) {
    let mut client = pair.socket_client(primary).expect("it lets root in");
    let copy =
        thread::spawn(move || client.batch_execute("COPY (SELECT 1) TO PROGRAM 'sleep 600'"));
    let program = eventually(BY_ITSELF, "the program runs", || {
        process_of(pair, primary, "sleep 600")
    });
    for command in [&["switchover"][..], &["switchover", "--dry-run"]] {
        pair.is_told(command, 3, &["runs a program", "kill "]);
    }
    signal("TERM", &program);
    assert!(copy.join().expect("it ends").is_err());
    for node in [primary, other(primary)] {
        let title = if node == primary {
            "walwriter"
        } else {
            "walreceiver"
        };
        let pid = process_of(pair, node, title).expect("it runs");
        signal("STOP", &pid);
        // Docker may be asking for its health through a process that waits for it.
        let frozen = [pid.as_str(), "are frozen (kill -CONT"];
        pair.is_told(&["switchover"], 3, &frozen);
        pair.is_told(&["switchover", "--dry-run"], 3, &frozen);
        signal("CONT", &pid);
    }
    pair.has_primary(primary);
}

/// Moves the primary under a writer; returns what the command said.
fn moves_in_time(pair: &Deployment, primary: &str) -> String {
    let writer = Writer::start(pair, primary);
    let said = pair.does(&["switchover"]);
    let gap = said.lines().find_map(|line| {
        let (_, rest) = line.split_once(", after ")?;
        rest.split(' ').next()?.parse().ok()
    });
    let gap = Duration::from_millis(gap.expect("it says how long"));
    assert!(gap < on_this_machine(GAP), "{said}");
    pair.has_primary(other(primary));
    let written = writer.end(other(primary));
    assert_eq!(written.lost, [0; 0], "of {}", written.acknowledged);
    said
}

fn archiver_that_hangs_holds_up_nobody(pair: &Deployment, primary: &str) {
    set_on_both(pair, "archive_command = 'sleep 1000'");
    pair.sql(
        primary,
        "SELECT pg_logical_emit_message(true, 'x', ''), pg_switch_wal()",
    );
    eventually(BY_ITSELF, "it archives", || {
        process_of(pair, primary, "sleep 1000")
    });
    let plan = pair.does(&["switchover", "--dry-run"]);
    assert!(
        plan.contains("archiving of") && plan.contains("not waited for"),
        "{plan}"
    );
    let said = moves_in_time(pair, primary);
    assert!(said.contains("killing what is left"), "{said}");
    assert!(said.contains("archives"), "{said}");
    let waiting = "SELECT count(*) > 0 FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'";
    assert_eq!(
        pair.sql(other(primary), waiting),
        "t",
        "nothing is left out"
    );
    set_on_both(pair, "archive_command = 'true'");
    let archiver = process_of(pair, other(primary), "sleep 1000");
    if let Some(pid) = archiver {
        signal("TERM", &pid);
    }
    eventually(BY_ITSELF, "all is archived", || {
        (pair.sql(other(primary), waiting) == "f").then_some(())
    });
}

fn receiver_that_takes_nothing_holds_up_nobody(pair: &Deployment, primary: &str) {
    let name = pair.container("receiver");
    let conf = pair.root.join(other(primary)).join("conf");
    let (conf, label) = (
        format!("{}:/etc/postgresql:ro", conf.display()),
        format!("org.pgpair.project={}", pair.prefix),
    );
    let conninfo = format!(
        "host={} user=replicator passfile=/etc/postgresql/pgpass sslmode=require",
        pair.container(primary)
    );
    docker(&[
        "run",
        "--detach",
        "--name",
        &name,
        "--label",
        &label,
        "--network",
        &pair.prefix,
        "--volume",
        &conf,
        "--user",
        "999:999",
        "--entrypoint",
        "pg_receivewal",
        &postgres_image(),
        "--directory",
        "/tmp",
        "--dbname",
        &conninfo,
    ]);
    let streams =
        "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'pg_receivewal'";
    eventually(BY_ITSELF, "it receives", || {
        (pair.sql(primary, streams) == "1").then_some(())
    });
    docker(&["pause", &name]);
    // More than its socket holds.
    pair.sql(
        primary,
        "SELECT pg_logical_emit_message(true, 'x', repeat('x', 8000000))",
    );
    eventually(BY_ITSELF, "it is named", || {
        let plan = pair.does(&["switchover", "--dry-run"]);
        plan.contains("\"pg_receivewal\"").then_some(())
    });
    let said = moves_in_time(pair, primary);
    assert!(said.contains("it is cut off"), "{said}");
    try_docker(&["rm", "--force", &name], b"");
}

/// What a killed command left is taken up without being looked over again.
fn begun(pair: &Deployment, primary: &str) {
    let left = format!(
        "kind=switchover from={primary} to={} step=stopping accept_loss=false ran=true\n",
        other(primary)
    );
    fs::write(pair.root.join("journal"), left).expect("writes");
}

/// One of its processes hangs: it cannot be known that the standby has everything.
fn primary_that_does_not_shut_down_stays(pair: &Deployment, primary: &str) {
    let writer = Writer::start(pair, primary);
    let pid = process_of(pair, primary, "autovacuum launcher").expect("it has one");
    signal("STOP", &pid);
    begun(pair, primary);
    let back = format!("rolled back: {primary} is the primary again");
    pair.is_told(
        &["switchover"],
        1,
        &["did not shut down cleanly", "docker logs", &back],
    );
    pair.has_primary(primary);
    let written = writer.end(primary);
    assert_eq!(written.lost, [0; 0], "of {}", written.acknowledged);
}

fn standby_that_restarts_or_stops_to_replay_is_no_outage(pair: &Deployment, primary: &str) {
    let standby = other(primary);
    let pid = process_of(pair, standby, "startup").expect("it recovers");
    let writer = Writer::start(pair, primary);
    signal("STOP", &pid);
    begun(pair, primary);
    let done = pair.runs(&["switchover"]);
    signal("CONT", &pid);
    let back = format!("rolled back: {primary} is the primary again");
    told(&done, 1, &["has not replayed", &back]);
    // The entry point, as the first process, does not heed the signal to stop.
    let mut switchover = pair.begins(&["switchover"]);
    switchover.says_that("checkpoint made");
    let name = pair.container(standby);
    let restart = ["restart", &name];
    let mut restarted = Command::new("docker");
    let restarted = process::run(restarted.args(restart), b"", BY_ITSELF);
    assert!(restarted.status.success(), "{restarted:?}");
    super::did_it_or_said_why(&switchover.ends());
    let now = eventually(BY_ITSELF, "somebody takes writes", || {
        ["a", "b"]
            .into_iter()
            .find(|node| super::is_primary(pair, node))
    });
    pair.runs(&["rejoin"]);
    pair.has_primary(now);
    let written = writer.end(now);
    assert_eq!(written.lost, [0; 0], "of {}", written.acknowledged);
    let times = written.at.windows(2).map(|at| at[1] - at[0]);
    let longest = times.max().expect("it wrote");
    eprintln!("--- longest time without a commit: {longest:?}");
    assert!(longest < on_this_machine(GAP * 3), "{longest:?}");
}
