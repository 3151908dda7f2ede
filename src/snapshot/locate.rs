//! Which directory an argument means: a repository of the hub cache, one of its snapshots, a `--local-dir`
//! download, a plain directory or the name of a repository. Must not know which files are packed.
//!
//! Source: `huggingface_hub` 2.4, `constants.py` (environment), `file_download.py` (`repo_folder_name`,
//! refs), `utils/_validators.py` (names), `_local_folder.py` (`--local-dir`).

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    error::SnapshotError,
    revision::{check_revision_name, commit_like, is_abbreviation, is_commit, read_ref},
};

/// Looks up one environment variable.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Where a snapshot lies and what the place tells about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Located {
    /// The directory whose files are packed, without symlinks in its path.
    pub(super) root: PathBuf,
    pub(super) layout: Layout,
    /// `org/name`, where the layout tells.
    pub(super) repository: Option<String>,
    /// The commit, where the directory's name tells.
    pub(super) revision: Option<String>,
}

/// How the files of a snapshot are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Layout {
    /// Symlinks into the blobs of the repository directory `repository`.
    HubCache { repository: PathBuf },
    /// Files, with download records below `.cache/huggingface/`.
    LocalDir,
    /// Files.
    Plain,
}

/// Longest part of a repository's name (`REPO_ID_REGEX`).
const MAX_NAME_PART: usize = 96;
/// Directories of a local download's records.
pub(super) const LOCAL_DIR_RECORDS: &str = ".cache/huggingface";

/// Finds the snapshot that `argument` means.
pub(super) fn locate(
    argument: &str,
    revision: Option<&str>,
    environment: Environment<'_>,
) -> Result<Located, SnapshotError> {
    if let Some(revision) = revision {
        check_revision_name(revision)?;
    }
    let path = Path::new(argument);
    match fs::canonicalize(path) {
        Ok(path) if path.is_dir() => locate_directory(&path, revision),
        Ok(path) => Err(SnapshotError::NotADirectory { path }),
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_repository_name(argument) => {
            locate_in_cache(argument, revision, environment)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(SnapshotError::NoSuchPath { path: path.to_owned() })
        }
        Err(source) => Err(SnapshotError::Io { path: path.to_owned(), source }),
    }
}

fn locate_in_cache(
    name: &str,
    revision: Option<&str>,
    environment: Environment<'_>,
) -> Result<Located, SnapshotError> {
    let cache = cache_directory(environment)
        .ok_or_else(|| SnapshotError::NoCacheDirectory { repository: name.to_owned() })?;
    locate_below(&cache, name, revision)
}

fn locate_below(cache: &Path, name: &str, revision: Option<&str>) -> Result<Located, SnapshotError> {
    let directory = cache.join(format!("models--{}", name.replace('/', "--")));
    match fs::canonicalize(&directory) {
        Ok(directory) => locate_in_repository(&directory, Some(name.to_owned()), revision),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SnapshotError::NotInCache {
            repository: name.to_owned(),
            searched: cache.to_owned(),
            command: download_command(Some(name), revision, None),
        }),
        Err(source) => Err(SnapshotError::Io { path: directory, source }),
    }
}

/// The directory of a repository's snapshot in a hub cache.
pub(crate) fn find_in_cache(
    cache: &Path,
    repository: &str,
    revision: Option<&str>,
) -> Result<PathBuf, SnapshotError> {
    locate_below(cache, repository, revision).map(|located| located.root)
}

/// The hub cache of this environment, like `constants.HF_HUB_CACHE`; `~/` at the start of a value is the
/// home directory, and an empty value counts as none.
pub(crate) fn cache_directory(environment: Environment<'_>) -> Option<PathBuf> {
    variable(environment, "HF_HUB_CACHE")
        .or_else(|| variable(environment, "HUGGINGFACE_HUB_CACHE"))
        .or_else(|| hub_home(environment).map(|path| path.join("hub")))
}

/// The hub's own directory of this environment, like `constants.HF_HOME`.
pub(crate) fn hub_home(environment: Environment<'_>) -> Option<PathBuf> {
    variable(environment, "HF_HOME")
        .or_else(|| variable(environment, "XDG_CACHE_HOME").map(|path| path.join("huggingface")))
        .or_else(|| home(environment).map(|path| path.join(".cache/huggingface")))
}

