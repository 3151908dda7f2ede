//! Which part of an image a worker makes: its number, its share of the layers, and the tag that it is found by. Must not
//! know what layers hold.

use std::{cmp::Reverse, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Most parts of an image. Images have fewer layers, and a part without layers is of no use.
pub const PARTS_MAX: u16 = 999;

/// Longest tag, in bytes (OCI distribution specification, "Pulling manifests").
const TAG_MAX: usize = 128;
/// Most bytes that a part adds to a tag: `.part-999-of-999`.
const SUFFIX_MAX: usize = 16;
/// Hexadecimal digits that stand for the end of a tag that is too long.
const SHORTENED: usize = 16;

/// One of the parts of an image: the second of four is `2/4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Part {
    of: u16,
    index: u16,
}

impl Part {
    /// The part `index`, counted from 1, of `of`.
    ///
    /// # Errors
    /// Why there is no such part.
    pub fn new(index: u16, of: u16) -> Result<Self, String> {
        if of == 0 || of > PARTS_MAX {
            return Err(format!("an image has 1 to {PARTS_MAX} parts"));
        }
        if index == 0 || index > of {
            return Err(format!(
                "parts are counted from 1 to {of}; a job's JOB_COMPLETION_INDEX is counted from 0"
            ));
        }
        Ok(Self { of, index })
    }

    /// The part's number, counted from 1.
    pub fn index(self) -> u16 {
        self.index
    }

    /// The number of parts.
    pub fn of(self) -> u16 {
        self.of
    }

    /// The tag of this part of the image that gets `tag`.
    pub fn tag(self, tag: &str) -> String {
        format!("{}.part-{}-of-{}", stem(tag), self.index, self.of)
    }

    /// Splits the tag of a part into what its image's tag becomes in it (`stem`) and the part; `None` of any other tag.
    pub fn of_tag(text: &str) -> Option<(&str, Self)> {
        let (stem, numbers) = text.rsplit_once(".part-")?;
        let (index, of) = numbers.split_once("-of-")?;
        let part = Self::new(index.parse().ok()?, of.parse().ok()?).ok()?;
        // Zeros and signs before a number are no part's.
        (!stem.is_empty() && text == format!("{stem}.part-{}-of-{}", part.index, part.of))
            .then_some((stem, part))
    }

    /// Indices of the layers of these sizes that the part has, ascending. Each layer is in one part: the largest goes
    /// first, to the part that has least by then.
    pub fn share(self, sizes: &[u64]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..sizes.len()).collect();
        let size = |index: usize| sizes.get(index).copied().unwrap_or_default();
        order.sort_by_key(|index| (Reverse(size(*index)), *index));
        let mut loads = vec![0_u64; usize::from(self.of)];
        let mut share = Vec::new();
        for layer in order {
            let least = loads.iter_mut().enumerate().min_by_key(|(index, load)| (**load, *index));
            let Some((part, load)) = least else { break };
            // A layer costs something even if it is empty.
            *load = load.saturating_add(size(layer)).saturating_add(1);
            if part + 1 == usize::from(self.index) {
                share.push(layer);
            }
        }
        share.sort_unstable();
        share
    }
}

/// What the tag of an image becomes in the tags of its parts: itself, or as much of it as there is room for and the start
/// of its digest.
pub(crate) fn stem(tag: &str) -> String {
    const MAX: usize = TAG_MAX - SUFFIX_MAX;
    if tag.len() <= MAX {
        return tag.to_owned();
    }
    let digest = Digest::of(tag.as_bytes()).hex();
    let start: String = tag.chars().take(MAX - SHORTENED - 1).collect();
    let digest: String = digest.chars().take(SHORTENED).collect();
    format!("{start}.{digest}")
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| {
            let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u16>().ok().filter(|_| is_number)
        };
        let numbers = text.split_once('/').and_then(|(index, of)| Some((number(index)?, number(of)?)));
        let (index, of) = numbers.ok_or_else(|| "write it as 2/4: the second of four parts".to_owned())?;
        Self::new(index, of)
    }
}

impl TryFrom<String> for Part {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Part> for String {
    fn from(part: Part) -> Self {
        part.to_string()
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::oci::is_tag;

    #[test]
    fn numbers() {
        for text in ["1/1", "2/4", "999/999"] {
            assert_eq!(text.parse::<Part>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "2",
            "/",
            "0/4",
            "5/4",
            "1/0",
            "1/1000",
            "-1/4",
            "+1/4",
            " 1/4",
            "1/4/4",
            "a/b",
            "70000/70000",
        ] {
            assert!(text.parse::<Part>().is_err(), "{text}");
        }
    }

    #[test]
    fn tags() {
        let part: Part = "2/4".parse().unwrap();
        assert_eq!(part.tag("v1"), "v1.part-2-of-4");
        assert_eq!(Part::of_tag("v1.part-2-of-4"), Some(("v1", part)));
        assert_eq!(Part::of_tag("v1.part-1-of-2.part-2-of-4"), Some(("v1.part-1-of-2", part)));
        for text in [
            "v1",
            ".part-1-of-2",
            "v1.part-0-of-2",
            "v1.part-3-of-2",
            "v1.part-01-of-2",
            "v1.part-1-of-2x",
            "a-of-b",
        ] {
            assert_eq!(Part::of_tag(text), None, "{text}");
        }
        let last: Part = "999/999".parse().unwrap();
        for length in [1, 111, 112, 113, 128] {
            let tag = "t".repeat(length);
            let of_part = last.tag(&tag);
            assert!(is_tag(&of_part), "{of_part}");
            assert_eq!(Part::of_tag(&of_part), Some((stem(&tag).as_str(), last)));
        }
        // Long tags that begin alike have different parts.
        let long = |end: &str| last.tag(&format!("{}{end}", "t".repeat(120)));
        assert_ne!(long("a"), long("b"));
    }

    proptest! {
        #[test]
        fn every_layer_is_in_one_part(sizes in prop::collection::vec(0_u64..1000, 0..40), of in 1_u16..50) {
            let shares: Vec<Vec<usize>> =
                (1..=of).map(|index| Part::new(index, of).unwrap().share(&sizes)).collect();
            let mut all: Vec<usize> = shares.iter().flatten().copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..sizes.len()).collect::<Vec<_>>());
            let loads = shares.iter().map(|share| share.iter().map(|index| sizes[*index] + 1).sum::<u64>());
            let (least, most) = (loads.clone().min().unwrap(), loads.max().unwrap());
            let largest = sizes.iter().max().map_or(0, |size| size + 1);
            // No part has more than the least and one layer.
            prop_assert!(most - least <= largest);
        }
    }
}
