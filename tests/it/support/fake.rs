//! Servers that are not PostgreSQL, and not HTTP either.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// A server that does the same thing with every connection. It ends with the
/// tests: its thread waits for connections only.
pub struct Fake {
    pub address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl Fake {
    /// Accepts, and never says anything.
    pub fn silent() -> Fake {
        let kept = Mutex::new(Vec::new());
        Fake::start(move |stream| kept.lock().unwrap().push(stream))
    }

    /// Accepts, reads the first bytes, answers with these and closes.
    pub fn saying(bytes: &'static [u8]) -> Fake {
        Fake::start(move |mut stream| {
            let _ = stream.read(&mut [0; 1024]);
            // The client may have gone.
            let _ = stream.write_all(bytes);
        })
    }

    fn start(handle: impl Fn(TcpStream) + Send + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::Relaxed);
                handle(stream);
            }
        });
        Fake { address, accepted }
    }

    /// Counts the connections so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Returns the connection string for a probe that takes it for PostgreSQL.
    pub fn conninfo(&self) -> String {
        let (host, port) = (self.address.ip(), self.address.port());
        format!("host={host} port={port} user=pgpair password=hunter2 sslmode=disable")
    }
}

/// Returns an address of this host where nobody listens.
pub fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound")
}

/// A server that speaks PostgreSQL's protocol, lets everybody in without a
/// password and answers queries as it is told: with what no PostgreSQL says.
pub struct Stranger {
    pub fake: Fake,
}

/// Answers one query, or fails when the client has gone.
type Answer = fn(&str, &mut TcpStream) -> io::Result<()>;

impl Stranger {
    /// Answers every query with `answer`, once `greet` was said after the login.
    pub fn start(greet: fn(&mut TcpStream) -> io::Result<()>, answer: Answer) -> Stranger {
        let fake = Fake::start(move |stream| {
            thread::spawn(move || converse(stream, greet, answer));
        });
        Stranger { fake }
    }
}

fn converse(
    mut stream: TcpStream,
    greet: fn(&mut TcpStream) -> io::Result<()>,
    answer: Answer,
) -> io::Result<()> {
    read_body(&mut stream)?;
    stream.write_all(&message(b'R', &[0; 4]))?;
    greet(&mut stream)?;
    stream.write_all(&message(b'Z', b"I"))?;
    loop {
        let mut tag = [0];
        stream.read_exact(&mut tag)?;
        let body = read_body(&mut stream)?;
        if tag != *b"Q" {
            return Ok(());
        }
        answer(&String::from_utf8_lossy(&body), &mut stream)?;
        stream.write_all(&message(b'Z', b"I"))?;
    }
}

fn read_body(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut body)?;
    Ok(body)
}

/// A message of the protocol.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("small");
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// A row; `None` is NULL.
pub fn row(values: &[&str]) -> Vec<u8> {
    let mut body = u16::try_from(values.len())
        .expect("few")
        .to_be_bytes()
        .to_vec();
    for value in values {
        body.extend(u32::try_from(value.len()).expect("short").to_be_bytes());
        body.extend(value.as_bytes());
    }
    message(b'D', &body)
}

/// The head of rows with so many columns.
pub fn head(columns: u16) -> Vec<u8> {
    let mut body = columns.to_be_bytes().to_vec();
    for _ in 0..columns {
        body.extend(b"c\0");
        body.extend([0; 18]);
    }
    message(b'T', &body)
}

/// The answer to one statement.
pub fn result(columns: u16, rows: &[Vec<u8>]) -> Vec<u8> {
    [head(columns), rows.concat(), message(b'C', b"SELECT 1\0")].concat()
}
