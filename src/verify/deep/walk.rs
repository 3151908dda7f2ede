//! Goes through a layer's decompressed stream: holds its entries against the table of contents, and parts payloads into
//! chunks and files for the threads that hash them. Must not know how the stream is decompressed.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, mpsc::SyncSender},
};

use super::{
    Wanted, fields,
    hashes::{Item, Part},
    listing::{ListedChunk, Listing},
    pieces::Piece,
};
use crate::{
    digest::Digest,
    estargz::{EstargzReader, TOC_NAME},
    layer::tar_reader::{TarEntry, TarEvent, TarReader},
    members::Member,
    verify::{
        finding::{Findings, Place},
        names::clean,
        plain::{ENTRIES_MAX, Lister, check_end},
        rules,
    },
};

/// Zero bytes of the end-of-archive marker.
const MARKER: u64 = 1024;

/// The threads that hash parts.
pub(super) struct Hashers {
    /// Gets chunks, and files that are one chunk.
    pub(super) chunks: SyncSender<Item>,
    /// Gets files of several chunks, and those of layers without a table of contents.
    pub(super) files: SyncSender<Item>,
}

/// A layer's stream on its way through.
pub(super) struct Walk<'a> {
    layer: &'a Place,
    listing: Option<Listing<'a>>,
    wanted: &'a (dyn Fn(&str) -> Wanted + Sync),
    hashers: Hashers,
    tar: TarReader,
    /// Whether the tar stream could not be read on.
    is_broken: bool,
    /// The member that the current bytes come from.
    member: Member,
    /// Whether the table of contents' own entry has come, or what lies behind its frame.
    toc_came: bool,
    file: OpenFile,
    pub(super) findings: Findings,
    /// Hard links: path and target.
    pub(super) links: Vec<(String, String)>,
    /// Lists the files, where that is wanted.
    pub(super) lister: Option<Lister>,
    /// Entries that are collected yet: what comes behind them counts as unread.
    pub(super) entries_left: usize,
    /// Whether there were more.
    is_full: bool,
}

/// What going through a stream gave.
pub(super) struct Walked {
    pub(super) findings: Findings,
    pub(super) links: Vec<(String, String)>,
    pub(super) lister: Option<Lister>,
}

