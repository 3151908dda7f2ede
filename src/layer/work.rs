//! What a worker does with a chunk on its own: digest, checksum, compression. Must not know the chunk's neighbours.

use std::io;

use sha2::{Digest as _, Sha256};

use super::{LayerFormat, Storage};
use crate::{
    blob::framing::{FramedBuffer, Framing},
    digest::Digest,
};

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
    /// It did not shrink, and lies there in a frame that it was not read into.
    Framed(FramedBuffer),
    /// A compressed member.
    Member(Vec<u8>),
}

/// Works on the chunk in `buffer`, which is in a raw frame where `storage` says that it is to be compressed.
pub(super) fn work_on(buffer: &FramedBuffer, storage: Storage, format: &dyn LayerFormat) -> Worked {
    let mut hash = Sha256::new();
    buffer.payload().for_each(|piece| hash.update(piece));
    // A raw frame has the payload in one piece.
    let payload = buffer.payload().next().unwrap_or_default();
    let made = match storage {
        Storage::Stored => Ok(Made::AsRead),
        Storage::Compressed => {
            format.compress(payload).map(|member| member.map_or(Made::AsRead, Made::Member))
        }
        Storage::EntropyCoded => format.entropy_code(payload).map(|member| match member {
            Some(member) if is_worth_unpacking(payload.len() as u64, member.len() as u64) => {
                Made::Member(member)
            }
            _ => Made::Framed(framed(payload, format.framing())),
        }),
    };
    Worked { digest: Digest::finish(hash), checksum: buffer.checksum(), made }
}

/// Whether weights of `raw` bytes that shrink to `coded` are worth unpacking: by 3 % or more. A node reads what lies
/// stored at the speed of its link.
pub(crate) fn is_worth_unpacking(raw: u64, coded: u64) -> bool {
    coded < raw && coded <= raw - raw / 100 * 3
}

fn framed(payload: &[u8], framing: Framing) -> FramedBuffer {
    let mut buffer = FramedBuffer::new(Vec::new(), framing, payload.len());
    buffer.fill(payload);
    buffer
}
