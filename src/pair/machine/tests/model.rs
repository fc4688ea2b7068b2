//! A model of Docker, of two PostgreSQL servers and of the clock, for tests: quick,
//! and able to fail or end the program at any call. The nodes' data are real folders,
//! and what the model does not know is a panic.
//!
//! What it claims of the real ones is held by the integration tests: those of one
//! kind each still move real containers.

use std::fs;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;

use crate::pair::fault_point;
use crate::pair::files;
use crate::pair::machine::*;
use crate::pair::session::Answer;
use crate::pg::data_dir::Place;
use crate::pg::lsn::Lsn;
use crate::pg::wal::writer::{SYSTEM, Writer};
use crate::runtime::threads::lock;

const MS: Duration = Duration::from_millis(1);

/// What a call takes, whatever it is.
const CALL: Duration = MS;

/// A server is stepped so finely.
const STEP: Duration = Duration::from_millis(10);

/// What PostgreSQL and Docker take. The proportions are those of the real ones.
const TO_START: Duration = Duration::from_millis(60);
const TO_RECOVER: Duration = Duration::from_millis(120);
const TO_CONNECT: Duration = Duration::from_millis(40);
const TO_SHUT_DOWN: Duration = Duration::from_millis(20);
const TO_EXIT: Duration = Duration::from_millis(20);
const TO_RETURN: Duration = Duration::from_millis(20);
const TO_RESTART: Duration = Duration::from_millis(200);
const LATE: Duration = Duration::from_millis(300);

/// No trial takes longer.
const LONGEST: Duration = Duration::from_secs(4 * 3600);

/// What a network that is cut takes to be whole again: longer than any wait for the
/// standby's last records.
const CUT_OFF: Duration = Duration::from_secs(8);

/// A client commits this often, and so often at all.
const COMMIT_EVERY: Duration = Duration::from_millis(5);
const MAX_COMMITS: u64 = 300;

/// Process ids: so many for each server that ever ran.
const PIDS: u32 = 10;

/// What goes wrong at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done, and the caller is told so.
    Fails,
    /// It is done, and the caller is told that it failed.
    FailsDone,
    /// It fails, and is done a little later; as [`Fault::Fails`] where that cannot be.
    Late,
    /// The program ends before it.
    KilledBefore,
    /// The program ends after it.
    KilledAfter,
    /// The engine is away from then on, for so long; as [`Fault::Fails`] elsewhere.
    EngineAway,
    /// The nodes do not reach one another from then on, for so long.
    CutOff,
    /// Somebody restarts the old primary's container from outside right then.
    StartedByOther,
}

impl Fault {
    pub const ALL: [Fault; 8] = [
        Fault::Fails,
        Fault::FailsDone,
        Fault::Late,
        Fault::KilledBefore,
        Fault::KilledAfter,
        Fault::EngineAway,
        Fault::CutOff,
        Fault::StartedByOther,
    ];
}

/// What befalls a node.
#[derive(Clone, Copy, Debug)]
pub enum Blow {
    /// Its server ends at once, and Docker leaves it so.
    Kill,
    /// Its processes are stopped by a signal.
    Freeze,
}

/// What unwinds a program that is killed.
#[derive(Debug)]
pub struct Killed;

/// A record of the log, as a test looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// No other record has it.
    id: u64,
    /// The number of a commit; none of another record.
    commit: Option<u64>,
}

/// A node's log.
#[derive(Clone, Debug)]
struct Log {
    entries: Vec<Entry>,
    /// Which timelines were left where.
    history: Vec<(u32, u64)>,
    writer: Writer,
}

impl Log {
    fn new() -> Log {
        let mut log = Log {
            entries: Vec::new(),
            history: Vec::new(),
            writer: Writer::begin(),
        };
        log.append(0, 0, None);
        log
    }

    fn append(&mut self, manager: u8, info: u8, commit: Option<u64>) -> u64 {
        static WRITTEN: AtomicU64 = AtomicU64::new(0);
        let lsn = self.writer.record(manager, info, 32).0;
        let id = WRITTEN.fetch_add(1, Ordering::Relaxed);
        self.entries.push(Entry { id, commit });
        lsn
    }

    fn commit(&mut self, number: u64) {
        self.append(1, 0, Some(number));
    }

    fn checkpoint(&mut self) -> u64 {
        self.append(0, 0, None)
    }

    fn fork(&mut self) {
        self.history.push((self.writer.timeline, self.writer.place));
        self.writer.timeline += 1;
        self.append(0, 0x90, None);
    }

    fn end(&self) -> u64 {
        self.writer.place
    }

    /// Says whether all of it is the beginning of the other's.
    fn is_prefix_of(&self, other: &Log) -> bool {
        let last = self.entries.len() - 1;
        other.entries.get(last) == Some(&self.entries[last])
    }

    fn has(&self, number: u64) -> bool {
        self.entries.iter().any(|it| it.commit == Some(number))
    }

    /// Writes it where a server's is, as the server would.
    fn save(&self, pgdata: &Path) {
        let folder = pgdata.join("pg_wal");
        if !folder.exists() {
            return;
        }
        self.writer.save(&folder);
        if !self.history.is_empty() {
            let line = |(timeline, lsn): &(u32, u64)| {
                format!("{timeline}\t{}\tno recovery target specified\n", Lsn(*lsn))
            };
            let name = format!("{:08X}.history", self.writer.timeline);
            let text: String = self.history.iter().map(line).collect();
            fs::write(folder.join(name), text).expect("writes");
        }
    }
}

