//! Days of the ground that a pair stands on: its containers and its disk. On an
//! engine of the test's own, whose /srv is small.

use std::fs::{self, File};
use std::io::Write;
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::orders::{
    every_order_brings_the_same_primary_back, fenced_primary_is_none_in_any_order,
};
use super::{BY_ITSELF, MEMORY, becomes_primary, did_it_or_said_why, has_a_row, signal};
use crate::guard::{Guard, report};
use crate::support::command::{Observer, Running, Writer, other};
use crate::support::deployment::Deployment;
use crate::support::docker::{docker, postgres_image};
use crate::support::engine::Engine;
use crate::support::{eventually, ms, process};

/// What /srv holds, in megabytes: both nodes' data, a copy, and room.
const SRV: usize = 1536;

/// A container is killed when it has not stopped after these seconds.
const STOP: &str = "_postgres_pair_stop_timeout=5";

const SITE: [&str; 4] = ["-e", STOP, "-e", MEMORY];

/// How long the disk stays full under a command.
const FULL: Duration = Duration::from_secs(10);

const COMMANDS: [&str; 3] = ["switchover", "failover", "rejoin"];

/// One pair through all of it, as bringing one up takes the longest.
#[test]
fn pair_survives_what_happens_to_its_containers_and_its_disk() {
    let Some(_engine) = Engine::of_its_own(SRV) else {
        return;
    };
    let pair = Deployment::new("ground");
    pair.site(&SITE).changed();
    pair.has_primary("a");
    has_a_row(&pair, "a");
    every_order_brings_the_same_primary_back(&pair, "a", &["stop", "kill"]);
    who_comes_second_is_told_of_the_first(&pair);
    every_order_brings_the_same_primary_back(&pair, "b", &["stop"]);
    what_is_not_well_is_refused(&pair, "b");
    standby_whose_container_is_gone_is_told(&pair, "b");
    primary_whose_container_is_gone_is_replaced(&pair, "b");
    every_order_brings_the_same_primary_back(&pair, "a", &["stop"]);
    fenced_primary_is_none_in_any_order(&pair, "a");
    roll_back_that_was_cut_off_makes_no_second_primary(&pair, "b");
    full_disk_is_refused_and_loses_nothing(&pair, "b");
    disk_that_fills_up_on_the_way_loses_nothing(&pair, "b");
    data_that_is_not_a_pairs_is_refused_and_kept(&pair, "b");
    copy_that_was_begun_is_made_anew(&pair, "b");
    assert_eq!(pair.sql("b", "SELECT count(*) FROM days"), "1");
    assert_eq!(pair.sql("a", "SELECT count(*) FROM days"), "1");
}

fn who_comes_second_is_told_of_the_first(pair: &Deployment) {
    let mut first = pair.begins(&["switchover"]);
    first.says(1);
    first.signal("STOP");
    for second in COMMANDS {
        let told = [
            "refused: pgpair switchover (pid ",
            "is at work on this pair: wait",
        ];
        pair.is_told(&[second], 3, &told);
    }
    first.signal("CONT");
    assert_eq!(first.ends().code(), 0);
    pair.has_primary("b");
}

fn what_is_not_well_is_refused(pair: &Deployment, primary: &str) {
    let standby = other(primary);
    pair.sql(standby, "SELECT pg_wal_replay_pause()");
    pair.sql(
        primary,
        "SELECT pg_logical_emit_message(true, 'x', repeat('x', 1000000)) FROM generate_series(1, 24)",
    );
    pair.is_told(
        &["switchover"],
        3,
        &["MB behind: wait until it has caught up"],
    );
    pair.sql(standby, "SELECT pg_wal_replay_resume()");

    pair.each("stop", &[standby]);
    pair.is_told(
        &["switchover"],
        3,
        &["is exited: start it, or run pgpair rejoin"],
    );
    pair.each("kill", &[primary]);
    pair.is_told(
        &["failover"],
        3,
        &["the standby", "is exited: start it, or start the primary"],
    );
    pair.each("start", &[standby]);
    pair.is_told(&["switchover"], 3, &["is exited: run pgpair failover"]);
    pair.is_told(
        &["rejoin"],
        3,
        &[
            "the primary does not answer",
            "start it, or run pgpair failover",
        ],
    );
    pair.each("start", &[primary]);
    pair.has_primary(primary);

    // PostgreSQL says nothing, and its container runs.
    let pid = pair.inspect(primary)["State"]["Pid"].to_string();
    signal("STOP", &pid);
    pair.is_told(
        &["switchover"],
        3,
        &["does not answer", "run pgpair failover"],
    );
    signal("CONT", &pid);
    pair.has_primary(primary);
}

