//! A table of contents against the rules of its format. Pure: it sees entries and the layer's size, no bytes.
//! Time and memory are bounded by the number of entries.
//!
//! Source: stargz-snapshotter, `docs/estargz.md`; `estargz/estargz.go` and `metadata/` for what readers do.

mod data;
mod entries;
mod landmarks;

use super::finding::{Findings, Place};
use crate::{estargz::toc::TocEntry, members::MemberKind};

/// What is checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct TocView<'a> {
    /// The entries, in order.
    pub(super) entries: &'a [TocEntry],
    /// Where the table of contents begins in the layer, in bytes: payloads end there.
    pub(super) toc_offset: u64,
    /// What chunks lie in.
    pub(super) kind: MemberKind,
    /// Whether the layer is from before eStargz, when chunks had no digests and layers no landmarks.
    pub(super) legacy: bool,
}

/// Checks a table of contents; `layer` is the place of its layer.
pub(super) fn check(toc: TocView<'_>, layer: &Place, findings: &mut Findings) {
    if toc.entries.is_empty() {
        findings.add(&super::rules::TOC_EMPTY, layer.clone(), "the table of contents lists nothing");
        return;
    }
    entries::check(toc, layer, findings);
    data::check(toc, layer, findings);
    if !toc.legacy {
        landmarks::check(toc, layer, findings);
    }
}

#[cfg(test)]
mod tests;
