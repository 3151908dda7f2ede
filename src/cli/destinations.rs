//! Where `pack` and `assemble` put an image: the arguments of both. Must not know how the image comes about.

use std::collections::BTreeSet;

use clap::Args;

use super::{
    CliError,
    naming::{NamingArguments, reference},
};
use crate::{
    naming::Naming,
    oci::{DEFAULT_TAG, OciError, Selector, Target},
    pack::Destination,
    registry::{Reference, Registry},
};

/// Where the image goes, and under which names.
#[derive(Debug, Args)]
pub(super) struct DestinationArguments {
    /// Write the image: oci:DIR[:tag] or oci-archive:FILE[:tag] (repeatable)
    #[arg(short, long, value_name = "TARGET", help_heading = "Destination")]
    pub(super) output: Vec<Target>,
    /// Name of the image in a registry (repeatable)
    #[arg(short, long, value_name = "REFERENCE", help_heading = "Destination")]
    pub(super) tag: Vec<String>,
    /// Push the image to the registry that --tag names
    #[arg(long, requires = "tag", help_heading = "Destination")]
    pub(super) push: bool,
    #[command(flatten)]
    pub(super) naming: NamingArguments,
}

impl DestinationArguments {
    /// The names of --tag, each once.
    pub(super) fn references(&self) -> Result<Vec<Reference>, CliError> {
        let mut references: Vec<Reference> = Vec::new();
        for text in &self.tag {
            let reference = reference(text, self.naming.naming())?;
            if !references.contains(&reference) {
                references.push(reference);
            }
        }
        Ok(references)
    }

    /// Makes sure that the image goes somewhere.
    pub(super) fn check_any(&self) -> Result<(), CliError> {
        if self.output.is_empty() && !self.push {
            let text = "nowhere to put the image: add --output oci:DIR, or --tag REFERENCE --push";
            return Err(CliError::Usage(text.to_owned()));
        }
        Ok(())
    }

    /// Makes sure that outputs can be written: hours of packing should not end in a name that cannot.
    pub(super) fn check_outputs(&self) -> Result<(), CliError> {
        let usage = |text: &str| Err(CliError::Usage(text.to_owned()));
        let layouts = self.output.iter().filter(|target| matches!(target, Target::Layout { .. })).count();
        if layouts > 1 {
            return usage("--output takes one oci: directory; copy it, or add an oci-archive:");
        }
        for target in &self.output {
            match target {
                Target::Registry(_) => {
                    return Err(CliError::Usage(format!(
                        "--output takes oci:DIR or oci-archive:FILE; to push, use --tag {target} --push"
                    )));
                }
                Target::Layout { selector: Selector::Digest(_), .. }
                | Target::Archive { selector: Selector::Digest(_), .. } => {
                    return usage("--output takes a tag, not a digest");
                }
                _ => {}
            }
        }
        for target in &self.output {
            let Target::Archive { path, .. } = target else { continue };
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            if let Some(parent) = parent.filter(|parent| !parent.is_dir()) {
                return Err(CliError::Usage(format!("--output: {} is no directory", parent.display())));
            }
            if path.is_dir() {
                return Err(CliError::Usage(format!(
                    "--output: {} is a directory, not an archive",
                    path.display()
                )));
            }
        }
        Ok(())
    }

    /// The destinations, named as `naming` says: layouts and archives under their own tags or those of `references`, and with
    /// --push the registries of `references`.
    pub(super) fn destinations(
        &self,
        references: &[Reference],
        naming: Naming,
        open: impl Fn() -> Result<Registry, OciError>,
    ) -> Result<Vec<Destination>, CliError> {
        let mut destinations = Vec::new();
        for target in &self.output {
            let named: Vec<&str> = match target {
                Target::Layout { selector: Selector::Only, .. }
                | Target::Archive { selector: Selector::Only, .. } => {
                    references.iter().filter_map(Reference::tag).collect()
                }
                named => vec![named.new_tag()],
            };
            match target {
                Target::Layout { path, .. } => {
                    let tags: BTreeSet<&str> = named.into_iter().collect();
                    let tags = if tags.is_empty() { BTreeSet::from([DEFAULT_TAG]) } else { tags };
                    destinations.extend(tags.into_iter().map(|tag| {
                        let (path, tag) = (path.clone(), tag.to_owned());
                        Destination::Layout { path, tag, naming }
                    }));
                }
                Target::Archive { path, .. } => {
                    let tag = named.first().copied().unwrap_or(DEFAULT_TAG).to_owned();
                    destinations.push(Destination::Archive { path: path.clone(), tag });
                }
                Target::Registry(_) => {}
            }
        }
        if self.push {
            for reference in references {
                destinations.push(Destination::Registry {
                    registry: open()?,
                    reference: reference.clone(),
                    naming,
                });
            }
        }
        Ok(destinations)
    }
}
