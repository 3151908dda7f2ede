//! Layers for containers-storage: the tar-split makes the tar stream again, and positions, digests and bytes are those
//! that the layer's annotations say and that earlier versions wrote.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::Read as _,
    path::Path,
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use starcar::{
    blob::{BlobContent, FileStamp, RangeSource, Source, Spool},
    digest::Digest,
    estargz::EstargzReader,
    layer::{Content, Data, Entry, EntryKind, LayerFormat, SealOptions, SealedLayer, Storage, Workers, seal},
    zstd_chunked::{Consumer, Consumers, ZstdChunked},
};

mod support;

use support::{
    command::{Run, starcar, starcar_in},
    noise::noise,
};

const PREFIX: &str = "io.github.containers.zstd-chunked.";

struct InMemory(Vec<u8>);

impl RangeSource for InMemory {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_range(&self, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
        let start = usize::try_from(offset).unwrap();
        Ok(self.0[start..start + length].to_vec())
    }
}

/// Files as they are in a node's storage.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("config.json", b"{\"a\": 1}\n".to_vec()),
        ("empty", Vec::new()),
        ("weights", noise(300_001, 1)),
        ("text", "line\n".repeat(50_000).into_bytes()),
        ("größe", vec![0; 512]),
    ]
}

fn entries(directory: &Path) -> Vec<Entry> {
    let mut entries = vec![Entry::new("models", 0o755, 0, EntryKind::Directory)];
    for (name, content) in files() {
        let path = directory.join(name);
        fs::write(&path, &content).unwrap();
        let stamp = FileStamp::of(&fs::metadata(&path).unwrap());
        let is_weights = name == "weights";
        entries.push(Entry::new(
            format!("models/{name}"),
            0o644,
            1_700_000_000,
            EntryKind::Regular(Content {
                data: Data::Source { source: Arc::new(Source::Path { path, stamp }), offset: 0 },
                storage: if is_weights { Storage::Stored } else { Storage::Compressed },
                chunks: content.chunks(100_000).map(|chunk| chunk.len() as u64).collect(),
                expected: Vec::new(),
            }),
        ));
    }
    let mut tool = Entry::new(
        format!("bin/{}", "x".repeat(120)),
        0o4755,
        -5,
        EntryKind::Regular(Content::bytes(&b"#!"[..], Storage::Compressed)),
    );
    tool.uid = 3_000_000;
    tool.xattrs = BTreeMap::from([("security.capability".to_owned(), vec![1, 0, 0xff, 2])]);
    let target = tool.path.clone();
    entries.push(Entry::new("bin", 0o755, 0, EntryKind::Directory));
    entries.push(tool);
    entries.push(Entry::new("bin/link", 0o777, 0, EntryKind::Symlink { target: "t".repeat(130) }));
    entries.push(Entry::new("bin/hard", 0o4755, 0, EntryKind::Hardlink { target }));
    entries.push(Entry::new("dev-null", 0o666, 0, EntryKind::CharDevice { major: 1, minor: 3 }));
    entries
}

fn sealed(consumers: Consumers, threads: usize) -> (SealedLayer, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let workers = Workers::new(threads).unwrap();
    let spool = Spool::new(std::env::temp_dir(), 0);
    let options = SealOptions { workers: &workers, spool: &spool, on_bytes: &|_| {} };
    let format: Arc<dyn LayerFormat> = Arc::new(ZstdChunked::new(3).for_consumers(consumers));
    let layer = seal(&entries(directory.path()), &format, &options, None).unwrap();
    let mut blob = Vec::new();
    layer.blob.clone().unwrap().reader(0).unwrap().read_to_end(&mut blob).unwrap();
    (layer, blob)
}

/// What lies in a skippable frame at a position of the annotations: compressed and not.
fn at<'a>(layer: &SealedLayer, blob: &'a [u8], name: &str) -> (&'a [u8], Vec<u8>) {
    let numbers: Vec<usize> = layer.annotations[&format!("{PREFIX}{name}-position")]
        .split(':')
        .map(|number| number.parse().unwrap())
        .collect();
    let header = [&[0x50, 0x2a, 0x4d, 0x18][..], &u32::try_from(numbers[1]).unwrap().to_le_bytes()].concat();
    assert_eq!(blob[numbers[0] - 8..numbers[0]], header);
    let compressed = &blob[numbers[0]..numbers[0] + numbers[1]];
    let content = zstd::decode_all(compressed).unwrap();
    assert_eq!(content.len(), numbers[2], "{name}");
    (compressed, content)
}

fn crc64(bytes: &[u8]) -> [u8; 8] {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64GoIso, bytes).to_be_bytes()
}

