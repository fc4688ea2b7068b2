//! Days on which a primary looks dead and is not, and days on which it is: the
//! guard tells them apart. `PGPAIR_TEST_ALARM_SECONDS` has it go on for long.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{major, minor};

use super::{becomes_primary, signal};
use crate::guard::{Guard, report};
use crate::support::clock::WallClock;
use crate::support::command::{Observer, Writer, other};
use crate::support::deployment::Deployment;
use crate::support::docker::docker;
use crate::support::fault::Fault;
use crate::support::{eventually, process, seconds_by};

/// Shorter than the guard's own default: what is no death then is none at all.
const CONFIRM: &str = "2s";

/// How long each alarm lasts: several times as long as it takes to give a primary
/// up.
const LASTS: Duration = Duration::from_secs(8);

/// Connections beyond what a node's limit of processes bears.
const FLOOD: usize = 300;

type Alarm = fn(&Deployment, &Guard<'_>, &str) -> Option<Fault<'static>>;

/// What each of them is, and whether the guard has only just come.
const ALARMS: [(&str, bool, Alarm); 10] = [
    (
        "both nodes have a hundredth of a processor",
        false,
        both_are_slow,
    ),
    (
        "connections that say nothing",
        false,
        connections_say_nothing,
    ),
    (
        "connections that say nothing, to a guard that is new",
        true,
        connections_say_nothing,
    ),
    ("every connection is taken", true, every_connection_is_taken),
    (
        "no process is left for a connection",
        true,
        no_process_is_left,
    ),
    (
        "the process that answers the guard is frozen",
        false,
        own_process_is_frozen,
    ),
    ("the guard is frozen", false, guard_is_frozen),
    ("the host is overloaded", false, host_is_overloaded),
    ("the primary's disk is slow", false, its_disk_is_slow),
    ("both disks are slow", true, both_disks_are_slow),
];

#[test]
fn no_primary_that_lives_is_replaced_and_every_dead_one_is() {
    let pair = Deployment::new("alarms");
    pair.site(&[]).changed();
    pair.has_primary("a");
    let until = Instant::now() + Duration::from_secs(seconds_by("PGPAIR_TEST_ALARM_SECONDS", 0));
    let (mut primary, mut alarms, mut deaths) = ("a", 0, 0);
    let observer = Observer::start(&pair);
    loop {
        alarms += false_alarms_replace_nobody(&pair, primary);
        for how in ["kill", "pause"] {
            primary = true_death_is_mended(&pair, primary, how);
            deaths += 1;
        }
        if Instant::now() > until {
            break;
        }
    }
    println!("{alarms} false alarms, nobody replaced; {deaths} deaths, all mended");
    observer.end();
    acknowledged_by_the_primary_alone_is_not_lost(&pair, primary);
}

fn start(pair: &Deployment) -> Guard<'_> {
    let arguments = ["--confirm", CONFIRM, "--max-failovers", "1000"];
    let guard = Guard::start(pair, &arguments);
    guard.says("state", "watching");
    guard
}

fn false_alarms_replace_nobody(pair: &Deployment, primary: &str) -> usize {
    let mut guard = start(pair);
    for (what, new, alarm) in ALARMS {
        let before = report(pair).expect("the probe answers")["failovers"].clone();
        let fault = alarm(pair, &guard, primary);
        if new {
            drop(guard);
            guard = Guard::start(pair, &["--confirm", CONFIRM, "--max-failovers", "1000"]);
        }
        let words = said_of_the_guard(pair, LASTS);
        eprintln!("--- {what}: the guard says {words:?}");
        if let Some(fault) = fault {
            fault.lift();
        }
        pair.has_primary(primary);
        guard.says("state", "watching");
        assert_eq!(
            report(pair).expect("it answers")["failovers"],
            before,
            "{what}"
        );
    }
    guard.stop();
    clock_that_jumps_replaces_nobody(pair, primary);
    ALARMS.len() + 1
}

/// The guard's own: what it measures by the clock on the wall is wrong by an hour.
fn clock_that_jumps_replaces_nobody(pair: &Deployment, primary: &str) {
    let clock = WallClock::new();
    let arguments = ["--confirm", CONFIRM, "--max-failovers", "1000"];
    let guard = Guard::start_by(pair, &clock, &arguments);
    guard.says("state", "watching");
    let before = report(pair).expect("the probe answers")["failovers"].clone();
    for seconds in [3_600, -3_600, 86_400, 0] {
        clock.is_off_by(seconds);
        let words = said_of_the_guard(pair, LASTS / 2);
        eprintln!("--- the clock is off by {seconds} s: the guard says {words:?}");
        pair.has_primary(primary);
    }
    guard.says("state", "watching");
    // What was done more than an hour ago, by the clock, does not count any more.
    let said = report(pair).expect("it answers")["failovers"].clone();
    assert!(said.as_u64() <= before.as_u64(), "the clock jumps: {said}");
    guard.stop();
}

