//! Every parameter of libpq's connection strings, its variable, and what becomes of
//! it here: honoured, harmless to a probe, or refused by name.

/// What becomes of a parameter.
#[derive(Clone, Copy, Debug)]
pub enum Support {
    /// It means what it means to libpq.
    Honoured,
    /// It changes nothing for a probe that asks every node by itself, over
    /// connections of its own; but a value that libpq refuses, or one that would
    /// change something, is refused.
    Harmless(Check),
    /// It is refused, for this reason.
    Refused(&'static str),
}

/// Refuses values, and says why.
pub type Check = fn(&str) -> Result<(), &'static str>;

/// A parameter of libpq.
#[derive(Debug)]
pub struct Parameter {
    /// Its name in connection strings; empty where only the variable is known.
    pub name: &'static str,
    /// Its variable; empty if there is none.
    pub variable: &'static str,
    /// What becomes of it.
    pub support: Support,
}

use Support::{Harmless, Honoured, Refused};

const CLIENT_KEYS: &str = "is not supported: pgpair has no certificate of its own to show";
const REVOKED: &str = "is not supported: no list of revoked certificates is looked at";
const OAUTH: &str = "is not supported: pgpair does not log in by OAuth";
const SCRAM_KEYS: &str = "is not supported: give the password";
const SERVICE: &str = "is not supported: give what the service says in the connection string";
const PROTOCOL: &str = "is not supported: pgpair speaks version 3.0";

/// The parameters of libpq 17 in its order, and those that 18 has beyond.
pub const PARAMETERS: [Parameter; 51] = [
    parameter("service", "PGSERVICE", Refused(SERVICE)),
    parameter("user", "PGUSER", Honoured),
    parameter("password", "PGPASSWORD", Honoured),
    parameter("passfile", "PGPASSFILE", Honoured),
    parameter("channel_binding", "PGCHANNELBINDING", Honoured),
    parameter("connect_timeout", "PGCONNECT_TIMEOUT", Honoured),
    parameter("dbname", "PGDATABASE", Honoured),
    parameter("host", "PGHOST", Honoured),
    parameter("hostaddr", "PGHOSTADDR", Honoured),
    parameter("port", "PGPORT", Honoured),
    parameter("client_encoding", "PGCLIENTENCODING", Harmless(anything)),
    parameter("options", "PGOPTIONS", Honoured),
    parameter("application_name", "PGAPPNAME", Honoured),
    parameter("fallback_application_name", "", Honoured),
    parameter("keepalives", "", Harmless(number)),
    parameter("keepalives_idle", "", Harmless(number)),
    parameter("keepalives_interval", "", Harmless(number)),
    parameter("keepalives_count", "", Harmless(number)),
    parameter("tcp_user_timeout", "", Harmless(number)),
    parameter("sslmode", "PGSSLMODE", Honoured),
    parameter("sslnegotiation", "PGSSLNEGOTIATION", Honoured),
    parameter("sslcompression", "PGSSLCOMPRESSION", Harmless(anything)),
    parameter("sslcert", "PGSSLCERT", Refused(CLIENT_KEYS)),
    parameter("sslkey", "PGSSLKEY", Refused(CLIENT_KEYS)),
    parameter("sslcertmode", "PGSSLCERTMODE", Harmless(no_certificate)),
    parameter("sslpassword", "", Refused(CLIENT_KEYS)),
    parameter("sslrootcert", "PGSSLROOTCERT", Honoured),
    parameter("sslcrl", "PGSSLCRL", Refused(REVOKED)),
    parameter("sslcrldir", "PGSSLCRLDIR", Refused(REVOKED)),
    parameter("sslsni", "PGSSLSNI", Honoured),
    parameter(
        "requirepeer",
        "PGREQUIREPEER",
        Refused("is not supported: give a directory that only the server's user can write to"),
    ),
    parameter(
        "require_auth",
        "PGREQUIREAUTH",
        Refused("is not supported: use channel_binding=require, which takes SCRAM over TLS only"),
    ),
    parameter(
        "ssl_min_protocol_version",
        "PGSSLMINPROTOCOLVERSION",
        Honoured,
    ),
    parameter(
        "ssl_max_protocol_version",
        "PGSSLMAXPROTOCOLVERSION",
        Honoured,
    ),
    parameter("gssencmode", "PGGSSENCMODE", Harmless(no_gss_encryption)),
    parameter("krbsrvname", "PGKRBSRVNAME", Harmless(anything)),
    parameter("gsslib", "PGGSSLIB", Harmless(gss_library)),
    parameter("gssdelegation", "PGGSSDELEGATION", Harmless(no_delegation)),
    parameter("replication", "", Harmless(no_replication)),
    parameter(
        "target_session_attrs",
        "PGTARGETSESSIONATTRS",
        Harmless(session),
    ),
    parameter(
        "load_balance_hosts",
        "PGLOADBALANCEHOSTS",
        Harmless(balance),
    ),
    // Of libpq 18.
    parameter("servicefile", "PGSERVICEFILE", Harmless(anything)),
    parameter(
        "min_protocol_version",
        "PGMINPROTOCOLVERSION",
        Refused(PROTOCOL),
    ),
    parameter(
        "max_protocol_version",
        "PGMAXPROTOCOLVERSION",
        Refused(PROTOCOL),
    ),
    parameter(
        "sslkeylogfile",
        "",
        Refused("is not supported: pgpair tells no keys"),
    ),
    parameter("scram_client_key", "", Refused(SCRAM_KEYS)),
    parameter("scram_server_key", "", Refused(SCRAM_KEYS)),
    parameter("oauth_issuer", "", Refused(OAUTH)),
    parameter("oauth_client_id", "", Refused(OAUTH)),
    parameter("oauth_client_secret", "", Refused(OAUTH)),
    parameter("oauth_scope", "", Refused(OAUTH)),
];

const fn parameter(name: &'static str, variable: &'static str, support: Support) -> Parameter {
    Parameter {
        name,
        variable,
        support,
    }
}

/// Says whether a connection string may hold it.
pub fn is_known(name: &str) -> bool {
    PARAMETERS.iter().any(|known| known.name == name)
}

/// Returns the variable that stands in for a parameter.
pub fn variable_of(name: &str) -> Option<&'static str> {
    let found = PARAMETERS.iter().find(|known| known.name == name);
    found
        .map(|known| known.variable)
        .filter(|it| !it.is_empty())
}

