//! Why a snapshot cannot be packed. Every variant names the file or directory and, in its text, what the
//! user can do next. Must not know layers, OCI or exit codes.

use std::{io, path::PathBuf};

use super::safetensors::HeaderProblem;

/// Why a snapshot was refused. `Display` names the place and the next step; a cause that another library
/// reported is the error's `source` and is not repeated in the text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// A file or directory could not be read.
    #[error("cannot read `{}`; check that it exists and that you may read it", .path.display())]
    Io {
        /// What was being read.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The argument is neither a directory nor the name of a repository.
    #[error(
        "`{}` does not exist; pass a directory, or a repository of the hub cache as `org/name`",
        .path.display()
    )]
    NoSuchPath {
        /// The argument.
        path: PathBuf,
    },
    /// The argument is a file.
    #[error("`{}` is not a directory; pass the directory that holds it", .path.display())]
    NotADirectory {
        /// The argument.
        path: PathBuf,
    },
    /// The argument is no existing path, and the hub cache has no repository of this name.
    #[error(
        "`{repository}` is no directory, and the hub cache `{}` has no such model; pass \
         `hf://{repository}` to have it downloaded, or download it with `{command}`, or set HF_HUB_CACHE to the cache that holds it",
        .searched.display()
    )]
    NotInCache {
        /// The repository that was asked for.
        repository: String,
        /// The cache directory that was searched.
        searched: PathBuf,
        /// A command that downloads the repository.
        command: String,
    },
    /// Neither the hub's variables nor `HOME` tell where the hub cache lies.
    #[error(
        "cannot tell where the hub cache lies to look for `{repository}`; set HF_HUB_CACHE or pass a directory"
    )]
    NoCacheDirectory {
        /// The repository that was asked for.
        repository: String,
    },
    /// The argument is a data set, a space or a kernel.
    #[error("`{}` is a {kind} repository, not a model; pass the directory of a model", .path.display())]
    NotAModel {
        /// The repository's directory.
        path: PathBuf,
        /// What it is, in words.
        kind: &'static str,
    },
    /// The argument is a whole hub cache.
    #[error(
        "`{}` is a hub cache of several repositories; pass one of them, such as `{example}`",
        .path.display()
    )]
    WholeCache {
        /// The cache directory.
        path: PathBuf,
        /// The directory name of a model in it.
        example: String,
    },
    /// The argument is a directory inside a snapshot.
    #[error(
        "`{}` lies inside a snapshot; pass `{}` and choose the files with --include '{include}'",
        .path.display(), .snapshot.display()
    )]
    InsideSnapshot {
        /// The argument.
        path: PathBuf,
        /// The snapshot's directory.
        snapshot: PathBuf,
        /// A glob for the argument's files.
        include: String,
    },
    /// The argument is a directory of blobs, refs or listings.
    #[error("`{}` is not a snapshot; pass the repository `{}`", .path.display(), .repository.display())]
    InsideRepository {
        /// The argument.
        path: PathBuf,
        /// The repository's directory.
        repository: PathBuf,
    },
    /// A revision that is not downloaded.
    #[error(
        "`{}` has no snapshot of revision `{revision}`{}; download it with `{command}`",
        .path.display(), there_is(.available)
    )]
    NoSuchRevision {
        /// The repository's directory.
        path: PathBuf,
        /// The revision that was asked for (or `main`).
        revision: String,
        /// The commits and refs that are there.
        available: Vec<String>,
        /// A command that downloads the revision.
        command: String,
    },
    /// An abbreviated commit that fits several snapshots.
    #[error(
        "revision `{revision}` fits {} in `{}`; write more digits",
        .commits.join(" and "), .path.display()
    )]
    AmbiguousRevision {
        /// The repository's directory.
        path: PathBuf,
        /// The revision that was asked for.
        revision: String,
        /// The commits it fits.
        commits: Vec<String>,
    },
    /// A revision that is no name of a branch, tag or commit.
    #[error("`{revision}` is no revision; pass a branch, a tag or a commit")]
    InvalidRevision {
        /// The revision that was asked for.
        revision: String,
    },
    /// The directory holds one revision and another one was asked for.
    #[error(
        "`{}` holds revision {}, not `{asked}`; leave out --revision or pass another directory",
        .path.display(), .found.as_deref().unwrap_or("unknown")
    )]
    OtherRevision {
        /// The directory.
        path: PathBuf,
        /// The revision that was asked for.
        asked: String,
        /// The commit that the directory holds; `None` where nothing tells.
        found: Option<String>,
    },
    /// A file below `refs/` that does not hold a commit.
    #[error(
        "`{}` does not hold a commit of 40 hexadecimal digits; remove it and download again with \
         `{command}`",
        .path.display()
    )]
    MalformedRef {
        /// The ref's file.
        path: PathBuf,
        /// A command that downloads the revision.
        command: String,
    },
    /// A glob that cannot be understood.
    #[error("`{glob}` is no valid glob; correct the pattern of --include or --exclude")]
    InvalidGlob {
        /// The pattern.
        glob: String,
        /// What is wrong with it.
        source: crate::glob::GlobError,
    },
    /// A name that is not UTF-8, shown with replacement characters.
    #[error("the name of `{path}` is not valid UTF-8; rename the file or leave it out with --exclude")]
    NameNotUtf8 {
        /// The path inside the snapshot, with U+FFFD for what is not UTF-8.
        path: String,
    },
    /// A name with a line break or another control character, shown escaped.
    #[error(
        "the name of `{}` has a control character; rename the file or leave it out with --exclude",
        .path.escape_debug()
    )]
    NameWithControl {
        /// The path inside the snapshot.
        path: String,
    },
    /// A symlink to nothing, as an interrupted download or a deleted blob leaves it.
    #[error(
        "`{}` is a symlink to `{}`, which does not exist; download the snapshot again, or leave the \
         file out with --exclude",
        .path.display(), .target.display()
    )]
    DanglingLink {
        /// The link.
        path: PathBuf,
        /// Where it points, as it is written in the link.
        target: PathBuf,
    },
    /// A symlink that leads back to itself or to a directory above it.
    #[error(
        "`{}` is a symlink that leads in a circle; remove it or leave it out with --exclude",
        .path.display()
    )]
    LinkLoop {
        /// The link.
        path: PathBuf,
    },
    /// A symlink to a place that does not belong to the snapshot.
    #[error(
        "`{}` is a symlink to `{}`, outside `{}`; put a copy in its place or leave it out with --exclude",
        .path.display(), .target.display(), .boundary.display()
    )]
    LinkEscapes {
        /// The link.
        path: PathBuf,
        /// Where it leads in the end.
        target: PathBuf,
        /// The directory that it may not leave.
        boundary: PathBuf,
    },
    /// A fifo, socket or device.
    #[error(
        "`{}` is a {kind}, which an image cannot carry; remove it or leave it out with --exclude",
        .path.display()
    )]
    SpecialFile {
        /// The file.
        path: PathBuf,
        /// What it is, in words.
        kind: &'static str,
    },
    /// More files than any snapshot has, such as a home directory passed by mistake.
    #[error(
        "`{}` has more than {limit} files and directories; pass the directory of one model",
        .path.display()
    )]
    TooManyFiles {
        /// The directory.
        path: PathBuf,
        /// The most that are read.
        limit: usize,
    },
    /// Directories nested deeper than any snapshot has them.
    #[error(
        "`{}` lies more than {limit} directories deep; remove it or pass the directory of one model",
        .path.display()
    )]
    TooDeep {
        /// The directory.
        path: PathBuf,
        /// The deepest that is read.
        limit: usize,
    },
    /// No file is left to pack.
    #[error(
        "nothing to pack in `{}`: {left_out}; check --include and --exclude, or download the model",
        .path.display()
    )]
    Empty {
        /// The snapshot's directory.
        path: PathBuf,
        /// What was left out and why, in words.
        left_out: String,
    },
    /// A file that Git LFS has not fetched.
    #[error("`{}` is a Git LFS pointer, not the file itself; run `git lfs pull` there", .path.display())]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// A file that should be safetensors and is not, or not whole.
    #[error(
        "`{}` is no complete safetensors file: {problem}; download it again (hf download \
         --force-download), or leave it out with --exclude",
        .path.display()
    )]
    BrokenSafetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: HeaderProblem,
    },
    /// A `config.json` that no engine can read.
    #[error(
        "`{}` is no model's configuration: {problem}; download it again, or leave it out with --exclude",
        .path.display()
    )]
    MalformedConfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A shard index that cannot be understood.
    #[error(
        "`{}` is no valid shard index: {problem}; download it again, or leave it out with --exclude",
        .path.display()
    )]
    MalformedIndex {
        /// The index.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Shards that an index or a series of names asks for and that are not there.
    #[error(
        "{} named by `{}` {} missing; download again with `{command}`, or leave the whole set out with \
         --exclude (the index too)",
        super::report::all(.missing),
        .named_by.display(),
        if .missing.len() == 1 { "is" } else { "are" }
    )]
    MissingShards {
        /// The index, or a shard whose name tells how many there are.
        named_by: PathBuf,
        /// The missing paths inside the snapshot.
        missing: Vec<String>,
        /// A command that downloads them.
        command: String,
    },
    /// A shard that is on disk and that the filters leave out, while its index or its siblings stay.
    #[error(
        "`{}` needs `{}`, which is left out ({reason}); leave `{}` out too, or keep both",
        .index.display(), .shard.escape_debug(), .index.display()
    )]
    ShardLeftOut {
        /// The index.
        index: PathBuf,
        /// The shard's path inside the snapshot.
        shard: String,
        /// Why the shard is left out, in words.
        reason: String,
    },
    /// Weights that the repository lists and that are not there.
    #[error(
        "the weights {} are listed by `{}` and are missing; download them with `{command}`, or leave \
         them out with --exclude",
        super::report::few(.missing), .tree.display()
    )]
    MissingWeights {
        /// The listing of the repository's files.
        tree: PathBuf,
        /// The missing paths inside the snapshot.
        missing: Vec<String>,
        /// A command that downloads them.
        command: String,
    },
    /// A file whose size is not the one that the repository lists.
    #[error(
        "`{}` has {found} bytes, but `{}` lists {listed}; download it again with `{command}`",
        .path.display(), .tree.display()
    )]
    WrongSize {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        found: u64,
        /// The listing of the repository's files.
        tree: PathBuf,
        /// The size in bytes that is listed.
        listed: u64,
        /// A command that downloads the file.
        command: String,
    },
}

impl SnapshotError {
    /// For `map_err` on reads of `path`.
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

fn there_is(available: &[String]) -> String {
    if available.is_empty() {
        String::new()
    } else {
        format!(" (there is {})", super::report::few(available))
    }
}
