//! The playbooks over SSH, on a host with systemd that begins with nothing, as a
//! cloud machine or a VM does: what is set up there, that it outlives a reboot,
//! and that its owner is neither overruled nor locked out.

use std::env;
use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::service;
use crate::support::deployment::{ansible_playbook, checkout};
use crate::support::host::{self, Host};
use crate::support::play::Play;
use crate::support::{eventually, process};

/// From a boot to the probe's first yes, on a machine that is very busy.
const BACK_AT_MOST: Duration = Duration::from_secs(90);

/// What the whole host may hold in memory, of its 1 GiB.
const MEMORY_AT_MOST: u64 = 400 << 20;

const DAEMON: &str = "/etc/docker/daemon.json";
const SSHD: &str = "/etc/ssh/sshd_config.d";

/// One host through all of it, as each step takes a playbook's time.
/// `PGPAIR_TEST_HOST` names another release than Debian 13 (bookworm).
#[test]
fn host_comes_up_over_ssh_outlives_a_reboot_and_keeps_its_owners_say() {
    let release = env::var("PGPAIR_TEST_HOST").unwrap_or_else(|_| "trixie".to_owned());
    let host = Host::start(&release);
    who_may_not_come_in_is_told_in_one_line(&host);
    engines_configuration_that_is_broken_is_refused(&host);
    check_mode_on_a_fresh_host_touches_nothing(&host);
    it_comes_up_from_nothing(&host);
    owners_settings_of_the_engine_are_kept(&host);
    sshd_takes_keys_and_no_passwords(&host);
    sshds_configuration_that_is_broken_is_refused(&host);
    updates_are_installed_but_the_engines(&host);
    only_sshd_and_the_probe_are_open(&host);
    service::guard_is_on_watch(&host, "async");
    service::second_run_changes_nothing_nor_its_owners_pause(&host);
    service::units_hold_no_more_than_they_need(&host);
    service::renewal_works_and_one_that_fails_is_said(&host);
    reboot_brings_the_same_pair_back(&host);
    service::guard_is_on_watch(&host, "async");
    host.site(&["--check"]).changed_nothing();
    another_binary_is_foreseen(&host);
    service::engine_that_is_restarted_keeps_the_primary(&host);
    service::pair_that_is_changed_keeps_its_primary(&host);
    service::playbooks_move_it(&host);
    service::dead_primary_is_replaced(&host);
    service::drill_measures_what_the_guard_does(&host);
    service::fenced_primary_stays_fenced_through_a_reboot(&host);
    service::guard_that_is_not_wanted_goes_with_its_promise(&host);
    one_gibibyte_is_enough(&host);
    teardown_leaves_nothing(&host);
    installed_engine_is_started_or_refused_and_never_replaced(&host);
}

fn who_may_not_come_in_is_told_in_one_line(host: &Host) {
    let key = host.new_key("strange");
    let key = key.to_str().expect("a plain path");
    host.site(&["--private-key", key]).refused(&[
        "via ssh",
        &host.address(),
        "Permission denied (publickey",
    ]);
    host.play_at(":23", "site.yml", &[]).refused(&[
        "via ssh",
        &host.address(),
        "port 23: Connection refused",
    ]);
}

fn engines_configuration_that_is_broken_is_refused(host: &Host) {
    host.write(DAEMON, "{\"log-opts\": ");
    host.site(&["--check"])
        .refused(&[DAEMON, "is not JSON", "Nothing was touched"]);
    let owners = r#"{"log-opts": {"max-size": "20m"}, "shutdown-timeout": 90}"#;
    host.write(DAEMON, owners);
}

fn check_mode_on_a_fresh_host_touches_nothing(host: &Host) {
    let what_there_is = "dpkg-query -W; ls -R /etc/apt /etc/ssh /etc/docker /usr/local; ls /srv; cat /etc/docker/daemon.json";
    let before = host.run(what_there_is);
    let play = host.site(&["--check", "--diff"]);
    assert!(play.changed() > 0, "it foresees nothing");
    assert!(play.tells("no Docker engine yet"), "{}", play.stdout);
    assert_eq!(host.run(what_there_is), before);
}

