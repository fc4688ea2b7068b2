//! The guard as a service of the host: it is on watch after `site.yml` and after
//! a reboot, keeps still while the pair is changed, and does its work within
//! its sandbox. Steps of [`crate::host`]'s one host.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::command::other;
use crate::support::eventually;
use crate::support::host::Host;
use crate::support::play::Drill;

/// In which the guard must have done what it does, on a machine that is busy.
const GUARD_AT_MOST: Duration = Duration::from_secs(90);

/// Returns what the probe says of the guard.
fn report(host: &Host) -> Option<Value> {
    // To whoever asks from elsewhere, it tells roles only.
    let said = host.run("docker exec pgpair-probe /pgpair status --json || true");
    let status: Value = serde_json::from_str(&said).ok()?;
    Some(status["guard"].clone())
}

pub fn guard_is_on_watch(host: &Host, mode: &str) {
    let state = "systemctl is-enabled pgpair-guard; systemctl is-active pgpair-guard";
    assert_eq!(host.run(state), "enabled\nactive");
    eventually(GUARD_AT_MOST, "the guard is on watch", || {
        let report = report(host)?;
        (report["state"] == "watching" && report["mode"] == mode).then_some(())
    });
}

/// Returns the process that is on watch.
fn pid(host: &Host) -> String {
    host.run("systemctl show --value --property=MainPID pgpair-guard")
}

/// Returns the node that is the primary.
fn primary(host: &Host) -> &'static str {
    let is_one = |node: &&str| host.sql(node, "SELECT pg_is_in_recovery()") == "f";
    ["a", "b"].into_iter().find(is_one).expect("one is")
}

pub fn second_run_changes_nothing_nor_its_owners_pause(host: &Host) {
    let before = pid(host);
    host.run("pgpair guard pause 1h");
    let until = host.run("cat /srv/pgpair/guard.pause");
    host.site(&[]).changed_nothing();
    assert_eq!(host.run("cat /srv/pgpair/guard.pause"), until);
    assert_eq!(pid(host), before);
    host.run("pgpair guard resume");
}

/// In systemd's own judgement, of 0 to 10: a service without any limit has 9.6.
pub fn units_hold_no_more_than_they_need(host: &Host) {
    for (unit, at_most) in [
        ("pgpair-guard", 35),
        ("pgpair-certificates", 25),
        ("pgpair-certificates-failed", 25),
        ("pgpair-network", 30),
    ] {
        let judge = format!(
            "systemd-analyze security --no-pager --threshold={at_most} {unit}.service || echo exposed"
        );
        let said = host.run(&judge);
        assert!(!said.contains("exposed"), "{said}");
    }
    let limits =
        host.run("systemctl show pgpair-guard -p UMask -p LimitCORE -p TasksMax -p MemoryMax");
    for limit in [
        "UMask=0077",
        "LimitCORE=0",
        "TasksMax=256",
        "MemoryMax=268435456",
    ] {
        assert!(
            limits.lines().any(|line| line == limit),
            "{limit}: {limits}"
        );
    }
}

/// Within its sandbox, and with an authority that lacks its key.
pub fn renewal_works_and_one_that_fails_is_said(host: &Host) {
    host.run("rm /srv/pgpair/a/conf/server.crt; systemctl start pgpair-certificates");
    let log = host.run("journalctl -u pgpair-certificates -o cat");
    assert!(log.contains("made the certificate of a"), "{log}");
    assert!(log.contains("had a take it up"), "{log}");
    host.has_primary("a");

    let key = "/srv/pgpair/tls/ca.key";
    host.run(&format!(
        "mv {key} {key}.away; systemctl start pgpair-certificates || true"
    ));
    eventually(GUARD_AT_MOST, "it is said", || {
        let said = host.run("journalctl -u pgpair-certificates-failed -o cat -p err");
        said.contains("certificates of the pair pgpair are not renewed")
            .then_some(())
    });
    host.run(&format!(
        "mv {key}.away {key}; systemctl start pgpair-certificates"
    ));
    assert_eq!(host.run("systemctl --failed --no-legend --plain"), "");
}

/// What the engine stops has not died.
pub fn engine_that_is_restarted_keeps_the_primary(host: &Host) {
    let before = pid(host);
    host.sql("a", "ALTER SYSTEM SET archive_mode = on");
    // From now on a clean stop takes longer than the guard waits.
    host.sql("a", "ALTER SYSTEM SET archive_command = 'sleep 6'");
    host.run("systemctl restart docker");
    host.has_primary("a");
    guard_is_on_watch(host, "async");
    assert_ne!(pid(host), before, "it ended and began with the engine");
    assert_eq!(host.sql("a", "SHOW archive_command"), "sleep 6");
    nobody_was_replaced(host);
}

/// The containers are made anew.
pub fn pair_that_is_changed_keeps_its_primary(host: &Host) {
    let containers = "docker inspect -f '{{.Id}}' pgpair-a pgpair-b";
    let (before, containers_before) = (pid(host), host.run(containers));
    host.has_variables(&json!({
        "pgpair_guard_sync": "sync",
        "postgres_pair_shm_size": "96M",
    }));
    host.site(&[]).changed();
    assert_ne!(host.run(containers), containers_before, "nothing changed");
    host.has_primary("a");
    // It looked on, and goes on with its new settings.
    nobody_was_replaced(host);
    assert_ne!(pid(host), before);
    guard_is_on_watch(host, "sync");
    host.sql("a", "ALTER SYSTEM SET archive_command = 'true'");
    host.sql("a", "SELECT pg_reload_conf()");
}

