//! Faults at random: what to do to the pair, for how long, and two at once
//! every now and then. Between two episodes the pair is left alone until it is
//! well and [`CALM`] has passed: longer than pgpair may need to say so.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::checker::{Excuse, Excused, NODES};
use super::observer::Observer;
use super::random::Random;
use super::record::Band;
use super::truth::{At, Claim, Evidence, Way};
use crate::support::docker::{docker, this_run, try_docker};
use crate::support::fault::Fault;
use crate::support::postgres::Role;
use crate::support::replication::SERVER;
use crate::support::{Postgres, eventually, ms};

/// From the moment when the pair is well until the next fault, in
/// milliseconds: the 2 s for which pgpair may still say no, and time in which it
/// may not.
const CALM: (u64, u64) = (2_800, 4_500);

/// How long a fault lasts, in milliseconds: longer than a failed look of the
/// observer's takes, and around the deadline and the interval.
const SHORT: (u64, u64) = (1_000, 5_000);

/// The same for some of those that freeze: longer than a watcher may be stuck.
const LONG: (u64, u64) = (11_000, 14_000);

/// By the fault matrix, a node is back within this of its backend's freezing.
const BACKEND_FROZEN_AT_MOST: Duration = Duration::from_secs(15);

/// And of the end of any fault within this.
const RECOVERY: Duration = Duration::from_secs(2);

/// In which the observer's own connections have got over a lost network: they
/// give up after 3 s, look again at a late answer, and begin anew.
const WITNESS_BACK_WITHIN: Duration = Duration::from_secs(5);

/// How either server is started: quick to reconnect, with all WAL since the
/// template's, so that a new standby of it can catch up.
const SETTINGS: [&str; 2] = ["wal_retrieve_retry_interval=100ms", "wal_keep_size=1GB"];

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Kill,
    Stop,
    Restart,
    Pause,
    FreezePostmaster,
    FreezeBackend,
    BlackHole,
    Unplug,
    CatalogueLock,
    WriteStall,
    Synchronous,
    ReplayPaused,
    ReceiverDown,
    Switchover,
    Failover,
}

const KINDS: [Kind; 15] = [
    Kind::Kill,
    Kind::Stop,
    Kind::Restart,
    Kind::Pause,
    Kind::FreezePostmaster,
    Kind::FreezeBackend,
    Kind::BlackHole,
    Kind::Unplug,
    Kind::CatalogueLock,
    Kind::WriteStall,
    Kind::Synchronous,
    Kind::ReplayPaused,
    Kind::ReceiverDown,
    Kind::Switchover,
    Kind::Failover,
];

/// Those that can come on top of another.
const ON_TOP: [Kind; 7] = [
    Kind::Kill,
    Kind::Stop,
    Kind::Pause,
    Kind::FreezePostmaster,
    Kind::FreezeBackend,
    Kind::BlackHole,
    Kind::Unplug,
];

/// Says whether it is done to the primary by SQL.
fn by_sql(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::CatalogueLock
            | Kind::WriteStall
            | Kind::Synchronous
            | Kind::ReplayPaused
            | Kind::ReceiverDown
    )
}

/// One fault, as chance has it.
struct Plan {
    kind: Kind,
    node: usize,
    /// A server process there that works for pgpair.
    pid: Option<i32>,
    /// From the fault that it comes on top of.
    after: Duration,
    lasting: Duration,
}

/// What was done, and what it excuses.
#[derive(Default)]
pub struct Journal {
    pub bands: Vec<Band>,
    pub excuses: Vec<Excuse>,
}

/// The pair, and who does things to it.
pub struct Mischief<'a> {
    began: Instant,
    nodes: Vec<Postgres>,
    primary: usize,
    observer: &'a Observer,
    journal: Arc<Mutex<Journal>>,
    random: Random,
    bag: Vec<Kind>,
}

/// Starts both servers: either can follow the other.
pub fn start_pair() -> Vec<Postgres> {
    let run = this_run();
    let addresses = [run.new_address(), run.new_address()];
    let roles = [Role::Primary, Role::Standby];
    let nodes: Vec<Postgres> = (0..2)
        .map(|node| Postgres::peer(roles[node], addresses[node], addresses[1 - node], &SETTINGS))
        .collect();
    nodes.iter().for_each(Postgres::wait_until_up);
    nodes.iter().for_each(comes_first);
    eventually(SERVER, "the standby streams", || {
        let state = nodes[0].sql("SELECT state FROM pg_stat_replication");
        (state == "streaming").then_some(())
    });
    nodes
}

/// Has a server run before whatever else the machine is busy with.
fn comes_first(server: &Postgres) {
    docker(&["update", "--cpu-shares", "8192", server.name()]);
}

