//! One mounted tree, and its end: whatever happens, the mount goes. Must not know commands.

use std::{
    fs, io,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, OnceLock, mpsc},
    thread,
    time::Duration,
};

use fuser::{BackgroundSession, Config, MountOption, Session, SessionACL};
use rustix::{
    fs::{major, minor, stat},
    mount::UnmountFlags,
};

use super::{
    MountOptions, MountPoint, RecordError, SOURCE,
    backing::Backing,
    file_system::{Agreed, WatchedTree},
    mount_table,
    recorder::Recorder,
};
use crate::profile::Tree;

/// As many as a loader that reads in parallel has requests in flight (`runai_streamer`: 16).
const THREADS: usize = 16;
/// How long a mount that nobody uses takes to end, at most.
const PATIENCE: Duration = Duration::from_secs(2);

/// A mounted tree. It is unmounted when dropped.
#[derive(Debug)]
pub(super) struct Mount {
    session: Option<BackgroundSession>,
    device: (u32, u32),
    agreed: Agreed,
    /// Last, as it may remove the directory: the mount must be gone by then.
    point: MountPoint,
}

impl Mount {
    pub(super) fn new<B: Backing>(
        point: MountPoint,
        tree: Tree,
        backing: B,
        recorder: &Arc<Recorder>,
        options: MountOptions,
    ) -> Result<Self, RecordError> {
        // fuser has one kind of error for all of this; only here the device and the helper can be told apart.
        fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").map_err(RecordError::NoDevice)?;
        let cannot = |cause: io::Error| match cause.kind() {
            io::ErrorKind::NotFound => RecordError::NoFusermount,
            kind => {
                // What fusermount3 says ends with a line feed.
                let cause = io::Error::new(kind, cause.to_string().trim_end().to_owned());
                RecordError::Mount { path: point.path().to_owned(), cause }
            }
        };
        let agreed = Arc::new(OnceLock::new());
        let file_system =
            WatchedTree::new(tree, backing, recorder.clone(), options.read_ahead, agreed.clone());
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::RO,
            MountOption::NoAtime,
            MountOption::DefaultPermissions,
            MountOption::FSName(SOURCE.to_owned()),
            MountOption::Subtype(SOURCE.to_owned()),
        ];
        config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
        config.n_threads = Some(THREADS);
        config.clone_fd = true;
        let session = Session::new(file_system, point.path(), &config).and_then(Session::spawn);
        let session = session.map_err(cannot)?;
        let mut mount = Self {
            session: Some(session),
            device: (0, 0),
            agreed: agreed.get().copied().unwrap_or(Agreed { read_ahead: 0, exact: false }),
            point,
        };
        mount.device = device(mount.point.path()).map_err(RecordError::system("look at the mount"))?;
        mount.raise_read_ahead(options.read_ahead);
        Ok(mount)
    }

    /// Beyond the kernel's default only root gets more read-ahead, by another way.
    fn raise_read_ahead(&mut self, wanted: u32) {
        if wanted > self.agreed.read_ahead {
            let (major, minor) = self.device;
            let file = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
            if fs::write(file, (wanted >> 10).to_string()).is_ok() {
                self.agreed.read_ahead = wanted >> 10 << 10;
            }
        }
    }

    pub(super) fn point(&self) -> &MountPoint {
        &self.point
    }

    pub(super) fn agreed(&self) -> Agreed {
        self.agreed
    }

    /// Unmounts, even what is in use: then the name goes at once, and the files when their users end, or this process.
    pub(super) fn unmount(&mut self) -> Result<(), RecordError> {
        let Some(session) = self.session.take() else { return Ok(()) };
        let path = self.point.path();
        if !self.is_mounted() {
            // Somebody else has unmounted it. Dropping the session would unmount what is there instead.
            std::mem::forget(session);
            return Ok(());
        }
        if device(path).ok() != Some(self.device) {
            std::mem::forget(session);
            return Err(RecordError::StillMounted(path.to_owned()));
        }
        let (done, ended) = mpsc::channel();
        // It waits for the last user where the mount is taken away lazily, so it is not waited for.
        let unmounting = thread::Builder::new().name("unmount".to_owned()).spawn(move || {
            let _ = done.send(session.umount_and_join());
        });
        if unmounting.is_ok() {
            let _ = ended.recv_timeout(PATIENCE);
        }
        if self.is_mounted() {
            detach(path);
        }
        if self.is_mounted() { Err(RecordError::StillMounted(path.to_owned())) } else { Ok(()) }
    }

    fn is_mounted(&self) -> bool {
        // Without a table there is no telling: rather one attempt too many.
        let here =
            |entry: &mount_table::MountEntry| entry.device == self.device && entry.path == self.point.path();
        mount_table::mounts().map_or(true, |mounts| mounts.iter().any(here))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Nobody can be told.
        let _ = self.unmount();
    }
}

/// Takes a mount's name away, whoever uses it.
pub(super) fn detach(path: &Path) {
    if rustix::mount::unmount(path, UnmountFlags::DETACH).is_ok() {
        return;
    }
    for program in ["fusermount3", "fusermount"] {
        let status = Command::new(program)
            .args(["-u", "-q", "-z", "--"])
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if status.is_ok_and(|status| status.success()) {
            return;
        }
    }
}

/// The device of the files at `path`: each mount of FUSE has one of its own.
fn device(path: &Path) -> io::Result<(u32, u32)> {
    let device = stat(path)?.st_dev;
    Ok((major(device), minor(device)))
}
