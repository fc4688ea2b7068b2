//! A host of a test's own for the playbooks: a container that looks like a fresh
//! cloud machine, with systemd, sshd and a user who may sudo. It is reached by
//! SSH alone, from a controller that is not root.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::command::other;
use super::deployment::{ansible_playbook, checkout, required};
use super::docker::{self, Container, docker, this_run};
use super::play::Play;
use super::process::{self, Outcome};
use super::{eventually, http};

/// What every container of a host needs: `docker run`'s options, one a line.
const OPTIONS: &str = include_str!("../../stand_in/options");

/// A Debian may have to be put together first, from a slow mirror.
const BUILD_AT_MOST: Duration = Duration::from_secs(600);

/// A boot takes seconds; the machine may be very busy.
const BOOT_AT_MOST: Duration = Duration::from_secs(90);

/// From a boot to a standby that streams, on a machine that is very busy.
const POSTGRES_AT_MOST: Duration = Duration::from_secs(90);

/// Longest for one command on the host.
const COMMAND_AT_MOST: Duration = Duration::from_secs(120);

/// What a small cloud instance has.
const MEMORY: &str = "1g";

/// The host's name in the inventory.
const NAME: &str = "docker-host";

/// The port of the probe, there.
const PORT: u16 = 5000;

/// Nobody, who runs the playbooks.
const CONTROLLER: u32 = 65534;

pub struct Host {
    container: Container,
    /// The controller's home, with its keys.
    files: TempDir,
}

impl Host {
    /// Boots one with this release of Debian, and lets its owner in.
    pub fn start(release: &str) -> Host {
        let files = tempfile::tempdir().expect("a temporary directory");
        let run = this_run();
        let mut options = vec!["--memory", MEMORY, "--memory-swap", MEMORY];
        options.extend(OPTIONS.lines());
        let image = image_of(release);
        let container = Container::run(run.new_name(), run.new_address(), &image, &options, &[]);
        let host = Host { container, files };
        host.has_variables(&json!({}));
        host.belongs_to_controller(host.files.path());
        // Copies, which no build replaces meanwhile.
        let binary = PathBuf::from(required("PGPAIR_TEST_BINARY"));
        for (from, name) in [
            (checkout().join("Cargo.toml"), "Cargo.toml"),
            (checkout().join("Dockerfile.musl"), "Dockerfile.musl"),
            (binary, "pgpair"),
        ] {
            fs::copy(&from, host.files.path().join(name))
                .unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        }
        let key = host.new_key("key");
        let authorise = "cat >/home/admin/.ssh/authorized_keys
            chown admin: /home/admin/.ssh/authorized_keys";
        host.container.sh("root", authorise, &public_key(&key));
        host.boots();
        host
    }

    /// Makes a key for the controller.
    pub fn new_key(&self, name: &str) -> PathBuf {
        let key = self.files.path().join(name);
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", "ed25519", "-N", "", "-f"]);
        let made = process::run(command.arg(&key), b"", COMMAND_AT_MOST);
        assert!(made.status.success(), "{made:?}");
        self.belongs_to_controller(&key);
        key
    }

    fn belongs_to_controller(&self, path: &Path) {
        chown(path, Some(CONTROLLER), Some(CONTROLLER)).expect("root may");
    }

    /// Gives every later playbook these variables, instead of those before.
    pub fn has_variables(&self, variables: &Value) {
        let path = self.files.path().join("variables.json");
        fs::write(path, variables.to_string()).expect("it is ours");
    }

    /// Returns its address.
    pub fn address(&self) -> String {
        self.container.address.to_string()
    }

    /// Runs site.yml as `make up HOST=…` does, with further arguments.
    pub fn site(&self, arguments: &[&str]) -> Play {
        self.play_at("", "site.yml", arguments)
    }

