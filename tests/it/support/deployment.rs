//! A pair of a test's own on this machine, brought up as `make up` does it, and
//! nothing left of it afterwards.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use serde_json::Value;
use tempfile::TempDir;

use super::docker::{docker, try_docker};
use super::play::Play;
use super::{eventually, http, process};

/// What every prefix of a test begins with; the process id follows.
const PREFIX: &str = "pgpair-test-";

/// Where site.yml puts pairs.
const SRV: &str = "/srv";

/// Marks the containers and networks of a pair; the value is its prefix.
const LABEL: &str = "org.pgpair.project";

/// Longest that PostgreSQL may take to start or to stream again, on a machine
/// that is very busy.
const POSTGRES_AT_MOST: Duration = Duration::from_secs(90);

/// Removes all that the pair `$1` left, the folder last: [`sweep`] looks for it.
const REMOVE: &str = r#"
case $1 in pgpair-test-*) ;; *) exit 1 ;; esac
docker ps --all --quiet --filter label=org.pgpair.project=$1 | xargs -r docker rm --force --volumes
iptables -w -S DOCKER-USER | sed -n "/ pgpair-network-$1 /s/^-A/-D/p" | xargs -r -L 1 iptables -w
docker network ls --quiet --filter label=org.pgpair.project=$1 | xargs -r docker network rm
rm -rf "/srv/$1"
"#;

/// Returns what `make test` says in the environment.
pub fn required(variable: &str) -> String {
    env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: `make test` sets it up"))
}

/// Returns the ansible-playbook to test with.
pub fn ansible_playbook() -> PathBuf {
    required("PGPAIR_TEST_ANSIBLE_PLAYBOOK").into()
}

/// Returns the checkout.
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A name for a pair, a port for its probe, and copies of what the probe is
/// made from, which no build replaces. Whatever comes of it is gone when it is dropped.
pub struct Deployment {
    pub prefix: String,
    pub root: PathBuf,
    pub port: u16,
    files: TempDir,
    remover: Child,
    images_before: String,
}

