//! The role `pgpair_probe` alone, for a primary and a standby that this project did
//! not make: it is given a URL, a password file, an authority and a network, and
//! nothing else of theirs.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::deployment::Deployment;
use crate::support::docker::{docker, this_run, try_docker};
use crate::support::play::Play;
use crate::support::tls::Authority;
use crate::support::{Pair, eventually};

/// In which a probe that was made anew has seen both nodes.
const SEEN_WITHIN: Duration = Duration::from_secs(30);

/// The password of the probe's role, which is nobody else's: how the tests' servers
/// replicate is in their containers' commands, and so in what docker tells.
const SECRET: &str = "hunter2-theirs";

/// As somebody would write it who has the role and no other.
const PLAYBOOK: &str = "
- hosts: docker_hosts
  become: true
  roles: [pgpair_probe]
";

/// As the role is taken away again.
const ABSENT: &str = "
- hosts: docker_hosts
  become: true
  tasks:
    - ansible.builtin.import_role: {name: pgpair_probe, tasks_from: absent}
";

/// Somebody's cluster, and what its owner has on the controller.
struct Cluster {
    servers: Pair,
    /// Names and removes what the playbook makes.
    probe: Deployment,
    files: TempDir,
    authority: Authority,
}

impl Cluster {
    fn start() -> Cluster {
        let cluster = Cluster {
            servers: Pair::start(),
            probe: Deployment::new("foreign"),
            files: tempfile::tempdir().expect("a temporary directory"),
            authority: Authority::new("theirs"),
        };
        for server in [&cluster.servers.primary, &cluster.servers.standby] {
            server.turn_tls_on(&cluster.authority.certificate_for(server.name()));
        }
        cluster.has_password(SECRET);
        cluster.write("probe.yml", PLAYBOOK);
        cluster.write("absent.yml", ABSENT);
        cluster
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.file(name), text).expect("writes");
    }

    /// Gives the probe's role a password, and its owner a file of it.
    fn has_password(&self, password: &str) {
        let change = format!("ALTER ROLE pgpair PASSWORD '{password}'");
        self.servers.primary.sql(&change);
        self.servers.caught_up();
        self.write("pgpass", &format!("*:*:*:pgpair:{password}\n"));
    }

    fn url(&self) -> String {
        let (a, b) = (self.servers.primary.name(), self.servers.standby.name());
        format!("postgresql://pgpair@{a},{b}/postgres?sslmode=verify-full")
    }

    /// The variables that the role is to do with.
    fn variables(&self) -> Value {
        json!({
            "pgpair_probe_database_url": self.url(),
            "pgpair_probe_nodes": ["one", "two"],
            "pgpair_probe_password_file": self.file("pgpass"),
            "pgpair_probe_ca_file": self.authority.file(),
            "pgpair_probe_network": this_run().network(),
            // So that nothing of it stays, and no other's is touched.
            "pgpair_probe_name": self.probe.container("probe"),
            "pgpair_probe_project": self.probe.prefix,
            "pgpair_probe_folder": self.probe.root,
        })
    }

    /// Runs one of the playbooks, with some variables given another value.
    fn play_with(&self, playbook: &str, others: &[(&str, &str)], flags: &[&str]) -> Play {
        let mut variables = self.variables();
        for (name, value) in others {
            variables[*name] = Value::from(*value);
        }
        self.write("variables.json", &variables.to_string());
        let variables = format!("@{}", self.file("variables.json").display());
        let playbook = self.file(playbook);
        let playbook = playbook.to_str().expect("a plain path");
        let play = self
            .probe
            .play(playbook, &[&["-e", &variables], flags].concat());
        assert!(!play.tells(SECRET), "it tells the password");
        play
    }

    fn play(&self, flags: &[&str]) -> Play {
        self.play_with("probe.yml", &[], flags)
    }
}

/// One probe through all of it, as each step takes a playbook's time.
#[test]
fn probe_of_a_cluster_that_others_made_is_told_where_it_is_and_no_more() {
    let cluster = Cluster::start();
    what_cannot_be_is_refused_before_anything_is_made(&cluster);
    assert!(cluster.play(&["--check"]).changed() > 0);
    assert_eq!(cluster.probe.containers(), [""; 0]);
    assert!(!cluster.probe.root.exists());

    let play = cluster.play(&["-vvv", "--diff"]);
    assert!(play.changed() > 0);
    let words = format!("http://localhost:{}/ready: 200 ", cluster.probe.port);
    assert!(play.stdout.contains(&words), "{}", play.stdout);
    it_tells_of_both_nodes(&cluster, "one", "two");
    password_is_in_one_file_for_one_user(&cluster);
    cluster.play(&["--diff"]).changed_nothing();
    cluster.play(&["--check"]).changed_nothing();
    new_password_is_taken_up_without_a_restart(&cluster);
    it_follows_a_promotion(&cluster);
    it_goes_without_a_trace(&cluster);
}

