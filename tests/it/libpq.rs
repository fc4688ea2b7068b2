//! A connection string comes to what it comes to with psql, against real servers;
//! what pgpair does not do, it refuses by name.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::psql::Seen::{self, Encrypted, Fails, Plain};
use crate::support::psql::{Psql, pgpair_sees};
use crate::support::tls::{Authority, Certificate, made_by_openssl};
use crate::support::{PASSWORD, Postgres, Probe};

/// What the server's certificate says; it resolves nowhere and need not.
const NAME: &str = "db.pgpair.test";

/// Who is let in how; what follows in the file holds for `pgpair`.
const ACCESS: &str = "\
    hostnossl all plain all scram-sha-256\n\
    hostssl all encrypted all scram-sha-256\n\
    hostssl all certified all cert\n\
    host all plain,encrypted,certified all reject\n\
    host all clear all password\n\
    host all trusted all trust\n\
    host all barred all reject\n";

fn server_with_tls(certificate: &Certificate) -> Postgres {
    let server = Postgres::start();
    server.turn_tls_on(certificate);
    for role in [
        "plain",
        "encrypted",
        "certified",
        "clear",
        "trusted",
        "barred",
    ] {
        let pooled = format!("CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}' IN ROLE pg_monitor");
        server.sql(&pooled);
    }
    server.let_in_first(ACCESS);
    server
}

/// A judge, and a folder that psql and pgpair both have.
struct Court {
    folder: tempfile::TempDir,
    psql: Psql,
}

impl Court {
    fn opens() -> Court {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let psql = Psql::with(folder.path());
        Court { folder, psql }
    }

    fn path(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        path.to_str().expect("a plain path").to_owned()
    }

    fn write(&self, name: &str, content: &[u8]) -> String {
        let path = self.path(name);
        fs::create_dir_all(Path::new(&path).parent().expect("a folder")).expect("a folder");
        fs::write(&path, content).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
        path
    }

    /// Both must see the same.
    fn agree(&self, server: &Postgres, conninfo: &str, variables: &[(&str, &str)], seen: Seen) {
        let theirs = self.psql.sees(conninfo, variables);
        let ours = pgpair_sees(server, conninfo, variables);
        let case = format!("{conninfo} {variables:?}: psql {theirs:?}, pgpair {ours:?}");
        assert_eq!((theirs.0, ours.0), (seen, seen), "{case}");
    }

    /// psql sees this, and pgpair refuses the setting that it names.
    fn refuse(&self, conninfo: &str, variables: &[(&str, &str)], seen: Seen, named: &str) {
        let theirs = self.psql.sees(conninfo, variables);
        assert_eq!(theirs.0, seen, "{conninfo} {variables:?}: {theirs:?}");
        let recipe = Probe::of(conninfo);
        let recipe = variables
            .iter()
            .fold(recipe, |recipe, (name, value)| recipe.variable(name, value));
        let said = recipe.refusal();
        assert!(said.contains(named), "{said}");
    }
}

fn at(server: &Postgres, user: &str, rest: &str) -> String {
    let address = server.address();
    format!("host={NAME} hostaddr={address} dbname=postgres user={user} {rest}")
}

