//! Arguments, settings and exit codes of the command itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::fake::{self, Fake};
use crate::support::probe::pgpair;
use crate::support::process::{self, Outcome};
use crate::support::{PASSWORD, Probe, ms};

/// A connection string with nothing wrong in it.
const GOOD: &str = "postgresql://pgpair:hunter2@127.0.0.1:1/postgres?sslmode=disable";

fn run(command: &mut Command) -> Outcome {
    process::run(command, b"", Duration::from_secs(5))
}

/// Runs serve, which has to refuse with this code and one line that holds all
/// of `named`, and no password.
fn assert_refused(command: &mut Command, code: i32, named: &[&str]) {
    let done = run(command);
    let said = &done.stderr;
    assert_eq!(done.code(), code, "{command:?}: {said}");
    assert_eq!(done.stdout, "", "{command:?}");
    assert_eq!(said.lines().count(), 1, "one line: {said:?}");
    assert!(said.ends_with('\n'), "{said:?}");
    assert!(
        !said.to_lowercase().contains(PASSWORD),
        "a password: {said}"
    );
    for word in named {
        assert!(said.contains(word), "{word:?} is not named: {said}");
    }
}

fn with(variables: &[(&str, &str)], arguments: &[&str]) -> Command {
    let mut command = pgpair();
    command.env("PGPAIR_LISTEN", "127.0.0.1:0").args(arguments);
    command.envs(variables.iter().copied());
    command
}

#[test]
fn missing_settings_are_named() {
    for (variables, named) in [
        (&[][..], "DATABASE_URL"),
        (&[("DATABASE_URL", "")], "DATABASE_URL"),
        (
            &[("PGUSER", "pgpair"), ("PGPASSWORD", "hunter2")],
            "DATABASE_URL",
        ),
    ] {
        assert_refused(&mut with(variables, &[]), 2, &[named]);
    }
}

#[test]
fn connection_strings_that_cannot_be_used_are_refused_without_showing_them() {
    for (url, named) in [
        ("mysql://u:hunter2@h/d", "postgresql://"),
        ("hunter2", "="),
        ("postgresql://u:hunter2%zz@h/d", "%"),
        ("postgresql://u:hunter2@[::1/d", "["),
        ("postgresql://u:hunter2@h:0/d", "port"),
        ("postgresql://u:hunter2@h:65536/d", "port"),
        ("postgresql://u:hunter2@h:five/d", "port"),
        ("postgresql://u:hunter2@a:1,b:2,c/d?port=1,2", "port"),
        ("postgresql://u:hunter2@h/d?sslmode=maybe", "sslmode"),
        (
            "postgresql://u:hunter2@h/d?sslmode=verify-full",
            "sslrootcert",
        ),
        (
            "postgresql://u:hunter2@h/d?sslcert=x",
            "sslcert is not supported: ",
        ),
        (
            "postgresql://u:hunter2@h/d?sslpassword=hunter2",
            "sslpassword is not supported: ",
        ),
        (
            "postgresql://u:hunter2@h/d?gssencmode=require",
            "gssencmode is not supported: ",
        ),
        (
            "postgresql://u:hunter2@h/d?ssl_max_protocol_version=TLSv1.1",
            "ssl_max_protocol_version",
        ),
        ("postgresql://u:hunter2@h/d?sslmode=", "sslmode"),
        ("postgresql://u:hunter2@a,%20b/d", "host"),
        (
            "postgresql://u:hunter2@h/d?nonsense=hunter2",
            "does not know",
        ),
        ("postgresql://u@h/d?password=my&hunter2=x", "does not know"),
        ("postgresql://u:my@hunter2@h/d", "%40"),
        (
            "postgresql://u:hunter2@h/d?connect_timeout=soon",
            "connect_timeout",
        ),
        ("postgresql://u:hunter2@h/d?hostaddr=nowhere", "hostaddr"),
        ("postgresql://u:hunter2@a,,b/d", "host"),
        ("host=h user=u password='hunter2", "quote"),
        ("host=h user=u password=hunter2 hunter2", "="),
    ] {
        assert_refused(
            &mut with(&[("DATABASE_URL", url)], &[]),
            2,
            &["DATABASE_URL", named],
        );
    }
}

#[test]
fn libpq_variables_that_cannot_be_used_are_named() {
    for (variable, value) in [
        ("PGPORT", "0"),
        ("PGPORT", "x"),
        ("PGHOSTADDR", "x"),
        ("PGSSLMODE", "maybe"),
        ("PGSSLMODE", "verify-ca"),
        ("PGSSLROOTCERT", "/nowhere/ca.crt"),
        ("PGCONNECT_TIMEOUT", "soon"),
        ("PGPASSFILE", "/etc"),
        ("PGSSLCRL", "/nowhere/ca.crl"),
        ("PGCHANNELBINDING", "maybe"),
        ("PGREQUIREAUTH", "scram-sha-256"),
        ("PGSERVICE", "db"),
    ] {
        let common = [
            ("PGHOST", "127.0.0.1"),
            ("PGUSER", "pgpair"),
            ("PGSSLMODE", "verify-ca"),
        ];
        let take = if variable == "PGSSLROOTCERT" { 3 } else { 2 };
        let variables = [&common[..take], &[(variable, value)]].concat();
        assert_refused(&mut with(&variables, &[]), 2, &[variable]);
    }
}

