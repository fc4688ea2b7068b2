use std::time::Duration;

use super::super::node::Receiver;
use super::*;

fn primary(lsn: u64) -> Replication {
    Replication {
        lsn: Some(Lsn(lsn)),
        ..Replication::default()
    }
}

fn standby(replayed: u64, received: u64, status: Option<&str>) -> Replication {
    Replication {
        lsn: Some(Lsn(replayed)),
        received: Some(Lsn(received)),
        receiver: Some(status.map(|status| Receiver {
            status: Some(status.to_owned()),
            latest_end: Some(Lsn(received + 5)),
            ..Receiver::default()
        })),
        ..Replication::default()
    }
}

#[test]
fn bytes_are_exact_and_unknown_rather_than_zero_when_broken() {
    let streaming = Some("streaming");
    for (standby, primary, apply, write) in [
        (
            standby(100, 100, streaming),
            Some(primary(100)),
            Some(0),
            Some(0),
        ),
        (
            standby(90, 100, streaming),
            Some(primary(120)),
            Some(30),
            Some(20),
        ),
        (
            standby(120, 100, streaming),
            Some(primary(120)),
            Some(0),
            Some(0),
        ),
        // Observed a little later than the primary.
        (
            standby(130, 130, streaming),
            Some(primary(120)),
            Some(0),
            Some(0),
        ),
        // Not streaming: behind what is known, or unknown.
        (
            standby(90, 100, None),
            Some(primary(120)),
            Some(30),
            Some(20),
        ),
        (standby(100, 100, None), Some(primary(100)), None, None),
        (
            standby(100, 100, Some("waiting")),
            Some(primary(100)),
            None,
            None,
        ),
        // Without a primary: against what the receiver heard of.
        (standby(90, 100, streaming), None, Some(15), Some(5)),
        (standby(90, 100, None), None, Some(10), None),
        (standby(100, 100, None), None, None, None),
    ] {
        assert_eq!(
            bytes(&standby, primary.as_ref(), Mode::Apply),
            apply,
            "{standby:?}"
        );
        assert_eq!(
            bytes(&standby, primary.as_ref(), Mode::Write),
            write,
            "{standby:?}"
        );
    }
}

#[test]
fn a_role_without_rights_sees_no_lag() {
    let mut blind = standby(100, 100, Some("streaming"));
    if let Some(receiver) = blind.receiver.as_mut().and_then(Option::as_mut) {
        receiver.status = None;
    }
    assert_eq!(bytes(&blind, Some(&primary(100)), Mode::Apply), None);
    assert_eq!(
        bytes(&Replication::default(), Some(&primary(1)), Mode::Apply),
        None
    );
}

#[test]
fn seconds_are_the_time_since_the_primary_was_where_the_standby_is() {
    let now = Instant::now() + Duration::from_secs(100);
    let ago = |seconds| now - Duration::from_secs(seconds);
    let mut trail = Trail::default();
    for (seconds, at) in [(30, 100), (20, 100), (10, 200), (5, 300)] {
        trail.record(ago(seconds), Lsn(at));
    }
    for (replayed, status, behind, expected) in [
        (300, "streaming", 0, Some(0.0)),
        (250, "streaming", 50, Some(10.0)),
        (100, "streaming", 200, Some(20.0)),
        (50, "streaming", 250, Some(30.0)),
        (300, "streaming", 1, Some(5.0)),
        (250, "waiting", 50, None),
    ] {
        let standby = standby(replayed, replayed, Some(status));
        assert_eq!(trail.seconds(&standby, behind, now), expected, "{replayed}");
    }
    assert_eq!(
        Trail::default().seconds(&standby(1, 1, Some("streaming")), 1, now),
        None
    );
}

#[test]
fn the_last_replayed_transaction_bounds_the_seconds_unless_clocks_disagree() {
    let now = Instant::now() + Duration::from_secs(100);
    let mut trail = Trail::default();
    trail.record(now - Duration::from_secs(10), Lsn(100));
    for (age, expected) in [
        (Some(0.5), Some(0.5)),
        (Some(3_600.0), Some(10.0)),
        (Some(-3_600.0), Some(10.0)),
        (None, Some(10.0)),
    ] {
        let mut standby = standby(150, 150, Some("streaming"));
        standby.replay_age_seconds = age;
        assert_eq!(trail.seconds(&standby, 50, now), expected, "{age:?}");
    }
}

#[test]
fn what_is_written_after_the_standby_was_seen_is_no_lag() {
    let now = Instant::now() + Duration::from_secs(100);
    let mut trail = Trail::default();
    trail.record(now - Duration::from_secs(2), Lsn(100));
    trail.record(now, Lsn(1_000));
    let seen = now - Duration::from_secs(1);
    let measure = |standby: &Replication| {
        Lag::measure(standby, Some(&primary(1_000)), &trail, seen).apply_bytes
    };
    let mut caught_up = standby(105, 105, Some("streaming"));
    if let Some(receiver) = caught_up.receiver.as_mut().and_then(Option::as_mut) {
        receiver.latest_end = Some(Lsn(105));
    }
    assert_eq!(measure(&caught_up), Some(0));
    assert_eq!(measure(&standby(90, 95, Some("streaming"))), Some(10));
    assert_eq!(measure(&standby(90, 95, None)), Some(910));
}

#[test]
fn a_primary_that_goes_back_begins_a_new_trail() {
    let now = Instant::now();
    let mut trail = Trail::default();
    trail.record(now, Lsn(500));
    trail.record(now, Lsn(400));
    assert_eq!(trail.0.len(), 1);
}

#[test]
fn sizes_have_postgresql_units() {
    for (text, expected) in [
        ("0", 0),
        ("10", 10),
        ("10B", 10),
        ("1kB", 1024),
        ("10MB", 10 * 1024 * 1024),
        ("2GB", 2 << 30),
        ("1TB", 1 << 40),
    ] {
        assert_eq!(parse_bytes(text), Ok(expected), "{text}");
    }
    for text in [
        "",
        "MB",
        "1mb",
        "1KB",
        "-1",
        "+1",
        "1.5MB",
        "1 MB",
        "99999999TB",
        "1e3",
        "010MB",
    ] {
        assert!(parse_bytes(text).is_err(), "{text:?}");
    }
}
