//! What every row of the fault matrix promises, checked: from before a fault
//! until after its end.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::fault::Fault;
use super::http::Answer;
use super::load::{self, Load};
use super::probe::{HealthWatch, RECOVERY};
use super::{Postgres, Probe, eventually, measured, ms};

/// Reason words; `ok` is 200, any other is 503.
pub type Words = &'static [&'static str];

/// What may be said about a server that is gone. Which one depends on how far
/// its going had come.
pub const GONE: Words = &["refused", "shutting_down", "unresolved"];

/// What may be said about a server that does not answer.
pub const SILENT: Words = &["timed_out", "overdue"];

/// An answer about a node that is known to be overdue comes at once.
pub const AT_ONCE: Duration = ms(5);

/// The connections that the probe may hold to a node: one to ask, one to commit,
/// and for a moment one to try whether a new login goes through.
pub const CONNECTIONS_AT_MOST: usize = 3;

/// In which a server has noticed that a connection is dead: keepalives after 5 s
/// of silence, then three at 2 s, and something for the machine.
const NOTICED_WITHIN: Duration = Duration::from_secs(15);

/// In which all is well before the fault; that is nobody's promise.
const STARTED_WITHIN: Duration = Duration::from_secs(20);

/// In which the descriptors of clients that left are given back. Nothing depends
/// on it, so the machine may take its time.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(10);

/// A connection to a server: its socket, and three of the driver's runtime.
const DESCRIPTORS_A_SERVER: usize = 4;

/// Time between two looks at what the probe holds.
const LOOK_EVERY: Duration = ms(100);

/// The paths that every row is about, beside `/health`.
const PATHS: [&str; 3] = ["/ready", "/primary", "/replica"];

/// What may be answered on each of [`PATHS`].
#[derive(Clone, Copy, Debug)]
pub struct Says(pub [Words; 3]);

impl Says {
    /// Words for a primary that has no standby, whatever happens to it.
    pub const fn alone(words: Words) -> Says {
        Says([words, words, &["not_streaming"]])
    }
}

/// What is said of a primary that has no standby.
pub const ALONE: Says = Says::alone(&["ok"]);

/// What is said of a primary whose standby streams.
pub const BOTH: Says = Says([&["ok"]; 3]);

/// A probe under observation. When it is dropped, `/health` must have been 200
/// in time throughout, never too many connections held, and nothing left.
pub struct Trial<'a> {
    probe: &'a Probe,
    nodes: Vec<&'a Postgres>,
    well: Says,
    health: Option<HealthWatch>,
    holdings: Holdings,
    before: Holding,
    /// The connections that each node held before, by psql.
    held: Vec<usize>,
    /// What was measured, for the figures.
    figures: Vec<String>,
}

