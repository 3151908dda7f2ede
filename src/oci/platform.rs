//! Platforms as OCI names them.

use std::{fmt, str::FromStr};

use oci_spec::image::{Arch, ImageConfiguration, Os};

use super::OciError;

/// An operating system and a processor architecture: `linux/amd64`, `linux/arm64/v8`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// Operating system, in Go's words.
    pub os: String,
    /// Architecture, in Go's words.
    pub architecture: String,
    /// Variant of the architecture.
    pub variant: Option<String>,
}

impl Platform {
    /// Whether an image for `other` runs on this platform: a variant that either does not state is no
    /// hindrance.
    pub fn accepts(&self, other: &oci_spec::image::Platform) -> bool {
        let variants = self.variant.as_deref().zip(other.variant().as_deref());
        other.os().to_string() == self.os
            && other.architecture().to_string() == self.architecture
            && variants.is_none_or(|(wanted, present)| wanted == present)
    }

    /// The platform that an image's config states.
    pub fn of_config(config: &ImageConfiguration) -> Self {
        Self {
            os: config.os().to_string(),
            architecture: config.architecture().to_string(),
            variant: config.variant().clone(),
        }
    }

    /// Whether an image for `present` is one for this platform, whose variant may be left open.
    pub fn covers(&self, present: &Self) -> bool {
        self.os == present.os
            && self.architecture == present.architecture
            && (self.variant.is_none() || self.variant == present.variant)
    }

    pub(super) fn apply(&self, config: &mut ImageConfiguration) {
        config.set_os(Os::from(self.os.as_str()));
        config.set_architecture(Arch::from(self.architecture.as_str()));
        config.set_variant(self.variant.clone());
    }
}

impl Default for Platform {
    fn default() -> Self {
        Self { os: "linux".into(), architecture: "amd64".into(), variant: None }
    }
}

impl FromStr for Platform {
    type Err = OciError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('/').collect();
        let usable = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        if !parts.iter().all(usable) {
            return Err(OciError::Platform(text.to_owned()));
        }
        match parts[..] {
            [os, architecture] => {
                Ok(Self { os: os.into(), architecture: architecture.into(), variant: None })
            }
            [os, architecture, variant] => {
                Ok(Self { os: os.into(), architecture: architecture.into(), variant: Some(variant.into()) })
            }
            _ => Err(OciError::Platform(text.to_owned())),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notation() {
        for text in ["linux/amd64", "linux/arm64/v8"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        for text in ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/am d64"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
