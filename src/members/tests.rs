//! Tests of reading gzip members and zstd frames.

use std::io::{Read as _, Write as _};

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;

use super::*;
use crate::estargz::footer;

fn member(content: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

type Found = (Vec<(Member, Vec<u8>)>, Result<(), MemberError>);

/// All members with what they hold, and how it ended.
fn read(kind: MemberKind, stream: impl BufRead, piece: usize) -> Found {
    let mut members = Members::new(kind, stream);
    let (mut found, mut content) = (Vec::new(), Vec::new());
    let mut buffer = vec![0; piece];
    loop {
        let current = members.member();
        match members.read(&mut buffer) {
            Ok(Step::Bytes(count)) => content.extend_from_slice(&buffer[..count]),
            Ok(Step::MemberEnd(_)) => found.push((current, std::mem::take(&mut content))),
            Ok(Step::End) => return (found, Ok(())),
            Err(error) => return (found, Err(error)),
        }
    }
}

fn three() -> (Vec<u8>, usize) {
    let first = member(&b"a".repeat(100_000), 6);
    let length = first.len();
    ([first, member(b"", 6), member(b"stored", 0), footer::encode(7).to_vec()].concat(), length)
}

#[test]
fn members_and_where_they_lie() {
    let (stream, length) = three();
    for (capacity, piece) in [(1, 1_000), (10, 1), (1 << 16, 1 << 18)] {
        let (found, end) = read(MemberKind::Gzip, io::BufReader::with_capacity(capacity, &stream[..]), piece);
        end.unwrap();
        let places: Vec<(Member, usize)> = found.iter().map(|(at, bytes)| (*at, bytes.len())).collect();
        let at = |offset: usize, output| Member { offset: offset as u64, output };
        let second = length + member(b"", 6).len();
        let last = stream.len() - footer::FOOTER_SIZE;
        let expected =
            [(at(0, 0), 100_000), (at(length, 100_000), 0), (at(second, 100_000), 6), (at(last, 100_006), 0)];
        assert_eq!(places, expected);
        assert_eq!(found[2].1, b"stored");
    }
}

#[test]
fn damage_names_its_member() {
    let (good, length) = three();
    let at = length as u64;
    let second = length + member(b"", 6).len();

    let mut bytes = good.clone();
    bytes[second - 1] ^= 1;
    let (found, end) = read(MemberKind::Gzip, &bytes[..], 100);
    assert_eq!(found.len(), 1);
    assert!(matches!(end, Err(MemberError::Damaged { offset, .. }) if offset == at), "{end:?}");

    bytes = good.clone();
    bytes[length] = 0;
    let end = read(MemberKind::Gzip, &bytes[..], 100).1;
    assert!(matches!(end, Err(MemberError::NoMember { offset, .. }) if offset == at), "{end:?}");

    for (cut, offset) in [(length - 1, 0), (length + 3, at), (length + 12, at)] {
        let end = read(MemberKind::Gzip, &good[..cut], 100).1;
        assert!(
            matches!(end, Err(MemberError::CutShort { offset: named, .. }) if named == offset),
            "{end:?}"
        );
    }

    let (found, end) = read(MemberKind::Gzip, &[&good[..], &[0; 9]].concat()[..], 100);
    let size = good.len() as u64;
    assert_eq!(found.len(), 4);
    assert!(matches!(end, Err(MemberError::NoMember { offset, .. }) if offset == size), "{end:?}");
}

#[test]
fn a_failing_stream_is_no_damage() {
    struct Fails;
    impl io::Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, "gone"))
        }
    }
    let (good, _) = three();
    for start in [0, 5, 60] {
        let end = read(MemberKind::Gzip, io::BufReader::new(good[..start].chain(Fails)), 100).1;
        assert!(matches!(&end, Err(MemberError::Read(cause)) if cause.to_string() == "gone"), "{end:?}");
    }
}

#[test]
fn nothing_is_no_member_and_no_error() {
    let (found, end) = read(MemberKind::Gzip, &b""[..], 10);
    assert!(found.is_empty());
    end.unwrap();
}

proptest! {
    #[test]
    fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), header: bool) {
        let start: &[u8] = if header { &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255] } else { &[] };
        let _ = read(MemberKind::Gzip, &[start, &bytes].concat()[..], 64);
    }
}

