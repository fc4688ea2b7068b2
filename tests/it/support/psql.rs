//! psql, as the judge of what a connection string comes to.

use std::path::Path;
use std::time::Duration;

use super::docker::{self, Container, this_run, try_docker};
use super::{Postgres, Probe, eventually};

/// What came of a connection string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Encrypted,
    Plain,
    Fails,
}

/// A container to run psql in, where some folders are as on this host.
pub struct Psql(Container);

const LATE: [&str; 2] = ["timed_out", "overdue"];

const IS_ENCRYPTED: &str = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

impl Psql {
    /// Starts it; `folder` is there under the same name.
    pub fn with(folder: &Path) -> Psql {
        let mount = format!("{0}:{0}:ro", folder.display());
        let options = ["--volume", &mount, "--entrypoint", "sleep"];
        let (name, address) = (this_run().new_name(), this_run().new_address());
        let image = docker::postgres_image();
        Psql(Container::run(
            name,
            address,
            &image,
            &options,
            &["infinity"],
        ))
    }

    /// Connects by psql.
    pub fn sees(&self, conninfo: &str, variables: &[(&str, &str)]) -> (Seen, String) {
        let given = variables
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let given: Vec<String> = given.collect();
        let mut arguments = vec!["exec"];
        for variable in &given {
            arguments.extend(["--env", variable]);
        }
        let query = ["psql", "-XqAtw", "--command", IS_ENCRYPTED, conninfo];
        arguments.push(&self.0.name);
        let done = try_docker(&[&arguments[..], &query].concat(), b"");
        let seen = match done.stdout.trim() {
            "t" => Seen::Encrypted,
            "f" => Seen::Plain,
            _ => Seen::Fails,
        };
        (seen, done.stderr)
    }
}

/// Connects by pgpair; the body tells why it does not.
pub fn pgpair_sees(
    server: &Postgres,
    conninfo: &str,
    variables: &[(&str, &str)],
) -> (Seen, String) {
    let recipe = Probe::of(conninfo);
    let recipe = variables
        .iter()
        .fold(recipe, |recipe, (name, value)| recipe.variable(name, value));
    let probe = recipe.start();
    // A machine that is busy answers late; it does not answer otherwise.
    let answer = eventually(Duration::from_secs(10), "an answer in time", || {
        let answer = probe.ready();
        let is_late = answer.status != 200 && LATE.contains(&answer.reason().as_str());
        (!is_late).then_some(answer)
    });
    if answer.status != 200 {
        return (Seen::Fails, answer.body);
    }
    let encrypted = server.sql(
        "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
         WHERE application_name = 'pgpair'",
    );
    let seen = if encrypted == "t" {
        Seen::Encrypted
    } else {
        Seen::Plain
    };
    (seen, answer.body)
}
