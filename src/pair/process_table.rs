//! What the kernel says of processes and of the host's pressure.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::pg::data_dir::Place;
use crate::runtime::threads;

/// Longest for a look at all processes.
const MAX_LOOK: Duration = Duration::from_secs(2);

/// Looks that may hang at once, each on a file system that is dead.
const MAX_HUNG: usize = 4;
static LOOKING: AtomicUsize = AtomicUsize::new(0);

/// A share of the last 10 s, in percent, in which something waited for the
/// processor, or all did for memory or disks.
const CPU_PRESSURE: f64 = 90.0;
const MEMORY_PRESSURE: f64 = 20.0;
const IO_PRESSURE: f64 = 60.0;

/// Processes that want to run, for each processor.
const LOAD: f64 = 10.0;

/// What the kernel says of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// It is stopped by a signal, or dead.
    pub frozen: bool,
    /// The nanoseconds that it has run for.
    pub ran: u64,
    /// Its parent, by its id on the host.
    pub parent: u32,
    /// How long it has been there.
    pub age: Duration,
    /// The name of its program, cut as the kernel does it.
    pub name: String,
    /// What it calls itself: PostgreSQL's tell their work.
    pub title: String,
    /// Its id in its own container.
    pub inner_pid: u32,
}

/// What somebody who works for a node has in common.
#[derive(Clone, Debug, Default)]
pub struct Whose {
    /// The node's data: every process of PostgreSQL has it as its working
    /// directory, in whatever container it is and whatever Docker thinks.
    pub place: Option<Place>,
    /// The id of the node's container: who is in there cannot leave it, whatever
    /// becomes of the data.
    pub container: Option<String>,
}

/// Lists the processes that are at work for somebody; nothing if that cannot be
/// told in time: somebody may be.
pub fn at_work(whose: Whose) -> Option<Vec<u32>> {
    if LOOKING.load(Ordering::Relaxed) >= MAX_HUNG {
        return None;
    }
    let (found, look) = channel();
    LOOKING.fetch_add(1, Ordering::Relaxed);
    let started = threads::spawn("processes".to_owned(), move || {
        let _ = found.send(list(&whose));
        LOOKING.fetch_sub(1, Ordering::Relaxed);
    });
    if started.is_err() {
        LOOKING.fetch_sub(1, Ordering::Relaxed);
        return None;
    }
    look.recv_timeout(MAX_LOOK).ok()?
}

fn list(whose: &Whose) -> Option<Vec<u32>> {
    let processes = fs::read_dir("/proc").ok()?;
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let works = |pid: &u32| {
        let there = || whose.place.is_some() && place_of(*pid) == whose.place;
        let inside = |id: &String| {
            fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains(id))
        };
        there() || whose.container.as_ref().is_some_and(inside)
    };
    Some(pids.filter(works).collect())
}

/// Returns a process's working directory, as the kernel remembers it: a file system
/// that is dead is not asked.
pub fn place_of(pid: u32) -> Option<Place> {
    let flags = AtFlags::STATX_DONT_SYNC;
    let cwd = format!("/proc/{pid}/cwd");
    let about = statx(CWD, Path::new(&cwd), flags, StatxFlags::INO).ok()?;
    Some(Place::new(
        (about.stx_dev_major, about.stx_dev_minor),
        about.stx_ino,
    ))
}

/// Reads what a process does; nothing once it is gone.
pub fn read(pid: u32) -> Option<Process> {
    let text = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
    let stat = text("stat")?;
    let fields = fields(&stat)?;
    let schedstat = text("schedstat");
    Some(Process {
        frozen: matches!(*fields.first()?, "T" | "t" | "Z" | "X"),
        ran: schedstat
            .and_then(|text| text.split(' ').next()?.parse().ok())
            .or_else(|| ticks(&fields))?,
        parent: fields.get(1)?.parse().ok()?,
        age: age(&fields)?,
        name: text("comm").unwrap_or_default().trim_end().to_owned(),
        title: title_of(pid),
        inner_pid: inner_pid(pid).unwrap_or(pid),
    })
}

/// Returns the one of these that the others descend from. One that has ended
/// meanwhile has no parent either, and may have any number.
pub fn eldest(processes: &BTreeMap<u32, Process>) -> Option<u32> {
    let from_outside = |process: &Process| !processes.contains_key(&process.parent);
    let eldest = processes.iter().filter(|(_, it)| from_outside(it));
    let eldest: Vec<_> = eldest.collect();
    // Of several, as where a person has opened a shell there, the container's own.
    let own = eldest.iter().find(|(_, it)| it.inner_pid == 1);
    own.or(eldest.first()).map(|(pid, _)| **pid)
}

fn title_of(pid: u32) -> String {
    let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&title).into_owned()
}

fn inner_pid(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().next_back()?.parse().ok()
}

