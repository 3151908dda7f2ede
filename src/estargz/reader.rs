//! Opens an eStargz or zstd:chunked blob through ranges: footer, then TOC, never the payloads. Sizes that the blob states
//! are bounded before anything is allocated. Must not know where the ranges come from.

use std::io::{self, Read as _};

use flate2::read::GzDecoder;

use super::{
    TOC_NAME,
    footer::{FOOTER_SIZE, Footer},
    toc::{Toc, VERSION},
};
use crate::{
    blob::RangeSource,
    digest::Digest,
    members::{MemberKind, WINDOW_LOG_MAX},
    zstd_chunked::{self, SKIPPABLE_HEADER, Table, footer::FOOTER_SIZE_MAX, frame_content},
};

/// Largest TOC member that is read, in bytes: about 1 TB of weights in 4 MiB chunks.
const TOC_MEMBER_MAX: u64 = 64 << 20;
/// Largest TOC JSON that is unpacked, in bytes.
const TOC_JSON_MAX: u64 = 256 << 20;

/// Why a blob cannot be read as eStargz.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The blob has neither format's footer: it is some other kind of layer.
    #[error("not an eStargz or zstd:chunked layer: it does not end in a footer of either")]
    NotEstargz,
    /// The TOC is kept apart from the layer, in an image of its own.
    #[error("the layer's table of contents is kept in another image, which is not looked for")]
    ExternalToc,
    /// The layer has no such regular file.
    #[error("the layer has no regular file {path:?}")]
    NoSuchFile {
        /// The path that was asked for.
        path: String,
    },
    /// A file's bytes cannot be unpacked.
    #[error("{path:?} is damaged at byte {offset}")]
    Damaged {
        /// The file's path.
        path: String,
        /// Where its chunk begins in the file, in bytes.
        offset: u64,
        /// What is wrong.
        #[source]
        cause: io::Error,
    },
    /// A file's bytes are not those that the TOC says.
    #[error(
        "{path:?} is damaged at byte {offset}: its chunk has digest {actual}, the table of contents says {expected}"
    )]
    ChunkDigest {
        /// The file's path.
        path: String,
        /// Where its chunk begins in the file, in bytes.
        offset: u64,
        /// What the TOC says.
        expected: Digest,
        /// What the layer has.
        actual: Digest,
    },
    /// A range could not be read.
    #[error("cannot read bytes {offset} to {end} of the layer")]
    Read {
        /// First byte of the range.
        offset: u64,
        /// First byte after the range.
        end: u64,
        /// Cause.
        #[source]
        cause: io::Error,
    },
    /// The footer places the TOC outside the layer, or nowhere.
    #[error("the layer's footer places the table of contents at byte {toc_offset}, past its end")]
    TocOutside {
        /// Where it would begin, in bytes.
        toc_offset: u64,
    },
    /// What the footer leads to has another name.
    #[error("the layer's table of contents is called {name:?}, not {TOC_NAME}")]
    TocName {
        /// The name.
        name: String,
    },
    /// The TOC is of another version of the format.
    #[error("the layer's table of contents has version {version}, only {VERSION} is known")]
    TocVersion {
        /// The version.
        version: u32,
    },
    /// The TOC is not what the format wants.
    #[error("the layer's table of contents is broken: {0}")]
    Toc(String),
    /// The TOC is not the one that the descriptor names.
    #[error("the layer's table of contents has digest {actual}, its descriptor says {expected}")]
    TocDigest {
        /// What the descriptor says.
        expected: Digest,
        /// What the blob has.
        actual: Digest,
    },
}

/// An opened eStargz or zstd:chunked blob.
#[derive(Debug, Clone)]
pub struct EstargzReader {
    /// What chunks lie in: zstd frames in zstd:chunked.
    pub kind: MemberKind,
    /// The table of contents.
    pub toc: Toc,
    /// SHA-256 of the TOC JSON.
    pub toc_digest: Digest,
    /// Where the TOC's member or skippable frame begins in the blob, in bytes. No chunk lies behind it.
    pub toc_offset: u64,
    /// Whether the layer is from before eStargz: its footer is another one, and its chunks need no digests.
    pub is_legacy: bool,
    /// Bytes behind the JSON, which the format does not allow and its readers do not look at.
    pub trailing: usize,
    /// What zstd:chunked says of the TOC besides; `None` in eStargz.
    pub table: Option<Table>,
}

/// What the footer leads to.
struct Found {
    kind: MemberKind,
    /// Where the TOC's member or frame begins.
    toc_offset: u64,
    is_legacy: bool,
    json: Vec<u8>,
    table: Option<Table>,
}

impl EstargzReader {
    /// Reads footer and TOC of the blob in `source`. With `expected`, the digest from the descriptor's
    /// annotation, another TOC is refused.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn open(source: &dyn RangeSource, expected: Option<Digest>) -> Result<Self, ReadError> {
        let Found { kind, toc_offset, is_legacy, json, table } = find(source)?;
        let toc_digest = Digest::of(&json);
        if let Some(expected) = expected.filter(|expected| *expected != toc_digest) {
            return Err(ReadError::TocDigest { expected, actual: toc_digest });
        }
        let (toc, trailing) = parse(&json)?;
        if toc.version != VERSION {
            return Err(ReadError::TocVersion { version: toc.version });
        }
        Ok(Self { kind, toc, toc_digest, toc_offset, is_legacy, trailing, table })
    }
}

