//! Profiles for other tools: the files in the order of their first accesses. Bytes and times are lost.

use std::{collections::HashSet, fmt::Write as _};

use super::{Profile, ProfileError, Target, Tree, summary, with_files};

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// What `ctr-remote image convert --estargz-record-in` reads: JSON objects with a path each.
    CtrRemote,
    /// What `ctr-remote image optimize --prefetch-list` reads: a path or a pattern on each line.
    PrefetchList,
}

/// How a profile is written for another tool.
#[derive(Debug, Clone)]
pub struct ExportOptions<'a> {
    /// What is written.
    pub format: ExportFormat,
    /// Where the model lies in the image.
    pub model: &'a str,
    /// Where caches lie in the image, by name; others are left out.
    pub caches: &'a [(String, String)],
    /// The model's files, path and size in bytes of each: patterns become files, and what is not among them is left
    /// out.
    pub files: Option<&'a [(&'a str, u64)]>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The text.
    pub text: String,
    /// What was left out, for people.
    pub notes: Vec<String>,
}

/// Writes `profile` for another tool.
///
/// # Errors
/// [`ProfileError::Pattern`]: a pattern that the tool does not understand, and no list of files to resolve it.
pub fn export(profile: &Profile, options: &ExportOptions<'_>) -> Result<Exported, ProfileError> {
    let files: Option<HashSet<&str>> =
        options.files.map(|files| files.iter().map(|(path, _)| *path).collect());
    let resolved = options.files.map(|files| with_files(profile, files));
    let summary = summary(resolved.as_ref().unwrap_or(profile), &|_| None);
    let (mut text, mut left_out, mut absent, mut broken) = (String::new(), 0, 0, 0);
    for file in summary.files {
        let directory = match &file.tree {
            Tree::Model => Some(options.model),
            Tree::Cache(name) => {
                options.caches.iter().find(|(known, _)| known == name).map(|(_, at)| at.as_str())
            }
        };
        let Some(directory) = directory else {
            left_out += 1;
            continue;
        };
        if let (Some(files), Tree::Model, Target::Path(path)) = (&files, &file.tree, &file.target)
            && !files.contains(path.as_str())
        {
            absent += 1;
            continue;
        }
        let directory = directory.trim_matches('/');
        let below =
            |path: &str| if directory.is_empty() { path.to_owned() } else { format!("{directory}/{path}") };
        match (options.format, &file.target) {
            (ExportFormat::CtrRemote, Target::Path(path)) => {
                let path = serde_json::Value::String(below(path));
                let _ = writeln!(text, "{{\"path\":{path}}}");
            }
            (ExportFormat::CtrRemote, Target::Glob(glob)) => {
                return Err(ProfileError::Pattern { glob: glob.clone(), format: "a record of ctr-remote" });
            }
            (ExportFormat::PrefetchList, Target::Path(path)) => {
                if path.contains(['\n', '\r']) {
                    broken += 1;
                } else {
                    let _ = writeln!(text, "/{}", quoted(&below(path)));
                }
            }
            (ExportFormat::PrefetchList, Target::Glob(glob)) => {
                // Alternatives and escapes are not in the list's language.
                if glob.contains(['{', '}', '\\', '!', '\n', '\r']) {
                    return Err(ProfileError::Pattern { glob: glob.clone(), format: "a prefetch list" });
                }
                let directory = below("");
                let _ = writeln!(text, "/{}{glob}", quoted(&directory));
            }
        }
    }
    let mut notes = Vec::new();
    for (count, what) in [
        (left_out, "of caches without a directory (--cache NAME=DIR) left out"),
        (absent, "of the profile not in the snapshot, left out"),
        (broken, "with line breaks in their names left out"),
    ] {
        if count > 0 {
            notes.push(format!("{count} file{} {what}", if count == 1 { "" } else { "s" }));
        }
    }
    Ok(Exported { text, notes })
}

/// A path as a pattern that matches it alone.
fn quoted(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    let last = path.chars().count().saturating_sub(1);
    for (index, letter) in path.chars().enumerate() {
        match letter {
            '*' | '?' | '[' => pattern.extend(['[', letter, ']']),
            // Lines are trimmed.
            letter if index == last && letter.is_whitespace() => pattern.extend(['[', letter, ']']),
            letter => pattern.push(letter),
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Profile {
        Profile::parse(
            "p",
            br#"{"version": 1, "accesses": [
                {"at": 0, "kind": "missing", "path": "params.json"},
                {"at": 1, "kind": "open", "path": "b\"[1].json"},
                {"at": 2, "kind": "read", "path": "a.json"},
                {"at": 3, "kind": "read", "path": "b\"[1].json"},
                {"at": 4, "kind": "read", "cache": "c", "path": "x.so"},
                {"at": 5, "kind": "read", "glob": "*.safetensors"},
                {"at": 6, "kind": "read", "path": "gone"}
            ]}"#,
        )
        .unwrap()
    }

    const FILES: [(&str, u64); 4] =
        [("a.json", 1), ("b\"[1].json", 1), ("m-10.safetensors", 1), ("m-2.safetensors", 1)];

    #[test]
    fn the_order_is_kept() {
        let caches = [("c".to_owned(), "/cache/".to_owned())];
        let mut options = ExportOptions {
            format: ExportFormat::CtrRemote,
            model: "/models",
            caches: &caches,
            files: Some(&FILES),
        };
        let exported = export(&profile(), &options).unwrap();
        let paths: Vec<&str> = exported.text.lines().collect();
        assert_eq!(
            paths,
            [
                r#"{"path":"models/b\"[1].json"}"#,
                r#"{"path":"models/a.json"}"#,
                r#"{"path":"cache/x.so"}"#,
                r#"{"path":"models/m-2.safetensors"}"#,
                r#"{"path":"models/m-10.safetensors"}"#,
            ]
        );
        assert_eq!(exported.notes, ["1 file of the profile not in the snapshot, left out"]);
        options.files = None;
        assert!(matches!(export(&profile(), &options), Err(ProfileError::Pattern { .. })));
    }

    #[test]
    fn prefetch_lists_take_patterns() {
        let options =
            ExportOptions { format: ExportFormat::PrefetchList, model: "models", caches: &[], files: None };
        let exported = export(&profile(), &options).unwrap();
        assert_eq!(
            exported.text,
            "/models/b\"[[]1].json\n/models/a.json\n/models/*.safetensors\n/models/gone\n"
        );
        assert_eq!(exported.notes.len(), 1);
    }
}
