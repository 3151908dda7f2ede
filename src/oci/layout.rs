//! OCI layouts: directories that hold images as files.
//!
//! Source: OCI image specification, "Image Layout". Blobs appear whole or not at all, `index.json` is written
//! last, and any number of processes may write to one layout at once. Must not know registries.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use oci_spec::image::{Descriptor, ImageIndex, ImageIndexBuilder, MediaType};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};

use super::{
    DOCUMENT_MAX, OciError, REF_NAME_ANNOTATION, Selector, canonical_json,
    read::{digest_of, find_in_index, parse},
};
use crate::{
    blob::{BlobContent, FileBlob, FileRange},
    digest::Digest,
    pending::{PendingFile, TEMPORARY_PREFIX},
};

/// Content of the file `oci-layout`.
pub(super) const LAYOUT_MARKER: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const MARKER_FILE: &str = "oci-layout";
const INDEX_FILE: &str = "index.json";

/// A layout on disk.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

/// A blob of a layout that is being written.
#[derive(Debug)]
pub struct BlobWriter {
    file: PendingFile,
    directory: PathBuf,
}

impl Layout {
    /// Opens the layout at `root` to write to it, and makes it when nothing is there.
    ///
    /// # Errors
    /// [`OciError::NotALayout`] when other files are there already, [`OciError::Io`] when the directory cannot
    /// be written.
    pub fn create(root: &Path) -> Result<Self, OciError> {
        let layout = Self { root: root.to_owned() };
        fs::create_dir_all(root).map_err(OciError::io("create", root))?;
        if root.join(MARKER_FILE).exists() {
            layout.check_marker()?;
        } else {
            let mut present = fs::read_dir(root).map_err(OciError::io("read", root))?.flatten();
            // Another process may be making the same layout right now, in this order.
            let foreign = present.find(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                name != "blobs" && name != MARKER_FILE && !name.starts_with(TEMPORARY_PREFIX)
            });
            if let Some(entry) = foreign {
                let reason = format!(
                    "the directory already holds {}; choose an empty or new one",
                    entry.file_name().display()
                );
                return Err(OciError::NotALayout { path: root.to_owned(), reason });
            }
        }
        let blobs = layout.blobs();
        fs::create_dir_all(&blobs).map_err(OciError::io("create", blobs))?;
        if !root.join(MARKER_FILE).exists() {
            let marker = root.join(MARKER_FILE);
            let write = || {
                let mut file = PendingFile::new(root)?;
                file.write_all(LAYOUT_MARKER.as_bytes())?;
                file.keep(MARKER_FILE)
            };
            write().map_err(OciError::io("write", marker))?;
        }
        Ok(layout)
    }

    /// Opens the layout at `root` to read from it.
    ///
    /// # Errors
    /// [`OciError::NotALayout`] when it is none.
    pub fn open(root: &Path) -> Result<Self, OciError> {
        let layout = Self { root: root.to_owned() };
        layout.check_marker()?;
        Ok(layout)
    }

    /// The layout's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Begins a blob.
    ///
    /// # Errors
    /// When the layout cannot be written to.
    pub fn blob_writer(&self) -> Result<BlobWriter, OciError> {
        let directory = self.blobs();
        let file = PendingFile::new(&directory).map_err(OciError::io("write to", &directory))?;
        Ok(BlobWriter { file, directory })
    }

    /// Adds a blob that is in memory and returns its digest. A damaged copy is replaced.
    ///
    /// # Errors
    /// When the layout cannot be written to.
    pub fn add_blob(&self, bytes: &[u8]) -> Result<Digest, OciError> {
        let digest = Digest::of(bytes);
        let mut writer = self.blob_writer()?;
        writer.write_all(bytes).map_err(OciError::io("write", self.blob_path(digest)))?;
        writer.commit_verified(digest)?;
        Ok(digest)
    }

    /// Whether the layout has a blob of that digest and size. Its content is not looked at.
    pub fn has_blob(&self, digest: Digest, size: u64) -> bool {
        self.check_size(digest, size).is_ok()
    }

    /// Lists `manifest` in `index.json` as `tag`. The same image under the same tag changes nothing; an image of
    /// another digest that bore the tag loses it, or keeps it if `keep`.
    ///
    /// # Errors
    /// When `index.json` cannot be read, understood or written; [`OciError::TagTaken`] if another image keeps the tag.
    pub fn tag(&self, manifest: Descriptor, tag: &str, keep: bool) -> Result<(), OciError> {
        self.change_index(|manifests| self.put(manifests, manifest, tag, keep))
    }

    /// Puts `manifest` under `tag` among those that are listed.
    fn put(
        &self,
        manifests: &mut Vec<Descriptor>,
        mut manifest: Descriptor,
        tag: &str,
        keep: bool,
    ) -> Result<(), OciError> {
        let mut annotations = manifest.annotations().clone().unwrap_or_default();
        annotations.insert(REF_NAME_ANNOTATION.to_owned(), tag.to_owned());
        manifest.set_annotations(Some(annotations));
        let place = self.place();
        for present in manifests.iter().filter(|present| keep && ref_name(present) == Some(tag)) {
            let (present, wanted) = (digest_of(present, &place)?, digest_of(&manifest, &place)?);
            if present != wanted {
                return Err(OciError::TagTaken { name: format!("{place}:{tag}"), present, wanted });
            }
        }
        manifests.retain(|present| ref_name(present) != Some(tag));
        manifests.push(manifest);
        Ok(())
    }

    /// Adds the blobs `documents` and lists `manifest`, the digest of one of them, as `tag`. Whoever removes them at the
    /// same time ([`Self::untag`]) does so before or after, and not in between.
    ///
    /// # Errors
    /// As [`Self::tag`], and as [`Self::add_blob`].
    pub fn tag_with(&self, manifest: Descriptor, tag: &str, documents: &[&[u8]]) -> Result<(), OciError> {
        let _lock = self.lock()?;
        documents.iter().try_for_each(|document| self.add_blob(document).map(drop))?;
        self.change_locked(|manifests| self.put(manifests, manifest, tag, false))
    }

    /// Lists `manifest` in `index.json` without a tag, unless it is listed there.
    ///
    /// # Errors
    /// As [`Self::tag`].
    pub fn list(&self, manifest: Descriptor) -> Result<(), OciError> {
        self.change_index(|manifests| {
            if !manifests.iter().any(|present| present.digest() == manifest.digest()) {
                manifests.push(manifest);
            }
            Ok(())
        })
    }

    /// Takes the entry with this tag, if it is of this manifest, out of `index.json`, and removes the blobs that are named
    /// besides, if the manifest has no other entry.
    ///
    /// # Errors
    /// As [`Self::tag`].
    pub fn untag(&self, tag: &str, manifest: Digest, blobs: &[Digest]) -> Result<(), OciError> {
        let text = manifest.to_string();
        let is_it = |entry: &Descriptor| entry.digest().to_string() == text;
        let mut is_listed = false;
        // Held until the blobs are gone: whoever adds them again has to come after that.
        let _lock = self.lock()?;
        self.change_locked(|manifests| {
            manifests.retain(|entry| !(is_it(entry) && ref_name(entry) == Some(tag)));
            is_listed = manifests.iter().any(is_it);
            Ok(())
        })?;
        for digest in blobs.iter().filter(|_| !is_listed) {
            let path = self.blob_path(*digest);
            match fs::remove_file(&path) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                    return Err(OciError::io("remove", path)(cause));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn change_index(
        &self,
        change: impl FnOnce(&mut Vec<Descriptor>) -> Result<(), OciError>,
    ) -> Result<(), OciError> {
        let _lock = self.lock()?;
        self.change_locked(change)
    }

    /// Waits until no other process changes `index.json`; none does so as long as the file is open.
    fn lock(&self) -> Result<File, OciError> {
        let lock = File::open(&self.root).map_err(OciError::io("open", &self.root))?;
        flock(&lock, FlockOperation::LockExclusive)
            .map_err(|errno| OciError::io("lock", &self.root)(errno.into()))?;
        Ok(lock)
    }

    /// Changes `index.json` while the lock is held.
    fn change_locked(
        &self,
        change: impl FnOnce(&mut Vec<Descriptor>) -> Result<(), OciError>,
    ) -> Result<(), OciError> {
        self.remove_leftovers();

        let path = self.root.join(INDEX_FILE);
        let mut index = if path.exists() {
            self.index()?
        } else {
            ImageIndexBuilder::default()
                .schema_version(2_u32)
                .media_type(MediaType::ImageIndex)
                .manifests(Vec::new())
                .build()
                .map_err(|error| self.document_error("index", error.to_string()))?
        };
        let mut manifests = index.manifests().clone();
        change(&mut manifests)?;
        index.set_manifests(manifests);

        let bytes =
            canonical_json(&index).map_err(|error| self.document_error("index", error.to_string()))?;
        let write = || {
            let mut file = PendingFile::new(&self.root)?;
            file.write_all(&bytes)?;
            file.replace(INDEX_FILE)
        };
        write().map_err(OciError::io("write", path))
    }

    /// All that `index.json` lists.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn manifests(&self) -> Result<Vec<Descriptor>, OciError> {
        Ok(self.index()?.manifests().clone())
    }

    /// The descriptor of the image that `selector` names.
    ///
    /// # Errors
    /// [`OciError::NoSuchImage`] when there is none, or several and none is named.
    pub fn find(&self, selector: &Selector) -> Result<Descriptor, OciError> {
        find_in_index(&self.index()?, selector, &self.place())
    }

    /// A blob's content, size checked.
    ///
    /// # Errors
    /// [`OciError::MissingBlob`] and [`OciError::DamagedBlob`].
    pub fn blob(&self, digest: Digest, size: u64) -> Result<Arc<dyn BlobContent>, OciError> {
        let path = self.check_size(digest, size)?;
        Ok(Arc::new(FileBlob::new(path, size, digest)))
    }

    /// Ranges of a blob, size checked.
    ///
    /// # Errors
    /// As [`Self::blob`].
    pub fn ranges(&self, digest: Digest, size: u64) -> Result<FileRange, OciError> {
        let path = self.check_size(digest, size)?;
        FileRange::open(&path, 0, size).map_err(OciError::io("open", path))
    }

    fn check_size(&self, digest: Digest, size: u64) -> Result<PathBuf, OciError> {
        let path = self.blob_path(digest);
        let metadata = fs::metadata(&path).map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => OciError::MissingBlob { place: self.place(), digest },
            _ => OciError::io("read", &path)(cause),
        })?;
        if metadata.len() == size {
            return Ok(path);
        }
        let reason = format!("it has {} bytes, its descriptor says {size}", metadata.len());
        Err(OciError::DamagedBlob { place: self.place(), digest, reason })
    }

    /// Files that a process left between naming and renaming; only the holder of the lock makes such files.
    fn remove_leftovers(&self) {
        let Ok(entries) = fs::read_dir(&self.root) else { return };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn index(&self) -> Result<ImageIndex, OciError> {
        let path = self.root.join(INDEX_FILE);
        let size = fs::metadata(&path).map_err(OciError::io("read", &path))?.len();
        if size > DOCUMENT_MAX {
            return Err(
                self.document_error("index", format!("it has {size} bytes, more than {DOCUMENT_MAX}"))
            );
        }
        let bytes = fs::read(&path).map_err(OciError::io("read", &path))?;
        parse(&bytes, "index", &self.place())
    }

    fn check_marker(&self) -> Result<(), OciError> {
        let not_a_layout = |reason| OciError::NotALayout { path: self.root.clone(), reason };
        let marker = fs::read(self.root.join(MARKER_FILE))
            .map_err(|cause| not_a_layout(format!("its file `{MARKER_FILE}`: {cause}")))?;
        check_marker(&marker).map_err(not_a_layout)
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs").join("sha256")
    }

    fn blob_path(&self, digest: Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    fn place(&self) -> String {
        format!("oci:{}", self.root.display())
    }

    fn document_error(&self, what: &'static str, reason: String) -> OciError {
        OciError::Document { what, place: self.place(), reason }
    }
}

impl BlobWriter {
    /// Ends the blob: from now on it is in the layout under `digest`, which must be that of the bytes written.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn commit(self, digest: Digest) -> Result<(), OciError> {
        let path = self.directory.join(digest.hex());
        self.file.keep(&digest.hex()).map_err(OciError::io("write", path))
    }

    /// As [`Self::commit`], but a blob that the layout has already is read, and replaced when it is damaged.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn commit_verified(self, digest: Digest) -> Result<(), OciError> {
        let path = self.directory.join(digest.hex());
        // What cannot be read is no better than what is damaged.
        let intact = match digest_of_file(&path) {
            Ok(present) => present == digest,
            Err(cause) => cause.kind() == io::ErrorKind::NotFound,
        };
        if intact {
            return self.commit(digest);
        }
        self.file.replace(&digest.hex()).map_err(OciError::io("write", path))
    }
}