#[test]
fn connection_strings_come_to_what_they_come_to_with_psql() {
    let ours = Authority::new("ours");
    let server = server_with_tls(&ours.certificate_for(NAME));
    let court = Court::opens();
    for (user, rest, seen) in [
        ("pgpair", "", Encrypted),
        ("pgpair", "sslmode=allow", Plain),
        ("pgpair", "sslmode=disable", Plain),
        ("pgpair", "sslmode=require", Encrypted),
        ("plain", "", Plain),
        ("plain", "sslmode=allow", Plain),
        ("plain", "sslmode=disable", Plain),
        ("plain", "sslmode=require", Fails),
        ("encrypted", "", Encrypted),
        ("encrypted", "sslmode=allow", Encrypted),
        ("encrypted", "sslmode=disable", Fails),
        ("encrypted", "sslmode=require", Encrypted),
        ("certified", "", Fails),
        ("barred", "", Fails),
        ("absent", "sslmode=allow", Fails),
        ("clear", "", Encrypted),
        ("clear", "channel_binding=require", Fails),
        ("clear", "channel_binding=require sslmode=require", Fails),
        ("trusted", "", Encrypted),
        ("trusted", "channel_binding=require", Fails),
        ("plain", "channel_binding=require", Fails),
        ("pgpair", "channel_binding=require", Encrypted),
        ("pgpair", "channel_binding=require sslmode=disable", Fails),
        ("pgpair", "channel_binding=disable", Encrypted),
        ("pgpair", "sslmode=require sslnegotiation=direct", Encrypted),
        ("pgpair", "sslsni=0", Encrypted),
        ("pgpair", "ssl_min_protocol_version=TLSv1.3", Encrypted),
        (
            "pgpair",
            "ssl_max_protocol_version=tlsv1.2 sslmode=require",
            Encrypted,
        ),
        ("pgpair", "options='-c nonsense=1'", Fails),
        ("pgpair", "options='-c geqo=off'", Encrypted),
        (
            "pgpair",
            "gssencmode=prefer sslcertmode=disable replication=off",
            Encrypted,
        ),
        (
            "pgpair",
            "connect_timeout=' 5 ' keepalives_idle=7",
            Encrypted,
        ),
        ("pgpair", "requiressl=1", Encrypted),
        ("plain", "requiressl=1", Fails),
    ] {
        let conninfo = at(&server, user, &format!("password={PASSWORD} {rest}"));
        court.agree(&server, &conninfo, &[], seen);
    }
    for (user, rest, seen) in [
        ("trusted", "password=wrong-hunter2", Encrypted),
        ("encrypted", "password=wrong-hunter2", Fails),
        ("pgpair", "", Fails),
    ] {
        court.agree(&server, &at(&server, user, rest), &[], seen);
    }
}

#[test]
fn what_is_not_done_as_psql_does_it_is_refused_by_name() {
    let ours = Authority::new("ours");
    let server = server_with_tls(&ours.certificate_for(NAME));
    let court = Court::opens();
    let address = server.address();
    for (rest, seen, named) in [
        ("sslmode=''", Fails, "sslmode"),
        ("sslmode=Require", Fails, "sslmode"),
        ("channel_binding=''", Fails, "channel_binding"),
        ("sslnegotiation=direct", Fails, "sslnegotiation"),
        (
            "ssl_min_protocol_version=1.3",
            Fails,
            "ssl_min_protocol_version",
        ),
        (
            "ssl_max_protocol_version=TLSv1.1",
            Fails,
            "ssl_max_protocol_version",
        ),
        ("target_session_attrs=master", Fails, "target_session_attrs"),
        ("load_balance_hosts=on", Fails, "load_balance_hosts"),
        ("gssencmode=on", Fails, "gssencmode"),
        ("keepalives_idle=x", Fails, "keepalives_idle"),
        ("gssencmode=require", Fails, "gssencmode is not supported"),
        ("sslcertmode=require", Fails, "sslcertmode is not supported"),
        (
            "require_auth=scram-sha-256",
            Encrypted,
            "require_auth is not supported",
        ),
        ("require_auth=none", Fails, "require_auth is not supported"),
        (
            "requirepeer=postgres",
            Encrypted,
            "requirepeer is not supported",
        ),
        ("sslcrl=/nowhere", Encrypted, "sslcrl is not supported"),
        ("sslcert=/nowhere", Encrypted, "sslcert is not supported"),
        ("service=nowhere", Fails, "service is not supported"),
    ] {
        let conninfo = at(&server, "pgpair", &format!("password={PASSWORD} {rest}"));
        court.refuse(&conninfo, &[], seen, named);
    }
    let unnamed = format!("hostaddr={address} user=pgpair sslmode=verify-full");
    let home = [("PGSSLROOTCERT", "system")];
    court.refuse(&unnamed, &home, Fails, "must be named");
}

