//! `starcar profile attach`

use clap::Args;

use super::files;
use crate::{
    attach::{attach_profile, attach_profile_in_layout, describe},
    cli::{CliError, RegistryArguments, output},
    oci::{self, Layout, Platform, Target},
};

/// Attach a profile to an image, for `--profile from:IMAGE` of later packs
///
/// The profile becomes an artifact that refers to the image; the image stays as it is. Attaching the same profile
/// again changes nothing. The artifact's digest is printed.
#[derive(Debug, Args)]
pub(super) struct AttachArguments {
    /// The profile; - is standard input
    profile: String,
    /// The image: a name in a registry, or oci:DIR[:tag]
    image: Target,
    /// Attach it to the image of an index for this platform [default: to the index]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    #[command(flatten, next_help_heading = "Registry")]
    registry: RegistryArguments,
}

pub(super) fn run(arguments: &AttachArguments) -> Result<(), CliError> {
    let platform = arguments.platform.as_ref();
    let profile = files::load(&arguments.profile)?;
    let digest = match &arguments.image {
        Target::Registry(reference) => {
            let registry = arguments.registry.open()?;
            let source = oci::RegistryImage::new(registry.clone(), reference.clone());
            attach_profile(&registry, reference, &describe(&source, platform)?, &profile)?
        }
        Target::Layout { path, selector } => {
            let layout = Layout::open(path)?;
            let image = describe(&(layout.clone(), selector.clone()), platform)?;
            attach_profile_in_layout(&layout, &image, &profile)?
        }
        Target::Archive { .. } => {
            return Err(CliError::Usage(format!(
                "`{}` is an archive, which cannot be added to: expected a name in a registry or oci:DIR[:tag]",
                arguments.image
            )));
        }
    };
    output::data(&digest.to_string())
}