#[test]
fn settings_that_are_malformed_or_out_of_range_are_named_with_their_value() {
    for (variable, flag, values) in [
        ("PGPAIR_NODES", "nodes", &["a,b", "a/b", "a b", "-"][..]),
        (
            "PGPAIR_LISTEN",
            "listen",
            &["5000", "localhost:5000", "127.0.0.1", "127.0.0.1:65536"],
        ),
        ("PGPAIR_READY", "ready", &["some", "Primary"]),
        (
            "PGPAIR_DEADLINE",
            "deadline",
            &["1", "9ms", "61s", "-1s", "1d", "soon", "nans"],
        ),
        ("PGPAIR_INTERVAL", "interval", &["99ms", "2h", "1"]),
        (
            "PGPAIR_MAX_CONNECTIONS",
            "max-connections",
            &["0", "-1", "100001", "many", "1.5"],
        ),
        (
            "PGPAIR_REQUEST_TIMEOUT",
            "request-timeout",
            &["99ms", "2h", "10"],
        ),
        ("PGPAIR_DRAIN", "drain", &["1", "2h", "-1s"]),
        ("PGPAIR_LOG", "log", &["loud", "INFO"]),
    ] {
        for value in values {
            let by_variable = [("DATABASE_URL", GOOD), (variable, value)];
            assert_refused(&mut with(&by_variable, &[]), 2, &[variable, value]);
            let by_flag = format!("--{flag}={value}");
            let mut command = with(&[("DATABASE_URL", GOOD)], &[&by_flag]);
            assert_refused(&mut command, 2, &[&format!("--{flag}"), value]);
        }
    }
}

#[test]
fn password_on_the_command_line_is_refused() {
    let flag = format!("--database-url={GOOD}");
    assert_refused(
        &mut with(&[], &[&flag]),
        2,
        &["--database-url", "PGPASSFILE"],
    );
}

#[test]
fn arguments_that_are_not_understood_are_named() {
    for (arguments, named) in [
        (&["sevre"][..], "sevre"),
        (&["serve", "extra"], "extra"),
        (&["--dead-line=1s"], "dead-line"),
        (&["--deadline"], "deadline"),
        (&["-x"], "-x"),
        (&["--two\nlines"], "two"),
    ] {
        assert_refused(&mut with(&[("DATABASE_URL", GOOD)], arguments), 2, &[named]);
    }
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let empty = directory.path().join("empty");
    let garbage = directory.path().join("garbage");
    let exposed = directory.path().join("exposed");
    fs::write(&empty, "").expect("writes");
    let broken = "-----BEGIN CERTIFICATE-----\nhunter2\n-----END CERTIFICATE-----\n";
    fs::write(&garbage, broken).expect("writes");
    fs::write(&exposed, "*:*:*:*:hunter2\n").expect("writes");
    fs::set_permissions(&exposed, fs::Permissions::from_mode(0o644)).expect("chmod");
    let missing = directory.path().join("missing");
    let common = [
        ("PGHOST", "127.0.0.1"),
        ("PGUSER", "pgpair"),
        ("PGSSLMODE", "verify-full"),
    ];
    for (variable, path) in [
        ("PGSSLROOTCERT", empty.as_path()),
        ("PGSSLROOTCERT", &garbage),
        ("PGSSLROOTCERT", directory.path()),
        ("PGSSLROOTCERT", &missing),
        ("PGPASSFILE", &exposed),
        ("PGPASSFILE", directory.path()),
    ] {
        let path = plain(path);
        let take = if variable == "PGPASSFILE" { 2 } else { 3 };
        let variables = [&common[..take], &[(variable, path)]].concat();
        assert_refused(&mut with(&variables, &[]), 2, &[variable, path]);
    }
}

#[test]
fn password_file_at_home_that_others_can_read_is_refused() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let path = home.path().join(".pgpass");
    fs::write(&path, "*:*:*:*:hunter2\n").expect("writes");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
    let variables = [
        ("PGHOST", "127.0.0.1"),
        ("PGUSER", "pgpair"),
        ("HOME", plain(home.path())),
    ];
    assert_refused(&mut with(&variables, &[]), 2, &[plain(&path), "0600"]);
}

