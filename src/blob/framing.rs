//! How a stored (uncompressed) payload is framed inside a blob, and the buffer that a payload is read into
//! with its frame already around it, so that framing copies nothing.
//!
//! Source: RFC 1952 section 2.3 (gzip member) and RFC 1951 section 3.2.4 (stored deflate blocks); RFC 8878 sections
//! 3.1.1.1 (zstd frame header) and 3.1.1.2 (raw blocks). Must not know which files the payloads come from.

use std::io::IoSliceMut;

/// Bytes of a gzip member's fixed header: magic, deflate, no flags, no time, no extra flags, unknown system.
pub(crate) const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// Largest payload of a stored deflate block: its length field has 16 bits.
pub(crate) const STORED_BLOCK_MAX: usize = 65_535;
/// A stored block's header: final flag and type in one byte, then LEN and its complement.
const STORED_BLOCK_HEADER: usize = 5;
/// CRC-32 and length of the payload, four bytes each.
const GZIP_TRAILER: usize = 8;

/// Start of a zstd frame's header: magic, then a content size of 8 bytes, no checksum and no dictionary, then a window of
/// 128 KiB. The window is the least that blocks of the largest size may have; readers allocate it.
const ZSTD_HEADER: [u8; 6] = [0x28, 0xb5, 0x2f, 0xfd, 0b1100_0000, (17 - 10) << 3];
/// The payload's length, which ends a zstd frame's header.
const ZSTD_CONTENT_SIZE: usize = 8;
/// Largest payload of a zstd block.
const RAW_BLOCK_MAX: usize = 128 * 1024;
/// A zstd block's header: final flag, type and length in 24 bits.
const RAW_BLOCK_HEADER: usize = 3;

/// Most bytes of a frame before its first block.
const HEADER_MAX: usize = ZSTD_HEADER.len() + ZSTD_CONTENT_SIZE;

/// How a stored payload lies in a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// As it is: a plain tar layer.
    Raw,
    /// As one gzip member of stored deflate blocks.
    StoredGzip,
    /// As one zstd frame of raw blocks.
    StoredZstd,
}

impl Framing {
    /// Bytes that a payload of `payload` bytes takes with its frame.
    pub fn framed_length(self, payload: u64) -> u64 {
        // An empty payload still needs one (empty, final) block.
        let blocks = payload.div_ceil(self.block_max() as u64).max(1);
        let frame = self.header_length() + self.trailer_length();
        payload + blocks * self.block_header() as u64 + frame as u64
    }

    /// What follows the blocks: the one part of a frame that depends on the payload's bytes.
    pub fn trailer(self, payload_length: usize, checksum: u32) -> Vec<u8> {
        match self {
            Self::Raw | Self::StoredZstd => Vec::new(),
            Self::StoredGzip => {
                // ISIZE is the length modulo 2^32 by definition.
                #[expect(clippy::cast_possible_truncation)]
                let length = payload_length as u32;
                [checksum.to_le_bytes(), length.to_le_bytes()].concat()
            }
        }
    }

    fn header_length(self) -> usize {
        match self {
            Self::Raw => 0,
            Self::StoredGzip => GZIP_HEADER.len(),
            Self::StoredZstd => HEADER_MAX,
        }
    }

    fn trailer_length(self) -> usize {
        match self {
            Self::Raw | Self::StoredZstd => 0,
            Self::StoredGzip => GZIP_TRAILER,
        }
    }

    fn block_header(self) -> usize {
        match self {
            Self::Raw => 0,
            Self::StoredGzip => STORED_BLOCK_HEADER,
            Self::StoredZstd => RAW_BLOCK_HEADER,
        }
    }

    fn block_max(self) -> usize {
        match self {
            Self::Raw => usize::MAX / 2,
            Self::StoredGzip => STORED_BLOCK_MAX,
            Self::StoredZstd => RAW_BLOCK_MAX,
        }
    }

    /// Writes what comes before the blocks.
    fn write_header(self, header: &mut [u8], payload_length: usize) {
        match self {
            Self::Raw => {}
            Self::StoredGzip => header.copy_from_slice(&GZIP_HEADER),
            Self::StoredZstd => {
                let (fixed, content_size) = header.split_at_mut(ZSTD_HEADER.len());
                fixed.copy_from_slice(&ZSTD_HEADER);
                content_size.copy_from_slice(&(payload_length as u64).to_le_bytes());
            }
        }
    }

    /// Writes what comes before a block of `length` bytes.
    fn write_block_header(self, header: &mut [u8], length: usize, is_last: bool) {
        match self {
            Self::Raw => {}
            Self::StoredGzip => {
                // At most 65,535, the length of a block.
                #[expect(clippy::cast_possible_truncation)]
                let length = length as u16;
                header[0] = u8::from(is_last);
                header[1..3].copy_from_slice(&length.to_le_bytes());
                header[3..5].copy_from_slice(&(!length).to_le_bytes());
            }
            Self::StoredZstd => {
                // Type 0, raw, lies between the flag and the length, which has at most 18 bits.
                let bits = (length << 3) | usize::from(is_last);
                header.copy_from_slice(&bits.to_le_bytes()[..RAW_BLOCK_HEADER]);
            }
        }
    }
}