fn nobody_was_replaced(host: &Host) {
    let log = host.run("journalctl -u pgpair-guard -o cat");
    assert!(!log.contains("state=replacing"), "{log}");
}

pub fn playbooks_move_it(host: &Host) {
    host.play_at("", "switchover.yml", &[]).changed();
    host.has_primary("b");
    host.play_at("", "failover.yml", &[])
        .refused(&["refused: ", "answers", "pgpair switchover"]);
    guard_is_on_watch(host, "sync");
}

pub fn dead_primary_is_replaced(host: &Host) {
    host.run("docker kill pgpair-b");
    host.has_primary("a");
    host.play_at("", "rejoin.yml", &[]).changed_nothing();
    let log = host.run("journalctl -u pgpair-guard -o cat");
    assert!(log.contains("event=failover primary=a"), "{log}");
}

pub fn drill_measures_what_the_guard_does(host: &Host) {
    eventually(GUARD_AT_MOST, "the guard promises", || {
        (report(host)?["synchronous"] == true).then_some(())
    });
    let play = host.play_at("", "drill.yml", &["-e", "confirm=yes"]);
    assert_eq!(play.changed(), 1);
    let saw = Drill::read(&play.stdout);
    eprintln!("drill.yml: {saw:?}");
    assert!(saw.acknowledged > 100, "{saw:?}");
    assert_eq!(saw.lost, 0, "{saw:?}");
    // No sooner than it may: its last answer may be older than its death.
    assert!(saw.in_order() && saw.detected > 4.0, "{saw:?}");
    host.has_primary("b");
}

/// Looks at both nodes from the moment of the boot on.
const OBSERVER: &str = r#"
import time, psycopg2
def writable(node):
    try:
        db = psycopg2.connect(host=f"/srv/pgpair/{node}/run", user="postgres", dbname="postgres", connect_timeout=2)
        with db.cursor() as cursor:
            cursor.execute("SELECT NOT pg_is_in_recovery()")
            answer = cursor.fetchone()[0]
        db.close()
        return answer
    except psycopg2.Error:
        return False
with open("/var/tmp/looks", "a", buffering=1) as looks:
    while True:
        began = time.monotonic()
        seen = "".join(node for node in "ab" if writable(node))
        # No primary moves within so little time.
        if time.monotonic() - began < 0.15:
            looks.write(f"{seen or '-'}\n")
        time.sleep(0.02)
"#;

const OBSERVER_UNIT: &str = "[Unit]\nBefore=docker.service\n\
    [Service]\nExecStart=/usr/bin/python3 /var/tmp/observer.py\n\
    [Install]\nWantedBy=multi-user.target\n";

/// The host goes down while the primary has moved and the old one has just been
/// started by somebody.
pub fn fenced_primary_stays_fenced_through_a_reboot(host: &Host) {
    let old = primary(host);
    let new = other(old);
    host.run("systemctl stop pgpair-guard");
    host.write("/var/tmp/observer.py", OBSERVER);
    host.write("/etc/systemd/system/observer.service", OBSERVER_UNIT);
    host.run("systemctl enable --now observer");
    host.run(&format!(
        "until grep -q {old} /var/tmp/looks; do sleep 0.1; done"
    ));
    host.run(&format!("docker kill pgpair-{old}"));
    host.run(
        "pgpair failover >/var/tmp/failover 2>&1 & \
         until grep -q 'takes writes' /var/tmp/failover; do sleep 0.01; done; kill -9 $!",
    );
    host.run("test -e /srv/pgpair/journal");
    host.run(&format!("docker start pgpair-{old}"));
    host.reboot();
    host.has_primary(new);
    eventually(GUARD_AT_MOST, "the guard completes it", || {
        let left = host.run("ls /srv/pgpair");
        (!left.lines().any(|name| name == "journal")).then_some(())
    });
    guard_is_on_watch(host, "sync");
    host.run("systemctl disable --now observer");
    let looks = host.run("sort /var/tmp/looks | uniq -c");
    eprintln!("looks at who is a primary:\n{looks}");
    let seen = |who: &str| looks.lines().any(|line| line.ends_with(&format!(" {who}")));
    assert!(seen(old) && seen(new), "{looks}");
    assert!(!seen("ab"), "two primaries at once: {looks}");
    host.run("rm /etc/systemd/system/observer.service /var/tmp/observer.py /var/tmp/looks /var/tmp/failover");
}

pub fn guard_that_is_not_wanted_goes_with_its_promise(host: &Host) {
    let primary = primary(host);
    let waits = || host.sql(primary, "SHOW synchronous_standby_names");
    eventually(GUARD_AT_MOST, "commits wait for the standby", || {
        (!waits().is_empty()).then_some(())
    });
    let only_the_guard = ["--tags", "pgpair_guard"];
    let away = [&only_the_guard[..], &["-e", "pgpair_guard_enabled=false"]].concat();
    host.site(&away).changed();
    assert_eq!(waits(), "");
    eventually(GUARD_AT_MOST, "nobody misses it", || {
        (report(host)?["state"] == "absent").then_some(())
    });
    assert_eq!(
        host.run("ls /etc/systemd/system | grep -c guard || true"),
        "0"
    );
    host.site(&away).changed_nothing();
    host.site(&only_the_guard).changed();
    guard_is_on_watch(host, "sync");
}
