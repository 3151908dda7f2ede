//! The table of contents (TOC): JSON that names every entry of the layer and where its chunks lie.
//!
//! Source: stargz-snapshotter, `docs/estargz.md`, section "TOC". Must not know how the entries came about.

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, SecondsFormat};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, SeqAccess, Visitor},
};

use crate::{
    digest::Digest,
    layer::{Entry, EntryKind, LayerError, WrittenEntry},
};

/// The TOC's one known version.
pub const VERSION: u32 = 1;
/// Most entries that are read: in memory each takes many times the bytes that it needs in JSON.
const ENTRIES_MAX: usize = 2_000_000;

/// Table of contents of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toc {
    /// Version of the format, always 1.
    pub version: u32,
    /// Entries in physical order; a file's further chunks follow its `reg` entry.
    #[serde(deserialize_with = "bounded")]
    pub entries: Vec<TocEntry>,
    /// SHA-256 of the compressed tar-split, in zstd:chunked layers that containers-storage pulls in part.
    #[serde(rename = "tarSplitDigest", default, skip_serializing_if = "String::is_empty")]
    pub tar_split_digest: String,
}

/// One entry of the TOC, or one further chunk of a file. Absent fields are zero or empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TocEntry {
    /// Path in the image; directories end in a slash.
    pub name: String,
    /// `dir`, `reg`, `symlink`, `hardlink`, `char`, `block`, `fifo` or `chunk`.
    #[serde(rename = "type")]
    pub entry_type: String,
    /// Size of a regular file in bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub size: u64,
    /// Modification time, RFC 3339 in UTC.
    #[serde(rename = "modtime", skip_serializing_if = "String::is_empty")]
    pub modified: String,
    /// Target of a link.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub link_name: String,
    /// Permission, setuid, setgid and sticky bits.
    #[serde(skip_serializing_if = "is_zero")]
    pub mode: u64,
    /// Owner.
    #[serde(skip_serializing_if = "is_zero")]
    pub uid: u64,
    /// Group.
    #[serde(skip_serializing_if = "is_zero")]
    pub gid: u64,
    /// Owner's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_name: String,
    /// Group's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group_name: String,
    /// Major number of a device.
    #[serde(skip_serializing_if = "is_zero")]
    pub dev_major: u64,
    /// Minor number of a device.
    #[serde(skip_serializing_if = "is_zero")]
    pub dev_minor: u64,
    /// Extended attributes, values in base64.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<String, String>,
    /// SHA-256 of the whole regular file.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// Where the member of the chunk begins in the blob, in bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub offset: u64,
    /// Where the member of a file's last chunk ends in the blob, in bytes; only there, and only beside a tar-split.
    #[serde(skip_serializing_if = "is_zero")]
    pub end_offset: u64,
    /// Where the chunk begins in the file, in bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub chunk_offset: u64,
    /// Length of the chunk in bytes; absent means "to the end of the file".
    #[serde(skip_serializing_if = "is_zero")]
    pub chunk_size: u64,
    /// SHA-256 of the chunk.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub chunk_digest: String,
    /// Where the chunk begins in its decompressed member, in bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub inner_offset: u64,
}

/// Reads no more than [`ENTRIES_MAX`] entries.
fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<TocEntry>, D::Error> {
    deserializer.deserialize_seq(Entries { most: ENTRIES_MAX })
}

