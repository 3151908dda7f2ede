//! The footer: a skippable frame at the end of the blob that says where the table of contents (TOC) lies.
//!
//! Source: stargz-snapshotter, `estargz/zstdchunked/zstdchunked.go`, `zstdFooterBytes`; the longer one is that of
//! `go.podman.io/storage` 1.65, `pkg/chunked/internal/minimal/compression.go`, `footerDataToBlob`.

use super::{MANIFEST_TYPE, SKIPPABLE_HEADER, SKIPPABLE_MAGIC};

/// Size of the shorter footer in bytes, with the header of its frame.
pub const FOOTER_SIZE: usize = SKIPPABLE_HEADER + SHORT;

/// Size of the longer footer in bytes, with the header of its frame.
pub const FOOTER_SIZE_MAX: usize = SKIPPABLE_HEADER + LONG;

/// Bytes of the frame's content: four numbers and the magic.
const SHORT: usize = 40;
/// Bytes of the content where the footer leads to a tar-split as well: three more numbers.
const LONG: usize = 64;
/// What the footer ends in.
const SHORT_MAGIC: [u8; 8] = *b"GnUlInUx";
/// What the longer footer ends in: not the same.
const LONG_MAGIC: [u8; 8] = *b"GNUlInUx";

/// Where something compressed lies in a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Where it begins, behind the header of its frame, in bytes.
    pub offset: u64,
    /// Its length in the blob in bytes.
    pub compressed: u64,
    /// Its length in bytes when it is decompressed.
    pub uncompressed: u64,
}

impl Span {
    /// As annotations have it.
    pub(super) fn position(&self) -> String {
        format!("{}:{}:{}", self.offset, self.compressed, self.uncompressed)
    }

    /// What an annotation says; `None` where it is no three numbers.
    pub fn parse(position: &str) -> Option<Self> {
        let mut numbers = position.split(':').map(str::parse);
        let mut next = || numbers.next()?.ok();
        let span = Self { offset: next()?, compressed: next()?, uncompressed: next()? };
        numbers.next().is_none().then_some(span)
    }
}

/// What the end of a blob says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footer {
    /// Where the compressed TOC begins in the blob, behind the header of its frame, in bytes.
    pub toc_offset: u64,
    /// Length of the compressed TOC in bytes.
    pub compressed: u64,
    /// Length of the TOC's JSON in bytes.
    pub uncompressed: u64,
    /// Where the tar-split lies, if the footer is the longer one, which stargz-snapshotter does not know.
    pub tar_split: Option<Span>,
}

impl Footer {
    /// The footer that leads to a TOC, and to a tar-split if it is to be the longer one.
    pub(super) fn of(toc: Span, tar_split: Option<Span>) -> Self {
        let Span { offset: toc_offset, compressed, uncompressed } = toc;
        Self { toc_offset, compressed, uncompressed, tar_split }
    }

    /// The footer's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let numbers = [self.toc_offset, self.compressed, self.uncompressed, MANIFEST_TYPE];
        let mut content = numbers.map(u64::to_le_bytes).concat();
        match self.tar_split {
            None => content.extend(SHORT_MAGIC),
            Some(Span { offset, compressed, uncompressed }) => {
                content.extend([offset, compressed, uncompressed].map(u64::to_le_bytes).concat());
                content.extend(LONG_MAGIC);
            }
        }
        // No more than 64.
        #[expect(clippy::cast_possible_truncation)]
        let length = (content.len() as u32).to_le_bytes();
        [&SKIPPABLE_MAGIC[..], &length, &content].concat()
    }

    /// Size of the footer in bytes, with the header of its frame.
    pub fn size(&self) -> usize {
        SKIPPABLE_HEADER + if self.tar_split.is_some() { LONG } else { SHORT }
    }

    /// Reads the footer at the end of `end`, of which [`FOOTER_SIZE_MAX`] bytes are enough; `None` when there is none.
    pub fn read(end: &[u8]) -> Option<Self> {
        let short = numbers::<SHORT, 4>(end, SHORT_MAGIC).map(|numbers| (numbers, None));
        let long = || {
            let [numbers @ .., offset, compressed, uncompressed] = numbers::<LONG, 7>(end, LONG_MAGIC)?;
            Some((numbers, Some(Span { offset, compressed, uncompressed })))
        };
        let ([toc_offset, compressed, uncompressed, kind], tar_split) = short.or_else(long)?;
        (kind == MANIFEST_TYPE).then_some(Self { toc_offset, compressed, uncompressed, tar_split })
    }
}

