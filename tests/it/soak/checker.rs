//! Holds every answer against what was certainly so.
//!
//! A **yes** (200) rests on round trips that began after the request, so it is
//! wrong if what it says was so at no moment from the request to the answer.
//! A **no** (503) is wrong if the opposite was so all the time from [`RECOVERY`]
//! before the request to the answer: so long may pgpair need to find its way
//! back after a fault. Nodes are asked one by one, so each part of an answer may
//! be true at a moment of its own. `/status` and `/metrics` tell what is known
//! without asking, so all that they say may be [`TOLD_WITHIN`] old.
//!
//! The rest of the contract's times: a second primary is noticed within
//! [`TOLD_WITHIN`]; a commit may have begun [`COMMIT_EVERY`] before the request; a
//! connection whose server process is frozen is given up after 10 s, so the
//! node may be out for [`Excuse`]'s time although everybody else reaches it. No
//! other allowance is made, but for the time for which the machine did not let
//! us run at all ([`Stalls`]).

use std::time::Duration;

use serde_json::Value;

use super::truth::{At, Claim, Truth};
use crate::support::ms;
use crate::support::probe::RECOVERY;
use crate::support::replication::TOLD_WITHIN;

/// The nodes' names, as pgpair is told them.
pub const NODES: [&str; 2] = ["a", "b"];

/// Commits are tried at most this often; the last one speaks until then.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// What an answer may take: the deadline, and 100 ms by the contract.
const ANSWER_IN: Duration = ms(1_000);

/// An answer that takes longer than this is wrong, however busy the machine is.
/// Up to this it counts as late, of which there may be few: see [`super::verify`].
const ANSWER_AT_MOST: Duration = ms(1_500);

/// Words that nothing in a soak can be a reason for.
const NEVER_SAID: [&str; 7] = [
    "auth_failed",
    "tls_failed",
    "too_many_connections",
    "wrong_system",
    "unresolved",
    "draining",
    "error",
];

/// One request and its answer.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    pub sent: At,
    pub received: At,
    pub heard: Heard,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Heard {
    pub status: u16,
    /// The document; nothing where only the head was asked for.
    pub body: Value,
}

/// A time in which pgpair and the observer may see a node differently.
#[derive(Clone, Copy, Debug)]
pub struct Excuse {
    pub node: usize,
    pub from: At,
    pub until: At,
    pub what: Excused,
}

/// What an [`Excuse`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excused {
    /// The node is out of pgpair's reach, and of nobody else's.
    Node,
    /// Commits are.
    Commits,
    /// The observer's commits may be stuck, and nobody else's.
    Witness,
}

/// When the machine did not let us run: no answer can be told from none then.
#[derive(Clone, Debug, Default)]
pub struct Stalls(pub Vec<(At, At)>);

impl Stalls {
    /// How much of that time was lost.
    fn lost(&self, from: At, to: At) -> Duration {
        let part = |&(begin, end): &(At, At)| end.min(to).saturating_sub(begin.max(from));
        self.0.iter().map(part).sum()
    }
}

/// Everything that answers are held against.
pub struct Checker<'a> {
    pub truth: &'a Truth,
    pub excuses: &'a [Excuse],
    pub stalls: &'a Stalls,
}

/// What a path asks, of the nodes that it is about.
struct Question {
    ask: Ask,
    scope: Vec<usize>,
}

#[derive(Clone, Copy)]
enum Ask {
    Ready,
    ReadyWrite,
    Primary,
    Replica(Option<Limit>),
    ReadOnly,
    Sync,
    Async,
}

#[derive(Clone, Copy)]
struct Limit {
    bytes: u64,
    received: bool,
}

