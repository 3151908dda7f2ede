//! `storage.conf` of podman and CRI-O.

use std::fmt::Write as _;

use super::{ConfigOptions, Target, quoted};
use crate::node::STORE_MOUNT;

pub(super) fn text(options: &ConfigOptions) -> String {
    let mut text = String::from(
        "# For podman and CRI-O. These lines belong into the file that is there, if one is; they change nothing of what is stored.\n\
         [storage]\n\
         # With the vfs driver, layers are pulled whole.\n\
         driver = \"overlay\"\n\
         graphroot = \"/var/lib/containers/storage\"\n\
         runroot = \"/run/containers/storage\"\n",
    );
    if options.has(Target::Crio) {
        let _ = write!(
            text,
            "\n[storage.options]\n\
             # eStargz layers are mounted from stargz-store instead of being pulled; `:ref` lets it know the image. Start the store\n\
             # first: without the directory, neither CRI-O nor podman starts.\n\
             additionallayerstores = [{}]\n",
            quoted(&format!("{STORE_MOUNT}:ref"))
        );
    }
    text.push_str(
        "\n[storage.options.pull_options]\n\
         # Of zstd:chunked layers (`starcar pack --consumer containers-storage`), only files that the node lacks are pulled: the\n\
         # second model with the same shards brings only the rest. Nothing is mounted before it is there. Leave it\n\
         # off with podman 4.3, which ignores owners.\n\
         enable_partial_images = \"true\"\n",
    );
    text
}
