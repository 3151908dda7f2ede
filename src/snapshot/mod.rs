//! Hugging Face model snapshots on disk: where they lie, which of their files belong into an image, and
//! what is known about the files' integrity. Must not know layers or OCI.
//!
//! [`open`] reads directories, small metadata files and the headers of weights, never whole weights.
//! Each room names its source, mostly `huggingface_hub`, whose layouts are documented by its code alone.

mod completeness;
mod config;
mod error;
mod filter;
mod integrity;
mod local_dir;
pub(crate) mod locate;
mod names;
mod read;
mod report;
pub(crate) mod revision;
mod rules;
pub mod safetensors;
pub(crate) mod select;
mod shard_index;
pub(crate) mod tree;
mod walk;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::PathBuf,
};

use self::{
    completeness::Surroundings,
    filter::{Decision, Filters},
    integrity::Candidate,
    locate::{Layout, Located, download_command},
};
pub use self::{
    error::SnapshotError,
    report::{Expected, ExpectedDigest, ExpectedOrigin, LeftOut, LeftOutReason, Warning},
    rules::{DUPLICATES, DuplicateRule, HOUSEKEEPING, HousekeepingRule, Original},
    safetensors::HeaderProblem,
};
use crate::blob::FileStamp;

/// What the user asks of a snapshot.
///
/// Globs are matched against the whole `/`-separated path inside the snapshot; `*` also matches `/`, and a
/// trailing `/` means all that lies below, as for `hf download --include`.
#[derive(Debug, Clone, Default)]
pub struct SnapshotOptions {
    /// Branch, tag or commit (at least 7 digits of it); `None` is `main`, or the only snapshot there is.
    pub revision: Option<String>,
    /// With any glob here, only files that one of them matches are packed, copies in other formats
    /// included. [`HOUSEKEEPING`] is packed only where a glob spells its name (`.gitattributes`).
    pub include: Vec<String>,
    /// Files that are not packed, whatever `include` says.
    pub exclude: Vec<String>,
    /// What the repository has and was not even downloaded, because the same options leave it out. It is part of
    /// [`Snapshot::left_out`] as if it were on disk.
    pub not_downloaded: Vec<LeftOut>,
    /// Layouts, archives and documents that the command itself writes or reads. Where they lie in the snapshot they are
    /// left out, whatever `include` says: else each pack would hold what the one before it wrote.
    pub own_places: Vec<PathBuf>,
}

/// A snapshot whose files are known, chosen and complete as far as can be told without reading them.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Directory whose files are packed, without symlinks in its path.
    pub root: PathBuf,
    /// `org/name` (or a bare `name`), where the layout tells.
    pub repository: Option<String>,
    /// Commit of 40 hexadecimal digits, where the layout tells.
    pub revision: Option<String>,
    /// The files to pack, sorted bytewise by path. Never empty.
    pub files: Vec<SnapshotFile>,
    /// What is not packed and why, sorted bytewise by path.
    pub left_out: Vec<LeftOut>,
    /// What the user should know.
    pub warnings: Vec<Warning>,
}

impl Snapshot {
    /// Refuses a `config.json` in the snapshot's root that no engine could read.
    ///
    /// # Errors
    /// [`SnapshotError::MalformedConfig`] where it is empty or no JSON object, [`SnapshotError::Io`] where it cannot be
    /// read.
    pub fn check_config(&self) -> Result<(), SnapshotError> {
        config::check(&self.files, &self.root)
    }

    /// A warning where no file is weights, by its content or its name.
    pub fn check_weights(&self) -> Option<Warning> {
        completeness::check_weights(&self.files, &self.root)
    }
}

/// A file to pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    /// `/`-separated path inside the snapshot: UTF-8 without control characters, `.` or `..`.
    pub path: String,
    /// Where the bytes lie, without symlinks.
    pub source: PathBuf,
    /// Identity of `source` when it was listed, with its size.
    pub stamp: FileStamp,
    /// Whether anybody may execute the file.
    pub executable: bool,
    /// Digests that the content must have, each of them once. They are for the packer to check while it
    /// reads; an empty list means that nothing is known.
    pub expected: Vec<Expected>,
    /// The format that the content shows, whatever the file is called; `None` for anything but weights in a
    /// known format.
    pub weight_format: Option<WeightFormat>,
}

/// A weight format that is told by its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WeightFormat {
    /// A valid header whose tensors fill the file exactly.
    Safetensors,
    /// The magic of GGUF.
    Gguf,
}

/// Opens the snapshot that `argument` means: a repository directory of a hub cache, a snapshot in it, a
/// `--local-dir` download, any other directory, or, if no such path exists, a repository (`org/name`) that
/// is looked up in the hub cache of this process's environment.
pub fn open(argument: &str, options: &SnapshotOptions) -> Result<Snapshot, SnapshotError> {
    open_with(argument, options, &|name| std::env::var_os(name))
}

