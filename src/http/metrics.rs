//! `/metrics`: which figures there are and what they mean.

use std::fmt::Display;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::counters::{self, Counters};
use super::exposition::{Document, Format, Kind};
use crate::pair::sync::Mode;
use crate::probe::assessment::PairVerdict;
use crate::probe::board::{self, Report, Rules};
use crate::probe::guard_report::{Report as GuardReport, STATES, WaitReason};
use crate::probe::guard_status::{ABSENT, Guard};
use crate::probe::node::{Facts, Reason, Replication};

use Kind::{Counter, Gauge, Histogram};

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
        kind: Kind,
        name: &'static str,
        help: &'static str,
        value: impl Fn(usize) -> Option<T>,
    ) {
        let mut family = document.family(kind, name, help);
        for (node, name) in self.names() {
            family.known(&[("node", name)], value(node));
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
            .family(
                Gauge,
                "pgpair_ready",
                "Whether /ready would be 200 by what is known.",
            )
            .sample(&[], u8::from(self.report.ready.ok));
        let mut verdicts = document.family(
            Gauge,
            "pgpair_pair_verdict",
            "The pair's verdict: 1 for the current one.",
        );
        for verdict in PairVerdict::ALL {
            let is = u8::from(verdict == assessment.verdict);
            verdicts.sample(&[("verdict", verdict.word())], is);
        }
        // That there is none is known only where every node has said so.
        let is_known =
            assessment.verdict != PairVerdict::Unknown || assessment.writable_primaries > 0;
        let count = is_known.then_some(assessment.writable_primaries);
        document
            .family(
                Gauge,
                "pgpair_writable_primaries",
                "Nodes that are writable primaries: 1 is right.",
            )
            .known(&[], count);
    }

    fn nodes(&self, document: &mut Document) {
        let states = &self.report.assessment.nodes;
        self.each_node(
            document,
            Gauge,
            "pg_up",
            "Whether the node answered.",
            |node| Some(u8::from(states[node].role.is_some())),
        );
        self.each_node(
            document,
            Gauge,
            "pg_replication_is_replica",
            "Whether the node is a standby.",
            |node| states[node].role.map(|role| u8::from(role == "standby")),
        );
        let mut family = document.family(
            Gauge,
            "pgpair_node_role",
            "The node's role: 1 for the current one.",
        );
        for (node, name) in self.names() {
            for role in ["primary", "standby"] {
                let is = states[node].role.map(|current| u8::from(current == role));
                family.known(&[("node", name), ("role", role)], is);
            }
        }
        let mut family = document.family(
            Gauge,
            "pgpair_node_reason",
            "The node's state in one word: 1 for the current one.",
        );
        for (node, name) in self.names() {
            for reason in Reason::ALL {
                let is = u8::from(states[node].reason == reason);
                family.sample(&[("node", name), ("reason", reason.word())], is);
            }
        }
    }

    fn replication(&self, document: &mut Document) {
        let states = &self.report.assessment.nodes;
        self.each_node(
            document,
            Gauge,
            "pg_replication_lag_seconds",
            "How long ago the primary was where the standby has replayed to, in seconds.",
            |node| states[node].lag.seconds,
        );
        let mut family = document.family(
            Gauge,
            "pgpair_replication_lag_bytes",
            "WAL that the standby has not replayed (apply) or received (write) yet, in bytes.",
        );
        for (node, name) in self.names() {
            let lag = states[node].lag;
            family.known(&[("node", name), ("mode", "apply")], lag.apply_bytes);
            family.known(&[("node", name), ("mode", "write")], lag.write_bytes);
        }
        self.each_node(
            document,
            Gauge,
            "pgpair_wal_receiver_up",
            "Whether the standby's WAL receiver is streaming.",
            |node| {
                let standby = self.facts(node).filter(|facts| facts.in_recovery);
                let streams = standby.and_then(|facts| facts.replication.as_ref()?.streams());
                streams.map(u8::from)
            },
        );
        self.each_node(
            document,
            Gauge,
            "pgpair_timeline",
            "The node's timeline.",
            |node| self.told(node).and_then(|it| it.timeline),
        );
        let mut family = document.family(
            Gauge,
            "pgpair_slot_retained_bytes",
            "WAL that a replication slot holds back on the primary, in bytes.",
        );
        for (node, name) in self.names() {
            for slot in self.told(node).map_or(&[][..], Replication::slots) {
                let labels = [("node", name), ("slot", slot.name.as_str())];
                family.known(&labels, slot.retained_bytes);
            }
        }
    }

    fn ages(&self, document: &mut Document) {
        let nodes = &self.report.nodes;
        self.each_node(
            document,
            Gauge,
            "pgpair_observation_age_seconds",
            "Time since the node last answered, in seconds.",
            |node| nodes[node].age.map(|age| age.as_secs_f64()),
        );
        self.each_node(
            document,
            Gauge,
            "pgpair_replication_age_seconds",
            "Time since the node was asked for what it tells of replication, in seconds.",
            |node| nodes[node].replication_age.map(|age| age.as_secs_f64()),
        );
        self.each_node(
            document,
            Gauge,
            "pgpair_login_ok",
            "Whether the last new login to the node went through; one is tried every 10 s.",
            |node| {
                nodes[node]
                    .login
                    .map(|it| u8::from(it.reason == Reason::Ok))
            },
        );
        self.each_node(
            document,
            Gauge,
            "pgpair_login_age_seconds",
            "Time since the last new login to the node was tried, in seconds.",
            |node| nodes[node].login.map(|it| it.age.as_secs_f64()),
        );
        self.each_node(
            document,
            Gauge,
            "pgpair_certificate_expiry_timestamp_seconds",
            "Until when the certificate is good that the node showed last, in seconds since 1970.",
            |node| nodes[node].certificate_good_until,
        );
    }

    fn counts(&self, document: &mut Document) {
        let nodes = &self.report.nodes;
        let mut family = document.family(
            Histogram,
            "pgpair_observation_seconds",
            "Time that observations of the node took, in seconds.",
        );
        for (node, name) in self.names() {
            let counts = &nodes[node].counts;
            family.histogram(
                &[("node", name)],
                &board::OBSERVATION_BUCKETS,
                &counts.buckets,
                counts.seconds,
            );
        }
        let mut family = document.family(
            Counter,
            "pgpair_observation_failures_total",
            "Observations of the node that failed, by reason.",
        );
        for (node, name) in self.names() {
            // From zero on, so that the first failure is an increase.
            for reason in Reason::OF_FAILURES {
                let count = nodes[node].counts.failures.get(reason.word());
                let labels = [("node", name), ("reason", reason.word())];
                family.sample(&labels, count.copied().unwrap_or(0));
            }
        }
        self.each_node(
            document,
            Counter,
            "pgpair_watchers_abandoned_total",
            "Watchers of the node that were stuck and replaced.",
            |node| Some(nodes[node].counts.abandoned),
        );
        self.each_node(
            document,
            Gauge,
            "pgpair_last_transition_timestamp_seconds",
            "When the node's state last changed, in seconds since 1970.",
            |node| nodes[node].counts.last_transition.map(unix_seconds),
        );
        self.each_node(
            document,
            Counter,
            "pgpair_outage_seconds_total",
            "Time during which the node did not answer, in seconds.",
            |node| {
                let outage = nodes[node].counts.outage.as_secs_f64();
                Some(outage)
            },
        );
    }
}

