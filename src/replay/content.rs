//! What a lazily mounted layer holds, ordered by what a node fetches and verifies at a time: gzip members or zstd frames.
//! Everything comes from the layer's table of contents and is taken for hostile. Must not know requests.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::FileExt as _,
    sync::atomic::{AtomicU8, Ordering},
};

use sha2::{Digest as _, Sha256};

use super::{
    ranges::{Span, pieces},
    record::Cause,
};
use crate::{
    digest::Digest,
    estargz::{EstargzReader, Files, NO_PREFETCH_LANDMARK, PREFETCH_LANDMARK, ReadError},
    members::{MemberError, MemberKind, Members, Step},
};

/// Bytes that are read of a file at a time.
const STEP: usize = 256 << 10;

/// A layer's files and members.
#[derive(Debug)]
pub(super) struct Content {
    kind: MemberKind,
    /// In alphabetical order.
    pub(super) files: Vec<FileContent>,
    pub(super) members: Vec<Member>,
    /// Bytes from the blob's start that are prefetched; `None` where the layer says that nothing is.
    pub(super) prefetch: Option<u64>,
}

/// A regular file.
#[derive(Debug)]
pub(super) struct FileContent {
    pub(super) path: String,
    pub(super) size: u64,
    /// Where each chunk ends in the file, and the member that holds it.
    pub(super) chunks: Vec<(u64, usize)>,
    /// Where the file's last member ends in the blob: no read for the file goes on behind it.
    end: u64,
}

/// A gzip member or zstd frame. All chunks in it are made when one is.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) span: Span,
    parts: Vec<Part>,
    /// [`Cause`] that brought it into the second cache, counted from 1; 0 while it is not there.
    made: AtomicU8,
}

#[derive(Debug)]
struct Part {
    file: usize,
    offset: u64,
    length: u64,
    inner: u64,
    digest: Option<Digest>,
}

impl Content {
    /// The content of an opened layer of `size` bytes.
    pub(super) fn of(reader: &EstargzReader, size: u64) -> Result<Self, ReadError> {
        let listed = Files::of(reader)?;
        let mut by_start: BTreeMap<u64, usize> = BTreeMap::new();
        let mut members: Vec<Member> = Vec::new();
        let mut files = Vec::new();
        for (index, (path, file)) in listed.iter().enumerate() {
            let end = file.chunks.last().map_or(0, |chunk| chunk.member_end);
            // What ends with the last member is taken to end with the blob.
            let end = if end >= reader.toc_offset { size } else { end };
            let mut chunks = Vec::with_capacity(file.chunks.len());
            for chunk in &file.chunks {
                let member = *by_start.entry(chunk.member).or_insert_with(|| {
                    let span = Span::new(chunk.member, chunk.member_end);
                    members.push(Member { span, parts: Vec::new(), made: AtomicU8::new(0) });
                    members.len() - 1
                });
                chunks.push((chunk.offset.saturating_add(chunk.length), member));
                if let Some(member) = members.get_mut(member) {
                    member.parts.push(Part {
                        file: index,
                        offset: chunk.offset,
                        length: chunk.length,
                        inner: chunk.inner_offset,
                        digest: chunk.digest,
                    });
                }
            }
            files.push(FileContent { path: path.to_owned(), size: file.size, chunks, end });
        }
        for member in &mut members {
            member.parts.sort_by_key(|part| part.inner);
        }
        let landmark =
            |name: &str| reader.toc.entries.iter().find(|entry| entry.name.trim_start_matches("./") == name);
        let prefetch = match (landmark(NO_PREFETCH_LANDMARK), landmark(PREFETCH_LANDMARK)) {
            (Some(_), _) => None,
            (None, Some(entry)) => Some(entry.offset.min(size)),
            // Without `prefetch_size` a node asks for one unit: that of the byte before the blob's first.
            (None, None) => Some(size.min(1)),
        };
        Ok(Self { kind: reader.kind, files, members, prefetch })
    }

    /// The reads that make a member, for a file.
    pub(super) fn pieces(&self, file: &FileContent, member: usize) -> impl Iterator<Item = Span> + use<> {
        let span = self.members.get(member).map_or(Span::new(0, 0), |member| member.span);
        pieces(self.kind, span.start, span.end, file.end.max(span.end))
    }

