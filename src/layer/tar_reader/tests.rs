use proptest::prelude::*;
use tar::{Builder, Header};

use super::*;

/// What a stream holds: entries, each with its payload, positions of padding that is not zero, and the end.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    entries: Vec<(TarEntry, Vec<u8>)>,
    padding: Vec<u64>,
}

fn read(stream: &[u8], piece: usize) -> Result<(Seen, TarEnd), TarError> {
    let mut seen = Seen::default();
    let mut reader = TarReader::new();
    for piece in stream.chunks(piece) {
        reader.feed(piece, |event| match event {
            TarEvent::Entry(entry) => seen.entries.push((*entry, Vec::new())),
            TarEvent::Payload(bytes) => seen.entries.last_mut().unwrap().1.extend_from_slice(bytes),
            TarEvent::PaddingNotZero { at } => seen.padding.push(at),
        })?;
    }
    Ok((seen, reader.finish()?))
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o640);
    header.set_uid(1);
    header.set_gid(2);
    header.set_mtime(5);
    header.set_size(size);
    header
}

fn stream(build: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    build(&mut builder);
    builder.into_inner().unwrap()
}

fn add(builder: &mut Builder<Vec<u8>>, path: &str, content: &[u8]) {
    builder.append_data(&mut header(EntryType::Regular, content.len() as u64), path, content).unwrap();
}

/// A stream of one empty file whose header is changed.
fn changed(change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let mut header = header(EntryType::Regular, 0);
    header.set_path("file").unwrap();
    change(&mut header);
    header.set_cksum();
    [header.as_bytes().as_slice(), &[0; 1024]].concat()
}

fn only(stream: &[u8]) -> TarEntry {
    let (mut seen, _) = read(stream, stream.len()).unwrap();
    assert_eq!(seen.entries.len(), 1);
    seen.entries.remove(0).0
}

#[test]
fn pieces_of_any_size_are_the_same_stream() {
    let long = format!("{}/file", "d".repeat(150));
    let bytes = stream(|builder| {
        add(builder, "./a", b"12345");
        builder.append_pax_extensions([("mtime", &b"-5.5"[..]), ("SCHILY.xattr.user.x", b"\n\0")]).unwrap();
        add(builder, &long, &[7; 1_024]);
        builder.append_link(&mut header(EntryType::Symlink, 0), "link", "to").unwrap();
    });
    let whole = read(&bytes, bytes.len()).unwrap();
    for piece in [1, 7, 511, 512, 513, 4_096] {
        assert_eq!(read(&bytes, piece).unwrap(), whole, "{piece}");
    }
    let (seen, end) = whole;
    let [(first, content), (second, filled), (link, _)] = &seen.entries[..] else { panic!("{seen:?}") };
    assert_eq!((&first.name[..], &content[..]), (&b"a"[..], &b"12345"[..]));
    assert_eq!((first.mode, first.uid, first.gid, first.modified), (0o640, 1, 2, 5));
    assert_eq!((first.header_at, first.payload_at, first.size), (0, 512, 5));
    assert_eq!((second.name.as_slice(), filled.len()), (long.as_bytes(), 1_024));
    assert_eq!((second.modified, second.modified_nanos), (-6, 500_000_000));
    assert_eq!(second.xattrs["user.x"], b"\n\0");
    assert_eq!(second.header_at, 1_024);
    assert_eq!((link.kind, &link.link[..]), (EntryType::Symlink, &b"to"[..]));
    let size = bytes.len() as u64;
    assert_eq!(end, TarEnd { at: size - 1_024, zeros: 1_024, garbage_at: None, size });
}

#[test]
fn numbers_in_binary() {
    let entry = only(&changed(|header| {
        header.as_old_mut().mtime = [0xff; 12];
        header.as_old_mut().uid = [0x80, 0, 0, 0, 0xff, 0, 0, 0];
        header.as_old_mut().gid = [0; 8];
    }));
    assert_eq!((entry.modified, entry.uid, entry.gid), (-1, 0xff00_0000, 0));
    let huge = changed(|header| header.as_old_mut().mtime = [0x8f; 12]);
    assert!(matches!(read(&huge, 512), Err(TarError::Field { at: 0, field: "mtime", .. })));
    let negative = changed(|header| header.as_old_mut().uid = [0xff; 8]);
    assert!(matches!(read(&negative, 512), Err(TarError::Field { field: "uid", .. })));
    let text = changed(|header| header.as_old_mut().mode = *b"rw-r--\0\0");
    let error = read(&text, 512).unwrap_err();
    assert!(error.to_string().starts_with("file: mode is \"rw-r--"), "{error}");
}

#[test]
fn kinds_without_payload_have_none_whatever_their_size_says() {
    for kind in [EntryType::Directory, EntryType::Link, EntryType::Symlink, EntryType::Fifo, EntryType::Char]
    {
        let bytes = changed(|header| {
            header.set_entry_type(kind);
            header.set_size(4_096);
        });
        assert_eq!(only(&bytes).size, 0, "{kind:?}");
    }
    let old_directory = changed(|header| {
        header.as_old_mut().linkflag = [0];
        header.set_path("directory/").unwrap();
    });
    assert_eq!(only(&old_directory).kind, EntryType::Directory);
}

