//! Blobs that are compared with their digests while they are read: an archive takes whatever bytes it is given. Must not
//! know where blobs lie.

use std::{
    io::{self, Read},
    sync::Arc,
};

use sha2::{Digest as _, Sha256};

use crate::{blob::BlobContent, digest::Digest};

/// A blob of which no reader comes to the end unless its bytes have its digest.
pub(super) struct Sound(pub(super) Arc<dyn BlobContent>);

struct SoundReader {
    content: Box<dyn Read + Send>,
    hash: Sha256,
    left: u64,
    digest: Digest,
}

impl BlobContent for Sound {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn digest(&self) -> Digest {
        self.0.digest()
    }

    fn reader(self: Arc<Self>, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let (digest, size) = (self.digest(), self.size());
        let content = Arc::clone(&self.0).reader(offset)?;
        // Only all of its bytes have the digest.
        if offset > 0 {
            return Ok(content);
        }
        Ok(Box::new(SoundReader { content, hash: Sha256::new(), left: size, digest }))
    }
}

impl Read for SoundReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = &mut buffer[..most];
        let read = self.content.read(buffer)?;
        let wrong = |reason: String| Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        if read == 0 {
            return wrong(format!("blob {} is damaged: {} bytes of it are missing", self.digest, self.left));
        }
        self.hash.update(&buffer[..read]);
        self.left -= read as u64;
        if self.left == 0 {
            let actual = Digest::finish(std::mem::take(&mut self.hash));
            if actual != self.digest {
                return wrong(format!("blob {} is damaged: its bytes have digest {actual}", self.digest));
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that claim to be others.
    struct Claimed(&'static [u8], Digest, u64);

    impl BlobContent for Claimed {
        fn size(&self) -> u64 {
            self.2
        }

        fn digest(&self) -> Digest {
            self.1
        }

        fn reader(self: Arc<Self>, offset: u64) -> io::Result<Box<dyn Read + Send>> {
            Ok(Box::new(&self.0[usize::try_from(offset).unwrap()..]))
        }
    }

    #[test]
    fn only_sound_blobs_end() {
        let read = |bytes, digest, size| {
            let mut text = String::new();
            let blob = Arc::new(Sound(Arc::new(Claimed(bytes, digest, size))));
            blob.reader(0)?.read_to_string(&mut text).map(|_| text)
        };
        assert_eq!(read(b"good", Digest::of(b"good"), 4).unwrap(), "good");
        assert_eq!(read(b"", Digest::of(b""), 0).unwrap(), "");
        // What lies behind it is not the blob's.
        assert_eq!(read(b"good and more", Digest::of(b"good"), 4).unwrap(), "good");
        for (bytes, size, said) in
            [(&b"evil"[..], 4, "have digest"), (b"goo", 4, "1 bytes of it are missing")]
        {
            let error = read(bytes, Digest::of(b"good"), size).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
