//! Crowds, in the container as the role runs it: with its memory, threads and
//! descriptors a well-behaved client is answered beside them, and everything
//! that they took is given back.

use std::collections::VecDeque;
use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::http::{Connection, request};
use crate::support::load::{self, Load};
use crate::support::probe::{is_release_binary, resident_bytes};
use crate::support::{Postgres, Probe, eventually, fake, ms, percentile};

/// What 99 of 100 answers to a well-behaved client take at most.
const P99_AT_MOST: Duration = ms(100);

/// The container's memory that the crowd may not fill, and what the probe has
/// given back in this time.
const RESIDENT_AT_MOST: u64 = 64 << 20;
const THREADS_AFTERWARDS: u64 = 20;
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(15);

/// Starts a probe of `primary` within the limits of the role's defaults.
fn probe_within_limits(primary: &Postgres) -> Probe {
    let probe = Probe::of(primary.conninfo_by_name())
        .docker_option(&format!("--memory={}", role_default("memory")))
        .docker_option(&format!("--memory-swap={}", role_default("memory")))
        .docker_option(&format!("--pids-limit={}", role_default("pids_limit")))
        .docker_option(&format!("--ulimit=nofile={}", role_default("nofile")))
        .start_in_container();
    probe.becomes_ready();
    let log = probe.log();
    assert!(!log.contains("limit resource"), "too little: {log}");
    probe
}

/// Reads a default of the role `pgpair_probe`.
fn role_default(name: &str) -> String {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/ansible/roles/pgpair_probe/defaults/main.yml"
    );
    let text = fs::read_to_string(file).expect("the role is there");
    let key = format!("pgpair_probe_{name}: ");
    let value = text.lines().find_map(|line| line.strip_prefix(&key));
    value.unwrap_or_else(|| panic!("{key:?}")).to_owned()
}

/// A client as a load balancer is one: asks a hundred times a second over one
/// connection, and on a new one where the server has closed it meanwhile.
struct Regular {
    enough: Arc<AtomicBool>,
    asking: JoinHandle<Vec<Duration>>,
}

impl Regular {
    fn start(address: SocketAddr) -> Regular {
        let enough = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&enough);
        let asking = thread::spawn(move || {
            let mut connection = Connection::open(address);
            let mut times = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                for path in ["/health", "/ready"] {
                    let asked = Instant::now();
                    ask_like_a_browser(&mut connection, address, path);
                    times.push(asked.elapsed());
                }
                thread::sleep(ms(10));
            }
            times
        });
        Regular { enough, asking }
    }

    /// Ends it; its answers were all 200, and came in time.
    fn was_unharmed(self) {
        self.enough.store(true, Ordering::Relaxed);
        let times = self.asking.join().expect("a regular client failed");
        assert!(times.len() >= 50, "only {} answers", times.len());
        let p99 = percentile(times.iter().copied(), 0.99);
        println!("p99 {p99:?} of {} answers", times.len());
        assert!(p99 < P99_AT_MOST, "p99 {p99:?} of {} answers", times.len());
    }
}

/// Asks; once more on a new connection if this one was closed before any answer.
fn ask_like_a_browser(connection: &mut Connection, address: SocketAddr, path: &str) {
    let answer = match connection.try_get(path) {
        Err(error) if error.kind() != ErrorKind::TimedOut && connection.is_untouched() => {
            *connection = Connection::open(address);
            connection.try_get(path)
        }
        answered => answered,
    };
    let answer = answer.unwrap_or_else(|error| panic!("no answer to {path}: {error}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    if answer.closes() {
        *connection = Connection::open(address);
    }
}

/// Looks at the probe's memory over and over.
struct Scales {
    enough: Arc<AtomicBool>,
    looking: JoinHandle<u64>,
}

impl Scales {
    fn start(pid: u32) -> Scales {
        let enough = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&enough);
        let looking = thread::spawn(move || {
            let mut most = 0;
            while !stop.load(Ordering::Relaxed) {
                most = most.max(resident_bytes(pid));
                thread::sleep(ms(20));
            }
            most
        });
        Scales { enough, looking }
    }

    /// Ends it; returns the most that was seen.
    fn stop(self) -> u64 {
        self.enough.store(true, Ordering::Relaxed);
        self.looking.join().expect("it only looks")
    }
}

