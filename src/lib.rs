//! pgpair: a probe that tells the truth about a PostgreSQL primary and its
//! standby.
//!
//! A tower: each floor names only floors below it, and `tests/layers.rs` holds that.
//!
//! - [`cli`] reads arguments; [`commands`] are what they ask for.
//! - [`config`] turns arguments and environment into one validated value.
//! - [`http`] says what is known to clients.
//! - [`pair`] changes a pair on this host: switchover, failover, rejoin.
//! - [`probe`] finds out what is true: observations, verdicts, who waits for them.
//! - [`pg`] knows PostgreSQL's own formats, [`runtime`] the process.

pub mod cli;
pub mod commands;
pub mod config;
pub mod http;
pub mod pair;
pub mod pg;
pub mod probe;
#[cfg(test)]
mod readme;
pub mod runtime;

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
        Ok(cli::Command::Serve(config)) => ExitCode::from(commands::serve::serve(*config)),
        Ok(cli::Command::Check(target)) => ExitCode::from(commands::check::check(&target)),
        Ok(cli::Command::Pair(command)) => ExitCode::from(commands::pair::run(command)),
        Ok(cli::Command::Status(options)) => ExitCode::from(commands::status::status(&options)),
        Err(error) => {
            eprintln!("pgpair: {error}");
            ExitCode::from(error.exit_code)
        }
    }
}
