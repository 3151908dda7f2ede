//! Whether there is room for what packing writes, before it begins; and what compressing weights saves and costs. Must
//! not know formats.

use std::path::Path;

use super::{Destination, LayerSpec, PackError, Prepared, SPOOL_MEMORY, known, seal_layers::Keep};
use crate::{
    layer::Storage,
    oci::Layout,
    plan::{PlannedFile, PlannedLayer},
};

/// What compressing weights saves and costs, as far as samples tell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CompressedWeights {
    /// Bytes of the weights that are compressed.
    pub size: u64,
    /// About how many they are in the image. Where no layout is written, packing keeps as much in a temporary file.
    pub estimated: u64,
    /// Bytes per second that one core of a node unpacks.
    pub unpack_speed: f64,
}

impl CompressedWeights {
    /// Seconds that a node's core is busy unpacking all of them.
    #[expect(clippy::cast_precision_loss, reason = "an estimate does not need the 53rd bit")]
    pub fn unpack_seconds(&self) -> f64 {
        self.size as f64 / self.unpack_speed
    }
}

/// About how many bytes those files of a layer take that are entropy coded.
pub(super) fn entropy_coded(layer: &PlannedLayer) -> u64 {
    coded_files(layer).map(|file| file.stored).sum()
}

fn coded_files(layer: &PlannedLayer) -> impl Iterator<Item = &PlannedFile> {
    layer.files.iter().filter(|file| file.storage == Storage::EntropyCoded)
}

/// Bytes that are free for this process below `path`. A file system that cannot say is no reason to stop.
fn free(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

impl Prepared {
    /// What compressing weights saves and costs; `None` when no weights will be compressed.
    pub fn compressed_weights(&self) -> Option<CompressedWeights> {
        let files = || self.plan.layers.iter().flat_map(coded_files);
        files().next()?;
        Some(CompressedWeights {
            size: files().map(|file| self.files[file.index].size).sum(),
            estimated: files().map(|file| file.stored).sum(),
            unpack_speed: self.unpack_speed()?,
        })
    }

    /// Bytes per second that one core of a node unpacks of the image's format; `None` of plain tar.
    pub fn unpack_speed(&self) -> Option<f64> {
        self.options.format.unpack_speed()
    }

    /// The layout in `path`, when there is room for the image.
    pub(super) fn create_layout(&self, path: &Path) -> Result<Layout, PackError> {
        let layout = Layout::create(path)?;
        if let Some(available) = free(path) {
            let mut needed: u64 = self.layers.iter().map(LayerSpec::bulk).sum();
            if needed > available {
                // What is there already takes no more space; to find that out takes time.
                let there = known::known_bytes(&self.layers, &self.options, Some(&layout), LayerSpec::bulk);
                needed = needed.saturating_sub(there);
            }
            if needed > available {
                return Err(PackError::DiskSpace { path: path.to_owned(), available, needed });
            }
        }
        Ok(layout)
    }

    /// Where compressed weights are kept on their way to `destinations`, and about how many bytes they are; `None` where
    /// nothing of them is kept.
    pub fn spooled(&self, destinations: &[Destination]) -> Option<(&Path, u64)> {
        let has_layout =
            destinations.iter().any(|destination| matches!(destination, Destination::Layout { .. }));
        let weights = self.compressed_weights().filter(|_| !has_layout && !destinations.is_empty())?;
        Some((&self.options.temporary, weights.estimated))
    }

    /// What becomes of blobs while they are hashed, on their way to `destinations`.
    pub(super) fn keep<'a>(
        &self,
        layout: Option<&'a Layout>,
        destinations: &[Destination],
    ) -> Result<Keep<'a>, PackError> {
        match layout {
            Some(layout) => Ok(Keep::In(layout)),
            None if destinations.is_empty() => Ok(Keep::Nothing),
            None => self.check_spool().map(|()| Keep::Spooled),
        }
    }

    /// Whether there is room for compressed weights that are not written anywhere before they are sent.
    fn check_spool(&self) -> Result<(), PackError> {
        let coded = |spec: &LayerSpec| spec.entropy_coded;
        let mut needed: u64 = self.layers.iter().map(coded).sum();
        let path = &self.options.temporary;
        let Some(available) =
            free(path).filter(|available| needed > SPOOL_MEMORY as u64 && needed > *available)
        else {
            return Ok(());
        };
        // Layers that the digest cache knows are read from there.
        needed = needed.saturating_sub(known::known_bytes(&self.layers, &self.options, None, coded));
        if needed > available {
            return Err(PackError::SpoolSpace { path: path.clone(), available, needed });
        }
        Ok(())
    }
}
