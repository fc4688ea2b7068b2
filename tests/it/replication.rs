//! Who is primary, who streams and how far behind: role endpoints, lag, pair
//! verdicts, `/status` and `pgpair status`, against real replication.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::load::{self, Load};
use crate::support::postgres::conninfo;
use crate::support::probe::{binary, pgpair};
use crate::support::replication::{Foreign, NOT_WHOLE, SERVER, TOLD_WITHIN, WHOLE, run_status};
use crate::support::trial::{ALONE, BOTH, CONNECTIONS_AT_MOST};
use crate::support::{
    PASSWORD, Pair, Postgres, Probe, Trial, eventually, fake, measured, ms, percentile, process,
    seconds_by,
};

/// WAL that is more than anything that servers write by themselves.
const MUCH: u64 = 2 * 1024 * 1024;

// A pair that is well.

#[test]
fn every_role_is_found_in_a_pair_that_is_well() {
    let pair = Pair::start();
    let probe = pair.probe_when_well();
    for (path, status, reason, node) in [
        ("/", 200, "ok", Some("a")),
        ("/primary", 200, "ok", Some("a")),
        ("/read-write", 200, "ok", Some("a")),
        ("/leader", 200, "ok", Some("a")),
        ("/master", 200, "ok", Some("a")),
        ("/ready?write", 200, "ok", Some("a")),
        ("/replica", 200, "ok", Some("b")),
        ("/standby", 200, "ok", Some("b")),
        ("/replica?lag=10MB", 200, "ok", Some("b")),
        ("/replica?lag=10MB&mode=write", 200, "ok", Some("b")),
        ("/replica?replication_state=streaming", 200, "ok", Some("b")),
        ("/read-only", 200, "ok", None),
        ("/readiness", 200, "ok", None),
        ("/async", 200, "ok", Some("b")),
        ("/asynchronous", 200, "ok", Some("b")),
        ("/sync", 503, "not_streaming", Some("b")),
        ("/synchronous", 503, "not_streaming", Some("b")),
        ("/nodes/a/primary", 200, "ok", Some("a")),
        ("/nodes/a/", 200, "ok", Some("a")),
        ("/nodes/b/primary", 503, "in_recovery", Some("b")),
        ("/nodes/b/", 503, "in_recovery", Some("b")),
        ("/nodes/a/replica", 503, "not_streaming", Some("a")),
        ("/nodes/b/replica?lag=1GB", 200, "ok", Some("b")),
        ("/nodes/a/read-only", 200, "ok", Some("a")),
        ("/nodes/b/read-only", 200, "ok", Some("b")),
        ("/nodes/a/ready?write", 200, "ok", Some("a")),
    ] {
        let answer = probe.says(path, status, reason);
        // Either node will do where none is named.
        let decided_by = answer.json()["node"].as_str().map(str::to_owned);
        assert!(
            node.is_none() || decided_by.as_deref() == node,
            "{path}: {answer:?}"
        );
        let head = probe.connect().ask("HEAD", path);
        assert_eq!(head.status, status, "HEAD {path}");
    }
    for server in [&pair.primary, &pair.standby] {
        assert!(server.pgpair_backends().len() <= CONNECTIONS_AT_MOST);
    }
}

#[test]
fn the_role_that_all_this_needs_is_no_superuser() {
    let primary = Postgres::start();
    let rights = "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls \
                  FROM pg_roles WHERE rolname = 'pgpair'";
    assert_eq!(primary.sql(rights), "f");
    let member_of = "SELECT string_agg(roleid::regrole::text, ',') FROM pg_auth_members \
                     WHERE member = 'pgpair'::regrole";
    assert_eq!(primary.sql(member_of), "pg_monitor");
    // It may know that nobody follows, which is not the same as not knowing.
    let probe = Probe::of(primary.conninfo()).with("nodes", "a").start();
    eventually(SERVER, "it tells that nobody follows", || {
        (probe.node("a")["replication"] == Value::Array(Vec::new())).then_some(())
    });
}

