//! From what is known of the nodes to an answer: pure functions.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, Instant};

use super::node::{Failure, Observation, Reason};

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

/// Decides `/ready`. `None` means that what is still pending could change the
/// answer.
///
/// `sights` holds the nodes that the question covers, each with its place in
/// the configuration. `last_primary` is the node that was last seen to be a
/// writable primary: when nobody is, its state is the reason that matters.
pub fn ready(
    policy: Policy,
    sights: &[(usize, Sight<'_>)],
    last_primary: Option<usize>,
    now: Instant,
) -> Option<Verdict> {
    let views: Vec<View> = sights
        .iter()
        .map(|(node, sight)| View::of(policy, *node, sight, now))
        .collect();
    let pending = views.iter().any(|view| view.standing == Standing::Pending);
    let first = |standing| views.iter().find(|view| view.standing == standing);
    match policy {
        Policy::Primary | Policy::Any => {
            if let Some(good) = first(Standing::Good) {
                return Some(good.clone().verdict());
            }
            (!pending).then(|| worst(policy, &views, last_primary))
        }
        Policy::All => {
            if let Some(bad) = first(Standing::Bad) {
                return Some(bad.clone().verdict());
            }
            (!pending).then(|| oldest(&views))
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Good,
    Bad,
    Pending,
}

/// One node as a policy sees it.
#[derive(Clone, Debug)]
struct View {
    node: usize,
    standing: Standing,
    reason: Reason,
    detail: Option<Cow<'static, str>>,
    age: Duration,
}

impl View {
    fn of(policy: Policy, node: usize, sight: &Sight<'_>, now: Instant) -> View {
        let (standing, reason, detail, since) = match sight {
            Sight::Pending => (Standing::Pending, Reason::Overdue, None, now),
            Sight::Fresh(seen) => {
                let (standing, reason, detail) = fresh(policy, seen);
                (standing, reason, detail, seen.began)
            }
            Sight::TimedOut(silence) => silent(Reason::TimedOut, silence, now),
            Sight::Overdue(silence) => silent(Reason::Overdue, silence, now),
        };
        View {
            node,
            standing,
            reason,
            detail,
            age: now.saturating_duration_since(since),
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

fn fresh(policy: Policy, seen: &Observation) -> (Standing, Reason, Option<Cow<'static, str>>) {
    match &seen.outcome {
        Err(failure) => (Standing::Bad, failure.reason, Some(failure.detail.clone())),
        Ok(facts) if policy == Policy::Primary && facts.in_recovery => (
            Standing::Bad,
            Reason::InRecovery,
            Some(Cow::Borrowed("the node is a standby")),
        ),
        Ok(facts) if policy == Policy::Primary && facts.read_only => (
            Standing::Bad,
            Reason::ReadOnly,
            Some(Cow::Borrowed("the primary's transactions are read-only")),
        ),
        Ok(_) => (Standing::Good, Reason::Ok, None),
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

/// Picks the node whose trouble explains best why nobody will do.
fn worst(policy: Policy, views: &[View], last_primary: Option<usize>) -> Verdict {
    let broken = |view: &&View| view.reason != Reason::InRecovery;
    let of_last_primary = views.iter().find(|view| Some(view.node) == last_primary);
    let found = of_last_primary
        .filter(broken)
        .or_else(|| views.iter().find(broken))
        .or(if views.len() == 1 {
            views.first()
        } else {
            None
        });
    match found {
        Some(view) => view.clone().verdict(),
        None => Verdict {
            ok: false,
            reason: Reason::NoPrimary,
            node: None,
            detail: Some(Cow::Borrowed(match policy {
                Policy::Primary => "every node is a standby",
                Policy::Any | Policy::All => "no node answered",
            })),
            age: views.iter().map(|view| view.age).max(),
        },
    }
}

/// All is well: as old as the oldest knowledge it rests on.
fn oldest(views: &[View]) -> Verdict {
    Verdict {
        ok: true,
        reason: Reason::Ok,
        node: None,
        detail: None,
        age: views.iter().map(|view| view.age).max(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::node::Facts;
    use super::*;

    fn answered(now: Instant, in_recovery: bool, read_only: bool) -> Observation {
        Observation {
            began: now,
            ended: now,
            outcome: Ok(Facts {
                in_recovery,
                read_only,
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
        let sights: Vec<_> = nodes
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
            .enumerate()
            .collect();
        ready(policy, &sights, last_primary, now)
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
        let verdict = ready(Policy::Primary, &[(0, Sight::Overdue(silence))], None, now)
            .expect("nothing is pending");
        assert_eq!(verdict.detail.as_deref(), Some("no answer for 4.2 s"));
        assert_eq!(verdict.age, Some(Duration::from_millis(4_200)));
    }
}