#[test]
fn variables_and_files_at_home_count_as_with_psql() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let server = server_with_tls(&ours.certificate_for(NAME));
    let court = Court::opens();
    let right = fs::read(ours.file()).expect("readable");
    let wrong = fs::read(other.file()).expect("readable");
    let byte_order_mark = [b"\xef\xbb\xbf", &right[..]].concat();
    court.write("right/.postgresql/root.crt", &right);
    court.write("wrong/.postgresql/root.crt", &wrong);
    let marked = court.write("marked.crt", &byte_order_mark);
    let (right, wrong) = (court.path("right"), court.path("wrong"));
    let missing = court.path("missing");
    for (user, rest, variables, seen) in [
        (
            "pgpair",
            "sslmode=require",
            &[("HOME", &*right)][..],
            Encrypted,
        ),
        ("pgpair", "sslmode=require", &[("HOME", &wrong)], Fails),
        (
            "pgpair",
            "sslmode=verify-full",
            &[("HOME", &right)],
            Encrypted,
        ),
        ("pgpair", "sslmode=verify-ca", &[("HOME", &wrong)], Fails),
        ("pgpair", "", &[("HOME", &wrong)], Plain),
        ("encrypted", "", &[("HOME", &wrong)], Fails),
        ("pgpair", "sslmode=allow", &[("HOME", &wrong)], Plain),
        ("encrypted", "sslmode=allow", &[("HOME", &wrong)], Fails),
        ("pgpair", "", &[("PGSSLROOTCERT", &missing)], Encrypted),
        (
            "pgpair",
            "sslmode=verify-ca",
            &[("PGSSLROOTCERT", &marked)],
            Encrypted,
        ),
        ("pgpair", "", &[("PGREQUIRESSL", "1")], Encrypted),
        ("plain", "", &[("PGREQUIRESSL", "1")], Fails),
        ("plain", "", &[("PGREQUIRESSL", "0")], Plain),
        ("clear", "", &[("PGCHANNELBINDING", "require")], Fails),
        ("pgpair", "", &[("PGSSLMODE", "disable")], Plain),
        ("pgpair", "", &[("PGOPTIONS", "-c nonsense=1")], Fails),
        (
            "pgpair",
            "",
            &[("PGTZ", "UTC"), ("PGCLIENTENCODING", "LATIN1")],
            Encrypted,
        ),
    ] {
        let conninfo = at(&server, user, &format!("password={PASSWORD} {rest}"));
        court.agree(&server, &conninfo, variables, seen);
    }
    let conninfo = at(
        &server,
        "pgpair",
        &format!("password={PASSWORD} sslmode=require"),
    );
    court.write("right/.postgresql/root.crl", b"");
    let named = "root.crl is not supported";
    court.refuse(&conninfo, &[("HOME", &right)], Encrypted, named);
    court.refuse(
        &conninfo,
        &[("PGSSLMODE", ""), ("PGSSLCRL", "/x")],
        Encrypted,
        "PGSSLCRL",
    );
}

#[test]
fn password_files_count_as_with_psql() {
    let ours = Authority::new("ours");
    let server = server_with_tls(&ours.certificate_for(NAME));
    let court = Court::opens();
    let line = |host: &str| format!("{host}:5432:postgres:pgpair:{PASSWORD}\n").into_bytes();
    let latin_1 = [b"# pass\xf4rt\n\xff:1:2:3:4\n", &line(NAME)[..]].concat();
    let latin_1 = court.write("latin-1", &latin_1);
    let elsewhere = court.write("elsewhere", &line("localhost"));
    let missing = court.path("missing");
    for (user, file, seen) in [
        ("pgpair", latin_1.as_str(), Encrypted),
        ("pgpair", &elsewhere, Fails),
        ("pgpair", &missing, Fails),
        ("trusted", &missing, Encrypted),
        ("trusted", "/dev/null", Encrypted),
        ("pgpair", "/dev/null", Fails),
    ] {
        let conninfo = at(&server, user, "");
        court.agree(&server, &conninfo, &[("PGPASSFILE", file)], seen);
    }
    let probe = Probe::of(at(&server, "pgpair", ""));
    let answer = probe.variable("PGPASSFILE", &missing).start().ready();
    assert!(answer.body.contains("asks for a password"), "{answer:?}");
}