/// What a server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Ready,
    ShuttingDown,
    ShutDown,
}

#[derive(Clone, Debug)]
struct ServerModel {
    /// The first of its process ids.
    pid: u32,
    place: Option<Place>,
    started: Duration,
    primary: bool,
    phase: Phase,
    /// When the next phase begins.
    next: Duration,
    frozen: bool,
    /// It stops because somebody has told Docker so, and is not started again.
    told: bool,
    /// Docker has no more patience with it then.
    killed_at: Option<Duration>,
}

#[derive(Debug)]
struct NodeModel {
    has_container: bool,
    server: Option<ServerModel>,
    /// Docker starts it anew then: it ended by itself.
    restart_at: Option<Duration>,
    /// Who waits for a stop, until when Docker needs at least, and whether what was
    /// stopped has ended.
    stops: Vec<(Duration, bool, StopResult)>,
    log: Log,
    checkpoint: u64,
    checkpoint_timeline: u32,
    /// The other node has a slot here.
    slot: bool,
    /// A promotion that is still to come about.
    promotes_at: Option<Duration>,
}

#[derive(Debug)]
struct World {
    now: Duration,
    nodes: [NodeModel; 2],
    /// The logs of all data that there ever was.
    logs: Vec<Log>,
    servers_started: u32,
    commits: u64,
    /// Clients end at this one.
    commits_until: u64,
    acknowledged: Vec<u64>,
    commit_at: Duration,
    /// What befalls a node, and when.
    blow: Option<(Duration, Node, Blow)>,
    /// The nodes do not reach one another until then.
    cut_until: Duration,
    engine_away_until: Duration,
    /// All calls that were ever made.
    made: u64,
    calls: u64,
    fault: Option<(u64, Fault)>,
    /// Calls are counted, and go wrong.
    armed: bool,
    wrong: Vec<String>,
}

/// Where the result of a stop goes.
type StopResult = Sender<Result<(), DockerError>>;

/// The model.
#[derive(Debug)]
pub struct Model {
    pub layout: Layout,
    base: Instant,
    world: Mutex<World>,
    _folder: tempfile::TempDir,
}

/// The result of a call, in the hands of whoever tells of it.
enum Plan {
    Go,
    Fails,
    FailsDone,
    Late,
    KilledAfter,
}

impl Model {
    /// Makes a pair that is well: `a` is the primary, `b` streams from it.
    pub fn new() -> Arc<Model> {
        let memory = Path::new("/dev/shm");
        let folder = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        let folder = folder.expect("a folder");
        let layout = Layout::new("p", folder.path().to_str()).expect("a short path");
        fs::write(layout.marker(), "p\n").expect("writes");
        let log = Log::new();
        let node = || NodeModel {
            has_container: true,
            server: None,
            restart_at: None,
            stops: Vec::new(),
            log: log.clone(),
            checkpoint: 1 << 20,
            checkpoint_timeline: 1,
            slot: true,
            promotes_at: None,
        };
        let model = Arc::new(Model {
            layout,
            base: Instant::now(),
            world: Mutex::new(World {
                now: Duration::ZERO,
                nodes: [node(), node()],
                logs: vec![log.clone(), log.clone()],
                servers_started: 0,
                commits: 0,
                commits_until: MAX_COMMITS,
                acknowledged: Vec::new(),
                commit_at: Duration::ZERO,
                blow: None,
                cut_until: Duration::ZERO,
                engine_away_until: Duration::ZERO,
                made: 0,
                calls: 0,
                fault: None,
                armed: false,
                wrong: Vec::new(),
            }),
            _folder: folder,
        });
        for node in Node::BOTH {
            make_data(&model.layout.pgdata(node), node.index());
            fs::create_dir_all(model.layout.run(node)).expect("makes");
            fs::create_dir_all(model.layout.conf(node)).expect("makes");
        }
        files::fence(&model.layout, Node::B).expect("fences");
        {
            let mut world = lock(&model.world);
            world.nodes[1].slot = false;
            for node in Node::BOTH {
                model.write_control(&world, node, 1);
                model.start_server(&mut world, node);
            }
        }
        model.pass(Duration::from_secs(40));
        assert!(model.is_whole(), "{model:?}");
        model.start_commits();
        model
    }

    fn pgdata(&self, node: Node) -> PathBuf {
        self.layout.pgdata(node)
    }

    fn write_control(&self, world: &World, node: Node, state: u32) {
        self.write_control_at(&self.pgdata(node), world, node, state);
    }

    fn write_control_at(&self, pgdata: &Path, world: &World, node: Node, state: u32) {
        let it = &world.nodes[node.index()];
        let mut bytes = vec![0; 296];
        bytes[0..8].copy_from_slice(&SYSTEM.to_ne_bytes());
        bytes[8..12].copy_from_slice(&1700_u32.to_ne_bytes());
        bytes[16..20].copy_from_slice(&state.to_ne_bytes());
        bytes[32..40].copy_from_slice(&it.checkpoint.to_ne_bytes());
        bytes[48..52].copy_from_slice(&it.checkpoint_timeline.to_ne_bytes());
        fs::write(pgdata.join("global/pg_control"), bytes).expect("writes");
    }

