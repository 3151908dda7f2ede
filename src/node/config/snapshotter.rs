//! `config.toml` of stargz-snapshotter, and of stargz-store, which has the same settings.

use std::fmt::Write as _;

use super::{ConfigOptions, Credentials, hosts::Mirror, quoted};
use crate::node::{CONTAINERD_SOCKET, SNAPSHOTTER_SOCKET, Version, keys, recommended, single_range};

/// Whose settings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    Snapshotter,
    Store,
}

/// A file that grows.
struct Page {
    version: Version,
    text: String,
}

impl Page {
    fn note(&mut self, words: &str) {
        for line in words.lines() {
            let _ = writeln!(self.text, "# {line}");
        }
    }

    /// A setting; a comment where the version does not have it.
    fn set(&mut self, table: &str, name: &str, value: impl std::fmt::Display) {
        let path = if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") };
        let since = keys::key(&path).and_then(|key| key.since).filter(|_| !keys::knows(self.version, &path));
        let _ = match since {
            Some(since) => writeln!(self.text, "# {name} = {value}  # known from {since} on"),
            None => writeln!(self.text, "{name} = {value}"),
        };
    }

    fn table(&mut self, name: &str) {
        let _ = write!(self.text, "\n[{name}]\n");
    }
}

pub(super) fn text(options: &ConfigOptions, program: Program) -> String {
    let mut page = Page { version: options.snapshotter, text: String::new() };
    head(&mut page, program);
    fetching(&mut page, options);
    resolver(&mut page, options);
    credentials(&mut page, options, program);
    page.text
}

fn head(page: &mut Page, program: Program) {
    let version = page.version;
    match program {
        Program::Snapshotter => page.note(&format!(
            "For stargz-snapshotter {version}. It reads this when it starts. Drain the node before a restart: it takes the\n\
             mounts of running containers away."
        )),
        Program::Store => page.note(&format!(
            "For stargz-store {version}, which shows layers to CRI-O and podman. It reads this when it starts."
        )),
    }
    page.note("Seconds are those of docs/measurements.md: 1.2 GB of weights, 1 Gbit/s with 20 ms, 200 Mbit/s with 50 ms.");
    page.text.push('\n');
}

fn fetching(page: &mut Page, options: &ConfigOptions) {
    page.note(
        "A layer that prefetches more than 16 MiB does not hold the container back: it ran after 0.9 s instead of 11.2 s, and\n\
         the last byte of weights that are prefetched was there after 25 s instead of 35 s (200 Mbit/s: 62 s instead of 88 s).",
    );
    if !keys::knows(page.version, "prefetch_async_size") {
        page.note("This version has no such setting: pack without `--nodes recommended`, or containers wait for weights.");
    }
    page.set("", "prefetch_async_size", recommended::PREFETCH_ASYNC_SIZE);
    page.text.push('\n');
    page.note("Requests of background fetch at a time, over all layers; 2 if not set.");
    page.set("", "max_concurrency", recommended::MAX_CONCURRENCY);

    page.table("blob");
    page.note(
        "Bytes that are asked for at least, and kept as one file; 50,000 if not set. Half the requests and a third less CPU.\n\
         Not more: the footer's request brings a whole unit, for each layer, before a container can start.",
    );
    page.set("blob", "chunk_size", recommended::CHUNK_SIZE);
    page.note(
        "Prefetch asks for a layer in parts of 64 MiB, side by side. In one request, which reads overtake, a quarter more bytes\n\
         came at 200 Mbit/s. Behind a proxy that limits a response's duration, make it less.",
    );
    page.set("blob", "prefetch_chunk_size", recommended::PREFETCH_CHUNK_SIZE);
    let single: Vec<&str> = options
        .registries
        .iter()
        .flat_map(|hosts| hosts.mirrors.iter().chain([&hosts.registry]))
        .map(|host| host.host.as_str())
        .filter(|host| single_range(host))
        .collect();
    if single.is_empty() {
        page.note("Amazon ECR answers a request for several ranges with the whole blob, GHCR with an error. For them:");
        page.note("force_single_range_mode = true");
    } else {
        page.note(&format!("Requests for several ranges are not answered as such by {}.", single.join(", ")));
        page.set("blob", "force_single_range_mode", true);
    }
}

fn resolver(page: &mut Page, options: &ConfigOptions) {
    page.table("resolver");
    page.note(
        "Seconds for a request, its body included; 30 if not set. That ends a prefetch of more than 750 MB at 200 Mbit/s.",
    );
    let for_all = keys::knows(page.version, "resolver.request_timeout_sec");
    if !for_all {
        page.note(
            "This version takes it for each registry by its name, as below (--registry HOST adds one).",
        );
    }
    page.set("resolver", "request_timeout_sec", recommended::REQUEST_TIMEOUT_SEC);
    page.note(
        "Certificates of private authorities belong to the system's: there is no setting for them here.",
    );
    for hosts in &options.registries {
        let own = hosts.registry.plain_http || !for_all;
        let table = format!("[[resolver.host.{}.mirrors]]", quoted(&hosts.registry.host));
        for Mirror { host, plain_http } in hosts.mirrors.iter().chain(own.then_some(&hosts.registry)) {
            let _ = write!(page.text, "\n{table}\nhost = {}\n", quoted(host));
            if *plain_http {
                page.text.push_str("insecure = true  # plain HTTP\n");
            }
            if !for_all {
                let _ = writeln!(page.text, "request_timeout_sec = {}", recommended::REQUEST_TIMEOUT_SEC);
            }
        }
    }
}

fn credentials(page: &mut Page, options: &ConfigOptions, program: Program) {
    // The store is asked by no kubelet.
    let chosen = match options.credentials {
        Credentials::Cri if program == Program::Store => Credentials::Docker,
        chosen => chosen,
    };
    page.text.push('\n');
    match chosen {
        Credentials::Docker => page.note(
            "Passwords of private registries come from root's ~/.docker/config.json; containerd's and kubelet's are not shared.\n\
             `starcar node config --credentials cri` (from kubelet) and `--credentials kubeconfig` (from secrets) are other ways.",
        ),
        Credentials::Cri => {
            page.note(&format!(
                "Passwords come with kubelet's requests, which therefore have to go through the snapshotter. Start kubelet with\n\
                 --image-service-endpoint=unix://{SNAPSHOTTER_SOCKET}"
            ));
            page.text.push_str("[cri_keychain]\n");
            page.set("cri_keychain", "enable_keychain", true);
            page.set("cri_keychain", "image_service_path", quoted(CONTAINERD_SOCKET));
        }
        Credentials::Kubeconfig => {
            page.note(
                "Passwords come from secrets of type kubernetes.io/dockerconfigjson. The kubeconfig's user needs leave to list and\n\
                 watch secrets; a file that is not there yet is waited for.",
            );
            page.text.push_str("[kubeconfig_keychain]\n");
            page.set("kubeconfig_keychain", "enable_keychain", true);
            page.set("kubeconfig_keychain", "kubeconfig_path", quoted("/etc/kubernetes/snapshotter/config.conf"));
        }
    }
    if program == Program::Snapshotter && page.version >= Version::new(0, 19, 0) && chosen != Credentials::Cri
    {
        page.note(&format!(
            "From 0.19.0 on, only kubelets with --image-service-endpoint=unix://{SNAPSHOTTER_SOCKET}\n\
             have diffIDs of lazily mounted layers verified. Without it, use such nodes for trusted images."
        ));
    }
}
