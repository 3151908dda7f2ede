//! The tar header blocks of an entry: ustar, with PAX records before it for what ustar cannot hold.
//!
//! Source: POSIX.1-2017, `pax`, "ustar Interchange Format" and "pax Extended Header". Written block by block
//! and not through `tar::Builder`, because the offset of every payload must be known. Must not know how the
//! stream is compressed.

use tar::{EntryType, Header};

use super::{Content, Data, Entry, EntryKind, LayerError};

/// Size of a tar block in bytes.
pub(super) const BLOCK: usize = 512;
/// Longest path or link target in bytes that a plain header field holds.
const NAME_MAX: usize = 100;
/// Largest number that an octal field of 11 digits holds: sizes and times.
const OCTAL_11_MAX: u64 = 0o777_7777_7777;
/// Largest number that an octal field of 7 digits holds: owners, groups, device numbers.
const OCTAL_7_MAX: u64 = 0o777_7777;

/// Number of zero bytes that follow a payload of `size` bytes.
pub(crate) fn padding(size: u64) -> usize {
    let over = size % BLOCK as u64;
    // Less than one block.
    if over == 0 { 0 } else { BLOCK - usize::try_from(over).unwrap_or(0) }
}

/// The path of `entry` as its header has it: a directory's ends in a slash.
pub(crate) fn tar_name(entry: &Entry) -> String {
    let is_directory = matches!(entry.kind, EntryKind::Directory);
    format!("{}{}", entry.path, if is_directory { "/" } else { "" })
}

/// The header blocks of `entry`.
pub(crate) fn header_blocks(entry: &Entry) -> Result<Vec<u8>, LayerError> {
    let mut records = PaxRecords::default();
    let mut header = Header::new_ustar();
    let unusable = |reason: &dyn std::fmt::Display| LayerError::Entry {
        path: entry.path.clone(),
        reason: reason.to_string(),
    };

    let path = tar_name(entry);
    if fits(&path) {
        set_field(&mut header.as_old_mut().name, &path);
    } else {
        records.push("path", path.as_bytes());
        set_field(&mut header.as_old_mut().name, &ascii_stand_in(&path));
    }

    let (entry_type, link) = match &entry.kind {
        EntryKind::Directory => (EntryType::Directory, None),
        EntryKind::Regular(_) => (EntryType::Regular, None),
        EntryKind::Symlink { target } => (EntryType::Symlink, Some(target)),
        EntryKind::Hardlink { target } => (EntryType::Link, Some(target)),
        EntryKind::CharDevice { .. } => (EntryType::Char, None),
        EntryKind::BlockDevice { .. } => (EntryType::Block, None),
        EntryKind::Fifo => (EntryType::Fifo, None),
    };
    header.set_entry_type(entry_type);
    if let Some(target) = link {
        if fits(target) {
            set_field(&mut header.as_old_mut().linkname, target);
        } else {
            records.push("linkpath", target.as_bytes());
            set_field(&mut header.as_old_mut().linkname, &ascii_stand_in(target));
        }
    }
    if let EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } = entry.kind {
        if u64::from(major.max(minor)) > OCTAL_7_MAX {
            return Err(unusable(&"its device number is too large"));
        }
        header.set_device_major(major).map_err(|error| unusable(&error))?;
        header.set_device_minor(minor).map_err(|error| unusable(&error))?;
    }

    header.set_mode(entry.mode & 0o7777);
    header.set_uid(records.number("uid", entry.uid, OCTAL_7_MAX));
    header.set_gid(records.number("gid", entry.gid, OCTAL_7_MAX));
    header.set_size(records.number("size", entry.size(), OCTAL_11_MAX));
    header.set_mtime(if let Ok(modified @ 0..=OCTAL_11_MAX) = u64::try_from(entry.modified) {
        modified
    } else {
        records.push("mtime", entry.modified.to_string().as_bytes());
        0
    });
    for (key, name, is_user) in [("uname", &entry.user_name, true), ("gname", &entry.group_name, false)] {
        if name.is_ascii() && name.len() < 32 {
            if is_user { header.set_username(name) } else { header.set_groupname(name) }
                .map_err(|error| unusable(&error))?;
        } else {
            records.push(key, name.as_bytes());
        }
    }
    for (name, value) in &entry.xattrs {
        records.push(&format!("SCHILY.xattr.{name}"), value);
    }
    header.set_cksum();

    let mut blocks = records.into_blocks(&entry.path);
    blocks.extend_from_slice(header.as_bytes());
    Ok(blocks)
}

/// The end of a tar stream: `last`, an entry of known bytes, if there is one, and the two zero blocks that
/// mark the end of the archive.
pub(crate) fn tar_tail(last: Option<&Entry>) -> Result<Vec<u8>, LayerError> {
    let mut tail = Vec::new();
    if let Some(entry) = last {
        tail = header_blocks(entry)?;
        if let EntryKind::Regular(Content { data: Data::Bytes(bytes), .. }) = &entry.kind {
            tail.extend_from_slice(bytes);
            tail.resize(tail.len() + padding(bytes.len() as u64), 0);
        }
    }
    tail.resize(tail.len() + 2 * BLOCK, 0);
    Ok(tail)
}

fn fits(name: &str) -> bool {
    name.len() <= NAME_MAX && name.is_ascii()
}

fn set_field(field: &mut [u8], text: &str) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text.as_bytes()[..length]);
}