impl<'a> Mischief<'a> {
    pub fn new(
        began: Instant,
        nodes: Vec<Postgres>,
        observer: &'a Observer,
        journal: Arc<Mutex<Journal>>,
        seed: u64,
    ) -> Mischief<'a> {
        Mischief {
            began,
            nodes,
            primary: 0,
            observer,
            journal,
            random: Random::new(seed),
            bag: Vec::new(),
        }
    }

    /// Does one thing or two, and returns when the pair is well again and has
    /// been for a while.
    pub fn episode(&mut self) {
        let kind = self.draw();
        match kind {
            Kind::Switchover => self.switch_over(),
            Kind::Failover => self.fail_over(),
            _ => self.one_or_two(kind),
        }
        self.rest();
    }

    /// Waits until the observer has seen the pair well for a while.
    pub fn rest(&mut self) {
        let (primary, standby) = (self.primary, 1 - self.primary);
        // A new psql may take a while to start; those that are connected will do.
        for (node, way, claim) in [
            (primary, Way::Session, Claim::Writable),
            (primary, Way::Commit, Claim::Commits),
            (standby, Way::Session, Claim::Streams),
        ] {
            let what = |evidence: &[Evidence]| evidence[node].shows(way, claim);
            assert!(
                self.observer.sees(3 * SERVER, what),
                "the servers do not recover from what was done to them: {node} {way:?} {claim:?}"
            );
        }
        self.wait(CALM);
    }

    /// Every kind once, in any order, before any comes again.
    fn draw(&mut self) -> Kind {
        if self.bag.is_empty() {
            self.bag = KINDS.to_vec();
            self.random.shuffle(&mut self.bag);
        }
        self.bag.pop().expect("it was filled")
    }

    fn wait(&mut self, (low, high): (u64, u64)) {
        thread::sleep(ms(self.random.between(low, high)));
    }

    fn one_or_two(&mut self, kind: Kind) {
        let one = self.plan(kind);
        let with = self.random.once_in(3) && kind != Kind::Restart;
        let two = with.then(|| self.plan_on_top(&one));
        let first = self.begin(&one);
        let Some((two, crosses)) = two else {
            thread::sleep(one.lasting);
            first.lift();
            return;
        };
        thread::sleep(two.after);
        let second = self.begin(&two);
        thread::sleep(one.lasting);
        let [sooner, later] = if crosses {
            [first, second]
        } else {
            [second, first]
        };
        sooner.lift();
        thread::sleep(two.lasting);
        later.lift();
    }

    /// Chooses whom it hits, and for how long.
    fn plan(&mut self, kind: Kind) -> Plan {
        let node = match kind {
            Kind::ReplayPaused => 1 - self.primary,
            _ if by_sql(kind) => self.primary,
            _ => self.random.between(0, 2) as usize,
        };
        Plan {
            kind,
            node,
            pid: self.backend(node),
            after: Duration::ZERO,
            lasting: self.lasting(kind),
        }
    }

    /// Chooses what comes on top of another fault; it may cross its end. What
    /// is lifted by SQL can have the same node fail, but must be lifted last;
    /// of others each has a node of its own.
    fn plan_on_top(&mut self, one: &Plan) -> (Plan, bool) {
        let by_sql = by_sql(one.kind) && one.kind != Kind::CatalogueLock;
        let same = by_sql && self.random.once_in(2);
        let node = if same { one.node } else { 1 - one.node };
        let plan = Plan {
            kind: *self.random.pick(&ON_TOP),
            node,
            pid: self.backend(node),
            after: ms(self.random.between(300, 1_500)),
            lasting: ms(self.random.between(300, 1_500)),
        };
        // A lock goes over to the standby, which lets nobody in until it is gone.
        let crosses = one.kind == Kind::CatalogueLock || (!by_sql && self.random.once_in(2));
        (plan, crosses)
    }

    fn lasting(&mut self, kind: Kind) -> Duration {
        let freezes = matches!(
            kind,
            Kind::Pause | Kind::FreezeBackend | Kind::BlackHole | Kind::FreezePostmaster
        );
        let (low, high) = if freezes && self.random.once_in(4) {
            LONG
        } else {
            SHORT
        };
        ms(self.random.between(low, high))
    }

    /// One of the server processes that work for pgpair.
    fn backend(&mut self, node: usize) -> Option<i32> {
        let found = self.nodes[node].pgpair_backends();
        (!found.is_empty()).then(|| *self.random.pick(&found))
    }

    fn begin(&self, plan: &Plan) -> Fault<'_> {
        let Plan { kind, node, .. } = *plan;
        let server = &self.nodes[node];
        let primary = &self.nodes[self.primary];
        let noted = self.note(&format!("{kind:?} {}", NODES[node]));
        let excused = match kind {
            Kind::FreezeBackend => vec![
                self.excuse(node, Excused::Node),
                self.excuse(node, Excused::Commits),
            ],
            Kind::BlackHole | Kind::Unplug => vec![self.excuse(node, Excused::Witness)],
            _ => Vec::new(),
        };
        let fault = match kind {
            Kind::Kill => server.killed(),
            Kind::Stop => server.stopped(),
            Kind::Restart => {
                server.stop();
                server.start_again();
                Fault::new(|| {})
            }
            Kind::Pause => paused(server),
            Kind::FreezePostmaster => server.postmaster_frozen(),
            Kind::FreezeBackend => match plan.pid {
                Some(pid) => server.backend_frozen(pid),
                None => Fault::new(|| {}),
            },
            Kind::BlackHole => server.black_holed(),
            Kind::Unplug => server.unplugged(),
            // One alone: whoever holds one and wants the other would be a deadlock.
            Kind::CatalogueLock => primary.locked("pg_authid"),
            Kind::WriteStall => waits_for(primary, "nobody"),
            Kind::Synchronous => waits_for(primary, "*"),
            Kind::ReplayPaused => {
                server.sql("SELECT pg_wal_replay_pause()");
                primary.write_wal(300_000);
                Fault::new(|| {
                    server.wait_until_up();
                    server.sql("SELECT pg_wal_replay_resume()");
                })
            }
            Kind::ReceiverDown => {
                primary.sql("ALTER ROLE replicator NOLOGIN");
                primary.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication");
                Fault::new(|| {
                    primary.wait_until_up();
                    primary.sql("ALTER ROLE replicator LOGIN");
                })
            }
            Kind::Switchover | Kind::Failover => unreachable!("it is an episode of its own"),
        };
        Fault::new(move || {
            fault.lift();
            self.end(noted, &excused);
        })
    }

    /// The primary and its standby change places, as an operator would have them.
    fn switch_over(&mut self) {
        let noted = self.note("Switchover");
        let (old, new) = (self.primary, 1 - self.primary);
        self.nodes[old].become_standby();
        self.nodes[old].stop();
        self.wait((0, 2_000));
        self.nodes[new].promote();
        self.primary = new;
        self.wait((500, 3_000));
        self.nodes[old].start_again();
        self.end(noted, &[]);
    }

    /// The primary is lost and its standby promoted; the old one comes back as
    /// if nothing had happened, is stopped, and made anew.
    fn fail_over(&mut self) {
        let noted = self.note("Failover");
        let (old, new) = (self.primary, 1 - self.primary);
        self.nodes[old].kill();
        self.wait((500, 2_500));
        self.nodes[new].promote();
        self.primary = new;
        self.wait((500, 3_000));
        self.end(noted, &[]);

        let noted = self.note("SplitBrain");
        self.nodes[old].start_again();
        self.wait((3_000, 4_500));
        self.nodes[old].stop();
        self.end(noted, &[]);

        let noted = self.note("Rejoin");
        let upstream = self.nodes[new].address();
        let lost = self.nodes.remove(old);
        let address = lost.address();
        drop(lost);
        let again = Postgres::peer(Role::Standby, address, upstream, &SETTINGS);
        again.wait_until_up();
        comes_first(&again);
        self.nodes.insert(old, again);
        self.end(noted, &[]);
    }

    fn now(&self) -> At {
        self.began.elapsed()
    }

    /// Writes down that something begins; returns its number.
    fn note(&self, what: &str) -> usize {
        let mut journal = self.journal.lock().unwrap();
        journal.bands.push(Band {
            what: what.to_owned(),
            from: self.now(),
            until: At::MAX,
        });
        journal.bands.len() - 1
    }

    fn excuse(&self, node: usize, what: Excused) -> usize {
        let from = self.now();
        let until = match what {
            Excused::Node => from + BACKEND_FROZEN_AT_MOST,
            Excused::Commits | Excused::Witness => At::MAX,
        };
        let mut journal = self.journal.lock().unwrap();
        journal.excuses.push(Excuse {
            node,
            from,
            until,
            what,
        });
        journal.excuses.len() - 1
    }

    /// Writes down that it has ended; excuses end a little later.
    fn end(&self, noted: usize, excused: &[usize]) {
        let now = self.now();
        let mut journal = self.journal.lock().unwrap();
        journal.bands[noted].until = now;
        for &number in excused {
            let excuse = &mut journal.excuses[number];
            let after = match excuse.what {
                Excused::Node | Excused::Commits => RECOVERY,
                Excused::Witness => WITNESS_BACK_WITHIN,
            };
            excuse.until = excuse.until.min(now + after);
        }
    }
}

/// As [`Postgres::paused`], over and over until it is: the engine gives up where a
/// process is started at every moment, and looks are taken at every moment.
fn paused(server: &Postgres) -> Fault<'_> {
    eventually(SERVER, "the container is paused", || {
        let tried = try_docker(&["pause", server.name()], b"");
        tried.status.success().then_some(())
    });
    Fault::new(|| server.unpause())
}

/// Has commits wait for standbys of these names.
fn waits_for<'a>(primary: &'a Postgres, names: &str) -> Fault<'a> {
    primary.set("synchronous_standby_names", names);
    Fault::new(|| {
        primary.wait_until_up();
        primary.set("synchronous_standby_names", "");
    })
}

impl Postgres {
    /// Freezes the postmaster alone: who is connected stays so, nobody new comes in.
    fn postmaster_frozen(&self) -> Fault<'_> {
        let pid = self.container().pid() as i32;
        let signal = move |signal| {
            let pid = rustix::process::Pid::from_raw(pid).expect("a process id");
            rustix::process::kill_process(pid, signal).expect("it is there");
        };
        signal(rustix::process::Signal::STOP);
        Fault::new(move || signal(rustix::process::Signal::CONT))
    }
}
