//! The role `postgres_proxy` on a real pair: one address for who writes and one
//! for who reads, whoever is the primary, and nothing of it once it is not wanted.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use pgpair::pg::tls::{Connector, Options, Roots, SslMode};
use postgres::Client;
use postgres::config::SslMode as Encryption;
use serde_json::Value;

use crate::support::command::{Writer, on_this_machine, other, told};
use crate::support::deployment::{Deployment, free_port};
use crate::support::docker::{docker, docker_with, try_docker};
use crate::support::eventually;

/// In which a connection leads where it is to: half a second between two
/// questions, the probe's deadline, and what a switchover may yet be at.
const LED_WITHIN: Duration = Duration::from_secs(10);

/// In which a session with a server that says nothing is cut: half a second
/// until the next question, and the probe's deadline.
const CUT_WITHIN: Duration = Duration::from_secs(3);

/// How often the primary may have to be killed until its last commits had all
/// been sent: else a failover refuses.
const FAILOVERS_AT_MOST: usize = 5;

const MEBIBYTE: u64 = 1024 * 1024;

/// A pair, and the ports of its proxy.
struct Led {
    pair: Deployment,
    writes: u16,
    reads: u16,
}

impl Led {
    fn new(name: &str) -> Led {
        Led {
            pair: Deployment::new(name),
            writes: free_port(),
            reads: free_port(),
        }
    }

    /// Returns the variables that ask for the proxy, as words of a command line.
    fn wanted(&self) -> [String; 6] {
        let enabled = "postgres_proxy_enabled=true".to_owned();
        let writes = format!("postgres_proxy_write_port={}", self.writes);
        let reads = format!("postgres_proxy_read_port={}", self.reads);
        [enabled, writes, reads]
            .map(|it| ["-e".to_owned(), it])
            .concat()
            .try_into()
            .expect("six")
    }

    /// Runs site.yml with the proxy, and these further words.
    fn site(&self, further: &[&str]) -> crate::support::play::Play {
        let wanted = self.wanted();
        let words: Vec<&str> = wanted.iter().map(String::as_str).collect();
        self.pair.site(&[&words, further].concat())
    }

    /// Connects as the application does, from this host, with `verify-full`.
    fn connect(&self, port: u16) -> Result<Client, postgres::Error> {
        connect(&self.pair.root, port)
    }

    /// Returns the letter of the node that an address leads to.
    fn node_at(&self, port: u16) -> Result<String, postgres::Error> {
        let row = self.connect(port)?.query_one("SHOW cluster_name", &[])?;
        let name: String = row.get(0);
        Ok(name.replace(&format!("{}-", self.pair.prefix), ""))
    }

    /// Waits until an address leads to a node.
    fn leads(&self, port: u16, to: &str) {
        eventually(
            on_this_machine(LED_WITHIN),
            &format!("it leads to {to}"),
            || (self.node_at(port).ok()? == to).then_some(()),
        );
    }

    /// Starts a writer who knows nothing but the address for writes.
    fn writer(&self) -> Writer {
        let (root, port) = (self.pair.root.clone(), self.writes);
        Writer::over(Arc::new(move |_| connect(&root, port)), "whoever")
    }
}

impl Drop for Led {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- last logs of proxy\n{}", self.pair.logs("proxy"));
        }
    }
}

fn connect(root: &Path, port: u16) -> Result<Client, postgres::Error> {
    let tls = Connector::new(&Options {
        mode: SslMode::VerifyFull,
        roots: Some(Roots::File(root.join("tls/ca.crt"))),
        ..Options::default()
    });
    let tls = tls.expect("the authority's certificate");
    let password = fs::read_to_string(root.join("secrets/app")).expect("readable");
    postgres::Config::new()
        .host("localhost")
        .port(port)
        .user("app")
        .password(password.trim())
        .dbname("app")
        .ssl_mode(Encryption::Require)
        .connect_timeout(Duration::from_secs(5))
        .connect(tls)
}

/// One pair through all of it, as bringing one up takes the longest.
#[test]
fn one_address_leads_to_the_primary_and_one_to_the_standby_whoever_that_is() {
    let led = Led::new("led");
    let play = led.site(&[]);
    assert!(play.changed() > 0);
    let words = format!("writes: localhost:{}", led.writes);
    assert!(play.stdout.contains(&words), "{}", play.stdout);
    led.leads(led.writes, "a");
    led.leads(led.reads, "b");
    it_holds_no_more_than_it_needs(&led);
    its_own_name_verifies_and_plain_text_is_refused(&led);
    sessions_outlive_the_probe(&led);
    readers_are_led_to_the_primary_while_no_standby_will_do(&led);
    nobody_writes_to_the_standby_while_the_proxy_starts(&led);
    session_with_a_frozen_primary_is_cut(&led);
    switchover_is_all_that_a_writer_notices(&led);
    let primary = dead_primary_is_replaced_under_a_writer(&led, "b");
    nobody_who_left_is_held(&led);
    led.leads(led.reads, other(primary));
    led.site(&[]).changed_nothing();
    it_goes_when_it_is_not_wanted(&led);
    teardown_takes_it_away(&led);
}