/// Lets a crowd loose on a probe, beside a well-behaved client; checks what must
/// hold meanwhile and afterwards. The crowd stays until `crowd` returns.
fn beside_a_crowd<T>(crowd: impl FnOnce(&Probe) -> T) {
    allow_many_descriptors();
    let primary = Postgres::start();
    let probe = probe_within_limits(&primary);
    let pid = probe.pid();
    let regular = Regular::start(probe.address);
    thread::sleep(ms(500));
    let scales = Scales::start(pid);
    let crowd = crowd(&probe);
    let most = scales.stop();
    assert!(
        !is_release_binary() || most < RESIDENT_AT_MOST,
        "{most} bytes resident"
    );
    println!("at most {most} bytes resident");
    drop(crowd);
    thread::sleep(ms(500));
    regular.was_unharmed();
    eventually(GIVEN_BACK_WITHIN, "threads are given back", || {
        (probe.threads() < THREADS_AFTERWARDS).then_some(())
    });
    assert_eq!(probe.pid(), pid, "it was started anew");
}

/// Lets this process hold a crowd.
fn allow_many_descriptors() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let all = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, all).expect("up to the hard limit it may be raised");
}

/// Holds the crowd's connections for so long.
fn hold_for<T>(connections: T, time: Duration) -> T {
    thread::sleep(time);
    connections
}

fn open(probe: &Probe, count: usize) -> Vec<Connection> {
    (0..count).map(|_| probe.connect()).collect()
}

#[test]
fn two_thousand_silent_connections_harm_nobody() {
    beside_a_crowd(|probe| hold_for(open(probe, 2_000), Duration::from_secs(3)));
}

#[test]
fn two_thousand_idle_connections_that_have_asked_once_harm_nobody() {
    beside_a_crowd(|probe| {
        let mut crowd = open(probe, 2_000);
        for client in &mut crowd {
            // Those that were one too many are closed already.
            let _ = client.try_get("/health");
        }
        hold_for(crowd, Duration::from_secs(3))
    });
}

#[test]
fn thousand_busy_clients_harm_nobody() {
    beside_a_crowd(|probe| {
        let load = Load::start(probe.address, "/ready", 2_000, 1_000);
        thread::sleep(Duration::from_secs(5));
        let samples = load.finish();
        let answered = samples.iter().filter(|it| it.answer.is_ok()).count();
        assert!(answered > 2_000, "the load was no load: {answered}");
        let refused = load::answers_that_came(&samples).find(|it| it.status != 200);
        assert!(refused.is_none(), "{refused:?}");
    });
}

#[test]
fn five_hundred_that_drip_a_byte_a_second_harm_nobody() {
    beside_a_crowd(|probe| {
        let mut crowd = open(probe, 500);
        let head = request("GET", "/health");
        for byte in head.as_bytes().chunks(1).take(15) {
            crowd.retain_mut(|client| client.try_send(byte).is_ok());
            thread::sleep(ms(1_000));
        }
        assert!(crowd.is_empty(), "{} may drip on", crowd.len());
    });
}

#[test]
fn hundreds_of_announced_bodies_harm_nobody() {
    const BODIES: [&str; 8] = [
        "Content-Length: 2000",
        "Content-Length: 5000000000",
        "Content-Length: 200000000000000",
        "Content-Length: 18446744073709551615",
        "Content-Length: abc",
        "Content-Length: 2000\r\nExpect: 100-continue",
        "Transfer-Encoding: chunked",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
    ];
    beside_a_crowd(|probe| {
        let mut crowd = Vec::new();
        for headers in BODIES {
            for _ in 0..100 {
                let mut client = probe.connect();
                let head = format!("POST /ready HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\nabc");
                // It may have begun anew just now.
                let _ = client.try_send(head);
                crowd.push(client);
            }
        }
        hold_for(crowd, Duration::from_secs(3))
    });
}

