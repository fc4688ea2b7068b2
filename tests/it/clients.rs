//! Real clients: HAProxy, Prometheus, a browser, curl.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use pgpair::http::families::FAMILIES;
use postgres::{Client, NoTls};
use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::packages::{self, Daemon, free_port, run};
use crate::support::replication::{SERVER, TOLD_WITHIN};
use crate::support::tls::Authority;
use crate::support::{PASSWORD, Pair, Postgres, Probe, eventually, ms};

const README: &str = include_str!("../../README.md");

/// HAProxy asks once a second and believes the first answer; what it is told
/// is as new as the request.
const ROUTED_WITHIN: Duration = Duration::from_secs(3);

/// The page asks twice a second. A server that is gone without a word is known
/// to be after an interval and a deadline, 1.9 s.
const MISSED_WITHIN: Duration = Duration::from_secs(3);

// HAProxy.

struct Haproxy {
    daemon: Daemon,
}

impl Haproxy {
    /// Starts it with these sections after its defaults.
    fn start(sections: &str) -> Haproxy {
        let daemon = Daemon::start("haproxy", |directory| {
            let socket = directory.join("socket");
            let config = format!(
                "global\n    stats socket {} mode 600\n\
                 defaults\n    mode tcp\n    option redispatch 1\n    timeout connect 1s\n    timeout client 1m\n\
                 \x20   timeout server 1m\n    timeout check 2s\n{sections}",
                socket.display()
            );
            let path = directory.join("haproxy.cfg");
            fs::write(&path, config).expect("writes");
            vec![
                "-db".to_owned(),
                "-f".to_owned(),
                path.display().to_string(),
            ]
        });
        let haproxy = Haproxy { daemon };
        eventually(SERVER, "HAProxy answers", || haproxy.ask("show info"));
        haproxy
    }