    /// Decompresses a member that lies in `blob` at its own offset, and compares each of its chunks with its digest.
    pub(super) fn verify(&self, member: &Member, blob: &File) -> Result<(), ReadError> {
        let section = Section { file: blob, span: member.span };
        let mut content = Members::new(self.kind, BufReader::with_capacity(STEP, section));
        let mut buffer = vec![0; STEP];
        let mut position = 0;
        for part in &member.parts {
            let damaged = |cause| {
                let path = self.files.get(part.file).map_or_else(String::new, |file| file.path.clone());
                ReadError::Damaged { path, offset: part.offset, cause }
            };
            let skip = part.inner.checked_sub(position);
            let skip = skip.ok_or_else(|| damaged(io::Error::other("chunks of a member overlap")))?;
            hash(&mut content, skip, &mut buffer, None).map_err(damaged)?;
            let mut digest = Sha256::new();
            hash(&mut content, part.length, &mut buffer, Some(&mut digest)).map_err(damaged)?;
            position = part.inner.saturating_add(part.length);
            let actual = Digest::finish(digest);
            if let Some(expected) = part.digest.filter(|expected| *expected != actual) {
                let path = self.files.get(part.file).map_or_else(String::new, |file| file.path.clone());
                return Err(ReadError::ChunkDigest { path, offset: part.offset, expected, actual });
            }
        }
        Ok(())
    }
}

impl FileContent {
    /// The members that hold some of the bytes from `offset` to `end`, in order, none twice in a row.
    pub(super) fn members(&self, offset: u64, end: u64) -> Vec<usize> {
        let first = self.chunks.partition_point(|(chunk_end, _)| *chunk_end <= offset);
        let mut found = Vec::new();
        let mut begin =
            first.checked_sub(1).and_then(|before| self.chunks.get(before)).map_or(0, |(end, _)| *end);
        for (chunk_end, member) in self.chunks.iter().skip(first) {
            if begin >= end {
                break;
            }
            if found.last() != Some(member) {
                found.push(*member);
            }
            begin = *chunk_end;
        }
        found
    }

    /// Whether the file begins before `offset` in the blob.
    pub(super) fn begins_before(&self, content: &Content, offset: u64) -> bool {
        let first = self.chunks.first().and_then(|(_, member)| content.members.get(*member));
        first.is_some_and(|member| member.span.start < offset)
    }
}

impl Member {
    /// What brought the member into the second cache; `None` while it is not there.
    pub(super) fn made_by(&self) -> Option<Cause> {
        let number = usize::from(self.made.load(Ordering::Acquire));
        number.checked_sub(1).and_then(|index| Cause::ALL.get(index)).copied()
    }

    pub(super) fn set_made(&self, cause: Cause) {
        let number = u8::try_from(cause.index() + 1).unwrap_or(u8::MAX);
        // Whoever came first counts.
        let _ = self.made.compare_exchange(0, number, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// Reads `length` bytes, into a digest if there is one.
fn hash(
    from: &mut Members<impl BufRead>,
    length: u64,
    buffer: &mut [u8],
    mut digest: Option<&mut Sha256>,
) -> io::Result<()> {
    let mut left = length;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let (part, _) = buffer.split_at_mut(most);
        let count = match from.read(part) {
            Ok(Step::Bytes(count)) => count,
            Ok(Step::MemberEnd(_)) => continue,
            Ok(Step::End) => {
                let message = format!("it has {} bytes of {length}", length - left);
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
            }
            Err(MemberError::Read(error)) => return Err(error),
            Err(error) => return Err(io::Error::other(error)),
        };
        if let Some(digest) = &mut digest {
            digest.update(part.get(..count).unwrap_or_default());
        }
        left -= count as u64;
    }
    Ok(())
}

/// A part of a file as a stream.
struct Section<'a> {
    file: &'a File,
    span: Span,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.span.len()).unwrap_or(usize::MAX).min(buffer.len());
        let (part, _) = buffer.split_at_mut(most);
        loop {
            match self.file.read_at(part, self.span.start) {
                // A decompressor would take it for damage.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(count) => {
                    self.span.start += count as u64;
                    return Ok(count);
                }
            }
        }
    }
}
