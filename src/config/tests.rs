//! Settings from flags and environment: what is taken and what is refused.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;
use crate::pg::passfile;
use crate::pg::tls::SslMode;
use crate::probe::observer::connect::{ChannelBinding, Host, Password};

const URL: (&str, &str) = ("DATABASE_URL", "postgresql://u:hunter2@a,b/d");

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), OsString::from(value)))
        .collect()
}

fn config(flags: &[(&'static str, &str)], variables: &[(&str, &str)]) -> Result<Config, String> {
    let flags = flags
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()))
        .collect();
    Config::new(&flags, &environment(variables)).map_err(|error| error.to_string())
}

fn names(config: &Config) -> Vec<&str> {
    config.nodes.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = config(&[], &[URL]).expect("valid");
    assert_eq!(config.listen.to_string(), "0.0.0.0:5000");
    assert_eq!(config.ready, Policy::Primary);
    assert_eq!(config.deadline, Duration::from_millis(900));
    assert_eq!(config.interval, Duration::from_secs(1));
    assert_eq!(config.stuck_after, Duration::from_secs(10));
    assert_eq!(config.max_connections, 512);
    assert_eq!(config.request_timeout, Duration::from_secs(10));
    assert_eq!(config.drain, Duration::ZERO);
    assert_eq!(config.log, LevelFilter::Info);
    assert_eq!(names(&config), ["a", "b"]);
    for ((_, settings), host) in config.nodes.iter().zip(["a", "b"]) {
        assert_eq!(settings.host, Host::Tcp(host.to_owned()));
        assert_eq!((settings.port, settings.user.as_str()), (5432, "u"));
        assert_eq!(settings.dbname, "d");
        assert_eq!(settings.sslmode, SslMode::Prefer);
        assert_eq!(settings.application_name, "pgpair");
    }
}

#[test]
fn flags_win_over_environment() {
    let config = config(
        &[("deadline", "2s"), ("log", "debug")],
        &[
            URL,
            ("PGPAIR_DEADLINE", "3s"),
            ("PGPAIR_INTERVAL", "5s"),
            ("PGPAIR_LOG", ""),
        ],
    )
    .expect("valid");
    assert_eq!(config.deadline, Duration::from_secs(2));
    assert_eq!(config.interval, Duration::from_secs(5));
    assert_eq!(config.log, LevelFilter::Debug);
}

#[test]
fn libpq_variables_fill_in_what_the_string_leaves_out() {
    let config = config(
        &[],
        &[
            ("DATABASE_URL", "host=a port=1"),
            ("PGHOST", "x"),
            ("PGPORT", "2"),
            ("PGUSER", "me"),
            ("PGPASSWORD", "hunter2"),
            ("PGAPPNAME", "app"),
        ],
    )
    .expect("valid");
    let (name, settings) = &config.nodes[0];
    assert_eq!((name.as_str(), settings.port), ("a", 1));
    assert_eq!(
        (settings.user.as_str(), settings.dbname.as_str()),
        ("me", "me")
    );
    assert_eq!(settings.application_name, "app");
    assert_eq!(
        settings.password,
        Password::Given(passfile::Secret::new("hunter2"))
    );
}

#[test]
fn hosts_ports_and_addresses_pair_up() {
    for (url, expected) in [
        ("host=a,b port=1,2 user=u", "a:1 b:2"),
        ("host=a,b port=7 user=u", "a:7 b:7"),
        ("host=a,b user=u", "a:5432 b:5432"),
        ("postgres://u@a:1,b", "a:1 b:5432"),
    ] {
        let config = config(&[], &[("DATABASE_URL", url)]).expect("valid");
        let found: Vec<String> = config
            .nodes
            .iter()
            .map(|(name, settings)| format!("{name}:{}", settings.port))
            .collect();
        assert_eq!(found.join(" "), expected, "{url}");
    }
    let config = config(
        &[],
        &[("DATABASE_URL", "host=a,b hostaddr=10.0.0.1,::1 user=u")],
    );
    let nodes = config.expect("valid").nodes;
    assert_eq!(
        nodes[1].1.hostaddr,
        Some("::1".parse().expect("an address"))
    );
}

