//! Safetensors headers: whether a file is one and whether all of it is there. Reads the header only, never
//! tensor data. Must not know snapshots.
//!
//! Source: the safetensors format (`README.md` of huggingface/safetensors, section "Format"): 8 bytes
//! little-endian header length, a JSON object of that length (padded with spaces), then the data.

use std::{
    fmt,
    io::{self, Read},
};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

/// Longest header in bytes that safetensors itself accepts (`MAX_HEADER_SIZE`).
pub(crate) const MAX_HEADER_LENGTH: u64 = 100_000_000;

/// Bytes of the length before the header.
const PREFIX: u64 = 8;

/// What is wrong with a safetensors file. All sizes and lengths are in bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderProblem {
    /// The file is too short even for the header's length.
    #[error("it has only {size} bytes")]
    NoHeader {
        /// Size of the file.
        size: u64,
    },
    /// The header's length is beyond what safetensors accepts: it is another format.
    #[error(
        "its header would be {length} bytes long, more than safetensors allows; it may be another format"
    )]
    HeaderTooLong {
        /// Length that the file gives.
        length: u64,
    },
    /// The header is longer than the file.
    #[error("its header needs {needed} bytes but the file ends after {size}")]
    HeaderCut {
        /// End of the header.
        needed: u64,
        /// Size of the file.
        size: u64,
    },
    /// The header is not a JSON object of tensors.
    #[error("its header is not valid: {0}")]
    Malformed(String),
    /// The tensors need more bytes than the file has: an interrupted download.
    #[error("its tensors need {needed} bytes but the file ends after {size}")]
    DataCut {
        /// Size that the header asks for.
        needed: u64,
        /// Size of the file.
        size: u64,
    },
    /// The file goes on behind its tensors.
    #[error("its tensors end after {needed} bytes but the file has {size}")]
    DataLeftOver {
        /// Size that the header asks for.
        needed: u64,
        /// Size of the file.
        size: u64,
    },
}

/// Why a header could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The file could not be read.
    #[error("it cannot be read")]
    Io(#[source] io::Error),
    /// The file is not complete or not safetensors.
    #[error(transparent)]
    Problem(HeaderProblem),
}

/// Reads the header from the start of a file of `size` bytes and checks that its tensors fill the file
/// exactly. At most the header is read, and memory is bounded by the header's length, at most 100 MB.
///
/// # Errors
/// [`HeaderError::Io`] when `file` cannot be read, [`HeaderError::Problem`] when it is not whole or not safetensors.
pub fn check(mut file: impl Read, size: u64) -> Result<(), HeaderError> {
    let problem = HeaderError::Problem;
    if size < PREFIX {
        return Err(problem(HeaderProblem::NoHeader { size }));
    }
    let mut prefix = [0; size_of::<u64>()];
    read_exact(&mut file, &mut prefix, size)?;
    let length = u64::from_le_bytes(prefix);
    if length > MAX_HEADER_LENGTH {
        return Err(problem(HeaderProblem::HeaderTooLong { length }));
    }
    let data_start = PREFIX + length;
    if data_start > size {
        return Err(problem(HeaderProblem::HeaderCut { needed: data_start, size }));
    }
    // Bounded by MAX_HEADER_LENGTH and by the file's size just above.
    let mut header = vec![0; usize::try_from(length).unwrap_or_default()];
    read_exact(&mut file, &mut header, size)?;
    let data_length = parse(&header).map_err(problem)?;
    let needed = data_start
        .checked_add(data_length)
        .ok_or_else(|| problem(HeaderProblem::Malformed("a tensor ends beyond any file".to_owned())))?;
    match size.cmp(&needed) {
        std::cmp::Ordering::Less => Err(problem(HeaderProblem::DataCut { needed, size })),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(problem(HeaderProblem::DataLeftOver { needed, size })),
    }
}

/// A file that shrank since its size was taken is reported as cut, like one that was always short.
fn read_exact(file: &mut impl Read, buffer: &mut [u8], size: u64) -> Result<(), HeaderError> {
    file.read_exact(buffer).map_err(|error| {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            HeaderError::Problem(HeaderProblem::NoHeader { size })
        } else {
            HeaderError::Io(error)
        }
    })
}

/// The length in bytes of the data that a header describes: the largest end of a tensor.
pub(super) fn parse(header: &[u8]) -> Result<u64, HeaderProblem> {
    // safetensors refuses leading white space, though JSON allows it.
    if header.first() != Some(&b'{') {
        return Err(HeaderProblem::Malformed("it does not begin with `{`".to_owned()));
    }
    let tensors: Tensors =
        serde_json::from_slice(header).map_err(|error| HeaderProblem::Malformed(error.to_string()))?;
    Ok(tensors.data_length)
}

