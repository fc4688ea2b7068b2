//! What was certainly so, and when: by the looks of the observer alone.
//!
//! A look proves something of one moment between its begin and its end, and
//! nobody knows which. Two looks in a row that agree prove it for the time
//! between the first one's end and the second one's begin, if they came in quick
//! succession and met the same server process. All other time is uncertain,
//! and an answer that falls into it is never called wrong.
//!
//! It **was so** if who is connected saw it all the time, and those who
//! connected anew in that time did too: then pgpair could, over the connection
//! that it has or over a new one. It was **not so** if who is connected heard the
//! opposite, or heard nothing while nobody else got through either.

use std::collections::HashMap;
use std::time::Duration;

/// A moment: the time since the run began.
pub type At = Duration;

/// Looks further apart than this (from the begin of one to the end of the next)
/// prove nothing of the time between. An answer may need the rest of one round
/// trip of pgpair's and the whole of the next, so twice this is within its
/// deadline: whatever holds a good server up for less makes no answer a no.
const GOOD_STEP: Duration = Duration::from_millis(400);

/// New connections prove that they can be made when they come so often. One that
/// takes its time proves nothing: many processes work for it.
const NEW_STEP: Duration = Duration::from_secs(4);

/// The same for looks that say no. A failed look takes up to a second, and
/// no fault pauses for as short a time as this, see [`super::faults`].
const BAD_STEP: Duration = Duration::from_millis(2_400);

/// A slow look may have been held up by the machine and not by the server: where
/// one ends a run of noes, the last of its time is left uncertain, as much as a
/// new psql may take to start. The same goes for a failure right after a slow
/// look: it is the end of a try that began before, and whose packets may have been
/// lost before the server was back.
const SLOW_DOUBT: Duration = Duration::from_millis(1_500);

/// What a server said of itself.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Said {
    pub in_recovery: bool,
    pub read_only: bool,
    /// When its postmaster started: tells one server process from the next.
    pub boot: String,
    /// What a primary has written, what a standby has replayed.
    pub lsn: u64,
    /// What a standby has received, or replayed if that is more.
    pub received: u64,
    /// The WAL receiver: its state and its process, or nothing.
    pub receiver: String,
    /// Every WAL sender: state and kind.
    pub senders: String,
}

/// What came of one look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Said(Said),
    /// A commit went through.
    Committed,
    /// No connection, or it was lost.
    Failed,
    /// No answer in time.
    Slow,
    /// An answer that proves nothing: an error, or one that came late.
    Unclear,
}

/// One look at one server.
#[derive(Clone, Debug)]
pub struct Look {
    pub began: At,
    pub ended: At,
    pub outcome: Outcome,
}

/// How a look is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// Over a new connection: what works this way, pgpair can have too.
    Fresh,
    /// Over one connection that is kept, as pgpair keeps one.
    Session,
    /// A commit, over another connection that is kept.
    Commit,
}

/// Every way, as they are numbered in [`Evidence`].
pub const WAYS: [Way; 3] = [Way::Fresh, Way::Session, Way::Commit];

/// All looks at one server, in order, by their way.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    pub looks: [Vec<Look>; 3],
}

impl Evidence {
    pub fn of(&self, way: Way) -> &[Look] {
        &self.looks[way as usize]
    }

    pub fn add(&mut self, way: Way, look: Look) {
        self.looks[way as usize].push(look);
    }

    /// Says whether the last look of this way confirms a claim; one or two that
    /// were slow do not count.
    pub fn shows(&self, way: Way, claim: Claim) -> bool {
        let mut last = self.of(way).iter().rev().take(3);
        match last
            .find(|look| look.outcome != Outcome::Slow)
            .map(|look| &look.outcome)
        {
            Some(Outcome::Said(said)) => claim.by(said).is_some(),
            Some(Outcome::Committed) => claim == Claim::Commits,
            _ => false,
        }
    }

    /// Forgets what ended before `when`.
    pub fn forget_before(&mut self, when: At) {
        for looks in &mut self.looks {
            looks.retain(|look| look.ended >= when);
        }
    }
}

