//! Servers that are not PostgreSQL, and not HTTP either.

use std::io::{Read, Write};
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
