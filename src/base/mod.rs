//! The base of an image: the layers below the model, with the shell and the few tools that KServe runs in a
//! modelcar container. Their content is taken as it is and written anew in the image's own layer format,
//! because one layer that cannot be mounted lazily makes a node pull all layers above it whole.
//! Must not know models.

mod applets;
mod error;
mod image;
mod tar_entries;

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

pub use self::error::BaseError;
use crate::{
    blob::Spool,
    digest::Digest,
    layer::Entry,
    oci::{ImageSource, OciError, Platform, Target},
};

/// The base unless the user names another: the image that KServe's documentation builds modelcars from.
pub const BASE_DEFAULT: &str = "docker.io/library/busybox:1.37";

/// What is used as the base.
#[derive(Debug, Clone)]
pub enum BaseChoice {
    /// Nothing. Enough for image volumes, not for KServe's sidecar.
    Scratch,
    /// A static multi-call binary such as busybox.
    Binary(PathBuf),
    /// An image.
    Image(Target),
}

/// The layers below the model.
#[derive(Debug, Default)]
pub struct Base {
    /// The layers, lowest first.
    pub layers: Vec<BaseLayer>,
    /// Environment that the base's config sets, as `NAME=value`.
    pub environment: Vec<String>,
    /// The base's name, if it is an image from a registry.
    pub name: Option<String>,
    /// Digest of the base's manifest, if it is an image.
    pub digest: Option<Digest>,
}

/// One layer of a base.
#[derive(Debug)]
pub struct BaseLayer {
    /// Entries in physical order, parents first, hard links last, no name twice.
    pub entries: Vec<Entry>,
    /// What made the layer, for the image's history.
    pub created_by: String,
}

impl FromStr for BaseChoice {
    type Err = OciError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = Path::new(text);
        if text == "scratch" {
            Ok(Self::Scratch)
        } else if path.is_absolute() || path.starts_with(".") || path.starts_with("..") {
            Ok(Self::Binary(path.to_owned()))
        } else {
            text.parse().map(Self::Image)
        }
    }
}

impl Base {
    /// The base that a static multi-call binary makes: `/bin/<name>` and a link to it for every tool.
    /// `modified` is the time that its entries bear, seconds since 1970.
    ///
    /// # Errors
    /// When the file is no static executable for `platform`, or lacks a tool that KServe runs.
    pub fn from_binary(path: &Path, platform: &Platform, modified: i64) -> Result<Self, BaseError> {
        applets::base(path, platform, modified)
    }

    /// The base that the image in `source` makes. Its layers are unpacked into files of `spool`.
    ///
    /// # Errors
    /// When the image cannot be read, or a layer not be expressed.
    pub fn from_image(
        source: &dyn ImageSource,
        platform: &Platform,
        spool: &Spool,
    ) -> Result<Self, BaseError> {
        image::base(source, platform, spool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices() {
        assert!(matches!("scratch".parse(), Ok(BaseChoice::Scratch)));
        for path in ["/bin/busybox", "./busybox", "../busybox"] {
            assert!(matches!(path.parse(), Ok(BaseChoice::Binary(_))), "{path}");
        }
        assert!(matches!("busybox".parse(), Ok(BaseChoice::Image(Target::Registry(_)))));
        assert!(matches!("oci:base:v1".parse(), Ok(BaseChoice::Image(Target::Layout { .. }))));
        assert!(matches!(BASE_DEFAULT.parse(), Ok(BaseChoice::Image(Target::Registry(_)))));
    }
}
