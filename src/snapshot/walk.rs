//! The files below a snapshot's directory, with their symlinks followed. What cannot be packed is listed
//! with the reason and refused only if the filters keep it. Must not know which files are wanted, beyond
//! directories that never are.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::io::Errno;

use super::{
    error::SnapshotError,
    filter::Filters,
    locate::{Layout, Located},
    report::{LeftOut, LeftOutReason},
};
use crate::blob::FileStamp;

/// Most files and directories that are listed. The hub advises to stay below 100,000 files.
const MAX_ENTRIES: usize = 200_000;
/// Deepest nesting that is listed.
const MAX_DEPTH: usize = 64;

/// All files of a snapshot, in no particular order.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) entries: Vec<Entry>,
    /// Directories that are housekeeping and were not looked into, and the command's own places.
    pub(super) pruned: Vec<LeftOut>,
}

/// A file, or something in a file's place.
#[derive(Debug)]
pub(super) struct Entry {
    /// `/`-separated path inside the snapshot.
    pub(super) path: String,
    /// The file, or why it cannot be packed.
    pub(super) file: Result<FoundFile, SnapshotError>,
}

/// A regular file.
#[derive(Debug)]
pub(super) struct FoundFile {
    /// Where its bytes lie, without symlinks.
    pub(super) source: PathBuf,
    pub(super) stamp: FileStamp,
    pub(super) executable: bool,
    /// The blob of the repository that the snapshot's own symlink points to (the first hop; the second one,
    /// of shared blobs, is named by a Xet hash, which is no digest of the content).
    pub(super) blob: Option<PathBuf>,
}

/// Lists the files of a snapshot, without those of `own_places`.
pub(super) fn walk(
    located: &Located,
    filters: &Filters,
    own_places: &[PathBuf],
) -> Result<Walk, SnapshotError> {
    // What is not there yet is in nobody's way.
    let own_places = own_places.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
    let mut walker = Walker { located, filters, own_places, seen: 0, walk: Walk::default() };
    walker.directory(&located.root, "", &mut vec![located.root.clone()])?;
    Ok(walker.walk)
}

struct Walker<'a> {
    located: &'a Located,
    filters: &'a Filters,
    /// Without symlinks.
    own_places: Vec<PathBuf>,
    seen: usize,
    walk: Walk,
}

/// What a name in a directory turned out to be.
enum Found {
    Directory(PathBuf),
    File(FoundFile),
}

