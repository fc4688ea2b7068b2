//! The commands that change a pair, run as an operator runs them; a writer that
//! remembers every commit that was acknowledged; an observer that looks for a
//! second primary all the time.

use std::collections::BTreeSet;
use std::env;
use std::io::{BufRead, BufReader, Lines, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use postgres::{Client, NoTls, SimpleQueryMessage};
use serde_json::Value;

use super::deployment::{Deployment, required};
use super::ms;
use super::process::{self, Outcome};

/// Longest that a command may take: a copy of the data is in it.
const COMMAND_AT_MOST: Duration = Duration::from_secs(300);

/// Time between two looks of the observer.
const OBSERVE_EVERY: Duration = ms(50);

/// Longest that one look may take: a frozen server says nothing.
const LOOK_AT_MOST: Duration = ms(1_000);

/// How often the primary moves: a few times, or as often as `make drill` says.
pub fn moves() -> usize {
    match env::var("PGPAIR_TEST_MOVES") {
        Ok(text) => text.parse().expect("PGPAIR_TEST_MOVES is a number"),
        Err(_) => 3,
    }
}

/// Returns the pair's other node.
pub fn other(node: &str) -> &'static str {
    if node == "a" { "b" } else { "a" }
}

impl Deployment {
    /// Returns the binary with these arguments, about this pair. It ends with the
    /// thread that starts it, however that comes about: a guard that outlived
    /// its test would go on to move the pair.
    pub fn pgpair(&self, arguments: &[&str]) -> Command {
        self.pgpair_by(&required("PGPAIR_TEST_BINARY"), arguments)
    }

    /// As [`Deployment::pgpair`], of another build.
    pub fn pgpair_by(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = dies_with_us(program.to_owned());
        command
            .args(arguments)
            .args(["--prefix", &self.prefix, "--root"])
            .arg(&self.root);
        command
    }

    /// Runs a command to its end.
    pub fn runs(&self, arguments: &[&str]) -> Outcome {
        let began = Instant::now();
        let done = process::run(&mut self.pgpair(arguments), b"", COMMAND_AT_MOST);
        let words = arguments.join(" ");
        eprintln!(
            "{words}: {:?}\n{}{}",
            began.elapsed(),
            done.stdout,
            done.stderr
        );
        done
    }

    /// Runs a command that must succeed; returns what it said.
    pub fn does(&self, arguments: &[&str]) -> String {
        let done = self.runs(arguments);
        assert_eq!(done.code(), 0, "{}{}", done.stdout, done.stderr);
        done.stdout
    }

    /// Runs a command that must end with this exit code, one line on stderr, and
    /// these words in it.
    pub fn is_told(&self, arguments: &[&str], code: i32, words: &[&str]) {
        let done = self.runs(arguments);
        told(&done, code, words);
    }

    /// Runs a command to its end; returns what it says to machines.
    pub fn ends(&self, arguments: &[&str], code: i32) -> Value {
        let done = self.runs(&[arguments, &["--json"]].concat());
        assert_eq!(done.code(), code, "{done:?}");
        assert_eq!(done.stderr, "", "{done:?}");
        assert_eq!(done.stdout.lines().count(), 1, "{done:?}");
        serde_json::from_str(&done.stdout).expect("JSON")
    }

    /// Starts a command and kills it once it has said `lines` lines. Returns the
    /// last of them, or nothing if it ended before.
    pub fn killed_after(&self, arguments: &[&str], lines: usize) -> Option<String> {
        self.begins(arguments).says(lines)
    }

