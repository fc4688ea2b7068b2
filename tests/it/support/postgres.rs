//! PostgreSQL servers for the tests: each starts, in half a second, from a
//! copy of one database made per run.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use postgres::{Client, NoTls, SimpleQueryMessage};

use super::docker::{self, Container, docker, this_run};
use super::{PASSWORD, eventually, tls};

/// Where the data is: outside the volume that the image declares, so that it
/// becomes part of the template.
const DATA: &str = "/pgdata";

/// A server that does not come up in this time never will.
const START_AT_MOST: Duration = Duration::from_secs(30);

/// Makes the template's data a standby's, the first time it is started.
const BECOME_STANDBY: &str =
    "mkdir /made 2>/dev/null && touch $PGDATA/standby.signal; exec docker-entrypoint.sh \"$@\"";

/// The name under which the probe's connections are counted.
const COUNT_BACKENDS: &str = "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgpair'";

/// Returns the image whose data directory holds the roles and nothing else.
fn template() -> &'static str {
    static TEMPLATE: OnceLock<String> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let image = docker::postgres_image();
        let here = docker::try_docker(&["image", "inspect", &image], b"");
        assert!(
            here.status.success(),
            "the image {image} is not here: `make test` sets it up"
        );
        let server = Postgres::run(&image, this_run().new_name(), this_run().new_address(), &[]);
        for statement in [
            &format!("CREATE ROLE pgpair LOGIN PASSWORD '{PASSWORD}' IN ROLE pg_monitor"),
            &format!("CREATE ROLE replicator LOGIN REPLICATION PASSWORD '{PASSWORD}'"),
        ] {
            server.sql(statement);
        }
        let access = format!(
            "printf '\\nhost replication replicator all scram-sha-256\\n' >>{DATA}/pg_hba.conf"
        );
        server.sh(&access);
        server.stop();
        let name = this_run().new_name();
        let label = format!("LABEL {}", this_run().label());
        docker(&["commit", "--change", &label, &server.container.name, &name]);
        name
    })
}

/// A PostgreSQL server in a container; removed when it is dropped.
pub struct Postgres {
    container: Container,
    settings: Vec<String>,
}

impl Postgres {
    /// Starts a primary.
    pub fn start() -> Postgres {
        Postgres::start_with(&[])
    }

    /// Starts a primary with settings such as `max_connections=10`.
    pub fn start_with(settings: &[&str]) -> Postgres {
        Postgres::run(
            template(),
            this_run().new_name(),
            this_run().new_address(),
            settings,
        )
    }

    fn run(image: &str, name: String, address: IpAddr, settings: &[&str]) -> Postgres {
        let server = Postgres::launch(image, name, address, &["postgres"], settings);
        server.wait_until_up();
        server
    }

    fn launch(
        image: &str,
        name: String,
        address: IpAddr,
        command: &[&str],
        settings: &[&str],
    ) -> Postgres {
        let password = format!("POSTGRES_PASSWORD={PASSWORD}");
        let data = format!("PGDATA={DATA}");
        let options = [
            "--env",
            &password,
            "--env",
            &data,
            "--env",
            "POSTGRES_INITDB_ARGS=--wal-segsize=1 --no-sync",
        ];
        let quick = ["fsync=off"];
        let mut command = command.to_vec();
        for setting in quick.iter().chain(settings) {
            command.extend(["-c", setting]);
        }
        Postgres {
            container: Container::run(name, address, image, &options, &command),
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
        }
    }

    /// Returns the container's name, which is the server's name in its network.
    pub fn name(&self) -> &str {
        &self.container.name
    }

    pub fn address(&self) -> IpAddr {
        self.container.address
    }

    /// Returns the connection string for the probe on this host: by address,
    /// without TLS.
    pub fn conninfo(&self) -> String {
        conninfo(&[self])
    }

    /// Returns the connection string for a probe in a container.
    pub fn conninfo_by_name(&self) -> String {
        let host = self.name();
        format!("host={host} user=pgpair password={PASSWORD} dbname=postgres sslmode=disable")
    }

    /// Returns the container it runs in.
    pub fn container(&self) -> &Container {
        &self.container
    }

