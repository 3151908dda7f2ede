//! containerd: what it is told of the snapshotter, and what it has made of it. Must not know how settings are put
//! together.

use std::io;

use toml::{Table, Value};

use super::{
    Places,
    documents::{self, Documents},
    finding::Report,
    host::Host,
    rules,
    wire::{Connection, fields},
};
use crate::node::Version;

/// What pods' images are pulled by, in version 2 of the file and from version 3 on.
const CRI_TWO: &str = "io.containerd.grpc.v1.cri";
const CRI_THREE: &str = "io.containerd.cri.v1.images";
const CRI_RUNTIME: &str = "io.containerd.cri.v1.runtime";
const TRANSFER: &str = "io.containerd.transfer.v1.local";

pub(super) fn look(host: &Host, places: &Places, told: Option<Version>, report: &mut Report) {
    let running = socket(host, &places.containerd_socket, report);
    let version = told.or(running.as_ref().and_then(|running| running.version));
    let Some(documents) = documents::read(host, &places.containerd_config, version, report) else { return };
    let at = host.shown(&places.containerd_config);
    if !is_version_right(&documents, &at, version, report) {
        return;
    }
    if disabled(&documents.table).any(|name| [CRI_TWO, CRI_THREE, CRI_RUNTIME, "cri"].contains(&name)) {
        report.find(&rules::CRI_DISABLED, &at, "disabled_plugins has the CRI plugin");
    }
    let mut look = Look { table: &documents.table, at: &at, is_partial: documents.is_partial, report };
    let names = look.proxies(&places.snapshotter_socket);
    look.cri(documents.version, &names);
    if let (Some(Running { snapshotters: Some(loaded), .. }), false) = (running, names.is_empty())
        && !names.iter().any(|name| loaded.contains(name))
    {
        let loaded = if loaded.is_empty() { "none".to_owned() } else { loaded.join(", ") };
        look.report.find(
            &rules::PROXY_NOT_LOADED,
            host.shown(&places.containerd_socket),
            format!("its snapshotters are {loaded}"),
        );
    }
}

/// What a containerd that runs says of itself.
struct Running {
    version: Option<Version>,
    /// Names of the snapshotters that it has.
    snapshotters: Option<Vec<String>>,
}

fn socket(host: &Host, path: &str, report: &mut Report) -> Option<Running> {
    let at = host.shown(path);
    if let Err(cause) = host.connect(path) {
        match cause.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                report.find(&rules::CONTAINERD_SOCKET_MISSING, at, "there is no such socket");
            }
            io::ErrorKind::ConnectionRefused => {
                report.find(&rules::CONTAINERD_SOCKET_STALE, at, "connections are refused");
            }
            io::ErrorKind::WouldBlock => {
                report.find(&rules::CONTAINERD_SOCKET_STALE, at, "connections wait, and nobody takes them");
            }
            io::ErrorKind::Unsupported => report.find(&rules::CONTAINERD_SOCKET_STALE, at, "it is no socket"),
            _ => report.unknown(at, cause, "whether containerd has loaded the snapshotter"),
        }
        return None;
    }
    let ask = |method: &str, message: &[u8]| Connection::begin(host.connect(path)?)?.call(method, message);
    match ask("/containerd.services.version.v1.Version/Version", &[]) {
        Ok(answer) => {
            let text = answer.and_then(|answer| {
                let (_, text) = fields(&answer).into_iter().find(|(number, _)| *number == 1)?;
                Some(String::from_utf8_lossy(text).into_owned())
            });
            let version = text.as_ref().and_then(|text| text.parse().ok());
            match text {
                Some(text) => report.fact("containerd", format!("{text}, listens on {path}")),
                None => report.unknown(&at, "it does not say", "containerd's version"),
            }
            // A filter, so that the answer is short; newer releases may know other ones.
            let filter = "type==io.containerd.snapshotter.v1";
            let mut message = vec![0x0a, 34];
            message.extend_from_slice(filter.as_bytes());
            let plugins = ask("/containerd.services.introspection.v1.Introspection/Plugins", &message);
            let snapshotters = match plugins {
                Ok(Some(answer)) => Some(snapshotters(&answer)),
                Ok(None) => None,
                Err(cause) => {
                    report.unknown(&at, cause, "which snapshotters containerd has loaded");
                    None
                }
            };
            return Some(Running { version, snapshotters });
        }
        Err(cause) => report.find(&rules::CONTAINERD_SOCKET_STALE, at, format!("no answer: {cause}")),
    }
    None
}