fn it_comes_up_from_nothing(host: &Host) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let archive = host::save_image(folder.path());
    let archive = format!("postgres_pair_image_archive={}", archive.display());
    let play = host.site(&["-e", &archive]);
    assert!(play.changed() > 0);
    let ready = host.try_get("/ready").expect("it answers");
    assert_eq!(ready.status, 200, "{ready:?}");
    host.has_primary("a");
    // The host has the binary too. Others learn roles only, and to a container the host
    // is another one.
    let refused = host.try_get("/status").expect("it answers");
    assert_eq!(refused.status, 403, "{refused:?}");
    let status = host.run("pgpair status http://localhost:5100");
    assert!(status.starts_with("pair ok, primary a, ready"), "{status}");
    let status = host.run("docker exec pgpair-probe /pgpair status");
    assert!(status.starts_with("pair ok, primary a, ready"), "{status}");
    // What was brought along did not stay.
    assert_eq!(host.run("find /var/tmp -name '*.pgpair'"), "");
    host.sql("a", "CREATE TABLE rows (made_by text)");
    host.sql("a", "INSERT INTO rows VALUES ('before the reboot')");
}

fn owners_settings_of_the_engine_are_kept(host: &Host) {
    let expected = json!({
        "log-driver": "json-file",
        "log-opts": { "max-file": "3", "max-size": "20m" },
        "shutdown-timeout": 90,
    });
    assert_eq!(host.json(DAEMON), expected);
    // As a container gets it that says nothing itself.
    let image = "$(docker inspect -f '{{.Config.Image}}' pgpair-a)";
    let made =
        format!("docker create --name plain {image}; docker inspect plain; docker rm plain >&2");
    let made = host.run(&format!("({made}) | sed 1d"));
    let made: serde_json::Value = serde_json::from_str(&made).expect("JSON");
    let log = &made[0]["HostConfig"]["LogConfig"];
    let options = &expected["log-opts"];
    assert_eq!(
        (&log["Type"], &log["Config"]),
        (&json!("json-file"), options)
    );
}

fn sshd_takes_keys_and_no_passwords(host: &Host) {
    let by_key = host.ssh(&[], "sudo -n id -u");
    assert_eq!(by_key.stdout.trim(), "0", "{by_key:?}");
    let by_password = host.ssh(&["-o", "PubkeyAuthentication=no"], "true");
    assert_eq!(by_password.code(), 255, "{by_password:?}");
    // Nothing else is left to try.
    let offered = by_password.stderr.trim();
    assert!(
        offered.ends_with("Permission denied (publickey)."),
        "{offered}"
    );
}

/// It would let nobody in after the next restart of sshd.
fn sshds_configuration_that_is_broken_is_refused(host: &Host) {
    let file = format!("{SSHD}/90-owner.conf");
    host.write(&file, "Nonsense yes\n");
    host.site(&["--tags", "docker_host"]).refused(&[
        "sshd's configuration",
        "not valid",
        "Nonsense",
    ]);
    host.run(&format!("rm {file}"));
}

fn updates_are_installed_but_the_engines(host: &Host) {
    let settings = host.run("apt-config dump");
    for line in [
        r#"APT::Periodic::Update-Package-Lists "1";"#,
        r#"APT::Periodic::Unattended-Upgrade "1";"#,
        r#"Unattended-Upgrade::Automatic-Reboot "false";"#,
    ] {
        assert!(settings.contains(line), "{line} in {settings}");
    }
    let timers = host.run("systemctl is-enabled apt-daily.timer apt-daily-upgrade.timer");
    assert_eq!(timers, "enabled\nenabled");
    // As unattended-upgrades itself reads it.
    let held = host.run(
        "python3 - <<'E'
import importlib.machinery, importlib.util
loader = importlib.machinery.SourceFileLoader('uu', '/usr/bin/unattended-upgrade')
uu = importlib.util.module_from_spec(importlib.util.spec_from_loader('uu', loader))
loader.exec_module(uu)
import apt_pkg
apt_pkg.init()
held = uu.get_blacklist() if hasattr(uu, 'get_blacklist') else apt_pkg.config.value_list('Unattended-Upgrade::Package-Blacklist')
print([uu.is_pkgname_in_blacklist(name, held) for name in ('docker.io', 'containerd', 'runc', 'openssl')])
E",
    );
    assert_eq!(held, "[True, True, True, False]");
}

fn only_sshd_and_the_probe_are_open(host: &Host) {
    let listening = host.run("ss -Hltn | awk '{ print $4 }' | grep -v -E '^(127\\.|\\[::1\\])' | sed 's/.*://' | sort -nu");
    assert_eq!(listening, "22\n5000");
}

