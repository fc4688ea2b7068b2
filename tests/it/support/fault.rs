//! Faults, each a one-line thing: what begins it, and a guard that ends it.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::docker::docker;
use super::{Postgres, process};

/// A command on the host that takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// A fault that lasts until it is lifted, or this is dropped.
#[must_use = "it ends when it is dropped"]
pub struct Fault<'a> {
    /// When it had fully begun.
    pub since: Instant,
    lift: Option<Box<dyn FnOnce() + 'a>>,
}

impl<'a> Fault<'a> {
    /// Makes the guard of a fault that has begun; `lift` ends it.
    pub fn new(lift: impl FnOnce() + 'a) -> Fault<'a> {
        Fault {
            since: Instant::now(),
            lift: Some(Box::new(lift)),
        }
    }

    /// Ends it; returns when it had ended.
    pub fn lift(mut self) -> Instant {
        if let Some(lift) = self.lift.take() {
            lift();
        }
        Instant::now()
    }
}

impl Drop for Fault<'_> {
    fn drop(&mut self) {
        // Every fault lives in containers of ours, which go when a test fails.
        if let Some(lift) = self.lift.take().filter(|_| !thread::panicking()) {
            lift();
        }
    }
}

impl Postgres {
    /// Ends the server as a power failure would, until it is started again.
    pub fn killed(&self) -> Fault<'_> {
        self.kill();
        Fault::new(|| self.start_again())
    }

    /// Stops the server cleanly, until it is started again.
    pub fn stopped(&self) -> Fault<'_> {
        self.stop();
        Fault::new(|| self.start_again())
    }

    /// Freezes the container by its control group (`docker pause`).
    pub fn paused(&self) -> Fault<'_> {
        self.pause();
        Fault::new(|| self.unpause())
    }

    /// Freezes the postmaster and then every other process by a signal.
    pub fn frozen(&self) -> Fault<'_> {
        // The postmaster is the first; once it is frozen, none is added.
        let pids = self.host_pids();
        signal("STOP", &pids[..1]);
        let pids = self.host_pids();
        signal("STOP", &pids);
        Fault::new(move || signal("CONT", &pids))
    }

    /// Freezes one server process, while all others go on.
    pub fn backend_frozen(&self, pid: i32) -> Fault<'_> {
        self.freeze_backend(pid);
        Fault::new(move || self.thaw_backend(pid))
    }

    /// Restarts the server after a crash into a recovery that does not end.
    pub fn held_in_recovery(&self) -> Fault<'_> {
        self.hold_in_recovery();
        Fault::new(|| {
            self.let_recovery_end();
            self.wait_until_up();
        })
    }

    /// Drops every packet to and from the server, in its own network namespace:
    /// nobody is told, and nothing of the host's is touched.
    pub fn black_holed(&self) -> Fault<'_> {
        let rules = [
            ["INPUT", "!", "--in-interface", "lo"],
            ["OUTPUT", "!", "--out-interface", "lo"],
        ];
        for rule in &rules {
            self.iptables("--insert", rule);
        }
        Fault::new(move || {
            for rule in &rules {
                self.iptables("--delete", rule);
            }
        })
    }

    /// Takes the network away from under the container, as a pulled cable would.
    pub fn unplugged(&self) -> Fault<'_> {
        self.container().disconnect();
        Fault::new(|| self.container().connect(&[]))
    }

    /// Locks these catalogues, as `VACUUM FULL` would, until that is given up.
    pub fn locked(&self, catalogues: &str) -> Fault<'_> {
        let mut holder = self.client();
        let lock = format!("BEGIN; LOCK {catalogues} IN ACCESS EXCLUSIVE MODE");
        holder.batch_execute(&lock).expect("the superuser may lock");
        Fault::new(move || drop(holder))
    }

    /// Counts the probe's connections, as an operator beside the server would:
    /// through its socket, whatever the network does.
    pub fn held_connections(&self) -> usize {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgpair'";
        self.psql(count).parse().expect("a number")
    }

    /// Runs a query with psql in the container.
    pub fn psql(&self, query: &str) -> String {
        let psql = ["exec", "--user", "postgres", self.name(), "psql"];
        let quiet = ["--no-psqlrc", "--tuples-only", "--no-align", "--command"];
        docker(&[&psql[..], &quiet, &[query]].concat())
    }

    fn iptables(&self, action: &str, rule: &[&str]) {
        let pid = self.container().pid().to_string();
        let enter = ["--target", &pid, "--net", "iptables", "--wait", action];
        let drop = ["--jump", "DROP"];
        let arguments = [&enter[..], rule, &drop].concat();
        let done = process::run(Command::new("nsenter").args(arguments), b"", PATIENCE);
        assert!(done.status.success(), "iptables: {}", done.stderr);
    }

    /// Returns the ids on the host of the container's processes, its first one
    /// first.
    fn host_pids(&self) -> Vec<String> {
        let listed = docker(&["top", self.name(), "-eo", "pid"]);
        let mut pids: Vec<u32> = listed
            .lines()
            .skip(1)
            .map(|line| line.trim().parse().expect("a process id"))
            .collect();
        let first = self.container().pid();
        pids.sort_by_key(|&pid| (pid != first, pid));
        pids.iter().map(u32::to_string).collect()
    }
}

fn signal(name: &str, pids: &[String]) {
    let mut command = Command::new("kill");
    let done = process::run(command.arg(format!("-{name}")).args(pids), b"", PATIENCE);
    assert!(done.status.success(), "{}", done.stderr);
}
