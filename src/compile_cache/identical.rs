//! Files of a cache that are byte for byte the same: of the 17 artifacts of a vLLM cache, 14 may be one. Must not
//! know how they are stored once.
//!
//! Sharing a file between names is safe for what writes to these caches: torch, vLLM and Triton write a new file and
//! rename it (`write_atomic` in `torch/_inductor/codecache.py`, `os.replace` in `triton/runtime/cache.py`). Compilers
//! that ninja runs write into theirs, so that FlashInfer's files, and those of unknown caches, stay apart.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _},
};

use sha2::{Digest as _, Sha256};

use super::{CacheError, CacheFile, CacheTree, Kind};
use crate::{blob::FileStamp, digest::Digest};

/// For each file of `tree` the index of the first file that has the same content, mode and, in whole seconds, time
/// of change; `None` for the first of each, and for empty files. `skip` has the indices of files that are not
/// compared, in ascending order.
///
/// Two names of one file have one time and one mode, so that files that differ there cannot be stored once.
///
/// # Errors
/// [`CacheError::Read`] and [`CacheError::Changed`] when a file cannot be read as it was found.
pub fn identical(tree: &CacheTree, skip: &[usize]) -> Result<Vec<Option<usize>>, CacheError> {
    let mut same = vec![None; tree.files.len()];
    if !matches!(tree.kind, Kind::Vllm | Kind::Inductor | Kind::Triton) {
        return Ok(same);
    }
    let mut alike: HashMap<(u64, i64, bool), Vec<usize>> = HashMap::new();
    for (index, file) in tree.files.iter().enumerate() {
        if file.stamp.size > 0 && skip.binary_search(&index).is_err() {
            let key = (file.stamp.size, file.stamp.modified_seconds, file.executable);
            alike.entry(key).or_default().push(index);
        }
    }
    for candidates in alike.into_values().filter(|candidates| candidates.len() > 1) {
        let mut first: HashMap<Digest, usize> = HashMap::new();
        for index in candidates {
            let digest = digest(&tree.files[index])?;
            match first.get(&digest) {
                Some(known) => same[index] = Some(*known),
                None => drop(first.insert(digest, index)),
            }
        }
    }
    Ok(same)
}

fn digest(file: &CacheFile) -> Result<Digest, CacheError> {
    let error = |cause: io::Error| CacheError::Read { path: file.source.clone(), cause };
    let open = File::open(&file.source).map_err(error)?;
    let mut content = (&open).take(file.stamp.size);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match content.read(&mut buffer).map_err(error)? {
            0 => break,
            length => hash.update(&buffer[..length]),
        }
    }
    if !FileStamp::of(&open.metadata().map_err(error)?).is_unchanged_since(&file.stamp) {
        return Err(CacheError::Changed { path: file.source.clone() });
    }
    Ok(Digest::finish(hash))
}

#[cfg(test)]
mod tests {
    use std::{fs, time::SystemTime};

    use super::*;
    use crate::compile_cache::{Found, walk};

    #[test]
    fn content_mode_and_time_must_agree() {
        let root = tempfile::tempdir().unwrap();
        for (name, content, second) in [
            ("a", "same", 5),
            ("b", "same", 5),
            ("c", "same", 6),
            ("d", "else", 5),
            ("e", "", 5),
            ("f", "", 5),
        ] {
            let path = root.path().join(name);
            fs::write(&path, content).unwrap();
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(second);
            File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        }
        let found = Found {
            kind: Kind::Vllm,
            origin: fs::canonicalize(root.path()).unwrap(),
            inner: String::new(),
            remarks: Vec::new(),
        };
        let tree = walk(&found).unwrap();
        assert_eq!(identical(&tree, &[]).unwrap(), [None, Some(0), None, None, None, None]);
        assert_eq!(identical(&tree, &[0]).unwrap(), [None; 6]);
        let built = CacheTree { kind: Kind::FlashInfer, ..tree };
        assert_eq!(identical(&built, &[]).unwrap(), [None; 6]);
    }
}
