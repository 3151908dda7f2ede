//! What streams of members of either kind have in common: where members are found, they lie one behind the other, and they
//! unpack to the same in pieces of any size, each alone, and with another reader.

use std::io::{BufReader, Read};

use starcar::members::{Member, MemberError, MemberKind, Members, Step};

/// Bytes that are unpacked of an input: a small one can unpack to much.
pub(crate) const UNPACKED_MAX: usize = 1 << 18;

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Found {
    /// Members that have ended: where each lies, where it ends, what it holds.
    pub(crate) members: Vec<(Member, u64, Vec<u8>)>,
    /// What came of one that has not.
    rest: Vec<u8>,
    /// Where the member begins that cannot be read; `None` when the stream has ended.
    pub(crate) broken_at: Option<u64>,
}

/// Another reader: of one member, and of all of a stream. `None` when it refuses.
pub(crate) struct Other {
    pub(crate) kind: MemberKind,
    pub(crate) one: fn(&[u8]) -> Option<Vec<u8>>,
    pub(crate) all: fn(&[u8]) -> Option<Vec<u8>>,
}

/// The members of a stream of one kind, read in `piece` bytes from a buffer of `capacity` bytes; `None` when they unpack to too much.
pub(crate) fn read(kind: MemberKind, stream: &[u8], capacity: usize, piece: usize) -> Option<Found> {
    let mut members = Members::new(kind, BufReader::with_capacity(capacity, stream));
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

/// What a decoder gives, as far as is unpacked of an input; `None` when it fails.
pub(crate) fn unpacked(decoder: impl Read) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    decoder.take(UNPACKED_MAX as u64 + 1).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn assert_sound(other: &Other, stream: &[u8], found: &Found) {
    let (mut offset, mut output) = (0, 0);
    let mut all = Vec::new();
    for (member, end, content) in &found.members {
        assert_eq!((member.offset, member.output), (offset, output));
        assert!(*end > offset && *end <= stream.len() as u64);
        let start = usize::try_from(offset).expect("it lies in the stream");
        let alone = &stream[start..usize::try_from(*end).expect("it lies in the stream")];
        assert_eq!((other.one)(alone).as_ref(), Some(content));
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
                assert_eq!((other.all)(stream), Some(all));
            }
        }
    }
}

pub(crate) fn look_at(other: &Other, stream: &[u8], piece: usize) {
    let Some(mut found) = read(other.kind, stream, 1 << 16, 1 << 16) else { return };
    assert_sound(other, stream, &found);
    // A broken member is unpacked as far as the pieces allow, so both may go on to different ends.
    let Some(mut in_pieces) = read(other.kind, stream, piece, piece) else {
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
