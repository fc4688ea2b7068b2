//! Every version of PostgreSQL that is supported.

use crate::support::Probe;
use crate::support::versions::{Versioned, versions};

/// The versions that the README promises.
const SUPPORTED: [u32; 6] = [13, 14, 15, 16, 17, 18];

#[test]
fn every_supported_version_is_fetched() {
    let found: Vec<u32> = versions().into_iter().map(|(major, _)| major).collect();
    assert_eq!(found, SUPPORTED);
}

#[test]
fn postgresql_13_is_told_whole() {
    is_told_whole(13);
}

#[test]
fn postgresql_14_is_told_whole() {
    is_told_whole(14);
}

#[test]
fn postgresql_15_is_told_whole() {
    is_told_whole(15);
}

#[test]
fn postgresql_16_is_told_whole() {
    is_told_whole(16);
}

#[test]
fn postgresql_17_is_told_whole() {
    is_told_whole(17);
}

#[test]
fn postgresql_18_is_told_whole() {
    is_told_whole(18);
}

/// Everything that is told of a pair: whole, with a function revoked, and with the
/// standby cut off.
fn is_told_whole(version: u32) {
    let pair = Versioned::start(version);
    let probe = pair.recipe().start();
    probe.becomes_ready();
    probe.tells("ok");
    answers_are_right(&probe);
    facts_are_complete(&pair, &probe, version);
    one_function_is_one_value(&pair, &probe);
    pair.cut_replication();
    probe.tells("degraded");
    probe.says("/replica", 503, "not_streaming");
    probe.says("/primary", 200, "ok");
    assert_eq!(receiver_up(&probe), 0.0);
}

fn answers_are_right(probe: &Probe) {
    assert_eq!(probe.get("/health").status, 200);
    for (path, status) in [
        ("/ready", 200),
        ("/ready?write", 200),
        ("/primary", 200),
        ("/nodes/a/primary", 200),
        ("/nodes/b/primary", 503),
        ("/replica", 200),
        ("/nodes/a/replica", 503),
        ("/replica?lag=1MB", 200),
        ("/replica?lag=1MB&mode=write", 200),
        ("/read-only", 200),
        ("/async", 200),
        ("/sync", 503),
    ] {
        let answer = probe.verdict_of(path);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
    }
}

fn facts_are_complete(pair: &Versioned, probe: &Probe, version: u32) {
    let system = pair.sql("a", "SELECT system_identifier FROM pg_control_system()");
    for name in ["a", "b"] {
        let node = probe.node(name);
        assert_eq!(
            node["server_version"].as_u64().map(|it| it / 10_000),
            Some(version.into())
        );
        assert_eq!(
            node["database_system_identifier"],
            system.as_str(),
            "{node}"
        );
        assert_eq!(node["timeline"], 1, "{node}");
        assert_eq!(node["pending_restart"], false, "{node}");
        assert!(node.get("unknown").is_none(), "{node}");
    }
    let (a, b) = (probe.node("a"), probe.node("b"));
    assert!(a["xlog"]["location"].as_u64() > Some(0), "{a}");
    assert_eq!(a["replication"][0]["application_name"], "b", "{a}");
    assert_eq!(a["replication"][0]["node"], "b", "{a}");
    assert_eq!(a["slots"][0]["wal_status"], "reserved", "{a}");
    assert!(b["xlog"]["replayed_location"].as_u64() > Some(0), "{b}");
    assert_eq!(b["xlog"]["paused"], false, "{b}");
    assert_eq!(
        (&b["replication_state"], &b["slot"]),
        (&"streaming".into(), &"b".into())
    );
    assert_eq!(b["lag_bytes"], 0, "{b}");
    assert_eq!(receiver_up(probe), 1.0);
    let metrics = probe.metrics();
    let retained = metrics.get("pgpair_slot_retained_bytes{node=\"a\",slot=\"b\"}");
    assert!(retained.is_some(), "{metrics:?}");
}

fn receiver_up(probe: &Probe) -> f64 {
    probe.metrics()["pgpair_wal_receiver_up{node=\"b\"}"]
}

fn one_function_is_one_value(pair: &Versioned, probe: &Probe) {
    pair.sql(
        "a",
        "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM public",
    );
    probe.comes_to_know("a", &["system_identifier"]);
    probe.tells("ok");
    answers_are_right(probe);
    let node = probe.node("a");
    assert!(node.get("database_system_identifier").is_none(), "{node}");
    assert_eq!(node["timeline"], 1, "{node}");
}