/// The regular file whose payload is on its way.
#[derive(Default)]
struct OpenFile {
    path: String,
    /// Where its payload begins in the stream.
    payload_at: u64,
    size: u64,
    /// The next byte.
    position: u64,
    /// Chunks that have not ended, the first may have begun.
    chunks: VecDeque<ListedChunk>,
    /// What becomes of the digest of the only chunk, or of the file.
    whole: Option<Part>,
    /// Whether the thread for files gets the bytes.
    hash_whole: bool,
    /// Size, where Git's digest is wanted of the only chunk.
    git_size: Option<u64>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        layer: &'a Place,
        toc: Option<&'a EstargzReader>,
        wanted: &'a (dyn Fn(&str) -> Wanted + Sync),
        hashers: Hashers,
    ) -> Self {
        Self {
            layer,
            listing: toc.map(Listing::of),
            wanted,
            hashers,
            tar: TarReader::new(),
            is_broken: false,
            member: Member::default(),
            toc_came: false,
            file: OpenFile::default(),
            findings: Findings::default(),
            links: Vec::new(),
            lister: None,
            entries_left: ENTRIES_MAX,
            is_full: false,
        }
    }

    /// Says that the bytes that follow come from `member`.
    pub(super) fn begin(&mut self, member: Member) {
        self.member = member;
        if let Some(listing) = &mut self.listing {
            listing.member(member.offset, member.output);
            // Its own frame holds nothing of the stream.
            self.toc_came |= !listing.is_in_tar && member.offset >= listing.toc_offset;
            if listing.is_in_tar
                && member.offset == listing.toc_offset
                && member.output == self.tar.position()
            {
                // Some writers end the archive before the table of contents, too.
                self.tar.resume();
            }
        }
    }

    /// Takes the next bytes of the stream, a part of a piece.
    pub(super) fn bytes(&mut self, piece: &Arc<Piece>, range: Range<usize>) {
        if self.is_broken {
            return;
        }
        let mut tar = std::mem::take(&mut self.tar);
        let start = tar.position();
        let done = tar.feed(piece.part(&range), |event| {
            if matches!(event, TarEvent::Entry(_)) {
                if let Some(left) = self.entries_left.checked_sub(1) {
                    self.entries_left = left;
                } else {
                    (self.lister, self.is_full) = (None, true);
                }
            }
            if let Some(lister) = &mut self.lister {
                lister.hear(&event, self.layer, &mut self.findings);
            }
            match event {
                TarEvent::Entry(entry) => self.entry(&entry),
                TarEvent::Payload(bytes) => {
                    let in_stream = self.file.payload_at.saturating_add(self.file.position);
                    // Both are within the piece.
                    let first = usize::try_from(in_stream.saturating_sub(start)).unwrap_or(usize::MAX);
                    let first = range.start.saturating_add(first);
                    self.payload(piece, first, bytes.len());
                }
                TarEvent::PaddingNotZero { at } => {
                    let message = format!("the padding at byte {at} of the tar stream is not zeros");
                    self.findings.add(&rules::TAR_PADDING, self.here(), message);
                }
            }
        });
        self.tar = tar;
        if let Err(error) = done {
            self.is_broken = true;
            let message = format!("{error}, of {} in the tar stream", error.at());
            self.findings.add(&rules::TAR_DAMAGED, self.here(), message);
        }
    }

    /// The regular file whose bytes were last on their way, if more of them are to come.
    pub(super) fn open_file(&self) -> Option<&str> {
        let is_open = !self.is_broken && self.file.position < self.file.size && !self.file.path.is_empty();
        is_open.then_some(self.file.path.as_str())
    }

    /// Ends the stream, of which `is_whole` says whether all of it came.
    pub(super) fn finish(mut self, is_whole: bool) -> Walked {
        let is_whole = is_whole && !self.is_broken;
        if is_whole {
            self.end();
        }
        // A part of the files would pass for all of them.
        let lister = self.lister.filter(|_| is_whole);
        Walked { findings: self.findings, links: self.links, lister }
    }

    fn end(&mut self) {
        let end = match std::mem::take(&mut self.tar).finish() {
            Ok(end) => end,
            Err(error) => {
                self.findings.add(&rules::TAR_DAMAGED, self.here(), error.to_string());
                return;
            }
        };
        if self.lister.is_some() {
            check_end(end.size, self.layer, &mut self.findings);
        }
        if end.zeros < MARKER {
            let message = format!("{} zero bytes follow the last entry", end.zeros);
            self.findings.add(&rules::TAR_END, self.layer.clone(), message);
        }
        if let Some(at) = end.garbage_at {
            let message = format!("{} bytes follow the archive's end at byte {at}", end.size - at);
            self.findings.add(&rules::TAR_TRAILING, self.here(), message);
        }
        let Some(listing) = &self.listing else { return };
        if listing.is_in_tar && !self.toc_came {
            let message = format!("no entry of that name begins at byte {}", listing.toc_offset);
            self.findings.add(&rules::TOC_NOT_LAST, self.layer.clone().file(TOC_NAME), message);
        }
        for listed in listing.unseen() {
            let message = format!("the tar stream has no {} of that name", listed.entry.entry_type);
            let place = self.layer.clone().file(clean(&listed.entry.name));
            self.findings.add(&rules::TAR_MISSING, place, message);
        }
    }

    /// The current member.
    fn here(&self) -> Place {
        self.layer.clone().at(self.member.offset)
    }

    fn entry(&mut self, entry: &TarEntry) {
        let path = clean(&String::from_utf8_lossy(&entry.name));
        let place = self.layer.clone().file(&path);
        self.file = OpenFile { payload_at: entry.payload_at, size: entry.size, ..OpenFile::default() };
        if self.toc_came {
            let message = "it comes behind the table of contents".to_owned();
            self.findings.add(&rules::TOC_NOT_LAST, place.clone(), message);
        }
        if path == TOC_NAME && self.is_toc(entry) {
            self.toc_came = true;
            return;
        }
        let kind = fields::type_name(entry);
        if kind.is_none() {
            let message = format!("its type is {:?}", char::from(entry.kind.as_byte()));
            self.findings.add(&rules::TAR_KIND, place.clone(), message);
        } else if entry.sparse {
            self.findings.add(&rules::TAR_SPARSE, place.clone(), "it is stored with holes");
        }
        let mut chunks = Vec::new();
        let mut digest = None;
        if let Some(listing) = &mut self.listing {
            match listing.take(&path) {
                None => {
                    let message =
                        format!("the table of contents lists no {} of that name", kind.unwrap_or("entry"));
                    self.findings.add(&rules::TAR_EXTRA, place, message);
                }
                Some((listed, in_order)) => {
                    if !in_order {
                        let message = "the table of contents lists it before the entry that it follows here";
                        self.findings.add(&rules::TAR_ORDER, place.clone(), message);
                    }
                    fields::compare(listed, entry, &place, &mut self.findings);
                    if kind == Some("reg")
                        && listed.entry.entry_type == "reg"
                        && listed.entry.size == entry.size
                    {
                        chunks = listed.chunks();
                        digest = listed.entry.digest.parse().ok();
                    }
                }
            }
        }
        match kind {
            Some("hardlink") if self.wanted(&path) != Wanted::No => {
                self.links.push((path, clean(&String::from_utf8_lossy(&entry.link))));
            }
            Some("reg") if !entry.sparse => self.open(path, entry, chunks, digest),
            _ => {}
        }
    }

    /// What is wanted of a file, as long as there is room to tell.
    fn wanted(&self, path: &str) -> Wanted {
        if self.is_full { Wanted::No } else { (self.wanted)(path) }
    }

    /// Whether the entry is the table of contents that was opened.
    fn is_toc(&self, entry: &TarEntry) -> bool {
        let toc = self.listing.as_ref().and_then(|listing| listing.output_of(listing.toc_offset));
        toc == Some(entry.header_at)
    }

    /// Decides who hashes what of a regular file.
    fn open(&mut self, path: String, entry: &TarEntry, chunks: Vec<ListedChunk>, digest: Option<Digest>) {
        let wanted = self.wanted(&path);
        let is_wanted = wanted != Wanted::No;
        let git_size = (wanted == Wanted::WithGit).then_some(entry.size);
        let part = Part {
            path: path.clone(),
            whole: digest,
            report: is_wanted.then_some(entry.size),
            ..Part::default()
        };
        let has_use = is_wanted || digest.is_some();
        self.file.path = path;
        self.file.chunks = chunks.into();
        if self.file.chunks.len() == 1 {
            self.file.whole = Some(part);
            self.file.git_size = git_size;
        } else if has_use {
            self.file.whole = Some(part);
            self.file.hash_whole = true;
            let _ = self.hashers.files.send(Item::Begin { git_size });
            if entry.size == 0 {
                self.end_whole();
            }
        }
    }

    fn end_whole(&mut self) {
        if let Some(part) = self.file.whole.take() {
            let _ = self.hashers.files.send(Item::End(Box::new(part)));
        }
    }

    /// Takes `length` bytes of a payload that begin at byte `first` of the piece. A thread that hashes and is gone has
    /// panicked, and joining it tells.
    fn payload(&mut self, piece: &Arc<Piece>, first: usize, length: usize) {
        let end = self.file.position.saturating_add(length as u64);
        if self.file.hash_whole {
            let range = first..first.saturating_add(length);
            let _ = self.hashers.files.send(Item::Bytes(Arc::clone(piece), range));
        }
        let mut position = self.file.position;
        let mut first = first;
        while position < end {
            let Some(chunk) = self.file.chunks.front() else { break };
            if position == chunk.offset {
                let chunk = chunk.clone();
                self.place_of(&chunk);
                let _ = self.hashers.chunks.send(Item::Begin { git_size: self.file.git_size });
            }
            let Some(chunk) = self.file.chunks.front() else { break };
            let chunk_end = chunk.offset.saturating_add(chunk.length);
            // No more than `length`.
            let count = usize::try_from(end.min(chunk_end) - position).unwrap_or(length);
            let range = first..first.saturating_add(count);
            let has_use = chunk.digest.is_some() || !self.file.hash_whole;
            if has_use {
                let _ = self.hashers.chunks.send(Item::Bytes(Arc::clone(piece), range));
            }
            position += count as u64;
            first += count;
            if position == chunk_end {
                self.end_chunk();
            }
        }
        self.file.position = end;
        if self.file.hash_whole && end == self.file.size {
            self.end_whole();
        }
    }

    fn end_chunk(&mut self) {
        let Some(chunk) = self.file.chunks.pop_front() else { return };
        // The only chunk's digest is the file's.
        let only = if self.file.hash_whole { None } else { self.file.whole.take() };
        let mut part = only.unwrap_or_else(|| Part { path: self.file.path.clone(), ..Part::default() });
        part.offset = chunk.offset;
        part.chunk = chunk.digest;
        let _ = self.hashers.chunks.send(Item::End(Box::new(part)));
    }

    /// Checks that a chunk, which begins with the next byte, is where the table of contents says.
    fn place_of(&mut self, chunk: &ListedChunk) {
        let at = self.file.payload_at.saturating_add(chunk.offset);
        let stated = self.listing.as_ref().and_then(|listing| listing.output_of(chunk.member));
        if stated.and_then(|output| output.checked_add(chunk.inner)) == Some(at) {
            return;
        }
        let inside = |inner: u64| if inner == 0 { String::new() } else { format!(", {inner} bytes into it") };
        let message = format!(
            "it lies in the member at byte {}{}, the table of contents says the one at {}{}",
            self.member.offset,
            inside(at.saturating_sub(self.member.output)),
            chunk.member,
            inside(chunk.inner),
        );
        let place = self.layer.clone().file(&self.file.path).at(chunk.offset);
        self.findings.add(&rules::MEMBER_OFFSET, place, message);
    }
}