fn age(fields: &[&str]) -> Option<Duration> {
    let begun: f64 = fields.get(19)?.parse().ok()?;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split(' ').next()?.parse().ok()?;
    let seconds = uptime - begun / rustix::param::clock_ticks_per_second() as f64;
    Duration::try_from_secs_f64(seconds.max(0.0)).ok()
}

/// The fields of `/proc/PID/stat` from the state on: the name before it may hold
/// anything.
fn fields(stat: &str) -> Option<Vec<&str>> {
    let (_, rest) = stat.rsplit_once(')')?;
    Some(rest.split_whitespace().collect())
}

/// The time in user and kernel mode, where the kernel counts no finer.
fn ticks(fields: &[&str]) -> Option<u64> {
    let each = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(each(11)? + each(12)?)
}

/// Says whether the kernel finds the host overloaded.
pub fn host_is_overloaded() -> bool {
    let read = |name: &str| fs::read_to_string(format!("/proc/pressure/{name}")).ok();
    let above = |name: &str, kind: &str, limit: f64| {
        let pressure = read(name).and_then(|text| average(&text, kind));
        pressure.is_some_and(|percent| percent > limit)
    };
    let load = fs::read_to_string("/proc/loadavg").ok();
    let load = load.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    let cores = thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
    above("cpu", "some", CPU_PRESSURE)
        || above("memory", "full", MEMORY_PRESSURE)
        || above("io", "full", IO_PRESSURE)
        || load.is_some_and(|load| load / cores > LOAD)
}

/// Reads `some avg10=1.23 avg60=…`.
fn average(text: &str, kind: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
    let mut words = line.split_whitespace();
    words
        .find_map(|word| word.strip_prefix("avg10="))?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_is_read_by_its_state_whatever_its_name_holds() {
        let stat = "7 (a) S (b) T 1 7 7 0 -1 0 0 0 0 0 3 4 0 0 20 0 1 0 555 0";
        let found = fields(stat).expect("a state");
        assert_eq!((found[0], found[1], ticks(&found)), ("T", "1", Some(7)));
        assert_eq!(fields("nonsense"), None);
    }

    #[test]
    fn frozen_and_running_processes_are_told_apart() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep runs");
        let pid = child.id();
        let own = read(std::process::id()).expect("it is us");
        assert!(!own.frozen && own.ran > 0);
        let found = read(pid).expect("it is ours");
        assert_eq!((found.parent, found.inner_pid), (std::process::id(), pid));
        assert!(found.age < Duration::from_secs(60), "{found:?}");
        let stop = Command::new("kill")
            .args(["-STOP", &pid.to_string()])
            .status();
        assert!(stop.expect("kill runs").success());
        while !read(pid).expect("it is ours").frozen {
            thread::yield_now();
        }
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
        assert_eq!(read(pid), None);
    }

    #[test]
    fn who_works_in_a_folder_is_seen_and_nobody_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let works = |place| {
            at_work(Whose {
                place,
                container: None,
            })
        };
        assert_eq!(works(None), Some(Vec::new()));
        let mut child = Command::new("sleep")
            .arg("60")
            .current_dir(folder.path())
            .spawn()
            .expect("sleep runs");
        let place = place_of(child.id());
        assert!(place.is_some());
        assert_eq!(works(place), Some(vec![child.id()]));
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
        assert_eq!(works(place), Some(Vec::new()));
        assert_eq!(place_of(child.id()), None);
    }

    #[test]
    fn the_eldest_is_who_the_others_descend_from_and_no_process_that_has_ended() {
        let mut ended = Command::new("true").spawn().expect("true runs");
        let gone = ended.id();
        ended.wait().expect("it is ours");
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 60 & echo $!; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("sh runs");
        let mut line = String::new();
        let stdout = shell.stdout.take().expect("piped");
        let mut stdout = std::io::BufReader::new(stdout);
        std::io::BufRead::read_line(&mut stdout, &mut line).expect("it says so");
        let child: u32 = line.trim().parse().expect("a number");
        let eldest_of = |pids: &[u32]| {
            let read = |pid: &u32| Some((*pid, read(*pid)?));
            eldest(&pids.iter().filter_map(read).collect())
        };
        assert_eq!(eldest_of(&[gone, child, shell.id()]), Some(shell.id()));
        assert_eq!(eldest_of(&[gone]), None);
        let both = format!("kill {child} {}", shell.id());
        let ended = Command::new("sh").args(["-c", &both]).status();
        assert!(ended.expect("kill runs").success());
        shell.wait().expect("it is ours");
    }

    #[test]
    fn pressure_is_read_where_the_kernel_tells_it() {
        let text = "some avg10=97.53 avg60=1.00 avg300=0.00 total=1\nfull avg10=0.12 avg60=0.00\n";
        assert_eq!(average(text, "some"), Some(97.53));
        assert_eq!(average(text, "full"), Some(0.12));
        assert_eq!(average("", "some"), None);
    }
}
