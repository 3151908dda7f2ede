//! Units of systemd for the snapshotter and the store. Debian ships neither program; upstream's unit logs each request
//! and does not keep containerd waiting for the snapshotter.

use super::{ConfigFile, ConfigOptions};
use crate::node::{SNAPSHOTTER_CONFIG, SNAPSHOTTER_SOCKET, STORE_MOUNT};

pub(super) fn snapshotter(options: &ConfigOptions) -> [ConfigFile; 2] {
    let root = &options.root;
    let unit = format!(
        "[Unit]\n\
         Description=stargz-snapshotter: images are mounted before they are pulled\n\
         After=network-online.target\n\
         Wants=network-online.target\n\
         Before=containerd.service\n\
         \n\
         [Service]\n\
         Type=notify\n\
         # Where ~/.docker/config.json is looked for.\n\
         Environment=HOME=/root\n\
         ExecStartPre=-/sbin/modprobe fuse\n\
         ExecStart=/usr/local/bin/containerd-stargz-grpc --log-level=info --config={SNAPSHOTTER_CONFIG} --root={root} --address={SNAPSHOTTER_SOCKET}\n\
         Restart=always\n\
         RestartSec=1\n\
         # Each unit of a layer that is read is a file; the mounts of all containers depend on this process.\n\
         LimitNOFILE=1048576\n\
         TasksMax=infinity\n\
         OOMScoreAdjust=-999\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    );
    let drop_in = "[Unit]\n\
                   # containerd does not look again for a snapshotter that was not there.\n\
                   Wants=stargz-snapshotter.service\n\
                   After=stargz-snapshotter.service\n";
    [
        ConfigFile::new("/etc/systemd/system/stargz-snapshotter.service", &unit),
        ConfigFile::new("/etc/systemd/system/containerd.service.d/10-stargz-snapshotter.conf", drop_in),
    ]
}

pub(super) fn store() -> ConfigFile {
    let unit = format!(
        "[Unit]\n\
         Description=stargz-store: layers are shown to CRI-O and podman before they are pulled\n\
         After=network-online.target\n\
         Wants=network-online.target\n\
         Before=crio.service\n\
         \n\
         [Service]\n\
         Type=notify\n\
         Environment=HOME=/root\n\
         ExecStartPre=-/sbin/modprobe fuse\n\
         ExecStart=/usr/local/bin/stargz-store --log-level=info --config=/etc/stargz-store/config.toml {STORE_MOUNT}\n\
         ExecStopPost=umount {STORE_MOUNT}\n\
         Restart=always\n\
         RestartSec=1\n\
         LimitNOFILE=1048576\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    );
    ConfigFile::new("/etc/systemd/system/stargz-store.service", &unit)
}
