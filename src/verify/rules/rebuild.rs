//! Rules about packing an image's snapshot again.

use super::{Depth, NONE, Rule, Severity};

/// The rules of this table.
pub(super) const REBUILD_RULES: &[&Rule] = &[&REBUILD_VERSION, &REBUILD_LAYER, &REBUILD_MANIFEST];

/// An image of another version of starcar than this one.
pub static REBUILD_VERSION: Rule = Rule {
    code: "rebuild-version",
    severity: Severity::Note,
    depth: Depth::Rebuild,
    breaks: NONE,
    description: "an image of another version of starcar than this one",
    consequence: "The same snapshot may have other digests with this version, so a difference proves nothing",
    remedy: "verify with the version that packed the image",
};

/// A layer that packing again makes differently.
pub static REBUILD_LAYER: Rule = Rule {
    code: "rebuild-layer",
    severity: Severity::Error,
    depth: Depth::Rebuild,
    breaks: NONE,
    description: "a layer that packing again makes differently",
    consequence: "The image is not what this snapshot makes: another revision, other options, or a change after packing",
    remedy: "--against tells which files differ",
};

/// A manifest that packing again makes differently, of the same layers.
pub static REBUILD_MANIFEST: Rule = Rule {
    code: "rebuild-manifest",
    severity: Severity::Warning,
    depth: Depth::Rebuild,
    breaks: NONE,
    description: "a manifest that packing again makes differently, of the same layers",
    consequence: "What the image says of itself differs: its repository, its revision, its labels",
    remedy: "rebuild from the same place in the hub's cache; `starcar inspect` shows what the image says",
};
