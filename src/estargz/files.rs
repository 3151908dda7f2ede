//! The files of an opened layer: which there are, where their chunks lie, and reading and verifying them through
//! ranges. Every size and offset comes from the layer and is taken for hostile. Must not know where ranges come from.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
};

use sha2::{Digest as _, Sha256};

use super::{
    reader::{EstargzReader, ReadError},
    toc::TocEntry,
};
use crate::{
    blob::RangeSource,
    digest::Digest,
    members::{MemberError, MemberKind, Members, Step},
};

/// Bytes that are read of a layer at a time.
const READ_AHEAD: usize = 1 << 20;

/// Where a part of a file lies in a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// Its length in bytes, never 0.
    pub length: u64,
    /// Where the gzip member or zstd frame that holds it begins in the layer, in bytes.
    pub member: u64,
    /// Where the next member that holds anything begins in the layer, or the table of contents, in bytes.
    pub member_end: u64,
    /// Where the chunk begins in the decompressed member, in bytes.
    pub inner_offset: u64,
    /// SHA-256 of its bytes; layers from before eStargz have none.
    pub digest: Option<Digest>,
}

/// The regular files of a layer.
#[derive(Debug, Clone)]
pub struct Files {
    kind: MemberKind,
    by_path: BTreeMap<String, File>,
}

/// A regular file of a layer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct File {
    /// Size in bytes.
    pub size: u64,
    /// Its parts, from the first byte to the last without a gap.
    pub chunks: Vec<Chunk>,
}

impl Files {
    /// Finds the regular files of a layer in its table of contents. Time and memory are bounded by that table's length.
    ///
    /// # Errors
    /// [`ReadError::Toc`] when a file is listed twice, or its chunks leave a gap, overlap, or lie outside the layer.
    pub fn of(reader: &EstargzReader) -> Result<Self, ReadError> {
        let entries = &reader.toc.entries;
        let mut members: Vec<u64> =
            entries.iter().filter(|entry| holds_data(entry)).map(|entry| entry.offset).collect();
        members.push(reader.toc_offset);
        members.sort_unstable();
        members.dedup();
        let mut by_path: BTreeMap<String, File> = BTreeMap::new();
        let mut rest = entries.iter().peekable();
        while let Some(entry) = rest.next() {
            let broken = |what: &str| ReadError::Toc(format!("{what} of {:?}", entry.name));
            if entry.entry_type == "chunk" {
                return Err(broken("a chunk follows no other"));
            }
            if entry.entry_type != "reg" {
                continue;
            }
            let path = clean(&entry.name);
            let is_same = |name: &str| *name == entry.name || clean(name) == path;
            let mut file = File { size: entry.size, chunks: Vec::new() };
            let mut next = Some(entry).filter(|entry| entry.size > 0);
            let mut end = 0;
            while let Some(part) = next {
                let left = entry.size.checked_sub(end).filter(|left| *left > 0);
                let left = left.ok_or_else(|| broken("a chunk lies behind the end"))?;
                let length = if part.chunk_size == 0 { left } else { part.chunk_size };
                if part.chunk_offset != end || length > left {
                    return Err(broken("chunks leave a gap or overlap: those"));
                }
                if part.offset >= reader.toc_offset {
                    return Err(broken("a chunk lies outside the layer: one"));
                }
                let behind = members.partition_point(|member| *member <= part.offset);
                let member_end = members.get(behind).copied().unwrap_or(reader.toc_offset);
                let digest = match part.chunk_digest.as_str() {
                    "" => None,
                    text => Some(text.parse().map_err(|_| broken("a digest is none: one"))?),
                };
                file.chunks.push(Chunk {
                    offset: end,
                    length,
                    member: part.offset,
                    member_end: member_end.min(reader.toc_offset),
                    inner_offset: part.inner_offset,
                    digest,
                });
                end += length;
                next = rest.next_if(|next| next.entry_type == "chunk" && is_same(&next.name));
            }
            if end != entry.size {
                return Err(broken("chunks are missing"));
            }
            if by_path.insert(path, file).is_some() {
                return Err(broken("there are two"));
            }
        }
        Ok(Self { kind: reader.kind, by_path })
    }