/// What readers without PAX see instead of a name that does not fit: its ASCII characters, cut short.
fn ascii_stand_in(name: &str) -> String {
    name.chars().filter(char::is_ascii).take(NAME_MAX).collect()
}

/// The records of a PAX extended header, in the order they are added.
#[derive(Default)]
struct PaxRecords(Vec<u8>);

impl PaxRecords {
    /// Adds `<length> <key>=<value>\n`, where the length counts its own digits.
    fn push(&mut self, key: &str, value: &[u8]) {
        // The space, the equals sign and the line feed.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while rest + length.to_string().len() > length {
            length += 1;
        }
        self.0.extend_from_slice(format!("{length} {key}=").as_bytes());
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    /// The number for the header field: `value`, or 0 when it does not fit and a record holds it.
    fn number(&mut self, key: &str, value: u64, maximum: u64) -> u64 {
        if value <= maximum {
            return value;
        }
        self.push(key, value.to_string().as_bytes());
        0
    }

    /// The extended header's blocks; none when there are no records.
    fn into_blocks(self, path: &str) -> Vec<u8> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let mut header = Header::new_ustar();
        let base = path.rsplit('/').next().unwrap_or_default();
        set_field(&mut header.as_old_mut().name, &ascii_stand_in(&format!("PaxHeaders.0/{base}")));
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(self.0.len() as u64);
        header.set_cksum();
        let mut blocks = header.as_bytes().to_vec();
        let padding = padding(self.0.len() as u64);
        blocks.extend(self.0);
        blocks.resize(blocks.len() + padding, 0);
        blocks
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read as _};

    use proptest::prelude::*;

    use super::*;
    use crate::layer::Storage;

    /// Reads the header of `entry` back with the tar crate.
    fn read_back(entry: &Entry, check: impl FnOnce(&mut tar::Entry<'_, &[u8]>)) {
        let mut stream = header_blocks(entry).unwrap();
        assert_eq!(stream.len() % BLOCK, 0);
        stream.resize(stream.len() + 2 * BLOCK, 0);
        let mut archive = tar::Archive::new(&stream[..]);
        let mut entries = archive.entries().unwrap();
        check(&mut entries.next().unwrap().unwrap());
    }

    fn regular(path: &str, size: u64) -> Entry {
        let content = Content {
            data: Data::Bytes(bytes::Bytes::new()),
            storage: Storage::Stored,
            chunks: vec![size],
            expected: Vec::new(),
        };
        Entry::new(path, 0o644, 0, EntryKind::Regular(content))
    }

    #[test]
    fn a_plain_entry_is_one_block() {
        let entry = regular("models/config.json", 5);
        assert_eq!(header_blocks(&entry).unwrap().len(), BLOCK);
        read_back(&entry, |read| {
            assert_eq!(*read.path_bytes(), *b"models/config.json");
            assert_eq!(read.header().mode().unwrap(), 0o644);
        });
    }

    #[test]
    fn names_at_the_limits() {
        for length in [99, 100, 101, 155, 255, 256, 300, 5_000] {
            let path = format!("models/{}", "x".repeat(length - 7));
            read_back(&regular(&path, 0), |read| assert_eq!(*read.path_bytes(), *path.as_bytes()));
        }
        for path in ["models/größe.json", "模型/配置.json"] {
            read_back(&regular(path, 0), |read| assert_eq!(*read.path_bytes(), *path.as_bytes()));
        }
    }

    #[test]
    fn sizes_past_eight_gibibytes() {
        for size in [OCTAL_11_MAX, OCTAL_11_MAX + 1, 140 << 30] {
            read_back(&regular("models/weights", size), |read| assert_eq!(read.size(), size));
        }
    }

    #[test]
    fn what_ustar_cannot_hold_goes_to_records() {
        let mut entry = Entry::new("bin/tool", 0o4755, -5, EntryKind::Symlink { target: "t".repeat(150) });
        entry.uid = 4_000_000_000;
        entry.user_name = "ü".into();
        entry.xattrs = BTreeMap::from([("security.capability".to_owned(), vec![1, 0, 0xff, 2])]);
        read_back(&entry, |read| {
            assert_eq!(*read.link_name_bytes().unwrap(), *"t".repeat(150).as_bytes());
            let records: BTreeMap<String, Vec<u8>> = read
                .pax_extensions()
                .unwrap()
                .unwrap()
                .map(|record| record.unwrap())
                .map(|record| (record.key().unwrap().to_owned(), record.value_bytes().to_vec()))
                .collect();
            assert_eq!(records["uid"], b"4000000000");
            assert_eq!(records["mtime"], b"-5");
            assert_eq!(records["uname"], "ü".as_bytes());
            assert_eq!(records["SCHILY.xattr.security.capability"], [1, 0, 0xff, 2]);
        });
    }

    #[test]
    fn padding_fills_the_block() {
        assert_eq!([0, 1, 511, 512, 513].map(padding), [0, 511, 1, 0, 511]);
    }

    proptest! {
        #[test]
        fn any_name_reads_back(path in "[^/\0\n]{1,80}(/[^/\0\n]{1,80}){0,3}", target in "[^\0\n]{1,200}") {
            let entry = Entry::new(&*path, 0o777, 1, EntryKind::Symlink { target: target.clone() });
            read_back(&entry, |read| {
                let mut rest = Vec::new();
                read.read_to_end(&mut rest).unwrap();
                assert_eq!(*read.path_bytes(), *path.as_bytes());
                assert_eq!(*read.link_name_bytes().unwrap(), *target.as_bytes());
            });
        }
    }
}
