//! The files of a cache that was found. Nothing in them is read. Symlinks are followed to files of the same cache
//! and nowhere else. Must not know what the files mean.

use std::{
    collections::BTreeMap,
    fs::{self, Metadata},
    io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::Path,
};

use globset::GlobSet;
use walkdir::WalkDir;

use super::{
    CacheDirectory, CacheError, CacheFile, CacheTree, Found, Kind, LeftOut,
    rules::{LEFT_OUT, LeaveOutRule},
};
use crate::{blob::FileStamp, glob};

/// Most files and directories of one cache.
const ENTRIES_MAX: usize = 500_000;
/// Deepest nesting.
const DEPTH_MAX: usize = 64;
/// Largest file, in bytes, of a cache whose kind is known: compiled code is smaller than the model.
const FILE_MAX: u64 = 4 << 30;

/// Lists the files of `found`.
///
/// # Errors
/// [`CacheError::Read`] when something cannot be listed, [`CacheError::TooLarge`] and [`CacheError::Name`] when it
/// cannot be packed, [`CacheError::Unknown`] when there is nothing in it.
pub fn walk(found: &Found) -> Result<CacheTree, CacheError> {
    let mut walk = Walk {
        kind: found.kind,
        root: &found.origin,
        rules: rules(found.kind),
        files: BTreeMap::new(),
        directories: BTreeMap::new(),
        left_out: BTreeMap::new(),
    };
    let metadata = fs::metadata(&found.origin).map_err(read_error(&found.origin))?;
    if metadata.is_file() {
        let name = name_of(&found.origin, &found.origin)?;
        walk.file(name, &found.origin, &metadata)?;
    } else {
        walk.directory()?;
    }
    let Walk { files, directories, left_out, .. } = walk;
    if files.is_empty() {
        return Err(CacheError::Unknown {
            path: found.origin.clone(),
            reason: "it holds no file that could be packed".to_owned(),
        });
    }
    let inner = |path: String| match found.inner.as_str() {
        "" => path,
        inner => format!("{inner}/{path}"),
    };
    // The directories down to the origin's content.
    let above = found.inner.match_indices('/').map(|(slash, _)| &found.inner[..slash]);
    let above = above.chain((!found.inner.is_empty()).then_some(found.inner.as_str()));
    let above = above.map(|path| CacheDirectory { path: path.to_owned(), modified: None });
    Ok(CacheTree {
        kind: found.kind,
        name: found.kind.name().to_owned(),
        origin: found.origin.clone(),
        inner: found.inner.clone(),
        files: files.into_iter().map(|(path, file)| CacheFile { path: inner(path), ..file }).collect(),
        directories: above
            .chain(
                directories
                    .into_iter()
                    .map(|(path, modified)| CacheDirectory { path: inner(path), modified: Some(modified) }),
            )
            .collect(),
        left_out: left_out
            .into_iter()
            .map(|(path, (reason, link))| LeftOut { path: inner(path), reason, link })
            .collect(),
    })
}

struct Walk<'a> {
    kind: Kind,
    root: &'a Path,
    rules: Vec<(&'static LeaveOutRule, GlobSet)>,
    files: BTreeMap<String, CacheFile>,
    /// Time of the last change of each.
    directories: BTreeMap<String, i64>,
    /// Reason, and whether it is about a link.
    left_out: BTreeMap<String, (String, bool)>,
}

