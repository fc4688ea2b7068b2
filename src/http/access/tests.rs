use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;

const HERE: Standing = Standing {
    gets_details: true,
    at_loopback: true,
};

fn origin(host: &[u8], hosts: &Hosts) -> Origin {
    let headers = Headers {
        host: Some(host),
        ..Headers::default()
    };
    Origin::of(headers, hosts)
}

fn word(reply: Option<Response>) -> String {
    let body = reply.map(|reply| reply.body.into_owned());
    let body: serde_json::Value = body.map_or(serde_json::Value::Null, |body| {
        serde_json::from_str(&body).expect("JSON")
    });
    body["error"].as_str().unwrap_or("told").to_owned()
}

#[test]
fn details_are_for_this_host_and_for_who_reaches_their_listener() {
    let ip = |text: &str| Some(text.parse().expect("an address"));
    let mapped = Some(IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped()));
    let v6 = Some(IpAddr::V6(Ipv6Addr::LOCALHOST));
    for (peer, own, gets_details, at_loopback) in [
        (ip("127.0.0.1"), ip("127.0.0.1"), true, true),
        (ip("127.0.0.9"), ip("127.0.0.1"), true, true),
        (v6, v6, true, true),
        (mapped, mapped, true, true),
        (ip("10.0.0.2"), ip("10.0.0.2"), true, false),
        (ip("10.0.0.3"), ip("10.0.0.2"), false, false),
        (ip("172.17.0.1"), ip("172.17.0.2"), false, false),
        (None, None, false, false),
    ] {
        let standing = Standing {
            gets_details,
            at_loopback,
        };
        assert_eq!(
            Standing::between(peer, own, Listener::Roles),
            standing,
            "{peer:?}"
        );
        assert!(Standing::between(peer, own, Listener::Details).gets_details);
    }
}

#[test]
fn at_loopback_a_name_of_somebody_else_s_learns_nothing() {
    let listed: Hosts = Some(vec!["probe.example".to_owned()]);
    let elsewhere = Standing {
        at_loopback: false,
        ..HERE
    };
    for (host, hosts, standing, expected) in [
        (&b"evil.example"[..], &None, HERE, "unknown_host"),
        (b"evil.example:5000", &None, HERE, "unknown_host"),
        (b"localhost.evil.example", &None, HERE, "unknown_host"),
        (b"127.0.0.1.evil.example", &None, HERE, "unknown_host"),
        (b"\xff", &None, HERE, "unknown_host"),
        (b"localhost", &None, HERE, "told"),
        (b"LOCALHOST.:5000", &None, HERE, "told"),
        (b"127.0.0.1:5000", &None, HERE, "told"),
        (b"[::1]:5000", &None, HERE, "told"),
        (b"[::1", &None, HERE, "told"),
        (b"10.0.0.2", &None, HERE, "told"),
        (b"", &None, HERE, "told"),
        (b"evil.example", &None, elsewhere, "told"),
        (b"evil.example", &listed, elsewhere, "unknown_host"),
        (b"Probe.Example:5000", &listed, elsewhere, "told"),
        (b"probe.example", &listed, HERE, "told"),
        (b"10.0.0.2:80", &listed, elsewhere, "told"),
    ] {
        let origin = origin(host, hosts);
        let shown = String::from_utf8_lossy(host);
        let details = origin.refuse_details(standing, "/status", hosts);
        assert_eq!(word(details), expected, "{shown}");
        let trials = origin.refuse_trials(standing, hosts);
        assert_eq!(word(trials), expected, "{shown}");
    }
}

#[test]
fn of_two_names_the_worse_counts() {
    for (host, authority) in [(&b"localhost"[..], &b"evil"[..]), (b"evil", b"localhost")] {
        let headers = Headers {
            host: Some(host),
            authority: Some(authority),
            ..Headers::default()
        };
        assert_eq!(Origin::of(headers, &None).host, Host::Other);
    }
}

#[test]
fn a_page_has_nobody_commit() {
    for (fetch_site, of_a_browser, expected) in [
        (None, false, "told"),
        (None, true, "cross_site"),
        (Some(&b"none"[..]), true, "told"),
        (Some(b"same-origin"), true, "told"),
        (Some(b"same-site"), true, "cross_site"),
        (Some(b"cross-site"), true, "cross_site"),
        (Some(b"cross-site, none"), false, "cross_site"),
    ] {
        let headers = Headers {
            fetch_site,
            of_a_browser,
            ..Headers::default()
        };
        let trials = Origin::of(headers, &None).refuse_trials(HERE, &None);
        assert_eq!(word(trials), expected, "{fetch_site:?} {of_a_browser}");
    }
}

#[test]
fn strangers_are_told_where_to_ask() {
    let stranger = Standing {
        gets_details: false,
        at_loopback: false,
    };
    let reply = origin(b"10.0.0.2", &None).refuse_details(stranger, "/metrics", &None);
    let reply = reply.expect("refused");
    assert_eq!(reply.status, 403);
    assert!(reply.body.contains("details_not_here"), "{}", reply.body);
    assert!(reply.body.contains("/metrics"), "{}", reply.body);
    assert!(reply.body.contains("--listen-details"), "{}", reply.body);
}