    // Faults, and their ends; as guards in `support/fault.rs`.

    /// Ends the server as a power failure would.
    pub fn kill(&self) {
        self.container.kill();
    }

    /// Stops the server cleanly.
    pub fn stop(&self) {
        self.container.stop();
    }

    /// Starts the server again and waits until it lets clients in.
    pub fn start_again(&self) {
        self.container.start();
        self.wait_until_up();
    }

    /// Starts the server again and does not wait.
    pub fn start_again_soon(&self) {
        self.container.start();
    }

    /// Freezes every process of the server.
    pub fn pause(&self) {
        self.container.pause();
    }

    pub fn unpause(&self) {
        self.container.unpause();
    }

    /// Freezes one server process, while all others go on.
    pub fn freeze_backend(&self, pid: i32) {
        self.sh(&format!("kill -STOP {pid}"));
    }

    pub fn thaw_backend(&self, pid: i32) {
        self.sh(&format!("kill -CONT {pid}"));
    }

    /// Says whether a server process exists and is frozen.
    pub fn is_frozen(&self, pid: i32) -> bool {
        let state = self.sh(&format!("grep State /proc/{pid}/status || true"));
        state.contains("T (stopped)")
    }

    /// Restarts the server after a crash into a recovery that does not end
    /// until [`Postgres::let_recovery_end`].
    pub fn hold_in_recovery(&self) {
        self.sql(
            "ALTER SYSTEM SET restore_command = 'while [ -e /tmp/hold ]; do sleep 0.05; done; false'",
        );
        self.sh(&format!("touch /tmp/hold {DATA}/recovery.signal"));
        self.kill();
        self.start_again_soon();
    }

    pub fn let_recovery_end(&self) {
        self.sh("rm /tmp/hold");
    }

    /// Makes a standby the primary and returns when it is.
    pub fn promote(&self) {
        assert_eq!(self.sql("SELECT pg_promote(true, 30)"), "t");
    }

    /// Removes the server and makes a new one of the same name elsewhere.
    pub fn move_to_another_address(self) -> Postgres {
        let name = self.container.name.clone();
        let settings = self.settings.clone();
        drop(self);
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        Postgres::run(template(), name, this_run().new_address(), &settings)
    }

    /// Offers TLS with this certificate from now on.
    pub fn turn_tls_on(&self, certificate: &tls::Certificate) {
        let input = format!("{}{}", certificate.pem, certificate.key_pem);
        // Both in one file: PostgreSQL finds in it what it looks for.
        self.container.sh(
            "postgres",
            &format!("umask 077; cat >{DATA}/server.pem"),
            input.as_bytes(),
        );
        self.sql("ALTER SYSTEM SET ssl_cert_file = 'server.pem'");
        self.sql("ALTER SYSTEM SET ssl_key_file = 'server.pem'");
        self.sql("ALTER SYSTEM SET ssl = on");
        self.sql("SELECT pg_reload_conf()");
        eventually(Duration::from_secs(5), "TLS is on", || {
            (self.sql("SHOW ssl") == "on").then_some(())
        });
    }

    /// Puts lines before all others of `pg_hba.conf`.
    pub fn let_in_first(&self, lines: &str) {
        let file = format!("{DATA}/pg_hba.conf");
        let script = format!("{{ cat; cat {file}; }} >{file}.new; cat {file}.new >{file}");
        self.container.sh("postgres", &script, lines.as_bytes());
        let before = self.sql("SELECT clock_timestamp()");
        self.sql("SELECT pg_reload_conf()");
        let is_read = format!("SELECT pg_conf_load_time() > '{before}'");
        eventually(Duration::from_secs(5), "the lines are read", || {
            (self.sql(&is_read) == "t").then_some(())
        });
    }

    // What can be asked of it.

    /// Connects as the superuser.
    pub fn client(&self) -> Client {
        self.try_client().expect("the superuser may connect")
    }

    fn try_client(&self) -> Result<Client, postgres::Error> {
        postgres::Config::new()
            .host(&self.address().to_string())
            .user("postgres")
            .password(PASSWORD)
            .dbname("postgres")
            .application_name("test")
            .connect_timeout(Duration::from_secs(1))
            .connect(NoTls)
    }

