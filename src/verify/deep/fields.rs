//! What a tar header says of an entry against what the table of contents says. Must not know where either comes from.
//!
//! Source: stargz-snapshotter, `estargz/estargz.go`, `appendTar`: how the table is made from headers.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::DateTime;
use tar::EntryType;

use super::listing::Listed;
use crate::{
    estargz::toc::TocEntry,
    layer::tar_reader::TarEntry,
    verify::{
        finding::{Findings, Place, Rule},
        names::clean,
        rules,
    },
};

/// The bits of a mode that are permissions.
const PERMISSIONS: u64 = 0o7777;
/// Extended attributes that a message names.
const NAMES_MAX: usize = 5;

/// The name of a kind in tables of contents; `None` for kinds that those do not have.
/// containerd refuses layers with `7` (contiguous) and `S` (GNU's sparse files), which other readers take for regular.
pub(super) fn type_name(entry: &TarEntry) -> Option<&'static str> {
    Some(match entry.kind {
        EntryType::Directory => "dir",
        EntryType::Regular => "reg",
        EntryType::Symlink => "symlink",
        EntryType::Link => "hardlink",
        EntryType::Char => "char",
        EntryType::Block => "block",
        EntryType::Fifo => "fifo",
        _ => return None,
    })
}

/// Compares all that both say. What the table says and that cannot be understood is left out: that is seen without the
/// layer.
pub(super) fn compare(listed: Listed<'_>, entry: &TarEntry, place: &Place, findings: &mut Findings) {
    let toc = listed.entry;
    let mut differ = |rule: &'static Rule, table: &str, stream: &str| {
        let message = format!("the table of contents says {table}, the tar stream {stream}");
        findings.add(rule, place.clone(), message);
    };
    let kind = type_name(entry).unwrap_or("something else");
    if toc.entry_type != kind {
        differ(&rules::TAR_TYPE, &toc.entry_type, kind);
        return;
    }
    if kind == "reg" && toc.size != entry.size {
        differ(&rules::TAR_SIZE, &format!("{} bytes", toc.size), &entry.size.to_string());
    }
    let (listed_mode, mode) = (toc.mode & PERMISSIONS, entry.mode & PERMISSIONS);
    if listed_mode != mode {
        differ(&rules::TAR_MODE, &format!("{listed_mode:o}"), &format!("{mode:o}"));
    }
    if (toc.uid, toc.gid) != (entry.uid, entry.gid) {
        let owner = |uid, gid| format!("{uid}:{gid}");
        differ(&rules::TAR_OWNER, &owner(toc.uid, toc.gid), &owner(entry.uid, entry.gid));
    }
    for (stated, effective, name) in
        [(&toc.user_name, listed.user, &entry.user), (&toc.group_name, listed.group, &entry.group)]
    {
        let name = String::from_utf8_lossy(name);
        if stated.as_str() != name && effective != name {
            differ(&rules::TAR_OWNER_NAME, &format!("{effective:?}"), &format!("{name:?}"));
        }
    }
    time(toc, entry, &mut differ);
    if matches!(kind, "symlink" | "hardlink") {
        let link = String::from_utf8_lossy(&entry.link);
        // Symbolic links mean what they say; hard links name an entry.
        let same = toc.link_name == link || kind == "hardlink" && clean(&toc.link_name) == clean(&link);
        if !same {
            differ(&rules::TAR_LINK, &format!("{:?}", toc.link_name), &format!("{link:?}"));
        }
    }
    let is_device = matches!(kind, "char" | "block");
    if is_device && (toc.dev_major, toc.dev_minor) != (entry.dev_major, entry.dev_minor) {
        let device = |major, minor| format!("{major}:{minor}");
        let (table, stream) =
            (device(toc.dev_major, toc.dev_minor), device(entry.dev_major, entry.dev_minor));
        differ(&rules::TAR_DEVICE, &table, &stream);
    }
    xattrs(toc, entry, &mut differ);
}

fn time(toc: &TocEntry, entry: &TarEntry, differ: &mut impl FnMut(&'static Rule, &str, &str)) {
    let listed = match toc.modified.as_str() {
        // The reference leaves 1970 out.
        "" => 0,
        text => match DateTime::parse_from_rfc3339(text) {
            Ok(time) => time.timestamp(),
            Err(_) => return,
        },
    };
    // The reference rounds to the nearest second.
    let rounded = entry.modified.saturating_add(i64::from(entry.modified_nanos > 0));
    if listed != entry.modified && listed != rounded {
        let text = |seconds| {
            DateTime::from_timestamp(seconds, 0)
                .map_or_else(|| format!("{seconds} seconds after 1970"), |time| time.to_rfc3339())
        };
        differ(&rules::TAR_TIME, &text(listed), &text(entry.modified));
    }
}

fn xattrs(toc: &TocEntry, entry: &TarEntry, differ: &mut impl FnMut(&'static Rule, &str, &str)) {
    let mut listed = BTreeMap::new();
    for (name, value) in &toc.xattrs {
        let Ok(value) = STANDARD.decode(value) else { return };
        listed.insert(name.as_str(), value);
    }
    let only = |name: &&str| listed.get(*name) != entry.xattrs.get(*name);
    let mut names: Vec<&str> = listed.keys().copied().filter(only).collect();
    names.extend(entry.xattrs.keys().map(String::as_str).filter(|name| !listed.contains_key(name)));
    if names.is_empty() {
        return;
    }
    let named = names.iter().take(NAMES_MAX).map(|name| name.escape_debug().to_string());
    let named = named.collect::<Vec<_>>().join(", ");
    let values = |has: &dyn Fn(&str) -> bool| {
        let count = names.iter().filter(|name| has(name)).count();
        format!("{count} of {named}")
    };
    let table = values(&|name| listed.contains_key(name));
    let stream = values(&|name| entry.xattrs.contains_key(name));
    if table == stream {
        differ(&rules::TAR_XATTR, &format!("one value of {named}"), "another");
    } else {
        differ(&rules::TAR_XATTR, &table, &stream);
    }
}
