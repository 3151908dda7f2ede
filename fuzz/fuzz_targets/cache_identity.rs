//! Whatever lies in a cache, it is identified without an error, within bounds, and the same each time.
#![no_main]

use std::{fs, path::Path};

use libfuzzer_sys::fuzz_target;
use starcar::{
    blob::FileStamp,
    compile_cache::{
        CacheFile, CacheTree, Kind,
        identity::{EVIDENCE_MAX, VALUES_MAX, identify},
    },
};

/// Where what is read differs by name; sorted.
const PATHS: [&str; 3] = ["cache_key_factors.json", "triton/0/kernel.json", "torch_compile_cache/model"];

fn tree(root: &Path, bytes: &[u8]) -> CacheTree {
    let files = PATHS.map(|path| {
        let source = root.join(path);
        fs::create_dir_all(source.parent().expect("a file has a directory")).expect("a directory is made");
        fs::write(&source, bytes).expect("a file is written");
        let stamp = FileStamp::of(&fs::metadata(&source).expect("a file is there"));
        CacheFile { path: path.to_owned(), source, stamp, executable: false }
    });
    CacheTree {
        kind: Kind::Generic,
        name: "generic".to_owned(),
        origin: root.to_owned(),
        inner: String::new(),
        files: files.into(),
        directories: Vec::new(),
        left_out: Vec::new(),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let root = std::env::temp_dir().join(format!("starcar-fuzz-{}", std::process::id()));
    let tree = tree(&root, bytes);
    let identity = identify(&tree).expect("files that can be read are no error");
    // Half the time goes into this, so not for every input.
    if bytes.len().is_multiple_of(8) {
        assert_eq!(identify(&tree).expect("nor the second time"), identity);
    }
    for (_, facts) in identity.iter() {
        assert!(facts.len() <= VALUES_MAX);
        assert!(facts.iter().all(|fact| (1..=EVIDENCE_MAX).contains(&fact.evidence.len())));
        assert!(facts.iter().all(|fact| !fact.value.chars().any(char::is_control)));
    }
});
