//! The primary is moved, lost and brought back under a writer, by the real
//! commands on a real pair: nothing acknowledged is lost, and nobody ever sees
//! a second primary.

use std::env;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::command::{Observer, Writer, Written, moves, on_this_machine, other, told};
use crate::support::deployment::Deployment;
use crate::support::play::Drill;
use crate::support::told::{Balancers, Watch};
use crate::support::{eventually, measured, percentile, process};

/// The write gap's median must be below.
const GAP: Duration = Duration::from_secs(3);

/// In which a standby follows what happened on the primary.
const REPLICATION_AT_MOST: Duration = Duration::from_secs(30);

/// Runs statements on a node's database `postgres`.
fn execute(pair: &Deployment, node: &str, sql: &str) {
    let mut client = pair.socket_client(node).expect("it lets root in");
    client
        .batch_execute(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

fn timeline(pair: &Deployment, node: &str) -> u32 {
    let name = pair.sql(
        node,
        "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)",
    );
    u32::from_str_radix(&name, 16).expect("a timeline")
}

fn nothing_is_lost(written: &Written) {
    assert!(written.acknowledged > 0);
    assert_eq!(written.lost, [0; 0], "of {}", written.acknowledged);
}

/// Sets something on a node, at once.
fn set(pair: &Deployment, node: &str, setting: &str) {
    pair.sql(node, &format!("ALTER SYSTEM SET {setting}"));
    pair.sql(node, "SELECT pg_reload_conf()");
}

/// What is another once a container was touched.
fn identity(pair: &Deployment, node: &str) -> String {
    let state = &pair.inspect(node)["State"];
    format!("{} {}", state["Status"], state["StartedAt"])
}

/// One pair through all of it, as bringing one up takes the longest.
#[test]
fn healthy_primary_moves_there_and_back_without_losing_a_row() {
    let pair = Deployment::new("move");
    pair.site(&[]).changed();
    pair.has_primary("a");
    what_cannot_be_done_is_refused_and_nothing_is_touched(&pair);
    let primary = switchovers_lose_nothing(&pair, "a");
    let primary = killed_switchover_is_completed_by_the_next(&pair, primary);
    standby_that_cannot_replay_leaves_the_primary_where_it_is(&pair, primary);
    playbooks_do_the_same(&pair, primary);
    machines_are_told_how_it_ended(&pair, primary);
    pair.site(&[]).changed_nothing();
}

fn what_cannot_be_done_is_refused_and_nothing_is_touched(pair: &Deployment) {
    let before = ["a", "b"].map(|node| identity(pair, node));
    let plan = pair.does(&["switchover", "--dry-run"]);
    assert!(plan.contains("would promote b"), "{plan}");
    pair.does(&["switchover", "a"]);
    pair.is_told(&["switchover", "c"], 2, &["no node \"c\"", "a and b"]);
    pair.is_told(&["rejoin", "a"], 3, &["refused: a is the primary"]);
    pair.is_told(&["failover"], 3, &["answers", "pgpair switchover"]);
    for (arguments, outcome, reason) in [
        (&["rejoin", "a"][..], "refused", "is_primary"),
        (&["failover"], "refused", "primary_answers"),
    ] {
        let said = pair.ends(arguments, 3);
        assert_eq!(said["outcome"], outcome, "{said}");
        assert_eq!(said["reason"], reason, "{said}");
    }
    let said = pair.ends(&["switchover", "--dry-run"], 0);
    assert_eq!(said["outcome"], "planned", "{said}");
    assert!(
        said["steps"].as_array().is_some_and(|it| it.len() > 2),
        "{said}"
    );
    // The engine is this host's, whatever the caller has exported; it is asked
    // through its client, which has to be there.
    let plan = process::run(
        pair.pgpair(&["switchover", "--dry-run"])
            .env("DOCKER_HOST", "unix:///nonexistent"),
        b"",
        REPLICATION_AT_MOST,
    );
    assert_eq!(plan.code(), 0, "{plan:?}");
    told(
        &process::run(
            pair.pgpair(&["switchover"]).env("PATH", "/nonexistent"),
            b"",
            REPLICATION_AT_MOST,
        ),
        3,
        &["docker inspect", "see that Docker answers"],
    );
    told(
        &process::run(
            Command::new(env::var("PGPAIR_TEST_BINARY").expect("set"))
                .args(["switchover", "--prefix", "other", "--root"])
                .arg(&pair.root),
            b"",
            REPLICATION_AT_MOST,
        ),
        3,
        &["belongs to the pair", &pair.prefix],
    );
    for node in ["a", "b"] {
        assert_eq!(
            identity(pair, node),
            before[usize::from(node == "b")],
            "{node}"
        );
    }
    assert!(!pair.root.join("journal").exists());

    pair.sql("b", "SELECT pg_wal_replay_pause()");
    pair.is_told(
        &["switchover"],
        3,
        &["replay is paused on b", "pg_wal_replay_resume"],
    );
    pair.sql("b", "SELECT pg_wal_replay_resume()");
    pair.each("stop", &["b"]);
    pair.is_told(&["switchover"], 3, &["-b is exited", "pgpair rejoin"]);
    pair.does(&["rejoin"]);
    pair.has_primary("a");
}

/// Moves the primary again and again under a writer; returns where it ends.
fn switchovers_lose_nothing<'a>(pair: &Deployment, mut primary: &'a str) -> &'a str {
    let median = measured(
        || {
            let gaps;
            (gaps, primary) = switchovers(pair, primary);
            percentile(gaps, 0.5)
        },
        |median| *median < on_this_machine(GAP),
    );
    assert!(
        median < on_this_machine(GAP),
        "the write gap's median is {median:?}"
    );
    primary
}