/// As many names as a host's name may have, and more than a label may.
#[test]
fn host_whose_name_no_certificate_has_is_connected_to_where_none_is_asked_for() {
    let ours = Authority::new("ours");
    let server = server_with_tls(&ours.certificate_for(NAME));
    let court = Court::opens();
    let roots = ours.file();
    let roots = fs::read(roots).expect("readable");
    let roots = court.write("ca.crt", &roots);
    let address = server.address();
    let long = "a".repeat(70);
    for host in ["-db", "db-", "db_1", &long, "/run/db"] {
        for (mode, seen) in [
            ("require".to_owned(), Encrypted),
            (format!("verify-ca sslrootcert={roots}"), Encrypted),
            (format!("verify-full sslrootcert={roots}"), Fails),
        ] {
            let conninfo = format!(
                "host={host} hostaddr={address} user=pgpair password={PASSWORD} \
                 dbname=postgres sslmode={mode}"
            );
            court.agree(&server, &conninfo, &[], seen);
        }
    }
}

/// How far a certificate is believed: with `prefer`, `require`, `verify-ca` and
/// `verify-full`, the last two with the root file that was made along with it.
struct Shown {
    what: &'static str,
    /// Makes `server.key`, `server.crt` and `root.crt`.
    script: &'static str,
    seen: [Seen; 4],
    /// In these modes pgpair cannot do what psql does, and says so.
    unknown_kind: &'static [&'static str],
}

const MODES: [&str; 4] = ["prefer", "require", "verify-ca", "verify-full"];
const BOTH_VERIFYING: &[&str] = &["verify-ca", "verify-full"];

/// Shell functions for what follows. Version 1 takes an option where OpenSSL is new,
/// and none where it is old.
const FUNCTIONS: &str = r#"
key() { openssl genpkey -algorithm $1 -out $2.key; }
authority() { # NAME SUBJECT ISSUER KEY [DAYS [CONSTRAINTS]]
    key "$4" $1
    ca=; [ -z "$3" ] || ca="-CA $3.crt -CAkey $3.key"
    openssl req -new -x509 -days ${5:-30} -key $1.key -subj $2 $ca -out $1.crt \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
        -config /etc/ssl/openssl.cnf -extensions none 2>/dev/null ||
    openssl req -new -x509 -days ${5:-30} -key $1.key -subj $2 $ca -out $1.crt
}
self() { # KEY SUBJECT OPTIONS...
    key "$1" server; subject=$2; shift 2
    openssl req -new -x509 -days 30 -key server.key -subj $subject -out server.crt "$@"
    cp server.crt root.crt
}
signed() { # ISSUER KEY SUBJECT OPTIONS...
    key "$2" server; by=$1; subject=$3; shift 3
    openssl req -new -x509 -days 30 -key server.key -subj $subject -CA $by.crt -CAkey $by.key \
        -out server.crt "$@"
}
version_1() { # ISSUER KEY SUBJECT
    key "$2" server
    openssl req -new -x509v1 -days 30 -key server.key -subj $3 -CA $1.crt -CAkey $1.key \
        -out server.crt 2>/dev/null && return
    openssl req -new -key server.key -subj $3 -out server.csr
    openssl x509 -req -days 30 -in server.csr -CA $1.crt -CAkey $1.key -CAcreateserial -out server.crt
}
expired() { # CERTIFICATE KEY; what was good for a day
    past="-not_before 20200101000000Z -not_after 20200102000000Z"
    openssl x509 -in $1 -signkey $2 $past -out old.crt 2>/dev/null ||
        openssl x509 -in $1 -signkey $2 -days -1 -out old.crt
    mv old.crt $1
}
p256='ec -pkeyopt ec_paramgen_curve:P-256'
p384='ec -pkeyopt ec_paramgen_curve:P-384'
p521='ec -pkeyopt ec_paramgen_curve:P-521'
rsa='rsa -pkeyopt rsa_keygen_bits:2048'
pss='rsa-pss -pkeyopt rsa_keygen_bits:2048'
name=/CN=db.pgpair.test
leaf='-addext basicConstraints=CA:FALSE'
"#;