impl Walker<'_> {
    /// Lists a directory. `physical` is its path without symlinks, `prefix` its path inside the snapshot
    /// with a trailing `/`, `above` the physical directories from the root to it.
    fn directory(
        &mut self,
        physical: &Path,
        prefix: &str,
        above: &mut Vec<PathBuf>,
    ) -> Result<(), SnapshotError> {
        if above.len() > MAX_DEPTH {
            return Err(SnapshotError::TooDeep { path: physical.to_owned(), limit: MAX_DEPTH });
        }
        for entry in fs::read_dir(physical).map_err(SnapshotError::io(physical))? {
            let entry = entry.map_err(SnapshotError::io(physical))?;
            self.seen += 1;
            if self.seen > MAX_ENTRIES {
                let path = self.located.root.clone();
                return Err(SnapshotError::TooManyFiles { path, limit: MAX_ENTRIES });
            }
            let name = entry.file_name();
            let path = format!("{prefix}{}", name.to_string_lossy());
            if name.to_str().is_none() {
                self.refuse(path.clone(), SnapshotError::NameNotUtf8 { path });
                continue;
            }
            if path.chars().any(char::is_control) {
                self.refuse(path.clone(), SnapshotError::NameWithControl { path });
                continue;
            }
            if let Some(own) = self.own_place(&entry.path()) {
                let (path, size) =
                    if own.is_dir() { (format!("{path}/"), None) } else { (path, Some(own.len())) };
                self.walk.pruned.push(LeftOut { path, size, reason: LeftOutReason::OwnPlace });
                continue;
            }
            match self.follow(&entry.path()) {
                Ok(Found::File(file)) => self.walk.entries.push(Entry { path, file: Ok(file) }),
                Ok(Found::Directory(directory)) => {
                    if let Some(reason) = self.filters.housekeeping(&name.to_string_lossy(), true) {
                        self.walk.pruned.push(LeftOut { path: format!("{path}/"), size: None, reason });
                    } else if above.contains(&directory) {
                        self.refuse(path, SnapshotError::LinkLoop { path: entry.path() });
                    } else {
                        above.push(directory.clone());
                        self.directory(&directory, &format!("{path}/"), above)?;
                        above.pop();
                    }
                }
                Err(error) => self.refuse(path, error),
            }
        }
        Ok(())
    }

    /// What `path` is, where it is one of the command's own places or a symlink to one.
    fn own_place(&self, path: &Path) -> Option<fs::Metadata> {
        if self.own_places.is_empty() {
            return None;
        }
        let source = fs::canonicalize(path).ok().filter(|source| self.own_places.contains(source))?;
        fs::metadata(source).ok()
    }

    fn refuse(&mut self, path: String, error: SnapshotError) {
        self.walk.entries.push(Entry { path, file: Err(error) });
    }

    fn follow(&self, path: &Path) -> Result<Found, SnapshotError> {
        let own = fs::symlink_metadata(path).map_err(SnapshotError::io(path))?;
        if !own.is_symlink() {
            return found(path, path.to_owned(), &own, None);
        }
        let target = fs::read_link(path).map_err(SnapshotError::io(path))?;
        let source = fs::canonicalize(path).map_err(|error| {
            let path = path.to_owned();
            if error.kind() == io::ErrorKind::NotFound || error.kind() == io::ErrorKind::NotADirectory {
                SnapshotError::DanglingLink { path, target: target.clone() }
            } else if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) {
                SnapshotError::LinkLoop { path }
            } else {
                SnapshotError::Io { path, source: error }
            }
        })?;
        let metadata = fs::metadata(&source).map_err(SnapshotError::io(path))?;
        // Directories are never linked by the hub, so a linked one has to stay in the snapshot itself.
        let boundary = match &self.located.layout {
            Layout::HubCache { repository } if !metadata.is_dir() => repository,
            _ => &self.located.root,
        };
        let shared = matches!(&self.located.layout, Layout::HubCache { repository }
            if is_shared_blob(repository, &source));
        if !source.starts_with(boundary) && !shared {
            let boundary = boundary.clone();
            return Err(SnapshotError::LinkEscapes { path: path.to_owned(), target: source, boundary });
        }
        let blob = match &self.located.layout {
            Layout::HubCache { repository } => first_hop(repository, path, &target),
            Layout::LocalDir | Layout::Plain => None,
        };
        found(path, source, &metadata, blob)
    }
}

/// Whether a file is `<cache>/blobs/<2 digits>/<64 digits>`, the store that the repositories of one cache
/// share (`huggingface_hub` 2.x, `utils/_shared_blobs.py`). It is told by its shape and not by its marker
/// file, which copies of a cache lose.
fn is_shared_blob(repository: &Path, source: &Path) -> bool {
    let Some(Ok(below)) = repository.parent().map(|cache| source.strip_prefix(cache.join("blobs"))) else {
        return false;
    };
    let parts: Vec<_> = below.iter().filter_map(|part| part.to_str()).collect();
    matches!(parts.as_slice(), [prefix, hash]
        if prefix.len() == 2
            && hash.len() == 64
            && hash.starts_with(prefix)
            && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

/// The repository's blob that a symlink points to, if it does.
fn first_hop(repository: &Path, link: &Path, target: &Path) -> Option<PathBuf> {
    let written = link.parent()?.join(target);
    let directory = fs::canonicalize(written.parent()?).ok()?;
    (directory == repository.join("blobs")).then(|| directory.join(written.file_name().unwrap_or_default()))
}

fn found(
    path: &Path,
    source: PathBuf,
    metadata: &fs::Metadata,
    blob: Option<PathBuf>,
) -> Result<Found, SnapshotError> {
    let kind = metadata.file_type();
    if kind.is_dir() {
        return Ok(Found::Directory(source));
    }
    if kind.is_file() {
        let executable = metadata.permissions().mode() & 0o111 != 0;
        return Ok(Found::File(FoundFile { source, stamp: FileStamp::of(metadata), executable, blob }));
    }
    let kind = if kind.is_fifo() {
        "fifo"
    } else if kind.is_socket() {
        "socket"
    } else {
        "device"
    };
    Err(SnapshotError::SpecialFile { path: path.to_owned(), kind })
}
