//! Recording a start: a snapshot, flattened as its image will be, and caches are mounted read-only through FUSE, and a
//! command runs on top of them. Must not print, and must not know layers or OCI.
//!
//! In order: [`Places::find`], [`Places::mount`], [`Recorder::start`], [`Supervisor::start`], [`Recorder::finish`],
//! [`Mounts::unmount`]. Mounts that are dropped are unmounted.

mod backing;
mod command;
mod directory_tree;
mod error;
mod file_system;
mod guess;
mod model_tree;
mod mount;
mod mount_table;
mod output;
mod place;
mod ready;
mod recorder;
mod signals;
mod terminal;
mod watchdog;

use std::{
    collections::HashSet,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use self::{
    command::{Conditions, Ended, Stopped, Supervisor},
    error::RecordError,
    guess::{guess_engine, guess_loader},
    place::MountPoint,
    ready::ReadyUrl,
    recorder::Recorder,
    signals::Signals,
    watchdog::{Watchdog, watch},
};
use self::{directory_tree::DirectoryTree, model_tree::ModelTree, mount::Mount};
use super::{Host, Model, Recording, Source, Tree};
use crate::snapshot::Snapshot;

/// What the mount table calls our mounts.
const SOURCE: &str = "starcar";

/// A cache to record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheDirectory {
    /// The directory.
    pub directory: PathBuf,
    /// Where it is mounted; `None` is where it is.
    pub mount: Option<PathBuf>,
}

/// How trees are mounted.
#[derive(Debug, Clone, Copy, Default)]
pub struct MountOptions {
    /// Bytes that the kernel reads at a time around a byte of a mapped file; 0 is a page.
    pub read_ahead: u32,
    /// Whether other users may read.
    pub allow_other: bool,
}

/// Where the trees of a recording will be.
#[derive(Debug)]
pub struct Places {
    model: MountPoint,
    caches: Vec<CachePlace>,
}

#[derive(Debug)]
struct CachePlace {
    name: String,
    directory: OwnedFd,
    point: MountPoint,
}

impl Places {
    /// Chooses, makes and locks the directories to mount on.
    ///
    /// # Errors
    /// A directory cannot be used, or two of them lie in each other, or the snapshot in one of them.
    pub fn find(
        snapshot: &Snapshot,
        model: Option<&Path>,
        caches: &[CacheDirectory],
    ) -> Result<Self, RecordError> {
        let mut directories = HashSet::new();
        for cache in caches {
            // One that cannot be found is told of below.
            let path = cache.directory.canonicalize().unwrap_or_else(|_| cache.directory.clone());
            if !directories.insert(path.clone()) {
                return Err(RecordError::Twice(path));
            }
        }
        let mut names = HashSet::new();
        let caches = caches.iter().map(|cache| CachePlace::find(cache, &mut names));
        let caches = caches.collect::<Result<Vec<_>, _>>()?;
        let places = Self { model: MountPoint::for_model(model)?, caches };
        let points: Vec<&Path> = places.points().map(MountPoint::path).collect();
        for (index, one) in points.iter().enumerate() {
            let other =
                points[index + 1..].iter().find(|other| one.starts_with(other) || other.starts_with(one));
            if let Some(other) = other {
                return Err(RecordError::Overlap((*one).to_owned(), (*other).to_owned()));
            }
            // What is mounted would be read through itself.
            if snapshot.root.starts_with(one)
                || snapshot.files.iter().any(|file| file.source.starts_with(one))
            {
                return Err(RecordError::Overlap(snapshot.root.clone(), (*one).to_owned()));
            }
        }
        Ok(places)
    }

    /// All directories that will be mounted on, the model's first.
    pub fn points(&self) -> impl Iterator<Item = &MountPoint> {
        std::iter::once(&self.model).chain(self.caches.iter().map(|cache| &cache.point))
    }

    /// Mounts the trees; `recorder` hears of what is done with them.
    pub fn mount(
        self,
        snapshot: &Snapshot,
        recorder: &Arc<Recorder>,
        options: MountOptions,
    ) -> Result<Mounts, RecordError> {
        let tree = ModelTree::new(&snapshot.files);
        let mut mounts = vec![Mount::new(self.model, Tree::Model, tree, recorder, options)?];
        for CachePlace { name, directory, point } in self.caches {
            let tree = DirectoryTree::new(directory).map_err(RecordError::system("look at the cache"))?;
            mounts.push(Mount::new(point, Tree::Cache(name), tree, recorder, options)?);
        }
        Ok(Mounts(mounts))
    }
}

impl CachePlace {
    fn find(cache: &CacheDirectory, names: &mut HashSet<String>) -> Result<Self, RecordError> {
        let cannot = |cause| RecordError::Cache { path: cache.directory.clone(), cause };
        let path = cache.directory.canonicalize().map_err(cannot)?;
        let base = path.file_name().map_or("cache".into(), |name| name.to_string_lossy()).into_owned();
        let mut candidates =
            std::iter::once(base.clone()).chain((2_u32..).map(|number| format!("{base}-{number}")));
        let name = candidates.find(|name| names.insert(name.clone())).unwrap_or(base);
        let (point, directory) = match &cache.mount {
            None => {
                let point = MountPoint::existing(&path)?;
                let directory = point.hidden().map_err(cannot)?;
                (point, directory)
            }
            Some(mount) => {
                let directory = std::fs::File::open(&path).map_err(cannot)?;
                (MountPoint::for_model(Some(mount))?, directory.into())
            }
        };
        Ok(Self { name, directory, point })
    }
}

/// The mounted trees of a recording.
#[derive(Debug)]
pub struct Mounts(Vec<Mount>);

impl Mounts {
    /// The directories that are mounted on, the model's first.
    pub fn points(&self) -> impl Iterator<Item = &MountPoint> {
        self.0.iter().map(Mount::point)
    }

    /// Whether `read()` is seen byte by byte, not page by page.
    pub fn exact(&self) -> bool {
        self.0.iter().all(|mount| mount.agreed().exact)
    }

    /// The read-ahead that the kernel granted, in bytes.
    pub fn read_ahead(&self) -> u32 {
        self.0.iter().map(|mount| mount.agreed().read_ahead).max().unwrap_or(0)
    }

    /// What a profile says of this recording; the engine is for the caller to add.
    pub fn describe(&self, snapshot: &Snapshot) -> Recording {
        let model = Model {
            repository: snapshot.repository.clone(),
            revision: snapshot.revision.clone(),
            ..Model::default()
        };
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let host =
            Host { kernel: Some(kernel), read_ahead: Some(self.read_ahead().into()), ..Host::default() };
        Recording {
            source: Some(Source::Record),
            model: (model != Model::default()).then_some(model),
            host: Some(host),
            ..Recording::default()
        }
    }

    /// Unmounts all.
    ///
    /// # Errors
    /// The first mount that could not be taken away; the others are gone all the same.
    pub fn unmount(mut self) -> Result<(), RecordError> {
        self.0.iter_mut().map(Mount::unmount).fold(Ok(()), Result::and)
    }
}
