//! containerd's settings: a file and its imports, in the order in which containerd reads them. Must not know what it
//! makes of them, nor which of them are good.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    path::{Component, Path},
};

use toml::{Table, Value};

use super::{combined::File, finding::Report, host::Host, rules, snapshotter::malformed};
use crate::{glob, node::Version};

/// Most files that are read, and most that a pattern may name.
const FILES_MAX: usize = 256;

/// All that containerd's settings say.
#[derive(Debug)]
pub(super) struct Documents {
    /// The main file and its imports.
    pub(super) files: Vec<File>,
    /// Whether something could not be read, so that what is not here may be said elsewhere.
    pub(super) is_partial: bool,
}

/// Reads the file and its imports; nothing where there is no file, or none that can be read.
pub(super) fn read(host: &Host, path: &str, report: &mut Report) -> Option<Documents> {
    let mut documents = Documents { files: Vec::new(), is_partial: false };
    let mut pending = VecDeque::from([clean(Path::new(path))]);
    let mut seen = BTreeSet::new();
    let mut importers = VecDeque::from([String::new()]);
    while let (Some(path), Some(importer)) = (pending.pop_front(), importers.pop_front()) {
        let is_main = seen.is_empty();
        if !seen.insert(path.clone()) {
            continue;
        }
        if seen.len() > FILES_MAX {
            documents.is_partial = true;
            report.unknown(host.shown(&path), "too many files are imported", "what containerd is told there");
            break;
        }
        let at = host.shown(&path);
        let table = match host.read(&path) {
            Ok(text) => parse(&text, &at, report),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound && is_main => {
                report.find(&rules::CONTAINERD_CONFIG_MISSING, at, "there is none");
                return None;
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                report.find(&rules::CONTAINERD_IMPORT_MISSING, at, format!("{importer} imports it"));
                continue;
            }
            Err(cause) => {
                let unknown = if is_main { "how containerd is set" } else { "what containerd is told there" };
                report.unknown(&at, cause, unknown);
                None
            }
        };
        let Some(table) = table else {
            if is_main {
                return None;
            }
            documents.is_partial = true;
            continue;
        };
        // Those of all files that were read come before those of their imports.
        for import in imports(host, &path, &table, &mut documents, report) {
            pending.push_back(import);
            importers.push_back(path.clone());
        }
        documents.files.push(File { at, table });
    }
    Some(documents)
}

fn parse(text: &str, at: &str, report: &mut Report) -> Option<Table> {
    let found = match text.parse::<Table>() {
        // Our parser passes over it, containerd's does not.
        Ok(_) if text.starts_with('\u{feff}') => "line 1: a byte order mark".to_owned(),
        Ok(table) => match unfit(&table) {
            None => return Some(table),
            Some(found) => found,
        },
        Err(error) => malformed(text, &error),
    };
    report.find(&rules::CONTAINERD_CONFIG_MALFORMED, at, found);
    None
}

/// What keeps a file that is TOML from being containerd's, of what is looked at here.
fn unfit(table: &Table) -> Option<String> {
    let texts = |value: &Value| value.as_array().is_some_and(|array| array.iter().all(Value::is_str));
    for (name, fits, kind) in [
        ("version", Value::is_integer as fn(&Value) -> bool, "a whole number"),
        ("imports", texts, "a list of texts"),
        ("disabled_plugins", texts, "a list of texts"),
        ("plugins", Value::is_table, "a table"),
        (
            "proxy_plugins",
            |value| value.as_table().is_some_and(|table| table.values().all(Value::is_table)),
            "tables",
        ),
    ] {
        if table.get(name).is_some_and(|value| !fits(value)) {
            return Some(format!("{name} is not {kind}"));
        }
    }
    for (name, proxy) in table.get("proxy_plugins").and_then(Value::as_table).into_iter().flatten() {
        for key in ["type", "address"] {
            if proxy.get(key).is_some_and(|value| !value.is_str()) {
                return Some(format!("proxy_plugins.{name}.{key} is not a text"));
            }
        }
        let exports = proxy.get("exports");
        if exports
            .is_some_and(|exports| !exports.as_table().is_some_and(|table| table.values().all(Value::is_str)))
        {
            return Some(format!("proxy_plugins.{name}.exports are not texts"));
        }
    }
    None
}

