//! A server in between: forwards to PostgreSQL, or misbehaves as told.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

use super::fault::Fault;
use super::{PASSWORD, Postgres, ms};

/// A connection to a server that is up takes no longer.
const CONNECT_AT_MOST: Duration = Duration::from_secs(5);

/// What is done with every connection.
#[derive(Clone, Copy, Debug)]
pub enum Does {
    /// It is forwarded.
    Forwards,
    /// It is accepted and never answered; not even when the fault has ended.
    Stalls,
    /// So many more are accepted and never answered; then it forwards.
    StallsTimes(usize),
    /// It is accepted and reset.
    Resets,
    /// These are said in turn, each once something has been read; then it closes.
    Says(&'static [&'static [u8]]),
}

/// A proxy; it ends with the tests: its thread waits for connections only.
pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    server: SocketAddr,
    does: Mutex<Does>,
    accepted: AtomicUsize,
    /// Both ends of everything that is forwarded.
    forwarded: Mutex<Vec<TcpStream>>,
    /// Kept open, so that nobody is told anything.
    stalled: Mutex<Vec<TcpStream>>,
    slow: Arc<AtomicBool>,
}

impl Proxy {
    /// Starts a proxy that forwards to a server.
    pub fn before(server: &Postgres) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(State {
            server: SocketAddr::new(server.address(), 5432),
            does: Mutex::new(Does::Forwards),
            accepted: AtomicUsize::new(0),
            forwarded: Mutex::default(),
            stalled: Mutex::default(),
            slow: Arc::default(),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                let does = state.next();
                thread::spawn(move || state.handle(stream, does));
            }
        });
        Proxy { address, state }
    }

    /// Misbehaves from now on, until the fault is lifted. Connections that are
    /// open are reset, so that nobody lives on what was.
    pub fn starts_to(&self, does: Does) -> Fault<'_> {
        *self.state.does.lock().unwrap() = does;
        for stream in self.state.forwarded.lock().unwrap().drain(..) {
            reset(&stream);
        }
        Fault::new(|| *self.state.does.lock().unwrap() = Does::Forwards)
    }

    /// Holds every answer back for longer than a second, until the fault is
    /// lifted.
    pub fn slow(&self) -> Fault<'_> {
        self.state.slow.store(true, Ordering::Relaxed);
        Fault::new(|| self.state.slow.store(false, Ordering::Relaxed))
    }

    /// Counts the connections so far.
    pub fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::Relaxed)
    }

    /// Counts the connections that were never answered.
    pub fn stalled(&self) -> usize {
        self.state.stalled.lock().unwrap().len()
    }

    /// Returns the connection string for a probe on this host.
    pub fn conninfo(&self, sslmode: &str) -> String {
        let (host, port): (IpAddr, u16) = (self.address.ip(), self.address.port());
        format!(
            "host={host} port={port} user=pgpair password={PASSWORD} dbname=postgres \
             sslmode={sslmode}"
        )
    }
}

impl State {
    fn next(&self) -> Does {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        let mut does = self.does.lock().unwrap();
        let now = *does;
        if let Does::StallsTimes(left) = now {
            *does = match left {
                0 | 1 => Does::Forwards,
                _ => Does::StallsTimes(left - 1),
            };
        }
        now
    }

    fn handle(&self, mut client: TcpStream, does: Does) {
        // Whoever is gone need not be told anything.
        let _ = match does {
            Does::Forwards => self.forward(client),
            Does::Stalls | Does::StallsTimes(_) => {
                self.stalled.lock().unwrap().push(client);
                Ok(())
            }
            Does::Resets => {
                reset(&client);
                Ok(())
            }
            Does::Says(parts) => parts.iter().try_for_each(|part| {
                // Whatever it is, however much.
                let _read = client.read(&mut [0; 4096])?;
                client.write_all(part)
            }),
        };
    }

    fn forward(&self, client: TcpStream) -> io::Result<()> {
        let server = TcpStream::connect_timeout(&self.server, CONNECT_AT_MOST)?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            self.forwarded.lock().unwrap().push(stream.try_clone()?);
        }
        let back = (server.try_clone()?, client.try_clone()?);
        let slow = Arc::clone(&self.slow);
        thread::spawn(move || copy_slowly(back.0, back.1, &slow));
        copy(client, server);
        Ok(())
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    // A reset ends it too.
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

fn copy_slowly(mut from: TcpStream, mut to: TcpStream, slow: &AtomicBool) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        for _ in 0..11 {
            if slow.load(Ordering::Relaxed) {
                thread::sleep(ms(100));
            }
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

fn reset(stream: &TcpStream) {
    let _ = set_socket_linger(stream, Some(Duration::ZERO));
    let _ = stream.shutdown(Shutdown::Both);
}
