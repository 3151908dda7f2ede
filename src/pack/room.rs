//! Whether there is room for what packing writes, before it begins. Must not know formats.

use std::path::Path;

use super::{Destination, LayerSpec, PackError, Prepared, known, seal_layers::Keep};
use crate::oci::Layout;

/// Bytes that are free for this process below `path`. A file system that cannot say is no reason to stop.
fn free(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

impl Prepared {
    /// The layout in `path`, when there is room for the image.
    pub(super) fn create_layout(&self, path: &Path) -> Result<Layout, PackError> {
        let layout = Layout::create(path)?;
        if let Some(available) = free(path) {
            let mut needed: u64 = self.layers.iter().map(LayerSpec::stored_payload).sum();
            if needed > available {
                // What is there already takes no more space; to find that out takes time.
                let there =
                    known::known_bytes(&self.layers, &self.options, Some(&layout), LayerSpec::stored_payload);
                needed = needed.saturating_sub(there);
            }
            if needed > available {
                return Err(PackError::DiskSpace { path: path.to_owned(), available, needed });
            }
        }
        Ok(layout)
    }

    /// What becomes of blobs while they are hashed, on their way to `destinations`.
    pub(super) fn keep<'a>(layout: Option<&'a Layout>, destinations: &[Destination]) -> Keep<'a> {
        match layout {
            Some(layout) => Keep::In(layout),
            None if destinations.is_empty() => Keep::Nothing,
            None => Keep::Spooled,
        }
    }
}
