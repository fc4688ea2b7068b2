//! The guard: a primary that is lost while nobody looks is replaced within
//! seconds, without losing what was acknowledged, and comes back as a standby.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::clock::WallClock;
use crate::support::command::{Observer, Writer, moves, on_this_machine, other};
use crate::support::deployment::{Deployment, required};
use crate::support::{eventually, packages, percentile, process};

/// From the primary's death to the next commit, in the median.
const FAILOVER: Duration = Duration::from_secs(10);

/// In which the guard must have done what it does, on a machine that is busy.
const GUARD_AT_MOST: Duration = Duration::from_secs(90);

/// A guard that runs until it is dropped.
pub struct Guard<'a> {
    pair: &'a Deployment,
    child: Child,
}

impl<'a> Guard<'a> {
    pub fn start(pair: &'a Deployment, arguments: &[&str]) -> Guard<'a> {
        let all = [&["guard"], arguments].concat();
        Guard::run(pair, &mut pair.pgpair(&all))
    }

    /// Starts cargo's own build, which lives by this clock.
    pub fn start_by(pair: &'a Deployment, clock: &WallClock, arguments: &[&str]) -> Guard<'a> {
        let all = [&["guard"], arguments].concat();
        let mut command = pair.pgpair_by(env!("CARGO_BIN_EXE_pgpair"), &all);
        Guard::run(pair, command.envs(clock.variables()))
    }

    fn run(pair: &'a Deployment, command: &mut Command) -> Guard<'a> {
        let child = command.stdin(Stdio::null()).spawn();
        let child = child.expect("the binary runs");
        Guard { pair, child }
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let done = process::run(
            Command::new("kill").args(["-s", name, &pid]),
            b"",
            GUARD_AT_MOST,
        );
        assert!(done.status.success(), "{done:?}");
    }

    /// Waits until the probe says this of it.
    pub fn says(&self, key: &str, value: impl Into<Value>) {
        is_said_of_the_guard(self.pair, key, value);
    }

    /// Tells it to stop, as systemd does, and sees that it does.
    pub fn stop(mut self) {
        let pid = self.child.id().to_string();
        process::run(Command::new("kill").arg(pid), b"", GUARD_AT_MOST);
        let ended = process::wait(&mut self.child, GUARD_AT_MOST);
        assert_eq!(ended.and_then(|status| status.code()), Some(0));
        is_said_of_the_guard(self.pair, "state", "stopped");
    }
}

/// What the probe says of the guard.
pub fn report(pair: &Deployment) -> Option<Value> {
    let status = pair.try_get("/status").ok()?.json();
    Some(status["guard"].clone())
}

/// Waits until the probe says this of the guard.
fn is_said_of_the_guard(pair: &Deployment, key: &str, value: impl Into<Value>) {
    let value = value.into();
    let what = format!("of the guard is said: {key} {value}");
    eventually(GUARD_AT_MOST, &what, || {
        (report(pair)?[key] == value).then_some(())
    });
}

/// Returns the metrics about the guard.
fn metrics(pair: &Deployment) -> Vec<String> {
    let text = pair.get("/metrics").body;
    let about = text
        .lines()
        .filter(|line| line.starts_with("pgpair_guard_"));
    about.map(str::to_owned).collect()
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        process::end(&mut self.child);
    }
}

#[test]
fn guard_replaces_a_dead_primary_and_keeps_what_it_promises() {
    let pair = Deployment::new("guard");
    pair.site(&[]).changed();
    pair.has_primary("a");
    assert_eq!(report(&pair), Some(json!({ "state": "absent" })));
    assert_eq!(metrics(&pair), [""; 0], "nobody misses one");
    let guard = Guard::start(
        &pair,
        &[
            "--sync",
            "sync",
            "--sync-limit",
            "2s",
            "--max-failovers",
            "100",
        ],
    );
    guard.says("mode", "sync");
    pair.is_told(&["guard"], 3, &["another guard is at work"]);
    let primary = guarded_failovers_lose_nothing(&pair, &guard, "a");
    let primary = frozen_primary_is_replaced_too(&pair, &guard, primary);
    standby_that_is_gone_stops_no_commit_for_long(&pair, &guard, primary);
    paused_guard_replaces_nobody(&pair, &guard, primary);
    let primary = other(primary);
    primary_has_time_to_come_up_after_its_standby(&pair, &guard, primary);
    let primary = other(primary);
    guard.stop();
    strict_guard_lets_commits_wait(&pair, primary);
    guard_that_replaced_too_many_refuses(&pair, primary);
}

/// Waits until the guard has made this node the primary.
fn comes_to_take_writes(pair: &Deployment, node: &str) {
    eventually(GUARD_AT_MOST, "the other one takes writes", || {
        let mut client = pair.socket_client(node).ok()?;
        let asked = client.query_one("SELECT pg_is_in_recovery()", &[]);
        (!asked.ok()?.get::<_, bool>(0)).then_some(())
    });
}

fn guarded_failovers_lose_nothing<'a>(
    pair: &Deployment,
    guard: &Guard<'_>,
    mut primary: &'a str,
) -> &'a str {
    let mut back = Vec::new();
    let (mut acknowledged, mut looks) = (0, 0);
    for _ in 0..moves() {
        guard.says("synchronous", true);
        let observer = Observer::start(pair);
        let writer = Writer::start(pair, primary);
        std::thread::sleep(Duration::from_millis(500));
        let killed = Instant::now();
        pair.each("kill", &[primary]);
        let next = other(primary);
        comes_to_take_writes(pair, next);
        eventually(GUARD_AT_MOST, "the old one streams again", || {
            let sql = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
            let asked = pair.socket_client(next).ok()?.query_one(sql, &[]);
            (asked.ok()?.get::<_, i64>(0) == 1).then_some(())
        });
        primary = next;
        pair.has_primary(primary);
        let written = writer.end(primary);
        assert_eq!(written.lost, [0; 0], "of {}", written.acknowledged);
        back.push(written.back_after(killed));
        acknowledged += written.acknowledged;
        looks += observer.end();
    }
    let median = percentile(back.iter().copied(), 0.5);
    println!(
        "{} guarded failovers: kill to first commit median {median:?}, all {back:?}; {acknowledged} commits acknowledged, 0 lost; {looks} looks, never two primaries",
        back.len()
    );
    assert!(median < on_this_machine(FAILOVER), "{back:?}");
    primary
}

