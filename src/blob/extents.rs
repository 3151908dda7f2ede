//! A blob as a list of extents: bytes that are known, and stored frames around ranges of source files. Any
//! range of it can be produced again without a copy of the sources. Must not know what the bytes mean.

use std::{
    fmt,
    io::{self, Read},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    BlobContent,
    framing::{FramedBuffer, Framing},
    source::{OpenSource, Source},
    spool::Spooled,
};
use crate::digest::Digest;

/// One run of a blob's bytes.
#[derive(Debug, Clone)]
pub enum Extent {
    /// Bytes that were made once and kept: headers, compressed members, the table of contents.
    Kept(Spooled),
    /// A range of a source file in its frame.
    Stored {
        /// The file.
        source: Arc<Source>,
        /// First byte in the file.
        offset: u64,
        /// Number of bytes of the file.
        length: usize,
        /// How they are framed.
        framing: Framing,
        /// CRC-32 of the bytes when they were hashed; other bytes now mean that the file changed.
        checksum: u32,
    },
}

impl Extent {
    /// Number of bytes that the extent takes in the blob.
    pub fn len(&self) -> u64 {
        match self {
            Self::Kept(spooled) => spooled.len(),
            Self::Stored { length, framing, .. } => framing.framed_length(*length as u64),
        }
    }

