//! An image's layers together: looking at all of them, what they are to each other, the files that they make. Must not
//! know what the files are for.

use std::sync::Arc;

use oci_spec::image::Descriptor;
use rayon::iter::{IndexedParallelIterator as _, IntoParallelRefIterator as _, ParallelIterator as _};

use super::{
    claims::Claims,
    finding::{Findings, Place},
    layer::{self, Format, LayerView, Traffic},
    plain, rules,
    shared::{Shared, Tables},
    tree::Tree,
    verdict,
};
use crate::{
    estargz::Files,
    oci::{ImageSource, OciError},
};

/// Bytes that are read of a password file.
const PASSWD_READ: usize = 1 << 20;
/// Layers that are looked at at a time: what takes time is the way to the registry.
const LAYERS_AT_A_TIME: usize = 8;

/// Looks at all layers, several at a time.
pub(super) fn look(
    source: &dyn ImageSource,
    descriptors: &[Descriptor],
    traffic: &Arc<Traffic>,
    is_deep: bool,
    shared: Option<&mut Shared>,
    findings: &mut Findings,
) -> Result<Vec<LayerView>, OciError> {
    let known = shared.as_deref();
    let own = Tables::default();
    let tables = known.map_or(&own, |shared| &shared.tables);
    let look = || {
        let layers = descriptors.par_iter().enumerate();
        layers
            .map(|(index, descriptor)| match known.and_then(|shared| shared.looked(index, descriptor)) {
                Some(known) => Ok(known),
                None => layer::look(source, index, descriptor, traffic, is_deep, tables),
            })
            .collect()
    };
    let looked: Result<Vec<(LayerView, Findings)>, OciError> =
        match rayon::ThreadPoolBuilder::new().num_threads(LAYERS_AT_A_TIME).build() {
            Ok(pool) => pool.install(look),
            // Fewer threads than that are left to this user: those that there are do it.
            Err(_) => look(),
        };
    let looked = looked?;
    if let Some(shared) = shared {
        for (descriptor, (layer, found)) in descriptors.iter().zip(&looked) {
            shared.keep_looked(descriptor, (layer, found));
        }
    }
    let mut layers = Vec::new();
    for (layer, found) in looked {
        layers.push(layer);
        findings.append(found);
    }
    if source.ignores_ranges() && !findings.has(&rules::RANGES_IGNORED) {
        findings.add(&rules::RANGES_IGNORED, Place::default(), "the registry sends whole blobs");
    }
    Ok(layers)
}

/// Which layers keep others from being mounted lazily; `is_wanted` says that somebody wants that.
pub(super) fn laziness(layers: &[LayerView], claims: &Claims, is_wanted: bool, findings: &mut Findings) {
    let plain = |layer: &&LayerView| matches!(layer.format, Format::Plain(_));
    let count = layers.iter().filter(plain).count();
    if let Some(label) = claims.unknown_format() {
        findings.add(&rules::FORMAT_LABEL, Place::default(), format!("the label says {label:?}"));
    }
    for (index, layer) in layers.iter().enumerate() {
        let Some(label) = claims.get("layer-format") else { break };
        let differs = match &layer.format {
            Format::Unknown => false,
            // What of these is not of the label's format is told in other words.
            Format::Plain(_) | Format::Broken(_) if !claims.is_tar() => false,
            _ => claims.unknown_format().is_none() && layer.format.name() != label,
        };
        if differs {
            let message = format!("the label says {label}, the layer is {}", layer.format.name());
            findings.add(&rules::FORMAT_LABEL, Place::layer(index, Some(layer.digest)), message);
        }
    }
    // It was made so on purpose.
    if claims.is_tar() && !is_wanted {
        return;
    }
    if count == layers.len() {
        if count > 0 {
            let message = format!("the layers are {}", layer::formats(layers));
            findings.add(&rules::IMAGE_NOT_LAZY, Place::default(), message);
        }
        return;
    }
    for (index, layer) in layers.iter().enumerate().filter(|(_, layer)| plain(layer)) {
        let above = layers.len() - index - 1;
        let message = format!(
            "the layer is {}: it and the {above} above it are pulled before a container starts",
            layer.format.name()
        );
        findings.add(&rules::LAYER_NOT_LAZY, Place::layer(index, Some(layer.digest)), message);
    }
}

/// What `KServe`'s downloader cannot unpack, where it is to be used.
pub(super) fn fetching(layers: &[LayerView], findings: &mut Findings) {
    if let Some((rule, reason)) = verdict::not_fetched(layers) {
        findings.add(rule, Place::default(), reason);
    }
}

/// The file tree of all layers. `is_deep` says that they were read to their ends, as far as that was possible.
pub(super) fn tree(layers: &[LayerView], is_deep: bool, findings: &mut Findings) -> Tree {
    let mut tree = Tree::default();
    for (index, layer) in layers.iter().enumerate() {
        if let Some(nodes) = &layer.nodes {
            tree.add(index, nodes);
            continue;
        }
        tree.is_incomplete = true;
        if matches!(layer.format, Format::Plain(_)) && !is_deep {
            let place = Place::layer(index, Some(layer.digest));
            findings.add(&rules::LAYER_UNREAD, place, "the layer was not looked into");
        }
    }
    tree
}

/// The image's password file, if it has one that can be read.
pub(super) fn passwd(tree: &Tree, layers: &[LayerView], findings: &mut Findings) -> Option<String> {
    let found = tree.find(plain::PASSWD)?;
    let layer = layers.get(found.layer)?;
    if let Some(bytes) = &layer.passwd {
        return Some(String::from_utf8_lossy(bytes).into_owned());
    }
    let path = &found.node.path;
    let (reader, blob) = (layer.format.reader()?, layer.blob.as_ref()?);
    let read = || {
        let files = Files::of(reader)?;
        files.read(&**blob, path, 0, PASSWD_READ)
    };
    match read() {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) => {
            let place = Place::layer(found.layer, Some(layer.digest)).file(path);
            findings.add(&rules::PASSWD_UNREAD, place, error.to_string());
            None
        }
    }
}