    /// Starts a command; it is killed when it is dropped.
    pub fn begins(&self, arguments: &[&str]) -> Running {
        let mut child = self
            .pgpair(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let stdout = child.stdout.take().expect("piped");
        Running {
            words: arguments.join(" "),
            said: BufReader::new(stdout).lines(),
            child,
        }
    }

    /// Connects to a node's socket on this host as superuser.
    pub fn socket_client(&self, node: &str) -> Result<Client, postgres::Error> {
        connect(&self.root, node)
    }
}

/// Returns a program that the kernel kills when the thread that starts it ends.
pub fn dies_with_us(program: String) -> Command {
    // Found whatever PATH the program gets.
    let mut command = Command::new("/usr/bin/setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// A command that is under way.
pub struct Running {
    words: String,
    said: Lines<BufReader<ChildStdout>>,
    child: Child,
}

impl Running {
    /// Waits until it has said `lines` lines more. Returns the last of them, or
    /// nothing if it ended before.
    pub fn says(&mut self, lines: usize) -> Option<String> {
        let last = self.said.nth(lines - 1);
        last.map(|line| line.expect("text"))
    }

    /// Waits until it says this; fails the test if it never does.
    pub fn says_that(&mut self, words: &str) {
        let found = self.said.any(|line| line.expect("text").contains(words));
        assert!(found, "{}: it never said {words:?}", self.words);
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        let kill = kill.args(["-s", name, &self.child.id().to_string()]);
        let done = process::run(kill, b"", COMMAND_AT_MOST);
        assert!(done.status.success(), "{done:?}");
    }

    /// Waits until it has ended, but no longer than this.
    pub fn may_end(&mut self, within: Duration) {
        process::wait(&mut self.child, within);
    }

    /// Waits until it has ended.
    pub fn ends(mut self) -> Outcome {
        let ended = process::wait(&mut self.child, COMMAND_AT_MOST);
        let status = ended.unwrap_or_else(|| panic!("{}: it does not end", self.words));
        // A few lines at most, which the pipes have held for us.
        let stdout: Vec<String> = self.said.by_ref().map(|line| line.expect("text")).collect();
        let mut stderr = String::new();
        let pipe = self.child.stderr.as_mut().expect("piped");
        pipe.read_to_string(&mut stderr).expect("text");
        let stdout = stdout.join("\n");
        eprintln!("{}: {status}\n{stdout}\n{stderr}", self.words);
        Outcome {
            status,
            stdout,
            stderr,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        process::end(&mut self.child);
    }
}

/// Stretches a limit by as much as this machine is overloaded: with more than
/// two processes that want a core, for each of the cores.
pub fn on_this_machine(limit: Duration) -> Duration {
    let load = std::fs::read_to_string("/proc/loadavg").expect("this is Linux");
    let load = load
        .split(' ')
        .next()
        .and_then(|text| text.parse::<f64>().ok());
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let each = load.expect("a number") / cores as f64;
    limit.mul_f64((each / 2.0).max(1.0))
}

/// Checks how a command ended.
pub fn told(done: &Outcome, code: i32, words: &[&str]) {
    assert_eq!(done.code(), code, "{}{}", done.stdout, done.stderr);
    let lines: Vec<&str> = done.stderr.lines().collect();
    let [line] = lines[..] else {
        panic!("not one line: {lines:#?}");
    };
    for word in words {
        assert!(line.contains(word), "{word:?} is not in {line:?}");
    }
}

fn connect(root: &Path, node: &str) -> Result<Client, postgres::Error> {
    postgres::Config::new()
        .host_path(root.join(node).join("run"))
        .user("postgres")
        .dbname("postgres")
        .application_name("test")
        .connect(NoTls)
}

/// A thread that writes one row after the other to whichever node takes it, as
/// an application with both hosts in its connection string does.
pub struct Writer {
    connect: Connect,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(u64, Instant)>>,
}

/// Connects to a node, or to whoever leads to the right one.
pub type Connect = Arc<dyn Fn(&str) -> Result<Client, postgres::Error> + Send + Sync>;

impl Writer {
    /// Starts writing; returns once the first row is in.
    pub fn start(pair: &Deployment, primary: &str) -> Writer {
        let root = pair.root.clone();
        Writer::over(Arc::new(move |node| connect(&root, node)), primary)
    }

    /// As [`Writer::start`], by connections of another kind.
    pub fn over(connect: Connect, primary: &str) -> Writer {
        let mut client = connect(primary).expect("the primary lets it in");
        client
            .simple_query("CREATE TABLE IF NOT EXISTS acknowledged (id bigint PRIMARY KEY)")
            .expect("a primary");
        client
            .simple_query("TRUNCATE acknowledged")
            .expect("a primary");
        let stop = Arc::new(AtomicBool::new(false));
        let (connect_too, to_stop) = (Arc::clone(&connect), Arc::clone(&stop));
        Writer {
            connect,
            stop,
            thread: thread::spawn(move || write(&connect_too, &to_stop)),
        }
    }

    /// Stops writing; checks that every row that was acknowledged is on
    /// `primary`. Returns what was seen.
    pub fn end(self, primary: &str) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        let acknowledged = self.thread.join().expect("the writer lives");
        let mut client = (self.connect)(primary).expect("the primary lets it in");
        let rows = client
            .query("SELECT id FROM acknowledged", &[])
            .expect("the table is there");
        let present: BTreeSet<u64> = rows.iter().map(|row| row.get::<_, i64>(0) as u64).collect();
        let lost: Vec<u64> = acknowledged
            .iter()
            .map(|(id, _)| *id)
            .filter(|id| !present.contains(id))
            .collect();
        Written {
            acknowledged: acknowledged.len(),
            lost,
            at: acknowledged.into_iter().map(|(_, at)| at).collect(),
        }
    }
}

/// What a writer did.
pub struct Written {
    pub acknowledged: usize,
    pub lost: Vec<u64>,
    /// When each commit was acknowledged.
    pub at: Vec<Instant>,
}

impl Written {
    /// Returns the longest time without a commit that began between these two.
    pub fn gap_between(&self, from: Instant, to: Instant) -> Duration {
        let gaps = self
            .at
            .windows(2)
            .filter(|pair| pair[1] > from && pair[0] < to);
        gaps.map(|pair| pair[1] - pair[0])
            .max()
            .expect("it wrote before and after")
    }

    /// Returns the time from `event` to the first commit that began after it on
    /// another connection: the first after the longest gap.
    pub fn back_after(&self, event: Instant) -> Duration {
        let after = self.at.iter().filter(|at| **at > event);
        let gaps: Vec<&Instant> = after.collect();
        let (mut longest, mut end) = (Duration::ZERO, event);
        let mut before = event;
        for at in gaps {
            if *at - before > longest {
                (longest, end) = (*at - before, *at);
            }
            before = *at;
        }
        end - event
    }
}

fn write(connect: &Connect, stop: &AtomicBool) -> Vec<(u64, Instant)> {
    let mut acknowledged = Vec::new();
    let mut id: u64 = 0;
    let mut nodes = ["a", "b"].into_iter().cycle();
    while !stop.load(Ordering::Relaxed) {
        let node = nodes.next().expect("a cycle");
        let Ok(mut client) = connect(node) else {
            thread::sleep(ms(5));
            continue;
        };
        loop {
            if stop.load(Ordering::Relaxed) {
                return acknowledged;
            }
            id += 1;
            let sql = format!("INSERT INTO acknowledged VALUES ({id})");
            // What failed may be in all the same: only a yes counts.
            if client.simple_query(&sql).is_err() {
                break;
            }
            acknowledged.push((id, Instant::now()));
            thread::sleep(ms(1));
        }
    }
    acknowledged
}

/// A primary cannot have stopped, and the other have been promoted, in less.
const NO_MOVE_WITHIN: Duration = ms(150);

/// A thread that asks both nodes all the time who is a primary.
pub struct Observer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Look>>,
}

/// Who said that it is a writable primary, and how long asking both took.
struct Look {
    writable: [bool; 2],
    took: Duration,
}

impl Observer {
    pub fn start(pair: &Deployment) -> Observer {
        let stop = Arc::new(AtomicBool::new(false));
        let (root, to_stop) = (pair.root.clone(), Arc::clone(&stop));
        Observer {
            stop,
            thread: thread::spawn(move || observe(&root, &to_stop)),
        }
    }

    /// Stops looking; fails the test if two primaries were seen. Returns the
    /// number of looks.
    pub fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let looks = self.thread.join().expect("the observer lives");
        let two = |look: &&Look| look.writable == [true, true] && look.took < NO_MOVE_WITHIN;
        assert_eq!(looks.iter().filter(two).count(), 0, "two primaries at once");
        // Slow looks: one that was a primary before and after the other was one.
        let primaries: Vec<usize> = looks
            .iter()
            .flat_map(|look| [0, 1].into_iter().filter(|node| look.writable[*node]))
            .collect();
        let alternates = |seen: &[usize]| seen[0] != seen[1] && seen[1] != seen[2];
        assert!(
            !primaries.windows(3).any(alternates),
            "two primaries at once"
        );
        assert!(!primaries.is_empty(), "not one primary was seen");
        looks.len()
    }
}

fn observe(root: &Path, stop: &AtomicBool) -> Vec<Look> {
    let mut looks = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let writable = ["a", "b"].map(|node| is_writable(root.to_owned(), node));
        let took = began.elapsed();
        looks.push(Look { writable, took });
        thread::sleep(OBSERVE_EVERY.saturating_sub(took));
    }
    looks
}

/// Asks a node over a connection of its own; one that says nothing is no
/// primary that takes a write.
fn is_writable(root: PathBuf, node: &'static str) -> bool {
    let (sender, receiver) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let asked = connect(&root, node).and_then(|mut client| {
            client.simple_query(
                "SELECT NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off'",
            )
        });
        let yes = asked.is_ok_and(|messages| {
            messages.iter().any(|message| {
                matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("t"))
            })
        });
        let _ = sender.send(yes);
    });
    receiver.recv_timeout(LOOK_AT_MOST).unwrap_or(false)
}
