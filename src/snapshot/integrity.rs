//! What is known about the files of a snapshot before they are read: digests that their content must have,
//! the revision, and their weight format. Reads download records and headers, never whole weights. Must not
//! know how files are packed.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read, Seek},
    path::Path,
};

use super::{
    Expected, ExpectedDigest, ExpectedOrigin, SnapshotFile, Warning, WeightFormat,
    error::SnapshotError,
    local_dir,
    safetensors::{self, HeaderError},
    tree::Tree,
    walk::FoundFile,
};

/// A file that is packed, while its facts are gathered.
pub(super) struct Candidate {
    pub(super) path: String,
    pub(super) file: FoundFile,
    pub(super) expected: Vec<Expected>,
    /// Whether the file is as it was downloaded, as far as is known. One that the user edited or added in a
    /// `--local-dir` directory is not compared with the repository's listing.
    pub(super) pristine: bool,
}

impl Candidate {
    /// Starts with what the walk tells.
    pub(super) fn new(path: String, file: FoundFile) -> Self {
        let mut candidate = Self { path, file, expected: Vec::new(), pristine: true };
        if let Some(blob) = candidate.file.blob.clone() {
            let digest = blob.file_name().and_then(|name| ExpectedDigest::from_etag(name.to_str()?));
            candidate.add_expected(digest, ExpectedOrigin::BlobName(blob));
        }
        candidate
    }

    /// Notes a digest, unless another origin told the same.
    pub(super) fn add_expected(&mut self, digest: Option<ExpectedDigest>, origin: ExpectedOrigin) {
        if let Some(digest) = digest
            && !self.expected.iter().any(|known| known.digest == digest)
        {
            self.expected.push(Expected { digest, origin });
        }
    }

    /// Looks at the content's start and finishes. Errors name the file below the snapshot's directory
    /// `root`: the name of a blob tells a user nothing.
    pub(super) fn finish(self, root: &Path) -> Result<SnapshotFile, SnapshotError> {
        let weight_format = weight_format(&root.join(&self.path), &self.file)?;
        Ok(SnapshotFile {
            path: self.path,
            source: self.file.source,
            stamp: self.file.stamp,
            executable: self.file.executable,
            expected: self.expected,
            weight_format,
        })
    }
}

/// Reads the download records of a `--local-dir` directory, and gives the commit that all of them name.
pub(super) fn read_records(
    root: &Path,
    candidates: &mut [Candidate],
    warnings: &mut Vec<Warning>,
) -> Option<String> {
    let mut commits = BTreeSet::new();
    for candidate in candidates {
        let record = match local_dir::record(root, &candidate.path) {
            Ok(Some(record)) => record,
            Ok(None) => {
                candidate.pristine = false;
                continue;
            }
            Err(warning) => {
                candidate.pristine = false;
                warnings.push(warning);
                continue;
            }
        };
        candidate.pristine = record.is_current(&candidate.file.stamp);
        if candidate.pristine {
            candidate.add_expected(record.digest, ExpectedOrigin::Metadata(record.path));
        } else {
            warnings.push(Warning::ChangedAfterDownload { path: candidate.path.clone() });
        }
        commits.insert(record.commit);
    }
    if commits.len() > 1 {
        warnings.push(Warning::SeveralRevisions { commits: commits.into_iter().collect() });
        return None;
    }
    commits.pop_first()
}

/// Compares sizes with the listing and takes its digests.
pub(super) fn read_tree(
    tree: &Tree,
    root: &Path,
    candidates: &mut [Candidate],
    command: &str,
) -> Result<(), SnapshotError> {
    for candidate in candidates.iter_mut().filter(|candidate| candidate.pristine) {
        let Some(listed) = tree.files.get(&candidate.path) else { continue };
        if listed.size != candidate.file.stamp.size {
            return Err(SnapshotError::WrongSize {
                path: root.join(&candidate.path),
                found: candidate.file.stamp.size,
                tree: tree.path.clone(),
                listed: listed.size,
                command: format!("{command} --force-download"),
            });
        }
        candidate.add_expected(listed.digest, ExpectedOrigin::Tree(tree.path.clone()));
    }
    Ok(())
}

/// Longest pointer of Git LFS in bytes; its specification says "less than 1024".
const MAX_POINTER: u64 = 1024;
/// How a pointer begins. Source: `docs/spec.md` of git-lfs.
const POINTER_START: &[u8] = b"version https://git-lfs.github.com/spec/v1";
/// How a GGUF file begins. Source: `docs/gguf.md` of ggml.
const GGUF_MAGIC: &[u8] = b"GGUF";

/// Tells the format by the content. A name is believed only in one way: a `.safetensors` file that is not
/// valid is refused.
fn weight_format(path: &Path, found: &FoundFile) -> Result<Option<WeightFormat>, SnapshotError> {
    let error = |source: io::Error| SnapshotError::Io { path: path.to_owned(), source };
    let mut file = File::open(&found.source).map_err(error)?;
    let mut start = Vec::with_capacity(POINTER_START.len());
    file.by_ref().take(POINTER_START.len() as u64).read_to_end(&mut start).map_err(error)?;
    if found.stamp.size < MAX_POINTER && start == POINTER_START {
        return Err(SnapshotError::LfsPointer { path: path.to_owned() });
    }
    if start.starts_with(GGUF_MAGIC) {
        return Ok(Some(WeightFormat::Gguf));
    }
    let named = path.extension().is_some_and(|extension| extension == "safetensors");
    // The header's `{` stands behind its length. Without it no other file needs a closer look.
    if !named && start.get(8) != Some(&b'{') {
        return Ok(None);
    }
    file.rewind().map_err(error)?;
    match safetensors::check(file, found.stamp.size) {
        Ok(()) => Ok(Some(WeightFormat::Safetensors)),
        Err(HeaderError::Io(source)) => Err(error(source)),
        Err(HeaderError::Problem(problem)) if named => {
            Err(SnapshotError::BrokenSafetensors { path: path.to_owned(), problem })
        }
        Err(HeaderError::Problem(_)) => Ok(None),
    }
}
