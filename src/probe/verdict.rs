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
mod tests {
    use super::super::node::{Receiver, Rows, Sender};
    use super::super::span::Span;
    use super::*;
    use crate::pg::lsn::Lsn;

    fn answered(now: Instant, in_recovery: bool, read_only: bool) -> Observation {
        Observation {
            began: now,
            ended: now,
            outcome: Ok(Facts {
                in_recovery,
                read_only,
                replication: None,
            }),
        }
    }

    fn failed(now: Instant, reason: Reason) -> Observation {
        Observation {
            began: now,
            ended: now,
            outcome: Err(Failure::new(reason, "phrase")),
        }
    }

    /// One letter a node: P primary, R read-only primary, S standby, X refused,
    /// T timed out, O overdue, W overdue after `shutting_down`, ? pending.
    fn decide(policy: Policy, nodes: &str, last_primary: Option<usize>) -> Option<Verdict> {
        let now = Instant::now();
        let primary = answered(now, false, false);
        let read_only = answered(now, false, true);
        let standby = answered(now, true, true);
        let refused = failed(now, Reason::Refused);
        let stopping = Failure::new(Reason::ShuttingDown, "phrase");
        let quiet = Silence {
            since: now,
            so_far: None,
        };
        let views: Vec<View<'_>> = nodes
            .chars()
            .map(|letter| match letter {
                'P' => Sight::Fresh(&primary),
                'R' => Sight::Fresh(&read_only),
                'S' => Sight::Fresh(&standby),
                'X' => Sight::Fresh(&refused),
                'T' => Sight::TimedOut(quiet),
                'O' => Sight::Overdue(quiet),
                'W' => Sight::Overdue(Silence {
                    since: now,
                    so_far: Some(&stopping),
                }),
                _ => Sight::Pending,
            })
            .map(|sight| View {
                sight,
                told: None,
                write: Sight::Pending,
                login: Sight::Pending,
            })
            .collect();
        let question = Question {
            ask: Ask::Ready(Trials::default()),
            scope: Scope::Pair,
        };
        decide_with(question, policy, &views, &[], last_primary, now)
    }