/// The identifiers of plugins (`PluginsResponse.plugins`, `Plugin.id`) that were loaded without an error (`init_err`).
fn snapshotters(answer: &[u8]) -> Vec<String> {
    const PLUGINS: u64 = 1;
    const TYPE: u64 = 1;
    const ID: u64 = 2;
    const INIT_ERR: u64 = 7;

    let plugins =
        fields(answer).into_iter().filter(|(number, _)| *number == PLUGINS).map(|(_, plugin)| fields(plugin));
    plugins
        .filter(|plugin| plugin.contains(&(TYPE, &b"io.containerd.snapshotter.v1"[..])))
        .filter(|plugin| plugin.iter().all(|(number, _)| *number != INIT_ERR))
        .filter_map(|plugin| plugin.into_iter().find(|(number, _)| *number == ID))
        .map(|(_, name)| String::from_utf8_lossy(name).into_owned())
        .collect()
}

fn is_version_right(
    documents: &Documents,
    at: &str,
    containerd: Option<Version>,
    report: &mut Report,
) -> bool {
    let least = match documents.version {
        ..2 => {
            let found =
                if documents.table.contains_key("version") { "version = 1" } else { "it has no version" };
            report.find(&rules::CONTAINERD_CONFIG_OLD, at, found);
            return false;
        }
        2 => return true,
        3 => Version::new(2, 0, 0),
        _ => Version::new(2, 3, 0),
    };
    if let Some(containerd) = containerd.filter(|containerd| *containerd < least) {
        let found = format!("version = {}, and containerd is {containerd}", documents.version);
        report.find(&rules::CONTAINERD_CONFIG_NEW, at, found);
    }
    true
}

fn disabled(table: &Table) -> impl Iterator<Item = &str> {
    table.get("disabled_plugins").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn at_path<'a>(table: &'a Table, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(table.get(*first)?, |value, name| value.get(name))
}

/// A look at settings that were put together.
struct Look<'a> {
    table: &'a Table,
    at: &'a str,
    is_partial: bool,
    report: &'a mut Report,
}

