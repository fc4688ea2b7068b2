//! `sslmode` with libpq's meanings, against certificates of a test authority.

use std::path::Path;

use crate::support::tls::Authority;
use crate::support::{Postgres, Probe};

/// What the server's certificate says; it resolves nowhere and need not.
const NAME: &str = "db.pgpair.test";

/// How the server is reached, and what comes of it.
struct Case<'a> {
    mode: &'a str,
    roots: Option<&'a Path>,
    host: &'a str,
    /// Connects and is encrypted, connects and is not, or this reason.
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Encrypted,
    Plain,
    Fails,
}

use Outcome::{Encrypted, Fails, Plain};

fn check(server: &Postgres, cases: &[(&str, Option<&Path>, &str, Outcome)]) {
    for &(mode, roots, host, outcome) in cases {
        check_one(
            server,
            &Case {
                mode,
                roots,
                host,
                outcome,
            },
        );
    }
}

fn check_one(server: &Postgres, case: &Case<'_>) {
    let mut conninfo = format!(
        "host={} hostaddr={} user=pgpair password=hunter2 dbname=postgres sslmode={}",
        case.host,
        server.address(),
        case.mode,
    );
    if let Some(roots) = case.roots {
        conninfo.push_str(&format!(" sslrootcert={}", roots.display()));
    }
    let probe = Probe::of(&conninfo).start();
    if case.outcome == Fails {
        probe.is_not_ready(&["tls_failed"]);
        return;
    }
    let answer = probe.ready();
    assert_eq!(answer.status, 200, "{conninfo}: {answer:?}");
    let encrypted = server.sql(
        "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
         WHERE application_name = 'pgpair'",
    );
    assert_eq!(encrypted == "t", case.outcome == Encrypted, "{conninfo}");
}

#[test]
fn server_with_a_certificate_is_believed_as_far_as_the_mode_says() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let server = Postgres::start();
    server.turn_tls_on(&ours.certificate_for(NAME));
    let (right, wrong) = (ours.file(), other.file());
    let (right, wrong) = (Some(right.as_path()), Some(wrong.as_path()));
    check(
        &server,
        &[
            ("disable", None, NAME, Plain),
            ("prefer", None, NAME, Encrypted),
            ("prefer", right, NAME, Encrypted),
            // As with libpq, which would rather have no TLS than a stranger's.
            ("prefer", wrong, NAME, Plain),
            ("require", None, NAME, Encrypted),
            ("require", right, NAME, Encrypted),
            ("require", wrong, NAME, Fails),
            ("verify-ca", right, NAME, Encrypted),
            ("verify-ca", right, "other.pgpair.test", Encrypted),
            ("verify-ca", wrong, NAME, Fails),
            ("verify-full", right, NAME, Encrypted),
            ("verify-full", right, "other.pgpair.test", Fails),
            ("verify-full", wrong, NAME, Fails),
        ],
    );
}

#[test]
fn certificate_for_an_address_is_good_for_that_address_only() {
    let ours = Authority::new("ours");
    let server = Postgres::start();
    let address = server.address().to_string();
    server.turn_tls_on(&ours.certificate_for(&address));
    let roots = ours.file();
    check(
        &server,
        &[
            ("verify-full", Some(&roots), &address, Encrypted),
            ("verify-full", Some(&roots), NAME, Fails),
        ],
    );
}

#[test]
fn expired_certificate_is_refused_where_it_is_verified() {
    let ours = Authority::new("ours");
    let server = Postgres::start();
    server.turn_tls_on(&ours.expired_certificate_for(NAME));
    let roots = ours.file();
    check(
        &server,
        &[
            ("require", None, NAME, Encrypted),
            ("verify-ca", Some(&roots), NAME, Fails),
            ("verify-full", Some(&roots), NAME, Fails),
        ],
    );
}

#[test]
fn server_without_tls_is_refused_unless_plain_text_will_do() {
    let ours = Authority::new("ours");
    let server = Postgres::start();
    let roots = ours.file();
    check(
        &server,
        &[
            ("disable", None, NAME, Plain),
            ("prefer", None, NAME, Plain),
            ("require", None, NAME, Fails),
            ("verify-ca", Some(&roots), NAME, Fails),
            ("verify-full", Some(&roots), NAME, Fails),
        ],
    );
}

#[test]
fn certificate_that_is_mended_is_accepted_without_a_restart() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let server = Postgres::start();
    server.turn_tls_on(&other.certificate_for(NAME));
    let conninfo = format!(
        "host={NAME} hostaddr={} user=pgpair password=hunter2 dbname=postgres \
         sslmode=verify-full sslrootcert={}",
        server.address(),
        ours.file().display(),
    );
    let probe = Probe::of(conninfo).start();
    let _health = probe.watch_health();
    probe.is_not_ready(&["tls_failed"]);
    server.turn_tls_on(&ours.certificate_for(NAME));
    probe.becomes_ready();
}
