//! The probe under test: the real binary, as a process or in a container.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, PipeReader};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::docker::{self, Container, this_run};
use super::http::{Answer, Connection};
use super::postgres::Postgres;
use super::{PASSWORD, eventually, ms, names, process};

/// What an answer may take beyond the deadline, by the contract.
const TOLERANCE: Duration = ms(100);

/// In which the probe recovers by itself once a fault has ended.
pub const RECOVERY: Duration = Duration::from_secs(2);

/// What `/health` may take, whatever happens.
const HEALTH_AT_MOST: Duration = ms(50);

/// In which the probe has stopped after SIGTERM; a second by the contract, and
/// something for the machine.
const STOP_AT_MOST: Duration = ms(1_500);

/// Returns the binary under test: the static one, where `make test` built it.
pub fn binary() -> String {
    env::var("PGPAIR_TEST_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_pgpair").to_owned())
}

/// Says whether the binary under test is the one that is shipped.
pub fn is_release_binary() -> bool {
    env::var("PGPAIR_TEST_BINARY").is_ok()
}

/// Returns a command that runs the binary with nothing in its environment.
pub fn pgpair() -> Command {
    let mut command = Command::new(binary());
    command.env_clear();
    command
}

/// Returns the resident memory of a process in bytes.
pub fn resident_bytes(pid: u32) -> u64 {
    1024 * status_field(pid, "VmRSS:")
}

fn status_field(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status"));
    let status = status.expect("it is running");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number.and_then(|text| text.parse().ok()).expect("a number")
}

/// What to start a probe with.
pub struct Recipe {
    program: String,
    conninfo: String,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    /// The command that becomes the binary, and its arguments.
    wrapper: Vec<String>,
    listener: Option<TcpListener>,
    /// Options of `docker run`.
    options: Vec<String>,
    deadline: Duration,
}

/// Takes the socket that is its stdin as a supervisor would hand it over.
const HAND_OVER: &str = r#"exec 3<&0 </dev/null
LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=test.socket exec "$@""#;

impl Recipe {
    /// Adds `--name=value`.
    pub fn with(mut self, name: &str, value: &str) -> Recipe {
        self.arguments.push(format!("--{name}={value}"));
        self
    }

