//! The one table of metric families. `/metrics` and README's table are made from it.

use Basis::{Guard, Itself, Kernel, Lag, Login, Node, Observations, Pair, Replication, Requests};
use Kind::{Counter, Gauge, Histogram};
use Unit::{Bytes, Flag, Number, Seconds, Timestamp};

/// A family of metrics.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name; a counter's with its `_total`.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it is measured in.
    pub unit: Unit,
    /// Names of the labels, in their order.
    pub labels: &'static [&'static str],
    /// What it means: a sentence.
    pub help: &'static str,
    /// What its values rest on.
    pub basis: Basis,
}

/// What a family of metrics is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only goes up; its name ends in `_total`.
    Counter,
    /// Counts by size.
    Histogram,
}

/// What a value is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// 1 for yes, 0 for no.
    Flag,
    /// A plain number.
    Number,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// Seconds since 1970.
    Timestamp,
}

/// What a value rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The last round trips to all nodes, where their times allow to compare them.
    Pair,
    /// The last round trip to the node.
    Node,
    /// The node's last answer about replication.
    Replication,
    /// That of the standby and that of the primary.
    Lag,
    /// The last new login to the node.
    Login,
    /// Every observation of the node since pgpair started.
    Observations,
    /// The guard's last report.
    Guard,
    /// Every request and connection since pgpair started.
    Requests,
    /// What pgpair knows of itself now.
    Itself,
    /// What the kernel says of the process now.
    Kernel,
}

impl Kind {
    /// Returns the word of the exposition.
    pub const fn word(self) -> &'static str {
        match self {
            Gauge => "gauge",
            Counter => "counter",
            Histogram => "histogram",
        }
    }
}

impl Unit {
    /// Returns the word of the documentation.
    pub const fn word(self) -> &'static str {
        match self {
            Flag => "0 or 1",
            Number => "number",
            Bytes => "bytes",
            Seconds => "seconds",
            Timestamp => "seconds since 1970",
        }
    }
}

impl Basis {
    /// Returns the words of the documentation.
    pub const fn words(self) -> &'static str {
        match self {
            Pair => "the last round trips to all nodes",
            Node => "the last round trip to the node",
            Replication => "the node's last answer about replication",
            Lag => "the last answers of standby and primary about replication",
            Login => "the last new login to the node",
            Observations => "all observations of the node since pgpair started",
            Guard => "the guard's last report",
            Requests => "all requests since pgpair started",
            Itself => "pgpair itself, at this moment",
            Kernel => "the kernel, at this moment",
        }
    }
}

/// `pgpair_ready`.
pub const READY: Metric = Metric {
    name: "pgpair_ready",
    kind: Gauge,
    unit: Flag,
    labels: &[],
    help: "Whether /ready would be 200 by what is known.",
    basis: Pair,
};

/// `pgpair_pair_verdict`.
pub const PAIR_VERDICT: Metric = Metric {
    name: "pgpair_pair_verdict",
    kind: Gauge,
    unit: Flag,
    labels: &["verdict"],
    help: "The pair's verdict: 1 for the current one.",
    basis: Pair,
};

/// `pgpair_writable_primaries`.
pub const WRITABLE_PRIMARIES: Metric = Metric {
    name: "pgpair_writable_primaries",
    kind: Gauge,
    unit: Number,
    labels: &[],
    help: "Nodes that are writable primaries: 1 is right.",
    basis: Pair,
};

/// `pg_up`.
pub const PG_UP: Metric = Metric {
    name: "pg_up",
    kind: Gauge,
    unit: Flag,
    labels: &["node"],
    help: "Whether the node answered.",
    basis: Node,
};

/// `pg_replication_is_replica`.
pub const PG_REPLICATION_IS_REPLICA: Metric = Metric {
    name: "pg_replication_is_replica",
    kind: Gauge,
    unit: Flag,
    labels: &["node"],
    help: "Whether the node is a standby.",
    basis: Node,
};

/// `pgpair_node_role`.
pub const NODE_ROLE: Metric = Metric {
    name: "pgpair_node_role",
    kind: Gauge,
    unit: Flag,
    labels: &["node", "role"],
    help: "The node's role: 1 for the current one.",
    basis: Node,
};

/// `pgpair_node_reason`.
pub const NODE_REASON: Metric = Metric {
    name: "pgpair_node_reason",
    kind: Gauge,
    unit: Flag,
    labels: &["node", "reason"],
    help: "The node's state in one word: 1 for the current one.",
    basis: Node,
};

/// `pg_replication_lag_seconds`.
pub const PG_REPLICATION_LAG_SECONDS: Metric = Metric {
    name: "pg_replication_lag_seconds",
    kind: Gauge,
    unit: Seconds,
    labels: &["node"],
    help: "How long ago the primary was where the standby has replayed to, in seconds.",
    basis: Lag,
};