impl<'a> Trial<'a> {
    /// Begins to watch a probe of these nodes once it says `well` of them.
    pub fn of(probe: &'a Probe, nodes: &[&'a Postgres], well: Says) -> Trial<'a> {
        let mut trial = Trial::of_ill(probe, nodes, well);
        trial.comes_to(well, STARTED_WITHIN, "well to begin with");
        trial.before = trial.without_clients();
        trial.held = trial.held_connections();
        trial
    }

    /// As [`Trial::of`], for a fault that was there before the probe.
    pub fn of_ill(probe: &'a Probe, nodes: &[&'a Postgres], well: Says) -> Trial<'a> {
        let mut trial = Trial {
            probe,
            nodes: nodes.to_vec(),
            well,
            health: None,
            holdings: Holdings::start(probe.pid(), probe.address.port()),
            before: Holding::default(),
            held: vec![1; nodes.len()],
            figures: Vec::new(),
        };
        trial.before = trial.without_clients();
        // It will have a connection to each.
        trial.before.descriptors += nodes.len() * DESCRIPTORS_A_SERVER;
        trial.health = Some(probe.watch_health());
        trial
    }

    /// Returns what the probe holds when it has started, and nobody asks but the
    /// one who watches `/health`.
    fn without_clients(&self) -> Holding {
        let (pid, port) = (self.holdings.pid, self.holdings.port);
        let watchers = usize::from(self.health.is_some());
        eventually(GIVEN_BACK_WITHIN, "the clients are gone", || {
            let held = Holding::of(pid, port);
            (held.clients <= watchers && held.is_complete()).then_some(held)
        })
    }

    fn held_connections(&self) -> Vec<usize> {
        let nodes = self.nodes.iter();
        nodes.map(|node| node.held_connections()).collect()
    }

    /// Gives the nodes that are there from now on.
    pub fn nodes_are_now(&mut self, nodes: &[&'a Postgres]) {
        self.nodes = nodes.to_vec();
        self.held = vec![1; nodes.len()];
    }

    /// Gives what is said from now on when all is well.
    pub fn well_is_now(&mut self, well: Says) {
        self.well = well;
    }

    /// The very next answers on every path must be such.
    pub fn flips(&mut self, fault: &Fault<'_>, to: Says) {
        let answers = self.says(to);
        let slowest = answers.iter().map(|answer| answer.took).max();
        self.figure("flipped", fault.since.elapsed());
        self.figure("slowest", slowest.unwrap_or_default());
    }

    /// Waits for such answers; others than these and the former ones fail.
    pub fn flips_within(&mut self, within: Duration, fault: &Fault<'_>, to: Says) {
        let former = self.well;
        let mut last = String::new();
        while fault.since.elapsed() < within {
            let answers = self.look();
            let Some(why) = unlike(&answers, to) else {
                return self.figure("flipped", fault.since.elapsed());
            };
            for (at, answer) in answers.iter().enumerate() {
                let word = answer.reason();
                let either =
                    former.0[at].contains(&word.as_str()) || to.0[at].contains(&word.as_str());
                assert!(either, "{}: {answer:?}", PATHS[at]);
            }
            last = why;
            thread::sleep(ms(10));
        }
        panic!("not within {within:?}: {last}");
    }

    /// Asks once on every path: the answers must be such.
    pub fn says(&self, what: Says) -> [Answer; 3] {
        let answers = self.look();
        if let Some(why) = unlike(&answers, what) {
            panic!("{why}");
        }
        answers
    }

    /// Asks over and over: every answer must be such.
    pub fn holds(&self, what: Says, lasting: Duration) {
        let until = Instant::now() + lasting;
        while Instant::now() < until {
            self.says(what);
            thread::sleep(ms(20));
        }
    }

    /// Waits until the silence is known; from then on a thousand requests a
    /// second must be answered at once.
    pub fn is_overdue_at_once(&mut self) {
        self.is_told_at_once(&["overdue"]);
    }

    /// As [`Trial::is_overdue_at_once`], where another word tells more.
    pub fn is_told_at_once(&mut self, words: Words) {
        eventually(RECOVERY, &format!("{words:?} at once"), || {
            let answer = self.probe.ready();
            let told = words.contains(&answer.reason().as_str());
            (told && answer.took < self.probe.deadline / 2).then_some(())
        });
        let busy = || {
            let samples = Load::during(self.probe.address, "/ready", 1_000, 8, ms(500));
            for answer in load::answers(&samples) {
                assert_eq!(answer.status, 503, "{answer:?}");
                assert!(words.contains(&answer.reason().as_str()), "{answer:?}");
            }
            load::p99(&samples)
        };
        // The machine may be busy with something else for seconds.
        let measure = || measured(busy, |p99| *p99 < AT_ONCE);
        let p99 = measured(measure, |p99| *p99 < AT_ONCE);
        assert!(p99 < AT_ONCE, "took {p99:?} at p99");
        self.figure("overdue_p99", p99);
    }

    /// By psql beside them, the servers hold no more of the probe's connections
    /// than they may.
    pub fn counts_connections(&mut self) {
        for held in self.held_connections() {
            assert!(held <= CONNECTIONS_AT_MOST, "{held} connections by psql");
            self.figures.push(format!("psql={held}"));
        }
    }

    /// Lifts the fault: all must be well again in the time of a recovery.
    pub fn recovers(&mut self, fault: Fault<'_>) {
        self.recovers_within(RECOVERY, fault);
    }

    /// Lifts the fault: all must be well again in this time.
    pub fn recovers_within(&mut self, within: Duration, fault: Fault<'_>) {
        let lifted = fault.lift();
        self.is_well_within(within, lifted);
    }

    /// All must be well again in this time since then.
    pub fn is_well_within(&mut self, within: Duration, since: Instant) {
        let left = within.saturating_sub(since.elapsed());
        self.comes_to(self.well, left, "well again");
        self.figure("recovered", since.elapsed());
    }

    /// Waits for such answers.
    pub fn comes_to(&self, what: Says, within: Duration, state: &str) {
        let began = Instant::now();
        loop {
            // A look takes its time; what counts is its begin.
            let looked_after = began.elapsed();
            let Some(why) = unlike(&self.look(), what) else {
                return;
            };
            assert!(
                looked_after < within,
                "not {state} within {within:?}: {why}"
            );
            thread::sleep(ms(10));
        }
    }

    /// Returns what the probe held, from then until now.
    pub fn held_since(&self, since: Instant) -> Vec<Holding> {
        self.holdings.since(since)
    }

    /// Notes a figure; all are printed at the end.
    pub fn figure(&mut self, name: &str, took: Duration) {
        let milliseconds = took.as_secs_f64() * 1e3;
        self.figures.push(format!("{name}={milliseconds:.1}ms"));
    }

    fn look(&self) -> [Answer; 3] {
        thread::scope(|scope| {
            let asked = PATHS.map(|path| scope.spawn(move || self.probe.get(path)));
            asked.map(|answer| {
                let answer = answer.join().expect("it is answered");
                self.probe.check_verdict(&answer);
                answer
            })
        })
    }

    /// Nothing is left: no thread, no descriptor.
    fn is_as_before(&self) {
        let before = &self.before;
        let limit = Instant::now() + GIVEN_BACK_WITHIN;
        loop {
            let now = Holding::of(self.holdings.pid, self.holdings.port);
            if now.threads == before.threads && now.descriptors <= before.descriptors {
                return;
            }
            assert!(Instant::now() < limit, "{now:?} is left of {before:?}");
            thread::sleep(ms(10));
        }
    }

    fn finish(&mut self) {
        drop(self.health.take());
        let most = self.holdings.stop();
        for (server, &held) in &most.servers {
            assert!(
                held <= CONNECTIONS_AT_MOST,
                "{held} connections at once to {server}"
            );
        }
        let what = format!("the servers hold {:?} connections again", self.held);
        eventually(NOTICED_WITHIN, &what, || {
            (self.held_connections() == self.held).then_some(())
        });
        self.is_as_before();
        println!(
            "figures of {}: {} connections={} threads={} descriptors={}",
            thread::current().name().unwrap_or("a test"),
            self.figures.join(" "),
            most.servers.values().max().unwrap_or(&0),
            most.threads.values().sum::<usize>(),
            most.descriptors,
        );
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.finish();
        }
    }
}