    /// Runs a playbook against another port of the host, such as `:23`.
    pub fn play_at(&self, port: &str, playbook: &str, arguments: &[&str]) -> Play {
        let home = self.files.path();
        let began = Instant::now();
        let known_hosts = format!(
            "-o UserKnownHostsFile={}",
            home.join("known_hosts").display()
        );
        let mut command = as_controller();
        command
            .arg(ansible_playbook())
            .args(["-i", "ansible/inventories/ssh"])
            .arg(format!("ansible/playbooks/{playbook}"))
            .arg("--private-key")
            .arg(home.join("key"))
            .args(["-e", &format!("pgpair_probe_port={PORT}")])
            .args(["-e", "pgpair_probe_address=0.0.0.0"])
            .args(["-e", &format!("@{}/variables.json", home.display())])
            .args(["-e", &format!("pgpair_probe_source={}", home.display())])
            .args([
                "-e",
                &format!("pgpair_probe_binary={}/pgpair", home.display()),
            ])
            .args(arguments)
            .current_dir(checkout())
            .env("HOME", home)
            .env("PGPAIR_HOST", format!("admin@{}{port}", self.address()))
            .env("ANSIBLE_CONFIG", "ansible/ansible.cfg")
            .env("ANSIBLE_SSH_EXTRA_ARGS", known_hosts);
        let play = Play::run(&mut command, NAME);
        eprintln!(
            "{playbook} {} over SSH: {:?}",
            arguments.join(" "),
            began.elapsed()
        );
        for secret in self.secrets() {
            assert!(!play.tells(&secret), "{playbook} tells a password");
        }
        play
    }

    /// Returns the passwords that the playbook made there.
    fn secrets(&self) -> Vec<String> {
        let read = "cat /srv/pgpair/secrets/* 2>/dev/null || true";
        self.run(read).lines().map(str::to_owned).collect()
    }

    /// Opens a new connection with these options of ssh, and runs a command.
    pub fn ssh(&self, options: &[&str], command: &str) -> Outcome {
        let key = self.files.path().join("key");
        let mut ssh = as_controller();
        ssh.args(["ssh", "-F", "none", "-o", "BatchMode=yes", "-i"])
            .arg(key)
            .args([
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
            ])
            .args(["-o", "LogLevel=ERROR"])
            .args(options)
            .arg(format!("admin@{}", self.address()))
            .arg(command);
        process::run(&mut ssh, b"", COMMAND_AT_MOST)
    }

    /// Runs a shell script there as root, beside SSH; returns what it printed.
    pub fn run(&self, script: &str) -> String {
        self.container.sh("root", script, b"")
    }

    /// Writes a file there as root.
    pub fn write(&self, path: &str, text: &str) {
        let script = format!("mkdir -p $(dirname {path}); cat >{path}");
        self.container.sh("root", &script, text.as_bytes());
    }