#[test]
fn status_has_the_documented_keys() {
    let pair = Pair::start();
    pair.primary
        .sql("SELECT pg_create_physical_replication_slot('pgpair_b')");
    pair.standby.set("primary_slot_name", "pgpair_b");
    eventually(SERVER, "the slot is in use", || {
        let active = "SELECT active FROM pg_replication_slots";
        (pair.primary.sql(active) == "t").then_some(())
    });
    let probe = pair.probe_when_well();
    eventually(TOLD_WITHIN, "the slot is told", || {
        (probe.node("b")["slot"] == "pgpair_b").then_some(())
    });

    let status = probe.status_json();
    for key in [
        "verdict",
        "ready",
        "reason",
        "primary",
        "at",
        "version",
        "uptime_ms",
        "interval_ms",
        "deadline_ms",
        "nodes",
        "transitions",
        "history",
    ] {
        assert!(!status[key].is_null(), "{key} in {status}");
    }
    let identifier = pair
        .primary
        .sql("SELECT system_identifier FROM pg_control_system()");
    let version: u32 = pair.primary.sql("SHOW server_version_num").parse().unwrap();
    for (name, role) in [("a", "primary"), ("b", "standby")] {
        let node = probe.node(name);
        assert_eq!(node["role"], role);
        assert_eq!(node["state"], "running");
        assert_eq!(node["reason"], "ok");
        assert_eq!(node["server_version"], version);
        assert_eq!(node["timeline"], 1);
        assert_eq!(node["database_system_identifier"], identifier.as_str());
        assert_eq!(node["pending_restart"], false);
        for age in ["age_ms", "replication_age_ms"] {
            assert!(node[age].is_u64(), "{age} in {node}");
        }
        eventually(TOLD_WITHIN, "a new login is tried", || {
            let login = probe.node(name)["login"].clone();
            (login["reason"] == "ok" && login["age_ms"].is_u64()).then_some(())
        });
    }
    let (a, b) = (probe.node("a"), probe.node("b"));
    assert!(a["xlog"]["location"].is_u64(), "{a}");
    assert_eq!(a["replication"][0]["state"], "streaming");
    assert_eq!(a["replication"][0]["sync_state"], "async");
    assert_eq!(a["replication"][0]["node"], "b");
    assert_eq!(a["slots"][0]["name"], "pgpair_b");
    assert!(a["lag_bytes"].is_null(), "a primary is not behind: {a}");
    for key in ["received_location", "replayed_location"] {
        assert!(b["xlog"][key].is_u64(), "{b}");
    }
    assert!(b["xlog"]["received_location"].as_u64() >= b["xlog"]["replayed_location"].as_u64());
    assert_eq!(b["xlog"]["paused"], false);
    assert_eq!(b["replication_state"], "streaming");
    assert!(
        b["lag_bytes"].is_u64() && b["lag_seconds"].is_number() && b["lag_age_ms"].is_u64(),
        "{b}"
    );

    pair.primary.sql("ALTER SYSTEM SET max_connections = 99");
    pair.primary.sql("SELECT pg_reload_conf()");
    eventually(TOLD_WITHIN, "a setting waits for a restart", || {
        (probe.node("a")["pending_restart"] == true).then_some(())
    });
    let retained = "pgpair_slot_retained_bytes{node=\"a\",slot=\"pgpair_b\"}";
    assert!(probe.metrics().contains_key(retained));
}

#[test]
fn bad_parameters_are_named_with_what_would_do() {
    let nobody = fake::nobody();
    let (host, port) = (nobody.ip(), nobody.port());
    let probe = Probe::of(format!(
        "host={host} port={port} user=pgpair sslmode=disable"
    ))
    .start();
    for (path, status, named) in [
        ("/replica?lag=", 400, &["lag", "kB, MB, GB or TB"][..]),
        (
            "/replica?lag=10mb",
            400,
            &["lag", "10mb", "kB, MB, GB or TB"],
        ),
        ("/replica?lag=10MiB", 400, &["lag", "10MiB"]),
        ("/replica?lag=1.5MB", 400, &["lag", "1.5MB"]),
        ("/replica?lag=-1", 400, &["lag", "-1"]),
        ("/replica?lag=99999999999999999999", 400, &["lag"]),
        ("/replica?lag=99999999TB", 400, &["lag"]),
        (
            "/replica?mode=flush",
            400,
            &["mode", "flush", "apply or write"],
        ),
        ("/replica?mode", 400, &["mode", "apply or write"]),
        ("/read-only?lag=much", 400, &["lag", "much"]),
        (
            "/replica?replication_state=on",
            400,
            &["replication_state", "streaming"],
        ),
        (
            "/replica?max_lag=1",
            400,
            &["max_lag", "lag, mode, replication_state"],
        ),
        ("/primary?lag=1", 400, &["lag", "/primary", "none"]),
        ("/sync?lag=x", 400, &["lag", "kB, MB, GB or TB"]),
        ("/standby-leader?lag=1", 400, &["lag", "/standby-leader"]),
        ("/ready?login=yes", 400, &["login", "yes"]),
        ("/ready?write=yes", 400, &["write", "yes"]),
        ("/ready?read", 400, &["read", "write, login"]),
        ("/status?pretty", 400, &["pretty", "/status"]),
        ("/metrics?x=1", 400, &["x", "/metrics"]),
        ("/nodes/z/replica", 404, &["z", "127.0.0.1"]),
        ("/replicas", 404, &["/replicas", "/replica"]),
    ] {
        let answer = probe.get(path);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert_eq!(answer.json()["ok"], false, "{path}: {answer:?}");
        for word in named {
            assert!(answer.body.contains(word), "{path}: {word:?} in {answer:?}");
        }
    }
}

