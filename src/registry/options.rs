//! How registries are talked to. Must not know what is sent.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::error::RegistryError;

/// How registries are talked to.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Whether all registries are reached by plain HTTP. Registries on loopback addresses are, unless
    /// [`TlsOptions`] say something of certificates.
    pub plain_http: bool,
    /// Certificates.
    pub tls: TlsOptions,
    /// The only file that credentials are taken from; it has to exist. Without one, `$REGISTRY_AUTH_FILE`
    /// is that file; without that, Podman's and docker's usual files are searched.
    pub authfile: Option<PathBuf>,
    /// How many blobs are pushed at a time; 0 counts as 1.
    pub concurrency: usize,
    /// How often a request or an upload is tried again without any progress before it is given up.
    pub retries: u32,
    /// How long nothing may move on a connection before it counts as broken.
    pub stall: Duration,
    /// Length in bytes of the pieces that blobs are sent in. `None` sends a blob in one request, and in
    /// pieces only to registries that refuse that.
    pub chunk: Option<u64>,
    /// Repositories on the same registry (`models/base`) that may have blobs already.
    pub mount_from: Vec<String>,
    /// Directory where uploads in progress and pushed blobs are remembered for later runs; `None`
    /// remembers nothing.
    pub memory: Option<PathBuf>,
}

/// Certificates: whom to trust, and who we are.
#[derive(Debug, Clone)]
pub struct TlsOptions {
    /// Whether a registry has to prove who it is.
    pub verify: bool,
    /// PEM files of certificate authorities that are trusted besides the system's.
    pub authorities: Vec<PathBuf>,
    /// PEM files of a client certificate and its key, which may be one file.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Directories with a directory for each registry (`HOST:PORT`) that holds `*.crt`, `*.cert` and `*.key`,
    /// as docker and Podman have them; the first that has one for a registry counts.
    pub directories: Vec<PathBuf>,
}

impl TlsOptions {
    /// Adds what a directory holds for all registries: authorities in `*.crt`, a client certificate in the first
    /// `*.cert` with its key in the `*.key` of the same name.
    ///
    /// # Errors
    /// When the directory cannot be read or has no such file.
    pub fn add_directory(&mut self, directory: &Path) -> Result<(), RegistryError> {
        let found = CertificateFiles::of(directory)?;
        if found.authorities.is_empty() && found.client.is_none() {
            let message = "holds no *.crt and no *.cert".to_owned();
            return Err(RegistryError::Certificate { path: directory.to_owned(), message });
        }
        self.authorities.extend(found.authorities);
        self.client = found.client.or(self.client.take());
        Ok(())
    }
}

/// What a directory with certificates holds.
pub(super) struct CertificateFiles {
    pub(super) authorities: Vec<PathBuf>,
    pub(super) client: Option<(PathBuf, PathBuf)>,
}

impl CertificateFiles {
    pub(super) fn of(directory: &Path) -> Result<Self, RegistryError> {
        let unreadable = |cause: std::io::Error| RegistryError::Certificate {
            path: directory.to_owned(),
            message: cause.to_string(),
        };
        let entries = fs::read_dir(directory).map_err(unreadable)?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let with = |extension: &str| {
            let is = move |path: &&PathBuf| path.extension().is_some_and(|found| found == extension);
            paths.iter().filter(is).cloned().collect::<Vec<_>>()
        };
        let client = with("cert").into_iter().next();
        Ok(Self {
            authorities: with("crt"),
            client: client.map(|certificate| (certificate.clone(), certificate.with_extension("key"))),
        })
    }
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            plain_http: false,
            tls: TlsOptions::default(),
            authfile: None,
            concurrency: 4,
            retries: 8,
            stall: Duration::from_mins(1),
            chunk: None,
            mount_from: Vec::new(),
            memory: None,
        }
    }
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self { verify: true, authorities: Vec::new(), client: None, directories: Vec::new() }
    }
}