    fn write_status(&self, node: Node, status: &str) {
        let text = format!("1\n/pgdata\n0\n5432\n/run\n*\n1 2\n{status}\n");
        fs::write(self.pgdata(node).join("postmaster.pid"), text).expect("writes");
    }

    // What a test does and asks.

    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        self.advance(&mut lock(&self.world), time);
    }

    /// From here on calls are counted, and this one goes wrong.
    pub fn arm(&self, fault: Option<(u64, Fault)>) {
        let mut world = lock(&self.world);
        (world.calls, world.fault, world.armed) = (0, fault, true);
    }

    /// Nothing goes wrong any more; returns how many calls there were.
    pub fn disarm(&self) -> u64 {
        let mut world = lock(&self.world);
        world.armed = false;
        world.calls
    }

    /// Has the nodes not reach one another for so long.
    pub fn cut(&self, time: Duration) {
        let mut world = lock(&self.world);
        world.cut_until = world.now + time;
    }

    /// Ends a node's server at once, and has Docker leave it so.
    pub fn kill(&self, node: Node) {
        self.strike(&mut lock(&self.world), node, Blow::Kill);
    }

    /// Strikes a node after a while.
    pub fn strike_in(&self, node: Node, after: Duration, blow: Blow) {
        let mut world = lock(&self.world);
        world.blow = Some((world.now + after, node, blow));
    }

    /// Says whether nothing is still to befall a node.
    pub fn is_struck(&self) -> bool {
        lock(&self.world).blow.is_none()
    }

    fn strike(&self, world: &mut World, node: Node, blow: Blow) {
        match blow {
            Blow::Kill => self.end_server(world, node, true),
            Blow::Freeze => {
                if let Some(server) = &mut world.nodes[node.index()].server {
                    server.frozen = true;
                }
            }
        }
    }

    /// Has a node write what nobody else has: it was a primary for too long.
    pub fn diverge(&self, node: Node) {
        let mut world = lock(&self.world);
        let it = &mut world.nodes[node.index()];
        assert!(it.server.is_none(), "it does not run");
        let timeline = it.log.writer.timeline;
        it.log.append(1, 0x20, None);
        it.log.append(1, 0x20, None);
        assert_eq!(it.log.writer.timeline, timeline);
        self.save(&mut world, node);
        self.write_control(&world, node, 6);
    }

    /// Has clients commit again, as often as at the begin.
    pub fn start_commits(&self) {
        let mut world = lock(&self.world);
        world.commits_until = world.commits + MAX_COMMITS;
    }

    /// Removes a node's data.
    pub fn lose_data(&self, node: Node) {
        fs::remove_dir_all(self.pgdata(node)).expect("it is there");
    }

    /// Says what no moment may have seen, and did.
    pub fn wrong(&self) -> Vec<String> {
        lock(&self.world).wrong.clone()
    }

    /// Describes the nodes in a line each.
    pub fn describe(&self) -> String {
        let world = lock(&self.world);
        let node = |node: Node| {
            let it = &world.nodes[node.index()];
            let server = it.server.as_ref();
            let server = server.map(|it| (it.primary, it.phase, it.frozen));
            let fenced = self.pgdata(node).join("standby.signal").exists();
            format!(
                "{node} at {:?}: fenced {fenced}, (primary, phase, frozen) {server:?}, restarts {:?}, slot {}, \
                 ends at {} on {}, left {:?}",
                world.now,
                it.restart_at,
                it.slot,
                Lsn(it.log.end()),
                it.log.writer.timeline,
                it.log.history
            )
        };
        Node::BOTH.map(node).join("\n")
    }

    /// Returns who takes writes, if somebody does.
    pub fn primary(&self) -> Option<Node> {
        let world = lock(&self.world);
        Node::BOTH.into_iter().find(|node| world.writes(*node))
    }

    /// Says whether one is the primary and the other streams from it.
    pub fn is_whole(&self) -> bool {
        let primary = self.primary();
        let world = lock(&self.world);
        primary.is_some_and(|it| world.streams(it.other()))
    }

    /// Counts commits that were acknowledged and that a node does not have.
    pub fn lost_on(&self, node: Node) -> usize {
        let world = lock(&self.world);
        let log = &world.nodes[node.index()].log;
        let lost = world.acknowledged.iter().filter(|it| !log.has(**it));
        lost.count()
    }

    /// Makes the disks go wrong as the calls do. It holds on this thread.
    pub fn watch_disks(self: &Arc<Self>) {
        let model = Arc::clone(self);
        fault_point::set(Some(Box::new(move |place| {
            let plan = model.plan(&mut lock(&model.world), place);
            match plan {
                Plan::Go => Ok(()),
                Plan::KilledAfter => resume_unwind(Box::new(Killed)),
                _ => Err(io::Error::other("the disk does not take it")),
            }
        })));
    }

    // Calls.

    /// Decides what becomes of a call.
    fn plan(&self, world: &mut World, what: &str) -> Plan {
        self.check(world, what);
        if !world.armed {
            return Plan::Go;
        }
        world.calls += 1;
        let fault = world.fault.filter(|(at, _)| *at == world.calls);
        match fault.map(|(_, fault)| fault) {
            None => Plan::Go,
            Some(Fault::Fails) => Plan::Fails,
            Some(Fault::FailsDone) => Plan::FailsDone,
            Some(Fault::Late) => Plan::Late,
            Some(Fault::KilledBefore) => resume_unwind(Box::new(Killed)),
            Some(Fault::KilledAfter) => Plan::KilledAfter,
            Some(Fault::EngineAway) => {
                world.engine_away_until = world.now + Duration::from_secs(4);
                Plan::Go
            }
            Some(Fault::CutOff) => {
                world.cut_until = world.now + CUT_OFF;
                Plan::Go
            }
            Some(Fault::StartedByOther) => {
                self.start_server(world, Node::A);
                Plan::Go
            }
        }
    }

    /// Makes a call: `act` does it, `fail` is what is told where it goes wrong.
    fn call<T>(
        &self,
        what: &str,
        fail: impl FnOnce(&Model, &mut World) -> T,
        act: impl FnOnce(&Model, &mut World) -> T,
    ) -> T {
        let world = &mut *lock(&self.world);
        self.advance(world, CALL);
        world.made += 1;
        assert!(world.made < 20_000, "no end at {:?}: {what}", world.now);
        let plan = self.plan(world, what);
        if matches!(plan, Plan::Fails | Plan::Late) {
            return fail(self, world);
        }
        let result = act(self, world);
        self.check(world, what);
        match plan {
            Plan::FailsDone => fail(self, world),
            Plan::KilledAfter => resume_unwind(Box::new(Killed)),
            _ => result,
        }
    }

    fn docker<T>(
        &self,
        what: &'static str,
        act: impl FnOnce(&Model, &mut World) -> Result<T, DockerError>,
    ) -> Result<T, DockerError> {
        let no = || DockerError::Said(what, "no answer".to_owned());
        self.call(
            what,
            |_, _| Err(no()),
            |model, world| match world.now < world.engine_away_until {
                true => Err(no()),
                false => act(model, world),
            },
        )
    }

    fn node_of(&self, container: &str) -> Node {
        let mut nodes = Node::BOTH.into_iter();
        let found = nodes.find(|node| self.layout.container(*node) == container);
        found.unwrap_or_else(|| panic!("who is {container}?"))
    }

    /// Holds what may never be.
    fn check(&self, world: &mut World, what: &str) {
        let mut say = |text: &str| {
            let text = format!("{text}, at {what}");
            if !world.wrong.contains(&text) {
                world.wrong.push(text);
            }
        };
        let [a, b] = Node::BOTH.map(|node| {
            let pgdata = self.pgdata(node);
            pgdata.join("global").exists() && !pgdata.join("standby.signal").exists()
        });
        if a && b {
            say("both may write on disk");
        }
        if Node::BOTH.into_iter().all(|node| world.writes(node)) {
            world.wrong.push(format!("two primaries, at {what}"));
        }
    }

    // What time does.

    fn advance(&self, world: &mut World, time: Duration) {
        let until = world.now + time;
        assert!(until < LONGEST, "no end: {}", self.layout.root.display());
        while world.now < until {
            world.now = match world.is_quiet() {
                true => until,
                false => until.min(world.now + STEP),
            };
            if let Some((at, node, blow)) = world.blow
                && at <= world.now
            {
                world.blow = None;
                self.strike(world, node, blow);
            }
            for node in Node::BOTH {
                self.step(world, node);
            }
            self.replicate(world);
            self.commit(world);
            if Node::BOTH.into_iter().all(|node| world.writes(node)) {
                world.wrong.push("two primaries, in passing".to_owned());
            }
        }
    }

    fn step(&self, world: &mut World, node: Node) {
        let now = world.now;
        if world.nodes[node.index()]
            .restart_at
            .is_some_and(|at| at <= now)
        {
            world.nodes[node.index()].restart_at = None;
            self.start_server(world, node);
        }
        let it = &mut world.nodes[node.index()];
        if it.promotes_at.is_some_and(|at| at <= now) {
            it.promotes_at = None;
            self.promote(world, node);
        }
        let server = world.nodes[node.index()].server.as_ref();
        if server.is_some_and(|it| it.killed_at.is_some_and(|at| at <= now)) {
            self.end_server(world, node, true);
        }
        let it = &mut world.nodes[node.index()];
        let Some(server) = &mut it.server else {
            self.finish_stops(world, node);
            return;
        };
        if server.frozen || server.next > now {
            self.finish_stops(world, node);
            return;
        }
        let primary = server.primary;
        match server.phase {
            Phase::Starting => {
                server.phase = Phase::Ready;
                server.next = Duration::MAX;
                self.write_status(node, if primary { "ready" } else { "standby" });
                self.write_control(world, node, if primary { 6 } else { 5 });
            }
            Phase::Ready => {}
            Phase::ShuttingDown => {
                server.phase = Phase::ShutDown;
                server.next = now + TO_EXIT;
                if primary {
                    it.checkpoint = it.log.checkpoint();
                    it.checkpoint_timeline = it.log.writer.timeline;
                }
                // A sender has the last record sent before it ends.
                let log = it.log.clone();
                if primary && world.streams(node.other()) {
                    world.nodes[node.other().index()].log = log;
                }
                self.save(world, node);
                self.write_control(world, node, if primary { 1 } else { 2 });
            }
            Phase::ShutDown => {
                let told = server.told;
                self.end_server(world, node, told);
                let _ = fs::remove_file(self.pgdata(node).join("postmaster.pid"));
            }
        }
        self.finish_stops(world, node);
    }

    fn finish_stops(&self, world: &mut World, node: Node) {
        let now = world.now;
        let it = &mut world.nodes[node.index()];
        it.stops.retain(|(at, ended, sender)| {
            let done = *ended && *at <= now;
            if done {
                let _ = sender.send(Ok(()));
            }
            !done
        });
    }

    fn replicate(&self, world: &mut World) {
        for node in Node::BOTH {
            if world.streams(node) {
                let [len, ahead] = [node, node.other()].map(|it| {
                    let log = &world.nodes[it.index()].log;
                    log.entries.len()
                });
                if len < ahead {
                    world.nodes[node.index()].log = world.nodes[node.other().index()].log.clone();
                }
            }
        }
    }

    fn commit(&self, world: &mut World) {
        if world.now < world.commit_at || world.commits >= world.commits_until {
            return;
        }
        world.commit_at = world.now + COMMIT_EVERY;
        for node in Node::BOTH {
            if world.writes(node) {
                world.commits += 1;
                let number = world.commits;
                world.nodes[node.index()].log.commit(number);
                world.acknowledged.push(number);
            }
        }
    }

    fn save(&self, world: &mut World, node: Node) {
        let (log, pgdata) = (world.nodes[node.index()].log.clone(), self.pgdata(node));
        log.save(&pgdata);
        if pgdata.exists() {
            world.logs[log_of(&pgdata)] = log;
        }
    }

    fn start_server(&self, world: &mut World, node: Node) {
        if world.nodes[node.index()].server.is_some() {
            return;
        }
        let pgdata = self.pgdata(node);
        world.nodes[node.index()].restart_at = None;
        if !pgdata.join("global").exists() {
            // Its container ends at once.
            return;
        }
        // A rewound or copied node has another log than when it ran last.
        let it = &mut world.nodes[node.index()];
        it.log = world.logs[log_of(&pgdata)].clone();
        let primary = !pgdata.join("standby.signal").exists();
        let control = fs::read(pgdata.join("global/pg_control")).expect("reads");
        let word = |at: usize| control[at..at + 4].try_into().expect("four bytes");
        let long = |at: usize| control[at..at + 8].try_into().expect("eight bytes");
        it.checkpoint = u64::from_ne_bytes(long(32));
        it.checkpoint_timeline = u32::from_ne_bytes(word(48));
        let clean = control[16] == 1;
        world.servers_started += 1;
        let now = world.now;
        let takes = match clean {
            true => TO_START,
            false => TO_RECOVER,
        };
        let place = files::place_of(&self.layout, node).expect("it is there");
        let pid = 1_000_000 + world.servers_started * PIDS;
        self.write_status(node, "starting");
        world.nodes[node.index()].server = Some(ServerModel {
            pid,
            place,
            started: now,
            primary,
            phase: Phase::Starting,
            next: now + takes,
            frozen: false,
            told: false,
            killed_at: None,
        });
    }

    /// Ends a server at once. Docker starts it again, unless it was told to end it.
    fn end_server(&self, world: &mut World, node: Node, told: bool) {
        let now = world.now;
        let stopped = !world.nodes[node.index()].stops.is_empty();
        let it = &mut world.nodes[node.index()];
        if it.server.take().is_none() {
            return;
        }
        it.promotes_at = None;
        it.stops.iter_mut().for_each(|(_, ended, _)| *ended = true);
        it.restart_at = (!told && !stopped).then_some(now + TO_RESTART);
        self.save(world, node);
    }

    fn promote(&self, world: &mut World, node: Node) {
        let it = &mut world.nodes[node.index()];
        let Some(server) = &mut it.server else {
            return;
        };
        if server.primary || server.phase != Phase::Ready || server.frozen {
            return;
        }
        server.primary = true;
        it.log.fork();
        self.save(world, node);
        let signal = self.pgdata(node).join("standby.signal");
        let _ = fs::remove_file(signal);
        self.write_status(node, "ready");
        self.write_control(world, node, 6);
    }
}