    fn ask(&self, command: &str) -> Option<String> {
        let mut socket = UnixStream::connect(self.daemon.directory().join("socket")).ok()?;
        writeln!(socket, "{command}").ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// Returns the names of the servers that are up in a backend.
    fn up(&self, backend: &str) -> Vec<String> {
        let table = self.ask("show stat").expect("it is running");
        let mut lines = table.lines();
        let header = lines.next().expect("a header").trim_start_matches("# ");
        let column = |name: &str| header.split(',').position(|it| it == name).expect(name);
        let (of, name, status) = (column("pxname"), column("svname"), column("status"));
        let rows = lines.map(|line| line.split(',').collect::<Vec<_>>());
        rows.filter(|row| row.len() > status && row[of] == backend)
            .filter(|row| !matches!(row[name], "FRONTEND" | "BACKEND"))
            .filter(|row| row[status].starts_with("UP"))
            .map(|row| row[name].to_owned())
            .collect()
    }

    fn routes(&self, backend: &str, to: &[&str]) {
        let what = format!("{backend} goes to {to:?}");
        eventually(ROUTED_WITHIN, &what, || {
            (self.up(backend) == to).then_some(())
        });
    }
}

/// Returns the README's backends, for these servers and this probe.
fn readme_backends(a: &Postgres, b: &Postgres, probe: SocketAddr) -> String {
    let (_, rest) = README.split_once("### With HAProxy").expect("the section");
    let (_, rest) = rest.split_once("```\n").expect("a block");
    let (block, _) = rest.split_once("```").expect("its end");
    let servers: Vec<&str> = block
        .lines()
        .filter(|line| line.trim_start().starts_with("server "))
        .collect();
    assert_eq!(servers.len(), 2, "{block}");
    block
        .replace("    …", &servers.join("\n"))
        .replace("pgpair-a:", &format!("{}:", a.address()))
        .replace("pgpair-b:", &format!("{}:", b.address()))
        .replace(
            "addr probe port 5000",
            &format!("addr {} port {}", probe.ip(), probe.port()),
        )
}

/// Connects as the superuser, through whatever listens at that port.
fn through(port: u16) -> Result<Client, postgres::Error> {
    postgres::Config::new()
        .host("127.0.0.1")
        .port(port)
        .user("postgres")
        .password(PASSWORD)
        .dbname("postgres")
        .connect_timeout(Duration::from_secs(2))
        .connect(NoTls)
}

fn address_of(port: u16) -> Option<String> {
    let row = through(port)
        .ok()?
        .query_one("SELECT host(inet_server_addr())", &[]);
    Some(row.ok()?.get(0))
}

#[test]
fn haproxy_routes_writer_and_reader_through_a_promotion_with_the_readme_s_configuration() {
    let pair = Pair::start();
    let (a, b) = (&pair.primary, &pair.standby);
    let probe = pair.probe_when_well();
    let (writes, reads) = (free_port(), free_port());
    let haproxy = Haproxy::start(&format!(
        "frontend w\n    bind 127.0.0.1:{writes}\n    default_backend writes\n\
         frontend r\n    bind 127.0.0.1:{reads}\n    default_backend reads\n{}",
        readme_backends(a, b, probe.address)
    ));
    haproxy.routes("writes", &["a"]);
    haproxy.routes("reads", &["b"]);
    assert_eq!(address_of(writes), Some(a.address().to_string()));
    assert_eq!(address_of(reads), Some(b.address().to_string()));
    let mut writer = through(writes).expect("a primary");
    writer
        .batch_execute("CREATE TABLE kept (number int)")
        .expect("it takes writes");
    let write = |writer: &mut Client, number: i32| {
        writer.execute("INSERT INTO kept VALUES ($1)", &[&number])
    };
    (0..50).for_each(|number| assert_eq!(write(&mut writer, number).expect("written"), 1));

    // A switchover by hand: the old primary is to come back as a standby.
    let upstream = format!("host={} user=replicator password={PASSWORD}", b.address());
    a.sql(&format!("ALTER SYSTEM SET primary_conninfo = '{upstream}'"));
    a.become_standby();
    a.stop();
    b.promote();
    let promoted = Instant::now();
    assert!(write(&mut writer, -1).is_err(), "its server has gone");
    let mut writer = eventually(ROUTED_WITHIN, "the writer finds the new primary", || {
        let mut writer = through(writes).ok()?;
        write(&mut writer, 50).ok()?;
        Some(writer)
    });
    println!("writes again {:?} after the promotion", promoted.elapsed());
    haproxy.routes("writes", &["b"]);
    // There is no standby; nobody reads from the primary by mistake.
    haproxy.routes("reads", &[]);

    a.start_again();
    eventually(SERVER, "the old primary streams", || {
        (b.sql("SELECT state FROM pg_stat_replication") == "streaming").then_some(())
    });
    haproxy.routes("reads", &["a"]);
    haproxy.routes("writes", &["b"]);
    assert_eq!(address_of(reads), Some(a.address().to_string()));
    write(&mut writer, 51).expect("the same connection still");
    eventually(TOLD_WITHIN, "the reader sees what was written", || {
        let counted = through(reads)
            .ok()?
            .query_one("SELECT count(*) FROM kept", &[]);
        let count: i64 = counted.ok()?.get(0);
        (count == 52).then_some(())
    });
}

#[test]
fn haproxy_sends_no_writer_anywhere_while_two_servers_take_writes() {
    let pair = Pair::start();
    let probe = pair.probe_when_well();
    let writes = free_port();
    let haproxy = Haproxy::start(&format!(
        "frontend w\n    bind 127.0.0.1:{writes}\n    default_backend writes\n{}",
        readme_backends(&pair.primary, &pair.standby, probe.address)
    ));
    haproxy.routes("writes", &["a"]);
    let mut writer = through(writes).expect("a primary");
    pair.standby.promote();
    haproxy.routes("writes", &[]);
    haproxy.routes("reads", &[]);
    assert!(writer.simple_query("SELECT 1").is_err(), "it was cut off");
    assert!(through(writes).is_err());

    pair.primary.stop();
    haproxy.routes("writes", &["b"]);
    assert_eq!(address_of(writes), Some(pair.standby.address().to_string()));
}

#[test]
fn haproxy_s_default_check_and_patroni_s_recipes_work_with_a_probe_beside_each_node() {
    let pair = Pair::start();
    let beside = |node: &Postgres, name| Probe::of(node.conninfo()).with("nodes", name).start();
    let probes = [beside(&pair.primary, "a"), beside(&pair.standby, "b")];
    let backend = |name: &str, check: &str| {
        let mut text = format!("backend {name}\n    {check}\n");
        for (server, (node, probe)) in [
            ("a", (&pair.primary, &probes[0])),
            ("b", (&pair.standby, &probes[1])),
        ] {
            text.push_str(&format!(
                "    server {server} {}:5432 check addr 127.0.0.1 port {} inter 500ms fall 1 rise 1\n",
                node.address(),
                probe.address.port()
            ));
        }
        text
    };
    let haproxy = Haproxy::start(
        &[
            backend("default", "option httpchk"),
            backend("options", "option httpchk OPTIONS /primary"),
            backend("head", "option httpchk HEAD /primary"),
            backend("master", "option httpchk OPTIONS /master"),
            backend("replica", "option httpchk HEAD /replica?lag=10MB"),
            backend("either", "option httpchk GET /read-only"),
            backend("ready", "option httpchk GET /readiness"),
        ]
        .concat(),
    );
    for (name, to) in [
        ("default", &["a"][..]),
        ("options", &["a"]),
        ("head", &["a"]),
        ("master", &["a"]),
        ("replica", &["b"]),
        ("either", &["a", "b"]),
        ("ready", &["a", "b"]),
    ] {
        haproxy.routes(name, to);
    }
    pair.standby.sql("SELECT pg_wal_replay_pause()");
    pair.primary.write_wal(11 * 1024 * 1024);
    haproxy.routes("replica", &[]);
    pair.standby.sql("SELECT pg_wal_replay_resume()");
    haproxy.routes("replica", &["b"]);

    pair.primary.stop();
    haproxy.routes("default", &[]);
    pair.standby.promote();
    for name in ["default", "options", "head", "master"] {
        haproxy.routes(name, &["b"]);
    }
    haproxy.routes("replica", &[]);
}

// curl.

#[test]
fn curl_tells_yes_from_no_by_its_exit_code() {
    let pair = Pair::start();
    let probe = pair.probe_when_well();
    for (path, code) in [
        ("/ready", 0),
        ("/", 0),
        ("/nodes/a/primary", 0),
        ("/nodes/b/primary", 22),
        ("/replica?lag=10MB", 0),
        ("/replica?lag=10mb", 22),
        ("/status", 0),
        ("/metrics", 0),
        ("/ui", 0),
    ] {
        let url = format!("http://{}{path}", probe.address);
        for how in [
            &["--fail", "--silent"][..],
            &["--fail", "--silent", "--head"],
        ] {
            let done = run("curl", &[how, &["--max-time", "5", &url]].concat(), "");
            assert_eq!(done.code(), code, "{how:?} {path}: {done:?}");
        }
    }
    // A HTTP/1.0 client, and one that sends what nobody asked for.
    let url = format!("http://{}/ready", probe.address);
    let done = run(
        "curl",
        &["--http1.0", "--silent", "--header", "Host:", &url],
        "",
    );
    assert!(done.stdout.starts_with("{\"ok\":true,"), "{done:?}");
    let done = run(
        "curl",
        &["--silent", "--include", "--data", "x=1", &url],
        "",
    );
    let refused = done.stdout.lines().next().unwrap_or_default();
    assert!(
        refused.contains("405") || refused.contains("413"),
        "{done:?}"
    );
}

// Prometheus.

fn prometheus_files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ansible/roles/pgpair_probe/files/prometheus")
}

