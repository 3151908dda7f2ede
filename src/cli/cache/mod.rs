//! `starcar cache`: looking at compile caches, on disk and in images; one file per sub-command. Must not know how a
//! cache is identified.

mod check;
mod env;
mod inspect;
mod source;
mod text;

pub(super) use self::text::contract_text;
use clap::{Args, Subcommand};

use super::CliError;

/// Show compile caches, say how they are served, and check whether they fit a GPU and an engine
///
/// CACHE is a directory or file on this machine, a name in a registry, oci:DIR[:tag] or oci-archive:FILE[:tag].
#[derive(Debug, Args)]
pub(super) struct CacheArguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Inspect(inspect::InspectArguments),
    Env(env::EnvArguments),
    Check(Box<check::CheckArguments>),
}

/// Runs the sub-command and returns the exit code.
pub(super) fn run(arguments: &CacheArguments) -> Result<u8, CliError> {
    let done = super::exit_code::OK;
    match &arguments.command {
        Command::Inspect(arguments) => inspect::run(arguments).map(|()| done),
        Command::Env(arguments) => env::run(arguments).map(|()| done),
        Command::Check(arguments) => check::run(arguments),
    }
}
