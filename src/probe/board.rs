//! Where requests wait: parked until an observation that began after they
//! arrived is published, or their deadline passes.
//!
//! No thread waits for PostgreSQL on behalf of a request. Watchers ask
//! ([`super::watch`]), each in a lane of its own: one lane a node for what the
//! node says, one for whether a commit goes through there, and one for whether a
//! new login does. Whoever publishes settles everybody concerned.

mod history;
mod lane;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::Level;

use self::history::Record;
use self::lane::{Kind, Lane};
use super::assessment::{Assessment, Known};
use super::node::{Depth, Facts, Failure, Observation, Reason, What};
use super::verdict::{self, Ask, Circumstances, Policy, Question, Scope, Trials, Verdict, View};
use crate::runtime::threads::lock;

pub use self::history::{BUCKETS as OBSERVATION_BUCKETS, NodeCounts, Transition};
pub use self::lane::LOGIN_INTERVAL;

/// Longest time between two looks of the sweep, so that its pulse shows that
/// our own machinery turns.
const SWEEP_AT_LEAST_EVERY: Duration = Duration::from_secs(1);

/// A sweep that has not come round for this long is stuck. Five missed turns:
/// a busy machine delays one, not five.
const PULSE_LIMIT: Duration = Duration::from_secs(5);

/// A stuck watcher that cannot be replaced yet is looked at again after this.
const STUCK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// While no node is known to be a writable primary, those that answer are asked
/// this often, so that a promotion is seen when it happens. After
/// [`PROMOTION_EXPECTED_FOR`] it is [`NO_PRIMARY_SLOW`].
const NO_PRIMARY_FAST: Duration = Duration::from_millis(20);
const NO_PRIMARY_SLOW: Duration = Duration::from_millis(100);
const PROMOTION_EXPECTED_FOR: Duration = Duration::from_secs(60);

/// Facts live for an interval and a deadline, but for no less than an interval
/// and this: a busy machine may begin an observation that much late.
const LIFETIME_SLACK: Duration = Duration::from_millis(250);

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

impl Rules {
    /// Returns how old an observation may be and still show what is: an interval
    /// and a deadline.
    pub fn lifetime(&self) -> Duration {
        self.interval + self.deadline.max(LIFETIME_SLACK)
    }

    /// Says whether an observation is too old to show what is.
    fn has_expired(&self, seen: &Observation, now: Instant) -> bool {
        now.saturating_duration_since(seen.began) > self.lifetime()
    }
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
    /// The nodes' lanes for observations, then those for commits, then those for
    /// logins, each in the order of the configuration.
    lanes: Vec<Lane>,
    parked: VecDeque<Parked<A>>,
    last_primary: Option<usize>,
    /// Since when no node is known to be a writable primary.
    without_primary: Option<Instant>,
    record: Record,
    sweep_sleeps_until: Option<Instant>,
    closed: bool,
}

struct Parked<A> {
    asker: A,
    question: Question,
    arrival: Arrival,
}

/// When a request arrived, in every way that matters.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    begun: u64,
    at: Instant,
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

/// All that is known at one moment, for those who report it.
#[derive(Clone, Debug)]
pub struct Report {
    /// The pair and its nodes, judged.
    pub assessment: Assessment,
    /// What `/ready` would say of it.
    pub ready: Verdict,
    /// Every node's last words, in the order of the configuration.
    pub nodes: Vec<NodeReport>,
    /// The last changes, newest first.
    pub transitions: Vec<Transition>,
}

/// One node's last words.
#[derive(Clone, Debug)]
pub struct NodeReport {
    /// What it said last, as far as it is not too old.
    pub facts: Option<Facts>,
    /// Since it last answered, or since pgpair began to ask; absent until a
    /// first round trip has ended or is late.
    pub age: Option<Duration>,
    /// The age of what it said of replication.
    pub replication_age: Option<Duration>,
    /// What became of the last new login, and when that began.
    pub login: Option<Login>,
    /// The end of the certificate that it showed last, in seconds since 1970.
    pub certificate_good_until: Option<i64>,
    /// What was counted over time.
    pub counts: NodeCounts,
    /// Lag over the last minutes, oldest first; unknown where it was.
    pub lag_bytes: Vec<Option<u64>>,
}

