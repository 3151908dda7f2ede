//! Whether an image holds a snapshot: each file of it, with the bytes that it has, and no others. The image's files were
//! read before. A file whose digest the snapshot knows is not read. Must not know how images are read.

use std::{
    collections::{BTreeMap, HashMap},
    io,
};

use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};

use super::{
    deep::{ReadFile, Wanted},
    finding::{Findings, Place},
    names::is_below,
    rules,
};
use crate::{
    blob::{Source, SourceError},
    digest::Digest,
    snapshot::{ExpectedDigest, Snapshot, SnapshotFile},
};

/// A snapshot that images are held against.
pub(super) struct Against<'a> {
    snapshot: &'a Snapshot,
    /// The model's directory in the image, without slashes around it.
    directory: &'a str,
    /// Directories below it that hold something else: compile caches.
    others: &'a [String],
    by_path: HashMap<String, &'a SnapshotFile>,
}

/// A file of the image, in the layer of this index.
pub(super) type InLayer = (usize, ReadFile);

impl<'a> Against<'a> {
    /// Files below `directory` should be those of `snapshot`, but for those in one of `others`.
    pub(super) fn new(snapshot: &'a Snapshot, directory: &'a str, others: &'a [String]) -> Self {
        let path = |file: &SnapshotFile| format!("{directory}/{}", file.path);
        let by_path = snapshot.files.iter().map(|file| (path(file), file)).collect();
        Self { snapshot, directory, others, by_path }
    }

    /// What is wanted of the image's file of that path.
    pub(super) fn wanted(&self, path: &str) -> Wanted {
        match self.by_path.get(path) {
            Some(file) if needs_git(file) => Wanted::WithGit,
            Some(_) => Wanted::Sha256,
            // To hear of it; there is nothing to compare it with.
            None if self.is_model(path) => Wanted::Sha256,
            None => Wanted::No,
        }
    }

    /// Compares the snapshot with the image's regular files and hard links, by path; of several layers that have one the
    /// topmost counts. Reads the files of the snapshot whose digests are not known, as many at a time as this thread's
    /// pool has threads.
    ///
    /// # Errors
    /// When a file of the snapshot cannot be read, or changed since it was opened.
    pub(super) fn compare(
        &self,
        files: &BTreeMap<String, InLayer>,
        links: &BTreeMap<String, String>,
        findings: &mut Findings,
    ) -> Result<(), SourceError> {
        let mut unknown = Vec::new();
        for file in &self.snapshot.files {
            let path = format!("{}/{}", self.directory, file.path);
            // A link to a link is none that layers have.
            let found = files.get(&path).or_else(|| files.get(links.get(&path)?));
            let Some((layer, read)) = found else {
                let message = format!("the snapshot has {}, the image does not", file.path.escape_debug());
                findings.add(&rules::SOURCE_MISSING, Place::default().file(path), message);
                continue;
            };
            let place = Place::layer(*layer, None).file(path);
            let size = file.stamp.size;
            if size != read.size {
                let message = format!("it has {} bytes, in the snapshot {size}", read.size);
                findings.add(&rules::SOURCE_DIFFERS, place, message);
                continue;
            }
            match known(file, read) {
                Some(Ok(())) => {}
                Some(Err(message)) => findings.add(&rules::SOURCE_DIFFERS, place, message),
                None => unknown.push((file, read.sha256, place)),
            }
        }
        let hashed: Vec<_> = unknown.par_iter().map(|(file, ..)| digest(file)).collect();
        for ((_, actual, place), expected) in unknown.into_iter().zip(hashed) {
            let expected = expected?;
            if actual != expected {
                let message = format!("it has digest {actual}, in the snapshot {expected}");
                findings.add(&rules::SOURCE_DIFFERS, place, message);
            }
        }
        self.extra(files, links, findings);
        Ok(())
    }

    /// What the image has and the snapshot does not.
    fn extra(
        &self,
        files: &BTreeMap<String, InLayer>,
        links: &BTreeMap<String, String>,
        findings: &mut Findings,
    ) {
        let layer_of = |path: &str| files.get(path).map(|(layer, _)| *layer);
        for path in files.keys().chain(links.keys().filter(|path| !files.contains_key(*path))) {
            if self.by_path.contains_key(path) || !self.is_model(path) {
                continue;
            }
            let place = layer_of(path).map_or_else(Place::default, |layer| Place::layer(layer, None));
            let place = place.file(path);
            match self.reason(path) {
                Some(reason) => {
                    let message = format!("packing the snapshot leaves it out: {reason}");
                    findings.add(&rules::SOURCE_LEFT_OUT, place, message);
                }
                None => findings.add(&rules::SOURCE_EXTRA, place, "the snapshot has no such file"),
            }
        }
    }

