//! Other formats than eStargz, several layers, places that fail, and bounds.

use super::*;

#[test]
fn layers_of_other_formats() {
    let (tar, sealed_tar) = sealed(crate::layer::PlainTar, &entries());
    let other = |blob: Vec<u8>, compression: Compression| {
        let layer = LayerToRead {
            index: 0,
            tar_split: None,
            list: false,
            content: Arc::new(MemoryBlob::new(blob)),
            compression,
            diff_id: Some(sealed_tar.diff_id),
            unpacked_size: None,
            toc: None,
        };
        let found = read_one(&layer).findings.finish(&Use::ALL);
        found.iter().map(|found| found.rule.code).collect::<Vec<_>>()
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    // Frames that are skipped are allowed: zstd:chunked has them at its end.
    let skipped = [&zstd(&tar)[..], &[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0], b"abc"].concat();
    assert_eq!(other(tar.clone(), Compression::None), [""; 0]);
    assert_eq!(other(gzip(&tar), Compression::Gzip), [""; 0]);
    assert_eq!(other(zstd(&tar), Compression::Zstd), [""; 0]);
    assert_eq!(other(skipped, Compression::Zstd), [""; 0]);

    let half = tar.len() / 2 / 512 * 512;
    assert_eq!(other(tar[..half - 100].to_vec(), Compression::None), ["tar-damaged", "diff-id"]);
    assert_eq!(other(gzip(&tar[..half - 100]), Compression::Gzip), ["tar-damaged", "diff-id"]);
    let cut = zstd(&tar);
    assert_eq!(other(cut[..cut.len() - 5].to_vec(), Compression::Zstd), ["member-damaged"]);
    assert_eq!(other(b"no tar".to_vec(), Compression::Gzip), ["member-damaged"]);
}

#[test]
fn layers_side_by_side_are_told_in_order() {
    let good = Layer::good();
    let layers: Vec<LayerToRead<'_>> = (0..7)
        .map(|index| LayerToRead {
            index,
            tar_split: None,
            list: false,
            content: Arc::new(MemoryBlob::new(good.blob.clone())),
            compression: Compression::Gzip,
            diff_id: Some(if index % 2 == 0 { good.diff_id } else { Digest::of(b"other") }),
            unpacked_size: None,
            toc: Some(&good.reader),
        })
        .collect();
    for threads in [1, 3, 16] {
        let results = read_layers(&layers, threads, &|_| Wanted::No, &|_| {});
        let counts: Vec<usize> =
            results.into_iter().map(|read| read.unwrap().findings.finish(&Use::ALL).len()).collect();
        assert_eq!(counts, [0, 1, 0, 1, 0, 1, 0], "{threads}");
    }
}

struct Gone;

impl io::Read for Gone {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("gone"))
    }
}

/// A blob whose place is gone.
struct Fails;
impl BlobContent for Fails {
    fn size(&self) -> u64 {
        9
    }
    fn digest(&self) -> Digest {
        Digest::of(b"")
    }
    fn reader(self: Arc<Self>, _: u64) -> io::Result<Box<dyn io::Read + Send>> {
        Ok(Box::new(Gone))
    }
}

#[test]
fn a_place_that_fails_is_an_error() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let content = Arc::new(Fails);
        let layer = LayerToRead {
            index: 0,
            content,
            compression,
            diff_id: None,
            unpacked_size: None,
            toc: None,
            tar_split: None,
            list: false,
        };
        let result = read_layers(&[layer], 2, &|_| Wanted::No, &|_| {}).remove(0);
        assert_eq!(result.unwrap_err().to_string(), "gone");
    }
}

#[test]
fn no_more_is_collected_than_there_is_room_for() {
    use super::{
        pieces::Pool,
        walk::{Hashers, Walk},
    };
    let mut builder = tar::Builder::new(Vec::new());
    for name in ["a", "b"] {
        let mut header = Header::new_gnu();
        header.set_size(0);
        builder.append_data(&mut header, name, io::empty()).unwrap();
        header.set_entry_type(tar::EntryType::Link);
        builder.append_link(&mut header, format!("{name}-link"), name).unwrap();
    }
    let stream = builder.into_inner().unwrap();
    for (room, files, is_listed) in [(2, 1, false), (3, 2, false), (4, 2, true)] {
        let pool = Pool::new(1);
        let mut buffer = pool.take();
        buffer[..stream.len()].copy_from_slice(&stream);
        let piece = pool.share(buffer, stream.len());
        let (to_chunks, _chunks) = std::sync::mpsc::sync_channel(10);
        let (to_files, items) = std::sync::mpsc::sync_channel(10);
        let place = Place::default();
        let wanted = |_: &str| Wanted::Sha256;
        let mut walk = Walk::new(&place, None, &wanted, Hashers { chunks: to_chunks, files: to_files });
        walk.lister = Some(Lister::default());
        walk.entries_left = room;
        walk.bytes(&piece, 0..stream.len());
        let walked = walk.finish(true);
        assert_eq!(walked.lister.is_some(), is_listed, "{room}");
        assert_eq!(walked.links.len(), room / 2, "{room}");
        assert_eq!(super::hashes::run(&items, &place).files.len(), files, "{room}");
    }
}

#[test]
fn kinds_that_containerd_refuses_are_told() {
    for kind in [b'7', b'S'] {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(0);
        header.set_entry_type(tar::EntryType::new(kind));
        builder.append_data(&mut header, "models/a", io::empty()).unwrap();
        let read = read_one(&LayerToRead {
            index: 0,
            content: Arc::new(MemoryBlob::new(builder.into_inner().unwrap())),
            compression: Compression::None,
            diff_id: None,
            unpacked_size: None,
            toc: None,
            tar_split: None,
            list: false,
        });
        let found = read.findings.finish(&Use::ALL);
        let codes: Vec<&str> = found.iter().map(|finding| finding.rule.code).collect();
        assert_eq!(codes, ["tar-kind"], "{kind}");
    }
}
