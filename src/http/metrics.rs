//! `/metrics`: which figures there are and what they mean.

use std::fmt::Display;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::counters::{self, Counters};
use super::exposition::{Document, Format};
use super::families::{self, Metric};
use crate::pair::sync::Mode;
use crate::probe::assessment::PairVerdict;
use crate::probe::board::{self, Report, Rules};
use crate::probe::guard_report::{Report as GuardReport, STATES, WaitReason};
use crate::probe::guard_status::{ABSENT, Guard};
use crate::probe::node::{Facts, Reason, Replication};

/// Renders the document.
pub fn render(
    report: &Report,
    rules: &Rules,
    guard: Option<&Guard>,
    counts: &Counters,
    started: SystemTime,
    format: Format,
) -> String {
    let mut document = Document::new(format);
    let figures = Figures { report, rules };
    figures.pair(&mut document);
    figures.nodes(&mut document);
    figures.replication(&mut document);
    figures.ages(&mut document);
    figures.counts(&mut document);
    if let Some(guard) = guard {
        about_guard(&mut document, guard);
    }
    http(&mut document, counts);
    process(&mut document, started);
    document.finish()
}

struct Figures<'a> {
    report: &'a Report,
    rules: &'a Rules,
}

impl<'a> Figures<'a> {
    fn names(&self) -> impl Iterator<Item = (usize, &'a str)> {
        self.rules.nodes.iter().map(String::as_str).enumerate()
    }

    /// Writes a family with one sample a node, where its value is known.
    fn each_node<T: Display>(
        &self,
        document: &mut Document,
        metric: &'static Metric,
        value: impl Fn(usize) -> Option<T>,
    ) {
        let mut family = document.family(metric);
        for (node, name) in self.names() {
            family.known(&[name], value(node));
        }
    }

