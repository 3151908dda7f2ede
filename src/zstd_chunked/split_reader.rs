//! Reads a tar-split, a line at a time: memory is bounded by the longest line. Must not know whether it is right about a layer.
//!
//! Source: as [`super::tar_split`].

use std::io::{BufRead, BufReader, Read};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::tar_split::{ENTRY, SEGMENT};
use crate::members::WINDOW_LOG_MAX;

/// Most bytes that a tar-split may have: as many as a TOC.
const LENGTH_MAX: u64 = 256 << 20;
/// Most bytes of a line: one holds a header with all its records.
const LINE_MAX: u64 = 16 << 20;

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: u8,
    name: Option<String>,
    /// In base64, where the name is not UTF-8.
    name_raw: Option<String>,
    size: Option<u64>,
    payload: Option<String>,
    position: u64,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// These bytes of the stream come next.
    Segment(Vec<u8>),
    /// The content of a file comes next.
    Entry {
        /// As the tar header has it.
        name: String,
        /// Bytes of content.
        size: u64,
        /// Of the content; `None` where there is none to have one.
        crc64: Option<[u8; 8]>,
    },
}

/// A tar-split that is read.
pub(crate) struct SplitReader<'a> {
    input: BufReader<zstd::Decoder<'static, &'a [u8]>>,
    position: u64,
    /// Bytes so far.
    length: u64,
}

impl<'a> SplitReader<'a> {
    /// Reads `compressed`.
    pub(crate) fn new(compressed: &'a [u8]) -> Result<Self, String> {
        let decoder = zstd::Decoder::with_buffer(compressed).and_then(|mut decoder| {
            decoder.window_log_max(WINDOW_LOG_MAX)?;
            Ok(decoder)
        });
        let decoder = decoder.map_err(|error| error.to_string())?;
        Ok(Self { input: BufReader::new(decoder), position: 0, length: 0 })
    }

    /// Bytes that were read so far.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// What the next line says; `None` at the end. An error says what is wrong with the line.
    pub(crate) fn next(&mut self) -> Result<Option<Part>, String> {
        let number = self.position + 1;
        let mut text = Vec::new();
        let read = (&mut self.input).take(LINE_MAX).read_until(b'\n', &mut text);
        let read = read.map_err(|error| format!("line {number} cannot be read: {error}"))? as u64;
        if read == 0 {
            return Ok(None);
        }
        self.length += read;
        if read == LINE_MAX || self.length > LENGTH_MAX {
            return Err(format!("line {number} is longer than starcar reads"));
        }
        let line: Line = serde_json::from_slice(&text).map_err(|error| format!("line {number}: {error}"))?;
        if line.position != self.position {
            return Err(format!("line {number} has position {}", line.position));
        }
        self.position += 1;
        let decoded = |text: Option<String>| {
            let decoded = text.map(|text| STANDARD.decode(text)).transpose();
            decoded.map_err(|error| format!("line {number}: {error}"))
        };
        let payload = decoded(line.payload)?;
        match line.kind {
            SEGMENT => Ok(Some(Part::Segment(payload.unwrap_or_default()))),
            ENTRY => {
                let raw = decoded(line.name_raw)?.map(|raw| String::from_utf8_lossy(&raw).into_owned());
                let name = line.name.or(raw).ok_or_else(|| format!("line {number} names no file"))?;
                let size = line.size.unwrap_or_default();
                let crc64 = payload.map(<[u8; 8]>::try_from).transpose();
                let crc64 = crc64.map_err(|_| format!("line {number} has a checksum that is no CRC-64"))?;
                if size > 0 && crc64.is_none() {
                    return Err(format!("line {number} has no checksum"));
                }
                Ok(Some(Part::Entry { name, size, crc64 }))
            }
            kind => Err(format!("line {number} is of type {kind}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Result<Vec<Part>, String> {
        let compressed = zstd::bulk::compress(text.as_bytes(), 1).unwrap();
        let mut reader = SplitReader::new(&compressed)?;
        let mut parts = Vec::new();
        while let Some(part) = reader.next()? {
            parts.push(part);
        }
        assert_eq!(reader.length(), text.len() as u64);
        Ok(parts)
    }

    #[test]
    fn lines_are_understood_or_refused() {
        let text = "{\"type\":2,\"payload\":\"AAE=\",\"position\":0}\n\
                    {\"type\":1,\"name\":\"a\",\"size\":9,\"payload\":\"uQlWx3WkEAE=\",\"position\":1}\n\
                    {\"type\":1,\"name_raw\":\"/w==\",\"payload\":null,\"position\":2}\n";
        let crc64 = Some(0xb909_56c7_75a4_1001_u64.to_be_bytes());
        let expected = [
            Part::Segment(vec![0, 1]),
            Part::Entry { name: "a".into(), size: 9, crc64 },
            Part::Entry { name: "\u{fffd}".into(), size: 0, crc64: None },
        ];
        assert_eq!(parts(text).unwrap(), expected);
        for (from, to, reason) in [
            ("\"position\":1", "\"position\":2", "line 2 has position 2"),
            ("\"type\":2", "\"type\":3", "of type 3"),
            ("\"size\":9", "\"size\":-9", "line 2: "),
            ("uQlWx3WkEAE=", "AAE=", "no CRC-64"),
            ("\"uQlWx3WkEAE=\"", "null", "no checksum"),
            ("AAE=", "?", "line 1: "),
            ("name_raw", "name_rare", "names no file"),
            ("\n", "", "line 1: "),
        ] {
            let error = parts(&text.replace(from, to)).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        assert!(SplitReader::new(b"no zstd").unwrap().next().is_err());
    }
}
