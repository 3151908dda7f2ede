//! For each use of an image, whether it works, and what stands in the way.

use serde::Serialize;

use super::{
    finding::{Finding, Rule, Severity, Use},
    layer::{Format, LayerView, formats},
    media_type::Compression,
    rules,
};
use crate::members::MemberKind;

/// Whether an image can be used in a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Works {
    /// Nothing stands in the way.
    Yes,
    /// It works, but not everywhere; or some of the layers are mounted lazily, and the rest are pulled.
    Partly,
    /// It does not work.
    No,
    /// Too little was read to tell.
    Unknown,
}

impl Works {
    /// The name that outputs use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Partly => "partly",
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }
}

/// Whether an image can be used in one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The way.
    #[serde(rename = "use")]
    pub way: Use,
    /// Whether it works.
    pub works: Works,
    /// Whether the image was verified for it: other ways are told of, and what breaks them alone is a note.
    pub wanted: bool,
    /// Why not, or what is not known; empty where it works.
    pub reasons: Vec<String>,
}

/// Rules that a layer breaks which containerd pulls and does not mount.
const PULLED: [&Rule; 11] = [
    &rules::LAYER_NOT_LAZY,
    &rules::LAYER_DOCKER_TYPE,
    &rules::FOOTER_MISSING,
    &rules::FOOTER_OFFSET,
    &rules::TOC_EXTERNAL,
    &rules::TOC_ANNOTATION_MISSING,
    &rules::TOC_ANNOTATION_MALFORMED,
    &rules::TOC_DIGEST,
    &rules::TOC_UNREADABLE,
    &rules::TOC_NAME,
    &rules::TOC_VERSION,
];

/// Why an image for containers-storage is not mounted.
const NOT_MEANT: &str = "the image is for containers-storage (podman, CRI-O), lazy mounts are not meant";

/// Judges all ways. `is_deep` says that all was read that could be.
pub(super) fn judge(
    layers: &[LayerView],
    is_incomplete: bool,
    is_deep: bool,
    findings: &[Finding],
    wanted: &[Use],
) -> Vec<Verdict> {
    Use::ALL
        .into_iter()
        .map(|way| {
            let mut reasons: Vec<String> = Vec::new();
            let in_the_way = || findings.iter().filter(|finding| finding.rule.breaks.contains(&way));
            for finding in in_the_way() {
                let reason = format!("{} ({})", finding.message, finding.rule.code);
                if !reasons.contains(&reason) {
                    reasons.push(reason);
                }
            }
            let mut works = if reasons.is_empty() { Works::Yes } else { Works::No };
            match way {
                Use::Lazy => {
                    let lazy =
                        layers.iter().take_while(|layer| matches!(layer.format, Format::Lazy(_))).count();
                    if reasons.is_empty() && lazy < layers.len() {
                        works = Works::No;
                        reasons.push(format!("the layers are {}", formats(layers)));
                    }
                    // What else is wrong is wrong with the image, or with a layer that is mounted.
                    let only_pulled = in_the_way().all(|finding| PULLED.contains(&finding.rule));
                    if works == Works::No && only_pulled && (1..layers.len()).contains(&lazy) {
                        works = Works::Partly;
                    }
                }
                Use::Fetch => {
                    if let Some((_, reason)) = not_fetched(layers) {
                        works = Works::No;
                        reasons.insert(0, reason);
                    }
                }
                // A policy may forbid the user, or another image have another group: it depends on the cluster.
                Use::Modelcar if in_the_way().all(|finding| finding.rule.severity == Severity::Warning) => {
                    works = if reasons.is_empty() { Works::Yes } else { Works::Partly };
                }
                Use::Modelcar | Use::Native => {}
            }
            if works == Works::Yes && is_incomplete && way != Use::Lazy {
                works = Works::Unknown;
                let remedy = if is_deep { "" } else { "; --deep reads them" };
                reasons.push(format!("some layers were not looked into{remedy}"));
            }
            Verdict { way, works, wanted: wanted.contains(&way), reasons }
        })
        .collect()
}

/// Says of an image for containers-storage that no node is meant to mount it, where nothing else is in the way.
pub(super) fn not_meant(verdicts: &mut [Verdict], findings: &[Finding]) {
    let is_broken = findings.iter().any(|finding| finding.rule.breaks.contains(&Use::Lazy));
    for verdict in verdicts.iter_mut().filter(|verdict| verdict.way == Use::Lazy && !is_broken) {
        verdict.reasons = vec![NOT_MEANT.to_owned()];
    }
}