/// What is kept of a header while it is parsed. A header of 100 MB has about a million tensors, so they are
/// folded, not collected.
struct Tensors {
    data_length: u64,
}

/// One tensor. Its type is not checked against its length: safetensors adds types (some below a byte) more
/// often than starcar is released, and the offsets tell the size.
#[derive(Deserialize)]
struct Tensor {
    #[serde(rename = "dtype")]
    _dtype: String,
    #[serde(rename = "shape")]
    _shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl<'de> Deserialize<'de> for Tensors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fold;
        impl<'de> Visitor<'de> for Fold {
            type Value = Tensors;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tensors, A::Error> {
                let mut data_length = 0;
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let (start, end) = map.next_value::<Tensor>()?.data_offsets;
                    if start > end {
                        let name: String = name.chars().take(100).collect();
                        let text = format!("tensor `{}` ends before it begins", name.escape_debug());
                        return Err(serde::de::Error::custom(text));
                    }
                    data_length = end.max(data_length);
                }
                Ok(Tensors { data_length })
            }
        }
        deserializer.deserialize_map(Fold)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + data, 7);
        bytes
    }

    fn problem(bytes: &[u8]) -> Option<HeaderProblem> {
        match check(bytes, bytes.len() as u64) {
            Ok(()) => None,
            Err(HeaderError::Problem(problem)) => Some(problem),
            Err(HeaderError::Io(error)) => panic!("{error}"),
        }
    }

    const ONE: &str =
        r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}   "#;

    #[test]
    fn a_whole_file_is_accepted() {
        assert_eq!(problem(&file(ONE, 4)), None);
        assert_eq!(problem(&file("{}", 0)), None);
        let new_type = ONE.replace("BF16", "F3_E1M1");
        assert_eq!(problem(&file(&new_type, 4)), None);
    }

    #[test]
    fn cut_and_overlong_files_are_refused() {
        let whole = file(ONE, 4);
        let size = whole.len() as u64;
        assert_eq!(problem(&whole[..7]), Some(HeaderProblem::NoHeader { size: 7 }));
        assert!(matches!(problem(&whole[..20]), Some(HeaderProblem::HeaderCut { size: 20, .. })));
        assert_eq!(
            problem(&whole[..whole.len() - 1]),
            Some(HeaderProblem::DataCut { needed: size, size: size - 1 })
        );
        assert_eq!(
            problem(&file(ONE, 5)),
            Some(HeaderProblem::DataLeftOver { needed: size, size: size + 1 })
        );
    }

    #[test]
    fn malformed_headers_are_refused() {
        for header in [
            "",
            " {}",
            "[]",
            "{",
            "{}x",
            "{\"a\":1}",
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#,
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,-4]}}"#,
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}"#,
            r#"{"a":{"dtype":"F32","shape":[1]}}"#,
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]}}"#,
        ] {
            assert!(matches!(problem(&file(header, 0)), Some(HeaderProblem::Malformed(_))), "{header}");
        }
        let nested = format!("{{\"a\":{}", "[".repeat(100_000));
        assert!(matches!(problem(&file(&nested, 0)), Some(HeaderProblem::Malformed(_))));
        assert!(matches!(problem(b"GGUF\x03\0\0\0rest"), Some(HeaderProblem::HeaderTooLong { .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = problem(&bytes);
        }

        #[test]
        fn any_json_like_header_is_survived(header in r#"\{("[a-z]":\{?(\[|\]|"|,|:|[0-9]|\{|\}){0,20}){0,4}\}"#) {
            let _ = problem(&file(&header, 3));
        }

        #[test]
        fn exactly_the_described_size_is_accepted(
            lengths in proptest::collection::vec(0_usize..50, 0..8),
            reversed in any::<bool>(),
            change in 0_usize..=6,
        ) {
            let mut end = 0;
            let mut tensors: Vec<_> = lengths.iter().enumerate().map(|(number, length)| {
                let start = end;
                end += length;
                format!(r#""t{number}":{{"dtype":"U8","shape":[{length}],"data_offsets":[{start},{end}]}}"#)
            }).collect();
            if reversed {
                tensors.reverse();
            }
            let mut bytes = file(&format!("{{{}}}", tensors.join(",")), end + 3);
            // From three bytes too few to three too many.
            bytes.truncate((bytes.len() + change).saturating_sub(6));
            prop_assert_eq!(problem(&bytes).is_none(), change == 3);
        }
    }
}