/// The files that a file imports, by paths from its own directory. Only with a `*` is one a pattern.
fn imports(
    host: &Host,
    of: &str,
    table: &Table,
    documents: &mut Documents,
    report: &mut Report,
) -> Vec<String> {
    let named =
        table.get("imports").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let mut found = Vec::new();
    for name in named.take(FILES_MAX) {
        let path = clean(&Path::new(of).parent().unwrap_or(Path::new("/")).join(name));
        if path.contains('*') {
            match expand(host, &path) {
                Ok(paths) => found.extend(paths),
                Err(cause) => {
                    documents.is_partial = true;
                    report.unknown(host.shown(of), cause, format!("what {name} imports"));
                }
            }
        } else {
            found.push(path);
        }
    }
    found
}

/// The paths that a pattern names, directory by directory. A pattern need not match anything.
fn expand(host: &Host, pattern: &str) -> io::Result<Vec<String>> {
    let mut found = vec![String::new()];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let mut next = Vec::new();
        for directory in found {
            if !part.contains(['*', '?', '[', '\\']) {
                next.push(format!("{directory}/{part}"));
                continue;
            }
            // Braces are nothing but braces to Go.
            let escaped = part.replace('{', "\\{").replace('}', "\\}");
            let matcher = glob::matcher(&escaped, true).map_err(io::Error::other)?;
            let names = match host.list(if directory.is_empty() { "/" } else { &directory }) {
                Ok(names) => names,
                Err(cause)
                    if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
                {
                    continue;
                }
                Err(cause) => return Err(cause),
            };
            let names = names.into_iter().filter(|name| matcher.is_match(name));
            next.extend(names.map(|name| format!("{directory}/{name}")));
        }
        next.truncate(FILES_MAX);
        found = next;
    }
    // A name behind a pattern is there in some of the directories.
    found.retain(|path| !matches!(host.find(path), Err(cause) if cause.kind() == io::ErrorKind::NotFound));
    Ok(found)
}

/// A path without `.` and `..`, as Go's `filepath.Clean` writes it: one file has one name.
fn clean(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    format!("/{}", parts.join("/"))
}

/// Plugins that two files set, of which containerd 1.x takes the last file's settings alone.
pub(super) fn replaced(documents: &Documents, containerd: Option<Version>, report: &mut Report) {
    if containerd.is_some_and(|version| version >= Version::new(2, 0, 0)) {
        return;
    }
    let mut seen = BTreeSet::new();
    for file in &documents.files {
        let plugins = file.table.get("plugins").and_then(Value::as_table);
        // Version 3 is read by containerd 2 alone.
        for name in
            plugins.into_iter().flat_map(Table::keys).filter(|name| !name.starts_with("io.containerd.cri."))
        {
            if !seen.insert(name) {
                let found = format!("it sets {name}, which a file before it sets, too");
                report.find(&rules::CONTAINERD_IMPORT_REPLACES, &file.at, found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        for (path, expected) in [
            ("/a/./b//c/../d", "/a/b/d"),
            ("/../../a", "/a"),
            ("/", "/"),
            ("a/b", "/a/b"),
            ("/a/*/../b", "/a/b"),
        ] {
            assert_eq!(clean(Path::new(path)), expected);
        }
    }

    #[test]
    fn patterns_are_followed_directory_by_directory() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["b.d/x.toml", "a.d/x.toml", "a.d/.y.toml", "c.d/z", "x{1,2}.toml"] {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let host = Host::new(directory.path());
        let of = |pattern: &str| expand(&host, pattern).unwrap();
        assert_eq!(of("/*.d/x.toml"), ["/a.d/x.toml", "/b.d/x.toml"]);
        assert_eq!(of("/a.d/*.toml"), ["/a.d/.y.toml", "/a.d/x.toml"]);
        assert_eq!(of("/x{1,2}*"), ["/x{1,2}.toml"]);
        assert_eq!(of("/x{1,2}.toml/*"), [""; 0]);
        assert_eq!(of("/none/*.toml"), [""; 0]);
        assert!(expand(&host, "/[*").is_err());
    }

    #[test]
    fn values_of_another_kind_are_not_containerds() {
        for (text, is_fit) in [
            ("version = 3\nimports = [\"a\"]\nproxy_plugins.a.exports.root = \"/\"", true),
            ("version = \"3\"", false),
            ("imports = \"a\"", false),
            ("disabled_plugins = [1]", false),
            ("plugins = []", false),
            ("proxy_plugins.stargz = \"/a.sock\"", false),
            ("proxy_plugins.stargz.address = 1", false),
            ("proxy_plugins.stargz.exports.enable_remote_snapshot_annotations = true", false),
        ] {
            assert_eq!(unfit(&text.parse().unwrap()).is_none(), is_fit, "{text}");
        }
    }
}