fn it_holds_no_more_than_it_needs(led: &Led) {
    let about = led.pair.inspect("proxy");
    let host = &about["HostConfig"];
    assert_eq!(about["Config"]["User"], "65532:65532");
    assert_eq!(host["ReadonlyRootfs"], true);
    assert_eq!(host["CapDrop"], Value::from(["ALL"].as_slice()));
    assert_eq!(host["CapAdd"], Value::Null);
    assert_eq!(host["Privileged"], false);
    assert!(
        host["SecurityOpt"]
            .to_string()
            .contains("no-new-privileges")
    );
    assert_eq!(host["Memory"], 64 * MEBIBYTE);
    assert_eq!(host["PidsLimit"], 32);
    assert_eq!(host["RestartPolicy"]["Name"], "unless-stopped");
    let ports = host["PortBindings"].as_object().expect("an object");
    assert_eq!(ports.len(), 2, "{ports:?}");
    for bindings in ports.values() {
        assert_eq!(bindings[0]["HostIp"], "127.0.0.1", "{ports:?}");
    }
    let seen = about.to_string() + &led.pair.logs("proxy");
    let told = led
        .pair
        .secrets()
        .iter()
        .any(|secret| seen.contains(secret));
    assert!(!told, "docker tells a password");
}

/// By libpq, from a container beside it: by its own name with `verify-full`,
/// and never without TLS.
fn its_own_name_verifies_and_plain_text_is_refused(led: &Led) {
    let (name, from) = (led.pair.container("proxy"), led.pair.container("b"));
    let script = "read -r PGPASSWORD; export PGPASSWORD; psql -Atc 'SHOW cluster_name' \"$1\"";
    let password = fs::read(led.pair.root.join("secrets/app")).expect("readable");
    let asks = |port: u16, mode: &str| {
        let conninfo = format!(
            "host={name} port={port} user=app dbname=app sslmode={mode} sslrootcert=/etc/postgresql/ca.crt"
        );
        [
            "exec",
            "--interactive",
            &from,
            "sh",
            "-ec",
            script,
            "sh",
            &conninfo,
        ]
        .map(str::to_owned)
    };
    for (port, node) in [(5432, "a"), (5433, "b")] {
        let words = asks(port, "verify-full");
        let words = words.each_ref().map(String::as_str);
        assert_eq!(docker_with(&words, &password), led.pair.container(node));
        let words = asks(port, "disable");
        let refused = try_docker(&words.each_ref().map(String::as_str), &password);
        assert!(refused.stderr.contains("no encryption"), "{refused:?}");
    }
}

/// A probe that says nothing is no reason to cut anybody.
fn sessions_outlive_the_probe(led: &Led) {
    let mut held = led.connect(led.writes).expect("it leads to a");
    led.pair.each("stop", &["probe"]);
    eventually(LED_WITHIN, "nobody new is let in", || {
        led.connect(led.writes).err()
    });
    held.simple_query("SELECT 1")
        .expect("the session is still there");
    led.pair.each("start", &["probe"]);
    led.leads(led.writes, "a");
    held.simple_query("SELECT 1")
        .expect("the session is still there");
}

fn readers_are_led_to_the_primary_while_no_standby_will_do(led: &Led) {
    led.leads(led.reads, "b");
    led.pair.each("stop", &["b"]);
    led.leads(led.reads, "a");
    led.pair.each("start", &["b"]);
    led.leads(led.reads, "b");
}

/// HAProxy takes a server to be up until it has asked.
fn nobody_writes_to_the_standby_while_the_proxy_starts(led: &Led) {
    for _ in 0..4 {
        let enough = AtomicBool::new(false);
        thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let mut nodes = Vec::new();
                while !enough.load(Ordering::Relaxed) {
                    nodes.extend(led.node_at(led.writes));
                }
                nodes
            });
            docker(&["restart", "--time", "1", &led.pair.container("proxy")]);
            led.leads(led.writes, "a");
            enough.store(true, Ordering::Relaxed);
            let nodes = asking.join().expect("it asks");
            assert!(nodes.iter().all(|node| node == "a"), "{nodes:?}");
        });
    }
}

fn session_with_a_frozen_primary_is_cut(led: &Led) {
    let mut held = led.connect(led.writes).expect("it leads to a");
    let (ended, end) = channel();
    led.pair.each("pause", &["a"]);
    let frozen = Instant::now();
    thread::spawn(move || {
        let _ = ended.send(held.simple_query("SELECT 1").is_err());
    });
    let cut = end.recv_timeout(on_this_machine(CUT_WITHIN));
    let took = frozen.elapsed();
    led.pair.each("unpause", &["a"]);
    assert_eq!(cut, Ok(true), "it was not cut");
    println!("the session with a frozen primary was cut after {took:?}");
    led.leads(led.writes, "a");
    led.leads(led.reads, "b");
}

