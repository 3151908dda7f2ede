//! Files that are believed only because nobody but the user can have written them. Must not know what they hold.

use std::{
    fs::{File, Metadata, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use rustix::{fs::OFlags, process::geteuid};

/// Opens a file as `options` say; `None` when there is none, or when what has the name is not a file of the user's
/// that nobody else can write to.
///
/// # Errors
/// When it cannot be opened. A symbolic link cannot: it would lead to where somebody else may decide.
pub(crate) fn open(options: &OpenOptions, path: &Path) -> io::Result<Option<(File, Metadata)>> {
    // A FIFO under the name must not stop us.
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOFOLLOW).bits()).unwrap_or_default();
    let file = match options.clone().custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(cause),
    };
    let metadata = file.metadata()?;
    let is_own = metadata.uid() == geteuid().as_raw() && metadata.mode() & 0o022 == 0;
    Ok((metadata.is_file() && is_own).then_some((file, metadata)))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    use super::*;

    #[test]
    fn only_files_of_ones_own_are_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let mut options = OpenOptions::new();
        options.read(true);
        assert!(open(&options, &path).unwrap().is_none());
        fs::write(&path, "text").unwrap();
        for (mode, is_own) in [(0o600, true), (0o644, true), (0o620, false), (0o602, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(open(&options, &path).unwrap().is_some(), is_own, "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(open(&options, &link).is_err());
        assert!(open(&options, directory.path()).unwrap().is_none());
    }
}
