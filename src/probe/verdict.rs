//! From what is known of the nodes to an answer: pure functions.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, Instant};

use super::assessment::{self, Known};
use super::lag::{self, Mode};
use super::node::{Depth, Facts, Failure, Observation, Reason, Replication};

/// When `/ready` is 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Policy {
    /// A writable primary answered.
    #[default]
    Primary,
    /// Any node answered.
    Any,
    /// Every node answered.
    All,
}

impl Policy {
    /// Every policy, in the order of the documentation.
    pub const ALL: [Policy; 3] = [Policy::Primary, Policy::Any, Policy::All];

    /// Returns the word for this policy.
    pub const fn word(self) -> &'static str {
        match self {
            Policy::Primary => "primary",
            Policy::Any => "any",
            Policy::All => "all",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Whom a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every configured node.
    Pair,
    /// One node, by its place in the configuration.
    Node(usize),
}

impl Scope {
    /// Says whether `node` matters to a question of this scope.
    pub fn covers(self, node: usize) -> bool {
        match self {
            Scope::Pair => true,
            Scope::Node(only) => only == node,
        }
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Can the app talk to its PostgreSQL?
    Ready(Trials),
    /// Is there exactly one writable primary?
    Primary,
    /// Is there a streaming standby of that kind, not further behind than allowed?
    Replica(Kind, LagLimit),
    /// Is there such a standby, or the primary?
    ReadOnly(Kind, LagLimit),
    /// Is there a standby that leads others in the place of a primary? There never
    /// is one in a pair.
    StandbyLeader,
}

impl Ask {
    /// Says whether a node has to do something for it.
    pub fn has_trials(self) -> bool {
        matches!(self, Ask::Ready(trials) if trials != Trials::default())
    }
}

/// What has to go through besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Trials {
    /// A commit.
    pub write: bool,
    /// A new login.
    pub login: bool,
}

/// Which standbys are meant, by what the primary's commits wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Kind {
    /// Any.
    #[default]
    Any,
    /// Commits wait for it, by its name or as one of a quorum.
    Sync,
    /// Commits wait for it as one of a quorum.
    Quorum,
    /// No commit waits for it.
    Async,
}

impl Kind {
    /// The words of `pg_stat_replication.sync_state` for it.
    const fn states(self) -> &'static [&'static str] {
        match self {
            Kind::Any => &[],
            Kind::Sync => &["sync", "quorum"],
            Kind::Quorum => &["quorum"],
            Kind::Async => &["async", "potential"],
        }
    }
}

/// How far behind a standby may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LagLimit {
    /// At most this many bytes; `None` is no limit.
    pub max_bytes: Option<u64>,
    /// Which lag is meant.
    pub mode: Mode,
}

/// What is asked, and about whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// What.
    pub ask: Ask,
    /// About whom.
    pub scope: Scope,
}

impl Question {
    /// Returns how much must be asked of the nodes for it.
    pub fn depth(self) -> Depth {
        match self.ask {
            Ask::Ready(_) | Ask::Primary | Ask::StandbyLeader => Depth::Role,
            Ask::Replica(..) | Ask::ReadOnly(..) => Depth::Replication,
        }
    }

    /// Says whether `node` can change the answer: also for one node's sake
    /// the others count where a second primary or the primary's position does.
    pub fn concerns(self, node: usize) -> bool {
        match self.ask {
            Ask::Ready(_) => self.scope.covers(node),
            _ => true,
        }
    }
}

/// What one request may know of one node at this moment.
#[derive(Clone, Copy, Debug)]
pub enum Sight<'a> {
    /// A round trip that began after the request arrived.
    Fresh(&'a Observation),
    /// Not yet known; the request can wait.
    Pending,
    /// The request's own deadline passed without an answer.
    TimedOut(Silence<'a>),
    /// The node was already known to owe an answer.
    Overdue(Silence<'a>),
}

/// A node as one question sees it.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Its answer to the question.
    pub sight: Sight<'a>,
    /// What it said of replication last, also while it owes an answer.
    pub told: Option<&'a Replication>,
    /// What became of a commit there.
    pub write: Sight<'a>,
    /// What became of a new login there.
    pub login: Sight<'a>,
}

/// What there is to say of a node that does not answer.
#[derive(Clone, Copy, Debug)]
pub struct Silence<'a> {
    /// When it last answered, or when pgpair began to ask.
    pub since: Instant,
    /// What has already gone wrong in the round trip that is still under way.
    pub so_far: Option<&'a Failure>,
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Yes or no.
    pub ok: bool,
    /// Why.
    pub reason: Reason,
    /// The node that decided it, when there is one.
    pub node: Option<usize>,
    /// One phrase for a person, when the word does not say it all.
    pub detail: Option<Cow<'static, str>>,
    /// How old the knowledge is that this rests on, when there is any.
    pub age: Option<Duration>,
}

