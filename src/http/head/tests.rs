use super::*;

/// Says of a request how it is read: as what tiny_http is given, whether the
/// connection stays, or why it is refused.
fn read(bytes: &[u8]) -> String {
    match parse(bytes) {
        Ok(None) => "more".to_owned(),
        Err(refusal) => refusal.word().to_owned(),
        Ok(Some(head)) if head.refusal.is_some() => {
            head.refusal.map_or("", Refusal::word).to_owned()
        }
        Ok(Some(head)) => {
            let mut out = Vec::new();
            head.write_to(&mut out);
            let text = String::from_utf8(out).expect("ASCII");
            let kept = if head.framing.keep_alive {
                ""
            } else {
                " close"
            };
            text.trim_end()
                .replace(" HTTP/1.1", "")
                .replace("\r\n", "|")
                + kept
        }
    }
}

fn reads(requests: &[(&[u8], &str)]) {
    for (bytes, expected) in requests {
        let text = String::from_utf8_lossy(bytes);
        assert_eq!(read(bytes), *expected, "{text:?}");
    }
}

#[test]
fn what_clients_really_send_is_read_as_nginx_reads_it() {
    reads(&[
        (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", "GET /health"),
        (b"GET /health HTTP/1.1\nHost: x\n\n", "GET /health"),
        (b"GET /health HTTP/1.1\r\nHost: x\n\r\n", "GET /health"),
        (b"GET /health HTTP/1.0\n\n", "GET /health close"),
        (b"GET /health HTTP/1.0\r\n\r\n", "GET /health close"),
        (
            b"GET /health HTTP/1.0\r\nHost: x\r\nConnection: Keep-Alive\r\n\r\n",
            "GET /health",
        ),
        (b"GET /health HTTP/1.2\r\nHost: x\r\n\r\n", "GET /health"),
        (
            b"GET  /health   HTTP/1.1  \r\nHost: x\r\n\r\n",
            "GET /health",
        ),
        (
            b"GET /health HTTP/1.1\r\nHost: x\r\nX-User: Jos\xc3\xa9\r\n\r\n",
            "GET /health",
        ),
        (
            b"GET /health HTTP/1.1\r\nHost: x\r\nX-User: Jos\xe9\r\n\r\n",
            "GET /health",
        ),
        (
            b"GET /health HTTP/1.1\r\nHost: m\xc3\xbcnchen\r\n\r\n",
            "GET /health",
        ),
        (
            b"GET /health HTTP/1.1\r\nhOST:x\r\nX_Y: \x01\r\nJos\xe9: 1\r\nX:\r\n\r\n",
            "GET /health",
        ),
        (
            b"GET /jos\xe9?q=\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /jos%E9?q=%C3%A9",
        ),
        (
            b"GET http://h:5000/ready?write HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /ready?write",
        ),
        (
            b"GET HTTPS://h/ready HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /ready",
        ),
        (b"GET http://h HTTP/1.1\r\nHost: x\r\n\r\n", "GET /"),
        (b"GET /ready#part HTTP/1.1\r\nHost: x\r\n\r\n", "GET /ready"),
        (
            b"GET /replica?at=http://h/x HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /replica?at=http://h/x",
        ),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS /"),
        (b"OPTIONS * HTTP/1.0\r\n\r\n", "OPTIONS / close"),
        (b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", "GET *"),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET /"),
        (b"GET / HTTP/1.1\r\nHost: [::1]:5000\r\n\r\n", "GET /"),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n",
            "GET /",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            "GET /",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
            "GET /",
        ),
    ]);
}

#[test]
fn every_connection_line_counts() {
    let ends = |lines: &str, version: &str| {
        let text = format!("GET / HTTP/{version}\r\nHost: x\r\n{lines}\r\n");
        read(text.as_bytes()).ends_with(" close")
    };
    for (lines, version, expected) in [
        ("", "1.1", false),
        ("Connection: close\r\n", "1.1", true),
        ("Connection: CLOSE\r\n", "1.1", true),
        ("Connection: TE\r\nConnection: close\r\n", "1.1", true),
        ("Connection: close\r\nConnection: TE\r\n", "1.1", true),
        ("Connection: TE , close\r\n", "1.1", true),
        (
            "Connection: keep-alive\r\nConnection: close\r\n",
            "1.1",
            true,
        ),
        ("Connection: not-closed\r\n", "1.1", false),
        ("", "1.0", true),
        ("Connection: TE\r\nConnection: keep-alive\r\n", "1.0", false),
        ("Connection: keep-alive, close\r\n", "1.0", true),
    ] {
        assert_eq!(ends(lines, version), expected, "{lines:?} {version}");
    }
}

