//! The members of a compressed stream, one after another: where each begins in the compressed and in the decompressed
//! stream, and its bytes in pieces. A member is a gzip member or a zstd frame. Memory is bounded by the codec's window. Must
//! not know what the members hold.
//!
//! Source: RFC 1952, section 2.2, and RFC 8878, section 3.1: a file is members without anything between them, and they mean
//! what their contents one after another mean.

mod counted;
mod gzip;
mod zstd_frame;

use std::{
    fmt,
    io::{self, BufRead},
};

pub use self::zstd_frame::WINDOW_LOG_MAX;
use self::{counted::Counted, gzip::Gzip, zstd_frame::ZstdFrame};

/// What a stream consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberKind {
    /// Gzip members.
    Gzip,
    /// Zstd frames, some of which may be skippable: those have no content.
    Zstd,
}

impl fmt::Display for MemberKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip member",
            Self::Zstd => "zstd frame",
        })
    }
}

/// Where a member lies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Member {
    /// Its first byte in the compressed stream.
    pub offset: u64,
    /// Where its content begins in the decompressed stream, in bytes.
    pub output: u64,
}

/// What reading on gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// So many bytes of the current member, never 0.
    Bytes(usize),
    /// The current member has ended and its checksum, if it has one, is right. It ended at this byte of the compressed
    /// stream, where the next begins.
    MemberEnd(u64),
    /// The stream ended behind a member.
    End,
}

/// Why a compressed stream cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// What follows the last member is no member, or what should be the first is none.
    #[error("no {kind} begins at byte {offset}")]
    NoMember {
        /// What should begin there.
        kind: MemberKind,
        /// Where it should begin in the compressed stream.
        offset: u64,
    },
    /// The stream ends within a member.
    #[error("the {kind} at byte {offset} is cut short")]
    CutShort {
        /// What it is.
        kind: MemberKind,
        /// Where the member begins in the compressed stream.
        offset: u64,
    },
    /// A member's checksum or length is not that of its content, or it cannot be decompressed.
    #[error("the {kind} at byte {offset} is damaged: {reason}")]
    Damaged {
        /// What it is.
        kind: MemberKind,
        /// Where the member begins in the compressed stream.
        offset: u64,
        /// What the decompressor says.
        reason: String,
    },
    /// The compressed stream cannot be read.
    #[error(transparent)]
    Read(io::Error),
}

impl MemberError {
    /// Where the member begins in the compressed stream that could not be read; `None` when the stream could not.
    pub fn offset(&self) -> Option<u64> {
        match self {
            Self::NoMember { offset, .. } | Self::CutShort { offset, .. } | Self::Damaged { offset, .. } => {
                Some(*offset)
            }
            Self::Read(_) => None,
        }
    }
}

/// Reads the members of a compressed stream.
pub struct Members<R: BufRead> {
    codec: Codec<R>,
    kind: MemberKind,
    member: Member,
    /// Where the next byte lies in the decompressed stream.
    output: u64,
    state: State,
}

/// What decompresses one member after another.
enum Codec<R> {
    Gzip(Gzip<R>),
    Zstd(ZstdFrame<R>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// A member begins here, or the stream ends.
    Between,
    /// Within a member's header.
    Header,
    /// Within a member's content.
    Content,
    /// There is nothing more to read.
    Done,
}

impl<R: BufRead> Members<R> {
    /// Reads the members of `input`, which are all of one `kind`, from its first byte.
    pub fn new(kind: MemberKind, input: R) -> Self {
        let input = Counted::new(input);
        let codec = match kind {
            MemberKind::Gzip => Codec::Gzip(Gzip::new(input)),
            MemberKind::Zstd => Codec::Zstd(ZstdFrame::new(input)),
        };
        Self { codec, kind, member: Member::default(), output: 0, state: State::Between }
    }

    /// The member that the last bytes came from, or the one that comes next.
    pub fn member(&self) -> Member {
        self.member
    }

    /// Fills `buffer`, or a part of it, with what comes next. `buffer` must not be empty.
    ///
    /// # Errors
    /// See [`MemberError`]. Everything that was given before an error is what the stream says, but the member that the
    /// error names was not checked to its end. There is nothing more to read after one.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<Step, MemberError> {
        if self.state == State::Done || buffer.is_empty() {
            return Ok(Step::End);
        }
        match self.step(buffer) {
            Ok(step) => Ok(step),
            Err(error) => {
                let in_header = self.state == State::Header;
                self.state = State::Done;
                let (kind, offset) = (self.kind, self.member.offset);
                if let Some(cause) = self.codec.input().take_failure() {
                    return Err(MemberError::Read(cause));
                }
                Err(if error.kind() == io::ErrorKind::UnexpectedEof {
                    MemberError::CutShort { kind, offset }
                } else if in_header {
                    MemberError::NoMember { kind, offset }
                } else {
                    MemberError::Damaged { kind, offset, reason: error.to_string() }
                })
            }
        }
    }

    fn step(&mut self, buffer: &mut [u8]) -> io::Result<Step> {
        if self.state == State::Between {
            let input = self.codec.input();
            if input.fill_buf()?.is_empty() {
                self.state = State::Done;
                return Ok(Step::End);
            }
            self.member = Member { offset: input.position(), output: self.output };
            self.state = State::Header;
            self.codec.header()?;
            self.state = State::Content;
        }
        let count = self.codec.content(buffer)?;
        if count > 0 {
            self.output = self.output.saturating_add(count as u64);
            return Ok(Step::Bytes(count));
        }
        self.codec.trailer(self.output - self.member.output)?;
        self.state = State::Between;
        let position = self.codec.input().position();
        self.member = Member { offset: position, output: self.output };
        Ok(Step::MemberEnd(position))
    }
}

impl<R: BufRead> Codec<R> {
    /// The compressed stream.
    fn input(&mut self) -> &mut Counted<R> {
        match self {
            Self::Gzip(gzip) => gzip.input(),
            Self::Zstd(frame) => frame.input(),
        }
    }

    /// Reads a member's header. Whatever begins here that is none is an error.
    fn header(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(gzip) => gzip.header(),
            Self::Zstd(frame) => frame.header(),
        }
    }

    /// Reads content into `buffer`, which is not empty; 0 at its end.
    fn content(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(gzip) => gzip.content(buffer),
            Self::Zstd(frame) => frame.content(buffer),
        }
    }

    /// Checks the content, which had `length` bytes, against what follows it.
    fn trailer(&mut self, length: u64) -> io::Result<()> {
        match self {
            Self::Gzip(gzip) => gzip.trailer(length),
            Self::Zstd(frame) => frame.trailer(length),
        }
    }
}

#[cfg(test)]
mod tests;