/// `pgpair_replication_lag_bytes`.
pub const REPLICATION_LAG_BYTES: Metric = Metric {
    name: "pgpair_replication_lag_bytes",
    kind: Gauge,
    unit: Bytes,
    labels: &["node", "mode"],
    help: "WAL that the standby has not replayed (apply) or received (write) yet, in bytes.",
    basis: Lag,
};

/// `pgpair_wal_receiver_up`.
pub const WAL_RECEIVER_UP: Metric = Metric {
    name: "pgpair_wal_receiver_up",
    kind: Gauge,
    unit: Flag,
    labels: &["node"],
    help: "Whether the standby's WAL receiver is streaming.",
    basis: Replication,
};

/// `pgpair_timeline`.
pub const TIMELINE: Metric = Metric {
    name: "pgpair_timeline",
    kind: Gauge,
    unit: Number,
    labels: &["node"],
    help: "The node's timeline.",
    basis: Replication,
};

/// `pgpair_slot_retained_bytes`.
pub const SLOT_RETAINED_BYTES: Metric = Metric {
    name: "pgpair_slot_retained_bytes",
    kind: Gauge,
    unit: Bytes,
    labels: &["node", "slot"],
    help: "WAL that a replication slot holds back on the primary, in bytes.",
    basis: Replication,
};

/// `pgpair_observation_age_seconds`.
pub const OBSERVATION_AGE_SECONDS: Metric = Metric {
    name: "pgpair_observation_age_seconds",
    kind: Gauge,
    unit: Seconds,
    labels: &["node"],
    help: "Time since the node last answered, in seconds.",
    basis: Node,
};

/// `pgpair_replication_age_seconds`.
pub const REPLICATION_AGE_SECONDS: Metric = Metric {
    name: "pgpair_replication_age_seconds",
    kind: Gauge,
    unit: Seconds,
    labels: &["node"],
    help: "Time since the node was asked for what it tells of replication, in seconds.",
    basis: Replication,
};

/// `pgpair_login_ok`.
pub const LOGIN_OK: Metric = Metric {
    name: "pgpair_login_ok",
    kind: Gauge,
    unit: Flag,
    labels: &["node"],
    help: "Whether the last new login to the node went through; one is tried every 10 s.",
    basis: Login,
};

/// `pgpair_login_age_seconds`.
pub const LOGIN_AGE_SECONDS: Metric = Metric {
    name: "pgpair_login_age_seconds",
    kind: Gauge,
    unit: Seconds,
    labels: &["node"],
    help: "Time since the last new login to the node was tried, in seconds.",
    basis: Login,
};

/// `pgpair_certificate_expiry_timestamp_seconds`.
pub const CERTIFICATE_EXPIRY_TIMESTAMP_SECONDS: Metric = Metric {
    name: "pgpair_certificate_expiry_timestamp_seconds",
    kind: Gauge,
    unit: Timestamp,
    labels: &["node"],
    help: "Until when the certificate is good that the node showed last, in seconds since 1970.",
    basis: Login,
};

/// `pgpair_observation_seconds`.
pub const OBSERVATION_SECONDS: Metric = Metric {
    name: "pgpair_observation_seconds",
    kind: Histogram,
    unit: Seconds,
    labels: &["node"],
    help: "Time that observations of the node took, in seconds.",
    basis: Observations,
};

/// `pgpair_observation_failures_total`.
pub const OBSERVATION_FAILURES_TOTAL: Metric = Metric {
    name: "pgpair_observation_failures_total",
    kind: Counter,
    unit: Number,
    labels: &["node", "reason"],
    help: "Observations of the node that failed, by reason.",
    basis: Observations,
};

/// `pgpair_watchers_abandoned_total`.
pub const WATCHERS_ABANDONED_TOTAL: Metric = Metric {
    name: "pgpair_watchers_abandoned_total",
    kind: Counter,
    unit: Number,
    labels: &["node"],
    help: "Watchers of the node that were stuck and replaced.",
    basis: Observations,
};

/// `pgpair_last_transition_timestamp_seconds`.
pub const LAST_TRANSITION_TIMESTAMP_SECONDS: Metric = Metric {
    name: "pgpair_last_transition_timestamp_seconds",
    kind: Gauge,
    unit: Timestamp,
    labels: &["node"],
    help: "When the node's state last changed, in seconds since 1970.",
    basis: Observations,
};

/// `pgpair_outage_seconds_total`.
pub const OUTAGE_SECONDS_TOTAL: Metric = Metric {
    name: "pgpair_outage_seconds_total",
    kind: Counter,
    unit: Seconds,
    labels: &["node"],
    help: "Time during which the node did not answer, in seconds.",
    basis: Observations,
};