    /// Returns what a file there holds, as JSON.
    pub fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.run(&format!("cat {path}"))).expect("JSON")
    }

    /// Runs SQL as superuser on a node; returns rows of `|`-separated cells.
    pub fn sql(&self, node: &str, sql: &str) -> String {
        self.container.sh("root", &psql(node), sql.as_bytes())
    }

    /// As [`Host::sql`]; the node may not be there.
    pub fn try_sql(&self, node: &str, sql: &str) -> Option<String> {
        let script = psql(node);
        let arguments = ["exec", "-i", &self.container.name, "sh", "-ec", &script];
        let done = docker::try_docker(&arguments, sql.as_bytes());
        let success = done.status.success();
        success.then(|| done.stdout.trim().to_owned())
    }

    /// Waits until `primary` is the one primary and the other node streams from it.
    pub fn has_primary(&self, primary: &str) {
        let standby = other(primary);
        eventually(
            POSTGRES_AT_MOST,
            &format!("{standby} streams from {primary}"),
            || {
                let state = self.try_sql(primary, "SELECT state FROM pg_stat_replication")?;
                (state == "streaming").then_some(())
            },
        );
        let recovering = "SELECT pg_is_in_recovery()";
        assert_eq!(self.sql(primary, recovering), "f", "{primary} is primary");
        assert_eq!(self.sql(standby, recovering), "t", "{standby} is standby");
    }

    /// Asks the probe through the host's port; there may be none.
    pub fn try_get(&self, path: &str) -> io::Result<http::Answer> {
        http::Connection::try_open((self.container.address, PORT).into())?.try_get(path)
    }

    /// Shuts the host down as a machine is, and boots it again.
    pub fn reboot(&self) {
        let began = Instant::now();
        docker(&["restart", "--time", "50", &self.container.name]);
        // 143 and the like would be Docker's kill after that time.
        self.boots();
        eprintln!("a reboot: {:?}", began.elapsed());
    }

    fn boots(&self) {
        let mut last = String::new();
        eventually(BOOT_AT_MOST, "the host is up", || {
            let done = docker::try_docker(
                &[
                    "exec",
                    &self.container.name,
                    "systemctl",
                    "is-system-running",
                ],
                b"",
            );
            last = done.stdout.trim().to_owned();
            (last == "running" || last == "degraded").then_some(())
        });
        let failed = self.run("systemctl --failed --no-legend --plain");
        assert_eq!((last.as_str(), failed.as_str()), ("running", ""));
    }

    /// Returns how often the host's memory was too little for what it runs, and
    /// how many bytes its processes hold.
    pub fn memory(&self) -> (u64, u64) {
        let number = |text: String| text.trim().parse().expect("a number");
        let killed = "cat /sys/fs/cgroup/memory/memory.oom_control /sys/fs/cgroup/memory.events 2>/dev/null |
            sed -n 's/^oom_kill //p'";
        let held = "cat /sys/fs/cgroup/memory/memory.stat /sys/fs/cgroup/memory.stat 2>/dev/null |
            awk '/^(total_rss|total_shmem|anon|shmem) / { sum += $2 } END { print sum }'";
        (number(self.run(killed)), number(self.run(held)))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if thread::panicking() {
            let journal = "journalctl -u pgpair-guard -o short-iso -n 100";
            let arguments = ["exec", &self.container.name, "sh", "-c", journal];
            let said = docker::try_docker(&arguments, b"").stdout;
            eprintln!("--- last words of the guard\n{said}");
        }
    }
}

fn psql(node: &str) -> String {
    let psql = "psql -XqAt -v ON_ERROR_STOP=1 -d app";
    format!("docker exec -i -u postgres pgpair-{node} {psql}")
}

/// Begins a command that the controller runs: not as root, but able to read the
/// checkout, wherever that is.
fn as_controller() -> Command {
    // Other tests, which measure time, run beside it.
    let mut command = Command::new("nice");
    let id = CONTROLLER.to_string();
    command
        .args(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"])
        .args(["--inh-caps", "-all,+dac_read_search"])
        .args(["--ambient-caps", "-all,+dac_read_search"])
        .args(["--bounding-set", "-all,+dac_read_search"]);
    command
}

fn public_key(key: &Path) -> Vec<u8> {
    fs::read(key.with_extension("pub")).expect("made with the key")
}

/// Has the image of a host with this release.
fn image_of(release: &str) -> String {
    let script = checkout().join("tests/stand_in/build.sh");
    let mut command = Command::new("nice");
    let built = process::run(command.arg(script).arg(release), b"", BUILD_AT_MOST);
    assert!(
        built.status.success(),
        "no host can be made: {}",
        built.stderr
    );
    built.stdout.trim().to_owned()
}

/// Writes PostgreSQL's image to a file that the controller may read, as somebody
/// brings it to a host that reaches no registry.
pub fn save_image(folder: &Path) -> PathBuf {
    let archive = folder.join("image.tar");
    let path = archive.to_str().expect("a plain path");
    docker(&["save", "--output", path, &docker::postgres_image()]);
    fs::set_permissions(&archive, fs::Permissions::from_mode(0o644)).expect("it is ours");
    archive
}