fn frozen_primary_is_replaced_too<'a>(
    pair: &Deployment,
    guard: &Guard<'_>,
    primary: &'a str,
) -> &'a str {
    guard.says("synchronous", true);
    let observer = Observer::start(pair);
    pair.each("pause", &[primary]);
    let next = other(primary);
    comes_to_take_writes(pair, next);
    pair.has_primary(next);
    observer.end();
    next
}

fn standby_that_is_gone_stops_no_commit_for_long(
    pair: &Deployment,
    guard: &Guard<'_>,
    primary: &str,
) {
    guard.says("synchronous", true);
    pair.each("stop", &[other(primary)]);
    // It waits for the standby until the guard gives that up.
    pair.sql(primary, "CREATE TABLE IF NOT EXISTS waited ()");
    guard.says("synchronous", false);
    pair.each("start", &[other(primary)]);
    guard.says("synchronous", true);
}

fn paused_guard_replaces_nobody(pair: &Deployment, guard: &Guard<'_>, primary: &str) {
    let paused = pair.ends(&["guard", "pause", "1h", "--wait"], 0);
    assert_eq!(paused["outcome"], "done", "{paused}");
    let there = pair.ends(&["inspect"], 0);
    assert_eq!(there["guard"]["state"], "paused", "{there}");
    assert_eq!(there["guard"]["paused_until"], paused["paused_until"]);
    assert_eq!(there["promise"]["mode"], "sync", "{there}");
    let left = pair.ends(&["guard", "pause", "1m", "--unless-paused"], 0);
    assert_eq!(left["outcome"], "nothing", "a person paused it: {left}");
    assert_eq!(left["paused_until"], paused["paused_until"]);
    let other_end = pair.ends(&["guard", "resume", "1"], 0);
    assert_eq!(other_end["outcome"], "nothing", "{other_end}");
    guard.says("state", "paused");
    everybody_is_told(pair);
    pair.each("kill", &[primary]);
    // Twice as long as it takes to give a primary up.
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(pair.sql(other(primary), "SELECT pg_is_in_recovery()"), "t");
    pair.does(&["guard", "resume"]);
    comes_to_take_writes(pair, other(primary));
    pair.has_primary(other(primary));
}

