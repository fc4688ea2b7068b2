//! From a request's target to what it asks for.

use pgpair::http::routes::{self, PATHS, Route, Subject};
use pgpair::probe::verdict::Scope;
use serde_json::Value;

use super::is_a_plain_line;

/// A refusal lists what would do; it may not grow with the request.
const REFUSAL_AT_MOST: usize = 2_048;

/// Any target has a route; only a known path with known parameters is answered.
pub fn route(bytes: &[u8]) {
    let target = &*String::from_utf8_lossy(bytes);
    let nodes = ["a".to_owned(), "b.example-2".to_owned()];
    let found = routes::route(target, &nodes);
    let label = routes::label(target);
    assert!(label == "other" || PATHS.iter().any(|(path, _)| *path == label));
    match (&found, known(target, &nodes)) {
        (Route::Refused(reply), known) => {
            assert!(matches!(reply.status, 400 | 404), "{target:?}: {reply:?}");
            assert_eq!(reply.status == 404, known.is_none(), "{target:?}");
            is_a_refusal(&reply.body);
        }
        (found, None) => panic!("{target:?} is no path, and is answered: {found:?}"),
        (found, Some((subject, scope, query))) => {
            assert_eq!(
                PATHS.iter().find(|(path, _)| *path == label).unwrap().1,
                subject
            );
            assert!(is_as_asked(found, subject, scope), "{target:?}: {found:?}");
            is_understood(query);
        }
    }
    // The absolute form is the same request.
    if target.starts_with('/') {
        let absolute = format!("http://pgpair:5000{target}");
        assert_eq!(routes::route(&absolute, &nodes), found, "{absolute:?}");
        assert_eq!(routes::label(&absolute), label, "{absolute:?}");
    }
}

/// Takes a target apart by itself: what it is about, of whom, and its query.
fn known<'a>(target: &'a str, nodes: &[String]) -> Option<(Subject, Scope, &'a str)> {
    let target = match target.strip_prefix("http://") {
        Some(rest) => match rest.find(['/', '?']) {
            Some(at) => &rest[at..],
            None => "/",
        },
        None => target,
    };
    let path = target.split('?').next()?;
    let query = target[path.len()..].trim_start_matches('?');
    let mut pieces = path.splitn(4, '/');
    let (scope, path) = match (pieces.next(), pieces.next(), pieces.next()) {
        (Some(""), Some("nodes"), Some(name)) => {
            let node = nodes.iter().position(|node| node == name)?;
            (Scope::Node(node), &path["/nodes/".len() + name.len()..])
        }
        _ => (Scope::Pair, path),
    };
    let subject = PATHS.iter().find(|(known, _)| *known == path)?.1;
    let whole = matches!(subject, Subject::Status | Subject::Metrics | Subject::Page);
    (scope == Scope::Pair || !whole).then_some((subject, scope, query))
}

fn is_as_asked(found: &Route, subject: Subject, scope: Scope) -> bool {
    match (found, subject) {
        (Route::Health, Subject::Health)
        | (Route::Status, Subject::Status)
        | (Route::Metrics, Subject::Metrics)
        | (Route::Page, Subject::Page) => true,
        (Route::Question(question), _) => question.scope == scope,
        _ => false,
    }
}

/// What is answered has no parameter that is not documented.
fn is_understood(query: &str) {
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let name = pair.split('=').next().unwrap();
        let known = ["write", "lag", "mode", "replication_state"];
        assert!(known.contains(&name), "{query:?}");
    }
}

fn is_a_refusal(body: &str) {
    assert!(body.len() <= REFUSAL_AT_MOST, "{}", body.len());
    let said: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(said["ok"], false);
    let line = body.strip_suffix('\n').expect("one line");
    assert!(!line.contains('\n'), "{body}");
    let detail = said["detail"].as_str().expect("a text");
    assert!(!detail.is_empty());
    if !detail.to_lowercase().contains("hunter2") {
        is_a_plain_line(detail);
    }
}
