//! Layers without a table of contents: their files, as far as they can be had without the weights. Of a tar archive the
//! headers are read and payloads left out; a compressed one is read whole if it is small.

use std::io::{self, BufReader, Read};

use tar::EntryType;

use super::{
    finding::{Findings, Place},
    media_type::Compression,
    names::{clean, is_missed},
    rules,
    tree::{Node, NodeKind},
};
use crate::{
    blob::RangeSource,
    layer::tar_reader::{TarEntry, TarEvent, TarReader},
    members::{MemberError, MemberKind, Members, Step},
};

/// Largest compressed layer that is read whole, in bytes.
const WHOLE_MAX: u64 = 16 << 20;
/// Most bytes that come of it; what has more is not looked into.
const UNPACKED_MAX: u64 = 512 << 20;
/// Bytes of a tar archive that are asked for at a time: headers of small files lie close to each other.
const WINDOW: u64 = 32 << 10;
/// Size of a tar block in bytes.
const BLOCK: u64 = 512;
/// Most windows of one archive.
const WINDOWS_MAX: usize = 1024;
/// Most entries that are listed.
pub(super) const ENTRIES_MAX: usize = 1 << 20;
/// Largest password file that is kept, in bytes.
const PASSWD_MAX: u64 = 1 << 20;
/// The file that names users.
pub(super) const PASSWD: &str = "etc/passwd";

/// Collects the files of a tar stream.
#[derive(Debug, Clone, Default)]
pub(super) struct Lister {
    pub(super) nodes: Vec<Node>,
    /// The password file, if there is one.
    pub(super) passwd: Option<Vec<u8>>,
    /// Whether the payload that comes is the password file's.
    is_passwd: bool,
}

impl Lister {
    /// Takes what a reader of the stream tells. `layer` is the place of the layer.
    pub(super) fn hear(&mut self, event: &TarEvent<'_>, layer: &Place, findings: &mut Findings) {
        match event {
            TarEvent::Entry(entry) => self.entry(entry, layer, findings),
            TarEvent::Payload(bytes) if self.is_passwd => {
                self.passwd.get_or_insert_default().extend_from_slice(bytes);
            }
            _ => {}
        }
    }

    fn entry(&mut self, entry: &TarEntry, layer: &Place, findings: &mut Findings) {
        let name = String::from_utf8_lossy(&entry.name);
        let target = String::from_utf8_lossy(&entry.link);
        if is_missed(&name) {
            let place = layer.clone().file(name.as_ref());
            findings.add(&rules::ENTRY_NAME_UNCLEAN, place, format!("the entry is named {name:?}"));
        }
        let kind = match entry.kind {
            EntryType::Directory => NodeKind::Directory,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                NodeKind::Regular { size: entry.size }
            }
            EntryType::Symlink => NodeKind::Symlink { target: target.into_owned() },
            EntryType::Link => NodeKind::Hardlink { target: clean(&target) },
            _ => NodeKind::Special,
        };
        let path = clean(&name);
        // What a link leads to is not here.
        let has_content = matches!(kind, NodeKind::Regular { .. }) && !entry.sparse;
        self.is_passwd = path == PASSWD && has_content && entry.size <= PASSWD_MAX;
        if path == PASSWD {
            self.passwd = self.is_passwd.then(Vec::new);
        }
        let node = Node { path, kind, mode: entry.mode & 0o7777, uid: entry.uid, gid: entry.gid };
        self.nodes.push(node);
    }
}

/// What could be had of a layer without a table of contents.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) lister: Lister,
    /// How many gzip members it has, where it was read whole.
    pub(super) members: usize,
}

