//! From method and target to a question or a refusal: pure functions.

use super::response::Response;
use crate::probe::lag::{self, Mode};
use crate::probe::verdict::{Ask, Kind, LagLimit, Question, Scope, Trials};

/// What a path is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The process's own health.
    Health,
    /// Whether the app can talk to its PostgreSQL.
    Ready,
    /// The writable primary.
    Primary,
    /// A streaming standby of that kind.
    Replica(Kind),
    /// Either of them.
    ReadOnly(Kind),
    /// The leader of a standby cluster, which a pair never is.
    StandbyLeader,
    /// All that is known, as JSON.
    Status,
    /// All that is counted, for Prometheus.
    Metrics,
    /// All that is known, as a page.
    Page,
}

/// Every path, in the order of the documentation. Old words stand here for
/// those who come with another product's recipes.
pub const PATHS: [(&str, Subject); 26] = [
    ("/health", Subject::Health),
    ("/liveness", Subject::Health),
    ("/livez", Subject::Health),
    ("/ready", Subject::Ready),
    ("/readyz", Subject::Ready),
    ("/primary", Subject::Primary),
    ("/read-write", Subject::Primary),
    ("/leader", Subject::Primary),
    ("/master", Subject::Primary),
    ("/", Subject::Primary),
    ("/replica", Subject::Replica(Kind::Any)),
    ("/standby", Subject::Replica(Kind::Any)),
    ("/read-only", Subject::ReadOnly(Kind::Any)),
    ("/readiness", Subject::ReadOnly(Kind::Any)),
    ("/sync", Subject::Replica(Kind::Sync)),
    ("/synchronous", Subject::Replica(Kind::Sync)),
    ("/quorum", Subject::Replica(Kind::Quorum)),
    ("/async", Subject::Replica(Kind::Async)),
    ("/asynchronous", Subject::Replica(Kind::Async)),
    ("/read-only-sync", Subject::ReadOnly(Kind::Sync)),
    ("/read-only-quorum", Subject::ReadOnly(Kind::Quorum)),
    ("/standby-leader", Subject::StandbyLeader),
    ("/standby_leader", Subject::StandbyLeader),
    ("/status", Subject::Status),
    ("/metrics", Subject::Metrics),
    ("/ui", Subject::Page),
];

/// Values of `replication_state` that Patroni knows.
const REPLICATION_STATES: [&str; 3] = ["streaming", "in archive recovery", "any"];

/// The longest piece of a request that is repeated in a refusal.
const MAX_ECHOED: usize = 80;

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// Is the process up?
    Health,
    /// Something that the nodes must be asked.
    Question(Question),
    /// All that is known, as JSON.
    Status,
    /// All that is counted.
    Metrics,
    /// All that is known, as a page.
    Page,
    /// It cannot be answered.
    Refused(Response),
}

/// What a request is counted under that asks for nothing that is documented.
pub const OTHER: &str = "other";

/// What a request was counted under: the documented path, or `other`.
pub fn label(target: &str) -> &'static str {
    let path = without_authority(target).split('?').next().unwrap_or("");
    let path = match path.strip_prefix("/nodes/").and_then(|rest| rest.find('/')) {
        Some(at) => &path["/nodes/".len() + at..],
        None => path,
    };
    let found = PATHS.iter().find(|(known, _)| *known == path);
    found.map_or(OTHER, |(known, _)| known)
}

/// Finds the route of a request for `target` (path and query). `nodes` are the
/// configured names.
pub fn route(target: &str, nodes: &[String]) -> Route {
    try_route(target, nodes).unwrap_or_else(Route::Refused)
}