#[test]
fn lists_of_holes_are_read_over() {
    let mut header = header(EntryType::GNUSparse, 3);
    header.set_path("sparse").unwrap();
    header.as_gnu_mut().unwrap().isextended = [1];
    header.set_cksum();
    let mut list = [1; 512];
    let more = list;
    list[504] = 0;
    let bytes = [header.as_bytes().as_slice(), &more, &list, b"abc", &[0; 509], &[0; 1_024]].concat();
    let (seen, _) = read(&bytes, 100).unwrap();
    let (entry, content) = &seen.entries[0];
    assert_eq!((entry.sparse, entry.payload_at, content.as_slice()), (true, 1_536, &b"abc"[..]));
}

#[test]
fn damage_is_told_with_its_place() {
    let good = stream(|builder| {
        add(builder, "a", &[1; 600]);
        add(builder, "b", b"2");
    });
    let mut bytes = good.clone();
    bytes[1_536] ^= 1;
    assert_eq!(read(&bytes, 512).unwrap_err(), TarError::Header { at: 1_536 });

    bytes = good.clone();
    bytes[1_200] = 1;
    bytes[1_300] = 1;
    bytes[2_559] = 1;
    assert_eq!(read(&bytes, 100).unwrap().0.padding, [1_200, 2_559]);

    assert_eq!(read(&good[..1_000], 512).unwrap_err(), TarError::CutShort { at: 0 });
    assert_eq!(read(&good[..1_700], 512).unwrap_err(), TarError::CutShort { at: 1_536 });
    let without_padding = read(&good[..2_049], 512).unwrap().1;
    assert_eq!((without_padding.at, without_padding.zeros), (2_049, 0));
    let unmarked = read(&good[..2_560], 512).unwrap().1;
    assert_eq!((unmarked.at, unmarked.zeros, unmarked.size), (2_560, 0, 2_560));
}

#[test]
fn what_follows_the_end() {
    let mut bytes = stream(|builder| add(builder, "a", b""));
    bytes.extend([0; 700]);
    bytes.extend(b"garbage");
    for piece in [1, 512, 5_000] {
        let end = read(&bytes, piece).unwrap().1;
        let expected = TarEnd { at: 512, zeros: 1_724, garbage_at: Some(2_236), size: 2_243 };
        assert_eq!(end, expected);
    }
    assert_eq!(read(b"", 1).unwrap().1, TarEnd::default());
}

#[test]
fn entries_behind_a_marker_are_read_when_asked_for() {
    let one = stream(|builder| add(builder, "a", b""));
    let mut reader = TarReader::new();
    let mut names = Vec::new();
    for _ in 0..2 {
        let on_event = |event: TarEvent<'_>| {
            if let TarEvent::Entry(entry) = event {
                names.push((entry.name, entry.header_at));
            }
        };
        reader.feed(&one, on_event).unwrap();
        assert!(reader.resume());
        assert!(!reader.resume());
    }
    assert_eq!(names, [(b"a".to_vec(), 0), (b"a".to_vec(), one.len() as u64)]);
    reader.feed(&[0; 600], |_| {}).unwrap();
    assert!(!reader.resume());
}

#[test]
fn payloads_can_be_left_out() {
    let bytes = stream(|builder| {
        add(builder, "a", &[1; 600]);
        add(builder, "b", b"2");
    });
    let mut reader = TarReader::new();
    let mut names = Vec::new();
    while !reader.is_at_end() {
        let at = usize::try_from(reader.position()).unwrap();
        let on_event = |event: TarEvent<'_>| {
            if let TarEvent::Entry(entry) = event {
                names.push(entry.name);
            }
        };
        reader.feed(&bytes[at..at + 512], on_event).unwrap();
        reader.skip_payload();
    }
    assert_eq!(names, [b"a", b"b"]);
}

#[test]
fn extended_headers_are_bounded() {
    let mut header = header(EntryType::XHeader, EXTENSION_MAX + 1);
    header.set_cksum();
    let error = read(header.as_bytes(), 512).unwrap_err();
    assert_eq!(error, TarError::ExtensionSize { at: 0, size: EXTENSION_MAX + 1 });

    header.set_size(EXTENSION_MAX);
    header.set_entry_type(EntryType::GNULongName);
    header.set_cksum();
    let one = [header.as_bytes().as_slice(), &b"a".repeat(1 << 20)].concat();
    assert!(matches!(read(&one.repeat(5), 1 << 16), Err(TarError::ExtensionSize { .. })));
    // A header that describes an entry, and no entry.
    assert!(matches!(read(&one, 1 << 16), Err(TarError::CutShort { at: 0 })));
    assert!(matches!(read(&[&one[..], &[0; 1_024]].concat(), 512), Err(TarError::CutShort { at: 0 })));
}

#[test]
fn times() {
    for (text, time) in [
        ("5.9", Some((5, 900_000_000))),
        ("-5", Some((-5, 0))),
        ("-5.5", Some((-6, 500_000_000))),
        ("-5.0", Some((-5, 0))),
        ("1.0000000019", Some((1, 1))),
        ("soon", None),
        ("1.x", None),
        ("", None),
    ] {
        assert_eq!(extension::time(text.as_bytes()), time, "{text}");
    }
}

proptest! {
    #[test]
    fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..2_048), piece in 1_usize..600) {
        let _ = read(&bytes, piece);
    }

    /// A header whose fields are anything, with a checksum that lets it pass.
    #[test]
    fn no_field_panics(bytes in prop::collection::vec(any::<u8>(), 512), piece in 1_usize..600) {
        let mut header = Header::from_byte_slice(&bytes).clone();
        header.set_cksum();
        let _ = read(&[header.as_bytes().as_slice(), &bytes, &[0; 1_024]].concat(), piece);
    }
}