impl Deployment {
    /// Makes none of the pair yet. `name` must be another for every test.
    pub fn new(name: &str) -> Deployment {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        let prefix = format!("{PREFIX}{}-{name}", std::process::id());
        let files = tempfile::tempdir().expect("a temporary directory");
        let binary: PathBuf = required("PGPAIR_TEST_BINARY").into();
        for (from, name) in [
            (checkout().join("Cargo.toml"), "Cargo.toml"),
            (checkout().join("Dockerfile.musl"), "Dockerfile.musl"),
            (binary, "pgpair"),
        ] {
            fs::copy(&from, files.path().join(name))
                .unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        }
        Deployment {
            root: Path::new(SRV).join(&prefix),
            port: free_port(),
            files,
            remover: remove_when_we_end(&prefix),
            images_before: docker(&["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]),
            prefix,
        }
    }

    /// Runs site.yml as `make up` does, with further arguments.
    pub fn site(&self, arguments: &[&str]) -> Play {
        self.play("site.yml", arguments)
    }

    /// Runs teardown.yml as `make down` does, with further arguments. Nobody
    /// is there to answer, and the images stay: other tests use them.
    pub fn teardown(&self, arguments: &[&str]) -> Play {
        let arguments = [&["-e", "postgres_pair_remove_images=false"], arguments].concat();
        self.play("teardown.yml", &arguments)
    }

    /// Runs a playbook about this pair, with further arguments. It is one of the
    /// project's, or a file by its absolute path.
    pub fn play(&self, playbook: &str, arguments: &[&str]) -> Play {
        self.play_in(&[], playbook, arguments)
    }

    /// Runs a playbook with these variables in the environment of who calls it.
    pub fn play_in(&self, variables: &[(&str, &str)], playbook: &str, arguments: &[&str]) -> Play {
        let secrets_before = self.secrets();
        let began = Instant::now();
        // Other tests, which measure time, run beside it.
        let mut command = Command::new("nice");
        command
            .arg(ansible_playbook())
            .args(["-i", "ansible/inventories/local"])
            .arg(Path::new("ansible/playbooks").join(playbook))
            .args(["-e", &format!("postgres_pair_prefix={}", self.prefix)])
            .args(["-e", &format!("pgpair_probe_port={}", self.port)])
            .args(["-e", &self.variable("pgpair_probe_source", "")])
            .args(["-e", &self.variable("pgpair_probe_binary", "pgpair")])
            .args([
                "-e",
                &self.variable("pgpair_probe_install_path", "installed"),
            ])
            .args(arguments)
            .current_dir(checkout())
            .env("ANSIBLE_CONFIG", "ansible/ansible.cfg")
            .envs(variables.iter().copied());
        let play = Play::run(&mut command, "localhost");
        let words = arguments.join(" ");
        eprintln!("{playbook} {words}: {:?}", began.elapsed());
        for secret in secrets_before.iter().chain(&self.secrets()) {
            assert!(!play.tells(secret), "{playbook} {words} tells a password");
        }
        play
    }

    fn variable(&self, name: &str, file: &str) -> String {
        format!("{name}={}", self.files.path().join(file).display())
    }

    /// Returns where the playbook installs the binary.
    pub fn installed(&self) -> PathBuf {
        self.files.path().join("installed")
    }

    /// Returns the passwords that the playbook made.
    pub fn secrets(&self) -> Vec<String> {
        let Ok(files) = fs::read_dir(self.root.join("secrets")) else {
            return Vec::new();
        };
        let read = files.map(|file| fs::read_to_string(file.expect("readable").path()));
        let secrets = read.map(|secret| secret.expect("text").trim().to_owned());
        secrets.filter(|secret| !secret.is_empty()).collect()
    }

    /// Returns the name of the container of `a`, `b` or `probe`.
    pub fn container(&self, node: &str) -> String {
        format!("{}-{node}", self.prefix)
    }

    /// Returns the rules by which the host keeps others from its containers.
    pub fn rules(&self) -> String {
        let mut list = Command::new("iptables");
        let done = process::run(
            list.args(["-w", "-S", "DOCKER-USER"]),
            b"",
            Duration::from_secs(10),
        );
        assert_eq!(done.code(), 0, "{done:?}");
        let mark = format!("pgpair-network-{} ", self.prefix);
        let rules = done.stdout.lines();
        let ours: Vec<&str> = rules.filter(|it| it.contains(&mark)).collect();
        ours.join("\n")
    }

    /// Returns a node's PGDATA on the host.
    pub fn data(&self, node: &str) -> PathBuf {
        self.root.join(node).join("data/pgdata")
    }

    /// Runs `docker <verb>` with the containers of these nodes, in this order.
    pub fn each(&self, verb: &str, nodes: &[&str]) {
        for node in nodes {
            docker(&[verb, &self.container(node)]);
        }
    }

    /// Returns all that docker says about a node's container.
    pub fn inspect(&self, node: &str) -> Value {
        let text = docker(&["inspect", "--type", "container", &self.container(node)]);
        let mut all: Value = serde_json::from_str(&text).expect("JSON");
        all[0].take()
    }

    /// Returns what a node's container wrote.
    pub fn logs(&self, node: &str) -> String {
        let done = try_docker(&["logs", "--tail", "1000", &self.container(node)], b"");
        done.stdout + &done.stderr
    }

    /// Runs SQL as superuser on a node; returns rows of `|`-separated cells.
    pub fn sql(&self, node: &str, sql: &str) -> String {
        let container = self.container(node);
        docker(&[
            "exec",
            "--user",
            "postgres",
            &container,
            "psql",
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            "app",
            "-c",
            sql,
        ])
    }

    /// Waits until a node's PostgreSQL takes connections.
    pub fn accepts(&self, node: &str) {
        let container = self.container(node);
        let ask = [
            "exec",
            &container,
            "pg_isready",
            "-q",
            "-h",
            "127.0.0.1",
            "-U",
            "pgpair",
            "-d",
            "postgres",
        ];
        eventually(POSTGRES_AT_MOST, &format!("{node} accepts"), || {
            try_docker(&ask, b"").status.success().then_some(())
        });
    }

    /// Waits until both nodes accept, and checks that `primary` is the one
    /// primary and the other node streams from it.
    pub fn has_primary(&self, primary: &str) {
        let standby = if primary == "a" { "b" } else { "a" };
        self.accepts(primary);
        self.accepts(standby);
        let recovering = "SELECT pg_is_in_recovery()";
        assert_eq!(self.sql(primary, recovering), "f", "{primary} is primary");
        assert_eq!(self.sql(standby, recovering), "t", "{standby} is standby");
        eventually(POSTGRES_AT_MOST, "the standby streams", || {
            let sql = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
            (self.sql(primary, sql) == "1").then_some(())
        });
    }

    /// Returns where the probe answers.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Asks the probe, on a connection of its own.
    pub fn get(&self, path: &str) -> http::Answer {
        self.try_get(path)
            .unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// As [`Deployment::get`]; the probe may have gone.
    pub fn try_get(&self, path: &str) -> io::Result<http::Answer> {
        http::Connection::try_open(([127, 0, 0, 1], self.port).into())?.try_get(path)
    }

    /// Returns the names of its containers.
    pub fn containers(&self) -> Vec<String> {
        self.own("ps", &["--all", "--format", "{{.Names}}"])
    }

    /// Returns the names of its networks.
    pub fn networks(&self) -> Vec<String> {
        self.own("network", &["ls", "--format", "{{.Name}}"])
    }

    fn own(&self, command: &str, arguments: &[&str]) -> Vec<String> {
        let filter = format!("label={LABEL}={}", self.prefix);
        let words = [&[command], arguments, &["--filter", &filter]].concat();
        let mut names: Vec<String> = docker(&words).lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// Says whether the host has another pair, as a person's own.
    pub fn is_alone(&self) -> bool {
        let format = format!("{{{{.Label \"{LABEL}\"}}}}");
        let filter = format!("label={LABEL}");
        let prefixes = docker(&["ps", "--all", "--filter", &filter, "--format", &format]);
        prefixes.lines().all(|prefix| prefix == self.prefix)
    }

    /// Returns the name of the probe's image, if the playbook built it.
    pub fn built_image(&self) -> Option<String> {
        let name = self.container("probe");
        let inspected = try_docker(&["inspect", "--format", "{{.Config.Image}}", &name], b"");
        let image = inspected.stdout.trim().to_owned();
        let built =
            image.starts_with("pgpair:") && !self.images_before.lines().any(|it| it == image);
        built.then_some(image)
    }

    /// Takes down what there is, down to the last file and container.
    pub fn state(&self) -> State {
        let mut facts = BTreeMap::new();
        files_below(&self.root, &mut facts);
        let format = "{{.Id}} {{.State.Status}} {{.State.StartedAt}}";
        for name in self.containers() {
            let fact = docker(&["inspect", "--format", format, &name]);
            facts.insert(format!("container {name}"), fact);
        }
        for name in self.networks() {
            let fact = docker(&["network", "inspect", "--format", "{{.Id}}", &name]);
            facts.insert(format!("network {name}"), fact);
        }
        State(facts)
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if thread::panicking() {
            for node in ["a", "b", "probe"] {
                eprintln!("--- last logs of {node}\n{}", self.logs(node));
            }
        }
        let image = self.built_image();
        drop(self.remover.stdin.take());
        let removed = process::wait(&mut self.remover, POSTGRES_AT_MOST);
        if let Some(image) = image {
            // Another pair may have come to use it.
            try_docker(&["image", "rm", &image], b"");
        }
        if !thread::panicking() {
            assert!(
                removed.is_some_and(|status| status.success()),
                "{removed:?}"
            );
            assert_eq!(self.containers(), [""; 0]);
            assert_eq!(self.networks(), [""; 0]);
            assert!(
                !self.root.exists(),
                "{} is still there",
                self.root.display()
            );
        }
    }
}

/// Every file, container and network of a pair, by name, with what would
/// change if it were touched.
#[derive(PartialEq)]
pub struct State(BTreeMap<String, String>);

impl State {
    /// Fails the test if anything is not as it was.
    pub fn is_still(&self, now: &State) {
        let names = self.0.keys().chain(now.0.keys());
        let differ: Vec<_> = names
            .filter(|name| self.0.get(*name) != now.0.get(*name))
            .collect();
        assert!(differ.is_empty(), "touched: {differ:#?}");
    }
}

fn files_below(path: &Path, facts: &mut BTreeMap<String, String>) {
    let Ok(about) = fs::symlink_metadata(path) else {
        return;
    };
    // The time of change alone would tell: nobody can set it.
    let changed = (about.ctime(), about.ctime_nsec());
    let fact = format!(
        "{} {} {:o} {changed:?}",
        about.ino(),
        about.len(),
        about.mode()
    );
    facts.insert(path.display().to_string(), fact);
    if about.is_dir() {
        for entry in fs::read_dir(path).expect("readable") {
            files_below(&entry.expect("readable").path(), facts);
        }
    }
}

/// Returns a port that nobody has and no other test gets. It lies below those
/// that the kernel gives to connections, so that none takes it meanwhile.
pub fn free_port() -> u16 {
    const PORTS: Range<u16> = 20_000..30_000;
    static TURN: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() % 10_000) as u16;
    loop {
        let turn = TURN.fetch_add(1, Ordering::Relaxed);
        assert!(turn < 10_000, "not one of {PORTS:?} is free");
        let port = PORTS.start + (first + turn) % 10_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Removes what runs left behind whose process is dead.
fn sweep() {
    let Ok(pairs) = fs::read_dir(SRV) else { return };
    for pair in pairs.flatten() {
        let name = pair.file_name().to_string_lossy().into_owned();
        let rest = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once('-'));
        if let Some((pid, _)) = rest
            && pid.parse::<u32>().is_ok()
            && !Path::new("/proc").join(pid).exists()
        {
            let mut command = Command::new("sh");
            process::run(
                command.args(["-c", REMOVE, "sh", &name]),
                b"",
                POSTGRES_AT_MOST,
            );
        }
    }
}

/// Starts a process that removes everything once this one is gone, or once its
/// stdin is closed.
fn remove_when_we_end(prefix: &str) -> Child {
    let script = format!("cat >/dev/null; {REMOVE}");
    Command::new("sh")
        .args(["-c", &script, "sh", prefix])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C is for the tests, not for who cleans up after them.
        .process_group(0)
        .spawn()
        .expect("sh runs")
}