impl Look<'_> {
    /// Says that a setting is wrong, or, where some settings could not be read, that it is not known.
    fn missing(&mut self, rule: &'static super::Rule, found: &str) {
        if self.is_partial {
            let why = format!("{found}, and a file that it imports could not be read");
            self.report.unknown(self.at, why, rule.description);
        } else {
            self.report.find(rule, self.at, found);
        }
    }

    /// The names that the snapshotter has in containerd.
    fn proxies(&mut self, socket: &str) -> Vec<String> {
        let table = self.table;
        let proxies = table.get("proxy_plugins").and_then(Value::as_table);
        let text = |proxy: &Value, name: &str| {
            proxy.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let plain =
            |address: &str| address.strip_prefix("unix://").unwrap_or(address).replace("/var/run/", "/run/");
        let mut names = Vec::new();
        for (name, proxy) in proxies.into_iter().flatten() {
            let (kind, address) = (text(proxy, "type"), text(proxy, "address"));
            if plain(&address) == plain(socket) {
                if kind == "snapshot" {
                    names.push(name.clone());
                } else {
                    self.report.find(
                        &rules::PROXY_TYPE,
                        self.at,
                        format!("proxy_plugins.{name}: type = \"{kind}\""),
                    );
                }
            } else if name == "stargz" {
                let found = format!(
                    "proxy_plugins.stargz: address = \"{address}\", and the snapshotter's is {socket}"
                );
                self.report.find(&rules::PROXY_ADDRESS, self.at, found);
            }
        }
        // stargz is said already to be wrong; it is still the name that is meant.
        if names.is_empty() {
            if proxies.is_some_and(|proxies| proxies.contains_key("stargz")) {
                return Vec::new();
            }
            self.missing(&rules::PROXY_MISSING, &format!("no proxy plugin has the address {socket}"));
        }
        names
    }

    fn cri(&mut self, version: i64, names: &[String]) {
        let table = self.table;
        let two = at_path(table, &["plugins", CRI_TWO, "containerd"]);
        let three = at_path(table, &["plugins", CRI_THREE]);
        let (own, other, path, other_path) = if version == 2 {
            (two, three, format!("plugins.\"{CRI_TWO}\".containerd"), format!("plugins.\"{CRI_THREE}\""))
        } else {
            (three, two, format!("plugins.\"{CRI_THREE}\""), format!("plugins.\"{CRI_TWO}\".containerd"))
        };
        let says = |value: Option<&Value>| {
            value.is_some_and(|value| {
                value.get("snapshotter").is_some() || value.get("disable_snapshot_annotations").is_some()
            })
        };
        if says(other) {
            self.report.find(
                &rules::CRI_MISPLACED,
                self.at,
                format!("{other_path}, in a file of version {version}"),
            );
            if !says(own) {
                return;
            }
        }
        let snapshotter = own.and_then(|own| own.get("snapshotter")).and_then(Value::as_str);
        match snapshotter {
            Some(name)
                if names.iter().any(|known| known == name) || (names.is_empty() && name == "stargz") => {}
            Some(name) => self.report.find(
                &rules::CRI_SNAPSHOTTER,
                self.at,
                format!("{path}: snapshotter = \"{name}\""),
            ),
            None => self.missing(&rules::CRI_SNAPSHOTTER, &format!("{path}: snapshotter is not set")),
        }
        let off = own.and_then(|own| own.get("disable_snapshot_annotations")).and_then(Value::as_bool);
        if off != Some(false) && !(version > 2 && self.transfers(names)) {
            let found = match off {
                Some(_) => "disable_snapshot_annotations = true",
                None => "disable_snapshot_annotations is not set, which means true",
            };
            if off.is_some() {
                self.report.find(&rules::ANNOTATIONS_OFF, self.at, format!("{path}: {found}"));
            } else {
                self.missing(&rules::ANNOTATIONS_OFF, &format!("{path}: {found}"));
            }
        }
        self.runtimes(version, names);
        let registry = if version == 2 { at_path(table, &["plugins", CRI_TWO]) } else { three };
        let registry = registry.and_then(|plugin| plugin.get("registry"));
        let has = |name: &str| registry.and_then(|registry| registry.get(name)).is_some_and(is_set);
        if has("config_path") && (has("mirrors") || has("configs")) {
            self.report.find(&rules::REGISTRY_CONFIG_CLASH, self.at, "both are set below registry");
        }
    }

    /// Whether the transfer service, which containerd 2.1 and later pull pods' images by, unpacks into the snapshotter
    /// and says which image a layer is of.
    fn transfers(&self, names: &[String]) -> bool {
        names.iter().any(|name| {
            let exports = ["proxy_plugins", name, "exports", "enable_remote_snapshot_annotations"];
            let unpacks =
                at_path(self.table, &["plugins", TRANSFER, "unpack_config"]).and_then(Value::as_array);
            at_path(self.table, &exports).and_then(Value::as_str) == Some("true")
                && unpacks
                    .into_iter()
                    .flatten()
                    .any(|unpack| unpack.get("snapshotter").and_then(Value::as_str) == Some(name))
        })
    }

    fn runtimes(&mut self, version: i64, names: &[String]) {
        let plugin = if version == 2 { CRI_TWO } else { CRI_RUNTIME };
        let runtimes =
            at_path(self.table, &["plugins", plugin, "containerd", "runtimes"]).and_then(Value::as_table);
        for (name, runtime) in runtimes.into_iter().flatten() {
            let own = runtime.get("snapshotter").and_then(Value::as_str).unwrap_or_default();
            if !own.is_empty() && !names.iter().any(|known| known == own) {
                let found =
                    format!("plugins.\"{plugin}\".containerd.runtimes.{name}: snapshotter = \"{own}\"");
                self.report.find(&rules::RUNTIME_SNAPSHOTTER, self.at, found);
            }
        }
    }
}

/// Whether a setting says something.
fn is_set(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.is_empty(),
        Value::Table(table) => !table.is_empty(),
        _ => true,
    }
}
