//! Where the bytes of files are: chunks in order, without gaps, inside the layer, each with its digest. Must not know
//! what else entries say.

use super::TocView;
use crate::{
    digest::Digest,
    estargz::{FIRST_CHUNK_MIN, MERGE_BUFFER_SIZE, toc::TocEntry},
    members::MemberKind,
    verify::{
        finding::{Findings, Place},
        names::clean,
        rules,
    },
};

/// Deflate codes at most 258 bytes in two bits: so many bytes come of one.
const DEFLATE_MAX: u64 = 1032;
/// A block of zstd repeats one byte 128 Ki times, and takes four: so many bytes come of one.
const ZSTD_MAX: u64 = (128 << 10) / 4;

/// A file whose chunks are being gone through.
struct Open<'a> {
    first: &'a TocEntry,
    /// Where the chunks so far end in the file.
    end: u64,
    chunks: usize,
}

pub(super) fn check(toc: TocView<'_>, layer: &Place, findings: &mut Findings) {
    let mut open: Option<Open<'_>> = None;
    for (index, entry) in toc.entries.iter().enumerate() {
        let place = || layer.clone().file(&entry.name);
        let belongs = open.as_ref().is_some_and(|file| clean(&file.first.name) == clean(&entry.name));
        if entry.entry_type == "chunk" {
            if !belongs {
                finish(open.take(), layer, findings);
                findings.add(&rules::CHUNK_ORPHAN, place(), "the entry in front of it is not of its file");
                continue;
            }
        } else {
            finish(open.take(), layer, findings);
            if entry.entry_type == "reg" && entry.size > 0 {
                open = Some(Open { first: entry, end: 0, chunks: 0 });
            }
        }
        if let Some(file) = &mut open {
            let next = toc.entries.get(index + 1);
            let more = next
                .is_some_and(|next| next.entry_type == "chunk" && clean(&next.name) == clean(&entry.name));
            chunk(file, entry, more, layer, findings);
            digests(toc, file, entry, more, layer, findings);
        }
    }
    finish(open.take(), layer, findings);
    places(toc, layer, findings);
}

fn chunk(file: &mut Open<'_>, entry: &TocEntry, more: bool, layer: &Place, findings: &mut Findings) {
    let start = entry.chunk_offset;
    let size = file.first.size;
    let place = || layer.clone().file(&entry.name).at(start);
    if start > file.end {
        let message = format!("no chunk holds the bytes from {} to {start}", file.end);
        findings.add(&rules::CHUNK_GAP, place(), message);
    } else if start < file.end {
        let message = format!("the chunk begins at {start}, and the one in front of it ends at {}", file.end);
        findings.add(&rules::CHUNK_OVERLAP, place(), message);
    }
    if entry.chunk_size == 0 && more {
        findings.add(&rules::CHUNK_EMPTY, place(), "the chunk states no size, and is not the last one");
    }
    let left = size.saturating_sub(start);
    let length = if entry.chunk_size == 0 { left } else { entry.chunk_size };
    if length > left || length == 0 {
        let message = format!("the chunk of {length} bytes ends behind the file's {size} bytes");
        findings.add(&rules::CHUNK_BEYOND_END, place(), message);
    }
    if file.chunks == 0 && size > FIRST_CHUNK_MIN && length < FIRST_CHUNK_MIN {
        let message = format!("the first chunk has {length} bytes, the file {size}");
        findings.add(&rules::CHUNK_FIRST_SMALL, place(), message);
    }
    let end = start.saturating_add(length);
    // Of a chunk that lies nowhere nothing more can be said.
    if length > 0 && length <= left && start / MERGE_BUFFER_SIZE != (end - 1) / MERGE_BUFFER_SIZE {
        let across = (end - 1) / MERGE_BUFFER_SIZE * MERGE_BUFFER_SIZE;
        let message = format!("the chunk from {start} to {end} lies across {across}");
        findings.add(&rules::CHUNK_MERGE_BUFFER, place(), message);
    }
    file.end = if entry.chunk_size == 0 && more { start } else { end };
    file.chunks += 1;
}

