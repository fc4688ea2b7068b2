//! The real clients, from Debian's packages: installed where they are missing,
//! run as processes that end with the test.

use std::fs::{self, File, OpenOptions};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::process::{self, Outcome};

const PACKAGES: [&str; 7] = [
    "haproxy",
    "prometheus",
    "chromium",
    "chromium-driver",
    "curl",
    "libfaketime",
    "pgbouncer",
];

/// A slow mirror, and a hundred megabytes.
const INSTALL_AT_MOST: Duration = Duration::from_secs(600);

/// A client that does not end in this time hangs.
const RUN_AT_MOST: Duration = Duration::from_secs(60);

/// Has the packages start no service while they are installed.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs what is missing; once a run.
pub fn require() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        if missing().is_empty() {
            return;
        }
        // Another run may be at it.
        let lock = File::create(std::env::temp_dir().join("pgpair-test-packages.lock"));
        let lock = lock.expect("a lock file");
        lock.lock().expect("it can be locked");
        install(&missing());
        let left = missing();
        assert!(left.is_empty(), "not installed: {left:?}");
    });
}

fn missing() -> Vec<&'static str> {
    let absent = |package: &&str| {
        let format = "--showformat=${db:Status-Status}";
        let asked = apt(Command::new("dpkg-query").args(["--show", format, package]));
        asked.stdout != "installed"
    };
    PACKAGES.into_iter().filter(absent).collect()
}

fn install(packages: &[&str]) {
    if packages.is_empty() {
        return;
    }
    let _no_service = Policy::deny();
    let get = |arguments: &[&str]| {
        apt(Command::new("apt-get")
            .args(["--yes", "--option=DPkg::Lock::Timeout=300"])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive"))
    };
    let install = [&["install", "--no-install-recommends"], packages].concat();
    if get(&install).status.success() {
        return;
    }
    // The lists may be old, or absent.
    let updated = get(&["update"]);
    assert!(updated.status.success(), "{}", updated.stderr);
    let installed = get(&install);
    assert!(
        installed.status.success(),
        "these tests need the Debian packages {packages:?}, and root to install them: {}",
        installed.stderr
    );
}

fn apt(command: &mut Command) -> Outcome {
    process::run(command, b"", INSTALL_AT_MOST)
}

/// The file that keeps services from starting; ours is taken away again.
struct Policy {
    ours: bool,
}

impl Policy {
    fn deny() -> Policy {
        use std::io::Write;

        let mut open = OpenOptions::new();
        let made = open.write(true).create_new(true).mode(0o755).open(POLICY);
        let ours = made.map(|mut file| file.write_all(b"#!/bin/sh\nexit 101\n"));
        Policy {
            // It may be there already, or not be ours to make: apt will say.
            ours: ours.is_ok(),
        }
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(POLICY);
        }
    }
}

/// Runs a client to its end.
pub fn run(program: &str, arguments: &[&str], input: &str) -> Outcome {
    require();
    process::run(
        Command::new(program).args(arguments),
        input.as_bytes(),
        RUN_AT_MOST,
    )
}

/// Returns the file of this name that a package has brought.
pub fn file_of(package: &str, name: &str) -> String {
    require();
    let listed = apt(Command::new("dpkg-query").args(["--listfiles", package]));
    let mut files = listed.stdout.lines().filter(|path| path.ends_with(name));
    let found = files.next().map(str::to_owned);
    found.unwrap_or_else(|| panic!("the package {package} has no {name}"))
}

/// Returns a port of the loopback that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}

/// A client that runs until it is dropped. What it says is in a file, and is
/// shown when the test fails.
pub struct Daemon {
    child: Child,
    directory: TempDir,
}

impl Daemon {
    /// Starts it; `arguments` are told its own empty directory.
    pub fn start(program: &str, arguments: impl FnOnce(&Path) -> Vec<String>) -> Daemon {
        require();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let said = File::create(directory.path().join("said")).expect("a file");
        let child = Command::new(program)
            .args(arguments(directory.path()))
            .current_dir(directory.path())
            .env("HOME", directory.path())
            .stdin(Stdio::null())
            .stdout(said.try_clone().expect("a file"))
            .stderr(said)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
        Daemon { child, directory }
    }

    /// Returns its directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Returns what it has said so far.
    pub fn said(&self) -> String {
        fs::read_to_string(self.directory.path().join("said")).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- a client said\n{}", self.said());
        }
        process::end(&mut self.child);
    }
}