impl Checker<'_> {
    /// Says what is wrong with an answer, if anything certainly is.
    pub fn check(&self, asked: &Asked) -> Result<(), String> {
        self.check_time(asked)?;
        match asked.path.as_str() {
            "/health" | "/ui" => expect(asked.heard.status == 200, "it is always 200"),
            "/status" => self.check_status(asked),
            "/metrics" => self.check_metrics(asked),
            path => self.check_verdict(&question(path), asked),
        }
    }

    fn check_time(&self, asked: &Asked) -> Result<(), String> {
        expect(!self.took_longer(ANSWER_AT_MOST, asked), "it came too late")
    }

    /// Says whether an answer came later than the contract has it.
    pub fn is_late(&self, asked: &Asked) -> bool {
        self.took_longer(ANSWER_IN, asked)
    }

    fn took_longer(&self, limit: Duration, asked: &Asked) -> bool {
        let lost = self.stalls.lost(asked.sent, asked.received);
        asked.received - asked.sent > limit + lost
    }

    fn check_verdict(&self, question: &Question, asked: &Asked) -> Result<(), String> {
        let mut scope = question.scope.iter();
        match asked.heard.status {
            200 => expect(
                scope.any(|&node| self.could_be(question.ask, node, asked)),
                "a yes that was true at no moment",
            ),
            503 => {
                let lost = self
                    .stalls
                    .lost(asked.sent.saturating_sub(RECOVERY), asked.received);
                let from = asked.sent.saturating_sub(RECOVERY + lost);
                expect(
                    !scope.any(|&node| self.must_be(question.ask, node, from, asked)),
                    "a no although the opposite was so all the time",
                )?;
                self.check_reason(asked)
            }
            _ => Err("neither yes nor no".to_owned()),
        }
    }

    /// Says whether a yes about a node can have been true.
    fn could_be(&self, ask: Ask, node: usize, asked: &Asked) -> bool {
        let (sent, received) = (asked.sent, asked.received);
        let may = |claim, from| !self.truth.never(node, claim, from, received);
        match ask {
            Ask::Ready => may(Claim::Writable, sent),
            Ask::ReadyWrite => {
                let since = sent.saturating_sub(COMMIT_EVERY);
                let blind = self.is_excused(node, &[Excused::Witness], since, received);
                may(Claim::Writable, sent) && (blind || may(Claim::Commits, since))
            }
            Ask::Primary => {
                let since = sent.saturating_sub(TOLD_WITHIN + self.stalls.lost(sent, received));
                let rival = |&it: &usize| self.truth.always(it, Claim::Writable, since, received);
                may(Claim::Writable, sent) && !(rival(&node) && others(node).any(|it| rival(&it)))
            }
            Ask::Replica(limit) => {
                let within = |limit| !self.lags_certainly(node, limit, asked);
                may(Claim::Streams, sent) && limit.is_none_or(within)
            }
            Ask::ReadOnly => [Ask::Replica(None), Ask::Primary]
                .into_iter()
                .any(|either| self.could_be(either, node, asked)),
            Ask::Sync => may(Claim::Streams, sent) && self.may_tell(Claim::TellsSync, node, asked),
            Ask::Async => {
                may(Claim::Streams, sent) && self.may_tell(Claim::TellsAsync, node, asked)
            }
        }
    }

    fn may_tell(&self, claim: Claim, node: usize, asked: &Asked) -> bool {
        others(node).any(|it| !self.truth.never(it, claim, asked.sent, asked.received))
    }

    /// Says whether a no about a node is certainly wrong: it was yes all the
    /// time, and pgpair has no excuse.
    fn must_be(&self, ask: Ask, node: usize, from: At, asked: &Asked) -> bool {
        let to = asked.received;
        let was = |node, claim| {
            let excuses: &[Excused] = match claim {
                Claim::Commits => &[Excused::Node, Excused::Commits],
                _ => &[Excused::Node],
            };
            self.truth.always(node, claim, from, to) && !self.is_excused(node, excuses, from, to)
        };
        let none = |it| self.truth.never(it, Claim::Writable, from, to);
        let streamed = || was(node, Claim::Streams) && self.nobody_denies(node, from, to);
        match ask {
            Ask::Ready => was(node, Claim::Writable),
            // Of two primaries either may be the one where a commit is tried.
            Ask::ReadyWrite => {
                was(node, Claim::Writable) && was(node, Claim::Commits) && others(node).all(none)
            }
            Ask::Primary => was(node, Claim::Writable) && others(node).all(none),
            Ask::Replica(None) => streamed(),
            Ask::Replica(Some(limit)) => {
                streamed()
                    && others(node).any(|primary| {
                        was(primary, Claim::Writable)
                            && self
                                .lag_at_most(primary, node, limit, asked)
                                .is_some_and(|lag| lag <= limit.bytes)
                    })
            }
            Ask::ReadOnly => [Ask::Replica(None), Ask::Primary]
                .into_iter()
                .any(|either| self.must_be(either, node, from, asked)),
            Ask::Sync | Ask::Async => {
                let claim = match ask {
                    Ask::Sync => Claim::TellsSync,
                    _ => Claim::TellsAsync,
                };
                streamed() && others(node).any(|primary| was(primary, claim))
            }
        }
    }

    /// The most that the lag can have been, measured at any two moments from
    /// the request to the answer. Unknown is more than anything.
    fn lag_at_most(&self, primary: usize, node: usize, limit: Limit, asked: &Asked) -> Option<u64> {
        let end = self.truth.at_most(primary, asked.received)?.0;
        let reached = limit.of(self.truth.at_least(node, asked.sent)?);
        Some(end.saturating_sub(reached))
    }

    /// Says whether the lag was more than the limit, measured at whatever two
    /// moments, while a primary could be asked for its position.
    fn lags_certainly(&self, node: usize, limit: Limit, asked: &Asked) -> bool {
        let (sent, received) = (asked.sent, asked.received);
        let least = |primary: usize| {
            let told = self.truth.always(primary, Claim::Writable, sent, received);
            let known = told && !self.is_excused(primary, &[Excused::Node], sent, received);
            let end = self.truth.at_least(primary, sent).filter(|_| known)?.0;
            let reached = limit.of(self.truth.at_most(node, received)?);
            Some(end.saturating_sub(reached))
        };
        others(node).filter_map(least).any(|lag| lag > limit.bytes)
    }

    fn is_excused(&self, node: usize, what: &[Excused], from: At, to: At) -> bool {
        let mut excuses = self.excuses.iter();
        excuses.any(|excuse| {
            let about = excuse.node == node && what.contains(&excuse.what);
            about && excuse.from <= to && from <= excuse.until
        })
    }

    /// Checks what the reason says beyond no.
    fn check_reason(&self, asked: &Asked) -> Result<(), String> {
        let Some(reason) = asked.heard.body["reason"].as_str() else {
            return Ok(());
        };
        let never = |node, claim| self.truth.never(node, claim, asked.sent, asked.received);
        let always = |node, claim| self.truth.always(node, claim, asked.sent, asked.received);
        let node = asked.heard.body["node"].as_str().and_then(number);
        match reason {
            "split_brain" => {
                let both = (0..NODES.len()).all(|node| !never(node, Claim::Writable));
                expect(both, "one of them was certainly no writable primary")
            }
            "no_primary" => {
                let none = |node| !always(node, Claim::Writable) && !never(node, Claim::Up);
                expect((0..NODES.len()).all(none), "not every node was a standby")
            }
            "in_recovery" => {
                let standby = node.is_some_and(|node| !never(node, Claim::Standby));
                expect(standby, "that node was certainly no standby")
            }
            word => expect(!NEVER_SAID.contains(&word), "nothing is a reason for that"),
        }
    }

    fn check_status(&self, asked: &Asked) -> Result<(), String> {
        expect(asked.heard.status == 200, "it is always 200")?;
        let said = &asked.heard.body;
        self.check_pair_verdict(said["verdict"].as_str().unwrap_or("none"), asked)?;
        for node in 0..NODES.len() {
            let role = said["nodes"][node]["role"].as_str();
            let can_be = match role {
                Some("primary") => !self.never_lately(node, Claim::Writable, asked),
                Some("standby") => !self.never_lately(node, Claim::Standby, asked),
                _ => !self.always_lately(node, Claim::Up, asked),
            };
            expect(can_be, &format!("node {}: {role:?}", NODES[node]))?;
            self.check_replication(node, &said["nodes"][node], asked)?;
        }
        Ok(())
    }

    /// Checks what is told of a node's replication: that it streams, and how far it
    /// is behind. What is not told must be unknown for a reason.
    fn check_replication(&self, node: usize, said: &Value, asked: &Asked) -> Result<(), String> {
        let name = NODES[node];
        let streamed = self.always_lately(node, Claim::Streams, asked)
            && self.nobody_denies(node, self.lately(asked), asked.received);
        let can_be = match said["streams"].as_bool() {
            Some(true) => !self.never_lately(node, Claim::Streams, asked),
            Some(false) | None => !streamed,
        };
        expect(can_be, &format!("{name} streams: {}", said["streams"]))?;
        let primary = others(node).find(|&it| self.always_lately(it, Claim::Writable, asked));
        let (true, Some(primary)) = (streamed, primary) else {
            return Ok(());
        };
        let lag = said["lag"].as_f64();
        let lag = lag.ok_or_else(|| format!("the lag of {name} is not told"))? as u64;
        let (from, to) = (self.lately(asked), asked.received);
        let written = |at: Option<(u64, u64)>| at.map(|(lsn, _)| lsn);
        let bounds = |end: Option<u64>, reached: Option<u64>| Some(end?.saturating_sub(reached?));
        let least = bounds(
            written(self.truth.at_least(primary, from)),
            written(self.truth.at_most(node, to)),
        );
        let most = bounds(
            written(self.truth.at_most(primary, to)),
            written(self.truth.at_least(node, from)),
        );
        let can_be = least.is_none_or(|it| it <= lag) && most.is_none_or(|it| lag <= it);
        expect(
            can_be,
            &format!("{name} is {lag} behind, not {least:?} to {most:?}"),
        )
    }

    fn check_metrics(&self, asked: &Asked) -> Result<(), String> {
        expect(asked.heard.status == 200, "it is always 200")?;
        let said = &asked.heard.body;
        self.check_pair_verdict(said["verdict"].as_str().unwrap_or("none"), asked)?;
        for (node, name) in NODES.iter().enumerate() {
            let up = &said["nodes"][node]["up"];
            let can_be = match up.as_f64() {
                Some(1.0) => !self.never_lately(node, Claim::Up, asked),
                Some(0.0) => !self.always_lately(node, Claim::Up, asked),
                _ => false,
            };
            expect(can_be, &format!("pg_up of {name}: {up}"))?;
            self.check_replication(node, &said["nodes"][node], asked)?;
        }
        Ok(())
    }

    fn check_pair_verdict(&self, verdict: &str, asked: &Asked) -> Result<(), String> {
        let can_be = |node, claim| !self.never_lately(node, claim, asked);
        let must_be = |node, claim| self.always_lately(node, claim, asked);
        let all = || 0..NODES.len();
        let streams = |primary| others(primary).any(|it| can_be(it, Claim::Streams));
        let broken = |primary| {
            let (from, to) = (self.lately(asked), asked.received);
            let sends = self.sends(primary, from, to)
                && !self.is_excused(primary, &[Excused::Node], from, to);
            !sends || !others(primary).any(|it| must_be(it, Claim::Streams))
        };
        let can_be_said = match verdict {
            "ok" => all().any(|it| can_be(it, Claim::Writable) && streams(it)),
            "degraded" => all().any(|it| can_be(it, Claim::Writable) && broken(it)),
            // Unknown only for want of a primary: who streams may be seen.
            "no_primary" | "unknown" => !all().any(|it| must_be(it, Claim::Writable)),
            "split_brain" => all().all(|it| can_be(it, Claim::Writable)),
            // An old primary that came back as a standby before it followed.
            "diverged" => {
                all().any(|it| can_be(it, Claim::Standby) && !must_be(it, Claim::Streams))
            }
            _ => false,
        };
        expect(can_be_said, &format!("the pair is not {verdict}"))
    }

    /// Says whether a standby certainly read from a node all the time.
    fn sends(&self, primary: usize, from: At, to: At) -> bool {
        let tells = [Claim::TellsAsync, Claim::TellsSync];
        let told = |claim| self.truth.always(primary, claim, from, to);
        tells.into_iter().any(told)
    }

    /// Says whether no primary was there that did not send: a receiver whose sender was
    /// killed while they were apart goes on saying that it streams.
    fn nobody_denies(&self, node: usize, from: At, to: At) -> bool {
        others(node)
            .all(|it| self.truth.never(it, Claim::Writable, from, to) || self.sends(it, from, to))
    }

    fn never_lately(&self, node: usize, claim: Claim, asked: &Asked) -> bool {
        let from = self.lately(asked);
        self.truth.never(node, claim, from, asked.received)
    }

    fn always_lately(&self, node: usize, claim: Claim, asked: &Asked) -> bool {
        let from = self.lately(asked);
        self.truth.always(node, claim, from, asked.received)
            && !self.is_excused(node, &[Excused::Node], from, asked.received)
    }

    fn lately(&self, asked: &Asked) -> At {
        let from = asked.sent.saturating_sub(TOLD_WITHIN);
        from.saturating_sub(self.stalls.lost(from, asked.received))
    }
}

