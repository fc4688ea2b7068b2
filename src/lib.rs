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
pub mod http;
pub mod pair;
pub mod pg;
pub mod probe;
#[cfg(test)]
mod readme;
pub mod runtime;
pub mod serve;
pub mod status;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the command that `arguments` (without the program's name) ask for.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let environment = config::Environment::of_process();
    match cli::parse(arguments, &environment) {
        Ok(cli::Command::Print(text)) => {
            print!("{text}");
            ExitCode::from(runtime::exit::OK)
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