const CERTIFICATES: &[Shown] = &[
    Shown {
        what: "the manual's first recipe: signed by itself, CA:TRUE",
        script: "self \"$rsa\" $name",
        seen: [Encrypted; 4],
        unknown_kind: &[],
    },
    Shown {
        what: "the same, and no authority",
        script: "self \"$rsa\" $name $leaf",
        seen: [Encrypted; 4],
        unknown_kind: &[],
    },
    Shown {
        what: "the manual's second recipe, in version 1",
        script: "authority root /CN=root '' \"$rsa\"; version_1 root \"$rsa\" $name",
        seen: [Encrypted; 4],
        unknown_kind: &[],
    },
    Shown {
        what: "the manual's third recipe: an authority in between, then version 1",
        script: "authority root /CN=root '' \"$p256\"; authority mid /CN=mid root \"$p256\"; \
                 version_1 mid \"$rsa\" $name; cat mid.crt >>server.crt",
        seen: [Encrypted; 4],
        unknown_kind: &[],
    },
    Shown {
        what: "the one in between is in the root file, not with the server",
        script: "authority root /CN=root '' \"$p256\"; authority mid /CN=mid root \"$p256\"; \
                 signed mid \"$p256\" $name $leaf; cat mid.crt >>root.crt",
        seen: [Encrypted; 4],
        unknown_kind: &[],
    },
    Shown {
        what: "only the one in between is in the root file",
        script: "authority top /CN=root '' \"$p256\"; authority mid /CN=mid top \"$p256\"; \
                 signed mid \"$p256\" $name $leaf; cp mid.crt root.crt",
        seen: [Encrypted, Encrypted, Fails, Fails],
        unknown_kind: &[],
    },
    Shown {
        what: "only the server's own is in the root file, signed by another",
        script: "authority top /CN=root '' \"$p256\"; signed top \"$p256\" $name $leaf; \
                 cp server.crt root.crt",
        seen: [Encrypted, Encrypted, Fails, Fails],
        unknown_kind: &[],
    },
    Shown {
        what: "version 1, by another authority of the same name",
        script: "authority top /CN=root '' \"$p256\"; version_1 top \"$p256\" $name; \
                 authority root /CN=root '' \"$p256\"",
        seen: [Encrypted, Encrypted, Fails, Fails],
        unknown_kind: &[],
    },
    Shown {
        what: "version 1, by one that is no authority",
        script: "authority root /CN=root '' \"$p256\"; signed root \"$p256\" /CN=mid $leaf; \
                 cp server.crt mid.crt; cp server.key mid.key; \
                 version_1 mid \"$p256\" $name; cat mid.crt >>server.crt",
        seen: [Encrypted, Encrypted, Fails, Fails],
        unknown_kind: &[],
    },
    Shown {
        what: "an authority's, signed by an authority",
        script: "authority root /CN=root '' \"$p256\"; \
                 signed root \"$p256\" $name -addext basicConstraints=CA:TRUE",
        seen: [Encrypted; 4],
        unknown_kind: &[],
    },
    Shown {
        what: "P-521, signed by itself",
        script: "self \"$p521\" $name",
        seen: [Encrypted; 4],
        unknown_kind: BOTH_VERIFYING,
    },
    Shown {
        what: "P-521, by an authority",
        script: "authority root /CN=root '' \"$p256\"; signed root \"$p521\" $name $leaf",
        seen: [Encrypted; 4],
        unknown_kind: BOTH_VERIFYING,
    },
    Shown {
        what: "version 1, by an authority with P-521",
        script: "authority root /CN=root '' \"$p521\"; version_1 root \"$p256\" $name",
        seen: [Encrypted; 4],
        unknown_kind: BOTH_VERIFYING,
    },
    Shown {
        what: "signed with SHA-512 by an authority with P-256",
        script: "authority root /CN=root '' \"$p256\"; signed root \"$p256\" $name $leaf -sha512",
        seen: [Encrypted; 4],
        unknown_kind: BOTH_VERIFYING,
    },
    Shown {
        what: "P-256, signed by itself with SHA-512",
        script: "self \"$p256\" $name -sha512",
        seen: [Encrypted; 4],
        unknown_kind: &[],
    },
    Shown {
        what: "P-384, signed by itself with SHA-384",
        script: "self \"$p384\" $name -sha384",
        seen: [Encrypted; 4],
        unknown_kind: &[],
    },
    Shown {
        what: "RSA-PSS, signed by itself",
        script: "self \"$pss\" $name",
        seen: [Encrypted; 4],
        unknown_kind: &[],
    },
    Shown {
        what: "RSA-PSS, by an authority",
        script: "authority root /CN=root '' \"$p256\"; signed root \"$pss\" $name $leaf",
        seen: [Encrypted; 4],
        unknown_kind: &[],
    },
    Shown {
        what: "no longer good",
        script: "self \"$p256\" $name; expired server.crt server.key; cp server.crt root.crt",
        seen: [Encrypted, Encrypted, Fails, Fails],
        unknown_kind: &[],
    },
    Shown {
        what: "by an authority that is no longer good",
        script: "authority root /CN=root '' \"$p256\"; signed root \"$p256\" $name $leaf; \
                 expired root.crt root.key",
        seen: [Encrypted, Encrypted, Fails, Fails],
        unknown_kind: &[],
    },
    Shown {
        what: "for clients only",
        script: "self \"$p256\" $name -addext extendedKeyUsage=clientAuth",
        seen: [Encrypted, Encrypted, Fails, Fails],
        unknown_kind: &[],
    },
    Shown {
        what: "for another name",
        script: "self \"$p256\" /CN=other.pgpair.test",
        seen: [Encrypted, Encrypted, Encrypted, Fails],
        unknown_kind: &[],
    },
    Shown {
        what: "for another name, beside the common name",
        script: "self \"$p256\" $name -addext subjectAltName=DNS:other.pgpair.test",
        seen: [Encrypted, Encrypted, Encrypted, Fails],
        unknown_kind: &[],
    },
    Shown {
        what: "for an address, beside the common name",
        script: "self \"$p256\" $name -addext subjectAltName=IP:192.0.2.1",
        seen: [Encrypted; 4],
        unknown_kind: &[],
    },
    Shown {
        what: "for every name of the domain, in capitals",
        script: "self \"$p256\" /CN=*.PGPAIR.test",
        seen: [Encrypted; 4],
        unknown_kind: &[],
    },
    Shown {
        what: "for every name of the domain above",
        script: "self \"$p256\" /CN=x -addext subjectAltName=DNS:*.test",
        seen: [Encrypted, Encrypted, Encrypted, Fails],
        unknown_kind: &[],
    },
];