/// Reads a list of entries, and stops where there are too many.
struct Entries {
    most: usize,
}

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<TocEntry>;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a list of entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element()? {
            if entries.len() == self.most {
                return Err(A::Error::custom(format_args!("it has more than {} entries", self.most)));
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}

// The signature that serde's `skip_serializing_if` asks for.
#[expect(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Toc {
    /// The JSON of the TOC of a layer that was written. With the digest of a tar-split it has what containers-storage reads.
    pub(crate) fn json(
        entries: &[WrittenEntry<'_>],
        tar_split_digest: Option<Digest>,
    ) -> Result<Vec<u8>, LayerError> {
        let toc = Self::of(entries, tar_split_digest).map_err(|path| LayerError::Entry {
            path,
            reason: "its modification time is not in the years 0 to 9999".to_owned(),
        })?;
        serde_json::to_vec(&toc).map_err(|error| LayerError::Write(error.into()))
    }

    /// The TOC of a layer that was written. An error, the path of the entry, when a time is beyond what RFC 3339 can say.
    fn of(entries: &[WrittenEntry<'_>], tar_split_digest: Option<Digest>) -> Result<Self, String> {
        let mut listed = Vec::new();
        for written in entries {
            push_entry(written, tar_split_digest.is_some(), &mut listed)
                .ok_or_else(|| written.entry.path.clone())?;
        }
        let digest = tar_split_digest.map(|digest| digest.to_string()).unwrap_or_default();
        Ok(Self { version: VERSION, entries: listed, tar_split_digest: digest })
    }
}

fn push_entry(written: &WrittenEntry<'_>, with_ends: bool, listed: &mut Vec<TocEntry>) -> Option<()> {
    let entry = written.entry;
    let mut first = TocEntry {
        name: entry.path.clone(),
        modified: rfc3339(entry.modified)?,
        mode: u64::from(entry.mode & 0o7777),
        uid: entry.uid,
        gid: entry.gid,
        user_name: entry.user_name.clone(),
        group_name: entry.group_name.clone(),
        xattrs: entry.xattrs.iter().map(|(name, value)| (name.clone(), STANDARD.encode(value))).collect(),
        ..TocEntry::default()
    };
    describe_kind(entry, &mut first);
    first.size = entry.size();
    if let Some(digest) = written.digest {
        first.digest = digest.to_string();
    }

    let mut start = 0;
    let mut next = Some(first);
    for (index, chunk) in written.chunks.iter().enumerate() {
        let mut listing = next.take().unwrap_or_else(|| TocEntry {
            name: entry.path.clone(),
            entry_type: "chunk".to_owned(),
            ..TocEntry::default()
        });
        listing.offset = chunk.offset;
        listing.chunk_offset = start;
        if index + 1 < written.chunks.len() {
            listing.chunk_size = chunk.length;
        } else if with_ends {
            listing.end_offset = chunk.end;
        }
        listing.chunk_digest = chunk.digest.to_string();
        start += chunk.length;
        listed.push(listing);
    }
    listed.extend(next);
    Some(())
}

fn describe_kind(entry: &Entry, listing: &mut TocEntry) {
    let name = match &entry.kind {
        EntryKind::Directory => {
            listing.name.push('/');
            "dir"
        }
        EntryKind::Regular(_) => "reg",
        EntryKind::Symlink { target } => {
            listing.link_name.clone_from(target);
            "symlink"
        }
        EntryKind::Hardlink { target } => {
            listing.link_name.clone_from(target);
            "hardlink"
        }
        EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
            listing.dev_major = u64::from(*major);
            listing.dev_minor = u64::from(*minor);
            if matches!(entry.kind, EntryKind::CharDevice { .. }) { "char" } else { "block" }
        }
        EntryKind::Fifo => "fifo",
    };
    name.clone_into(&mut listing.entry_type);
}

/// RFC 3339 in UTC with whole seconds; `None` outside the years 0 to 9999 that it can say.
fn rfc3339(seconds: i64) -> Option<String> {
    let text = DateTime::from_timestamp(seconds, 0)?.to_rfc3339_opts(SecondsFormat::Secs, true);
    // chrono signs years that need more than four digits.
    (!text.starts_with(['+', '-'])).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        digest::Digest,
        layer::{Content, Storage, WrittenChunk},
    };

    #[test]
    fn chunks_follow_their_file() {
        let content = Content::bytes(&b"0123456789"[..], Storage::Stored);
        let entry = Entry::new("models/a", 0o644, 0, EntryKind::Regular(content));
        let chunk =
            |offset, length| WrittenChunk { offset, end: offset + 90, length, digest: Digest::of(b"") };
        let written = WrittenEntry {
            entry: &entry,
            digest: Some(Digest::of(b"0123456789")),
            crc64: None,
            chunks: vec![chunk(100, 6), chunk(200, 4)],
        };
        let toc = Toc::of(&[written], None).unwrap();
        let json = serde_json::to_string_pretty(&toc).unwrap();
        insta::assert_snapshot!(json, @r#"
        {
          "version": 1,
          "entries": [
            {
              "name": "models/a",
              "type": "reg",
              "size": 10,
              "modtime": "1970-01-01T00:00:00Z",
              "mode": 420,
              "digest": "sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882",
              "offset": 100,
              "chunkSize": 6,
              "chunkDigest": "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
            },
            {
              "name": "models/a",
              "type": "chunk",
              "offset": 200,
              "chunkOffset": 6,
              "chunkDigest": "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
            }
          ]
        }
        "#);
        assert_eq!(serde_json::from_str::<Toc>(&json).unwrap(), toc);
    }

    #[test]
    fn too_many_entries_are_refused() {
        let read = |json: &str| serde_json::Deserializer::from_str(json).deserialize_seq(Entries { most: 2 });
        assert_eq!(read("[{}, {}]").unwrap().len(), 2);
        let error = read(r#"[{"name": "a"}, {}, {}"#).unwrap_err();
        assert!(error.to_string().starts_with("it has more than 2 entries"), "{error}");
    }

    #[test]
    fn times_outside_rfc_3339_are_refused() {
        assert_eq!(rfc3339(0).as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!(rfc3339(-1).as_deref(), Some("1969-12-31T23:59:59Z"));
        assert_eq!(rfc3339(253_402_300_799).as_deref(), Some("9999-12-31T23:59:59Z"));
        assert_eq!(rfc3339(253_402_300_800), None);
        assert_eq!(rfc3339(i64::MAX), None);
    }
}
