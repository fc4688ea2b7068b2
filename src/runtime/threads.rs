//! Our own threads: named, small, and fatal to the process when they panic (see
//! [`super::panic`]).

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

/// Stack of our threads. They call into the PostgreSQL driver and TLS, whose
/// deepest frames stay well under half of this; pages are used only if touched.
const STACK_BYTES: usize = 512 * 1024;

/// Starts one of our named threads: a panic in it ends the process.
///
/// # Errors
///
/// Fails if the thread cannot be started.
pub fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new()
        .name(name)
        .stack_size(STACK_BYTES)
        .spawn(run)
        .map(drop)
}

/// Takes a lock. A panic of ours ends the process, so a poisoned one is never seen.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