#[test]
fn certificates_are_believed_as_far_as_psql_believes_them() {
    let court = Court::opens();
    for shown in CERTIFICATES {
        let maker = Postgres::start();
        let made = made_by_openssl(&maker, &format!("{FUNCTIONS}\n{}", shown.script));
        maker.turn_tls_on(&made.server);
        let roots = court.write("root.crt", made.roots.as_bytes());
        for (mode, seen) in MODES.into_iter().zip(shown.seen) {
            let mut conninfo = format!("password={PASSWORD} sslmode={mode}");
            if mode.starts_with("verify") {
                conninfo.push_str(&format!(" sslrootcert={roots}"));
            }
            let conninfo = at(&maker, "pgpair", &conninfo);
            let theirs = court.psql.sees(&conninfo, &[]);
            let ours = pgpair_sees(&maker, &conninfo, &[]);
            let case = format!("{}, {mode}: psql {theirs:?}, pgpair {ours:?}", shown.what);
            assert_eq!(theirs.0, seen, "{case}");
            if shown.unknown_kind.contains(&mode) {
                assert!(ours.1.contains("pgpair cannot verify"), "{case}");
            } else {
                assert_eq!(ours.0, seen, "{case}");
            }
        }
    }
}

#[test]
fn channel_is_bound_by_the_digest_that_the_certificate_is_signed_with() {
    let court = Court::opens();
    for (script, seen) in [
        ("self \"$p256\" $name -sha256", Encrypted),
        ("self \"$p256\" $name -sha384", Encrypted),
        ("self \"$p256\" $name -sha512", Encrypted),
        ("self \"$rsa\" $name -sha512", Encrypted),
        ("self \"$pss\" $name -sha384", Encrypted),
    ] {
        let maker = Postgres::start();
        let made = made_by_openssl(&maker, &format!("{FUNCTIONS}\n{script}"));
        maker.turn_tls_on(&made.server);
        let rest = format!("password={PASSWORD} sslmode=require channel_binding=require");
        court.agree(&maker, &at(&maker, "pgpair", &rest), &[], seen);
    }
}