    fn facts(&self, node: usize) -> Option<&'a Facts> {
        self.report.nodes[node].facts.as_ref()
    }

    fn told(&self, node: usize) -> Option<&'a Replication> {
        self.facts(node)?.replication.as_deref()
    }

    fn pair(&self, document: &mut Document) {
        let assessment = &self.report.assessment;
        document
            .family(&families::READY)
            .sample(&[], u8::from(self.report.ready.ok));
        let mut verdicts = document.family(&families::PAIR_VERDICT);
        for verdict in PairVerdict::ALL {
            let is = u8::from(verdict == assessment.verdict);
            verdicts.sample(&[verdict.word()], is);
        }
        // That there is none is known only where every node has said so.
        let is_known =
            assessment.verdict != PairVerdict::Unknown || assessment.writable_primaries > 0;
        let count = is_known.then_some(assessment.writable_primaries);
        document
            .family(&families::WRITABLE_PRIMARIES)
            .known(&[], count);
    }

    fn nodes(&self, document: &mut Document) {
        let states = &self.report.assessment.nodes;
        self.each_node(document, &families::PG_UP, |node| {
            Some(u8::from(states[node].role.is_some()))
        });
        self.each_node(document, &families::PG_REPLICATION_IS_REPLICA, |node| {
            states[node].role.map(|role| u8::from(role == "standby"))
        });
        let mut family = document.family(&families::NODE_ROLE);
        for (node, name) in self.names() {
            for role in ["primary", "standby"] {
                let is = states[node].role.map(|current| u8::from(current == role));
                family.known(&[name, role], is);
            }
        }
        let mut family = document.family(&families::NODE_REASON);
        for (node, name) in self.names() {
            for reason in Reason::ALL {
                let is = u8::from(states[node].reason == reason);
                family.sample(&[name, reason.word()], is);
            }
        }
    }

    fn replication(&self, document: &mut Document) {
        let states = &self.report.assessment.nodes;
        self.each_node(document, &families::PG_REPLICATION_LAG_SECONDS, |node| {
            states[node].lag.seconds
        });
        let mut family = document.family(&families::REPLICATION_LAG_BYTES);
        for (node, name) in self.names() {
            let lag = states[node].lag;
            family.known(&[name, "apply"], lag.apply_bytes);
            family.known(&[name, "write"], lag.write_bytes);
        }
        self.each_node(document, &families::WAL_RECEIVER_UP, |node| {
            let standby = self.facts(node).filter(|facts| facts.in_recovery);
            let streams = standby.and_then(|facts| facts.replication.as_ref()?.streams());
            streams.map(u8::from)
        });
        self.each_node(document, &families::TIMELINE, |node| {
            self.told(node).and_then(|it| it.timeline)
        });
        let mut family = document.family(&families::SLOT_RETAINED_BYTES);
        for (node, name) in self.names() {
            for slot in self.told(node).map_or(&[][..], Replication::slots) {
                let labels = [name, slot.name.as_str()];
                family.known(&labels, slot.retained_bytes);
            }
        }
    }

    fn ages(&self, document: &mut Document) {
        let nodes = &self.report.nodes;
        self.each_node(document, &families::OBSERVATION_AGE_SECONDS, |node| {
            nodes[node].age.map(|age| age.as_secs_f64())
        });
        self.each_node(document, &families::REPLICATION_AGE_SECONDS, |node| {
            nodes[node].replication_age.map(|age| age.as_secs_f64())
        });
        self.each_node(document, &families::LOGIN_OK, |node| {
            nodes[node]
                .login
                .map(|it| u8::from(it.reason == Reason::Ok))
        });
        self.each_node(document, &families::LOGIN_AGE_SECONDS, |node| {
            nodes[node].login.map(|it| it.age.as_secs_f64())
        });
        self.each_node(
            document,
            &families::CERTIFICATE_EXPIRY_TIMESTAMP_SECONDS,
            |node| nodes[node].certificate_good_until,
        );
    }

    fn counts(&self, document: &mut Document) {
        let nodes = &self.report.nodes;
        let mut family = document.family(&families::OBSERVATION_SECONDS);
        for (node, name) in self.names() {
            let counts = &nodes[node].counts;
            family.histogram(
                &[name],
                &board::OBSERVATION_BUCKETS,
                &counts.buckets,
                counts.seconds,
            );
        }
        let mut family = document.family(&families::OBSERVATION_FAILURES_TOTAL);
        for (node, name) in self.names() {
            // From zero on, so that the first failure is an increase.
            for reason in Reason::OF_FAILURES {
                let count = nodes[node].counts.failures.get(reason.word());
                let labels = [name, reason.word()];
                family.sample(&labels, count.copied().unwrap_or(0));
            }
        }
        self.each_node(document, &families::WATCHERS_ABANDONED_TOTAL, |node| {
            Some(nodes[node].counts.abandoned)
        });
        self.each_node(
            document,
            &families::LAST_TRANSITION_TIMESTAMP_SECONDS,
            |node| nodes[node].counts.last_transition.map(unix_seconds),
        );
        self.each_node(document, &families::OUTAGE_SECONDS_TOTAL, |node| {
            let outage = nodes[node].counts.outage.as_secs_f64();
            Some(outage)
        });
    }
}

fn about_guard(document: &mut Document, guard: &Guard) {
    let report = guard.report.as_ref();
    // Where there never was one, none is missed.
    let up = (guard.state != ABSENT).then_some(u8::from(report.is_some()));
    document.family(&families::GUARD_UP).known(&[], up);
    let mut family = document.family(&families::GUARD_STATE);
    for state in STATES {
        let is = report.map(|_| u8::from(guard.state == state));
        family.known(&[state], is);
    }
    let mut family = document.family(&families::GUARD_WAITING);
    for reason in WaitReason::ALL {
        let is = report.map(|it| u8::from(it.reason == Some(reason)));
        family.known(&[reason.word()], is);
    }
    let mut family = document.family(&families::GUARD_BLOCKED);
    if let Some(reason) = report.and_then(|it| it.blocked.as_deref()) {
        family.sample(&[reason], 1);
    }
    what_the_guard_promises(document, report);
}

