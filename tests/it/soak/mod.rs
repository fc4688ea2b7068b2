//! The soak: a real pair, faults at random, steady requests, and an independent
//! observer against whom every answer is held. `make soak SECONDS=…` runs it for
//! as long as one likes; as a part of the tests it is short.

mod checker;
mod client;
mod faults;
mod observer;
mod plot;
mod random;
mod record;
mod tests;
mod truth;
mod verify;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use self::checker::{NODES, Stalls};
use self::client::{Canary, Clients};
use self::faults::{Journal, Mischief};
use self::observer::Observer;
use self::record::{COLUMNS, Record, Sample};
use self::verify::{KNOWN_AFTER, Tally, Verifier};
use crate::support::postgres::conninfo;
use crate::support::{Probe, ms};

/// How long faults come and go when nothing else is said.
const SECONDS: u64 = 40;

/// So many clients ask, each with its own connection …
const CLIENTS: u64 = 4;

/// … and each so long after its last answer.
const PAUSE: Duration = ms(40);

/// Of all answers, the share that has to fall where the observer is certain, so
/// that the opposite would have been called wrong. Faults leave it uncertain at
/// their begin and end, and pgpair has 2 s after each.
const CERTAIN_AT_LEAST: f64 = 0.25;

fn number(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{variable}={text}: not a number")),
        Err(_) => otherwise,
    }
}

fn seed_of_the_moment() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.expect("later than 1970").as_secs() % 100_000
}

#[test]
fn every_answer_agrees_with_an_independent_observer_while_faults_come_and_go() {
    let lasting = Duration::from_secs(number("PGPAIR_TEST_SOAK_SECONDS", SECONDS));
    let seed = number("PGPAIR_TEST_SOAK_SEED", seed_of_the_moment());
    println!("soak of {lasting:?}, PGPAIR_TEST_SOAK_SEED={seed}");
    let nodes = faults::start_pair();
    let recipe = Probe::of(conninfo(&[&nodes[0], &nodes[1]]));
    let probe = recipe.with("nodes", &NODES.join(",")).start();
    probe.becomes_ready();

    let began = Instant::now();
    let journal = Arc::new(Mutex::new(Journal::default()));
    let addresses: Vec<_> = nodes.iter().map(|node| node.address()).collect();
    let observer = Observer::start(began, &addresses);
    let stalls = Arc::new(Mutex::new(Stalls::default()));
    let canary = Canary::start(began, Arc::clone(&stalls));
    let clients = Clients::start(began, probe.address, CLIENTS, PAUSE, seed);
    let verifier = Verifier::new(
        began,
        Arc::clone(&observer.evidence),
        Arc::clone(&journal),
        stalls,
        Arc::clone(&clients.answers),
    );

    let mut mischief = Mischief::new(began, nodes, &observer, Arc::clone(&journal), seed);
    let (tally, record) = thread::scope(|scope| {
        let scribe = scope.spawn(|| scribe(&verifier, &probe, &observer, &clients));
        // The guard ends the scribe also when an episode fails.
        let ends = clients.ends_when_dropped();
        mischief.rest();
        while began.elapsed() < lasting {
            mischief.episode();
        }
        drop(ends);
        scribe.join().expect("the scribe only watches")
    });
    canary.finish();
    observer.finish();
    report(&tally, &record, &journal.lock().unwrap());
    tally.assert_right();
    record.is_flat().expect("what it uses is flat");
}

/// Measures once a second and holds the answers against the evidence, until the
/// clients end; then to the last answer.
fn scribe(
    verifier: &Verifier,
    probe: &Probe,
    observer: &Observer,
    clients: &Clients,
) -> (Tally, Record) {
    let mut tally = Tally::default();
    let mut record = Record::default();
    let began = Instant::now();
    let mut seconds = 0;
    while !clients.have_ended() {
        if began.elapsed() < Duration::from_secs(seconds) {
            thread::sleep(ms(20));
            continue;
        }
        seconds += 1;
        record.samples.push(Sample {
            at: verifier.now(),
            used: [
                probe.resident_bytes(),
                probe.threads(),
                probe.descriptors() as u64,
                observer.connections.lock().unwrap().iter().sum(),
            ],
            answers: tally.asked(),
        });
        if seconds % 5 == 0 {
            verifier.verify(&mut tally, KNOWN_AFTER);
        }
    }
    clients.join();
    thread::sleep(KNOWN_AFTER);
    verifier.verify(&mut tally, Duration::ZERO);
    (tally, record)
}

/// Prints what came of it, and writes the record down.
fn report(tally: &Tally, record: &Record, journal: &Journal) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("soak");
    record.write(&folder, &journal.bands);
    println!("{tally}");
    let mut kinds = BTreeMap::new();
    for band in &journal.bands {
        let kind = band.what.split(' ').next().unwrap_or_default();
        *kinds.entry(kind).or_insert(0) += 1;
    }
    println!("faults: {kinds:?}");
    for (column, name) in COLUMNS.iter().enumerate() {
        println!("{name}: {:?}", record.range(column, 0..4));
    }
    println!("see {}", folder.display());
}