/// As containers-storage does it: runs of the stream from the tar-split, contents from files.
fn reassemble(split: &[u8], contents: &HashMap<String, Vec<u8>>) -> Vec<u8> {
    let mut stream = Vec::new();
    for (position, line) in split.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let line: Value = serde_json::from_slice(line).unwrap();
        assert_eq!(line["position"], position);
        let payload = line["payload"].as_str().map(|text| STANDARD.decode(text).unwrap());
        if line["type"] == 2 {
            stream.extend(payload.unwrap());
        } else if let Some(size) = line.get("size") {
            let content = &contents[line["name"].as_str().unwrap()];
            assert_eq!(*size, content.len());
            assert_eq!(payload.unwrap(), crc64(content));
            stream.extend(content);
        } else {
            assert_eq!((&line["type"], payload), (&Value::from(1), None));
        }
    }
    stream
}

#[test]
fn the_tar_split_makes_the_stream_again() {
    let mut contents: HashMap<String, Vec<u8>> =
        files().into_iter().map(|(name, content)| (format!("models/{name}"), content)).collect();
    contents.insert(format!("bin/{}", "x".repeat(120)), b"#!".to_vec());
    for consumers in [Consumers::ContainersStorage, Consumers::Both] {
        let (layer, blob) = sealed(consumers, 2);
        let stream = zstd::decode_all(&blob[..]).unwrap();
        assert_eq!(Digest::of(&stream), layer.diff_id);
        let (compressed, split) = at(&layer, &blob, "tarsplit");
        assert_eq!(reassemble(&split, &contents), stream);

        let (toc, json) = at(&layer, &blob, "manifest");
        assert_eq!(layer.annotations[&format!("{PREFIX}manifest-checksum")], Digest::of(toc).to_string());
        let json: Value = serde_json::from_slice(&json).unwrap();
        let digest = Digest::of(compressed).to_string();
        assert_eq!(json["tarSplitDigest"], digest);
        assert_eq!(layer.annotations[&format!("{PREFIX}tarsplit-checksum")], digest);
    }
}

#[test]
fn each_run_of_the_split_has_one_header_and_the_table_says_the_same() {
    let (layer, blob) = sealed(Consumers::Both, 1);
    let split = String::from_utf8(at(&layer, &blob, "tarsplit").1).unwrap();
    let toc: Value = serde_json::from_slice(&at(&layer, &blob, "manifest").1).unwrap();
    let mut listed: HashMap<&str, &Value> = HashMap::new();
    for entry in toc["entries"].as_array().unwrap() {
        if entry["type"] != "chunk" {
            assert!(listed.insert(entry["name"].as_str().unwrap(), entry).is_none());
        }
    }
    let mut padding = 0;
    let lines: Vec<Value> = split.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (end, lines) = lines.split_last().unwrap();
    for pair in lines.chunks(2) {
        let segment = STANDARD.decode(pair[0]["payload"].as_str().unwrap()).unwrap();
        let mut archive = tar::Archive::new(&segment[padding..]);
        let mut headers = archive.entries().unwrap();
        let mut header = headers.next().unwrap().unwrap();
        let path = String::from_utf8(header.path_bytes().into_owned()).unwrap();
        assert_eq!(pair[1]["name"], path);
        let entry = listed.remove(path.as_str()).unwrap();
        assert_eq!(entry.get("size").and_then(Value::as_u64).unwrap_or(0), header.size());
        assert_eq!(entry["mode"].as_u64().unwrap(), u64::from(header.header().mode().unwrap()));
        assert_eq!(
            entry.get("uid").and_then(Value::as_u64).unwrap_or(0),
            header.header().uid().unwrap().max(
                // What the field cannot hold is in a record.
                if path.len() > 100 { 3_000_000 } else { 0 }
            )
        );
        let link = header.link_name_bytes().map(|name| String::from_utf8(name.into_owned()).unwrap());
        assert_eq!(entry.get("linkName").and_then(Value::as_str), link.as_deref());
        let mut records = 0;
        for record in header.pax_extensions().unwrap().into_iter().flatten() {
            let record = record.unwrap();
            if let Some(name) = record.key().unwrap().strip_prefix("SCHILY.xattr.") {
                assert_eq!(entry["xattrs"][name], STANDARD.encode(record.value_bytes()));
                records += 1;
            }
        }
        assert_eq!(entry.get("xattrs").map_or(0, |all| all.as_object().unwrap().len()), records);
        padding = usize::try_from(header.size().next_multiple_of(512) - header.size()).unwrap();
    }
    assert!(listed.is_empty());
    assert_eq!(STANDARD.decode(end["payload"].as_str().unwrap()).unwrap(), vec![0; padding + 1024]);
}