fn frames() -> (Vec<u8>, [usize; 4]) {
    let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    let parts = [
        zstd::bulk::compress(&b"a".repeat(300_000), 3).unwrap(),
        skippable,
        zstd::bulk::compress(b"", 3).unwrap(),
        zstd::bulk::compress(b"content", 3).unwrap(),
    ];
    let mut ends = [0; 4];
    let mut end = 0;
    for (place, part) in ends.iter_mut().zip(&parts) {
        end += part.len();
        *place = end;
    }
    (parts.concat(), ends)
}

#[test]
fn frames_and_where_they_lie() {
    let (stream, [first, second, third, _]) = frames();
    for (capacity, piece) in [(1, 1_000), (10, 1), (1 << 16, 1 << 18)] {
        let (found, end) = read(MemberKind::Zstd, io::BufReader::with_capacity(capacity, &stream[..]), piece);
        end.unwrap();
        let places: Vec<(Member, usize)> = found.iter().map(|(at, bytes)| (*at, bytes.len())).collect();
        let at = |offset: usize, output| Member { offset: offset as u64, output };
        let expected =
            [(at(0, 0), 300_000), (at(first, 300_000), 0), (at(second, 300_000), 0), (at(third, 300_000), 7)];
        assert_eq!(places, expected);
        assert_eq!(found[3].1, b"content");
    }
}

#[test]
fn damage_names_its_frame() {
    let (good, [first, second, third, last]) = frames();
    let cut_at = |length: usize| match read(MemberKind::Zstd, &good[..length], 100).1 {
        Ok(()) => None,
        Err(MemberError::CutShort { offset, .. }) => Some(offset),
        Err(other) => panic!("{other}"),
    };
    for length in 1..=last {
        let begin = [0, first, second, third].into_iter().rev().find(|begin| *begin <= length).unwrap();
        let expected = (![first, second, third, last].contains(&length)).then_some(begin as u64);
        assert_eq!(cut_at(length), expected, "{length}");
    }

    let end = read(MemberKind::Zstd, &[&good[..], b"no frame"].concat()[..], 100).1;
    let size = last as u64;
    assert!(matches!(end, Err(MemberError::NoMember { offset, .. }) if offset == size), "{end:?}");

    let checked = {
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
        encoder.include_checksum(true).unwrap();
        io::Write::write_all(&mut encoder, b"checked").unwrap();
        encoder.finish().unwrap()
    };
    let mut stream = [&good[..first], &checked].concat();
    read(MemberKind::Zstd, &stream[..], 100).1.unwrap();
    *stream.last_mut().unwrap() ^= 1;
    let end = read(MemberKind::Zstd, &stream[..], 100).1.unwrap_err();
    assert!(end.to_string().starts_with(&format!("the zstd frame at byte {first} is damaged: ")), "{end}");
}

/// libzstd looks for a whole frame in what it is given when it has read a header, also when that header began in what it was
/// given before.
#[test]
fn a_header_that_ends_like_a_frame_that_is_skipped_is_no_such_frame() {
    let stream = [&[0x28, 0xb5, 0x2f, 0xfd][..], &[0x50, 0x2a, 0x4d, 0x18], &[0; 4], &[0x24, 1]].concat();
    let (found, end) = read(MemberKind::Zstd, &stream[..], 1 << 16);
    assert!(found.is_empty());
    assert!(matches!(end, Err(MemberError::CutShort { offset: 0, .. })), "{end:?}");
}

#[test]
fn a_frame_without_the_content_that_its_header_states_is_damaged() {
    // One segment of 12 bytes, and a last block of none.
    let end = read(MemberKind::Zstd, &[0x28, 0xb5, 0x2f, 0xfd, 0x20, 12, 1, 0, 0][..], 100).1;
    assert!(matches!(end, Err(MemberError::Damaged { offset: 0, .. })), "{end:?}");
}

proptest! {
    #[test]
    fn no_frame_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), header: bool) {
        let start: &[u8] = if header { &[0x28, 0xb5, 0x2f, 0xfd] } else { &[] };
        let _ = read(MemberKind::Zstd, &[start, &bytes].concat()[..], 64);
    }
}
