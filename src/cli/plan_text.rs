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
    if prepared.plan_options.base_layers > 0 {
        let _ = writeln!(text, "base: {}", count(prepared.plan_options.base_layers, "layer"));
    }
    for (index, layer) in prepared.plan.layers.iter().enumerate() {
        let total: u64 = layer.files.iter().map(|file| prepared.files[file.index].size).sum();
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
            "layer {number}: {kind}, {}, {}{}",
            count(layer.files.len(), "file"),
            size(total),
            landmark(prepared, layer)
        );
        let rows: Vec<Vec<String>> = layer
            .files
            .iter()
            .map(|planned| {
                let file = &prepared.files[planned.index];
                let storage = match planned.storage {
                    Storage::Stored => "stored",
                    Storage::Compressed => "compressed",
                };
                vec![
                    format!("  {}", file.path),
                    size(file.size),
                    storage.to_owned(),
                    count(planned.chunks.len(), "chunk"),
                    planned.reason.clone(),
                ]
            })
            .collect();
        text.push_str(&table(&rows));
    }
    let total: u64 = prepared.files.iter().map(|file| file.size).sum();
    let _ = writeln!(text, "{}, {}", count(prepared.files.len(), "file"), size(total));
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
