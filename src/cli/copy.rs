//! `starcar copy`

use clap::Args;

use super::{
    CliError, ProgressArguments, RegistryArguments,
    naming::{NamingArguments, reference},
    output,
    progress::Progress,
};
use crate::{
    copy::{CopyOptions, Destination, copy, tag_of},
    naming::Naming,
    oci::{self, Layout, Platform, Selector, Target},
};

/// Copy an image between registries and layouts, every byte as it is
///
/// The variants for GPU targets that the image lists are copied before it, each under its own tag. What the
/// destination has is not sent again. The manifest's digest is the last line on standard output.
#[derive(Debug, Args)]
pub(super) struct CopyArguments {
    /// The image: a name in a registry, oci:DIR[:tag], oci:DIR@sha256:… or oci-archive:FILE[:tag]
    source: Target,
    /// Where it goes: a name in a registry, or oci:DIR[:tag] (without a tag, the source's)
    destination: String,
    /// Copy the image of an index for this platform alone [default: the index with all images]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Copy what refers to the image, too: profiles, signatures
    #[arg(long)]
    referrers: bool,
    #[command(flatten)]
    naming: NamingArguments,
    #[command(flatten)]
    progress: ProgressArguments,
    #[command(flatten, next_help_heading = "Registry")]
    registry: RegistryArguments,
}

pub(super) fn run(arguments: &CopyArguments) -> Result<(), CliError> {
    let naming = arguments.naming.naming();
    let registry = arguments.registry.open()?;
    let to = match arguments.destination.parse::<Target>()? {
        Target::Registry(_) => Destination::Registry {
            registry: registry.clone(),
            reference: reference(&arguments.destination, naming)?,
            naming,
        },
        Target::Layout { selector: Selector::Digest(_), .. } => {
            return Err(CliError::Usage("a copy takes a tag, not a digest".to_owned()));
        }
        Target::Layout { .. } if naming == Naming::Digest => {
            return Err(CliError::Usage("--push-by-digest is for registries".to_owned()));
        }
        Target::Layout { path, selector } => {
            let tag = match selector {
                Selector::Tag(tag) => tag,
                _ => tag_of(&arguments.source).to_owned(),
            };
            Destination::Layout { layout: Layout::create(&path)?, tag, naming }
        }
        target @ Target::Archive { .. } => {
            return Err(CliError::Usage(format!(
                "`{target}` is an archive, which nothing is copied to: expected a name in a registry or oci:DIR[:tag]"
            )));
        }
    };
    let source = oci::open(&arguments.source, || Ok(registry))?;
    let options = CopyOptions {
        platform: arguments.platform.clone(),
        referrers: arguments.referrers,
        concurrency: arguments.registry.concurrency,
    };
    let progress = Progress::new(&arguments.progress);
    let digest = copy(&*source, &to, &options, &progress)?;
    progress.finish();
    output::data(&digest.to_string())
}
