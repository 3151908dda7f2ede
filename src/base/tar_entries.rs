//! The entries of an unpacked base layer. Payloads stay where they are in the tar stream's file and become
//! ranges of it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::Arc,
};

use tar::{EntryType, Header};

use super::pax;
use crate::{
    blob::Source,
    estargz::{NO_PREFETCH_LANDMARK, PREFETCH_LANDMARK, TOC_NAME},
    layer::{Content, Data, Entry, EntryKind, Storage},
    plan::{CHUNK_SIZE_DEFAULT, chunk_lengths},
};

const BLOCK: u64 = 512;
/// Largest extended header that is read, in bytes.
const EXTENSION_MAX: u64 = 1 << 20;
/// Names that lazily pullable layers add for themselves and that the new layer has its own of.
const FORMAT_NAMES: [&str; 3] = [TOC_NAME, PREFETCH_LANDMARK, NO_PREFETCH_LANDMARK];

/// Reads the entries of the tar stream that fills `stream`: names normalised, the last of several equal names
/// kept, missing parents added, hard links moved to the end.
pub(super) fn read(stream: &Arc<File>) -> Result<Vec<Entry>, String> {
    let size = stream.metadata().map_err(|error| error.to_string())?.len();
    let source = Arc::new(Source::Spool(Arc::clone(stream)));
    let mut collected = Collected::default();
    let mut extension = Extension::default();
    let mut position = 0;
    while let Some(header) = read_header(stream, position).map_err(|error| error.to_string())? {
        let kind = header.entry_type();
        let content_size = match extension.number("size")? {
            Some(size) if !is_extension(kind) => size,
            _ => header.entry_size().map_err(|error| error.to_string())?,
        };
        let content_at = position + BLOCK;
        let end = content_at.checked_add(content_size).filter(|end| *end <= size);
        let end = end.ok_or_else(|| format!("the tar stream is cut short at byte {position}"))?;
        position = end.next_multiple_of(BLOCK);
        if is_extension(kind) {
            extension.add(kind, &read_content(stream, content_at, content_size)?)?;
        } else {
            let extension = std::mem::take(&mut extension);
            let entry = entry(&header, &extension, &source, content_at, content_size)?;
            collected.add(entry);
        }
    }
    Ok(collected.finish())
}

/// The next header that is not all zeros; `None` at the end of the archive.
fn read_header(stream: &File, position: u64) -> io::Result<Option<Header>> {
    let mut block = [0; 512];
    match stream.read_exact_at(&mut block, position) {
        Ok(()) if block == [0; 512] => return Ok(None),
        Ok(()) => {}
        // Some writers leave the end-of-archive marker out.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let header = Header::from_byte_slice(&block);
    // The checksum is the sum of all bytes, its own field taken as spaces.
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(index, byte)| u32::from(if (148..156).contains(&index) { b' ' } else { *byte }))
        .sum();
    if header.cksum().is_ok_and(|stated| stated == sum) {
        Ok(Some(header.clone()))
    } else {
        Err(io::Error::other(format!("the tar header at byte {position} is damaged")))
    }
}

fn read_content(stream: &File, position: u64, size: u64) -> Result<Vec<u8>, String> {
    if size > EXTENSION_MAX {
        return Err(format!("an extended header has {size} bytes, more than {EXTENSION_MAX}"));
    }
    let mut content = vec![0; usize::try_from(size).map_err(|error| error.to_string())?];
    stream.read_exact_at(&mut content, position).map_err(|error| error.to_string())?;
    Ok(content)
}

fn is_extension(kind: EntryType) -> bool {
    matches!(
        kind,
        EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNULongName | EntryType::GNULongLink
    )
}

/// What extended headers say about the entry that follows them.
#[derive(Default)]
struct Extension(BTreeMap<String, Vec<u8>>);

impl Extension {
    fn add(&mut self, kind: EntryType, content: &[u8]) -> Result<(), String> {
        let text = || content.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
        match kind {
            EntryType::GNULongName => {
                self.0.insert("path".to_owned(), text());
            }
            EntryType::GNULongLink => {
                self.0.insert("linkpath".to_owned(), text());
            }
            EntryType::XHeader => {
                self.0.extend(pax::records(content).ok_or("an extended header is malformed")?);
            }
            // Global headers hold comments (Git) and nothing about a single entry.
            _ => {}
        }
        Ok(())
    }

    fn text(&self, key: &str) -> Result<Option<String>, String> {
        self.0.get(key).map(|value| utf8(value)).transpose()
    }

