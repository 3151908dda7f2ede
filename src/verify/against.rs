//! Whether an image holds a snapshot: each file of it, with the bytes that it has, and no others. The image's files were
//! read before. A file whose digest the snapshot knows is not read. Must not know how images are read.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
};

use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};

use super::{
    deep::{ReadFile, Wanted},
    finding::{Findings, Place},
    names::is_below,
    rules,
    tree::{Node, NodeKind, Placed, Tree},
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

/// What a file of the image holds, in the layer of this index.
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
            // Links of the model may lead to any file.
            _ => Wanted::Sha256,
        }
    }

    /// Compares the snapshot with the image: `tree`, and what the regular files and hard links in it hold, by path, as far
    /// as that was read. Reads the files of the snapshot whose digests are not known, as many at a time as this thread's
    /// pool has threads.
    ///
    /// # Errors
    /// When a file of the snapshot cannot be read, or changed since it was opened.
    pub(super) fn compare(
        &self,
        tree: &Tree,
        files: &BTreeMap<String, InLayer>,
        findings: &mut Findings,
    ) -> Result<(), SourceError> {
        let (mut unknown, mut unread, mut led) = (Vec::new(), Vec::new(), HashSet::new());
        for file in &self.snapshot.files {
            let path = format!("{}/{}", self.directory, file.path);
            let (layer, read) = match find(&path, tree, files, &mut led) {
                Found::Read(found) => found,
                Found::Unread => {
                    unread.push(path);
                    continue;
                }
                Found::Missing => {
                    let message =
                        format!("the snapshot has {}, the image does not", file.path.escape_debug());
                    findings.add(&rules::SOURCE_MISSING, Place::default().file(path), message);
                    continue;
                }
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
        if let Some(first) = unread.first() {
            let (count, all) = (unread.len(), self.snapshot.files.len());
            let message = format!(
                "{count} of the snapshot's {all} files could not be compared, the first is {}",
                first.escape_debug()
            );
            findings.add(&rules::SOURCE_UNREAD, Place::default(), message);
        }
        let hashed: Vec<_> = unknown.par_iter().map(|(file, ..)| digest(file)).collect();
        for ((_, actual, place), expected) in unknown.into_iter().zip(hashed) {
            let expected = expected?;
            if actual != expected {
                let message = format!("it has digest {actual}, in the snapshot {expected}");
                findings.add(&rules::SOURCE_DIFFERS, place, message);
            }
        }
        self.extra(tree, &led, findings);
        Ok(())
    }

    /// What the image has and the snapshot does not, but for what files of the snapshot are links to.
    fn extra(&self, tree: &Tree, led: &HashSet<String>, findings: &mut Findings) {
        for placed in tree.below(self.directory) {
            let path = placed.node.path.as_str();
            let is_file = matches!(placed.node.kind, NodeKind::Regular { .. } | NodeKind::Hardlink { .. });
            if !is_file || self.by_path.contains_key(path) || led.contains(path) || !self.is_model(path) {
                continue;
            }
            let place = Place::layer(placed.layer, None).file(path);
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

/// What a path of the image leads to.
enum Found<'f> {
    Read(&'f InLayer),
    /// Perhaps a file, but its layer could not be read.
    Unread,
    Missing,
}

/// Follows symbolic links from `path`, and remembers in `led` where they lead to.
fn find<'f>(
    path: &str,
    tree: &Tree,
    files: &'f BTreeMap<String, InLayer>,
    led: &mut HashSet<String>,
) -> Found<'f> {
    let absent = if tree.is_incomplete { Found::Unread } else { Found::Missing };
    let Some(at) = tree.resolve(path) else { return absent };
    let found = match (files.get(&at), tree.find(&at)) {
        (Some(read), _) => Found::Read(read),
        // A hard link through a directory that is a symbolic link.
        (None, Some(Placed { node: Node { kind: NodeKind::Regular { .. }, path, .. }, .. })) => {
            files.get(path).map_or(Found::Unread, Found::Read)
        }
        (None, _) => return absent,
    };
    if at != path {
        led.insert(at);
    }
    found
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

    /// The tree of those files.
    fn tree(files: &BTreeMap<String, InLayer>) -> Tree {
        let mut tree = Tree::default();
        for (path, (layer, read)) in files {
            let kind = NodeKind::Regular { size: read.size };
            tree.add(*layer, &[Node { path: path.clone(), kind, mode: 0o644, uid: 0, gid: 0 }]);
        }
        tree
    }

    fn found(snapshot: &Snapshot, tree: &Tree, files: &BTreeMap<String, InLayer>) -> Vec<Finding> {
        let mut findings = Findings::default();
        let others = ["models/.starcar/cache".to_owned()];
        Against::new(snapshot, "models", &others).compare(tree, files, &mut findings).unwrap();
        findings.finish(&Use::ALL)
    }

    fn told(snapshot: &Snapshot, files: &BTreeMap<String, InLayer>) -> Vec<(&'static str, String)> {
        found(snapshot, &tree(files), files)
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
    }

    /// As other builders lay files out: of names that are links to blobs.
    #[test]
    fn symbolic_links_are_followed() {
        let directory = tempfile::tempdir().unwrap();
        let snapshot = snapshot(directory.path());
        let mut files = image();
        for (from, to) in
            [("models/config.json", "models/blobs/abc"), ("models/sub/data", "models/real/data")]
        {
            let file = files.remove(from).unwrap();
            files.insert(to.to_owned(), file);
        }
        let link = |path: &str, target: &str| {
            let kind = NodeKind::Symlink { target: target.to_owned() };
            Node { path: path.to_owned(), kind, mode: 0o777, uid: 0, gid: 0 }
        };
        let mut tree = tree(&files);
        tree.add(3, &[link("models/config.json", "blobs/abc"), link("models/sub", "/models/real")]);
        assert_eq!(found(&snapshot, &tree, &files), []);
        tree.add(4, &[link("models/config.json", "blobs/gone")]);
        let codes: Vec<_> = found(&snapshot, &tree, &files).iter().map(|found| found.rule.code).collect();
        assert_eq!(codes, ["source-missing", "source-extra"]);
    }

    #[test]
    fn what_could_not_be_read_is_told_once() {
        let directory = tempfile::tempdir().unwrap();
        let snapshot = snapshot(directory.path());
        let mut files = image();
        let whole = tree(&files);
        files.retain(|path, _| path == "models/notes.txt");
        let mut part = tree(&files);
        part.is_incomplete = true;
        // A layer of which not even the names are known, and one of which no more is.
        for tree in [part, whole] {
            let found = found(&snapshot, &tree, &files);
            let told: Vec<_> = found.iter().map(|found| (found.rule.code, found.message.as_str())).collect();
            let message =
                "2 of the snapshot's 3 files could not be compared, the first is models/config.json";
            assert_eq!(told, [("source-unread", message)]);
        }
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
        let expected = [Wanted::WithGit, Wanted::Sha256, Wanted::Sha256, Wanted::Sha256];
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
        let error = against.compare(&tree(&image()), &image(), &mut Findings::default()).unwrap_err();
        assert!(error.to_string().contains("changed"), "{error}");
    }
}