fn home(environment: Environment<'_>) -> Option<PathBuf> {
    environment("HOME").filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn variable(environment: Environment<'_>, name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(environment(name).filter(|value| !value.is_empty())?);
    match path.strip_prefix("~") {
        Ok(rest) => home(environment).map(|home| home.join(rest)),
        Err(_) => Some(path),
    }
}

fn locate_directory(path: &Path, revision: Option<&str>) -> Result<Located, SnapshotError> {
    if is_repository_directory(path) {
        return locate_in_repository(path, repository_of(path), revision);
    }
    let mut ancestors = path.ancestors().skip(1).zip(path.ancestors());
    let inside = ancestors.find(|(parent, _)| {
        parent.file_name().is_some_and(|name| name == "snapshots")
            && parent.parent().is_some_and(is_repository_directory)
    });
    if let Some((snapshots, snapshot)) = inside {
        return locate_snapshot(path, snapshot, snapshots.parent().unwrap_or(snapshots), revision);
    }
    if let Some(repository) = path.parent().filter(|parent| is_repository_directory(parent)) {
        // Blobs have no names and refs are no model; `snapshots` can only mean the repository.
        if path.file_name().is_some_and(|name| name == "snapshots") {
            return locate_in_repository(repository, repository_of(repository), revision);
        }
        return Err(SnapshotError::InsideRepository {
            path: path.to_owned(),
            repository: repository.to_owned(),
        });
    }
    if let Some(example) = some_repository_in(path)? {
        return Err(SnapshotError::WholeCache { path: path.to_owned(), example });
    }
    let layout =
        if path.join(LOCAL_DIR_RECORDS).join("download").is_dir() { Layout::LocalDir } else { Layout::Plain };
    if let (Layout::Plain, Some(asked)) = (&layout, revision) {
        return Err(SnapshotError::OtherRevision {
            path: path.to_owned(),
            asked: asked.to_owned(),
            found: None,
        });
    }
    Ok(Located { root: path.to_owned(), layout, repository: None, revision: None })
}

fn locate_snapshot(
    path: &Path,
    snapshot: &Path,
    repository: &Path,
    revision: Option<&str>,
) -> Result<Located, SnapshotError> {
    refuse_other_kinds(repository)?;
    if let Some(below) = path.strip_prefix(snapshot).ok().filter(|below| !below.as_os_str().is_empty()) {
        let include = format!("{}/", below.display());
        return Err(SnapshotError::InsideSnapshot {
            path: path.to_owned(),
            snapshot: snapshot.to_owned(),
            include,
        });
    }
    let commit = snapshot.file_name().and_then(|name| name.to_str()).filter(|name| is_commit(name));
    let located = Located {
        root: snapshot.to_owned(),
        layout: Layout::HubCache { repository: repository.to_owned() },
        repository: repository_of(repository),
        revision: commit.map(str::to_owned),
    };
    if let Some(asked) = revision {
        let meant = read_ref(repository, asked, None)?;
        let same = match (&meant, commit) {
            (Some(meant), Some(commit)) => meant == commit,
            (None, Some(commit)) => is_abbreviation(asked, commit),
            (_, None) => false,
        };
        if !same {
            return Err(SnapshotError::OtherRevision {
                path: snapshot.to_owned(),
                asked: asked.to_owned(),
                found: located.revision,
            });
        }
    }
    Ok(located)
}

fn locate_in_repository(
    repository: &Path,
    name: Option<String>,
    revision: Option<&str>,
) -> Result<Located, SnapshotError> {
    refuse_other_kinds(repository)?;
    let snapshots = repository.join("snapshots");
    let mut commits = match fs::read_dir(&snapshots) {
        Ok(entries) => entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| is_commit(name))
            .collect::<Vec<_>>(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(SnapshotError::Io { path: snapshots, source }),
    };
    commits.sort();
    let asked = revision.unwrap_or("main");
    let commit = match read_ref(repository, asked, name.as_deref())? {
        Some(commit) => Some(commit),
        None => commit_like(repository, asked, &commits)?,
    };
    // A download by commit writes no ref. With a single snapshot there is no doubt which one is meant.
    let commit = commit.or_else(|| match (revision, commits.as_slice()) {
        (None, [only]) => Some(only.clone()),
        _ => None,
    });
    match commit {
        Some(commit) if commits.contains(&commit) => Ok(Located {
            root: fs::canonicalize(snapshots.join(&commit)).map_err(SnapshotError::io(snapshots))?,
            layout: Layout::HubCache { repository: repository.to_owned() },
            repository: name,
            revision: Some(commit),
        }),
        _ => Err(SnapshotError::NoSuchRevision {
            path: repository.to_owned(),
            revision: asked.to_owned(),
            available: commits,
            command: download_command(name.as_deref(), revision, None),
        }),
    }
}

/// Whether a directory is a repository of a hub cache, whatever its name: copies and mounts rename it.
fn is_repository_directory(path: &Path) -> bool {
    let has = |name: &str| path.join(name).is_dir();
    let named = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
        name.starts_with("models--") || OTHER_KINDS.iter().any(|(prefix, _)| name.starts_with(prefix))
    });
    if named { has("snapshots") || has("refs") || has("blobs") } else { has("snapshots") && has("blobs") }
}

