//! What is said of a node, and of what may not be looked at.

use std::{collections::BTreeSet, os::unix::fs::symlink};

use serde_json::Value;

use crate::{
    harness::{CONTAINERD, Case, Node, SMALL, SNAPSHOTTER, SNAPSHOTTER_SOCKET, STORAGE, tree, try_all},
    support::command::starcar,
};

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
    let page = include_str!("../../docs/nodes.md");
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