fn switchovers<'a>(pair: &Deployment, mut primary: &'a str) -> (Vec<Duration>, &'a str) {
    let observer = Observer::start(pair);
    let writer = Writer::start(pair, primary);
    let probe = ([127, 0, 0, 1], pair.port).into();
    let (asked, told) = (Balancers::of(probe), Watch::of(probe));
    let mut times = Vec::new();
    for _ in 0..moves() {
        let before = timeline(pair, primary);
        let began = Instant::now();
        pair.does(&["switchover"]);
        times.push((began, Instant::now()));
        primary = other(primary);
        assert_eq!(timeline(pair, primary), before + 1);
    }
    pair.has_primary(primary);
    let written = writer.end(primary);
    nothing_is_lost(&written);
    let looks = observer.end();
    asked.finish();
    let told = told.finish();
    let splits = told
        .iter()
        .filter(|(verdict, primaries)| verdict == "split_brain" || *primaries > 1);
    assert_eq!(
        splits.count(),
        0,
        "of {} looks at what the probe tells",
        told.len()
    );
    let log = pair.logs("probe");
    assert!(
        log.contains("verdict=") && !log.contains("split_brain"),
        "{log}"
    );
    let gaps: Vec<Duration> = times
        .iter()
        .map(|(from, to)| written.gap_between(*from, *to))
        .collect();
    println!(
        "{} switchovers: write gap median {:?}, all {gaps:?}; {} commits acknowledged, {} lost; {looks} looks, never two primaries; {} looks at the probe, never a split",
        gaps.len(),
        percentile(gaps.iter().copied(), 0.5),
        written.acknowledged,
        written.lost.len(),
        told.len(),
    );
    (gaps, primary)
}

/// Kills the command after each line that it says; the next one takes it up.
fn killed_switchover_is_completed_by_the_next<'a>(
    pair: &Deployment,
    mut primary: &'a str,
) -> &'a str {
    let observer = Observer::start(pair);
    let writer = Writer::start(pair, primary);
    for lines in 1.. {
        let Some(last) = pair.killed_after(&["switchover"], lines) else {
            // It said less than that, so it has ended by itself.
            primary = other(primary);
            break;
        };
        eprintln!("killed after {last:?}");
        let target = other(primary);
        pair.does(&["switchover", target]);
        pair.has_primary(target);
        primary = target;
    }
    pair.has_primary(primary);
    nothing_is_lost(&writer.end(primary));
    observer.end();
    primary
}

