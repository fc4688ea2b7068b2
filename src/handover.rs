//! The listening socket, passed from process to process: by a supervisor at the
//! start, or by pgpair to itself when it begins anew in place. Either way it is
//! descriptor 3, announced as systemd's `LISTEN_FDS` convention has it.

use std::env;
use std::ffi::{CString, OsStr, OsString, c_char};
use std::fmt;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::process;
use std::ptr;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::sockopt::socket_acceptconn;

/// The convention's variables: for whom, how many, and what they are called.
pub const VARIABLES: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// The descriptor at which the convention begins.
const FIRST: RawFd = 3;

/// What a process calls the socket that it leaves to itself.
const RENEWAL: &str = "pgpair-renewal-";

/// Signals that tell us to stop; held back while nobody would hear them.
const STOPPING: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// How a process came by a listening socket that it did not bind, and what it
/// knows from the lives before this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handover {
    /// How often the process has begun anew in place.
    pub renewals: u32,
    /// How often in a row no request had come in before it did so again.
    pub unused: u32,
    /// The watchdog's knocks can be heard here.
    pub heard: bool,
    /// The socket is a supervisor's: others go on using it after us.
    pub lent: bool,
}

impl fmt::Display for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Handover {
            renewals,
            unused,
            heard,
            lent,
        } = self;
        write!(f, "{RENEWAL}{renewals}-{unused}-{heard}-{lent}")
    }
}

impl Handover {
    const FROM_SUPERVISOR: Handover = Handover {
        renewals: 0,
        unused: 0,
        heard: false,
        lent: true,
    };

    fn parse(name: &str) -> Option<Handover> {
        let mut parts = name.strip_prefix(RENEWAL)?.split('-');
        Some(Handover {
            renewals: parts.next()?.parse().ok()?,
            unused: parts.next()?.parse().ok()?,
            heard: parts.next()?.parse().ok()?,
            lent: parts.next()?.parse().ok()?,
        })
    }
}

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
    let [Some(pid), Some(count), names] = values else {
        return Ok(None);
    };
    if pid.parse() != Ok(own_pid) {
        return Ok(None);
    }
    if count != "1" {
        return Err("must be 1: pgpair answers at one socket");
    }
    let renewal = names.and_then(Handover::parse);
    Ok(Some(renewal.unwrap_or(Handover::FROM_SUPERVISOR)))
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
    listener.set_nonblocking(false)?;
    Ok(listener)
}

/// Begins anew in place: the same program, arguments, environment and process
/// id, and `listener` with all who wait to be let in. Everything else that the
/// process holds is let go. Returns only if that failed.
///
/// Signals that [`hold_signals`] has held are still held then. (That is why the
/// standard library does not do it: it lets them in first.)
pub fn renew(listener: &TcpListener, next: Handover) -> io::Error {
    let values = [process::id().to_string(), 1.to_string(), next.to_string()];
    let ours = VARIABLES.into_iter().zip(values);
    let ours = ours.map(|(name, value)| joined(name.as_ref(), value.as_ref()));
    let inherited = env::vars_os()
        .filter(|(name, _)| VARIABLES.iter().all(|ours| name != ours))
        .map(|(name, value)| joined(&name, &value));
    match place(listener) {
        Ok(()) => exec(env::args_os().collect(), inherited.chain(ours).collect()),
        Err(error) => error,
    }
}

fn joined(name: &OsStr, value: &OsStr) -> OsString {
    let mut joined = name.to_owned();
    joined.push("=");
    joined.push(value);
    joined
}

#[allow(unsafe_code)]
fn exec(arguments: Vec<OsString>, environment: Vec<OsString>) -> io::Error {
    let strings = |all: Vec<OsString>| -> Vec<CString> {
        let bytes = all.into_iter().map(OsStringExt::into_vec);
        // They came from the kernel as C strings, so none holds a zero.
        bytes.filter_map(|it| CString::new(it).ok()).collect()
    };
    let pointers = |all: &[CString]| -> Vec<*const c_char> {
        let all = all.iter().map(|it| it.as_ptr());
        all.chain([ptr::null()]).collect()
    };
    let (arguments, environment) = (strings(arguments), strings(environment));
    let (argv, envp) = (pointers(&arguments), pointers(&environment));
    // Not by its name: the file may have been replaced or removed meanwhile.
    let own_program = c"/proc/self/exe".as_ptr();
    // SAFETY: both lists end in a null pointer, and what they point to lives
    // until the end of this function.
    unsafe { libc::execve(own_program, argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Makes `listener` the descriptor that survives.
#[allow(unsafe_code)]
fn place(listener: &TcpListener) -> io::Result<()> {
    if listener.as_raw_fd() == FIRST {
        return Ok(fcntl_setfd(listener, FdFlags::empty())?);
    }
    // SAFETY: whatever descriptor 3 was, nobody gets to use it as something
    // else: the process is replaced, or ends because that failed.
    let placed = unsafe { libc::dup2(listener.as_raw_fd(), FIRST) };
    if placed == FIRST {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Keeps back the signals that stop us from this thread, and from those that it
/// starts, until [`release_signals`]. While no thread takes them they wait, also
/// for the process's next life: without its handler they would end that at
/// once, or, as it is process 1, be lost.
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
        let supervisor = Ok(Some(Handover::FROM_SUPERVISOR));
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

    #[test]
    fn what_a_process_tells_itself_is_understood() {
        for (renewals, unused, heard, lent) in [
            (0, 0, false, true),
            (1, 0, true, false),
            (u32::MAX, 20, true, true),
        ] {
            let told = Handover {
                renewals,
                unused,
                heard,
                lent,
            };
            assert_eq!(Handover::parse(&told.to_string()), Some(told));
        }
        for other in ["", "pgpair.socket", "pgpair-renewal-", "pgpair-renewal-1-x"] {
            assert_eq!(Handover::parse(other), None, "{other:?}");
        }
    }
}
