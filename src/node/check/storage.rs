//! What podman and CRI-O are told of images. Must not know containerd.

use std::io;

use toml::{Table, Value};

use super::{finding::Report, host::Host, rules, snapshotter::malformed};
use crate::node::STORAGE_CONFIG;

/// Where distributions put the file, which the administrator's is read in place of.
const DISTRIBUTION: &str = "/usr/share/containers/storage.conf";

pub(super) fn look(host: &Host, wants_store: bool, report: &mut Report) {
    let mut text = None;
    for path in [STORAGE_CONFIG, DISTRIBUTION] {
        match host.read(path) {
            Ok(found) => {
                text = Some((path, found));
                break;
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return report.unknown(host.shown(path), cause, "how images are kept"),
        }
    }
    let Some((path, text)) = text else {
        return report.find(&rules::STORAGE_MISSING, host.shown(STORAGE_CONFIG), "there is none");
    };
    let at = host.shown(path);
    match text.parse::<Table>() {
        Ok(table) => settings(host, &table, &at, wants_store, report),
        Err(error) => report.find(&rules::STORAGE_MALFORMED, at, malformed(&text, &error)),
    }
}

fn settings(host: &Host, table: &Table, at: &str, wants_store: bool, report: &mut Report) {
    let storage = table.get("storage");
    let driver =
        storage.and_then(|storage| storage.get("driver")).and_then(Value::as_str).unwrap_or_default();
    // Where none is named, the newest that works is taken, which is overlay.
    if !matches!(driver, "" | "overlay" | "overlay2") {
        report.find(&rules::STORAGE_DRIVER, at, format!("driver = \"{driver}\""));
    }
    let options = storage.and_then(|storage| storage.get("options"));
    let partial = options.and_then(|options| options.get("pull_options")?.get("enable_partial_images"));
    let is_on = partial.is_some_and(|value| value.as_str() == Some("true"));
    if !is_on {
        let found = partial.map_or("enable_partial_images is not set".to_owned(), |value| {
            format!("enable_partial_images = {value}")
        });
        report.find(&rules::PARTIAL_OFF, at, found);
    }
    let overlay = options.and_then(|options| options.get("overlay"));
    let stores = options.and_then(|options| options.get("additionallayerstores"));
    let stores = stores.or(overlay.and_then(|overlay| overlay.get("additionallayerstores")));
    let stores: Vec<&str> =
        stores.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    if stores.is_empty() && wants_store {
        report.find(&rules::STORE_MISSING, at, "additionallayerstores is not set");
    }
    for store in stores {
        let path = store.split_once(':').map_or(store, |(path, _)| path);
        mounted(host, path, report);
    }
}

fn mounted(host: &Host, path: &str, report: &mut Report) {
    // Of whose mount namespace it is, a file system of the node's own /proc says best.
    let (name, text) = match host.read("/proc/1/mounts") {
        Ok(text) => ("/proc/1/mounts", text),
        Err(cause) => {
            return report.unknown(
                host.shown("/proc/1/mounts"),
                cause,
                "whether the store of layers is mounted",
            );
        }
    };
    if !text.lines().any(|line| line.split(' ').nth(1) == Some(path.trim_end_matches('/'))) {
        report.find(&rules::STORE_NOT_MOUNTED, host.shown(name), format!("{path} is not mounted"));
    }
}
