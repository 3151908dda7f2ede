//! The mounts that this process sees, from `/proc/self/mountinfo`. Must not know FUSE.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

const TABLE: &str = "/proc/self/mountinfo";

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MountEntry {
    /// Major and minor number of the device that files on it have.
    pub(super) device: (u32, u32),
    pub(super) path: PathBuf,
    /// What is mounted: a device, or whatever name the file system was given.
    pub(super) source: Vec<u8>,
}

/// The mounts, a mount after those that it covers.
pub(super) fn mounts() -> io::Result<Vec<MountEntry>> {
    Ok(parse(&fs::read(TABLE)?))
}

/// Whether something of this source is mounted at `path`, covered or not.
pub(super) fn has(source: &str, path: &Path) -> bool {
    let here = |entry: &MountEntry| entry.source == source.as_bytes() && entry.path == path;
    mounts().is_ok_and(|mounts| mounts.iter().any(here))
}

fn parse(table: &[u8]) -> Vec<MountEntry> {
    table.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`: the number of fields before the
/// hyphen varies.
fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let (major, minor) = std::str::from_utf8(fields.nth(2)?).ok()?.split_once(':')?;
    let path = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    fields.find(|field| *field == b"-")?;
    let source = unescape(fields.nth(1)?);
    Some(MountEntry { device: (major.parse().ok()?, minor.parse().ok()?), path, source })
}

/// Blanks, line feeds and backslashes are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let code = (*first == b'\\')
            .then(|| after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok()))
            .flatten();
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => bytes.push(*first),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_table() {
        let table = b"36 35 98:0 / / rw,noatime master:1 - ext3 /dev/root rw\n\
            40 36 0:45 / /a\\040b\\134 ro - fuse.starcar starcar ro,user_id=0\n\
            broken\n";
        let entries = parse(table);
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[1].device, (0, 45));
        assert_eq!(entries[1].path, Path::new("/a b\\"));
        assert_eq!(entries[1].source, b"starcar");
    }

    #[test]
    fn this_machine_has_a_root() {
        assert!(mounts().unwrap().iter().any(|entry| entry.path == Path::new("/")));
    }
}