#[test]
fn single_node_is_a_pair_of_one() {
    let pair = Pair::start();
    let primary = Probe::of(pair.primary.conninfo())
        .with("nodes", "a")
        .start();
    primary.tells("ok");
    primary.says("/primary", 200, "ok");
    primary.says("/replica", 503, "not_streaming");
    primary.says("/read-only", 200, "ok");
    primary.says("/ready?write", 200, "ok");

    let standby = Probe::of(pair.standby.conninfo())
        .with("nodes", "b")
        .start();
    standby.tells("no_primary");
    standby.says("/primary", 503, "in_recovery");
    standby.says("/replica?lag=16MB", 200, "ok");
    standby.says("/read-only", 200, "ok");
    // The primary was not asked: measured by what the receiver heard of.
    eventually(TOLD_WITHIN, "it has all that it heard of", || {
        (standby.node("b")["lag_bytes"] == 0).then_some(())
    });
}

// Row 8: rights that are missing.

#[test]
fn without_pg_monitor_lag_is_absent_and_the_standby_no_replica() {
    let pair = Pair::start();
    pair.primary.sql("REVOKE pg_monitor FROM pgpair");
    pair.caught_up();
    let probe = pair.probe();
    let _trial = Trial::of(&probe, &[&pair.primary, &pair.standby], ALONE);
    probe.says("/primary", 200, "ok");
    for path in [
        "/replica",
        "/replica?lag=1TB",
        "/nodes/b/replica?lag=1TB&mode=write",
    ] {
        let answer = probe.says(path, 503, "not_streaming");
        assert!(
            answer.body.contains("pg_monitor"),
            "it says what is missing: {answer:?}"
        );
    }
    probe.says("/sync", 503, "not_streaming");
    probe.says("/async", 503, "not_streaming");
    pair.primary.write_wal(100_000);
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        assert_lag_is_never_zero(&probe);
        thread::sleep(ms(50));
    }
    let shown = probe.status_command(&[]).stdout;
    let row = shown
        .lines()
        .find(|line| line.starts_with("b "))
        .expect("a row");
    assert!(row.contains("unknown"), "{shown}");

    pair.primary.sql("GRANT pg_monitor TO pgpair");
    probe.comes_to_say("/replica?lag=10MB", 200, "ok");
    eventually(TOLD_WITHIN, "lag is known", || {
        probe.node("b")["lag_bytes"].is_u64().then_some(())
    });
}

/// Lag in bytes is absent or more than 0, everywhere; in seconds too.
fn assert_lag_is_never_zero(probe: &Probe) {
    let node = probe.node("b");
    assert_ne!(node["lag_bytes"], 0, "{node}");
    assert!(node["lag_seconds"].is_null(), "{node}");
    for (name, value) in probe.metrics() {
        let in_seconds = name.starts_with("pg_replication_lag_seconds");
        assert!(!in_seconds, "{name} is told");
        let lag = name.starts_with("pgpair_replication_lag_bytes");
        assert!(!lag || value > 0.0, "{name} {value}");
    }
}

// Row 9: no connection left.

#[test]
fn standby_without_a_connection_left_is_no_replica_and_costs_the_pair_nothing_else() {
    let pair = Pair::start();
    let probe = pair.probe_when_well();
    probe.says("/ready?write", 200, "ok");
    let _trial = Trial::of(&probe, &[&pair.primary, &pair.standby], BOTH);

    // The standby takes none any more; those to the primary are open.
    pair.primary.sql("ALTER ROLE pgpair CONNECTION LIMIT 0");
    pair.caught_up();
    eventually(SERVER, "the standby has replayed that", || {
        let limit = "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'pgpair'";
        (pair.standby.sql(limit) == "0").then_some(())
    });
    pair.standby.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgpair'",
    );
    probe.comes_to_say("/replica", 503, "too_many_connections");
    probe.tells("degraded");
    assert_eq!(probe.node("b")["reason"], "too_many_connections");
    let load = Load::during(probe.address, "/replica", 200, 8, Duration::from_secs(1));
    for answer in load::answers(&load) {
        assert_eq!(answer.reason(), "too_many_connections", "{answer:?}");
    }
    assert!(pair.standby.pgpair_backends().len() <= CONNECTIONS_AT_MOST);
    assert!(pair.primary.pgpair_backends().len() <= CONNECTIONS_AT_MOST);
    probe.says("/ready", 200, "ok");
    probe.says("/ready?write", 200, "ok");

    pair.primary.sql("ALTER ROLE pgpair CONNECTION LIMIT 2");
    probe.comes_to_say("/replica", 200, "ok");
    probe.tells("ok");
}

// Rows 12 and 13: commits that do not go through.

#[test]
fn stalled_flush_stalls_the_commit_and_nothing_else() {
    let primary = Postgres::start();
    let probe = Probe::watching(&primary);
    probe.says("/ready?write", 200, "ok");
    let mut trial = Trial::of(&probe, &[&primary], ALONE);
    // The server process of the commit, caught where a dead disk would hold it.
    let pid: i32 = primary
        .sql(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgpair' \
             AND query LIKE '%pg_logical_emit_message%'",
        )
        .parse()
        .expect("the probe has committed");
    primary.freeze_backend(pid);
    eventually(Duration::from_secs(3), "the commit stalls", || {
        let answer = probe.verdict_of("/ready?write");
        (answer.reason() == "write_stalled").then_some(())
    });
    for _ in 0..20 {
        probe.says("/ready?write", 503, "write_stalled");
        trial.says(ALONE);
    }
    trial.counts_connections();
    primary.thaw_backend(pid);
    probe.comes_to_say("/ready?write", 200, "ok");
}