fn what_the_guard_promises(document: &mut Document, report: Option<&GuardReport>) {
    let mut family = document.family(&families::GUARD_MODE);
    for mode in Mode::ALL {
        let is = report.map(|it| u8::from(it.mode == mode.word()));
        family.known(&[mode.word()], is);
    }
    document
        .family(&families::GUARD_SYNCHRONOUS)
        .known(&[], report.map(|it| u8::from(it.synchronous)));
    document
        .family(&families::GUARD_FAILOVERS_LAST_HOUR)
        .known(&[], report.map(|it| it.failovers));
}

fn http(document: &mut Document, counts: &Counters) {
    let by_path = counts.by_path();
    let mut family = document.family(&families::HTTP_REQUESTS_TOTAL);
    for figures in &by_path {
        for (status, count) in &figures.by_status {
            let code = status.to_string();
            family.sample(&[figures.path, &code], count);
        }
    }
    let mut family = document.family(&families::HTTP_REQUEST_SECONDS);
    for figures in &by_path {
        family.histogram(
            &[figures.path],
            &counters::BUCKETS,
            &figures.by_time,
            figures.seconds,
        );
    }
    document
        .family(&families::HTTP_CONNECTIONS)
        .sample(&[], counts.connections());
    let mut family = document.family(&families::HTTP_CONNECTIONS_CLOSED_TOTAL);
    for (why, count) in counts.closed_by_reason() {
        family.sample(&[why.word()], count);
    }
    let mut family = document.family(&families::HTTP_REQUESTS_REFUSED_TOTAL);
    for (why, count) in counts.refused_by_reason() {
        family.sample(&[why.word()], count);
    }
    document
        .family(&families::HTTP_REQUESTS_WAITING)
        .sample(&[], counts.waiting());
    document
        .family(&families::HTTP_UNREAD_BYTES)
        .sample(&[], counts.unsent_bytes());
}

fn process(document: &mut Document, started: SystemTime) {
    let version = [env!("CARGO_PKG_VERSION")];
    document.family(&families::BUILD_INFO).sample(&version, 1);
    document
        .family(&families::PROCESS_START_TIME_SECONDS)
        .sample(&[], unix_seconds(started));
    let own = OwnProcess::read();
    document
        .family(&families::PROCESS_CPU_SECONDS_TOTAL)
        .known(&[], own.as_ref().map(|own| own.cpu_seconds));
    document
        .family(&families::PROCESS_RESIDENT_MEMORY_BYTES)
        .known(&[], own.as_ref().map(|own| own.resident_bytes));
    document
        .family(&families::PROCESS_THREADS)
        .known(&[], own.as_ref().map(|own| own.threads));
    let open = fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
    document
        .family(&families::PROCESS_OPEN_FDS)
        .known(&[], open);
    document
        .family(&families::PROCESS_MAX_FDS)
        .known(&[], getrlimit(Resource::Nofile).current);
}

fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// What the kernel says of this process.
struct OwnProcess {
    cpu_seconds: f64,
    threads: u64,
    resident_bytes: u64,
}

impl OwnProcess {
    /// Reads `/proc/self/stat`: fields 14, 15 (processor time), 20 (threads) and
    /// 24 (resident pages) of proc(5), counted after the name in brackets.
    fn read() -> Option<OwnProcess> {
        let text = fs::read_to_string("/proc/self/stat").ok()?;
        OwnProcess::parse(&text, clock_ticks_per_second(), page_size() as u64)
    }

    fn parse(text: &str, ticks_per_second: u64, page_bytes: u64) -> Option<OwnProcess> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks = field(14)? + field(15)?;
        Some(OwnProcess {
            cpu_seconds: ticks as f64 / ticks_per_second as f64,
            threads: field(20)?,
            resident_bytes: field(24)? * page_bytes,
        })
    }
}

#[cfg(test)]
mod tests;
