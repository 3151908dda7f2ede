//! What entries say of themselves: names, types, times, links, parents. Must not know where their bytes are.

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::DateTime;

use super::TocView;
use crate::{
    estargz::{TOC_NAME, toc::TocEntry},
    verify::{
        finding::{Findings, Place},
        names::{clean, is_missed, parent},
        rules,
    },
};

/// Bits that a mode can have: permissions, setuid, setgid and sticky.
const MODE_BITS: u64 = 0o7777;

pub(super) fn check(toc: TocView<'_>, layer: &Place, findings: &mut Findings) {
    let mut by_name: HashMap<String, usize> = HashMap::new();
    for (index, entry) in toc.entries.iter().enumerate() {
        let place = || layer.clone().file(&entry.name);
        name(entry, &place, findings);
        fields(entry, &place, findings);
        if entry.entry_type != "chunk" && by_name.insert(clean(&entry.name), index).is_some() {
            findings.add(&rules::ENTRY_DUPLICATE, place(), "the table of contents lists it twice");
        }
    }
    for (index, entry) in toc.entries.iter().enumerate() {
        let place = || layer.clone().file(&entry.name);
        if entry.entry_type == "chunk" {
            continue;
        }
        parents(entry, toc.entries, &by_name, &place, findings);
        if entry.entry_type == "hardlink" && !entry.link_name.is_empty() {
            hardlink(index, entry, toc.entries, &by_name, &place, findings);
        }
    }
}

fn name(entry: &TocEntry, place: &impl Fn() -> Place, findings: &mut Findings) {
    let name = &entry.name;
    if name.is_empty() || name.contains('\0') || name.split('/').any(|part| part == "..") {
        findings.add(&rules::ENTRY_NAME, place(), format!("an entry is named {name:?}"));
    } else if is_missed(name) && entry.entry_type != "chunk" {
        findings.add(&rules::ENTRY_NAME_UNCLEAN, place(), format!("the entry is named {name:?}"));
    }
    if clean(name) == TOC_NAME {
        findings.add(&rules::TOC_RESERVED_NAME, place(), "the table of contents lists itself");
    }
}

fn fields(entry: &TocEntry, place: &impl Fn() -> Place, findings: &mut Findings) {
    let kind = entry.entry_type.as_str();
    let known = ["dir", "reg", "symlink", "hardlink", "char", "block", "fifo", "chunk"].contains(&kind);
    if !known {
        findings.add(&rules::ENTRY_TYPE, place(), format!("its type is {kind:?}"));
        return;
    }
    let numbers = [
        ("size", entry.size),
        ("mode", entry.mode),
        ("uid", entry.uid),
        ("gid", entry.gid),
        ("devMajor", entry.dev_major),
        ("devMinor", entry.dev_minor),
        ("offset", entry.offset),
        ("chunkOffset", entry.chunk_offset),
        ("chunkSize", entry.chunk_size),
        ("innerOffset", entry.inner_offset),
    ];
    for (field, number) in numbers.into_iter().filter(|(_, number)| i64::try_from(*number).is_err()) {
        findings.add(&rules::ENTRY_NUMBER, place(), format!("its {field} is {number}"));
    }
    if entry.mode & !MODE_BITS != 0 {
        findings.add(&rules::ENTRY_MODE, place(), format!("its mode is {:o} (octal)", entry.mode));
    }
    if !entry.modified.is_empty() && DateTime::parse_from_rfc3339(&entry.modified).is_err() {
        findings.add(&rules::ENTRY_TIME, place(), format!("its time is {:?}", entry.modified));
    }
    let is_link = ["symlink", "hardlink"].contains(&kind);
    if is_link && entry.link_name.is_empty() {
        findings.add(&rules::ENTRY_LINK, place(), format!("the {kind} says no target"));
    }
    for (name, value) in &entry.xattrs {
        if STANDARD.decode(value).is_err() {
            let message = format!("the value of its attribute {name:?} is {value:?}");
            findings.add(&rules::ENTRY_XATTR, place(), message);
        }
    }
    let is_data = ["reg", "chunk"].contains(&kind);
    let is_device = ["char", "block"].contains(&kind);
    let odd = [
        ("a size", entry.size != 0 && kind != "reg"),
        ("a target", !entry.link_name.is_empty() && !is_link),
        (
            "a chunk",
            !is_data && (entry.chunk_size != 0 || entry.chunk_offset != 0 || !entry.chunk_digest.is_empty()),
        ),
        ("a file's digest", !entry.digest.is_empty() && kind != "reg"),
        ("device numbers", (entry.dev_major, entry.dev_minor) != (0, 0) && !is_device),
    ];
    for (what, _) in odd.into_iter().filter(|(_, is)| *is) {
        findings.add(&rules::ENTRY_FIELDS, place(), format!("the {kind} has {what}"));
    }
}

fn parents(
    entry: &TocEntry,
    entries: &[TocEntry],
    by_name: &HashMap<String, usize>,
    place: &impl Fn() -> Place,
    findings: &mut Findings,
) {
    let path = clean(&entry.name);
    let Some(directory) = parent(&path) else { return };
    // Only the next one up: the others are looked at when it is their turn, and a path of many parts costs no more.
    match by_name.get(directory).and_then(|index| entries.get(*index)) {
        None => {
            let message = format!("the layer does not list its directory {directory:?}");
            findings.add(&rules::PARENT_MISSING, place(), message);
        }
        Some(parent) if parent.entry_type == "symlink" => {
            let message = format!("it lies in {directory:?}, which is a link to {:?}", parent.link_name);
            findings.add(&rules::PARENT_SYMLINK, place(), message);
        }
        Some(parent) if parent.entry_type != "dir" => {
            let message = format!("it lies in {directory:?}, which is a {}", parent.entry_type);
            findings.add(&rules::PARENT_KIND, place(), message);
        }
        Some(_) => {}
    }
}

fn hardlink(
    index: usize,
    entry: &TocEntry,
    entries: &[TocEntry],
    by_name: &HashMap<String, usize>,
    place: &impl Fn() -> Place,
    findings: &mut Findings,
) {
    let target = &entry.link_name;
    let Some(found) = by_name.get(&clean(target)) else {
        let message = format!("it links to {target:?}, which the layer does not have");
        findings.add(&rules::HARDLINK_TARGET, place(), message);
        return;
    };
    match entries.get(*found).map(|target| target.entry_type.as_str()) {
        Some(kind) if kind != "dir" && *found != index => {}
        kind => {
            let message = format!("it links to {target:?}, which is a {}", kind.unwrap_or_default());
            findings.add(&rules::HARDLINK_KIND, place(), message);
            return;
        }
    }
    if *found > index {
        findings.add(&rules::HARDLINK_ORDER, place(), format!("it comes before its target {target:?}"));
    }
}
