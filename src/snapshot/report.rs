//! What a snapshot says about itself besides its files: what was left out, what is known of the files'
//! content, and what the user should look at. Must not read files.

use std::{fmt, path::PathBuf};

use crate::digest::Digest;

/// A file or a whole directory that is not packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// `/`-separated path inside the snapshot; a directory that is left out as a whole ends in `/`.
    pub path: String,
    /// Size in bytes, of a directory the sum of its files; `None` for what was not looked into.
    pub size: Option<u64>,
    /// Why it is left out.
    pub reason: LeftOutReason,
}

/// Why something is not packed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeftOutReason {
    /// Left by tools, never part of a model.
    Housekeeping {
        /// The rule of [`super::HOUSEKEEPING`].
        pattern: &'static str,
        /// What such files are, in words.
        why: &'static str,
    },
    /// The same weights are packed in another format.
    Duplicate {
        /// The rule of [`super::DUPLICATES`].
        pattern: &'static str,
        /// What such files are, in words.
        why: &'static str,
        /// A packed file that holds the weights.
        kept: String,
    },
    /// The user's `--exclude` names it.
    Excluded {
        /// The glob.
        glob: String,
    },
    /// The user gave `--include` and none of the globs names it.
    NotIncluded,
    /// The command itself writes or reads it, see [`super::SnapshotOptions::own_places`].
    OwnPlace,
    /// Images that lie in an OCI layout.
    OciLayout,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.escape_debug())?;
        if let Some(size) = self.size {
            write!(f, " ({size} bytes)")?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl fmt::Display for LeftOutReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Housekeeping { pattern, why } => write!(f, "{why} (`{pattern}`)"),
            Self::Duplicate { pattern, why, kept } => {
                write!(f, "{why} (`{pattern}`); `{kept}` is packed; --include packs it all the same")
            }
            Self::Excluded { glob } => write!(f, "--exclude '{glob}'"),
            Self::NotIncluded => f.write_str("no --include names it"),
            Self::OwnPlace => {
                f.write_str("this command itself writes or reads it, and it is no part of the model")
            }
            Self::OciLayout => f.write_str(
                "images in an OCI layout, no part of the model; an --include that spells its name packs it",
            ),
        }
    }
}

/// A digest that a file's content must have, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The digest.
    pub digest: ExpectedDigest,
    /// Who says so.
    pub origin: ExpectedOrigin,
}

/// A digest in one of the two notations of the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExpectedDigest {
    /// SHA-256 of the content (files in LFS or Xet).
    Sha256(Digest),
    /// Git's blob id: SHA-1 of `"blob <size>\0"` and the content (all other files).
    GitSha1([u8; 20]),
}

impl ExpectedDigest {
    /// Reads an etag of the hub: 64 lower-case hexadecimal digits are a SHA-256, 40 are a git blob id, and
    /// anything else (`None`) tells nothing about the content.
    /// Source: `huggingface_hub/file_download.py` (`REGEX_SHA256`) and `_local_folder.py`.
    pub fn from_etag(etag: &str) -> Option<Self> {
        if !etag.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let bytes = hex::decode(etag).ok()?;
        match bytes.len() {
            32 => Some(Self::Sha256(Digest::from_bytes(bytes.try_into().ok()?))),
            20 => Some(Self::GitSha1(bytes.try_into().ok()?)),
            _ => None,
        }
    }
}

impl fmt::Display for ExpectedDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digest) => digest.fmt(f),
            Self::GitSha1(id) => write!(f, "git blob {}", hex::encode(id)),
        }
    }
}

/// The place that an expected digest was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExpectedOrigin {
    /// The name of the blob in the hub cache that the snapshot's symlink points to.
    BlobName(PathBuf),
    /// The listing of the repository's files, `trees/<commit>.json`.
    Tree(PathBuf),
    /// The etag in a `.metadata` file of a `--local-dir` download.
    Metadata(PathBuf),
}

impl fmt::Display for ExpectedOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BlobName(path) => write!(f, "the name of the blob `{}`", path.display()),
            Self::Tree(path) => write!(f, "the file list `{}`", path.display()),
            Self::Metadata(path) => write!(f, "the download record `{}`", path.display()),
        }
    }
}