#[test]
fn full_disk_of_the_wal_is_not_ready_for_writes_until_there_is_room_again() {
    let server = Foreign::start_with_small_wal_disk();
    let probe = Probe::of(server.conninfo()).start();
    probe.becomes_ready();
    let _health = probe.watch_health();
    probe.comes_to_say("/ready?write", 200, "ok");

    // PostgreSQL gives up when it finds no room for a segment, recovers, and
    // may find some room in that; until there is none.
    let fill = "dd if=/dev/zero of=/wal/full oflag=append conv=notrunc bs=64k 2>/dev/null || true";
    let much = "SELECT pg_logical_emit_message(true, 'test', repeat('x', 1000000))";
    let mut full_since = None;
    let full = Duration::from_secs(2);
    eventually(SERVER, "there is no room for a commit", || {
        server.shell(fill);
        let written = server.try_sql(much).is_ok();
        let answer = probe.verdict_of("/ready?write");
        if written || answer.status == 200 {
            full_since = None;
            return None;
        }
        let since = *full_since.get_or_insert_with(Instant::now);
        (since.elapsed() > full).then_some(())
    });
    assert_eq!(probe.get("/primary").status, 503, "it is down by then");

    server.shell("rm /wal/full");
    server.wait_until_up();
    probe.comes_to_say("/ready?write", 200, "ok");
}

#[test]
fn synchronous_standby_that_is_gone_stalls_writes_and_piles_nothing_up() {
    let pair = Pair::start();
    pair.primary.set("synchronous_standby_names", "*");
    let probe = pair.probe_when_well();
    probe.comes_to_say("/sync", 200, "ok");
    probe.says("/ready?write", 200, "ok");
    let _trial = Trial::of(&probe, &[&pair.primary, &pair.standby], BOTH);

    pair.standby.stop();
    // A commit that began before may still be told for a second.
    thread::sleep(Duration::from_secs(1));
    let load = Load::start(probe.address, "/ready?write", 50, 4);
    let ready = Load::start(probe.address, "/ready", 50, 2);
    thread::sleep(Duration::from_secs(4));
    for sample in load::answers(&load.finish()) {
        probe.check_verdict(sample);
        assert_eq!(
            (sample.status, sample.reason().as_str()),
            (503, "write_stalled")
        );
    }
    for sample in load::answers(&ready.finish()) {
        assert_eq!(sample.status, 200, "{sample:?}");
    }
    let held = pair.primary.pgpair_backends().len();
    assert!(held <= CONNECTIONS_AT_MOST, "{held} connections");
    probe.tells("degraded");

    pair.standby.start_again();
    eventually(SERVER, "the standby is synchronous again", || {
        let state = pair
            .primary
            .sql("SELECT sync_state FROM pg_stat_replication");
        (state == "sync").then_some(())
    });
    probe.comes_to_say("/ready?write", 200, "ok");
    probe.tells("ok");
    assert!(pair.primary.pgpair_backends().len() <= CONNECTIONS_AT_MOST);
}

#[test]
fn commit_that_waits_for_replay_is_stalled_although_the_pair_is_whole() {
    let pair = Pair::start();
    pair.primary.set("synchronous_standby_names", "*");
    pair.primary
        .sql("ALTER ROLE pgpair SET synchronous_commit = remote_apply");
    pair.caught_up();
    let probe = pair.probe_when_well();
    probe.comes_to_say("/sync", 200, "ok");
    probe.comes_to_say("/ready?write", 200, "ok");
    pair.standby.sql("SELECT pg_wal_replay_pause()");
    eventually(Duration::from_secs(3), "the commit stalls", || {
        (probe.verdict_of("/ready?write").reason() == "write_stalled").then_some(())
    });
    probe.says("/ready", 200, "ok");
    probe.tells("ok");
    pair.standby.sql("SELECT pg_wal_replay_resume()");
    probe.comes_to_say("/ready?write", 200, "ok");
}

#[test]
fn sync_and_async_follow_the_primary_s_setting() {
    let pair = Pair::start();
    let probe = pair.probe_when_well();
    for (names, sync) in [
        ("*", true),
        ("", false),
        ("walreceiver", true),
        ("nobody", false),
    ] {
        pair.primary.set("synchronous_standby_names", names);
        let state = |synchronous: bool| {
            if synchronous == sync {
                (200, "ok")
            } else {
                (503, "not_streaming")
            }
        };
        for (path, synchronous) in [
            ("/sync", true),
            ("/nodes/b/sync", true),
            ("/synchronous", true),
            ("/async", false),
            ("/nodes/b/async", false),
            ("/asynchronous", false),
        ] {
            let (status, reason) = state(synchronous);
            probe.comes_to_say(path, status, reason);
        }
        assert_eq!(probe.get("/nodes/a/sync").status, 503);
        assert_eq!(probe.get("/nodes/a/async").status, 503);
    }
}

