//! Zstd frames, skippable ones included: those have no content.
//!
//! Source: RFC 8878, section 3.1.

use std::io::{self, BufRead, Read};

use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use super::counted::Counted;

/// Largest window of a zstd frame, as the power of two of its bytes: that of `zstd --ultra`, and what a decoder takes
/// unless it is told otherwise.
pub const WINDOW_LOG_MAX: u32 = 27;

/// How a frame begins.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// How a skippable frame begins, but for the first byte's lower half.
const SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];

/// Reads zstd frames, one after another.
pub(super) struct ZstdFrame<R> {
    input: Counted<R>,
    decoder: Option<Decoder<'static>>,
    /// The current frame's header, as long as the decoder has not got it.
    header: Vec<u8>,
    /// Bytes of the current frame's content, where its header says it.
    stated: Option<u64>,
    /// Whether the current frame has ended.
    has_ended: bool,
}

impl<R: BufRead> ZstdFrame<R> {
    pub(super) fn new(input: Counted<R>) -> Self {
        Self { input, decoder: None, header: Vec::new(), stated: None, has_ended: false }
    }

    pub(super) fn input(&mut self) -> &mut Counted<R> {
        &mut self.input
    }

    pub(super) fn header(&mut self) -> io::Result<()> {
        let none = || io::Error::from(io::ErrorKind::InvalidData);
        let is_start = |byte: u8| byte == MAGIC[0] || byte & 0xf0 == SKIPPABLE[0];
        // The first byte tells most of what is no frame, however short it is.
        if !self.input.fill_buf()?.first().is_some_and(|byte| is_start(*byte)) {
            return Err(none());
        }
        let mut magic = [0; 4];
        self.input.read_exact(&mut magic)?;
        let [first, rest @ ..] = magic;
        if magic != MAGIC && (first & 0xf0 != SKIPPABLE[0] || rest != SKIPPABLE[1..]) {
            return Err(none());
        }
        self.has_ended = false;
        if self.decoder.is_none() {
            self.decoder = Some(decoder().map_err(|cause| self.input.fail(cause))?);
        }
        self.header.clear();
        self.header.extend_from_slice(&magic);
        let mut rest = 4;
        if magic == MAGIC {
            let mut descriptor = [0];
            self.input.read_exact(&mut descriptor)?;
            self.header.extend_from_slice(&descriptor);
            rest = behind_descriptor(descriptor[0]);
        }
        let mut fields = [0; 4 + 1 + 8];
        let (fields, _) = fields.split_at_mut(rest);
        self.input.read_exact(fields)?;
        self.header.extend_from_slice(fields);
        self.stated = zstd::zstd_safe::get_frame_content_size(&self.header).ok().flatten();
        Ok(())
    }

    /// The decompressor has looked at the checksum, and not at the length of each frame.
    pub(super) fn trailer(&self, length: u64) -> io::Result<()> {
        match self.stated {
            Some(stated) if stated != length => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "its length is wrong"))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn content(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // All of it at once: libzstd takes what it is given in the middle of a header for a frame, if it looks like one.
        if !self.header.is_empty()
            && let Some(decoder) = &mut self.decoder
        {
            let header = std::mem::take(&mut self.header);
            (_, _, self.has_ended) = run(decoder, &header, &mut [])?;
        }
        while !self.has_ended {
            let input = self.input.fill_buf()?;
            let is_at_end = input.is_empty();
            let Some(decoder) = &mut self.decoder else { break };
            let (read, written, ended) = run(decoder, input, buffer)?;
            self.has_ended = ended;
            self.input.consume(read);
            if written > 0 {
                return Ok(written);
            }
            if is_at_end && !ended {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(0)
    }
}

/// Bytes of a frame's header behind its descriptor: window, number of a dictionary, length of the content.
fn behind_descriptor(descriptor: u8) -> usize {
    let is_single = descriptor & 0b10_0000 != 0;
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 0b11)];
    let content = [usize::from(is_single), 2, 4, 8][usize::from(descriptor >> 6)];
    usize::from(!is_single) + dictionary + content
}

/// A decoder whose memory is bounded.
fn decoder() -> io::Result<Decoder<'static>> {
    let mut decoder = Decoder::new()?;
    decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))?;
    Ok(decoder)
}

/// Bytes that were read and written, and whether the frame has ended.
fn run(decoder: &mut Decoder<'static>, input: &[u8], output: &mut [u8]) -> io::Result<(usize, usize, bool)> {
    let mut from = InBuffer::around(input);
    let mut to = OutBuffer::around(output);
    let hint = decoder.run(&mut from, &mut to)?;
    Ok((from.pos(), to.pos(), hint == 0))
}
