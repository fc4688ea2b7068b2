//! `pgpair guard`: replaces a primary that is dead or frozen, by the same rules
//! as `pgpair failover` and only without loss, brings the old one back, and
//! keeps synchronous replication as it was asked for.

pub mod pause;
pub mod state;
mod sync_controller;

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use self::state::GuardState;
use self::sync_controller::{Act, Seen, Standby, SyncController};
use super::error::{Error, Why, failed, refused};
use super::failure_detector::Decision;
use super::files::{self, Disks};
use super::host::{MAX_START, Pair};
use super::layout::Node;
use super::local_client::Row;
use super::sync::{self, Mode, Promise};
use super::transition::Moved;
use super::transition::journal::{self, Held};
use super::witnesses::{POLL_INTERVAL, Watch};
use super::{failover, rejoin, switchover};
use crate::probe::guard_report::{Report, STOPPED, WaitReason};
use crate::runtime::{process, threads};

/// What was refused or went wrong is tried again after this.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Longest for the hook.
const MAX_HOOK: Duration = Duration::from_secs(30);

/// How the guard was told to be.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// What an acknowledged commit is to promise.
    pub mode: Mode,
    /// A primary is given up after being silent for this long.
    pub confirm: Duration,
    /// With [`Mode::Sync`], commits stop to wait for a standby that has been
    /// gone for this long.
    pub sync_limit: Duration,
    /// Primaries that it replaces within an hour.
    pub max_failovers: usize,
    /// A program that is run at every event.
    pub hook: Option<PathBuf>,
}

/// Guards a pair until it is told to stop.
///
/// # Errors
///
/// Refuses while another guard is there, and a folder that is not the pair's.
pub fn guard(pair: &Pair, options: Options) -> Result<(), Error> {
    files::is_the_pairs(&pair.layout)?;
    let path = pair.layout.file(state::LOCK);
    let mut open = OpenOptions::new();
    let open = open.write(true).create(true).truncate(false).mode(0o600);
    let mut alone = open
        .open(&path)
        .map_err(|error| refused(Why::FileUnusable, format!("{}: {error}", path.display())))?;
    if flock(&alone, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(refused(Why::Busy, "another guard is at work on this pair"));
    }
    // What cannot be written is no reason to guard nothing.
    let text = state::lock_text();
    let _ = alone
        .set_len(0)
        .and_then(|()| alone.write_all(text.as_bytes()));
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    ctrlc::set_handler(move || told.store(true, Ordering::Relaxed)).map_err(|error| {
        failed(
            Why::NoResources,
            format!("signals cannot be handled: {error}"),
        )
    })?;
    let mut guard = Guard::new(pair, options);
    log::info!(
        "guard state=started prefix={} mode={} confirm_ms={} max_failovers={}",
        pair.layout.prefix,
        guard.options.mode.word(),
        guard.options.confirm.as_millis(),
        guard.options.max_failovers
    );
    while !stop.load(Ordering::Relaxed) {
        let began = pair.now();
        guard.tick();
        pair.sleep(POLL_INTERVAL.saturating_sub(pair.since(began)));
    }
    tell(pair, &mut Report::now(STOPPED));
    log::info!("guard state=stopped");
    Ok(())
}

struct Guard<'a> {
    pair: &'a Pair,
    options: Options,
    memory: GuardState,
    /// What it remembered before it was started was read.
    has_memory: bool,
    started: Instant,
    /// Who was the primary at the last look, and how it does.
    primary: Option<Watched>,
    /// When something that did not work may be tried again.
    not_before: Option<Instant>,
    /// Why nothing can be done, as it was told last.
    blocked: Option<(Why, String)>,
    /// Why a primary that does not answer is not replaced, as it was told last.
    waits: Option<WaitReason>,
    paused: bool,
}

/// What one round came to.
enum Tick {
    /// There was nothing to do, or it was done.
    Idle,
    /// Waiting (grace period or retry delay); the last reported state still applies.
    Waiting,
}

/// The primary under watch.
struct Watched {
    watch: Watch,
    sync_controller: SyncController,
}

