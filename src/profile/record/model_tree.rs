//! A snapshot's files as the image will show them: the packed files alone, symlinks resolved, owner, modes and times
//! as in the image. Must not know images.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::File,
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use fuser::{FileAttr, FileType, INodeNo};

use super::backing::{Backing, Listed, ROOT};
use crate::snapshot::SnapshotFile;

const FILE_MODE: u16 = 0o644;
const DIRECTORY_MODE: u16 = 0o755;
/// Nothing of the tree changes as long as it is shown.
const TIME_TO_LIVE: Duration = Duration::from_hours(24);

/// The files of a snapshot.
#[derive(Debug)]
pub(super) struct ModelTree {
    /// Node `n` is at `n - ROOT`.
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    path: Arc<str>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    File { source: PathBuf, size: u64 },
    Directory(BTreeMap<String, u64>),
}

impl ModelTree {
    pub(super) fn new(files: &[SnapshotFile]) -> Self {
        let mut tree =
            Self { nodes: vec![Node { path: "".into(), content: Content::Directory(BTreeMap::new()) }] };
        for file in files {
            let mut directory = ROOT;
            let mut begin = 0;
            while let Some(length) = file.path[begin..].find('/') {
                let name = &file.path[begin..begin + length];
                let path = &file.path[..begin + length];
                directory = tree.child(directory, name, path, Content::Directory(BTreeMap::new()));
                begin += length + 1;
            }
            let content = Content::File { source: file.source.clone(), size: file.stamp.size };
            tree.child(directory, &file.path[begin..], &file.path, content);
        }
        tree
    }

    /// The node of this name in a directory, made with `content` when there is none.
    fn child(&mut self, parent: u64, name: &str, path: &str, content: Content) -> u64 {
        let new = self.nodes.len() as u64 + ROOT;
        let Some(Content::Directory(children)) = self.at_mut(parent).map(|node| &mut node.content) else {
            // A snapshot has no file and directory of one name.
            return parent;
        };
        let number = *children.entry(name.to_owned()).or_insert(new);
        if number == new {
            self.nodes.push(Node { path: path.into(), content });
        }
        number
    }

    fn at(&self, node: u64) -> io::Result<&Node> {
        let index = node.checked_sub(ROOT).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.nodes.get(index)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn at_mut(&mut self, node: u64) -> Option<&mut Node> {
        self.nodes.get_mut(usize::try_from(node.checked_sub(ROOT)?).ok()?)
    }

    fn children(&self, node: u64) -> io::Result<&BTreeMap<String, u64>> {
        match &self.at(node)?.content {
            Content::Directory(children) => Ok(children),
            Content::File { .. } => Err(io::ErrorKind::NotADirectory.into()),
        }
    }
}

impl Backing for ModelTree {
    fn look_up(&self, parent: u64, name: &OsStr) -> io::Result<FileAttr> {
        let node = name.to_str().and_then(|name| self.children(parent).ok()?.get(name));
        self.attributes(*node.ok_or(io::ErrorKind::NotFound)?)
    }

    fn attributes(&self, node: u64) -> io::Result<FileAttr> {
        let (kind, perm, size) = match &self.at(node)?.content {
            Content::Directory(_) => (FileType::Directory, DIRECTORY_MODE, 0),
            Content::File { size, .. } => (FileType::RegularFile, FILE_MODE, *size),
        };
        let time = SystemTime::UNIX_EPOCH;
        Ok(FileAttr {
            ino: INodeNo(node),
            size,
            blocks: size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn path(&self, node: u64) -> Option<Arc<str>> {
        self.at(node).ok().map(|node| node.path.clone())
    }

    fn open(&self, node: u64) -> io::Result<File> {
        match &self.at(node)?.content {
            Content::File { source, .. } => File::open(source),
            Content::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn list(&self, node: u64) -> io::Result<Vec<Listed>> {
        let children = self.children(node)?.iter();
        children
            .map(|(name, node)| {
                let kind = self.attributes(*node)?.kind;
                Ok(Listed { name: name.into(), kind, node: *node })
            })
            .collect()
    }

    fn link(&self, _node: u64) -> io::Result<OsString> {
        Err(io::ErrorKind::InvalidInput.into())
    }

    fn time_to_live(&self) -> Duration {
        TIME_TO_LIVE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::FileStamp;

    fn file(path: &str, size: u64) -> SnapshotFile {
        let stamp = FileStamp { size, ..FileStamp::default() };
        let source = PathBuf::from("/nonexistent");
        let path = path.to_owned();
        SnapshotFile { path, source, stamp, executable: true, expected: Vec::new(), weight_format: None }
    }

    #[test]
    fn shows_the_files_and_their_directories_alone() {
        let tree = ModelTree::new(&[file("a/b/c.json", 7), file("a/d", 0), file("e", 1)]);
        let node = |parent, name: &str| tree.look_up(parent, OsStr::new(name)).map(|found| found.ino.0);
        let a = node(ROOT, "a").unwrap();
        let b = node(a, "b").unwrap();
        let c = tree.look_up(b, OsStr::new("c.json")).unwrap();
        assert_eq!((c.kind, c.perm, c.size, c.uid), (FileType::RegularFile, 0o644, 7, 0));
        assert_eq!(tree.attributes(b).unwrap().perm, 0o755);
        assert_eq!(&*tree.path(c.ino.0).unwrap(), "a/b/c.json");
        assert_eq!(&*tree.path(ROOT).unwrap(), "");
        let names = |node| -> Vec<_> { tree.list(node).unwrap().into_iter().map(|one| one.name).collect() };
        assert_eq!(names(ROOT), ["a", "e"]);
        assert_eq!(names(a), ["b", "d"]);
        for missing in ["x", "b", ""] {
            assert_eq!(node(ROOT, missing).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
        assert!(tree.attributes(0).is_err() && tree.attributes(99).is_err());
        assert!(tree.list(c.ino.0).is_err() && tree.open(a).is_err());
    }
}