    /// Whether the extent has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A blob made of extents, its digest known.
#[derive(Debug)]
pub struct ExtentBlob {
    /// Extents with the offset in the blob at which each begins, ascending and without holes.
    extents: Vec<(u64, Extent)>,
    size: u64,
    digest: Digest,
    on_other_content: Option<Hook>,
}

/// What is called when a source turns out to hold something else.
struct Hook(Box<dyn Fn() + Send + Sync>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

impl ExtentBlob {
    /// Puts extents one after another; `digest` is that of all their bytes.
    pub fn new(extents: Vec<Extent>, digest: Digest) -> Self {
        let mut size = 0;
        let extents = extents
            .into_iter()
            .map(|extent| {
                let start = size;
                size += extent.len();
                (start, extent)
            })
            .collect();
        Self { extents, size, digest, on_other_content: None }
    }

    /// Calls `hook` whenever a source's content is not what the blob was made from although its stamp is the same:
    /// whoever kept the checksums from an earlier run was wrong.
    #[must_use]
    pub fn on_other_content(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_other_content = Some(Hook(Box::new(hook)));
        self
    }
}

impl BlobContent for ExtentBlob {
    fn size(&self) -> u64 {
        self.size
    }

    fn digest(&self) -> Digest {
        self.digest
    }

    fn reader(self: Arc<Self>, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let next = self.extents.partition_point(|(start, extent)| start + extent.len() <= offset);
        let skip = self.extents.get(next).map_or(0, |(start, _)| offset.saturating_sub(*start));
        Ok(Box::new(ExtentReader { blob: self, next, skip, pieces: Vec::new(), open: None }))
    }
}

/// Reads an [`ExtentBlob`] from some offset to its end, one extent in memory at a time.
struct ExtentReader {
    blob: Arc<ExtentBlob>,
    /// Index of the extent that is loaded next.
    next: usize,
    /// Bytes of the next extent that lie before the wanted offset.
    skip: u64,
    /// What is left of the loaded extent, last piece first.
    pieces: Vec<Bytes>,
    /// The source file that the last stored extent came from, kept open for the next one.
    open: Option<(Arc<Source>, OpenSource)>,
}

impl ExtentReader {
    fn load_next(&mut self) -> io::Result<bool> {
        let blob = Arc::clone(&self.blob);
        let Some((_, extent)) = blob.extents.get(self.next) else { return Ok(false) };
        self.next += 1;
        self.pieces = match extent {
            Extent::Kept(spooled) => vec![spooled.load()?],
            Extent::Stored { source, offset, length, framing, checksum } => {
                let mut buffer = FramedBuffer::new(Vec::new(), *framing, *length);
                let open = self.open_source(source).map_err(io::Error::other)?;
                open.read_exact_vectored(&mut buffer.payload_mut(), *offset).map_err(io::Error::other)?;
                if buffer.checksum() != *checksum {
                    if let Some(Hook(hook)) = &blob.on_other_content {
                        hook();
                    }
                    return Err(io::Error::other(open.content_changed()));
                }
                vec![framing.trailer(*length, *checksum).into(), buffer.into_memory().into()]
            }
        };
        let mut skip = usize::try_from(std::mem::take(&mut self.skip)).map_err(io::Error::other)?;
        while skip > 0 {
            let Some(piece) = self.pieces.last_mut() else { break };
            let step = skip.min(piece.len());
            let _ = piece.split_to(step);
            skip -= step;
            if piece.is_empty() {
                self.pieces.pop();
            }
        }
        Ok(true)
    }

    fn open_source(&mut self, source: &Arc<Source>) -> Result<&OpenSource, super::SourceError> {
        let current = match self.open.take() {
            Some((current, open)) if Arc::ptr_eq(&current, source) => {
                open.check_unchanged()?;
                (current, open)
            }
            _ => (Arc::clone(source), source.open()?),
        };
        Ok(&self.open.insert(current).1)
    }
}

impl Read for ExtentReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(piece) = self.pieces.last_mut() {
                let count = piece.len().min(buffer.len());
                buffer[..count].copy_from_slice(&piece.split_to(count));
                if piece.is_empty() {
                    self.pieces.pop();
                }
                if count > 0 {
                    return Ok(count);
                }
            } else if !self.load_next()? {
                return Ok(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use proptest::prelude::*;

    use super::*;
    use crate::blob::FileStamp;

    /// A file of 200,000 bytes and a blob of kept bytes around two stored ranges of it.
    fn example() -> (tempfile::NamedTempFile, Arc<ExtentBlob>) {
        let content: Vec<u8> = (0..200_000_u32).map(|index| (index % 253) as u8).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&content).unwrap();
        let source = Arc::new(Source::Path {
            path: file.path().to_owned(),
            stamp: FileStamp::of(&fs::metadata(file.path()).unwrap()),
        });
        let stored = |offset: usize, length: usize, framing| Extent::Stored {
            source: Arc::clone(&source),
            offset: offset as u64,
            length,
            framing,
            checksum: crc32fast::hash(&content[offset..offset + length]),
        };
        let kept = |bytes: &'static [u8]| Extent::Kept(Spooled::Memory(Bytes::from_static(bytes)));
        let extents = vec![
            kept(b"head"),
            stored(0, 70_000, Framing::StoredGzip),
            kept(b""),
            stored(70_000, 130_000, Framing::Raw),
            kept(b"tail"),
        ];
        (file, Arc::new(ExtentBlob::new(extents, Digest::of(b"not checked here"))))
    }

    fn read_from(blob: &Arc<ExtentBlob>, offset: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        Arc::clone(blob).reader(offset)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn the_whole_has_the_stated_size() {
        let (_file, blob) = example();
        let whole = read_from(&blob, 0).unwrap();
        assert_eq!(whole.len() as u64, blob.size());
        assert!(whole.starts_with(b"head\x1f\x8b") && whole.ends_with(b"tail"));
        assert_eq!(read_from(&blob, blob.size()).unwrap(), b"");
        assert_eq!(read_from(&blob, blob.size() + 5).unwrap(), b"");
    }

    #[test]
    fn a_changed_source_is_named() {
        let (mut file, blob) = example();
        let reader = Arc::clone(&blob).reader(0).unwrap();
        file.as_file().set_len(199_999).unwrap();
        let error = read_from(&blob, 0).unwrap_err().to_string();
        assert!(error.contains(&file.path().display().to_string()) && error.contains("size"), "{error}");
        drop(reader);
        // Same size and modification time, other content: only the checksum can tell.
        let modified = fs::metadata(file.path()).unwrap().modified().unwrap();
        let (other, blob) = {
            file.as_file_mut().set_len(200_000).unwrap();
            file.as_file().set_modified(modified).unwrap();
            example()
        };
        let modified = fs::metadata(other.path()).unwrap().modified().unwrap();
        let mut handle = fs::OpenOptions::new().write(true).open(other.path()).unwrap();
        handle.write_all(b"X").unwrap();
        handle.set_modified(modified).unwrap();
        let error = read_from(&blob, 0).unwrap_err().to_string();
        assert!(error.contains("content differs"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_offset_continues_the_whole(offset in 0_u64..=200_036) {
            let (_file, blob) = example();
            let whole = read_from(&blob, 0).unwrap();
            prop_assert_eq!(&read_from(&blob, offset).unwrap()[..], &whole[usize::try_from(offset).unwrap()..]);
        }
    }
}