#[test]
fn all_accept_lines_reach_tiny_http_in_ascii() {
    reads(&[(
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: a/b\r\nX: y\r\naccept: c\xe9\x01;q=0\r\n\r\n",
        "GET /metrics|Accept: a/b|Accept: c??;q=0",
    )]);
}

#[test]
fn what_is_no_request_is_refused_with_its_reason() {
    reads(&[
        (b"GET\r\n\r\n", "bad_request_line"),
        (b"GET /health\r\n", "bad_request_line"),
        (b" GET /health HTTP/1.1\r\n", "bad_request_line"),
        (b"GET /health HTTP/1.1 x\r\n", "bad_request_line"),
        (b"GET /health http/1.1\r\n", "bad_request_line"),
        (b"GET /health HTTP/1.1x\r\n", "bad_request_line"),
        (b"GET /health HTTP/1.\r\n", "bad_request_line"),
        (b"GET /health HTTP/1.100\r\n", "bad_request_line"),
        (b"GET /health HTTP/0.9\r\n", "bad_request_line"),
        (b"GET /hea\tlth HTTP/1.1\r\n", "bad_request_line"),
        (b"GET /health\r HTTP/1.1\r\n", "bad_request_line"),
        (b"GET /\0 HTTP/1.1\r\n", "bad_request_line"),
        (b"G\xc3\x84T / HTTP/1.1\r\n", "bad_request_line"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "bad_version"),
        (b"GET / HTTP/2.0\r\n\r\n", "bad_version"),
        (b"GET / HTTP/9.9\r\n\r\n", "bad_version"),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nNo colon\r\n\r\n",
            "bad_header",
        ),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", "bad_header"),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
            "bad_header",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\n\tfolded: y\r\n\r\n",
            "bad_header",
        ),
        (b"GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n", "bad_header"),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nX\0Y: y\r\n\r\n",
            "bad_header",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
            "bad_header_value",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n",
            "bad_header_value",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\r\n\r\n",
            "bad_header_value",
        ),
        (b"GET / HTTP/1.1\r\n\r\n", "bad_host"),
        (b"GET / HTTP/1.1\r\nX-Host: x\r\n\r\n", "bad_host"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", "bad_host"),
        (b"GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", "bad_host"),
        (b"GET http://h/ HTTP/1.1\r\n\r\n", "bad_host"),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "bad_host"),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "bad_host"),
        (b"GET / HTTP/1.1\r\nHost\r\nHost: x\r\n\r\n", "bad_host"),
    ]);
}

#[test]
fn bodies_and_unclear_lengths_are_refused() {
    for (fields, expected) in [
        ("Content-Length: 5", "body_refused"),
        ("Content-Length: 5\r\nContent-Length: 5", "body_refused"),
        ("Content-Length: 99999999999999999999999", "body_refused"),
        ("Transfer-Encoding: chunked", "body_refused"),
        ("Transfer-Encoding:", "body_refused"),
        ("Content-Length: 5\r\nContent-Length: 6", "unclear_length"),
        ("Content-Length: 0\r\nContent-Length: 5", "unclear_length"),
        ("Content-Length: 5, 5", "unclear_length"),
        ("Content-Length:", "unclear_length"),
        ("Content-Length: +5", "unclear_length"),
        ("Content-Length: 0x5", "unclear_length"),
        (
            "Content-Length: 0\r\nTransfer-Encoding: chunked",
            "unclear_length",
        ),
    ] {
        let text = format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\nhello");
        assert_eq!(read(text.as_bytes()), expected, "{fields:?}");
    }
}

/// Every way to have only the beginning of a good request is waited for.
#[test]
fn a_beginning_is_no_mistake() {
    let whole = b"OPTIONS /replica?lag=1MB HTTP/1.1\r\nHost: x\r\nAccept: \xff\r\n\r\n";
    for length in 0..whole.len() {
        assert_eq!(read(&whole[..length]), "more", "{length}");
        assert!(!has_end(&whole[..length], 0), "{length}");
    }
    for scanned in 0..whole.len() {
        assert!(has_end(whole, scanned), "{scanned}");
    }
    assert!(has_end(b"GET / HTTP/1.0\n\n", 15));
}

#[test]
fn what_cannot_become_a_request_is_refused_before_a_line_has_ended() {
    reads(&[
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            "bad_request_line",
        ),
        (b"\0", "bad_request_line"),
        (b"SSH-2.0-OpenSSH_9.2", "more"),
        (b"{\"a\"", "bad_request_line"),
        (&[b'a'; 33], "bad_request_line"),
    ]);
}

#[test]
fn every_refusal_has_its_word_and_status() {
    for refusal in Refusal::ALL {
        let reply = refusal.reply();
        assert!(reply.body.contains(refusal.word()), "{}", reply.body);
        assert!(reply.status >= 400 && reply.close, "{reply:?}");
        assert_eq!(reply.status, refusal.explained().0);
    }
}
