//! Streams of zstd frames, some of which decoders skip. By the first byte, the rest is a stream, or the content of frames that
//! are written here: few inputs would be compressed by chance.
#![no_main]

mod members;

use libfuzzer_sys::fuzz_target;
use starcar::members::MemberKind;

use self::members::{Other, look_at, read, unpacked};

const OTHER: Other = Other {
    kind: MemberKind::Zstd,
    one: |frame| unpacked(zstd::Decoder::with_buffer(frame).ok()?.single_frame()),
    all: |stream| unpacked(zstd::Decoder::with_buffer(stream).ok()?),
};

/// A frame that decoders skip.
fn skippable(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("inputs are small").to_le_bytes();
    [&[0x50 | kind & 0x0f, 0x2a, 0x4d, 0x18][..], &length, content].concat()
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let piece = usize::from(first >> 1) + 1;
    if first & 1 == 0 {
        look_at(&OTHER, rest, piece);
        return;
    }
    let skipped = skippable(*first >> 4, rest);
    let packed = zstd::bulk::compress(rest, i32::from(first >> 5)).expect("anything can be compressed");
    let stream = [&skipped[..], &packed, &skipped].concat();
    let found = read(MemberKind::Zstd, &stream, 1 << 16, 1 << 16).expect("it unpacks to no more");
    let contents: Vec<&[u8]> = found.members.iter().map(|(_, _, content)| &content[..]).collect();
    assert_eq!((contents, found.broken_at), (vec![b"".as_slice(), rest, b""], None));
    look_at(&OTHER, &[&stream, rest].concat(), piece);
});