fn about_guard(document: &mut Document, guard: &Guard) {
    let report = guard.report.as_ref();
    // Where there never was one, none is missed.
    let up = (guard.state != ABSENT).then_some(u8::from(report.is_some()));
    document
        .family(
            Gauge,
            "pgpair_guard_up",
            "Whether the guard reported within the last 10 s.",
        )
        .known(&[], up);
    let mut family = document.family(
        Gauge,
        "pgpair_guard_state",
        "What the guard does: 1 for the current state.",
    );
    for state in STATES {
        let is = report.map(|_| u8::from(guard.state == state));
        family.known(&[("state", state)], is);
    }
    let mut family = document.family(
        Gauge,
        "pgpair_guard_waiting",
        "Why the guard does not replace a primary that does not answer: 1 for the current reason.",
    );
    for reason in WaitReason::ALL {
        let is = report.map(|it| u8::from(it.reason == Some(reason)));
        family.known(&[("reason", reason.word())], is);
    }
    let mut family = document.family(
        Gauge,
        "pgpair_guard_blocked",
        "Why the guard cannot do what it would have to: 1 for the current reason.",
    );
    if let Some(reason) = report.and_then(|it| it.blocked.as_deref()) {
        family.sample(&[("reason", reason)], 1);
    }
    what_the_guard_promises(document, report);
}

