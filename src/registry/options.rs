//! How registries are talked to. Must not know what is sent.

use std::{path::PathBuf, time::Duration};

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

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            plain_http: false,
            tls: TlsOptions::default(),
            authfile: None,
            concurrency: 4,
            retries: 5,
            stall: Duration::from_secs(60),
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
