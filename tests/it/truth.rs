//! What is told of the pair is so at that moment, whoever asks how often: facts
//! have an age, and two nodes are compared only where that can be known.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::docker::this_run;
use crate::support::postgres::{Role, conninfo};
use crate::support::replication::{SERVER, TOLD_WITHIN};
use crate::support::told::{Balancers, Watch};
use crate::support::{PASSWORD, Pair, Postgres, Probe, eventually};

/// WAL enough to be seen as lag.
const MUCH: u64 = 4 << 20;

/// Waits until a probe that has just started has seen all of it.
fn begins_with(probe: &Probe, verdict: &str) {
    eventually(SERVER, &format!("{verdict} to begin with"), || {
        (probe.status_json()["verdict"] == verdict).then_some(())
    });
    probe.tells(verdict);
}

#[test]
fn standby_that_is_cut_off_is_told_however_often_somebody_asks_for_roles() {
    let pair = Pair::start();
    let probe = pair.probe_when_well();
    let asked = Balancers::of(probe.address);
    pair.cut_replication();
    probe.tells("degraded");
    let node = probe.node("b");
    assert_eq!(node["reason"], "not_streaming", "{node}");
    assert_eq!(probe.status_json()["unwell"], serde_json::json!(["b"]));
    // The primary may have told first that nobody reads from it.
    eventually(TOLD_WITHIN, "the receiver is down", || {
        (probe.metrics()["pgpair_wal_receiver_up{node=\"b\"}"] == 0.0).then_some(())
    });
    probe.says("/replica", 503, "not_streaming");

    // What is written from now on is lag that grows.
    pair.primary.write_wal(MUCH);
    pair.primary.write_wal(MUCH);
    eventually(TOLD_WITHIN, "the lag grows", || {
        let node = probe.node("b");
        let age = node["lag_age_ms"].as_u64()?;
        assert!(age < 2_000, "{node}");
        (node["lag_bytes"].as_u64()? >= 2 * MUCH).then_some(())
    });

    pair.mend_replication();
    probe.tells("ok");
    pair.caught_up();
    eventually(TOLD_WITHIN, "no lag", || {
        (probe.node("b")["lag_bytes"] == 0).then_some(())
    });

    // And a standby that was restarted streams again.
    pair.standby.stop();
    probe.tells("degraded");
    pair.standby.start_again();
    pair.streams();
    probe.tells("ok");
    asked.finish();
}

/// Two nodes that each follow the other one as a standby.
fn peers() -> [Postgres; 2] {
    let [a, b] = [0, 1].map(|_| this_run().new_address());
    let primary = Postgres::peer(Role::Primary, a, b, &["cluster_name=a"]);
    primary.wait_until_up();
    let standby = Postgres::peer(Role::Standby, b, a, &["cluster_name=b"]);
    standby.wait_until_up();
    [primary, standby]
}

#[test]
fn clean_switchover_is_never_told_as_a_split_brain_and_a_promotion_never_as_no_primary() {
    let mut nodes = peers();
    let probe = Probe::of(conninfo(&[&nodes[0], &nodes[1]]))
        .with("nodes", "a,b")
        .start();
    begins_with(&probe, "ok");
    let asked = Balancers::of(probe.address);
    for _ in 0..4 {
        let watch = Watch::of(probe.address);
        let [old, new] = &nodes;
        old.become_standby();
        old.stop();
        new.promote();
        // From now on it is the primary.
        let promoted = Watch::of(probe.address);
        old.start_again();
        eventually(SERVER, "the old primary streams", || {
            let state = new.sql("SELECT state FROM pg_stat_replication");
            (state == "streaming").then_some(())
        });
        begins_with(&probe, "ok");
        for (verdict, primaries) in watch.finish() {
            assert!(verdict != "split_brain" && primaries < 2, "{verdict}");
        }
        // The first look may have begun before the promotion was seen.
        for (verdict, _) in &promoted.finish()[1..] {
            assert_ne!(verdict, "no_primary");
        }
        nodes.reverse();
    }
    assert!(!probe.log().contains("split_brain"), "{}", probe.log());
    asked.finish();
}

#[test]
fn login_that_is_refused_is_no_lost_primary() {
    let pair = Pair::start();
    let stranger = pair.conninfo().replace("user=pgpair", "user=nosuch");
    let probe = Probe::of(stranger).with("nodes", "a,b").start();
    eventually(SERVER, "both were asked", || {
        (probe.node("a")["reason"] == "auth_failed").then_some(())?;
        (probe.node("b")["reason"] == "auth_failed").then_some(())
    });
    probe.tells("unknown");
    assert!(!probe.log().contains("no_primary"), "{}", probe.log());
    assert!(!probe.metrics().contains_key("pgpair_writable_primaries"));
    probe.comes_to_say("/primary", 503, "auth_failed");
}