fn switchover_is_all_that_a_writer_notices(led: &Led) {
    let mut held = led.connect(led.writes).expect("it leads to a");
    let writer = led.writer();
    it_writes(led);
    let began = Instant::now();
    led.pair.does(&["switchover"]);
    led.leads(led.writes, "b");
    led.leads(led.reads, "a");
    it_writes(led);
    let until = Instant::now();
    assert!(
        held.simple_query("SELECT 1").is_err(),
        "a session with the old primary"
    );
    let written = writer.end("whoever");
    assert_eq!(written.lost, [0; 0], "of {}", written.acknowledged);
    println!(
        "switchover: {} commits acknowledged, write gap {:?}",
        written.acknowledged,
        written.gap_between(began, until)
    );
}

/// Waits until the writer writes, again perhaps.
fn it_writes(led: &Led) {
    let count = || {
        let rows = led
            .connect(led.writes)
            .ok()?
            .query_one("SELECT count(*) FROM acknowledged", &[]);
        Some(rows.ok()?.get::<_, i64>(0))
    };
    let before = eventually(LED_WITHIN, "its rows are counted", count);
    eventually(LED_WITHIN, "it writes", || {
        (count()? > before).then_some(())
    });
}

/// Returns who is the primary then.
fn dead_primary_is_replaced_under_a_writer(led: &Led, primary: &'static str) -> &'static str {
    led.pair.has_primary(primary);
    for _ in 0..FAILOVERS_AT_MOST {
        let writer = led.writer();
        it_writes(led);
        let began = Instant::now();
        led.pair.each("kill", &[primary]);
        let done = led.pair.runs(&["failover"]);
        // Asynchronous: the last commits may not have been sent.
        let refused = done.code() == 3;
        if refused {
            told(&done, 3, &["transactions", "--accept-loss"]);
            led.pair.each("start", &[primary]);
            led.pair.has_primary(primary);
        }
        let now = if refused { primary } else { other(primary) };
        led.leads(led.writes, now);
        it_writes(led);
        let until = Instant::now();
        let written = writer.end("whoever");
        assert_eq!(written.lost, [0; 0], "of {}", written.acknowledged);
        if !refused {
            assert_eq!(done.code(), 0, "{}", done.stderr);
            println!(
                "failover: {} commits acknowledged, write gap {:?}",
                written.acknowledged,
                written.gap_between(began, until)
            );
            led.pair.has_primary(now);
            return now;
        }
    }
    panic!("{FAILOVERS_AT_MOST} times the primary died before its last commit was sent");
}

/// By the kernel: a connection that its other end has closed and HAProxy has
/// not (state 08) would hold up PostgreSQL's stop.
fn nobody_who_left_is_held(led: &Led) {
    let pid = led.pair.inspect("proxy")["State"]["Pid"].clone();
    eventually(LED_WITHIN, "nobody who left is held", || {
        let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).expect("it runs");
        let mut states = table
            .lines()
            .filter_map(|line| line.split_whitespace().nth(3));
        (!states.any(|state| state == "08")).then_some(())
    });
}

/// By the role's tag alone, which is quicker and leaves the rest as it is.
fn it_goes_when_it_is_not_wanted(led: &Led) {
    let only = ["--tags", "postgres_proxy"];
    assert!(led.pair.site(&only).changed() > 0);
    assert!(!led.pair.containers().contains(&led.pair.container("proxy")));
    assert!(!led.pair.root.join("proxy").exists());
    led.pair.site(&only).changed_nothing();
    assert!(led.site(&[&only[..], &["--check"]].concat()).changed() > 0);
    assert!(!led.pair.root.join("proxy").exists());
    assert!(led.site(&only).changed() > 0);
}

fn teardown_takes_it_away(led: &Led) {
    led.pair.teardown(&["-e", "confirm=yes"]).changed();
    assert_eq!(led.pair.containers(), [""; 0]);
    assert_eq!(led.pair.networks(), [""; 0]);
    assert!(!led.pair.root.exists());
}

#[test]
fn taken_port_of_the_proxy_is_refused_by_its_holders_name_before_anything_is_made() {
    let led = Led::new("ports");
    let _holder = TcpListener::bind(("127.0.0.1", led.reads)).expect("it was free");
    let port = format!("Port {} on 127.0.0.1 cannot be had", led.reads);
    let pid = format!("(pid {}) has it", std::process::id());
    let play = led.site(&[]);
    play.refused(&[&port, &pid, "-e postgres_proxy_read_port="]);
    assert_eq!(led.pair.containers(), [""; 0]);
    assert!(!led.pair.root.exists());
}
