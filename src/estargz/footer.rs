//! The footer: an empty gzip member at the end of the blob whose extra field says where the TOC begins.

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

    proptest! {
        #[test]
        fn offsets_round_trip(offset: u64) {
            prop_assert_eq!(decode(&encode(offset)), Some(offset));
        }

        #[test]
        fn other_bytes_are_no_footer(mut footer in prop::collection::vec(any::<u8>(), 0..60)) {
            prop_assert_eq!(decode(&footer), None);
            footer.truncate(FOOTER_SIZE);
            prop_assert_eq!(decode(&footer), None);
        }
    }
}
