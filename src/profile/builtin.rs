//! The profiles that starcar brings along.

use super::{Profile, ProfileError};

/// Name of the profile that is used when the user names none.
pub const DEFAULT: &str = "generic";

/// Names and JSON of the profiles in `profiles/`.
const BUILT_IN: [(&str, &str); 5] = [
    ("generic", include_str!("../../profiles/generic.json")),
    ("vllm-default", include_str!("../../profiles/vllm-default.json")),
    ("vllm-runai-streamer", include_str!("../../profiles/vllm-runai-streamer.json")),
    ("sglang", include_str!("../../profiles/sglang.json")),
    ("transformers", include_str!("../../profiles/transformers.json")),
];

/// Names of the built-in profiles.
pub fn names() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}

impl Profile {
    /// The built-in profile of that name; `None` when there is none.
    ///
    /// # Errors
    /// None in a released starcar: a test reads them all.
    pub fn built_in(name: &str) -> Option<Result<Self, ProfileError>> {
        let (name, text) = BUILT_IN.iter().find(|(known, _)| *known == name)?;
        Some(Self::parse(name, text.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_can_be_read_and_say_what_they_are_for() {
        for name in names() {
            let profile = Profile::built_in(name).unwrap().unwrap();
            assert!(profile.comment.is_some() && !profile.evidence.is_empty(), "{name}");
            // They are written as starcar writes, so that a tool's change of one can be read in a diff.
            let text = BUILT_IN.iter().find(|(known, _)| *known == name).unwrap().1;
            assert_eq!(profile.to_json(), text, "{name}");
        }
    }
}
