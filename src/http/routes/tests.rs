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
