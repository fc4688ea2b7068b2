//! From method and target to a question or a refusal: pure functions.

use super::reply::Reply;
use crate::probe::verdict::Scope;

/// Paths of the process's own health.
pub const HEALTH: [&str; 3] = ["/health", "/liveness", "/livez"];
/// Paths that ask whether the app can talk to its PostgreSQL.
pub const READY: [&str; 2] = ["/ready", "/readyz"];

/// The longest piece of a request that is repeated in a refusal.
const ECHOED_AT_MOST: usize = 80;

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// Is the process up?
    Health,
    /// Can the app talk to PostgreSQL, there?
    Ready(Scope),
    /// It cannot be answered.
    Refused(Reply),
}

/// Finds the route of a request for `target` (path and query). `nodes` are the
/// configured names.
pub fn route(target: &str, nodes: &[String]) -> Route {
    let (path, query) = match without_authority(target).split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (without_authority(target), None),
    };
    let (scope, path) = match node_scope(path, nodes) {
        Ok(found) => found,
        Err(refusal) => return Route::Refused(refusal),
    };
    let route = if HEALTH.contains(&path) {
        Route::Health
    } else if READY.contains(&path) {
        Route::Ready(scope)
    } else {
        return Route::Refused(no_such_path(path));
    };
    match query.and_then(first_parameter) {
        Some(name) => Route::Refused(unknown_parameter(name, path)),
        None => route,
    }
}

/// Drops scheme and host of the absolute form, which servers must understand.
fn without_authority(target: &str) -> &str {
    let Some(rest) = target.strip_prefix("http://") else {
        return target;
    };
    rest.find(['/', '?']).map_or("/", |at| &rest[at..])
}

/// Splits `/nodes/{name}/…` into the node and the rest.
fn node_scope<'a>(path: &'a str, nodes: &[String]) -> Result<(Scope, &'a str), Reply> {
    let Some(rest) = path.strip_prefix("/nodes/") else {
        return Ok((Scope::Pair, path));
    };
    let split = rest.find('/').unwrap_or(rest.len());
    let (name, path) = rest.split_at(split);
    match nodes.iter().position(|node| node == name) {
        Some(node) => Ok((Scope::Node(node), path)),
        None => Err(Reply::refusal(
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

/// Returns the name of the first parameter, if there is any.
fn first_parameter(query: &str) -> Option<&str> {
    let pair = query.split('&').find(|pair| !pair.is_empty())?;
    pair.split('=').next()
}

fn no_such_path(path: &str) -> Reply {
    let paths = [&HEALTH[..], &READY[..]].concat().join(", ");
    Reply::refusal(
        404,
        "not_found",
        &format!(
            "no path {:?}; use {paths}, also under /nodes/{{name}}",
            shown(path)
        ),
    )
}

fn unknown_parameter(name: &str, path: &str) -> Reply {
    Reply::refusal(
        400,
        "unknown_parameter",
        &format!("no parameter {:?}; {path} takes none", shown(name)),
    )
}

/// Refuses a method that no path takes.
pub fn wrong_method() -> Reply {
    Reply::refusal(
        405,
        "method_not_allowed",
        &format!("use {}", super::reply::ALLOW),
    )
}

/// Refuses a request that brings a body.
pub fn no_body_wanted() -> Reply {
    Reply::refusal(413, "body_refused", "send no request body").and_close()
}

/// Refuses a request whose length is not clear.
pub fn unclear_length() -> Reply {
    Reply::refusal(
        400,
        "unclear_length",
        "send one Content-Length of digits or none, and not with Transfer-Encoding",
    )
    .and_close()
}

fn shown(text: &str) -> String {
    text.chars().take(ECHOED_AT_MOST).collect()
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
            Route::Ready(Scope::Pair) => "ready".to_owned(),
            Route::Ready(Scope::Node(node)) => format!("ready {node}"),
            Route::Refused(reply) => format!("{}", reply.status),
        }
    }

    #[test]
    fn every_target_has_its_route() {
        for (target, expected) in [
            ("/health", "health"),
            ("/liveness", "health"),
            ("/livez", "health"),
            ("/health?", "health"),
            ("/ready", "ready"),
            ("/readyz", "ready"),
            ("/nodes/a/ready", "ready 0"),
            ("/nodes/b/readyz", "ready 1"),
            ("/nodes/b/health", "health"),
            ("http://h:5000/ready", "ready"),
            ("http://h", "404"),
            ("/nodes/c/ready", "404"),
            ("/nodes/a", "404"),
            ("/nodes/", "404"),
            ("/nodes", "404"),
            ("/ready/", "404"),
            ("//ready", "404"),
            ("/READY", "404"),
            ("*", "404"),
            ("", "404"),
            ("/ready?verbose", "400"),
            ("/ready?a=1&b=2", "400"),
            ("/health?x=1", "400"),
            ("/nope?x=1", "404"),
        ] {
            assert_eq!(said(target), expected, "{target:?}");
        }
    }

    #[test]
    fn refusals_name_what_is_wrong_and_what_would_do() {
        for (target, words) in [
            ("/nope", &["/nope", "/health", "/ready"][..]),
            ("/nodes/c/ready", &["\\\"c\\\"", "a, b"]),
            ("/ready?lag=1", &["lag"]),
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
        assert!(reply.body.len() < 400);
    }
}