    /// Why the snapshot's file of that path in the image is left out; `None` if there is none.
    fn reason(&self, path: &str) -> Option<String> {
        let inside = path.strip_prefix(self.directory)?.strip_prefix('/')?;
        let is_it = |left_out: &str| match left_out.strip_suffix('/') {
            Some(directory) => is_below(inside, directory),
            None => inside == left_out,
        };
        let left_out = self.snapshot.left_out.iter().find(|left_out| is_it(&left_out.path))?;
        Some(left_out.reason.to_string())
    }

    /// Whether a path is one of the model's.
    fn is_model(&self, path: &str) -> bool {
        is_below(path, self.directory) && !self.others.iter().any(|other| is_below(path, other))
    }
}

/// Whether nothing but Git's digest is known of a file.
fn needs_git(file: &SnapshotFile) -> bool {
    !file.expected.is_empty()
        && !file.expected.iter().any(|expected| matches!(expected.digest, ExpectedDigest::Sha256(_)))
}

/// Compares a file with what the snapshot knows of it; `None` if that is nothing.
fn known(file: &SnapshotFile, read: &ReadFile) -> Option<Result<(), String>> {
    let mut compared = None;
    for expected in &file.expected {
        let actual = match (expected.digest, read.git_sha1) {
            (ExpectedDigest::Sha256(_), _) => ExpectedDigest::Sha256(read.sha256),
            (ExpectedDigest::GitSha1(_), Some(actual)) => ExpectedDigest::GitSha1(actual),
            (ExpectedDigest::GitSha1(_), None) => continue,
        };
        if actual != expected.digest {
            let message = format!("it has digest {actual}, {} says {}", expected.origin, expected.digest);
            return Some(Err(message));
        }
        compared = Some(Ok(()));
    }
    compared
}