impl World {
    /// Says whether nothing happens by itself.
    fn is_quiet(&self) -> bool {
        let quiet = |it: &NodeModel| {
            let server = it.server.as_ref();
            let settled = server.is_none_or(|server| {
                let old = self.now > server.started + Duration::from_secs(1);
                old && (server.next == Duration::MAX || server.frozen)
            });
            settled && it.restart_at.is_none() && it.stops.is_empty() && it.promotes_at.is_none()
        };
        let commits = self.commits < self.commits_until;
        let cut = self.now < self.cut_until;
        !commits && !cut && self.blow.is_none() && self.nodes.iter().all(quiet)
    }

    /// Says whether a node is a primary that takes writes.
    fn writes(&self, node: Node) -> bool {
        let server = self.nodes[node.index()].server.as_ref();
        server.is_some_and(|it| it.primary && it.phase == Phase::Ready && !it.frozen)
    }

    /// Says whether a node receives what the other writes.
    fn streams(&self, node: Node) -> bool {
        let (it, source) = (&self.nodes[node.index()], &self.nodes[node.other().index()]);
        let up = |node: &NodeModel, phases: &[Phase]| {
            let server = node.server.as_ref();
            server.is_some_and(|it| phases.contains(&it.phase) && !it.frozen)
        };
        let sends = up(
            source,
            &[Phase::Ready, Phase::ShuttingDown, Phase::ShutDown],
        );
        let receives = up(it, &[Phase::Ready]);
        let connected = |node: &NodeModel| {
            let server = node.server.as_ref();
            server.is_some_and(|it| self.now >= it.started + TO_RECOVER + TO_CONNECT)
        };
        let is_standby = it.server.as_ref().is_some_and(|it| !it.primary);
        let follows = sends && receives && is_standby && connected(it) && connected(source);
        follows && self.now >= self.cut_until && source.slot && it.log.is_prefix_of(&source.log)
    }
}