fn digests(
    toc: TocView<'_>,
    file: &Open<'_>,
    entry: &TocEntry,
    more: bool,
    layer: &Place,
    findings: &mut Findings,
) {
    let place = || layer.clone().file(&entry.name).at(entry.chunk_offset);
    let chunk = entry.chunk_digest.parse::<Digest>();
    if entry.chunk_digest.is_empty() {
        if !toc.legacy {
            findings.add(&rules::CHUNK_DIGEST_MISSING, place(), "the chunk has no digest");
        }
    } else if chunk.is_err() {
        let message = format!("the chunk's digest is {:?}", entry.chunk_digest);
        findings.add(&rules::CHUNK_DIGEST_MALFORMED, place(), message);
    }
    if entry.entry_type != "reg" || entry.digest.is_empty() {
        return;
    }
    match (entry.digest.parse::<Digest>(), chunk) {
        (Err(_), _) => {
            let message = format!("the file's digest is {:?}", entry.digest);
            findings.add(&rules::ENTRY_DIGEST, place(), message);
        }
        (Ok(whole), Ok(chunk)) if !more && file.end == file.first.size && whole != chunk => {
            let message = format!("the file's digest is {whole}, that of its only chunk is {chunk}");
            findings.add(&rules::ENTRY_DIGEST, place(), message);
        }
        _ => {}
    }
}

fn finish(open: Option<Open<'_>>, layer: &Place, findings: &mut Findings) {
    if let Some(file) = open.filter(|file| file.end < file.first.size) {
        let message = format!("its chunks end at {} of {} bytes", file.end, file.first.size);
        findings.add(&rules::CHUNK_MISSING, layer.clone().file(&file.first.name).at(file.end), message);
    }
}

/// A chunk's place in the layer.
struct Member<'a> {
    entry: &'a TocEntry,
    /// Length of the chunk in bytes.
    length: u64,
}

/// Where chunks lie in the layer: ascending, each in a place that could hold it.
fn places(toc: TocView<'_>, layer: &Place, findings: &mut Findings) {
    let mut size = 0;
    let mut members: Vec<Member<'_>> = Vec::new();
    for entry in toc.entries {
        match entry.entry_type.as_str() {
            "reg" => size = entry.size,
            "chunk" => {}
            _ => continue,
        }
        let left = size.saturating_sub(entry.chunk_offset);
        let length = if entry.chunk_size == 0 { left } else { entry.chunk_size.min(left) };
        if size == 0 || length == 0 {
            continue;
        }
        let place = || layer.clone().file(&entry.name).at(entry.chunk_offset);
        // Byte 0 is the first entry's header.
        if entry.offset == 0 && entry.inner_offset == 0 || entry.offset >= toc.toc_offset {
            let message = format!(
                "the chunk would lie at byte {} of the layer, whose payloads lie between 1 and {}",
                entry.offset, toc.toc_offset
            );
            findings.add(&rules::DATA_OFFSET, place(), message);
            continue;
        }
        members.push(Member { entry, length });
    }
    for pair in members.windows(2) {
        let [before, after] = pair else { continue };
        let (first, second) = (before.entry, after.entry);
        let place = layer.clone().file(&second.name).at(second.chunk_offset);
        if second.offset < first.offset {
            let message = format!(
                "the chunk lies at byte {} of the layer, behind it in the table of contents is one at {}",
                first.offset, second.offset
            );
            findings.add(&rules::DATA_ORDER, place, message);
        } else if second.offset == first.offset
            && second.inner_offset < first.inner_offset.saturating_add(before.length)
        {
            let message =
                format!("it would lie at byte {} of the layer, as {:?} does", second.offset, first.name);
            findings.add(&rules::DATA_OVERLAP, place, message);
        }
    }
    sizes(toc, &members, layer, findings);
    if let Some(shared) = members.iter().find(|member| member.entry.inner_offset > 0) {
        let message = format!("it begins at byte {} of a member", shared.entry.inner_offset);
        findings.add(&rules::INNER_OFFSET, layer.clone().file(&shared.entry.name), message);
    }
}

/// Whether each member could unpack to what it is said to hold.
fn sizes(toc: TocView<'_>, members: &[Member<'_>], layer: &Place, findings: &mut Findings) {
    let mut offsets: Vec<u64> = members.iter().map(|member| member.entry.offset).collect();
    offsets.push(toc.toc_offset);
    offsets.sort_unstable();
    offsets.dedup();
    let most = match toc.kind {
        MemberKind::Gzip => DEFLATE_MAX,
        MemberKind::Zstd => ZSTD_MAX,
    };
    for member in members {
        let start = member.entry.offset;
        let next = offsets.partition_point(|offset| *offset <= start);
        let end = offsets.get(next).copied().unwrap_or(toc.toc_offset);
        let holds = (end - start).saturating_mul(most);
        let needs = member.entry.inner_offset.saturating_add(member.length);
        if needs > holds {
            let message =
                format!("{needs} bytes cannot come of the {} from byte {start} of the layer on", end - start);
            let place = layer.clone().file(&member.entry.name).at(member.entry.chunk_offset);
            findings.add(&rules::DATA_SIZE, place, message);
        }
    }
}
