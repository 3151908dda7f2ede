//! Whatever a blob ends in, a footer is found only where there is one, and every offset can be written and read.
#![no_main]

use std::io::{Cursor, Read};

use flate2::bufread::GzDecoder;
use libfuzzer_sys::fuzz_target;
use starcar::{
    estargz::footer::{FOOTER_SIZE, Footer, encode},
    zstd_chunked::footer::{Footer as ZstdFooter, Span},
};

/// A footer that is found is one empty gzip member up to the last byte: any other gzip reader passes over it.
fn assert_empty_member(footer: &[u8]) {
    let mut decoder = GzDecoder::new(Cursor::new(footer));
    let mut content = Vec::new();
    decoder.read_to_end(&mut content).expect("a footer is a gzip member");
    assert!(content.is_empty());
    assert_eq!(decoder.into_inner().position(), footer.len() as u64);
}

/// The footer of zstd:chunked has one way to be written.
fn look_for_zstd(end: &[u8]) {
    if let Some(footer) = ZstdFooter::read(end) {
        assert!(end.ends_with(&footer.encode()));
        assert_eq!(Footer::read(end), None, "a blob is of one format");
    }
    let (numbers, rest) = end.as_chunks::<8>();
    if let [toc_offset, compressed, uncompressed, more @ ..] = numbers {
        let [toc_offset, compressed, uncompressed] =
            [toc_offset, compressed, uncompressed].map(|number| u64::from_le_bytes(*number));
        let tar_split = match more {
            [offset, compressed, uncompressed, ..] => {
                let [offset, compressed, uncompressed] =
                    [offset, compressed, uncompressed].map(|number| u64::from_le_bytes(*number));
                Some(Span { offset, compressed, uncompressed })
            }
            _ => None,
        };
        let footer = ZstdFooter { toc_offset, compressed, uncompressed, tar_split };
        let written = [rest, &footer.encode()].concat();
        assert_eq!(footer.encode().len(), footer.size());
        assert_eq!(ZstdFooter::read(&written), Some(footer));
    }
}

fuzz_target!(|end: &[u8]| {
    look_for_zstd(end);
    match Footer::read(end) {
        Some(Footer::Toc { toc_offset, size }) => {
            let footer = &end[end.len() - size..];
            assert_empty_member(footer);
            if size == FOOTER_SIZE {
                assert!(footer.eq_ignore_ascii_case(&encode(toc_offset)));
            }
        }
        // Its size is not told: no table of contents ends where it begins.
        Some(Footer::External) | None => {}
    }
    if let Some((offset, rest)) = end.split_first_chunk() {
        let toc_offset = u64::from_le_bytes(*offset);
        let written = [rest, &encode(toc_offset)].concat();
        assert_eq!(Footer::read(&written), Some(Footer::Toc { toc_offset, size: FOOTER_SIZE }));
    }
});
