//! `starcar node`: settings that are printed and written, and a node with one thing wrong at a time. The node is a
//! directory with the files that a node has, and two sockets behind which something answers as gRPC servers do.

// Each case is one call, in braces where its line is long.
#![allow(clippy::semicolon_if_nothing_returned, clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    os::{
        fd::AsRawFd,
        unix::{
            fs::{PermissionsExt, symlink},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    thread,
};

use serde_json::Value;
use tempfile::TempDir;

use support::{
    command::{Run, starcar},
    registry::{FakeOptions, FakeRegistry, Ranges},
};

const SNAPSHOTTER_SOCKET: &str = "run/containerd-stargz-grpc/containerd-stargz-grpc.sock";
const CONTAINERD_SOCKET: &str = "run/containerd/containerd.sock";
const SNAPSHOTTER: &str = "etc/containerd-stargz-grpc/config.toml";
const CONTAINERD: &str = "etc/containerd/config.toml";
const STORAGE: &str = "etc/containers/storage.conf";

/// A node on which nothing is wrong.
struct Node {
    directory: TempDir,
}

impl Node {
    fn new(version: &str) -> Self {
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

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    /// Puts a text in place of another, which has to be there.
    fn replace(&self, name: &str, old: &str, new: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(old), "{name} has no {old}");
        fs::write(self.path(name), text.replace(old, new)).unwrap();
    }

    /// Puts a line before all others.
    fn prepend(&self, name: &str, line: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        fs::write(self.path(name), format!("{line}\n{text}")).unwrap();
    }

    fn append(&self, name: &str, lines: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        fs::write(self.path(name), format!("{text}\n{lines}\n")).unwrap();
    }

    /// A socket in place of what has its name. Its path may be longer than a socket's may be.
    fn listen(&self, name: &str) -> UnixListener {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        let directory = fs::File::open(path.parent().unwrap()).unwrap();
        let file = path.file_name().unwrap().to_str().unwrap();
        UnixListener::bind(format!("/proc/self/fd/{}/{file}", directory.as_raw_fd())).unwrap()
    }

    /// A gRPC server that says which version it has and which snapshotters.
    fn serve(&self, name: &str, version: &'static str, snapshotters: &'static [&'static str]) {
        let listener = self.listen(name);
        thread::spawn(move || {
            for stream in listener.incoming() {
                // Clients come and go.
                let _ = answer(&mut stream.unwrap(), version, snapshotters);
            }
        });
    }

    fn check(&self, arguments: &[&str]) -> Checked {
        let root = self.directory.path().to_str().unwrap();
        let run = starcar(&[&["node", "check", "--root", root, "--format", "json"], arguments].concat());
        let json =
            serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {}", run.stderr));
        Checked { run, json }
    }
}

struct Checked {
    run: Run,
    json: Value,
}

impl Checked {
    fn codes(&self) -> BTreeSet<&str> {
        let findings = self.json["findings"].as_array().unwrap();
        findings.iter().map(|finding| finding["code"].as_str().unwrap()).collect()
    }