#[test]
fn names_default_to_hosts_that_can_be_told_apart() {
    for (url, given, expected) in [
        ("postgres://u@a,b", "", "a,b"),
        ("postgres://u@a,b", "x, y", "x,y"),
        ("postgres://u@h:1,h:2", "", "h-1,h-2"),
        ("host=/run/a,/run/b port=1,2 user=u", "", "local-1,local-2"),
        ("postgres://u@[::1]", "", "--1"),
    ] {
        let variables = [("DATABASE_URL", url), ("PGPAIR_NODES", given)];
        let config = config(&[], &variables).expect("valid");
        assert_eq!(names(&config).join(","), expected, "{url}");
    }
}

#[test]
fn what_cannot_be_used_is_named_in_one_line_without_the_password() {
    let missing = "/nonexistent/file";
    for (variables, named) in [
        (&[][..], "DATABASE_URL"),
        (&[("DATABASE_URL", "mysql://u:hunter2@h")], "DATABASE_URL"),
        (&[("DATABASE_URL", "postgres://u:hunter2@")], "DATABASE_URL"),
        (
            &[("DATABASE_URL", "postgres://u:hunter2")],
            "DATABASE_URL: port",
        ),
        (
            &[("DATABASE_URL", "postgres://u:hunter2@h:x")],
            "DATABASE_URL: port",
        ),
        (
            &[("DATABASE_URL", "postgres://u:hunter2@h:0")],
            "DATABASE_URL: port",
        ),
        (
            &[("DATABASE_URL", "postgres://u:hunter2@h:65536")],
            "DATABASE_URL: port",
        ),
        (
            &[("DATABASE_URL", "host=a,b port=1,2,3 user=u")],
            "DATABASE_URL: port",
        ),
        (
            &[("DATABASE_URL", "host=a,,b user=u")],
            "DATABASE_URL: host",
        ),
        (
            &[("DATABASE_URL", "host=a hostaddr=x user=u")],
            "DATABASE_URL: hostaddr",
        ),
        (&[("DATABASE_URL", "postgres://u:p@hunter2@h/d")], "%40"),
        (
            &[("DATABASE_URL", "host=h;password=hunter2;user=u")],
            "DATABASE_URL: host",
        ),
        (
            &[(
                "DATABASE_URL",
                "host=h user=u sslmode=verify-ca sslrootcert=/hunter2",
            )],
            "DATABASE_URL: sslrootcert",
        ),
        (
            &[("DATABASE_URL", "host=h user=u passfile=/etc")],
            "DATABASE_URL: passfile",
        ),
        (
            &[("DATABASE_URL", "host=h password=my hunter2=x")],
            "a parameter that libpq does not know",
        ),
        (
            &[("DATABASE_URL", "host=a hostaddr=::1,::2 user=u")],
            "DATABASE_URL: hostaddr",
        ),
        (
            &[("DATABASE_URL", "host=a user=u sslmode=on")],
            "DATABASE_URL: sslmode",
        ),
        (
            &[("DATABASE_URL", "host=a user=u sslmode=verify-full")],
            "sslrootcert",
        ),
        (
            &[("DATABASE_URL", "host=a user=u connect_timeout=x")],
            "connect_timeout",
        ),
        (&[("PGHOST", "a")], "PGUSER"),
        (
            &[("PGHOST", "a"), ("PGUSER", "u"), ("PGPORT", "x")],
            "PGPORT \"x\"",
        ),
        (
            &[("PGHOST", "a"), ("PGUSER", "u"), ("PGSSLMODE", "on")],
            "PGSSLMODE \"on\"",
        ),
        (
            &[("PGHOST", "a"), ("PGUSER", "u"), ("PGPASSFILE", "/etc")],
            "/etc",
        ),
        (
            &[
                ("PGHOST", "a"),
                ("PGUSER", "u"),
                ("PGSSLMODE", "verify-ca"),
                ("PGSSLROOTCERT", missing),
            ],
            missing,
        ),
        (&[("DATABASE_URL", "host=a,a user=u")], "PGPAIR_NODES"),
        (&[URL, ("PGPAIR_NODES", "a")], "PGPAIR_NODES"),
        (&[URL, ("PGPAIR_NODES", "a,a")], "PGPAIR_NODES"),
        (&[URL, ("PGPAIR_NODES", "a,b/c")], "PGPAIR_NODES"),
        (&[URL, ("PGPAIR_LISTEN", "5000")], "PGPAIR_LISTEN \"5000\""),
        (
            &[URL, ("PGPAIR_LISTEN_DETAILS", "localhost:1")],
            "PGPAIR_LISTEN_DETAILS \"localhost:1\"",
        ),
        (&[URL, ("PGPAIR_HOSTS", "a,")], "PGPAIR_HOSTS \"a,\""),
        (&[URL, ("PGPAIR_HOSTS", "a:1")], "PGPAIR_HOSTS \"a:1\""),
        (&[URL, ("PGPAIR_READY", "none")], "PGPAIR_READY \"none\""),
        (&[URL, ("PGPAIR_DEADLINE", "1")], "PGPAIR_DEADLINE \"1\""),
        (&[URL, ("PGPAIR_DEADLINE", "9ms")], "10ms to 1m"),
        (&[URL, ("PGPAIR_DEADLINE", "61s")], "10ms to 1m"),
        (&[URL, ("PGPAIR_INTERVAL", "99ms")], "100ms to 1h"),
        (
            &[URL, ("PGPAIR_MAX_CONNECTIONS", "0")],
            "PGPAIR_MAX_CONNECTIONS \"0\"",
        ),
        (
            &[URL, ("PGPAIR_MAX_CONNECTIONS", "-1")],
            "PGPAIR_MAX_CONNECTIONS \"-1\"",
        ),
        (
            &[URL, ("PGPAIR_REQUEST_TIMEOUT", "2h")],
            "PGPAIR_REQUEST_TIMEOUT \"2h\"",
        ),
        (&[URL, ("PGPAIR_DRAIN", "x")], "PGPAIR_DRAIN \"x\""),
        (&[URL, ("PGPAIR_LOG", "trace")], "PGPAIR_LOG \"trace\""),
    ] {
        let said = config(&[], variables).expect_err(named);
        assert!(said.contains(named), "{variables:?}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
        assert!(!said.contains('\n'), "{said}");
    }
}

#[test]
fn a_password_on_the_command_line_is_refused() {
    let said = config(&[("database-url", "postgres://u:hunter2@h")], &[]).expect_err("refused");
    assert!(said.starts_with("--database-url"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    assert!(config(&[("database-url", "postgres://u@h")], &[]).is_ok());
}

#[test]
fn a_password_file_in_the_home_directory_is_used_unless_others_can_read_it() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let path: PathBuf = home.path().join(".pgpass");
    let home = home.path().to_str().expect("UTF-8").to_owned();
    let variables = [("PGHOST", "h"), ("PGUSER", "u"), ("HOME", home.as_str())];

    let without = config(&[], &variables).expect("valid");
    assert_eq!(without.nodes[0].1.password, Password::None);

    fs::write(&path, "*:*:*:*:hunter2\n").expect("writes");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("chmod");
    let with = config(&[], &variables).expect("valid");
    assert_eq!(with.nodes[0].1.password, Password::File(path.clone()));

    fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("chmod");
    let said = config(&[], &variables).expect_err("refused");
    assert!(said.contains("0600"), "{said}");
}

#[test]
fn a_slow_deadline_puts_off_when_a_watcher_counts_as_stuck() {
    let config = config(&[("deadline", "30s")], &[URL]).expect("valid");
    assert_eq!(config.stuck_after, Duration::from_secs(60));
}

/// What libpq 17 documents beyond what the table of parameters says of itself:
/// keywords, variables, and a value that means something.
#[test]
fn parameters_are_honoured_harmless_or_refused_by_name() {
    for (name, variable, value, taken) in [
        ("service", "PGSERVICE", "x", false),
        ("passfile", "PGPASSFILE", "/dev/null", true),
        ("channel_binding", "PGCHANNELBINDING", "require", true),
        ("channel_binding", "PGCHANNELBINDING", "Require", false),
        ("channel_binding", "PGCHANNELBINDING", "", false),
        ("connect_timeout", "PGCONNECT_TIMEOUT", " 7 ", true),
        ("connect_timeout", "PGCONNECT_TIMEOUT", "-1", true),
        ("connect_timeout", "PGCONNECT_TIMEOUT", "7s", false),
        ("client_encoding", "PGCLIENTENCODING", "LATIN1", true),
        ("options", "PGOPTIONS", "-c search_path=x", true),
        ("fallback_application_name", "", "x", true),
        ("keepalives", "", "0", true),
        ("keepalives_idle", "", "x", false),
        ("keepalives_interval", "", "7", true),
        ("keepalives_count", "", "7", true),
        ("tcp_user_timeout", "", "x", false),
        ("sslmode", "PGSSLMODE", "allow", true),
        ("sslmode", "PGSSLMODE", "Prefer", false),
        ("sslmode", "PGSSLMODE", "", false),
        ("sslnegotiation", "PGSSLNEGOTIATION", "postgres", true),
        ("sslnegotiation", "PGSSLNEGOTIATION", "direct", false),
        ("sslnegotiation", "PGSSLNEGOTIATION", "", false),
        ("sslcompression", "PGSSLCOMPRESSION", "1", true),
        ("sslcert", "PGSSLCERT", "/x", false),
        ("sslkey", "PGSSLKEY", "/x", false),
        ("sslcertmode", "PGSSLCERTMODE", "disable", true),
        ("sslcertmode", "PGSSLCERTMODE", "require", false),
        ("sslpassword", "", "x", false),
        ("sslcrl", "PGSSLCRL", "/x", false),
        ("sslcrldir", "PGSSLCRLDIR", "/x", false),
        ("sslcrl", "PGSSLCRL", "", true),
        ("sslsni", "PGSSLSNI", "0", true),
        ("requirepeer", "PGREQUIREPEER", "postgres", false),
        ("require_auth", "PGREQUIREAUTH", "scram-sha-256", false),
        (
            "ssl_min_protocol_version",
            "PGSSLMINPROTOCOLVERSION",
            "tlsv1.3",
            true,
        ),
        (
            "ssl_min_protocol_version",
            "PGSSLMINPROTOCOLVERSION",
            "",
            true,
        ),
        (
            "ssl_min_protocol_version",
            "PGSSLMINPROTOCOLVERSION",
            "1.3",
            false,
        ),
        (
            "ssl_max_protocol_version",
            "PGSSLMAXPROTOCOLVERSION",
            "TLSv1.2",
            true,
        ),
        (
            "ssl_max_protocol_version",
            "PGSSLMAXPROTOCOLVERSION",
            "TLSv1.1",
            false,
        ),
        ("gssencmode", "PGGSSENCMODE", "prefer", true),
        ("gssencmode", "PGGSSENCMODE", "require", false),
        ("gssencmode", "PGGSSENCMODE", "no", false),
        ("krbsrvname", "PGKRBSRVNAME", "postgres", true),
        ("gsslib", "PGGSSLIB", "gssapi", true),
        ("gsslib", "PGGSSLIB", "sspi", false),
        ("gssdelegation", "PGGSSDELEGATION", "1", false),
        ("replication", "", "database", false),
        ("replication", "", "off", true),
        (
            "target_session_attrs",
            "PGTARGETSESSIONATTRS",
            "primary",
            true,
        ),
        (
            "target_session_attrs",
            "PGTARGETSESSIONATTRS",
            "master",
            false,
        ),
        ("load_balance_hosts", "PGLOADBALANCEHOSTS", "random", true),
        ("load_balance_hosts", "PGLOADBALANCEHOSTS", "on", false),
        ("min_protocol_version", "PGMINPROTOCOLVERSION", "3.2", false),
        (
            "max_protocol_version",
            "PGMAXPROTOCOLVERSION",
            "latest",
            false,
        ),
    ] {
        let url = format!("host=h user=u {name}='{value}'");
        let by_string = config(&[], &[("DATABASE_URL", &url)]);
        assert_eq!(by_string.is_ok(), taken, "{url}: {by_string:?}");
        if let Err(said) = by_string {
            assert!(
                said.starts_with(&format!("DATABASE_URL: {name} ")),
                "{said}"
            );
        }
        if variable.is_empty() {
            continue;
        }
        let by_variable = config(&[], &[("PGHOST", "h"), ("PGUSER", "u"), (variable, value)]);
        assert_eq!(by_variable.is_ok(), taken, "{variable}: {by_variable:?}");
        if let Err(said) = by_variable {
            assert!(said.starts_with(variable), "{said}");
        }
    }
}

fn settings_of(url: &str) -> Settings {
    let made = config(&[], &[("DATABASE_URL", url)]).expect(url);
    made.nodes.into_iter().next().expect("a node").1
}

#[test]
fn what_is_honoured_arrives_in_the_settings() {
    let settings = settings_of(
        "host=h user=u channel_binding=require fallback_application_name=f \
         options='-c geqo=off' connect_timeout=90 sslmode=require sslnegotiation=direct",
    );
    assert_eq!(settings.channel_binding, ChannelBinding::Require);
    assert_eq!(settings.application_name, "f");
    assert_eq!(settings.options.as_deref(), Some("-c geqo=off"));
    assert_eq!(settings.connect_timeout, Duration::from_secs(60));
    assert!(settings.is_tls_direct);
    let settings = settings_of("host=/run/x hostaddr=127.0.0.1 user=u");
    assert_eq!(settings.host, Host::Tcp("/run/x".to_owned()));
    assert!(settings.hostaddr.is_some());
}

#[test]
fn what_the_string_leaves_empty_is_not_filled_in_by_a_variable() {
    let url = "host=h user=u password='' application_name=''";
    let variables = [
        ("DATABASE_URL", url),
        ("PGPASSWORD", "hunter2"),
        ("PGAPPNAME", "x"),
    ];
    let config = config(&[], &variables).expect("valid");
    let settings = &config.nodes[0].1;
    assert_eq!(settings.password, Password::None);
    assert_eq!(settings.application_name, "pgpair");
}

#[test]
fn an_old_variable_asks_for_tls_where_nothing_else_does() {
    let with = |mode: &[(&str, &str)]| {
        let variables = [
            &[("PGHOST", "h"), ("PGUSER", "u"), ("PGREQUIRESSL", "1")],
            mode,
        ];
        config(&[], &variables.concat()).expect("valid").nodes[0]
            .1
            .sslmode
    };
    assert_eq!(with(&[]), SslMode::Require);
    assert_eq!(with(&[("PGSSLMODE", "disable")]), SslMode::Disable);
}

#[test]
fn an_authority_at_home_is_asked_and_a_list_of_revoked_ones_is_refused() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let folder = home.path().join(".postgresql");
    fs::create_dir(&folder).expect("a folder");
    let home = home.path().to_str().expect("UTF-8").to_owned();
    let with = |mode| {
        let given = [
            ("PGHOST", "h"),
            ("PGUSER", "u"),
            ("HOME", &home),
            ("PGSSLMODE", mode),
        ];
        config(&[], &given).map(drop)
    };
    assert_eq!(with("require"), Ok(()));
    assert!(with("verify-ca").is_err());
    let signed = rcgen::generate_simple_self_signed(vec!["h".to_owned()]).expect("signs");
    fs::write(
        folder.join("root.crt"),
        format!("\u{feff}{}", signed.cert.pem()),
    )
    .expect("writes");
    for mode in ["prefer", "require", "verify-ca"] {
        assert_eq!(with(mode), Ok(()), "{mode}");
    }
    fs::write(folder.join("root.crl"), "").expect("writes");
    let said = with("require").expect_err("refused");
    assert!(said.contains("root.crl is not supported"), "{said}");
    assert_eq!(with("disable"), Ok(()));
    fs::write(folder.join("root.crt"), "nothing").expect("writes");
    let said = with("prefer").expect_err("refused");
    assert!(said.contains("root.cr"), "{said}");
}

#[test]
fn a_certificate_cannot_be_for_a_host_without_a_name() {
    let url = "hostaddr=127.0.0.1 user=u sslrootcert=system";
    let said = config(&[], &[("DATABASE_URL", url)]).expect_err("refused");
    assert!(said.starts_with("PGHOST must be named"), "{said}");
}
