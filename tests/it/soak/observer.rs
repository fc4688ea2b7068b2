//! The observer: plain psql in a container of its own, which looks at both
//! servers over the addresses at which pgpair reaches them, in three ways at once
//! (see [`Way`]). Nothing of pgpair is in it.

use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::process::{Child, ChildStdin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::truth::{At, Evidence, Look, Outcome, Said, WAYS, Way};
use crate::support::docker::{self, Container, this_run};
use crate::support::{PASSWORD, ms, process};

/// A look that takes longer has failed. Shorter than pgpair's deadline, and many
/// times what a good server needs.
const LOOK_AT_MOST: Duration = ms(500);

/// While a look is late, it counts as failed again after each of these.
const LATE_AGAIN: Duration = ms(200);

/// A look over a new connection, which has a time-out, ends within this however
/// busy the machine is.
const NEVER_LONGER: Duration = Duration::from_secs(30);

/// All that a server says of itself, in one line.
const QUESTION: &str = "\
    SELECT pg_is_in_recovery(), current_setting('transaction_read_only'), pg_postmaster_start_time(), \
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, \
    pg_last_wal_receive_lsn(), \
    (SELECT status || ':' || pid FROM pg_stat_wal_receiver), \
    (SELECT string_agg(state || ':' || sync_state, ',') FROM pg_stat_replication), \
    (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgpair')";

/// Its role alone: what a new connection is asked, which knows no catalogue yet.
const ROLE: &str = "\
    SELECT pg_is_in_recovery(), current_setting('transaction_read_only'), pg_postmaster_start_time(), \
    NULL, NULL, NULL, NULL, NULL";

const COMMIT: &str = "SELECT pg_logical_emit_message(true, 'soak', 'x')";

/// Asks over a new connection for every line that it reads.
const ANEW: &str = r#"while read -r n; do
    timeout 1 psql --no-psqlrc -qAt "$1" -c "$2" 2>&1
    echo "end $n $?"
done"#;

/// How `timeout` says that it had to end its command.
const TOOK_TOO_LONG: &str = "124";

/// Hands what it reads to one psql after the other; each says hello once it is
/// connected, and is mourned when it is not any more.
const KEPT: &str = r#"while :; do
    psql --no-psqlrc -qAt "$1" -c "SELECT 'hello'" -f - 2>&1
    echo lost
    sleep 0.05
done"#;

/// The observer at work.
pub struct Observer {
    began: Instant,
    /// What it saw of each server.
    pub evidence: Arc<Mutex<Vec<Evidence>>>,
    /// How many connections of pgpair's each server counted last.
    pub connections: Arc<Mutex<Vec<u64>>>,
    enough: Arc<AtomicBool>,
    streams: Vec<JoinHandle<()>>,
    container: Container,
}

impl Observer {
    /// Begins to look at the servers at these addresses.
    pub fn start(began: Instant, servers: &[IpAddr]) -> Observer {
        let run = this_run();
        let password = format!("PGPASSWORD={PASSWORD}");
        let container = Container::run(
            run.new_name(),
            run.new_address(),
            &docker::postgres_image(),
            // The truth may not come late because the machine is busy.
            &["--env", &password, "--cpu-shares", "8192"],
            &["sleep", "infinity"],
        );
        let mut observer = Observer {
            began,
            evidence: Arc::new(Mutex::new(vec![Evidence::default(); servers.len()])),
            connections: Arc::new(Mutex::new(vec![0; servers.len()])),
            enough: Arc::default(),
            streams: Vec::new(),
            container,
        };
        for (node, address) in servers.iter().enumerate() {
            for way in WAYS {
                observer.look(node, *address, way);
            }
        }
        observer
    }

    fn look(&mut self, node: usize, address: IpAddr, way: Way) {
        // What hangs on a network that is gone is given up after a while.
        let conninfo = format!(
            "host={address} user=postgres dbname=postgres connect_timeout=2 \
             tcp_user_timeout=3000 sslmode=disable gssencmode=disable application_name=observer"
        );
        let (script, question, every) = match way {
            Way::Fresh => (ANEW, ROLE, ms(150)),
            Way::Session => (KEPT, QUESTION, ms(50)),
            Way::Commit => (KEPT, COMMIT, ms(150)),
        };
        let arguments = [script, "look", &conninfo, question];
        let mut eye = Eye {
            line: Line::open(&self.container, &arguments),
            began: self.began,
            question,
            count: 0,
            note: self.note(node, way),
        };
        let enough = Arc::clone(&self.enough);
        let looking = move || {
            while !enough.load(Ordering::Relaxed) {
                match way {
                    Way::Fresh => eye.look_anew(),
                    Way::Session | Way::Commit => eye.look_while_connected(every, &enough),
                }
                thread::sleep(every);
            }
        };
        self.streams.push(thread::spawn(looking));
    }

    fn note(&self, node: usize, way: Way) -> Note {
        let evidence = Arc::clone(&self.evidence);
        let connections = Arc::clone(&self.connections);
        Box::new(move |look, count| {
            evidence.lock().unwrap()[node].add(way, look);
            if let Some(count) = count {
                connections.lock().unwrap()[node] = count;
            }
        })
    }

    /// Waits until it has seen what is wanted; says whether it has in time.
    pub fn sees(&self, within: Duration, wanted: impl Fn(&[Evidence]) -> bool) -> bool {
        let limit = Instant::now() + within;
        while !wanted(&self.evidence.lock().unwrap()) {
            if Instant::now() > limit {
                return false;
            }
            thread::sleep(ms(20));
        }
        true
    }

    /// Looks no more.
    pub fn finish(mut self) {
        self.enough.store(true, Ordering::Relaxed);
        for stream in self.streams.drain(..) {
            stream.join().expect("the observer looks on");
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Relaxed);
    }
}

/// Takes a look down, and how many connections pgpair had.
type Note = Box<dyn Fn(Look, Option<u64>) + Send>;

/// One way of looking at one server.
struct Eye {
    line: Line,
    began: Instant,
    question: &'static str,
    count: u64,
    note: Note,
}

impl Eye {
    fn now(&self) -> At {
        self.began.elapsed()
    }

    fn saw(&self, from: At, to: At, outcome: Outcome) {
        self.saw_of(from, to, (outcome, None));
    }

    fn saw_of(&self, from: At, to: At, (outcome, count): (Outcome, Option<u64>)) {
        let look = Look {
            began: from,
            ended: to,
            outcome,
        };
        (self.note)(look, count);
    }

    /// One look over a new connection.
    fn look_anew(&mut self) {
        self.count += 1;
        let from = self.now();
        self.line.say(&self.count.to_string());
        let mut outcome = Outcome::Failed;
        let end = format!("end {} ", self.count);
        loop {
            let Some((at, line)) = self.line.hear(NEVER_LONGER) else {
                return self.saw(from, self.now(), Outcome::Unclear);
            };
            if let Some(code) = line.strip_prefix(&end) {
                if code == TOOK_TOO_LONG {
                    outcome = Outcome::Slow;
                }
                return self.saw(from, at - self.began, outcome);
            }
            if line.contains('|') || line.contains("ERROR:") {
                outcome = understood(&line).0;
            }
        }
    }

    /// Looks over one connection until that is lost, or it is enough.
    fn look_while_connected(&mut self, every: Duration, enough: &AtomicBool) {
        if !self.connects() {
            return;
        }
        while !enough.load(Ordering::Relaxed) {
            if !self.looks_again(enough) {
                return;
            }
            thread::sleep(every);
        }
    }

    /// Waits for a connection; one look fails if there is none. Of commits that says
    /// nothing: that the server is down is for the other ways to prove.
    fn connects(&mut self) -> bool {
        let from = self.now();
        let limit = Instant::now() + LOOK_AT_MOST;
        let mut outcome = Outcome::Slow;
        while let Some((_, line)) = self
            .line
            .hear(limit.saturating_duration_since(Instant::now()))
        {
            match line.as_str() {
                "hello" => return true,
                "lost" => {
                    outcome = Outcome::Failed;
                    break;
                }
                _ => {}
            }
        }
        if self.question == COMMIT {
            outcome = Outcome::Unclear;
        }
        self.saw(from, self.now(), outcome);
        false
    }

    /// One look; says whether the connection is still there.
    fn looks_again(&mut self, enough: &AtomicBool) -> bool {
        self.count += 1;
        let mut from = self.now();
        let ask = self
            .question
            .replacen("SELECT ", &format!("SELECT {}, ", self.count), 1);
        self.line.say(&format!("{ask};"));
        let mut within = LOOK_AT_MOST;
        while !enough.load(Ordering::Relaxed) {
            let heard = self.line.hear(within);
            let to = heard
                .as_ref()
                .map_or_else(|| self.now(), |(at, _)| *at - self.began);
            match heard.as_ref().map(|(_, line)| line.as_str()) {
                None => {
                    self.saw(from, to, Outcome::Slow);
                    (from, within) = (to, LATE_AGAIN);
                }
                Some("lost") => {
                    self.saw(from, to, Outcome::Failed);
                    return false;
                }
                Some(line) => {
                    let Some(found) = self.answer_in(line) else {
                        continue;
                    };
                    // A late answer tells of a moment that nobody knows.
                    let late = within != LOOK_AT_MOST;
                    let unclear = (Outcome::Unclear, found.1);
                    self.saw_of(from, to, if late { unclear } else { found });
                    return true;
                }
            }
        }
        false
    }

    /// Understands a line if it answers the last question.
    fn answer_in(&self, line: &str) -> Option<(Outcome, Option<u64>)> {
        if line.contains("ERROR:") {
            let standby = line.contains("during recovery") && self.question == COMMIT;
            let outcome = if standby {
                Outcome::Failed
            } else {
                Outcome::Unclear
            };
            return Some((outcome, None));
        }
        let (number, answer) = line.split_once('|')?;
        (number == self.count.to_string()).then(|| {
            if self.question == COMMIT {
                (Outcome::Committed, None)
            } else {
                understood(answer)
            }
        })
    }
}

/// Understands a server's line about itself.
fn understood(line: &str) -> (Outcome, Option<u64>) {
    let columns: Vec<&str> = line.split('|').collect();
    let [
        recovery,
        read_only,
        boot,
        lsn,
        received,
        receiver,
        senders,
        count,
    ] = columns[..]
    else {
        let outcome = if line.contains("ERROR:") {
            Outcome::Unclear
        } else {
            Outcome::Failed
        };
        return (outcome, None);
    };
    let in_recovery = recovery == "t";
    let lsn = position(lsn);
    let said = Said {
        in_recovery,
        read_only: !in_recovery && read_only == "on",
        boot: boot.to_owned(),
        lsn,
        received: position(received).max(lsn),
        receiver: receiver.to_owned(),
        senders: senders.to_owned(),
    };
    (Outcome::Said(said), count.parse().ok())
}

/// Reads a position in the WAL, as in `1/2A`; nothing is the very first.
fn position(text: &str) -> u64 {
    let (high, low) = text.split_once('/').unwrap_or(("0", "0"));
    let part = |digits| u64::from_str_radix(digits, 16).unwrap_or(0);
    part(high) << 32 | part(low)
}

/// A conversation in lines with a script in a container.
struct Line {
    child: Child,
    stdin: ChildStdin,
    heard: Receiver<(Instant, String)>,
}

impl Line {
    fn open(container: &Container, arguments: &[&str]) -> Line {
        let mut child = container.converse(arguments);
        let stdout = child.stdout.take().expect("a pipe");
        let (sender, heard) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send((Instant::now(), line));
            }
        });
        Line {
            stdin: child.stdin.take().expect("a pipe"),
            child,
            heard,
        }
    }

    fn say(&mut self, line: &str) {
        // Who does not listen any more does not answer either.
        let _ = writeln!(self.stdin, "{line}");
    }

    fn hear(&self, within: Duration) -> Option<(Instant, String)> {
        match self.heard.recv_timeout(within) {
            Ok(heard) => Some(heard),
            Err(RecvTimeoutError::Timeout) => None,
            // The container is gone: nothing will ever be seen again.
            Err(RecvTimeoutError::Disconnected) => {
                thread::sleep(within.min(LATE_AGAIN));
                None
            }
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        process::end(&mut self.child);
    }
}
