//! `starcar profile`: making, joining and looking at profiles; one file per sub-command. Must not know the format.

mod attach;
mod diff;
mod export;
mod files;
mod import;
mod merge;
mod show;

use clap::{Args, Subcommand};

use super::CliError;

/// Import, export, merge, show, compare and attach profiles
///
/// A profile says what a start of an engine reads, in what order and when. PROFILE is a file, the name of a
/// built-in profile, or - for standard input.
#[derive(Debug, Args)]
pub(super) struct ProfileArguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Import(import::ImportArguments),
    Export(export::ExportArguments),
    Merge(merge::MergeArguments),
    Show(show::ShowArguments),
    Diff(diff::DiffArguments),
    Attach(attach::AttachArguments),
}

/// Runs the sub-command and returns the exit code.
pub(super) fn run(arguments: &ProfileArguments) -> Result<u8, CliError> {
    let done = super::exit_code::OK;
    match &arguments.command {
        Command::Import(arguments) => import::run(arguments).map(|()| done),
        Command::Export(arguments) => export::run(arguments).map(|()| done),
        Command::Merge(arguments) => merge::run(arguments).map(|()| done),
        Command::Show(arguments) => show::run(arguments).map(|()| done),
        Command::Diff(arguments) => diff::run(arguments),
        Command::Attach(arguments) => attach::run(arguments).map(|()| done),
    }
}