#[test]
fn the_table_says_where_files_end() {
    let (layer, blob) = sealed(Consumers::Both, 2);
    let toc: Value = serde_json::from_slice(&at(&layer, &blob, "manifest").1).unwrap();
    let entries = toc["entries"].as_array().unwrap();
    let number = |entry: &Value, name: &str| usize::try_from(entry[name].as_u64().unwrap()).unwrap();
    for (name, content) in files().into_iter().filter(|(_, content)| !content.is_empty()) {
        let of_file = || entries.iter().filter(|entry| entry["name"] == format!("models/{name}"));
        let (first, last) = (of_file().next().unwrap(), of_file().next_back().unwrap());
        // Frames of a file lie one after another.
        let range = number(first, "offset")..number(last, "endOffset");
        assert_eq!(zstd::decode_all(&blob[range]).unwrap(), content, "{name}");
        assert_eq!(of_file().filter(|entry| entry.get("endOffset").is_some()).count(), 1);
        assert_eq!(first["digest"], Digest::of(&content).to_string());
    }
}

#[test]
fn a_layer_is_for_whom_it_says() {
    let names = |consumers: Consumers| -> Vec<String> {
        let (layer, blob) = sealed(consumers, 1);
        EstargzReader::open(&InMemory(blob), None).unwrap();
        layer.annotations.into_keys().collect()
    };
    let stargz = [
        "containerd.io/snapshot/stargz/toc.digest",
        "io.containers.estargz.uncompressed-size",
        "io.containers.zstd-chunked.manifest-checksum",
        "io.containers.zstd-chunked.manifest-position",
    ];
    let storage = [
        "io.containers.estargz.uncompressed-size",
        "io.github.containers.zstd-chunked.manifest-checksum",
        "io.github.containers.zstd-chunked.manifest-position",
        "io.github.containers.zstd-chunked.tarsplit-checksum",
        "io.github.containers.zstd-chunked.tarsplit-position",
    ];
    assert_eq!(names(Consumers::Stargz), stargz);
    assert_eq!(names(Consumers::ContainersStorage), storage);
    let both = names(Consumers::Both);
    let of =
        |consumer: Consumer| -> Vec<&String> { both.iter().filter(|name| consumer.takes(name)).collect() };
    assert_eq!(of(Consumer::Stargz), stargz);
    assert_eq!(of(Consumer::ContainersStorage), storage);
}

#[test]
fn footers_differ_and_nothing_else() {
    let (storage, storage_blob) = sealed(Consumers::ContainersStorage, 1);
    let (both, both_blob) = sealed(Consumers::Both, 2);
    let short = 8 + 40;
    let long = 8 + 64;
    assert_eq!(storage_blob[..storage_blob.len() - long], both_blob[..both_blob.len() - short]);
    assert_eq!(storage.diff_id, both.diff_id);
    assert_eq!(sealed(Consumers::Stargz, 1).0.diff_id, both.diff_id);
    // A change of these is a change of the format: what is packed again gets other digests.
    let digests = [storage, both].map(|layer| layer.digest.to_string());
    assert_eq!(
        digests,
        [
            "sha256:a1d52618935b1df61628882266c813135e589985daffedcbdfe54105c1695999",
            "sha256:2593cb7890c583ee049a7b495f45bb72062215ae3aab1cbe0944faf0922fad0a",
        ]
    );
}

const EXAMPLE: &str = "examples/tiny-llama";

/// Packs the example into a layout.
fn pack(out: &Path, cache: &Path, arguments: &[&str]) -> Run {
    let out = format!("oci:{}", out.display());
    let chunked = ["pack", EXAMPLE, "--base", "scratch", "--layer-format", "zstd:chunked", "-o", &out];
    starcar_in(cache.as_os_str(), &[&chunked[..], &["--format", "json"], arguments].concat())
}

fn json(run: &Run) -> Value {
    assert_eq!(run.code, 0, "{}", run.stderr);
    serde_json::from_str(&run.stdout).unwrap()
}

fn layers(image: &Value) -> Vec<String> {
    let layers = image["layers"].as_array().unwrap();
    layers.iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
}

/// A document of a layout.
fn document(layout: &Path, digest: &Value) -> Value {
    let digest = digest.as_str().unwrap().strip_prefix("sha256:").unwrap();
    serde_json::from_slice(&fs::read(layout.join("blobs/sha256").join(digest)).unwrap()).unwrap()
}

