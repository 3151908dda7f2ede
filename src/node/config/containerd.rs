//! containerd's `config.toml`, in version 2 for 1.x and in version 3 for 2.x.

use std::fmt::Write as _;

use super::{ConfigOptions, quoted};
use crate::node::{CERTIFICATES, SNAPSHOTTER_SOCKET, Version};

pub(super) fn text(options: &ConfigOptions) -> String {
    let is_two = options.containerd >= Version::new(2, 0, 0);
    let mut text = format!(
        "# For containerd {}.x. These lines belong into the file that is there, if one is: it may say more (SystemdCgroup, GPU\n\
         # runtimes). Restart containerd to apply; running containers go on.\n",
        options.containerd.major
    );
    if !is_two {
        text.push_str(
            "# Not as an import: containerd 1.x replaces all that a plugin is told by what an imported file tells it.\n",
        );
    }
    text.push_str(if is_two { "version = 3\n" } else { "version = 2\n" });
    text.push_str(&proxy(options));
    text.push_str(&if is_two { cri_three() } else { cri_two() });
    text
}

fn proxy(options: &ConfigOptions) -> String {
    let mut text = format!(
        "\n# The snapshotter, by the socket that it listens on.\n[proxy_plugins.stargz]\ntype = \"snapshot\"\naddress = {}\n",
        quoted(SNAPSHOTTER_SOCKET)
    );
    // 1.6 has no such table.
    if options.containerd >= Version::new(1, 7, 0) {
        text.push_str(
            "\n# Where its layers lie, for kubelet's accounts of the disk.\n[proxy_plugins.stargz.exports]\n",
        );
        let _ = writeln!(text, "root = {}", quoted(&options.root));
    }
    if options.containerd >= Version::new(2, 0, 0) {
        text.push_str(
            "# The transfer service tells the snapshotter which image a layer is of only with this; without it, it pulls eagerly.\n\
             enable_remote_snapshot_annotations = \"true\"\n",
        );
    }
    text
}

fn cri_two() -> String {
    format!(
        "\n# Pods' images go through the snapshotter. Annotations tell it which image a layer is of: without them every layer is\n\
         # pulled, and nothing says so.\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n\
         snapshotter = \"stargz\"\n\
         disable_snapshot_annotations = false\n\
         \n\
         # Mirrors and registries without TLS, in HOST/hosts.toml below it.\n\
         [plugins.\"io.containerd.grpc.v1.cri\".registry]\n\
         config_path = {}\n",
        quoted(CERTIFICATES)
    )
}

fn cri_three() -> String {
    format!(
        "\n# Pods' images go through the snapshotter. Annotations tell it which image a layer is of: without them every layer is\n\
         # pulled, and nothing says so. With them, containerd 2.1 and later pull pods' images without the transfer service.\n\
         [plugins.\"io.containerd.cri.v1.images\"]\n\
         snapshotter = \"stargz\"\n\
         disable_snapshot_annotations = false\n\
         \n\
         # Mirrors and registries without TLS, in HOST/hosts.toml below it.\n\
         [plugins.\"io.containerd.cri.v1.images\".registry]\n\
         config_path = {path}\n\
         \n\
         # For `ctr images pull` and other users of the transfer service, which unpacks into what is listed here alone.\n\
         [plugins.\"io.containerd.transfer.v1.local\"]\n\
         config_path = {path}\n\
         \n\
         [[plugins.\"io.containerd.transfer.v1.local\".unpack_config]]\n\
         platform = \"linux\"\n\
         snapshotter = \"overlayfs\"\n\
         \n\
         [[plugins.\"io.containerd.transfer.v1.local\".unpack_config]]\n\
         platform = \"linux\"\n\
         snapshotter = \"stargz\"\n",
        path = quoted(CERTIFICATES)
    )
}
