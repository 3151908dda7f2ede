//! OCI archives: a layout in one tar file (`oci-archive:` of skopeo and podman).

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use oci_spec::image::{Descriptor, ImageIndex};

use super::{
    DOCUMENT_MAX, OciError, Selector, canonical_json,
    layout::{LAYOUT_MARKER, check_marker},
    read::{find_in_index, parse},
};
use crate::{
    blob::{BlobContent, FileBlob, FileRange},
    digest::Digest,
    pending::PendingFile,
};

/// An archive that is open for reading.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    /// Where each member's content lies: first byte and size.
    members: BTreeMap<String, (u64, u64)>,
    index: ImageIndex,
}

impl Archive {
    /// Opens the archive at `path` and finds its members; contents are not read.
    ///
    /// # Errors
    /// [`OciError::NotALayout`] when it is no archive of a layout.
    pub fn open(path: &Path) -> Result<Self, OciError> {
        let members = members(path).map_err(OciError::io("read", path))?;
        let place = place(path);
        let document = |name: &str| {
            let (start, size) = *members.get(name).ok_or_else(|| OciError::NotALayout {
                path: path.to_owned(),
                reason: format!("it has no member `{name}`"),
            })?;
            read_member(path, start, size.min(DOCUMENT_MAX)).map_err(OciError::io("read", path))
        };
        check_marker(&document("oci-layout")?)
            .map_err(|reason| OciError::NotALayout { path: path.to_owned(), reason })?;
        let index = parse(&document("index.json")?, "index", &place)?;
        Ok(Self { path: path.to_owned(), members, index })
    }

    /// The archive's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The descriptor of the image that `selector` names.
    ///
    /// # Errors
    /// [`OciError::NoSuchImage`] when there is none, or several and none is named.
    pub fn find(&self, selector: &Selector) -> Result<Descriptor, OciError> {
        find_in_index(&self.index, selector, &place(&self.path))
    }

    /// All that the archive's index lists.
    pub fn manifests(&self) -> &[Descriptor] {
        self.index.manifests()
    }

    /// A blob's content, size checked.
    ///
    /// # Errors
    /// [`OciError::MissingBlob`] and [`OciError::DamagedBlob`].
    pub fn blob(&self, digest: Digest, size: u64) -> Result<Arc<dyn BlobContent>, OciError> {
        let start = self.start_of(digest, size)?;
        Ok(Arc::new(FileBlob::part(self.path.clone(), start, size, digest)))
    }

    /// Ranges of a blob, size checked.
    ///
    /// # Errors
    /// As [`Self::blob`].
    pub fn ranges(&self, digest: Digest, size: u64) -> Result<FileRange, OciError> {
        let start = self.start_of(digest, size)?;
        FileRange::open(&self.path, start, size).map_err(OciError::io("open", &self.path))
    }

    fn start_of(&self, digest: Digest, size: u64) -> Result<u64, OciError> {
        let place = place(&self.path);
        match self.members.get(&blob_name(digest)) {
            None => Err(OciError::MissingBlob { place, digest }),
            Some((_, present)) if *present != size => {
                let reason = format!("it has {present} bytes, its descriptor says {size}");
                Err(OciError::DamagedBlob { place, digest, reason })
            }
            Some((start, _)) => Ok(*start),
        }
    }
}

/// Writes an archive of one image to `path`, in place of what is there, once it is complete: `index` and
/// `blobs`, in the order given. The same arguments give the same bytes.
///
/// # Errors
/// When a blob cannot be read or the file not be written.
pub fn write_archive(
    path: &Path,
    index: &ImageIndex,
    blobs: &[Arc<dyn BlobContent>],
) -> Result<(), OciError> {
    let index = canonical_json(index).map_err(|error| OciError::Document {
        what: "index",
        place: place(path),
        reason: error.to_string(),
    })?;
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| OciError::Target {
        text: place(path),
        reason: "the path has no file name".to_owned(),
    })?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> io::Result<()> {
        let mut builder = tar::Builder::new(PendingFile::new(parent)?);
        append(&mut builder, "oci-layout", LAYOUT_MARKER.len() as u64, LAYOUT_MARKER.as_bytes())?;
        append(&mut builder, "index.json", index.len() as u64, &index[..])?;
        for blob in blobs {
            append(&mut builder, &blob_name(blob.digest()), blob.size(), Arc::clone(blob).reader(0)?)?;
        }
        builder.into_inner()?.replace(name)
    };
    write().map_err(OciError::io("write", path))
}

fn append(
    builder: &mut tar::Builder<PendingFile>,
    name: &str,
    size: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    builder.append_data(&mut header, name, content.take(size))
}

fn members(path: &Path) -> io::Result<BTreeMap<String, (u64, u64)>> {
    let mut archive = tar::Archive::new(File::open(path)?);
    let mut members = BTreeMap::new();
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
        members.insert(name, (entry.raw_file_position(), entry.size()));
    }
    Ok(members)
}

fn read_member(path: &Path, start: u64, size: u64) -> io::Result<Vec<u8>> {
    use crate::blob::RangeSource as _;
    let length = usize::try_from(size).map_err(io::Error::other)?;
    FileRange::open(path, start, size)?.read_range(0, length)
}

fn blob_name(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn place(path: &Path) -> String {
    format!("oci-archive:{}", path.display())
}
