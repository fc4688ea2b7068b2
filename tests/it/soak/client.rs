//! Steady requests over every endpoint, and the canary that notices when the
//! machine lets nobody run.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::checker::{Asked, Heard, NODES, Stalls};
use super::random::Random;
use crate::support::http::{Answer, Connection};
use crate::support::ms;

/// What is asked; what stands here twice, twice as often.
const PATHS: [&str; 30] = [
    "/ready",
    "/ready",
    "/ready",
    "/readyz",
    "/ready?write",
    "/ready?write",
    "/primary",
    "/primary",
    "/",
    "/leader",
    "/replica",
    "/replica",
    "/replica?lag=100000",
    "/replica?lag=1000000&mode=apply",
    "/replica?lag=100000&mode=write",
    "/read-only",
    "/sync",
    "/async",
    "/nodes/a/ready",
    "/nodes/b/ready",
    "/nodes/a/primary",
    "/nodes/b/primary",
    "/nodes/a/replica",
    "/nodes/b/replica?lag=100000",
    "/nodes/a/read-only",
    "/health",
    "/status",
    "/status",
    "/metrics",
    "/ui",
];

/// What a load balancer asks, beside what is told without asking. For every second
/// [`SPELL`] nothing else is asked: no question is then a reason to look at
/// replication.
const ROLES: [&str; 9] = [
    "/ready",
    "/ready?write",
    "/primary",
    "/primary",
    "/nodes/b/ready",
    "/health",
    "/status",
    "/status",
    "/metrics",
];

/// In which all kinds of questions are asked, or those about roles alone.
const SPELL: Duration = Duration::from_secs(10);

/// A load balancer's client asks for the primary this often, all the time.
const BALANCER_PAUSE: Duration = ms(300);

/// A canary that oversleeps by more than this was not let run.
const OVERSLEPT: Duration = ms(15);

/// Asks until told to stop.
pub struct Clients {
    pub answers: Arc<Mutex<Vec<Asked>>>,
    enough: Arc<AtomicBool>,
    asking: Mutex<Vec<JoinHandle<()>>>,
}

/// Ends the clients.
pub struct Ending(Arc<AtomicBool>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Clients {
    /// Starts them, and a load balancer's; each pauses so long between an answer and
    /// its next request.
    pub fn start(
        began: Instant,
        address: SocketAddr,
        count: u64,
        pause: Duration,
        seed: u64,
    ) -> Clients {
        let answers = Arc::<Mutex<Vec<Asked>>>::default();
        let enough = Arc::<AtomicBool>::default();
        let ask = |client| {
            let (answers, enough) = (Arc::clone(&answers), Arc::clone(&enough));
            let mut random = Random::new(seed ^ (client + 1) << 32);
            let balances = client == count;
            thread::spawn(move || {
                let mut connection = Connection::open(address);
                while !enough.load(Ordering::Relaxed) {
                    let of_roles = (began.elapsed().as_secs() / SPELL.as_secs()) % 2 == 1;
                    let path = match (balances, of_roles) {
                        (true, _) => "/primary",
                        (false, true) => random.pick(&ROLES),
                        (false, false) => random.pick(&PATHS),
                    };
                    let asked = ask(&mut connection, path, &mut random, began);
                    answers.lock().unwrap().push(asked);
                    thread::sleep(if balances { BALANCER_PAUSE } else { pause });
                    if random.once_in(200) {
                        connection = Connection::open(address);
                    }
                }
            })
        };
        Clients {
            asking: Mutex::new((0..=count).map(ask).collect()),
            answers,
            enough,
        }
    }

    /// Returns what ends them when it is dropped.
    pub fn ends_when_dropped(&self) -> Ending {
        Ending(Arc::clone(&self.enough))
    }

    pub fn have_ended(&self) -> bool {
        self.enough.load(Ordering::Relaxed)
    }

    pub fn join(&self) {
        for client in self.asking.lock().unwrap().drain(..) {
            client.join().expect("every request is answered");
        }
    }
}

fn ask(connection: &mut Connection, path: &str, random: &mut Random, began: Instant) -> Asked {
    let method = if random.once_in(8) && !path.starts_with("/status") && path != "/metrics" {
        "HEAD"
    } else {
        "GET"
    };
    let sent = began.elapsed();
    let answer = connection.ask(method, path);
    Asked {
        path: path.to_owned(),
        sent,
        received: began.elapsed(),
        heard: heard(path, method, &answer),
    }
}

/// Keeps of an answer what is held against the truth.
fn heard(path: &str, method: &str, answer: &Answer) -> Heard {
    let body = match path {
        "/metrics" => samples(&answer.body),
        "/ui" => Value::Null,
        _ if method == "HEAD" => Value::Null,
        "/status" => {
            let said = answer.json();
            let facts = |node: usize| {
                let node = &said["nodes"][node];
                json!({
                    "role": node["role"],
                    "streams": node["replication_state"].as_str().map(|it| it == "streaming"),
                    "lag": node["lag_bytes"],
                })
            };
            json!({ "verdict": said["verdict"], "nodes": [facts(0), facts(1)] })
        }
        _ => answer.json(),
    };
    Heard {
        status: answer.status,
        body,
    }
}

/// The metrics that say what is so.
fn samples(text: &str) -> Value {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim().parse::<f64>().ok())
    };
    let verdicts = text.lines().filter_map(|line| {
        let rest = line.strip_prefix("pgpair_pair_verdict{verdict=\"")?;
        rest.strip_suffix("\"} 1")
    });
    let facts = |node: &str| {
        let receiver = value(&format!("pgpair_wal_receiver_up{{node=\"{node}\"}} "));
        let lag = format!("pgpair_replication_lag_bytes{{node=\"{node}\",mode=\"apply\"}} ");
        json!({
            "up": value(&format!("pg_up{{node=\"{node}\"}} ")),
            "streams": receiver.map(|up| up == 1.0),
            "lag": value(&lag),
        })
    };
    let nodes = NODES.map(facts);
    json!({ "verdict": verdicts.collect::<String>(), "nodes": nodes })
}

/// Sleeps, and notes when it was woken late.
pub struct Canary {
    enough: Arc<AtomicBool>,
    singing: JoinHandle<()>,
}

impl Canary {
    pub fn start(began: Instant, stalls: Arc<Mutex<Stalls>>) -> Canary {
        let enough = Arc::<AtomicBool>::default();
        let stop = Arc::clone(&enough);
        let singing = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let from = began.elapsed();
                thread::sleep(ms(5));
                let due = from + ms(5);
                let now = began.elapsed();
                if now > due + OVERSLEPT {
                    stalls.lock().unwrap().0.push((due, now));
                }
            }
        });
        Canary { enough, singing }
    }

    pub fn finish(self) {
        self.enough.store(true, Ordering::Relaxed);
        self.singing.join().expect("it only sleeps");
    }
}