    fn decide_with(
        question: Question,
        policy: Policy,
        views: &[View<'_>],
        known: &[Known<'_>],
        last_primary: Option<usize>,
        now: Instant,
    ) -> Option<Verdict> {
        let names = ["a".to_owned(), "b".to_owned()];
        let of = Circumstances {
            policy,
            views,
            known,
            names: &names,
            last_primary,
            late: false,
            now,
        };
        super::decide(question, &of)
    }

    fn said(verdict: Option<Verdict>) -> String {
        match verdict {
            None => "wait".to_owned(),
            Some(v) => {
                let node = v.node.map_or("-".to_owned(), |node| node.to_string());
                format!("{} {} {node}", if v.ok { 200 } else { 503 }, v.reason)
            }
        }
    }

    #[test]
    fn ready_needs_a_writable_primary_by_default() {
        for (nodes, last, expected) in [
            ("P", None, "200 ok 0"),
            ("R", None, "503 read_only 0"),
            ("S", None, "503 in_recovery 0"),
            ("X", None, "503 refused 0"),
            ("T", None, "503 timed_out 0"),
            ("O", None, "503 overdue 0"),
            ("W", None, "503 shutting_down 0"),
            ("?", None, "wait"),
            ("PS", None, "200 ok 0"),
            ("SP", None, "200 ok 1"),
            ("P?", None, "200 ok 0"),
            ("?P", None, "200 ok 1"),
            ("OP", Some(0), "200 ok 1"),
            ("PP", None, "200 ok 0"),
            ("SS", None, "503 no_primary -"),
            ("SS", Some(1), "503 no_primary -"),
            ("XS", None, "503 refused 0"),
            ("SX", None, "503 refused 1"),
            ("S?", None, "wait"),
            ("X?", None, "wait"),
            ("O?", Some(0), "wait"),
            ("OS", Some(0), "503 overdue 0"),
            ("XO", Some(0), "503 refused 0"),
            ("XO", Some(1), "503 overdue 1"),
            ("XO", None, "503 refused 0"),
            ("SR", None, "503 read_only 1"),
        ] {
            assert_eq!(
                said(decide(Policy::Primary, nodes, last)),
                expected,
                "{nodes}"
            );
        }
    }

    #[test]
    fn ready_any_needs_one_answer_and_all_needs_every_answer() {
        for (nodes, any, all) in [
            ("PS", "200 ok 0", "200 ok -"),
            ("SS", "200 ok 0", "200 ok -"),
            ("XS", "200 ok 1", "503 refused 0"),
            ("X?", "wait", "503 refused 0"),
            ("S?", "200 ok 0", "wait"),
            ("XT", "503 refused 0", "503 refused 0"),
            ("RO", "200 ok 0", "503 overdue 1"),
        ] {
            assert_eq!(said(decide(Policy::Any, nodes, None)), any, "any {nodes}");
            assert_eq!(said(decide(Policy::All, nodes, None)), all, "all {nodes}");
        }
    }

    #[test]
    fn pending_nodes_never_yield_200() {
        for policy in Policy::ALL {
            assert_eq!(decide(policy, "??", None), None);
        }
    }

    #[test]
    fn silence_is_told_in_seconds() {
        let now = Instant::now();
        let silence = Silence {
            since: now - Duration::from_millis(4_200),
            so_far: None,
        };
        let view = View {
            sight: Sight::Overdue(silence),
            told: None,
            write: Sight::Pending,
            login: Sight::Pending,
        };
        let question = Question {
            ask: Ask::Ready(Trials::default()),
            scope: Scope::Pair,
        };
        let verdict = decide_with(question, Policy::Primary, &[view], &[], None, now)
            .expect("nothing is pending");
        assert_eq!(verdict.detail.as_deref(), Some("no answer for 4.2 s"));
        assert_eq!(verdict.age, Some(Duration::from_millis(4_200)));
    }

    /// What the board knows of a node in such a letter: seen like this for a while.
    fn known(letter: char, seen: &Observation) -> Known<'_> {
        let begin = seen.began - Duration::from_secs(1);
        let span = Span::begin([begin; 2]).extend(seen.round_trip());
        let facts = seen.facts().filter(|_| !matches!(letter, 'X' | 'O' | '?'));
        let replication = facts.and_then(|facts| facts.replication.as_deref());
        Known {
            latest: facts.map(|_| seen),
            replication: replication.map(|told| (told, seen.round_trip())),
            writable: facts.filter(|it| it.is_writable_primary()).map(|_| span),
            streaming: (letter == 'S').then_some(span),
            ..Known::default()
        }
    }

    /// Nodes in letters as above, with replication: P and Q primaries of systems 1
    /// and 2 at position 100; S a streaming standby at 90, s one that does not
    /// stream, b one that may not be looked at; lower-case p and q are pending
    /// and were primaries, ? is pending and was none.
    fn decide_replication(ask: Ask, scope: Scope, nodes: &str) -> String {
        let now = Instant::now();
        let replication = |system, lsn, status: Option<Option<&str>>| {
            Some(std::sync::Arc::new(Replication {
                system_identifier: Some(system),
                lsn: Some(Lsn(lsn)),
                received: Some(Lsn(lsn + 5)),
                receiver: Some(status.map(|status| Receiver {
                    status: status.map(str::to_owned),
                    ..Receiver::default()
                })),
                senders: Some(Rows::from(vec![Sender {
                    application_name: "b".to_owned(),
                    state: Some("streaming".to_owned()),
                    sync_state: Some("sync".to_owned()),
                    replayed: Some(Lsn(80)),
                    ..Sender::default()
                }])),
                ..Replication::default()
            }))
        };
        let facts = |letter| match letter {
            'P' | 'p' | 'Q' | 'q' => Facts {
                in_recovery: false,
                read_only: false,
                replication: replication(
                    if matches!(letter, 'Q' | 'q') { 2 } else { 1 },
                    100,
                    None,
                ),
            },
            letter => Facts {
                in_recovery: true,
                read_only: true,
                replication: replication(
                    1,
                    90,
                    match letter {
                        'S' => Some(Some("streaming")),
                        'b' => Some(None),
                        _ => None,
                    },
                ),
            },
        };
        let refused = failed(now, Reason::Refused);
        let quiet = Silence {
            since: now,
            so_far: None,
        };
        let seen: Vec<_> = nodes
            .chars()
            .map(|letter| Observation {
                began: now,
                ended: now,
                outcome: Ok(facts(letter)),
            })
            .collect();
        let views: Vec<_> = nodes
            .chars()
            .zip(&seen)
            .map(|(letter, seen)| View {
                sight: match letter {
                    'p' | 'q' | '?' => Sight::Pending,
                    'X' => Sight::Fresh(&refused),
                    'O' => Sight::Overdue(quiet),
                    _ => Sight::Fresh(seen),
                },
                told: seen
                    .facts()
                    .filter(|_| matches!(letter, 'p' | 'q'))
                    .and_then(|facts| facts.replication.as_deref()),
                write: Sight::Pending,
                login: Sight::Pending,
            })
            .collect();
        let known: Vec<_> = nodes
            .chars()
            .zip(&seen)
            .map(|(letter, seen)| known(letter, seen))
            .collect();
        let question = Question { ask, scope };
        let last_primary = nodes.find(['p', 'q']);
        said(decide_with(
            question,
            Policy::Primary,
            &views,
            &known,
            last_primary,
            now,
        ))
    }

    #[test]
    fn a_primary_is_the_only_one() {
        for (nodes, pair, first) in [
            ("PS", "200 ok 0", "200 ok 0"),
            ("SP", "200 ok 1", "503 in_recovery 0"),
            ("PP", "503 split_brain -", "503 split_brain -"),
            ("PX", "200 ok 0", "200 ok 0"),
            ("PO", "200 ok 0", "200 ok 0"),
            ("P?", "200 ok 0", "200 ok 0"),
            // It was a primary a moment ago: worth waiting for.
            ("Pp", "wait", "wait"),
            ("SS", "503 no_primary -", "503 in_recovery 0"),
            ("XS", "503 refused 0", "503 refused 0"),
            ("S?", "wait", "503 in_recovery 0"),
        ] {
            let decided = |scope| decide_replication(Ask::Primary, scope, nodes);
            assert_eq!(decided(Scope::Pair), pair, "{nodes}");
            assert_eq!(decided(Scope::Node(0)), first, "{nodes}, node 0");
        }
    }

    #[test]
    fn a_replica_streams_and_is_not_further_behind_than_allowed() {
        let limit = |max_bytes| {
            let limit = LagLimit {
                max_bytes,
                mode: Mode::Apply,
            };
            Ask::Replica(Kind::Any, limit)
        };
        for (nodes, any, ten, nine) in [
            ("PS", "200 ok 1", "200 ok 1", "503 lagging 1"),
            ("SP", "200 ok 0", "200 ok 0", "503 lagging 0"),
            (
                "Ps",
                "503 not_streaming 1",
                "503 not_streaming 1",
                "503 not_streaming 1",
            ),
            (
                "Pb",
                "503 not_streaming 1",
                "503 not_streaming 1",
                "503 not_streaming 1",
            ),
            ("PX", "503 refused 1", "503 refused 1", "503 refused 1"),
            (
                "QS",
                "503 wrong_system 1",
                "503 wrong_system 1",
                "503 wrong_system 1",
            ),
            (
                "P",
                "503 not_streaming -",
                "503 not_streaming -",
                "503 not_streaming -",
            ),
            (
                "PP",
                "503 not_streaming -",
                "503 not_streaming -",
                "503 not_streaming -",
            ),
            // Without a primary, by what the receiver heard of.
            ("XS", "200 ok 1", "200 ok 1", "200 ok 1"),
            ("OS", "200 ok 1", "200 ok 1", "200 ok 1"),
            // The primary's position decides, and is waited for.
            ("?S", "200 ok 1", "wait", "wait"),
            ("pS", "200 ok 1", "wait", "wait"),
            ("P?", "wait", "wait", "wait"),
            // Of which system the primary is was known before.
            ("qS", "wait", "wait", "wait"),
        ] {
            let decided = |max| decide_replication(limit(max), Scope::Pair, nodes);
            assert_eq!(decided(None), any, "{nodes} without a limit");
            assert_eq!(decided(Some(10)), ten, "{nodes} with 10");
            assert_eq!(decided(Some(9)), nine, "{nodes} with 9");
        }
    }

    #[test]
    fn one_node_s_replica_is_that_node() {
        for (nodes, node, expected) in [
            ("PS", 1, "200 ok 1"),
            ("PS", 0, "503 not_streaming 0"),
            ("SS", 0, "200 ok 0"),
            ("SX", 1, "503 refused 1"),
            ("pS", 1, "200 ok 1"),
            ("qS", 1, "503 wrong_system 1"),
        ] {
            let ask = Ask::Replica(Kind::Any, LagLimit::default());
            let found = decide_replication(ask, Scope::Node(node), nodes);
            assert_eq!(found, expected, "{nodes} {node}");
        }
    }

    #[test]
    fn read_only_is_either() {
        for (nodes, expected) in [
            ("PS", "200 ok"),
            ("Ps", "200 ok"),
            ("XS", "200 ok"),
            ("Xs", "503 not_streaming"),
            ("P?", "200 ok"),
            ("S?", "200 ok"),
            ("s?", "wait"),
            ("PP", "503 split_brain"),
        ] {
            let ask = Ask::ReadOnly(Kind::Any, LagLimit::default());
            let found = decide_replication(ask, Scope::Pair, nodes);
            assert!(found.starts_with(expected), "{nodes}: {found}");
        }
    }

    #[test]
    fn the_primary_says_who_is_synchronous() {
        for (nodes, sync, asynchronous) in [
            ("PS", "200 ok 1", "503 not_streaming 1"),
            ("Ps", "503 not_streaming 1", "503 not_streaming 1"),
            ("XS", "503 not_streaming 1", "503 not_streaming 1"),
            ("?S", "wait", "wait"),
        ] {
            let decided = |ask| decide_replication(ask, Scope::Pair, nodes);
            let of_kind = |kind| decided(Ask::Replica(kind, LagLimit::default()));
            assert_eq!(of_kind(Kind::Sync), sync, "{nodes}");
            assert_eq!(of_kind(Kind::Async), asynchronous, "{nodes}");
        }
    }
}
