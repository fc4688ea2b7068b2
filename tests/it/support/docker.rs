//! The only file that runs docker. Everything it makes carries the label
//! `org.pgpair.test=<pid>` and is gone when this process is.

use std::env;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::eventually;
use super::process::{self, Outcome};

const LABEL: &str = "org.pgpair.test";

/// Longest that one docker command may take, on a machine that is very busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Removes all that the process `$1` left: containers first, as they use the
/// others; the network last, as it is what [`sweep`] looks for.
const REMOVE: &str = r#"
label=org.pgpair.test=$1
docker ps --all --quiet --filter label=$label | xargs -r docker rm --force --volumes
docker image ls --quiet --filter label=$label | xargs -r docker image rm --force
docker network ls --quiet --filter label=$label | xargs -r docker network rm
"#;

/// Runs docker and returns what it printed; fails the test if it fails.
pub fn docker(arguments: &[&str]) -> String {
    docker_with(arguments, b"")
}

/// As [`docker`], with `input` on its stdin.
pub fn docker_with(arguments: &[&str], input: &[u8]) -> String {
    let done = try_docker(arguments, input);
    assert!(
        done.status.success(),
        "docker {}: {}",
        arguments.join(" "),
        done.stderr.trim()
    );
    done.stdout.trim().to_owned()
}

/// Runs docker, whether it succeeds or not.
pub fn try_docker(arguments: &[&str], input: &[u8]) -> Outcome {
    process::run(Command::new("docker").args(arguments), input, PATIENCE)
}

/// Returns the PostgreSQL image to test with.
pub fn postgres_image() -> String {
    const VARIABLE: &str = "PGPAIR_TEST_POSTGRES_IMAGE";
    env::var(VARIABLE).unwrap_or_else(|_| panic!("{VARIABLE} is not set: `make test` sets it up"))
}

/// What the containers of this run share.
pub struct Run {
    pid: String,
    network: String,
    /// The network is 198.18.`subnet`.0/23, and `subnet` even.
    subnet: u8,
    next_host: AtomicU16,
    next_name: AtomicUsize,
}

/// Returns this run's network and names; the first call makes them.
pub fn this_run() -> &'static Run {
    static RUN: OnceLock<Run> = OnceLock::new();
    RUN.get_or_init(Run::start)
}

impl Run {
    fn start() -> Run {
        require_engine();
        sweep();
        let pid = std::process::id();
        let network = format!("pgpair-test-{pid}");
        remove_when_we_end(pid);
        Run {
            subnet: make_network(&network, pid),
            pid: pid.to_string(),
            network,
            // .1 is the host.
            next_host: AtomicU16::new(2),
            next_name: AtomicUsize::new(1),
        }
    }

    /// Returns the network's name.
    pub fn network(&self) -> &str {
        &self.network
    }

    /// Returns the host's own address in the network.
    pub fn gateway(&self) -> IpAddr {
        Ipv4Addr::new(198, 18, self.subnet, 1).into()
    }

    /// Returns an address that no container had before, so that nobody meets
    /// another's server there.
    pub fn new_address(&self) -> IpAddr {
        let host = self.next_host.fetch_add(1, Ordering::Relaxed);
        assert!(host < 511, "more than 509 containers in one run");
        let [third, fourth] = host.to_be_bytes();
        Ipv4Addr::new(198, 18, self.subnet + third, fourth).into()
    }

    /// Returns a name for a container or an image that nothing else has.
    pub fn new_name(&self) -> String {
        let number = self.next_name.fetch_add(1, Ordering::Relaxed);
        format!("pgpair-test-{}-{number}", self.pid)
    }

    /// Returns the label that marks what this run made.
    pub fn label(&self) -> String {
        format!("{LABEL}={}", self.pid)
    }
}

fn require_engine() {
    let asked = try_docker_version();
    assert!(asked, "no Docker engine answers: `make test` sets it up");
}

