//! Who learns what: roles are everybody's, all else is for those for whom it is meant.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use crate::support::browser::Browser;
use crate::support::http::{Answer, Connection};
use crate::support::tls::Authority;
use crate::support::{Postgres, Probe, docker, eventually, fake, packages};

const DETAILS: [&str; 3] = ["/status", "/metrics", "/ui"];

/// A new login, which shows the server's certificate, is tried every 10 s.
const SEEN_WITHIN: Duration = Duration::from_secs(15);

fn error(answer: &Answer) -> String {
    let said = answer.json()["error"].as_str().unwrap_or("").to_owned();
    format!("{} {said}", answer.status)
}

fn get(address: SocketAddr, path: &str) -> Answer {
    Connection::open(address).get(path)
}

#[test]
fn another_host_learns_roles_and_nothing_else() {
    let server = Postgres::start();
    // To a container, this host is another one.
    let probe = Probe::of(server.conninfo_by_name())
        .variable("PGPAIR_LISTEN_DETAILS", "0.0.0.0:5100")
        .start_in_container();
    probe.becomes_ready();
    for path in [
        "/health",
        "/ready",
        "/primary",
        "/read-only",
        "/ready?write",
    ] {
        assert_eq!(probe.get(path).status, 200, "{path}");
    }
    let details = SocketAddr::new(probe.address.ip(), 5100);
    for path in DETAILS {
        assert_eq!(error(&probe.get(path)), "403 details_not_here", "{path}");
        assert_eq!(get(details, path).status, 200, "{path}");
    }
    assert_eq!(get(details, "/primary").status, 200);
    let name = &probe.container().name;
    let shown = docker::try_docker(&["exec", name, "/pgpair", "status"], b"");
    assert!(shown.stdout.contains("primary"), "{shown:?}");
    let elsewhere = docker::try_docker(
        &[
            "exec",
            name,
            "/pgpair",
            "status",
            &format!("http://{}", probe.address),
        ],
        b"",
    );
    assert!(elsewhere.stdout.contains("primary"), "{elsewhere:?}");
    let refused = probe.status_command(&[]);
    assert!(refused.stderr.contains("--listen-details"), "{refused:?}");
    assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
}

#[test]
fn at_loopback_no_other_name_learns_anything_or_has_anything_done() {
    let port = fake::nobody().port();
    let probe = Probe::of(format!("host=127.0.0.1 port={port} user=pgpair"))
        .with("hosts", "probe.example")
        .start();
    let ask = |host: &str, path: &str, more: &str| {
        let mut connection = probe.connect();
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n"));
        connection.answer()
    };
    for path in DETAILS {
        for host in ["evil.example", "127.0.0.1.evil.example:80"] {
            assert_eq!(error(&ask(host, path, "")), "403 unknown_host", "{host}");
        }
        for host in ["localhost", "127.0.0.1:5000", "[::1]", "probe.example:80"] {
            assert_eq!(ask(host, path, "").status, 200, "{host} {path}");
        }
        let target = format!("http://evil.example{path}");
        assert_eq!(error(&ask("localhost", &target, "")), "403 unknown_host");
    }
    // Roles are nobody's secret.
    assert_eq!(ask("evil.example", "/health", "").status, 200);
    assert_eq!(ask("evil.example", "/primary", "").reason(), "refused");
    for path in [
        "/ready?write",
        "/ready?login",
        "/nodes/127.0.0.1/ready?write",
    ] {
        assert_eq!(error(&ask("evil.example", path, "")), "403 unknown_host");
        for header in [
            "Sec-Fetch-Site: cross-site\r\n",
            "Origin: http://evil.example\r\n",
            "Accept-Language: de\r\n",
        ] {
            assert_eq!(error(&ask("localhost", path, header)), "403 cross_site");
        }
        let typed = "Sec-Fetch-Site: none\r\nAccept-Language: de\r\n";
        assert_eq!(ask("localhost", path, typed).reason(), "refused", "{path}");
    }
}

#[test]
fn page_of_somebody_else_has_nothing_committed() {
    packages::require();
    let server = Postgres::start();
    let probe = Probe::watching(&server);
    let site = serve(format!(
        "<title>wait</title><img src='http://{}/ready?write' onerror='document.title=\"done\"'>",
        probe.address
    ));
    let browser = Browser::start();
    let transactions = || server.sql("SELECT pg_snapshot_xmax(pg_current_snapshot())");
    let before = transactions();
    let refused = || {
        let name = r#"pgpair_http_requests_total{path="/ready",code="403"}"#;
        probe.metrics().get(name).copied().unwrap_or(0.0)
    };
    assert!(refused() < 1.0);
    browser.open(&format!("http://{site}/"));
    browser.comes_to_be_titled("done", Duration::from_secs(10));
    assert!(refused() >= 1.0, "it asked");
    assert_eq!(transactions(), before);
    assert_eq!(probe.get("/ready?write").status, 200);
    assert_ne!(transactions(), before, "a commit is seen by this");
}

/// Serves this page to everybody who asks for anything.
fn serve(page: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let _ = stream.read(&mut [0; 4096]);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close";
            let length = page.len();
            let _ = write!(stream, "{head}\r\nContent-Length: {length}\r\n\r\n{page}");
        }
    });
    address
}

#[test]
fn end_of_a_certificate_is_told_also_of_one_that_was_renewed() {
    let authority = Authority::new("ours");
    let server = Postgres::start();
    server.turn_tls_on(&authority.certificate_until("db", 2031));
    let probe = Probe::of(format!("{} sslmode=require", server.conninfo())).start();
    probe.becomes_ready();
    let name = probe.status_json()["nodes"][0]["name"].clone();
    let name = name.as_str().expect("a name");
    let metric = format!("pgpair_certificate_expiry_timestamp_seconds{{node=\"{name}\"}}");
    let comes_to_end = |at: Option<f64>, shown: Option<&str>| {
        eventually(SEEN_WITHIN, "the certificate's end is told", || {
            let told = probe.metrics().get(&metric).copied();
            let node = &probe.status_json()["nodes"][0];
            let same = told == at && node["certificate_good_until"].as_str() == shown;
            same.then_some(())
        });
    };
    comes_to_end(Some(1_925_078_400.0), Some("2031-01-02T00:00:00Z"));
    server.turn_tls_on(&authority.certificate_until("db", 2032));
    comes_to_end(Some(1_956_614_400.0), Some("2032-01-02T00:00:00Z"));
}

#[test]
fn end_of_a_certificate_that_is_over_is_told() {
    let authority = Authority::new("ours");
    let server = Postgres::start();
    server.turn_tls_on(&authority.certificate_until("db", 2020));
    let roots = authority.file();
    let probe = Probe::of(format!(
        "{} sslmode=verify-ca sslrootcert={}",
        server.conninfo(),
        roots.display()
    ))
    .start();
    probe.is_not_ready(&["tls_failed"]);
    let metrics = probe.get("/metrics").body;
    let metric = "pgpair_certificate_expiry_timestamp_seconds{node=";
    let line = metrics.lines().find(|line| line.starts_with(metric));
    let line = line.unwrap_or_else(|| panic!("{metric} in {metrics}"));
    assert!(line.ends_with(" 1577923200"), "{line}");
}