/// What may be so of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Claim {
    /// It answers.
    Up,
    /// It answers as a primary that takes writes.
    Writable,
    /// It answers as a standby.
    Standby,
    /// It answers as a standby, and its WAL receiver streams.
    Streams,
    /// It answers as a primary that tells of a standby that no commit waits for.
    TellsAsync,
    /// It answers as a primary that tells of a standby that commits wait for.
    TellsSync,
    /// A commit goes through.
    Commits,
}

const CLAIMS: [Claim; 7] = [
    Claim::Up,
    Claim::Writable,
    Claim::Standby,
    Claim::Streams,
    Claim::TellsAsync,
    Claim::TellsSync,
    Claim::Commits,
];

impl Claim {
    /// Says whether what a server said confirms it: with what has to stay the
    /// same until the next look, or not.
    fn by(self, said: &Said) -> Option<String> {
        let tells = |kind: &str| {
            let mut senders = said.senders.split(',');
            !said.in_recovery && senders.any(|it| it == format!("streaming:{kind}"))
        };
        let so = match self {
            Claim::Up => true,
            Claim::Writable => !said.in_recovery && !said.read_only,
            Claim::Standby => said.in_recovery,
            Claim::Streams => said.in_recovery && said.receiver.starts_with("streaming"),
            Claim::TellsAsync => tells("async"),
            Claim::TellsSync => tells("sync"),
            Claim::Commits => false,
        };
        let same = match self {
            Claim::Streams => &said.receiver,
            Claim::TellsAsync | Claim::TellsSync => &said.senders,
            _ => "",
        };
        so.then(|| format!("{} {same}", said.boot))
    }

    /// What a new connection, which is asked for the role only, can show of it.
    fn role(self) -> Claim {
        match self {
            Claim::Streams => Claim::Standby,
            Claim::TellsAsync | Claim::TellsSync => Claim::Writable,
            other => other,
        }
    }
}

/// From one moment to another.
type Span = (At, At);

/// What was certainly so of each server, and what certainly not.
pub struct Truth {
    yes: HashMap<(usize, Claim), Vec<Span>>,
    no: HashMap<(usize, Claim), Vec<Span>>,
    positions: Vec<Vec<(At, At, u64, u64)>>,
}

impl Truth {
    /// Works it out of all the evidence, a server each.
    pub fn of(servers: &[Evidence]) -> Truth {
        let (mut yes, mut no) = (HashMap::new(), HashMap::new());
        for (node, evidence) in servers.iter().enumerate() {
            for claim in CLAIMS {
                let [so, not] = certain(evidence, claim);
                yes.insert((node, claim), so);
                no.insert((node, claim), not);
            }
        }
        Truth {
            yes,
            no,
            positions: servers.iter().map(positions).collect(),
        }
    }

    /// Says whether it was so at every moment of that time, for certain.
    pub fn always(&self, node: usize, claim: Claim, from: At, to: At) -> bool {
        covers(&self.yes[&(node, claim)], from, to)
    }

    /// Says whether it was so at no moment of that time, for certain.
    pub fn never(&self, node: usize, claim: Claim, from: At, to: At) -> bool {
        covers(&self.no[&(node, claim)], from, to)
    }

    /// Returns the least that a server's position can have been at `when`:
    /// written or replayed, and received. Positions only grow while it keeps its role.
    pub fn at_least(&self, node: usize, when: At) -> Option<(u64, u64)> {
        let before = self.positions[node].iter().rev();
        let last = before.clone().find(|(_, ended, _, _)| *ended <= when);
        last.map(|&(_, _, lsn, received)| (lsn, received))
    }

    /// Returns the most that it can have been.
    pub fn at_most(&self, node: usize, when: At) -> Option<(u64, u64)> {
        let mut after = self.positions[node].iter();
        let next = after.find(|(began, _, _, _)| *began >= when);
        next.map(|&(_, _, lsn, received)| (lsn, received))
    }
}

