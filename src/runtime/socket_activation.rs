//! The listening socket that a supervisor leaves us: descriptor 3, announced as
//! systemd's `LISTEN_FDS` convention has it. And the signals that stop us, which are
//! held back until somebody hears them.

use std::io;
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, FromRawFd, RawFd};
use std::ptr;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::sockopt::socket_acceptconn;

/// The convention's variables: for whom, how many, and what they are called.
pub const VARIABLES: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// The descriptor at which the convention begins.
const FIRST: RawFd = 3;

/// Signals that tell us to stop.
const STOPPING: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// A listening socket was left to us, at [`take`]. Others go on using it after us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handover;

/// Reads the convention's variables, whose values are given in the order of
/// [`VARIABLES`], as the process `own_pid`. Variables that are meant for
/// another process do not count.
///
/// # Errors
///
/// Fails if more or less than one socket is announced; the text says what would
/// do.
pub fn announced(
    values: [Option<&str>; 3],
    own_pid: u32,
) -> Result<Option<Handover>, &'static str> {
    let [Some(pid), Some(count), _] = values else {
        return Ok(None);
    };
    if pid.parse() != Ok(own_pid) {
        return Ok(None);
    }
    if count != "1" {
        return Err("must be 1: pgpair answers at one socket");
    }
    Ok(Some(Handover))
}

/// Takes the socket that was announced. Call it once, at the start.
///
/// # Errors
///
/// Fails if descriptor 3 is no listening TCP socket.
#[allow(unsafe_code)]
pub fn take() -> io::Result<TcpListener> {
    // SAFETY: borrowed for one call, which fails if the number is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(FIRST) };
    if !socket_acceptconn(borrowed)? {
        return Err(io::Error::other("it does not listen"));
    }
    // SAFETY: it is open, and by the convention it is ours: nobody else in this
    // process, which has only just begun, knows of it.
    let listener = unsafe { TcpListener::from_raw_fd(FIRST) };
    listener.local_addr()?;
    fcntl_setfd(&listener, FdFlags::CLOEXEC)?;
    Ok(listener)
}

/// Keeps back the signals that stop us from this thread, and from those that it
/// starts, until [`release_signals`]. While no thread takes them they wait: without
/// a handler they would end the process at once, or, as it is process 1, be lost.
pub fn hold_signals() {
    change_mask(libc::SIG_BLOCK);
}

/// Lets this thread take the signals that stop us.
pub fn release_signals() {
    change_mask(libc::SIG_UNBLOCK);
}

#[allow(unsafe_code)]
fn change_mask(how: libc::c_int) {
    // SAFETY: the set is initialised by `sigemptyset` before it is used, all
    // pointers are valid, and the calls cannot fail for these signals.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        for signal in STOPPING {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::pthread_sigmask(how, &raw const set, ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_socket_for_this_process_is_taken() {
        let announced = |pid, count, name| announced([pid, count, name], 7);
        let supervisor = Ok(Some(Handover));
        assert_eq!(announced(Some("7"), Some("1"), None), supervisor);
        let named = announced(Some("7"), Some("1"), Some("pgpair.socket"));
        assert_eq!(named, supervisor);
        for (pid, count) in [
            (None, None),
            (Some("8"), Some("1")),
            (Some("x"), Some("1")),
            (Some("7"), None),
            (None, Some("1")),
        ] {
            assert_eq!(announced(pid, count, None), Ok(None), "{pid:?} {count:?}");
        }
        for count in ["0", "2", "", "one"] {
            let refused = announced(Some("7"), Some(count), None);
            assert!(refused.is_err(), "{count:?}");
        }
    }
}
