//! Names of images: in a layout, in an archive, in a registry.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::OciError;
use crate::{digest::Digest, registry::Reference};

/// Tag of an image in a layout or archive when none is given, as container tools assume it.
pub const DEFAULT_TAG: &str = "latest";

/// The tag of the image for a GPU target: the tag that was asked for, a hyphen and the target.
pub fn variant_tag(tag: &str, target: Option<&str>) -> String {
    target.map_or_else(|| tag.to_owned(), |target| format!("{tag}-{target}"))
}

/// Where an image is or goes.
#[derive(Debug, Clone)]
pub enum Target {
    /// `oci:DIR[:tag]` or `oci:DIR@sha256:…`
    Layout {
        /// The layout's directory.
        path: PathBuf,
        /// Which image of it.
        selector: Selector,
    },
    /// `oci-archive:FILE[:tag]`
    Archive {
        /// The archive.
        path: PathBuf,
        /// Which image of it.
        selector: Selector,
    },
    /// `registry/repository:tag` or `…@sha256:…`
    Registry(Reference),
}

/// Which image of a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The only one there is.
    Only,
    /// The one with this tag.
    Tag(String),
    /// The one with this manifest digest.
    Digest(Digest),
}

impl Target {
    /// The tag that a new image in a layout or archive gets.
    pub fn new_tag(&self) -> &str {
        match self {
            Self::Layout { selector: Selector::Tag(tag), .. }
            | Self::Archive { selector: Selector::Tag(tag), .. } => tag,
            _ => DEFAULT_TAG,
        }
    }

    /// Where the image lies on this disk; `None` for a registry.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Layout { path, .. } | Self::Archive { path, .. } => Some(path),
            Self::Registry(_) => None,
        }
    }
}

impl FromStr for Target {
    type Err = OciError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |reason: String| OciError::Target { text: text.to_owned(), reason };
        if let Some(rest) = text.strip_prefix("oci:") {
            let (path, selector) = split_selector(rest).map_err(invalid)?;
            return Ok(Self::Layout { path, selector });
        }
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            let (path, selector) = split_selector(rest).map_err(invalid)?;
            return Ok(Self::Archive { path, selector });
        }
        if Path::new(text).join("oci-layout").is_file() {
            return Err(invalid(format!("did you mean oci:{text}?")));
        }
        text.parse().map(Self::Registry).map_err(|error| invalid(why_no_reference(text, &error.to_string())))
    }
}

/// What is wrong with a text that should name an image in a registry, in words that help; `error` says it in few.
fn why_no_reference(text: &str, error: &str) -> String {
    let path = text.split(['@', ':']).next().unwrap_or_default();
    if text.contains("://") {
        "names have no https:// before them".to_owned()
    } else if text.starts_with(['/', '.', '~']) {
        format!("a layout is called oci:{text}")
    } else if text.starts_with('[') {
        "addresses of IPv6 cannot be part of a name; use a host's name".to_owned()
    } else if text.split_once('@').is_some_and(|(_, rest)| !rest.contains(':') || rest.contains('/')) {
        "names hold no users and passwords; log in with `podman login` or `docker login`".to_owned()
    } else if path.chars().any(char::is_uppercase) {
        format!("{error}: repositories have small letters only")
    } else {
        error.to_owned()
    }
}

/// Splits `PATH[:tag]` or `PATH@sha256:…`. A colon belongs to the path when a slash follows it.
fn split_selector(text: &str) -> Result<(PathBuf, Selector), String> {
    let (path, selector) = if let Some((path, digest)) = text.rsplit_once("@sha256:") {
        let digest = format!("sha256:{digest}").parse().map_err(|error| format!("{error}"))?;
        (path, Selector::Digest(digest))
    } else {
        match text.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
            Some((path, tag)) if is_tag(tag) => (path, Selector::Tag(tag.to_owned())),
            Some((_, tag)) => return Err(format!("`{tag}` is no tag")),
            None => (text, Selector::Only),
        }
    };
    if path.is_empty() { Err("the path is empty".to_owned()) } else { Ok((PathBuf::from(path), selector)) }
}

/// Whether `tag` is one that registries take.
///
/// Source: OCI distribution specification, "Pulling manifests".
pub fn is_tag(tag: &str) -> bool {
    let mut bytes = tag.bytes();
    tag.len() <= 128
        && bytes.next().is_some_and(|first| first.is_ascii_alphanumeric() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layout { path, selector } => write!(f, "oci:{}{selector}", path.display()),
            Self::Archive { path, selector } => write!(f, "oci-archive:{}{selector}", path.display()),
            Self::Registry(reference) => fmt::Display::fmt(reference, f),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Only => Ok(()),
            Self::Tag(tag) => write!(f, ":{tag}"),
            Self::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        let digest = Digest::of(b"");
        for text in [
            "oci:out",
            "oci:/a/b:v1",
            "oci:odd:dir/out",
            &format!("oci:out@{digest}"),
            "oci-archive:model.tar:v1",
            "registry.example.com/models/qwen3:v1",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_tag_follows_the_last_colon() {
        let target: Target = "oci:dir:v1.2".parse().unwrap();
        assert!(matches!(&target, Target::Layout { path, .. } if path == Path::new("dir")));
        assert_eq!(target.new_tag(), "v1.2");
        assert_eq!("oci:dir".parse::<Target>().unwrap().new_tag(), "latest");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "oci:", "oci::v1", "oci:dir:", "oci:dir:-x", "oci:dir@sha256:12", "UPPER CASE"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