/// The digest of a snapshot's file.
fn digest(file: &SnapshotFile) -> Result<Digest, SourceError> {
    use std::io::IoSliceMut;

    use sha2::{Digest as _, Sha256};

    /// Bytes that are read at a time.
    const PIECE: u64 = 256 << 10;

    let open = Source::Path { path: file.source.clone(), stamp: file.stamp }.open()?;
    let mut hash = Sha256::new();
    let mut buffer = Vec::new();
    let mut offset = 0;
    while offset < file.stamp.size {
        let length = PIECE.min(file.stamp.size - offset);
        let too_large =
            |cause| SourceError::Read { path: file.source.clone(), offset, cause: io::Error::other(cause) };
        buffer.resize(usize::try_from(length).map_err(too_large)?, 0);
        open.read_exact_vectored(&mut [IoSliceMut::new(&mut buffer)], offset)?;
        hash.update(&buffer);
        offset += length;
    }
    open.check_unchanged()?;
    Ok(Digest::finish(hash))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        blob::FileStamp,
        snapshot::{Expected, ExpectedOrigin, SnapshotOptions, open_with},
        verify::finding::{Finding, Use},
    };

    fn snapshot(directory: &std::path::Path) -> Snapshot {
        for (name, content) in [("config.json", "{}"), ("notes.txt", "notes"), ("sub/data", "data")] {
            fs::create_dir_all(directory.join(name).parent().unwrap()).unwrap();
            fs::write(directory.join(name), content).unwrap();
        }
        fs::write(directory.join(".gitattributes"), "x").unwrap();
        open_with(directory.to_str().unwrap(), &SnapshotOptions::default(), &|_| None).unwrap()
    }

    fn image() -> BTreeMap<String, InLayer> {
        [("config.json", "{}"), ("notes.txt", "notes"), ("sub/data", "data")]
            .into_iter()
            .map(|(name, content)| (format!("models/{name}"), (2, read(&format!("models/{name}"), content))))
            .collect()
    }

    fn read(path: &str, content: &str) -> ReadFile {
        use sha1::Digest as _;
        let git = sha1::Sha1::digest(format!("blob {}\0{content}", content.len()));
        ReadFile {
            path: path.to_owned(),
            size: content.len() as u64,
            sha256: Digest::of(content.as_bytes()),
            git_sha1: Some(git.into()),
        }
    }

    fn found(
        snapshot: &Snapshot,
        files: &BTreeMap<String, InLayer>,
        links: &BTreeMap<String, String>,
    ) -> Vec<Finding> {
        let mut findings = Findings::default();
        let others = ["models/.starcar/cache".to_owned()];
        Against::new(snapshot, "models", &others).compare(files, links, &mut findings).unwrap();
        findings.finish(&Use::ALL)
    }

    fn told(snapshot: &Snapshot, files: &BTreeMap<String, InLayer>) -> Vec<(&'static str, String)> {
        found(snapshot, files, &BTreeMap::new())
            .into_iter()
            .map(|found| (found.rule.code, found.place.file.unwrap()))
            .collect()
    }

    #[test]
    fn images_that_hold_the_snapshot() {
        let directory = tempfile::tempdir().unwrap();
        let snapshot = snapshot(directory.path());
        let mut files = image();
        for other in ["bin/sh", "models2/a", "models/.starcar/cache/kernel"] {
            files.insert(other.to_owned(), (0, read(other, "other")));
        }
        assert_eq!(told(&snapshot, &files), []);
        // Two names of one file.
        let (layer, data) = files.remove("models/sub/data").unwrap();
        files.insert("else/where".to_owned(), (layer, data));
        let links = BTreeMap::from([("models/sub/data".to_owned(), "else/where".to_owned())]);
        assert_eq!(found(&snapshot, &files, &links), []);
    }

    #[test]
    fn files_that_are_missing_differ_or_are_too_many() {
        let directory = tempfile::tempdir().unwrap();
        let snapshot = snapshot(directory.path());
        let file = |path: &str| path.to_owned();
        let mut files = image();
        files.remove("models/sub/data");
        assert_eq!(told(&snapshot, &files), [("source-missing", file("models/sub/data"))]);
        for content in ["datA", "data "] {
            files.insert(file("models/sub/data"), (2, read("models/sub/data", content)));
            assert_eq!(told(&snapshot, &files), [("source-differs", file("models/sub/data"))], "{content}");
        }
        files = image();
        files.insert(file("models/more"), (0, read("models/more", "")));
        assert_eq!(told(&snapshot, &files), [("source-extra", file("models/more"))]);
        files = image();
        files.insert(file("models/.gitattributes"), (0, read("models/.gitattributes", "x")));
        assert_eq!(told(&snapshot, &files), [("source-left-out", file("models/.gitattributes"))]);
    }

    /// What the hub says counts: the snapshot's own bytes are not read, and need not be there.
    #[test]
    fn known_digests_spare_reading() {
        let directory = tempfile::tempdir().unwrap();
        let mut snapshot = snapshot(directory.path());
        let origin = ExpectedOrigin::Metadata(directory.path().to_owned());
        for file in &mut snapshot.files {
            let content = fs::read_to_string(&file.source).unwrap();
            let read = read(&file.path, &content);
            let digest = if file.path == "config.json" {
                ExpectedDigest::GitSha1(read.git_sha1.unwrap())
            } else {
                ExpectedDigest::Sha256(read.sha256)
            };
            file.expected.push(Expected { digest, origin: origin.clone() });
            fs::remove_file(&file.source).unwrap();
        }
        let others = [];
        let against = Against::new(&snapshot, "models", &others);
        let wanted = ["models/config.json", "models/notes.txt", "models/more", "bin/sh"];
        let expected = [Wanted::WithGit, Wanted::Sha256, Wanted::Sha256, Wanted::No];
        assert_eq!(wanted.map(|path| against.wanted(path)), expected);
        let mut files = image();
        assert_eq!(told(&snapshot, &files), []);
        for path in ["models/config.json", "models/notes.txt"] {
            let length = usize::try_from(files[path].1.size).unwrap();
            files.insert(path.to_owned(), (2, read(path, &"x".repeat(length))));
        }
        let found = told(&snapshot, &files);
        let codes: Vec<&str> = found.iter().map(|(code, _)| *code).collect();
        assert_eq!(codes, ["source-differs"; 2]);
    }

    #[test]
    fn a_snapshot_that_changed_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let mut snapshot = snapshot(directory.path());
        let changed = &mut snapshot.files[0];
        fs::write(directory.path().join("other"), "{}").unwrap();
        changed.stamp = FileStamp::of(&fs::metadata(directory.path().join("other")).unwrap());
        let against = Against::new(&snapshot, "models", &[]);
        let error = against.compare(&image(), &BTreeMap::new(), &mut Findings::default()).unwrap_err();
        assert!(error.to_string().contains("changed"), "{error}");
    }
}
