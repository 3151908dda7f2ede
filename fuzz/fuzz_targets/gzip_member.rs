//! Streams of gzip members. By the first byte, the rest is a stream, or the deflated content of a member whose checksum is
//! put right: few inputs would have the right one by chance.
#![no_main]

mod members;

use flate2::{
    Crc, Decompress, FlushDecompress, Status,
    bufread::{GzDecoder, MultiGzDecoder},
};
use libfuzzer_sys::fuzz_target;
use starcar::members::{Member, MemberKind};

use self::members::{Other, UNPACKED_MAX, look_at, read, unpacked};

/// A member's fixed header: magic, deflate, no flags, no time, no extra flags, unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

const OTHER: Other = Other {
    kind: MemberKind::Gzip,
    one: |member| unpacked(GzDecoder::new(member)),
    all: |stream| unpacked(MultiGzDecoder::new(stream)),
};

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

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let piece = usize::from(first >> 1) + 1;
    if first & 1 == 0 {
        look_at(&OTHER, rest, piece);
        return;
    }
    let Some((deflated, content)) = inflated(rest) else { return };
    let mut crc = Crc::new();
    crc.update(&content);
    let trailer = [crc.sum().to_le_bytes(), crc.amount().to_le_bytes()].concat();
    let member = [&HEADER[..], deflated, &trailer].concat();
    let found = read(MemberKind::Gzip, &member, 1 << 16, 1 << 16).expect("it unpacks to no more");
    assert_eq!(found.members, [(Member::default(), member.len() as u64, content)]);
    assert_eq!(found.broken_at, None);
    look_at(&OTHER, &[&member[..], &member, rest].concat(), piece);
});