    /// Adds a variable to the otherwise empty environment.
    pub fn variable(mut self, name: &str, value: &str) -> Recipe {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs cargo's own build, which loads shared libraries as any program does;
    /// the static one does not.
    pub fn of_cargo(mut self) -> Recipe {
        self.program = env!("CARGO_BIN_EXE_pgpair").to_owned();
        self
    }

    /// Sets the deadline, in milliseconds.
    pub fn deadline(mut self, milliseconds: u64) -> Recipe {
        self.deadline = ms(milliseconds);
        self.with("deadline", &format!("{milliseconds}ms"))
    }

    /// Lets it have so many descriptors.
    pub fn descriptors(mut self, count: u64) -> Recipe {
        let limit = format!("--nofile={count}:{count}");
        self.wrapper = vec!["/usr/bin/prlimit".to_owned(), limit];
        self
    }

    /// Hands it a listening socket, as systemd does it.
    pub fn listener(mut self, listener: TcpListener) -> Recipe {
        let shell = ["/bin/sh", "-c", HAND_OVER, "sh"];
        self.wrapper = shell.map(str::to_owned).to_vec();
        self.listener = Some(listener);
        self
    }

    /// Adds an option of `docker run`.
    pub fn docker_option(mut self, option: &str) -> Recipe {
        self.options.push(option.to_owned());
        self
    }

    fn command(&self) -> Command {
        let words: Vec<String> = self
            .wrapper
            .iter()
            .cloned()
            .chain([self.program.clone()])
            .collect();
        let mut command = Command::new(&words[0]);
        command
            .env_clear()
            .args(&words[1..])
            .env("DATABASE_URL", &self.conninfo)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .arg("--listen=127.0.0.1:0")
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if let Some(listener) = &self.listener {
            let listener = listener.try_clone().expect("a descriptor is left");
            command.stdin(OwnedFd::from(listener));
        }
        command
    }

    /// Runs it where it has to refuse its settings, and returns the line that says so.
    pub fn refusal(self) -> String {
        let done = process::run(&mut self.command(), b"", Duration::from_secs(5));
        assert_eq!(done.code(), 2, "{}: {}", self.conninfo, done.stderr);
        assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
        done.stderr
    }

    /// Starts it as a process on this host, on a free port.
    pub fn start(self) -> Probe {
        let (mut probe, stderr) = self.start_unread();
        let log = Arc::clone(&probe.log);
        probe.forwarder = Some(thread::spawn(move || forward(stderr, &log)));
        probe
    }

    /// Starts it and reads its stderr up to the line with the port only.
    /// Whoever holds the other end of the pipe may read on, or not.
    pub fn start_unread(self) -> (Probe, BufReader<PipeReader>) {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let child = self.command().stderr(writer).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{}: {error}", self.program));
        // One byte at a time: what follows the line is another's to read.
        let mut stderr = BufReader::with_capacity(1, reader);
        let mut log = String::new();
        let address = loop {
            let before = log.len();
            let count = stderr.read_line(&mut log).expect("stderr can be read");
            if let Some(address) = address_of(&log[before..]) {
                break address;
            }
            if count == 0 {
                process::end(&mut child);
                panic!("it did not start: {log}");
            }
        };
        let probe = Probe {
            address,
            deadline: self.deadline,
            keeper: Keeper::Process(child),
            log: Arc::new(Mutex::new(log)),
            forwarder: None,
        };
        (probe, stderr)
    }

    /// Starts it in a container of its own image, as PID 1, where the names
    /// of other containers resolve.
    pub fn start_in_container(self) -> Probe {
        let container = self.run_in_container();
        let probe = Probe {
            address: SocketAddr::new(container.address, 5000),
            deadline: self.deadline,
            keeper: Keeper::Container(container),
            log: Arc::default(),
            forwarder: None,
        };
        eventually(Duration::from_secs(5), "the probe listens", || {
            Connection::try_open(probe.address).ok()
        });
        probe
    }

    /// As [`Recipe::refusal`], in a container.
    pub fn refusal_in_container(self) -> String {
        let container = self.run_in_container();
        eventually(Duration::from_secs(5), "it has ended", || {
            (!container.is_running()).then_some(())
        });
        assert_eq!(container.exit_code(), 2);
        container.logs()
    }

    fn run_in_container(&self) -> Container {
        let image = docker::probe_image();
        let run = this_run();
        let dns = run.gateway().to_string();
        names::serve(run.gateway());
        let conninfo = format!("DATABASE_URL={}", self.conninfo);
        let mut options = vec!["--dns", &dns, "--env", &conninfo];
        let variables: Vec<String> = self
            .variables
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        // To a container, this host is another one.
        options.extend(["--env", "PGPAIR_LISTEN_DETAILS=0.0.0.0:5000"]);
        for variable in &variables {
            options.extend(["--env", variable]);
        }
        options.extend(self.options.iter().map(String::as_str));
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let (name, address) = (run.new_name(), run.new_address());
        Container::run(name, address, image, &options, &arguments)
    }
}

fn address_of(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listen address=")?;
    rest.split_whitespace().next()?.parse().ok()
}

fn forward(mut stderr: BufReader<PipeReader>, log: &Mutex<String>) {
    let mut line = Vec::new();
    while stderr
        .read_until(b'\n', &mut line)
        .is_ok_and(|count| count > 0)
    {
        log.lock()
            .unwrap()
            .push_str(&String::from_utf8_lossy(&line));
        line.clear();
    }
}

enum Keeper {
    Process(Child),
    Container(Container),
    Gone,
}

/// A running probe. When it is dropped it has to stop as promised, and may not
/// have logged a password.
pub struct Probe {
    pub address: SocketAddr,
    pub deadline: Duration,
    keeper: Keeper,
    log: Arc<Mutex<String>>,
    forwarder: Option<JoinHandle<()>>,
}

impl Probe {
    /// Begins a recipe for a probe with this connection string.
    pub fn of(conninfo: impl Into<String>) -> Recipe {
        Recipe {
            program: binary(),
            conninfo: conninfo.into(),
            arguments: Vec::new(),
            variables: Vec::new(),
            wrapper: Vec::new(),
            listener: None,
            options: Vec::new(),
            deadline: ms(900),
        }
    }

