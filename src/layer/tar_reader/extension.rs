//! What extended headers (PAX records, GNU's long names) say about the entry that follows them.

use std::collections::BTreeMap;

use tar::EntryType;

use crate::layer::pax;

/// Whether an entry of that kind describes the one that follows it.
pub(super) fn is_extension(kind: EntryType) -> bool {
    matches!(
        kind,
        EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNULongName | EntryType::GNULongLink
    )
}

/// What extended headers say, by PAX key.
#[derive(Debug, Default)]
pub(super) struct Extension {
    records: BTreeMap<String, Vec<u8>>,
    /// Bytes of extended headers so far.
    pub size: u64,
}

impl Extension {
    /// Takes the content of an extended header. `None` when it is malformed.
    pub(super) fn add(&mut self, kind: EntryType, content: &[u8]) -> Option<()> {
        let text = || content.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
        match kind {
            EntryType::GNULongName => {
                self.records.insert("path".to_owned(), text());
            }
            EntryType::GNULongLink => {
                self.records.insert("linkpath".to_owned(), text());
            }
            EntryType::XHeader => self.records.extend(pax::records(content)?),
            // Global headers hold comments (Git) and nothing about a single entry.
            _ => {}
        }
        Some(())
    }

    /// A record's value. An empty one stands for the field of the plain header.
    pub(super) fn get(&self, key: &str) -> Option<&[u8]> {
        self.records.get(key).map(Vec::as_slice).filter(|value| !value.is_empty())
    }

    /// Whether the payload is a file with holes.
    pub(super) fn is_sparse(&self) -> bool {
        self.records.keys().any(|key| key.starts_with("GNU.sparse."))
    }

    /// The extended attributes.
    pub(super) fn into_xattrs(self) -> BTreeMap<String, Vec<u8>> {
        let name = |key: &str| key.strip_prefix("SCHILY.xattr.").map(str::to_owned);
        self.records.into_iter().filter_map(|(key, value)| Some((name(&key)?, value))).collect()
    }
}

/// Seconds, rounded down, and nanoseconds of a PAX time. `None` when it is none.
pub(super) fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && fraction.bytes().any(|digit| digit != b'0') {
        // Less than a nanosecond counts as one: the time is before the second.
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos.max(1)));
    }
    Some((seconds, nanos))
}