fn make_data(pgdata: &Path, log: usize) {
    for name in ["global", "pg_wal"] {
        fs::create_dir_all(pgdata.join(name)).expect("makes");
    }
    fs::write(pgdata.join("model"), log.to_string()).expect("writes");
}

/// Returns which log belongs to data.
fn log_of(pgdata: &Path) -> usize {
    let text = fs::read_to_string(pgdata.join("model"));
    text.expect("reads").parse().expect("a number")
}

fn row(cells: &[Option<&str>]) -> Row {
    cells.iter().map(|it| it.map(str::to_owned)).collect()
}

fn one(cell: &str) -> Vec<Row> {
    vec![row(&[Some(cell)])]
}

impl Machine for Model {
    fn now(&self) -> Instant {
        self.base + lock(&self.world).now
    }

    fn unix_time(&self) -> u64 {
        1_800_000_000 + lock(&self.world).now.as_secs()
    }

    fn sleep(&self, time: Duration) {
        let world = &mut *lock(&self.world);
        // Who waits for what will not come wakes up late, so that it is soon over.
        let longer = match world.is_quiet() {
            true => time.max(LATE),
            false => time,
        };
        self.advance(world, longer);
    }

    fn is_overloaded(&self) -> bool {
        false
    }

    fn begin_pulse(&self) -> io::Result<()> {
        Ok(())
    }

