//! A base from one static multi-call binary.
//!
//! Source: System V ABI, "ELF Header" and "Program Header"; KServe's storage initializer for what it runs.

use std::{
    fs::{self, File},
    path::Path,
    sync::Arc,
};

use super::{Base, BaseError, BaseLayer};
use crate::{
    blob::{FileStamp, Source},
    layer::{Content, Data, Entry, EntryKind, Storage},
    oci::Platform,
    plan::{CHUNK_SIZE_DEFAULT, chunk_lengths},
};

/// Tools without which KServe's modelcar containers do not start.
const REQUIRED: [&str; 5] = ["ln", "ls", "mkdir", "sh", "sleep"];

/// Tools that help whoever looks into a running container. Linked where the binary has them.
const USEFUL: [&str; 30] = [
    "[",
    "ash",
    "basename",
    "cat",
    "chmod",
    "cp",
    "cut",
    "date",
    "df",
    "dirname",
    "du",
    "echo",
    "env",
    "false",
    "find",
    "grep",
    "head",
    "id",
    "mv",
    "printf",
    "ps",
    "pwd",
    "readlink",
    "rm",
    "sed",
    "sha256sum",
    "stat",
    "tail",
    "true",
    "wc",
];

/// Largest binary that is taken, in bytes; a busybox has 1 to 2 MB.
const SIZE_MAX: u64 = 64 << 20;

pub(super) fn base(path: &Path, platform: &Platform, modified: i64) -> Result<Base, BaseError> {
    let read_error = |cause| BaseError::Read { path: path.to_owned(), cause };
    let unusable = |reason: String| BaseError::Binary { path: path.to_owned(), reason };
    let metadata = File::open(path).and_then(|file| file.metadata()).map_err(read_error)?;
    if !metadata.is_file() || metadata.len() > SIZE_MAX {
        return Err(unusable(format!("expected a regular file of at most {SIZE_MAX} bytes")));
    }
    let stamp = FileStamp::of(&metadata);
    let bytes = fs::read(path).map_err(read_error)?;
    check_elf(&bytes, platform).map_err(unusable)?;
    let has = |name: &str| {
        let wanted = [b"\0", name.as_bytes(), b"\0"].concat();
        bytes.windows(wanted.len()).any(|window| window == wanted)
    };
    let missing: Vec<&str> = REQUIRED.into_iter().filter(|name| !has(name)).collect();
    if !missing.is_empty() {
        return Err(unusable(format!(
            "it has no {}, which KServe runs; use a complete busybox",
            missing.join(", ")
        )));
    }

    let binary = path.file_name().and_then(|name| name.to_str()).unwrap_or("busybox").to_owned();
    let mut links: Vec<&str> = REQUIRED
        .into_iter()
        .chain(USEFUL.into_iter().filter(|name| has(name)))
        .filter(|name| *name != binary)
        .collect();
    links.sort_unstable();
    let source = Arc::new(Source::Path { path: path.to_owned(), stamp });
    let content = Content {
        data: Data::Source { source, offset: 0 },
        storage: Storage::Compressed,
        chunks: chunk_lengths(stamp.size, CHUNK_SIZE_DEFAULT),
        expected: Vec::new(),
    };
    let mut entries = vec![
        Entry::new("bin", 0o755, modified, EntryKind::Directory),
        Entry::new(format!("bin/{binary}"), 0o755, modified, EntryKind::Regular(content)),
    ];
    entries.extend(links.into_iter().map(|name| {
        Entry::new(format!("bin/{name}"), 0o777, modified, EntryKind::Symlink { target: binary.clone() })
    }));
    entries.push(Entry::new("tmp", 0o1777, modified, EntryKind::Directory));
    let created_by = format!("starcar pack: /bin from {binary}");
    Ok(Base { layers: vec![BaseLayer { entries, created_by }], ..Base::default() })
}

/// Checks that `bytes` are a static ELF executable for `platform`; if not, says why.
fn check_elf(bytes: &[u8], platform: &Platform) -> Result<(), String> {
    /// Program header type of a dynamic loader's path.
    const PT_INTERP: u32 = 3;

    let header = bytes.get(..64).filter(|header| header.starts_with(b"\x7fELF"));
    let header = header.ok_or("it is no ELF executable")?;
    if header[4] != 2 || header[5] != 1 {
        return Err("it is no 64-bit little-endian executable".to_owned());
    }
    let machine = match u16::from_le_bytes([header[18], header[19]]) {
        62 => "amd64",
        183 => "arm64",
        243 => "riscv64",
        _ => "another architecture",
    };
    if platform.os != "linux" || platform.architecture != machine {
        return Err(format!("it is for linux/{machine}, the image is for {platform}"));
    }
    let number = |start: usize, length: usize| {
        header[start..start + length]
            .iter()
            .rev()
            .fold(0_usize, |value, byte| value << 8 | usize::from(*byte))
    };
    let (table, entry_size, count) = (number(32, 8), number(54, 2), number(56, 2));
    for index in 0..count {
        let kind = index
            .checked_mul(entry_size)
            .and_then(|offset| table.checked_add(offset))
            .and_then(|start| bytes.get(start..start.checked_add(4)?))
            .ok_or("its program headers are cut short")?;
        if kind == PT_INTERP.to_le_bytes() {
            return Err("it is linked dynamically; use a static build (Debian: busybox-static)".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest file that passes for a static multi-call binary.
    fn binary(machine: u16, segment: u32, names: &str) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 1;
        bytes.extend(segment.to_le_bytes());
        bytes.extend([0; 52]);
        bytes.extend(names.replace(' ', "\0").bytes());
        bytes
    }

    fn from(content: &[u8]) -> Result<Base, BaseError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("busybox");
        fs::write(&path, content).unwrap();
        base(&path, &Platform::default(), 7)
    }

    #[test]
    fn tools_are_links_to_the_binary() {
        let base = from(&binary(62, 1, " cat ln ls mkdir sh sleep ")).unwrap();
        let paths: Vec<&str> = base.layers[0].entries.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(
            paths,
            ["bin", "bin/busybox", "bin/cat", "bin/ln", "bin/ls", "bin/mkdir", "bin/sh", "bin/sleep", "tmp"]
        );
        assert!(
            matches!(&base.layers[0].entries[2].kind, EntryKind::Symlink { target } if target == "busybox")
        );
    }

    #[test]
    fn unfit_files_are_refused() {
        let names = " ln ls mkdir sh sleep ";
        for (content, reason) in [
            (binary(62, 3, names), "dynamically"),
            (binary(183, 1, names), "linux/arm64"),
            (binary(62, 1, " ln ls mkdir sleep "), "has no sh"),
            (b"#!/bin/sh".to_vec(), "no ELF"),
            (binary(62, 1, names)[..70].to_vec(), "has no"),
            (binary(62, 1, names)[..65].to_vec(), "cut short"),
        ] {
            let error = from(&content).unwrap_err().to_string();
            assert!(error.contains(reason), "{error} lacks {reason}");
        }
    }
}