/// Why `KServe`'s downloader cannot unpack the layers, if it cannot, and the rule that says so.
pub(super) fn not_fetched(layers: &[LayerView]) -> Option<(&'static Rule, String)> {
    let stops = |layer: &LayerView| match &layer.format {
        Format::Lazy(reader) | Format::Unnamed(reader) => reader.kind == MemberKind::Gzip,
        // One that is too large to be looked into, and meant to be eStargz, is not of one member.
        Format::Broken(Compression::Gzip) => layer.members != 1,
        _ => layer.members > 1,
    };
    let zstd = |layer: &LayerView| match &layer.format {
        Format::Lazy(reader) | Format::Unnamed(reader) => reader.kind == MemberKind::Zstd,
        Format::Plain(compression) | Format::Broken(compression) => *compression == Compression::Zstd,
        Format::Unknown => false,
    };
    let (rule, why) = if layers.iter().any(stops) {
        (&rules::FETCH_GZIP, "stops at the end of a layer's first gzip member")
    } else if layers.iter().any(zstd) {
        (&rules::FETCH_ZSTD, "does not know zstd")
    } else {
        return None;
    };
    Some((rule, format!("its downloader {why}, and the layers are {}", formats(layers))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        digest::Digest,
        verify::finding::{Findings, Place},
    };

    fn layer(format: Format) -> LayerView {
        LayerView {
            digest: Digest::of(b""),
            size: 0,
            media_type: String::new(),
            kind: None,
            format,
            nodes: Some(std::sync::Arc::default()),
            passwd: None,
            members: 0,
            is_for_storage: false,
            tar_split: None,
            blob: None,
        }
    }

    fn works(layers: &[LayerView], found: &[&'static Rule], way: Use) -> Works {
        let mut findings = Findings::default();
        for rule in found {
            findings.add(rule, Place::default(), "something");
        }
        let verdicts = judge(layers, false, false, &findings.finish(&Use::ALL), &Use::ALL);
        verdicts.iter().find(|verdict| verdict.way == way).unwrap().works
    }

    fn estargz() -> Format {
        let toc =
            crate::estargz::toc::Toc { version: 1, entries: Vec::new(), tar_split_digest: String::new() };
        let toc_digest = Digest::of(b"");
        let reader = crate::estargz::EstargzReader {
            kind: crate::members::MemberKind::Gzip,
            toc,
            toc_digest,
            toc_offset: 0,
            is_legacy: false,
            trailing: 0,
            table: None,
        };
        Format::Lazy(std::sync::Arc::new(reader))
    }

    #[test]
    fn a_pulled_layer_leaves_those_below_it_lazy_and_a_broken_image_none() {
        let mixed = [layer(estargz()), layer(Format::Plain(Compression::Gzip))];
        assert_eq!(works(&mixed, &[&rules::LAYER_NOT_LAZY], Use::Lazy), Works::Partly);
        assert_eq!(works(&mixed, &[&rules::LAYER_NOT_LAZY, &rules::LAYER_MISSING], Use::Lazy), Works::No);
        assert_eq!(works(&mixed, &[&rules::LAYER_NOT_LAZY, &rules::CHUNK_GAP], Use::Lazy), Works::No);
        let first = [layer(Format::Plain(Compression::Gzip)), layer(estargz())];
        assert_eq!(works(&first, &[&rules::LAYER_NOT_LAZY], Use::Lazy), Works::No);
        assert_eq!(works(&[layer(estargz())], &[], Use::Lazy), Works::Yes);
        assert_eq!(works(&[layer(Format::Plain(Compression::None))], &[], Use::Lazy), Works::No);
    }

    #[test]
    fn what_a_policy_may_forbid_works_in_part() {
        let layers = [layer(estargz())];
        assert_eq!(works(&layers, &[&rules::USER_MISSING], Use::Modelcar), Works::Partly);
        assert_eq!(works(&layers, &[&rules::USER_MISSING, &rules::SHELL_MISSING], Use::Modelcar), Works::No);
        assert_eq!(works(&layers, &[&rules::USER_MISSING], Use::Native), Works::Yes);
    }

    #[test]
    fn the_downloader_takes_one_member() {
        let of = |format, members| works(&[LayerView { members, ..layer(format) }], &[], Use::Fetch);
        assert_eq!(of(estargz(), 0), Works::No);
        assert_eq!(of(Format::Plain(Compression::Gzip), 1), Works::Yes);
        assert_eq!(of(Format::Plain(Compression::Gzip), 2), Works::No);
        assert_eq!(of(Format::Broken(Compression::Gzip), 1), Works::Yes);
        assert_eq!(of(Format::Broken(Compression::Gzip), 0), Works::No);
        assert_eq!(of(Format::Plain(Compression::Zstd), 0), Works::No);
    }
}
