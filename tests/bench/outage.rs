//! How long a server's death and return take to be told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::contender::Contender;
use crate::support::docker::docker;
use crate::support::{Postgres, ms};

/// Time between two requests: the error of the figures.
const ASK_EVERY: Duration = ms(1);

/// How long the server stays away.
const AWAY: Duration = ms(500);

/// Longest that anything here may take: who notices the server's return only
/// when TCP has given up an attempt may need a minute.
const AT_MOST: Duration = Duration::from_secs(180);

/// What one outage showed of one program, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// From the kill to the end of the first 503.
    pub down: f64,
    /// From the order to start the server to the end of the first 200 …
    pub up: f64,
    /// … of which passed before the server let anybody in.
    pub server: f64,
}

/// Kills the server, starts it again, and asks `/ready` all the time.
pub fn outage(server: &Postgres, contenders: &[Contender]) -> Vec<Told> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watches: Vec<_> = contenders
            .iter()
            .map(|contender| scope.spawn(|| watch(contender, &over)))
            .collect();
        let killed = kill(server);
        thread::sleep(AWAY);
        let ordered = Instant::now();
        server.start_again();
        let let_in = Instant::now();
        over.store(true, Ordering::Relaxed);
        let since = |from: Instant, to: Instant| to.duration_since(from).as_secs_f64() * 1e3;
        watches
            .into_iter()
            .map(|watch| watch.join().expect("it saw both"))
            .map(|(down, up)| Told {
                down: since(killed, down),
                up: since(ordered, up),
                server: since(ordered, let_in),
            })
            .collect()
    })
}

/// Ends every process of the server at once; returns when that was.
fn kill(server: &Postgres) -> Instant {
    let pid = docker(&["inspect", "--format", "{{.State.Pid}}", server.name()]);
    let pid = pid.parse().ok().and_then(Pid::from_raw);
    let killed = Instant::now();
    kill_process(pid.expect("a running container"), Signal::KILL).expect("it can be killed");
    // Docker has to see it before it can be started again.
    docker(&["wait", server.name()]);
    killed
}

/// Returns when the first answer other than 200 had come, and the first 200
/// after it.
fn watch(contender: &Contender, over: &AtomicBool) -> (Instant, Instant) {
    let began = Instant::now();
    let mut down = None;
    loop {
        let is_up = contender.ask("/ready").map(|answer| answer.status == 200);
        let now = Instant::now();
        match (is_up, down) {
            (Some(false), None) => down = Some(now),
            (Some(true), Some(down)) => return (down, now),
            _ => {}
        }
        let missed = over.load(Ordering::Relaxed) && down.is_none();
        assert!(!missed, "{} never said 503", contender.program.name());
        assert!(
            began.elapsed() < AT_MOST,
            "{contender:?} never came back",
            contender = contender.program
        );
        thread::sleep(ASK_EVERY);
    }
}
