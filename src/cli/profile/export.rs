//! `starcar profile export`

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::files;
use crate::{
    cli::{CliError, output},
    profile::{ExportFormat, ExportOptions, export},
};

/// Write a profile for ctr-remote: the files in the order of their first accesses
#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    /// The profile; - is standard input
    profile: String,
    /// What is written: `ctr-remote` is for `image convert --estargz-record-in`, `prefetch-list` for
    /// `image optimize --prefetch-list`
    #[arg(long, value_enum)]
    to: ToArgument,
    /// Where the model lies in the image
    #[arg(long, value_name = "PATH", default_value = "/models")]
    model_dir: String,
    /// Where a compile cache lies in the image; others are left out (repeatable)
    #[arg(long, value_name = "NAME=DIR", value_parser = files::cache)]
    cache: Vec<(String, String)>,
    /// Take the files of this snapshot for patterns, and leave out what it does not have
    #[arg(long, value_name = "SNAPSHOT")]
    snapshot: Option<String>,
    /// Write to this file [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ToArgument {
    CtrRemote,
    PrefetchList,
}

pub(super) fn run(arguments: &ExportArguments) -> Result<(), CliError> {
    files::spare(&arguments.profile, arguments.output.as_deref())?;
    let profile = files::load(&arguments.profile)?;
    let snapshot = arguments.snapshot.as_deref().map(files::snapshot_files).transpose()?;
    let snapshot = snapshot.as_deref().map(files::borrowed);
    let options = ExportOptions {
        format: match arguments.to {
            ToArgument::CtrRemote => ExportFormat::CtrRemote,
            ToArgument::PrefetchList => ExportFormat::PrefetchList,
        },
        model: &arguments.model_dir,
        caches: &arguments.cache,
        files: snapshot.as_deref(),
    };
    let exported = export(&profile, &options)?;
    exported.notes.iter().for_each(|note| output::warning(note));
    if exported.text.is_empty() {
        output::warning("the profile names no file for this");
    }
    files::write(&exported.text, arguments.output.as_deref())
}
