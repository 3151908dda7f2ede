//! What a layer is made of, as one digest: equal keys mean equal layers, as far as the file system tells. Must not
//! know what is kept under a key.

use super::fields::Fields;
use crate::{
    blob::{FileStamp, Source},
    digest::Digest,
    layer::{Content, Data, Entry, EntryKind, Expected, LayerFormat, Storage},
};

/// Version of the key and of what is kept under it. Whatever changes the meaning of either takes another.
const SCHEMA: u64 = 1;

/// The key of the layer that `entries` form in `format`; `None` when some of its bytes have no stamp to be known by.
pub(super) fn key(entries: &[Entry], format: &dyn LayerFormat) -> Option<Digest> {
    let mut fields = Fields::default();
    fields.text("starcar layer");
    fields.number(SCHEMA);
    // Another version may write another header or another table of contents.
    fields.text(env!("CARGO_PKG_VERSION"));
    fields.text(&format.fingerprint());
    fields.number(entries.len() as u64);
    for entry in entries {
        self::entry(&mut fields, entry)?;
    }
    Some(Digest::of(&fields.finish()))
}

fn entry(fields: &mut Fields, entry: &Entry) -> Option<()> {
    // Named one by one, so that a new field cannot be forgotten here.
    let Entry { path, mode, uid, gid, user_name, group_name, modified, xattrs, kind } = entry;
    fields.text(path);
    fields.number(u64::from(*mode));
    fields.number(*uid);
    fields.number(*gid);
    fields.text(user_name);
    fields.text(group_name);
    fields.signed(*modified);
    fields.number(xattrs.len() as u64);
    for (name, value) in xattrs {
        fields.text(name);
        fields.bytes(value);
    }
    let mut device = |tag, major: u32, minor: u32| {
        fields.byte(tag);
        fields.number(u64::from(major));
        fields.number(u64::from(minor));
    };
    match kind {
        EntryKind::Directory => fields.byte(b'd'),
        EntryKind::Fifo => fields.byte(b'p'),
        EntryKind::CharDevice { major, minor } => device(b'c', *major, *minor),
        EntryKind::BlockDevice { major, minor } => device(b'b', *major, *minor),
        EntryKind::Symlink { target } => {
            fields.byte(b'l');
            fields.text(target);
        }
        EntryKind::Hardlink { target } => {
            fields.byte(b'h');
            fields.text(target);
        }
        EntryKind::Regular(content) => {
            fields.byte(b'f');
            self::content(fields, content)?;
        }
    }
    Some(())
}

fn content(fields: &mut Fields, content: &Content) -> Option<()> {
    let Content { data, storage, chunks, expected } = content;
    fields.byte(match storage {
        Storage::Stored => b's',
        Storage::Compressed => b'c',
        Storage::EntropyCoded => b'e',
    });
    fields.number(chunks.len() as u64);
    for length in chunks {
        fields.number(*length);
    }
    // What is kept was compared with these digests; who said them makes no difference.
    fields.number(expected.len() as u64);
    for expected in expected {
        match expected {
            Expected::Sha256 { digest, .. } => {
                fields.byte(b'2');
                fields.text(&digest.hex());
            }
            Expected::GitSha1 { digest, .. } => {
                fields.byte(b'1');
                fields.bytes(digest);
            }
        }
    }
    match data {
        Data::Bytes(bytes) => {
            fields.byte(b'b');
            fields.text(&Digest::of(bytes).hex());
        }
        // Where the file lies is no part of what it is: a model that is reached by another path is the same one.
        Data::Source { source, offset } => {
            let Source::Path { path: _, stamp } = &**source else { return None };
            fields.byte(b's');
            fields.number(*offset);
            self::stamp(fields, stamp);
        }
    }
    Some(())
}