/// Says how answers are not such; `None` if they are.
fn unlike(answers: &[Answer; 3], what: Says) -> Option<String> {
    let mut paths = PATHS.iter().zip(answers).zip(what.0);
    let ((path, answer), words) =
        paths.find(|((_, answer), words)| !words.contains(&answer.reason().as_str()))?;
    Some(format!("{path} is none of {words:?}: {answer:?}"))
}

/// What the probe holds at one moment.
#[derive(Clone, Debug, Default)]
pub struct Holding {
    /// Its own threads, by name; those of HTTP connections are tiny_http's, and
    /// linger for 5 s.
    pub threads: BTreeMap<String, usize>,
    pub descriptors: usize,
    /// Connections of clients.
    pub clients: usize,
    /// Connections to servers, by their address.
    pub servers: BTreeMap<String, usize>,
}

impl Holding {
    fn of(pid: u32, port: u16) -> Holding {
        let mut holding = Holding::default();
        let own = read(format!("/proc/{pid}/comm"));
        for entry in list(format!("/proc/{pid}/task")) {
            let name = read(format!("/proc/{pid}/task/{entry}/comm"));
            if !name.is_empty() && (name != own || entry == pid.to_string()) {
                *holding.threads.entry(name).or_default() += 1;
            }
        }
        let mut sockets = sockets(pid);
        for number in list(format!("/proc/{pid}/fd")) {
            holding.descriptors += 1;
            let link = fs::read_link(format!("/proc/{pid}/fd/{number}"));
            let link = link.unwrap_or_default().to_string_lossy().into_owned();
            let inode = link.strip_prefix("socket:[").unwrap_or_default();
            // Each once, however many descriptors it has.
            match sockets.remove(inode.trim_end_matches(']')) {
                Some((local, _)) if local == port => holding.clients += 1,
                Some((_, remote)) => *holding.servers.entry(remote).or_default() += 1,
                None => {}
            }
        }
        holding
    }