    fn was_late_since(&self, _since: Instant) -> bool {
        false
    }

    fn inspect(
        &self,
        container: &str,
        _within: Duration,
    ) -> Result<Option<Container>, DockerError> {
        let node = self.node_of(container);
        self.docker("inspect", |_, world| {
            let it = &world.nodes[node.index()];
            let server = it.server.as_ref();
            let status = match (server, it.restart_at) {
                (Some(_), _) => "running",
                (None, Some(_)) => "restarting",
                (None, None) => "exited",
            };
            Ok(it.has_container.then(|| Container {
                id: format!("{:064x}", node.index() + 1),
                status: status.to_owned(),
                running: server.is_some(),
                paused: false,
                pid: server.map_or(0, |it| it.pid),
                image: "sha256:ab".to_owned(),
                memory_bytes: None,
                pair: self.layout.prefix.clone(),
            }))
        })
    }

    fn start(&self, container: &str) -> Result<(), DockerError> {
        let node = self.node_of(container);
        self.docker("start", |model, world| {
            model.start_server(world, node);
            Ok(())
        })
    }

    fn unpause(&self, container: &str) -> Result<(), DockerError> {
        panic!("nobody paused {container}");
    }

    fn stop(&self, container: &str, how: Stop) -> io::Result<Stopped> {
        let node = self.node_of(container);
        let (sender, stopped) = channel();
        let sent = sender.clone();
        let result = self.docker("stop", |model, world| {
            let now = world.now;
            let it = &mut world.nodes[node.index()];
            it.restart_at = None;
            let ended = it.server.is_none();
            it.stops.push((now + TO_RETURN, ended, sender));
            match &mut it.server {
                Some(server) if how != Stop::Now && !server.frozen => {
                    let in_time = how == Stop::Gently || server.phase == Phase::Ready;
                    if in_time && server.phase != Phase::ShutDown {
                        (server.phase, server.next) = (Phase::ShuttingDown, now + TO_SHUT_DOWN);
                    }
                    server.told = true;
                    // A shell that is about to start the server loses the signal.
                    server.killed_at = (!in_time).then_some(now + STOP_SOON);
                }
                _ => model.end_server(world, node, true),
            }
            Ok(())
        });
        if let Err(error) = result {
            let _ = sent.send(Err(error));
        }
        Ok(stopped)
    }

    fn remove(&self, _container: &str) -> Result<(), DockerError> {
        self.docker("rm", |_, _| Ok(()))
    }

    fn run_once(&self, shot: &OneShot<'_>, _within: Duration) -> Result<Outcome, DockerError> {
        let container = shot.name.strip_suffix("-copy").expect("a tool's name");
        let node = self.node_of(container);
        let rewinds = shot.script.contains("pg_rewind");
        let copies = shot.script.contains("pg_basebackup");
        assert!(rewinds != copies, "{}", shot.script);
        self.docker("run", |model, world| {
            model.advance(world, 50 * MS);
            let success = match rewinds {
                true => model.rewind(world, node),
                false => model.copy(world, node),
            };
            Ok(Outcome {
                success,
                stdout: String::new(),
                stderr: String::new(),
            })
        })
    }

