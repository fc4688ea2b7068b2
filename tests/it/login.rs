//! Servers that do not let the probe in, and passwords from a file.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::time::Instant;

use postgres::Client;

use crate::support::probe::RECOVERY;
use crate::support::trial::{ALONE, Says, Words};
use crate::support::{PASSWORD, Postgres, Probe, Trial, ms};

const TOO_MANY: Words = &["too_many_connections"];

fn conninfo(server: &Postgres, rest: &str) -> String {
    let (host, address) = (server.name(), server.address());
    format!("host={host} hostaddr={address} sslmode=disable {rest}")
}

#[test]
fn who_is_not_let_in_is_told_why_and_let_in_once_that_is_mended() {
    let server = Postgres::start();
    server.sql("CREATE ROLE closed NOLOGIN PASSWORD 'hunter2'");
    let cases: [(&str, Words, &str); 4] = [
        (
            "user=pgpair dbname=postgres password=hunter2-wrong",
            &["auth_failed"],
            "ALTER ROLE pgpair PASSWORD 'hunter2-wrong'",
        ),
        (
            "user=absent dbname=postgres password=hunter2",
            &["auth_failed"],
            "CREATE ROLE absent LOGIN PASSWORD 'hunter2'",
        ),
        (
            "user=closed dbname=postgres password=hunter2",
            &["auth_failed"],
            "ALTER ROLE closed LOGIN",
        ),
        (
            "user=absent dbname=missing password=hunter2",
            &["error"],
            "CREATE DATABASE missing",
        ),
    ];
    for (login, reason, mend) in cases {
        let probe = Probe::of(conninfo(&server, login)).start();
        let mut trial = Trial::of_ill(&probe, &[&server], ALONE);
        for answer in trial.says(Says([reason; 3])) {
            let said = answer.body;
            assert!(!said.contains("absent"), "a role's name: {said}");
        }
        server.sql(mend);
        trial.is_well_within(RECOVERY, Instant::now());
    }
}

#[test]
fn role_without_a_password_to_give_is_not_let_in() {
    let server = Postgres::start();
    let probe = Probe::of(conninfo(&server, "user=pgpair dbname=postgres")).start();
    probe.is_not_ready(&["auth_failed"]);
}

#[test]
fn role_without_pg_monitor_is_enough_to_be_ready() {
    let server = Postgres::start();
    server.sql("REVOKE pg_monitor FROM pgpair");
    Probe::watching(&server);
}

#[test]
fn role_without_a_connection_left_is_told_so() {
    let server = Postgres::start();
    server.sql("ALTER ROLE pgpair CONNECTION LIMIT 0");
    let probe = Probe::of(server.conninfo()).start();
    let mut trial = Trial::of_ill(&probe, &[&server], ALONE);
    trial.holds(Says([TOO_MANY; 3]), ms(500));
    server.sql("ALTER ROLE pgpair CONNECTION LIMIT 1");
    trial.is_well_within(RECOVERY, Instant::now());
}

#[test]
fn server_without_a_connection_left_is_told_so_and_ready_when_one_is_free() {
    let server = Postgres::start_with(&[
        "max_connections=5",
        "superuser_reserved_connections=1",
        "max_wal_senders=0",
    ]);
    // The last one is the superuser's.
    let others: Vec<Client> = (0..4).map(|_| server.client()).collect();
    let probe = Probe::of(server.conninfo()).start();
    let mut trial = Trial::of_ill(&probe, &[&server], ALONE);
    trial.holds(Says([TOO_MANY; 3]), ms(500));
    drop(others);
    trial.is_well_within(RECOVERY, Instant::now());
}

fn write_passfile(path: &Path, server: &Postgres, password: &str) {
    let line = format!(
        "# for the probe\n{}:5432:*:pgpair:{password}\n",
        server.name()
    );
    fs::write(path, line).expect("writes");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("chmod");
}

#[test]
fn password_comes_from_the_file_named_and_from_the_one_at_home() {
    let server = Postgres::start();
    let home = tempfile::tempdir().expect("a temporary directory");
    let path = home.path().join(".pgpass");
    write_passfile(&path, &server, PASSWORD);
    let login = conninfo(&server, "user=pgpair dbname=postgres");
    for (variable, value) in [("PGPASSFILE", path.as_path()), ("HOME", home.path())] {
        let value = value.to_str().expect("a plain path");
        let probe = Probe::of(&login).variable(variable, value).start();
        assert_eq!(probe.ready().status, 200, "{variable}");
    }
}

#[test]
fn rotated_password_is_picked_up_at_the_next_connection() {
    let server = Postgres::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("pgpass");
    write_passfile(&path, &server, PASSWORD);
    let probe = Probe::of(conninfo(&server, "user=pgpair dbname=postgres"))
        .variable("PGPASSFILE", path.to_str().expect("a plain path"))
        .start();
    probe.becomes_ready();
    let hang_up = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE application_name = 'pgpair'";

    server.sql("ALTER ROLE pgpair PASSWORD 'hunter2-new'");
    assert_eq!(
        probe.ready().status,
        200,
        "an open connection needs no password"
    );
    server.sql(hang_up);
    probe.is_not_ready(&["auth_failed"]);
    write_passfile(&path, &server, "hunter2-new");
    probe.becomes_ready();

    fs::remove_file(&path).expect("removes");
    server.sql(hang_up);
    probe.is_not_ready(&["auth_failed"]);
}

