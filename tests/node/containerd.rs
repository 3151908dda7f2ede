//! containerd's settings, in one file and in several, of the versions that releases read.

use crate::harness::{CONTAINERD, CONTAINERD_SOCKET, Case, try_all};

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
        (|node| node.replace(CONTAINERD, "\"/run/", "\"unix:///var/run//./"), &[]),
        (|node| node.replace(CONTAINERD, "\"snapshot\"", "\"io.containerd.snapshotter.v1\""), &[]),
        // What containerd's parser or its types refuse.
        (|node| node.prepend(CONTAINERD, "\u{feff}"), &["containerd-config-malformed"]),
        (|node| node.replace(CONTAINERD, "version = ", "version = 0."), &["containerd-config-malformed"]),
        (|node| node.prepend(CONTAINERD, "imports = \"a.toml\""), &["containerd-config-malformed"]),
        (
            |node| node.replace(CONTAINERD, "type = \"snapshot\"", "type = 1"),
            &["containerd-config-malformed"],
        ),
        // Without a `*` it is a file of that name.
        (
            |node| node.prepend(CONTAINERD, "imports = [\"/etc/containerd/confi?.toml\"]"),
            &["containerd-import-missing"],
        ),
        (|node| node.prepend(CONTAINERD, "imports = [\"/etc/none.d/*.toml\"]"), &[]),
        (
            |node| {
                node.replace(
                    CONTAINERD,
                    "snapshotter = \"stargz\"\ndisable",
                    "snapshotter = [\"stargz\"]\ndisable",
                )
            },
            &["cri-snapshotter"],
        ),
        (
            |node| node.replace(CONTAINERD, "annotations = false", "annotations = \"false\""),
            &["annotations-off"],
        ),
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
        // It is the proxy that is wrong, and not who names it.
        (
            |node| {
                node.append(CONTAINERD, "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nsnapshotter = \"stargz\"");
                node.replace(CONTAINERD, "/run/containerd-stargz-grpc/", "/run/stargz/");
            },
            &["proxy-address"],
        ),
        (
            |node| {
                node.append(
                    CONTAINERD,
                    "[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.r.tls]\nca_file = \"/ca.pem\"",
                )
            },
            &["registry-config-clash"],
        ),
        (
            |node| {
                node.append(
                    CONTAINERD,
                    "[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.r.auth]\nusername = \"me\"",
                )
            },
            &[],
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
            &["annotations-off", "containerd-import-replaces"],
        ),
    ];
    try_all("1.7", &[], one);
    let two: &[Case] = &[
        // Tables of version 3 are read whatever the file's version is.
        (|node| node.replace(CONTAINERD, "version = 3\n", "version = 2\n"), &[]),
        (|node| node.replace(CONTAINERD, "version = 3\n", ""), &[]),
        (
            |node| {
                node.replace(CONTAINERD, "disable_snapshot_annotations = false", "");
                node.replace(CONTAINERD, "enable_remote_snapshot_annotations = \"true\"", "");
            },
            &["annotations-off"],
        ),
        // The transfer service is told otherwise.
        (|node| node.replace(CONTAINERD, "disable_snapshot_annotations = false", ""), &[]),
        // What keeps containerd from pulling by it.
        (
            |node| {
                node.replace(
                    CONTAINERD,
                    "\ndisable_snapshot_annotations = false",
                    "\nuse_local_image_pull = true",
                )
            },
            &["annotations-off"],
        ),
        (
            |node| {
                node.replace(
                    CONTAINERD,
                    "\ndisable_snapshot_annotations = false",
                    "\nmax_concurrent_downloads = 10",
                )
            },
            &["annotations-off"],
        ),
        (
            |node| {
                node.replace(CONTAINERD, "disable_snapshot_annotations = false", "");
                node.serve(CONTAINERD_SOCKET, "2.0.5", &["stargz"]);
            },
            &["annotations-off"],
        ),
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