    /// The files by path, without empty parts and `.` in it, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &File)> {
        self.by_path.iter().map(|(path, file)| (path.as_str(), file))
    }

    /// A file; `None` if the layer has no regular file of that path.
    pub fn get(&self, path: &str) -> Option<&File> {
        self.by_path.get(&clean(path))
    }

    /// Reads the `length` bytes of a file from `offset`, or up to its end, from the layer in `source`. Every chunk that
    /// they touch is read whole and compared with its digest before anything is returned.
    ///
    /// # Errors
    /// [`ReadError::NoSuchFile`]; [`ReadError::Read`] when a range cannot be had; [`ReadError::Damaged`] and
    /// [`ReadError::ChunkDigest`] when it is not what the table of contents says.
    pub fn read(
        &self,
        source: &dyn RangeSource,
        path: &str,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>, ReadError> {
        let file = self.get(path).ok_or_else(|| ReadError::NoSuchFile { path: path.to_owned() })?;
        let end = offset.saturating_add(length as u64).min(file.size);
        let mut bytes = Vec::new();
        // Chunks lie in order: the first that ends behind the start is where to begin.
        let first = file.chunks.partition_point(|chunk| chunk.offset + chunk.length <= offset);
        for chunk in file.chunks.iter().skip(first).take_while(|chunk| chunk.offset < end) {
            let skip = offset.saturating_sub(chunk.offset);
            let wanted = end.min(chunk.offset + chunk.length) - chunk.offset - skip;
            let mut window = Window { skip, left: wanted, bytes: &mut bytes };
            read_chunk(source, self.kind, path, chunk, &mut window)?;
        }
        Ok(bytes)
    }

    /// Reads all of a file from the layer in `source` and compares each chunk with its digest, in a memory that does not
    /// depend on the file's size.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn verify(&self, source: &dyn RangeSource, path: &str) -> Result<(), ReadError> {
        let file = self.get(path).ok_or_else(|| ReadError::NoSuchFile { path: path.to_owned() })?;
        file.chunks.iter().try_for_each(|chunk| read_chunk(source, self.kind, path, chunk, &mut io::sink()))
    }
}

/// Whether an entry has bytes in the layer.
fn holds_data(entry: &TocEntry) -> bool {
    entry.entry_type == "chunk" || (entry.entry_type == "reg" && entry.size > 0)
}

/// `path` without empty parts and `.`, as readers look files up; empty for the root itself.
pub(crate) fn clean(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    parts.join("/")
}

/// Decompresses a chunk into `to` and compares it with its digest.
fn read_chunk(
    source: &dyn RangeSource,
    kind: MemberKind,
    path: &str,
    chunk: &Chunk,
    to: &mut dyn Write,
) -> Result<(), ReadError> {
    let mut ranges = Ranges { source, position: chunk.member, end: chunk.member_end, failure: None };
    let mut digest = Sha256::new();
    let mut copy = || -> Result<u64, MemberError> {
        let mut members = Members::new(kind, io::BufReader::with_capacity(READ_AHEAD, &mut ranges));
        let mut piece = vec![0; READ_AHEAD.min(usize::try_from(chunk.length).unwrap_or(READ_AHEAD))];
        let (mut skip, mut copied) = (chunk.inner_offset, 0);
        while copied < chunk.length {
            let read = match members.read(&mut piece)? {
                Step::Bytes(count) => piece.get(..count).unwrap_or_default(),
                Step::MemberEnd(_) => continue,
                Step::End => break,
            };
            // Neither is more than the length of a slice.
            let skipped = usize::try_from(skip).unwrap_or(read.len()).min(read.len());
            skip -= skipped as u64;
            let rest = read.get(skipped..).unwrap_or_default();
            let wanted = usize::try_from(chunk.length - copied).unwrap_or(rest.len()).min(rest.len());
            let rest = rest.get(..wanted).unwrap_or_default();
            digest.update(rest);
            to.write_all(rest).map_err(MemberError::Read)?;
            copied += rest.len() as u64;
        }
        Ok(copied)
    };
    let copied = copy();
    if let Some((offset, end, cause)) = ranges.failure.take() {
        return Err(ReadError::Read { offset, end, cause });
    }
    let damaged = |cause| ReadError::Damaged { path: path.to_owned(), offset: chunk.offset, cause };
    let copied = copied.map_err(|error| match error {
        MemberError::Read(cause) => damaged(cause),
        // Its place is one within the range that was read.
        MemberError::CutShort { .. } => damaged(io::Error::from(io::ErrorKind::UnexpectedEof)),
        MemberError::NoMember { .. } => damaged(io::Error::other(format!("no {kind} begins at its place"))),
        MemberError::Damaged { reason, .. } => damaged(io::Error::other(reason)),
    })?;
    if copied != chunk.length {
        let message = format!("it has {copied} bytes of {}", chunk.length);
        return Err(damaged(io::Error::new(io::ErrorKind::UnexpectedEof, message)));
    }
    let actual = Digest::finish(digest);
    match chunk.digest.filter(|expected| *expected != actual) {
        None => Ok(()),
        Some(expected) => {
            Err(ReadError::ChunkDigest { path: path.to_owned(), offset: chunk.offset, expected, actual })
        }
    }
}

