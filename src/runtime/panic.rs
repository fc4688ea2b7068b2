//! What a panic means, by the thread that it happens in.
//!
//! In a thread of ours it ends the process: a probe that has lost a part of
//! itself must not go on answering. tiny_http's own threads never meet a client, and
//! the gate finds out when one is gone. Where a library panics because there are no
//! more threads or descriptors to be had, the work fails, and is tried again.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::process;
use std::thread;

use super::logging;

thread_local! {
    /// The work under way here may fail for want of threads or descriptors.
    static MAY_FAIL: Cell<bool> = const { Cell::new(false) };
}

/// How the libraries' panics say so: the errors EMFILE, ENFILE and EAGAIN, and
/// the words of the standard library and of tokio.
const OUT_OF_SOMETHING: [&str; 5] = [
    "code: 24,",
    "code: 23,",
    "code: 11,",
    "failed to spawn thread",
    "spawn worker thread",
];

/// Installs the panic hook: a panic in a thread of ours ends the process with
/// `exit_code`. Call it once, before any thread is started.
pub fn install(exit_code: u8) {
    panic::set_hook(Box::new(move |info| {
        let current = thread::current();
        let Some(name) = current.name() else {
            return log::debug!("panic thread=http cause={:?}", text(info));
        };
        if MAY_FAIL.get() && is_for_want(info) {
            return log::warn!("limit thread={name} cause={:?}", text(info));
        }
        log::error!("panic thread={name} cause={:?}", text(info));
        logging::flush();
        process::exit(i32::from(exit_code));
    }));
}

/// Does work in which a library may panic for want of threads or descriptors; `None`
/// if it did.
pub fn unless_exhausted<T>(work: impl FnOnce() -> T) -> Option<T> {
    MAY_FAIL.set(true);
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    MAY_FAIL.set(false);
    done.ok()
}

fn is_for_want(info: &PanicHookInfo<'_>) -> bool {
    let text = text(info);
    OUT_OF_SOMETHING.iter().any(|word| text.contains(word))
}

fn text(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload_as_str().unwrap_or("no message");
    match info.location() {
        Some(place) => format!("{payload} at {}:{}", place.file(), place.line()),
        None => payload.to_owned(),
    }
}
