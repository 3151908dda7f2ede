//! One block of deflate with a code of its own, and the code's description before it.
//!
//! Source: RFC 1951 section 3.2.7.

use super::{
    bits::BitWriter,
    code::{BYTES, LIMIT, SYMBOLS, codes},
    lengths::code_lengths,
};

/// The symbol that ends a block.
const END: usize = BYTES;
/// Lengths of the distance codes, of which none is used. Two of one bit are a complete code: some decoders refuse
/// none, and some one alone.
const DISTANCES: [u8; 2] = [1, 1];
/// Symbols that describe code lengths: 0 to 15, and three repetitions.
const LENGTH_SYMBOLS: usize = 19;
/// Most bits of such a symbol's code: three bits tell its length.
const LENGTH_LIMIT: u8 = 7;
/// The order in which the lengths of their codes are written: those that are often absent last.
const LENGTH_ORDER: [usize; LENGTH_SYMBOLS] =
    [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
/// Bits before the description: final flag, type, and three counts.
const COUNTS_BITS: u64 = 3 + 5 + 5 + 4;
/// The type of a block with a code of its own.
const DYNAMIC: u64 = 2;

/// A part of a code's description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token {
    symbol: u8,
    /// What a repetition is followed by: how often, less the least that it can mean.
    extra: u8,
    extra_bits: u8,
}

/// How a block's bytes are written.
#[derive(Debug)]
pub(super) struct Block {
    literals: [u8; SYMBOLS],
    description: Vec<Token>,
    description_lengths: [u8; LENGTH_SYMBOLS],
    /// How many of `description_lengths`, in their order, are written: at least 4.
    description_count: usize,
    bits: u64,
}

impl Block {
    /// The best code for `payload`, fewer than 2^32 bytes.
    pub(super) fn of(payload: &[u8]) -> Self {
        let counts = count(payload);
        let literals = code_lengths(&counts, LIMIT);
        let description = describe(literals.iter().chain(&DISTANCES));
        let mut token_counts = [0; LENGTH_SYMBOLS];
        for token in &description {
            token_counts[usize::from(token.symbol)] += 1;
        }
        let description_lengths = code_lengths(&token_counts, LENGTH_LIMIT);
        let description_count =
            1 + LENGTH_ORDER.iter().rposition(|symbol| description_lengths[*symbol] > 0).unwrap_or(3).max(3);

        let extra_bits: u64 = description.iter().map(|token| u64::from(token.extra_bits)).sum();
        let bits = COUNTS_BITS
            + 3 * description_count as u64
            + extra_bits
            + cost(&token_counts, &description_lengths)
            + cost(&counts, &literals);
        Self { literals, description, description_lengths, description_count, bits }
    }

    /// Bytes that the block takes, rounded up.
    pub(super) fn length(&self) -> u64 {
        self.bits.div_ceil(8)
    }

    /// Writes the block of the `payload` that it was made for. `last` ends the stream.
    pub(super) fn write(&self, payload: &[u8], last: bool, writer: &mut BitWriter) {
        writer.put(u64::from(last) | DYNAMIC << 1, 3);
        writer.put(SYMBOLS as u64 - 257, 5);
        writer.put(DISTANCES.len() as u64 - 1, 5);
        writer.put(self.description_count as u64 - 4, 4);
        for symbol in &LENGTH_ORDER[..self.description_count] {
            writer.put(self.description_lengths[*symbol].into(), 3);
        }
        let length_codes = codes(&self.description_lengths);
        for token in &self.description {
            writer.put_code(length_codes[usize::from(token.symbol)]);
            writer.put(token.extra.into(), token.extra_bits.into());
        }
        let codes = codes(&self.literals);
        writer.put_coded(payload, &codes);
        writer.put_code(codes[END]);
    }
}

/// How often each byte occurs, and the end once.
fn count(payload: &[u8]) -> [u32; SYMBOLS] {
    // Counters of their own for neighbours: two bytes that are equal would wait for one another.
    let mut lanes = [[0_u32; BYTES]; 8];
    let (eights, rest) = payload.as_chunks::<8>();
    for eight in eights {
        for (lane, byte) in lanes.iter_mut().zip(eight) {
            lane[usize::from(*byte)] += 1;
        }
    }
    let mut counts = [0; SYMBOLS];
    for lane in &lanes {
        counts.iter_mut().zip(lane).for_each(|(count, part)| *count += part);
    }
    for byte in rest {
        counts[usize::from(*byte)] += 1;
    }
    counts[END] = 1;
    counts
}

/// Bits that symbols which occur so often take with codes of these lengths.
fn cost(counts: &[u32], lengths: &[u8]) -> u64 {
    counts.iter().zip(lengths).map(|(count, length)| u64::from(*count) * u64::from(*length)).sum()
}

/// Code lengths, with runs of equal ones as repetitions.
fn describe<'a>(lengths: impl Iterator<Item = &'a u8>) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut lengths = lengths.copied().peekable();
    while let Some(length) = lengths.next() {
        let mut run = 1;
        while lengths.next_if_eq(&length).is_some() {
            run += 1;
        }
        describe_run(length, run, &mut tokens);
    }
    tokens
}

fn describe_run(length: u8, mut run: usize, tokens: &mut Vec<Token>) {
    let plain = Token { symbol: length, extra: 0, extra_bits: 0 };
    // 16 repeats the length before it 3 to 6 times, 17 and 18 are 3 to 10 and 11 to 138 zeros.
    if length != 0 {
        tokens.push(plain);
        run -= 1;
    }
    while run >= 3 {
        let (symbol, least, most, extra_bits) = match (length, run) {
            (0, 11..) => (18, 11, 138, 7),
            (0, _) => (17, 3, 10, 3),
            _ => (16, 3, 6, 2),
        };
        let times = run.min(most);
        // At most 127, what seven bits hold.
        #[expect(clippy::cast_possible_truncation)]
        let extra = (times - least) as u8;
        tokens.push(Token { symbol, extra, extra_bits });
        run -= times;
    }
    tokens.extend(std::iter::repeat_n(plain, run));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(lengths: &[u8]) -> Vec<(u8, u8)> {
        describe(lengths.iter()).iter().map(|token| (token.symbol, token.extra)).collect()
    }

    #[test]
    fn runs_are_repetitions() {
        assert_eq!(tokens(&[]), []);
        assert_eq!(tokens(&[0, 0, 5, 5, 5]), [(0, 0), (0, 0), (5, 0), (5, 0), (5, 0)]);
        assert_eq!(tokens(&[5; 4]), [(5, 0), (16, 0)]);
        assert_eq!(tokens(&[5; 9]), [(5, 0), (16, 3), (5, 0), (5, 0)]);
        assert_eq!(tokens(&[0; 3]), [(17, 0)]);
        assert_eq!(tokens(&[0; 10]), [(17, 7)]);
        assert_eq!(tokens(&[0; 11]), [(18, 0)]);
        assert_eq!(tokens(&[0; 142]), [(18, 127), (17, 1)]);
        assert_eq!(tokens(&[0; 139]), [(18, 127), (0, 0)]);
    }

    #[test]
    fn a_blocks_length_is_known_before_it_is_written() {
        for payload in [&b"a"[..], b"abababab", &[7; 10_000], b"the quick brown fox jumps over the lazy dog"]
        {
            let block = Block::of(payload);
            let mut writer = BitWriter::new(Vec::new());
            block.write(payload, true, &mut writer);
            writer.put_bytes(&[]);
            assert_eq!(writer.into_bytes().len() as u64, block.length());
        }
    }
}
