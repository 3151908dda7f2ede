//! The members of a gzip stream, one after another: where each begins in the compressed and in the decompressed stream,
//! and its bytes in pieces. Memory is bounded by deflate's window. Must not know what the members hold.
//!
//! Source: RFC 1952, section 2.2: a gzip file is members without anything between them, and they mean what their
//! contents one after another mean.

use std::io::{self, BufRead, Read};

use flate2::bufread::DeflateDecoder;

/// The first byte of a member.
const MAGIC: u8 = 0x1f;

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
    /// The current member has ended and its checksum is right. It ended at this byte of the compressed stream, where the
    /// next begins.
    MemberEnd(u64),
    /// The stream ended behind a member.
    End,
}

/// Why a gzip stream cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// What follows the last member is no member, or what should be the first is none.
    #[error("no gzip member begins at byte {offset}")]
    NoMember {
        /// Where it should begin in the compressed stream.
        offset: u64,
    },
    /// The stream ends within a member.
    #[error("the gzip member at byte {offset} is cut short")]
    CutShort {
        /// Where the member begins in the compressed stream.
        offset: u64,
    },
    /// A member's checksum or length is not that of its content, or it cannot be decompressed.
    #[error("the gzip member at byte {offset} is damaged: {reason}")]
    Damaged {
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
            Self::NoMember { offset } | Self::CutShort { offset } | Self::Damaged { offset, .. } => {
                Some(*offset)
            }
            Self::Read(_) => None,
        }
    }
}

/// Reads the members of a gzip stream.
pub struct Members<R: BufRead> {
    decoder: DeflateDecoder<Counted<R>>,
    member: Member,
    /// Where the next byte lies in the decompressed stream.
    output: u64,
    /// Of the current member's content. crc32fast's, which uses the processor's own multiplication: it costs a tenth of what
    /// reading stored weights costs with the decompressor's.
    crc: crc32fast::Hasher,
    state: State,
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
    /// Reads the members of `input` from its first byte.
    pub fn new(input: R) -> Self {
        let counted = Counted { input: Some(input), position: 0, failure: None };
        Self {
            decoder: DeflateDecoder::new(counted),
            member: Member::default(),
            output: 0,
            crc: crc32fast::Hasher::new(),
            state: State::Between,
        }
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
                let offset = self.member.offset;
                if let Some(cause) = self.decoder.get_mut().failure.take() {
                    return Err(MemberError::Read(cause));
                }
                Err(if error.kind() == io::ErrorKind::UnexpectedEof {
                    MemberError::CutShort { offset }
                } else if in_header {
                    MemberError::NoMember { offset }
                } else {
                    MemberError::Damaged { offset, reason: error.to_string() }
                })
            }
        }
    }

    fn step(&mut self, buffer: &mut [u8]) -> io::Result<Step> {
        if self.state == State::Between {
            let counted = self.decoder.get_mut();
            if counted.fill_buf()?.is_empty() {
                self.state = State::Done;
                return Ok(Step::End);
            }
            self.member = Member { offset: counted.position, output: self.output };
            self.state = State::Header;
            header(counted)?;
            let moved = Counted {
                input: counted.input.take(),
                position: counted.position,
                failure: counted.failure.take(),
            };
            self.decoder.reset(moved);
            self.crc = crc32fast::Hasher::new();
            self.state = State::Content;
        }
        let count = self.decoder.read(buffer)?;
        if count > 0 {
            self.crc.update(buffer.get(..count).unwrap_or_default());
            self.output = self.output.saturating_add(count as u64);
            return Ok(Step::Bytes(count));
        }
        self.trailer()?;
        self.state = State::Between;
        let position = self.decoder.get_ref().position;
        self.member = Member { offset: position, output: self.output };
        Ok(Step::MemberEnd(position))
    }

    /// Checks the content against what follows it. A content that was cut short ends here, too: nothing follows it.
    fn trailer(&mut self) -> io::Result<()> {
        let mut trailer = [0; 8];
        self.decoder.get_mut().read_exact(&mut trailer)?;
        let [crc @ .., _, _, _, _] = trailer;
        let [_, _, _, _, length @ ..] = trailer;
        let damaged = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        if u32::from_le_bytes(crc) != self.crc.clone().finalize() {
            return damaged("its checksum is wrong");
        }
        // The length is kept modulo 2³².
        if u64::from(u32::from_le_bytes(length)) != (self.output - self.member.output) & u64::from(u32::MAX) {
            return damaged("its length is wrong");
        }
        Ok(())
    }
}

/// Reads a member's header.
fn header(input: &mut impl BufRead) -> io::Result<()> {
    /// Bits of the header's flags.
    const HAS_CRC: u8 = 1 << 1;
    const EXTRA: u8 = 1 << 2;
    const NAME: u8 = 1 << 3;
    const COMMENT: u8 = 1 << 4;
    const RESERVED: u8 = 0b1110_0000;

    let none = || io::Error::from(io::ErrorKind::InvalidData);
    // The first byte tells most of what is no member, however short it is.
    if input.fill_buf()?.first() != Some(&MAGIC) {
        return Err(none());
    }
    let mut input = Checked { input, crc: crc32fast::Hasher::new() };
    let mut fixed = [0; 10];
    input.read_exact(&mut fixed)?;
    let [_, second, method, flags, ..] = fixed;
    if (second, method, flags & RESERVED) != (0x8b, 8, 0) {
        return Err(none());
    }
    if flags & EXTRA != 0 {
        let mut length = [0; 2];
        input.read_exact(&mut length)?;
        let length = u64::from(u16::from_le_bytes(length));
        if io::copy(&mut input.by_ref().take(length), &mut io::sink())? < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    for text in [NAME, COMMENT] {
        let mut byte = [u8::from(flags & text != 0)];
        while byte != [0] {
            input.read_exact(&mut byte)?;
        }
    }
    if flags & HAS_CRC != 0 {
        let expected = input.crc.clone().finalize() & 0xffff;
        let mut stated = [0; 2];
        input.read_exact(&mut stated)?;
        if u32::from(u16::from_le_bytes(stated)) != expected {
            return Err(none());
        }
    }
    Ok(())
}

/// A stream whose bytes are summed up as they are read.
struct Checked<'a, R> {
    input: &'a mut R,
    crc: crc32fast::Hasher,
}