/// Both are restarted, and the standby is the first: that costs no failover, unless
/// the primary stays away.
fn primary_has_time_to_come_up_after_its_standby(
    pair: &Deployment,
    guard: &Guard<'_>,
    primary: &str,
) {
    guard.says("synchronous", true);
    let observer = Observer::start(pair);
    for comes_back in [true, false] {
        let stopped = Instant::now();
        pair.each("stop", &[primary, other(primary)]);
        pair.each("start", &[other(primary)]);
        pair.accepts(other(primary));
        // Longer than it takes to give a primary up.
        std::thread::sleep(Duration::from_secs(10).saturating_sub(stopped.elapsed()));
        assert_eq!(pair.sql(other(primary), "SELECT pg_is_in_recovery()"), "t");
        if comes_back {
            pair.each("start", &[primary]);
            pair.has_primary(primary);
            guard.says("synchronous", true);
        } else {
            comes_to_take_writes(pair, other(primary));
            pair.has_primary(other(primary));
        }
    }
    observer.end();
}

fn strict_guard_lets_commits_wait(pair: &Deployment, primary: &str) {
    let guard = Guard::start(pair, &["--sync", "strict", "--sync-limit", "1s"]);
    guard.says("mode", "strict");
    guard.says("synchronous", true);
    pair.each("stop", &[other(primary)]);
    let mut client = pair.socket_client(primary).expect("it lets root in");
    let (sender, committed) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = sender.send(client.batch_execute("CREATE TABLE waits (); DROP TABLE waits"));
    });
    let early = committed.recv_timeout(Duration::from_secs(5));
    assert!(early.is_err(), "it did not wait: {early:?}");
    guard.says("synchronous", true);
    pair.each("start", &[other(primary)]);
    let late = committed.recv_timeout(GUARD_AT_MOST);
    late.expect("it waits no longer").expect("it is committed");
    pair.has_primary(primary);
    guard.stop();
}

fn everybody_is_told(pair: &Deployment) {
    let said = report(pair).expect("it answers");
    assert_eq!(
        (&said["mode"], &said["synchronous"]),
        (&json!("sync"), &json!(true))
    );
    let until = said["paused_until"].as_str().expect("a time");
    let told = metrics(pair);
    for line in [
        "pgpair_guard_up 1",
        "pgpair_guard_state{state=\"paused\"} 1",
        "pgpair_guard_state{state=\"watching\"} 0",
        "pgpair_guard_mode{mode=\"sync\"} 1",
        "pgpair_guard_synchronous 1",
    ] {
        assert!(told.iter().any(|it| it == line), "{line} in {told:?}");
    }
    let table = process::run(
        Command::new(required("PGPAIR_TEST_BINARY"))
            .arg("status")
            .arg(pair.url("/status")),
        b"",
        GUARD_AT_MOST,
    );
    let line = "guard paused, sync: synchronous\n";
    assert!(table.stdout.ends_with(line), "{table:?}");

    packages::require();
    let browser = Browser::start();
    browser.open(&pair.url("/ui"));
    let clock = browser.script(&format!(
        "return new Date('{until}').toTimeString().slice(0, 8)"
    ));
    let words = [
        "Guard".to_owned(),
        format!("Paused until {}", clock.as_str().expect("a time")),
        "Every acknowledged commit is on the standby’s disk.".to_owned(),
    ];
    eventually(GUARD_AT_MOST, "the page tells of the guard", || {
        let text = browser.script("return document.body.innerText");
        let text = text.as_str()?.to_owned();
        let all = words
            .iter()
            .all(|word| text.to_lowercase().contains(&word.to_lowercase()));
        all.then_some(())
    });
    browser.screenshot("guard-paused");
    assert_eq!(browser.console(), [""; 0], "nothing to complain of");
}

fn guard_that_replaced_too_many_refuses(pair: &Deployment, primary: &str) {
    let guard = Guard::start(pair, &["--sync", "async", "--max-failovers", "0"]);
    guard.says("mode", "async");
    guard.says("synchronous", false);
    eventually(GUARD_AT_MOST, "commits wait no more", || {
        (pair
            .sql(primary, "SHOW synchronous_standby_names")
            .is_empty())
        .then_some(())
    });
    pair.each("kill", &[primary]);
    guard.says("state", "blocked");
    let report = report(pair).expect("it answers");
    let detail = report["detail"].as_str().expect("a detail");
    assert!(detail.contains("within the last hour"), "{detail}");
    assert_eq!(report["reason"], "too_many_failovers");
    let told = metrics(pair);
    let blocked = "pgpair_guard_blocked{reason=\"too_many_failovers\"} 1";
    assert!(told.iter().any(|it| it == blocked), "{told:?}");
    pair.each("start", &[primary]);
    guard.says("state", "watching");
    pair.has_primary(primary);
    drop(guard);
    is_said_of_the_guard(pair, "state", "silent");
    let told = metrics(pair);
    assert_eq!(told, ["pgpair_guard_up 0"], "the rest is unknown");
}
