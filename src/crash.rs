//! What a panic means, by the thread that it happens in.
//!
//! In a thread of ours it ends the process: a probe that has lost a part of
//! itself must not go on answering. tiny_http's own threads panic on what
//! clients send, so theirs must not be a remote off-switch. But whichever thread
//! finds no more descriptors or threads to be had, what it was for is lost and
//! the process has to begin anew: the libraries panic where they need one.

use std::panic::{self, PanicHookInfo};
use std::process;
use std::sync::OnceLock;
use std::thread;

use crate::logging;

/// Threads of ours that meet what clients announced and may fall to it.
pub const DISPOSABLE: &str = "discard";

type Rescue = Box<dyn Fn(String) + Send + Sync>;

/// Who is told that the process has run out of descriptors or threads.
static RESCUE: OnceLock<Rescue> = OnceLock::new();

/// How the libraries' panics say so: the errors EMFILE, ENFILE and EAGAIN, and
/// the words of the standard library and of tokio.
const OUT_OF_SOMETHING: [&str; 5] = [
    "code: 24,",
    "code: 23,",
    "code: 11,",
    "failed to spawn thread",
    "spawn worker thread",
];

/// The only places where tiny_http's accept thread needs a descriptor or a
/// thread: words that no client can put into another panic.
const ACCEPT_THREAD: [&str; 2] = ["failed to spawn thread", "refined_tcp_stream.rs"];

/// Installs the panic hook: a panic in a thread of ours ends the process with
/// `exit_code`. Call it once, before any thread is started.
pub fn install(exit_code: u8) {
    panic::set_hook(Box::new(move |info| match thread::current().name() {
        Some(DISPOSABLE) => log::debug!("panic thread=discard cause={:?}", text(info)),
        Some(_) if says_any(info, &OUT_OF_SOMETHING) => rescue(info, exit_code),
        Some(_) => end(exit_code, info),
        None if says_any(info, &ACCEPT_THREAD) => rescue(info, exit_code),
        None => log::debug!("panic thread=http-connection cause={:?}", text(info)),
    }));
}

/// Has `tell` called, with the cause, when descriptors or threads have run out.
pub fn when_exhausted(tell: impl Fn(String) + Send + Sync + 'static) {
    // There is one front door to a process; a second one is not told.
    let _ = RESCUE.set(Box::new(tell));
}

fn end(exit_code: u8, info: &PanicHookInfo<'_>) {
    let current = thread::current();
    let name = current.name().unwrap_or("http-accept");
    log::error!("panic thread={name} cause={:?}", text(info));
    logging::flush();
    process::exit(i32::from(exit_code));
}

fn rescue(info: &PanicHookInfo<'_>, exit_code: u8) {
    match RESCUE.get() {
        Some(tell) => tell(text(info)),
        None => end(exit_code, info),
    }
}

fn says_any(info: &PanicHookInfo<'_>, words: &[&str]) -> bool {
    let text = text(info);
    words.iter().any(|word| text.contains(word))
}

fn text(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload_as_str().unwrap_or("no message");
    match info.location() {
        Some(place) => format!("{payload} at {}:{}", place.file(), place.line()),
        None => payload.to_owned(),
    }
}