/// Collects what the probe says of the guard for this long.
fn said_of_the_guard(pair: &Deployment, lasting: Duration) -> Vec<String> {
    let until = Instant::now() + lasting;
    let mut words: Vec<String> = Vec::new();
    while Instant::now() < until {
        let said = report(pair).map(|it| format!("{} {}", it["state"], it["reason"]));
        if let Some(said) = said.filter(|said| words.last() != Some(said)) {
            words.push(said);
        }
        thread::sleep(Duration::from_millis(200));
    }
    words
}

fn both_are_slow(pair: &Deployment, _: &Guard<'_>, _: &str) -> Option<Fault<'static>> {
    let names = ["a", "b"].map(|node| pair.container(node));
    let set = |names: &[String; 2], cpus: &str| {
        for name in names {
            docker(&["update", "--cpus", cpus, name]);
        }
    };
    set(&names, "0.01");
    Some(Fault::new(move || {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        set(&names, &cores.to_string());
    }))
}

/// Keeps asking whether TLS is spoken, and says no more.
fn connections_say_nothing(
    pair: &Deployment,
    _: &Guard<'_>,
    primary: &str,
) -> Option<Fault<'static>> {
    let networks = &pair.inspect(primary)["NetworkSettings"]["Networks"];
    let address = networks[&pair.prefix]["IPAddress"]
        .as_str()
        .expect("an address");
    let address = format!("{address}:5432");
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let flood = thread::spawn(move || {
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            let held: Vec<TcpStream> = (0..FLOOD)
                .filter_map(|_| TcpStream::connect(&address).ok())
                .filter_map(|mut stream| {
                    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).ok()?;
                    Some(stream)
                })
                .collect();
            thread::sleep(Duration::from_secs(3));
            drop(held);
        }
    });
    Some(Fault::new(move || {
        drop(stop);
        flood.join().expect("it ends");
    }))
}

fn every_connection_is_taken(
    pair: &Deployment,
    _: &Guard<'_>,
    primary: &str,
) -> Option<Fault<'static>> {
    // Superusers' too: the guard is one.
    let clients: Vec<_> = std::iter::from_fn(|| pair.socket_client(primary).ok()).collect();
    assert!(clients.len() > 10, "{}", clients.len());
    Some(Fault::new(move || drop(clients)))
}

fn no_process_is_left(pair: &Deployment, _: &Guard<'_>, primary: &str) -> Option<Fault<'static>> {
    let name = pair.container(primary);
    let usual = pair.inspect(primary)["HostConfig"]["PidsLimit"].to_string();
    docker(&["update", "--pids-limit", "4", &name]);
    Some(Fault::new(move || {
        docker(&["update", "--pids-limit", &usual, &name]);
    }))
}

fn own_process_is_frozen(
    pair: &Deployment,
    _: &Guard<'_>,
    primary: &str,
) -> Option<Fault<'static>> {
    let name = pair.container(primary);
    // The one that is listed may be replaced by a new one at that moment.
    let pids: Vec<String> = eventually(LASTS, "its session is frozen", || {
        let listed = docker(&["top", &name, "-eo", "pid,args"]);
        let own = listed
            .lines()
            .filter(|line| line.contains("postgres postgres [local]"))
            .filter_map(|line| line.split_whitespace().next().map(str::to_owned));
        let frozen: Vec<String> = own.filter(|pid| is_sent("STOP", pid)).collect();
        (!frozen.is_empty()).then_some(frozen)
    });
    Some(Fault::new(move || {
        for pid in &pids {
            is_sent("CONT", pid);
        }
    }))
}

/// Sends a signal to a process, which may have ended.
fn is_sent(name: &str, pid: &str) -> bool {
    let done = process::run(Command::new("kill").args(["-s", name, pid]), b"", LASTS);
    done.status.success()
}

