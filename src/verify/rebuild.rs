//! An image against what packing its snapshot again makes. Must not know how to pack.

use oci_spec::image::ImageManifest;

use super::{
    finding::{Findings, Place},
    rules,
};
use crate::{digest::Digest, pack::Packed};

/// Compares the image, which `version` packed, with the one that was packed again.
pub(super) fn check(
    manifest: &ImageManifest,
    digest: Option<Digest>,
    version: Option<&str>,
    rebuilt: &Packed,
    findings: &mut Findings,
) {
    let own = env!("CARGO_PKG_VERSION");
    if let Some(version) = version.filter(|version| *version != own) {
        let message = format!("it was packed by {version}, this is {own}");
        findings.add(&rules::REBUILD_VERSION, Place::default(), message);
    }
    let layers = manifest.layers();
    let mut same = layers.len() == rebuilt.layers.len();
    for (index, layer) in layers.iter().enumerate() {
        let text = layer.digest().as_ref();
        let place = || Place::layer(index, text.parse().ok());
        match rebuilt.layers.get(index) {
            None => findings.add(&rules::REBUILD_LAYER, place(), "packing again makes no such layer"),
            Some(again) if again.digest.to_string() == text => continue,
            Some(again) => {
                let files = again.files.first().map(|first| match again.files.len() {
                    1 => format!(" ({first})"),
                    count => format!(" ({first} and {} more)", count - 1),
                });
                let message = format!("packing again makes {}{}", again.digest, files.unwrap_or_default());
                findings.add(&rules::REBUILD_LAYER, place(), message);
            }
        }
        same = false;
    }
    for (index, again) in rebuilt.layers.iter().enumerate().skip(layers.len()) {
        let message = format!("packing again makes one more layer, {}", again.digest);
        findings.add(&rules::REBUILD_LAYER, Place::layer(index, None), message);
    }
    if same && digest != Some(rebuilt.digest) {
        let config = manifest.config().digest().as_ref();
        let same = rebuilt.config.as_ref().is_some_and(|again| again.digest.to_string() == config);
        let what = if same { "annotations" } else { "config" };
        let message = format!("packing again makes {} of the same layers: the {what} differ", rebuilt.digest);
        findings.add(&rules::REBUILD_MANIFEST, Place::default(), message);
    }
}