#[test]
fn third_node_that_is_no_standby_degrades_the_pair_and_is_named() {
    let primary = Postgres::start();
    let one = Postgres::standby_of(&primary, &["cluster_name=b"]);
    let two = Postgres::standby_of(&primary, &["cluster_name=c"]);
    let probe = Probe::of(conninfo(&[&primary, &one, &two]))
        .with("nodes", "a,b,c")
        .start();
    begins_with(&probe, "ok");
    two.kill();
    probe.tells("degraded");
    assert_eq!(probe.status_json()["unwell"], serde_json::json!(["c"]));
    probe.logs("verdict=degraded ready=true reason=ok primary=a unwell=c");
    probe.says("/replica", 200, "ok");
}

#[test]
fn standby_that_follows_a_stranger_does_not_stream_from_this_primary() {
    let primary = Postgres::start();
    // A standby that the probe does not know, and a cascade through it.
    let stranger = Postgres::standby_of(&primary, &["cluster_name=stranger"]);
    let standby = Postgres::standby_of(&stranger, &["cluster_name=b"]);
    let probe = Probe::of(conninfo(&[&primary, &standby]))
        .with("nodes", "a,b")
        .start();
    eventually(SERVER, "b streams from the stranger", || {
        let state = stranger.sql("SELECT state FROM pg_stat_replication");
        (state == "streaming").then_some(())?;
        (probe.node("b")["replication_state"] == "streaming").then_some(())
    });
    probe.tells("degraded");
    let node = probe.node("b");
    assert_eq!(node["reason"], "not_streaming", "{node}");
    assert_eq!(node["replication_state"], "streaming", "{node}");
    assert!(node["lag_bytes"].is_null(), "{node}");
    probe.comes_to_say("/replica?lag=1TB", 503, "not_streaming");

    // With the stranger it is a cascade that the probe sees.
    let all = Probe::of(conninfo(&[&primary, &standby, &stranger]))
        .with("nodes", "a,b,c")
        .start();
    begins_with(&all, "ok");

    // Promoted, it is another primary of the same system.
    stranger.promote();
    eventually(SERVER, "b follows the stranger's timeline", || {
        let timeline = "SELECT received_tli FROM pg_stat_wal_receiver";
        (standby.sql(timeline) == "2").then_some(())
    });
    probe.tells("diverged");
    probe.comes_to_say("/replica", 503, "not_streaming");
    probe.says("/primary", 200, "ok");
    all.tells("split_brain");
}

#[test]
fn receiver_that_is_no_standby_is_not_taken_for_one() {
    let pair = Pair::start();
    let probe = pair.probe_when_well();
    let host = pair.primary.address();
    let conninfo = format!("host={host} user=replicator password={PASSWORD}");
    let receiver = format!(
        "mkdir -p /tmp/wal && exec pg_receivewal -D /tmp/wal --synchronous -d '{conninfo}'"
    );
    pair.primary
        .shell(&format!("({receiver}) >/dev/null 2>&1 &"));
    let receives =
        "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'pg_receivewal'";
    eventually(SERVER, "WAL is received", || {
        (pair.primary.sql(receives) == "1").then_some(())
    });
    // The standby is still told from it.
    probe.comes_to_say("/async", 200, "ok");
    pair.primary
        .set("synchronous_standby_names", "pg_receivewal");
    eventually(SERVER, "commits wait for it", || {
        let state =
            "SELECT sync_state FROM pg_stat_replication WHERE application_name = 'pg_receivewal'";
        (pair.primary.sql(state) == "sync").then_some(())
    });
    probe.says("/async", 200, "ok");
    probe.says("/sync", 503, "not_streaming");
    // It is counted. Its name may be anything, a password too.
    let senders = probe.node("a")["replication"].clone();
    let of = |node: &Value| {
        let found = senders.as_array().expect("a list").iter();
        found.filter(|it| it["node"] == *node).count()
    };
    assert_eq!((of(&json!("b")), of(&Value::Null)), (1, 1), "{senders}");
    let told = probe.status_json().to_string();
    assert!(!told.contains("pg_receivewal"), "{told}");
}

