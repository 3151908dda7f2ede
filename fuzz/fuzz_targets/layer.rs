//! Layers of any bytes, and layers of any bytes with any table of contents: opened, listed and read without a panic,
//! in a memory that the layer's own size bounds. Up to its first zero byte the input is also taken for a table of
//! contents, and the rest for the members that the table lists: few inputs would get through gzip and tar by chance. Gzip
//! members and zstd frames are read in turn.
#![no_main]

use std::io;

use libfuzzer_sys::fuzz_target;
use starcar::{
    blob::RangeSource,
    digest::Digest,
    estargz::{EstargzReader, Files, toc::Toc},
    members::MemberKind,
};

/// Bytes that are read of each file: a small member can unpack to much.
const READ_MAX: usize = 1 << 16;

struct Bytes<'a>(&'a [u8]);

impl RangeSource for Bytes<'_> {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_range(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(length).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.0.get(start..end).map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

fn read(reader: &EstargzReader, layer: &Bytes<'_>) {
    let Ok(files) = Files::of(reader) else { return };
    for (path, file) in files.iter() {
        // Chunks lie without a gap, whatever the table says.
        let total: u64 = file.chunks.iter().map(|chunk| chunk.length).sum();
        assert_eq!(total, file.size, "{path}");
        if let Ok(bytes) = files.read(layer, path, 1, READ_MAX) {
            assert_eq!(bytes.len() as u64, file.size.saturating_sub(1).min(READ_MAX as u64));
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let layer = Bytes(bytes);
    if let Ok(reader) = EstargzReader::open(&layer, None) {
        assert_eq!(reader.kind == MemberKind::Zstd, reader.table.is_some());
        read(&reader, &layer);
    }
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (json, rest) = bytes.split_at(end);
    if let Ok(toc) = serde_json::from_slice::<Toc>(json) {
        let members = Bytes(rest.get(1..).unwrap_or_default());
        let (toc_digest, toc_offset) = (Digest::of(json), members.size());
        let kind = MemberKind::Gzip;
        let mut reader =
            EstargzReader { kind, toc, toc_digest, toc_offset, is_legacy: false, trailing: 0, table: None };
        read(&reader, &members);
        reader.kind = MemberKind::Zstd;
        read(&reader, &members);
    }
});