/// Nobody waits for a pipe that nobody writes to.
#[test]
fn pipe_is_no_password_file_and_no_authority() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("pipe");
    let made = run(Command::new("mkfifo").arg("-m").arg("600").arg(&path));
    assert_eq!(made.code(), 0, "{}", made.stderr);
    let common = [
        ("PGHOST", "127.0.0.1"),
        ("PGUSER", "pgpair"),
        ("PGSSLMODE", "require"),
    ];
    for variable in ["PGPASSFILE", "PGSSLROOTCERT"] {
        let variables = [&common[..], &[(variable, plain(&path))]].concat();
        assert_refused(&mut with(&variables, &[]), 2, &[variable, plain(&path)]);
    }
}

fn plain(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[test]
fn taken_port_is_told_in_one_line_before_anything_else() {
    let taken = Fake::silent();
    let address = taken.address.to_string();
    let mut command = with(&[("DATABASE_URL", GOOD), ("PGPAIR_LISTEN", &address)], &[]);
    assert_refused(&mut command, 1, &[&address, "--listen"]);
}

#[test]
fn address_of_another_host_is_told_in_one_line() {
    let mut command = with(
        &[("DATABASE_URL", GOOD), ("PGPAIR_LISTEN", "192.0.2.1:5000")],
        &[],
    );
    assert_refused(&mut command, 1, &["192.0.2.1:5000"]);
}

#[test]
fn flag_wins_over_the_environment() {
    let probe = Probe::of(GOOD)
        .variable("PGPAIR_NODES", "from-environment")
        .with("nodes", "from-flag")
        .start();
    assert_eq!(probe.get("/nodes/from-flag/health").status, 200);
    assert_eq!(probe.get("/nodes/from-environment/health").status, 404);
}

#[test]
fn help_and_version_are_printed_and_end_well() {
    for (argument, expected) in [
        ("--help", "PGPAIR_DEADLINE"),
        ("-h", "DATABASE_URL"),
        ("--version", env!("CARGO_PKG_VERSION")),
        ("-V", env!("CARGO_PKG_VERSION")),
    ] {
        // Also where the settings could not be used.
        let done = run(with(&[("PGPAIR_DEADLINE", "soon")], &[]).arg(argument));
        assert_eq!((done.code(), done.stderr.as_str()), (0, ""), "{argument}");
        assert!(
            done.stdout.contains(expected),
            "{argument}: {}",
            done.stdout
        );
    }
}

// pgpair check

fn check(url: &str) -> Outcome {
    run(pgpair().args(["check", url]))
}

fn assert_check(url: &str, code: i32) {
    let began = Instant::now();
    let done = check(url);
    assert_eq!(done.code(), code, "{url}: {}", done.stderr);
    assert_eq!(
        done.stderr.lines().count(),
        usize::from(code != 0),
        "{url}: {}",
        done.stderr
    );
    assert_eq!(done.stdout, "", "{url}");
    assert!(
        began.elapsed() < ms(2_000),
        "{url}: it took {:?}",
        began.elapsed()
    );
}

#[test]
fn check_tells_by_its_exit_code_what_the_endpoint_answers() {
    let probe = Probe::of(GOOD).start();
    let address = probe.address;
    assert_check(&format!("http://{address}/health"), 0);
    assert_check(&format!("http://{address}/ready"), 4);
    assert_check(&format!("http://{address}/nope"), 4);
}

#[test]
fn check_tells_bad_arguments_nobody_there_and_no_answer_apart() {
    for url in [
        "",
        "localhost:5000",
        "ftp://h/",
        "http://",
        "http://h:0/",
        "http://h/a b",
    ] {
        assert_check(url, 1);
    }
    assert_check(&format!("http://{}/health", fake::nobody()), 2);
    assert_check(&format!("http://{}/health", Fake::silent().address), 3);
    for nonsense in [
        &b""[..],
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 ",
        b"\xff\xff\xff\xff",
    ] {
        assert_check(
            &format!("http://{}/health", Fake::saying(nonsense).address),
            3,
        );
    }
    let redirect = Fake::saying(b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n");
    assert_check(&format!("http://{}/health", redirect.address), 4);
}

#[test]
fn check_without_a_url_asks_where_this_host_is_told_to_listen() {
    let probe = Probe::of(GOOD).start();
    let everywhere = format!("0.0.0.0:{}", probe.address.port());
    let done = run(pgpair().arg("check").env("PGPAIR_LISTEN", &everywhere));
    assert_eq!(done.code(), 0, "{}", done.stderr);
    let nobody = fake::nobody().to_string();
    let done = run(pgpair().args(["check", "--listen", &nobody]));
    assert_eq!(done.code(), 2, "{}", done.stderr);
    let done = run(pgpair().args(["check", "--listen", "nowhere"]));
    assert_eq!(done.code(), 1, "{}", done.stderr);
    let done = run(pgpair().args(["check", "--deadline=1s"]));
    assert_eq!(done.code(), 1, "{}", done.stderr);
}