fn what_the_guard_promises(document: &mut Document, report: Option<&GuardReport>) {
    let mut family = document.family(
        Gauge,
        "pgpair_guard_mode",
        "What the guard has commits wait for: 1 for the current mode.",
    );
    for mode in Mode::ALL {
        let is = report.map(|it| u8::from(it.mode == mode.word()));
        family.known(&[("mode", mode.word())], is);
    }
    document
        .family(
            Gauge,
            "pgpair_guard_synchronous",
            "Whether every acknowledged commit is on the standby's disk.",
        )
        .known(&[], report.map(|it| u8::from(it.synchronous)));
    document
        .family(
            Gauge,
            "pgpair_guard_failovers_last_hour",
            "Primaries that the guard replaced within the last hour.",
        )
        .known(&[], report.map(|it| it.failovers));
}

fn http(document: &mut Document, counts: &Counters) {
    let by_path = counts.by_path();
    let mut family = document.family(
        Counter,
        "pgpair_http_requests_total",
        "Requests answered, by documented path and status.",
    );
    for figures in &by_path {
        for (status, count) in &figures.by_status {
            let code = status.to_string();
            family.sample(&[("path", figures.path), ("code", &code)], count);
        }
    }
    let mut family = document.family(
        Histogram,
        "pgpair_http_request_seconds",
        "Time from a request to its answer, in seconds.",
    );
    for figures in &by_path {
        family.histogram(
            &[("path", figures.path)],
            &counters::BUCKETS,
            &figures.by_time,
            figures.seconds,
        );
    }
    document
        .family(Gauge, "pgpair_http_connections", "HTTP connections held.")
        .sample(&[], counts.connections());
    let mut family = document.family(
        Counter,
        "pgpair_http_connections_closed_total",
        "HTTP connections that pgpair closed, by reason.",
    );
    for (why, count) in counts.closed_by_reason() {
        family.sample(&[("reason", why.word())], count);
    }
    let mut family = document.family(
        Counter,
        "pgpair_http_requests_refused_total",
        "HTTP requests refused before their path was looked at, by reason.",
    );
    for (why, count) in counts.refused_by_reason() {
        family.sample(&[("reason", why.word())], count);
    }
    let help = "Requests that wait for PostgreSQL.";
    document
        .family(Gauge, "pgpair_http_requests_waiting", help)
        .sample(&[], counts.waiting());
    document
        .family(
            Gauge,
            "pgpair_http_unread_bytes",
            "Bytes of answers that clients have not read and the kernel does not hold.",
        )
        .sample(&[], counts.unsent_bytes());
}

fn process(document: &mut Document, started: SystemTime) {
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    document
        .family(
            Gauge,
            "pgpair_build_info",
            "The version of pgpair; always 1.",
        )
        .sample(&version, 1);
    document
        .family(
            Gauge,
            "process_start_time_seconds",
            "When the process started, in seconds since 1970.",
        )
        .sample(&[], unix_seconds(started));
    let own = OwnProcess::read();
    document
        .family(
            Counter,
            "process_cpu_seconds_total",
            "Processor time that the process used, in seconds.",
        )
        .known(&[], own.as_ref().map(|own| own.cpu_seconds));
    document
        .family(
            Gauge,
            "process_resident_memory_bytes",
            "Memory that the process holds, in bytes.",
        )
        .known(&[], own.as_ref().map(|own| own.resident_bytes));
    document
        .family(Gauge, "process_threads", "Threads of the process.")
        .known(&[], own.as_ref().map(|own| own.threads));
    let open = fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
    document
        .family(Gauge, "process_open_fds", "Open descriptors.")
        .known(&[], open);
    document
        .family(Gauge, "process_max_fds", "Descriptors that may be open.")
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
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_read_after_the_name() {
        let line = "1 (a) b) S 0 1 1 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 12 0 99 1000000 256 1";
        let own = OwnProcess::parse(line, 100, 4096).expect("parses");
        assert_eq!(own.cpu_seconds, 2.0);
        assert_eq!(own.threads, 12);
        assert_eq!(own.resident_bytes, 256 * 4096);
    }

    #[test]
    fn this_process_is_read() {
        let own = OwnProcess::read().expect("there is a /proc");
        assert!(own.threads >= 1 && own.resident_bytes > 0);
    }
}