impl Verdict {
    /// Makes the answer of a probe that has not asked anybody yet.
    pub fn starting() -> Verdict {
        refusal(Reason::Starting, "not every node has been asked yet")
    }

    /// Makes the answer of a probe that is about to stop.
    pub fn draining() -> Verdict {
        Verdict {
            ok: false,
            reason: Reason::Draining,
            node: None,
            detail: Some(Cow::Borrowed("pgpair is shutting down")),
            age: None,
        }
    }
}

/// Everything that a decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// When the pair is ready.
    pub policy: Policy,
    /// Every node, in the order of the configuration.
    pub views: &'a [View<'a>],
    /// What is known of every node, also by what was not asked for this question.
    pub known: &'a [Known<'a>],
    /// Their names.
    pub names: &'a [String],
    /// The node that was last seen to be a writable primary: when nobody is,
    /// its state is the reason that matters.
    pub last_primary: Option<usize>,
    /// The question's deadline has passed.
    pub late: bool,
    /// The present.
    pub now: Instant,
}

/// Decides a question. `None` means that what is still pending could change
/// the answer.
pub fn decide(question: Question, of: &Circumstances<'_>) -> Option<Verdict> {
    let scope = question.scope;
    match question.ask {
        Ask::Ready(and) => ready_and(scope, and, of),
        Ask::Primary => primary(scope, of),
        Ask::Replica(kind, limit) => replica(scope, kind, limit, of),
        Ask::ReadOnly(kind, limit) => read_only(scope, kind, limit, of),
        Ask::StandbyLeader => Some(refusal(
            Reason::NoPrimary,
            "a pair has no standby cluster, and so no leader of one",
        )),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Good,
    Bad,
    Pending,
}

/// One node's part in an answer.
#[derive(Clone, Debug)]
struct Finding {
    node: usize,
    standing: Standing,
    reason: Reason,
    detail: Option<Cow<'static, str>>,
    age: Duration,
}

impl Finding {
    /// Judges a node by what it answered; a silent one is bad, a pending one
    /// is pending.
    fn of(
        of: &Circumstances<'_>,
        node: usize,
        judge: impl Fn(&Facts) -> Result<(), (Reason, &'static str)>,
    ) -> Finding {
        let (standing, reason, detail, since) = match &of.views[node].sight {
            Sight::Pending => (Standing::Pending, Reason::Overdue, None, of.now),
            Sight::Fresh(seen) => match &seen.outcome {
                Err(failure) => {
                    let detail = Some(failure.detail.clone());
                    (Standing::Bad, failure.reason, detail, seen.began)
                }
                Ok(facts) => match judge(facts) {
                    Ok(()) => (Standing::Good, Reason::Ok, None, seen.began),
                    Err((reason, detail)) => (
                        Standing::Bad,
                        reason,
                        Some(Cow::Borrowed(detail)),
                        seen.began,
                    ),
                },
            },
            Sight::TimedOut(silence) => silent(Reason::TimedOut, silence, of.now),
            Sight::Overdue(silence) => silent(Reason::Overdue, silence, of.now),
        };
        Finding {
            node,
            standing,
            reason,
            detail,
            age: of.now.saturating_duration_since(since),
        }
    }

    fn verdict(self) -> Verdict {
        Verdict {
            ok: self.standing == Standing::Good,
            reason: self.reason,
            node: Some(self.node),
            detail: self.detail,
            age: Some(self.age),
        }
    }
}

/// What already went wrong says more than that the rest is late.
fn silent(
    word: Reason,
    silence: &Silence<'_>,
    now: Instant,
) -> (Standing, Reason, Option<Cow<'static, str>>, Instant) {
    let (reason, detail) = match silence.so_far {
        Some(failure) => (failure.reason, failure.detail.clone()),
        None => {
            let seconds = now.saturating_duration_since(silence.since).as_secs_f64();
            (word, Cow::Owned(format!("no answer for {seconds:.1} s")))
        }
    };
    (Standing::Bad, reason, Some(detail), silence.since)
}

fn refusal(reason: Reason, detail: &'static str) -> Verdict {
    Verdict {
        ok: false,
        reason,
        node: None,
        detail: Some(Cow::Borrowed(detail)),
        age: None,
    }
}

fn findings(
    scope: Scope,
    of: &Circumstances<'_>,
    judge: impl Fn(&Facts) -> Result<(), (Reason, &'static str)>,
) -> Vec<Finding> {
    (0..of.views.len())
        .filter(|&node| scope.covers(node))
        .map(|node| Finding::of(of, node, &judge))
        .collect()
}

fn first(findings: &[Finding], standing: Standing) -> Option<&Finding> {
    findings.iter().find(|it| it.standing == standing)
}

fn takes_writes(facts: &Facts) -> Result<(), (Reason, &'static str)> {
    if facts.in_recovery {
        Err((Reason::InRecovery, "the node is a standby"))
    } else if facts.read_only {
        Err((Reason::ReadOnly, "the primary's transactions are read-only"))
    } else {
        Ok(())
    }
}

fn ready(scope: Scope, of: &Circumstances<'_>) -> Option<Verdict> {
    let found = match of.policy {
        Policy::Primary => findings(scope, of, takes_writes),
        Policy::Any | Policy::All => findings(scope, of, |_| Ok(())),
    };
    let settles = match of.policy {
        Policy::Primary | Policy::Any => Standing::Good,
        Policy::All => Standing::Bad,
    };
    if let Some(one) = first(&found, settles) {
        return Some(one.clone().verdict());
    }
    if first(&found, Standing::Pending).is_some() {
        return None;
    }
    Some(match of.policy {
        Policy::Primary => worst(&found, of.last_primary),
        Policy::Any => found[0].clone().verdict(),
        // All are well: as old as the oldest knowledge that rests on.
        Policy::All => Verdict {
            ok: true,
            reason: Reason::Ok,
            node: None,
            detail: None,
            age: found.iter().map(|it| it.age).max(),
        },
    })
}

/// Picks the node whose trouble explains best why nobody is primary.
fn worst(found: &[Finding], last_primary: Option<usize>) -> Verdict {
    let broken = |it: &&Finding| it.reason != Reason::InRecovery;
    let of_last_primary = found.iter().find(|it| Some(it.node) == last_primary);
    let only = (found.len() == 1).then(|| &found[0]);
    let explains = of_last_primary
        .filter(broken)
        .or_else(|| found.iter().find(broken))
        .or(only);
    match explains {
        Some(one) => one.clone().verdict(),
        None => Verdict {
            age: found.iter().map(|it| it.age).max(),
            ..refusal(Reason::NoPrimary, "every node is a standby")
        },
    }
}

/// `/ready`, and what has to go through besides.
fn ready_and(scope: Scope, and: Trials, of: &Circumstances<'_>) -> Option<Verdict> {
    let mut verdict = ready(scope, of)?;
    if and.login && verdict.ok {
        verdict = login(scope, verdict, of)?;
    }
    if and.write && verdict.ok {
        verdict = write(scope, of)?;
    }
    Some(verdict)
}

/// A new login counts on the node that made it ready; on all where all have to be.
fn login(scope: Scope, ready: Verdict, of: &Circumstances<'_>) -> Option<Verdict> {
    let nodes = (0..of.views.len()).filter(|&node| scope.covers(node));
    let mut waits = false;
    for node in nodes.filter(|&node| ready.node.is_none_or(|only| only == node)) {
        let failed = |reason: Reason, detail: Cow<'static, str>, since: Instant| Verdict {
            ok: false,
            reason,
            node: Some(node),
            detail: Some(Cow::Owned(format!("no new login: {detail}"))),
            age: Some(of.now.saturating_duration_since(since)),
        };
        match &of.views[node].login {
            Sight::Pending => waits = true,
            Sight::Fresh(seen) => {
                if let Err(failure) = &seen.outcome {
                    return Some(failed(failure.reason, failure.detail.clone(), seen.began));
                }
            }
            Sight::TimedOut(silence) | Sight::Overdue(silence) => {
                let (_, reason, detail, since) = silent(Reason::TimedOut, silence, of.now);
                return Some(failed(reason, detail.unwrap_or_default(), since));
            }
        }
    }
    (!waits).then_some(ready)
}

fn write(scope: Scope, of: &Circumstances<'_>) -> Option<Verdict> {
    let found = findings(scope, of, takes_writes);
    let Some(primary) = first(&found, Standing::Good) else {
        let waits = first(&found, Standing::Pending).is_some();
        return (!waits).then(|| worst(&found, of.last_primary));
    };
    let stalled = |detail: Cow<'static, str>, since: Instant| Verdict {
        ok: false,
        reason: Reason::WriteStalled,
        node: Some(primary.node),
        detail: Some(detail),
        age: Some(of.now.saturating_duration_since(since)),
    };
    match &of.views[primary.node].write {
        Sight::Pending => None,
        Sight::Fresh(seen) => match &seen.outcome {
            Ok(_) => Some(primary.clone().verdict()),
            Err(failure) => Some(stalled(failure.detail.clone(), seen.began)),
        },
        Sight::TimedOut(silence) | Sight::Overdue(silence) => {
            let seconds = of
                .now
                .saturating_duration_since(silence.since)
                .as_secs_f64();
            let detail = format!("no commit for {seconds:.1} s");
            Some(stalled(Cow::Owned(detail), silence.since))
        }
    }
}

/// Another node that is a writable primary at the same moment. Pending, where what
/// they said was said at different moments, or where the other one was a primary
/// when it was last seen: it may still be one.
fn rival(of: &Circumstances<'_>, node: usize) -> Option<Standing> {
    let others = (0..of.views.len()).filter(|&other| other != node);
    let standings = others.filter_map(|other| {
        let (own, theirs) = (&of.known[node], &of.known[other]);
        let is_writable = theirs.facts().is_some_and(Facts::is_writable_primary);
        if assessment::are_one_server(own, theirs) {
            return None;
        }
        match Finding::of(of, other, takes_writes).standing {
            Standing::Good if assessment::rivals(own, theirs) => Some(Standing::Good),
            Standing::Good => Some(Standing::Pending),
            Standing::Pending => is_writable.then_some(Standing::Pending),
            Standing::Bad => None,
        }
    });
    // A certain rival outweighs a possible one.
    standings.min_by_key(|standing| *standing != Standing::Good)
}

fn primary(scope: Scope, of: &Circumstances<'_>) -> Option<Verdict> {
    let found = findings(scope, of, takes_writes);
    if let Some(one) = first(&found, Standing::Good) {
        return match rival(of, one.node) {
            None => Some(one.clone().verdict()),
            // The other one was asked again, and has not answered in time.
            Some(Standing::Pending) => of.late.then(|| {
                refusal(
                    Reason::TimedOut,
                    "two nodes said that they take writes, and not whether at the same moment",
                )
            }),
            Some(_) => Some(refusal(
                Reason::SplitBrain,
                "more than one node is a writable primary",
            )),
        };
    }
    if first(&found, Standing::Pending).is_some() {
        return None;
    }
    Some(worst(&found, of.last_primary))
}

/// The primary's own account of replication, if it is known or still coming.
enum Account<'a> {
    Told(&'a Replication),
    Pending,
    Missing,
}

fn account<'a>(of: &Circumstances<'a>) -> Account<'a> {
    let mut pending = false;
    for view in of.views {
        match &view.sight {
            Sight::Fresh(seen) => {
                let primary = seen.facts().filter(|facts| !facts.in_recovery);
                if let Some(told) = primary.and_then(|facts| facts.replication.as_deref()) {
                    return Account::Told(told);
                }
            }
            Sight::Pending => pending = true,
            Sight::TimedOut(_) | Sight::Overdue(_) => {}
        }
    }
    if pending {
        Account::Pending
    } else {
        Account::Missing
    }
}