impl Walk<'_> {
    fn directory(&mut self) -> Result<(), CacheError> {
        let mut entries = WalkDir::new(self.root).min_depth(1).sort_by_file_name().into_iter();
        let mut seen = 0;
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|error| walk_error(self.root, error))?;
            seen += 1;
            if seen > ENTRIES_MAX {
                return Err(too_large(self.root, format!("it holds more than {ENTRIES_MAX} files")));
            }
            if entry.depth() > DEPTH_MAX {
                let reason = format!("directories are nested more than {DEPTH_MAX} deep");
                return Err(too_large(entry.path(), reason));
            }
            let kind = entry.file_type();
            let path = name_of(self.root, entry.path())?;
            if let Some(rule) = self.rule(&entry.file_name().to_string_lossy(), kind.is_dir()) {
                let reason = rule.why.to_owned();
                let slash = if kind.is_dir() { "/" } else { "" };
                self.left_out.insert(format!("{path}{slash}"), (reason, false));
                if kind.is_dir() {
                    entries.skip_current_dir();
                }
                continue;
            }
            if kind.is_symlink() {
                self.link(path, entry.path());
                continue;
            }
            let metadata = entry.metadata().map_err(|error| walk_error(self.root, error))?;
            if kind.is_dir() {
                self.directories.insert(path, FileStamp::of(&metadata).modified_seconds);
            } else if kind.is_file() {
                self.file(path, entry.path(), &metadata)?;
            } else {
                let reason = if kind.is_fifo() {
                    "a named pipe"
                } else if kind.is_socket() {
                    "a socket"
                } else {
                    "a device"
                };
                self.left_out.insert(path, (reason.to_owned(), false));
            }
        }
        Ok(())
    }

    fn file(&mut self, path: String, source: &Path, metadata: &Metadata) -> Result<(), CacheError> {
        let stamp = FileStamp::of(metadata);
        if self.kind != Kind::Generic && stamp.size > FILE_MAX {
            let reason = format!(
                "a file of {} bytes is no compiled code (the limit is {FILE_MAX}); `--cache generic=DIR` packs it \
                 all the same",
                stamp.size
            );
            return Err(too_large(source, reason));
        }
        let executable = metadata.permissions().mode() & 0o100 != 0;
        self.files.insert(path.clone(), CacheFile { path, source: source.to_owned(), stamp, executable });
        Ok(())
    }

    /// A link to a file of the cache is packed as that file. One that leads elsewhere would bring whatever the user
    /// who made the cache can read into the image.
    fn link(&mut self, path: String, source: &Path) {
        let target = fs::canonicalize(source).and_then(|target| Ok((fs::metadata(&target)?, target)));
        let reason = match target {
            Ok((_, target)) if !target.starts_with(self.root) => "a link that leaves the cache",
            Ok((metadata, target)) if metadata.is_file() => {
                let fits = self.kind == Kind::Generic || metadata.len() <= FILE_MAX;
                if fits && self.file(path.clone(), &target, &metadata).is_ok() {
                    return;
                }
                "a link to a file that is too large"
            }
            Ok((metadata, _)) if metadata.is_dir() => "a link to a directory",
            Ok(_) => "a link to something that is no file",
            Err(error) if error.kind() == io::ErrorKind::NotFound => "a link to nothing",
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                "a link that leads to itself"
            }
            Err(_) => "a link that cannot be followed",
        };
        self.left_out.insert(path, (reason.to_owned(), true));
    }

    fn rule(&self, name: &str, directory: bool) -> Option<&'static LeaveOutRule> {
        let matches = |(rule, glob): &&(&LeaveOutRule, GlobSet)| {
            (directory || !rule.pattern.ends_with('/')) && glob.is_match(name)
        };
        self.rules.iter().find(matches).map(|(rule, _)| *rule)
    }
}

fn too_large(path: &Path, reason: String) -> CacheError {
    CacheError::TooLarge { path: path.to_owned(), reason }
}

/// The rules for one kind. The table's globs compile; a test says so.
fn rules(kind: Kind) -> Vec<(&'static LeaveOutRule, GlobSet)> {
    LEFT_OUT
        .iter()
        .filter(|rule| rule.kind.is_none_or(|of| of == kind))
        .filter_map(|rule| Some((rule, glob::matcher(rule.pattern.trim_end_matches('/'), true).ok()?)))
        .collect()
}

/// Path of an entry in the cache, which an image must be able to hold.
fn name_of(root: &Path, path: &Path) -> Result<String, CacheError> {
    let relative = match path.strip_prefix(root) {
        Ok(relative) if !relative.as_os_str().is_empty() => relative,
        // The cache is one file.
        _ => Path::new(path.file_name().unwrap_or_default()),
    };
    let refuse = |reason: &str| CacheError::Name { path: path.to_owned(), reason: reason.to_owned() };
    let name = relative.to_str().ok_or_else(|| refuse("its name is not in UTF-8"))?;
    if name.chars().any(char::is_control) {
        return Err(refuse("there is a control character in its name"));
    }
    if name.split('/').any(|part| part.starts_with(".wh.")) {
        return Err(refuse("a name that begins with `.wh.` deletes a file when the image is unpacked"));
    }
    Ok(name.to_owned())
}

