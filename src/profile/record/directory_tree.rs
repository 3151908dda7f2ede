//! A directory shown as it is, such as a compile cache: files, directories and symlinks with their owners and modes.
//!
//! All is reached through the directory's descriptor, so it stays in reach when it is mounted over. No symlink is
//! followed here: the kernel asks for what one says and follows it itself.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use fuser::{FileAttr, FileType, INodeNo};
use rustix::fs::{Dir, Mode, OFlags, ResolveFlags, Stat, fstat, openat2, readlinkat};

use super::backing::{Backing, Listed, ROOT, join};

/// Others may change the directory; a second later that is seen.
const TIME_TO_LIVE: Duration = Duration::from_secs(1);

/// A directory and what lies below it.
#[derive(Debug)]
pub(super) struct DirectoryTree {
    directory: OwnedFd,
    nodes: Mutex<Nodes>,
}

/// All nodes that were looked up. They are never forgotten: there are as many as paths in the directory.
#[derive(Debug)]
struct Nodes {
    /// Node `n` is at `n - ROOT`.
    all: Vec<Arc<Node>>,
    by_path: HashMap<PathBuf, u64>,
}

#[derive(Debug)]
struct Node {
    path: PathBuf,
    text: Option<Arc<str>>,
    /// Which file it was. Another one at the same path is another node, or the kernel would show old pages.
    identity: (u64, u64),
}

