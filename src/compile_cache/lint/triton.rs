//! Triton's directories, wherever they lie: `__grp__` files, which tell the files of a kernel by absolute path, and
//! kernels that lack a file (`triton/runtime/cache.py`). Must not know other caches.

use std::collections::HashSet;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};

use super::{
    Finding, Severity,
    hits::Hits,
    reader::Reader,
    rules::{GROUP_DAMAGED, GROUP_MISSING, GROUP_PATHS, KERNELS},
    view::{View, name_of, split},
};
use crate::compile_cache::{CacheError, CacheFile};

/// Most group files that are read, and their bytes. The real ones have some hundred bytes each.
const FILES_MAX: usize = 20_000;
const BYTES_MAX: u64 = 64 << 20;
/// Largest group file that is read, in bytes.
const GROUP_MAX: u64 = 1 << 20;
/// What the names of group files begin with.
const GROUP: &str = "__grp__";
/// What the compiler leaves beside a kernel's metadata before it has a binary, and binaries.
const STAGES: [&str; 6] = ["ttir", "ttgir", "llir", "ptx", "amdgcn", "source"];
const BINARIES: [&str; 5] = ["cubin", "hsaco", "spv", "zebin", "so"];

pub(super) fn lint(view: &View<'_>, findings: &mut Vec<Finding>) -> Result<(), CacheError> {
    let mut reader = Reader::new(FILES_MAX, BYTES_MAX);
    let (mut paths, mut missing, mut damaged) = (Hits::default(), Hits::default(), Hits::default());
    for file in view.tree.files.iter().filter(|file| name_of(file).starts_with(GROUP)) {
        let (directory, name) = split(&file.path);
        let Some(content) = reader.read(file, GROUP_MAX)? else { continue };
        let Ok(Group { child_paths }) = serde_json::from_slice(&content) else {
            damaged.add(&file.path);
            damaged.name(kernel(name));
            continue;
        };
        let lost = child_paths.0.iter().filter(|path| view.file(directory, split(path).1).is_none()).count();
        if lost > 0 {
            missing.add(&file.path);
            missing.name(kernel(name));
        } else if let Some(path) = child_paths.0.iter().find(|path| is_own(path, directory)) {
            paths.add(&file.path);
            paths.name(root(path));
        }
    }
    missing.report(
        findings,
        Severity::Warning,
        GROUP_MISSING,
        |hits| {
            format!(
                "Triton compiles these kernels again, because a file of each is missing: {}",
                hits.names()
            )
        },
        "make the cache anew, and copy whole directories of Triton's; or remove these directories",
    );
    damaged.report(
        findings,
        Severity::Warning,
        GROUP_DAMAGED,
        |hits| format!("not as Triton writes them; it compiles these kernels again: {}", hits.names()),
        "make the cache anew, or remove these directories",
    );
    paths.report(
        findings,
        Severity::Note,
        GROUP_PATHS,
        |hits| {
            format!("Triton reads absolute paths here ({}); they are rewritten while packing", hits.names())
        },
        "",
    );
    reader.report(findings, "Triton's groups", GROUP_MISSING);
    kernels(view, findings);
    Ok(())
}

/// Kernels whose metadata has no binary beside it, or no group that leads to it.
fn kernels(view: &View<'_>, findings: &mut Vec<Finding>) {
    let mut hits = Hits::default();
    for files in view.directories.values() {
        let names: HashSet<&str> = files.iter().map(|file| name_of(file)).collect();
        for (file, kernel) in files.iter().filter_map(|file| Some((file, metadata_of(file)?))) {
            let has = |extensions: &[&str]| {
                extensions.iter().any(|extension| names.contains(format!("{kernel}.{extension}").as_str()))
            };
            let group = names.contains(format!("{GROUP}{kernel}.json").as_str());
            // Any directory may hold a `.json`; a kernel's holds more.
            if (group || has(&STAGES) || has(&BINARIES)) && !(group && has(&BINARIES)) {
                hits.add(&file.path);
                hits.name(kernel);
            }
        }
    }
    hits.report(
        findings,
        Severity::Warning,
        KERNELS,
        |hits| {
            format!(
                "Triton compiles these kernels again, because their binary or their {GROUP} file is missing: {}",
                hits.names()
            )
        },
        "make the cache anew, and stop the engine in order before it is packed",
    );
}

/// The kernel that a file is the metadata of.
fn metadata_of(file: &CacheFile) -> Option<&str> {
    let kernel = name_of(file).strip_suffix(".json")?;
    (!kernel.starts_with(GROUP) && !kernel.ends_with(".autotune")).then_some(kernel)
}

/// The kernel of a group file.
fn kernel(name: &str) -> &str {
    let name = name.strip_prefix(GROUP).unwrap_or(name);
    name.strip_suffix(".json").unwrap_or(name)
}

/// Whether a child's path is absolute and leads to its kernel's directory, whose name is a hash. Of a cache that is one
/// such directory, the name is not known.
fn is_own(path: &str, directory: &str) -> bool {
    let own = split(directory).1;
    path.starts_with('/') && (own.is_empty() || split(split(path).0).1 == own)
}

/// The cache's directory in a child's path: that of the kernel's directory.
fn root(path: &str) -> &str {
    split(split(path).0).0
}

/// A group file; anything else in it is passed over.
#[derive(Deserialize)]
struct Group {
    child_paths: Children,
}

/// The paths of a group, at most [`CHILDREN_MAX`].
struct Children(Vec<String>);

const CHILDREN_MAX: usize = 1_000;

impl<'de> Deserialize<'de> for Children {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Paths;

        impl<'de> Visitor<'de> for Paths {
            type Value = Children;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of paths")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Children, A::Error> {
                let mut paths = Vec::new();
                while let Some((_, path)) = map.next_entry::<de::IgnoredAny, String>()? {
                    if paths.len() == CHILDREN_MAX {
                        return Err(de::Error::custom("too many paths"));
                    }
                    paths.push(path);
                }
                Ok(Children(paths))
            }
        }

        deserializer.deserialize_map(Paths)
    }
}
