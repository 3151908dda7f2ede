//! All that can be missing on a node: a table, so that documentation and outputs can quote it. Must not know how it is
//! found.
//!
//! Sources: stargz-snapshotter 0.9 to 0.19 and containerd 1.6 to 2.4, as docs/snapshotter.md and docs/nodes.md say;
//! docs/measurements.md for what was measured.

use super::finding::{Rule, Severity};

macro_rules! rules {
    ($($name:ident = $code:literal, $severity:ident, $description:literal, $breaks:literal, $remedy:literal;)*) => {
        $(pub(super) static $name: Rule = Rule {
            code: $code,
            severity: Severity::$severity,
            description: $description,
            breaks: $breaks,
            remedy: $remedy,
        };)*

        const ALL: &[&Rule] = &[$(&$name),*];
    };
}

rules! {
    FUSE_MISSING = "fuse-missing", Error, "the kernel has no FUSE",
        "no layer is mounted: images are pulled whole",
        "modprobe fuse && echo fuse > /etc/modules-load.d/fuse.conf";
    FUSE_DEVICE_MISSING = "fuse-device-missing", Error, "there is no /dev/fuse",
        "no layer is mounted: images are pulled whole",
        "modprobe fuse; in a container, mount the host's /dev/fuse";
    OVERLAY_MISSING = "overlay-missing", Error, "the kernel has no overlayfs",
        "layers cannot be put together: no container starts",
        "modprobe overlay && echo overlay > /etc/modules-load.d/overlay.conf";
    FUSERMOUNT_MISSING = "fusermount-missing", Note, "fusermount3 is not installed",
        "nothing where the snapshotter runs as root: it mounts by itself",
        "apt-get install fuse3";
    PASSTHROUGH_KERNEL = "passthrough-kernel", Warning, "FUSE passthrough is on, and the kernel is older than 6.9",
        "opening a file waits until all of it is there, and reads gain nothing for it",
        "set passthrough = false below [fuse]";
    PASSTHROUGH_CHUNKS = "passthrough-chunks", Note, "FUSE passthrough is on",
        "the snapshotter panics on images with a chunk across a multiple of 400 MiB of a file (stargz-snapshotter#2068); starcar makes none",
        "set passthrough = false below [fuse] where images of others run";

    SNAPSHOTTER_SOCKET_MISSING = "snapshotter-socket-missing", Error, "stargz-snapshotter does not listen",
        "containerd has no snapshotter that mounts images before they are pulled",
        "systemctl enable --now stargz-snapshotter (`starcar node config --for systemd` prints the unit)";
    SNAPSHOTTER_SOCKET_STALE = "snapshotter-socket-stale", Error, "the snapshotter's socket is there and nobody answers",
        "every pull fails: containerd cannot reach the snapshotter",
        "systemctl restart stargz-snapshotter; journalctl -u stargz-snapshotter says why it ended";
    SNAPSHOTTER_SOCKET_OTHER = "snapshotter-socket-other", Error, "what has the snapshotter's socket's name is no gRPC server",
        "every pull fails: containerd cannot talk to the snapshotter",
        "systemctl restart stargz-snapshotter, and start it with --address naming a path of its own";
    SNAPSHOTTER_FILES_LIMIT = "snapshotter-files-limit", Warning, "the snapshotter may open fewer than 65,536 files",
        "reads fail with `too many open files` when many layers are read at a time",
        "set LimitNOFILE=1048576 below [Service] of stargz-snapshotter.service";

    SNAPSHOTTER_CONFIG_MISSING = "snapshotter-config-missing", Warning, "the snapshotter has no config.toml",
        "the snapshotter's defaults hold: containers wait up to 10 s for prefetched weights, and prefetch ends after 30 s",
        "starcar node config --for snapshotter --output /";
    SNAPSHOTTER_CONFIG_MALFORMED = "snapshotter-config-malformed", Error, "the snapshotter's config.toml is not TOML",
        "the snapshotter does not start",
        "correct the line; `starcar node config --for snapshotter` prints a file that is right";
    SNAPSHOTTER_SETTING_KIND = "snapshotter-setting-kind", Error, "a setting of the snapshotter has a value of another kind",
        "the snapshotter does not start",
        "correct the value";
    SNAPSHOTTER_SETTING_UNKNOWN = "snapshotter-setting-unknown", Warning, "the snapshotter has no such setting",
        "it is passed over without a word",
        "correct its name, or put it below the table that it belongs to";
    SNAPSHOTTER_SETTING_NEW = "snapshotter-setting-new", Warning, "the snapshotter is older than a setting",
        "it is passed over without a word",
        "update stargz-snapshotter, or remove the setting";
    PREFETCH_OFF = "prefetch-off", Warning, "prefetch is switched off",
        "weights arrive by background fetch and reads alone: the last byte after 118 s instead of 60 s at 200 Mbit/s",
        "remove noprefetch";
    BACKGROUND_FETCH_OFF = "background-fetch-off", Warning, "background fetch is switched off",
        "what was not prefetched is fetched when it is read, one read after another, and an image is never complete",
        "remove no_background_fetch";
    PREFETCH_WAIT = "prefetch-wait", Warning, "containers wait for the prefetch of large layers",
        "a container with prefetched weights starts after 11 s instead of 1 s",
        "set prefetch_async_size = 16777216 (from stargz-snapshotter 0.18.2 on), or pack without --nodes recommended";
    PREFETCH_WHOLE = "prefetch-whole", Warning, "prefetch asks for a layer in one request",
        "reads overtake it and fetch a second time: a quarter more bytes at 200 Mbit/s",
        "set prefetch_chunk_size = 67108864 below [blob]";
    PREFETCH_PART_SMALL = "prefetch-part-small", Warning, "prefetch_chunk_size is less than chunk_size",
        "it is passed over: prefetch asks for a layer in one request",
        "set prefetch_chunk_size = 67108864 below [blob]";
    UNIT_SMALL = "unit-small", Warning, "units of a layer are smaller than 1 MiB",
        "twice the requests and half as much CPU again; each unit is a file",
        "set chunk_size = 4194304 below [blob]";
    UNIT_LARGE = "unit-large", Warning, "units of a layer are larger than 16 MiB",
        "the footer's request brings a whole unit, for each layer, before a container can start",
        "set chunk_size = 4194304 below [blob]";
    CONCURRENCY_LOW = "concurrency-low", Warning, "background fetch makes fewer than 4 requests at a time",
        "it fills half of a link",
        "set max_concurrency = 4";
    REQUEST_TIMEOUT_SHORT = "request-timeout-short", Warning, "a request may take less than 120 s, its body included",
        "a prefetch of more than 750 MB at 200 Mbit/s (30 s) is given up",
        "set request_timeout_sec = 600 below [resolver] (from stargz-snapshotter 0.18.2 on), or for each registry's mirrors";
    VERIFICATION_OFF = "verification-off", Warning, "layers are not verified",
        "a registry, or who is between, can change what runs",
        "remove disable_verification";
    VERIFICATION_OPTIONAL = "verification-optional", Warning, "layers without digests are mounted",
        "an image that cannot be verified is run all the same",
        "remove allow_no_verification";
    CHECK_ALWAYS = "check-always", Warning, "the registry is asked at each start whether a layer is still there",
        "a request for each layer before each container, and no start while the registry is away",
        "remove check_always below [blob]";
    CACHE_IN_MEMORY = "cache-in-memory", Warning, "what is fetched is kept in memory",
        "a model lies twice in the snapshotter's memory, and is fetched again after a restart",
        "remove http_cache_type and filesystem_cache_type";
    SEVERAL_RANGES = "several-ranges", Error, "the registry does not answer requests for several ranges, and the snapshotter makes them",
        "reads bring the whole blob each time (ECR), or fail (GHCR)",
        "set force_single_range_mode = true below [blob]";

    CONTAINERD_SOCKET_MISSING = "containerd-socket-missing", Error, "containerd does not listen",
        "no container starts",
        "systemctl enable --now containerd; --containerd-socket names another socket";
    CONTAINERD_SOCKET_STALE = "containerd-socket-stale", Error, "containerd's socket is there and nobody answers",
        "no container starts",
        "systemctl restart containerd; journalctl -u containerd says why it ended";
    CONTAINERD_CONFIG_MISSING = "containerd-config-missing", Error, "containerd has no config.toml",
        "containerd does not know the snapshotter: images are pulled whole",
        "starcar node config --for containerd --output /, and systemctl restart containerd";
    CONTAINERD_CONFIG_MALFORMED = "containerd-config-malformed", Error, "containerd's settings are not TOML, or of another kind",
        "containerd does not start",
        "correct the line; `containerd config dump` says what it takes";
    CONTAINERD_IMPORT_MISSING = "containerd-import-missing", Error, "a file that containerd's settings import is not there",
        "containerd does not start",
        "write it, or remove it from imports";
    CONTAINERD_IMPORT_REPLACES = "containerd-import-replaces", Warning, "two files set one plugin, and containerd is 1.x, or may be",
        "containerd 1.x forgets all that the first of them said of the plugin",
        "put the settings into one file";
    CONTAINERD_IMPORT_NEWER = "containerd-import-newer", Error, "an imported file has a higher version than the main file, and containerd is 2.3.0 to 2.3.4",
        "containerd does not start",
        "give all files the same version, or update containerd";
    CONTAINERD_CONFIG_OLD = "containerd-config-old", Error, "containerd's settings have no version, or version 1",
        "containerd 1.x passes over tables whose names are those of version 2, and 2.0 to 2.2 over those of version 1",
        "begin the file with version = 2, and name plugins in full (`containerd config migrate` does it)";
    CONTAINERD_CONFIG_NEW = "containerd-config-new", Error, "containerd is older than the version of its config.toml",
        "containerd does not start, or (before 1.6.32 and 1.7.17) passes over what is new",
        "write the settings for this containerd: starcar node config --for containerd --containerd-version VERSION";
    PROXY_MISSING = "proxy-missing", Error, "containerd does not know the snapshotter",
        "images are pulled whole, or not at all where the CRI plugin names the snapshotter",
        "add [proxy_plugins.stargz] (`starcar node config --for containerd` prints it) and restart containerd";
    PROXY_TYPE = "proxy-type", Error, "containerd does not know the snapshotter as one",
        "containerd does not start, or has no such snapshotter",
        "set type = \"snapshot\" below [proxy_plugins.stargz]";
    PROXY_ADDRESS = "proxy-address", Error, "containerd looks for the snapshotter elsewhere than it listens",
        "every pull fails: containerd cannot reach the snapshotter",
        "make address below [proxy_plugins.stargz] the snapshotter's --address";
    PROXY_NOT_LOADED = "proxy-not-loaded", Error, "the settings name the snapshotter and the running containerd has none of that name",
        "images are pulled whole, or not at all",
        "systemctl restart containerd";
    CRI_DISABLED = "cri-disabled", Error, "containerd's CRI plugin is disabled",
        "kubelet cannot use this containerd",
        "take it out of disabled_plugins (packages of Docker put it there)";
    CRI_SNAPSHOTTER = "cri-snapshotter", Error, "pods' images do not go through the snapshotter",
        "they are pulled whole",
        "set snapshotter = \"stargz\"";
    CRI_MISPLACED = "cri-misplaced", Error, "settings of images stand where this version of the file does not look for them",
        "they are passed over",
        "move them: version 2 has [plugins.\"io.containerd.grpc.v1.cri\".containerd], version 3 has [plugins.\"io.containerd.cri.v1.images\"]";
    CRI_LEFT_BEHIND = "cri-left-behind", Error, "containerd 2 moves version 2's settings of images only where runtimes stand beside them",
        "snapshotter and disable_snapshot_annotations are passed over: images are pulled whole",
        "write version 3 (`starcar node config --for containerd` prints it), or add [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc] with runtime_type = \"io.containerd.runc.v2\" to the file";
    ANNOTATIONS_OFF = "annotations-off", Error, "containerd does not tell the snapshotter which image a layer is of",
        "every layer is pulled whole, and nothing says so",
        "set disable_snapshot_annotations = false beside snapshotter";
    RUNTIME_SNAPSHOTTER = "runtime-snapshotter", Warning, "a runtime has a snapshotter of its own",
        "pods of that runtime class start from images that are pulled whole",
        "remove snapshotter from the runtime, or make it stargz";
    REGISTRY_CONFIG_CLASH = "registry-config-clash", Error, "config_path and mirrors are both set",
        "containerd's CRI plugin does not load",
        "keep config_path, and move mirrors to HOST/hosts.toml below it";

    CACHE_ROOM = "cache-room", Error, "there is less room than twice the model's size",
        "reads fail, or layers are not mounted, when the disk is full: every byte is kept as it came and as chunks of files",
        "make room, or move the snapshotter's directory with --root (`starcar node config --root DIR`)";
    CACHE_ROOM_LOW = "cache-room-low", Warning, "there is less room than 20 GiB for layers",
        "a model of 10 GiB fills the disk: every byte is kept twice",
        "make room; --for-model SIZE says how much is needed";
    CACHE_FILES = "cache-files", Warning, "there are fewer free inodes than the model's units and chunks need files",
        "the disk is full although it has room",
        "set chunk_size = 4194304 below [blob], or make the file system with more inodes";
    CACHE_TMPFS = "cache-tmpfs", Warning, "the snapshotter keeps layers in memory (tmpfs)",
        "a model lies in memory twice, and is fetched again after a restart",
        "move the snapshotter's directory to a disk with --root";

    REGISTRY_UNREACHABLE = "registry-unreachable", Error, "an image cannot be had from its registry",
        "it is neither mounted nor pulled",
        "try `starcar -v inspect IMAGE` on the node; --authfile and --ca-file say how the registry is reached";
    REGISTRY_NO_RANGES = "registry-no-ranges", Error, "the registry, or a proxy before it, ignores requests for ranges",
        "no layer is mounted: images are pulled whole",
        "use a registry or a proxy that answers Range with 206 (docs/registries.md)";
    REGISTRY_PLAIN_HTTP = "registry-plain-http", Error, "the registry has no TLS, and the snapshotter is not told so",
        "no layer of it is mounted: images are pulled whole",
        "starcar node config --for snapshotter --registry http://HOST prints the setting";
    LAYER_NOT_LAZY = "layer-not-lazy", Error, "a layer cannot be mounted before it is pulled",
        "it and all layers above it are pulled whole",
        "pack the image with starcar, its base as well";

    STORAGE_MISSING = "storage-missing", Warning, "there is no storage.conf",
        "layers are pulled whole",
        "starcar node config --for podman --output /";
    STORAGE_MALFORMED = "storage-malformed", Error, "storage.conf is not TOML",
        "neither podman nor CRI-O starts",
        "correct the line; `starcar node config --for crio` prints a file that is right";
    STORAGE_DRIVER = "storage-driver", Error, "layers are not kept by the overlay driver",
        "layers are pulled whole",
        "set driver = \"overlay\" below [storage] (what is stored under another driver is not seen any more)";
    PARTIAL_OFF = "partial-off", Warning, "partial pulls are not turned on",
        "of zstd:chunked layers all is pulled, even what the node has",
        "set enable_partial_images = \"true\" below [storage.options.pull_options]";
    STORE_MISSING = "store-missing", Warning, "no store of mounted layers is named",
        "eStargz layers are pulled whole",
        "set additionallayerstores = [\"/var/lib/stargz-store/store:ref\"] below [storage.options], and run stargz-store";
    STORE_NOT_MOUNTED = "store-not-mounted", Error, "the store of layers is named and not mounted",
        "eStargz layers are pulled whole; where the directory is missing, neither CRI-O nor podman starts",
        "systemctl enable --now stargz-store";
}

/// All rules, in the order in which a node is looked at.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    ALL.iter().copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_documentation_lists_every_rule() {
        let text = include_str!("../../../docs/nodes.md");
        let row = |rule: &Rule| {
            format!("| `{}` | {} | {} | {} |", rule.code, rule.severity.name(), rule.description, rule.breaks)
        };
        let missing: Vec<String> = all().map(row).filter(|row| !text.contains(row)).collect();
        assert!(missing.is_empty(), "docs/nodes.md lacks\n{}", missing.join("\n"));
        let listed =
            text.lines().filter(|line| line.starts_with("| `") && line.matches(" | ").count() == 3).count();
        assert_eq!(listed, all().count());
    }

    #[test]
    fn codes_are_unique_and_plain() {
        let mut seen = BTreeSet::new();
        for rule in all() {
            assert!(seen.insert(rule.code), "{} twice", rule.code);
            assert!(rule.code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{}", rule.code);
            for text in [rule.description, rule.breaks, rule.remedy] {
                assert!(
                    !text.is_empty() && !text.ends_with('.') && !text.contains('|'),
                    "{}: {text:?}",
                    rule.code
                );
            }
        }
    }
}
