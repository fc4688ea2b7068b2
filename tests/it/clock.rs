//! The fault matrix, row 26: the clock on the wall jumps, and no answer changes.

use std::time::{Duration, SystemTime};

use httpdate::parse_http_date;
use serde_json::Value;

use crate::support::clock::WallClock;
use crate::support::load::{self, Load};
use crate::support::probe::Recipe;
use crate::support::trial::BOTH;
use crate::support::{Pair, Probe, Trial, eventually, ms};

const HOUR: i64 = 3_600;

/// Nothing that happened in a test is longer ago than this, in seconds.
const LATELY: f64 = 60.0;

/// Starts a probe of a pair, which lives by this clock.
fn probe_by(clock: &WallClock, pair: &Pair) -> Probe {
    let recipe = Probe::of(pair.conninfo()).with("nodes", "a,b").of_cargo();
    let variables = clock.variables();
    let set = |recipe: Recipe, (name, value): &(&str, String)| recipe.variable(name, value);
    variables.iter().fold(recipe, set).start()
}

/// Returns by how many seconds the probe's clock on the wall is off.
fn offset(probe: &Probe) -> i64 {
    let answer = probe.get("/health");
    let date = answer.header("Date").expect("every answer is dated");
    let told = seconds_since_1970(parse_http_date(date).expect("a date"));
    told - seconds_since_1970(SystemTime::now())
}

fn seconds_since_1970(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.expect("it is later").as_secs()).expect("it is not that late")
}

/// The process has seen the jump: its answers and its log are dated so.
fn sees(probe: &Probe, seconds: i64) {
    eventually(Duration::from_secs(2), "the jump is seen", || {
        ((offset(probe) - seconds).abs() <= 2).then_some(())
    });
}

/// Whatever is told of times past is as it was: nothing is an hour old, nothing
/// is yet to come.
fn assert_nothing_is_long_ago(probe: &Probe) {
    let status = probe.status_json();
    for (what, number) in numbers_of_time(&status, String::new()) {
        assert!(
            (0.0..LATELY * 1e3).contains(&number),
            "{what}={number}: {status}"
        );
    }
    for (name, value) in probe.metrics() {
        let past = name.starts_with("pgpair_observation_age_seconds")
            || name.starts_with("pg_replication_lag_seconds")
            || name.starts_with("pgpair_outage_seconds_total");
        assert!(!past || (0.0..LATELY).contains(&value), "{name} {value}");
    }
}

/// Returns every number in JSON whose key says that it is an age or a lag.
fn numbers_of_time(value: &Value, key: String) -> Vec<(String, f64)> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(key, value)| numbers_of_time(value, key.clone()))
            .collect(),
        Value::Array(values) => values
            .iter()
            .flat_map(|value| numbers_of_time(value, key.clone()))
            .collect(),
        Value::Number(number) if key.contains("age") || key.contains("seconds") => {
            vec![(key, number.as_f64().unwrap_or(f64::NAN))]
        }
        _ => Vec::new(),
    }
}

#[test]
fn clock_that_jumps_an_hour_either_way_changes_no_answer() {
    let pair = Pair::start();
    let clock = WallClock::new();
    let probe = probe_by(&clock, &pair);
    probe.becomes_ready_within(Duration::from_secs(10));
    // Its connection is there before and after.
    probe.comes_to_say("/ready?write", 200, "ok");
    let mut trial = Trial::of(&probe, &[&pair.primary, &pair.standby], BOTH);
    probe.tells("ok");
    sees(&probe, 0);

    let told = || probe.log().matches(" node node=").count();
    let before = told();
    let load = Load::start(probe.address, "/ready", 200, 4);
    for jump in [HOUR, -HOUR, 0] {
        clock.is_off_by(jump);
        sees(&probe, jump);
        trial.holds(BOTH, ms(1_500));
        probe.says("/ready?write", 200, "ok");
        probe.says("/replica?lag=10MB", 200, "ok");
        assert_nothing_is_long_ago(&probe);
        probe.tells("ok");
    }
    for answer in load::answers(&load.finish()) {
        probe.check_verdict(answer);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(told(), before, "a change: {}", probe.log());

    // A deadline is a deadline when the clock jumps while it runs.
    for jump in [HOUR, -HOUR] {
        clock.is_off_by(0);
        sees(&probe, 0);
        let fault = pair.primary.paused();
        let mut waiting = probe.connect();
        waiting.send("GET /ready HTTP/1.1\r\nHost: pgpair\r\n\r\n");
        clock.is_off_by(jump);
        let answer = waiting.answer();
        probe.check_verdict(&answer);
        assert!(["timed_out", "overdue"].contains(&answer.reason().as_str()));
        sees(&probe, jump);
        probe.becomes_not_ready("overdue");
        trial.recovers(fault);
        assert_nothing_is_long_ago(&probe);
    }
    // And what has happened is dated so: by the clock that was an hour late.
    let last = probe.metrics()["pgpair_last_transition_timestamp_seconds{node=\"a\"}"];
    let off = last - seconds_since_1970(SystemTime::now()) as f64;
    assert!((off + HOUR as f64).abs() < LATELY, "dated {off} s from now");
    probe.comes_to_say("/ready?write", 200, "ok");
}
