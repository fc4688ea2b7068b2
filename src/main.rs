//! The `pgpair` command: hands its arguments to the library and exits as told.

use std::process::ExitCode;

fn main() -> ExitCode {
    pgpair::run(std::env::args_os().skip(1))
}