    fn sql(&self, node: Node, sql: &str, within: Duration) -> Result<Vec<Row>, SqlError> {
        let lost = |model: &Model, world: &mut World| {
            if sql.contains("pg_promote") {
                let limit = world.now + LATE;
                world.nodes[node.index()].promotes_at = Some(limit);
            }
            model.advance(world, MS);
            Err(SqlError::Gone("the connection was lost".to_owned()))
        };
        self.call(sql, lost, |model, world| {
            model.answer(world, node, sql, within)
        })
    }

    fn session(&self, node: Node, within: Duration) -> Box<dyn Ask> {
        let weak = SELF.with_borrow(|it| it.clone()).upgrade();
        Box::new(ModelSession {
            model: weak.expect("it is at work"),
            node,
            within,
            asked: None,
            answered: None,
            alive_at: None,
        })
    }

    fn processes(&self, whose: Whose) -> Option<Vec<u32>> {
        self.call(
            "processes",
            |_, _| None,
            |_, world| Some(world.pids_of(&whose)),
        )
    }

    fn process(&self, pid: u32) -> Option<Process> {
        let world = lock(&self.world);
        Node::BOTH
            .into_iter()
            .find_map(|node| world.process(node, pid))
    }

    fn signal(&self, whose: Whose, pids: &[u32], signal: Signal) -> Option<()> {
        let send = |model: &Model, world: &mut World| {
            let there = world.pids_of(&whose);
            for node in Node::BOTH {
                let first = world.nodes[node.index()].server.as_ref().map(|it| it.pid);
                let hit = first.is_some_and(|pid| pids.contains(&pid) && there.contains(&pid));
                if hit && signal == Signal::KILL {
                    model.end_server(world, node, false);
                }
            }
            Some(())
        };
        self.call("signal", |_, _| None, send)
    }
}

thread_local! {
    /// The model at work on this thread, for what outlives a call.
    static SELF: std::cell::RefCell<std::sync::Weak<Model>> = const { std::cell::RefCell::new(std::sync::Weak::new()) };
}

impl World {
    fn pids_of(&self, whose: &Whose) -> Vec<u32> {
        let mut found = Vec::new();
        for node in Node::BOTH {
            let Some(server) = &self.nodes[node.index()].server else {
                continue;
            };
            let id = format!("{:064x}", node.index() + 1);
            let there = whose.place.is_some() && whose.place == server.place;
            if there || whose.container.as_ref() == Some(&id) {
                found.push(server.pid);
                found.push(server.pid + 1);
                if server.primary && self.streams(node.other()) {
                    found.push(server.pid + 2);
                }
            }
        }
        found
    }

    fn process(&self, node: Node, pid: u32) -> Option<Process> {
        let server = self.nodes[node.index()].server.as_ref()?;
        let number = pid.checked_sub(server.pid).filter(|it| *it < PIDS)?;
        let title = match (number, server.primary) {
            (0, _) => "postgres",
            (1, true) => "postgres: checkpointer",
            (1, false) => "postgres: walreceiver streaming",
            _ => "postgres: walsender replicator",
        };
        Some(Process {
            frozen: server.frozen,
            ran: if server.frozen {
                1
            } else {
                self.now.as_millis() as u64
            },
            parent: if number == 0 { 1 } else { server.pid },
            age: self.now - server.started,
            name: "postgres".to_owned(),
            title: title.to_owned(),
            inner_pid: 1 + number,
        })
    }
}

impl Model {
    /// Has the sessions that are made on this thread be of this model.
    pub fn enter(self: &Arc<Self>) {
        SELF.set(Arc::downgrade(self));
        self.watch_disks();
    }

    fn rewind(&self, world: &mut World, node: Node) -> bool {
        if !world.writes(node.other()) {
            return false;
        }
        let aside = self.layout.data(node).join("pgdata.rewind");
        let _ = fs::remove_file(aside.join("standby.signal"));
        let _ = fs::remove_file(aside.join("postmaster.pid"));
        self.take_over(world, node, &aside);
        true
    }

    fn copy(&self, world: &mut World, node: Node) -> bool {
        if !world.writes(node.other()) || !world.nodes[node.other().index()].slot {
            return false;
        }
        let beside = self.layout.data(node).join("pgdata.new");
        world.logs.push(Log::new());
        make_data(&beside, world.logs.len() - 1);
        fs::write(beside.join("standby.signal"), "").expect("writes");
        self.take_over(world, node, &beside);
        true
    }

    /// Has data be the other node's.
    fn take_over(&self, world: &mut World, node: Node, pgdata: &Path) {
        let source = &world.nodes[node.other().index()];
        let (log, checkpoint) = (source.log.clone(), source.checkpoint);
        let timeline = source.checkpoint_timeline;
        log.save(pgdata);
        world.logs[log_of(pgdata)] = log;
        let it = &mut world.nodes[node.index()];
        (it.checkpoint, it.checkpoint_timeline) = (checkpoint, timeline);
        self.write_control_at(pgdata, world, node, 5);
    }

    /// Answers as a server does.
    fn answer(
        &self,
        world: &mut World,
        node: Node,
        sql: &str,
        within: Duration,
    ) -> Result<Vec<Row>, SqlError> {
        let server = world.nodes[node.index()].server.as_ref();
        let (frozen, phase) = match server {
            None => return Err(SqlError::Gone("nobody listens".to_owned())),
            Some(server) => (server.frozen, server.phase),
        };
        if frozen {
            self.advance(world, within);
            return Err(SqlError::Silent(within));
        }
        if phase != Phase::Ready {
            return Err(SqlError::NotYet("it is not ready".to_owned()));
        }
        Ok(self.rows(world, node, sql))
    }

