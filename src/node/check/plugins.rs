//! Names of containerd's plugins that have to do with how pods' images are pulled.

/// All of CRI, in version 2 of the file.
pub(super) const CRI_TWO: &str = "io.containerd.grpc.v1.cri";
/// Images, from version 3 on.
pub(super) const CRI_THREE: &str = "io.containerd.cri.v1.images";
/// Runtimes, from version 3 on.
pub(super) const CRI_RUNTIME: &str = "io.containerd.cri.v1.runtime";
/// What containerd 2.1 and later pull by where nothing keeps CRI from it.
pub(super) const TRANSFER: &str = "io.containerd.transfer.v1.local";
/// Snapshotters, those of other processes as well.
pub(super) const SNAPSHOTTERS: &str = "io.containerd.snapshotter.v1";