fn standby_whose_container_is_gone_is_told(pair: &Deployment, primary: &str) {
    let standby = other(primary);
    let gone = format!(
        "there is no container {}: run site.yml",
        pair.container(standby)
    );
    let guard = Guard::start(pair, &[]);
    guard.says("state", "watching");
    docker(&["rm", "--force", &pair.container(standby)]);
    pair.is_told(&["switchover"], 3, &[&gone]);
    pair.is_told(&["rejoin"], 3, &[&gone]);
    pair.each("kill", &[primary]);
    pair.is_told(&["failover"], 3, &[&gone]);
    guard_is_blocked(pair, &gone);
    pair.each("start", &[primary]);
    guard.says("state", "watching");
    guard.stop();
    pair.site(&SITE).changed();
    pair.has_primary(primary);
}

fn primary_whose_container_is_gone_is_replaced(pair: &Deployment, primary: &str) {
    let observer = Observer::start(pair);
    let gone = format!(
        "there is no container {}: run site.yml",
        pair.container(primary)
    );
    let guard = Guard::start(pair, &[]);
    guard.says("state", "watching");
    docker(&["rm", "--force", &pair.container(primary)]);
    pair.is_told(&["switchover"], 3, &[&gone]);
    let next = other(primary);
    becomes_primary(pair, next);
    guard_is_blocked(pair, &gone);
    // It looks every half second, and tries again every ten.
    for _ in 0..12 {
        let report = report(pair).expect("the probe answers");
        assert_ne!(report["state"], "watching", "nothing has been mended");
        thread::sleep(ms(250));
    }
    pair.is_told(&["rejoin"], 3, &[&gone]);
    pair.site(&SITE).changed();
    pair.has_primary(next);
    guard.says("state", "watching");
    guard.stop();
    observer.end();
}

/// A promotion was given up, and who took that back was killed: the old primary
/// has its right again, and the journal still says that the other is promoted.
fn roll_back_that_was_cut_off_makes_no_second_primary(pair: &Deployment, primary: &str) {
    let observer = Observer::start(pair);
    let writer = Writer::start(pair, primary);
    let target = other(primary);
    let left = format!(
        "kind=switchover from={primary} to={target} step=promoting accept_loss=false ran=true\n"
    );
    fs::write(pair.root.join("journal"), left).expect("writes");
    let said = pair.does(&["switchover", target]);
    assert!(said.contains("is stopped and fenced"), "{said}");
    pair.has_primary(target);
    let written = writer.end(target);
    assert_eq!(written.lost, [0; 0], "of {}", written.acknowledged);
    observer.end();
    pair.does(&["switchover", primary]);
    pair.has_primary(primary);
}