fn streams(facts: &Facts, told: Option<&Replication>) -> Result<(), (Reason, &'static str)> {
    let standby = facts.replication.as_deref().filter(|_| facts.in_recovery);
    let Some(standby) = standby else {
        return Err((Reason::NotStreaming, "the node is a primary"));
    };
    if assessment::of_another_system(standby, told) {
        return Err((
            Reason::WrongSystem,
            "the standby belongs to another system than the primary",
        ));
    }
    match standby.streams() {
        Some(true) => Ok(()),
        Some(false) => Err((Reason::NotStreaming, "the WAL receiver is not streaming")),
        None => Err((
            Reason::NotStreaming,
            "the WAL receiver cannot be seen (pg_monitor is needed)",
        )),
    }
}

fn replica(scope: Scope, kind: Kind, limit: LagLimit, of: &Circumstances<'_>) -> Option<Verdict> {
    let account = account(of);
    // Without a limit nobody waits for the primary; a frozen one must not make
    // the standby unavailable.
    let needs_primary = limit.max_bytes.is_some() || kind != Kind::Any;
    if needs_primary && matches!(account, Account::Pending) {
        return None;
    }
    let told = match account {
        Account::Told(told) => Some(told),
        Account::Pending | Account::Missing => None,
    };
    // Which system the pair is does not change while the primary is silent.
    let last_told = || of.last_primary.and_then(|node| of.views[node].told);
    let system = told.or_else(last_told);
    let nodes = (0..of.views.len()).filter(|&node| scope.covers(node));
    let found: Vec<Finding> = nodes
        .map(|node| {
            Finding::of(of, node, |facts| {
                streams(facts, system)?;
                if let Some(detail) = assessment::strays(of.known, of.names, node) {
                    return Err((Reason::NotStreaming, detail));
                }
                is_of_kind(kind, facts, told, &of.names[node])?;
                is_within(limit, facts, told)
            })
        })
        .collect();
    best_standby(&found, of)
}