/// Follows the footer.
fn find(source: &dyn RangeSource) -> Result<Found, ReadError> {
    let size = source.size();
    let last = |length: usize| {
        let length = size.min(length as u64);
        read(source, size - length, length)
    };
    // Other footers are shorter, but for one that tells by its last bytes.
    let mut end = last(FOOTER_SIZE)?;
    if zstd_chunked::footer::is_long(&end) {
        end = last(FOOTER_SIZE_MAX)?;
    }
    let bounded = |offset: u64, end: u64| {
        let length = end.checked_sub(offset).filter(|length| *length > 0);
        let length = length.ok_or(ReadError::TocOutside { toc_offset: offset })?;
        if length > TOC_MEMBER_MAX {
            return Err(ReadError::Toc(format!("it takes {length} bytes, more than {TOC_MEMBER_MAX}")));
        }
        Ok(length)
    };
    if let Some(footer) = zstd_chunked::footer::Footer::read(&end) {
        let footer_offset = size - footer.size() as u64;
        let toc_offset = footer.toc_offset;
        let outside = ReadError::TocOutside { toc_offset };
        let toc_end = toc_offset.checked_add(footer.compressed).filter(|end| *end <= footer_offset);
        let Some(toc_end) = toc_end else { return Err(outside) };
        let frame = toc_offset.checked_sub(SKIPPABLE_HEADER as u64).ok_or(outside)?;
        let length = bounded(toc_offset, toc_end)?;
        let with_header = read(source, frame, length + SKIPPABLE_HEADER as u64)?;
        let compressed = with_header.get(SKIPPABLE_HEADER..).unwrap_or_default();
        let json = zstd_json(compressed)?;
        let table = Table {
            footer,
            footer_offset,
            frame_content: frame_content(&with_header),
            length: json.len() as u64,
            checksum: Digest::of(compressed),
        };
        return Ok(Found {
            kind: MemberKind::Zstd,
            toc_offset: frame,
            is_legacy: false,
            json,
            table: Some(table),
        });
    }
    match Footer::read(&end) {
        Some(Footer::Toc { toc_offset, size: footer_size }) => {
            let length = bounded(toc_offset, size - footer_size as u64)?;
            let json = toc_json(&read(source, toc_offset, length)?)?;
            let is_legacy = footer_size != FOOTER_SIZE;
            Ok(Found { kind: MemberKind::Gzip, toc_offset, is_legacy, json, table: None })
        }
        Some(Footer::External) => Err(ReadError::ExternalToc),
        None => Err(ReadError::NotEstargz),
    }
}

/// The JSON inside the skippable frame of zstd:chunked.
fn zstd_json(compressed: &[u8]) -> Result<Vec<u8>, ReadError> {
    let broken = |error: io::Error| ReadError::Toc(error.to_string());
    let mut decoder = zstd::stream::read::Decoder::with_buffer(compressed).map_err(broken)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(broken)?;
    let mut json = Vec::new();
    let length = decoder.take(TOC_JSON_MAX + 1).read_to_end(&mut json).map_err(broken)?;
    if length as u64 > TOC_JSON_MAX {
        return Err(ReadError::Toc(format!("it unpacks to more than {TOC_JSON_MAX} bytes")));
    }
    Ok(json)
}

/// The table of contents, and how many bytes follow it.
fn parse(json: &[u8]) -> Result<(Toc, usize), ReadError> {
    let mut values = serde_json::Deserializer::from_slice(json).into_iter::<Toc>();
    let toc = values.next().unwrap_or_else(|| serde_json::from_slice(json));
    let toc = toc.map_err(|error| ReadError::Toc(error.to_string()))?;
    let rest = json.get(values.byte_offset()..).unwrap_or_default();
    // Line feeds and spaces are JSON's own.
    let is_more = !rest.iter().all(u8::is_ascii_whitespace);
    Ok((toc, if is_more { rest.len() } else { 0 }))
}

fn read(source: &dyn RangeSource, offset: u64, length: u64) -> Result<Vec<u8>, ReadError> {
    let error = |cause| ReadError::Read { offset, end: offset.saturating_add(length), cause };
    let length = usize::try_from(length).map_err(|cause| error(io::Error::other(cause)))?;
    source.read_range(offset, length).map_err(error)
}

/// The JSON inside the TOC's member: the content of its first tar entry.
fn toc_json(member: &[u8]) -> Result<Vec<u8>, ReadError> {
    let broken = |error: io::Error| ReadError::Toc(error.to_string());
    let mut archive = tar::Archive::new(GzDecoder::new(member).take(TOC_JSON_MAX));
    let mut entries = archive.entries().map_err(broken)?;
    let entry = entries.next().ok_or_else(|| ReadError::Toc("it is empty".to_owned()))?.map_err(broken)?;
    if *entry.path_bytes() != *TOC_NAME.as_bytes() {
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        return Err(ReadError::TocName { name });
    }
    let size = entry.size();
    let mut json = Vec::new();
    entry.take(TOC_JSON_MAX).read_to_end(&mut json).map_err(broken)?;
    if json.len() as u64 == size {
        Ok(json)
    } else {
        Err(ReadError::Toc(format!("it ends after {} of {size} bytes", json.len())))
    }
}
