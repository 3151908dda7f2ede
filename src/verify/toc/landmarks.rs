//! Landmarks: which there are, where, and what they hold.

use super::TocView;
use crate::{
    digest::Digest,
    estargz::{LANDMARK_CONTENT, NO_PREFETCH_LANDMARK, PREFETCH_LANDMARK, toc::TocEntry},
    verify::{
        finding::{Findings, Place},
        names::{base, clean},
        rules,
    },
};

pub(super) fn check(toc: TocView<'_>, layer: &Place, findings: &mut Findings) {
    let named = |name: &str| toc.entries.iter().find(|entry| clean(&entry.name) == name);
    let (prefetch, none) = (named(PREFETCH_LANDMARK), named(NO_PREFETCH_LANDMARK));
    for entry in toc.entries {
        let path = clean(&entry.name);
        if path.contains('/') && [PREFETCH_LANDMARK, NO_PREFETCH_LANDMARK].contains(&base(&path)) {
            let place = layer.clone().file(&entry.name);
            findings.add(&rules::LANDMARK_MISPLACED, place, "a landmark lies in a directory");
        }
    }
    for entry in [prefetch, none].into_iter().flatten() {
        content(entry, layer, findings);
    }
    let data = |entry: &&TocEntry| entry.entry_type == "reg" && entry.size > 0;
    match (prefetch, none) {
        (Some(entry), Some(_)) => {
            let place = layer.clone().file(&entry.name);
            findings.add(&rules::LANDMARK_BOTH, place, "the layer has both landmarks");
        }
        (None, None) => {
            findings.add(&rules::LANDMARK_MISSING, layer.clone(), "the layer has no landmark");
        }
        (Some(landmark), None) => {
            if !toc.entries.iter().filter(data).any(|entry| entry.offset < landmark.offset) {
                let place = layer.clone().file(&landmark.name);
                findings.add(&rules::LANDMARK_MISPLACED, place, "there is no file in front of the landmark");
            }
        }
        (None, Some(landmark)) => {
            if let Some(first) = toc.entries.iter().filter(data).find(|entry| entry.offset < landmark.offset)
            {
                let place = layer.clone().file(&landmark.name);
                let message = format!("it says that nothing is prefetched, behind {:?}", first.name);
                findings.add(&rules::LANDMARK_MISPLACED, place, message);
            }
        }
    }
}

fn content(entry: &TocEntry, layer: &Place, findings: &mut Findings) {
    let expected = Digest::of(&[LANDMARK_CONTENT]);
    let digests = [&entry.chunk_digest, &entry.digest];
    let other = digests.into_iter().any(|text| text.parse::<Digest>().is_ok_and(|digest| digest != expected));
    if entry.entry_type != "reg" || entry.size != 1 || other {
        let message = match entry.entry_type.as_str() {
            "reg" if entry.size == 1 => "its one byte is not 0x0f".to_owned(),
            "reg" => format!("it has {} bytes", entry.size),
            kind => format!("it is a {kind}"),
        };
        findings.add(&rules::LANDMARK_CONTENT, layer.clone().file(&entry.name), message);
    }
}