fn is_of_kind(
    kind: Kind,
    standby: &Facts,
    told: Option<&Replication>,
    name: &str,
) -> Result<(), (Reason, &'static str)> {
    if kind == Kind::Any {
        return Ok(());
    }
    let sender = match (told, standby.replication.as_deref()) {
        (Some(told), Some(standby)) => assessment::sender_of(told, standby, name),
        _ => None,
    };
    let detail = match sender.and_then(|it| it.sync_state.as_deref()) {
        Some(state) if kind.states().contains(&state) => return Ok(()),
        Some("quorum") => "the standby is one of a quorum",
        Some("sync") => "the standby is synchronous",
        Some(_) => "the standby is asynchronous",
        None => "the primary does not tell of this standby",
    };
    Err((Reason::NotStreaming, detail))
}

fn is_within(
    limit: LagLimit,
    standby: &Facts,
    told: Option<&Replication>,
) -> Result<(), (Reason, &'static str)> {
    let (Some(max), Some(standby)) = (limit.max_bytes, standby.replication.as_deref()) else {
        return Ok(());
    };
    match lag::bytes(standby, told, limit.mode) {
        Some(behind) if behind <= max => Ok(()),
        Some(_) => Err((
            Reason::Lagging,
            "the standby is further behind than allowed",
        )),
        None => Err((Reason::Lagging, "the standby's lag is unknown")),
    }
}