#[test]
fn request_lines_of_64_mib_and_a_hundred_thousand_headers_harm_nobody() {
    beside_a_crowd(|probe| {
        let address = probe.address;
        let piece = vec![b'a'; 64 << 10];
        let header = "X-Nothing: nothing\r\n".repeat(1_000);
        let senders: Vec<_> = (0..8)
            .map(|index| {
                let piece = if index % 2 == 0 {
                    piece.clone()
                } else {
                    header.clone().into_bytes()
                };
                thread::spawn(move || {
                    let mut client = Connection::open(address);
                    client.send("GET /health HTTP/1.1\r\nX: ");
                    let pieces = (64 << 20) / piece.len();
                    (0..pieces).all(|_| client.try_send(&piece).is_ok())
                })
            })
            .collect();
        for sender in senders {
            assert!(
                !sender.join().expect("it only sends"),
                "all of it was taken"
            );
        }
    });
}

#[test]
fn thousand_connections_that_speak_nonsense_and_are_reset_harm_nobody() {
    const NONSENSE: [&[u8]; 5] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nNo colon\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ];
    beside_a_crowd(|probe| {
        for round in 0..1_000 {
            let mut client = probe.connect();
            client.send(NONSENSE[round % NONSENSE.len()]);
            if round % 2 == 0 {
                client.reset();
            }
        }
        thread::sleep(Duration::from_secs(2));
    });
}

/// Paths of every kind of answer: long ones, short ones, one that waits.
const PATHS: [&str; 5] = ["/status", "/metrics", "/ui", "/nope", "/ready"];

/// How long one connection goes on.
const A_WHILE: Duration = Duration::from_secs(3);

/// Pipelines requests until a while has passed or the probe has had enough.
fn pipeline(client: &mut Connection, path: &str) -> usize {
    let many = request("GET", path).repeat(100);
    let until = Instant::now() + A_WHILE;
    let taken = (0..1_000_000 / 100)
        .take_while(|_| Instant::now() < until && client.try_send(&many).is_ok());
    100 * taken.count()
}

#[test]
fn connection_that_pipelines_without_end_and_reads_harms_nobody() {
    beside_a_crowd(|probe| {
        for path in PATHS {
            let mut client = probe.connect();
            let mut answers = client.also();
            let reader = thread::spawn(move || {
                let mut scratch = [0; 64 * 1024];
                while answers.read(&mut scratch).is_ok_and(|count| count > 0) {}
            });
            let asked = pipeline(&mut client, path);
            assert!(asked >= 1_000, "only {asked} for {path}");
            client.finish_sending();
            let read = client.also();
            read.set_read_timeout(Some(ms(100))).expect("a socket");
            client.reset();
            drop(read);
            reader.join().expect("it only reads");
        }
    });
}

#[test]
fn connection_that_pipelines_without_end_and_reads_nothing_harms_nobody() {
    beside_a_crowd(|probe| {
        let clients = PATHS.map(|path| {
            let address = probe.address;
            thread::spawn(move || {
                let mut client = Connection::open_small(address);
                pipeline(&mut client, path);
                client
            })
        });
        let clients = clients.map(|it| it.join().expect("it only writes"));
        hold_for(clients, A_WHILE)
    });
}

