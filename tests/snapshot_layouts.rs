//! Every layout in which a snapshot lies on disk, and every damage that has to be refused before packing.
//!
//! The layouts are built here as `huggingface_hub` 2.4 writes them (see the sources named in
//! `src/snapshot/`), in temporary directories and without its help.
#![expect(clippy::unwrap_used, reason = "the helpers are test code outside #[test] functions")]

use std::{
    ffi::OsString,
    fs,
    os::unix::{
        ffi::OsStringExt,
        fs::{PermissionsExt, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use sha1::{Digest as _, Sha1};
use starcar::{
    digest::Digest,
    snapshot::{
        ExpectedDigest, ExpectedOrigin, LeftOutReason, Snapshot, SnapshotError, SnapshotOptions, Warning,
        WeightFormat, open, open_with,
    },
};
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const OTHER_COMMIT: &str = "0123456fedcba9876543210fedcba9876543210f";

/// A hub cache with one repository, `org/name`.
struct Cache {
    directory: TempDir,
}

impl Cache {
    fn new() -> Self {
        let cache = Self { directory: TempDir::new().unwrap() };
        write(&cache.repository().join("refs/main"), COMMIT.as_bytes());
        cache
    }

    /// Without symlinks, as results are.
    fn path(&self) -> PathBuf {
        fs::canonicalize(self.directory.path()).unwrap()
    }

    fn repository(&self) -> PathBuf {
        self.path().join("models--org--name")
    }

    fn snapshot(&self) -> PathBuf {
        self.repository().join("snapshots").join(COMMIT)
    }

    /// Adds a file of the snapshot as a small one (git etag); gives its blob.
    fn add(&self, path: &str, content: &[u8]) -> PathBuf {
        let blob = self.repository().join("blobs").join(hex::encode(git_id(content)));
        write(&blob, content);
        self.link(path, &blob);
        blob
    }

    /// Adds a file as one in LFS (SHA-256 etag); gives its blob.
    fn add_large(&self, path: &str, content: &[u8]) -> PathBuf {
        let blob = self.repository().join("blobs").join(Digest::of(content).hex());
        write(&blob, content);
        self.link(path, &blob);
        blob
    }

    fn link(&self, path: &str, blob: &Path) {
        let up = "../".repeat(path.split('/').count() + 1);
        let link = self.snapshot().join(path);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(format!("{up}blobs/{}", blob.file_name().unwrap().to_str().unwrap()), link).unwrap();
    }

    fn write_tree(&self, files: &str) {
        let tree = format!(r#"{{"format_version":1,"files":{{{files}}}}}"#);
        write(&self.repository().join("trees").join(format!("{COMMIT}.json")), tree.as_bytes());
    }

    fn open(&self) -> Result<Snapshot, SnapshotError> {
        open_path(&self.repository())
    }
}

fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn git_id(content: &[u8]) -> [u8; 20] {
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {}\0", content.len()));
    hasher.update(content);
    hasher.finalize().into()
}

/// A whole safetensors file with one tensor of `length` bytes.
fn safetensors(length: usize) -> Vec<u8> {
    let header = format!(r#"{{"w":{{"dtype":"U8","shape":[{length}],"data_offsets":[0,{length}]}}}}"#);
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + length, 1);
    bytes
}

fn open_path(path: &Path) -> Result<Snapshot, SnapshotError> {
    open(path.to_str().unwrap(), &SnapshotOptions::default())
}

fn open_at(path: &Path, revision: &str) -> Result<Snapshot, SnapshotError> {
    let options = SnapshotOptions { revision: Some(revision.to_owned()), ..Default::default() };
    open(path.to_str().unwrap(), &options)
}

fn open_filtered(path: &Path, include: &[&str], exclude: &[&str]) -> Result<Snapshot, SnapshotError> {
    let owned = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect();
    let options = SnapshotOptions { include: owned(include), exclude: owned(exclude), ..Default::default() };
    open(path.to_str().unwrap(), &options)
}

fn names(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.files.iter().map(|file| file.path.as_str()).collect()
}

fn plain(files: &[(&str, &[u8])]) -> TempDir {
    let directory = TempDir::new().unwrap();
    for (path, content) in files {
        write(&directory.path().join(path), content);
    }
    directory
}

/// The error's text, after a check that it says what can be done.
fn refusal(result: Result<Snapshot, SnapshotError>) -> String {
    let text = result.unwrap_err().to_string();
    assert!(text.contains("; ") && !text.contains('\n'), "{text}");
    text
}

// Layouts

#[test]
fn a_hub_cache_is_followed_to_its_blobs() {
    let cache = Cache::new();
    let config = cache.add("config.json", b"{}");
    let weights = cache.add_large("unet/model.safetensors", &safetensors(5));
    fs::set_permissions(&config, fs::Permissions::from_mode(0o755)).unwrap();

    let snapshot = cache.open().unwrap();
    assert_eq!(snapshot.root, cache.snapshot());
    assert_eq!(snapshot.repository.as_deref(), Some("org/name"));
    assert_eq!(snapshot.revision.as_deref(), Some(COMMIT));
    assert_eq!(names(&snapshot), ["config.json", "unet/model.safetensors"]);
    assert!(snapshot.warnings.is_empty() && snapshot.left_out.is_empty());

    let [first, second] = snapshot.files.as_slice() else { unreachable!() };
    assert_eq!((&first.source, first.executable, first.weight_format), (&config, true, None));
    assert_eq!(first.expected[0].digest, ExpectedDigest::GitSha1(git_id(b"{}")));
    assert_eq!(first.expected[0].origin, ExpectedOrigin::BlobName(config));
    assert_eq!((&second.source, second.executable), (&weights, false));
    assert_eq!(second.weight_format, Some(WeightFormat::Safetensors));
    assert_eq!(second.expected[0].digest, ExpectedDigest::Sha256(Digest::of(&safetensors(5))));
    assert_eq!(second.stamp.size, safetensors(5).len() as u64);
}

#[test]
fn shared_blobs_are_followed_over_two_hops() {
    let cache = Cache::new();
    let blob = cache.add_large("model.safetensors", &safetensors(3));
    let xet = "ab".repeat(32);
    let shared = cache.path().join("blobs/ab").join(&xet);
    write(&cache.path().join("blobs/.huggingface-shared-blobs"), b"1\n");
    fs::create_dir_all(shared.parent().unwrap()).unwrap();
    fs::rename(&blob, &shared).unwrap();
    symlink(format!("../../blobs/ab/{xet}"), &blob).unwrap();

    let snapshot = cache.open().unwrap();
    assert_eq!(snapshot.files[0].source, shared);
    // The first hop is named by the content, the second one by a Xet hash.
    let expected = &snapshot.files[0].expected;
    assert_eq!(expected.len(), 1);
    assert_eq!(expected[0].digest, ExpectedDigest::Sha256(Digest::of(&safetensors(3))));
    assert_eq!(expected[0].origin, ExpectedOrigin::BlobName(blob));
}

#[test]
fn a_cache_without_symlinks_is_read() {
    let cache = Cache::new();
    write(&cache.snapshot().join("config.json"), b"{}");
    let snapshot = cache.open().unwrap();
    assert_eq!(names(&snapshot), ["config.json"]);
    assert!(snapshot.files[0].expected.is_empty());
}

#[test]
fn a_snapshot_directory_is_accepted_and_its_parts_are_explained() {
    let cache = Cache::new();
    cache.add("unet/config.json", b"{}");
    let snapshot = open_path(&cache.snapshot()).unwrap();
    assert_eq!(
        (snapshot.repository.as_deref(), snapshot.revision.as_deref()),
        (Some("org/name"), Some(COMMIT))
    );
    assert!(open_at(&cache.snapshot(), "main").is_ok());
    assert!(open_at(&cache.snapshot(), &COMMIT[..7]).is_ok());
    assert!(matches!(open_at(&cache.snapshot(), "v2"), Err(SnapshotError::OtherRevision { .. })));
    assert!(matches!(open_at(&cache.snapshot(), OTHER_COMMIT), Err(SnapshotError::OtherRevision { .. })));
    let text = refusal(open_path(&cache.snapshot().join("unet")));
    assert!(text.contains("--include 'unet/'"), "{text}");
}

#[test]
fn revisions_are_refs_or_commits() {
    let cache = Cache::new();
    cache.add("config.json", b"{}");
    let repository = cache.repository();
    write(&repository.join("snapshots").join(OTHER_COMMIT).join("other.json"), b"{}");
    write(&repository.join("refs/refs/pr/1"), OTHER_COMMIT.as_bytes());
    write(&repository.join("refs/v1.0"), format!("{OTHER_COMMIT}\n").as_bytes());
    write(&repository.join("refs/gone"), "f".repeat(40).as_bytes());
    write(&repository.join("refs/broken"), b"\xff../..");

    let revision = |asked: &str| open_at(&repository, asked).map(|snapshot| snapshot.revision.unwrap());
    assert_eq!(cache.open().unwrap().revision.unwrap(), COMMIT);
    for asked in ["refs/pr/1", "v1.0", OTHER_COMMIT, "0123456f", "0123456FEDC"] {
        assert_eq!(revision(asked).unwrap(), OTHER_COMMIT, "{asked}");
    }
    assert!(matches!(revision("0123456"), Err(SnapshotError::AmbiguousRevision { .. })));
    for asked in ["012345", "gone", "nothing", "refs/pr/2"] {
        assert!(matches!(revision(asked), Err(SnapshotError::NoSuchRevision { .. })), "{asked}");
    }
    assert!(matches!(revision("broken"), Err(SnapshotError::MalformedRef { .. })));
    assert!(matches!(revision("../snapshots"), Err(SnapshotError::InvalidRevision { .. })));
    let text = refusal(open_at(&repository, "v2"));
    assert!(text.contains("hf download org/name --revision v2"), "{text}");

    // Downloaded by commit only: with several snapshots nothing tells which is meant.
    fs::remove_file(repository.join("refs/main")).unwrap();
    assert!(matches!(cache.open(), Err(SnapshotError::NoSuchRevision { .. })));
    fs::remove_dir_all(repository.join("snapshots").join(OTHER_COMMIT)).unwrap();
    assert_eq!(cache.open().unwrap().revision.unwrap(), COMMIT);
}

#[test]
fn a_repository_is_looked_up_in_the_cache() {
    let cache = Cache::new();
    cache.add("config.json", b"{}");
    let hub = cache.path();
    let options = SnapshotOptions::default();
    let look_up = |argument: &str, variable: &str, value: &Path| {
        open_with(argument, &options, &|name| (name == variable).then(|| OsString::from(value)))
    };
    assert_eq!(look_up("org/name", "HF_HUB_CACHE", &hub).unwrap().root, cache.snapshot());

    let home = TempDir::new().unwrap();
    for (variable, below) in
        [("HF_HOME", "hub"), ("XDG_CACHE_HOME", "huggingface/hub"), ("HOME", ".cache/huggingface/hub")]
    {
        let link = home.path().join(variable).join(below);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(&hub, &link).unwrap();
        let found = look_up("org/name", variable, &home.path().join(variable)).unwrap();
        assert_eq!(found.root, cache.snapshot(), "{variable}");
    }

    let text = refusal(look_up("gpt2", "HF_HUB_CACHE", &hub));
    assert!(text.contains(hub.to_str().unwrap()) && text.contains("hf download gpt2"), "{text}");
    assert!(matches!(look_up("gpt2", "NONE", &hub), Err(SnapshotError::NoCacheDirectory { .. })));
    assert!(matches!(look_up("./gpt2", "HF_HUB_CACHE", &hub), Err(SnapshotError::NoSuchPath { .. })));
}

#[test]
fn arguments_that_are_no_model_are_explained() {
    let cache = Cache::new();
    let file = cache.add("config.json", b"{}");
    assert!(matches!(open_path(&file), Err(SnapshotError::NotADirectory { .. })));
    let text = refusal(open_path(&cache.path()));
    assert!(text.contains("`models--org--name`"), "{text}");
    let text = refusal(open_path(&cache.repository().join("blobs")));
    assert!(text.contains("pass the repository"), "{text}");
    assert!(open_path(&cache.repository().join("snapshots")).is_ok());

    fs::rename(cache.repository(), cache.path().join("datasets--org--name")).unwrap();
    for below in ["", "snapshots/0123456789abcdef0123456789abcdef01234567"] {
        let text = refusal(open_path(&cache.path().join("datasets--org--name").join(below)));
        assert!(text.contains("data set"), "{text}");
    }
}

/// A `--local-dir` download of `files`, recorded at `recorded`.
fn local_dir(files: &[(&str, &[u8], &str)], recorded: SystemTime) -> TempDir {
    let directory = TempDir::new().unwrap();
    let seconds = recorded.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    for (path, content, commit) in files {
        write(&directory.path().join(path), content);
        let record = format!("{commit}\n{}\n{seconds}\n", Digest::of(content).hex());
        let place = format!(".cache/huggingface/download/{path}.metadata");
        write(&directory.path().join(place), record.as_bytes());
    }
    directory
}

#[test]
fn a_local_directory_tells_its_revision_and_digests() {
    let files: [(&str, &[u8], &str); 2] = [("config.json", b"{}", COMMIT), ("a/b.txt", b"text", COMMIT)];
    let directory = local_dir(&files, SystemTime::now());
    write(&directory.path().join("own.txt"), b"added");
    let snapshot = open_path(directory.path()).unwrap();
    assert_eq!(names(&snapshot), ["a/b.txt", "config.json", "own.txt"]);
    assert_eq!(snapshot.revision.as_deref(), Some(COMMIT));
    assert_eq!(snapshot.repository, None);
    assert_eq!(snapshot.files[1].expected[0].digest, ExpectedDigest::Sha256(Digest::of(b"{}")));
    assert!(snapshot.files[1].expected[0].origin.to_string().contains("download/config.json.metadata"));
    assert!(snapshot.files[2].expected.is_empty());
    assert_eq!(snapshot.left_out[0].path, ".cache/");
    assert!(snapshot.warnings.is_empty(), "{:?}", snapshot.warnings);
    assert!(open_at(directory.path(), &COMMIT[..10]).is_ok());
    assert!(matches!(open_at(directory.path(), "main"), Err(SnapshotError::OtherRevision { .. })));
}

#[test]
fn an_edited_local_file_is_not_compared() {
    let an_hour_ago = SystemTime::now() - Duration::from_hours(1);
    let directory = local_dir(&[("config.json", b"{}", COMMIT)], an_hour_ago);
    let tree =
        format!(r#"{{"format_version":1,"files":{{"config.json":{{"size":99,"blob_id":"{COMMIT}"}}}}}}"#);
    let place = format!(".cache/huggingface/trees/{COMMIT}.json");
    write(&directory.path().join(place), tree.as_bytes());
    let snapshot = open_path(directory.path()).unwrap();
    assert!(snapshot.files[0].expected.is_empty());
    assert_eq!(snapshot.warnings, [Warning::ChangedAfterDownload { path: "config.json".to_owned() }]);
}

#[test]
fn local_records_that_disagree_or_are_broken_are_warned_of() {
    let files: [(&str, &[u8], &str); 2] = [("a", b"1", COMMIT), ("b", b"2", OTHER_COMMIT)];
    let directory = local_dir(&files, SystemTime::now());
    let snapshot = open_path(directory.path()).unwrap();
    assert_eq!(snapshot.revision, None);
    assert!(matches!(snapshot.warnings.as_slice(), [Warning::SeveralRevisions { .. }]));

    let record = directory.path().join(".cache/huggingface/download/b.metadata");
    fs::write(record, b"nonsense").unwrap();
    let snapshot = open_path(directory.path()).unwrap();
    assert_eq!(snapshot.revision.as_deref(), Some(COMMIT));
    assert!(matches!(snapshot.warnings.as_slice(), [Warning::UnusableMetadata { .. }]));
}

#[test]
fn a_plain_directory_is_packed_in_bytewise_order() {
    let files: Vec<(&str, &[u8])> =
        vec![("b", b"1"), ("a/x", b"2"), ("a.txt", b"3"), ("B", b"4"), ("é", b"5")];
    let directory = plain(&files);
    let snapshot = open_path(directory.path()).unwrap();
    assert_eq!(names(&snapshot), ["B", "a.txt", "a/x", "b", "é"]);
    assert_eq!((snapshot.repository, snapshot.revision), (None, None));
    assert!(matches!(open_at(directory.path(), "main"), Err(SnapshotError::OtherRevision { .. })));
}

#[test]
fn formats_are_told_by_content() {
    let gguf = b"GGUF\x03\0\0\0";
    let tensors = safetensors(2);
    let directory = plain(&[
        ("a.gguf", gguf),
        ("b.dat", gguf),
        ("c.dat", &tensors),
        ("d.dat", &tensors[1..]),
        ("e.gguf", b""),
    ]);
    let formats: Vec<_> =
        open_path(directory.path()).unwrap().files.iter().map(|file| file.weight_format).collect();
    let (gguf, tensors) = (Some(WeightFormat::Gguf), Some(WeightFormat::Safetensors));
    assert_eq!(formats, [gguf, gguf, tensors, None, None]);
}

// Filters

#[test]
fn what_is_left_out_is_said() {
    let weights = safetensors(1);
    let directory = plain(&[
        ("model.safetensors", &weights),
        ("pytorch_model.bin", b"12345"),
        ("original/a.pth", b"123"),
        ("original/b/c", b"4567"),
        (".git/config", b""),
        ("README.md", b"#"),
    ]);
    let snapshot = open_filtered(directory.path(), &[], &["*.md", "*.txt"]).unwrap();
    assert_eq!(names(&snapshot), ["model.safetensors"]);
    let left_out: Vec<_> =
        snapshot.left_out.iter().map(|left_out| (left_out.path.as_str(), left_out.size)).collect();
    let expected =
        [(".git/", None), ("README.md", Some(1)), ("original/", Some(7)), ("pytorch_model.bin", Some(5))];
    assert_eq!(left_out, expected);
    assert_eq!(snapshot.left_out[1].to_string(), "README.md (1 bytes): --exclude '*.md'");
    assert!(matches!(snapshot.left_out[3].reason, LeftOutReason::Duplicate { .. }));
    let unused = Warning::UnusedGlob { option: "--exclude", glob: "*.txt".to_owned() };
    assert_eq!(snapshot.warnings, [unused]);
}

#[test]
fn an_index_goes_with_its_weights() {
    let weights = safetensors(1);
    let torch_index = br#"{"weight_map":{"w":"pytorch_model-00001-of-00001.bin"}}"#;
    // Downloaded with `--include '*.json' '*.safetensors'`: the index is there, its shards are not.
    let directory = plain(&[("model.safetensors", &weights), ("pytorch_model.bin.index.json", torch_index)]);
    assert_eq!(names(&open_path(directory.path()).unwrap()), ["model.safetensors"]);

    // An index whose name does not tell that its shards are copies.
    let index = br#"{"weight_map":{"w":"original/w.bin"}}"#;
    let directory =
        plain(&[("model.safetensors", &weights), ("x.bin.index.json", index), ("original/w.bin", b"1")]);
    let snapshot = open_path(directory.path()).unwrap();
    assert_eq!(names(&snapshot), ["model.safetensors"]);
    assert_eq!(snapshot.left_out.len(), 2);
}

// Damage

#[test]
fn links_that_lead_astray_are_refused_unless_left_out() {
    let outside = plain(&[("secret", b"x"), ("sub/secret", b"x")]);
    let directory = plain(&[("config.json", b"{}"), ("sub/x", b"1")]);
    let root = directory.path();
    symlink("sub", root.join("same")).unwrap();
    symlink("config.json", root.join("copy.json")).unwrap();
    let snapshot = open_path(root).unwrap();
    assert_eq!(names(&snapshot), ["config.json", "copy.json", "same/x", "sub/x"]);
    assert_eq!(snapshot.files[0].source, snapshot.files[1].source);

    let bad = root.join("sub/bad");
    for (target, expected) in [
        (outside.path().join("secret"), "outside"),
        (outside.path().join("sub"), "outside"),
        ("/dev/null".into(), "outside"),
        ("nothing".into(), "does not exist"),
        ("../config.json/x".into(), "does not exist"),
        ("bad".into(), "circle"),
        ("..".into(), "circle"),
    ] {
        symlink(&target, &bad).unwrap();
        let text = refusal(open_path(root));
        assert!(text.contains("bad`") && text.contains(expected), "{text}");
        open_filtered(root, &[], &["*bad"]).unwrap();
        fs::remove_file(&bad).unwrap();
    }
}

#[test]
fn links_inside_a_cache_may_not_leave_their_repository() {
    let cache = Cache::new();
    cache.add("config.json", b"{}");
    write(&cache.path().join("models--org--private/blobs/x"), b"secret");
    symlink("../../../models--org--private/blobs/x", cache.snapshot().join("stolen")).unwrap();
    assert!(matches!(cache.open(), Err(SnapshotError::LinkEscapes { .. })));
}

#[test]
fn a_blob_that_is_gone_is_refused() {
    let cache = Cache::new();
    cache.add("config.json", b"{}");
    let blob = cache.add_large("model.safetensors", &safetensors(1));
    fs::rename(&blob, blob.with_extension("incomplete")).unwrap();
    let text = refusal(cache.open());
    assert!(text.contains("model.safetensors") && text.contains("download"), "{text}");
}

#[test]
fn names_that_an_image_cannot_carry_are_refused() {
    for (name, expected) in [(&b"a\xffb"[..], "a\u{fffd}b"), (b"a\nb", "a\\nb"), (b"a\x1b[1m", "a\\u{1b}[1m")]
    {
        let directory = plain(&[("config.json", b"{}")]);
        let path = directory.path().join(OsString::from_vec(name.to_vec()));
        write(&path, b"");
        let text = refusal(open_path(directory.path()));
        assert!(text.contains(expected), "{text}");
        open_filtered(directory.path(), &["config.json"], &[]).unwrap();
    }
}

#[test]
fn special_files_are_refused() {
    let directory = plain(&[("config.json", b"{}")]);
    let _listener = UnixListener::bind(directory.path().join("s")).unwrap();
    let text = refusal(open_path(directory.path()));
    assert!(text.contains("is a socket"), "{text}");
}

#[test]
fn an_empty_snapshot_says_what_was_left_out() {
    let directory = plain(&[(".gitattributes", b"")]);
    let text = refusal(open_path(directory.path()));
    assert!(text.contains(".gitattributes"), "{text}");
    assert!(matches!(open_path(TempDir::new().unwrap().path()), Err(SnapshotError::Empty { .. })));
}

#[test]
fn cut_weights_and_pointers_are_refused() {
    let weights = safetensors(100);
    let directory = plain(&[("model.safetensors", &weights[..weights.len() - 1])]);
    let text = refusal(open_path(directory.path()));
    assert!(text.contains("model.safetensors") && text.contains("the file ends after"), "{text}");

    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
    let directory = plain(&[("pytorch_model.bin", pointer)]);
    let text = refusal(open_path(directory.path()));
    assert!(text.contains("git lfs pull"), "{text}");
}

const INDEX: &[u8] =
    br#"{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}"#;

#[test]
fn a_missing_shard_is_refused() {
    let weights = safetensors(1);
    let (first, second) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
    // Told by the index, and without one by the other shard's name.
    for files in [
        &[("m/model.safetensors.index.json", INDEX), ("m/model-00001-of-00002.safetensors", &weights)][..],
        &[("m/model-00001-of-00002.safetensors", &weights)],
    ] {
        let directory = plain(files);
        let text = refusal(open_path(directory.path()));
        assert!(text.contains("`m/model-00002-of-00002.safetensors`"), "{text}");
        write(&directory.path().join("m").join(second), &weights);
        open_path(directory.path()).unwrap();
    }

    let directory = plain(&[("model.safetensors.index.json", INDEX), (first, &weights), (second, &weights)]);
    let text = refusal(open_filtered(directory.path(), &[], &["*-00002-*"]));
    assert!(text.contains("--exclude '*-00002-*'"), "{text}");
    let text = refusal(open_filtered(directory.path(), &["*.json"], &[]));
    assert!(text.contains("no --include names it"), "{text}");

    fs::write(directory.path().join("model.safetensors.index.json"), b"{").unwrap();
    assert!(matches!(open_path(directory.path()), Err(SnapshotError::MalformedIndex { .. })));
}

// The repository's listing

fn entry(path: &str, size: usize, etag: &str) -> String {
    let git = "1".repeat(40);
    match etag.len() {
        64 => {
            format!(r#""{path}":{{"size":{size},"blob_id":"{git}","lfs_sha256":"{etag}","lfs_size":{size}}}"#)
        }
        _ => format!(r#""{path}":{{"size":{size},"blob_id":"{etag}"}}"#),
    }
}

#[test]
fn a_listing_adds_digests_and_sizes() {
    let cache = Cache::new();
    cache.add("config.json", b"{}");
    write(&cache.snapshot().join("copied.txt"), b"text");
    let files = [
        entry("config.json", 2, &hex::encode(git_id(b"{}"))),
        entry("copied.txt", 4, &Digest::of(b"text").hex()),
        entry(".gitattributes", 9, &"0".repeat(40)),
    ];
    cache.write_tree(&files.join(","));
    let snapshot = cache.open().unwrap();
    assert!(snapshot.warnings.is_empty(), "{:?}", snapshot.warnings);
    // The blob's name said the same already.
    assert_eq!(snapshot.files[0].expected.len(), 1);
    let expected = &snapshot.files[1].expected[0];
    assert_eq!(expected.digest, ExpectedDigest::Sha256(Digest::of(b"text")));
    assert!(expected.origin.to_string().ends_with(&format!("trees/{COMMIT}.json`")));

    cache.write_tree(&entry("config.json", 3, &"0".repeat(40)));
    let text = refusal(cache.open());
    assert!(text.contains("config.json` has 2 bytes") && text.contains("lists 3"), "{text}");

    for broken in ["x", r#""a":{"size":1,"blob_id":7}"#] {
        cache.write_tree(broken);
        assert!(matches!(cache.open().unwrap().warnings.as_slice(), [Warning::UnusableTree { .. }]));
    }
}

#[test]
fn a_partial_download_is_warned_of_and_missing_weights_are_refused() {
    let cache = Cache::new();
    cache.add("config.json", b"{}");
    let zero = "0".repeat(64);
    let weights = entry("model.safetensors", 99, &zero);
    cache.write_tree(&weights);
    let text = refusal(cache.open());
    assert!(text.contains("`model.safetensors`") && text.contains("hf download org/name"), "{text}");
    // Who leaves them out on purpose may.
    assert_eq!(names(&open_filtered(&cache.repository(), &["*.json"], &[]).unwrap()), ["config.json"]);

    let content = safetensors(1);
    let here = entry("model.safetensors", content.len(), &Digest::of(&content).hex());
    cache.add_large("model.safetensors", &content);
    let copies = entry("pytorch_model.bin", 5, &zero);
    cache.write_tree(&[here.clone(), copies.clone()].join(","));
    assert!(cache.open().unwrap().warnings.is_empty());

    let parts = [entry("README.md", 5, &zero), entry("fp8/model.safetensors", 5, &zero)];
    cache.write_tree(&[here, copies, parts.join(",")].join(","));
    let warnings = cache.open().unwrap().warnings;
    let [Warning::Incomplete { missing, .. }] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert_eq!(missing, &["README.md", "fp8/model.safetensors"]);

    // A part of a pipeline that has its configuration needs its weights.
    cache.add("fp8/config.json", b"{}");
    assert!(matches!(cache.open(), Err(SnapshotError::MissingWeights { .. })));
}

#[test]
fn numbered_names_are_no_series_where_the_listing_has_no_others() {
    let cache = Cache::new();
    let content = safetensors(1);
    cache.add_large("data-00001-of-00002.safetensors", &content);
    assert!(matches!(cache.open(), Err(SnapshotError::MissingShards { .. })));
    cache.write_tree(&entry("data-00001-of-00002.safetensors", content.len(), &Digest::of(&content).hex()));
    cache.open().unwrap();
}