    fn unknown(&self) -> Vec<&str> {
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
const SMALL: [&str; 2] = ["--for-model", "1MiB"];

#[test]
fn a_node_with_the_printed_settings_lacks_nothing() {
    for version in ["1.7", "2.x"] {
        let node = Node::new(version);
        let before = tree(node.directory.path());
        let checked = node.check(&SMALL);
        assert_eq!(checked.codes(), BTreeSet::new(), "{}", checked.run.stdout);
        assert_eq!(checked.unknown(), [""; 0]);
        assert_eq!((checked.run.code, checked.json["worst"].clone()), (0, Value::Null));
        assert_eq!(tree(node.directory.path()), before, "it only looks");
        let root = node.directory.path().to_str().unwrap();
        let run = starcar(&["node", "check", "--root", root, "--for-model", "1MiB"]);
        assert!(run.stdout.ends_with("nothing is missing\n"), "{}", run.stdout);
    }
}

/// Names, sizes and times of everything below a directory.
fn tree(directory: &Path) -> Vec<String> {
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
type Case = (fn(&Node), &'static [&'static str]);

fn try_all(version: &str, arguments: &[&str], cases: &[Case]) {
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

#[test]
fn what_the_kernel_lacks_is_found() {
    let cases: &[Case] = &[
        (|node| node.replace("proc/filesystems", "fuse", "fuseblk"), &["fuse-missing"]),
        (|node| node.replace("proc/filesystems", "overlay", "aufs"), &["overlay-missing"]),
        (|node| node.remove("dev/fuse"), &["fuse-device-missing"]),
        (|node| node.remove("usr/bin/fusermount3"), &["fusermount-missing"]),
        (|node| node.append(SNAPSHOTTER, "[fuse]\npassthrough = true"), &["passthrough-kernel"]),
        (
            |node| {
                node.append(SNAPSHOTTER, "[fuse]\npassthrough = true");
                node.write("proc/sys/kernel/osrelease", "6.9.0");
            },
            &["passthrough-chunks"],
        ),
    ];
    try_all("2.x", &[], cases);
}

#[test]
fn what_is_wrong_with_the_snapshotter_is_found() {
    let cases: &[Case] = &[
        (|node| node.remove(SNAPSHOTTER_SOCKET), &["snapshotter-socket-missing"]),
        (|node| drop(node.listen(SNAPSHOTTER_SOCKET)), &["snapshotter-socket-stale"]),
        (
            |node| {
                node.remove(SNAPSHOTTER_SOCKET);
                node.write(SNAPSHOTTER_SOCKET, "");
            },
            &["snapshotter-socket-other"],
        ),
        (
            |node| {
                let listener = node.listen(SNAPSHOTTER_SOCKET);
                thread::spawn(move || {
                    listener.accept().unwrap().0.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
                });
            },
            &["snapshotter-socket-other"],
        ),
        (|node| node.replace("proc/100/limits", "1048576", "1024"), &["snapshotter-files-limit"]),
        (|node| node.remove(SNAPSHOTTER), &["snapshotter-config-missing"]),
        (|node| node.append(SNAPSHOTTER, "[blob"), &["snapshotter-config-malformed"]),
        // The process reads another file than the usual one.
        (
            |node| node.write("proc/100/cmdline", "containerd-stargz-grpc\0-config\0/none.toml\0"),
            &["snapshotter-config-missing"],
        ),
    ];
    try_all("2.x", &[], cases);
}

#[test]
fn settings_of_the_snapshotter_are_judged() {
    let cases: &[Case] = &[
        (
            |node| node.replace(SNAPSHOTTER, "chunk_size = 4194304", "chunk_size = \"4MiB\""),
            &["snapshotter-setting-kind", "unit-small"],
        ),
        (|node| node.prepend(SNAPSHOTTER, "no_prefetch = true"), &["snapshotter-setting-unknown"]),
        (
            |node| {
                node.replace(SNAPSHOTTER, "prefetch_async_size = 16777216", "prefetch_async_sizes = 16777216")
            },
            &["snapshotter-setting-unknown", "prefetch-wait"],
        ),
        // Below the last table it belongs to that table.
        (|node| node.append(SNAPSHOTTER, "noprefetch = true"), &["snapshotter-setting-unknown"]),
        (|node| node.prepend(SNAPSHOTTER, "noprefetch = true"), &["prefetch-off"]),
        (|node| node.prepend(SNAPSHOTTER, "no_background_fetch = true"), &["background-fetch-off"]),
        (|node| node.replace(SNAPSHOTTER, "\nprefetch_async_size = 16777216", ""), &["prefetch-wait"]),
        (|node| node.replace(SNAPSHOTTER, "\nprefetch_chunk_size = 67108864", ""), &["prefetch-whole"]),
        (
            |node| {
                node.replace(SNAPSHOTTER, "prefetch_chunk_size = 67108864", "prefetch_chunk_size = 1048576")
            },
            &["prefetch-part-small"],
        ),
        (|node| node.replace(SNAPSHOTTER, "\nchunk_size = 4194304", ""), &["unit-small"]),
        (
            |node| {
                node.replace(
                    SNAPSHOTTER,
                    "prefetch_chunk_size = 67108864",
                    "prefetch_chunk_size = 134217728",
                );
                node.replace(SNAPSHOTTER, "\nchunk_size = 4194304", "\nchunk_size = 33554432");
            },
            &["unit-large"],
        ),
        (|node| node.replace(SNAPSHOTTER, "max_concurrency = 4", ""), &["concurrency-low"]),
        (
            |node| node.replace(SNAPSHOTTER, "request_timeout_sec = 600", "request_timeout_sec = 60"),
            &["request-timeout-short"],
        ),
        (|node| node.replace(SNAPSHOTTER, "\nrequest_timeout_sec = 600", ""), &["request-timeout-short"]),
        (
            |node| {
                node.append(SNAPSHOTTER, "[[resolver.host.r.mirrors]]\nhost = \"r\"\nrequest_timeout_sec = 5")
            },
            &["request-timeout-short"],
        ),
        (
            |node| node.append(SNAPSHOTTER, "[[resolver.host.r.mirrors]]\nhost = \"r\"\ninsecur = true"),
            &["snapshotter-setting-unknown"],
        ),
        (|node| node.prepend(SNAPSHOTTER, "disable_verification = true"), &["verification-off"]),
        (|node| node.prepend(SNAPSHOTTER, "allow_no_verification = true"), &["verification-optional"]),
        (|node| node.replace(SNAPSHOTTER, "[blob]", "[blob]\ncheck_always = true"), &["check-always"]),
        (|node| node.prepend(SNAPSHOTTER, "http_cache_type = \"memory\""), &["cache-in-memory"]),
    ];
    try_all("2.x", &[], cases);
    let old: &[Case] = &[(|_| {}, &["snapshotter-setting-new"])];
    try_all("2.x", &["--snapshotter-version", "0.17.0"], old);
}

#[test]
fn what_is_wrong_with_containerd_is_found() {
    let both: &[Case] = &[
        (|node| node.remove(CONTAINERD_SOCKET), &["containerd-socket-missing"]),
        (|node| drop(node.listen(CONTAINERD_SOCKET)), &["containerd-socket-stale"]),
        (|node| node.remove(CONTAINERD), &["containerd-config-missing"]),
        (|node| node.append(CONTAINERD, "= x"), &["containerd-config-malformed"]),
        (|node| node.prepend(CONTAINERD, "imports = [\"none.toml\"]"), &["containerd-import-missing"]),
        (|node| node.replace(CONTAINERD, "proxy_plugins.stargz", "proxy_plugin.stargz"), &["proxy-missing"]),
        (|node| node.replace(CONTAINERD, "type = \"snapshot\"", "type = \"content\""), &["proxy-type"]),
        (|node| node.replace(CONTAINERD, "/run/containerd-stargz-grpc/", "/run/stargz/"), &["proxy-address"]),
        (|node| node.serve(CONTAINERD_SOCKET, "", &["overlayfs"]), &["proxy-not-loaded"]),
        (
            |node| node.prepend(CONTAINERD, "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]"),
            &["cri-disabled"],
        ),
        (
            |node| {
                node.replace(
                    CONTAINERD,
                    "snapshotter = \"stargz\"\ndisable",
                    "snapshotter = \"overlayfs\"\ndisable",
                )
            },
            &["cri-snapshotter"],
        ),
        (
            |node| node.replace(CONTAINERD, "snapshotter = \"stargz\"\ndisable", "disable"),
            &["cri-snapshotter"],
        ),
        // What an import says is the last word.
        (
            |node| {
                node.prepend(CONTAINERD, "imports = [\"conf.d/*.toml\"]");
                node.write(
                    "etc/containerd/conf.d/a.toml",
                    "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]",
                );
            },
            &["cri-disabled"],
        ),
    ];
    try_all("1.7", &[], both);
    try_all("2.x", &[], both);
    let one: &[Case] = &[
        (|node| node.replace(CONTAINERD, "disable_snapshot_annotations = false", ""), &["annotations-off"]),
        (
            |node| {
                node.replace(
                    CONTAINERD,
                    "disable_snapshot_annotations = false",
                    "disable_snapshot_annotations = true",
                )
            },
            &["annotations-off"],
        ),
        (|node| node.replace(CONTAINERD, "version = 2\n", ""), &["containerd-config-old"]),
        (
            |node| node.replace(CONTAINERD, "version = 2\n", "version = 3\n"),
            &["containerd-config-new", "cri-misplaced"],
        ),
        (
            |node| {
                node.append(CONTAINERD, "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nsnapshotter = \"overlayfs\"")
            },
            &["runtime-snapshotter"],
        ),
        (
            |node| {
                node.append(
                    CONTAINERD,
                    "[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.r]\nendpoint = []",
                )
            },
            &["registry-config-clash"],
        ),
        (
            |node| {
                node.prepend(CONTAINERD, "imports = [\"/etc/containerd/more.toml\"]");
                let more = "[plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"stargz\"";
                node.write("etc/containerd/more.toml", &format!("version = 2\n{more}"));
            },
            &["containerd-import-replaces"],
        ),
    ];
    try_all("1.7", &[], one);
    let two: &[Case] = &[
        (|node| node.replace(CONTAINERD, "version = 3\n", "version = 2\n"), &["cri-misplaced"]),
        (
            |node| {
                node.replace(CONTAINERD, "disable_snapshot_annotations = false", "");
                node.replace(CONTAINERD, "enable_remote_snapshot_annotations = \"true\"", "");
            },
            &["annotations-off"],
        ),
        // The transfer service is told otherwise.
        (|node| node.replace(CONTAINERD, "disable_snapshot_annotations = false", ""), &[]),
        (|node| node.replace(CONTAINERD, "version = 3\n", "version = 4\n"), &[]),
        (|node| node.serve(CONTAINERD_SOCKET, "2.1.0", &["stargz"]), &[]),
        (
            |node| {
                node.append(CONTAINERD, "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.kata]\nsnapshotter = \"devmapper\"")
            },
            &["runtime-snapshotter"],
        ),
    ];
    try_all("2.x", &[], two);
    let newer: &[Case] =
        &[(|node| node.replace(CONTAINERD, "version = 3\n", "version = 4\n"), &["containerd-config-new"])];
    try_all("2.x", &["--containerd-version", "2.2"], newer);
}

#[test]
fn what_podman_and_crio_lack_is_found() {
    let cases: &[Case] = &[
        (|_| {}, &[]),
        (|node| node.remove(STORAGE), &["storage-missing"]),
        (|node| node.append(STORAGE, "[["), &["storage-malformed"]),
        (|node| node.replace(STORAGE, "\"overlay\"", "\"vfs\""), &["storage-driver"]),
        (|node| node.replace(STORAGE, "enable_partial_images = \"true\"", ""), &["partial-off"]),
        (
            |node| node.replace(STORAGE, "enable_partial_images = \"true\"", "enable_partial_images = true"),
            &["partial-off"],
        ),
        (|node| node.replace(STORAGE, "additionallayerstores", "# "), &["store-missing"]),
        (|node| node.write("proc/1/mounts", ""), &["store-not-mounted"]),
    ];
    try_all("2.x", &["--for", "crio"], cases);
    let podman: &[Case] = &[(|node| node.replace(STORAGE, "additionallayerstores", "# "), &[])];
    try_all("2.x", &["--for", "podman"], podman);
}

#[test]
fn room_and_registries_are_looked_at() {
    let node = Node::new("2.x");
    let checked = node.check(&["--for-model", "9000000GiB"]);
    assert!(checked.codes().contains("cache-room"), "{}", checked.run.stdout);
    assert_eq!(checked.run.code, 12);
    let image = "registry.invalid/models/none:v1";
    let checked = node.check(&["--for-model", "1MiB", "--registry", image, "--retries", "0"]);
    assert_eq!(checked.codes(), BTreeSet::from(["registry-unreachable"]), "{}", checked.run.stdout);
    let checked = node.check(&["--for-model", "1MiB", "--registry", image, "--retries", "0", "--plain-http"]);
    assert_eq!(checked.codes(), BTreeSet::from(["registry-plain-http", "registry-unreachable"]));
}

#[test]
fn images_are_looked_at_as_nodes_mount_them() {
    for (ranges, format, expected) in [
        (Ranges::Honoured, "estargz", &[][..]),
        (Ranges::Ignored, "estargz", &["registry-no-ranges"]),
        (Ranges::Honoured, "tar", &["layer-not-lazy"]),
    ] {
        let fake = FakeRegistry::start(FakeOptions { ranges, ..FakeOptions::default() });
        let image = format!("{}/models/tiny:v1", fake.address());
        let packed = [
            "pack",
            "examples/tiny-llama",
            "--base",
            "scratch",
            "--layer-format",
            format,
            "-t",
            &image,
            "--push",
        ];
        assert_eq!(starcar(&packed).code, 0);
        let node = Node::new("2.x");
        let before = fake.seen().len();
        let checked = node.check(&["--for-model", &image]);
        assert_eq!(checked.codes(), expected.iter().copied().collect(), "{}", checked.run.stdout);
        assert_eq!(checked.run.code, if expected.is_empty() { 0 } else { 12 });
        let asked: BTreeSet<String> = fake.seen().into_iter().skip(before).map(|seen| seen.method).collect();
        assert!(asked.iter().all(|method| method == "GET" || method == "HEAD"), "{asked:?}");
    }
}

#[test]
fn what_cannot_be_looked_at_is_unknown() {
    let node = Node::new("2.x");
    for name in ["dev/fuse", SNAPSHOTTER, CONTAINERD] {
        node.remove(name);
        // A link to itself cannot be opened by root either.
        symlink(node.path(name).file_name().unwrap(), node.path(name)).unwrap();
    }
    let checked = node.check(&SMALL);
    assert_eq!((checked.codes(), checked.run.code), (BTreeSet::new(), 0), "{}", checked.run.stdout);
    assert_eq!(
        checked.unknown(),
        ["whether the device is there", "how the snapshotter is set", "how containerd is set"]
    );
    assert_eq!(node.check(&["--for-model", "1MiB", "--fail-on", "unknown"]).run.code, 12);
}

#[test]
fn warnings_fail_where_that_is_asked_for() {
    let node = Node::new("2.x");
    node.prepend(SNAPSHOTTER, "noprefetch = true");
    for (level, code) in [("error", 0), ("warning", 12), ("unknown", 12), ("never", 0)] {
        assert_eq!(node.check(&["--for-model", "1MiB", "--fail-on", level]).run.code, code, "{level}");
    }
}

/// The command of the `DaemonSet` in the documentation, as a pod runs it in an image without an entrypoint.
#[test]
fn the_documented_pod_looks_at_a_node() {
    let page = include_str!("../docs/nodes.md");
    assert!(!page.contains("args: ["), "the image has no entrypoint");
    let line = page.lines().find_map(|line| line.trim().strip_prefix("command: [")).unwrap();
    let words: Vec<&str> = line.trim_end_matches(']').split(", ").collect();
    assert_eq!(words[0], "starcar");
    let node = Node::new("2.x");
    node.remove(SNAPSHOTTER_SOCKET);
    let root = node.directory.path().to_str().unwrap();
    let arguments: Vec<&str> =
        words[1..].iter().map(|word| if *word == "/host" { root } else { word }).collect();
    assert!(arguments.contains(&root));
    let run = starcar(&arguments);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.contains("error[snapshotter-socket-missing]"), "{}", run.stdout);
}

#[test]
fn hostile_files_are_survived() {
    let node = Node::new("2.x");
    node.write(
        CONTAINERD,
        &format!(
            "version = 3\nimports = [\"*.toml\", \"../../../../etc/*\", \"config.toml\"]\n{}",
            "[a]\n".repeat(9)
        ),
    );
    node.write(SNAPSHOTTER, &format!("a = {}", "[".repeat(100_000)));
    node.write("proc/100/limits", "Max open files x y z");
    node.write("proc/sys/kernel/osrelease", "\u{1b}]0;x\u{7}");
    let checked = node.check(&SMALL);
    assert_eq!(
        checked.codes(),
        BTreeSet::from(["containerd-config-malformed", "snapshotter-config-malformed"])
    );
    node.write(CONTAINERD, "version = 2\npassword = \"secret\n");
    node.write(SNAPSHOTTER, "password = \"secret\"");
    let root = node.directory.path().to_str().unwrap();
    let run = starcar(&["node", "check", "--root", root]);
    assert!(run.stdout.contains("line 2: ") && run.stdout.contains("password is set"), "{}", run.stdout);
    assert!(!run.stdout.contains("secret"), "{}", run.stdout);
    assert!(!run.stdout.contains('\u{1b}'), "{:?}", run.stdout);
}

#[test]
fn files_are_written_whole_and_not_over_others() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().to_str().unwrap();
    let arguments = ["node", "config", "--registry", "r.example.com=http://m:80", "--output", output];
    let run = starcar(&arguments);
    assert_eq!((run.code, run.stdout.as_str()), (0, ""), "{}", run.stderr);
    let config = directory.path().join(CONTAINERD);
    let printed = starcar(&["node", "config", "--registry", "r.example.com=http://m:80"]).stdout;
    let written = fs::read_to_string(&config).unwrap();
    assert!(printed.contains(&written));
    assert!(directory.path().join("etc/containerd/certs.d/r.example.com/hosts.toml").exists());
    assert_eq!(config.metadata().unwrap().permissions().mode() & 0o777, 0o644);
    let before = tree(directory.path());
    let again = starcar(&arguments);
    assert_eq!(again.code, 2);
    assert!(
        again.stderr.contains("--force") && again.stderr.contains("config.toml is there"),
        "{}",
        again.stderr
    );
    assert_eq!(tree(directory.path()), before);
    fs::write(&config, "mine").unwrap();
    assert_eq!(starcar(&[&arguments[..], &["--force"]].concat()).code, 0);
    assert_eq!(fs::read_to_string(&config).unwrap(), written);
}

#[test]
fn wrong_arguments_are_refused() {
    for arguments in [
        &["config", "--snapshotter-version", "new"][..],
        &["config", "--registry", "a/b"],
        &["config", "--registry", "a", "--registry", "A=b"],
        &["config", "--root", "relative"],
        &["config", "--root", "/a b"],
        &["config", "--for", "docker"],
        &["config", "--plain-http"],
        &["config", "--force"],
        &["check", "--root", "/none"],
        &["check", "--for-model", "12parsecs"],
        &["check", "--for-model", "1.5GiB"],
        &["check", "--containerd-config", "relative"],
        &["check", "--registry", "oci:directory"],
    ] {
        let run = starcar(&[&["node"], arguments].concat());
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{arguments:?}: {}", run.stderr);
    }
}