// Row 14: the standby is gone or frozen.

#[test]
fn killed_standby_degrades_the_pair_and_slows_nothing() {
    let pair = Pair::start();
    let probe = pair.probe_when_well();
    // Which word depends on how far its going had come.
    let gone = ["refused", "shutting_down", "timed_out"];
    let _trial = Trial::of(&probe, &[&pair.primary, &pair.standby], BOTH);
    without_the_standby(&probe, || pair.standby.kill(), &gone);
    pair.standby.start_again();
    pair.streams();
    probe.comes_to_say("/replica", 200, "ok");
    probe.tells("ok");
}

#[test]
fn frozen_standby_degrades_the_pair_and_slows_nothing() {
    let pair = Pair::start();
    let probe = pair.probe_when_well();
    let _trial = Trial::of(&probe, &[&pair.primary, &pair.standby], BOTH);
    without_the_standby(&probe, || pair.standby.pause(), &["timed_out"]);
    probe.says("/replica", 503, "overdue");
    pair.standby.unpause();
    probe.comes_to_say("/replica", 200, "ok");
    probe.tells("ok");
}

/// Takes the standby away and checks what the probe says then.
fn without_the_standby(probe: &Probe, fault: impl FnOnce(), reasons: &[&str]) {
    let median = || {
        let samples = Load::during(probe.address, "/ready", 200, 2, ms(750));
        assert!(load::answers(&samples).all(|answer| answer.status == 200));
        percentile(load::answers(&samples).map(|answer| answer.took), 0.5)
    };
    let with = median();
    fault();
    probe.tells("degraded");
    // The primary may have told first that nobody reads from it.
    let node = eventually(TOLD_WITHIN, "what is wrong with the standby", || {
        let node = probe.node("b");
        let is_told = reasons.contains(&node["reason"].as_str().expect("a word"));
        is_told.then_some(node)
    });
    assert!(
        node["lag_bytes"].is_null() && node["lag_seconds"].is_null(),
        "{node}"
    );
    assert_eq!(probe.get("/replica").status, 503);
    assert_eq!(probe.get("/sync").status, 503);
    probe.says("/nodes/a/primary", 200, "ok");
    probe.says("/read-only", 200, "ok");
    // The machine may have been busy in one of the two.
    let limit = with * 2 + ms(1);
    let without = measured(median, |it| *it <= limit);
    assert!(without <= limit, "/ready took {with:?}, then {without:?}");
    assert_eq!(probe.status_command(&[]).code(), NOT_WHOLE);
}

// Row 15: both servers are up, and nothing comes over.

#[test]
fn standby_whose_receiver_is_down_is_no_replica_and_its_lag_is_never_zero() {
    let pair = Pair::start();
    let probe = pair.probe_when_well();
    let _trial = Trial::of(&probe, &[&pair.primary, &pair.standby], BOTH);
    pair.cut_replication();
    probe.comes_to_say("/replica", 503, "not_streaming");
    probe.tells("degraded");
    for path in [
        "/replica?lag=1TB",
        "/replica?lag=1TB&mode=write",
        "/nodes/b/replica",
    ] {
        probe.says(path, 503, "not_streaming");
    }
    probe.says("/read-only", 200, "ok");
    probe.says("/ready", 200, "ok");

    // Nobody writes: nothing tells whether anything is missing.
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        assert_lag_is_never_zero(&probe);
        thread::sleep(ms(50));
    }
    let mut least = 0;
    for _ in 0..3 {
        pair.primary.write_wal(200_000);
        least += 200_000;
        eventually(TOLD_WITHIN, "lag grows with what is written", || {
            assert_lag_is_never_zero(&probe);
            let lag = probe.node("b")["lag_bytes"].as_u64()?;
            (lag >= least).then_some(())
        });
    }
    let apply = probe.metrics()["pgpair_replication_lag_bytes{node=\"b\",mode=\"apply\"}"];
    assert!(apply >= least as f64, "{apply}");
    assert_eq!(probe.metrics()["pgpair_wal_receiver_up{node=\"b\"}"], 0.0);
    let node = probe.node("b");
    assert_eq!(node["reason"], "not_streaming", "{node}");

    pair.mend_replication();
    probe.comes_to_say("/replica?lag=0", 200, "ok");
    probe.tells("ok");
}

// Row 16: lag.

