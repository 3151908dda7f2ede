//! What labels say of compile caches, held against the files of the layers. Must not know what is in them.

use std::collections::BTreeMap;

use super::{
    finding::{Findings, Place},
    layer::LayerView,
    rules,
    tree::Tree,
};
use crate::{
    compile_cache::CacheRecord,
    oci::{CACHES_LABEL, STARCAR_PREFIX},
    pack::cache_labels,
    plan::LayerKind,
};

/// What the labels of an image say of its caches.
#[derive(Debug, Default)]
pub(super) struct CacheLabels {
    records: Vec<CacheRecord>,
    /// The directory of each, as layers name it.
    pub(super) directories: Vec<String>,
}

/// Reads the labels. `models` is the model's directory, as layers name it.
pub(super) fn read(labels: &BTreeMap<String, String>, models: &str, findings: &mut Findings) -> CacheLabels {
    let Some(text) = labels.get(CACHES_LABEL) else { return CacheLabels::default() };
    match CacheRecord::parse_all(text) {
        Ok(records) => {
            let directories = records.iter().map(|record| format!("{models}/{}", record.directory)).collect();
            CacheLabels { records, directories }
        }
        Err(reason) => {
            let message = format!("the label {CACHES_LABEL} cannot be understood: {reason}");
            findings.add(&rules::CACHE_LABEL_MALFORMED, Place::default(), message);
            CacheLabels::default()
        }
    }
}

/// Compares labels and files.
pub(super) fn check(
    caches: &CacheLabels,
    labels: &BTreeMap<String, String>,
    layers: &[LayerView],
    tree: &Tree,
    findings: &mut Findings,
) {
    for (record, directory) in caches.records.iter().zip(&caches.directories) {
        if tree.is_incomplete {
            continue;
        }
        let place = || Place::default().file(directory);
        if !tree.has(directory) {
            let message = format!("the {} cache is not there", record.name);
            findings.add(&rules::CACHE_MISSING, place(), message);
            continue;
        }
        let (files, size) = tree.count(directory);
        if (files, size) != (record.files, record.size) {
            let message = format!(
                "the {} cache has {files} files of {size} bytes, the label says {} of {}",
                record.name, record.files, record.size
            );
            findings.add(&rules::CACHE_DIFFERS, place(), message);
        }
    }
    if caches.records.is_empty() && !labels.contains_key(CACHES_LABEL) {
        for (index, layer) in layers.iter().enumerate() {
            if layer.kind.as_deref() == Some(LayerKind::Cache.name()) {
                let place = Place::layer(index, Some(layer.digest));
                findings.add(&rules::CACHE_UNLABELLED, place, "the labels name no cache");
            }
        }
    }
    kernel_labels(caches, labels, findings);
}

/// The labels that `KServe`'s kernel caches read follow from the records.
fn kernel_labels(caches: &CacheLabels, labels: &BTreeMap<String, String>, findings: &mut Findings) {
    // What another version would write is not known.
    if labels.get(&format!("{STARCAR_PREFIX}version")).map(String::as_str) != Some(env!("CARGO_PKG_VERSION"))
    {
        return;
    }
    for (name, expected) in cache_labels::labels(&caches.records) {
        if name == CACHES_LABEL {
            continue;
        }
        let message = match labels.get(&name) {
            Some(stated) if *stated == expected => continue,
            Some(stated) => {
                format!("the label {name} is {stated:?}, by {CACHES_LABEL} it should be {expected:?}")
            }
            None => format!("there is no label {name}; by {CACHES_LABEL} it should be {expected:?}"),
        };
        findings.add(&rules::CACHE_LABEL_DIFFERS, Place::default(), message);
    }
}
