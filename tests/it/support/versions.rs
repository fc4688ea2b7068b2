//! A primary and its standby of any version of PostgreSQL that is supported,
//! side by side in one container. `make test` fetches the servers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use postgres::{Client, NoTls, SimpleQueryMessage};

use super::docker::{self, Container, this_run};
use super::probe::Recipe;
use super::replication::TOLD_WITHIN;
use super::{Probe, eventually};

/// Where `ansible/setup.sh tests` puts them, one folder a version.
const SERVERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.cache/postgres-versions");

/// Where they are in the container.
const MOUNTED: &str = "/opt/postgres";

/// In which both are up and the standby streams, six pairs at a time.
const START_AT_MOST: Duration = Duration::from_secs(60);

/// Makes the data of both: the standby's is a copy of the primary's, taken before
/// that was started.
const START: &str = r#"
pg=/opt/postgres/bin
export LC_ALL=C
$pg/initdb -D /data/a -U postgres -A trust --no-sync >/dev/null
for type in all replication; do echo "host $type all all trust" >>/data/a/pg_hba.conf; done
cat >>/data/a/postgresql.conf <<END
fsync = off
shared_buffers = 16MB
wal_retrieve_retry_interval = 100ms
primary_slot_name = b
primary_conninfo = 'host=127.0.0.1 port=5432 user=postgres application_name=b'
END
cp -a /data/a /data/b
touch /data/b/standby.signal
for node in 'a 5432' 'b 5433'; do
    set -- $node
    $pg/postgres -D "/data/$1" -p "$2" -h '*' -k /tmp -c cluster_name="$1" &
done
wait
"#;

/// The major versions that are fetched, and the folder of each.
pub fn versions() -> Vec<(u32, PathBuf)> {
    let lock = include_str!("../postgres-versions.lock").lines();
    let versions = lock.filter_map(|line| line.split(' ').next());
    versions
        .map(|version| {
            let major = version.split('.').next().expect("a number");
            let folder = Path::new(SERVERS).join(version);
            (major.parse().expect("a number"), folder)
        })
        .collect()
}

/// A primary `a` and its standby `b` of one version.
pub struct Versioned {
    pub container: Container,
}

impl Versioned {
    pub fn start(version: u32) -> Versioned {
        let versions = versions();
        let found = versions.iter().find(|(major, _)| *major == version);
        let (_, folder) = found.expect("it is in the lock");
        let here = folder.join("bin/postgres").exists();
        assert!(
            here,
            "{} is missing: `make test` fetches it",
            folder.display()
        );
        let servers = format!("{}:{MOUNTED}:ro", folder.display());
        let options = [
            "--volume",
            &servers,
            "--tmpfs",
            "/data:mode=1777",
            "--user",
            "postgres",
            "--entrypoint",
            "sh",
        ];
        let run = this_run();
        let (name, address) = (run.new_name(), run.new_address());
        let image = docker::postgres_image();
        let container = Container::run(name, address, &image, &options, &["-ec", START]);
        let pair = Versioned { container };
        pair.settle();
        pair
    }

    fn settle(&self) {
        eventually(START_AT_MOST, "the primary lets clients in", || {
            self.try_client("a", "postgres").ok()
        });
        self.sql("a", "SELECT pg_create_physical_replication_slot('b')");
        self.sql("a", "CREATE ROLE pgpair LOGIN IN ROLE pg_monitor");
        eventually(START_AT_MOST, "the standby streams", || {
            let state = self.sql("a", "SELECT state FROM pg_stat_replication");
            (state == "streaming").then_some(())
        });
        eventually(START_AT_MOST, "the standby has the role", || {
            self.try_client("b", "pgpair").ok()
        });
    }

    /// Begins a recipe for a probe of both.
    pub fn recipe(&self) -> Recipe {
        let address = self.container.address;
        Probe::of(format!(
            "host={address},{address} port=5432,5433 user=pgpair dbname=postgres sslmode=disable"
        ))
        .with("nodes", "a,b")
    }

    fn try_client(&self, node: &str, user: &str) -> Result<Client, postgres::Error> {
        postgres::Config::new()
            .host(&self.container.address.to_string())
            .port(if node == "a" { 5432 } else { 5433 })
            .user(user)
            .dbname("postgres")
            .connect_timeout(Duration::from_secs(1))
            .connect(NoTls)
    }

    /// Runs one statement as the superuser; returns the first value, or nothing.
    pub fn sql(&self, node: &str, statement: &str) -> String {
        let mut client = self.try_client(node, "postgres").expect("a superuser");
        let rows = client
            .simple_query(statement)
            .unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        let first = rows.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("").to_owned()),
            _ => None,
        });
        first.unwrap_or_default()
    }

    /// Ends streaming for good while both go on.
    pub fn cut_replication(&self) {
        self.sql(
            "b",
            "ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=9'",
        );
        self.sql("b", "SELECT pg_reload_conf()");
    }
}

impl Probe {
    /// Waits until `/status` names these parts, and no others, as unknown.
    pub fn comes_to_know(&self, node: &str, unknown: &[&str]) {
        let what = format!("{node} does not tell {unknown:?}");
        eventually(TOLD_WITHIN, &what, || {
            let node = self.node(node);
            let told = node["unknown"].as_array().cloned().unwrap_or_default();
            (told == unknown).then_some(())
        });
    }
}
