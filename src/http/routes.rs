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
mod tests;