/// `pgpair_guard_up`.
pub const GUARD_UP: Metric = Metric {
    name: "pgpair_guard_up",
    kind: Gauge,
    unit: Flag,
    labels: &[],
    help: "Whether the guard reported within the last 10 s.",
    basis: Guard,
};

/// `pgpair_guard_state`.
pub const GUARD_STATE: Metric = Metric {
    name: "pgpair_guard_state",
    kind: Gauge,
    unit: Flag,
    labels: &["state"],
    help: "What the guard does: 1 for the current state.",
    basis: Guard,
};

/// `pgpair_guard_waiting`.
pub const GUARD_WAITING: Metric = Metric {
    name: "pgpair_guard_waiting",
    kind: Gauge,
    unit: Flag,
    labels: &["reason"],
    help: "Why the guard does not replace a primary that does not answer: 1 for the current reason.",
    basis: Guard,
};

/// `pgpair_guard_blocked`.
pub const GUARD_BLOCKED: Metric = Metric {
    name: "pgpair_guard_blocked",
    kind: Gauge,
    unit: Flag,
    labels: &["reason"],
    help: "Why the guard cannot do what it would have to: 1 for the current reason.",
    basis: Guard,
};

/// `pgpair_guard_mode`.
pub const GUARD_MODE: Metric = Metric {
    name: "pgpair_guard_mode",
    kind: Gauge,
    unit: Flag,
    labels: &["mode"],
    help: "What the guard has commits wait for: 1 for the current mode.",
    basis: Guard,
};

/// `pgpair_guard_synchronous`.
pub const GUARD_SYNCHRONOUS: Metric = Metric {
    name: "pgpair_guard_synchronous",
    kind: Gauge,
    unit: Flag,
    labels: &[],
    help: "Whether every acknowledged commit is on the standby's disk.",
    basis: Guard,
};

/// `pgpair_guard_failovers_last_hour`.
pub const GUARD_FAILOVERS_LAST_HOUR: Metric = Metric {
    name: "pgpair_guard_failovers_last_hour",
    kind: Gauge,
    unit: Number,
    labels: &[],
    help: "Primaries that the guard replaced within the last hour.",
    basis: Guard,
};

/// `pgpair_http_requests_total`.
pub const HTTP_REQUESTS_TOTAL: Metric = Metric {
    name: "pgpair_http_requests_total",
    kind: Counter,
    unit: Number,
    labels: &["path", "code"],
    help: "Requests answered, by documented path and status.",
    basis: Requests,
};

/// `pgpair_http_request_seconds`.
pub const HTTP_REQUEST_SECONDS: Metric = Metric {
    name: "pgpair_http_request_seconds",
    kind: Histogram,
    unit: Seconds,
    labels: &["path"],
    help: "Time from a request to its answer, in seconds.",
    basis: Requests,
};

/// `pgpair_http_connections`.
pub const HTTP_CONNECTIONS: Metric = Metric {
    name: "pgpair_http_connections",
    kind: Gauge,
    unit: Number,
    labels: &[],
    help: "HTTP connections held.",
    basis: Itself,
};

/// `pgpair_http_connections_closed_total`.
pub const HTTP_CONNECTIONS_CLOSED_TOTAL: Metric = Metric {
    name: "pgpair_http_connections_closed_total",
    kind: Counter,
    unit: Number,
    labels: &["reason"],
    help: "HTTP connections that pgpair closed, by reason.",
    basis: Requests,
};

/// `pgpair_http_requests_refused_total`.
pub const HTTP_REQUESTS_REFUSED_TOTAL: Metric = Metric {
    name: "pgpair_http_requests_refused_total",
    kind: Counter,
    unit: Number,
    labels: &["reason"],
    help: "HTTP requests refused before their path was looked at, by reason.",
    basis: Requests,
};

/// `pgpair_http_requests_waiting`.
pub const HTTP_REQUESTS_WAITING: Metric = Metric {
    name: "pgpair_http_requests_waiting",
    kind: Gauge,
    unit: Number,
    labels: &[],
    help: "Requests that wait for PostgreSQL.",
    basis: Itself,
};

/// `pgpair_http_unread_bytes`.
pub const HTTP_UNREAD_BYTES: Metric = Metric {
    name: "pgpair_http_unread_bytes",
    kind: Gauge,
    unit: Bytes,
    labels: &[],
    help: "Bytes of answers that clients have not read and the kernel does not hold.",
    basis: Itself,
};

/// `pgpair_build_info`.
pub const BUILD_INFO: Metric = Metric {
    name: "pgpair_build_info",
    kind: Gauge,
    unit: Number,
    labels: &["version"],
    help: "The version of pgpair; always 1.",
    basis: Itself,
};

