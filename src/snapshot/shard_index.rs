//! Whether all shards of a set of weights are there: those that an index names, and those that a shard's
//! own name counts (`model-00001-of-00004.safetensors`). Must not read weights.
//!
//! Source: transformers `modeling_utils.py` (`weight_map`, file names relative to the index).

use std::{collections::BTreeSet, path::Path};

use serde::Deserialize;

use super::read::read_small;

/// Longest index in bytes. The largest public ones (a million experts' tensors) have about 20 MB.
const MAX_INDEX_LENGTH: u64 = 100_000_000;

#[derive(Deserialize)]
struct Index {
    weight_map: std::collections::HashMap<String, String>,
}

/// Why an index could not be used.
#[derive(Debug)]
pub(super) enum IndexError {
    Io(std::io::Error),
    Malformed(String),
}

/// The files that the index at `source` names, as paths inside the snapshot; `directory` is the index's own
/// directory there.
pub(super) fn shards(source: &Path, directory: &str) -> Result<BTreeSet<String>, IndexError> {
    let bytes = read_small(source, MAX_INDEX_LENGTH).map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => IndexError::Malformed(error.to_string()),
        _ => IndexError::Io(error),
    })?;
    parse(&bytes, directory).map_err(IndexError::Malformed)
}

fn parse(bytes: &[u8], directory: &str) -> Result<BTreeSet<String>, String> {
    let index: Index = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let names: BTreeSet<_> = index.weight_map.into_values().collect();
    names
        .into_iter()
        .map(|name| {
            if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
                return Err(format!("it names the shard `{}`", name.escape_debug()));
            }
            Ok(if directory.is_empty() { name } else { format!("{directory}/{name}") })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_lie_beside_their_index() {
        let index = br#"{"metadata":{"total_size":9},"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors","c":"m-1.safetensors"}}"#;
        let names = |directory| parse(index, directory).unwrap().into_iter().collect::<Vec<_>>();
        assert_eq!(names(""), ["m-1.safetensors", "m-2.safetensors"]);
        assert_eq!(names("unet"), ["unet/m-1.safetensors", "unet/m-2.safetensors"]);
    }

    #[test]
    fn malformed_indexes_are_refused() {
        for index in [
            "",
            "[]",
            "{}",
            r#"{"weight_map":[]}"#,
            r#"{"weight_map":{"a":1}}"#,
            r#"{"weight_map":{"a":"../../secret"}}"#,
            r#"{"weight_map":{"a":"/etc/passwd"}}"#,
            r#"{"weight_map":{"a":""}}"#,
        ] {
            assert!(parse(index.as_bytes(), "").is_err(), "{index}");
        }
        assert!(parse("[".repeat(100_000).as_bytes(), "").is_err());
    }
}