/// A query on the standby keeps it from replaying, which is found out when the
/// primary is stopped already: it is started again.
fn standby_that_cannot_replay_leaves_the_primary_where_it_is(pair: &Deployment, primary: &str) {
    let standby = other(primary);
    set(pair, standby, "max_standby_streaming_delay = -1");
    execute(pair, primary, "CREATE TABLE in_the_way ()");
    let mut holder = pair.socket_client(standby).expect("it lets root in");
    eventually(REPLICATION_AT_MOST, "the table is held", || {
        let held = holder.batch_execute("BEGIN; SELECT * FROM in_the_way");
        // It may not have been replicated yet.
        held.or_else(|error| holder.batch_execute("ROLLBACK").and(Err(error)))
            .ok()
    });
    execute(pair, primary, "DROP TABLE in_the_way");

    let observer = Observer::start(pair);
    pair.is_told(
        &["switchover"],
        1,
        &[
            "failed: ",
            "has not replayed",
            &format!("rolled back: {primary} is the primary again"),
        ],
    );
    observer.end();
    drop(holder);
    pair.sql(standby, "ALTER SYSTEM RESET max_standby_streaming_delay");
    pair.sql(standby, "SELECT pg_reload_conf()");
    pair.has_primary(primary);
    assert!(!pair.root.join("journal").exists());
}

fn playbooks_do_the_same(pair: &Deployment, primary: &str) {
    pair.play("switchover.yml", &["--check"]).changed_nothing();
    pair.has_primary(primary);
    let to = format!("postgres_pair_node={}", other(primary));
    assert!(pair.play("switchover.yml", &["-e", &to]).changed() > 0);
    pair.has_primary(other(primary));
    pair.play("switchover.yml", &["-e", &to]).changed_nothing();
    pair.play("rejoin.yml", &[]).changed_nothing();
    pair.play("failover.yml", &[])
        .refused(&["refused: ", "answers", "pgpair switchover"]);
    drill_without_a_guard_measures_the_command(pair, other(primary));
}

fn machines_are_told_how_it_ended(pair: &Deployment, primary: &str) {
    pair.has_primary(primary);
    let said = pair.ends(&["switchover"], 0);
    assert_eq!(said["outcome"], "done", "{said}");
    assert_eq!(said["primary"], other(primary), "{said}");
    assert!(said["timeline"].as_u64() > Some(1), "{said}");
    assert!(said["gap_ms"].as_u64() > Some(0), "{said}");
    assert!(said["reason"].is_null(), "{said}");
    let again = pair.ends(&["switchover", other(primary)], 0);
    assert_eq!(again["outcome"], "nothing", "{again}");
    pair.has_primary(other(primary));
}

fn drill_without_a_guard_measures_the_command(pair: &Deployment, primary: &str) {
    let before = ["a", "b"].map(|node| identity(pair, node));
    pair.play("drill.yml", &["--check"]).changed_nothing();
    pair.play("drill.yml", &[]).refused(&[
        "Nothing was killed",
        &pair.container(primary),
        "confirm=yes",
    ]);
    pair.each("pause", &[other(primary)]);
    pair.play("drill.yml", &["-e", "confirm=yes"])
        .refused(&["refused: ", &pair.container(other(primary))]);
    pair.each("unpause", &[other(primary)]);
    assert_eq!(["a", "b"].map(|node| identity(pair, node)), before);

    pair.has_primary(primary);
    // Asynchronous: a row that was not sent yet is counted.
    let play = pair.play(
        "drill.yml",
        &["-e", "confirm=yes", "-e", "postgres_pair_accept_loss=true"],
    );
    assert_eq!(play.changed(), 1);
    let saw = Drill::read(&play.stdout);
    println!("drill.yml without a guard: {saw:?}");
    assert!(saw.acknowledged > 100 && saw.lost < 10, "{saw:?}");
    assert!(saw.in_order(), "{saw:?}");
    pair.has_primary(other(primary));
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'pgpair_drill'";
    assert_eq!(pair.sql(other(primary), schemas), "0");
}

