//! What a panic means, by the thread that it happens in.
//!
//! In a thread of ours it ends the process: a probe that has lost a part of
//! itself must not go on answering. tiny_http's own threads panic on what
//! clients send, so theirs must not be a remote off-switch; except that when
//! no thread can be started any more, its accept thread is gone for good.

use std::panic::{self, PanicHookInfo};
use std::process;
use std::thread;

use crate::{EXIT_FAILURE, EXIT_FRONT_DOOR, logging};

/// Threads of ours that meet what clients announced and may fall to it.
pub const DISPOSABLE: &str = "discard";

/// Installs the panic hook. Call it once, before any thread is started.
pub fn install() {
    panic::set_hook(Box::new(|info| {
        match verdict(thread::current().name(), info) {
            Some(exit_code) => end(exit_code, info),
            None => log::debug!("panic thread=http-connection cause={:?}", text(info)),
        }
    }));
}

fn end(exit_code: u8, info: &PanicHookInfo<'_>) {
    let current = thread::current();
    let name = current.name().unwrap_or("http-accept");
    log::error!("panic thread={name} cause={:?}", text(info));
    logging::flush();
    process::exit(i32::from(exit_code));
}

/// Returns the exit code if the process must end.
fn verdict(thread: Option<&str>, info: &PanicHookInfo<'_>) -> Option<u8> {
    match thread {
        Some(DISPOSABLE) => None,
        Some(_) => Some(EXIT_FAILURE),
        None => text(info)
            .contains("failed to spawn thread")
            .then_some(EXIT_FRONT_DOOR),
    }
}

fn text(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload_as_str().unwrap_or("no message");
    match info.location() {
        Some(place) => format!("{payload} at {}:{}", place.file(), place.line()),
        None => payload.to_owned(),
    }
}
