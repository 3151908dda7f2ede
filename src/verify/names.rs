//! Paths as layers write them, and as all readers take them. Must not know what lies there.

pub(super) use crate::estargz::clean;

/// Where `KServe` looks for the model, as layers name it.
pub(super) const MODELS: &str = "models";

/// Whether `path` is written as [`clean`] has it, but for a slash at its end.
fn is_clean(path: &str) -> bool {
    let path = path.strip_suffix('/').unwrap_or(path);
    path.split('/').all(|part| !part.is_empty() && part != ".")
}

/// Whether `KServe`'s downloader looks for files of that name and does not take this spelling of it.
pub(super) fn is_missed(path: &str) -> bool {
    !is_clean(path) && is_below(&clean(path), MODELS)
}

/// The directory that holds `path`, which is clean; `None` at the root.
pub(super) fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(parent, _)| parent)
}

/// The last part of `path`.
pub(super) fn base(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, base)| base)
}

/// Whether `path`, which is clean, lies in `directory`, or is it.
pub(super) fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned() {
        for (name, cleaned, is) in [
            ("models/a", "models/a", true),
            ("models/", "models", true),
            ("./models/a", "models/a", false),
            ("/models//a/.", "models/a", false),
            ("./", "", false),
            ("", "", false),
        ] {
            assert_eq!((clean(name).as_str(), is_clean(name)), (cleaned, is), "{name}");
        }
        assert!(
            is_missed("./models/a") && is_missed("/models") && !is_missed("./bin/sh") && !is_missed("./")
        );
        assert!(is_below("models/a", "models") && is_below("models", "models"));
        assert!(!is_below("models2/a", "models"));
    }
}