/// A primary that is lost, and what is left of it.
#[test]
fn lost_primary_is_replaced_and_comes_back_as_a_standby() {
    let pair = Deployment::new("lose");
    pair.site(&[]).changed();
    pair.has_primary("a");
    fenced_primary_that_is_started_by_hand_is_no_primary(&pair, "a");
    let primary = killed_primary_is_replaced_without_loss(&pair, "b");
    let primary = frozen_primary_is_replaced(&pair, primary);
    let primary = loss_is_told_and_must_be_accepted(&pair, primary);
    killed_failover_is_completed_by_the_next(&pair, primary);
    let primary = other(primary);
    standby_whose_wal_is_gone_is_copied_anew(&pair, primary);
    data_that_cannot_be_rewound_is_copied_anew_and_kept_until_then(&pair, primary);
}

fn killed_primary_is_replaced_without_loss<'a>(pair: &Deployment, mut primary: &'a str) -> &'a str {
    for _ in 0..moves() {
        let observer = Observer::start(pair);
        let writer = Writer::start(pair, primary);
        std::thread::sleep(Duration::from_millis(300));
        pair.each("kill", &[primary]);
        let done = pair.runs(&["failover"]);
        // Asynchronous: the last commits may not have been sent. They are counted
        // by what is on the dead one's disk, and nothing is touched.
        let lost = done.code() == 3;
        if lost {
            told(&done, 3, &["transactions", "--accept-loss"]);
            pair.each("start", &[primary]);
            pair.has_primary(primary);
        } else {
            assert_eq!(done.code(), 0, "{}", done.stderr);
            primary = other(primary);
            pair.has_primary(primary);
        }
        nothing_is_lost(&writer.end(primary));
        observer.end();
    }
    primary
}

fn frozen_primary_is_replaced<'a>(pair: &Deployment, primary: &'a str) -> &'a str {
    let observer = Observer::start(pair);
    pair.each("pause", &[primary]);
    let said = pair.does(&["failover"]);
    assert!(said.contains("did not answer"), "{said}");
    observer.end();
    let primary = other(primary);
    pair.has_primary(primary);
    primary
}

fn loss_is_told_and_must_be_accepted<'a>(pair: &Deployment, primary: &'a str) -> &'a str {
    let standby = other(primary);
    pair.sql(primary, "CREATE TABLE IF NOT EXISTS kept (id int)");
    pair.sql(primary, "TRUNCATE kept");
    pair.sql(primary, "INSERT INTO kept VALUES (1)");
    eventually(REPLICATION_AT_MOST, "it is replicated", || {
        (pair.sql(standby, "SELECT count(*) FROM kept") == "1").then_some(())
    });
    // A paused standby would still be sent what it takes in once it goes on.
    set(pair, standby, "primary_conninfo = ''");
    eventually(REPLICATION_AT_MOST, "it streams no more", || {
        let count = "SELECT count(*) FROM pg_stat_replication";
        (pair.sql(primary, count) == "0").then_some(())
    });
    for _ in 0..5 {
        pair.sql(primary, "INSERT INTO kept VALUES (2)");
    }
    pair.each("kill", &[primary]);
    // Nor can they be brought over.
    let lacks = [
        "lacks 5 transactions",
        "could not be brought over",
        "--accept-loss",
        "docker start",
    ];
    pair.is_told(&["failover"], 3, &lacks);
    assert!(!pair.data(primary).join("standby.signal").exists());
    let mut failover = pair.begins(&["failover", "--accept-loss"]);
    failover.says_that("lacks 5 transactions");
    // The old one is made from it.
    pair.sql(standby, "ALTER SYSTEM RESET primary_conninfo");
    pair.sql(standby, "SELECT pg_reload_conf()");
    assert_eq!(failover.ends().code(), 0);
    pair.has_primary(standby);
    assert_eq!(pair.sql(standby, "SELECT count(*) FROM kept"), "1");
    eventually(REPLICATION_AT_MOST, "the old one has been rewound", || {
        (pair.sql(primary, "SELECT count(*) FROM kept") == "1").then_some(())
    });
    standby
}

