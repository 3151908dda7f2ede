//! Names that images are pushed under: the arguments that commands which push share.

use clap::Args;

use super::CliError;
use crate::{naming::Naming, oci::Target, registry::Reference};

/// What becomes of names.
#[derive(Debug, Args)]
pub(super) struct NamingArguments {
    /// Push under the image's digest alone; the name has no tag then
    #[arg(long, help_heading = "Destination")]
    push_by_digest: bool,
    /// Refuse to move a tag that names another image
    #[arg(long, env = "STARCAR_NO_CLOBBER", hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new(), help_heading = "Destination")]
    no_clobber: bool,
    /// Move tags all the same, where `STARCAR_NO_CLOBBER` is set
    #[arg(long, help_heading = "Destination")]
    force: bool,
}

impl NamingArguments {
    /// Whether --no-clobber was given, and not by `STARCAR_NO_CLOBBER` alone.
    pub(super) fn is_no_clobber(&self) -> bool {
        self.no_clobber && std::env::var_os("STARCAR_NO_CLOBBER").is_none()
    }

    pub(super) fn naming(&self) -> Naming {
        if self.push_by_digest {
            Naming::Digest
        } else if self.no_clobber && !self.force {
            Naming::Keep
        } else {
            Naming::Move
        }
    }
}

/// Parses the name of an image to push.
pub(super) fn reference(text: &str, naming: Naming) -> Result<Reference, CliError> {
    let Target::Registry(reference) = text.parse::<Target>()? else {
        return Err(CliError::Usage(format!("`{text}` is no name in a registry")));
    };
    if reference.digest().is_some() {
        return Err(CliError::Usage(format!(
            "`{text}` names a digest, which is known when the image is made; name a tag, or with --push-by-digest the \
             repository alone"
        )));
    }
    let has_tag = text.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if naming == Naming::Digest && has_tag {
        return Err(CliError::Usage(format!("`{text}` has a tag, which --push-by-digest does not push")));
    }
    Ok(reference)
}