/// A payload together with its frame, all but the trailer, in one run of bytes.
#[derive(Debug)]
pub struct FramedBuffer {
    bytes: Vec<u8>,
    framing: Framing,
    payload_length: usize,
}

impl FramedBuffer {
    /// Lays out the frame for a payload of `payload_length` bytes in `memory`, whose allocation is reused.
    /// The payload's bytes are whatever the memory held until they are filled.
    pub fn new(mut memory: Vec<u8>, framing: Framing, payload_length: usize) -> Self {
        let blocks = payload_length.div_ceil(framing.block_max()).max(1);
        memory.resize(framing.header_length() + payload_length + blocks * framing.block_header(), 0);
        let mut buffer = Self { bytes: memory, framing, payload_length };
        buffer.write_frame();
        buffer
    }

    /// Number of payload bytes.
    pub fn payload_length(&self) -> usize {
        self.payload_length
    }

    /// Header, block headers and payload: the framed bytes up to the trailer.
    pub fn framed(&self) -> &[u8] {
        &self.bytes
    }

    /// The payload, in pieces, in order.
    pub fn payload(&self) -> impl Iterator<Item = &[u8]> {
        let step = self.framing.block_header() + self.framing.block_max();
        self.bytes[self.framing.header_length()..]
            .chunks(step)
            .map(|block| &block[self.framing.block_header()..])
    }

    /// The places that the payload is read into, in order.
    pub fn payload_mut(&mut self) -> Vec<IoSliceMut<'_>> {
        let step = self.framing.block_header() + self.framing.block_max();
        self.bytes[self.framing.header_length()..]
            .chunks_mut(step)
            .map(|block| IoSliceMut::new(&mut block[self.framing.block_header()..]))
            .collect()
    }

    /// Copies `payload` to its places; what goes beyond the payload's length is left out.
    pub fn fill(&mut self, payload: &[u8]) {
        let mut rest = payload;
        for mut place in self.payload_mut() {
            let (head, tail) = rest.split_at(place.len().min(rest.len()));
            place[..head.len()].copy_from_slice(head);
            rest = tail;
        }
    }

    /// CRC-32 (IEEE, as gzip has it) of the payload.
    pub fn checksum(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        self.payload().for_each(|piece| hasher.update(piece));
        hasher.finalize()
    }

    /// Gives the memory back for the next buffer.
    pub fn into_memory(self) -> Vec<u8> {
        self.bytes
    }

    fn write_frame(&mut self) {
        let framing = self.framing;
        let (header, blocks) = self.bytes.split_at_mut(framing.header_length());
        framing.write_header(header, self.payload_length);
        let mut rest = self.payload_length;
        for block in blocks.chunks_mut(framing.block_header() + framing.block_max()) {
            let length = rest.min(framing.block_max());
            rest -= length;
            framing.write_block_header(&mut block[..framing.block_header()], length, rest == 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use proptest::prelude::*;

    use super::*;

    fn frame(payload: &[u8], framing: Framing) -> Vec<u8> {
        let mut buffer = FramedBuffer::new(vec![0xaa; 7], framing, payload.len());
        buffer.fill(payload);
        assert_eq!(buffer.payload().collect::<Vec<_>>().concat(), payload);
        assert_eq!(buffer.checksum(), crc32fast::hash(payload));
        let trailer = framing.trailer(payload.len(), buffer.checksum());
        [buffer.framed(), &trailer].concat()
    }

    fn check(payload: &[u8]) {
        assert_eq!(frame(payload, Framing::Raw), payload);
        let framed = frame(payload, Framing::StoredGzip);
        assert_eq!(framed.len() as u64, Framing::StoredGzip.framed_length(payload.len() as u64));
        let mut unpacked = Vec::new();
        GzDecoder::new(&framed[..]).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, payload);
        let framed = frame(payload, Framing::StoredZstd);
        assert_eq!(framed.len() as u64, Framing::StoredZstd.framed_length(payload.len() as u64));
        assert_eq!(zstd::decode_all(&framed[..]).unwrap(), payload);
        let stated = zstd::zstd_safe::get_frame_content_size(&framed).unwrap();
        assert_eq!(stated, Some(payload.len() as u64));
    }

    #[test]
    fn block_boundaries() {
        for length in [0, 1, 65_534, 65_535, 65_536, 131_070, 131_071, 131_072, 131_073, 262_144, 1_000_000] {
            check(&(0..length).map(|index: u32| (index % 251) as u8).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_member_of_four_mebibytes_has_the_documented_length() {
        assert_eq!(Framing::StoredGzip.framed_length(4 << 20), 4_194_647);
        assert_eq!(Framing::StoredZstd.framed_length(4 << 20), (4 << 20) + 14 + 32 * 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_payload_unpacks_to_itself(length in 0_usize..200_000, seed in any::<u64>()) {
            let mut state = seed | 1;
            let payload: Vec<u8> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    state.to_be_bytes()[0]
                })
                .collect();
            check(&payload);
        }
    }
}