#[test]
fn standbys_of_one_name_are_not_told_for_each_other() {
    let primary = Postgres::start();
    for slot in ["one", "two"] {
        primary.sql(&format!(
            "SELECT pg_create_physical_replication_slot('{slot}')"
        ));
    }
    let settings = |slot| {
        [
            "cluster_name=same".to_owned(),
            format!("primary_slot_name={slot}"),
        ]
    };
    let standby = |slot| {
        let settings = settings(slot);
        Postgres::standby_of(&primary, &settings.each_ref().map(String::as_str))
    };
    let [one, two] = ["one", "two"].map(standby);
    let probe = Probe::of(conninfo(&[&primary, &one, &two]))
        .with("nodes", "a,b,c")
        .start();
    begins_with(&probe, "ok");
    primary.set("synchronous_standby_names", "FIRST 1 (same)");
    eventually(SERVER, "commits wait for one of them", || {
        let count = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        (primary.sql(count) == "1").then_some(())
    });
    let slot = "SELECT slot_name FROM pg_stat_replication r JOIN pg_replication_slots s \
                ON s.active_pid = r.pid WHERE sync_state = 'sync'";
    let (sync, other) = match primary.sql(slot).as_str() {
        "one" => ("b", "c"),
        _ => ("c", "b"),
    };
    probe.comes_to_say(&format!("/nodes/{sync}/sync"), 200, "ok");
    probe.says(&format!("/nodes/{other}/sync"), 503, "not_streaming");
    probe.says(&format!("/nodes/{other}/async"), 200, "ok");
    probe.says(
        "/nodes/b/async?lag=1TB",
        if other == "b" { 200 } else { 503 },
        if other == "b" { "ok" } else { "not_streaming" },
    );
    probe.says("/quorum", 503, "not_streaming");
    primary.set("synchronous_standby_names", "ANY 1 (same)");
    probe.comes_to_say("/quorum", 200, "ok");
    probe.says("/read-only-sync", 200, "ok");
    probe.says("/standby-leader", 503, "no_primary");
}

#[test]
fn two_names_of_one_server_are_no_split_brain() {
    let primary = Postgres::start();
    let probe = Probe::of(conninfo(&[&primary, &primary]))
        .with("nodes", "a,b")
        .start();
    begins_with(&probe, "degraded");
    let node = probe.node("b");
    assert_eq!(node["detail"], "leads to the same server as a", "{node}");
    for path in ["/primary", "/nodes/a/primary", "/nodes/b/primary", "/ready"] {
        probe.says(path, 200, "ok");
    }
    assert_eq!(probe.metrics()["pgpair_writable_primaries"], 1.0);
    assert!(!probe.log().contains("split_brain"), "{}", probe.log());
}

/// A new login is tried this often, and a failed one once a second.
const LOGIN: Duration = Duration::from_secs(10);

#[test]
fn new_login_that_fails_beside_a_held_connection_is_told() {
    let primary = Postgres::start();
    let probe = Probe::watching(&primary);
    probe.comes_to_say("/ready?login", 200, "ok");
    let held = primary.pgpair_backend();
    let login = |probe: &Probe| probe.status_json()["nodes"][0]["login"].clone();
    assert_eq!(login(&probe)["reason"], "ok");

    let seen = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgpair-login'";
    eventually(SERVER, "the login is over", || {
        (primary.sql(seen) == "0").then_some(())
    });

    primary.sql("ALTER ROLE pgpair PASSWORD 'another'");
    eventually(LOGIN + TOLD_WITHIN, "the login that fails is told", || {
        // By itself: nobody asks for it.
        (login(&probe)["reason"] == "auth_failed").then_some(())
    });
    let name = probe.status_json()["nodes"][0]["name"].clone();
    let name = name.as_str().expect("a name");
    let metric = format!("pgpair_login_ok{{node=\"{name}\"}}");
    assert_eq!(probe.metrics()[&metric], 0.0);
    let refused = probe.says("/ready?login", 503, "auth_failed");
    assert!(refused.body.contains("no new login"), "{refused:?}");
    probe.says("/ready", 200, "ok");
    assert_eq!(primary.pgpair_backend(), held, "the held one is as it was");
    probe.logs(&format!("login node={name} reason=auth_failed"));

    primary.sql(&format!("ALTER ROLE pgpair PASSWORD '{PASSWORD}'"));
    probe.comes_to_say("/ready?login", 200, "ok");
    assert_eq!(probe.metrics()[&metric], 1.0);
    probe.logs(&format!("login node={name} reason=ok"));
}