/// What became of a new login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login {
    /// `ok`, or why it failed.
    pub reason: Reason,
    /// Since it was tried.
    pub age: Duration,
}

impl<A: Asker> Board<A> {
    /// Makes a board on which nothing is known yet.
    pub fn new(rules: Rules) -> Board<A> {
        let now = Instant::now();
        let nodes = rules.nodes.len();
        let lanes: Vec<Lane> = Kind::ALL
            .into_iter()
            .flat_map(|kind| (0..nodes).map(move |_| Lane::new(kind, now)))
            .collect();
        Board {
            watchers: lanes.iter().map(|_| Condvar::new()).collect(),
            state: Mutex::new(State {
                begun: 0,
                lanes,
                parked: VecDeque::new(),
                last_primary: None,
                without_primary: Some(now),
                record: Record::new(nodes, now),
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

    /// Names the watcher of a lane: `watch-a`, `write-a`, `login-a`.
    pub fn lane_name(&self, lane: usize) -> String {
        let nodes = self.rules.nodes.len();
        let kind = match Kind::ALL[lane / nodes] {
            Kind::Observe => "watch",
            Kind::Commit => "write",
            Kind::Login => "login",
        };
        format!("{kind}-{}", self.rules.nodes[lane % nodes])
    }

    /// Parks a question until it can be answered; answers it at once where
    /// that is already certain.
    pub fn ask(&self, question: Question, asker: A) {
        let now = Instant::now();
        let mut state = self.lock();
        if state.closed {
            drop(state);
            return asker.settle(Verdict::draining());
        }
        let parked = Parked {
            asker,
            question,
            arrival: Arrival {
                begun: state.begun,
                at: now,
                deadline: now + self.rules.deadline,
            },
        };
        match self.decide(&state, question, parked.arrival, now) {
            Some(verdict) => {
                drop(state);
                parked.asker.settle(verdict);
            }
            None => {
                self.demand(&mut state, question);
                self.wake_sweep_by(&state, parked.arrival.deadline);
                state.parked.push_back(parked);
            }
        }
    }

    /// Waits until the watcher of this epoch has something to do in its lane,
    /// and returns the observation's number and what it is. `None`: the watcher
    /// was replaced, or the board is closed, and it should end.
    pub fn begin(&self, lane: usize, epoch: u64) -> Option<(u64, What)> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if state.closed || state.lanes[lane].epoch != epoch {
                return None;
            }
            let wait = match self.next(&state, lane, now) {
                Ok(what) => return Some((self.begun(&mut state, lane, what, now), what)),
                Err(wait) => wait,
            };
            state.lanes[lane].idle = true;
            state = match wait {
                Some(wait) => {
                    let waited = self.watchers[lane].wait_timeout(state, wait);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.watchers[lane].wait(state);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
            state.lanes[lane].idle = false;
        }
    }

    /// Returns what the lane has to do now, or how long to wait. A new login is tried
    /// beside a connection that is held: without one, who observes logs in anew, and
    /// may need the last connection that the role has left.
    fn next(&self, state: &State<A>, lane: usize, now: Instant) -> Result<What, Option<Duration>> {
        let this = &state.lanes[lane];
        let node = lane % self.rules.nodes.len();
        if this.kind == Kind::Login && !state.lanes[node].has_answered() {
            return Err(None);
        }
        this.next(now)
    }

    /// Records what has already gone wrong in the observation under way.
    pub fn note(&self, lane: usize, epoch: u64, failure: Failure) {
        let mut state = self.lock();
        let this = &mut state.lanes[lane];
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
        lane: usize,
        epoch: u64,
        number: u64,
        outcome: Result<Facts, Failure>,
    ) -> bool {
        let ended = Instant::now();
        let mut state = self.lock();
        // By now, nothing that is known lies in the future.
        let now = Instant::now();
        let State { lanes, record, .. } = &mut *state;
        let this = &mut lanes[lane];
        let under_way = match this.under_way.take_if(|it| it.number == number) {
            Some(under_way) if this.epoch == epoch => under_way,
            _ => return false,
        };
        let seen = Observation {
            began: under_way.began,
            ended,
            outcome,
        };
        let node = lane % self.rules.nodes.len();
        let mut after = Aftermath::none();
        match this.kind {
            Kind::Observe => record.observed(node, &seen),
            Kind::Login => after
                .lines
                .extend(record.login(node, &self.rules.nodes[node], &seen)),
            Kind::Commit => {}
        }
        let answered_before = this.has_answered();
        this.take_in(number, seen, under_way.so_far.is_some(), &self.rules);
        if this.kind == Kind::Observe {
            let logins = 2 * self.rules.nodes.len() + node;
            if this.has_answered() && !answered_before {
                self.watchers[logins].notify_one();
            }
            let known = this.known(now, &self.rules);
            if known.facts().is_some_and(Facts::is_writable_primary) {
                state.last_primary = Some(node);
            }
            self.record_changes(&mut state, now, &mut after);
        }
        self.settle(&mut state, Some(node), now, &mut after);
        drop(state);
        after.carry_out();
        true
    }

    /// Answers those whose deadline has passed, marks nodes that owe an
    /// answer, and waits for the next thing to do. Returns the lanes whose
    /// watcher is stuck, or `None` when the board is closed.
    pub fn sweep(&self) -> Option<Vec<usize>> {
        let mut state = self.lock();
        let now = Instant::now();
        if state.closed {
            return None;
        }
        self.pulse_ms.store(self.elapsed_ms(), Ordering::Relaxed);
        let mut after = Aftermath::none();
        for lane in &mut state.lanes {
            lane.mark_overdue(now, self.rules.deadline);
        }
        self.record_changes(&mut state, now, &mut after);
        self.settle(&mut state, None, now, &mut after);
        drop(state);
        after.carry_out();
        Some(self.sleep_until_next())
    }

    /// Returns the epoch that the next watcher of `lane` will have.
    pub fn next_epoch(&self, lane: usize) -> u64 {
        self.lock().lanes[lane].epoch + 1
    }

    /// Gives `lane` to the watcher of this epoch: what an older one says from
    /// now on is ignored, and who waits for it waits for the new one.
    pub fn take_over(&self, lane: usize, epoch: u64) {
        let mut state = self.lock();
        let now = Instant::now();
        state.lanes[lane].take_over(epoch, now);
        state.record.abandoned(lane % self.rules.nodes.len());
    }

    /// Leaves a stuck watcher in place and looks at it again a little later.
    pub fn leave_stuck(&self, lane: usize) {
        let again = Instant::now() + STUCK_AGAIN_AFTER;
        if let Some(under_way) = &mut self.lock().lanes[lane].under_way {
            under_way.stuck_at = Some(again);
        }
    }

    /// Reports all that is known now.
    pub fn report(&self) -> Report {
        let state = self.lock();
        let now = Instant::now();
        let known = self.known(&state, now);
        let assessment = state.record.assess(&known, &self.rules.nodes, now);
        let nodes = known
            .iter()
            .enumerate()
            .map(|(node, known)| self.node_report(&state, node, known, now))
            .collect();
        Report {
            ready: self.ready_by_last_words(&state, now),
            assessment,
            nodes,
            transitions: state.record.transitions(),
        }
    }

    fn node_report(
        &self,
        state: &State<A>,
        node: usize,
        known: &Known<'_>,
        now: Instant,
    ) -> NodeReport {
        let age_of = |then: Instant| now.saturating_duration_since(then);
        let nodes = self.rules.nodes.len();
        let login = state.lanes[2 * nodes + node].trial();
        let asked = known.facts().and(known.asked());
        NodeReport {
            certificate_good_until: None,
            facts: known.facts().map(|facts| Facts {
                replication: known.replication().map(|told| Arc::new(told.clone())),
                ..facts.clone()
            }),
            age: (known.latest.is_some() || known.overdue.is_some())
                .then(|| age_of(state.lanes[node].silent_since)),
            replication_age: asked.map(|[began, _]| age_of(began)),
            login: login.map(|seen| Login {
                reason: seen
                    .outcome
                    .as_ref()
                    .map_or_else(|it| it.reason, |_| Reason::Ok),
                age: age_of(seen.began),
            }),
            counts: state.record.counts(node, now),
            lag_bytes: state.record.lag_bytes(node),
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

    /// Returns how long ago the board was made.
    pub fn uptime(&self) -> Duration {
        self.made.elapsed()
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

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, State<A>> {
        lock(&self.state)
    }

    fn begun(&self, state: &mut State<A>, lane: usize, what: What, now: Instant) -> u64 {
        state.begun += 1;
        let number = state.begun;
        state.lanes[lane].begin(number, what, now, &self.rules);
        self.wake_sweep_by(state, now + self.rules.deadline);
        number
    }

    /// Has the lanes asked that a question needs.
    fn demand(&self, state: &mut State<A>, question: Question) {
        let nodes = self.rules.nodes.len();
        for node in (0..nodes).filter(|&node| question.concerns(node)) {
            self.want(state, node, What::Observe(question.depth()));
        }
        self.demand_trials(state, question);
    }

    /// A commit is tried where the primary is thought to be, and a new login on
    /// every node in question.
    fn demand_trials(&self, state: &mut State<A>, question: Question) {
        let Ask::Ready(and) = question.ask else {
            return;
        };
        let nodes = self.rules.nodes.len();
        let now = Instant::now();
        for node in (0..nodes).filter(|&node| question.scope.covers(node)) {
            let facts = state.lanes[node].known(now, &self.rules).facts();
            if and.write && facts.is_some_and(Facts::is_writable_primary) {
                self.want(state, nodes + node, What::Commit);
            }
            if and.login {
                self.want(state, 2 * nodes + node, What::Login);
            }
        }
    }

    /// Has those nodes asked again, now, by which a comparison could not be made.
    fn ask_again(&self, state: &mut State<A>, assessment: &Assessment) {
        for &node in &assessment.ask_again {
            self.want(state, node, What::Observe(Depth::Replication));
        }
    }

    /// While nobody is known to be primary, a promotion is not waited for until the
    /// next interval.
    fn look_for_promotion(&self, state: &mut State<A>, assessment: &Assessment, now: Instant) {
        if assessment.writable_primaries > 0 {
            state.without_primary = None;
            return;
        }
        let since = *state.without_primary.get_or_insert(now);
        let pace = if now.saturating_duration_since(since) < PROMOTION_EXPECTED_FOR {
            NO_PRIMARY_FAST
        } else {
            NO_PRIMARY_SLOW
        };
        for node in 0..self.rules.nodes.len() {
            let lane = &mut state.lanes[node];
            if lane.known(now, &self.rules).facts().is_some() && lane.under_way.is_none() {
                lane.ask_again_by(now + pace);
                if lane.idle {
                    self.watchers[node].notify_one();
                }
            }
        }
    }

    fn want(&self, state: &mut State<A>, lane: usize, what: What) {
        let this = &mut state.lanes[lane];
        let deeper = |old: What| match (old, what) {
            (What::Observe(old), What::Observe(new)) => What::Observe(old.max(new)),
            _ => what,
        };
        let new = Some(this.wanted.map_or(what, deeper));
        if this.wanted != new {
            this.wanted = new;
            if this.idle {
                self.watchers[lane].notify_one();
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
        let limits = state
            .lanes
            .iter()
            .filter_map(|lane| lane.next_limit(self.rules.deadline));
        // Parked in order of arrival, all with the same deadline.
        let first = state.parked.front().map(|parked| parked.arrival.deadline);
        limits
            .chain(first)
            .chain([state.record.next_sample()])
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
        for parked in std::mem::take(&mut state.parked) {
            let question = parked.question;
            let concerned = node.is_none_or(|node| question.concerns(node));
            let decided = if concerned {
                self.decide(state, question, parked.arrival, now)
            } else {
                None
            };
            match decided {
                Some(verdict) => after.settled.push((parked.asker, verdict)),
                None => {
                    // Only now may be known where a commit has to be tried.
                    self.demand_trials(state, question);
                    waiting.push_back(parked);
                }
            }
        }
        state.parked = waiting;
    }

    fn decide(
        &self,
        state: &State<A>,
        question: Question,
        arrival: Arrival,
        now: Instant,
    ) -> Option<Verdict> {
        let nodes = self.rules.nodes.len();
        let views: Vec<View<'_>> = (0..nodes)
            .map(|node| View {
                sight: state.lanes[node].sight(question.depth(), arrival, now),
                told: state.lanes[node].told(),
                write: state.lanes[nodes + node].trial_sight(arrival, now),
                login: state.lanes[2 * nodes + node].trial_sight(arrival, now),
            })
            .collect();
        let known = self.known(state, now);
        let late = arrival.deadline <= now;
        verdict::decide(
            question,
            &self.circumstances(state, &views, &known, late, now),
        )
    }

    fn circumstances<'a>(
        &'a self,
        state: &State<A>,
        views: &'a [View<'a>],
        known: &'a [Known<'a>],
        late: bool,
        now: Instant,
    ) -> Circumstances<'a> {
        Circumstances {
            policy: self.rules.policy,
            views,
            known,
            names: &self.rules.nodes,
            last_primary: state.last_primary,
            late,
            now,
        }
    }

    fn known<'a>(&self, state: &'a State<A>, now: Instant) -> Vec<Known<'a>> {
        let lanes = state.lanes[..self.rules.nodes.len()].iter();
        lanes.map(|lane| lane.known(now, &self.rules)).collect()
    }

    /// What `/ready` would say by what is known.
    fn ready_by_last_words(&self, state: &State<A>, now: Instant) -> Verdict {
        let nodes = self.rules.nodes.len();
        let views: Vec<View<'_>> = (0..nodes)
            .map(|node| {
                let sight = state.lanes[node].last_sight(now, &self.rules);
                View {
                    sight,
                    told: None,
                    write: sight,
                    login: sight,
                }
            })
            .collect();
        let question = Question {
            ask: Ask::Ready(Trials::default()),
            scope: Scope::Pair,
        };
        let of = self.circumstances(state, &views, &[], true, now);
        let decided = verdict::decide(question, &of);
        decided.unwrap_or_else(Verdict::starting)
    }

    /// Logs and remembers what is new, and takes a sample when one is due.
    fn record_changes(&self, state: &mut State<A>, now: Instant, after: &mut Aftermath<A>) {
        let names = &self.rules.nodes;
        let ready = self.ready_by_last_words(state, now);
        let State { lanes, record, .. } = &mut *state;
        let lanes = &lanes[..names.len()];
        let known: Vec<Known<'_>> = lanes.iter().map(|it| it.known(now, &self.rules)).collect();
        record.follow(&known, now);
        let assessment = record.assess(&known, names, now);
        record.sample(&assessment, now, self.rules.interval);
        let causes: Vec<Option<&Failure>> = lanes.iter().map(Lane::failure).collect();
        after
            .lines
            .extend(record.changes(names, &assessment, &ready, &causes, now));
        after.lines.extend(record.refusals(names, &known));
        self.ask_again(state, &assessment);
        self.look_for_promotion(state, &assessment, now);
    }
}

impl<A> State<A> {
    fn stuck(&self, now: Instant) -> Vec<usize> {
        let is_stuck = |lane: &Lane| {
            let at = lane.under_way.as_ref().and_then(|it| it.stuck_at);
            at.is_some_and(|at| at <= now)
        };
        (0..self.lanes.len())
            .filter(|&lane| is_stuck(&self.lanes[lane]))
            .collect()
    }
}

#[cfg(test)]
mod tests;