#[test]
fn prometheus_scrapes_the_probe_and_fires_the_shipped_alert() {
    let pair = Pair::start();
    let probe = pair.probe_when_well();
    let port = free_port();
    let target = probe.address;
    let prometheus = Daemon::start("prometheus", |directory| {
        let rules = prometheus_files().join("pgpair.rules.yml");
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{}]\n\
             scrape_configs:\n  - job_name: pgpair\n    static_configs: [{{targets: [\"{target}\"]}}]\n",
            rules.display()
        );
        let path = directory.join("prometheus.yml");
        fs::write(&path, config).expect("writes");
        vec![
            format!("--config.file={}", path.display()),
            format!("--storage.tsdb.path={}", directory.join("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ]
    });
    let server = format!("http://127.0.0.1:{port}");
    // Lines such as: up{instance="…", job="pgpair"} => 1 @[…]
    let query = |text: &str| {
        let asked = run("promtool", &["query", "instant", &server, text], "");
        let lines = asked.stdout.lines().filter(|line| !line.is_empty());
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let comes_true = |text: &str| {
        eventually(SERVER, text, || (!query(text).is_empty()).then_some(()));
    };
    comes_true("up{job=\"pgpair\"} == 1");
    comes_true("scrape_samples_scraped{job=\"pgpair\"} > 50");
    comes_true("pgpair_ready == 1 and on () pgpair_pair_verdict{verdict=\"ok\"} == 1");
    comes_true("pg_replication_lag_seconds{node=\"b\"} == 0");
    comes_true("rate(pgpair_http_requests_total{path=\"/metrics\", code=\"200\"}[10s]) > 0");
    comes_true("histogram_quantile(0.99, rate(pgpair_observation_seconds_bucket[10s])) < 2");
    assert_eq!(query("ALERTS"), [""; 0]);

    pair.standby.promote();
    comes_true(
        "ALERTS{alertname=\"PgpairSplitBrain\", alertstate=\"firing\", severity=\"critical\"}",
    );
    comes_true("pgpair_writable_primaries == 2");
    // It asked for OpenMetrics, and found nothing to complain of.
    let said = prometheus.said();
    assert!(
        !said.contains("level=error") && !said.contains("append failed"),
        "{said}"
    );
}

#[test]
fn prometheus_s_tool_finds_nothing_to_say_about_the_metrics() {
    let pair = Pair::start();
    let probe = pair.probe_when_well();
    let check = |state: &str| {
        let metrics = probe.get("/metrics").body;
        let done = run("promtool", &["check", "metrics"], &metrics);
        assert_eq!(
            (done.code(), done.stdout.as_str(), done.stderr.as_str()),
            (0, "", ""),
            "{state}"
        );
    };
    check("well");
    pair.standby.kill();
    probe.tells("degraded");
    check("degraded");
    pair.primary.kill();
    // A container that is gone is silent, and may be anything.
    probe.tells("unknown");
    check("nobody there");
}

#[test]
fn metrics_are_openmetrics_for_who_asks_for_that() {
    let primary = Postgres::start();
    let probe = Probe::watching(&primary);
    let asked = |accept: &str| {
        let mut connection = probe.connect();
        connection.send(format!(
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n"
        ));
        connection.answer()
    };
    // What Prometheus 2.42 sends.
    let answer = asked(
        "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
         text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    );
    let kind = answer.header("Content-Type").expect("a type");
    assert!(
        kind.starts_with("application/openmetrics-text; version=1.0.0"),
        "{kind}"
    );
    assert!(answer.body.ends_with("# EOF\n"));
    assert!(
        answer
            .body
            .contains("# TYPE pgpair_outage_seconds counter\n"),
        "no suffix there"
    );
    for accept in ["text/plain", "*/*", "text/html,*/*;q=0.8"] {
        let answer = asked(accept);
        let kind = answer.header("Content-Type").expect("a type");
        assert!(
            kind.starts_with("text/plain; version=0.0.4"),
            "{accept}: {kind}"
        );
        assert!(!answer.body.contains("# EOF"));
        assert!(
            answer
                .body
                .contains("# TYPE pgpair_outage_seconds_total counter\n")
        );
    }
}

#[test]
fn shipped_alert_rules_are_sound_and_pass_their_tests() {
    for (what, file) in [
        ("check", "pgpair.rules.yml"),
        ("test", "pgpair.rules.test.yml"),
    ] {
        let path = prometheus_files().join(file);
        let path = path.to_str().expect("a plain path");
        let done = run("promtool", &[what, "rules", path], "");
        assert_eq!(done.code(), 0, "{done:?}");
    }
}

#[test]
fn alerts_dashboard_and_readme_name_metrics_that_there_are() {
    let pair = Pair::start();
    pair.primary
        .sql("SELECT pg_create_physical_replication_slot('pgpair_b', true)");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let report = folder.path().join("guard");
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let at = since.expect("it is later").as_millis();
    let says = "state=watching mode=async synchronous=false failovers=0";
    fs::write(&report, format!("at_ms={at} {says}\n")).expect("writes");
    let certificate = Authority::new("ours").certificate_for("a");
    pair.primary.turn_tls_on(&certificate);
    let conninfo = pair.conninfo().replace("sslmode=disable", "sslmode=prefer");
    let probe = Probe::of(conninfo)
        .with("nodes", "a,b")
        .with("guard-report", report.to_str().expect("a plain path"))
        .start();
    probe.tells("ok");
    let mut exported = BTreeSet::new();
    let mut take_in = || {
        for line in probe.get("/metrics").body.lines() {
            if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap_or_default();
                exported.insert(name.to_owned());
            }
        }
    };
    take_in();
    eventually(TOLD_WITHIN, "the slot is told", || {
        probe
            .metrics()
            .keys()
            .any(|name| name.contains("slot=\"pgpair_b\""))
            .then_some(())
    });
    eventually(
        Duration::from_secs(15),
        "a login shows the certificate",
        || {
            let metrics = probe.metrics();
            let mut names = metrics.keys();
            names
                .any(|name| name.starts_with("pgpair_certificate_"))
                .then_some(())
        },
    );
    take_in();
    pair.standby.kill();
    probe.tells("degraded");
    eventually(SERVER, "an observation has failed", || {
        let failed = "pgpair_observation_failures_total{node=\"b\"";
        let metrics = probe.metrics();
        let mut names = metrics.keys();
        names.any(|name| name.starts_with(failed)).then_some(())
    });
    take_in();

    let mut used = BTreeSet::new();
    let rules = fs::read_to_string(prometheus_files().join("pgpair.rules.yml")).expect("rules");
    for (_, rest) in rules
        .match_indices("expr:")
        .map(|(at, _)| rules.split_at(at))
    {
        let end = rest.find("labels:").expect("every rule has labels");
        used.extend(metrics_in(&rest[..end]));
    }
    let dashboard = prometheus_files().join("../grafana/pgpair.json");
    let dashboard = fs::read_to_string(dashboard).expect("a dashboard");
    expressions(&serde_json::from_str(&dashboard).expect("JSON"), &mut used);
    assert!(used.len() > 15, "{used:?}");
    let unknown: Vec<_> = used.difference(&exported).collect();
    assert!(unknown.is_empty(), "nobody exports {unknown:?}");

    // The README: what is named as another exporter names it.
    let (_, section) = README
        .split_once("Metrics are named like")
        .expect("the statement");
    let (section, _) = section.split_once(", else").expect("its end");
    let borrowed: BTreeSet<String> = metrics_in(section).collect();
    let found = exported
        .iter()
        .filter(|name| name.starts_with("pg_"))
        .cloned();
    assert_eq!(found.collect::<BTreeSet<_>>(), borrowed);

    let families = exported.iter().map(|name| {
        let ends = ["_bucket", "_sum", "_count"].into_iter();
        let stem = ends.filter_map(|end| name.strip_suffix(end)).next();
        stem.unwrap_or(name)
    });
    // Nothing blocks this guard.
    let expected = FAMILIES.iter().map(|family| family.name);
    let expected = expected.filter(|name| *name != "pgpair_guard_blocked");
    assert_eq!(
        families.collect::<BTreeSet<_>>(),
        expected.collect::<BTreeSet<_>>()
    );
}

/// Words that can be nothing but a metric's name.
fn metrics_in(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| {
            ["pg_", "pgpair_", "process_"]
                .iter()
                .any(|start| word.starts_with(start))
        })
        .map(str::to_owned)
}

/// Collects what every `expr` of a dashboard names.
fn expressions(value: &Value, used: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "expr" => used.extend(metrics_in(text)),
                    _ => expressions(value, used),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, used)),
        _ => {}
    }
}

// A browser.

#[test]
fn page_shows_the_pair_in_every_state_and_when_nobody_answers() {
    packages::require();
    let pair = Pair::start();
    let probe = pair.probe_when_well();
    let browser = Browser::start();
    let origin = format!("http://{}/", probe.address);
    browser.open(&format!("{origin}ui"));
    let shown = |title: &str, within: Duration| {
        let took = browser.comes_to_be_titled(title, within);
        println!("{title}: after {took:?}");
    };
    let says = |words: &[&str]| {
        let said = browser.script("return document.getElementById('say').textContent");
        let text = browser.script("return document.body.innerText");
        let (said, text) = (said.as_str().unwrap(), text.as_str().unwrap());
        for word in words {
            let found = said.contains(word) || text.contains(word);
            assert!(found, "{word:?} is neither in {said:?} nor in {text:?}");
        }
    };

    shown("✓ All well · pgpair", TOLD_WITHIN);
    says(&[
        "All well.",
        "a takes writes",
        "b streams from it",
        "1 standby",
        "0 B behind",
    ]);
    thread::sleep(Duration::from_secs(3));
    browser.screenshot("well");
    let resources =
        browser.script("return performance.getEntriesByType('resource').map(entry => entry.name)");
    for resource in resources.as_array().expect("a list") {
        let url = resource.as_str().expect("a URL");
        assert!(
            url.starts_with(&origin) || url.starts_with("data:"),
            "{url}"
        );
    }
    assert_eq!(browser.console(), [""; 0], "nothing to complain of");
    on_a_phone_in_the_dark(&browser);
    assert_eq!(browser.console(), [""; 0], "nothing to complain of");

    pair.standby.kill();
    shown("! Degraded · pgpair", MISSED_WITHIN);
    says(&["Degraded.", "no standby is streaming"]);
    browser.screenshot("standby-down");

    pair.standby.start_again();
    pair.streams();
    shown("✓ All well · pgpair", TOLD_WITHIN);
    pair.standby.sql("SELECT pg_wal_replay_pause()");
    pair.primary.write_wal(5_000_000);
    eventually(TOLD_WITHIN, "the lag is shown", || {
        let text = browser.script("return document.body.innerText");
        let text = text.as_str()?;
        (text.contains("4.8 MB behind") && text.contains("replay is paused")).then_some(())
    });
    thread::sleep(Duration::from_secs(2));
    browser.screenshot("lagging");
    pair.standby.sql("SELECT pg_wal_replay_resume()");

    pair.primary.kill();
    // Its address is silent: for all that is known it takes writes.
    shown("? Unknown · pgpair", MISSED_WITHIN);
    says(&["Unknown.", "it lacks an answer", "Not ready"]);
    browser.screenshot("unknown");

    pair.standby.promote();
    shown("! Degraded · pgpair", TOLD_WITHIN);
    pair.primary.start_again();
    shown("✕ Split brain · pgpair", TOLD_WITHIN);
    says(&["Split brain.", "a and b both take writes", "Stop the one"]);
    browser.screenshot("split-brain");

    let before = browser.console();
    assert_eq!(before, [""; 0], "nothing to complain of");
    drop(probe);
    // It says so when it has waited for 2.5 s.
    let took = browser.comes_to_be_titled("? No answer · pgpair", Duration::from_secs(6));
    println!("no answer: after {took:?}");
    says(&["No answer from pgpair", "what you see is that old"]);
    thread::sleep(ms(500));
    browser.screenshot("probe-gone");
}

fn on_a_phone_in_the_dark(browser: &Browser) {
    let phone = json!({ "width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": true });
    browser.command("Emulation.setDeviceMetricsOverride", phone);
    let dark = json!({ "features": [{ "name": "prefers-color-scheme", "value": "dark" }] });
    browser.command("Emulation.setEmulatedMedia", dark);
    thread::sleep(Duration::from_secs(1));
    let fits = "return document.documentElement.scrollWidth <= innerWidth";
    assert_eq!(browser.script(fits), true, "nothing sticks out");
    browser.screenshot("phone-dark");
    browser.command("Emulation.clearDeviceMetricsOverride", json!({}));
    browser.command("Emulation.setEmulatedMedia", json!({ "features": [] }));
}
