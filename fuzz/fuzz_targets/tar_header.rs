//! Tar streams: pieces of any size tell the same, places ascend, and payloads have the size that was told. By the first
//! byte, blocks that say they are headers get the right checksum first: few inputs would have it by chance.
#![no_main]

use libfuzzer_sys::fuzz_target;
use starcar::layer::tar_reader::{TarEnd, TarEntry, TarError, TarEvent, TarReader};

const BLOCK: usize = 512;
/// Where a header's checksum lies, and the magic that ustar's and GNU's headers have.
const CHECKSUM: std::ops::Range<usize> = 148..156;
const MAGIC: (std::ops::Range<usize>, &[u8]) = (257..262, b"ustar");

#[derive(Debug, Default, PartialEq)]
struct Found {
    entries: Vec<(TarEntry, Vec<u8>)>,
    /// Where padding is not zero.
    dirty: Vec<u64>,
    end: Option<Result<TarEnd, TarError>>,
}

/// What a stream holds that comes in pieces of `piece` bytes.
fn read(stream: &[u8], piece: usize) -> Found {
    let mut reader = TarReader::new();
    let mut found = Found::default();
    for piece in stream.chunks(piece) {
        let fed = reader.feed(piece, |event| match event {
            TarEvent::Entry(entry) => found.entries.push((*entry, Vec::new())),
            TarEvent::Payload(bytes) => {
                assert!(!bytes.is_empty());
                found.entries.last_mut().expect("an entry precedes its payload").1.extend_from_slice(bytes);
            }
            TarEvent::PaddingNotZero { at } => found.dirty.push(at),
        });
        if let Err(error) = fed {
            assert!(error.at() < stream.len() as u64);
            found.end = Some(Err(error));
            return found;
        }
    }
    assert_eq!(reader.position(), stream.len() as u64);
    found.end = Some(reader.finish());
    found
}

fn assert_sound(stream: &[u8], found: &Found) {
    let mut position = 0;
    let (last, whole) = match found.entries.split_last() {
        Some((last, whole)) => (Some(last), whole),
        None => (None, &[][..]),
    };
    for (entry, payload) in whole.iter().chain(last) {
        assert!(entry.header_at >= position && entry.header_at.is_multiple_of(BLOCK as u64));
        assert!(entry.payload_at > entry.header_at && entry.payload_at.is_multiple_of(BLOCK as u64));
        assert!(entry.modified_nanos < 1_000_000_000);
        position = entry.payload_at + payload.len() as u64;
        let start = usize::try_from(entry.payload_at).expect("it lies in the stream");
        assert_eq!(&stream[start..start + payload.len()], payload);
    }
    assert!(whole.iter().all(|(entry, payload)| payload.len() as u64 == entry.size));
    assert!(found.dirty.is_sorted_by(|one, other| one < other));
    assert!(found.dirty.iter().all(|at| stream[usize::try_from(*at).expect("it lies in the stream")] != 0));
    let Some(Ok(end)) = &found.end else { return };
    // A stream may end without the last padding.
    assert!(end.at >= position && end.at <= end.size && end.size == stream.len() as u64);
    assert!(last.is_none_or(|(entry, payload)| payload.len() as u64 == entry.size));
    assert!(end.at.saturating_add(end.zeros) <= end.size);
    match end.garbage_at {
        Some(at) => assert_eq!(at, end.at + end.zeros),
        None => assert_eq!(end.size, end.at + end.zeros),
    }
}

/// Puts the checksum right of every block that has the magic of a header.
fn set_checksums(stream: &mut [u8]) {
    for block in stream.chunks_exact_mut(BLOCK).filter(|block| &block[MAGIC.0] == MAGIC.1) {
        block[CHECKSUM].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, stream)) = bytes.split_first() else { return };
    let mut stream = stream.to_vec();
    if first & 1 == 1 {
        set_checksums(&mut stream);
    }
    let found = read(&stream, usize::MAX);
    assert_sound(&stream, &found);
    assert_eq!(read(&stream, usize::from(*first) * 3 + 1), found);
});
