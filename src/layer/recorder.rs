//! What a blob is made of, told while it is made, to whoever wants to make it again without hashing. Must not know
//! what becomes of it.

/// Hears what a blob is made of, in the order in which it lies in the blob. It cannot stop the layer: one that
/// cannot keep what it hears gives up alone.
pub trait Recorder: Send {
    /// Bytes that are made, not read: headers, compressed members, the tail. Neighbours may come one by one.
    fn kept(&mut self, bytes: &[u8]);

    /// A chunk of a source, in the frame of the format.
    fn stored(&mut self, chunk: StoredChunk);
}

/// A chunk that lies in the blob as it is, in its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredChunk {
    /// Index of the file's entry in the layer.
    pub entry: usize,
    /// First byte in the file, which is not the source's where the entry begins inside of it.
    pub offset: u64,
    /// Number of bytes.
    pub length: usize,
    /// CRC-32 of the bytes.
    pub checksum: u32,
}
