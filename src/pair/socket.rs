//! The way to a node's server. Its socket lies where a container may put anything in
//! its place, and the driver takes whatever comes: so we connect ourselves, see who
//! is there, and pass on no more than an answer can have.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, fstat, openat2};
use rustix::net::sockopt::socket_peercred;

use super::layout::{Layout, Node};
use super::{files, process_table};
use crate::pg::data_dir;
use crate::runtime::threads;

/// The socket's name, in the container's folder and in ours.
const NAME: &str = ".s.PGSQL.5432";

/// Longest answer to one question. Ours are a few rows.
const MAX_ANSWER: usize = 1 << 20;

/// Longest until the driver has connected to us.
const MAX_DRIVER: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// Connects to a node's server.
///
/// # Errors
///
/// Fails if nobody listens, or somebody else does than a server in the node's data.
pub fn connect(layout: &Layout, node: Node) -> io::Result<UnixStream> {
    let folder = data_dir::open_folder(&layout.run(node))?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let socket = openat2(&folder, NAME, flags, Mode::empty(), data_dir::BENEATH)?;
    if FileType::from_raw_mode(fstat(&socket)?.st_mode) != FileType::Socket {
        return Err(io::Error::other(format!("{NAME} is no socket")));
    }
    // The one that was looked at, whatever has its name by now.
    let stream = UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd()))?;
    let listener = socket_peercred(&stream)?.pid.as_raw_nonzero().get();
    let place = u32::try_from(listener)
        .ok()
        .and_then(process_table::place_of);
    if place.is_none() || place != files::place_of(layout, node)? {
        return Err(io::Error::other(format!(
            "who listens at {NAME} is no server in its data"
        )));
    }
    Ok(stream)
}

/// A place for the driver to connect to: what is sent there goes to a server.
pub struct Relay {
    /// A folder of our own, open, and where it is.
    folder: OwnedFd,
    path: PathBuf,
}

impl Relay {
    /// Begins to pass on what the next one to connect sends.
    ///
    /// # Errors
    ///
    /// Fails if there is no place, or no thread.
    pub fn to(server: UnixStream, layout: &Layout) -> io::Result<Relay> {
        let path = own_folder(layout)?;
        let relay = Relay {
            folder: data_dir::open_folder(&path)?,
            path,
        };
        let listener = UnixListener::bind(relay.directory().join(NAME))?;
        threads::spawn("relay".to_owned(), move || {
            // Either end learns of it by the end of the stream.
            if let Ok(driver) = accept(&listener) {
                let _ = pass_on(&driver, &server);
                let _ = driver.shutdown(Shutdown::Both);
            }
            let _ = server.shutdown(Shutdown::Both);
        })?;
        Ok(relay)
    }

    /// Returns the folder of the socket. Its name is short, however long the pair's
    /// is: a socket's path holds 107 bytes.
    pub fn directory(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.folder.as_raw_fd()))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path.join(NAME));
        let _ = fs::remove_dir(&self.path);
    }
}

/// Makes a folder that nobody else may enter.
fn own_folder(layout: &Layout) -> io::Result<PathBuf> {
    static MADE: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = layout.file(&format!(".connect.{}.{number}", process::id()));
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => return made.map(|()| path),
        }
    }
}

fn accept(listener: &UnixListener) -> io::Result<UnixStream> {
    let mut coming = [PollFd::new(listener, PollFlags::IN)];
    if poll(&mut coming, Some(&MAX_DRIVER))? == 0 {
        return Err(ErrorKind::TimedOut.into());
    }
    Ok(listener.accept()?.0)
}

/// Passes on what either end sends, until one ends or the server sends too much.
fn pass_on(mut driver: &UnixStream, mut server: &UnixStream) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    let mut answered = 0;
    loop {
        let mut ends = [driver, server].map(|end| PollFd::new(end, PollFlags::IN));
        poll(&mut ends, None)?;
        let [asks, answers] = ends.map(|end| !end.revents().is_empty());
        if asks {
            let bytes = driver.read(&mut buffer)?;
            if bytes == 0 {
                return Ok(());
            }
            server.write_all(&buffer[..bytes])?;
            answered = 0;
        }
        if answers {
            let bytes = server.read(&mut buffer)?;
            answered += bytes;
            if bytes == 0 || answered > MAX_ANSWER {
                return Ok(());
            }
            driver.write_all(&buffer[..bytes])?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::thread;

    #[test]
    fn only_a_server_in_the_nodes_data_is_spoken_to() {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new("p", folder.path().to_str()).expect("a short path");
        let refused = |why: &str| {
            let error = connect(&layout, Node::A).expect_err(why);
            assert!(error.to_string().contains(why), "{error}");
        };
        refused("No such file");
        fs::create_dir_all(layout.run(Node::A)).expect("makes");
        fs::create_dir_all(layout.pgdata(Node::A)).expect("makes");
        refused("No such file");
        let place = layout.run(Node::A).join(NAME);
        fs::write(&place, "").expect("writes");
        refused("is no socket");
        fs::remove_file(&place).expect("it is there");
        let elsewhere = folder.path().join("other");
        let other = UnixListener::bind(&elsewhere).expect("binds");
        symlink(&elsewhere, &place).expect("links");
        refused("");
        // Nobody was sent there.
        other.set_nonblocking(true).expect("it is ours");
        assert!(other.accept().is_err());
        fs::remove_file(&place).expect("it is there");
        // We do not work in its data.
        let _ours = UnixListener::bind(&place).expect("binds");
        refused("is no server in its data");
    }

    #[test]
    fn answers_are_passed_on_until_they_are_too_long() {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new("p", folder.path().to_str()).expect("a short path");
        let (server, mut far) = UnixStream::pair().expect("a pair");
        let relay = Relay::to(server, &layout).expect("a place");
        let path = relay.directory().join(NAME);
        let mut driver = UnixStream::connect(path).expect("connects");
        drop(relay);
        assert_eq!(fs::read_dir(folder.path()).expect("reads").count(), 0);

        // As often as one asks, but not without end.
        let (bytes, mut asked) = (vec![7; MAX_ANSWER], [0; 1]);
        for _ in 0..3 {
            driver.write_all(b"?").expect("it takes it");
            far.read_exact(&mut asked).expect("it is asked");
            let mut answer = vec![0; bytes.len()];
            thread::scope(|scope| {
                scope.spawn(|| far.write_all(&bytes).expect("it takes it"));
                driver.read_exact(&mut answer).expect("it answers");
            });
            assert_eq!(answer, bytes);
        }
        // Nobody asked for more.
        assert!((0..3).any(|_| far.write_all(&bytes).is_err()));
        let mut rest = Vec::new();
        let _ = driver.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{} bytes more", rest.len());
    }
}