fn try_docker_version() -> bool {
    let asked = Command::new("docker")
        .args(["version", "--format", "{{.Server.Version}}"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match asked {
        Ok(status) => status.success(),
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => panic!("cannot run docker: {error}"),
    }
}

/// Removes what runs left behind whose process is dead.
fn sweep() {
    let format = format!("{{{{.Label \"{LABEL}\"}}}}");
    let filter = format!("label={LABEL}");
    let left = docker(&["network", "ls", "--filter", &filter, "--format", &format]);
    for pid in left.lines() {
        if !std::path::Path::new("/proc").join(pid).exists() {
            let mut command = Command::new("sh");
            process::run(command.args(["-c", REMOVE, "sh", pid]), b"", PATIENCE);
        }
    }
}

/// Starts a process that removes everything once this one is gone, however
/// that comes about: it reads a pipe whose other end only we hold.
fn remove_when_we_end(pid: u32) {
    use std::os::unix::process::CommandExt;

    let script = format!("cat >/dev/null; {REMOVE}");
    let child = Command::new("sh")
        .args(["-c", &script, "sh", &pid.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C is for the tests, not for who cleans up after them.
        .process_group(0)
        .spawn()
        .expect("sh runs");
    // Its stdin must stay open as long as we live.
    std::mem::forget(child);
}

/// Makes the network in 198.18.0.0/15, the range for tests (RFC 2544).
fn make_network(name: &str, pid: u32) -> u8 {
    let label = format!("{LABEL}={pid}");
    let mut said = String::new();
    for turn in 0..20 {
        let subnet = ((pid + turn * 13) % 128 * 2) as u8;
        let range = format!("198.18.{subnet}.0/23");
        let made = try_docker(
            &[
                "network", "create", "--subnet", &range, "--label", &label, name,
            ],
            b"",
        );
        if made.status.success() {
            return subnet;
        }
        said = made.stderr;
    }
    panic!("cannot make a network: {}", said.trim());
}

/// A container; removed when it is dropped.
pub struct Container {
    pub name: String,
    pub address: IpAddr,
}

impl Container {
    /// Starts a container at `address` in the run's network, known there as
    /// `name`. `options` are docker's, `command` the container's.
    pub fn run(
        name: String,
        address: IpAddr,
        image: &str,
        options: &[&str],
        command: &[&str],
    ) -> Container {
        let run = this_run();
        let label = run.label();
        let ip = address.to_string();
        let common = [
            "run",
            "--detach",
            "--name",
            &name,
            "--hostname",
            &name,
            "--label",
            &label,
            "--network",
            &run.network,
            "--ip",
            &ip,
        ];
        docker(&[&common[..], options, &[image], command].concat());
        Container { name, address }
    }

    pub fn kill(&self) {
        docker(&["kill", &self.name]);
    }

    pub fn stop(&self) {
        docker(&["stop", &self.name]);
    }

    pub fn start(&self) {
        docker(&["start", &self.name]);
    }

    pub fn pause(&self) {
        // On a busy machine the kernel may not come to freeze them all in time.
        eventually(PATIENCE, "the container is paused", || {
            let done = try_docker(&["pause", &self.name], b"");
            done.status.success().then_some(())
        });
    }

    pub fn unpause(&self) {
        docker(&["unpause", &self.name]);
    }

    /// Leaves the run's network.
    pub fn disconnect(&self) {
        docker(&["network", "disconnect", &this_run().network, &self.name]);
    }

    /// Comes back to the run's network, at its address and known there by these
    /// names too.
    pub fn connect(&self, aliases: &[&str]) {
        let ip = self.address.to_string();
        let mut arguments = vec!["network", "connect", "--ip", &ip];
        for alias in aliases {
            arguments.extend(["--alias", alias]);
        }
        docker(&[&arguments[..], &[&this_run().network, &self.name]].concat());
    }

    /// Runs a shell script inside, as `user`, with `input` on its stdin.
    pub fn sh(&self, user: &str, script: &str, input: &[u8]) -> String {
        let arguments = [
            "exec",
            "--interactive",
            "--user",
            user,
            &self.name,
            "sh",
            "-ec",
            script,
        ];
        docker_with(&arguments, input)
    }

    /// Starts a bash script inside, with these arguments after it, to talk to by
    /// its stdin and stdout. It ends with the container at the latest.
    pub fn converse(&self, arguments: &[&str]) -> Child {
        Command::new("docker")
            .args(["exec", "--interactive", &self.name, "bash", "-c"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("docker runs")
    }

    /// Returns what it wrote to stdout and stderr.
    pub fn logs(&self) -> String {
        let done = try_docker(&["logs", &self.name], b"");
        done.stdout + &done.stderr
    }

    /// Returns the container's id on the host of its first process.
    pub fn pid(&self) -> u32 {
        let pid = docker(&["inspect", "--format", "{{.State.Pid}}", &self.name]);
        pid.parse().expect("a process id")
    }

    /// Says whether its first process is there.
    pub fn is_running(&self) -> bool {
        docker(&["inspect", "--format", "{{.State.Running}}", &self.name]) == "true"
    }

    /// Returns the exit code of a container that has ended.
    pub fn exit_code(&self) -> i32 {
        let format = "{{.State.Running}} {{.State.ExitCode}}";
        let state = docker(&["inspect", "--format", format, &self.name]);
        let code = state.strip_prefix("false ").expect("it has ended");
        code.parse().expect("a number")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if thread::panicking() {
            let logs = self.logs();
            let from = logs.len().saturating_sub(4_000);
            eprintln!(
                "--- last logs of {}\n{}",
                self.name,
                String::from_utf8_lossy(&logs.as_bytes()[from..])
            );
        }
        let removed = try_docker(&["rm", "--force", "--volumes", &self.name], b"");
        if !thread::panicking() {
            assert!(removed.status.success(), "{}", removed.stderr);
            let filter = format!("name=^{}$", self.name);
            let left = docker(&["ps", "--all", "--quiet", "--filter", &filter]);
            assert_eq!(left, "", "{} is still there", self.name);
        }
    }
}

/// Makes an image that is nothing but the binary, as the product's is.
pub fn probe_image() -> &'static str {
    static IMAGE: OnceLock<String> = OnceLock::new();
    IMAGE.get_or_init(|| {
        const VARIABLE: &str = "PGPAIR_TEST_BINARY";
        let binary = env::var(VARIABLE)
            .unwrap_or_else(|_| panic!("{VARIABLE} is not set: `make test` sets it up"));
        let directory = tempfile::tempdir().expect("a temporary directory");
        let tar = directory.path().join("image.tar");
        let inside = directory.path().join("pgpair");
        std::fs::copy(&binary, inside)
            .unwrap_or_else(|error| panic!("{VARIABLE} {binary}: {error}"));
        let packed = process::run(
            Command::new("tar")
                .args(["--create", "--file"])
                .arg(&tar)
                .arg("--directory")
                .arg(directory.path())
                .arg("pgpair"),
            b"",
            PATIENCE,
        );
        assert!(packed.status.success(), "{}", packed.stderr);
        let name = this_run().new_name();
        let label = format!("LABEL {}", this_run().label());
        let tar = tar.to_str().expect("a plain path");
        docker(&[
            "import",
            "--change",
            "ENTRYPOINT [\"/pgpair\"]",
            "--change",
            "USER 65532:65532",
            "--change",
            &label,
            tar,
            &name,
        ]);
        name
    })
}
