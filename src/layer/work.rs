//! What a worker does with a chunk on its own: digest, checksum, compression. Must not know the chunk's neighbours.

use std::io;

use sha2::{Digest as _, Sha256};

use super::{LayerFormat, Storage};
use crate::{blob::framing::FramedBuffer, digest::Digest};

/// What a worker finds out about a chunk.
pub(super) struct Worked {
    pub digest: Digest,
    pub checksum: u32,
    pub made: io::Result<Made>,
}

/// What a chunk becomes in the blob.
pub(super) enum Made {
    /// It lies there as it was read.
    AsRead,
    /// A compressed member.
    Member(Vec<u8>),
}

/// Works on the chunk in `buffer`, which is in a raw frame where `storage` says that it is to be compressed.
pub(super) fn work_on(buffer: &FramedBuffer, storage: Storage, format: &dyn LayerFormat) -> Worked {
    let mut hash = Sha256::new();
    buffer.payload().for_each(|piece| hash.update(piece));
    let made = match storage {
        Storage::Stored => Ok(Made::AsRead),
        Storage::Compressed => {
            // A raw frame has the payload in one piece.
            let payload = buffer.payload().next().unwrap_or_default();
            format.compress(payload).map(|member| member.map_or(Made::AsRead, Made::Member))
        }
    };
    Worked { digest: Digest::finish(hash), checksum: buffer.checksum(), made }
}
