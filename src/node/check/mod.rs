//! Whether a node has what it takes to start containers before images are pulled. Looks, and changes nothing. Must not
//! know how it is printed.

mod combined;
mod containerd;
mod disk;
mod documents;
mod finding;
mod host;
mod images;
mod kernel;
mod plugins;
mod rules;
mod settings;
mod snapshotter;
mod storage;
mod wire;

use std::path::PathBuf;

use toml::{Table, Value};

use self::host::{Host, Process};
pub use self::{
    finding::{Fact, Finding, Report, Rule, Severity, Unknown},
    rules::all as rules,
};
use super::{
    CONTAINERD_CONFIG, CONTAINERD_SOCKET, SNAPSHOTTER_CONFIG, SNAPSHOTTER_ROOT, SNAPSHOTTER_SOCKET,
    STORAGE_CONFIG, Version,
};
use crate::registry::{Reference, Registry};

/// What starts a node's containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// containerd, with stargz-snapshotter.
    Containerd,
    /// CRI-O, with stargz-store or partial pulls.
    Crio,
    /// podman, with partial pulls.
    Podman,
}

/// What is known of a node beforehand. Paths are the node's own.
#[derive(Debug, Clone, Default)]
pub struct CheckOptions {
    /// Where the node's root is mounted.
    pub root: PathBuf,
    /// What starts its containers; `None` finds out.
    pub runtime: Option<Runtime>,
    /// containerd's settings; `None` takes those of its process, or the usual file.
    pub containerd_config: Option<String>,
    /// containerd's socket; likewise.
    pub containerd_socket: Option<String>,
    /// Version of containerd; `None` asks it.
    pub containerd_version: Option<Version>,
    /// The snapshotter's settings; `None` takes those of its process, or the usual file.
    pub snapshotter_config: Option<String>,
    /// The snapshotter's socket; likewise.
    pub snapshotter_socket: Option<String>,
    /// Where the snapshotter keeps layers; likewise.
    pub snapshotter_root: Option<String>,
    /// Version of the snapshotter. It does not tell.
    pub snapshotter_version: Option<Version>,
    /// Size of the model that the node shall run, in bytes. `None` takes the largest of the images.
    pub model: Option<u64>,
}

/// An image that the node shall run.
#[derive(Debug, Clone)]
pub struct CheckedImage {
    /// Its name.
    pub reference: Reference,
    /// Whether its registry is asked by plain HTTP because the user says so.
    pub plain_http: bool,
    /// Whether its size is that of the model.
    pub is_model: bool,
}

/// Where things are on a node.
#[derive(Debug)]
struct Places {
    snapshotter: Option<Process>,
    snapshotter_config: String,
    snapshotter_socket: String,
    snapshotter_root: String,
    containerd_config: String,
    containerd_socket: String,
}

/// Looks at a node, and at images as it would see them by `registry`.
pub fn check(options: &CheckOptions, registry: Option<&Registry>, asked: &[CheckedImage]) -> Report {
    let host = Host::new(&options.root);
    let mut report = Report::default();
    // What k3s and RKE2 start is named containerd, too.
    let processes = host.processes(|name| matches!(name, "containerd" | "containerd-stargz-grpc" | "crio"));
    let processes = processes.unwrap_or_else(|cause| {
        report.unknown(host.shown("/proc"), cause, "which programs run");
        Vec::new()
    });
    let kernel = kernel::look(&host, &mut report);
    let runtime = options.runtime.unwrap_or_else(|| runtime(&host, options, &processes));
    let places = places(options, &processes);
    let settings = if runtime == Runtime::Containerd {
        report.fact("runtime", "containerd");
        let settings = snapshotter::look(&host, &places, kernel, options.snapshotter_version, &mut report);
        containerd::look(&host, &places, options.containerd_version, &mut report);
        settings
    } else {
        report.fact("runtime", if runtime == Runtime::Crio { "CRI-O" } else { "podman" });
        storage::look(&host, runtime == Runtime::Crio, &mut report);
        None
    };
    let mut model = options.model;
    if let Some(registry) = registry {
        for image in asked {
            let size =
                images::look(registry, &image.reference, image.plain_http, settings.as_ref(), &mut report);
            if image.is_model || options.model.is_none() {
                model = model.max(size);
            }
        }
    }
    let unit = settings.as_ref().and_then(unit);
    let root = match runtime {
        Runtime::Containerd => places.snapshotter_root.as_str(),
        Runtime::Crio | Runtime::Podman => "/var/lib/containers/storage",
    };
    disk::look(&host, root, unit, model, &mut report);
    report
}

fn unit(settings: &Table) -> Option<u64> {
    settings.get("blob")?.get("chunk_size").and_then(Value::as_integer)?.try_into().ok()
}

fn runtime(host: &Host, options: &CheckOptions, processes: &[Process]) -> Runtime {
    let runs = |name: &str| processes.iter().any(|process| program(process) == name);
    let has = |path: &str| host.find(path).is_ok();
    let named = options.containerd_config.is_some() || options.containerd_socket.is_some();
    if named || runs("containerd") || has(CONTAINERD_CONFIG) || has(CONTAINERD_SOCKET) {
        Runtime::Containerd
    } else if runs("crio") || has("/etc/crio") || has("/run/crio/crio.sock") {
        Runtime::Crio
    } else if has(STORAGE_CONFIG) {
        Runtime::Podman
    } else {
        Runtime::Containerd
    }
}

fn program(process: &Process) -> &str {
    process.words.first().map_or("", |word| word.rsplit('/').next().unwrap_or_default())
}

/// What the user says, else what processes were started with, else what is usual.
fn places(options: &CheckOptions, processes: &[Process]) -> Places {
    let of = |name: &str| {
        let mut found = processes.iter().filter(|process| program(process) == name);
        // With several it is not known which is meant.
        found.next().filter(|_| found.next().is_none())
    };
    let (snapshotter, containerd) = (of("containerd-stargz-grpc"), of("containerd"));
    let place = |told: &Option<String>, process: Option<&Process>, name: &str, usual: &str| {
        // containerd knows each of them by its first letter, too.
        let started = process.and_then(|process| process.option(name).or(process.option(name.get(..1)?)));
        let started = started.filter(|path| path.starts_with('/'));
        told.clone().or(started.map(str::to_owned)).unwrap_or_else(|| usual.to_owned())
    };
    Places {
        snapshotter_config: place(&options.snapshotter_config, snapshotter, "config", SNAPSHOTTER_CONFIG),
        snapshotter_socket: place(&options.snapshotter_socket, snapshotter, "address", SNAPSHOTTER_SOCKET),
        snapshotter_root: place(&options.snapshotter_root, snapshotter, "root", SNAPSHOTTER_ROOT),
        containerd_config: place(&options.containerd_config, containerd, "config", CONTAINERD_CONFIG),
        containerd_socket: place(&options.containerd_socket, containerd, "address", CONTAINERD_SOCKET),
        snapshotter: snapshotter.cloned(),
    }
}
