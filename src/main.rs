//! The `starcar` command: parses arguments, runs one command, prints its error.

use std::process::ExitCode;

fn main() -> ExitCode {
    starcar::cli::main()
}