fn try_route(target: &str, nodes: &[String]) -> Result<Route, Response> {
    let target = without_authority(target);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (scope, path) = node_scope(path, nodes)?;
    let found = PATHS.iter().find(|(known, _)| *known == path);
    let (path, subject) = *found.ok_or_else(|| no_such_path(path))?;
    let parameters = Parameters { path, query };
    let ask = match subject {
        Subject::Health => None,
        Subject::Ready => Some(parameters.ready()?),
        Subject::Primary => Some(Ask::Primary),
        Subject::Replica(kind) => Some(Ask::Replica(kind, parameters.lag_limit()?)),
        Subject::ReadOnly(kind) => Some(Ask::ReadOnly(kind, parameters.lag_limit()?)),
        Subject::StandbyLeader => Some(Ask::StandbyLeader),
        Subject::Status | Subject::Metrics | Subject::Page => {
            if scope != Scope::Pair {
                return Err(no_such_path(path));
            }
            None
        }
    };
    if !matches!(
        subject,
        Subject::Ready | Subject::Replica(_) | Subject::ReadOnly(_)
    ) {
        parameters.none()?;
    }
    Ok(match (ask, subject) {
        (Some(ask), _) => Route::Question(Question { ask, scope }),
        (None, Subject::Status) => Route::Status,
        (None, Subject::Metrics) => Route::Metrics,
        (None, Subject::Page) => Route::Page,
        (None, _) => Route::Health,
    })
}

/// The query of a request for a known path.
struct Parameters<'a> {
    path: &'static str,
    query: &'a str,
}

impl<'a> Parameters<'a> {
    fn pairs(&self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        let pairs = self.query.split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| match pair.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (pair, None),
        })
    }

    fn none(&self) -> Result<(), Response> {
        match self.pairs().next() {
            Some((name, _)) => Err(self.unknown(name, "it takes none")),
            None => Ok(()),
        }
    }

    fn ready(&self) -> Result<Ask, Response> {
        let mut and = Trials::default();
        for (name, value) in self.pairs() {
            match (name, value) {
                ("write", None | Some("")) => and.write = true,
                ("login", None | Some("")) => and.login = true,
                ("write" | "login", Some(value)) => return Err(bad_value(name, value, "no value")),
                _ => return Err(self.unknown(name, "use write, login")),
            }
        }
        Ok(Ask::Ready(and))
    }

    fn lag_limit(&self) -> Result<LagLimit, Response> {
        let mut limit = LagLimit::default();
        for (name, value) in self.pairs() {
            let value = value.unwrap_or("");
            match name {
                "lag" => {
                    let bytes = lag::parse_bytes(value);
                    limit.max_bytes = Some(bytes.map_err(|would| bad_value(name, value, would))?);
                }
                "mode" => {
                    let modes = [Mode::Apply, Mode::Write];
                    let found = modes.into_iter().find(|mode| mode.word() == value);
                    limit.mode = found.ok_or_else(|| bad_value(name, value, "apply or write"))?;
                }
                "replication_state" => {
                    let plain = value.replace("%20", " ").replace('+', " ");
                    if !REPLICATION_STATES.contains(&plain.as_str()) {
                        return Err(bad_value(name, value, &REPLICATION_STATES.join(", ")));
                    }
                }
                _ => return Err(self.unknown(name, "use lag, mode, replication_state")),
            }
        }
        Ok(limit)
    }

    fn unknown(&self, name: &str, would_do: &str) -> Response {
        Response::refusal(
            400,
            "unknown_parameter",
            &format!(
                "{} has no parameter {:?}; {would_do}",
                self.path,
                shown(name)
            ),
        )
    }
}

fn bad_value(name: &str, value: &str, would_do: &str) -> Response {
    Response::refusal(
        400,
        "bad_value",
        &format!("{name} cannot be {:?}; use {would_do}", shown(value)),
    )
}

/// Drops scheme and host of the absolute form, which servers must understand.
fn without_authority(target: &str) -> &str {
    let Some(rest) = target.strip_prefix("http://") else {
        return target;
    };
    rest.find(['/', '?']).map_or("/", |at| &rest[at..])
}

/// Splits `/nodes/{name}/…` into the node and the rest.
fn node_scope<'a>(path: &'a str, nodes: &[String]) -> Result<(Scope, &'a str), Response> {
    let Some(rest) = path.strip_prefix("/nodes/") else {
        return Ok((Scope::Pair, path));
    };
    let split = rest.find('/').unwrap_or(rest.len());
    let (name, path) = rest.split_at(split);
    match nodes.iter().position(|node| node == name) {
        Some(node) => Ok((Scope::Node(node), path)),
        None => Err(Response::refusal(
            404,
            "unknown_node",
            &format!(
                "no node {:?}; the nodes are {}",
                shown(name),
                nodes.join(", ")
            ),
        )),
    }
}

