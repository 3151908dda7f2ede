//! Reads a tar stream as it comes, in pieces of any size and in bounded memory: what each entry's headers say and where
//! header and payload lie. Takes the formats that images are made of: v7, ustar, GNU's long names and numbers, PAX.
//! Where formats leave a choice it is that of Go's `archive/tar`, which unpacks layers in containerd.
//!
//! Source: POSIX.1-2017, `pax`, "ustar Interchange Format" and "pax Extended Header"; GNU tar, "Basic Tar Format".
//! Must not know how the stream was compressed, or what is wanted of the entries.

mod extension;
mod header;

use std::collections::BTreeMap;

use tar::EntryType;

use self::extension::Extension;

/// Size of a tar block in bytes.
const BLOCK: u64 = 512;
/// One block.
type Block = [u8; 512];
/// Largest extended header that is read, in bytes.
const EXTENSION_MAX: u64 = 1 << 20;
/// Most bytes of extended headers before one entry.
const EXTENSIONS_MAX: u64 = 4 * EXTENSION_MAX;

/// One entry, as its headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarEntry {
    /// The name as it is written, with any `./` before it or `/` behind it.
    pub name: Vec<u8>,
    /// What the entry is.
    pub kind: EntryType,
    /// Bytes of payload that follow in the stream.
    pub size: u64,
    /// Permissions and, from some writers, the type of the file.
    pub mode: u64,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Owner's name; empty when there is none.
    pub user: Vec<u8>,
    /// Group's name; empty when there is none.
    pub group: Vec<u8>,
    /// Modification time in seconds since 1970, rounded down.
    pub modified: i64,
    /// Nanoseconds to add to `modified`.
    pub modified_nanos: u32,
    /// Target of a link; empty for everything else.
    pub link: Vec<u8>,
    /// Major number of a device.
    pub dev_major: u64,
    /// Minor number of a device.
    pub dev_minor: u64,
    /// Extended attributes (`SCHILY.xattr`) by name.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Whether the payload is a file with holes, and so not the file's content.
    pub sparse: bool,
    /// Where the entry's first header begins in the stream, in bytes: an extended one where it has one.
    pub header_at: u64,
    /// Where its payload begins in the stream, in bytes.
    pub payload_at: u64,
}

/// What a piece of the stream holds.
#[derive(Debug)]
pub enum TarEvent<'a> {
    /// The headers of an entry; `size` bytes of payload follow.
    Entry(Box<TarEntry>),
    /// The next bytes of the last entry's payload, never none.
    Payload(&'a [u8]),
    /// The padding behind a payload or an extended header is not zeros. Reported once for each.
    PaddingNotZero {
        /// Where the first of those bytes lies in the stream.
        at: u64,
    },
}

/// What lies behind the last entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TarEnd {
    /// Where the entries end, in bytes.
    pub at: u64,
    /// Zero bytes that follow the entries directly. The end-of-archive marker is 1024 of them.
    pub zeros: u64,
    /// Where the first byte behind them lies that is not zero.
    pub garbage_at: Option<u64>,
    /// Size of the whole stream in bytes.
    pub size: u64,
}

/// Why a tar stream cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TarError {
    /// A header's checksum is wrong: it is damaged, or this is no tar stream.
    #[error("the tar header at byte {at} is damaged")]
    Header {
        /// Where it begins in the stream.
        at: u64,
    },
    /// The stream ends within an entry.
    #[error("the tar stream is cut short at byte {at}")]
    CutShort {
        /// Where the entry begins in the stream.
        at: u64,
    },
    /// An extended header is larger than any reader takes.
    #[error("an extended header has {size} bytes, more than {EXTENSION_MAX}")]
    ExtensionSize {
        /// Where it begins in the stream.
        at: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// An extended header breaks its own format.
    #[error("an extended header is malformed")]
    Extension {
        /// Where it begins in the stream.
        at: u64,
    },
    /// A field holds no number or time.
    #[error("{name}: {field} is {value:?}, which is no {wanted}")]
    Field {
        /// Where the entry begins in the stream.
        at: u64,
        /// The entry's name.
        name: String,
        /// The field.
        field: &'static str,
        /// What it holds.
        value: String,
        /// What it should hold.
        wanted: &'static str,
    },
}

impl TarError {
    /// Where the header that cannot be read begins in the stream, in bytes.
    pub fn at(&self) -> u64 {
        match self {
            Self::Header { at }
            | Self::CutShort { at }
            | Self::ExtensionSize { at, .. }
            | Self::Extension { at }
            | Self::Field { at, .. } => *at,
        }
    }
}