/// Takes a part of what is written to it.
struct Window<'a> {
    skip: u64,
    left: u64,
    bytes: &'a mut Vec<u8>,
}

impl Write for Window<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len() as u64;
        let skipped = self.skip.min(length);
        self.skip -= skipped;
        let taken = (length - skipped).min(self.left);
        self.left -= taken;
        // Both are no more than the length of a slice.
        let range = usize::try_from(skipped).unwrap_or(0)..usize::try_from(skipped + taken).unwrap_or(0);
        self.bytes.extend_from_slice(bytes.get(range).unwrap_or_default());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A part of a layer as a stream.
struct Ranges<'a> {
    source: &'a dyn RangeSource,
    position: u64,
    end: u64,
    /// Which range failed, and why: decompressors wrap errors beyond recognition.
    failure: Option<(u64, u64, io::Error)>,
}

impl Read for Ranges<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let length = left.min(buffer.len());
        if length == 0 {
            return Ok(0);
        }
        match self.source.read_range(self.position, length) {
            Ok(bytes) => {
                let (to, from) = (buffer.get_mut(..bytes.len()), bytes.as_slice());
                to.ok_or_else(|| io::Error::other("more came than was asked for"))?.copy_from_slice(from);
                self.position += bytes.len() as u64;
                Ok(bytes.len())
            }
            Err(cause) => {
                let told = io::Error::new(cause.kind(), cause.to_string());
                self.failure = Some((self.position, self.position.saturating_add(length as u64), cause));
                Err(told)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estargz::toc::{Toc, VERSION};

    #[test]
    fn chunks_belong_to_a_file_however_its_path_is_written() {
        let entry = |name: &str, entry_type: &str, chunk_offset| TocEntry {
            name: name.to_owned(),
            entry_type: entry_type.to_owned(),
            size: if chunk_offset == 0 { 10 } else { 0 },
            chunk_offset,
            chunk_size: 5,
            ..TocEntry::default()
        };
        let of = |chunk: &str| {
            let entries = vec![entry("models/x", "reg", 0), entry(chunk, "chunk", 5)];
            let toc = Toc { version: VERSION, entries, tar_split_digest: String::new() };
            let toc_digest = Digest::of(b"");
            Files::of(&EstargzReader {
                kind: MemberKind::Gzip,
                toc,
                toc_digest,
                toc_offset: 100,
                is_legacy: false,
                trailing: 0,
                table: None,
            })
        };
        for name in ["models/x", "./models/x", "/models//./x"] {
            let files = of(name).unwrap();
            assert_eq!(files.get(name).unwrap().chunks.len(), 2, "{name}");
        }
        assert!(of("models/y").is_err());
    }
}
