//! Makes a layer's tar stream again from its tar-split, as containers-storage does, and compares it with the stream as that
//! comes. Must not know what is in a header.

use crc_fast::CrcAlgorithm;

use crate::zstd_chunked::{Part, SplitReader};

/// The part of the tar-split that the next bytes of the stream belong to.
enum Current {
    Segment { bytes: Vec<u8>, done: usize },
    File { name: String, left: u64, crc64: Box<crc_fast::Digest>, expected: Option<[u8; 8]> },
}

/// A stream on its way, and the tar-split that should make it.
pub(super) struct Rebuild<'a> {
    reader: SplitReader<'a>,
    current: Option<Current>,
    /// Bytes of the stream that came.
    position: u64,
    /// What differs first.
    fault: Option<String>,
    /// Whether the tar-split is damaged: that is told by who looks at it alone.
    is_damaged: bool,
}

impl<'a> Rebuild<'a> {
    /// Begins with a compressed tar-split; `None` where it is damaged.
    pub(super) fn new(compressed: &'a [u8]) -> Option<Self> {
        let reader = SplitReader::new(compressed).ok()?;
        Some(Self { reader, current: None, position: 0, fault: None, is_damaged: false })
    }

    /// Takes the next bytes of the stream.
    pub(super) fn bytes(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.has_more() {
            let Some(current) = &mut self.current else {
                let message = format!("it makes {} bytes, the layer's tar stream has more", self.position);
                self.fault = Some(message);
                return;
            };
            let count = match current {
                Current::Segment { bytes: segment, done } => {
                    let expected = segment.get(*done..).unwrap_or_default();
                    let differs = expected.iter().zip(bytes).position(|(one, other)| one != other);
                    if let Some(at) = differs {
                        let at = self.position + at as u64;
                        self.fault = Some(format!("byte {at} of the tar stream is another one"));
                        return;
                    }
                    let count = expected.len().min(bytes.len());
                    *done += count;
                    count
                }
                Current::File { left, crc64, .. } => {
                    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    crc64.update(bytes.get(..count).unwrap_or_default());
                    *left -= count as u64;
                    count
                }
            };
            self.position += count as u64;
            bytes = bytes.get(count..).unwrap_or_default();
            self.end_part();
        }
    }

    /// What differs first of a stream that has ended; `None` if nothing does.
    pub(super) fn finish(mut self) -> Option<String> {
        if self.has_more() && self.current.is_some() {
            let position = self.position;
            self.fault = Some(format!("it makes more than the {position} bytes of the layer's tar stream"));
        }
        self.fault
    }

    /// Goes on to the next part that holds bytes, if the current has none left. Whether the comparison goes on.
    fn has_more(&mut self) -> bool {
        while self.current.is_none() && self.fault.is_none() && !self.is_damaged {
            self.current = match self.reader.next() {
                Err(_) => {
                    self.is_damaged = true;
                    None
                }
                Ok(None) => break,
                Ok(Some(Part::Segment(bytes))) => {
                    (!bytes.is_empty()).then_some(Current::Segment { bytes, done: 0 })
                }
                Ok(Some(Part::Entry { name, size, crc64 })) => (size > 0).then(|| Current::File {
                    name,
                    left: size,
                    crc64: Box::new(crc_fast::Digest::new(CrcAlgorithm::Crc64GoIso)),
                    expected: crc64,
                }),
            };
        }
        self.fault.is_none() && !self.is_damaged
    }

    /// Leaves the current part if all of its bytes came.
    fn end_part(&mut self) {
        match &self.current {
            Some(Current::Segment { bytes, done }) if *done == bytes.len() => {}
            Some(Current::File { name, left: 0, crc64, expected }) => {
                let found = crc64.finalize().to_be_bytes();
                if *expected != Some(found) {
                    let stated = expected.map(hex::encode).unwrap_or_default();
                    let (name, found) = (name.escape_debug(), hex::encode(found));
                    self.fault = Some(format!("{name} has CRC-64 {found}, the tar-split says {stated}"));
                }
            }
            _ => return,
        }
        self.current = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rebuilt(split: &str, stream: &[u8], step: usize) -> Option<String> {
        let compressed = zstd::bulk::compress(split.as_bytes(), 1).unwrap();
        let mut rebuild = Rebuild::new(&compressed).unwrap();
        for bytes in stream.chunks(step) {
            rebuild.bytes(bytes);
        }
        rebuild.finish()
    }

    #[test]
    fn what_differs_first_is_told() {
        let split = "{\"type\":2,\"payload\":\"AAE=\",\"position\":0}\n\
                     {\"type\":1,\"name\":\"a\",\"size\":9,\"payload\":\"uQlWx3WkEAE=\",\"position\":1}\n\
                     {\"type\":1,\"name\":\"b\",\"payload\":null,\"position\":2}\n\
                     {\"type\":2,\"payload\":\"AgM=\",\"position\":3}\n";
        for step in [1, 5, 100] {
            let of = |stream: &[u8]| rebuilt(split, stream, step);
            assert_eq!(of(b"\0\x01123456789\x02\x03"), None);
            assert_eq!(of(b"\0\x01123456789\x02\x04").unwrap(), "byte 12 of the tar stream is another one");
            assert!(of(b"\0\x01123456780\x02\x03").unwrap().contains("the tar-split says b90956c775a41001"));
            assert!(of(b"\0\x01123456789\x02\x03\x04").unwrap().starts_with("it makes 13 bytes"));
            assert!(of(b"\0\x01123456789\x02").unwrap().starts_with("it makes more than the 12 bytes"));
            assert!(of(b"\0\x01123456789").unwrap().starts_with("it makes more than the 11 bytes"));
        }
    }
}