fn killed_failover_is_completed_by_the_next(pair: &Deployment, primary: &str) {
    let mut primary = primary.to_owned();
    let first = primary.clone();
    let observer = Observer::start(pair);
    for lines in 1.. {
        pair.each("kill", &[&primary]);
        let Some(last) = pair.killed_after(&["failover"], lines) else {
            primary = other(&primary).to_owned();
            break;
        };
        eprintln!("killed after {last:?}");
        let target = other(&primary);
        pair.does(&["failover", target]);
        pair.has_primary(target);
        primary = target.to_owned();
    }
    pair.has_primary(&primary);
    if primary == first {
        pair.does(&["switchover"]);
    }
    observer.end();
}

fn standby_whose_wal_is_gone_is_copied_anew(pair: &Deployment, primary: &str) {
    let standby = other(primary);
    pair.each("stop", &[standby]);
    let slot = format!("{}_{standby}", pair.prefix.replace('-', "_"));
    let sql = format!("SELECT pg_drop_replication_slot('{slot}')");
    eventually(REPLICATION_AT_MOST, "its slot is free", || {
        let dropped = pair.socket_client(primary).ok()?.simple_query(&sql);
        dropped.ok()
    });
    set(pair, primary, "wal_keep_size = 0");
    for _ in 0..3 {
        pair.sql(
            primary,
            "SELECT pg_logical_emit_message(false, 'x', 'x'), pg_switch_wal()",
        );
        pair.sql(primary, "CHECKPOINT");
    }
    let said = pair.does(&["rejoin"]);
    assert!(said.contains("has a copy"), "{said}");
    pair.sql(primary, "ALTER SYSTEM RESET wal_keep_size");
    pair.sql(primary, "SELECT pg_reload_conf()");
    pair.has_primary(primary);
    only_data_is_left(pair, standby);
}

fn data_that_cannot_be_rewound_is_copied_anew_and_kept_until_then(
    pair: &Deployment,
    primary: &str,
) {
    pair.each("kill", &[primary]);
    let wal = pair.data(primary).join("pg_wal");
    // What the crashed one needs for its recovery.
    for file in fs::read_dir(&wal).expect("a folder").flatten() {
        if file.file_type().expect("a type").is_file() {
            fs::remove_file(file.path()).expect("removes");
        }
    }
    pair.is_told(
        &["failover"],
        3,
        &["lacks an unknown amount", "--accept-loss"],
    );
    let said = pair.does(&["failover", "--accept-loss"]);
    assert!(
        said.contains("cannot be rewound") && said.contains("has a copy"),
        "{said}"
    );
    pair.has_primary(other(primary));
    only_data_is_left(pair, primary);
}

/// Nothing is left beside a node's data.
fn only_data_is_left(pair: &Deployment, node: &str) {
    let data = pair.data(node);
    let folder = data.parent().expect("it has one");
    let names: Vec<_> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("readable").file_name())
        .collect();
    assert_eq!(names, ["pgdata"]);
}

/// Whoever starts the old primary after it was fenced: it takes no write.
fn fenced_primary_that_is_started_by_hand_is_no_primary(pair: &Deployment, primary: &str) {
    let observer = Observer::start(pair);
    let mut child = pair
        .pgpair(&["switchover"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let fence = pair.data(primary).join("standby.signal");
    eventually(REPLICATION_AT_MOST, "it is fenced", || {
        fence.exists().then_some(())
    });
    for _ in 0..20 {
        pair.each("start", &[primary]);
    }
    let ended = process::wait(&mut child, Duration::from_secs(120));
    assert!(ended.is_some(), "the command ends");
    pair.runs(&["rejoin"]);
    pair.has_primary(other(primary));
    observer.end();
}
