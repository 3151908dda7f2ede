//! `starcar node config`

use std::{
    collections::BTreeSet,
    fs, io,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};

use super::{CliError, output, parse, version};
use crate::{
    node::{
        SNAPSHOTTER_ROOT, Version,
        config::{ConfigFile, ConfigOptions, Credentials, RegistryHosts, Target, files},
    },
    pending::{PendingFile, TEMPORARY_PREFIX},
};

/// Print the settings of nodes that start containers soonest
///
/// Each file begins with a comment that names its path; comments say why, and what was measured. Settings that the version
/// does not have are comments, too. With --output they are written to files below a directory instead.
#[derive(Debug, Args)]
pub(super) struct ConfigArguments {
    /// The programs to print settings of (repeatable)
    #[arg(long = "for", value_enum, value_name = "PROGRAM", value_delimiter = ',', default_value = "all")]
    targets: Vec<TargetArgument>,
    /// Version of stargz-snapshotter, and of stargz-store
    #[arg(long, value_name = "VERSION", default_value = "0.18.2", value_parser = version)]
    snapshotter_version: Version,
    /// Version of containerd: 1.x is written settings in version 2, 2.x in version 3
    #[arg(long, value_name = "VERSION", default_value = "2.x", value_parser = version)]
    containerd_version: Version,
    /// A registry that has mirrors, no TLS, or peculiarities (repeatable); a host with `http://` before it has no TLS
    #[arg(long = "registry", value_name = "HOST[=MIRROR,…]")]
    registries: Vec<String>,
    /// Use plain HTTP for hosts of --registry that have neither `http://` nor `https://` before them
    #[arg(long, requires = "registries")]
    plain_http: bool,
    /// Where the snapshotter gets passwords of private registries from
    #[arg(long, value_enum, value_name = "SOURCE", default_value_t = CredentialsArgument::Docker)]
    credentials: CredentialsArgument,
    /// Where the snapshotter keeps layers: twice the size of the models that a node runs
    #[arg(long, value_name = "DIR", default_value = SNAPSHOTTER_ROOT, value_parser = parse::plain_directory)]
    root: String,
    /// Write the files below this directory, each at its path
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Replace files that are there
    #[arg(long, requires = "output")]
    force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TargetArgument {
    Snapshotter,
    Containerd,
    Crio,
    Podman,
    Systemd,
    All,
}

impl TargetArgument {
    fn targets(self) -> &'static [Target] {
        match self {
            Self::Snapshotter => &[Target::Snapshotter],
            Self::Containerd => &[Target::Containerd],
            Self::Crio => &[Target::Crio],
            Self::Podman => &[Target::Podman],
            Self::Systemd => &[Target::Systemd],
            Self::All => &Target::ALL,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CredentialsArgument {
    /// root's ~/.docker/config.json
    Docker,
    /// kubelet's requests, which go through the snapshotter
    Cri,
    /// Secrets of the cluster
    Kubeconfig,
}

impl From<CredentialsArgument> for Credentials {
    fn from(argument: CredentialsArgument) -> Self {
        match argument {
            CredentialsArgument::Docker => Self::Docker,
            CredentialsArgument::Cri => Self::Cri,
            CredentialsArgument::Kubeconfig => Self::Kubeconfig,
        }
    }
}

pub(super) fn run(arguments: &ConfigArguments) -> Result<(), CliError> {
    let options = options(arguments)?;
    let files = files(&options);
    match &arguments.output {
        None => {
            let texts: Vec<&str> = files.iter().map(|file| file.text.as_str()).collect();
            output::data(&texts.join("\n"))
        }
        Some(directory) => write(directory, &files, arguments.force),
    }
}

fn options(arguments: &ConfigArguments) -> Result<ConfigOptions, CliError> {
    let mut targets: Vec<Target> = Vec::new();
    for target in arguments.targets.iter().flat_map(|argument| argument.targets()) {
        if !targets.contains(target) {
            targets.push(*target);
        }
    }
    let registries = arguments.registries.iter().map(|text| RegistryHosts::parse(text, arguments.plain_http));
    let registries: Vec<RegistryHosts> = registries
        .collect::<Result<_, _>>()
        .map_err(|message| CliError::Usage(format!("--registry: {message}")))?;
    let mut seen = BTreeSet::new();
    for hosts in &registries {
        let host = &hosts.registry.host;
        if !seen.insert(host.to_ascii_lowercase()) {
            return Err(CliError::Usage(format!(
                "--registry names {host} twice; name all its mirrors at once: {host}=MIRROR,MIRROR"
            )));
        }
    }
    Ok(ConfigOptions {
        targets,
        snapshotter: arguments.snapshotter_version,
        containerd: arguments.containerd_version,
        registries,
        credentials: arguments.credentials.into(),
        root: arguments.root.clone(),
    })
}

/// Writes all files, or none where one of them is there already.
fn write(directory: &Path, files: &[ConfigFile], force: bool) -> Result<(), CliError> {
    let place = |file: &ConfigFile| directory.join(file.path.trim_start_matches('/'));
    if !force && let Some(path) = files.iter().map(place).find(|path| path.symlink_metadata().is_ok()) {
        return Err(CliError::Usage(format!(
            "{} is there; --force replaces it, and nothing was written",
            path.display()
        )));
    }
    for file in files {
        let path = place(file);
        write_one(&path, &file.text, force)
            .map_err(|cause| CliError::Output { what: path.display().to_string(), cause })?;
        output::words(&format!("wrote {}", path.display()));
    }
    Ok(())
}

fn write_one(path: &Path, text: &str, force: bool) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
    else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    fs::create_dir_all(directory)?;
    if force {
        let mut pending = PendingFile::new(directory)?;
        pending.write_all(text.as_bytes())?;
        return pending.replace(name);
    }
    // What somebody else wrote there in the meantime stays.
    let mut file = tempfile::Builder::new()
        .prefix(TEMPORARY_PREFIX)
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map(drop).map_err(|error| error.error)
}
