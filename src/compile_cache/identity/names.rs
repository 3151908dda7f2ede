//! What the names of a cache's files and directories tell. Must not read files.
//!
//! Sources: `vllm/compilation/{backends,decorators}.py` and `vllm/model_executor/warmup/flashinfer_autotune_cache.py`
//! of vLLM 0.33; `flashinfer/jit/env.py` of FlashInfer 0.7.2; `torch/_inductor/{codecache,cpp_builder}.py` and
//! `torch/_inductor/runtime/cache_dir_utils.py` of torch 2.14.

use super::{Attribute, Evidence, excerpt::excerpt, patterns::is_version, settle::Sightings};
use crate::compile_cache::{CacheTree, Kind};

/// Looks at all names.
pub(super) fn look(tree: &CacheTree, sightings: &mut Sightings) {
    for file in &tree.files {
        let parts: Vec<&str> = file.path.split('/').collect();
        let mut noted = Noted { path: &file.path, sightings };
        vllm(&parts, tree.kind, &mut noted);
        flashinfer(&parts, &mut noted);
        inductor_triton(&parts, &mut noted);
        extension(&parts, &mut noted);
        if let Some(library) = library_of(&parts) {
            let path =
                format!("{}{library}", file.path.strip_suffix(parts[parts.len() - 1]).unwrap_or_default());
            if tree.files.binary_search_by(|other| other.path.as_str().cmp(&path)).is_ok() {
                noted.sightings.add_processor_code(Evidence {
                    path: file.path.clone(),
                    found: "C++ that Inductor made, and its library".to_owned(),
                    offset: None,
                });
            }
        }
    }
}

struct Noted<'a> {
    path: &'a str,
    sightings: &'a mut Sightings,
}

impl Noted<'_> {
    fn add(&mut self, attribute: Attribute, value: impl Into<String>, parts: &[&str]) {
        let found = excerpt(parts.join("/").as_bytes());
        self.sightings.add(attribute, value, Evidence { path: self.path.to_owned(), found, offset: None });
    }
}

/// `torch_compile_cache/<10 hex>/rank_R_D/<prefix>/artifact_…`, or
/// `torch_compile_cache/torch_aot_compile/<64 hex>/rank_R_D/model`.
fn vllm(parts: &[&str], kind: Kind, noted: &mut Noted<'_>) {
    if let ["modelinfos", _] = parts
        && kind == Kind::Vllm
    {
        noted.add(Attribute::Engine, "vllm", &parts[..1]);
    }
    let Some(root) = parts.iter().position(|part| *part == "torch_compile_cache") else { return };
    let (aot, key) = match &parts[root + 1..] {
        ["torch_aot_compile", key, _, ..] if is_hex(key, 64) => (true, root + 2),
        [key, _, ..] if is_hex(key, 10) => (false, root + 1),
        _ => return,
    };
    noted.add(Attribute::Engine, "vllm", &parts[root..=key]);
    noted.add(Attribute::Key, parts[key], &parts[root..=key]);
    let Some(rank) = parts[key + 1].strip_prefix("rank_").filter(|rank| is_rank(rank)) else { return };
    noted.add(Attribute::Rank, rank, &parts[key + 1..=key + 1]);
    match &parts[key + 2..] {
        ["model"] if aot => {
            noted.add(Attribute::Format, "aot", &parts[key + 1..]);
        }
        [_, artifact] if is_artifact(artifact) => {
            noted.add(Attribute::Format, "binary", &[artifact]);
        }
        [_, artifact, _, ..] if is_artifact(artifact) => {
            noted.add(Attribute::Format, "unpacked", &[artifact]);
        }
        _ => {}
    }
}

fn is_artifact(name: &str) -> bool {
    name.starts_with("artifact_")
}

/// `0_0`: the rank in the group of tensor and pipeline parallelism, and that of data parallelism.
fn is_rank(text: &str) -> bool {
    text.split_once('_').is_some_and(|(rank, data)| [rank, data].into_iter().all(|text| is_number(text, 5)))
}

/// `<version>/<architectures>/cached_ops`, as `0.7.2/75_80_90a/cached_ops`.
fn flashinfer(parts: &[&str], noted: &mut Noted<'_>) {
    for (start, three) in parts.windows(3).enumerate() {
        let (version, architectures) = match three {
            [version, architectures, "cached_ops" | "generated"] => (version, architectures),
            ["flashinfer_autotune_cache", version, architectures] if start + 3 < parts.len() => {
                (version, architectures)
            }
            _ => continue,
        };
        let named: Vec<&str> = architectures.split('_').collect();
        if !is_version(version) || !named.iter().all(|architecture| is_architecture(architecture)) {
            continue;
        }
        noted.add(Attribute::FlashInfer, *version, three);
        noted.add(Attribute::Backend, "cuda", three);
        for architecture in named {
            noted.add(Attribute::Architecture, format!("sm_{architecture}"), three);
        }
    }
}

fn is_architecture(text: &str) -> bool {
    let digits = text.strip_suffix(['a', 'f']).unwrap_or(text);
    digits.len() >= 2 && is_number(digits, 3)
}

/// `triton/<index of the device>/<hash>/`, where Inductor lets Triton put its kernels.
fn inductor_triton(parts: &[&str], noted: &mut Noted<'_>) {
    for four in parts.windows(4) {
        if let ["triton", index, hash, _] = four
            && is_number(index, 3)
            && hash.len() == 52
            && hash.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'2'..=b'7'))
        {
            noted.add(Attribute::DeviceIndex, *index, &four[..3]);
        }
    }
}

/// `cuda_utils.cpython-312-x86_64-linux-gnu.so`: a module for one version of Python.
fn extension(parts: &[&str], noted: &mut Noted<'_>) {
    let Some(name) = parts.last() else { return };
    let Some((_, tag)) = name.split_once(".cpython-3") else { return };
    let Some((minor, rest)) = tag.split_once('-') else { return };
    let Some(processor @ ("x86_64" | "aarch64")) = rest.strip_suffix("-linux-gnu.so") else { return };
    if is_number(minor, 2) {
        noted.add(Attribute::Python, format!("3.{minor}"), &[name]);
        noted.add(Attribute::Processor, processor, &[name]);
    }
}

/// The library that Inductor makes of its C++: `<2 characters>/c….main.cpp` becomes `c….main.so`.
fn library_of(parts: &[&str]) -> Option<String> {
    let [.., directory, name] = parts else { return None };
    let stem = name.strip_suffix(".cpp")?;
    let hash = stem.strip_suffix(".main").or_else(|| stem.strip_suffix(".kernel")).unwrap_or(stem);
    let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let valid = hash.len() == 52
        && hash.starts_with('c')
        && hash.bytes().all(lower)
        && hash[1..].starts_with(directory);
    (valid && directory.len() == 2).then(|| format!("{stem}.so"))
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_number(text: &str, digits_max: usize) -> bool {
    (1..=digits_max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}
