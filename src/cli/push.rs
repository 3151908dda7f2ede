//! `starcar push`

use clap::Args;

use super::{
    CliError, ProgressArguments, RegistryArguments,
    naming::{NamingArguments, reference},
    output,
    progress::Progress,
};
use crate::{
    copy::{CopyOptions, Destination, copy},
    oci::{Layout, Target},
};

/// Push an image from a layout to a registry
///
/// The manifest's digest is the last line on standard output.
#[derive(Debug, Args)]
pub(super) struct PushArguments {
    /// The image, and the variants that it lists: oci:DIR[:tag] or oci:DIR@sha256:…
    image: Target,
    /// Its name in the registry
    reference: String,
    #[command(flatten)]
    naming: NamingArguments,
    #[command(flatten)]
    progress: ProgressArguments,
    #[command(flatten, next_help_heading = "Registry")]
    registry: RegistryArguments,
}

pub(super) fn run(arguments: &PushArguments) -> Result<(), CliError> {
    let naming = arguments.naming.naming();
    let reference = reference(&arguments.reference, naming)?;
    let Target::Layout { path, selector } = &arguments.image else {
        return Err(CliError::Usage(format!("`{}` is no layout: expected oci:DIR[:tag]", arguments.image)));
    };
    let source = (Layout::open(path)?, selector.clone());
    let to = Destination::Registry { registry: arguments.registry.open()?, reference, naming };
    let progress = Progress::new(&arguments.progress);
    let digest = copy(&source, &to, &CopyOptions::default(), &progress)?;
    progress.finish();
    output::data(&digest.to_string())
}
