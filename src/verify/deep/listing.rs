//! The table of contents while a tar stream is held against it: which entry comes next, which have been seen, and where
//! its chunks should lie. Every number in it is taken for hostile. Must not know how the stream is read.

use std::collections::HashMap;

use crate::{
    digest::Digest,
    estargz::{EstargzReader, toc::TocEntry},
    members::MemberKind,
    verify::names::clean,
};

/// An entry of the table of contents with its chunks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listed<'a> {
    pub(super) entry: &'a TocEntry,
    /// The entry, and the chunks that follow it.
    parts: &'a [TocEntry],
    /// Names of owner and group, from entries before where this one leaves them out.
    pub(super) user: &'a str,
    pub(super) group: &'a str,
}

/// A chunk of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListedChunk {
    /// Where it begins in the file, in bytes.
    pub(super) offset: u64,
    /// Bytes, never 0.
    pub(super) length: u64,
    /// Where its member begins in the blob, and it in the member.
    pub(super) member: u64,
    pub(super) inner: u64,
    pub(super) digest: Option<Digest>,
}

impl Listed<'_> {
    /// The chunks of the file; none where it has no bytes, or where the chunks are not one behind the other, which is
    /// seen without reading the layer.
    pub(super) fn chunks(&self) -> Vec<ListedChunk> {
        let size = self.entry.size;
        let mut chunks = Vec::new();
        let mut end = 0;
        for part in self.parts {
            let left = size.saturating_sub(end);
            let length = if part.chunk_size == 0 { left } else { part.chunk_size };
            if part.chunk_offset != end || length == 0 || length > left {
                return Vec::new();
            }
            chunks.push(ListedChunk {
                offset: end,
                length,
                member: part.offset,
                inner: part.inner_offset,
                digest: part.chunk_digest.parse().ok(),
            });
            end += length;
        }
        if end == size { chunks } else { Vec::new() }
    }
}

/// The table of contents of a layer.
pub(super) struct Listing<'a> {
    entries: Vec<Listed<'a>>,
    seen: Vec<bool>,
    by_path: HashMap<String, usize>,
    /// Behind the last entry that was seen.
    next: usize,
    /// Where members begin that the table names: in the blob, and then in the decompressed stream.
    members: HashMap<u64, Option<u64>>,
    /// Where the table's own member or frame begins in the blob.
    pub(super) toc_offset: u64,
    /// Whether the table is an entry of the tar stream.
    pub(super) is_in_tar: bool,
}

impl<'a> Listing<'a> {
    pub(super) fn of(reader: &'a EstargzReader) -> Self {
        let all = reader.toc.entries.as_slice();
        let is_chunk = |entry: &TocEntry| entry.entry_type == "chunk";
        let mut entries = Vec::new();
        let mut by_path = HashMap::new();
        let mut members = HashMap::from([(reader.toc_offset, None)]);
        let (mut users, mut groups) = (HashMap::new(), HashMap::new());
        for (index, entry) in all.iter().enumerate() {
            if is_chunk(entry) || entry.entry_type == "reg" {
                members.insert(entry.offset, None);
            }
            if is_chunk(entry) {
                continue;
            }
            let rest = all.get(index + 1..).unwrap_or_default();
            let count = 1 + rest.iter().take_while(|entry| is_chunk(entry)).count();
            by_path.entry(clean(&entry.name)).or_insert(entries.len());
            entries.push(Listed {
                entry,
                parts: all.get(index..index + count).unwrap_or_default(),
                user: name(&mut users, entry.uid, &entry.user_name),
                group: name(&mut groups, entry.gid, &entry.group_name),
            });
        }
        let seen = vec![false; entries.len()];
        let is_in_tar = reader.kind == MemberKind::Gzip;
        Self { entries, seen, by_path, next: 0, members, toc_offset: reader.toc_offset, is_in_tar }
    }

    /// The entry of a path that was not seen yet, which is so now, and whether it comes behind those that were.
    pub(super) fn take(&mut self, path: &str) -> Option<(Listed<'a>, bool)> {
        // Of several entries of one name, the one that is its turn.
        let is_next = |listed: &Listed<'a>| clean(&listed.entry.name) == path;
        let index = if self.entries.get(self.next).is_some_and(is_next) {
            self.next
        } else {
            *self.by_path.get(path)?
        };
        let seen = self.seen.get_mut(index)?;
        if std::mem::replace(seen, true) {
            return None;
        }
        let in_order = index >= self.next;
        self.next = self.next.max(index + 1);
        Some((*self.entries.get(index)?, in_order))
    }

    /// The entries that have not been seen.
    pub(super) fn unseen(&self) -> impl Iterator<Item = Listed<'a>> {
        self.entries.iter().zip(&self.seen).filter(|(_, seen)| !**seen).map(|(listed, _)| *listed)
    }

    /// Remembers a member that begins at byte `offset` of the blob and at byte `output` of the decompressed stream, if
    /// the table names it.
    pub(super) fn member(&mut self, offset: u64, output: u64) {
        if let Some(member) = self.members.get_mut(&offset) {
            *member = Some(output);
        }
    }

    /// Where the member that begins at byte `offset` of the blob begins in the decompressed stream; `None` when no member
    /// has begun there.
    pub(super) fn output_of(&self, offset: u64) -> Option<u64> {
        self.members.get(&offset).copied().flatten()
    }
}

/// The name of an owner: writers leave out one that is the same as in the last entry of that owner.
fn name<'a>(known: &mut HashMap<u64, &'a str>, id: u64, stated: &'a str) -> &'a str {
    if stated.is_empty() {
        return known.get(&id).copied().unwrap_or_default();
    }
    known.insert(id, stated);
    stated
}
