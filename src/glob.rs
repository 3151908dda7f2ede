//! Globs that others wrote, compiled without a panic whatever they are. Must not know what they match.

use globset::{GlobBuilder, GlobSet};

/// Braces within braces; compiling recurses into them.
const DEPTH_MAX: usize = 10;
/// Length of a glob in bytes; Linux takes no longer paths.
const BYTES_MAX: usize = 4096;

/// Why a glob cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GlobError {
    /// Its braces are nested too deeply.
    #[error("braces are nested more than {DEPTH_MAX} deep")]
    TooDeep,
    /// It is longer than any path.
    #[error("it has more than {BYTES_MAX} bytes")]
    TooLong,
    /// It cannot be understood.
    #[error("{}", .0.kind())]
    Syntax(globset::Error),
}

/// What matches `glob`; with `literal_separator`, `*` does not match `/`.
///
/// A set of one: unlike a single matcher, a set returns an error where the regular expression behind it fails.
pub(crate) fn matcher(glob: &str, literal_separator: bool) -> Result<GlobSet, GlobError> {
    if glob.len() > BYTES_MAX {
        return Err(GlobError::TooLong);
    }
    if depth(glob) > DEPTH_MAX {
        return Err(GlobError::TooDeep);
    }
    let glob = GlobBuilder::new(glob)
        .literal_separator(literal_separator)
        .backslash_escape(true)
        .build()
        .map_err(GlobError::Syntax)?;
    GlobSet::builder().add(glob).build().map_err(GlobError::Syntax)
}

fn depth(glob: &str) -> usize {
    let (mut depth, mut deepest, mut escaped) = (0_usize, 0, false);
    for byte in glob.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> String {
        format!("{}a{}", "{".repeat(levels), ",b}".repeat(levels))
    }

    #[test]
    fn what_cannot_be_compiled_is_an_error() {
        assert!(matcher(&nested(10), true).unwrap().is_match("a"));
        for levels in [11, 150, 1000] {
            assert!(matches!(matcher(&nested(levels), true), Err(GlobError::TooDeep)), "{levels}");
        }
        assert!(matches!(matcher(&nested(50_000), true), Err(GlobError::TooLong)));
        assert!(matches!(matcher("[", true), Err(GlobError::Syntax(_))));
        // The largest that pass the limits compile or are refused; they do not panic.
        for part in ["[!a]", "?", "*", "**/", "[a-z]", "{a,b}"] {
            let _ = matcher(part.repeat(BYTES_MAX / part.len()).as_str(), true);
        }
    }

    #[test]
    fn separators_are_matched_as_asked() {
        assert!(!matcher("*.json", true).unwrap().is_match("a/b.json"));
        assert!(matcher("*.json", false).unwrap().is_match("a/b.json"));
    }
}