fn walk_error(root: &Path, error: walkdir::Error) -> CacheError {
    let path = error.path().unwrap_or(root).to_owned();
    let cause = error.into_io_error().unwrap_or_else(|| io::Error::other("a directory loop"));
    CacheError::Read { path, cause }
}

fn read_error(path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    let path = path.to_owned();
    move |cause| CacheError::Read { path, cause }
}

#[cfg(test)]
mod tests {
    use std::os::unix::{ffi::OsStrExt as _, fs::symlink, net::UnixListener};

    use super::*;

    fn found(root: &Path, kind: Kind, inner: &str) -> Found {
        Found { kind, origin: fs::canonicalize(root).unwrap(), inner: inner.to_owned(), remarks: Vec::new() }
    }

    fn write(root: &Path, path: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }

    #[test]
    fn every_rule_compiles() {
        for rule in LEFT_OUT {
            glob::matcher(rule.pattern.trim_end_matches('/'), true).unwrap();
        }
    }

    #[test]
    fn what_is_no_part_of_the_cache_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        let here = root.path();
        for path in
            ["a/b.py", "a/lock", "locks/x.lock", "x.log", ".ninja_log", "K/tmp.pid_1_2/x", "a/c.1.tmp"]
        {
            write(here, path);
        }
        fs::create_dir(here.join("empty")).unwrap();
        let _socket = UnixListener::bind(here.join("socket")).unwrap();
        let tree = walk(&found(here, Kind::Inductor, "")).unwrap();
        let files: Vec<&str> = tree.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(files, [".ninja_log", "a/b.py"]);
        let directories: Vec<&str> = tree.directories.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(directories, ["K", "a", "empty"]);
        let left_out: Vec<&str> = tree.left_out.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(left_out, ["K/tmp.pid_1_2/", "a/c.1.tmp", "a/lock", "locks/", "socket", "x.log"]);
    }

    #[test]
    fn links_are_followed_within_the_cache_alone() {
        let root = tempfile::tempdir().unwrap();
        let here = root.path().join("cache");
        write(&here, "a");
        write(root.path(), "secret");
        for (target, link) in
            [("a", "inside"), ("../secret", "outside"), ("loop", "loop"), (".", "dir"), ("gone", "dangling")]
        {
            symlink(target, here.join(link)).unwrap();
        }
        let tree = walk(&found(&here, Kind::Triton, "")).unwrap();
        let files: Vec<&str> = tree.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(files, ["a", "inside"]);
        assert!(tree.left_out.iter().all(|entry| entry.link));
        let left_out: Vec<&str> = tree.left_out.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(left_out, ["dangling", "dir", "loop", "outside"]);
    }

    #[test]
    fn inner_paths_have_their_directories() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "0123456789/rank_0_0/x");
        let tree = walk(&found(root.path(), Kind::Vllm, "torch_compile_cache")).unwrap();
        assert_eq!(tree.files[0].path, "torch_compile_cache/0123456789/rank_0_0/x");
        assert_eq!(
            tree.directories[0],
            CacheDirectory { path: "torch_compile_cache".into(), modified: None }
        );
        assert_eq!(tree.directories[1].path, "torch_compile_cache/0123456789");
    }

    #[test]
    fn hostile_trees_are_refused() {
        let deep = tempfile::tempdir().unwrap();
        write(deep.path(), &format!("{}x", "d/".repeat(65)));
        let error = walk(&found(deep.path(), Kind::Generic, "")).unwrap_err();
        assert!(matches!(error, CacheError::TooLarge { .. }), "{error}");

        for name in [&b"a\nb"[..], b"a\xff", b".wh.a"] {
            let root = tempfile::tempdir().unwrap();
            fs::write(root.path().join(std::ffi::OsStr::from_bytes(name)), "x").unwrap();
            let error = walk(&found(root.path(), Kind::Generic, "")).unwrap_err();
            assert!(matches!(error, CacheError::Name { .. }), "{error}");
        }

        let large = tempfile::tempdir().unwrap();
        fs::File::create(large.path().join("x")).unwrap().set_len(5 << 30).unwrap();
        assert!(matches!(walk(&found(large.path(), Kind::Vllm, "")), Err(CacheError::TooLarge { .. })));
        assert!(walk(&found(large.path(), Kind::Generic, "")).is_ok());

        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(walk(&found(empty.path(), Kind::Generic, "")), Err(CacheError::Unknown { .. })));
    }
}
