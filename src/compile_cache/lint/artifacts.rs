//! Compiled files that cannot be whole: empty ones, vLLM's artifacts with a wrong checksum
//! (`torch/utils/_appending_byte_serializer.py`) and AOT models that are cut short. Must not know what they hold.

use std::{fs::File, io::Read as _, os::unix::fs::FileExt as _};

use super::{
    Finding, Severity,
    hits::Hits,
    reader::Reader,
    rules::{DAMAGED, EMPTY},
    view::{View, name_of, split},
};
use crate::compile_cache::{CacheError, CacheFile, Kind, find::is_rank};

/// Most artifacts that are read, and their bytes.
const FILES_MAX: usize = 100_000;
const BYTES_MAX: u64 = 4 << 30;
/// Bytes that are read at once.
const BUFFER: usize = 1 << 20;
/// Names of compiled files end so, and those of what a compiler made on the way to them: an engine makes these again.
const COMPILED: [&str; 6] = ["so", "cubin", "hsaco", "spv", "o", "a"];
const GENERATED: [&str; 6] = ["ptx", "cpp", "cu", "json", "ninja", "py"];
/// What torch writes first: its key (32 bytes) in older versions, and later `CacheCompiledArtifact` or
/// `AOTCompiledArtifact`. Their lengths.
const HEADERS: [u64; 3] = [32, 21, 19];
/// What `torch.compiler.save_cache_artifacts` writes first: the version of the encoding.
const ENCODING: u64 = 1;
/// What AOT models begin with since torch 2.15; before, they are a bare pickle.
const AOT_MAGIC: &[u8] = b"PT2AOT";
/// Version of the form that follows the magic: with it, a pickle is next.
const AOT_VERSION: u8 = 1;
/// Protocols of pickles that begin with a mark.
const PROTOCOLS: std::ops::RangeInclusive<u8> = 2..=5;
/// No model is smaller, in bytes: one that does not end as a pickle does is cut short. A larger one may have something
/// behind its pickle.
const AOT_MIN: u64 = 1024;
/// First byte of a pickle, and last.
const PICKLE: (u8, u8) = (0x80, b'.');

pub(super) fn lint(view: &View<'_>, findings: &mut Vec<Finding>) -> Result<(), CacheError> {
    let mut reader = Reader::new(FILES_MAX, BYTES_MAX);
    let (mut empty, mut unmade, mut damaged) = (Hits::default(), Hits::default(), Hits::default());
    for file in &view.tree.files {
        let form = form(view.tree.kind, file);
        if file.stamp.size == 0 {
            if form.is_some() || has_extension(name_of(file), &COMPILED) {
                empty.add(&file.path);
            } else if is_generated(view.tree.kind, name_of(file)) {
                unmade.add(&file.path);
            }
            continue;
        }
        let Some(form) = form else { continue };
        // The whole file counts: its checksum is over everything.
        let Some(opened) = reader.open(file, file.stamp.size)? else { continue };
        let whole = match form {
            Form::Artifact => artifact_is_whole(&opened, file.stamp.size),
            Form::Model => model_is_whole(&opened, file.stamp.size),
        };
        if !whole.map_err(|cause| CacheError::Read { path: file.source.clone(), cause })? {
            damaged.add(&file.path);
        }
    }
    damaged.report(
        findings,
        Severity::Error,
        DAMAGED,
        |_| {
            "damaged or cut short: the checksum or the end is wrong, and vLLM crashes or compiles again"
                .to_owned()
        },
        "copy the file anew from where it was made, or make the cache anew",
    );
    empty.report(
        findings,
        Severity::Error,
        EMPTY,
        |_| "empty: written by an engine that was killed, or on a full disk; loading it fails".to_owned(),
        "make the cache anew with the engine stopped in order, or remove the entry's directory",
    );
    unmade.report(
        findings,
        Severity::Warning,
        EMPTY,
        |_| {
            "empty sources or descriptions: written by an engine that was killed, or on a full disk"
                .to_owned()
        },
        "make the cache anew with the engine stopped in order, or remove these files",
    );
    reader.report(findings, "the artifacts", DAMAGED);
    Ok(())
}

/// How a file tells that it is whole.
#[derive(Debug, Clone, Copy)]
enum Form {
    Artifact,
    Model,
}

fn form(kind: Kind, file: &CacheFile) -> Option<Form> {
    let (directory, name) = split(&file.path);
    match kind {
        Kind::Artifacts => Some(Form::Artifact),
        Kind::Vllm if name == "model" && is_rank(split(directory).1) => Some(Form::Model),
        Kind::Vllm if name.starts_with("artifact") && directory.split('/').any(is_rank) => {
            Some(Form::Artifact)
        }
        _ => None,
    }
}

/// Whether a compiler writes something into files of this name. Of what the user says is a cache, nothing is known.
fn is_generated(kind: Kind, name: &str) -> bool {
    kind != Kind::Generic && name != "__init__.py" && has_extension(name, &GENERATED)
}

fn has_extension(name: &str, known: &[&str]) -> bool {
    name.rsplit_once('.').is_some_and(|(stem, extension)| !stem.is_empty() && known.contains(&extension))
}

/// Whether the checksum is right; an unknown form passes.
fn artifact_is_whole(mut file: &File, size: u64) -> std::io::Result<bool> {
    let mut head = [0; 12];
    let length = usize::try_from(size).unwrap_or(head.len()).min(head.len());
    file.read_exact_at(&mut head[..length], 0)?;
    if length < head.len() || head == [0; 12] {
        return Ok(false);
    }
    let mut sum = [0; 4];
    // Leaves the file at what the checksum is over.
    file.read_exact(&mut sum)?;
    let first = head[4..].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    if first != ENCODING && !HEADERS.contains(&first) {
        return Ok(true);
    }
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; BUFFER];
    let mut start = 4;
    while start < size {
        let length = usize::try_from(size - start).unwrap_or(BUFFER).min(BUFFER);
        file.read_exact(&mut buffer[..length])?;
        hasher.update(&buffer[..length]);
        start += length as u64;
    }
    Ok(hasher.finalize().to_be_bytes() == sum)
}

/// Whether a model begins and ends as one.
fn model_is_whole(file: &File, size: u64) -> std::io::Result<bool> {
    // The magic, the version and what begins a pickle.
    let mut head = [0; AOT_MAGIC.len() + 3];
    let length = usize::try_from(size).unwrap_or(head.len()).min(head.len());
    file.read_exact_at(&mut head[..length], 0)?;
    let mut last = [0];
    file.read_exact_at(&mut last, size - 1)?;
    let ends = last[0] == PICKLE.1;
    let Some(&[version, first, protocol]) = head.strip_prefix(AOT_MAGIC) else {
        return Ok(size >= AOT_MAGIC.len() as u64 && head[0] == PICKLE.0 && ends);
    };
    if length < head.len() {
        return Ok(false);
    }
    // Of another version, only the magic is known.
    let begins = version != AOT_VERSION || (first == PICKLE.0 && PROTOCOLS.contains(&protocol));
    Ok(begins && (ends || size >= AOT_MIN))
}
