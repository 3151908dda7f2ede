//! The command line: arguments, printing, exit codes. Must not know formats or HTTP.

mod assemble;
mod cache;
mod completions;
mod copy;
mod deploy;
mod destinations;
mod digest_cache;
mod error;
mod hub;
mod image_arguments;
mod inspect;
mod log;
mod man;
mod naming;
mod node;
mod output;
mod pack;
mod parse;
mod plan;
mod plan_text;
mod platforms;
mod profile;
mod progress;
mod provenance;
mod push;
mod record;
mod registry;
mod registry_arguments;
mod replay;
mod report;
mod verify;
mod written_files;

use std::{ffi::OsString, process::ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum};

use self::{error::CliError, registry_arguments::RegistryArguments};
pub use self::{error::exit_code, man::reference};

/// Pack Hugging Face model snapshots into lazily pullable KServe modelcar images.
#[derive(Debug, Parser)]
#[command(name = "starcar", version, propagate_version = true, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    /// Say which requests are made and how they end (repeat for more); never passwords or tokens
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 failed; 2 wrong arguments; 3 the snapshot cannot be packed; 4 the base cannot be used; \
5 an image on disk cannot be read or written; 6 a registry refused or failed; 7 a profile cannot be read, \
written or recorded; 8 a compile cache cannot be read or must not be shipped; \
9 `verify` found errors; 10 `verify` found warnings; 11 `replay` or `report` was over a limit; \
12 `node check` found something missing. `starcar record` passes on its command's.";

#[derive(Debug, Subcommand)]
enum Command {
    Pack(Box<pack::PackArguments>),
    Assemble(Box<assemble::AssembleArguments>),
    Plan(Box<plan::PlanArguments>),
    Push(push::PushArguments),
    Copy(copy::CopyArguments),
    Inspect(inspect::InspectArguments),
    Verify(Box<verify::VerifyArguments>),
    Registry(registry::RegistryCommand),
    Node(node::NodeArguments),
    Cache(cache::CacheArguments),
    Deploy(Box<deploy::DeployArguments>),
    DigestCache(digest_cache::DigestCacheArguments),
    Profile(profile::ProfileArguments),
    Record(Box<record::RecordArguments>),
    Replay(Box<replay::ReplayArguments>),
    Report(report::ReportArguments),
    Completions(completions::CompletionsArguments),
    Man(man::ManArguments),
    #[command(hide = true)]
    RecordWatchdog(record::WatchdogArguments),
}

/// How progress is shown.
#[derive(Debug, Args)]
struct ProgressArguments {
    /// How progress is shown: `auto` draws bars on a terminal and writes lines elsewhere
    #[arg(long, value_enum, default_value_t = ProgressChoice::Auto)]
    progress: ProgressChoice,
    /// Say nothing but errors; print the digest alone
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProgressChoice {
    Auto,
    Plain,
    None,
}

/// Runs the command that this process's arguments ask for, prints its error if there is one, and returns the
/// process's exit code.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; clap knows which stream each belongs to.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit_code::USAGE } else { exit_code::OK });
        }
    };
    log::begin(cli.verbose);
    let result = match cli.command {
        Command::Pack(arguments) => pack::run(&arguments),
        Command::Assemble(arguments) => assemble::run(&arguments),
        Command::Plan(arguments) => plan::run(&arguments).map(|()| exit_code::OK),
        Command::Push(arguments) => push::run(&arguments).map(|()| exit_code::OK),
        Command::Copy(arguments) => copy::run(&arguments).map(|()| exit_code::OK),
        Command::Registry(arguments) => registry::run(&arguments),
        Command::Node(arguments) => node::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments).map(|()| exit_code::OK),
        Command::Cache(arguments) => cache::run(&arguments),
        Command::Deploy(arguments) => deploy::run(&arguments).map(|()| exit_code::OK),
        Command::DigestCache(arguments) => digest_cache::run(&arguments).map(|()| exit_code::OK),
        Command::Record(arguments) => record::run(&arguments),
        Command::RecordWatchdog(arguments) => {
            record::run_watchdog(&arguments);
            Ok(exit_code::OK)
        }
        Command::Profile(arguments) => profile::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments).map(|()| exit_code::OK),
        Command::Man(arguments) => man::run(&arguments).map(|()| exit_code::OK),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::error(&error, error.hint());
            ExitCode::from(error.exit_code())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn arguments_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
