//! Replication brought into the states that the tests need, and what the probe
//! says of it everywhere it says it.

use std::collections::HashMap;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use postgres::NoTls;
use serde_json::Value;

use super::docker::{self, Container, docker, this_run};
use super::http::Answer;
use super::probe::pgpair;
use super::process::{self, Outcome};
use super::{PASSWORD, Pair, Postgres, Probe, eventually, ms};

/// In which a new verdict is told everywhere, by the contract.
pub const TOLD_WITHIN: Duration = Duration::from_secs(2);

/// What a server may take for a change that is not the probe's to measure.
pub const SERVER: Duration = Duration::from_secs(20);

/// The exit codes of `pgpair status`.
pub const WHOLE: i32 = 0;
pub const NOT_WHOLE: i32 = 4;

/// Where the data of the tests' servers is.
const DATA: &str = "/pgdata";

impl Postgres {
    /// Runs a shell script in the container, as the server's user.
    pub fn shell(&self, script: &str) -> String {
        docker(&[
            "exec",
            "--user",
            "postgres",
            self.name(),
            "sh",
            "-ec",
            script,
        ])
    }

    /// Changes a setting that needs no restart.
    pub fn set(&self, name: &str, value: &str) {
        self.sql(&format!("ALTER SYSTEM SET {name} = '{value}'"));
        self.sql("SELECT pg_reload_conf()");
    }

    /// Writes this many bytes of WAL, and waits for nobody but itself.
    pub fn write_wal(&self, bytes: u64) {
        let mut client = self.client();
        let statements = format!(
            "SET synchronous_commit = local; SELECT pg_logical_emit_message(true, 'test', repeat('x', {bytes}))"
        );
        client.batch_execute(&statements).expect("it takes writes");
    }

    /// Makes its data a standby's, for the next start.
    pub fn become_standby(&self) {
        self.shell(&format!("touch {DATA}/standby.signal"));
    }
}

impl Pair {
    /// Starts a probe that calls the nodes `a` (the primary) and `b`.
    pub fn probe(&self) -> Probe {
        let probe = Probe::of(self.conninfo()).with("nodes", "a,b").start();
        probe.becomes_ready();
        probe
    }

    /// As [`Pair::probe`], once the pair is told to be whole.
    pub fn probe_when_well(&self) -> Probe {
        let probe = self.probe();
        probe.tells("ok");
        probe
    }

    /// Ends streaming and keeps it from coming back: both servers stay up.
    pub fn cut_replication(&self) {
        // So that mending it is not a matter of patience.
        self.standby.set("wal_retrieve_retry_interval", "100ms");
        self.primary.sql("ALTER ROLE replicator NOLOGIN");
        self.caught_up();
        self.primary
            .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication");
        eventually(SERVER, "the WAL receiver is gone", || {
            let receivers = self
                .standby
                .sql("SELECT count(*) FROM pg_stat_wal_receiver");
            (receivers == "0").then_some(())
        });
    }

    pub fn mend_replication(&self) {
        self.primary.sql("ALTER ROLE replicator LOGIN");
        self.streams();
    }

    /// Waits until the standby streams.
    pub fn streams(&self) {
        eventually(SERVER, "the standby streams", || {
            let state = self.primary.sql("SELECT state FROM pg_stat_replication");
            (state == "streaming").then_some(())
        });
    }

    /// Waits until the standby has received all.
    pub fn caught_up(&self) {
        eventually(SERVER, "the standby has everything", || {
            let lsn = self.primary.sql("SELECT pg_current_wal_lsn()");
            let query = format!("SELECT pg_last_wal_receive_lsn() >= '{lsn}'");
            (self.standby.sql(&query) == "t").then_some(())
        });
    }

    /// Returns how far the standby's replay is behind, by the servers.
    pub fn behind(&self) -> u64 {
        let replayed = self.standby.sql("SELECT pg_last_wal_replay_lsn()");
        let query = format!("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '{replayed}')");
        self.primary.sql(&query).parse().expect("a number of bytes")
    }
}

impl Probe {
    /// Asks a path of verdicts, and checks what holds for each of them.
    pub fn verdict_of(&self, path: &str) -> Answer {
        let answer = self.get(path);
        self.check_verdict(&answer);
        answer
    }