#[test]
fn the_example_has_the_digests_of_earlier_versions() {
    let directory = tempfile::tempdir().unwrap();
    let (out, cache) = (directory.path().join("out"), directory.path().join("cache"));
    for (consumer, expected) in [
        ("containers-storage", include_str!("golden/example.containers-storage")),
        ("both", include_str!("golden/example.both")),
    ] {
        // The second time nothing is read.
        for _ in 0..2 {
            let packed = json(&pack(&out, &cache, &["--consumer", consumer]));
            let image = packed.get("platforms").map_or(&packed, |images| &images[0]);
            assert_eq!(layers(image).join("\n"), expected.trim_end(), "{consumer}");
        }
    }
}

#[test]
fn both_are_images_of_the_same_layers() {
    let directory = tempfile::tempdir().unwrap();
    let (out, cache) = (directory.path().join("out"), directory.path().join("cache"));
    let platforms = ["--consumer", "both", "--platform", "linux/arm64,linux/amd64"];
    let packed = json(&pack(&out, &cache, &platforms));
    let index = document(&out, &packed["digest"]);
    let entries = index["manifests"].as_array().unwrap();
    let told: Vec<(&str, &str, Option<&str>)> = entries
        .iter()
        .zip(packed["platforms"].as_array().unwrap())
        .map(|(entry, image)| {
            assert_eq!(entry["digest"], image["digest"]);
            let zstd = entry["annotations"]["io.github.containers.compression.zstd"].as_str();
            (entry["platform"]["architecture"].as_str().unwrap(), image["consumer"].as_str().unwrap(), zstd)
        })
        .collect();
    assert_eq!(
        told,
        [
            ("arm64", "stargz", None),
            ("arm64", "containers-storage", Some("true")),
            ("amd64", "stargz", None),
            ("amd64", "containers-storage", Some("true")),
        ]
    );
    let manifests: Vec<Value> = entries.iter().map(|entry| document(&out, &entry["digest"])).collect();
    for pair in manifests.chunks(2) {
        assert_eq!(pair[0]["config"], pair[1]["config"]);
        assert_eq!(layers(&pair[0]), layers(&pair[1]));
        let takes = |manifest: &Value, name: &str| {
            let all = manifest["layers"].as_array().unwrap();
            let those = all.iter().filter(|layer| layer["annotations"].get(name).is_some()).count();
            assert!(those == 0 || those == all.len());
            those > 0
        };
        for (name, stargz) in [
            ("containerd.io/snapshot/stargz/toc.digest", true),
            ("io.containers.zstd-chunked.manifest-checksum", true),
            ("io.github.containers.zstd-chunked.manifest-checksum", false),
            ("io.github.containers.zstd-chunked.tarsplit-position", false),
        ] {
            assert_eq!((takes(&pair[0], name), takes(&pair[1], name)), (stargz, !stargz), "{name}");
        }
    }
    assert_eq!(layers(&manifests[0]), layers(&manifests[2]));

    // A person sees which of two entries of one platform is whose.
    let shown =
        starcar(&["inspect", &format!("oci:{}@{}", out.display(), packed["digest"].as_str().unwrap())]);
    for (index, image) in packed["platforms"].as_array().unwrap().iter().enumerate() {
        let line =
            shown.stdout.lines().find(|line| line.contains(image["digest"].as_str().unwrap())).unwrap();
        assert_eq!(line.contains("for podman and CRI-O"), index % 2 == 1, "{line}");
    }
    assert!(!shown.stdout.contains("linux/amd64, linux/amd64"), "{}", shown.stdout);

    // Each says how it was packed, and is packed again.
    for image in packed["platforms"].as_array().unwrap() {
        let reference = format!("oci:{}@{}", out.display(), image["digest"].as_str().unwrap());
        let run = starcar(&["verify", &reference, "--rebuild", EXAMPLE, "--format", "json"]);
        let found: Value = serde_json::from_str(&run.stdout).unwrap();
        let codes =
            found["findings"].as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap());
        let rebuilt: Vec<&str> = codes.filter(|code| code.starts_with("rebuild")).collect();
        assert!(rebuilt.is_empty(), "{rebuilt:?} {}", run.stderr);
        // Who wants no lazy start of an image is not warned that there is none.
        let lazy = found["verdicts"].as_array().unwrap().iter().find(|verdict| verdict["use"] == "lazy");
        assert_eq!(lazy.unwrap()["wanted"], image["consumer"] == "stargz", "{}", run.stdout);
    }
}

#[test]
fn other_formats_have_no_consumers() {
    let run = starcar(&["pack", EXAMPLE, "--base", "scratch", "--consumer", "both", "--dry-run"]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(run.stderr.contains("--layer-format zstd:chunked"), "{}", run.stderr);
}
