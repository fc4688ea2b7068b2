//! Where requests wait: parked until an observation that began after they
//! arrived is published, or their deadline passes.
//!
//! No thread waits for PostgreSQL on behalf of a request. One watcher a node
//! asks ([`super::watch`]); whoever publishes settles everybody concerned.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::Level;

use super::node::{Facts, Failure, Observation, Reason};
use super::verdict::{self, Policy, Scope, Sight, Silence, Verdict};

/// Longest time between two looks of the sweep, so that its pulse shows that
/// our own machinery turns.
const SWEEP_AT_LEAST_EVERY: Duration = Duration::from_secs(1);

/// A sweep that has not come round for this long is stuck. Five missed turns:
/// a busy machine delays one, not five.
const PULSE_LIMIT: Duration = Duration::from_secs(5);

/// After a failure the next try waits this long (a quarter of the deadline if
/// that is less), so that many requests do not hammer a server that refuses.
const PACE_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// A stuck watcher that cannot be replaced yet is looked at again after this.
const STUCK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Somebody who asked and waits for the verdict.
pub trait Asker: Send + 'static {
    /// Hands the verdict over. Called without any lock held.
    fn settle(self, verdict: Verdict);
}

/// What the board is told when it is made.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Names of the nodes, in the order of the configuration.
    pub nodes: Arc<[String]>,
    /// When the pair is ready.
    pub policy: Policy,
    /// Longest that an answer may take.
    pub deadline: Duration,
    /// Time between observations that nobody asked for.
    pub interval: Duration,
    /// An observation under way for longer than this is stuck.
    pub stuck_after: Duration,
}

/// Everything known of the nodes, and everybody who waits to know.
pub struct Board<A> {
    rules: Rules,
    state: Mutex<State<A>>,
    sweep: Condvar,
    watchers: Vec<Condvar>,
    made: Instant,
    /// When the sweep last came round: milliseconds since `made`. Not behind
    /// the lock, so that asking for it cannot wait.
    pulse_ms: AtomicU64,
}

struct State<A> {
    /// Counts observations as they begin: an observation settles a request
    /// only if its number is higher than the count when the request arrived.
    begun: u64,
    nodes: Vec<Node>,
    parked: VecDeque<Parked<A>>,
    last_primary: Option<usize>,
    logged_pair: Option<(bool, Reason, Option<usize>)>,
    sweep_sleeps_until: Option<Instant>,
    closed: bool,
}

struct Node {
    /// The watcher that may speak for the node; others were abandoned.
    epoch: u64,
    /// The watcher waits for something to do.
    idle: bool,
    /// Somebody waits for an observation that has not begun yet.
    wanted: bool,
    /// The next observation that nobody asked for.
    due: Instant,
    /// Not before this, whoever asks.
    not_before: Instant,
    under_way: Option<UnderWay>,
    latest: Option<Latest>,
    /// When the node last answered, or when pgpair began to ask.
    silent_since: Instant,
    /// It owes an answer for longer than the deadline.
    overdue: bool,
    logged: Option<(Reason, Option<&'static str>)>,
}

struct UnderWay {
    number: u64,
    began: Instant,
    stuck_at: Instant,
    so_far: Option<Failure>,
}

struct Latest {
    number: u64,
    seen: Observation,
}

struct Parked<A> {
    asker: A,
    scope: Scope,
    arrived: u64,
    deadline: Instant,
}

/// What to do once the lock is released: answers to give and lines to log.
struct Aftermath<A> {
    settled: Vec<(A, Verdict)>,
    lines: Vec<(Level, String)>,
}

impl<A: Asker> Aftermath<A> {
    fn none() -> Aftermath<A> {
        Aftermath {
            settled: Vec::new(),
            lines: Vec::new(),
        }
    }

    fn carry_out(self) {
        for (level, line) in self.lines {
            log::log!(level, "{line}");
        }
        for (asker, verdict) in self.settled {
            asker.settle(verdict);
        }
    }
}

impl<A: Asker> Board<A> {
    /// Makes a board on which nothing is known yet.
    pub fn new(rules: Rules) -> Board<A> {
        let now = Instant::now();
        let nodes = rules
            .nodes
            .iter()
            .map(|_| Node {
                epoch: 0,
                idle: false,
                wanted: false,
                due: now,
                not_before: now,
                under_way: None,
                latest: None,
                silent_since: now,
                overdue: false,
                logged: None,
            })
            .collect();
        Board {
            watchers: rules.nodes.iter().map(|_| Condvar::new()).collect(),
            state: Mutex::new(State {
                begun: 0,
                nodes,
                parked: VecDeque::new(),
                last_primary: None,
                logged_pair: None,
                sweep_sleeps_until: None,
                closed: false,
            }),
            sweep: Condvar::new(),
            made: now,
            pulse_ms: AtomicU64::new(0),
            rules,
        }
    }