impl DirectoryTree {
    pub(super) fn new(directory: OwnedFd) -> io::Result<Self> {
        let stat = fstat(&directory)?;
        let root = Node { path: PathBuf::new(), text: Some("".into()), identity: identity(&stat) };
        let nodes = Nodes { all: vec![Arc::new(root)], by_path: HashMap::new() };
        Ok(Self { directory, nodes: Mutex::new(nodes) })
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn node(&self, node: u64) -> io::Result<Arc<Node>> {
        let index = node.checked_sub(ROOT).and_then(|index| usize::try_from(index).ok());
        let nodes = self.nodes();
        index.and_then(|index| nodes.all.get(index)).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn open_path(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(openat2(self.directory.as_fd(), path, flags, Mode::empty(), resolve)?)
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        Ok(fstat(self.open_path(path, OFlags::PATH)?)?)
    }
}

impl Nodes {
    fn number(&mut self, parent: &Node, name: &OsStr, path: PathBuf, stat: &Stat) -> u64 {
        let identity = identity(stat);
        let known = self.by_path.get(&path).copied();
        let known = known.filter(|node| {
            let node = usize::try_from(node - ROOT).ok().and_then(|index| self.all.get(index));
            node.is_some_and(|node| node.identity == identity)
        });
        known.unwrap_or_else(|| {
            let number = self.all.len() as u64 + ROOT;
            let text =
                parent.text.as_deref().zip(name.to_str()).map(|(parent, name)| join(parent, name).into());
            self.all.push(Arc::new(Node { path: path.clone(), text, identity }));
            self.by_path.insert(path, number);
            number
        })
    }
}

impl Backing for DirectoryTree {
    fn look_up(&self, parent: u64, name: &OsStr) -> io::Result<FileAttr> {
        let parent = self.node(parent)?;
        let path = parent.path.join(name);
        let stat = self.stat(&path)?;
        let number = self.nodes().number(&parent, name, path, &stat);
        Ok(attributes(number, &stat))
    }

    fn attributes(&self, node: u64) -> io::Result<FileAttr> {
        let stat = self.stat(&self.node(node)?.path)?;
        Ok(attributes(node, &stat))
    }

    fn path(&self, node: u64) -> Option<Arc<str>> {
        self.node(node).ok()?.text.clone()
    }

    fn open(&self, node: u64) -> io::Result<File> {
        // Only regular files are opened through FUSE; one that was exchanged for a pipe must not block.
        Ok(self.open_path(&self.node(node)?.path, OFlags::RDONLY | OFlags::NONBLOCK)?.into())
    }

    fn list(&self, node: u64) -> io::Result<Vec<Listed>> {
        let directory = self.open_path(&self.node(node)?.path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut listed = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                let kind = kind(entry.file_type());
                listed.push(Listed { name: name.to_owned(), kind, node: entry.ino() });
            }
        }
        Ok(listed)
    }

    fn link(&self, node: u64) -> io::Result<OsString> {
        let link = self.open_path(&self.node(node)?.path, OFlags::PATH)?;
        Ok(OsStr::from_bytes(readlinkat(link, "", Vec::new())?.to_bytes()).to_owned())
    }

    fn time_to_live(&self) -> Duration {
        TIME_TO_LIVE
    }
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn kind(kind: rustix::fs::FileType) -> FileType {
    match kind {
        rustix::fs::FileType::Directory => FileType::Directory,
        rustix::fs::FileType::Symlink => FileType::Symlink,
        rustix::fs::FileType::Fifo => FileType::NamedPipe,
        rustix::fs::FileType::Socket => FileType::Socket,
        rustix::fs::FileType::CharacterDevice => FileType::CharDevice,
        rustix::fs::FileType::BlockDevice => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

// The widths of the kernel's fields differ between processors; FUSE's are these.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
#[allow(clippy::unnecessary_cast, clippy::cast_lossless, clippy::useless_conversion)]
fn attributes(node: u64, stat: &Stat) -> FileAttr {
    let time = |seconds: i64, nanoseconds: u64| {
        let whole = Duration::from_secs(seconds.unsigned_abs());
        let base = if seconds < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(whole)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(whole)
        };
        let base = base.unwrap_or(SystemTime::UNIX_EPOCH);
        base.checked_add(Duration::from_nanos(nanoseconds)).unwrap_or(base)
    };
    FileAttr {
        ino: INodeNo(node),
        size: stat.st_size as u64,
        blocks: stat.st_blocks as u64,
        atime: time(stat.st_atime as i64, stat.st_atime_nsec as u64),
        mtime: time(stat.st_mtime as i64, stat.st_mtime_nsec as u64),
        ctime: time(stat.st_ctime as i64, stat.st_ctime_nsec as u64),
        crtime: SystemTime::UNIX_EPOCH,
        kind: kind(rustix::fs::FileType::from_raw_mode(stat.st_mode)),
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: stat.st_nlink as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: stat.st_rdev as u32,
        blksize: stat.st_blksize as u32,
        flags: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Read as _, os::unix::fs::symlink};

    use super::*;

    fn tree(path: &Path) -> DirectoryTree {
        DirectoryTree::new(File::open(path).unwrap().into()).unwrap()
    }

    #[test]
    fn shows_a_directory_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("sub")).unwrap();
        fs::write(directory.path().join("sub/file"), "content").unwrap();
        symlink("sub/file", directory.path().join("link")).unwrap();
        let tree = tree(directory.path());
        let look_up = |parent, name: &str| tree.look_up(parent, OsStr::new(name));
        let sub = look_up(ROOT, "sub").unwrap();
        assert_eq!(sub.kind, FileType::Directory);
        let file = look_up(sub.ino.0, "file").unwrap();
        assert_eq!(file.ino, look_up(sub.ino.0, "file").unwrap().ino);
        assert_eq!(file.size, 7);
        assert_eq!(tree.path(file.ino.0).as_deref(), Some("sub/file"));
        let mut text = String::new();
        tree.open(file.ino.0).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
        let link = look_up(ROOT, "link").unwrap();
        assert_eq!(link.kind, FileType::Symlink);
        assert_eq!(tree.link(link.ino.0).unwrap(), "sub/file");
        assert_eq!(tree.list(ROOT).unwrap().len(), 2);
        assert_eq!(look_up(ROOT, "gone").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn another_file_at_a_path_is_another_node() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "one").unwrap();
        let tree = tree(directory.path());
        let look_up = || tree.look_up(ROOT, OsStr::new("file")).unwrap().ino;
        let one = look_up();
        fs::write(directory.path().join("new"), "two").unwrap();
        fs::rename(directory.path().join("new"), &path).unwrap();
        assert_ne!(look_up(), one);
    }

    #[test]
    fn a_directory_that_became_a_symlink_is_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "").unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("sub")).unwrap();
        let tree = tree(directory.path());
        let sub = tree.look_up(ROOT, OsStr::new("sub")).unwrap();
        fs::remove_dir(directory.path().join("sub")).unwrap();
        symlink(outside.path(), directory.path().join("sub")).unwrap();
        assert!(tree.look_up(sub.ino.0, OsStr::new("secret")).is_err());
        assert!(tree.list(sub.ino.0).is_err());
    }
}
