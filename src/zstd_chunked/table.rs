//! The table of contents (TOC) of a layer that was opened, to be held against what footer, frame and annotations say of it.

use super::{MANIFEST_TYPE, SKIPPABLE_HEADER, SKIPPABLE_MAGIC, footer::Footer};
use crate::digest::Digest;

/// Where the TOC lies, and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// What the footer says.
    pub footer: Footer,
    /// Where the frame of the footer begins in the blob, in bytes.
    pub footer_offset: u64,
    /// Bytes of content that the header in front of the TOC states; `None` when it is no skippable frame's.
    pub frame_content: Option<u64>,
    /// Bytes of the JSON.
    pub length: u64,
    /// SHA-256 of the compressed TOC.
    pub checksum: Digest,
}

impl Table {
    /// What the annotation of its place should say.
    pub fn position(&self) -> String {
        let Footer { toc_offset: offset, compressed, .. } = self.footer;
        format!("{offset}:{compressed}:{}:{MANIFEST_TYPE}", self.length)
    }
}

/// Bytes of content that the header of a skippable frame states; `None` when `header` begins none of the format's.
pub(crate) fn frame_content(header: &[u8]) -> Option<u64> {
    let length = header.get(..SKIPPABLE_HEADER)?.strip_prefix(&SKIPPABLE_MAGIC)?;
    Some(u64::from(u32::from_le_bytes(length.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zstd_chunked::skippable;

    #[test]
    fn headers_are_those_of_frames_that_are_written() {
        let frame = skippable(b"content").unwrap();
        assert_eq!(frame_content(&frame), Some(7));
        assert_eq!(frame_content(&frame[..SKIPPABLE_HEADER - 1]), None);
        assert_eq!(frame_content(&frame[1..]), None);
    }
}
