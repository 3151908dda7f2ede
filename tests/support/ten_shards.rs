//! A model of ten shards with a digest cache, packed through the library or with the command.
#![allow(unreachable_pub, clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use starcar::{
    base::BaseChoice,
    compile_cache::AT_DEFAULT,
    digest::Digest,
    digest_cache::{DigestCache, LIMIT_DEFAULT},
    naming::Naming,
    oci::Platform,
    pack::{
        CacheOptions, Destination, FormatChoice, ModelDirectory, PackError, PackOptions, Packed,
        PlatformOptions, Prepared, prepare,
    },
    plan::{CHUNK_SIZE_DEFAULT, Compression, MAX_LAYERS_DEFAULT, Nodes, Prefetch},
    progress::Observer,
    snapshot::SnapshotOptions,
};

use crate::support::command::{Run, starcar_in};

pub const SHARDS: usize = 10;
/// Bytes of a shard, its header included.
pub const SHARD: usize = 300_000;
/// Payload of a shard's layer: the shard, and the byte of a landmark.
pub const LAYER: u64 = SHARD as u64 + 1;

/// A model, a cache, and room for images.
pub struct Place {
    pub directory: tempfile::TempDir,
    pub cache: DigestCache,
}

/// What a pack was heard to do.
#[derive(Default)]
pub struct Heard {
    pub total: AtomicU64,
    pub hashed: AtomicU64,
    pub read: AtomicU64,
    pub known: Mutex<Vec<String>>,
    pub warnings: Mutex<Vec<String>>,
}

impl Observer for Heard {
    fn hashing(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    fn hashed(&self, bytes: u64) {
        self.hashed.fetch_add(bytes, Ordering::Relaxed);
    }

    fn sources_read(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    fn layer_known(&self, title: &str, _digest: Digest, _size: u64) {
        self.known.lock().unwrap().push(title.to_owned());
    }

    fn warning(&self, text: &str) {
        self.warnings.lock().unwrap().push(text.to_owned());
    }
}

impl Heard {
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Whether a bar that shows what it hears ends where it should.
    pub fn is_whole(&self) -> bool {
        self.hashed.load(Ordering::Relaxed) == self.total.load(Ordering::Relaxed)
    }
}

pub fn shard_name(index: usize) -> String {
    format!("model-{index:05}-of-{SHARDS:05}.safetensors")
}

pub fn shard(seed: u8) -> Vec<u8> {
    let of_length = |data: usize| {
        let header = format!(r#"{{"w":{{"dtype":"U8","shape":[{data}],"data_offsets":[0,{data}]}}}}"#);
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()
    };
    let data = SHARD - of_length(SHARD).len();
    let mut bytes = of_length(data);
    let mut state = u32::from(seed) + 1;
    bytes.resize_with(SHARD, || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    bytes
}

impl Place {
    /// A model that was written 50 ms ago.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cache = DigestCache::new(directory.path().join("cache"), LIMIT_DEFAULT);
        let place = Self { directory, cache };
        fs::create_dir(place.path("model")).unwrap();
        for index in 1..=SHARDS {
            fs::write(place.shard(index), shard(u8::try_from(index).unwrap())).unwrap();
        }
        fs::write(place.path("model/config.json"), format!("{{\"a\": \"{}\"}}", "b".repeat(50_000))).unwrap();
        settle();
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn shard(&self, index: usize) -> PathBuf {
        self.path("model").join(shard_name(index))
    }

    pub fn options(&self) -> PackOptions {
        PackOptions {
            snapshot: self.path("model").to_str().unwrap().to_owned(),
            files: SnapshotOptions::default(),
            platforms: vec![PlatformOptions { platform: Platform::default(), base: BaseChoice::Scratch }],
            index: None,
            model_directory: ModelDirectory::default(),
            format: FormatChoice::Estargz { level: 6 },
            compression: Compression::Auto,
            compress_weights: false,
            prefetch: Prefetch::Auto,
            nodes: Nodes::Default,
            profile: None,
            profile_is_specific: false,
            caches: CacheOptions { caches: Vec::new(), at: AT_DEFAULT.to_owned(), strict: false },
            chunk_size: CHUNK_SIZE_DEFAULT,
            max_layers: MAX_LAYERS_DEFAULT,
            threads: 2,
            modified: 0,
            temporary: std::env::temp_dir(),
            digest_cache: Some(self.cache.clone()),
            verify_sources: false,
        }
    }

    pub fn prepare(&self) -> Prepared {
        prepare(self.options(), || unreachable!("no base in a registry")).unwrap()
    }

    pub fn layout(&self, name: &str) -> Destination {
        Destination::Layout { path: self.path(name), tag: "v1".to_owned(), naming: Naming::Move }
    }

    pub fn write(&self, prepared: &Prepared, layout: &str) -> (Result<Packed, PackError>, Heard) {
        let heard = Heard::default();
        (prepared.write(&[self.layout(layout)], &heard), heard)
    }

    /// Packs into a layout, which gets whole blobs.
    pub fn pack(&self, options: PackOptions, layout: &str) -> (Packed, Heard) {
        let prepared = prepare(options, || unreachable!("no base in a registry")).unwrap();
        let (packed, heard) = self.write(&prepared, layout);
        let packed = packed.unwrap();
        assert!(heard.is_whole());
        for blob in fs::read_dir(self.path(layout).join("blobs/sha256")).unwrap() {
            let path = blob.unwrap().path();
            assert_eq!(
                Digest::of(&fs::read(&path).unwrap()).hex(),
                path.file_name().unwrap().to_str().unwrap()
            );
        }
        (packed, heard)
    }

    /// The digest without a cache.
    pub fn expected(&self) -> Digest {
        let layout = self.path("expected");
        let _ = fs::remove_dir_all(&layout);
        self.pack(PackOptions { digest_cache: None, ..self.options() }, "expected").0.digest
    }

    pub fn recipes(&self) -> Vec<PathBuf> {
        fs::read_dir(self.cache.directory()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    /// Runs the command with the cache.
    pub fn starcar(&self, arguments: &[&str]) -> Run {
        starcar_in(self.cache.directory().as_os_str(), arguments)
    }
}

/// Lets the clock of the file system go on.
pub fn settle() {
    std::thread::sleep(Duration::from_millis(50));
}

/// Writes to a file and puts its time back, as nobody should.
pub fn edit_secretly(path: &Path) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(b"edited", SHARD as u64 - 10).unwrap();
    file.set_modified(modified).unwrap();
}