    /// Runs one statement as the superuser, over a connection of its own;
    /// returns the first value, or nothing.
    pub fn sql(&self, statement: &str) -> String {
        let rows = self
            .client()
            .simple_query(statement)
            .unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        let first = rows.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("").to_owned()),
            _ => None,
        });
        first.unwrap_or_default()
    }

    /// Returns the server processes that work for the probe.
    pub fn pgpair_backends(&self) -> Vec<i32> {
        backends(&mut self.client())
    }

    /// Returns the one server process that works for the probe.
    pub fn pgpair_backend(&self) -> i32 {
        let found = self.pgpair_backends();
        assert_eq!(found.len(), 1, "the probe holds one connection");
        found[0]
    }

    /// Returns all that the server has logged.
    pub fn logs(&self) -> String {
        self.container.logs()
    }

    fn sh(&self, script: &str) -> String {
        self.container.sh("postgres", script, b"")
    }

    /// Waits until it lets clients in.
    pub fn wait_until_up(&self) {
        let what = format!("{} lets clients in", self.name());
        eventually(START_AT_MOST, &what, || self.try_client().ok());
    }
}

/// Returns the server processes that work for the probe.
pub fn backends(client: &mut Client) -> Vec<i32> {
    let rows = client
        .query(COUNT_BACKENDS, &[])
        .expect("the server answers");
    rows.iter().map(|row| row.get(0)).collect()
}

/// Returns the connection string for a probe on this host that watches these.
pub fn conninfo(nodes: &[&Postgres]) -> String {
    let list = |part: fn(&Postgres) -> String| {
        nodes
            .iter()
            .map(|node| part(node))
            .collect::<Vec<_>>()
            .join(",")
    };
    format!(
        "host={} hostaddr={} user=pgpair password={PASSWORD} dbname=postgres sslmode=disable",
        list(|node| node.name().to_owned()),
        list(|node| node.address().to_string()),
    )
}

/// What a server begins as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Primary,
    Standby,
}

/// A primary and a standby that streams from it.
pub struct Pair {
    pub primary: Postgres,
    pub standby: Postgres,
}

impl Pair {
    /// Starts both. The standby's data is the template too: a cold copy of the
    /// primary's, taken before that was started.
    pub fn start() -> Pair {
        let primary = Postgres::start();
        let standby = Postgres::standby_of(&primary, &[]);
        eventually(START_AT_MOST, "the standby streams", || {
            let state = primary.sql("SELECT state FROM pg_stat_replication");
            (state == "streaming").then_some(())
        });
        Pair { primary, standby }
    }

    pub fn conninfo(&self) -> String {
        conninfo(&[&self.primary, &self.standby])
    }
}

impl Postgres {
    /// Starts a standby of `primary` and waits until it lets clients in.
    pub fn standby_of(primary: &Postgres, settings: &[&str]) -> Postgres {
        let standby = Postgres::standby_without_waiting(primary, settings);
        standby.wait_until_up();
        standby
    }

    /// Starts a standby that never lets clients in.
    pub fn closed_standby_of(primary: &Postgres) -> Postgres {
        Postgres::standby_without_waiting(primary, &["hot_standby=off"])
    }

    fn standby_without_waiting(primary: &Postgres, settings: &[&str]) -> Postgres {
        let role = Role::Standby;
        let address = this_run().new_address();
        Postgres::peer(role, address, primary.address(), settings)
    }

    /// Starts a server at `address` from the template's data, and does not wait.
    /// As a standby, now or later, it follows the one at `upstream`.
    pub fn peer(role: Role, address: IpAddr, upstream: IpAddr, settings: &[&str]) -> Postgres {
        let upstream =
            format!("primary_conninfo=host={upstream} user=replicator password={PASSWORD}");
        let settings = [&[upstream.as_str()], settings].concat();
        let command: &[&str] = match role {
            Role::Primary => &["postgres"],
            Role::Standby => &["sh", "-c", BECOME_STANDBY, "sh", "postgres"],
        };
        let name = this_run().new_name();
        Postgres::launch(template(), name, address, command, &settings)
    }
}
