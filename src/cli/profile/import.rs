//! `starcar profile import`

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::files;
use crate::{
    cli::{CliError, output},
    profile::{
        Engine, Model, Recording, Tree,
        import::{ImportFormat, ImportOptions, Root, import},
    },
};

/// Make a profile of a log of strace or a record of ctr-remote
///
/// Logs come from `strace -f -ttt -y -o LOG COMMAND`. A mapped file counts as read where it was mapped, which is more
/// than is touched: page faults are not in a log. Records come from `ctr-remote image optimize --record-out`; they
/// have an order, but neither times nor byte ranges.
#[derive(Debug, Args)]
pub(super) struct ImportArguments {
    /// The log or the record, compressed with gzip or not; - is standard input
    recording: String,
    /// What it is [default: what it looks like]
    #[arg(long, value_enum)]
    from: Option<FromArgument>,
    /// Where the model lay in what was recorded (repeatable, for several ways to it)
    #[arg(long, value_name = "DIR", default_value = "/models")]
    root: Vec<String>,
    /// Where a compile cache lay, and the name that it gets (repeatable)
    #[arg(long, value_name = "NAME=DIR", value_parser = files::cache)]
    cache: Vec<(String, String)>,
    /// Write the profile to this file [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The program that was recorded, such as vllm
    #[arg(long, value_name = "NAME", help_heading = "Recording")]
    engine: Option<String>,
    /// Its version
    #[arg(long, value_name = "VERSION", requires = "engine", help_heading = "Recording")]
    engine_version: Option<String>,
    /// How it loaded the weights, such as `runai_streamer`
    #[arg(long, value_name = "NAME", help_heading = "Recording")]
    loader: Option<String>,
    /// The model's repository, such as Qwen/Qwen3-8B
    #[arg(long, value_name = "REPOSITORY", help_heading = "Recording")]
    model: Option<String>,
    /// The model's revision
    #[arg(long, value_name = "REVISION", help_heading = "Recording")]
    revision: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FromArgument {
    Strace,
    CtrRemote,
}

pub(super) fn run(arguments: &ImportArguments) -> Result<(), CliError> {
    files::spare(&arguments.recording, arguments.output.as_deref())?;
    let model = arguments.root.iter().map(|directory| Root::new(directory, Tree::Model));
    let caches =
        arguments.cache.iter().map(|(name, directory)| Root::new(directory, Tree::Cache(name.clone())));
    let roots = model.chain(caches).collect::<Result<_, _>>();
    let options = ImportOptions {
        format: arguments.from.map(|from| match from {
            FromArgument::Strace => ImportFormat::Strace,
            FromArgument::CtrRemote => ImportFormat::CtrRemote,
        }),
        roots: roots.map_err(|error| CliError::Usage(error.to_string()))?,
        recording: recording(arguments),
    };
    let (name, stream) = files::open(&arguments.recording)?;
    let imported = import(&name, stream, &options)?;
    imported.notes.iter().for_each(|note| output::warning(note));
    files::save(&imported.profile, arguments.output.as_deref())
}

fn recording(arguments: &ImportArguments) -> Recording {
    let engine = arguments.engine.clone().map(|name| Engine {
        name,
        version: arguments.engine_version.clone(),
        ..Engine::default()
    });
    let model = Model {
        repository: arguments.model.clone(),
        revision: arguments.revision.clone(),
        ..Model::default()
    };
    Recording {
        engine,
        loader: arguments.loader.clone(),
        model: (model != Model::default()).then_some(model),
        ..Recording::default()
    }
}
