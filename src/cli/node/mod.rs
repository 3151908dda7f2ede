//! `starcar node`

mod check;
mod config;

use clap::{Args, Subcommand};

use super::{CliError, RegistryArguments, exit_code, output, parse};
use crate::node::Version;

/// Prepare nodes that start containers before images are pulled
#[derive(Debug, Args)]
pub(super) struct NodeArguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    Config(config::ConfigArguments),
    Check(Box<check::CheckArguments>),
}

pub(super) fn run(arguments: &NodeArguments) -> Result<u8, CliError> {
    match &arguments.command {
        Subcommands::Config(arguments) => config::run(arguments).map(|()| exit_code::OK),
        Subcommands::Check(arguments) => check::run(arguments),
    }
}

/// A program's version; of a number alone the oldest release is meant.
fn version(text: &str) -> Result<Version, String> {
    let number = text.strip_prefix('v').unwrap_or(text);
    let is_alone = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    if is_alone { format!("{number}.x").parse() } else { text.parse() }
}
