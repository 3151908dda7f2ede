//! Where compile caches are looked at: on this machine, or in an image that starcar packed.

use std::path::Path;

use clap::Args;

use super::super::{CliError, RegistryArguments, platforms::asked};
use crate::{
    compile_cache::{CacheRecord, Examined, Kind, examine},
    inspect::{ImageCaches, caches_of},
    oci::{self, Platform, Target},
};

/// What is looked at.
#[derive(Debug, Args)]
pub(super) struct SourceArguments {
    /// A directory or file, a name in a registry, oci:DIR[:tag] or oci-archive:FILE[:tag]
    #[arg(value_name = "CACHE")]
    source: String,
    /// What a directory is, if it cannot be told: vllm, inductor, triton, flashinfer, artifacts or generic
    #[arg(long, value_name = "KIND")]
    kind: Option<Kind>,
    /// Platform to look at, of an image for several [default: linux/amd64]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    #[command(flatten, next_help_heading = "Registry")]
    registry: RegistryArguments,
}

/// The caches that were found.
pub(super) enum Source {
    /// On this machine.
    Local(Vec<Examined>),
    /// In an image.
    Image {
        /// Its name.
        name: String,
        /// What it says of them, more than nothing.
        caches: ImageCaches,
    },
}

impl SourceArguments {
    pub(super) fn open(&self) -> Result<Source, CliError> {
        let is_image = self.source.starts_with("oci:") || self.source.starts_with("oci-archive:");
        if !is_image && Path::new(&self.source).exists() {
            return Ok(Source::Local(examine(Path::new(&self.source), self.kind)?));
        }
        if !is_image && self.source.starts_with(['/', '.', '~']) {
            return Err(CliError::NoSuchCache(format!("`{}` does not exist", self.source)));
        }
        // A single word could be an image of Docker Hub; a directory with a slip of the pen is far likelier.
        if !is_image && !self.source.contains(['/', '.', ':']) {
            return Err(CliError::NoSuchCache(format!(
                "there is no directory or file `{0}` here; an image is named with its registry, as in \
                 docker.io/library/{0}",
                self.source
            )));
        }
        let target: Target = self.source.parse()?;
        let image = oci::open(&target, || self.registry.open())?;
        let caches = caches_of(&*image, &asked(&*image, self.platform.as_ref())?)?;
        if caches.records.is_empty() {
            return Err(CliError::NoCaches {
                image: target.to_string(),
                variants: caches.variants.into_keys().collect(),
            });
        }
        Ok(Source::Image { name: target.to_string(), caches })
    }

    /// The records of an image; of a cache on this machine there are none yet.
    pub(super) fn records(&self) -> Result<(String, Vec<CacheRecord>), CliError> {
        match self.open()? {
            Source::Image { name, caches } => Ok((name, caches.records)),
            Source::Local(_) => Err(CliError::Usage(format!(
                "`{}` is a directory; the image that it is packed into says how it is served",
                self.source
            ))),
        }
    }
}
