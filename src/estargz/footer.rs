//! The footer: an empty gzip member at the end of the blob whose extra field says where the TOC begins. Layers from before
//! eStargz have a shorter one, and those whose TOC is kept elsewhere one that says so.
//!
//! Source: stargz-snapshotter, `docs/estargz.md`, section "Footer", and `estargz/gzip.go`, `estargz/externaltoc`.

/// Size of the footer in bytes.
pub const FOOTER_SIZE: usize = 51;

/// Gzip header with FEXTRA: 26 bytes of extra field, of which subfield `SG` takes 22.
const START: [u8; 16] = [
    0x1f, 0x8b, 0x08, 0x04, 0, 0, 0, 0, 0,
    0xff, // gzip header: deflate, FEXTRA, no time, unknown system
    26, 0, // length of the extra field
    b'S', b'G', 22, 0, // subfield and its length
];
/// What follows the 16 hexadecimal digits of the offset in the subfield.
const MAGIC: &[u8; 6] = b"STARGZ";
/// An empty final stored block, then CRC-32 and length of nothing.
const END: [u8; 13] = [1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];

/// The footer of a blob whose TOC member begins at byte `toc_offset`.
pub fn encode(toc_offset: u64) -> [u8; FOOTER_SIZE] {
    let mut footer = [0; FOOTER_SIZE];
    let digits = format!("{toc_offset:016x}");
    let parts: [&[u8]; 4] = [&START, digits.as_bytes(), MAGIC, &END];
    let mut position = 0;
    for part in parts {
        footer[position..position + part.len()].copy_from_slice(part);
        position += part.len();
    }
    footer
}

/// The TOC's offset that a footer states; `None` when the bytes are no eStargz footer.
pub fn decode(footer: &[u8]) -> Option<u64> {
    let rest = footer.strip_prefix(&START)?;
    let (digits, rest) = rest.split_at_checked(16)?;
    let rest = rest.strip_prefix(MAGIC)?;
    if rest != END || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Size in bytes of the footer of layers from before eStargz.
const LEGACY_SIZE: usize = 47;
/// Size in bytes of the footer of layers whose TOC is kept elsewhere.
const EXTERNAL_SIZE: usize = 46;
/// What the footer of a layer holds whose TOC is kept elsewhere.
const EXTERNAL: &[u8; 21] = b"SG\x11\x00STARGZEXTERNALTOC";

/// What the end of a blob says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Footer {
    /// The TOC's member begins at `toc_offset` and ends where the footer begins, `size` bytes before the blob's end.
    Toc {
        /// Where the TOC's member begins, in bytes.
        toc_offset: u64,
        /// Size of the footer in bytes.
        size: usize,
    },
    /// The TOC is kept elsewhere.
    External,
}

impl Footer {
    /// Reads the footer in the last [`FOOTER_SIZE`] bytes of a blob, or in all of a shorter one; `None` when there is none.
    pub fn read(end: &[u8]) -> Option<Self> {
        let last = |size: usize| end.len().checked_sub(size).and_then(|start| end.get(start..));
        if let Some(toc_offset) = last(FOOTER_SIZE).and_then(decode) {
            return Some(Self::Toc { toc_offset, size: FOOTER_SIZE });
        }
        if let Some(toc_offset) = last(LEGACY_SIZE).and_then(legacy) {
            return Some(Self::Toc { toc_offset, size: LEGACY_SIZE });
        }
        (extra(last(EXTERNAL_SIZE)?)? == EXTERNAL).then_some(Self::External)
    }
}

/// The extra field of an empty gzip member.
fn extra(member: &[u8]) -> Option<&[u8]> {
    let rest = member.strip_prefix(&[0x1f, 0x8b, 0x08, 0x04])?.get(6..)?.strip_suffix(&END)?;
    let (length, extra) = rest.split_first_chunk::<2>()?;
    (usize::from(u16::from_le_bytes(*length)) == extra.len()).then_some(extra)
}

/// The TOC's offset in a footer without subfields.
fn legacy(footer: &[u8]) -> Option<u64> {
    let digits = extra(footer)?.strip_suffix(MAGIC)?;
    // The parser takes a sign as well.
    let is_hex = digits.len() == 16 && digits.iter().all(u8::is_ascii_hexdigit);
    u64::from_str_radix(std::str::from_utf8(digits).ok().filter(|_| is_hex)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_are_those_of_the_format() {
        let expected = "1f8b08040000000000ff1a0053471600\
                        30303030303030303030303031613262535441 52475a010000ffff0000000000000000";
        assert_eq!(hex::encode(encode(0x1a2b)), expected.replace(' ', ""));
    }

    #[test]
    fn it_is_an_empty_gzip_member() {
        let mut content = Vec::new();
        flate2::read::GzDecoder::new(&encode(77)[..]).read_to_end(&mut content).unwrap();
        assert!(content.is_empty());
    }

    #[test]
    fn older_and_other_footers() {
        // As Go's compress/gzip writes them, with Header.Extra alone.
        let with = |extra: &[u8]| {
            let mut member = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff];
            member.extend(u16::try_from(extra.len()).unwrap().to_le_bytes());
            member.extend(extra);
            member.extend(END);
            member
        };
        let legacy = with(b"0000000000001a2bSTARGZ");
        assert_eq!(legacy.len(), LEGACY_SIZE);
        let found = Some(Footer::Toc { toc_offset: 0x1a2b, size: LEGACY_SIZE });
        assert_eq!(Footer::read(&legacy), found);
        assert_eq!(Footer::read(&[&[7; 4][..], &legacy].concat()), found);
        assert_eq!(Footer::read(&with(EXTERNAL)), Some(Footer::External));
        assert_eq!(Footer::read(&encode(5)), Some(Footer::Toc { toc_offset: 5, size: FOOTER_SIZE }));
        for wrong in
            [&b"+000000000001a2bSTARGZ"[..], b"0000000000001a2bSTARG", b"", b"SG\x11\x00STARGZEXTERNALTOX"]
        {
            assert_eq!(Footer::read(&with(wrong)), None);
        }
    }

    proptest! {
        #[test]
        fn offsets_round_trip(offset: u64) {
            prop_assert_eq!(decode(&encode(offset)), Some(offset));
        }

        #[test]
        fn other_bytes_are_no_footer(mut footer in prop::collection::vec(any::<u8>(), 0..60)) {
            prop_assert_eq!(Footer::read(&footer), None);
            footer.truncate(FOOTER_SIZE);
            prop_assert_eq!(Footer::read(&footer), None);
        }
    }
}
