//! The tar-split: all of a tar stream but the contents of its files, from which, and from the files, containers-storage
//! makes the stream anew to compare its digest with the image's. Must not know where it lies in a layer.
//!
//! Lines of JSON, numbered by `position`: one for each run of headers and padding, which holds it, and one for each
//! entry, which says how many bytes of a file come next and their CRC-64.
//!
//! Source: `github.com/vbatts/tar-split` 0.12, `tar/storage/entry.go`, `tar/storage/packer.go` and
//! `tar/asm/disassemble.go`; `go.podman.io/storage/pkg/chunked`, which wants exactly one header in each run.

use std::io::Write;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;

use crate::layer::{LayerError, WrittenEntry, header_blocks, padding, tar_name};

/// The line of an entry.
pub(super) const ENTRY: u8 = 1;
/// The line of a run of the stream.
pub(super) const SEGMENT: u8 = 2;

#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    payload: Option<String>,
    position: u64,
}

/// Numbers the lines.
struct Lines<'a> {
    out: &'a mut dyn Write,
    position: u64,
}

impl Lines<'_> {
    fn push(
        &mut self,
        kind: u8,
        name: Option<&str>,
        size: Option<u64>,
        payload: Option<&[u8]>,
    ) -> Result<(), LayerError> {
        let payload = payload.map(|bytes| STANDARD.encode(bytes));
        let mut text = serde_json::to_vec(&Line { kind, name, size, payload, position: self.position })
            .map_err(|error| LayerError::Compress(error.into()))?;
        text.push(b'\n');
        self.position += 1;
        self.out.write_all(&text).map_err(LayerError::Compress)
    }
}

/// Writes the tar-split of the stream that `entries` and then `end` form to `out`.
///
/// # Errors
/// An entry that no header can hold, or whose CRC-64 is not known; or that `out` fails.
pub(super) fn write(entries: &[WrittenEntry<'_>], end: &[u8], out: &mut dyn Write) -> Result<(), LayerError> {
    let mut lines = Lines { out, position: 0 };
    let mut before = 0;
    for written in entries {
        let entry = written.entry;
        let mut segment = vec![0; before];
        segment.extend(header_blocks(entry)?);
        lines.push(SEGMENT, None, None, Some(&segment))?;
        let name = tar_name(entry);
        let size = Some(entry.size()).filter(|size| *size > 0);
        let crc64 = match (size, written.crc64) {
            (None, _) => None,
            (Some(_), Some(crc64)) => Some(crc64.to_be_bytes()),
            (Some(_), None) => {
                let reason = "its CRC-64 is not known".to_owned();
                return Err(LayerError::Entry { path: entry.path.clone(), reason });
            }
        };
        lines.push(ENTRY, Some(&name), size, crc64.as_ref().map(<[u8; 8]>::as_slice))?;
        before = padding(entry.size());
    }
    let mut segment = vec![0; before];
    segment.extend(end);
    lines.push(SEGMENT, None, None, Some(&segment))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Content, Entry, EntryKind, Storage, tar_tail};

    fn crc64(bytes: &[u8]) -> u64 {
        crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64GoIso, bytes)
    }

    fn written(entry: &Entry) -> WrittenEntry<'_> {
        let crc64 = match &entry.kind {
            EntryKind::Regular(Content { data: crate::layer::Data::Bytes(bytes), .. }) => Some(crc64(bytes)),
            _ => None,
        };
        WrittenEntry { entry, digest: None, crc64, chunks: Vec::new() }
    }

    #[test]
    fn the_checksum_is_that_of_go() {
        // The catalogue of CRCs says this of CRC-64/GO-ISO.
        assert_eq!(crc64(b"123456789"), 0xb909_56c7_75a4_1001);
    }

    #[test]
    fn lines_are_those_of_tar_split() {
        let entries = [
            Entry::new("models", 0o755, 0, EntryKind::Directory),
            Entry::new("models/empty", 0o644, 0, EntryKind::Regular(Content::bytes("", Storage::Stored))),
            Entry::new(
                "models/<a>",
                0o644,
                0,
                EntryKind::Regular(Content::bytes("123456789", Storage::Stored)),
            ),
            Entry::new("models/link", 0o777, 0, EntryKind::Hardlink { target: "models/<a>".into() }),
        ];
        let all: Vec<WrittenEntry<'_>> = entries.iter().map(written).collect();
        let mut text = Vec::new();
        write(&all, &tar_tail(None).unwrap(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.ends_with('\n'));
        let mut lines = Vec::new();
        for line in text.lines() {
            let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
            if value["type"] == SEGMENT {
                let payload = STANDARD.decode(value["payload"].as_str().unwrap()).unwrap();
                value["payload"] = payload.len().into();
            }
            lines.push(value.to_string());
        }
        insta::assert_snapshot!(lines.join("\n"), @r#"
        {"payload":512,"position":0,"type":2}
        {"name":"models/","payload":null,"position":1,"type":1}
        {"payload":512,"position":2,"type":2}
        {"name":"models/empty","payload":null,"position":3,"type":1}
        {"payload":512,"position":4,"type":2}
        {"name":"models/<a>","payload":"uQlWx3WkEAE=","position":5,"size":9,"type":1}
        {"payload":1015,"position":6,"type":2}
        {"name":"models/link","payload":null,"position":7,"type":1}
        {"payload":1024,"position":8,"type":2}
        "#);
    }

    #[test]
    fn a_file_without_its_checksum_is_refused() {
        let entry = Entry::new("a", 0o644, 0, EntryKind::Regular(Content::bytes("1", Storage::Stored)));
        let written = WrittenEntry { crc64: None, ..written(&entry) };
        assert!(write(&[written], &[], &mut Vec::new()).unwrap_err().to_string().contains("CRC-64"));
    }
}
