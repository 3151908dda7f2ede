use std::io::Read as _;

use proptest::prelude::*;

use super::*;
use crate::{blob::framing::Framing, digest::Digest};

fn gunzip(member: &[u8]) -> Vec<u8> {
    let mut decoder = flate2::bufread::GzDecoder::new(member);
    let mut payload = Vec::new();
    decoder.read_to_end(&mut payload).unwrap();
    assert!(decoder.into_inner().is_empty(), "bytes follow the member");
    payload
}

/// Packs, unpacks with zlib-rs, and returns the member's length.
fn there_and_back(payload: &[u8]) -> usize {
    let member = gzip(payload);
    assert!(gunzip(&member) == payload, "{} bytes came back changed", payload.len());
    assert!(member.len() as u64 <= Framing::StoredGzip.framed_length(payload.len() as u64));
    member.len()
}

/// Bytes without a pattern (xorshift64).
fn noise(length: usize) -> impl Iterator<Item = u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[7]
    })
    .take(length)
}

/// Numbers in bf16, as weights are: the low byte is noise, the high byte is not. The sum of twelve equally
/// distributed numbers is nearly normal.
fn weights(length: usize) -> Vec<u8> {
    let bytes: Vec<u8> = noise(length * 6).collect();
    let mut numbers = Vec::with_capacity(length);
    for twelve in bytes.chunks_exact(12) {
        let sum: u16 = twelve.iter().map(|byte| u16::from(*byte)).sum();
        let number = (f32::from(sum) - 1530.0) / 256.0 * 0.02;
        numbers.extend(&number.to_bits().to_le_bytes()[2..]);
    }
    numbers
}

#[test]
fn hostile_distributions_come_back() {
    assert_eq!(there_and_back(b""), 10 + 5 + 8);
    assert_eq!(there_and_back(b"a"), 10 + 6 + 8);
    // One symbol, and the end of the block, take one bit each.
    assert!(there_and_back(&vec![0; 1 << 20]) < (1 << 17) + 1024);
    assert!(there_and_back(&[255; 1000]) < 200);
    assert!(there_and_back(&[1, 2].repeat(50_000)) < 100_000 / 4);
    let all: Vec<u8> = (0..=255).collect();
    there_and_back(&all);
    there_and_back(&all.repeat(1024));
    // Frequencies of Fibonacci's numbers make Huffman's code one bit longer with each symbol: 24 bits here.
    let (mut fibonacci, mut count, mut next) = (Vec::new(), 1, 1);
    for symbol in 0..24_u8 {
        fibonacci.extend(std::iter::repeat_n(symbol, count));
        (count, next) = (next, count + next);
    }
    assert!(fibonacci.len() < BLOCK);
    assert!(there_and_back(&fibonacci) < fibonacci.len() / 2);
}

#[test]
fn noise_costs_no_more_than_stored_blocks() {
    for length in [1, STORED_BLOCK_MAX, STORED_BLOCK_MAX + 1, BLOCK, BLOCK + 1, 3 * BLOCK - 1] {
        let payload: Vec<u8> = noise(length).collect();
        let framed = Framing::StoredGzip.framed_length(length as u64);
        assert_eq!(there_and_back(&payload) as u64, framed);
    }
}

#[test]
fn blocks_change_between_stored_and_coded() {
    let zeros = vec![0; BLOCK];
    let noise: Vec<u8> = noise(BLOCK).collect();
    for payload in [
        [&noise[..], &zeros, &noise, &noise, &zeros[..100]].concat(),
        [&zeros[..], &noise, &noise[..10]].concat(),
        [&zeros[..], &zeros, &noise[..1]].concat(),
    ] {
        there_and_back(&payload);
    }
}

#[test]
fn weights_shrink_to_their_entropy() {
    let payload = weights(1 << 20);
    let mut counts = [0_u32; 256];
    for byte in &payload {
        counts[usize::from(*byte)] += 1;
    }
    let total = f64::from(1 << 20);
    let entropy: f64 = counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f64::from(*count) * (total / f64::from(*count)).log2() / 8.0)
        .sum();
    #[expect(clippy::cast_precision_loss)]
    let member = there_and_back(&payload) as f64;
    assert!(member < entropy * 1.01, "{member} bytes of {entropy}");
    assert!(member < total * 0.8);
}

#[test]
fn the_bytes_are_always_the_same() {
    let member = gzip(&[&weights(600_000)[..], &noise(300_000).collect::<Vec<_>>()].concat());
    assert_eq!(
        Digest::of(&member).to_string(),
        "sha256:e802e63c3cf4e7c70227aa8d39b5ecb2a5fc5f5d86b4421f67131db1a37045a1"
    );
}

proptest! {
    #[test]
    fn any_bytes_come_back(payload in prop::collection::vec(any::<u8>(), 0..5000)) {
        there_and_back(&payload);
    }

    #[test]
    fn any_distribution_comes_back(
        counts in prop::collection::vec(prop_oneof![Just(0_usize), 1..4_usize, 1..600_usize], 256),
        turn in 0..100_000_usize,
    ) {
        let mut payload: Vec<u8> = (0..=255_u8)
            .zip(&counts)
            .flat_map(|(byte, count)| std::iter::repeat_n(byte, *count))
            .collect();
        let length = payload.len().max(1);
        payload.rotate_left(turn % length);
        there_and_back(&payload);
    }
}
