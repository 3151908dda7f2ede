//! The node's files, sockets and processes, below the directory where the node's root is mounted. Reads only. Must not
//! know what is looked for.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{fs::FileTypeExt as _, net::UnixStream},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, StatVfs, fstatvfs, open, openat2},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
};

/// Longest file that is read, in bytes.
const FILE_MAX: u64 = 1 << 20;
/// Most processes that are looked at.
const PROCESSES_MAX: usize = 65_536;

/// A node.
#[derive(Debug)]
pub(super) struct Host {
    root: PathBuf,
}

/// A process.
#[derive(Debug, Clone)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// Its command line.
    pub(super) words: Vec<String>,
}

impl Process {
    /// The value of an option, as Go's `flag` takes it: `-name value`, `--name=value`.
    pub(super) fn option(&self, name: &str) -> Option<&str> {
        let mut words = self.words.iter().skip(1);
        while let Some(word) = words.next() {
            let Some(plain) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else { continue };
            if plain == name {
                return words.next().map(String::as_str);
            }
            if let Some(value) = plain.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
                return Some(value);
            }
        }
        None
    }
}

impl Host {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// A path of the node as this process has it, for people.
    pub(super) fn shown(&self, path: &str) -> String {
        self.root.join(path.trim_start_matches('/')).display().to_string()
    }

    /// Opens what has a name on the node. Links lead where they lead on the node, never out of it.
    fn open(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let relative = path.trim_start_matches('/');
        let relative = if relative.is_empty() { "." } else { relative };
        // A FIFO must not stop us; a name alone is not opened, and takes no such flag.
        let waits = if flags.contains(OFlags::PATH) { OFlags::empty() } else { OFlags::NONBLOCK };
        let flags = flags | OFlags::CLOEXEC | waits;
        let root = open(&self.root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        match openat2(&root, relative, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
            Ok(descriptor) => Ok(descriptor),
            // Linux below 5.6, and sandboxes that do not know the call.
            Err(Errno::NOSYS | Errno::PERM) => self.open_plainly(relative, flags),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The same without `openat2`. Below any other root than `/`, links would lead out of the node.
    fn open_plainly(&self, relative: &str, flags: OFlags) -> io::Result<OwnedFd> {
        if self.root != Path::new("/") {
            return Err(io::Error::other(
                "the kernel or a sandbox does not allow openat2 (Linux 5.6), without which links lead out of --root",
            ));
        }
        Ok(rustix::fs::openat(CWD, self.root.join(relative), flags, Mode::empty())?)
    }

    /// Whether there is something of that name.
    pub(super) fn find(&self, path: &str) -> io::Result<()> {
        self.open(path, OFlags::PATH).map(drop)
    }

    /// What a file says, with what is no UTF-8 replaced.
    pub(super) fn read(&self, path: &str) -> io::Result<String> {
        let file = File::from(self.open(path, OFlags::RDONLY)?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a file"));
        }
        let mut bytes = Vec::new();
        file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(io::Error::other("longer than 1 MiB"));
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Names in a directory, sorted.
    pub(super) fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let directory = self.open(path, OFlags::PATH | OFlags::DIRECTORY)?;
        let entries = fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd()))?;
        let mut names: Vec<String> = entries
            .take(PROCESSES_MAX)
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        Ok(names)
    }

    /// Connects to a socket; what is none is [`io::ErrorKind::Unsupported`]. The detour over `/proc` takes paths of any
    /// length, and links of the node. Never waits: where so many wait already that no more may,
    /// it is [`io::ErrorKind::WouldBlock`].
    pub(super) fn connect(&self, path: &str) -> io::Result<UnixStream> {
        let socket = self.open(path, OFlags::PATH)?;
        let name = format!("/proc/self/fd/{}", socket.as_raw_fd());
        if !fs::metadata(&name)?.file_type().is_socket() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let client = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&client, &SocketAddrUnix::new(name)?)?;
        let stream = UnixStream::from(client);
        stream.set_nonblocking(false)?;
        Ok(stream)
    }