/// `process_start_time_seconds`.
pub const PROCESS_START_TIME_SECONDS: Metric = Metric {
    name: "process_start_time_seconds",
    kind: Gauge,
    unit: Timestamp,
    labels: &[],
    help: "When the process started, in seconds since 1970.",
    basis: Itself,
};

/// `process_cpu_seconds_total`.
pub const PROCESS_CPU_SECONDS_TOTAL: Metric = Metric {
    name: "process_cpu_seconds_total",
    kind: Counter,
    unit: Seconds,
    labels: &[],
    help: "Processor time that the process used, in seconds.",
    basis: Kernel,
};

/// `process_resident_memory_bytes`.
pub const PROCESS_RESIDENT_MEMORY_BYTES: Metric = Metric {
    name: "process_resident_memory_bytes",
    kind: Gauge,
    unit: Bytes,
    labels: &[],
    help: "Memory that the process holds, in bytes.",
    basis: Kernel,
};

/// `process_threads`.
pub const PROCESS_THREADS: Metric = Metric {
    name: "process_threads",
    kind: Gauge,
    unit: Number,
    labels: &[],
    help: "Threads of the process.",
    basis: Kernel,
};

/// `process_open_fds`.
pub const PROCESS_OPEN_FDS: Metric = Metric {
    name: "process_open_fds",
    kind: Gauge,
    unit: Number,
    labels: &[],
    help: "Open descriptors.",
    basis: Kernel,
};

/// `process_max_fds`.
pub const PROCESS_MAX_FDS: Metric = Metric {
    name: "process_max_fds",
    kind: Gauge,
    unit: Number,
    labels: &[],
    help: "Descriptors that may be open.",
    basis: Kernel,
};

/// Every family, in the order of `/metrics`.
pub const FAMILIES: [&Metric; 43] = [
    &READY,
    &PAIR_VERDICT,
    &WRITABLE_PRIMARIES,
    &PG_UP,
    &PG_REPLICATION_IS_REPLICA,
    &NODE_ROLE,
    &NODE_REASON,
    &PG_REPLICATION_LAG_SECONDS,
    &REPLICATION_LAG_BYTES,
    &WAL_RECEIVER_UP,
    &TIMELINE,
    &SLOT_RETAINED_BYTES,
    &OBSERVATION_AGE_SECONDS,
    &REPLICATION_AGE_SECONDS,
    &LOGIN_OK,
    &LOGIN_AGE_SECONDS,
    &CERTIFICATE_EXPIRY_TIMESTAMP_SECONDS,
    &OBSERVATION_SECONDS,
    &OBSERVATION_FAILURES_TOTAL,
    &WATCHERS_ABANDONED_TOTAL,
    &LAST_TRANSITION_TIMESTAMP_SECONDS,
    &OUTAGE_SECONDS_TOTAL,
    &GUARD_UP,
    &GUARD_STATE,
    &GUARD_WAITING,
    &GUARD_BLOCKED,
    &GUARD_MODE,
    &GUARD_SYNCHRONOUS,
    &GUARD_FAILOVERS_LAST_HOUR,
    &HTTP_REQUESTS_TOTAL,
    &HTTP_REQUEST_SECONDS,
    &HTTP_CONNECTIONS,
    &HTTP_CONNECTIONS_CLOSED_TOTAL,
    &HTTP_REQUESTS_REFUSED_TOTAL,
    &HTTP_REQUESTS_WAITING,
    &HTTP_UNREAD_BYTES,
    &BUILD_INFO,
    &PROCESS_START_TIME_SECONDS,
    &PROCESS_CPU_SECONDS_TOTAL,
    &PROCESS_RESIDENT_MEMORY_BYTES,
    &PROCESS_THREADS,
    &PROCESS_OPEN_FDS,
    &PROCESS_MAX_FDS,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_kind_and_unit_as_prometheus_wants_it() {
        for family in FAMILIES {
            let (name, kind) = (family.name, family.kind);
            let stem = name.trim_end_matches("_total");
            assert_eq!(stem != name, kind == Counter, "{name}");
            let is_time = matches!(family.unit, Seconds | Timestamp);
            assert_eq!(stem.ends_with("_seconds"), is_time, "{name}");
            assert_eq!(stem.ends_with("_bytes"), family.unit == Bytes, "{name}");
            let prefixes = ["pg_", "pgpair_", "process_"];
            assert!(prefixes.iter().any(|it| name.starts_with(it)), "{name}");
            assert!(family.help.ends_with('.') && !family.help.contains('|'));
            let is_nodes = matches!(
                family.basis,
                Node | Replication | Lag | Login | Observations
            );
            assert_eq!(family.labels.first() == Some(&"node"), is_nodes, "{name}");
        }
    }
}
