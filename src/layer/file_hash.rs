//! The digests of one file, compared with what is known of it. Must not know formats or threads.

use crc_fast::CrcAlgorithm;
use sha2::{Digest as _, Sha256};

use super::{Content, Entry, EntryKind, Expected, LayerError};
use crate::digest::Digest;

/// Digests of a file's content.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileDigests {
    pub sha256: Digest,
    /// Where the format wants it.
    pub crc64: Option<u64>,
}

/// The running digests of one file.
pub(super) struct FileHash<'a> {
    path: &'a str,
    expected: &'a [Expected],
    sha256: Sha256,
    /// Only where a Git digest is there to compare with.
    git_sha1: Option<sha1::Sha1>,
    /// Only where the format wants it.
    crc64: Option<crc_fast::Digest>,
}

impl<'a> FileHash<'a> {
    /// Of the file of `entry`.
    pub(super) fn new(entry: &'a Entry, wants_crc64: bool) -> Self {
        let expected: &[Expected] = match &entry.kind {
            EntryKind::Regular(Content { expected, .. }) => expected,
            _ => &[],
        };
        let wants_sha1 = expected.iter().any(|expected| matches!(expected, Expected::GitSha1 { .. }));
        let git_sha1 = wants_sha1.then(|| sha1::Sha1::new_with_prefix(format!("blob {}\0", entry.size())));
        let crc64 = wants_crc64.then(|| crc_fast::Digest::new(CrcAlgorithm::Crc64GoIso));
        Self { path: &entry.path, expected, sha256: Sha256::new(), git_sha1, crc64 }
    }

    /// The file's next bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(sha1) = &mut self.git_sha1 {
            sha1.update(bytes);
        }
        if let Some(crc64) = &mut self.crc64 {
            crc64.update(bytes);
        }
    }

    /// The digests, when they are those that are known of the file.
    pub(super) fn finish(self) -> Result<FileDigests, LayerError> {
        let sha256 = Digest::finish(self.sha256);
        let git_sha1 = self.git_sha1.map(|sha1| <[u8; 20]>::from(sha1.finalize()));
        for expected in self.expected {
            let (origin, expected, actual) = match expected {
                Expected::Sha256 { digest, origin } => (origin, digest.to_string(), sha256.to_string()),
                Expected::GitSha1 { digest, origin } => {
                    let name = |bytes: &[u8]| format!("git-sha1:{}", hex::encode(bytes));
                    (origin, name(digest), git_sha1.as_ref().map(|digest| name(digest)).unwrap_or_default())
                }
            };
            if expected != actual {
                let (path, origin) = (self.path.to_owned(), origin.clone());
                return Err(LayerError::Damaged { path, origin, expected, actual });
            }
        }
        Ok(FileDigests { sha256, crc64: self.crc64.map(|crc64| crc64.finalize()) })
    }
}
