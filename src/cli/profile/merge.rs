//! `starcar profile merge`

use std::path::PathBuf;

use clap::Args;

use super::files;
use crate::{cli::CliError, profile::Merge};

/// Join several profiles: runs, ranks, engines
///
/// Each file gets the place of its earliest first access in any of the profiles, and each byte counts once, at its
/// earliest read. Where all profiles read one file before another, so does the merged one. The order in which
/// profiles are given does not matter, and one that is given twice counts once.
#[derive(Debug, Args)]
pub(super) struct MergeArguments {
    /// The profiles; - is standard input
    #[arg(required = true, value_name = "PROFILE")]
    profiles: Vec<String>,
    /// Write the profile to this file [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(arguments: &MergeArguments) -> Result<(), CliError> {
    if arguments.profiles.iter().filter(|profile| *profile == "-").count() > 1 {
        return Err(CliError::Usage("standard input can be read once only".to_owned()));
    }
    let mut merge = Merge::new();
    for argument in &arguments.profiles {
        merge.add(argument, files::load(argument)?)?;
    }
    files::save(&merge.finish()?, arguments.output.as_deref())
}