    /// Asks once: it must answer so.
    pub fn says(&self, path: &str, status: u16, reason: &str) -> Answer {
        let answer = self.verdict_of(path);
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (status, reason),
            "{path}: {answer:?}"
        );
        answer
    }

    /// Waits until it answers so, no longer than a recovery may take.
    pub fn comes_to_say(&self, path: &str, status: u16, reason: &str) {
        let mut last = String::new();
        let began = Instant::now();
        while began.elapsed() < TOLD_WITHIN {
            let answer = self.verdict_of(path);
            if (answer.status, answer.reason().as_str()) == (status, reason) {
                return;
            }
            last = answer.body;
            thread::sleep(ms(10));
        }
        panic!("{path} is not {status} {reason} within {TOLD_WITHIN:?}: {last}");
    }

    /// Waits until `/status`, `/metrics` and `pgpair status` tell of this
    /// verdict, no longer than the contract allows. Asks nothing else, so that
    /// no request makes the probe look earlier than it would.
    pub fn tells(&self, verdict: &str) {
        let began = Instant::now();
        loop {
            // A look takes its time on a busy machine; what counts is its begin.
            let looked_after = began.elapsed();
            let told = self.verdicts();
            if told.iter().all(|it| it == verdict) {
                return;
            }
            assert!(
                looked_after < TOLD_WITHIN,
                "{verdict} is not told everywhere within {TOLD_WITHIN:?}: {told:?}\n{}",
                self.get("/status").body
            );
            thread::sleep(ms(20));
        }
    }

    /// The verdict by `/status`, `/metrics` and `pgpair status`.
    fn verdicts(&self) -> [String; 3] {
        let status = self.status_json();
        let by_status = status["verdict"].as_str().expect("a word").to_owned();
        let metrics = self.metrics();
        let current = metrics.iter().find_map(|(name, value)| {
            let word = name.strip_prefix("pgpair_pair_verdict{verdict=\"")?;
            (*value == 1.0).then(|| word.trim_end_matches("\"}").to_owned())
        });
        let shown = self.status_command(&[]);
        let words = shown.stdout.strip_prefix("pair ").unwrap_or_default();
        let by_command = words.split(',').next().unwrap_or_default().to_owned();
        let whole = by_command == "ok" && status["ready"] == true;
        if by_command == by_status {
            let expected = if whole { WHOLE } else { NOT_WHOLE };
            assert_eq!(shown.code(), expected, "{shown:?}");
        }
        [by_status, current.unwrap_or_default(), by_command]
    }

    pub fn status_json(&self) -> Value {
        let answer = self.get("/status");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// What `/status` says of a node.
    pub fn node(&self, name: &str) -> Value {
        let status = self.status_json();
        let nodes = status["nodes"].as_array().expect("a list");
        let found = nodes.iter().find(|node| node["name"] == name);
        found
            .unwrap_or_else(|| panic!("{name} in {status}"))
            .clone()
    }

    /// Every sample of `/metrics` by its name with labels.
    pub fn metrics(&self) -> HashMap<String, f64> {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200, "{answer:?}");
        let samples = answer.body.lines().filter(|line| !line.starts_with('#'));
        samples
            .map(|line| {
                let (name, value) = line.rsplit_once(' ').expect("a name and a value");
                (name.to_owned(), value.parse().expect("a number"))
            })
            .collect()
    }

    /// Runs `pgpair status` against it.
    pub fn status_command(&self, flags: &[&str]) -> Outcome {
        let url = format!("http://{}", self.address);
        run_status(pgpair().args(["status"]).args(flags).arg(url))
    }
}

pub fn run_status(command: &mut Command) -> Outcome {
    process::run(command, b"", Duration::from_secs(5))
}

/// A server of another PostgreSQL system, made by an initdb of its own; those
/// of [`Postgres`] are all copies of one.
pub struct Foreign {
    pub container: Container,
}

impl Foreign {
    /// Starts a primary.
    pub fn start() -> Foreign {
        Foreign::start_with(&[], &["postgres", "-c", "fsync=off"])
    }

    /// Starts a primary whose WAL is on a disk of its own, mounted at `/wal`. The
    /// disk lasts as long as the container, so that is kept while the server,
    /// which ends when it finds no room, is started again and again.
    pub fn start_with_small_wal_disk() -> Foreign {
        let options = [
            "--tmpfs",
            "/wal:size=24m,mode=1777",
            "--env",
            "POSTGRES_INITDB_WALDIR=/wal/pg_wal",
        ];
        let again = "while true; do docker-entrypoint.sh postgres -c fsync=off; sleep 0.2; done";
        Foreign::start_with(&options, &["sh", "-c", again])
    }

    fn start_with(options: &[&str], command: &[&str]) -> Foreign {
        let password = format!("POSTGRES_PASSWORD={PASSWORD}");
        let common = [
            "--env",
            password.as_str(),
            "--env",
            "PGDATA=/pgdata",
            "--env",
            "POSTGRES_INITDB_ARGS=--wal-segsize=1 --no-sync",
        ];
        let run = this_run();
        let container = Container::run(
            run.new_name(),
            run.new_address(),
            &docker::postgres_image(),
            &[&common, options].concat(),
            command,
        );
        let server = Foreign { container };
        server.wait_until_up();
        server.sql(&format!(
            "CREATE ROLE pgpair LOGIN PASSWORD '{PASSWORD}' IN ROLE pg_monitor"
        ));
        server
    }

    pub fn shell(&self, script: &str) -> String {
        self.container.sh("postgres", script, b"")
    }

    pub fn sql(&self, statement: &str) -> String {
        self.try_sql(statement)
            .unwrap_or_else(|error| panic!("{statement}: {error:?}"))
    }

    /// Runs a statement; returns its first value as text, or nothing.
    pub fn try_sql(&self, statement: &str) -> Result<String, postgres::Error> {
        let rows = self.try_client()?.simple_query(statement)?;
        let first = rows.iter().find_map(|message| match message {
            postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("").to_owned()),
            _ => None,
        });
        Ok(first.unwrap_or_default())
    }

    fn try_client(&self) -> Result<postgres::Client, postgres::Error> {
        postgres::Config::new()
            .host(&self.container.address.to_string())
            .user("postgres")
            .password(PASSWORD)
            .dbname("postgres")
            .connect_timeout(Duration::from_secs(1))
            .connect(NoTls)
    }

    pub fn wait_until_up(&self) {
        eventually(SERVER, "the other system lets clients in", || {
            self.try_client().ok()
        });
    }

    /// Returns the connection string for a probe of this server.
    pub fn conninfo(&self) -> String {
        let address = self.container.address;
        format!("host={address} user=pgpair password={PASSWORD} dbname=postgres sslmode=disable")
    }

    /// Returns the connection string for a probe of `first` and this server.
    pub fn conninfo_after(&self, first: &Postgres) -> String {
        let other = self.container.address;
        let host = first.address();
        format!(
            "host={host},{other} user=pgpair password={PASSWORD} dbname=postgres sslmode=disable"
        )
    }
}