impl<R: Read> Read for Checked<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.crc.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

/// Counts what is consumed of a stream, and keeps its failure, which decoders wrap or swallow.
struct Counted<R> {
    /// `None` while the stream is with another decoder, which is at its end then.
    input: Option<R>,
    position: u64,
    failure: Option<io::Error>,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let from = self.fill_buf()?;
        let count = from.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(from) {
            *to = *from;
        }
        self.consume(count);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let Self { input, failure, .. } = self;
        let Some(input) = input else { return Ok(&[]) };
        input.fill_buf().map_err(|error| {
            let kind = error.kind();
            let told = io::Error::new(kind, error.to_string());
            // Interrupted reads are tried again by whoever reads.
            if kind != io::ErrorKind::Interrupted {
                *failure = Some(error);
            }
            told
        })
    }

    fn consume(&mut self, count: usize) {
        self.position = self.position.saturating_add(count as u64);
        if let Some(input) = &mut self.input {
            input.consume(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;

    use super::*;
    use crate::estargz::footer;

    fn member(content: &[u8], level: u32) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    type Found = (Vec<(Member, Vec<u8>)>, Result<(), MemberError>);

    /// All members with what they hold, and how it ended.
    fn read(stream: impl BufRead, piece: usize) -> Found {
        let mut members = Members::new(stream);
        let (mut found, mut content) = (Vec::new(), Vec::new());
        let mut buffer = vec![0; piece];
        loop {
            let current = members.member();
            match members.read(&mut buffer) {
                Ok(Step::Bytes(count)) => content.extend_from_slice(&buffer[..count]),
                Ok(Step::MemberEnd(_)) => found.push((current, std::mem::take(&mut content))),
                Ok(Step::End) => return (found, Ok(())),
                Err(error) => return (found, Err(error)),
            }
        }
    }

    fn three() -> (Vec<u8>, usize) {
        let first = member(&b"a".repeat(100_000), 6);
        let length = first.len();
        ([first, member(b"", 6), member(b"stored", 0), footer::encode(7).to_vec()].concat(), length)
    }

    #[test]
    fn members_and_where_they_lie() {
        let (stream, length) = three();
        for (capacity, piece) in [(1, 1_000), (10, 1), (1 << 16, 1 << 18)] {
            let (found, end) = read(io::BufReader::with_capacity(capacity, &stream[..]), piece);
            end.unwrap();
            let places: Vec<(Member, usize)> = found.iter().map(|(at, bytes)| (*at, bytes.len())).collect();
            let at = |offset: usize, output| Member { offset: offset as u64, output };
            let second = length + member(b"", 6).len();
            let last = stream.len() - footer::FOOTER_SIZE;
            let expected = [
                (at(0, 0), 100_000),
                (at(length, 100_000), 0),
                (at(second, 100_000), 6),
                (at(last, 100_006), 0),
            ];
            assert_eq!(places, expected);
            assert_eq!(found[2].1, b"stored");
        }
    }

    #[test]
    fn damage_names_its_member() {
        let (good, length) = three();
        let at = length as u64;
        let second = length + member(b"", 6).len();

        let mut bytes = good.clone();
        bytes[second - 1] ^= 1;
        let (found, end) = read(&bytes[..], 100);
        assert_eq!(found.len(), 1);
        assert!(matches!(end, Err(MemberError::Damaged { offset, .. }) if offset == at), "{end:?}");

        bytes = good.clone();
        bytes[length] = 0;
        let end = read(&bytes[..], 100).1;
        assert!(matches!(end, Err(MemberError::NoMember { offset }) if offset == at), "{end:?}");

        for (cut, offset) in [(length - 1, 0), (length + 3, at), (length + 12, at)] {
            let end = read(&good[..cut], 100).1;
            assert!(
                matches!(end, Err(MemberError::CutShort { offset: named }) if named == offset),
                "{end:?}"
            );
        }

        let (found, end) = read(&[&good[..], &[0; 9]].concat()[..], 100);
        let size = good.len() as u64;
        assert_eq!(found.len(), 4);
        assert!(matches!(end, Err(MemberError::NoMember { offset }) if offset == size), "{end:?}");
    }

    #[test]
    fn a_failing_stream_is_no_damage() {
        struct Fails;
        impl io::Read for Fails {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "gone"))
            }
        }
        let (good, _) = three();
        for start in [0, 5, 60] {
            let end = read(io::BufReader::new(good[..start].chain(Fails)), 100).1;
            assert!(matches!(&end, Err(MemberError::Read(cause)) if cause.to_string() == "gone"), "{end:?}");
        }
    }

    #[test]
    fn nothing_is_no_member_and_no_error() {
        let (found, end) = read(&b""[..], 10);
        assert!(found.is_empty());
        end.unwrap();
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), header: bool) {
            let start: &[u8] = if header { &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255] } else { &[] };
            let _ = read(&[start, &bytes].concat()[..], 64);
        }
    }
}
