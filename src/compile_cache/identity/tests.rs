//! Whole caches: synthetic ones, hostile ones, and pieces of real ones.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{
    blob::FileStamp,
    compile_cache::{CacheFile, Kind},
};

/// The cache in a directory.
fn tree(root: &Path, kind: Kind) -> CacheTree {
    let mut files: Vec<CacheFile> = walkdir::WalkDir::new(root)
        .into_iter()
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| CacheFile {
            path: entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned(),
            source: entry.path().to_owned(),
            stamp: FileStamp::of(&entry.metadata().unwrap()),
            executable: false,
        })
        .collect();
    files.sort_by(|one, other| one.path.cmp(&other.path));
    CacheTree {
        kind,
        name: kind.name().to_owned(),
        origin: root.to_owned(),
        inner: String::new(),
        files,
        directories: Vec::new(),
        left_out: Vec::new(),
    }
}

fn cache(files: &[(&str, &[u8])]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    root
}

fn identified(kind: Kind, files: &[(&str, &[u8])]) -> Identity {
    identify(&tree(cache(files).path(), kind)).unwrap()
}

fn values(identity: &Identity, attribute: Attribute) -> Vec<&str> {
    identity.facts(attribute).iter().map(|fact| fact.value.as_str()).collect()
}

/// One line for each value: attribute, value, and where it was found first.
fn shown(identity: &Identity) -> String {
    let mut lines = Vec::new();
    for (attribute, facts) in identity.iter() {
        for fact in facts {
            let first = &fact.evidence[0];
            let place = first.offset.map(|offset| format!("@{offset}")).unwrap_or_default();
            let name = first.path.rsplit('/').next().unwrap();
            let found: String = first.found.chars().take(60).collect();
            lines.push(format!("{attribute:?} = {} <- {name}{place}: {found}", fact.value));
        }
    }
    lines.join("\n")
}

const HASH: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const TRITON_HASH: &str = "PJQLVBDXNEI6NYY67QZOIDWNEOUTUIVUBV7YGYH5DKVS5OE5M67Q";