fn no_such_path(path: &str) -> Response {
    let paths: Vec<&str> = PATHS.iter().map(|(path, _)| *path).collect();
    Response::refusal(
        404,
        "not_found",
        &format!(
            "no path {:?}; use {}, most of them also under /nodes/{{name}}",
            shown(path),
            paths.join(", ")
        ),
    )
}

/// Refuses a method that no path takes.
pub fn wrong_method() -> Response {
    Response::refusal(
        405,
        "method_not_allowed",
        &format!("use {}", super::response::ALLOW),
    )
}

/// Refuses a request that brings a body.
pub fn no_body_wanted() -> Response {
    Response::refusal(413, "body_refused", "send no request body").and_close()
}

/// Refuses a request whose length is not clear.
pub fn unclear_length() -> Response {
    Response::refusal(
        400,
        "unclear_length",
        "send one Content-Length of digits or none, and not with Transfer-Encoding",
    )
    .and_close()
}

fn shown(text: &str) -> String {
    text.chars().take(MAX_ECHOED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes() -> Vec<String> {
        vec!["a".to_owned(), "b".to_owned()]
    }

    fn said(target: &str) -> String {
        match route(target, &nodes()) {
            Route::Health => "health".to_owned(),
            Route::Status => "status".to_owned(),
            Route::Metrics => "metrics".to_owned(),
            Route::Page => "page".to_owned(),
            Route::Question(question) => {
                let scope = match question.scope {
                    Scope::Pair => String::new(),
                    Scope::Node(node) => format!(" {node}"),
                };
                format!("{:?}{scope}", question.ask)
            }
            Route::Refused(reply) => format!("{}", reply.status),
        }
    }

    fn limit(max_bytes: Option<u64>, mode: Mode) -> LagLimit {
        LagLimit { max_bytes, mode }
    }

    #[test]
    fn every_path_has_its_route() {
        let any = limit(None, Mode::Apply);
        let ready = |write, login| format!("{:?}", Ask::Ready(Trials { write, login }));
        let replica = |kind, limit| format!("{:?}", Ask::Replica(kind, limit));
        let read_only = |kind| format!("{:?}", Ask::ReadOnly(kind, any));
        for (target, expected) in [
            ("/health", "health".to_owned()),
            ("/liveness", "health".to_owned()),
            ("/livez", "health".to_owned()),
            ("/health?", "health".to_owned()),
            ("/nodes/b/health", "health".to_owned()),
            ("/ready", ready(false, false)),
            ("/readyz", ready(false, false)),
            ("/ready?write", ready(true, false)),
            ("/ready?write=", ready(true, false)),
            ("/ready?login", ready(false, true)),
            ("/ready?login&write", ready(true, true)),
            ("/nodes/a/ready", ready(false, false) + " 0"),
            ("/nodes/b/readyz?write", ready(true, false) + " 1"),
            ("http://h:5000/ready", ready(false, false)),
            ("/", "Primary".to_owned()),
            ("http://h", "Primary".to_owned()),
            ("/primary", "Primary".to_owned()),
            ("/read-write", "Primary".to_owned()),
            ("/leader", "Primary".to_owned()),
            ("/master", "Primary".to_owned()),
            ("/nodes/b/primary", "Primary 1".to_owned()),
            ("/replica", replica(Kind::Any, any)),
            ("/standby", replica(Kind::Any, any)),
            ("/nodes/a/replica", replica(Kind::Any, any) + " 0"),
            ("/read-only", read_only(Kind::Any)),
            ("/readiness", read_only(Kind::Any)),
            ("/read-only-sync", read_only(Kind::Sync)),
            ("/read-only-quorum", read_only(Kind::Quorum)),
            ("/sync", replica(Kind::Sync, any)),
            ("/synchronous", replica(Kind::Sync, any)),
            ("/quorum", replica(Kind::Quorum, any)),
            ("/async", replica(Kind::Async, any)),
            (
                "/async?lag=1kB",
                replica(Kind::Async, limit(Some(1024), Mode::Apply)),
            ),
            (
                "/sync?lag=1&mode=write",
                replica(Kind::Sync, limit(Some(1), Mode::Write)),
            ),
            ("/nodes/a/asynchronous", replica(Kind::Async, any) + " 0"),
            ("/standby-leader", "StandbyLeader".to_owned()),
            ("/standby_leader", "StandbyLeader".to_owned()),
            ("/status", "status".to_owned()),
            ("/metrics", "metrics".to_owned()),
            ("/ui", "page".to_owned()),
        ] {
            assert_eq!(said(target), expected, "{target:?}");
        }
    }

    #[test]
    fn what_is_unknown_or_malformed_is_refused() {
        for (target, status) in [
            ("/nodes/c/ready", "404"),
            ("/nodes/a", "404"),
            ("/nodes/", "404"),
            ("/nodes", "404"),
            ("/nodes/a/status", "404"),
            ("/nodes/a/ui", "404"),
            ("/ready/", "404"),
            ("//ready", "404"),
            ("/READY", "404"),
            ("*", "404"),
            ("", "404"),
            ("/nope?x=1", "404"),
            ("/ready?verbose", "400"),
            ("/ready?write=1", "400"),
            ("/health?x=1", "400"),
            ("/primary?lag=1", "400"),
            ("/ready?login=1", "400"),
            ("/standby-leader?lag=1", "400"),
            ("/async?lag=10mb", "400"),
            ("/replica?lag", "400"),
            ("/replica?lag=", "400"),
            ("/replica?lag=10mb", "400"),
            ("/replica?lag=-1", "400"),
            ("/replica?mode=flush", "400"),
            ("/replica?replication_state=x", "400"),
            ("/replica?lag=1&x", "400"),
            ("/status?x", "400"),
        ] {
            assert_eq!(said(target), status, "{target:?}");
        }
    }

    #[test]
    fn the_limit_of_lag_is_exact() {
        for (query, expected) in [
            ("lag=0", limit(Some(0), Mode::Apply)),
            ("lag=10MB", limit(Some(10 * 1024 * 1024), Mode::Apply)),
            ("lag=1kB&mode=write", limit(Some(1024), Mode::Write)),
            (
                "mode=apply&replication_state=streaming",
                limit(None, Mode::Apply),
            ),
            (
                "replication_state=in%20archive%20recovery",
                limit(None, Mode::Apply),
            ),
        ] {
            let expected = Question {
                ask: Ask::Replica(Kind::Any, expected),
                scope: Scope::Pair,
            };
            let found = route(&format!("/replica?{query}"), &nodes());
            assert_eq!(found, Route::Question(expected), "{query}");
        }
    }

    #[test]
    fn labels_are_the_documented_paths() {
        for (target, expected) in [
            ("/ready?write", "/ready"),
            ("/nodes/a/primary", "/primary"),
            ("/nodes/x/primary", "/primary"),
            ("/", "/"),
            ("/nope", "other"),
            ("/nodes/a", "other"),
            ("", "other"),
        ] {
            assert_eq!(label(target), expected, "{target:?}");
        }
    }

    #[test]
    fn refusals_name_what_is_wrong_and_what_would_do() {
        for (target, words) in [
            ("/nope", &["/nope", "/health", "/replica"][..]),
            ("/nodes/c/ready", &["\\\"c\\\"", "a, b"]),
            ("/ready?lag=1", &["lag", "write"]),
            ("/replica?lag=10mb", &["10mb", "kB, MB, GB or TB"]),
            ("/replica?mode=x", &["apply or write"]),
        ] {
            let Route::Refused(reply) = route(target, &nodes()) else {
                panic!("{target} is refused");
            };
            for word in words {
                assert!(reply.body.contains(word), "{target}: {}", reply.body);
            }
        }
        let long = format!("/{}", "x".repeat(10_000));
        let Route::Refused(reply) = route(&long, &nodes()) else {
            panic!("refused");
        };
        assert!(reply.body.len() < 600);
    }
}