fn guard_is_frozen(_: &Deployment, guard: &Guard<'_>, _: &str) -> Option<Fault<'static>> {
    guard.signal("STOP");
    thread::sleep(LASTS);
    guard.signal("CONT");
    None
}

fn host_is_overloaded(_: &Deployment, _: &Guard<'_>, _: &str) -> Option<Fault<'static>> {
    let spin = || {
        let mut sh = Command::new("sh");
        let sh = sh.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
        sh.spawn().expect("sh runs")
    };
    let mut busy: Vec<Child> = (0..24).map(|_| spin()).collect();
    Some(Fault::new(move || {
        busy.iter_mut().for_each(process::end);
    }))
}

fn its_disk_is_slow(pair: &Deployment, _: &Guard<'_>, primary: &str) -> Option<Fault<'static>> {
    Some(disks_are_slow(pair, primary, &[primary]))
}

fn both_disks_are_slow(pair: &Deployment, _: &Guard<'_>, primary: &str) -> Option<Fault<'static>> {
    Some(disks_are_slow(pair, primary, &["a", "b"]))
}

/// A few operations a second are let through, while a writer wants more.
fn disks_are_slow(pair: &Deployment, primary: &str, nodes: &[&str]) -> Fault<'static> {
    let device = fs::metadata(&pair.root).expect("its folder").dev();
    let device = format!("{}:{}", major(device), minor(device));
    let limits: Vec<DiskLimit> = nodes
        .iter()
        .map(|node| DiskLimit::on(pair, node, &device))
        .collect();
    limits.iter().for_each(|it| it.set(Some(4)));
    let mut client = pair.socket_client(primary).expect("it lets root in");
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let writer = thread::spawn(move || {
        let sql = "SELECT pg_logical_emit_message(true, 'slow', repeat('x', 100000))";
        let mut slowest = Duration::ZERO;
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            let began = Instant::now();
            let _ = client.batch_execute(sql);
            slowest = slowest.max(began.elapsed());
        }
        slowest
    });
    Fault::new(move || {
        drop(stop);
        limits.iter().for_each(|it| it.set(None));
        let slowest = writer.join().expect("it ends");
        eprintln!("--- the slowest commit took {slowest:?}");
        assert!(
            slowest > Duration::from_millis(200),
            "the disk is slow: {slowest:?}"
        );
    })
}

/// A container's control group, of version 1 or 2.
struct ControlGroup {
    /// A line a controller in version 1, one for all in version 2.
    lines: String,
}

impl ControlGroup {
    fn of(pair: &Deployment, node: &str) -> ControlGroup {
        let pid = pair.inspect(node)["State"]["Pid"].to_string();
        let lines = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
        ControlGroup { lines }
    }

    /// Returns a file of a controller: by its name in version 1, or in version 2.
    fn file(&self, controller: &str, first: &str, second: &str) -> PathBuf {
        let path = |of: &str| {
            let mut lines = self.lines.lines();
            lines.find_map(|line| line.split_once(of).map(|(_, path)| path.to_owned()))
        };
        let file = match path(&format!(":{controller}:")) {
            Some(path) => format!("/sys/fs/cgroup/{controller}{path}/{first}"),
            None => format!("/sys/fs/cgroup{}/{second}", path("0::").expect("a group")),
        };
        file.into()
    }
}

/// How many writes a second the kernel lets through to a disk.
struct DiskLimit {
    file: PathBuf,
    device: String,
}

impl DiskLimit {
    fn on(pair: &Deployment, node: &str, device: &str) -> DiskLimit {
        let first = "blkio.throttle.write_iops_device";
        DiskLimit {
            file: ControlGroup::of(pair, node).file("blkio", first, "io.max"),
            device: device.to_owned(),
        }
    }

    fn set(&self, most: Option<u32>) {
        let is_first = self.file.ends_with("blkio.throttle.write_iops_device");
        let limit = match (is_first, most) {
            (true, most) => most.unwrap_or(0).to_string(),
            (false, Some(most)) => format!("wiops={most}"),
            (false, None) => "wiops=max".to_owned(),
        };
        let text = format!("{} {limit}", self.device);
        fs::write(&self.file, text).unwrap_or_else(|error| panic!("{:?}: {error}", self.file));
    }
}

fn true_death_is_mended(pair: &Deployment, primary: &str, how: &str) -> &'static str {
    let guard = start(pair);
    let writer = Writer::start(pair, primary);
    let died = Instant::now();
    pair.each(how, &[primary]);
    let next = other(primary);
    becomes_primary(pair, next);
    eprintln!("--- {how}: {next} takes writes after {:?}", died.elapsed());
    guard.says("state", "watching");
    pair.has_primary(next);
    let written = writer.end(next);
    assert_eq!(written.lost, [0; 0], "of {}", written.acknowledged);
    guard.stop();
    next
}

/// A session asked for less than the guard promises, and the standby took nothing
/// meanwhile: all of it is on the dead primary's disk alone.
fn acknowledged_by_the_primary_alone_is_not_lost(pair: &Deployment, primary: &str) {
    let guard = Guard::start(pair, &["--sync", "sync", "--max-failovers", "1000"]);
    guard.says("synchronous", true);
    let standby = other(primary);
    let listed = docker(&["top", &pair.container(standby), "-eo", "pid,args"]);
    let receiver = listed.lines().find(|line| line.contains("walreceiver"));
    let pid = receiver.and_then(|line| line.split_whitespace().next());
    let pid = pid.expect("it streams").to_owned();
    let mut client = pair.socket_client(primary).expect("it lets root in");
    let made = client.batch_execute("CREATE TABLE alone (id int)");
    made.expect("a primary");
    signal("STOP", &pid);
    for sql in [
        "SET synchronous_commit = local",
        "DO $$ BEGIN FOR i IN 1..2000 LOOP INSERT INTO alone VALUES (i); \
         PERFORM pg_logical_emit_message(false, 'x', repeat('x', 3000)); COMMIT; END LOOP; END $$",
    ] {
        client.batch_execute(sql).expect("it waits for nobody");
    }
    pair.each("kill", &[primary]);
    signal("CONT", &pid);
    becomes_primary(pair, standby);
    let mut client = pair.socket_client(standby).expect("it lets root in");
    let row = client.query_one("SELECT count(*) FROM alone", &[]);
    assert_eq!(row.expect("the table is there").get::<_, i64>(0), 2000);
    pair.has_primary(standby);
    guard.stop();
}