    /// Starts a probe that watches one server, and waits until it is ready.
    pub fn watching(server: &Postgres) -> Probe {
        let probe = Probe::of(server.conninfo()).start();
        probe.becomes_ready();
        probe
    }

    /// Opens a connection to it.
    pub fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    /// Asks for a path, on a connection of its own.
    pub fn get(&self, path: &str) -> Answer {
        self.connect().get(path)
    }

    /// Asks `/ready`, and checks what holds for every answer to it.
    pub fn ready(&self) -> Answer {
        let answer = self.get("/ready");
        self.check_verdict(&answer);
        answer
    }

    /// Checks what holds for every verdict.
    pub fn check_verdict(&self, answer: &Answer) {
        let said = answer.json();
        match answer.status {
            200 => assert_eq!((&said["ok"], &said["reason"]), (&true.into(), &"ok".into())),
            503 => {
                assert_eq!(said["ok"], false, "{answer:?}");
                assert_ne!(said["reason"], "ok", "{answer:?}");
                assert_eq!(answer.header("Retry-After"), Some("1"), "{answer:?}");
            }
            _ => panic!("neither yes nor no: {answer:?}"),
        }
        assert_eq!(answer.header("Cache-Control"), Some("no-store"));
        let own = answer.header("Cross-Origin-Resource-Policy");
        assert_eq!(own, Some("same-origin"));
        assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
        let limit = self.deadline + TOLERANCE;
        assert!(answer.took <= limit, "later than {limit:?}: {answer:?}");
    }

    /// Asks `/ready` once: it must be 503 for one of these reasons.
    pub fn is_not_ready(&self, reasons: &[&str]) -> Answer {
        let answer = self.ready();
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(
            reasons.contains(&answer.reason().as_str()),
            "not one of {reasons:?}: {answer:?}"
        );
        answer
    }

    /// Waits until `/ready` is 503 for this reason.
    pub fn becomes_not_ready(&self, reason: &str) {
        eventually(Duration::from_secs(5), &format!("503 {reason}"), || {
            let answer = self.ready();
            (answer.status == 503 && answer.reason() == reason).then_some(())
        });
    }

    /// Waits until `/ready` is 200, no longer than a recovery may take.
    pub fn becomes_ready(&self) {
        self.becomes_ready_within(RECOVERY);
    }

    /// Waits until `/ready` is 200.
    pub fn becomes_ready_within(&self, within: Duration) {
        let mut last = String::new();
        let began = Instant::now();
        while began.elapsed() < within {
            let answer = self.ready();
            if answer.status == 200 {
                return;
            }
            last = answer.body;
            thread::sleep(ms(10));
        }
        panic!("not ready within {within:?}: {last}");
    }

    /// Asks `/health` over and over, until the guard that is returned is
    /// dropped: then every answer must have been 200, and in time.
    pub fn watch_health(&self) -> HealthWatch {
        HealthWatch::start(self.address)
    }

    /// Returns what it has logged so far.
    pub fn log(&self) -> String {
        match &self.keeper {
            Keeper::Container(container) => container.logs(),
            Keeper::Process(_) | Keeper::Gone => self.log.lock().unwrap().clone(),
        }
    }

    /// Waits until it has logged a line that contains this.
    pub fn logs(&self, text: &str) {
        eventually(Duration::from_secs(2), &format!("log {text:?}"), || {
            self.log().contains(text).then_some(())
        });
    }

    /// Returns its process id on this host.
    pub fn pid(&self) -> u32 {
        match &self.keeper {
            Keeper::Process(child) => child.id(),
            Keeper::Container(container) => container.pid(),
            Keeper::Gone => panic!("it has stopped"),
        }
    }

