//! Gzip members. Their header is read here and not by the decompressor, whose checksum is slower than the processor's.
//!
//! Source: RFC 1952, section 2.3.

use std::io::{self, BufRead, Read};

use flate2::bufread::DeflateDecoder;

use super::counted::Counted;

/// The first byte of a member.
const MAGIC: u8 = 0x1f;

/// Reads gzip members, one after another.
pub(super) struct Gzip<R> {
    decoder: DeflateDecoder<Counted<R>>,
    /// Of the current member's content. crc32fast's, which uses the processor's own multiplication: it costs a tenth of what
    /// reading stored weights costs with the decompressor's.
    crc: crc32fast::Hasher,
}

impl<R: BufRead> Gzip<R> {
    pub(super) fn new(input: Counted<R>) -> Self {
        Self { decoder: DeflateDecoder::new(input), crc: crc32fast::Hasher::new() }
    }

    pub(super) fn input(&mut self) -> &mut Counted<R> {
        self.decoder.get_mut()
    }

    pub(super) fn header(&mut self) -> io::Result<()> {
        let input = self.decoder.get_mut();
        header(input)?;
        let moved = input.moved();
        self.decoder.reset(moved);
        self.crc = crc32fast::Hasher::new();
        Ok(())
    }

    pub(super) fn content(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.decoder.read(buffer)?;
        self.crc.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }

    /// A content that was cut short ends here, too: nothing follows it.
    pub(super) fn trailer(&mut self, length: u64) -> io::Result<()> {
        let mut trailer = [0; 8];
        self.decoder.get_mut().read_exact(&mut trailer)?;
        let [crc @ .., _, _, _, _] = trailer;
        let [_, _, _, _, stated @ ..] = trailer;
        let damaged = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        if u32::from_le_bytes(crc) != self.crc.clone().finalize() {
            return damaged("its checksum is wrong");
        }
        // The length is kept modulo 2³².
        if u64::from(u32::from_le_bytes(stated)) != length & u64::from(u32::MAX) {
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