/// Prefixes of repositories that hold no model (`constants.REPO_TYPES_MAPPING`).
const OTHER_KINDS: &[(&str, &str)] =
    &[("datasets--", "data set"), ("spaces--", "space"), ("kernels--", "kernel"), ("buckets--", "bucket")];

fn refuse_other_kinds(repository: &Path) -> Result<(), SnapshotError> {
    let name = repository.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match OTHER_KINDS.iter().find(|(prefix, _)| name.starts_with(prefix)) {
        Some((_, kind)) => Err(SnapshotError::NotAModel { path: repository.to_owned(), kind }),
        None => Ok(()),
    }
}

fn repository_of(directory: &Path) -> Option<String> {
    let name = directory.file_name()?.to_str()?.strip_prefix("models--")?.replacen("--", "/", 1);
    is_repository_name(&name).then_some(name)
}

fn some_repository_in(path: &Path) -> Result<Option<String>, SnapshotError> {
    let mut models: Vec<_> = fs::read_dir(path)
        .map_err(SnapshotError::io(path))?
        .filter_map(Result::ok)
        .filter(|entry| is_repository_directory(&entry.path()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("models--"))
        .collect();
    models.sort();
    Ok(models.into_iter().next())
}

/// Whether `text` is `name` or `org/name` by the hub's rules.
pub(crate) fn is_repository_name(text: &str) -> bool {
    let part_is_valid = |part: &str| {
        (1..=MAX_NAME_PART).contains(&part.len())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            && !part.starts_with(['-', '.'])
            && !part.ends_with(['-', '.'])
    };
    text.split('/').count() <= 2
        && text.split('/').all(part_is_valid)
        && !text.contains("--")
        && !text.contains("..")
        && !text.to_ascii_lowercase().ends_with(".git")
}

/// A command line that downloads what is missing.
pub(super) fn download_command(
    repository: Option<&str>,
    revision: Option<&str>,
    local_dir: Option<&Path>,
) -> String {
    let repository = repository.unwrap_or("<repository>");
    let revision = revision.map(|revision| format!(" --revision {}", quoted(revision))).unwrap_or_default();
    let local_dir = local_dir
        .map(|directory| format!(" --local-dir {}", quoted(&directory.to_string_lossy())))
        .unwrap_or_default();
    format!("hf download {repository}{revision}{local_dir}")
}

/// `text` as a word of a shell's command line.
fn quoted(text: &str) -> String {
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte)) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_repositories_follow_the_hub() {
        for name in ["gpt2", "Qwen/Qwen3-8B", "a_b/c.d", "123"] {
            assert!(is_repository_name(name), "{name}");
        }
        let long = "a".repeat(97);
        for name in
            ["", "/", "a/", "a/b/c", ".a/b", "a--b", "a..b", "foo.git", "./a", "../a", "a b", "é", &long]
        {
            assert!(!is_repository_name(name), "{name}");
        }
    }

    #[test]
    fn commands_can_be_pasted() {
        let directory = Path::new("/my models/it's");
        assert_eq!(
            download_command(Some("a/b"), Some("v1.0"), Some(directory)),
            r"hf download a/b --revision v1.0 --local-dir '/my models/it'\''s'"
        );
    }

    #[test]
    fn directories_name_their_repository() {
        let name = |directory: &str| repository_of(Path::new(directory));
        assert_eq!(name("/c/models--Qwen--Qwen3-8B").as_deref(), Some("Qwen/Qwen3-8B"));
        assert_eq!(name("/c/models--gpt2").as_deref(), Some("gpt2"));
        assert_eq!(name("/c/models--a--b--c"), None);
        assert_eq!(name("/c/datasets--a--b"), None);
        assert_eq!(name("/"), None);
    }

    #[test]
    fn the_cache_is_found_in_the_order_of_the_hub() {
        let mut variables = vec![
            ("HF_HUB_CACHE", "~/hub"),
            ("HUGGINGFACE_HUB_CACHE", "/old"),
            ("HF_HOME", "/hf"),
            ("XDG_CACHE_HOME", "/xdg"),
            ("HOME", "/home/me"),
        ];
        for expected in
            ["/home/me/hub", "/old", "/hf/hub", "/xdg/huggingface/hub", "/home/me/.cache/huggingface/hub"]
        {
            let found = cache_directory(&|name| {
                variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
            });
            assert_eq!(found, Some(PathBuf::from(expected)));
            variables.remove(0);
        }
        assert_eq!(cache_directory(&|_| None), None);
        assert_eq!(cache_directory(&|_| Some(OsString::new())), None);
    }
}