    fn number(&self, key: &str) -> Result<Option<u64>, String> {
        let parse = |text: String| text.parse().map_err(|_| format!("{key} is {text:?}, which is no number"));
        self.text(key)?.map(parse).transpose()
    }

    /// Whole seconds of a time, rounded down.
    fn seconds(&self, key: &str) -> Result<Option<i64>, String> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let malformed = || format!("{key} is {text:?}, which is no time");
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let seconds: i64 = whole.parse().map_err(|_| malformed())?;
        let before_1970 = whole.starts_with('-') && fraction.bytes().any(|digit| digit != b'0');
        Ok(Some(if before_1970 { seconds.checked_sub(1).ok_or_else(malformed)? } else { seconds }))
    }
}

fn entry(
    header: &Header,
    extension: &Extension,
    source: &Arc<Source>,
    content_at: u64,
    size: u64,
) -> Result<Entry, String> {
    let raw_path = match extension.text("path")? {
        Some(path) => path,
        None => utf8(&header.path_bytes())?,
    };
    let path = normalise(&raw_path)?;
    let sparse = extension.0.keys().any(|key| key.starts_with("GNU.sparse."));
    let link = || -> Result<String, String> {
        match extension.text("linkpath")? {
            Some(target) => Ok(target),
            None => utf8(&header.link_name_bytes().unwrap_or_default()),
        }
    };
    let device = || -> Result<(u32, u32), String> {
        let number = |value: io::Result<Option<u32>>| {
            value.map(Option::unwrap_or_default).map_err(|error| format!("{path}: {error}"))
        };
        Ok((number(header.device_major())?, number(header.device_minor())?))
    };
    let kind = match header.entry_type() {
        EntryType::Directory => EntryKind::Directory,
        EntryType::Regular | EntryType::Continuous if !sparse => EntryKind::Regular(Content {
            data: Data::Source { source: Arc::clone(source), offset: content_at },
            storage: Storage::Compressed,
            chunks: chunk_lengths(size, CHUNK_SIZE_DEFAULT),
            expected: Vec::new(),
        }),
        EntryType::Symlink => EntryKind::Symlink { target: link()? },
        EntryType::Link => EntryKind::Hardlink { target: normalise(&link()?)? },
        EntryType::Char => device().map(|(major, minor)| EntryKind::CharDevice { major, minor })?,
        EntryType::Block => device().map(|(major, minor)| EntryKind::BlockDevice { major, minor })?,
        EntryType::Fifo => EntryKind::Fifo,
        other => return Err(format!("{path} is an entry of a kind that is not supported ({other:?})")),
    };
    let name = |key: &str, field: Option<&[u8]>| -> Result<String, String> {
        Ok(extension
            .text(key)?
            .unwrap_or_else(|| String::from_utf8_lossy(field.unwrap_or_default()).into_owned()))
    };
    let field = |value: io::Result<u64>| value.map_err(|error| format!("{path}: {error}"));
    let modified = match extension.seconds("mtime")? {
        Some(seconds) => seconds,
        None => i64::try_from(field(header.mtime())?).map_err(|error| format!("{path}: {error}"))?,
    };
    Ok(Entry {
        mode: header.mode().map_err(|error| format!("{path}: {error}"))? & 0o7777,
        uid: extension.number("uid")?.map_or_else(|| field(header.uid()), Ok)?,
        gid: extension.number("gid")?.map_or_else(|| field(header.gid()), Ok)?,
        user_name: name("uname", header.username_bytes())?,
        group_name: name("gname", header.groupname_bytes())?,
        modified,
        xattrs: extension
            .0
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix("SCHILY.xattr.")?.to_owned(), value.clone())))
            .collect(),
        kind,
        path,
    })
}

fn utf8(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec())
        .map_err(|_| format!("the name {:?} is not UTF-8", String::from_utf8_lossy(bytes)))
}

/// A path without empty and `.` parts; empty for the root itself.
fn normalise(path: &str) -> Result<String, String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") { Err(format!("the name {path:?} leads outside")) } else { Ok(parts.join("/")) }
}

/// Entries in order, by name.
#[derive(Default)]
struct Collected {
    entries: Vec<Option<Entry>>,
    positions: HashMap<String, usize>,
}

impl Collected {
    fn add(&mut self, entry: Entry) {
        if entry.path.is_empty() || FORMAT_NAMES.contains(&entry.path.as_str()) {
            return;
        }
        let is_directory = |entry: &Entry| matches!(entry.kind, EntryKind::Directory);
        if let Some(position) = self.positions.get(&entry.path) {
            let earlier = &mut self.entries[*position];
            if is_directory(&entry) && earlier.as_ref().is_some_and(is_directory) {
                // In its old place, before its children.
                *earlier = Some(entry);
                return;
            }
            *earlier = None;
        }
        self.positions.insert(entry.path.clone(), self.entries.len());
        self.entries.push(Some(entry));
    }

