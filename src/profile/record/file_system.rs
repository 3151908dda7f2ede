//! Answers the kernel's requests from a tree of files and tells the recorder of opens, reads and failed look-ups.
//! Must not know what the tree is, or where it is mounted.
//!
//! `read()` is seen byte by byte, because files are opened for direct I/O: the kernel passes each call on as it is.
//! A mapped file goes through the page cache all the same, so its reads are as coarse as a page and the read-ahead.
//! Kernels before 6.6 cannot share mappings of such files; there `read()` goes through the page cache, too.

use std::{
    cell::RefCell,
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use fuser::{
    Errno, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, Request,
};

use super::{
    backing::{Backing, Listed, join},
    recorder::Recorder,
};
use crate::profile::{ByteRange, EventKind, Tree};

/// A tree that is shown and watched.
pub(super) struct WatchedTree<B> {
    tree: Tree,
    backing: B,
    recorder: Arc<Recorder>,
    /// Read-ahead that is asked for, in bytes.
    read_ahead: u32,
    agreed: Arc<OnceLock<Agreed>>,
    files: Handles<OpenFile>,
    directories: Handles<Vec<Listed>>,
}

/// What was agreed on with the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Agreed {
    /// Read-ahead in bytes.
    pub(super) read_ahead: u32,
    /// Whether `read()` is seen as it was called.
    pub(super) exact: bool,
}

struct OpenFile {
    file: File,
    path: Option<Arc<str>>,
}

impl<B: Backing> WatchedTree<B> {
    /// `agreed` is set once the file system is mounted.
    pub(super) fn new(
        tree: Tree,
        backing: B,
        recorder: Arc<Recorder>,
        read_ahead: u32,
        agreed: Arc<OnceLock<Agreed>>,
    ) -> Self {
        let (files, directories) = (Handles::default(), Handles::default());
        Self { tree, backing, recorder, read_ahead, agreed, files, directories }
    }

    fn missing(&self, at: Instant, parent: u64, name: &OsStr) {
        let path = self.backing.path(parent).zip(name.to_str()).map(|(parent, name)| join(&parent, name));
        self.recorder.note(at, &self.tree, path.as_deref(), EventKind::Missing);
    }
}

impl<B: Backing> Filesystem for WatchedTree<B> {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // 1 is less than a page, so it is none; 0 is refused.
        let wanted = self.read_ahead.max(1);
        let granted = match config.set_max_readahead(wanted) {
            Ok(_) => wanted,
            Err(nearest) => {
                // Never fails for the value that it named.
                let _ = config.set_max_readahead(nearest);
                nearest
            }
        };
        let exact = config.add_capabilities(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP).is_ok();
        // Not vital: it lets several processes walk the tree side by side.
        let _ = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS);
        let read_ahead = if granted == 1 { 0 } else { granted };
        let _ = self.agreed.set(Agreed { read_ahead, exact });
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let at = Instant::now();
        match self.backing.look_up(parent.0, name) {
            Ok(attributes) => reply.entry(&self.backing.time_to_live(), &attributes, Generation(0)),
            Err(error) => {
                if error.kind() == io::ErrorKind::NotFound {
                    self.missing(at, parent.0, name);
                }
                reply.error(errno(&error));
            }
        }
    }

    fn getattr(&self, _request: &Request, node: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        match self.backing.attributes(node.0) {
            Ok(attributes) => reply.attr(&self.backing.time_to_live(), &attributes),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn readlink(&self, _request: &Request, node: INodeNo, reply: ReplyData) {
        match self.backing.link(node.0) {
            Ok(target) => reply.data(target.as_encoded_bytes()),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn open(&self, _request: &Request, node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let at = Instant::now();
        match self.backing.open(node.0) {
            Ok(file) => {
                // Pages are asked for one by one. What the source reads ahead is not recorded, and makes up for it.
                let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
                let path = self.backing.path(node.0);
                self.recorder.note(at, &self.tree, path.as_deref(), EventKind::Open);
                // The page cache is kept: its content was read once, and what is read again is known already.
                let mut flags = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH;
                if self.agreed.get().is_some_and(|agreed| agreed.exact) {
                    flags |= FopenFlags::FOPEN_DIRECT_IO;
                }
                reply.opened(self.files.insert(OpenFile { file, path }), flags);
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn read(
        &self,
        _request: &Request,
        _node: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        thread_local! {
            static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let at = Instant::now();
        let Some(open) = self.files.get(handle) else { return reply.error(Errno::EBADF) };
        BUFFER.with_borrow_mut(|buffer| {
            let size = size as usize;
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            match read_at(&open.file, &mut buffer[..size], offset) {
                Ok(length) => {
                    if length > 0 {
                        let range = ByteRange { offset, length: length as u64 };
                        self.recorder.note(at, &self.tree, open.path.as_deref(), EventKind::Read(range));
                    }
                    reply.data(&buffer[..length]);
                }
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn release(
        &self,
        _request: &Request,
        _node: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.files.remove(handle);
        reply.ok();
    }

    fn opendir(&self, _request: &Request, node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.backing.list(node.0) {
            Ok(listed) => reply.opened(self.directories.insert(listed), FopenFlags::empty()),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let Some(listed) = self.directories.get(handle) else { return reply.error(Errno::EBADF) };
        let dots = [".", ".."].map(|name| (node.0, FileType::Directory, OsStr::new(name)));
        let entries = listed.iter().map(|entry| (entry.node, entry.kind, entry.name.as_os_str()));
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        for ((number, kind, name), next) in dots.into_iter().chain(entries).zip(1..).skip(skipped) {
            if reply.add(INodeNo(number), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _request: &Request,
        _node: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.directories.remove(handle);
        reply.ok();
    }
}

/// Reads until the buffer is full or the file ends.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

fn errno(error: &io::Error) -> Errno {
    match (error.raw_os_error(), error.kind()) {
        (Some(code), _) => Errno::from_i32(code),
        (None, io::ErrorKind::NotFound) => Errno::ENOENT,
        (None, io::ErrorKind::NotADirectory) => Errno::ENOTDIR,
        (None, io::ErrorKind::IsADirectory) => Errno::EISDIR,
        (None, io::ErrorKind::InvalidInput) => Errno::EINVAL,
        (None, _) => Errno::EIO,
    }
}

/// What is open, by the number that the kernel passes back.
struct Handles<T> {
    open: RwLock<HashMap<u64, Arc<T>>>,
    next: AtomicU64,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self { open: RwLock::default(), next: AtomicU64::new(1) }
    }
}

impl<T> Handles<T> {
    fn insert(&self, value: T) -> FileHandle {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.write().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::new(value));
        FileHandle(number)
    }

    fn get(&self, handle: FileHandle) -> Option<Arc<T>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).get(&handle.0).cloned()
    }

    fn remove(&self, handle: FileHandle) {
        self.open.write().unwrap_or_else(PoisonError::into_inner).remove(&handle.0);
    }
}
