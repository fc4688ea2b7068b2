//! The programs that are measured side by side, as processes.

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::http::{Answer, Connection};
use crate::support::packages::free_port;
use crate::support::{PASSWORD, Postgres, eventually, probe, process};

/// In which a program must have started, on a machine that is very busy.
const START_AT_MOST: Duration = Duration::from_secs(10);

/// Time between two looks at a program that starts: the error of that figure.
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// A program under measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The product: static, with musl.
    Pgpair,
    /// axum and deadpool-postgres (`tests/bench/rival`), static too.
    Rival,
    /// The same as most build it, on glibc.
    RivalGlibc,
}

impl Program {
    /// Every program, in the order of the tables.
    pub const ALL: [Program; 3] = [Program::Pgpair, Program::Rival, Program::RivalGlibc];

    /// Names it in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Program::Pgpair => "pgpair",
            Program::Rival => "axum + deadpool",
            Program::RivalGlibc => "the same on glibc",
        }
    }

    /// Names its database, so that the server counts its queries apart.
    pub const fn database(self) -> &'static str {
        match self {
            Program::Pgpair => "bench_pgpair",
            Program::Rival => "bench_rival",
            Program::RivalGlibc => "bench_rival_glibc",
        }
    }

    fn binary(self) -> String {
        let of = |variable: &str| {
            env::var(variable)
                .unwrap_or_else(|_| panic!("{variable} is not set: `make bench` sets it up"))
        };
        match self {
            Program::Pgpair => probe::binary(),
            Program::Rival => of("PGPAIR_BENCH_RIVAL"),
            Program::RivalGlibc => of("PGPAIR_BENCH_RIVAL_GLIBC"),
        }
    }

    /// Returns the size of the binary in bytes.
    pub fn binary_bytes(self) -> u64 {
        let binary = self.binary();
        fs::metadata(&binary)
            .unwrap_or_else(|error| panic!("{binary}: {error}"))
            .len()
    }

    /// Starts it.
    pub fn start(self, server: &Postgres) -> Contender {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (host, database) = (server.address(), self.database());
        let url = format!("postgresql://postgres:{PASSWORD}@{host}/{database}?sslmode=disable");
        let mut command = Command::new(self.binary());
        command.env_clear().env("DATABASE_URL", url);
        match self {
            Program::Pgpair => command.arg(format!("--listen={address}")).arg("--nodes=a"),
            Program::Rival | Program::RivalGlibc => command.arg(address.to_string()),
        };
        let began = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.binary()));
        let mut contender = Contender {
            program: self,
            address,
            started_in: Duration::ZERO,
            child,
        };
        while !contender.is_ready() {
            assert!(began.elapsed() < START_AT_MOST, "{} starts", self.name());
            thread::sleep(LOOK_EVERY);
        }
        contender.started_in = began.elapsed();
        contender
    }
}

/// A running program; ended when it is dropped.
pub struct Contender {
    pub program: Program,
    pub address: SocketAddr,
    /// From its start to its first 200 from `/ready`.
    pub started_in: Duration,
    child: Child,
}

impl Contender {
    /// Asks once, on a connection of its own, if there is an answer.
    pub fn ask(&self, path: &str) -> Option<Answer> {
        Connection::try_open(self.address).ok()?.try_get(path).ok()
    }

    /// Waits for a 200 from `/ready`.
    pub fn becomes_ready(&self) {
        eventually(START_AT_MOST, "it is ready", || {
            self.is_ready().then_some(())
        });
    }

    /// Waits until `/ready` gives this reason.
    pub fn comes_to_say(&self, reason: &str) {
        eventually(START_AT_MOST, reason, || {
            self.ask("/ready")
                .filter(|answer| answer.reason() == reason)
        });
    }

    fn is_ready(&self) -> bool {
        self.ask("/ready")
            .is_some_and(|answer| answer.status == 200)
    }

    /// Returns its resident memory in kB.
    pub fn resident_kb(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
        number.and_then(|kb| kb.parse().ok()).expect("a number")
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        process::end(&mut self.child);
    }
}
