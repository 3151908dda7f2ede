//! How registries are reached: the arguments that all commands with a registry share.

use std::{
    cell::OnceCell,
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{ArgAction, Args};

use super::{output, parse};
use crate::{
    oci::OciError,
    registry::{Registry, RegistryOptions, TlsOptions},
};

/// Where other container tools keep registries' certificates, below the home directory and elsewhere.
const CERTIFICATES_AT_HOME: &str = ".config/containers/certs.d";
const CERTIFICATES: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];

/// Names another directory for what is remembered of registries; empty means that nothing is.
const MEMORY: &str = "STARCAR_REGISTRY_MEMORY";

/// How registries are reached.
#[derive(Debug, Args)]
pub(super) struct RegistryArguments {
    /// Use plain HTTP for all registries (loopback addresses do unless certificates are named)
    #[arg(long)]
    pub(super) plain_http: bool,
    /// Take credentials from this file alone (default: Podman's and docker's usual files)
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Trust the certificate authorities in this PEM file as well (repeatable)
    #[arg(long, value_name = "FILE")]
    ca_file: Vec<PathBuf>,
    /// Show registries this client certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// Key of the client certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
    /// Take *.crt, *.cert and *.key from this directory, for all registries (default: the registry's directory in
    /// ~/.config/containers/certs.d, /etc/containers/certs.d and /etc/docker/certs.d)
    #[arg(long, value_name = "DIR", conflicts_with_all = ["client_cert"])]
    cert_dir: Option<PathBuf>,
    /// `false` takes any certificate, and plain HTTP where there is none: whoever answers can read passwords
    #[arg(
        long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1,
        require_equals = true, action = ArgAction::Set
    )]
    tls_verify: bool,
    /// Blobs, and files of the hub, that are sent or fetched at a time
    #[arg(long, value_name = "N", default_value_t = RegistryOptions::default().concurrency, value_parser = parse::positive)]
    pub(super) concurrency: usize,
    /// Tries without any progress before a request or an upload is given up
    #[arg(long, value_name = "N", default_value_t = RegistryOptions::default().retries)]
    pub(super) retries: u32,
    /// How long nothing may move on a connection
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse::limit)]
    pub(super) stall_timeout: Duration,
    /// Send blobs in pieces of this size (default: whole, and in pieces where the registry refuses that)
    #[arg(long, value_name = "SIZE", value_parser = parse::piece)]
    chunk_size: Option<u64>,
    /// A repository of the same registry that may have layers already (repeatable; repositories that layers were
    /// pushed to before are tried by themselves)
    #[arg(long, value_name = "REPOSITORY", value_parser = parse::repository)]
    mount_from: Vec<String>,
}

impl RegistryArguments {
    /// The client that the arguments describe.
    pub(super) fn open(&self) -> Result<Registry, OciError> {
        if !self.tls_verify {
            output::warning(
                "--tls-verify=false: certificates are not checked; whoever answers in the registry's place can read \
                 the credentials and change the image",
            );
        }
        Ok(Registry::new(self.options()?)?)
    }

    /// Opens one client, when it is first asked for, for all who ask: they share logins and connections.
    pub(super) fn shared(&self) -> impl Fn() -> Result<Registry, OciError> {
        let client = OnceCell::new();
        move || match client.get() {
            Some(registry) => Ok(Registry::clone(registry)),
            None => self.open().map(|registry| client.get_or_init(|| registry).clone()),
        }
    }

    fn options(&self) -> Result<RegistryOptions, OciError> {
        let mut tls = TlsOptions {
            verify: self.tls_verify,
            authorities: self.ca_file.clone(),
            client: self.client_cert.clone().zip(self.client_key.clone()),
            directories: Vec::new(),
        };
        if let Some(directory) = &self.cert_dir {
            tls.add_directory(directory)?;
        } else {
            let home = env::var_os("HOME").map(|home| Path::new(&home).join(CERTIFICATES_AT_HOME));
            tls.directories = home.into_iter().chain(CERTIFICATES.map(PathBuf::from)).collect();
        }
        Ok(RegistryOptions {
            plain_http: self.plain_http,
            tls,
            authfile: self.authfile.clone(),
            concurrency: self.concurrency,
            retries: self.retries,
            stall: self.stall_timeout,
            chunk: self.chunk_size,
            mount_from: self.mount_from.clone(),
            memory: memory(env::var_os),
        })
    }
}

/// Where uploads in progress and pushed blobs are remembered.
fn memory(variable: impl Fn(&'static str) -> Option<OsString>) -> Option<PathBuf> {
    match variable(MEMORY) {
        Some(named) => Some(PathBuf::from(named)).filter(|path| !path.as_os_str().is_empty()),
        None => Some(cache_directory(variable)?.join("registry")),
    }
}

/// Where starcar keeps what it need not compute or send twice.
pub(super) fn cache_directory(variable: impl Fn(&'static str) -> Option<OsString>) -> Option<PathBuf> {
    // The XDG base directory specification has relative paths ignored.
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let root = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(root.join("starcar"))
}