    fn rows(&self, world: &mut World, node: Node, sql: &str) -> Vec<Row> {
        let primary = world.writes(node);
        let has = |text: &str| sql.contains(text);
        let streams = world.streams(node.other());
        let ahead = world.nodes[node.index()].log.end();
        let standby_end = world.nodes[node.other().index()].log.end();
        let lsn = |at: u64| Lsn(at).to_string();
        let timeline = format!("{:08X}", world.nodes[node.index()].log.writer.timeline);
        if has("pg_promote") {
            self.promote(world, node);
            return one("t");
        }
        if has("pg_logical_emit_message") {
            return vec![row(&[Some("0/1")]), row(&[Some(&timeline)])];
        }
        if has("pg_is_wal_replay_paused") {
            let recovering = if primary { "f" } else { "t" };
            return vec![row(&[Some(recovering), Some("f"), Some("0")])];
        }
        if has("pg_current_wal_flush_lsn") {
            let end = primary.then(|| lsn(ahead));
            let sync = streams.then_some("f");
            let flushed = streams.then(|| lsn(standby_end));
            return vec![row(&[end.as_deref(), Some("f"), sync, flushed.as_deref()])];
        }
        if has("pg_postmaster_start_time") {
            let server = world.nodes[node.index()].server.as_ref();
            let runs = server.map_or(0.0, |it| (world.now - it.started).as_secs_f64());
            let heard = world
                .streams(node)
                .then(|| world.now.as_millis().to_string());
            return vec![row(&[Some(&runs.to_string()), heard.as_deref()])];
        }
        if has("pg_wal_lsn_diff") {
            let behind = (ahead - standby_end).to_string();
            return vec![row(&[streams.then_some(&behind)])];
        }
        if has("received_tli") {
            let received = world.streams(node).then_some(timeline.as_str());
            return received.map(one).unwrap_or_default();
        }
        if has("pg_create_physical_replication_slot") {
            world.nodes[node.index()].slot = true;
            return Vec::new();
        }
        if has("pg_drop_replication_slot") {
            world.nodes[node.index()].slot = false;
            return Vec::new();
        }
        if has("pg_walfile_name(pg_current_wal_lsn())") {
            return one(&timeline);
        }
        if has("ALTER SYSTEM SET") || has("pg_reload_conf") {
            return Vec::new();
        }
        if sql == "CHECKPOINT" {
            let it = &mut world.nodes[node.index()];
            if primary {
                it.checkpoint = it.log.checkpoint();
            }
            it.checkpoint_timeline = it.log.writer.timeline;
            self.write_control(world, node, if primary { 6 } else { 5 });
            return Vec::new();
        }
        if has("SELECT count(*) FROM pg_stat_replication") {
            return one(if streams { "1" } else { "0" });
        }
        if sql.starts_with("SELECT pid FROM pg_stat_replication") {
            return if streams { one("3") } else { Vec::new() };
        }
        if has("pg_last_wal_replay_lsn") {
            return one(&lsn(ahead));
        }
        if sql == "SELECT pg_is_in_recovery()" {
            return one(if primary { "f" } else { "t" });
        }
        let nobody = [
            "pg_terminate_backend",
            "pg_stat_progress_basebackup",
            "pg_ls_archive_statusdir",
            "pg_stat_activity",
            "SELECT pid, left(application_name",
        ];
        if nobody.into_iter().any(has) {
            return Vec::new();
        }
        assert_eq!(sql, "SELECT 1", "the model does not know this");
        one("1")
    }
}

/// A session with a node of the model.
#[derive(Debug)]
struct ModelSession {
    model: Arc<Model>,
    node: Node,
    within: Duration,
    asked: Option<(String, Instant)>,
    /// It came while nobody waited for it.
    answered: Option<Answer>,
    alive_at: Option<Instant>,
}

impl Ask for ModelSession {
    fn ask(&mut self, sql: &str) {
        let now = self.model.now();
        let late = |at: Instant| now - at > self.within;
        if self.asked.as_ref().is_none_or(|(_, at)| late(*at)) {
            self.asked = Some((sql.to_owned(), now));
            self.answered = self.answer(now);
        }
    }

    fn answer(&mut self, until: Instant) -> Option<Answer> {
        if let Some(answer) = self.answered.take() {
            return Some(answer);
        }
        let (sql, asked) = self.asked.clone()?;
        let left = until.saturating_duration_since(self.model.now());
        let rows = self.model.sql(self.node, &sql, left);
        if matches!(rows, Err(SqlError::Silent(_))) {
            return None;
        }
        self.asked = None;
        let arrived = self.model.now();
        if rows.as_ref().err().is_none_or(SqlError::is_a_sign_of_life) {
            self.alive_at = Some(arrived);
        }
        Some(Answer {
            rows,
            asked,
            arrived,
        })
    }

    fn alive_at(&self) -> Option<Instant> {
        self.alive_at
    }

    fn owes_for(&self) -> Option<Duration> {
        let (_, asked) = self.asked.as_ref()?;
        Some(self.model.now() - *asked)
    }
}