#[test]
fn lag_is_exact_at_the_limit_while_replay_is_paused() {
    let pair = Pair::start();
    let probe = pair.probe_when_well();
    pair.standby.sql("SELECT pg_wal_replay_pause()");
    pair.primary.write_wal(MUCH);
    eventually(TOLD_WITHIN, "the lag is told everywhere", || {
        let node = probe.node("b");
        let told = node["lag_bytes"].as_u64()? >= MUCH && node["xlog"]["paused"] == true;
        let metrics = probe.metrics();
        let apply = metrics.get("pgpair_replication_lag_bytes{node=\"b\",mode=\"apply\"}")?;
        let shown = probe.status_command(&[]).stdout;
        (told && *apply >= MUCH as f64 && shown.contains("2.0MB")).then_some(())
    });
    pair.caught_up();
    // Servers write a little by themselves now and then.
    eventually(SERVER, "the limit is exact", || {
        let behind = pair.behind();
        let at = probe.verdict_of(&format!("/replica?lag={behind}"));
        let below = probe.verdict_of(&format!("/replica?lag={}", behind - 1));
        if behind != pair.behind() {
            return None;
        }
        assert_eq!(at.status, 200, "{behind}: {at:?}");
        assert_eq!(
            (below.status, below.reason().as_str()),
            (503, "lagging"),
            "{behind}"
        );
        assert_eq!(probe.node("b")["lag_bytes"].as_u64()? / 1024, behind / 1024);
        Some(())
    });
    probe.says("/replica?lag=1MB", 503, "lagging");
    probe.says("/nodes/b/replica?lag=1MB", 503, "lagging");
    probe.says("/replica?lag=3MB", 200, "ok");
    probe.says("/replica?lag=1GB&mode=apply", 200, "ok");
    probe.says("/replica?lag=1MB&mode=write", 200, "ok");
    probe.says("/replica", 200, "ok");
    probe.says("/read-only?lag=1MB", 200, "ok");
    // Time passes as long as nothing is replayed.
    let seconds = || probe.node("b")["lag_seconds"].as_f64().expect("it streams");
    let before = seconds();
    eventually(Duration::from_secs(4), "lag grows by the clock", || {
        (seconds() > before + 1.0).then_some(())
    });
    assert!(seconds() < 60.0);
    probe.tells("ok");

    pair.standby.sql("SELECT pg_wal_replay_resume()");
    probe.comes_to_say("/replica?lag=1MB", 200, "ok");
    eventually(TOLD_WITHIN, "nothing is missing", || {
        let node = probe.node("b");
        (node["lag_bytes"] == 0 && node["lag_seconds"] == 0.0).then_some(())
    });
}

#[test]
fn idle_pair_has_no_lag_however_long_it_is_idle() {
    let pair = Pair::start();
    let probe = pair.probe_when_well();
    pair.caught_up();
    eventually(TOLD_WITHIN, "nothing is missing", || {
        (probe.node("b")["lag_bytes"] == 0).then_some(())
    });
    let seconds = seconds_by("PGPAIR_TEST_IDLE_SECONDS", 10);
    let until = Instant::now() + Duration::from_secs(seconds);
    let (mut looks, mut behind) = (0, 0);
    while Instant::now() < until {
        looks += 1;
        behind += usize::from(!has_no_lag(&probe));
        thread::sleep(ms(100));
    }
    // A primary writes some bytes by itself, four times a minute at most.
    assert!(behind * 20 <= looks, "{behind} of {looks} looks show a lag");
    assert!(has_no_lag(&probe) || has_no_lag(&probe), "it stays behind");
}

/// Says whether nothing is missing, everywhere where that is told; unknown is no
/// answer to that.
fn has_no_lag(probe: &Probe) -> bool {
    let node = probe.node("b");
    let bytes = node["lag_bytes"].as_u64().expect("it is known");
    let seconds = node["lag_seconds"].as_f64().expect("it is known");
    assert!(seconds < 1.0, "{node}");
    let metric = probe.metrics()["pg_replication_lag_seconds{node=\"b\"}"];
    assert!(metric < 1.0, "{metric}");
    let exact = probe.verdict_of("/replica?lag=0");
    assert!(
        ["ok", "lagging"].contains(&exact.reason().as_str()),
        "{exact:?}"
    );
    bytes == 0 && seconds == 0.0 && metric == 0.0 && exact.status == 200
}

// Row 18: two primaries.

#[test]
fn promoted_standby_beside_the_living_primary_is_a_split_brain() {
    let pair = Pair::start();
    let probe = pair.probe_when_well();
    let _trial = Trial::of(&probe, &[&pair.primary, &pair.standby], BOTH);
    pair.standby.promote();
    probe.tells("split_brain");
    assert_split(&probe);
    assert_eq!(probe.node("a")["timeline"], 1);
    assert_eq!(probe.node("b")["timeline"], 2);

    // The old one goes: the new one is the primary, and nobody follows it.
    pair.primary.stop();
    probe.tells("degraded");
    assert_eq!(probe.says("/primary", 200, "ok").json()["node"], "b");
    probe.says("/nodes/b/primary", 200, "ok");
    assert_eq!(probe.get("/nodes/a/primary").status, 503);

    // And comes back by itself, as it was.
    pair.primary.start_again();
    probe.tells("split_brain");
    assert_split(&probe);
    assert!(probe.log().contains("split_brain"), "it is logged");
}