#[test]
fn a_real_cache_for_a_gpu_is_identified() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/compile_cache/vllm-legacy");
    insta::assert_snapshot!(shown(&identify(&tree(&root, Kind::Vllm)).unwrap()), @r#"
    Backend = cuda <- artifact_compile_range_1_2048_subgraph_0@507: DeviceProperties(type='cuda', index=0, multi_processor_count
    Architecture = sm_75 <- artifact_compile_range_1_2048_subgraph_0@507: DeviceProperties(type='cuda', index=0, multi_processor_count
    GpuName = Tesla T4 <- artifact_compile_range_1_2048_subgraph_0@1344: system_info[device]: {'name': 'Tesla T4'}
    Multiprocessors = 40 <- artifact_compile_range_1_2048_subgraph_0@507: DeviceProperties(type='cuda', index=0, multi_processor_count
    WarpSize = 32 <- artifact_compile_range_1_2048_subgraph_0@507: DeviceProperties(type='cuda', index=0, multi_processor_count
    Ptx = 8.7 <- artifact_compile_range_1_2048_subgraph_0@3448: .version 8.7 .target sm_75
    Cuda = 12.8 <- artifact_compile_range_1_2048_subgraph_0@939: # torch cuda version: 12.8
    Python = 3.12 <- artifact_compile_range_1_2048_subgraph_0@1148: /lib64/python3.12/site-packages/
    Torch = 2.9.1+cu128 <- artifact_compile_range_1_2048_subgraph_0@910: # torch version: 2.9.1+cu128
    Triton = 3.5.1 <- artifact_compile_range_1_2048_subgraph_0@1445: system_info[version]: {'triton': '3.5.10355c3e3452fa45001222
    Engine = vllm <- artifact_compile_range_1_2048_subgraph_0: torch_compile_cache/edf531ca35
    Rank = 0_0 <- artifact_compile_range_1_2048_subgraph_0: rank_0_0
    DeviceIndex = 0 <- artifact_compile_range_1_2048_subgraph_0@507: DeviceProperties(type='cuda', index=0, multi_processor_count
    Key = edf531ca35 <- artifact_compile_range_1_2048_subgraph_0: torch_compile_cache/edf531ca35
    KeyFactor = config_hash=2a3882727d <- cache_key_factors.json: "config_hash": "2a3882727d"
    KeyFactor = code_hash=a3c720792414def9dfa3a2ba0b049fc5dfcc636f897c63bebbbbd378f1cba6a5 <- cache_key_factors.json: "code_hash": "a3c720792414def9dfa3a2ba0b049fc5dfcc636f897c63
    KeyFactor = compiler_hash=4fc2f2ae9e <- cache_key_factors.json: "compiler_hash": "4fc2f2ae9e"
    KeyFactor = VLLM_TARGET_DEVICE=cuda <- cache_key_factors.json: env: VLLM_TARGET_DEVICE = cuda
    KeyFactor = VLLM_MAIN_CUDA_VERSION=12.9 <- cache_key_factors.json: env: VLLM_MAIN_CUDA_VERSION = 12.9
    KeyFactor = VLLM_USE_AOT_COMPILE=false <- cache_key_factors.json: env: VLLM_USE_AOT_COMPILE = false
    KeyFactor = VLLM_USE_MEGA_AOT_ARTIFACT=false <- cache_key_factors.json: env: VLLM_USE_MEGA_AOT_ARTIFACT = false
    KeyFactor = VLLM_USE_STANDALONE_COMPILE=true <- cache_key_factors.json: env: VLLM_USE_STANDALONE_COMPILE = true
    KeyFactor = VLLM_COMPILE_CACHE_SAVE_FORMAT=binary <- cache_key_factors.json: env: VLLM_COMPILE_CACHE_SAVE_FORMAT = binary
    KeyFactor = VLLM_DP_SIZE=1 <- cache_key_factors.json: env: VLLM_DP_SIZE = 1
    Format = binary <- artifact_compile_range_1_2048_subgraph_0: artifact_compile_range_1_2048_subgraph_0
    "#);
}

#[test]
fn a_real_aot_package_is_identified() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/compile_cache/aot");
    let identity = identify(&tree(&root, Kind::Vllm)).unwrap();
    insta::assert_snapshot!(shown(&identity), @r#"
    Backend = cpu <- model@5829: async_compile.cpp_pybinding(['
    Python = 3.11.7 <- model@15131: SystemInfo.python_version = '3.11.7'
    Torch = 2.14.1+cu130 <- model@15195: SystemInfo.torch_version = '2.14.1+cu130'
    Triton = 3.8 <- model@15250: SystemInfo.triton_version = '3.8'
    Engine = vllm <- model: torch_compile_cache/torch_aot_compile/0123456789abcdef012345
    Rank = 0_0 <- model: rank_0_0
    Key = 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef <- model: torch_compile_cache/torch_aot_compile/0123456789abcdef012345
    Format = aot <- model: rank_0_0/model
    "#);

    // torch 2.15 writes its magic before the pickle.
    let path = format!("torch_compile_cache/torch_aot_compile/{HASH}/rank_0_0/model");
    let model = fs::read(root.join(&path)).unwrap();
    let with_magic = [b"PT2AOT\x01", &model[..]].concat();
    let newer = identified(Kind::Vllm, &[(&path, &with_magic)]);
    for (attribute, facts) in identity.iter() {
        let found: Vec<&str> = facts.iter().map(|fact| fact.value.as_str()).collect();
        assert_eq!(values(&newer, attribute), found);
    }
    let offset = |identity: &Identity| identity.facts(Attribute::Torch)[0].evidence[0].offset.unwrap();
    assert_eq!(offset(&newer), offset(&identity) + 7);

    // Wherever it is cut off, what is left is read and nothing else is said.
    for length in (0..with_magic.len()).step_by(509) {
        let cut = identified(Kind::Vllm, &[(&path, &with_magic[..length])]);
        for (attribute, facts) in cut.iter() {
            let whole = values(&identity, attribute);
            assert!(facts.iter().all(|fact| whole.contains(&fact.value.as_str())), "{length}: {attribute:?}");
        }
    }
}

#[test]
fn an_object_within_another_file_is_read_from_where_it_begins() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/compile_cache/aot");
    let model = fs::read(tree(&root, Kind::Vllm).files[0].source.clone()).unwrap();
    let nested = [&b"\x12\x34\x56\x78\0\0\0\0\0\0\0\x01"[..], &model].concat();
    let identity = identified(Kind::Artifacts, &[("artifacts", &nested)]);
    assert_eq!(identity.only(Attribute::Torch), Some("2.14.1+cu130"));
    assert_eq!(identity.only(Attribute::Python), Some("3.11.7"));
}

#[test]
fn names_tell_layout_ranks_and_keys() {
    let legacy = "torch_compile_cache/edf531ca35/rank_1_0/backbone";
    let identity = identified(
        Kind::Vllm,
        &[
            (&format!("{legacy}/artifact_compile_range_1_2048_subgraph_0"), b""),
            (&format!("{legacy}/artifact_compile_range_1_2048_subgraph_1/ab/cab.py"), b""),
            ("torch_compile_cache/edf531ca35/rank_0_1/eagle_head/computation_graph.py", b""),
            (&format!("torch_compile_cache/torch_aot_compile/{HASH}/rank_0_0/model"), b""),
            (
                &format!(
                    "torch_compile_cache/torch_aot_compile/{HASH}/inductor_cache/triton/1/{TRITON_HASH}/k.json"
                ),
                b"",
            ),
            ("torch_compile_cache/not a key/rank_7_7/x", b""),
            ("torch_compile_cache/0123456789/rank_x/y", b""),
            ("flashinfer_autotune_cache/0.7.2/90a/0123/autotune_configs.json", b""),
        ],
    );
    assert_eq!(values(&identity, Attribute::Key), ["0123456789", "edf531ca35", HASH]);
    assert_eq!(values(&identity, Attribute::Rank), ["0_1", "1_0", "0_0"]);
    assert_eq!(values(&identity, Attribute::Format), ["binary", "unpacked", "aot"]);
    assert_eq!(identity.only(Attribute::DeviceIndex), Some("1"));
    assert_eq!(identity.only(Attribute::Engine), Some("vllm"));
    assert_eq!(identity.only(Attribute::FlashInfer), Some("0.7.2"));
    assert_eq!(identity.only(Attribute::Architecture), Some("sm_90a"));
    // The ranks do not tell how many there are, nor of which kind.
    assert_eq!(values(&identity, Attribute::TensorParallel), [""; 0]);
    assert_eq!(values(&identity, Attribute::DataParallel), [""; 0]);
}

#[test]
fn flashinfer_names_its_architectures_and_its_code_more() {
    let code = b".version 8.7\n.target sm_120\n";
    let identity = identified(
        Kind::FlashInfer,
        &[
            (".cache/flashinfer/0.7.2/75_80_90a/cached_ops/page/page.so", code),
            (
                ".cache/flashinfer/0.7.2/75_80_90a/cached_ops/page/build.ninja",
                b"-isystem /opt/lib/python3.12/site-packages/torch/include",
            ),
            (".cache/flashinfer/cubins/x.cubin", code),
        ],
    );
    assert_eq!(values(&identity, Attribute::Architecture), ["sm_75", "sm_80", "sm_90a"]);
    assert_eq!(identity.only(Attribute::Backend), Some("cuda"));
    assert_eq!(identity.only(Attribute::Python), Some("3.12"));
    assert_eq!(identity.only(Attribute::FlashInfer), Some("0.7.2"));
}

#[test]
fn extensions_and_libraries_tell_python_and_processor() {
    let mut library = b"\x7fELF\x02\x01\x01".to_vec();
    library.resize(64, 0);
    library[16..20].copy_from_slice(&[3, 0, 183, 0]);
    let hash = "cab3de7ghijklmnopqrstuvwxyz234567abcdefghijklmnopqrs";
    let identity = identified(
        Kind::Inductor,
        &[
            (&format!("ab/{hash}.main.cpp"), b"int x;"),
            (&format!("ab/{hash}.main.so"), &library),
            ("triton/cuda_utils.cpython-312-aarch64-linux-gnu.so", b""),
        ],
    );
    assert_eq!(identity.only(Attribute::Backend), Some("cpu"));
    assert_eq!(identity.only(Attribute::Architecture), Some("aarch64"));
    assert_eq!(identity.only(Attribute::Processor), Some("aarch64"));
    assert_eq!(identity.only(Attribute::Python), Some("3.12"));
    // A library alone, or one of another name, is no code that Inductor made.
    let identity =
        identified(Kind::Inductor, &[(&format!("ab/{hash}.main.so"), &library), ("ab/x.cpp", b"")]);
    assert_eq!(values(&identity, Attribute::Backend), [""; 0]);
}

#[test]
fn many_values_and_places_are_bounded() {
    let metadata: Vec<String> =
        (0..200).map(|minor| format!("\"triton_version\": \"3.{minor}.0\"\n")).collect();
    let text = metadata.concat().repeat(20);
    let files: Vec<(String, &[u8])> =
        (0..8).map(|number| (format!("{number}/k.json"), text.as_bytes())).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    let identity = identified(Kind::Triton, &files);
    let facts = identity.facts(Attribute::Triton);
    assert_eq!(facts.len(), VALUES_MAX);
    assert!(facts.iter().all(|fact| fact.evidence.len() == EVIDENCE_MAX));
    let places: Vec<&str> = facts[0].evidence.iter().map(|evidence| evidence.path.as_str()).collect();
    assert_eq!(places, ["0/k.json", "1/k.json", "2/k.json"]);
}

#[test]
fn hostile_files_take_neither_time_nor_memory() {
    let start = std::time::Instant::now();
    let root = cache(&[("a/k.json", b"\"triton_version\": \"3.9.0\",")]);
    // A hole of 5 GB with something at its ends.
    let mut sparse = File::create(root.path().join("sparse")).unwrap();
    sparse.write_all(b".version 8.7\n.target sm_75\n").unwrap();
    sparse.set_len(5 << 30).unwrap();
    let mut tail = fs::OpenOptions::new().append(true).open(root.path().join("sparse")).unwrap();
    tail.write_all(b"# torch version: 2.9.1+cu128\n").unwrap();
    // One line of JSON where a small file is meant to be, and a pickle of marks that claims to be a package.
    let line = format!("{{\"env\": {{\"VLLM_DP_SIZE\": \"{}\"}}}}", "x".repeat(4 << 20));
    fs::write(root.path().join("cache_key_factors.json"), line).unwrap();
    let marks = [b"PT2AOT\x01\x80\x04\x8c\x0aSystemInfo", &b"(".repeat(3 << 20)[..]].concat();
    fs::write(root.path().join("model"), marks).unwrap();
    let names = b"\x8c\x0aSystemInfo\x93)\x81}(".repeat(100_000);
    fs::write(root.path().join("names"), names).unwrap();

    let identity = identify(&tree(root.path(), Kind::Generic)).unwrap();
    assert_eq!(identity.only(Attribute::Architecture), Some("sm_75"));
    assert_eq!(identity.only(Attribute::Torch), Some("2.9.1+cu128"));
    assert_eq!(identity.only(Attribute::Triton), Some("3.9.0"));
    let torch = &identity.facts(Attribute::Torch)[0].evidence[0];
    assert_eq!(torch.offset, Some(5 << 30));
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}

#[test]
fn a_file_that_changed_or_went_is_an_error() {
    let root = cache(&[("a", b"one"), ("b", b"two")]);
    let found = tree(root.path(), Kind::Generic);
    fs::write(root.path().join("b"), b"three").unwrap();
    assert!(matches!(identify(&found), Err(CacheError::Changed { path }) if path.ends_with("b")));
    fs::remove_file(root.path().join("a")).unwrap();
    assert!(matches!(identify(&found), Err(CacheError::Read { path, .. }) if path.ends_with("a")));
}

#[test]
fn an_empty_cache_is_unknown() {
    assert_eq!(identified(Kind::Generic, &[]), Identity::default());
    assert_eq!(identified(Kind::Vllm, &[("x", b""), ("y", b"plain text")]), Identity::default());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn damage_never_fails(
        at in 0..15_000_usize,
        bytes in proptest::collection::vec(any::<u8>(), 1..40),
        cut in 0..20_000_usize,
    ) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/compile_cache/aot");
        let mut model = fs::read(tree(&root, Kind::Vllm).files[0].source.clone()).unwrap();
        model.splice(at..at + bytes.len(), bytes);
        model.truncate(cut);
        let identity = identified(Kind::Vllm, &[("model", &model)]);
        for (_, facts) in identity.iter() {
            for evidence in facts.iter().flat_map(|fact| &fact.evidence) {
                prop_assert!(evidence.found.len() <= 2 * excerpt::EXCERPT_MAX);
            }
        }
    }
}