    /// Returns its resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        resident_bytes(self.pid())
    }

    /// Returns the processor time that it has used so far, to 10 ms.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        let stat = stat.expect("it is running");
        // The name, in parentheses, may hold anything.
        let (_, rest) = stat.rsplit_once(')').expect("a name");
        let ticks = rest.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|it| it.parse::<u64>().expect("a number")).sum();
        ms(ticks * 1_000 / rustix::param::clock_ticks_per_second())
    }

    pub fn threads(&self) -> u64 {
        status_field(self.pid(), "Threads:")
    }

    pub fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.pid());
        fs::read_dir(path).expect("it is running").count()
    }

    /// Says whether it is running.
    pub fn is_running(&mut self) -> bool {
        match &mut self.keeper {
            Keeper::Process(child) => child.try_wait().expect("our own child").is_none(),
            Keeper::Container(_) => true,
            Keeper::Gone => false,
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), signal).expect("it is running");
    }

    /// Waits for it to end by itself; returns how it did.
    pub fn ends_within(&mut self, within: Duration) -> ExitStatus {
        let Keeper::Process(child) = &mut self.keeper else {
            panic!("it is no process of ours");
        };
        let status = process::wait(child, within);
        let status = status.unwrap_or_else(|| panic!("it is still there after {within:?}"));
        self.keeper = Keeper::Gone;
        self.join_forwarder();
        status
    }

    /// Returns the container it runs in.
    pub fn container(&self) -> &Container {
        match &self.keeper {
            Keeper::Container(container) => container,
            Keeper::Process(_) | Keeper::Gone => panic!("it runs in no container"),
        }
    }

    fn join_forwarder(&mut self) {
        if let Some(forwarder) = self.forwarder.take() {
            forwarder.join().expect("it reads only");
        }
    }

    fn stop_as_promised(&mut self) {
        if matches!(self.keeper, Keeper::Process(_)) {
            assert!(self.is_running(), "it ended by itself: {}", self.log());
            self.signal(Signal::TERM);
            let status = self.ends_within(STOP_AT_MOST);
            assert_eq!(status.code(), Some(0), "after SIGTERM");
        }
        let log = self.log();
        assert!(!log.contains(PASSWORD), "a password in the log: {log}");
        assert!(!log.contains("panic"), "a panic: {log}");
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !thread::panicking() {
            return self.stop_as_promised();
        }
        if let Keeper::Process(child) = &mut self.keeper {
            process::end(child);
            self.keeper = Keeper::Gone;
            self.join_forwarder();
        }
        eprintln!("--- log of the probe at {}\n{}", self.address, self.log());
    }
}

/// Asks `/health` fifty times a second.
pub struct HealthWatch {
    enough: Arc<AtomicBool>,
    asking: Option<JoinHandle<Vec<Answer>>>,
}

impl HealthWatch {
    fn start(address: SocketAddr) -> HealthWatch {
        let enough = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&enough);
        let asking = thread::spawn(move || {
            let mut connection = Connection::open(address);
            let mut answers = vec![connection.get("/health")];
            while !stop.load(Ordering::Relaxed) {
                thread::sleep(ms(20));
                answers.push(connection.get("/health"));
            }
            answers
        });
        HealthWatch {
            enough,
            asking: Some(asking),
        }
    }
}

impl Drop for HealthWatch {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Relaxed);
        let answers = self.asking.take().expect("joined once").join();
        if thread::panicking() {
            return;
        }
        let answers = answers.expect("/health is always answered");
        assert!(
            answers.iter().all(|answer| answer.status == 200),
            "/health is always 200"
        );
        // Not the slowest two, or one in twenty: those may be the machine's,
        // which runs other tests and their containers too.
        let mut times: Vec<Duration> = answers.iter().map(|answer| answer.took).collect();
        times.sort_unstable();
        let spared = (times.len() / 20).max(2).min(times.len() - 1);
        let slowest = times[times.len() - 1 - spared];
        assert!(
            slowest < HEALTH_AT_MOST,
            "one /health in twenty took {slowest:?} or more"
        );
    }
}
