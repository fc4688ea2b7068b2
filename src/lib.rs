//! pgpair: a probe that tells the truth about a PostgreSQL primary and its
//! standby.
//!
//! - [`probe`] finds out what is true: observations, verdicts, who waits for them.
//! - [`http`] says it to clients.
//! - [`pair`] changes a pair on this host: switchover, failover, rejoin.
//! - [`config`] turns arguments and environment into one validated value.
//! - [`serve`], [`check`] and [`status`] are the commands; the last two ask a
//!   running pgpair through [`client`].
//!
//! Dependencies point one way: `probe` knows nothing of `http`, and only this
//! file and [`cli`] know all of them.

pub mod check;
pub mod cli;
pub mod client;
pub mod config;
pub mod crash;
pub mod handover;
pub mod http;
pub mod limits;
pub mod logging;
pub mod pair;
pub mod probe;
#[cfg(test)]
mod readme;
pub mod serve;
pub mod sockets;
pub mod status;
pub mod text;
pub mod threads;

use std::ffi::OsString;
use std::process::ExitCode;

/// Ended as asked.
pub const EXIT_OK: u8 = 0;
/// Failed while running, for example because the port is taken.
pub const EXIT_FAILURE: u8 = 1;
/// Arguments or settings that cannot be used.
pub const EXIT_USAGE: u8 = 2;
/// `check` and `status`: the arguments cannot be used.
pub const EXIT_BAD_ARGUMENTS: u8 = 1;
/// `check` and `status`: nobody accepts connections there.
pub const EXIT_NO_CONNECTION: u8 = 2;
/// `check` and `status`: no complete answer within the time limit.
pub const EXIT_NO_ANSWER: u8 = 3;
/// `check`: the endpoint's answer is not 2xx; `status`: the pair is not whole.
pub const EXIT_NOT_WELL: u8 = 4;
/// `switchover`, `failover`, `rejoin`: refused, and nothing was touched.
pub const EXIT_REFUSED: u8 = 3;
/// `switchover` and `failover`: the primary moved, and the other node is not
/// back as its standby.
pub const EXIT_ALONE: u8 = 4;
/// HTTP could not be answered any more.
pub const EXIT_FRONT_DOOR: u8 = 70;

/// Runs the command that `arguments` (without the program's name) ask for.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let environment = config::Environment::of_process();
    match cli::parse(arguments, &environment) {
        Ok(cli::Command::Print(text)) => {
            print!("{text}");
            ExitCode::from(EXIT_OK)
        }
        Ok(cli::Command::Serve(config)) => ExitCode::from(serve::serve(*config)),
        Ok(cli::Command::Check(target)) => ExitCode::from(check::check(&target)),
        Ok(cli::Command::Pair(command)) => ExitCode::from(pair::command::run(command)),
        Ok(cli::Command::Status(options)) => ExitCode::from(status::status(&options)),
        Err(error) => {
            eprintln!("pgpair: {error}");
            ExitCode::from(error.exit_code)
        }
    }
}
