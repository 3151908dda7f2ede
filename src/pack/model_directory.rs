//! Where a model lies in its image. Must not know what lies there.

use std::str::FromStr;

use super::PackError;
use crate::estargz::{NO_PREFETCH_LANDMARK, PREFETCH_LANDMARK, TOC_NAME};

/// Directories in the root that every container runtime mounts over.
///
/// Source: OCI runtime specification, "Default Filesystems".
const MOUNTED_OVER: [&str; 3] = ["proc", "sys", "dev"];

/// An absolute directory in an image, not its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelDirectory(String);

impl ModelDirectory {
    /// The path without its leading slash, as tar entries have it.
    pub fn relative(&self) -> &str {
        self.0.trim_start_matches('/')
    }

    /// The absolute path.
    pub fn absolute(&self) -> &str {
        &self.0
    }
}

impl Default for ModelDirectory {
    fn default() -> Self {
        Self("/models".to_owned())
    }
}

impl FromStr for ModelDirectory {
    type Err = PackError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid =
            |reason: &str| PackError::ModelDirectory { path: text.to_owned(), reason: reason.to_owned() };
        let relative = text.strip_prefix('/').ok_or_else(|| invalid("it must begin with a slash"))?;
        let relative = relative.strip_suffix('/').unwrap_or(relative);
        let is_name = |part: &str| !matches!(part, "" | "." | "..") && !part.starts_with(".wh.");
        if text.chars().any(char::is_control) || !relative.split('/').all(is_name) {
            return Err(invalid("it must be a plain path below the root, such as /models"));
        }
        if let Some(system) = MOUNTED_OVER.iter().find(|system| relative.split('/').next() == Some(system)) {
            return Err(invalid(&format!(
                "each container has its own /{system}, which hides what the image has there"
            )));
        }
        if [TOC_NAME, PREFETCH_LANDMARK, NO_PREFETCH_LANDMARK].contains(&relative) {
            return Err(invalid("the layers' format has a file of that name"));
        }
        Ok(Self(format!("/{relative}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_containers_hide_are_refused() {
        for path in ["/proc", "/sys", "/dev", "/dev/shm/models", "/proc/1/", "/sys/model"] {
            let error = path.parse::<ModelDirectory>().unwrap_err().to_string();
            assert!(error.contains("each container has its own"), "{error}");
        }
        for path in ["/models", "/models/dev", "/device", "/mnt/proc"] {
            assert_eq!(path.parse::<ModelDirectory>().unwrap().absolute(), path);
        }
    }
}