    /// Every watcher has the thread that connects for it, and no more are left; those
    /// that there is one of, which name themselves late, are there too.
    fn is_complete(&self) -> bool {
        let named = |name: &str| {
            let found = self.threads.iter().filter(|(it, _)| it.starts_with(name));
            found.map(|(_, count)| count).sum::<usize>()
        };
        let watchers = named("watch-") + named("write-");
        watchers > 0
            && watchers == named("connect-")
            && named("watch-") == named("write-")
            && named("watch-") == named("login-")
            && ["ctrl-c", "sweep", "watchdog"]
                .iter()
                .all(|it| named(it) == 1)
    }

    fn raise(&mut self, other: &Holding) {
        self.descriptors = self.descriptors.max(other.descriptors);
        for (name, &count) in &other.threads {
            let most = self.threads.entry(name.clone()).or_default();
            *most = count.max(*most);
        }
        for (server, &count) in &other.servers {
            let most = self.servers.entry(server.clone()).or_default();
            *most = count.max(*most);
        }
    }
}

/// Returns the IPv4 sockets in a process's network that listen to nobody, by
/// inode: the local port and the other end.
fn sockets(pid: u32) -> BTreeMap<String, (u16, String)> {
    const LISTENS: &str = "0A";
    let table = read(format!("/proc/{pid}/net/tcp"));
    let parse = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [_, local, remote, state, ..] = columns[..] else {
            return None;
        };
        let port = u16::from_str_radix(local.split_once(':')?.1, 16).ok()?;
        let inode = (*columns.get(9)?).to_owned();
        (state != LISTENS).then_some((inode, (port, remote.to_owned())))
    };
    table.lines().skip(1).filter_map(parse).collect()
}

fn list(directory: String) -> Vec<String> {
    // What ends meanwhile holds nothing.
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

fn read(path: String) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim_end_matches('\n').to_owned()
}

/// Looks at what the probe holds, all the time.
struct Holdings {
    pid: u32,
    port: u16,
    enough: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<(Instant, Holding)>>>,
    looking: Option<JoinHandle<()>>,
}

impl Holdings {
    fn start(pid: u32, port: u16) -> Holdings {
        let enough = Arc::new(AtomicBool::new(false));
        let seen: Arc<Mutex<Vec<_>>> = Arc::default();
        let (stop, to) = (Arc::clone(&enough), Arc::clone(&seen));
        let looking = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let look = (Instant::now(), Holding::of(pid, port));
                to.lock().unwrap().push(look);
                thread::sleep(LOOK_EVERY);
            }
        });
        Holdings {
            pid,
            port,
            enough,
            seen,
            looking: Some(looking),
        }
    }

    fn since(&self, since: Instant) -> Vec<Holding> {
        let seen = self.seen.lock().unwrap();
        let later = seen.iter().filter(|(at, _)| *at >= since);
        later.map(|(_, holding)| holding.clone()).collect()
    }

    /// Stops looking; returns the most that was seen of everything.
    fn stop(&mut self) -> Holding {
        self.enough.store(true, Ordering::Relaxed);
        if let Some(looking) = self.looking.take() {
            looking.join().expect("it reads only");
        }
        let mut most = Holding::default();
        for (_, holding) in self.seen.lock().unwrap().iter() {
            most.raise(holding);
        }
        most
    }
}

impl Drop for Holdings {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Relaxed);
    }
}
