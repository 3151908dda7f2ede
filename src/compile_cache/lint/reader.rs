//! Reads files up to a limit. A file that is no longer the one that was found is not read: that is another rule's.
//! Must not know rules.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
};

use rustix::fs::OFlags;

use super::{Finding, Severity, rules::UNREAD};
use crate::{
    blob::FileStamp,
    compile_cache::{CacheError, CacheFile},
};

/// What a rule may still read.
#[derive(Debug)]
pub(super) struct Reader {
    files: usize,
    bytes: u64,
    skipped: usize,
    first: Option<String>,
}

impl Reader {
    /// A rule may read so many files and so many bytes.
    pub(super) fn new(files: usize, bytes: u64) -> Self {
        Self { files, bytes, skipped: 0, first: None }
    }

    /// The file's first bytes, at most `most`; `None` when it has changed or enough was read.
    pub(super) fn read(&mut self, file: &CacheFile, most: u64) -> Result<Option<Vec<u8>>, CacheError> {
        let Some(opened) = self.open(file, most)? else { return Ok(None) };
        let mut bytes = Vec::new();
        opened.take(most).read_to_end(&mut bytes).map_err(failed(file))?;
        Ok(Some(bytes))
    }

    /// The file, and how many of its bytes may be read; `None` as for [`Reader::read`]. What of a file is more than may
    /// be read counts as not read.
    pub(super) fn open_part(&mut self, file: &CacheFile) -> Result<Option<(File, u64)>, CacheError> {
        let most = file.stamp.size.min(self.bytes);
        let partly = self.files > 0 && most > 0 && most < file.stamp.size;
        if partly {
            self.skip(file);
        } else if most < file.stamp.size {
            self.skip(file);
            return Ok(None);
        }
        Ok(self.open(file, most)?.map(|opened| (opened, most)))
    }

    /// The file, of which at most `most` bytes will be read; `None` as for [`Reader::read`].
    pub(super) fn open(&mut self, file: &CacheFile, most: u64) -> Result<Option<File>, CacheError> {
        let size = file.stamp.size.min(most);
        if self.files == 0 || self.bytes < size {
            self.skip(file);
            return Ok(None);
        }
        self.files -= 1;
        self.bytes -= size;
        // A FIFO that took the file's place must not stop us.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let opened = match OpenOptions::new().read(true).custom_flags(flags).open(&file.source) {
            Ok(opened) => opened,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(failed(file)(cause)),
        };
        let metadata = opened.metadata().map_err(failed(file))?;
        let same = metadata.is_file() && FileStamp::of(&metadata).is_unchanged_since(&file.stamp);
        Ok(same.then_some(opened))
    }

    fn skip(&mut self, file: &CacheFile) {
        self.skipped += 1;
        self.first.get_or_insert_with(|| file.path.clone());
    }

    /// Says so when something was not read. `what` are the files, in words, and `rule` the rule that wanted them.
    pub(super) fn report(self, findings: &mut Vec<Finding>, what: &str, rule: &str) {
        self.say(findings, Severity::Note, what, rule, "");
    }

    /// Warns when something was not read; as [`Reader::report`], for what must not be overlooked.
    pub(super) fn warn(self, findings: &mut Vec<Finding>, what: &str, rule: &str, remedy: &str) {
        self.say(findings, Severity::Warning, what, rule, remedy);
    }

    fn say(self, findings: &mut Vec<Finding>, severity: Severity, what: &str, rule: &str, remedy: &str) {
        if self.skipped > 0 {
            findings.push(Finding {
                severity,
                rule: UNREAD,
                path: self.first,
                files: self.skipped,
                reason: format!(
                    "{what} of this cache are too many or too large; the rule {rule} did not read them all"
                ),
                remedy: remedy.to_owned(),
            });
        }
    }
}

fn failed(file: &CacheFile) -> impl Fn(io::Error) -> CacheError {
    |cause| CacheError::Read { path: file.source.clone(), cause }
}