/// Opens so many connections a second for so long, each of which asks many times and
/// reads nothing, and holds each for five seconds.
fn unread_stream(probe: &Probe, per_second: u32, count: u32, asked: &str) {
    let mut held = VecDeque::new();
    let began = Instant::now();
    for number in 0..count {
        let mut client = Connection::open_small(probe.address);
        // As much as goes.
        let _ = client.try_send(asked);
        held.push_back((Instant::now(), client));
        while held
            .front()
            .is_some_and(|(at, _)| at.elapsed() > Duration::from_secs(5))
        {
            held.pop_front();
        }
        let next = began + Duration::from_secs(1) * number / per_second;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

#[test]
fn sixty_connections_a_second_that_read_no_page_harm_nobody() {
    beside_a_crowd(|probe| unread_stream(probe, 60, 480, &request("GET", "/ui").repeat(25)));
}

#[test]
fn thirty_connections_a_second_that_read_no_verdict_harm_nobody() {
    beside_a_crowd(|probe| unread_stream(probe, 30, 240, &request("GET", "/ready").repeat(2_000)));
}

#[test]
fn five_hundred_at_once_that_read_nothing_harm_nobody() {
    beside_a_crowd(|probe| {
        let asked = PATHS.map(|path| request("GET", path)).concat().repeat(50);
        let clients: Vec<Connection> = (0..512)
            .map(|_| {
                let mut client = Connection::open_small(probe.address);
                let _ = client.try_send(&asked);
                client
            })
            .collect();
        hold_for(clients, Duration::from_secs(5))
    });
}

#[test]
fn two_thousand_that_wait_for_a_frozen_server_harm_nobody() {
    const CLIENTS: usize = 2_000;
    allow_many_descriptors();
    let primary = Postgres::start();
    let probe = Probe::of(primary.conninfo())
        .with("interval", "1h")
        .deadline(10_000)
        .start();
    probe.becomes_ready();
    let health = probe.watch_health();
    primary.pause();
    let mut clients: Vec<Connection> = (0..CLIENTS)
        .map(|_| {
            let mut client = probe.connect();
            client.send(request("GET", "/ready"));
            client
        })
        .collect();
    eventually(Duration::from_secs(5), "all wait", || {
        let metrics = probe.get("/metrics").body;
        let counted = "pgpair_http_requests_waiting ";
        let count = metrics.lines().find_map(|it| it.strip_prefix(counted))?;
        (count.parse() == Ok(CLIENTS)).then_some(())
    });
    assert!(!is_release_binary() || probe.resident_bytes() < RESIDENT_AT_MOST);
    // From now on most of them are idle, and more than may be.
    drop(health);
    primary.unpause();
    for client in &mut clients {
        assert_eq!(client.answer().status, 200);
    }
}

#[test]
fn those_who_read_late_stay_welcome() {
    // Together more than all may have the probe hold at once.
    const CLIENTS: usize = 1_200;
    allow_many_descriptors();
    let port = fake::nobody().port();
    let probe = Probe::of(format!("host=127.0.0.1 port={port} user=pgpair"))
        .with("max-connections", "2000")
        .with("request-timeout", "5m")
        .start();
    let pages = request("GET", "/ui").repeat(10);
    let mut clients: Vec<Connection> = (0..CLIENTS)
        .map(|_| {
            let mut client = Connection::open_small(probe.address);
            client.send(&pages);
            thread::sleep(ms(2));
            (0..10).for_each(|_| assert_eq!(client.answer().status, 200));
            client
        })
        .collect();
    for client in &mut clients {
        assert_eq!(client.get("/health").status, 200);
    }
}

#[test]
fn hundreds_that_read_a_byte_a_second_harm_nobody() {
    beside_a_crowd(|probe| {
        let asked = request("GET", "/metrics").repeat(10);
        let mut clients: Vec<TcpStream> = (0..300)
            .map(|_| {
                let mut client = Connection::open_small(probe.address);
                let _ = client.try_send(&asked);
                client.also()
            })
            .collect();
        eventually(Duration::from_secs(20), "they are sent away", || {
            for client in &mut clients {
                client.set_read_timeout(Some(ms(1))).expect("a socket");
                let _ = client.read(&mut [0]);
            }
            thread::sleep(ms(700));
            let metrics = probe.get("/metrics").body;
            let counted = "pgpair_http_connections_closed_total{reason=\"unread\"} ";
            let count = metrics.lines().find_map(|it| it.strip_prefix(counted))?;
            (count.parse() == Ok(300)).then_some(())
        });
    });
}