/// Whose a password file is in a container, and who reads it there.
struct Mounted<'a> {
    mode: u32,
    owner: u32,
    reader: &'a str,
    is_taken: bool,
}

/// As Kubernetes mounts a secret: root's, for a group of the reader's.
#[test]
fn password_file_may_be_roots_where_the_reader_is_of_its_group() {
    let server = Postgres::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (at, mounted) in [
        Mounted {
            mode: 0o440,
            owner: 0,
            reader: "1000:70",
            is_taken: true,
        },
        Mounted {
            mode: 0o640,
            owner: 0,
            reader: "1000:70",
            is_taken: true,
        },
        Mounted {
            mode: 0o600,
            owner: 1_000,
            reader: "1000:70",
            is_taken: true,
        },
        Mounted {
            mode: 0o444,
            owner: 0,
            reader: "1000:70",
            is_taken: false,
        },
        Mounted {
            mode: 0o440,
            owner: 1_000,
            reader: "1000:70",
            is_taken: false,
        },
        Mounted {
            mode: 0o440,
            owner: 0,
            reader: "0:70",
            is_taken: false,
        },
    ]
    .into_iter()
    .enumerate()
    {
        let path = directory.path().join(at.to_string());
        write_passfile(&path, &server, PASSWORD);
        chown(&path, Some(mounted.owner), Some(70)).expect("chown");
        fs::set_permissions(&path, fs::Permissions::from_mode(mounted.mode)).expect("chmod");
        let recipe = Probe::of(conninfo(&server, "user=pgpair dbname=postgres"))
            .variable("PGPASSFILE", "/pgpass")
            .docker_option(&format!("--user={}", mounted.reader))
            .docker_option(&format!("--volume={}:/pgpass:ro", path.display()));
        if mounted.is_taken {
            recipe.start_in_container().becomes_ready();
        } else {
            let said = recipe.refusal_in_container();
            assert!(said.contains("others may use /pgpass"), "{said}");
        }
    }
}

#[test]
fn password_file_is_found_in_the_home_of_the_user_that_no_variable_tells() {
    let server = Postgres::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (users, file) = (
        directory.path().join("passwd"),
        directory.path().join("pgpass"),
    );
    fs::write(
        &users,
        "root:x:0:0::/root:\npgpair:x:1000:1000::/home/of/probe:\n",
    )
    .expect("writes");
    fs::set_permissions(&users, fs::Permissions::from_mode(0o644)).expect("chmod");
    write_passfile(&file, &server, PASSWORD);
    chown(&file, Some(1_000), Some(1_000)).expect("chown");
    // The user's name comes from there too.
    let probe = Probe::of(conninfo(&server, "dbname=postgres"))
        .variable("HOME", "")
        .variable("USER", "somebody")
        .docker_option("--user=1000:1000")
        .docker_option(&format!("--volume={}:/etc/passwd:ro", users.display()))
        .docker_option(&format!(
            "--volume={}:/home/of/probe/.pgpass:ro",
            file.display()
        ))
        .start_in_container();
    probe.becomes_ready();
}

/// `localhost` stands for the folder where libpq looks by itself, and for no other.
#[test]
fn password_for_a_socket_is_found_under_its_folder() {
    let server = Postgres::start();
    server.let_in_first("local all pgpair scram-sha-256\n");
    let folder = format!("/proc/{}/root/run/postgresql", server.container().pid());
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("pgpass");
    for (host, is_found) in [(folder.as_str(), true), ("localhost", false)] {
        fs::write(&path, format!("{host}:*:*:pgpair:{PASSWORD}\n")).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
        let probe = Probe::of(format!("host={folder} user=pgpair dbname=postgres"))
            .variable("PGPASSFILE", path.to_str().expect("a plain path"))
            .start();
        if is_found {
            probe.becomes_ready();
        } else {
            let answer = probe.is_not_ready(&["auth_failed"]);
            assert!(answer.body.contains("asks for a password"), "{answer:?}");
        }
    }
}

#[test]
fn connection_that_the_server_ends_is_replaced_before_anybody_notices() {
    let server = Postgres::start();
    let probe = Probe::watching(&server);
    for _ in 0..5 {
        server.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgpair'",
        );
        assert_eq!(probe.ready().status, 200);
    }
}

/// As in libpq; without a password too, where the server trusts its own host.
#[test]
fn socket_is_never_encrypted_whatever_sslmode_says() {
    let server = Postgres::start();
    let folder = format!("/proc/{}/root/run/postgresql", server.container().pid());
    for sslmode in ["disable", "prefer", "require"] {
        let conninfo = format!("host={folder} user=pgpair dbname=postgres sslmode={sslmode}");
        let probe = Probe::of(conninfo).start();
        probe.becomes_ready_within(RECOVERY);
        let sql = "SELECT bool_or(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                   WHERE application_name = 'pgpair'";
        assert_eq!(server.sql(sql), "f", "{sslmode}");
    }
}
