//! Platforms as OCI names them.

use std::{fmt, str::FromStr};

use oci_spec::image::{Arch, ImageConfiguration, Os, PlatformBuilder};

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
        self.admits(&Self {
            os: other.os().to_string(),
            architecture: other.architecture().to_string(),
            variant: other.variant().clone(),
        })
    }

    /// As [`Self::accepts`], of a platform in these words.
    pub fn admits(&self, other: &Self) -> bool {
        let variants = self.variant.as_deref().zip(other.variant.as_deref());
        other.os == self.os
            && other.architecture == self.architecture
            && variants.is_none_or(|(wanted, present)| wanted == present)
    }

    /// This machine's platform, as a node of it would ask for.
    pub fn of_host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            other => other,
        };
        Self { architecture: architecture.to_owned(), ..Self::default() }
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

    /// Whether nodes take both for the same platform: containerd drops a variant that an architecture has by itself.
    ///
    /// Source: containerd's `platforms`, `Normalize`.
    pub fn is_same_as(&self, other: &Self) -> bool {
        let variant = |platform: &'_ Self| match (platform.architecture.as_str(), platform.variant.as_deref())
        {
            ("amd64", Some("v1")) | ("arm64", Some("v8")) => None,
            ("arm", None) => Some("v7".to_owned()),
            (_, variant) => variant.map(str::to_owned),
        };
        self.os == other.os && self.architecture == other.architecture && variant(self) == variant(other)
    }

    /// Whether a program for the processor `name`, in the words of ELF and Python (`x86_64`, `aarch64`), is one for
    /// this platform. Of a name that is not known nothing is said: it is.
    pub fn runs(&self, name: &str) -> bool {
        match name {
            "x86_64" => self.architecture == "amd64",
            "aarch64" => self.architecture == "arm64",
            _ => true,
        }
    }

    /// The platform as descriptors in an index have it.
    ///
    /// # Errors
    /// When it cannot be expressed.
    pub(super) fn of_descriptor(&self) -> Result<oci_spec::image::Platform, OciError> {
        let mut platform = PlatformBuilder::default()
            .os(Os::from(self.os.as_str()))
            .architecture(Arch::from(self.architecture.as_str()))
            .build()
            .map_err(|_| OciError::Platform(self.to_string()))?;
        platform.set_variant(self.variant.clone());
        Ok(platform)
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
    fn variants_that_go_without_saying() {
        let same = |one: &str, other: &str| {
            one.parse::<Platform>().unwrap().is_same_as(&other.parse::<Platform>().unwrap())
        };
        assert!(same("linux/arm64", "linux/arm64/v8") && same("linux/amd64/v1", "linux/amd64"));
        assert!(same("linux/arm", "linux/arm/v7") && !same("linux/arm/v6", "linux/arm/v7"));
        assert!(!same("linux/amd64/v3", "linux/amd64") && !same("linux/arm64", "linux/amd64"));
        assert!(!same("linux/amd64", "windows/amd64"));
    }

    #[test]
    fn processors() {
        let arm: Platform = "linux/arm64/v8".parse().unwrap();
        assert!(arm.runs("aarch64") && !arm.runs("x86_64") && arm.runs("sm_90"));
        assert!(Platform::default().runs("x86_64") && !Platform::default().runs("aarch64"));
    }

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