impl<'a> Guard<'a> {
    fn new(pair: &'a Pair, options: Options) -> Guard<'a> {
        Guard {
            memory: GuardState::default(),
            has_memory: false,
            pair,
            options,
            started: pair.now(),
            primary: None,
            not_before: None,
            blocked: None,
            waits: None,
            paused: false,
        }
    }

    /// Looks once and does what has to be done.
    fn tick(&mut self) {
        let read = state::paused_until(&self.pair.layout, self.pair.machine.unix_time());
        let until = *read.as_ref().unwrap_or(&None);
        // Whoever wrote a pause that cannot be read wanted one.
        let paused = read.is_err() || until.is_some();
        self.told_of_pause(paused);
        let remembers = self.remembers();
        let acted = self.act(paused);
        // What the pair lacks is told first.
        match acted.and_then(|tick| read.and(remembers).map(|()| tick)) {
            Ok(Tick::Idle) => self.told_of_trouble(None),
            Ok(Tick::Waiting) => {}
            Err(trouble) => self.told_of_trouble(Some(trouble)),
        }
        self.report(until);
    }

    /// Has what was remembered before the guard was started. Without it nobody knows how
    /// many primaries were replaced, and so none is.
    fn remembers(&mut self) -> Result<(), Error> {
        if !self.has_memory {
            self.memory.add(GuardState::read(&self.pair.layout)?);
            self.has_memory = true;
        }
        Ok(())
    }

    fn act(&mut self, paused: bool) -> Result<Tick, Error> {
        if journal::read(&self.pair.layout)?.is_some() {
            // A primary on its way says nothing of itself.
            self.primary = None;
            if paused || !self.may_try() {
                return Ok(Tick::Waiting);
            }
            return self.finish_what_was_left();
        }
        let node = Disks::read(&self.pair.layout)?.primary;
        let (confirm, known_for) = (self.options.confirm, self.pair.since(self.started));
        let pair = self.pair;
        let look = self.watched(node)?.watch.look(pair, confirm, known_for);
        self.told_of_waiting(node, look.decision);
        if let Some(row) = look.row {
            let seen = self.seen(node, &row)?;
            self.keep(node, &seen)?;
            return self.bring_back(node, paused);
        }
        match look.decision {
            Decision::Replace if !paused && self.may_try() => self.replace(node),
            // What was said of it last holds until it answers.
            _ => Ok(Tick::Waiting),
        }
    }

    fn may_try(&self) -> bool {
        self.not_before.is_none_or(|at| self.pair.now() >= at)
    }

    fn watched(&mut self, node: Node) -> Result<&mut Watched, Error> {
        let (mode, limit) = (self.options.mode, self.options.sync_limit);
        let layout = &self.pair.layout;
        let changed = self.primary.as_ref().is_none_or(|it| it.watch.node != node);
        if changed {
            let in_force = sync::proves(layout, node);
            self.primary = Some(Watched {
                watch: Watch::of(self.pair, node)?,
                sync_controller: SyncController::new(mode, limit, in_force, self.pair.now()),
            });
        }
        Ok(self.primary.as_mut().expect("made above"))
    }

    fn seen(&self, node: Node, row: &Row) -> Result<Seen, Error> {
        let cell = |index: usize| row.get(index).and_then(Option::as_deref);
        let Some(end) = cell(0).and_then(|text| text.parse().ok()) else {
            return Err(failed(
                Why::WrongRole,
                format!("{node} is the primary on disk and runs as a standby: restart it"),
            ));
        };
        Ok(Seen {
            end,
            waits: cell(1) == Some("t"),
            standby: cell(3)
                .and_then(|text| text.parse().ok())
                .map(|flushed| Standby {
                    synchronous: cell(2) == Some("t"),
                    flushed,
                }),
        })
    }

    /// Keeps synchronous replication as it was asked for.
    fn keep(&mut self, node: Node, seen: &Seen) -> Result<(), Error> {
        let mode = self.options.mode;
        let was = sync::read(&self.pair.layout)?;
        let none_ever = was.is_none() && mode == Mode::Async;
        if none_ever || journal::read(&self.pair.layout)?.is_some() {
            // Not ours to touch: nobody asked for it, or the primary is moving.
            return Ok(());
        }
        let now = self.pair.now();
        let watched = self.watched(node)?;
        let act = watched.sync_controller.next(seen, now);
        let promise = Promise {
            mode,
            primary: node,
            in_force: watched.sync_controller.in_force(),
        };
        if was != Some(promise) {
            // Taken back before commits stop to wait; given after they all do.
            sync::write(&self.pair.layout, &promise)?;
        }
        match act {
            Act::Nothing => Ok(()),
            Act::Wait => sync::set_names(self.pair, node, true),
            Act::Settle => {
                let settled = self.pair.server(node).rows("CHECKPOINT", MAX_START);
                if let Err(error) = settled {
                    let now = self.pair.now();
                    self.watched(node)?.sync_controller.not_settled(now);
                    return Err(self.pair.no_answer(node, &error));
                }
                Ok(())
            }
            Act::Promise => {
                self.event("synchronous", &[("primary", node.name())]);
                Ok(())
            }
            Act::Degrade => {
                sync::set_names(self.pair, node, false)?;
                self.event("degraded", &[("primary", node.name())]);
                Ok(())
            }
        }
    }

    /// Replaces a primary that was silent for long enough.
    fn replace(&mut self, from: Node) -> Result<Tick, Error> {
        self.not_before = Some(self.pair.now() + RETRY_AFTER);
        self.remembers()?;
        let recent = self.memory.recent(self.pair.machine.unix_time());
        if recent >= self.options.max_failovers {
            return Err(refused(
                Why::TooManyFailovers,
                format!(
                    "{from} is dead, and {recent} primaries were replaced within the last hour: \
                 see why, then run pgpair failover"
                ),
            ));
        }
        let Some(held) = Held::take_if_free(&self.pair.layout, "guard")? else {
            return Ok(Tick::Waiting);
        };
        let silent = self.primary.as_ref();
        let silent = silent.map(|it| it.watch.unserved(self.pair.now()));
        log::warn!(
            "guard state=replacing primary={from} silent_ms={}",
            silent.unwrap_or_default().as_millis()
        );
        let moved = self.at_work(|pair| failover::replace(pair, &held, from, false))?;
        self.memory.failovers.push(self.pair.machine.unix_time());
        self.moved("failover", moved)
    }

    fn finish_what_was_left(&mut self) -> Result<Tick, Error> {
        // A command that is at work has the lock: what was said last still holds.
        let Some(held) = Held::take_if_free(&self.pair.layout, "guard")? else {
            return Ok(Tick::Waiting);
        };
        let Some(left) = held.unfinished()? else {
            return Ok(Tick::Waiting);
        };
        self.not_before = Some(self.pair.now() + RETRY_AFTER);
        let moved = self.at_work(|pair| switchover::take_up(pair, &held, left))?;
        self.moved("completed", moved)
    }

    fn moved(&mut self, event: &str, moved: Moved) -> Result<Tick, Error> {
        let (primary, old) = (moved.primary, moved.primary.other());
        self.memory.pending_rejoin = moved.alone.is_some().then_some(old);
        self.remember();
        let timeline = moved.timeline.to_string();
        self.event(
            event,
            &[("primary", primary.name()), ("timeline", &timeline)],
        );
        if let Some(trouble) = moved.alone {
            return Err(trouble);
        }
        self.event("rejoin", &[("node", old.name())]);
        Ok(Tick::Idle)
    }

    /// Brings back the node that a failover left behind.
    fn bring_back(&mut self, primary: Node, paused: bool) -> Result<Tick, Error> {
        if self.memory.pending_rejoin != Some(primary.other()) {
            return Ok(Tick::Idle);
        }
        if paused || !self.may_try() {
            return Ok(Tick::Waiting);
        }
        let Some(held) = Held::take_if_free(&self.pair.layout, "guard")? else {
            return Ok(Tick::Waiting);
        };
        self.not_before = Some(self.pair.now() + RETRY_AFTER);
        self.at_work(|pair| rejoin::rejoin(pair, primary.other(), rejoin::Extent::Whole))?;
        drop(held);
        self.memory.pending_rejoin = None;
        self.remember();
        self.event("rejoin", &[("node", primary.other().name())]);
        Ok(Tick::Idle)
    }

    fn remember(&mut self) {
        if !self.has_memory {
            // What cannot be read is not written over.
            return;
        }
        if let Err(error) = self.memory.write(&self.pair.layout) {
            log::error!("guard state=forgetful cause={:?}", error.to_string());
        }
    }

    fn told_of_pause(&mut self, paused: bool) {
        if paused != std::mem::replace(&mut self.paused, paused) {
            self.event(if paused { "paused" } else { "resumed" }, &[]);
        }
        if paused && let Some(watched) = &mut self.primary {
            // What was silent under a pause must be confirmed anew after it.
            watched.watch.forget(self.pair.now());
        }
    }

    fn told_of_waiting(&mut self, primary: Node, decision: Decision) {
        let waits = match decision {
            Decision::Wait(reason) => Some(reason),
            // It was silent for too short a time to say anything else.
            Decision::Unconfirmed => self.waits,
            Decision::Serves | Decision::Replace => None,
        };
        if waits == std::mem::replace(&mut self.waits, waits) {
            return;
        }
        let primary = ("primary", primary.name());
        match waits {
            Some(reason) => self.event("waiting", &[primary, ("reason", reason.word())]),
            None => self.event("waiting_over", &[primary]),
        }
    }

    fn told_of_trouble(&mut self, trouble: Option<Error>) {
        let blocked = trouble.map(|error| (error.why(), error.to_string()));
        if blocked == self.blocked {
            return;
        }
        match &blocked {
            Some((why, text)) => {
                self.event("blocked", &[("reason", why.word()), ("cause", text)]);
            }
            None => self.event("unblocked", &[]),
        }
        self.blocked = blocked;
    }

    fn report(&mut self, paused_until: Option<u64>) {
        let state = match (paused_until, &self.blocked, self.waits) {
            (Some(_), ..) => "paused",
            (None, Some(_), _) => "blocked",
            (None, None, Some(_)) => "waiting",
            (None, None, None) => "watching",
        };
        let mut report = self.report_of(state);
        let waits = self
            .waits
            .map(|reason| format!("the primary {}", reason.sentence()));
        let blocked = self.blocked.as_ref();
        report.blocked = blocked.map(|(why, _)| why.word().to_owned());
        report.detail = blocked.map(|(_, text)| text.clone()).or(waits);
        report.reason = self.waits;
        report.paused_until = paused_until;
        tell(self.pair, &mut report);
    }

    fn report_of(&mut self, state: &str) -> Report {
        Report {
            mode: self.options.mode.word().to_owned(),
            synchronous: self
                .primary
                .as_ref()
                .is_some_and(|it| it.sync_controller.in_force()),
            failovers: self.memory.recent(self.pair.machine.unix_time()),
            ..Report::now(state)
        }
    }

    /// Does what takes longer than a look, and lets it be known all the while.
    fn at_work<T>(&mut self, work: impl FnOnce(&Pair) -> T) -> T {
        let pair = self.pair;
        let mut report = self.report_of("working");
        let (working, done) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let telling = thread::Builder::new().spawn_scoped(scope, move || {
                loop {
                    tell(pair, &mut report);
                    if done.recv_timeout(POLL_INTERVAL) != Err(RecvTimeoutError::Timeout) {
                        return;
                    }
                }
            });
            if let Err(error) = telling {
                log::debug!("guard state=unreported cause={:?}", error.to_string());
            }
            let result = work(pair);
            drop(working);
            result
        })
    }

    /// Logs an event and runs the hook, which nobody waits for.
    fn event(&self, event: &str, facts: &[(&str, &str)]) {
        let facts: Vec<String> = facts
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        log::info!("guard event={event} {}", facts.join(" "));
        let Some(hook) = self.options.hook.clone() else {
            return;
        };
        let prefix = self.pair.layout.prefix.clone();
        let event = event.to_owned();
        let run = move || {
            let mut command = Command::new(&hook);
            command
                .arg(&event)
                .arg(format!("prefix={prefix}"))
                .args(&facts);
            match process::run(&mut command, MAX_HOOK) {
                Ok(done) if done.success => {}
                Ok(done) => log::warn!("hook event={event} said={:?}", done.last_words()),
                Err(error) => log::warn!("hook event={event} cause={:?}", error.to_string()),
            }
        };
        if let Err(error) = threads::spawn("hook".to_owned(), run) {
            log::warn!("hook cause={:?}", error.to_string());
        }
    }
}

fn tell(pair: &Pair, report: &mut Report) {
    if let Err(error) = report.write(&pair.layout.root) {
        log::debug!("guard state=unreported cause={:?}", error.to_string());
    }
}

/// Guards a pair of a test's until all is done, but no longer than this.
#[cfg(test)]
pub fn watch_for(pair: &Pair, time: Duration, done: impl Fn() -> bool) {
    let options = Options {
        mode: Mode::Async,
        confirm: Duration::from_secs(5),
        sync_limit: Duration::from_secs(10),
        max_failovers: 3,
        hook: None,
    };
    let until = pair.now() + time;
    let mut guard = Guard::new(pair, options);
    while pair.now() < until {
        guard.tick();
        if done() {
            return;
        }
        pair.sleep(POLL_INTERVAL);
    }
}
