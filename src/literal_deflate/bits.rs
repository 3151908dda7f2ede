//! Bits in deflate's order: the first bit of the stream is the lowest bit of the first byte.

use super::code::{Code, LIMIT, SYMBOLS};

/// Bytes that are coded before they are appended: few enough to stay in the core's own cache.
const PIECE: usize = 2048;
/// Room for the codes of a piece: a code has fewer than two bytes, and eight are written at a time.
const PIECE_CODED: usize = 2 * PIECE + 8;
// Four codes and what is left of a byte fill no more than 64 bits.
const _: () = assert!(4 * LIMIT as u32 + 7 <= u64::BITS);

/// Bytes that are made bit by bit.
#[derive(Debug)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    /// Bits that do not fill a byte yet, in the lowest places; all above them are zero.
    pending: u64,
    /// How many they are, at most 7.
    count: u32,
}

impl BitWriter {
    /// Goes on after `bytes`.
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, pending: 0, count: 0 }
    }

    /// Appends the lowest `count` bits of `bits`, at most 56. The others must be zero.
    pub(super) fn put(&mut self, bits: u64, count: u32) {
        self.pending |= bits << self.count;
        self.count += count;
        let whole = self.count / 8;
        self.bytes.extend(self.pending.to_le_bytes().iter().take(whole as usize));
        self.pending >>= whole * 8;
        self.count %= 8;
    }

    /// Appends one code.
    pub(super) fn put_code(&mut self, code: Code) {
        self.put(code.bits(), code.length());
    }

    /// Appends the code of every byte of `payload`.
    ///
    /// Four codes at a time are joined on their own, so that a group waits for the one before it with two shifts
    /// and an addition only, and eight bytes are written whatever was filled: what was not is written over. A table
    /// of pairs of bytes (2^16 codes) is slower: it has to be made anew for each block, and it crowds the cache.
    pub(super) fn put_coded(&mut self, payload: &[u8], codes: &[Code; SYMBOLS]) {
        let mut coded = [0_u8; PIECE_CODED];
        for piece in payload.chunks(PIECE) {
            let (mut pending, mut count) = (self.pending, self.count);
            let mut filled = 0;
            let (fours, rest) = piece.as_chunks::<4>();
            for four in fours {
                let [a, b, c, d] = four.map(|byte| codes[usize::from(byte)]);
                let (ab, ab_length) = (a.bits() | b.bits() << a.length(), a.length() + b.length());
                let (cd, cd_length) = (c.bits() | d.bits() << c.length(), c.length() + d.length());
                pending |= (ab | cd << ab_length) << count;
                count += ab_length + cd_length;
                if let Some(eight) = coded.get_mut(filled..filled + 8) {
                    eight.copy_from_slice(&pending.to_le_bytes());
                }
                filled += (count / 8) as usize;
                pending >>= count / 8 * 8;
                count %= 8;
            }
            self.bytes.extend_from_slice(&coded[..filled]);
            (self.pending, self.count) = (pending, count);
            for byte in rest {
                self.put_code(codes[usize::from(*byte)]);
            }
        }
    }

    /// Appends whole bytes. What does not fill a byte is filled with zeros before.
    pub(super) fn put_bytes(&mut self, bytes: &[u8]) {
        if self.count > 0 {
            self.put(0, 8 - self.count);
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The bytes. What does not fill a byte is lost.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}
