//! A plan in words: each layer and file, and why it is where it is.

use std::fmt::Write as _;

use super::output::{count, size, table};
use crate::{
    layer::Storage,
    pack::Prepared,
    plan::{LayerKind, PlannedLayer},
};

/// What `starcar plan` and `starcar pack --dry-run` print.
pub(super) fn plan_text(prepared: &Prepared) -> String {
    let mut text = String::new();
    let is_one = prepared.platforms().count() == 1;
    for (platform, layers) in prepared.platforms() {
        let of = if is_one { String::new() } else { format!(" for {platform}") };
        if layers > 0 || !is_one {
            let _ = writeln!(text, "base{of}: {}", count(layers, "layer"));
        }
    }
    for (index, (layer, files, cache)) in prepared.planned().enumerate() {
        let total: u64 = layer.files.iter().map(|file| files[file.index].size).sum();
        let directory = cache.map(|cache| format!("{}/", cache.directory)).unwrap_or_default();
        let of_cache = cache.map(|cache| {
            let target = cache.target.as_ref().map(|target| format!(" of the image for {target}"));
            format!(" {}{}", cache.name, target.unwrap_or_default())
        });
        let of_cache = of_cache.unwrap_or_default();
        let kind = match layer.kind {
            LayerKind::Base => "base",
            LayerKind::Small => "small files",
            LayerKind::Weights => "weights",
            LayerKind::Unused => "not read in a start",
            LayerKind::Cache => "compile cache",
        };
        let number = prepared.plan_options.base_layers + index + 1;
        let _ = writeln!(
            text,
            "layer {number}: {kind}{of_cache}, {}, {}{}",
            count(layer.files.len(), "file"),
            size(total),
            landmark(prepared, layer)
        );
        let rows: Vec<Vec<String>> = layer
            .files
            .iter()
            .map(|planned| {
                let file = &files[planned.index];
                let storage = match planned.storage {
                    Storage::Stored => "stored",
                    Storage::Compressed | Storage::EntropyCoded => "compressed",
                };
                vec![
                    format!("  {directory}{}", file.path),
                    size(file.size),
                    storage.to_owned(),
                    count(planned.chunks.len(), "chunk"),
                    planned.reason.clone(),
                ]
            })
            .collect();
        text.push_str(&table(&rows));
    }
    let planned = || {
        prepared.planned().flat_map(|(layer, files, _)| layer.files.iter().map(|file| files[file.index].size))
    };
    let _ = writeln!(text, "{}, {}", count(planned().count(), "file"), size(planned().sum()));
    if let Some(weights) = prepared.compressed_weights() {
        let _ = writeln!(
            text,
            "compressed weights: {} to about {}; a node's core unpacks them in {:.1} s; packing keeps as much as they \
             shrink to in TMPDIR, if there is no oci: output",
            size(weights.size),
            size(weights.estimated),
            weights.unpack_seconds(),
        );
    }
    text
}

/// Where the layer's prefetch landmark lies.
fn landmark(prepared: &Prepared, layer: &PlannedLayer) -> String {
    match layer.prioritized {
        _ if !prepared.has_landmarks() => String::new(),
        0 => "; prefetches nothing".to_owned(),
        all if all == layer.files.len() => "; prefetched".to_owned(),
        some => format!("; landmark after {}", count(some, "file")),
    }
}