#[test]
fn promotion_after_the_primary_s_death_and_its_return_are_told() {
    let pair = Pair::start();
    let probe = pair.probe_when_well();
    pair.primary.kill();
    // Its address is silent: for all that is known it takes writes.
    probe.tells("unknown");
    assert_eq!(probe.get("/primary").status, 503);
    // Without a primary, by what the receiver heard of.
    assert_eq!(probe.get("/nodes/b/primary").reason(), "in_recovery");

    pair.standby.promote();
    probe.tells("degraded");
    assert_eq!(probe.status_json()["primary"], "b");
    probe.says("/nodes/b/primary", 200, "ok");
    probe.says("/ready?write", 200, "ok");
    assert_eq!(probe.get("/replica").status, 503);

    pair.primary.start_again();
    probe.tells("split_brain");
    assert_split(&probe);
}

fn assert_split(probe: &Probe) {
    for path in [
        "/primary",
        "/",
        "/nodes/a/primary",
        "/nodes/b/primary",
        "/nodes/b/",
        "/read-only",
    ] {
        probe.says(path, 503, "split_brain");
    }
    assert_eq!(probe.get("/replica").status, 503);
    for name in ["a", "b"] {
        let node = probe.node(name);
        assert_eq!(
            (&node["role"], &node["reason"]),
            (&"primary".into(), &"split_brain".into())
        );
    }
    assert!(probe.status_json()["primary"].is_null());
    let metrics = probe.metrics();
    assert_eq!(metrics["pgpair_writable_primaries"], 2.0);
    for node in ["a", "b"] {
        let reason = format!("pgpair_node_reason{{node=\"{node}\",reason=\"split_brain\"}}");
        assert_eq!(metrics[&reason], 1.0);
    }
    let shown = probe.status_command(&[]);
    assert_eq!(shown.code(), NOT_WHOLE);
    assert!(
        shown.stdout.contains("pair split_brain, no primary"),
        "{}",
        shown.stdout
    );
}

// Row 19: a node that does not belong there.

#[test]
fn primary_of_another_system_is_wrong_system_and_the_pair_diverged() {
    let primary = Postgres::start();
    let foreign = Foreign::start();
    let probe = Probe::of(foreign.conninfo_after(&primary))
        .with("nodes", "a,b")
        .start();
    probe.tells("diverged");
    assert_eq!(probe.node("b")["reason"], "wrong_system");
    // Two that take writes are two too many, whatever they hold.
    probe.says("/primary", 503, "split_brain");
    assert_eq!(probe.status_command(&[]).code(), NOT_WHOLE);
}

#[test]
fn standby_of_another_system_is_no_replica() {
    let primary = Foreign::start();
    // It streams, but from its own primary.
    let pair = Pair::start();
    let hosts = format!("{},{}", primary.container.address, pair.standby.address());
    let conninfo =
        format!("host={hosts} user=pgpair password={PASSWORD} dbname=postgres sslmode=disable");
    let probe = Probe::of(conninfo).with("nodes", "a,b").start();
    probe.tells("diverged");
    let node = probe.node("b");
    assert_eq!(node["reason"], "wrong_system", "{node}");
    for path in [
        "/replica",
        "/replica?lag=1TB",
        "/nodes/b/replica",
        "/async",
        "/sync",
    ] {
        // Whoever of the two answers first.
        for _ in 0..20 {
            probe.says(path, 503, "wrong_system");
        }
    }
    probe.says("/primary", 200, "ok");
    probe.says("/read-only", 200, "ok");
    let reason = "pgpair_node_reason{node=\"b\",reason=\"wrong_system\"}";
    assert_eq!(probe.metrics()[reason], 1.0);
}

#[test]
fn former_primary_that_follows_with_more_than_the_new_one_has_is_diverged() {
    let pair = Pair::start();
    let probe = pair.probe_when_well();
    pair.standby.promote();
    probe.tells("split_brain");
    // What only the old one has.
    pair.primary.write_wal(MUCH);
    let upstream = format!(
        "host={} user=replicator password={PASSWORD}",
        pair.standby.address()
    );
    pair.primary
        .sql(&format!("ALTER SYSTEM SET primary_conninfo = '{upstream}'"));
    pair.primary.become_standby();
    pair.primary.stop();
    probe.tells("degraded");
    pair.primary.start_again();
    probe.tells("diverged");
    probe.says("/replica", 503, "not_streaming");
    assert_eq!(probe.says("/primary", 200, "ok").json()["node"], "b");
    // And it stays so, whoever of the two was asked last.
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        assert_eq!(probe.status_json()["verdict"], "diverged");
        thread::sleep(ms(20));
    }
}

// The command for a person.

