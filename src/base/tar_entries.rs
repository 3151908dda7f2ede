//! The entries of an unpacked base layer. Payloads stay where they are in the tar stream's file and become
//! ranges of it.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::Arc,
};

use tar::EntryType;

use crate::{
    blob::Source,
    estargz::{NO_PREFETCH_LANDMARK, PREFETCH_LANDMARK, TOC_NAME},
    layer::{
        Content, Data, Entry, EntryKind, Storage,
        tar_reader::{TarEntry, TarError, TarEvent, TarReader},
    },
    plan::{CHUNK_SIZE_DEFAULT, chunk_lengths},
};

/// Size of a tar block in bytes.
const BLOCK: usize = 512;
/// Names that lazily pullable layers add for themselves and that the new layer has its own of.
const FORMAT_NAMES: [&str; 3] = [TOC_NAME, PREFETCH_LANDMARK, NO_PREFETCH_LANDMARK];

/// Reads the entries of the tar stream that fills `stream`: names normalised, the last of several equal names
/// kept, missing parents added, hard links moved to the end.
pub(super) fn read(stream: &Arc<File>) -> Result<Vec<Entry>, String> {
    let size = stream.metadata().map_err(|error| error.to_string())?.len();
    let source = Arc::new(Source::Spool(Arc::clone(stream)));
    let mut collected = Collected::default();
    let mut reader = TarReader::new();
    let mut block = [0; BLOCK];
    while !reader.is_at_end() && read_block(stream, &mut block, reader.position())? {
        let mut found = None;
        let on_event = |event: TarEvent<'_>| {
            if let TarEvent::Entry(entry) = event {
                found = Some(entry);
            }
        };
        reader.feed(&block, on_event).map_err(|error| error.to_string())?;
        if let Some(read) = found {
            if read.payload_at.checked_add(read.size).is_none_or(|end| end > size) {
                return Err(TarError::CutShort { at: read.header_at }.to_string());
            }
            reader.skip_payload();
            collected.add(entry(*read, &source)?);
        }
    }
    // Some writers leave the end-of-archive marker out.
    reader.finish().map_err(|error| error.to_string())?;
    Ok(collected.finish())
}

/// Reads a block; false at the end of the stream.
fn read_block(stream: &File, block: &mut [u8; BLOCK], position: u64) -> Result<bool, String> {
    match stream.read_exact_at(block, position) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

fn entry(read: TarEntry, source: &Arc<Source>) -> Result<Entry, String> {
    let path = normalise(&utf8(&read.name)?)?;
    let device = || -> Result<(u32, u32), String> {
        let number = |value: u64| u32::try_from(value).map_err(|error| format!("{path}: {error}"));
        Ok((number(read.dev_major)?, number(read.dev_minor)?))
    };
    let kind = match read.kind {
        EntryType::Directory => EntryKind::Directory,
        EntryType::Regular | EntryType::Continuous if !read.sparse => EntryKind::Regular(Content {
            data: Data::Source { source: Arc::clone(source), offset: read.payload_at },
            storage: Storage::Compressed,
            chunks: chunk_lengths(read.size, CHUNK_SIZE_DEFAULT),
            expected: Vec::new(),
        }),
        EntryType::Symlink => EntryKind::Symlink { target: utf8(&read.link)? },
        EntryType::Link => EntryKind::Hardlink { target: normalise(&utf8(&read.link)?)? },
        EntryType::Char => device().map(|(major, minor)| EntryKind::CharDevice { major, minor })?,
        EntryType::Block => device().map(|(major, minor)| EntryKind::BlockDevice { major, minor })?,
        EntryType::Fifo => EntryKind::Fifo,
        other => return Err(format!("{path} is an entry of a kind that is not supported ({other:?})")),
    };
    Ok(Entry {
        mode: u32::try_from(read.mode & 0o7777).unwrap_or(0),
        uid: read.uid,
        gid: read.gid,
        user_name: String::from_utf8_lossy(&read.user).into_owned(),
        group_name: String::from_utf8_lossy(&read.group).into_owned(),
        modified: read.modified,
        xattrs: read.xattrs,
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

    use tar::Header;

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
}