/// Whether a blob that ends in `end` has the longer footer, if it has one.
pub fn is_long(end: &[u8]) -> bool {
    end.ends_with(&LONG_MAGIC)
}

/// The numbers in front of `magic` in the frame with `CONTENT` bytes of content that `end` ends in, if it does.
fn numbers<const CONTENT: usize, const COUNT: usize>(end: &[u8], magic: [u8; 8]) -> Option<[u64; COUNT]> {
    let (rest, content) = end.split_last_chunk::<CONTENT>()?;
    let (rest, length) = rest.split_last_chunk::<4>()?;
    let is_frame =
        rest.ends_with(&SKIPPABLE_MAGIC) && usize::try_from(u32::from_le_bytes(*length)) == Ok(CONTENT);
    let (numbers, _) = content.strip_suffix(&magic).filter(|_| is_frame)?.as_chunks::<8>();
    Some(<[[u8; 8]; COUNT]>::try_from(numbers).ok()?.map(u64::from_le_bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOC: Span = Span { offset: 0x1a2b, compressed: 3, uncompressed: 4 };
    const TAR_SPLIT: Span = Span { offset: 0x1c2d, compressed: 5, uncompressed: 6 };

    #[test]
    fn bytes_are_those_of_the_format() {
        let expected = "502a4d1828000000\
                        2b1a000000000000 0300000000000000 0400000000000000 0100000000000000 476e556c496e5578";
        let short = Footer::of(TOC, None);
        assert_eq!(hex::encode(short.encode()), expected.replace(' ', ""));
        let expected = "502a4d1840000000\
                        2b1a000000000000 0300000000000000 0400000000000000 0100000000000000\
                        2d1c000000000000 0500000000000000 0600000000000000 474e556c496e5578";
        let long = Footer::of(TOC, Some(TAR_SPLIT));
        assert_eq!(hex::encode(long.encode()), expected.replace(' ', ""));
    }

    #[test]
    fn it_is_skipped() {
        for tar_split in [None, Some(TAR_SPLIT)] {
            let footer = Footer::of(TOC, tar_split);
            assert_eq!(zstd::decode_all(&footer.encode()[..]).unwrap(), b"");
        }
    }

    proptest! {
        #[test]
        fn it_round_trips(numbers: [u64; 6], is_long: bool, before in prop::collection::vec(any::<u8>(), 0..9)) {
            let [offset, compressed, uncompressed, others @ ..] = numbers;
            let toc = Span { offset, compressed, uncompressed };
            let [offset, compressed, uncompressed] = others;
            let tar_split = is_long.then_some(Span { offset, compressed, uncompressed });
            let footer = Footer::of(toc, tar_split);
            let end = [&before[..], &footer.encode()].concat();
            prop_assert_eq!(footer.encode().len(), footer.size());
            prop_assert_eq!(Footer::read(&end), Some(footer));
            prop_assert_eq!(super::is_long(&end[end.len() - 8..]), is_long);
            prop_assert_eq!(Footer::read(&end[..end.len() - 1]), None);
        }

        #[test]
        fn other_bytes_are_no_footer(end in prop::collection::vec(any::<u8>(), 0..90)) {
            prop_assert_eq!(Footer::read(&end), None);
        }
    }
}