/// Lists the files of the layer in `blob`; `None` where that would take too much, or it cannot be unpacked, which reading
/// all of it tells better.
///
/// # Errors
/// When the blob cannot be read.
pub(super) fn list(
    blob: &dyn RangeSource,
    compression: Compression,
    layer: &Place,
    findings: &mut Findings,
) -> io::Result<Option<Listed>> {
    match compression {
        Compression::None => headers(blob, layer, findings),
        _ if blob.size() > WHOLE_MAX => Ok(None),
        _ => {
            let bytes = blob.read_range(0, usize::try_from(blob.size()).map_err(io::Error::other)?)?;
            let mut found = Findings::default();
            let listed = match compression {
                Compression::Zstd => members(MemberKind::Zstd, &bytes, layer, &mut found),
                _ => members(MemberKind::Gzip, &bytes, layer, &mut found),
            };
            if listed.is_some() {
                findings.append(found);
            }
            Ok(listed)
        }
    }
}

/// Reads the headers of a tar archive, and as little else as possible.
fn headers(blob: &dyn RangeSource, layer: &Place, findings: &mut Findings) -> io::Result<Option<Listed>> {
    let mut reader = TarReader::new();
    let mut lister = Lister::default();
    let mut found = Findings::default();
    for _ in 0..WINDOWS_MAX {
        let length = WINDOW.min(blob.size().saturating_sub(reader.position()));
        if length == 0 || reader.is_at_end() {
            if reader.finish().is_err() {
                return Ok(None);
            }
            check_end(blob.size(), layer, &mut found);
            findings.append(found);
            return Ok(Some(Listed { lister, members: 0 }));
        }
        let window =
            blob.read_range(reader.position(), usize::try_from(length).map_err(io::Error::other)?)?;
        let fed = reader.feed(&window, |event| lister.hear(&event, layer, &mut found));
        if fed.is_err() || lister.nodes.len() > ENTRIES_MAX {
            return Ok(None);
        }
        // The padding of the last file may be missing.
        let end = blob.size().next_multiple_of(BLOCK);
        let too_far = reader.position().saturating_add(reader.payload_left()) > end;
        if too_far {
            return Ok(None);
        }
        if !lister.is_passwd && reader.payload_left() > WINDOW {
            reader.skip_payload();
        }
    }
    Ok(None)
}

/// Checks that a tar stream of `size` bytes ends with a block.
pub(super) fn check_end(size: u64, layer: &Place, findings: &mut Findings) {
    if !size.is_multiple_of(BLOCK) {
        let message = format!("it ends after {} bytes of a block of {BLOCK}", size % BLOCK);
        findings.add(&rules::TAR_END_UNPADDED, layer.clone(), message);
    }
}

/// Reads a tar stream to its end.
fn stream(mut unpacked: impl Read, layer: &Place, findings: &mut Findings) -> Option<Listed> {
    let mut reader = TarReader::new();
    let mut lister = Lister::default();
    let mut piece = vec![0; 64 << 10];
    loop {
        let count = unpacked.read(&mut piece).ok()?;
        if count == 0 {
            check_end(reader.finish().ok()?.size, layer, findings);
            return Some(Listed { lister, members: 0 });
        }
        reader.feed(piece.get(..count)?, |event| lister.hear(&event, layer, findings)).ok()?;
        if reader.position() > UNPACKED_MAX || lister.nodes.len() > ENTRIES_MAX {
            return None;
        }
    }
}

fn members(kind: MemberKind, bytes: &[u8], layer: &Place, findings: &mut Findings) -> Option<Listed> {
    let mut unpacked = Unpacked { members: Members::new(kind, BufReader::new(bytes)), count: 0 };
    let listed = stream(&mut unpacked, layer, findings)?;
    Some(Listed { members: if kind == MemberKind::Gzip { unpacked.count } else { 0 }, ..listed })
}

/// The content of members as one stream.
struct Unpacked<'a> {
    members: Members<BufReader<&'a [u8]>>,
    /// Members that have ended.
    count: usize,
}

