//! Streams of gzip members: where members are found, they lie one behind the other, and they unpack to the same in
//! pieces of any size, each alone, and with another reader. By the first byte, the rest is a stream, or the deflated
//! content of a member whose checksum is put right: few inputs would have the right one by chance.
#![no_main]

use std::io::{BufReader, Read};

use flate2::{
    Crc, Decompress, FlushDecompress, Status,
    bufread::{GzDecoder, MultiGzDecoder},
};
use libfuzzer_sys::fuzz_target;
use starcar::estargz::members::{Member, MemberError, Members, Step};

/// Bytes that are unpacked of an input: a small one can unpack to much.
const UNPACKED_MAX: usize = 1 << 18;

/// A member's fixed header: magic, deflate, no flags, no time, no extra flags, unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

#[derive(Debug, Default, PartialEq)]
struct Found {
    /// Members that have ended: where each lies, where it ends, what it holds.
    members: Vec<(Member, u64, Vec<u8>)>,
    /// What came of one that has not.
    rest: Vec<u8>,
    /// Where the member begins that cannot be read; `None` when the stream has ended.
    broken_at: Option<u64>,
}

/// The members of a stream, read in `piece` bytes from a buffer of `capacity` bytes; `None` when they unpack to too much.
fn read(stream: &[u8], capacity: usize, piece: usize) -> Option<Found> {
    let mut members = Members::new(BufReader::with_capacity(capacity, stream));
    let mut buffer = vec![0; piece];
    let (mut found, mut total) = (Found::default(), 0);
    loop {
        let current = members.member();
        match members.read(&mut buffer) {
            Ok(Step::Bytes(count)) => {
                assert!(count > 0);
                total += count;
                if total > UNPACKED_MAX {
                    return None;
                }
                found.rest.extend_from_slice(&buffer[..count]);
            }
            Ok(Step::MemberEnd(end)) => found.members.push((current, end, std::mem::take(&mut found.rest))),
            Ok(Step::End) => return Some(found),
            Err(MemberError::Read(error)) => panic!("bytes in memory cannot be read: {error}"),
            Err(error) => {
                found.broken_at = error.offset();
                assert!(
                    matches!(members.read(&mut buffer), Ok(Step::End)),
                    "there is nothing to read after an error"
                );
                return Some(found);
            }
        }
    }
}

fn unpacked(decoder: impl Read) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    decoder.take(UNPACKED_MAX as u64 + 1).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The deflate stream that some bytes begin with, and what it holds.
fn inflated(bytes: &[u8]) -> Option<(&[u8], Vec<u8>)> {
    let mut decoder = Decompress::new(false);
    let mut content = Vec::with_capacity(1 << 12);
    loop {
        let taken = usize::try_from(decoder.total_in()).ok()?;
        match decoder.decompress_vec(bytes.get(taken..)?, &mut content, FlushDecompress::None).ok()? {
            Status::StreamEnd => {
                let taken = usize::try_from(decoder.total_in()).ok()?;
                return Some((bytes.get(..taken)?, content));
            }
            _ if content.len() < content.capacity() || content.len() >= UNPACKED_MAX / 2 => return None,
            _ => content.reserve(content.len()),
        }
    }
}

fn assert_sound(stream: &[u8], found: &Found) {
    let (mut offset, mut output) = (0, 0);
    let mut all = Vec::new();
    for (member, end, content) in &found.members {
        assert_eq!((member.offset, member.output), (offset, output));
        assert!(*end > offset && *end <= stream.len() as u64);
        let start = usize::try_from(offset).expect("it lies in the stream");
        let alone = &stream[start..usize::try_from(*end).expect("it lies in the stream")];
        assert_eq!(unpacked(GzDecoder::new(alone)).as_ref(), Some(content));
        offset = *end;
        output += content.len() as u64;
        all.extend_from_slice(content);
    }
    match found.broken_at {
        Some(broken_at) => assert_eq!(broken_at, offset),
        None => {
            assert_eq!(offset, stream.len() as u64);
            assert!(found.rest.is_empty());
            if !stream.is_empty() {
                assert_eq!(unpacked(MultiGzDecoder::new(stream)), Some(all));
            }
        }
    }
}

fn look_at(stream: &[u8], piece: usize) {
    let Some(mut found) = read(stream, 1 << 16, 1 << 16) else { return };
    assert_sound(stream, &found);
    // A broken member is unpacked as far as the pieces allow, so both may go on to different ends.
    let Some(mut in_pieces) = read(stream, piece, piece) else {
        assert!(found.broken_at.is_some());
        return;
    };
    if found.broken_at.is_some() {
        let known = found.rest.len().min(in_pieces.rest.len());
        found.rest.truncate(known);
        in_pieces.rest.truncate(known);
    }
    assert_eq!(in_pieces, found);
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let piece = usize::from(first >> 1) + 1;
    if first & 1 == 0 {
        look_at(rest, piece);
        return;
    }
    let Some((deflated, content)) = inflated(rest) else { return };
    let mut crc = Crc::new();
    crc.update(&content);
    let trailer = [crc.sum().to_le_bytes(), crc.amount().to_le_bytes()].concat();
    let member = [&HEADER[..], deflated, &trailer].concat();
    let found = read(&member, 1 << 16, 1 << 16).expect("it unpacks to no more");
    assert_eq!(found.members, [(Member::default(), member.len() as u64, content)]);
    assert_eq!(found.broken_at, None);
    look_at(&[&member[..], &member, rest].concat(), piece);
});
