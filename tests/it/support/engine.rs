//! A Docker engine of a test's own, that may be stopped, killed and frozen: the
//! one that all others share must not be. It lives in namespaces in which
//! nothing of the host's can be harmed and of which nothing is left: the kernel
//! ends whatever is in them together with their first process.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::docker::{postgres_image, try_docker};
use super::fault::Fault;
use super::{eventually, process};

/// Says that this process is in the namespaces already.
const INSIDE: &str = "PGPAIR_TEST_INSIDE";

/// Longest for the engine to start or stop, its containers included: those have
/// two minutes.
const ENGINE_AT_MOST: Duration = Duration::from_secs(180);

const LOG: &str = "/run/dockerd.log";

const SOCKET: &str = "/run/docker.sock";

/// Prepares the namespaces and runs the test there. What the engine and the
/// pairs write is in memory, and /srv of so many megabytes. The first process
/// stays a shell, which takes leave of those that lose their parent. It has a
/// name of its own: behind a shell, Ansible would look for systemd.
const PREPARE: &str = r#"
set -eu
ip link set lo up
mkdir -p /var/lib/docker /srv
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib/docker
mount -t tmpfs -o "size=$1m" tmpfs /srv
shift
ln -s /bin/sh /run/first
exec /run/first -c '"$@"; exit $?' first "$@"
"#;

/// An engine; it ends when it is dropped.
pub struct Engine {
    daemon: Mutex<Child>,
}

impl Engine {
    /// Runs the calling test once more in namespaces of its own, with an engine
    /// and a /srv of `megabytes` there. Returns nothing on the outside, once it has
    /// passed there, and the engine inside.
    pub fn of_its_own(megabytes: usize) -> Option<Engine> {
        if env::var_os(INSIDE).is_none() {
            let test = thread::current();
            run_inside(test.name().expect("the harness names it"), megabytes);
            return None;
        }
        let engine = Engine {
            daemon: Mutex::new(start()),
        };
        engine.answers();
        // Our own stdin is the image.
        let loaded = Command::new("docker")
            .arg("load")
            .stdin(Stdio::inherit())
            .status();
        assert!(loaded.is_ok_and(|status| status.success()), "no image");
        Some(engine)
    }

    /// Stops the engine, and its containers, as the service manager does it.
    pub fn stop(&self) {
        let mut daemon = self.daemon();
        signal("TERM", &daemon);
        let ended = process::wait(&mut daemon, ENGINE_AT_MOST);
        assert!(ended.is_some(), "the engine does not stop");
    }

    /// Kills the engine alone. Its containers run on.
    pub fn kill(&self) {
        process::end(&mut self.daemon());
    }

    /// Starts it again after [`Engine::stop`] or [`Engine::kill`].
    pub fn start(&self) {
        *self.daemon() = start();
        self.answers();
    }

    /// Freezes the engine. Its containers run on.
    pub fn frozen(&self) -> Fault<'_> {
        signal("STOP", &self.daemon());
        Fault::new(|| signal("CONT", &self.daemon()))
    }

    /// Takes its socket away.
    pub fn hidden(&self) -> Fault<'_> {
        let aside = format!("{SOCKET}.aside");
        fs::rename(SOCKET, &aside).expect("it is there");
        Fault::new(move || fs::rename(aside, SOCKET).expect("it is there"))
    }

    fn answers(&self) {
        eventually(ENGINE_AT_MOST, "the engine answers", || {
            let asked = try_docker(&["version"], b"");
            asked.status.success().then_some(())
        });
    }

    fn daemon(&self) -> MutexGuard<'_, Child> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = fs::read_to_string(LOG).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!(
                "--- last words of the engine, the latest first\n{}",
                last.join("\n")
            );
        }
        // What it leaves goes with the namespaces.
        process::end(&mut self.daemon());
    }
}

fn start() -> Child {
    // One that was killed leaves it, with a number that another may have by now.
    let _ = fs::remove_file("/run/docker.pid");
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(LOG)
        .expect("a log");
    Command::new("dockerd")
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a descriptor is left"))
        .stderr(log)
        .spawn()
        .expect("dockerd runs")
}

fn signal(name: &str, to: &Child) {
    let mut kill = Command::new("kill");
    let kill = kill.args(["-s", name, &to.id().to_string()]);
    let done = process::run(kill, b"", ENGINE_AT_MOST);
    assert!(done.status.success(), "{done:?}");
}

fn run_inside(test: &str, megabytes: usize) {
    let mut image = Command::new("docker")
        .args(["save", &postgres_image()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("docker runs");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut inside = Command::new("setpriv")
        // With us ends the one, and with that the other.
        .args(["--pdeathsig", "KILL", "--", "unshare", "--kill-child"])
        .args(["--net", "--mount", "--pid", "--fork", "--mount-proc", "--"])
        .args(["sh", "-c", PREPARE, "sh", &megabytes.to_string()])
        .arg(env::current_exe().expect("it runs"))
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .stdin(image.stdout.take().expect("piped"))
        .stdout(writer.try_clone().expect("a descriptor is left"))
        .stderr(writer)
        .spawn()
        .expect("setpriv runs");
    // The harness shows it if the test fails.
    for line in BufReader::new(reader).lines() {
        eprintln!("{}", line.expect("text"));
    }
    let passed = |status: std::io::Result<ExitStatus>| status.is_ok_and(|it| it.success());
    assert!(passed(image.wait()), "the image cannot be saved");
    assert!(passed(inside.wait()), "it did not pass inside");
}
