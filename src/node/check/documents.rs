//! containerd's settings as it puts them together: a file and its imports. Must not know which of them are good.

use std::{collections::BTreeSet, io, path::Path};

use toml::{Table, Value};

use super::{finding::Report, host::Host, rules, snapshotter::malformed};
use crate::{glob, node::Version};

/// Most files that are read.
const FILES_MAX: usize = 256;

/// All that containerd's settings say.
#[derive(Debug)]
pub(super) struct Documents {
    /// The main file, and what its imports say in place of it.
    pub(super) table: Table,
    /// The version of the main file; 1 where it has none.
    pub(super) version: i64,
    /// Whether something could not be read, so that what is not here may be said elsewhere.
    pub(super) is_partial: bool,
}

/// Reads the file and its imports; nothing where there is no file, or none that can be read.
pub(super) fn read(
    host: &Host,
    path: &str,
    containerd: Option<Version>,
    report: &mut Report,
) -> Option<Documents> {
    let main = match host.read(path) {
        Ok(text) => parse(&text, &host.shown(path), report)?,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            report.find(&rules::CONTAINERD_CONFIG_MISSING, host.shown(path), "there is none");
            return None;
        }
        Err(cause) => {
            report.unknown(host.shown(path), cause, "how containerd is set");
            return None;
        }
    };
    let version = main.get("version").and_then(Value::as_integer).unwrap_or(1);
    let mut documents = Documents { table: Table::new(), version, is_partial: false };
    let mut pending = vec![(path.to_owned(), main)];
    let mut seen = BTreeSet::from([path.to_owned()]);
    while let Some((path, table)) = pending.pop() {
        // Later files say the last word; of one file's imports the later ones do.
        for import in imports(host, &path, &table, &mut documents, report).into_iter().rev() {
            if seen.len() >= FILES_MAX || !seen.insert(import.clone()) {
                continue;
            }
            match host.read(&import) {
                Ok(text) => match parse(&text, &host.shown(&import), report) {
                    Some(table) => pending.push((import, table)),
                    None => documents.is_partial = true,
                },
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                    report.find(
                        &rules::CONTAINERD_IMPORT_MISSING,
                        host.shown(&import),
                        format!("{path} imports it"),
                    );
                }
                Err(cause) => {
                    documents.is_partial = true;
                    report.unknown(host.shown(&import), cause, "what containerd is told there");
                }
            }
        }
        replaced(&documents.table, &table, &host.shown(&path), containerd, report);
        merge(&mut documents.table, table, 0);
    }
    Some(documents)
}

fn parse(text: &str, at: &str, report: &mut Report) -> Option<Table> {
    match text.parse() {
        Ok(table) => Some(table),
        Err(error) => {
            report.find(&rules::CONTAINERD_CONFIG_MALFORMED, at, malformed(text, &error));
            None
        }
    }
}

/// The files that a file imports: paths from its own directory, with wildcards in the last part.
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
        let path = Path::new(of).parent().unwrap_or(Path::new("/")).join(name);
        let (Some(directory), Some(pattern)) =
            (path.parent(), path.file_name().and_then(|name| name.to_str()))
        else {
            continue;
        };
        if !name.contains(['*', '?', '[']) {
            found.push(path.to_string_lossy().into_owned());
            continue;
        }
        let directory = directory.to_string_lossy();
        match host.list(&directory) {
            Ok(names) => {
                let Ok(matcher) = glob::matcher(pattern, true) else { continue };
                let matching = names.into_iter().filter(|name| matcher.is_match(name));
                found.extend(matching.map(|name| format!("{}/{name}", directory.trim_end_matches('/'))));
            }
            // A pattern need not match anything.
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => {
                documents.is_partial = true;
                report.unknown(host.shown(&directory), cause, format!("what {name} imports"));
            }
        }
    }
    found
}

/// containerd 1.x takes a plugin's settings from the last file that has any.
fn replaced(before: &Table, later: &Table, at: &str, containerd: Option<Version>, report: &mut Report) {
    if containerd.is_some_and(|version| version >= Version::new(2, 0, 0)) {
        return;
    }
    let plugins = |table: &Table| table.get("plugins").and_then(Value::as_table).cloned().unwrap_or_default();
    let (before, later) = (plugins(before), plugins(later));
    // Version 3 is read by containerd 2 alone.
    for name in
        later.keys().filter(|name| before.contains_key(*name) && !name.starts_with("io.containerd.cri."))
    {
        report.find(
            &rules::CONTAINERD_IMPORT_REPLACES,
            at,
            format!("it sets {name}, which a file before it sets, too"),
        );
    }
}

/// Puts `later` over `base`, table by table; lists that switch plugins off grow.
fn merge(base: &mut Table, later: Table, depth: usize) {
    for (name, value) in later {
        match (base.get_mut(&name), value) {
            (Some(Value::Table(base)), Value::Table(later)) if depth < 16 => merge(base, later, depth + 1),
            (Some(Value::Array(base)), Value::Array(later)) if name == "disabled_plugins" => {
                base.extend(later);
            }
            (_, value) => {
                base.insert(name, value);
            }
        }
    }
}