    fn finish(self) -> Vec<Entry> {
        let (links, others): (Vec<Entry>, Vec<Entry>) = self
            .entries
            .into_iter()
            .flatten()
            .partition(|entry| matches!(entry.kind, EntryKind::Hardlink { .. }));
        let mut present = HashSet::new();
        let mut finished = Vec::new();
        // Directories that the stream states, wherever it does: one that comes after its children is moved up.
        let mut stated: HashMap<String, Entry> = others
            .iter()
            .filter(|entry| matches!(entry.kind, EntryKind::Directory))
            .map(|entry| (entry.path.clone(), entry.clone()))
            .collect();
        for entry in others.into_iter().chain(links) {
            for (slash, _) in entry.path.match_indices('/') {
                let parent = &entry.path[..slash];
                if present.insert(parent.to_owned()) {
                    let synthesised = || Entry::new(parent, 0o755, entry.modified, EntryKind::Directory);
                    finished.push(stated.remove(parent).unwrap_or_else(synthesised));
                }
            }
            if present.insert(entry.path.clone()) {
                finished.push(entry);
            }
        }
        finished
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn stream(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Arc<File> {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        let bytes = builder.into_inner().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        Arc::new(file)
    }

    fn add(builder: &mut tar::Builder<Vec<u8>>, kind: EntryType, path: &str, link: &str, content: &[u8]) {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(5);
        header.set_size(content.len() as u64);
        if link.is_empty() {
            builder.append_data(&mut header, path, content).unwrap();
        } else {
            builder.append_link(&mut header, path, link).unwrap();
        }
    }

    fn paths(entries: &[Entry]) -> Vec<&str> {
        entries.iter().map(|entry| entry.path.as_str()).collect()
    }

    #[test]
    fn order_parents_and_duplicates() {
        let long = format!("deep/{}/file", "d".repeat(120));
        let file = stream(|builder| {
            add(builder, EntryType::Regular, "stargz.index.json", "", b"old");
            add(builder, EntryType::Link, "bin/ln", "bin/sh", b"");
            add(builder, EntryType::Regular, "./bin/sh", "", b"old");
            add(builder, EntryType::Directory, "bin/", "", b"");
            add(builder, EntryType::Regular, "bin/sh", "", b"new!");
            add(builder, EntryType::Symlink, "sbin", "bin", b"");
            add(builder, EntryType::Regular, &long, "", b"x");
        });
        let entries = read(&file).unwrap();
        let parent = long.trim_end_matches("/file");
        assert_eq!(paths(&entries), ["bin", "bin/sh", "sbin", "deep", parent, &long, "bin/ln"]);
        let EntryKind::Regular(Content { data: Data::Source { offset, .. }, .. }) = &entries[1].kind else {
            panic!("{:?}", entries[1])
        };
        let mut content = [0; 4];
        file.read_exact_at(&mut content, *offset).unwrap();
        assert_eq!(&content, b"new!");
        assert!(matches!(&entries[6].kind, EntryKind::Hardlink { target } if target == "bin/sh"));
    }

    #[test]
    fn names_that_lead_outside_are_refused() {
        assert!(normalise("a/../b").is_err());
        assert_eq!(normalise("/a//./b/").unwrap(), "a/b");
    }

    #[test]
    fn damage_is_noticed() {
        let sound = stream(|builder| add(builder, EntryType::Regular, "file", "", &[1; 2_000]));
        let mut bytes = vec![0; 512];
        sound.read_exact_at(&mut bytes, 0).unwrap();
        let mut short = tempfile::tempfile().unwrap();
        short.write_all(&bytes).unwrap();
        assert!(read(&Arc::new(short)).unwrap_err().contains("cut short"));
        bytes[0] ^= 1;
        let mut damaged = tempfile::tempfile().unwrap();
        damaged.write_all(&bytes).unwrap();
        assert!(read(&Arc::new(damaged)).unwrap_err().contains("damaged"));
    }

    #[test]
    fn times_before_1970_round_down() {
        let with = |value: &str| Extension(BTreeMap::from([("mtime".to_owned(), value.as_bytes().to_vec())]));
        for (text, seconds) in [("5.9", 5), ("-5", -5), ("-5.5", -6), ("-5.0", -5)] {
            assert_eq!(with(text).seconds("mtime").unwrap(), Some(seconds), "{text}");
        }
        assert!(with("soon").seconds("mtime").is_err());
    }
}