    /// Room on the file system of a directory, or of the nearest one above it that is there; and which one that is.
    pub(super) fn room(&self, path: &str) -> io::Result<(String, StatVfs, u64)> {
        let mut path = Path::new(path);
        loop {
            let name = path.to_string_lossy();
            match self.open(&name, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(directory) => {
                    let kind = rustix::fs::fstatfs(&directory)?.f_type;
                    return Ok((name.into_owned(), fstatvfs(&directory)?, kind.cast_unsigned()));
                }
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                    path = path.parent().ok_or(cause)?;
                }
                Err(cause) => return Err(cause),
            }
        }
    }

    /// The node's processes of which `wanted` likes the program's name.
    pub(super) fn processes(&self, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<Process>> {
        let mut found = Vec::new();
        for name in self.list("/proc")? {
            let Ok(pid) = name.parse::<u32>() else { continue };
            // It may have ended.
            let Ok(line) = self.read(&format!("/proc/{pid}/cmdline")) else { continue };
            let words: Vec<String> = line.split_terminator('\0').map(str::to_owned).collect();
            let program = words.first().map_or("", |word| word.rsplit('/').next().unwrap_or_default());
            if wanted(program) {
                found.push(Process { pid, words });
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_do_not_lead_out_of_the_node() {
        let directory = tempfile::tempdir().unwrap();
        let node = directory.path().join("node");
        fs::create_dir_all(node.join("run")).unwrap();
        fs::write(node.join("run/file"), "inside").unwrap();
        fs::write(directory.path().join("secret"), "outside").unwrap();
        fs::create_dir(node.join("var")).unwrap();
        symlink("/run", node.join("var/run")).unwrap();
        symlink("../../secret", node.join("run/up")).unwrap();
        symlink(directory.path().join("secret"), node.join("run/absolute")).unwrap();
        let host = Host::new(&node);
        assert_eq!(host.read("/var/run/file").unwrap(), "inside");
        assert!(host.read("/run/up").is_err() && host.read("/run/absolute").is_err());
        assert!(host.read("/../secret").is_err());
    }

    #[test]
    fn only_files_of_some_length_are_read() {
        let directory = tempfile::tempdir().unwrap();
        rustix::fs::mkfifoat(CWD, directory.path().join("fifo"), Mode::from_raw_mode(0o600)).unwrap();
        let long = File::create(directory.path().join("long")).unwrap();
        long.set_len(FILE_MAX + 1).unwrap();
        let host = Host::new(directory.path());
        for name in ["/fifo", "/long", "/", "/none"] {
            assert!(host.read(name).is_err(), "{name}");
        }
    }

    #[test]
    fn without_openat2_only_the_node_itself_is_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), "").unwrap();
        let mounted = Host::new(directory.path());
        assert!(mounted.open("/file", OFlags::RDONLY).is_ok());
        let error = mounted.open_plainly("file", OFlags::RDONLY).unwrap_err();
        assert!(error.to_string().contains("openat2"), "{error}");
        // Not one that is taken for a missing file.
        assert_eq!(error.kind(), io::ErrorKind::Other);
        let own = Host::new(Path::new("/"));
        assert!(own.open_plainly("proc", OFlags::RDONLY | OFlags::DIRECTORY).is_ok());
    }

    #[test]
    fn a_socket_with_too_many_waiting_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let server =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let address = SocketAddrUnix::new(directory.path().join("socket")).unwrap();
        rustix::net::bind(&server, &address).unwrap();
        rustix::net::listen(&server, 0).unwrap();
        let host = Host::new(directory.path());
        let mut waiting = Vec::new();
        let error = loop {
            match host.connect("/socket") {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        // Linux lets one more wait than was said.
        assert_eq!(waiting.len(), 1);
    }

    #[test]
    fn options_are_read_as_go_reads_them() {
        let of = |line: &str, name: &str| {
            let words = line.split(' ').map(str::to_owned).collect();
            Process { pid: 1, words }.option(name).map(str::to_owned)
        };
        let line = "/bin/x --config=/a -root /b --log-level debug -address=/c";
        assert_eq!(of(line, "config").as_deref(), Some("/a"));
        assert_eq!(of(line, "root").as_deref(), Some("/b"));
        assert_eq!(of(line, "address").as_deref(), Some("/c"));
        assert_eq!(of(line, "log"), None);
        assert_eq!(of("x -root", "root"), None);
    }
}
