//! Bytes at random at the front door, over real sockets: valid requests however
//! they are cut, and everything near them. `PROPTEST_CASES` asks for more.

use std::io;
use std::thread;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};

use crate::support::http::Connection;
use crate::support::{Probe, eventually, fake, ms};

/// Rounds: a few seconds of them.
const CASES: u32 = 40;

/// Connections at once.
const CROWD: usize = 8;

/// Memory that the container would have.
const MEMORY_BYTES: u64 = 64 << 20;

/// Where proptest keeps what failed.
const REGRESSIONS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fuzz/regressions/front_door.txt"
);

/// A probe of nobody: every answer comes at once.
fn probe() -> Probe {
    let conninfo = format!("host=127.0.0.1 port={} user=pgpair", fake::nobody().port());
    let probe = Probe::of(conninfo).with("request-timeout", "1s").start();
    assert_eq!(probe.ready().status, 503);
    probe
}

fn runner() -> TestRunner {
    let mut config = Config {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
        // Each try is a round over sockets.
        max_shrink_iters: 200,
        ..Config::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    TestRunner::new(config)
}

/// Bytes and where they are cut into writes.
#[derive(Clone, Debug)]
struct Sent {
    bytes: Vec<u8>,
    cuts: Vec<Index>,
}

impl Sent {
    fn send(&self, connection: &mut Connection) -> io::Result<()> {
        let length = self.bytes.len() + 1;
        let mut cuts: Vec<usize> = self.cuts.iter().map(|cut| cut.index(length)).collect();
        cuts.extend([0, self.bytes.len()]);
        cuts.sort_unstable();
        for pair in cuts.windows(2) {
            connection.try_send(&self.bytes[pair[0]..pair[1]])?;
            // Lets the pieces arrive as pieces.
            thread::yield_now();
        }
        Ok(())
    }
}

/// A request and the status that it deserves from a probe of nobody.
#[derive(Clone, Debug)]
struct Asked {
    method: &'static str,
    text: String,
    status: u16,
}

fn asked() -> impl Strategy<Value = Asked> {
    let paths = select(vec![
        ("/health", 200),
        ("/livez?", 200),
        ("/status", 200),
        ("/metrics", 200),
        ("/ui", 200),
        ("/ready", 503),
        ("/", 503),
        ("/nodes/127.0.0.1/primary", 503),
        ("/replica?lag=10MB&mode=write", 503),
        ("http://any:1/read-only", 503),
        ("/nodes/other/primary", 404),
        ("/nope", 404),
        ("/%68ealth", 404),
        ("/health#part", 200),
        ("/health?x", 400),
        ("/replica?lag=ten", 400),
        ("/ready?write=now", 400),
    ]);
    let methods = select(vec!["GET", "HEAD", "OPTIONS", "POST", "DELETE", "BREW"]);
    let headers = select(vec![
        "",
        "Accept: application/openmetrics-text\r\n",
        "Content-Length: 0\r\n",
        "User-Agent: curl\r\nX-Forwarded-For: 10.0.0.1\r\n",
        "Connection: keep-alive\r\n",
    ]);
    (methods, paths, headers).prop_map(|(method, (path, status), headers)| Asked {
        method,
        text: format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"),
        status: match method {
            "GET" | "HEAD" | "OPTIONS" => status,
            _ => 405,
        },
    })
}

#[test]
fn requests_cut_anywhere_are_each_answered_in_order_as_they_deserve() {
    let probe = probe();
    let conversation = (vec(asked(), 1..12), vec(any::<Index>(), 0..10));
    let round = vec(conversation, 1..4);
    let result = runner().run(&round, |conversations| {
        for (requests, cuts) in conversations {
            let bytes = requests.iter().flat_map(|it| it.text.bytes()).collect();
            let mut connection = probe.connect();
            Sent { bytes, cuts }.send(&mut connection)?;
            for request in requests {
                let answer = connection.try_answer_to(request.method)?;
                prop_assert_eq!(answer.status, request.status, "{:?}", request);
                prop_assert_eq!(answer.header("Server"), Some("pgpair"));
            }
        }
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}

/// Requests and pieces of them, changed, strung together and cut.
fn garbled() -> impl Strategy<Value = Sent> {
    let word = select(vec![
        "GET ",
        "POST ",
        "/ready",
        "/health",
        " HTTP/1.1\r\n",
        " HTTP/1.0\r\n",
        " HTTP/0.9\r\n",
        " HTTP/2.0\r\n",
        "\r\n",
        "\r\n\r\n",
        "\n",
        "Host: x\r\n",
        "Content-Length: ",
        "0",
        "5",
        "2000",
        "18446744073709551615",
        "-1",
        "Transfer-Encoding: chunked\r\n",
        "ffffffffffffffff\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
        "Expect: 100-continue\r\n",
        "Connection: close\r\n",
        "Connection: upgrade\r\nUpgrade: h2c\r\n",
        ":",
        " ",
        "\0",
        "\u{16}\u{3}\u{1}\u{2}",
        "ä",
    ]);
    let noise = vec(any::<u8>(), 1..30);
    let piece = prop_oneof![
        5 => asked().prop_map(|asked| asked.text.into_bytes()),
        5 => word.prop_map(|word| word.as_bytes().to_vec()),
        1 => noise,
        1 => (any::<u8>(), 1..4_000_usize).prop_map(|(byte, count)| vec![byte; count]),
    ];
    let bytes = vec(piece, 0..10).prop_map(|pieces| pieces.concat());
    let changes = vec((any::<Index>(), any::<u8>()), 0..3);
    let cuts = vec(any::<Index>(), 0..6);
    (bytes, changes, cuts).prop_map(|(mut bytes, changes, cuts)| {
        for (at, byte) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        Sent { bytes, cuts }
    })
}

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
enum Farewell {
    /// It hangs up without looking.
    Gone,
    /// It says that it is done, and looks what comes.
    Finished,
}

#[test]
fn garbled_requests_harm_nobody_else() {
    let mut probe = probe();
    let before = (probe.threads(), probe.descriptors());
    let health = probe.watch_health();
    let farewell = select(vec![Farewell::Gone, Farewell::Finished]);
    let crowd = vec((garbled(), farewell), 1..=CROWD);
    let result = runner().run(&crowd, |crowd| {
        let mut clients: Vec<Connection> = crowd.iter().map(|_| probe.connect()).collect();
        for (client, (sent, _)) in clients.iter_mut().zip(&crowd) {
            // The server may have had enough.
            let _ = sent.send(client);
        }
        for (mut client, (_, farewell)) in clients.into_iter().zip(crowd) {
            if let Farewell::Finished = farewell {
                client.try_finish_sending();
                if let Some(said) = client.rest_within(ms(20)) {
                    is_http(&said)?;
                }
            }
        }
        prop_assert_eq!(probe.get("/health").status, 200);
        prop_assert!(probe.resident_bytes() < MEMORY_BYTES);
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
    drop(health);
    assert!(probe.is_running());
    eventually(Duration::from_secs(15), "all is given back", || {
        let now = (probe.threads(), probe.descriptors());
        (now.0 <= before.0 + 4 && now.1 <= before.1).then_some(())
    });
}

/// Whatever was said, it began as HTTP, and every answer in it is a known one.
fn is_http(said: &str) -> Result<(), TestCaseError> {
    prop_assert!(said.is_empty() || said.starts_with("HTTP/1."), "{:?}", said);
    // A body names the protocol too, within its line.
    let heads = said
        .lines()
        .filter_map(|line| line.strip_prefix("HTTP/1.1 "));
    for head in heads {
        let status = head.get(..3).and_then(|it| it.parse::<u16>().ok());
        let known = [200, 400, 403, 404, 405, 408, 413, 431, 503, 505];
        prop_assert!(status.is_some_and(|it| known.contains(&it)), "{:?}", said);
    }
    Ok(())
}
