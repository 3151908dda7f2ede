//! A file that the safetensors library takes is a whole one here too, and one that is whole is not whole when it
//! is cut or goes on.
#![no_main]

use std::{collections::BTreeSet, fmt};

use libfuzzer_sys::fuzz_target;
use safetensors::SafeTensors;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use starcar::snapshot::safetensors::{HeaderError, HeaderProblem, check};

/// Bytes of the length before the header.
const PREFIX: usize = 8;

fn problem(file: &[u8]) -> Option<HeaderProblem> {
    match check(file, file.len() as u64) {
        Ok(()) => None,
        Err(HeaderError::Problem(problem)) => Some(problem),
        Err(HeaderError::Io(error)) => panic!("bytes in memory cannot be read: {error}"),
    }
}

/// Whether an object has a name twice.
struct HasTwins(bool);

impl<'de> Deserialize<'de> for HasTwins {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = HasTwins;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<HasTwins, A::Error> {
                let mut names = BTreeSet::new();
                let mut twins = false;
                while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
                    twins |= !names.insert(name);
                }
                Ok(HasTwins(twins))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// Of tensors with one name the library knows the last alone, while starcar looks at all of them.
fn has_twins(file: &[u8]) -> bool {
    let length = file.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    let header = usize::try_from(length).ok().and_then(|length| file.get(PREFIX..)?.get(..length));
    serde_json::from_slice(header.unwrap_or_default()).is_ok_and(|HasTwins(twins)| twins)
}

fuzz_target!(|file: &[u8]| {
    match problem(file) {
        None => {
            assert!(problem(&file[..file.len() - 1]).is_some());
            assert!(problem(&[file, &[0]].concat()).is_some());
        }
        // Here the library adds without looking, and a build with overflow checks stops in it.
        Some(HeaderProblem::Malformed(reason)) if reason == "a tensor ends beyond any file" => {}
        Some(problem) => {
            let accepted = SafeTensors::deserialize(file).is_ok();
            assert!(!accepted || has_twins(file), "the library takes it, and here {problem}");
        }
    }
});