/// Something that does not stop the packing and that the user should know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// Files that the repository lists and that are not there, as after a download with patterns.
    Incomplete {
        /// The listing of the repository's files.
        tree: PathBuf,
        /// The missing paths inside the snapshot.
        missing: Vec<String>,
        /// A command that downloads them.
        command: String,
    },
    /// A `trees/<commit>.json` that cannot be used, so that completeness is not checked against it.
    UnusableTree {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A `.metadata` file that cannot be used, so that its file's content is not checked.
    UnusableMetadata {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file that was written after it was downloaded, so that nothing is known about its content.
    ChangedAfterDownload {
        /// The path inside the snapshot.
        path: String,
    },
    /// Files of one directory that come from several commits, so that it has no revision.
    SeveralRevisions {
        /// The commits.
        commits: Vec<String>,
    },
    /// Files of which none is weights.
    NoWeights {
        /// The snapshot's directory.
        path: PathBuf,
    },
    /// A glob of the user that no file matches.
    UnusedGlob {
        /// The option, with its dashes.
        option: &'static str,
        /// The glob.
        glob: String,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Incomplete { tree, missing, command } => write!(
                f,
                "{} listed by `{}` {} not downloaded: {}; `{command}` fetches the rest",
                if missing.len() == 1 { "a file".to_owned() } else { format!("{} files", missing.len()) },
                tree.display(),
                if missing.len() == 1 { "is" } else { "are" },
                few(missing)
            ),
            Self::UnusableTree { path, problem } => {
                write!(f, "`{}` is not used to check completeness: {problem}", path.display())
            }
            Self::UnusableMetadata { path, problem } => {
                write!(f, "`{}` is not used to check its file: {problem}", path.display())
            }
            Self::ChangedAfterDownload { path } => write!(
                f,
                "`{path}` was changed after its download: its content is packed as it is, and not checked"
            ),
            Self::SeveralRevisions { commits } => write!(
                f,
                "the files come from several commits ({}): the image will carry no revision",
                commits.join(", ")
            ),
            Self::NoWeights { path } => {
                write!(f, "`{}` has no weights to pack: no engine can load this image alone", path.display())
            }
            Self::UnusedGlob { option, glob } => write!(f, "{option} '{glob}' matches no file"),
        }
    }
}

/// How many names a message lists before it counts the rest.
const NAMES_IN_A_MESSAGE: usize = 5;

/// The first of `names` in back quotes, and how many more there are. Names come from files, so control
/// characters are escaped.
pub(super) fn few(names: &[String]) -> String {
    let listed = all(names.get(..NAMES_IN_A_MESSAGE).unwrap_or(names));
    match names.len().checked_sub(NAMES_IN_A_MESSAGE) {
        Some(more @ 1..) => format!("{listed} and {more} more"),
        _ => listed,
    }
}

/// All of `names` in back quotes, with control characters escaped.
pub(super) fn all(names: &[String]) -> String {
    names.iter().map(|name| format!("`{}`", name.escape_debug())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_of_the_hub_are_read() {
        assert!(matches!(ExpectedDigest::from_etag(&"a".repeat(64)), Some(ExpectedDigest::Sha256(_))));
        assert!(matches!(ExpectedDigest::from_etag(&"0".repeat(40)), Some(ExpectedDigest::GitSha1(_))));
        for other in ["", "ab", &"A".repeat(40), &"g".repeat(64), &"a".repeat(63), &"é".repeat(20)] {
            assert_eq!(ExpectedDigest::from_etag(other), None, "{other}");
        }
    }

    #[test]
    fn long_lists_are_shortened_and_escaped() {
        let names: Vec<_> = (0..7).map(|number| format!("f{number}")).collect();
        assert_eq!(few(&names), "`f0`, `f1`, `f2`, `f3`, `f4` and 2 more");
        assert_eq!(few(&names[..5]), "`f0`, `f1`, `f2`, `f3`, `f4`");
        assert_eq!(few(&["a\nb".to_owned()]), "`a\\nb`");
    }
}