fn stamp(fields: &mut Fields, stamp: &FileStamp) {
    let FileStamp {
        device,
        inode,
        size,
        modified_seconds,
        modified_nanoseconds,
        changed_seconds,
        changed_nanoseconds,
    } = stamp;
    for number in [device, inode, size] {
        fields.number(*number);
    }
    // The time of the last change is what an edit in place cannot hide, whatever it does to the file's times.
    for number in [modified_seconds, modified_nanoseconds, changed_seconds, changed_nanoseconds] {
        fields.signed(*number);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fs::File, sync::Arc};

    use super::*;
    use crate::{estargz::Estargz, layer::PlainTar};

    const STAMP: FileStamp = FileStamp {
        device: 1,
        inode: 2,
        size: 10,
        modified_seconds: 3,
        modified_nanoseconds: 4,
        changed_seconds: 5,
        changed_nanoseconds: 6,
    };

    fn content_of(path: &str, stamp: FileStamp, offset: u64) -> Content {
        Content {
            data: Data::Source { source: Arc::new(Source::Path { path: path.into(), stamp }), offset },
            storage: Storage::Stored,
            chunks: vec![4, 6],
            expected: vec![Expected::GitSha1 { digest: [7; 20], origin: "the hub".into() }],
        }
    }

    fn file(content: Content) -> Entry {
        Entry::new("models/weights", 0o644, 0, EntryKind::Regular(content))
    }

    #[test]
    fn everything_that_makes_another_layer_makes_another_key() {
        let base = || content_of("/a", STAMP, 0);
        let stamped = |change: fn(&mut FileStamp)| {
            let mut stamp = STAMP;
            change(&mut stamp);
            file(content_of("/a", stamp, 0))
        };
        let entry = |change: fn(&mut Entry)| {
            let mut entry = file(base());
            change(&mut entry);
            entry
        };
        let sha256 = Expected::Sha256 { digest: Digest::of(b""), origin: String::new() };
        let single = [
            file(base()),
            file(content_of("/a", STAMP, 1)),
            file(Content { chunks: vec![6, 4], ..base() }),
            file(Content { storage: Storage::Compressed, ..base() }),
            file(Content { storage: Storage::EntropyCoded, ..base() }),
            file(Content { expected: Vec::new(), ..base() }),
            file(Content { expected: vec![sha256], ..base() }),
            file(Content::bytes("one", Storage::Stored)),
            file(Content::bytes("two", Storage::Stored)),
            stamped(|stamp| stamp.device += 1),
            stamped(|stamp| stamp.inode += 1),
            stamped(|stamp| stamp.size += 1),
            stamped(|stamp| stamp.modified_seconds += 1),
            stamped(|stamp| stamp.modified_nanoseconds += 1),
            stamped(|stamp| stamp.changed_seconds += 1),
            stamped(|stamp| stamp.changed_nanoseconds += 1),
            entry(|entry| entry.path.push('x')),
            entry(|entry| entry.mode = 0o755),
            entry(|entry| entry.uid = 1),
            entry(|entry| entry.gid = 1),
            entry(|entry| entry.user_name.push('x')),
            entry(|entry| entry.group_name.push('x')),
            entry(|entry| entry.modified = -1),
            entry(|entry| drop(entry.xattrs.insert("a".into(), b"b".to_vec()))),
            entry(|entry| drop(entry.xattrs.insert("ab".into(), Vec::new()))),
            entry(|entry| entry.kind = EntryKind::Directory),
            entry(|entry| entry.kind = EntryKind::Fifo),
            entry(|entry| entry.kind = EntryKind::CharDevice { major: 1, minor: 2 }),
            entry(|entry| entry.kind = EntryKind::BlockDevice { major: 1, minor: 2 }),
            entry(|entry| entry.kind = EntryKind::BlockDevice { major: 2, minor: 1 }),
            entry(|entry| entry.kind = EntryKind::Symlink { target: "a".into() }),
            entry(|entry| entry.kind = EntryKind::Hardlink { target: "a".into() }),
        ];
        let mut keys = HashSet::new();
        for entry in &single {
            assert!(keys.insert(key(std::slice::from_ref(entry), &Estargz::new(6)).unwrap()), "{entry:?}");
        }
        assert!(keys.insert(key(&single, &Estargz::new(6)).unwrap()));
        assert!(keys.insert(key(&[], &Estargz::new(6)).unwrap()));
        assert!(keys.insert(key(&single[..1], &Estargz::new(5)).unwrap()));
        assert!(keys.insert(key(&single[..1], &PlainTar).unwrap()));
    }

    #[test]
    fn the_place_of_a_file_and_the_origin_of_a_digest_make_none() {
        let mut other = content_of("/b", STAMP, 0);
        other.expected = vec![Expected::GitSha1 { digest: [7; 20], origin: "a record".into() }];
        let of = |content| key(&[file(content)], &PlainTar);
        assert_eq!(of(other), of(content_of("/a", STAMP, 0)));
    }

    #[test]
    fn what_lies_in_a_temporary_file_has_no_key() {
        let spooled = Source::Spool(Arc::new(File::open("/dev/null").unwrap()));
        let data = Data::Source { source: Arc::new(spooled), offset: 0 };
        let content = Content { data, ..content_of("/a", STAMP, 0) };
        assert_eq!(key(&[file(content)], &PlainTar), None);
    }
}