fn anything(_: &str) -> Result<(), &'static str> {
    Ok(())
}

fn number(text: &str) -> Result<(), &'static str> {
    match whole(text) {
        Some(_) => Ok(()),
        None => Err("must be a whole number"),
    }
}

/// Reads a whole number as libpq does: space around it is no harm, and nothing is
/// zero.
pub fn whole(text: &str) -> Option<i32> {
    match text.trim_matches(|c: char| c.is_ascii_whitespace()) {
        "" => Some(0),
        text => text.parse().ok(),
    }
}

/// Takes one of these words; others are told apart by what they are.
fn one_of(
    text: &str,
    taken: &[&str],
    refused: (&str, &'static str),
    would_do: &'static str,
) -> Result<(), &'static str> {
    match text {
        text if taken.contains(&text) => Ok(()),
        text if text == refused.0 => Err(refused.1),
        _ => Err(would_do),
    }
}

fn no_certificate(text: &str) -> Result<(), &'static str> {
    let would_do = "use disable or allow";
    one_of(
        text,
        &["disable", "allow"],
        ("require", CLIENT_KEYS),
        would_do,
    )
}

fn no_gss_encryption(text: &str) -> Result<(), &'static str> {
    let refused = (
        "require",
        "is not supported: pgpair encrypts by TLS, not by GSSAPI",
    );
    one_of(
        text,
        &["disable", "prefer"],
        refused,
        "use disable or prefer",
    )
}

fn gss_library(text: &str) -> Result<(), &'static str> {
    let refused = ("sspi", "is not supported: there is none on this system");
    one_of(text, &["", "gssapi"], refused, "use gssapi")
}

fn no_delegation(text: &str) -> Result<(), &'static str> {
    let refused = ("1", "is not supported: pgpair does not log in by GSSAPI");
    one_of(text, &["", "0"], refused, "use 0")
}

fn no_replication(text: &str) -> Result<(), &'static str> {
    let would_do = "is not supported: a probe's connection must be an ordinary one";
    one_of(
        text,
        &["", "0", "off", "false", "no"],
        ("", would_do),
        would_do,
    )
}

fn session(text: &str) -> Result<(), &'static str> {
    const WORDS: [&str; 6] = [
        "any",
        "read-write",
        "read-only",
        "primary",
        "standby",
        "prefer-standby",
    ];
    let would_do = "use any, read-write, read-only, primary, standby or prefer-standby";
    one_of(text, &WORDS, ("", would_do), would_do)
}

fn balance(text: &str) -> Result<(), &'static str> {
    let would_do = "use disable or random";
    one_of(text, &["disable", "random"], ("", would_do), would_do)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_read_as_libpq_reads_them() {
        for (text, expected) in [
            ("5", Some(5)),
            (" 5\t", Some(5)),
            ("+5", Some(5)),
            ("-5", Some(-5)),
            ("", Some(0)),
            ("2147483647", Some(i32::MAX)),
            ("2147483648", None),
            ("5s", None),
            ("5.0", None),
            ("0x5", None),
        ] {
            assert_eq!(whole(text), expected, "{text:?}");
        }
    }

    #[test]
    fn names_and_variables_are_there_once() {
        for (at, one) in PARAMETERS.iter().enumerate() {
            let others = PARAMETERS[..at].iter();
            let same = |other: &Parameter| {
                other.name == one.name
                    || (!one.variable.is_empty() && other.variable == one.variable)
            };
            assert!(!others.clone().any(same), "{}", one.name);
        }
    }
}
