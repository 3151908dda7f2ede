//! Media types of layers. Must not know what layers hold.

use crate::members::MemberKind;

/// What a layer's media type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LayerType {
    pub(super) compression: Compression,
    /// Whether it is Docker's name and not OCI's.
    pub(super) is_docker: bool,
}

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// The compression that bytes begin with; a tar archive has nothing to be told by before its 257th byte.
    pub(crate) fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or one of the 16 that are skipped.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "tar",
            Self::Gzip => "tar+gzip",
            Self::Zstd => "tar+zstd",
        }
    }
}

impl From<MemberKind> for Compression {
    fn from(kind: MemberKind) -> Self {
        match kind {
            MemberKind::Gzip => Self::Gzip,
            MemberKind::Zstd => Self::Zstd,
        }
    }
}

impl LayerType {
    /// What `media_type` means; `None` if runtimes do not know it.
    pub(super) fn of(media_type: &str) -> Option<Self> {
        const DOCKER: &str = "application/vnd.docker.image.rootfs.";
        const OCI: &str = "application/vnd.oci.image.layer.";

        let (rest, is_docker) = if let Some(rest) = media_type.strip_prefix(DOCKER) {
            (rest.strip_prefix("foreign.").unwrap_or(rest).strip_prefix("diff.")?, true)
        } else {
            let rest = media_type.strip_prefix(OCI)?;
            (rest.strip_prefix("nondistributable.").unwrap_or(rest).strip_prefix("v1.")?, false)
        };
        let compression = match rest.strip_prefix("tar")? {
            "" => Compression::None,
            "+gzip" if !is_docker => Compression::Gzip,
            "+zstd" if !is_docker => Compression::Zstd,
            ".gzip" if is_docker => Compression::Gzip,
            ".zstd" if is_docker => Compression::Zstd,
            _ => return None,
        };
        Some(Self { compression, is_docker })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types() {
        for (name, compression, is_docker) in [
            ("application/vnd.oci.image.layer.v1.tar", Compression::None, false),
            ("application/vnd.oci.image.layer.v1.tar+gzip", Compression::Gzip, false),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", Compression::Zstd, false),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", Compression::Gzip, true),
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Compression::Gzip, true),
        ] {
            assert_eq!(LayerType::of(name), Some(LayerType { compression, is_docker }), "{name}");
        }
        for name in [
            "",
            "application/vnd.oci.image.layer.v1.tar.gzip",
            "application/octet-stream",
            "application/vnd.oci.image.layer.v1.tar+lz4",
        ] {
            assert_eq!(LayerType::of(name), None, "{name}");
        }
    }
}