fn reboot_brings_the_same_pair_back(host: &Host) {
    host.reboot();
    eventually(BACK_AT_MOST, "the probe says yes again", || {
        let answer = host.try_get("/ready").ok()?;
        (answer.status == 200).then_some(())
    });
    host.has_primary("a");
    let rules = host.run("iptables -w -S DOCKER-USER");
    assert!(rules.contains("pgpair-network-pgpair"), "{rules}");
    for node in ["a", "b"] {
        assert_eq!(
            host.sql(node, "SELECT made_by FROM rows"),
            "before the reboot",
            "{node}"
        );
        // It ended in order: nothing had to be recovered.
        let log = host.run(&format!("docker logs pgpair-{node} 2>&1"));
        assert!(!log.contains("not properly shut down"), "{node}: {log}");
    }
}

fn another_binary_is_foreseen(host: &Host) {
    let image = "docker inspect -f '{{.Image}}' pgpair-probe; sha256sum /usr/local/bin/pgpair";
    let before = host.run(image);
    let other = checkout().join("Cargo.toml");
    let other = format!("pgpair_probe_binary={}", other.display());
    let play = host.site(&["--check", "--tags", "pgpair_probe", "-e", &other]);
    assert!(play.changed() > 0);
    assert!(play.tells("would be built"), "{}", play.stdout);
    assert_eq!(host.run(image), before);
}

fn one_gibibyte_is_enough(host: &Host) {
    let (killed, held) = host.memory();
    eprintln!("the whole host holds {} MiB", held >> 20);
    assert_eq!(killed, 0, "the kernel killed something for want of memory");
    assert!(held < MEMORY_AT_MOST, "{held} bytes");
}

fn teardown_leaves_nothing(host: &Host) {
    host.play_at("", "teardown.yml", &["-e", "confirm=yes"])
        .changed();
    let left =
        host.run("docker ps -aq; docker image ls -q; ls /srv; ls /usr/local/bin; ls /etc/systemd/system | grep pgpair || true; ss -Hltn | grep :5000 || true");
    assert_eq!(left, "");
}

fn installed_engine_is_started_or_refused_and_never_replaced(host: &Host) {
    let packages = "dpkg-query -W";
    let before = host.run(packages);
    host.run("systemctl stop docker.socket docker");
    let only = ["--tags", "docker_host", "-e", "docker_host_wait=10"];
    assert!(host.site(&only).changed() > 0);
    host.run("docker info");

    host.run("kill -STOP $(pidof dockerd)");
    let play = host.site(&only);
    host.run("kill -CONT $(pidof dockerd)");
    play.refused(&[
        "the unit docker.service",
        "does not answer within 10 s",
        "no package was changed",
    ]);
    assert_eq!(host.run(packages), before);
}

#[test]
fn make_wants_root_for_this_machine_only() {
    let dry_run = |words: &[&str]| {
        let mut make = Command::new("make");
        make.args(["--dry-run", "--no-print-directory"])
            .args(words)
            .current_dir(checkout());
        // A make that runs the tests tells its children of itself.
        let make = make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
        let done = process::run(make, b"", Duration::from_secs(30));
        assert_eq!((done.code(), done.stderr.as_str()), (0, ""));
        done.stdout
    };
    for goal in ["up", "down"] {
        let here = dry_run(&[goal]);
        assert!(here.contains("setup.sh root own "), "{here}");
        assert!(here.contains("-i ansible/inventories/local "), "{here}");
        let there = dry_run(&[goal, "HOST=admin@203.0.113.10"]);
        assert!(!there.contains(" root "), "{there}");
        assert!(there.contains("-i ansible/inventories/ssh "), "{there}");
    }
}

/// Ansible itself calls it a success to have found nobody.
#[test]
fn inventory_without_a_host_is_refused_by_every_playbook() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let inventory = folder.path().join("hosts.yml");
    fs::write(&inventory, "docker_hosts: {hosts: {}}\n").expect("writes");
    for playbook in [
        "site",
        "teardown",
        "switchover",
        "failover",
        "rejoin",
        "drill",
    ] {
        let mut command = Command::new(ansible_playbook());
        command
            .arg("-i")
            .arg(&inventory)
            .arg(format!("ansible/playbooks/{playbook}.yml"))
            .current_dir(checkout())
            .env("ANSIBLE_CONFIG", "ansible/ansible.cfg");
        let play = Play::run(&mut command, "localhost");
        play.refused(&["No Docker host is in the inventory", "hosts.yml"]);
    }
}
