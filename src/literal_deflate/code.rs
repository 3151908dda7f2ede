//! Prefix codes as deflate writes them: given by their lengths alone.
//!
//! Source: RFC 1951 section 3.2.2.

/// Values of a byte.
pub(super) const BYTES: usize = 256;
/// Symbols for bytes, and the one that ends a block. Lengths of matches are never written.
pub(super) const SYMBOLS: usize = BYTES + 1;
/// Most bits that a byte's code has here. Deflate allows 15; with 14, four codes and the rest of a byte fill 64
/// bits, and only bytes that are rarer than one in 16,384 are one bit longer or shorter for it.
pub(super) const LIMIT: u8 = 14;
/// Most bits of any code in deflate.
const LENGTH_MAX: u8 = 15;

/// A symbol's code and its length in one number, so that looking it up is one read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Code(u32);

impl Code {
    /// The code in the order in which it is written, the first bit lowest.
    pub(super) fn bits(self) -> u64 {
        u64::from(self.0 >> 4)
    }

    /// Number of bits; 0 for a symbol that does not occur.
    pub(super) fn length(self) -> u32 {
        self.0 & 15
    }

    fn new(bits: u16, length: u8) -> Self {
        Self(u32::from(bits) << 4 | u32::from(length & 15))
    }
}

/// The codes that belong to `lengths`, each at most 15: shorter ones first, and of one length in the order of
/// symbols.
pub(super) fn codes<const SYMBOLS: usize>(lengths: &[u8; SYMBOLS]) -> [Code; SYMBOLS] {
    let mut codes = [Code::default(); SYMBOLS];
    let mut next: u16 = 0;
    for length in 1..=LENGTH_MAX {
        // Of a code of 15 bits that is complete the last shift drops a bit, and nothing follows.
        next <<= 1;
        for (code, _) in codes.iter_mut().zip(lengths).filter(|(_, each)| **each == length) {
            *code = Code::new(next.reverse_bits() >> (16 - length), length);
            next = next.wrapping_add(1);
        }
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_specifications_example() {
        // RFC 1951 section 3.2.2: A to H with lengths 3, 3, 3, 3, 3, 2, 4, 4.
        let codes = codes(&[3, 3, 3, 3, 3, 2, 4, 4, 0]);
        let written: Vec<(u64, u32)> = codes.iter().map(|code| (code.bits(), code.length())).collect();
        let reversed =
            [(0b010, 3), (0b110, 3), (0b001, 3), (0b101, 3), (0b011, 3), (0b00, 2), (0b0111, 4), (0b1111, 4)];
        assert_eq!(written[..8], reversed);
        assert_eq!(written[8], (0, 0));
    }
}