fn full_disk_is_refused_and_loses_nothing(pair: &Deployment, primary: &str) {
    let observer = Observer::start(pair);
    let full = Ballast::leaving(0);
    pair.is_told(&["switchover"], 3, &["refused: ", "MB free", "free some"]);
    pair.each("kill", &[primary]);
    pair.is_told(&["failover"], 3, &["refused: ", "MB free", "free some"]);
    drop(full);
    pair.each("start", &[primary]);
    pair.has_primary(primary);

    // A standby that cannot start for want of room is not rewound, nor copied.
    pair.each("stop", &[other(primary)]);
    let full = Ballast::leaving(0);
    pair.is_told(&["rejoin"], 1, &["failed: ", "MB free", "free some"]);
    drop(full);
    let said = pair.does(&["rejoin"]);
    for word in ["rewind", "copying"] {
        assert!(!said.contains(word), "{said}");
    }
    pair.has_primary(primary);

    // The guard waits for room, and does without its own memory. A little is left,
    // for its report.
    let guard = Guard::start(pair, &[]);
    guard.says("state", "watching");
    let full = Ballast::leaving(1);
    pair.each("kill", &[primary]);
    guard_is_blocked(pair, "MB free");
    let in_the_way = pair.root.join("guard.new");
    fs::create_dir_all(in_the_way.join("x")).expect("makes");
    drop(full);
    becomes_primary(pair, other(primary));
    pair.has_primary(other(primary));
    fs::remove_dir_all(&in_the_way).expect("removes");
    guard.says("state", "watching");
    guard.stop();
    observer.end();
    pair.does(&["switchover", primary]);
    pair.has_primary(primary);
}

/// The disk is full from one step of a command on. It gets through or goes back,
/// and the next one makes the pair whole.
fn disk_that_fills_up_on_the_way_loses_nothing(pair: &Deployment, primary: &str) {
    let observer = Observer::start(pair);
    for (command, words) in [
        ("switchover", "checkpoint made"),
        ("switchover", "stopped and fenced"),
        ("failover", "stopped and fenced"),
        ("failover", "takes writes"),
    ] {
        let target = other(primary);
        let mut writer = Some(Writer::start(pair, primary));
        let room = Ballast::leaving(100);
        if command == "failover" {
            // What is not on the standby yet would be counted as lost.
            lost_nothing(writer.take(), primary);
            pair.each("kill", &[primary]);
        }
        fills_up(pair, command, target, words);
        drop(room);
        gets_through(pair, command, target);
        lost_nothing(writer, target);
        pair.does(&["switchover", primary]);
        pair.has_primary(primary);
    }
    observer.end();
}

fn lost_nothing(writer: Option<Writer>, primary: &str) {
    if let Some(writer) = writer {
        let written = writer.end(primary);
        assert_eq!(written.lost, [0; 0], "of {}", written.acknowledged);
    }
}

/// Repeats a command, as it says, until the target is the primary of a whole pair. A
/// server that found no room may have crashed, and Docker takes its time to start it.
fn gets_through(pair: &Deployment, command: &str, target: &str) {
    let succeeds = |arguments: &[&str]| {
        let done = pair.runs(arguments);
        did_it_or_said_why(&done);
        done.code() == 0
    };
    eventually(BY_ITSELF, &format!("a {command} gets through"), || {
        // A standby that does not run is in the way.
        (succeeds(&[command, target]) || succeeds(&["rejoin"]) && succeeds(&[command, target]))
            .then_some(())
    });
    becomes_primary(pair, target);
    eventually(BY_ITSELF, "a rejoin gets through", || {
        succeeds(&["rejoin"]).then_some(())
    });
    pair.has_primary(target);
}

fn fills_up(pair: &Deployment, command: &str, target: &str, words: &str) {
    let mut running: Running = pair.begins(&[command, target]);
    running.says_that(words);
    running.signal("STOP");
    let full = Ballast::leaving(0);
    running.signal("CONT");
    eprintln!("--- the disk is full after {words:?} of a {command}");
    // It may wait for a server that finds no room, longer than we do.
    running.may_end(FULL);
    drop(full);
    did_it_or_said_why(&running.ends());
}

