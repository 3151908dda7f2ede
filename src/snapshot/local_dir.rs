//! The records of a `--local-dir` download: which commit a file came from and which content it had. Must
//! not know which files are packed.
//!
//! Source: `huggingface_hub` 2.4, `_local_folder.py` (`read_download_metadata`).

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    locate::LOCAL_DIR_RECORDS,
    read::read_small,
    report::{ExpectedDigest, Warning},
    revision::is_commit,
};
use crate::blob::FileStamp;

/// Longest record in bytes; one has about 130.
const MAX_RECORD_LENGTH: u64 = 4096;

/// A file's download record.
#[derive(Debug, PartialEq)]
pub(super) struct Record {
    /// Where it was read.
    pub(super) path: PathBuf,
    /// The commit that the file was downloaded from.
    pub(super) commit: String,
    /// The content's digest, where the etag is one.
    pub(super) digest: Option<ExpectedDigest>,
    /// When the file was known to have that content, in seconds since 1970.
    timestamp: f64,
}

impl Record {
    /// Whether the file is still the one that was downloaded: not written since, with the second's
    /// tolerance that the hub grants to coarse clocks of file systems.
    pub(super) fn is_current(&self, stamp: &FileStamp) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "the hub compares floating-point seconds as well")]
        let modified = stamp.modified_seconds as f64 + stamp.modified_nanoseconds as f64 / 1e9;
        modified - 1.0 <= self.timestamp
    }
}

/// Reads the record of the file at `path` inside the directory `root`; a file that the user added has none
/// (`Ok(None)`), and one that cannot be used is a warning.
pub(super) fn record(root: &Path, path: &str) -> Result<Option<Record>, Warning> {
    let place = root.join(LOCAL_DIR_RECORDS).join("download").join(format!("{path}.metadata"));
    let unusable = |problem| Warning::UnusableMetadata { path: place.clone(), problem };
    let bytes = match read_small(&place, MAX_RECORD_LENGTH) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(unusable(error.to_string())),
    };
    let (commit, digest, timestamp) = parse(&bytes).map_err(|problem| unusable(problem.to_owned()))?;
    Ok(Some(Record { path: place, commit, digest, timestamp }))
}

fn parse(bytes: &[u8]) -> Result<(String, Option<ExpectedDigest>, f64), &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    let mut lines = text.lines().map(str::trim);
    let commit = lines.next().filter(|line| is_commit(line)).ok_or("its first line is no commit")?;
    let etag = lines.next().ok_or("it has no etag")?;
    let timestamp = lines
        .next()
        .and_then(|line| line.parse::<f64>().ok())
        .filter(|timestamp| timestamp.is_finite())
        .ok_or("its third line is no time")?;
    Ok((commit.to_owned(), ExpectedDigest::from_etag(etag), timestamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read() {
        let commit = "a".repeat(40);
        let etag = "b".repeat(64);
        let (found, digest, timestamp) =
            parse(format!("{commit}\n{etag}\n1712656091.123\n").as_bytes()).unwrap();
        assert_eq!((found, digest), (commit.clone(), ExpectedDigest::from_etag(&etag)));
        assert!((timestamp - 1_712_656_091.123).abs() < 1e-3);
        for text in ["", "x\ny\n1\n", &commit, &format!("{commit}\n{etag}\n"), &format!("{commit}\ne\nNaN")] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse(&[0xff]).is_err());
    }

    #[test]
    fn a_file_written_later_is_not_current() {
        let record = Record { path: PathBuf::new(), commit: String::new(), digest: None, timestamp: 100.5 };
        let stamp = |seconds, nanoseconds| FileStamp {
            modified_seconds: seconds,
            modified_nanoseconds: nanoseconds,
            ..FileStamp::default()
        };
        assert!(record.is_current(&stamp(100, 0)));
        assert!(record.is_current(&stamp(101, 500_000_000)));
        assert!(!record.is_current(&stamp(101, 600_000_000)));
    }
}