fn what_cannot_be_is_refused_before_anything_is_made(cluster: &Cluster) {
    let url = cluster.url();
    let with_password = url.replace("pgpair@", &format!("pgpair:{SECRET}@"));
    let in_a_parameter = format!("{url}&password={SECRET}");
    let unverified = url.replace("verify-full", "prefer");
    let untouched = "Nothing was touched";
    for (name, value, words) in [
        ("pgpair_probe_database_url", "", "is empty"),
        (
            "pgpair_probe_database_url",
            &with_password,
            "holds a password",
        ),
        (
            "pgpair_probe_database_url",
            &in_a_parameter,
            "holds a password",
        ),
        (
            "pgpair_probe_database_url",
            &unverified,
            "sslmode=verify-full",
        ),
        (
            "pgpair_probe_password_file",
            "/nonexistent/pgpass",
            "There is no /nonexistent/pgpass",
        ),
        ("pgpair_probe_ca_file", "ca.crt", "absolute paths"),
        (
            "pgpair_probe_network",
            "no-such-network",
            "There is no Docker network",
        ),
        // Somebody else's, who has it already.
        (
            "pgpair_probe_name",
            cluster.servers.primary.name(),
            "exists and is not pgpair's",
        ),
    ] {
        let play = cluster.play_with("probe.yml", &[(name, value)], &[]);
        play.refused(&[words, untouched]);
        assert!(!cluster.probe.root.exists(), "{words}");
    }
    assert!(!cluster.probe.installed().exists());
}

fn it_tells_of_both_nodes(cluster: &Cluster, primary: &str, standby: &str) {
    eventually(SEEN_WITHIN, "it tells of both", || {
        let answers = [
            cluster.probe.try_get("/ready").ok()?,
            cluster
                .probe
                .try_get(&format!("/nodes/{primary}/primary"))
                .ok()?,
            cluster
                .probe
                .try_get(&format!("/nodes/{standby}/replica"))
                .ok()?,
        ];
        answers.iter().all(|it| it.status == 200).then_some(())
    });
    let status = docker(&[
        "exec",
        &cluster.probe.container("probe"),
        "/pgpair",
        "status",
    ]);
    let words = format!("pair ok, primary {primary}, ready");
    assert!(status.starts_with(&words), "{status}");
}

fn password_is_in_one_file_for_one_user(cluster: &Cluster) {
    let about = |path: &Path| {
        let about = fs::metadata(path).expect("it is there");
        (about.uid(), about.gid(), about.permissions().mode() & 0o777)
    };
    let root = &cluster.probe.root;
    assert_eq!(about(root), (65532, 65532, 0o500));
    assert_eq!(about(&root.join("pgpass")), (65532, 65532, 0o600));
    let files = fs::read_dir(root)
        .expect("a folder")
        .map(|it| it.expect("readable"));
    let mut files: Vec<_> = files.map(|it| it.file_name()).collect();
    files.sort();
    assert_eq!(files, ["ca.crt", "pgpass"]);
    let seen = cluster.probe.inspect("probe").to_string() + &cluster.probe.logs("probe");
    assert!(!seen.contains(SECRET), "docker tells the password");
}

fn new_password_is_taken_up_without_a_restart(cluster: &Cluster) {
    let started = || cluster.probe.inspect("probe")["State"]["StartedAt"].clone();
    let before = started();
    cluster.has_password(&format!("{SECRET}-new"));
    assert_eq!(cluster.play(&["--diff"]).changed(), 1);
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'pgpair'";
    cluster.servers.primary.sql(end);
    it_tells_of_both_nodes(cluster, "one", "two");
    assert_eq!(started(), before);
}

fn it_follows_a_promotion(cluster: &Cluster) {
    cluster.servers.primary.stop();
    cluster.servers.standby.promote();
    eventually(SEEN_WITHIN, "the other is the primary", || {
        let answer = cluster.probe.try_get("/nodes/two/primary").ok()?;
        (answer.status == 200).then_some(())
    });
    assert_eq!(cluster.probe.get("/ready").status, 200);
}

fn it_goes_without_a_trace(cluster: &Cluster) {
    // Other tests may use the image, if they had it before.
    let image = cluster.probe.built_image();
    let binary = [("pgpair_probe_remove_binary", "true")];
    let play = cluster.play_with("absent.yml", &binary, &[]);
    assert_eq!(play.changed(), 3, "container, folder and binary");
    assert_eq!(cluster.probe.containers(), [""; 0]);
    assert!(!cluster.probe.root.exists());
    assert!(!cluster.probe.installed().exists());
    cluster
        .play_with("absent.yml", &binary, &[])
        .changed_nothing();
    if let Some(image) = image {
        try_docker(&["image", "rm", &image], b"");
    }
}