fn data_that_is_not_a_pairs_is_refused_and_kept(pair: &Deployment, primary: &str) {
    let standby = other(primary);
    pair.each("stop", &[standby, primary]);
    let signal = |node| pair.data(node).join("standby.signal");

    fs::rename(signal(standby), pair.root.join("aside")).expect("it is there");
    nothing_is_done(
        pair,
        "both nodes are primaries on disk: decide which is right",
    );
    fs::copy(pair.root.join("aside"), signal(primary)).expect("copies");
    fs::rename(pair.root.join("aside"), signal(standby)).expect("it is there");
    nothing_is_done(pair, "no primary on disk");
    fs::remove_file(signal(primary)).expect("it is there");

    let (own, aside) = (pair.data(standby), pair.root.join("aside"));
    fs::rename(&own, &aside).expect("it is there");
    for with_signal in [true, false] {
        let folder = own.parent().expect("it has one").display().to_string();
        docker(&[
            "run",
            "--rm",
            "--network",
            "none",
            "--user",
            "999:999",
            "--volume",
            &format!("{folder}:/d"),
            "--entrypoint",
            "initdb",
            &postgres_image(),
            "--no-sync",
            "/d/pgdata",
        ]);
        if with_signal {
            File::create(signal(standby)).expect("creates");
        }
        nothing_is_done(pair, "the nodes hold different databases");
        fs::remove_dir_all(&own).expect("removes");
    }
    fs::rename(&aside, &own).expect("it is there");
    pair.each("start", &[primary, standby]);
    pair.has_primary(primary);
}

/// Every command refuses, and touches no data.
fn nothing_is_done(pair: &Deployment, words: &str) {
    let look = || {
        let mut find = Command::new("find");
        for node in ["a", "b"] {
            find.arg(pair.root.join(node).join("data"));
        }
        process::run(find.args(["-printf", "%p %s %C@\\n"]), b"", BY_ITSELF).stdout
    };
    let before = look();
    for command in COMMANDS {
        pair.is_told(&[command], 3, &["refused: ", words]);
    }
    let guard = Guard::start(pair, &[]);
    guard_is_blocked(pair, words);
    guard.stop();
    assert_eq!(look(), before);
}

/// A rejoin that is killed while it copies leaves a part of a copy.
fn copy_that_was_begun_is_made_anew(pair: &Deployment, primary: &str) {
    let standby = other(primary);
    pair.each("stop", &[standby]);
    fs::remove_dir_all(pair.data(standby)).expect("removes");
    let mut rejoin = pair.begins(&["rejoin"]);
    rejoin.says_that("copying");
    let half = pair.data(standby).with_extension("new");
    eventually(BY_ITSELF, "the copy is begun", || {
        half.exists().then_some(())
    });
    drop(rejoin);
    fs::create_dir_all(half.join("left")).expect("makes");
    pair.does(&["rejoin"]);
    pair.has_primary(primary);
    let data = pair.data(standby);
    let names = fs::read_dir(data.parent().expect("it has one")).expect("a folder");
    let names: Vec<_> = names.map(|it| it.expect("readable").file_name()).collect();
    assert_eq!(names, ["pgdata"]);
}

fn guard_is_blocked(pair: &Deployment, words: &str) {
    eventually(BY_ITSELF, &format!("the guard says {words:?}"), || {
        let report = report(pair)?;
        let told = report["detail"].as_str()?.contains(words);
        (report["state"] == "blocked" && told).then_some(())
    });
}

/// What fills /srv up, until it is dropped.
struct Ballast(&'static str);

impl Ballast {
    /// Leaves so many megabytes free.
    fn leaving(megabytes: u64) -> Ballast {
        let path = match megabytes {
            0 => "/srv/ballast-to-the-brim",
            _ => "/srv/ballast",
        };
        let mut file = File::create(path).expect("creates");
        for block in [vec![0; 1 << 20], vec![0; 4096]] {
            while free_bytes() > megabytes << 20 && file.write_all(&block).is_ok() {}
        }
        Ballast(path)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        fs::remove_file(self.0).expect("it is there");
    }
}

fn free_bytes() -> u64 {
    let about = rustix::fs::statvfs("/srv").expect("it is mounted");
    about.f_bavail * about.f_frsize
}