fn best_standby(found: &[Finding], of: &Circumstances<'_>) -> Option<Verdict> {
    if let Some(one) = first(found, Standing::Good) {
        return Some(one.clone().verdict());
    }
    if first(found, Standing::Pending).is_some() {
        return None;
    }
    // Why the standby will not do; without one, what became of the node that
    // was none before; a primary is no excuse, unless it was asked for.
    let in_recovery = |node: usize| match &of.views[node].sight {
        Sight::Fresh(seen) => seen.facts().map(|facts| facts.in_recovery),
        _ => None,
    };
    let standby = found.iter().find(|it| in_recovery(it.node) == Some(true));
    let lost = || {
        found
            .iter()
            .find(|it| in_recovery(it.node).is_none() && Some(it.node) != of.last_primary)
    };
    let asked_for = (found.len() == 1 && of.views.len() > 1).then(|| &found[0]);
    Some(match standby.or_else(lost).or(asked_for) {
        Some(one) => one.clone().verdict(),
        None => refusal(Reason::NotStreaming, "there is no standby"),
    })
}

fn read_only(scope: Scope, kind: Kind, limit: LagLimit, of: &Circumstances<'_>) -> Option<Verdict> {
    let replica = replica(scope, kind, limit, of);
    let primary = primary(scope, of);
    match (replica, primary) {
        (Some(verdict), _) | (_, Some(verdict)) if verdict.ok => Some(verdict),
        (_, Some(verdict)) if verdict.reason == Reason::SplitBrain => Some(verdict),
        (Some(verdict), Some(_)) => Some(verdict),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