/// When a claim was certainly so, and when certainly not.
fn certain(evidence: &Evidence, claim: Claim) -> [Vec<Span>; 2] {
    let none = String::new;
    if claim == Claim::Commits {
        let done = |outcome: &Outcome| (*outcome == Outcome::Committed).then(none);
        let not = |outcome: &Outcome| matches!(outcome, Outcome::Failed | Outcome::Slow).then(none);
        return [
            runs(evidence.of(Way::Commit), GOOD_STEP, done),
            noes(evidence.of(Way::Commit), not),
        ];
    }
    let yes = |claim: Claim| {
        move |outcome: &Outcome| match outcome {
            Outcome::Said(said) => claim.by(said),
            _ => None,
        }
    };
    let denied = |claim: Claim| {
        move |outcome: &Outcome| match outcome {
            Outcome::Said(said) => claim.by(said).is_none().then(none),
            _ => None,
        }
    };
    let no = |claim: Claim| {
        move |outcome: &Outcome| match outcome {
            Outcome::Failed | Outcome::Slow => Some(none()),
            said => denied(claim)(said),
        }
    };
    let anew = evidence.of(Way::Fresh);
    let kept = evidence.of(Way::Session);
    let quick: Vec<Look> = anew
        .iter()
        .filter(|it| it.outcome != Outcome::Slow)
        .cloned()
        .collect();
    let so = intersection(
        &runs(kept, GOOD_STEP, yes(claim)),
        &runs(&quick, NEW_STEP, yes(claim.role())),
    );
    let mut not = intersection(&noes(kept, no(claim)), &noes(anew, no(claim.role())));
    not.extend(runs(kept, BAD_STEP, denied(claim)));
    [so, not]
}

/// The time that runs of agreeing looks prove.
fn runs(looks: &[Look], step: Duration, token: impl Fn(&Outcome) -> Option<String>) -> Vec<Span> {
    let mut found: Vec<Span> = Vec::new();
    for pair in looks.windows(2) {
        let (one, next) = (&pair[0], &pair[1]);
        let agree = match (token(&one.outcome), token(&next.outcome)) {
            (Some(one), Some(next)) => one == next,
            _ => false,
        };
        if !agree || next.ended.saturating_sub(one.began) > step {
            continue;
        }
        match found.last_mut() {
            // The run goes on: `one` agreed with those before it too.
            Some(last) if last.1 == one.began => last.1 = next.began,
            _ => found.push((one.ended, next.began)),
        }
    }
    found
}

/// As [`runs`], of looks that say no.
fn noes(looks: &[Look], token: impl Fn(&Outcome) -> Option<String>) -> Vec<Span> {
    let mut found = runs(looks, BAD_STEP, token);
    for span in &mut found {
        let last = looks.partition_point(|look| look.began < span.1);
        let slow = |index: usize| looks[index].outcome == Outcome::Slow;
        let late = looks[last].outcome == Outcome::Failed && last.checked_sub(1).is_some_and(slow);
        if slow(last) || late {
            span.1 = span.1.saturating_sub(SLOW_DOUBT);
        }
    }
    found.retain(|span| span.0 < span.1);
    found
}

fn intersection(some: &[Span], others: &[Span]) -> Vec<Span> {
    let mut found = Vec::new();
    let mut at = 0;
    for &(from, to) in some {
        while at < others.len() && others[at].1 <= from {
            at += 1;
        }
        for &(begin, end) in others[at..].iter().take_while(|span| span.0 < to) {
            found.push((from.max(begin), to.min(end)));
        }
    }
    found
}

fn covers(spans: &[Span], from: At, to: At) -> bool {
    spans.iter().any(|span| span.0 <= from && to <= span.1)
}

fn positions(evidence: &Evidence) -> Vec<(At, At, u64, u64)> {
    let position = |look: &Look| match &look.outcome {
        Outcome::Said(said) => Some((look.began, look.ended, said.lsn, said.received)),
        _ => None,
    };
    evidence
        .of(Way::Session)
        .iter()
        .filter_map(position)
        .collect()
}