/// What the next byte of the stream belongs to.
#[derive(Debug)]
enum State {
    /// A header block, or the end of the archive.
    Header,
    /// The content of an extended header.
    Extension { kind: EntryType, at: u64, left: u64, content: Vec<u8> },
    /// A further block of GNU's list of holes; the entry follows when the list ends.
    Sparse { entry: Box<TarEntry> },
    /// The payload, of `size` bytes, of the entry that begins at byte `at`.
    Payload { left: u64, size: u64, at: u64 },
    /// What fills the last block of a payload or an extended header.
    Padding { left: u64, reported: bool },
    /// Behind the last entry.
    End,
}

/// Takes a tar stream in pieces and says what they hold.
#[derive(Debug)]
pub struct TarReader {
    state: State,
    /// Where the next byte lies in the stream.
    position: u64,
    /// The first bytes of a block that is not complete.
    block: Block,
    filled: usize,
    extension: Extension,
    /// Where the next entry begins, when extended headers precede it.
    entry_at: Option<u64>,
    end: TarEnd,
}

impl Default for TarReader {
    fn default() -> Self {
        Self::new()
    }
}

impl TarReader {
    /// A reader at the beginning of a stream.
    pub fn new() -> Self {
        Self {
            state: State::Header,
            position: 0,
            block: [0; 512],
            filled: 0,
            extension: Extension::default(),
            entry_at: None,
            end: TarEnd::default(),
        }
    }