    /// Returns the rules that the board was made with.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Parks a question until it can be answered; answers it at once where
    /// that is already certain.
    pub fn ask(&self, scope: Scope, asker: A) {
        let now = Instant::now();
        let mut state = self.lock();
        if state.closed {
            drop(state);
            return asker.settle(Verdict::draining());
        }
        let question = Parked {
            asker,
            scope,
            arrived: state.begun,
            deadline: now + self.rules.deadline,
        };
        match self.decide(&state, &question, now) {
            Some(verdict) => {
                drop(state);
                question.asker.settle(verdict);
            }
            None => {
                let deadline = question.deadline;
                state.parked.push_back(question);
                self.want(&mut state, scope);
                self.wake_sweep_by(&state, deadline);
            }
        }
    }

    /// Waits until the watcher of this epoch should observe `node`, and
    /// returns the observation's number. `None`: the watcher was replaced, or
    /// the board is closed, and it should end.
    pub fn begin(&self, node: usize, epoch: u64) -> Option<u64> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if state.closed || state.nodes[node].epoch != epoch {
                return None;
            }
            let this = &mut state.nodes[node];
            let due = if this.wanted {
                this.not_before
            } else {
                this.due.max(this.not_before)
            };
            if due <= now {
                return Some(self.begun(&mut state, node, now));
            }
            this.idle = true;
            let (guard, _) = self.watchers[node]
                .wait_timeout(state, due - now)
                .unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.nodes[node].idle = false;
        }
    }

    /// Records what has already gone wrong in the observation under way.
    pub fn note(&self, node: usize, epoch: u64, failure: Failure) {
        let mut state = self.lock();
        let this = &mut state.nodes[node];
        if this.epoch == epoch
            && let Some(under_way) = &mut this.under_way
        {
            under_way.so_far = Some(failure);
        }
    }

    /// Publishes the observation that began as `number` and answers everybody
    /// whom it settles. Returns `false` if the watcher was replaced meanwhile.
    pub fn publish(
        &self,
        node: usize,
        epoch: u64,
        number: u64,
        outcome: Result<Facts, Failure>,
    ) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        let this = &mut state.nodes[node];
        let began = match this.under_way.take_if(|it| it.number == number) {
            Some(under_way) if this.epoch == epoch => under_way.began,
            _ => return false,
        };
        let seen = Observation {
            began,
            ended: now,
            outcome,
        };
        this.take_in(number, seen, &self.rules);
        if this.latest_is_writable_primary() {
            state.last_primary = Some(node);
        }
        let mut after = Aftermath::none();
        self.log_changes(&mut state, node, now, &mut after);
        self.settle(&mut state, Some(node), now, &mut after);
        drop(state);
        after.carry_out();
        true
    }

    /// Answers those whose deadline has passed, marks nodes that owe an
    /// answer, and waits for the next thing to do. Returns the nodes whose
    /// watcher is stuck, or `None` when the board is closed.
    pub fn sweep(&self) -> Option<Vec<usize>> {
        let now = Instant::now();
        let mut state = self.lock();
        if state.closed {
            return None;
        }
        self.pulse_ms.store(self.elapsed_ms(), Ordering::Relaxed);
        let mut after = Aftermath::none();
        for node in 0..state.nodes.len() {
            if state.nodes[node].turns_overdue(now, self.rules.deadline) {
                self.log_changes(&mut state, node, now, &mut after);
            }
        }
        self.settle(&mut state, None, now, &mut after);
        drop(state);
        after.carry_out();
        Some(self.sleep_until_next())
    }

    /// Returns the epoch that the next watcher of `node` will have.
    pub fn next_epoch(&self, node: usize) -> u64 {
        self.lock().nodes[node].epoch + 1
    }

    /// Gives `node` to the watcher of this epoch: what an older one says from
    /// now on is ignored, and who waits for it waits for the new one.
    pub fn take_over(&self, node: usize, epoch: u64) {
        let now = Instant::now();
        let mut state = self.lock();
        let this = &mut state.nodes[node];
        this.epoch = epoch;
        this.under_way = None;
        this.due = now;
        this.not_before = now;
    }

    /// Leaves a stuck watcher in place and looks at it again a little later.
    pub fn leave_stuck(&self, node: usize) {
        let again = Instant::now() + STUCK_AGAIN_AFTER;
        if let Some(under_way) = &mut self.lock().nodes[node].under_way {
            under_way.stuck_at = again;
        }
    }

    /// Says whether the machinery behind the answers turns: the sweep came
    /// round lately. A watcher stuck on a frozen PostgreSQL does not count.
    pub fn turns(&self) -> bool {
        let silent = self
            .elapsed_ms()
            .saturating_sub(self.pulse_ms.load(Ordering::Relaxed));
        Duration::from_millis(silent) < PULSE_LIMIT
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns how many requests are parked.
    pub fn waiting(&self) -> usize {
        self.lock().parked.len()
    }

    /// Answers everybody with `draining` and ends watchers and sweep.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let parked = std::mem::take(&mut state.parked);
        drop(state);
        self.sweep.notify_all();
        self.watchers.iter().for_each(Condvar::notify_all);
        for question in parked {
            question.asker.settle(Verdict::draining());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<A>> {
        // A panic of ours ends the process, so a poisoned lock is never seen.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begun(&self, state: &mut State<A>, node: usize, now: Instant) -> u64 {
        state.begun += 1;
        let number = state.begun;
        let this = &mut state.nodes[node];
        this.wanted = false;
        this.due = now + self.rules.interval;
        this.under_way = Some(UnderWay {
            number,
            began: now,
            stuck_at: now + self.rules.stuck_after,
            so_far: None,
        });
        self.wake_sweep_by(state, now + self.rules.deadline);
        number
    }

    fn want(&self, state: &mut State<A>, scope: Scope) {
        for (index, node) in state.nodes.iter_mut().enumerate() {
            if scope.covers(index) && !node.wanted {
                node.wanted = true;
                if node.idle {
                    self.watchers[index].notify_one();
                }
            }
        }
    }

    /// Wakes the sweep if it would sleep past `instant`.
    fn wake_sweep_by(&self, state: &State<A>, instant: Instant) {
        if state
            .sweep_sleeps_until
            .is_some_and(|until| until > instant)
        {
            self.sweep.notify_one();
        }
    }

    fn sleep_until_next(&self) -> Vec<usize> {
        let mut state = self.lock();
        let now = Instant::now();
        let stuck = state.stuck(now);
        if !stuck.is_empty() || state.closed {
            return stuck;
        }
        let until = self.next_event(&state, now);
        state.sweep_sleeps_until = Some(until);
        let (mut state, _) = self
            .sweep
            .wait_timeout(state, until.saturating_duration_since(now))
            .unwrap_or_else(PoisonError::into_inner);
        state.sweep_sleeps_until = None;
        Vec::new()
    }

    fn next_event(&self, state: &State<A>, now: Instant) -> Instant {
        let limits = state.nodes.iter().filter_map(|node| {
            let under_way = node.under_way.as_ref()?;
            Some(if node.overdue {
                under_way.stuck_at
            } else {
                under_way.began + self.rules.deadline
            })
        });
        // Parked in order of arrival, all with the same deadline.
        let first = state.parked.front().map(|question| question.deadline);
        limits
            .chain(first)
            .fold(now + SWEEP_AT_LEAST_EVERY, Instant::min)
    }

    /// Moves everybody who can be answered into `after`; only those whom
    /// `node` concerns, if it is given.
    fn settle(
        &self,
        state: &mut State<A>,
        node: Option<usize>,
        now: Instant,
        after: &mut Aftermath<A>,
    ) {
        let mut waiting = VecDeque::with_capacity(state.parked.len());
        for question in std::mem::take(&mut state.parked) {
            let concerned = node.is_none_or(|node| question.scope.covers(node));
            match concerned
                .then(|| self.decide(state, &question, now))
                .flatten()
            {
                Some(verdict) => after.settled.push((question.asker, verdict)),
                None => waiting.push_back(question),
            }
        }
        state.parked = waiting;
    }

    fn decide(&self, state: &State<A>, question: &Parked<A>, now: Instant) -> Option<Verdict> {
        let sights: Vec<_> = state
            .nodes
            .iter()
            .enumerate()
            .filter(|(index, _)| question.scope.covers(*index))
            .map(|(index, node)| (index, node.sight(question.arrived, question.deadline, now)))
            .collect();
        verdict::ready(self.rules.policy, &sights, state.last_primary, now)
    }

    fn log_changes(
        &self,
        state: &mut State<A>,
        node: usize,
        now: Instant,
        after: &mut Aftermath<A>,
    ) {
        let name = &self.rules.nodes[node];
        after.lines.extend(state.nodes[node].change(name));
        let sights: Vec<_> = state
            .nodes
            .iter()
            .enumerate()
            .map(|(index, node)| (index, node.as_last_known()))
            .collect();
        let Some(verdict) = verdict::ready(self.rules.policy, &sights, state.last_primary, now)
        else {
            return;
        };
        let what = (verdict.ok, verdict.reason, verdict.node);
        if state.logged_pair != Some(what) {
            state.logged_pair = Some(what);
            let node = verdict.node.map_or(String::new(), |node| {
                format!(" node={}", self.rules.nodes[node])
            });
            let line = format!("pair ready={} reason={}{node}", verdict.ok, verdict.reason);
            after.lines.push((level(verdict.ok), line));
        }
    }
}

impl<A> State<A> {
    fn stuck(&self, now: Instant) -> Vec<usize> {
        let is_stuck = |node: &Node| node.under_way.as_ref().is_some_and(|it| it.stuck_at <= now);
        (0..self.nodes.len())
            .filter(|&index| is_stuck(&self.nodes[index]))
            .collect()
    }
}

impl Node {
    fn take_in(&mut self, number: u64, seen: Observation, rules: &Rules) {
        let late = seen.took() > rules.deadline;
        let failed = seen.outcome.is_err();
        // A failure that took longer than the deadline is no sign of life:
        // the next one would keep everybody waiting as long again.
        self.overdue = failed && late;
        if !self.overdue {
            self.silent_since = seen.ended;
        }
        if failed {
            self.not_before = seen.began + PACE_AFTER_FAILURE.min(rules.deadline / 4);
        } else {
            self.not_before = seen.ended;
        }
        self.latest = Some(Latest { number, seen });
    }

    fn latest_is_writable_primary(&self) -> bool {
        self.latest
            .as_ref()
            .and_then(|latest| latest.seen.facts())
            .is_some_and(Facts::is_writable_primary)
    }

    /// Marks the node overdue if it is; says whether that is new.
    fn turns_overdue(&mut self, now: Instant, deadline: Duration) -> bool {
        let late = self
            .under_way
            .as_ref()
            .is_some_and(|under_way| under_way.began + deadline <= now);
        let new = late && !self.overdue;
        self.overdue |= late;
        new
    }

    fn sight(&self, arrived: u64, deadline: Instant, now: Instant) -> Sight<'_> {
        match &self.latest {
            Some(latest) if latest.number > arrived => Sight::Fresh(&latest.seen),
            _ if deadline <= now => Sight::TimedOut(self.silence()),
            _ if self.overdue => Sight::Overdue(self.silence()),
            _ => Sight::Pending,
        }
    }

    fn as_last_known(&self) -> Sight<'_> {
        match &self.latest {
            _ if self.overdue => Sight::Overdue(self.silence()),
            Some(latest) => Sight::Fresh(&latest.seen),
            None => Sight::Pending,
        }
    }

    fn silence(&self) -> Silence<'_> {
        let under_way = self.under_way.as_ref().and_then(|it| it.so_far.as_ref());
        let late = self
            .latest
            .as_ref()
            .and_then(|latest| latest.seen.outcome.as_ref().err())
            .filter(|failure| self.overdue && failure.reason != Reason::TimedOut);
        Silence {
            since: self.silent_since,
            so_far: under_way.or(late),
        }
    }

    /// Returns a line for the log if the node's state is not what was logged.
    fn change(&mut self, name: &str) -> Option<(Level, String)> {
        let (reason, role, failure) = match (&self.latest, self.overdue) {
            (_, true) => {
                let so_far = self.silence().so_far.cloned();
                (
                    so_far.as_ref().map_or(Reason::TimedOut, |it| it.reason),
                    None,
                    so_far,
                )
            }
            (Some(latest), false) => match &latest.seen.outcome {
                Ok(facts) => (Reason::Ok, Some(facts.role()), None),
                Err(failure) => (failure.reason, None, Some(failure.clone())),
            },
            (None, false) => return None,
        };
        if self.logged == Some((reason, role)) {
            return None;
        }
        self.logged = Some((reason, role));
        let line = node_line(name, reason, role, failure.as_ref());
        Some((level(reason == Reason::Ok), line))
    }
}

fn level(good: bool) -> Level {
    if good { Level::Info } else { Level::Warn }
}

fn node_line(
    name: &str,
    reason: Reason,
    role: Option<&'static str>,
    failure: Option<&Failure>,
) -> String {
    let mut line = format!("node node={name} reason={reason}");
    if let Some(role) = role {
        line.push_str(&format!(" role={role}"));
    }
    if let Some(failure) = failure {
        line.push_str(&format!(" detail={:?}", failure.detail));
        if !failure.cause.is_empty() {
            line.push_str(&format!(" cause={:?}", failure.cause));
        }
    }
    line
}

#[cfg(test)]
mod tests;