fn digest_of_file(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match io::Read::read(&mut file, &mut buffer) {
            Ok(0) => return Ok(Digest::finish(hash)),
            Ok(length) => hash.update(&buffer[..length]),
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The tag that an index entry bears.
pub(super) fn ref_name(descriptor: &Descriptor) -> Option<&str> {
    descriptor.annotations().as_ref()?.get(REF_NAME_ANNOTATION).map(String::as_str)
}

/// Whether the content of a file `oci-layout` is of a version that is understood; if not, why.
pub(super) fn check_marker(marker: &[u8]) -> Result<(), String> {
    let value: serde_json::Value =
        serde_json::from_slice(marker).map_err(|error| format!("its file `{MARKER_FILE}`: {error}"))?;
    match value.get("imageLayoutVersion").and_then(|version| version.as_str()) {
        Some(version) if version.starts_with("1.") => Ok(()),
        version => Err(format!("its version is {version:?}, only 1 is known")),
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::image::DescriptorBuilder;

    use super::*;

    fn descriptor(layout: &Layout, content: &str) -> Descriptor {
        let digest = layout.add_blob(content.as_bytes()).unwrap();
        DescriptorBuilder::default()
            .media_type(MediaType::ImageManifest)
            .digest(digest.to_string().parse::<oci_spec::image::Digest>().unwrap())
            .size(content.len() as u64)
            .build()
            .unwrap()
    }

    #[test]
    fn tags_move_and_other_images_stay() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let (one, two) = (descriptor(&layout, "one"), descriptor(&layout, "two"));
        layout.tag(one.clone(), "v1", false).unwrap();
        layout.tag(two.clone(), "v2", false).unwrap();
        layout.tag(two.clone(), "v1", false).unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let digest = |selector| layout.find(&selector).unwrap().digest().clone();
        assert_eq!(digest(Selector::Tag("v1".into())), *two.digest());
        assert_eq!(digest(Selector::Tag("v2".into())), *two.digest());
        // Both names are of one image, so no name is needed.
        assert_eq!(digest(Selector::Only), *two.digest());
        layout.tag(one, "v3", false).unwrap();
        let error = layout.find(&Selector::Only).unwrap_err().to_string();
        assert!(error.contains("v1") && error.contains("v3"), "{error}");
        assert!(layout.find(&Selector::Tag("v9".into())).is_err());
    }

    #[test]
    fn a_directory_with_other_files_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("thesis.doc"), "").unwrap();
        let error = Layout::create(directory.path()).unwrap_err().to_string();
        assert!(error.contains("thesis.doc"), "{error}");
        assert!(!directory.path().join("blobs").exists());
        assert!(Layout::open(directory.path()).is_err());
    }

    #[test]
    fn sizes_are_checked() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let digest = layout.add_blob(b"content").unwrap();
        assert!(layout.blob(digest, 7).is_ok());
        assert!(matches!(layout.blob(digest, 8), Err(OciError::DamagedBlob { .. })));
        assert!(matches!(layout.ranges(Digest::of(b"x"), 1), Err(OciError::MissingBlob { .. })));
    }

    #[test]
    fn a_damaged_blob_of_the_right_size_is_replaced_when_it_is_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let digest = layout.add_blob(b"content").unwrap();
        let path = layout.blob_path(digest);
        let commit = |verified: bool| {
            let mut writer = layout.blob_writer().unwrap();
            writer.write_all(b"content").unwrap();
            if verified { writer.commit_verified(digest) } else { writer.commit(digest) }.unwrap();
            fs::read(&path).unwrap()
        };
        fs::write(&path, b"CONTENT").unwrap();
        assert_eq!(commit(false), b"CONTENT");
        assert_eq!(commit(true), b"content");
        fs::remove_file(&path).unwrap();
        assert_eq!(commit(true), b"content");
        fs::write(&path, b"CONTENT").unwrap();
        layout.add_blob(b"content").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"content");
    }

    #[test]
    fn many_writers_lose_no_tag() {
        let directory = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let root = directory.path();
                scope.spawn(move || {
                    let layout = Layout::create(root).unwrap();
                    for round in 0..5 {
                        let tag = format!("tag-{writer}-{round}");
                        layout.tag(descriptor(&layout, &tag), &tag, false).unwrap();
                    }
                });
            }
        });
        assert_eq!(Layout::open(directory.path()).unwrap().index().unwrap().manifests().len(), 40);
    }
}
