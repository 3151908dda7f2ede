//! A node is a directory with the files that a node has, and two sockets behind which something answers as gRPC servers
//! do.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    os::{
        fd::AsRawFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    thread,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::command::{Run, starcar};

pub(crate) const SNAPSHOTTER_SOCKET: &str = "run/containerd-stargz-grpc/containerd-stargz-grpc.sock";
pub(crate) const CONTAINERD_SOCKET: &str = "run/containerd/containerd.sock";
pub(crate) const SNAPSHOTTER: &str = "etc/containerd-stargz-grpc/config.toml";
pub(crate) const CONTAINERD: &str = "etc/containerd/config.toml";
pub(crate) const STORAGE: &str = "etc/containers/storage.conf";

/// A node on which nothing is wrong.
pub(crate) struct Node {
    pub(crate) directory: TempDir,
}

impl Node {
    pub(crate) fn new(version: &str) -> Self {
        // Not below /tmp, which may lie in memory.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let node = Self { directory };
        let output = node.directory.path().to_str().unwrap();
        let run = starcar(&["node", "config", "--containerd-version", version, "--output", output]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        node.write("proc/filesystems", "nodev\tsysfs\nnodev\toverlay\nnodev\tfuse\n\text4\n");
        node.write("proc/sys/kernel/osrelease", "6.1.0-18-amd64\n");
        node.write("proc/100/cmdline", "/usr/local/bin/containerd-stargz-grpc\0--log-level=info\0");
        node.write(
            "proc/100/limits",
            "Limit   Soft   Hard   Units\nMax open files            1048576   1048576   files\n",
        );
        node.write("proc/200/cmdline", "/usr/bin/containerd\0");
        node.write("proc/1/mounts", "stargzstore /var/lib/stargz-store/store fuse.rawBridge rw 0 0\n");
        node.write("dev/fuse", "");
        node.write("usr/bin/fusermount3", "");
        node.serve(SNAPSHOTTER_SOCKET, "", &[]);
        node.serve(
            CONTAINERD_SOCKET,
            if version == "1.7" { "1.7.35" } else { "v2.4.2" },
            &["overlayfs", "stargz"],
        );
        node
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    /// Puts a text in place of another, which has to be there.
    pub(crate) fn replace(&self, name: &str, old: &str, new: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(old), "{name} has no {old}");
        fs::write(self.path(name), text.replace(old, new)).unwrap();
    }

    /// Puts a line before all others.
    pub(crate) fn prepend(&self, name: &str, line: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        fs::write(self.path(name), format!("{line}\n{text}")).unwrap();
    }

    pub(crate) fn append(&self, name: &str, lines: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        fs::write(self.path(name), format!("{text}\n{lines}\n")).unwrap();
    }

    /// A socket in place of what has its name. Its path may be longer than a socket's may be.
    pub(crate) fn listen(&self, name: &str) -> UnixListener {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        let directory = fs::File::open(path.parent().unwrap()).unwrap();
        let file = path.file_name().unwrap().to_str().unwrap();
        UnixListener::bind(format!("/proc/self/fd/{}/{file}", directory.as_raw_fd())).unwrap()
    }

    /// A gRPC server that says which version it has and which snapshotters.
    pub(crate) fn serve(&self, name: &str, version: &'static str, snapshotters: &'static [&'static str]) {
        let listener = self.listen(name);
        thread::spawn(move || {
            for stream in listener.incoming() {
                // Clients come and go.
                let _ = answer(&mut stream.unwrap(), version, snapshotters);
            }
        });
    }

    pub(crate) fn check(&self, arguments: &[&str]) -> Checked {
        let root = self.directory.path().to_str().unwrap();
        let run = starcar(&[&["node", "check", "--root", root, "--format", "json"], arguments].concat());
        let json =
            serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {}", run.stderr));
        Checked { run, json }
    }
}

pub(crate) struct Checked {
    pub(crate) run: Run,
    pub(crate) json: Value,
}

impl Checked {
    pub(crate) fn codes(&self) -> BTreeSet<&str> {
        let findings = self.json["findings"].as_array().unwrap();
        findings.iter().map(|finding| finding["code"].as_str().unwrap()).collect()
    }

    pub(crate) fn unknown(&self) -> Vec<&str> {
        self.json["unknown"]
            .as_array()
            .unwrap()
            .iter()
            .map(|each| each["unknown"].as_str().unwrap())
            .collect()
    }
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags, 0, 0, 0, stream]);
    frame.extend_from_slice(payload);
    frame
}

fn field(number: u8, value: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(value.len()).unwrap()], value].concat()
}

fn answer(stream: &mut UnixStream, version: &str, snapshotters: &[&str]) -> std::io::Result<()> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface)?;
    assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    stream.write_all(&frame(4, 0, 0, &[]))?;
    let mut method = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload)?;
        match head[3] {
            1 => method = payload,
            0 => break,
            _ => {}
        }
    }
    let has = |name: &str| method.windows(name.len()).any(|window| window == name.as_bytes());
    let message = if has("/containerd.services.version.v1.Version/Version") {
        field(1, version.as_bytes())
    } else if has("/containerd.services.introspection.v1.Introspection/Plugins") {
        let plugin =
            |name: &&str| [field(1, b"io.containerd.snapshotter.v1"), field(2, name.as_bytes())].concat();
        snapshotters.iter().flat_map(|name| field(1, &plugin(name))).collect()
    } else {
        Vec::new()
    };
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    stream.write_all(&frame(1, 4, 1, &[0x88]))?;
    stream.write_all(&frame(0, 0, 1, &[&[0], &length[..], &message].concat()))?;
    stream.write_all(&frame(1, 5, 1, &[]))
}

/// Room for this is everywhere.
pub(crate) const SMALL: [&str; 2] = ["--for-model", "1MiB"];

/// Names, sizes and times of everything below a directory.
pub(crate) fn tree(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.path().symlink_metadata().unwrap();
        found.push(format!(
            "{} {} {:?}",
            entry.path().display(),
            metadata.len(),
            metadata.modified().unwrap()
        ));
        if metadata.is_dir() {
            found.extend(tree(&entry.path()));
        }
    }
    found.sort();
    found
}

/// One thing that is wrong: what is planted, and the codes that are found.
pub(crate) type Case = (fn(&Node), &'static [&'static str]);

pub(crate) fn try_all(version: &str, arguments: &[&str], cases: &[Case]) {
    for (plant, expected) in cases {
        let node = Node::new(version);
        plant(&node);
        let checked = node.check(&[&SMALL, arguments].concat());
        assert_eq!(checked.codes(), expected.iter().copied().collect(), "{}", checked.run.stdout);
        let mut is_error = false;
        for finding in checked.json["findings"].as_array().unwrap() {
            for name in ["lookedAt", "found", "breaks", "remedy"] {
                assert!(!finding[name].as_str().unwrap().is_empty(), "{finding}");
            }
            is_error |= finding["severity"] == "error";
        }
        assert_eq!(checked.run.code, if is_error { 12 } else { 0 });
    }
}