#[test]
fn status_command_shows_a_table_and_its_exit_code_says_whether_all_is_well() {
    let pair = Pair::start();
    let probe = pair.probe_when_well();
    let shown = probe.status_command(&[]);
    assert_eq!(shown.code(), WHOLE, "{shown:?}");
    assert_eq!(shown.stderr, "");
    assert!(
        !shown.stdout.contains('\x1b'),
        "not a terminal: {:?}",
        shown.stdout
    );
    let lines: Vec<&str> = shown.stdout.lines().collect();
    assert!(
        lines[0].starts_with("pair ok, primary a, ready, pgpair "),
        "{lines:?}"
    );
    let columns = "NODE ROLE STATE REASON TIMELINE STREAMING LAG SEEN";
    assert_eq!(
        lines[1].split_whitespace().collect::<Vec<_>>().join(" "),
        columns
    );
    let cells = |line: &str| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        cells(lines[2])[..7],
        ["a", "primary", "running", "ok", "1", "-", "-"]
    );
    assert_eq!(
        cells(lines[3])[..6],
        ["b", "standby", "running", "ok", "1", "yes"]
    );
    assert_eq!(lines.len(), 4);

    let json = probe.status_command(&["--json"]);
    assert_eq!(json.code(), WHOLE);
    let told: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(
        (&told["verdict"], &told["primary"]),
        (&"ok".into(), &"a".into())
    );

    // A path may be given; so may the address in the environment.
    let full = format!("http://{}/status", probe.address);
    assert_eq!(run_status(pgpair().args(["status", &full])).code(), WHOLE);
    let own = run_status(
        pgpair()
            .arg("status")
            .env("PGPAIR_LISTEN", probe.address.to_string()),
    );
    assert_eq!(own.code(), WHOLE, "{own:?}");

    pair.standby.stop();
    probe.tells("degraded");
    let shown = probe.status_command(&[]);
    assert_eq!(shown.code(), NOT_WHOLE);
    assert!(
        shown.stdout.contains("pair degraded, primary a, ready"),
        "{}",
        shown.stdout
    );
    assert_eq!(probe.status_command(&["--json"]).code(), NOT_WHOLE);
}

#[test]
fn status_command_says_with_its_exit_code_why_there_is_no_table() {
    let nobody = fake::nobody();
    let silent = fake::Fake::silent();
    for (arguments, code) in [
        (vec![format!("http://{nobody}")], 2),
        (vec![format!("http://{}", silent.address)], 3),
        (vec!["localhost:5000".to_owned()], 1),
        (vec!["--colour".to_owned()], 1),
        (vec!["http://a".to_owned(), "http://b".to_owned()], 1),
    ] {
        let done = run_status(pgpair().arg("status").args(&arguments));
        assert_eq!(done.code(), code, "{arguments:?}: {done:?}");
        assert_eq!(done.stdout, "", "{arguments:?}");
        assert!(
            !done.stderr.is_empty() && !done.stderr.contains('\x1b'),
            "{done:?}"
        );
    }
}

#[test]
fn status_command_colours_a_terminal_and_only_if_colours_are_wanted() {
    let primary = Postgres::start();
    let probe = Probe::watching(&primary);
    let command = format!("{} status http://{}", binary(), probe.address);
    let on_a_terminal = |no_color: bool| {
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &command, "/dev/null"]);
        script.env_remove("NO_COLOR");
        if no_color {
            script.env("NO_COLOR", "1");
        }
        let done = process::run(&mut script, b"", Duration::from_secs(5));
        assert_eq!(done.code(), WHOLE, "{done:?}");
        done.stdout
    };
    assert!(on_a_terminal(false).contains("\x1b[32mok\x1b[0m"));
    assert!(!on_a_terminal(true).contains('\x1b'));
}

#[test]
fn status_command_that_watches_shows_what_changes() {
    let pair = Pair::start();
    let probe = pair.probe_when_well();
    let url = format!("http://{}", probe.address);
    let mut child = pgpair()
        .args(["status", "--watch", &url])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut waits_for = |words: &str| {
        let found = lines.by_ref().map_while(Result::ok).any(|line| {
            assert!(!line.contains('\x1b'), "{line:?}");
            line.contains(words)
        });
        assert!(found, "it ended before it said {words:?}");
    };
    waits_for("pair ok, primary a");
    waits_for("pair ok, primary a");
    let stopped = Instant::now();
    pair.standby.kill();
    waits_for("pair degraded, primary a");
    // It looks once a second, and what it looks at is 2 s old at most.
    assert!(stopped.elapsed() < SERVER);
    process::end(&mut child);
}

#[test]
fn three_nodes_are_as_good_as_two() {
    let primary = Postgres::start();
    let one = Postgres::standby_of(&primary, &["cluster_name=b"]);
    let two = Postgres::standby_of(&primary, &["cluster_name=c"]);
    let probe = Probe::of(conninfo(&[&primary, &one, &two]))
        .with("nodes", "a,b,c")
        .start();
    eventually(SERVER, "both stream", || {
        (probe.get("/nodes/b/replica").status == 200).then_some(())?;
        (probe.get("/nodes/c/replica").status == 200).then_some(())
    });
    probe.tells("ok");
    primary.set("synchronous_standby_names", "FIRST 1 (c, b)");
    probe.comes_to_say("/nodes/c/sync", 200, "ok");
    probe.comes_to_say("/nodes/b/async", 200, "ok");
    probe.says("/nodes/b/sync", 503, "not_streaming");
    assert_eq!(probe.says("/sync", 200, "ok").json()["node"], "c");

    one.kill();
    probe.tells("degraded");
    assert_eq!(probe.says("/replica", 200, "ok").json()["node"], "c");
    two.kill();
    eventually(SERVER, "no standby is left", || {
        (probe.get("/replica").status == 503).then_some(())
    });
    probe.tells("degraded");
}