/// [`open`] with another environment: `environment` looks up a variable by name (`HF_HUB_CACHE`,
/// `HUGGINGFACE_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, `HOME`).
pub fn open_with(
    argument: &str,
    options: &SnapshotOptions,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Snapshot, SnapshotError> {
    // Before anything is read: a mistyped glob should not wait for a slow disk.
    let filters = Filters::new(options)?;
    let located = locate::locate(argument, options.revision.as_deref(), environment)?;
    let walk = walk::walk(&located, &filters, &options.own_places)?;
    let mut warnings = Vec::new();
    let names = names_for_globs(&walk);
    let mut chosen = choose(walk, &filters)?;

    let mut revision = located.revision.clone();
    if located.layout == Layout::LocalDir {
        revision = integrity::read_records(&located.root, &mut chosen.packed, &mut warnings);
        check_local_revision(&located, options.revision.as_deref(), revision.as_deref())?;
    }
    let local_dir = (located.layout == Layout::LocalDir).then_some(located.root.as_path());
    let command = download_command(located.repository.as_deref(), revision.as_deref(), local_dir);
    let tree = match revision.as_deref().map(|commit| tree::read(&located, commit)) {
        Some(Ok(tree)) => tree,
        Some(Err(warning)) => {
            warnings.push(warning);
            None
        }
        None => None,
    };
    // A glob for files that were not even downloaded is no mistake.
    let listed = tree.iter().flat_map(|tree| tree.files.keys().map(String::as_str));
    let listed = listed.chain(options.not_downloaded.iter().map(|left_out| left_out.path.as_str()));
    warnings.splice(0..0, filters.unused(&names.iter().map(String::as_str).chain(listed).collect()));
    if let Some(tree) = &tree {
        integrity::read_tree(tree, &located.root, &mut chosen.packed, &command)?;
    }

    let around = Surroundings {
        root: &located.root,
        left_out: &chosen.reasons,
        tree: tree.as_ref(),
        command: &command,
    };
    chosen.left_out.extend(completeness::check_indexes(&mut chosen.packed, &around)?);
    completeness::check_series(&chosen.packed, &around)?;
    warnings.extend(completeness::check_listing(&chosen.packed, &around, &filters)?);

    let known: BTreeSet<_> = options.not_downloaded.iter().map(|left_out| &left_out.path).collect();
    chosen.left_out.retain(|left_out| !known.contains(&left_out.path));
    chosen.left_out.extend(options.not_downloaded.iter().cloned());
    chosen.left_out.sort_by(|one, other| one.path.cmp(&other.path));
    if chosen.packed.is_empty() {
        return Err(SnapshotError::Empty {
            path: located.root,
            left_out: describe_left_out(&chosen.left_out),
        });
    }
    let mut files = chosen
        .packed
        .into_iter()
        .map(|candidate| candidate.finish(&located.root))
        .collect::<Result<Vec<_>, SnapshotError>>()?;
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(Snapshot {
        root: located.root,
        repository: located.repository,
        revision,
        files,
        left_out: chosen.left_out,
        warnings,
    })
}

/// The files of a walk, parted by the filters.
struct Chosen {
    packed: Vec<Candidate>,
    left_out: Vec<LeftOut>,
    /// The reason of every single file that is left out.
    reasons: BTreeMap<String, LeftOutReason>,
}

fn choose(walk: walk::Walk, filters: &Filters) -> Result<Chosen, SnapshotError> {
    let paths: Vec<_> = walk.entries.iter().map(|entry| entry.path.clone()).collect();
    let mut decisions = filters.decide(paths.iter().map(String::as_str));
    let mut chosen = Chosen { packed: Vec::new(), left_out: walk.pruned, reasons: BTreeMap::new() };
    let mut directories: BTreeMap<String, LeftOut> = BTreeMap::new();
    // Sorted, so that of several problems always the same one is reported.
    let mut entries = walk.entries;
    entries.sort_by(|one, other| one.path.cmp(&other.path));
    for entry in entries {
        let size = entry.file.as_ref().ok().map(|file| file.stamp.size);
        match decisions.remove(entry.path.as_str()).unwrap_or(Decision::Keep) {
            Decision::Keep => chosen.packed.push(Candidate::new(entry.path, entry.file?)),
            Decision::LeaveOut(reason) => {
                chosen.reasons.insert(entry.path.clone(), reason.clone());
                chosen.left_out.push(LeftOut { path: entry.path, size, reason });
            }
            Decision::LeaveOutDirectory(directory, reason) => {
                chosen.reasons.insert(entry.path, reason.clone());
                let path = format!("{directory}/");
                let whole = directories.entry(directory).or_insert(LeftOut { path, size: Some(0), reason });
                whole.size = whole.size.zip(size).map(|(sum, size)| sum.saturating_add(size));
            }
        }
    }
    chosen.left_out.extend(directories.into_values());
    Ok(chosen)
}

/// The paths that globs can match.
fn names_for_globs(walk: &walk::Walk) -> BTreeSet<String> {
    // A directory that was not looked into counts as if it held something.
    let pruned = walk.pruned.iter().map(|pruned| match pruned.path.strip_suffix('/') {
        Some(_) => format!("{}x", pruned.path),
        None => pruned.path.clone(),
    });
    walk.entries.iter().map(|entry| entry.path.clone()).chain(pruned).collect()
}

/// A local directory tells its commit only, so a branch cannot be compared.
fn check_local_revision(
    located: &Located,
    asked: Option<&str>,
    found: Option<&str>,
) -> Result<(), SnapshotError> {
    match asked {
        Some(asked) if !found.is_some_and(|commit| revision::is_abbreviation(asked, commit)) => {
            Err(SnapshotError::OtherRevision {
                path: located.root.clone(),
                asked: asked.to_owned(),
                found: found.map(str::to_owned),
            })
        }
        _ => Ok(()),
    }
}

/// How many entries the message about an empty snapshot lists.
const LISTED_WHEN_EMPTY: usize = 10;

pub(crate) fn describe_left_out(left_out: &[LeftOut]) -> String {
    if left_out.is_empty() {
        return "it has no files".to_owned();
    }
    let mut parts: Vec<_> = left_out.iter().take(LISTED_WHEN_EMPTY).map(LeftOut::to_string).collect();
    if let Some(more @ 1..) = left_out.len().checked_sub(LISTED_WHEN_EMPTY) {
        parts.push(format!("{more} more"));
    }
    format!("all files are left out ({})", parts.join("; "))
}