impl Limit {
    fn of(self, (replayed, received): (u64, u64)) -> u64 {
        if self.received { received } else { replayed }
    }
}

/// Returns an answer that says the opposite, as like the real one as can be.
pub fn falsified(asked: &Asked) -> Asked {
    let mut other = asked.clone();
    let heard = &mut other.heard;
    match asked.path.as_str() {
        "/health" | "/ui" => heard.status = 503,
        "/status" | "/metrics" => {
            let was_ok = heard.body["verdict"] == "ok";
            heard.body["verdict"] = if was_ok { "no_primary" } else { "ok" }.into();
        }
        _ if heard.status == 200 => {
            heard.status = 503;
            heard.body["reason"] = "refused".into();
        }
        _ => {
            heard.status = 200;
            heard.body["reason"] = "ok".into();
        }
    }
    other
}

fn question(path: &str) -> Question {
    let (scope, rest) = match path.strip_prefix("/nodes/") {
        None => ((0..NODES.len()).collect(), path),
        Some(rest) => {
            let at = rest.find('/').expect("a node and what is asked");
            let node = number(&rest[..at]).expect("a node that is there");
            (vec![node], &rest[at..])
        }
    };
    let (what, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let ask = match what {
        "/ready" | "/readyz" if parameters == "write" => Ask::ReadyWrite,
        "/ready" | "/readyz" => Ask::Ready,
        "/primary" | "/" | "/leader" => Ask::Primary,
        "/replica" => Ask::Replica(limit(parameters)),
        "/read-only" => Ask::ReadOnly,
        "/sync" => Ask::Sync,
        "/async" => Ask::Async,
        _ => panic!("{path} is not asked in a soak"),
    };
    Question { ask, scope }
}

fn limit(parameters: &str) -> Option<Limit> {
    let of = |name: &str| {
        let mut pairs = parameters.split('&').filter_map(|it| it.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    of("lag").map(|bytes| Limit {
        bytes: bytes.parse().expect("a number of bytes"),
        received: of("mode") == Some("write"),
    })
}

fn number(name: &str) -> Option<usize> {
    NODES.iter().position(|it| *it == name)
}

fn others(node: usize) -> impl Iterator<Item = usize> {
    (0..NODES.len()).filter(move |other| *other != node)
}

fn expect(holds: bool, otherwise: &str) -> Result<(), String> {
    holds.then_some(()).ok_or_else(|| otherwise.to_owned())
}