impl Read for Unpacked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.members.read(buffer) {
                Ok(Step::Bytes(count)) => return Ok(count),
                Ok(Step::MemberEnd(_)) => self.count += 1,
                Ok(Step::End) => return Ok(0),
                Err(MemberError::Read(cause)) => return Err(cause),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression as Level, write::GzEncoder};

    use super::*;

    struct Bytes(Vec<u8>);

    impl RangeSource for Bytes {
        fn size(&self) -> u64 {
            self.0.len() as u64
        }

        fn read_range(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
            let start = usize::try_from(offset).unwrap();
            self.0.get(start..start + length).map(<[u8]>::to_vec).ok_or(io::ErrorKind::UnexpectedEof.into())
        }
    }

    fn archive() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, size) in
            [("./models/config.json", 7), ("models/weights", 3 << 20), (PASSWD, 40), ("models/last", 1)]
        {
            let mut header = tar::Header::new_gnu();
            header.set_size(size);
            header.set_mode(0o100_644);
            // `Builder` would clean the name.
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            let content = vec![b'x'; usize::try_from(size).unwrap()];
            builder.append(&header, &content[..]).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn compressed(parts: &[&[u8]]) -> Vec<u8> {
        let member = |part: &&[u8]| {
            let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
            encoder.write_all(part).unwrap();
            encoder.finish().unwrap()
        };
        parts.iter().flat_map(member).collect()
    }

    fn listed(bytes: Vec<u8>, compression: Compression) -> (Option<Listed>, Findings) {
        let mut findings = Findings::default();
        let listed = list(&Bytes(bytes), compression, &Place::default(), &mut findings).unwrap();
        (listed, findings)
    }

    #[test]
    fn files_are_listed_however_they_are_packed() {
        let tar = archive();
        let (head, tail) = tar.split_at(2_000_000);
        for (bytes, compression, members) in [
            (tar.clone(), Compression::None, 0),
            (compressed(&[&tar]), Compression::Gzip, 1),
            (compressed(&[head, tail]), Compression::Gzip, 2),
            (zstd::encode_all(&tar[..], 1).unwrap(), Compression::Zstd, 0),
        ] {
            let (found, findings) = listed(bytes, compression);
            let found = found.unwrap();
            let paths: Vec<&str> = found.lister.nodes.iter().map(|node| node.path.as_str()).collect();
            assert_eq!(paths, ["models/config.json", "models/weights", PASSWD, "models/last"]);
            assert_eq!(found.lister.passwd, Some(vec![b'x'; 40]));
            assert_eq!(found.lister.nodes[1].kind, NodeKind::Regular { size: 3 << 20 });
            assert_eq!(found.members, members);
            assert!(findings.has(&rules::ENTRY_NAME_UNCLEAN));
        }
    }

    #[test]
    fn links_are_no_password_files() {
        for kind in [EntryType::Symlink, EntryType::Link] {
            let mut builder = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            header.set_entry_type(kind);
            builder.append_link(&mut header, PASSWD, "elsewhere").unwrap();
            let (found, _) = listed(builder.into_inner().unwrap(), Compression::None);
            assert_eq!(found.unwrap().lister.passwd, None, "{kind:?}");
        }
    }

    /// RFC 8878, 3.1.1: magic number, frame header without a content size, window descriptor, one raw block.
    #[test]
    fn large_zstd_windows_are_refused() {
        for (log, is_read) in [(27, true), (28, false), (41, false)] {
            let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, (log - 10) << 3];
            let block: u32 = 1 | 1024 << 3;
            frame.extend_from_slice(&block.to_le_bytes()[..3]);
            frame.extend([0; 1024]);
            assert_eq!(listed(frame, Compression::Zstd).0.is_some(), is_read, "{log}");
        }
    }

    #[test]
    fn what_is_damaged_is_not_listed() {
        let mut tar = archive();
        assert!(listed(compressed(&[&tar])[..100].to_vec(), Compression::Gzip).0.is_none());
        assert!(listed(tar[..3 << 20].to_vec(), Compression::None).0.is_none());
        tar[1024] ^= 1;
        assert!(listed(tar, Compression::None).0.is_none());
    }
}
