//! What zstd:chunked says of its table of contents besides eStargz: the header of its frame, the lengths in the footer, and
//! annotations of its place and digest. Pure. Must not know what the table lists.
//!
//! Source: stargz-snapshotter, `estargz/zstdchunked` and `store/manager.go`; containers/storage, `pkg/chunked/toc`, for what
//! readers look at.

use super::{
    finding::{Findings, Place, Rule},
    rules,
};
use crate::{
    estargz::TOC_DIGEST_ANNOTATION,
    zstd_chunked::{
        MANIFEST_CHECKSUM_ANNOTATION, MANIFEST_POSITION_ANNOTATION, STORAGE_CHECKSUM_ANNOTATION,
        STORAGE_POSITION_ANNOTATION, Table,
    },
};

/// Holds a table of contents against its frame, its footer and the descriptor's annotations; `layer` is the place of its layer.
pub(super) fn check(
    table: &Table,
    annotation: &dyn Fn(&str) -> Option<String>,
    layer: &Place,
    findings: &mut Findings,
) {
    let mut add = |rule: &'static Rule, message: String| findings.add(rule, layer.clone(), message);
    let footer = table.footer;
    let room = table.footer_offset.saturating_sub(footer.toc_offset);
    match table.frame_content {
        None => add(&rules::TOC_FRAME, "what is in front of it is no skippable frame's header".to_owned()),
        Some(content) if content < footer.compressed || content > room => {
            let message = format!("its frame has {content} bytes, the footer says {}", footer.compressed);
            add(&rules::TOC_FRAME, message);
        }
        Some(content) if content > footer.compressed => {
            let more = content - footer.compressed;
            add(&rules::TOC_TRAILING, format!("{more} bytes follow the table of contents in its frame"));
        }
        Some(_) => {}
    }
    if footer.uncompressed != table.length {
        let message = format!("it has {} bytes, the footer says {}", table.length, footer.uncompressed);
        add(&rules::TOC_LENGTH, message);
    }
    let (checksum, position) = (table.checksum.to_string(), table.position());
    let names = [MANIFEST_CHECKSUM_ANNOTATION, MANIFEST_POSITION_ANNOTATION];
    let storage = [STORAGE_CHECKSUM_ANNOTATION, STORAGE_POSITION_ANNOTATION];
    for (names, expected) in names.into_iter().zip(storage).zip([checksum, position]) {
        let stated: Vec<(&str, String)> =
            [names.0, names.1].into_iter().filter_map(|name| Some((name, annotation(name)?))).collect();
        if stated.is_empty() {
            add(&rules::TOC_POSITION_MISSING, format!("there is no {}", names.0));
        }
        for (name, text) in stated.into_iter().filter(|(_, text)| *text != expected) {
            let message = format!("{name} is {text:?}, and {expected:?} would be right");
            add(&rules::TOC_POSITION_DIFFERS, message);
        }
    }
    if annotation(TOC_DIGEST_ANNOTATION).is_some() && annotation(STORAGE_CHECKSUM_ANNOTATION).is_some() {
        let message = format!("there are both {TOC_DIGEST_ANNOTATION} and {STORAGE_CHECKSUM_ANNOTATION}");
        add(&rules::TOC_ANNOTATIONS_BOTH, message);
    }
}