    /// Takes the next bytes of the stream and tells `on_event` what they hold, in order.
    ///
    /// # Errors
    /// See [`TarError`]. The reader is of no use after one.
    pub fn feed(&mut self, mut bytes: &[u8], mut on_event: impl FnMut(TarEvent<'_>)) -> Result<(), TarError> {
        while !bytes.is_empty() {
            let taken = self.step(bytes, &mut on_event)?;
            self.position = self.position.saturating_add(taken as u64);
            bytes = bytes.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// Where the next byte lies in the stream.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether the entries have ended: what follows is the end-of-archive marker, or garbage.
    pub fn is_at_end(&self) -> bool {
        matches!(self.state, State::End)
    }

    /// Bytes of payload and padding before the next header.
    pub fn payload_left(&self) -> u64 {
        match &self.state {
            State::Payload { left, size, .. } => left.saturating_add(padding(*size)),
            State::Padding { left, .. } => *left,
            _ => 0,
        }
    }

    /// Leaves out what is left of an entry's payload and its padding, and returns how many bytes of the stream that is:
    /// the next bytes that are fed are those behind them.
    pub fn skip_payload(&mut self) -> u64 {
        let left = self.payload_left();
        if left > 0 {
            self.state = State::Header;
            self.position = self.position.saturating_add(left);
        }
        left
    }

    /// Reads on behind an end-of-archive marker that is followed by further entries: some writers of eStargz leave one
    /// before the table of contents. Does nothing when anything but zeros came since, or no whole blocks of them.
    /// Returns whether it did.
    pub fn resume(&mut self) -> bool {
        let whole = self.end.garbage_at.is_none() && self.position.is_multiple_of(BLOCK);
        let resumed = self.is_at_end() && whole;
        if resumed {
            self.state = State::Header;
        }
        resumed
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// [`TarError::CutShort`] when it ends within an entry's headers or payload. Padding that is missing shows in
    /// [`TarEnd::zeros`].
    pub fn finish(mut self) -> Result<TarEnd, TarError> {
        let at = self.entry_at.unwrap_or(self.position);
        match self.state {
            State::Header if self.filled > 0 => {
                return Err(TarError::CutShort { at: self.position - self.filled as u64 });
            }
            State::Header | State::Padding { .. } if self.entry_at.is_none() => self.end.at = self.position,
            State::End => {}
            State::Payload { at, .. } => return Err(TarError::CutShort { at }),
            _ => return Err(TarError::CutShort { at }),
        }
        self.end.size = self.position;
        Ok(self.end)
    }

    /// Takes a part of `bytes` that belongs together and returns its length.
    fn step(&mut self, bytes: &[u8], on_event: &mut impl FnMut(TarEvent<'_>)) -> Result<usize, TarError> {
        let first = |left: u64| usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        match &mut self.state {
            State::Payload { left, size, .. } => {
                let taken = first(*left);
                *left -= taken as u64;
                on_event(TarEvent::Payload(bytes.get(..taken).unwrap_or_default()));
                if *left == 0 {
                    let padding = padding(*size);
                    self.pad(padding);
                }
                Ok(taken)
            }
            State::Padding { left, reported } => {
                let taken = first(*left);
                *left -= taken as u64;
                let dirty = bytes.iter().take(taken).position(|byte| *byte != 0);
                if let Some(dirty) = dirty.filter(|_| !*reported) {
                    *reported = true;
                    on_event(TarEvent::PaddingNotZero { at: self.position.saturating_add(dirty as u64) });
                }
                if *left == 0 {
                    self.state = State::Header;
                }
                Ok(taken)
            }
            State::Extension { kind, at, left, content } => {
                let taken = first(*left);
                *left -= taken as u64;
                content.extend_from_slice(bytes.get(..taken).unwrap_or_default());
                if *left == 0 {
                    let padding = padding(content.len() as u64);
                    self.extension.add(*kind, content).ok_or(TarError::Extension { at: *at })?;
                    self.pad(padding);
                }
                Ok(taken)
            }
            State::End => {
                self.end_bytes(bytes);
                Ok(bytes.len())
            }
            State::Header | State::Sparse { .. } => {
                let room = self.block.get_mut(self.filled..).unwrap_or_default();
                let taken = room.len().min(bytes.len());
                for (to, from) in room.iter_mut().zip(bytes) {
                    *to = *from;
                }
                self.filled += taken;
                if self.filled == self.block.len() {
                    self.filled = 0;
                    let at = (self.position + taken as u64).saturating_sub(BLOCK);
                    self.whole_block(at, on_event)?;
                }
                Ok(taken)
            }
        }
    }

    fn pad(&mut self, left: u64) {
        self.state = if left == 0 { State::Header } else { State::Padding { left, reported: false } };
    }

    /// Takes the block that begins at byte `at` of the stream.
    fn whole_block(&mut self, at: u64, on_event: &mut impl FnMut(TarEvent<'_>)) -> Result<(), TarError> {
        let block = self.block;
        match std::mem::replace(&mut self.state, State::Header) {
            State::Sparse { entry } => {
                self.tell_or_wait(entry, header::more_holes(&block), at + BLOCK, on_event);
            }
            _ if block == [0; 512] => {
                if let Some(at) = self.entry_at {
                    return Err(TarError::CutShort { at });
                }
                self.end = TarEnd { at, zeros: BLOCK, garbage_at: None, size: 0 };
                self.state = State::End;
            }
            _ => return self.header(&block, at, on_event),
        }
        Ok(())
    }

    fn header(
        &mut self,
        block: &Block,
        at: u64,
        on_event: &mut impl FnMut(TarEvent<'_>),
    ) -> Result<(), TarError> {
        let header = tar::Header::from_byte_slice(block);
        if !header::checksum_is_right(block) {
            return Err(TarError::Header { at });
        }
        let entry_at = *self.entry_at.get_or_insert(at);
        let kind = header.entry_type();
        if extension::is_extension(kind) {
            let size = header::number(&header.as_old().size, "size", at, &[])?;
            let size = u64::try_from(size).unwrap_or(u64::MAX);
            if size > EXTENSION_MAX || self.extension.size + size > EXTENSIONS_MAX {
                return Err(TarError::ExtensionSize { at, size });
            }
            self.extension.size += size;
            if size == 0 {
                self.extension.add(kind, &[]).ok_or(TarError::Extension { at })?;
            } else {
                self.state = State::Extension { kind, at, left: size, content: Vec::new() };
            }
            return Ok(());
        }
        let extension = std::mem::take(&mut self.extension);
        let entry = Box::new(header::entry(header, extension, entry_at)?);
        let more = entry.kind == EntryType::GNUSparse && header::more_holes_follow(block);
        self.tell_or_wait(entry, more, at + BLOCK, on_event);
        Ok(())
    }

    /// Tells of the entry, unless another block of its list of holes follows.
    fn tell_or_wait(
        &mut self,
        mut entry: Box<TarEntry>,
        more: bool,
        payload_at: u64,
        on_event: &mut impl FnMut(TarEvent<'_>),
    ) {
        if more {
            self.state = State::Sparse { entry };
            return;
        }
        entry.payload_at = payload_at;
        let size = entry.size;
        let at = entry.header_at;
        on_event(TarEvent::Entry(entry));
        self.entry_at = None;
        if size > 0 {
            self.state = State::Payload { left: size, size, at };
        }
    }

    /// Takes bytes behind the last entry.
    fn end_bytes(&mut self, bytes: &[u8]) {
        if self.end.garbage_at.is_some() {
            return;
        }
        let zeros = bytes.iter().position(|byte| *byte != 0);
        let length = zeros.unwrap_or(bytes.len()) as u64;
        self.end.zeros = self.end.zeros.saturating_add(length);
        if zeros.is_some() {
            self.end.garbage_at = Some(self.position.saturating_add(length));
        }
    }
}

/// Bytes that fill the last block of `size` bytes.
fn padding(size: u64) -> u64 {
    (BLOCK - size % BLOCK) % BLOCK
}

#[cfg(test)]
mod tests;
