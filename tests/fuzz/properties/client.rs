//! Our own client: whom it asks, and what it makes of the answer.

use std::net::Ipv6Addr;

use pgpair::commands::http_client::{Answer, Target};
use pgpair::http::response::{BodyPart, Framing, Response};

use super::{MARK, is_a_plain_line};

/// What is asked for is what stands in the URL, in one line of a request; what is
/// refused is refused in one line, which shows no password.
pub fn url(bytes: &[u8]) {
    let url = &*String::from_utf8_lossy(bytes);
    match Target::parse(url) {
        Ok(target) => is_asked_for(url, &target),
        Err(said) if url.to_lowercase().contains(MARK) && !url.contains('@') => {
            assert!(!said.contains('\n'));
        }
        Err(said) => is_a_plain_line(&said),
    }
    // Somebody mistakes it for a connection string.
    for scheme in ["postgres", "http"] {
        let mistaken = format!("{scheme}://u:{MARK}{url}@h:1/d");
        is_a_plain_line(&Target::parse(&mistaken).expect_err("it has a user"));
    }
}

fn is_asked_for(url: &str, target: &Target) {
    let head = target.request_head();
    let lines: Vec<&str> = head.split("\r\n").collect();
    let (request, host) = (lines[0], lines[1]);
    assert!(
        !head.replace("\r\n", "").contains(char::is_control),
        "{url:?}: {head:?}"
    );
    assert_eq!(lines.len(), 6, "{url:?}: {head:?}");
    let words: Vec<&str> = request.split(' ').collect();
    assert_eq!(
        (words.len(), words[0], words[2]),
        (3, "GET", "HTTP/1.1"),
        "{url:?}"
    );
    assert!(
        words[1].starts_with('/') && !words[1].contains('#'),
        "{url:?}: {request:?}"
    );
    let authority = host.strip_prefix("Host: ").expect("a host");
    let (name, port) = authority.rsplit_once(':').expect("a port");
    assert_ne!(port.parse::<u16>().expect("a port"), 0, "{url:?}");
    assert!(
        port.bytes().all(|b| b.is_ascii_digit()),
        "{url:?}: {authority:?}"
    );
    is_a_host(name);
    // What was read means the same written in full.
    let full = format!("http://{authority}{}", words[1]);
    assert_eq!(Target::parse(&full).as_ref(), Ok(target), "{url:?}");
    let written = url.split('#').next().unwrap();
    assert!(
        written.ends_with(words[1].trim_start_matches('/')),
        "{url:?}: {request:?}"
    );
}

fn is_a_host(name: &str) {
    match name.strip_prefix('[') {
        Some(rest) => {
            let address = rest.strip_suffix(']').expect("the bracket ends");
            let address = address.split('%').next().unwrap();
            address
                .parse::<Ipv6Addr>()
                .expect("only addresses have brackets");
        }
        None => assert!(
            !name.is_empty() && !name.contains([':', '/', '?', '#', '@', '[', ']']),
            "{name:?}"
        ),
    }
}

/// Nothing is made of what is no answer; every answer of ours is understood.
pub fn answer(bytes: &[u8]) {
    if let Some(answer) = Answer::parse(bytes) {
        assert!(bytes.starts_with(b"HTTP/1."));
        assert!((100..=999).contains(&answer.status), "{}", answer.status);
        let words = bytes.split(|b| b.is_ascii_whitespace());
        let status = words.filter(|word| !word.is_empty()).nth(1).unwrap();
        assert_eq!(status, answer.status.to_string().as_bytes());
        assert!(bytes.ends_with(&answer.body));
        assert!(answer.body.is_empty() || bytes.windows(4).any(|it| it == b"\r\n\r\n"));
    }
    let body = String::from_utf8_lossy(bytes).into_owned();
    for (status, http_1_0) in [(200, false), (503, true), (404, false)] {
        let reply = Response::json(status, body.clone());
        let framing = Framing {
            body: BodyPart::Whole,
            http_1_0,
            keep_alive: http_1_0,
        };
        let read = Answer::parse(&reply.render(framing)).expect("it is ours");
        assert_eq!(
            (read.status, read.body.as_slice()),
            (status, body.as_bytes())
        );
    }
}
