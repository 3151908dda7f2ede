//! Writes a profile to a file, whole or not at all.

use std::{
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use super::{Profile, ProfileError};

impl Profile {
    /// Writes the profile; a file that is there is replaced when all is written.
    ///
    /// # Errors
    /// [`ProfileError::Write`].
    pub fn save(&self, path: &Path) -> Result<(), ProfileError> {
        write_whole(path, &self.to_json())
            .map_err(|cause| ProfileError::Write { path: path.to_owned(), cause })
    }
}

/// Writes `text` to a file, whole or not at all. A device, a pipe or a link stays what it is and is written to.
///
/// # Errors
/// What the operating system says; the file is unchanged then.
pub fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    if path.symlink_metadata().is_ok_and(|data| !data.is_file()) {
        return std::fs::write(path, text);
    }
    let directory = directory_of(path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(".starcar-");
    // As other programs create files; the umask takes away what it shall.
    builder.permissions(std::fs::Permissions::from_mode(0o666));
    let mut file = builder.tempfile_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

/// The directory in which a file of that path lies.
pub fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn replaces_a_file_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("profile.json");
        fs::write(&path, "x".repeat(10_000)).unwrap();
        Profile::default().save(&path).unwrap();
        assert_eq!(Profile::open(&path).unwrap(), Profile::default());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(Profile::default().save(&directory.path().join("no/profile.json")).is_err());
    }
}
