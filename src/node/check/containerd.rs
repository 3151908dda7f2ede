//! containerd: what it is told of the snapshotter, and what it has made of it. Must not know how settings are put
//! together.

use std::io;

use toml::{Table, Value};

use super::{
    Places,
    combined::{Combined, combine, newest},
    documents,
    finding::Report,
    host::Host,
    plugins::{CRI_RUNTIME, CRI_THREE, CRI_TWO, SNAPSHOTTERS, TRANSFER},
    rules,
    settings::short,
    wire::{Connection, fields},
};
use crate::node::Version;

pub(super) fn look(host: &Host, places: &Places, told: Option<Version>, report: &mut Report) {
    let running = socket(host, &places.containerd_socket, report);
    let version = told.or(running.as_ref().and_then(|running| running.version));
    let Some(documents) = documents::read(host, &places.containerd_config, report) else { return };
    let at = host.shown(&places.containerd_config);
    documents::replaced(&documents, version, report);
    let combined = combine(documents.files, version);
    if !is_version_right(&combined, &at, version, report) {
        return;
    }
    if disabled(&combined.table).any(|name| [CRI_TWO, CRI_THREE, CRI_RUNTIME, "cri"].contains(&name)) {
        report.find(&rules::CRI_DISABLED, &at, "disabled_plugins has the CRI plugin");
    }
    let mut look =
        Look { combined: &combined, at: &at, containerd: version, is_partial: documents.is_partial, report };
    let names = look.proxies(&places.snapshotter_socket);
    if combined.undecided.is_empty() {
        look.cri(&names);
    } else {
        let versions = combined.undecided.iter().map(i64::to_string).collect::<Vec<_>>().join(" and ");
        let why = format!(
            "the files have versions {versions}, and containerd's is not known (--containerd-version)"
        );
        look.report.unknown(&at, why, "what containerd makes of its files together");
    }
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
        .filter(|plugin| plugin.contains(&(TYPE, SNAPSHOTTERS.as_bytes())))
        .filter(|plugin| plugin.iter().all(|(number, _)| *number != INIT_ERR))
        .filter_map(|plugin| plugin.into_iter().find(|(number, _)| *number == ID))
        .map(|(_, name)| String::from_utf8_lossy(name).into_owned())
        .collect()
}

/// Whether the files are of versions of which something can be said.
fn is_version_right(combined: &Combined, at: &str, containerd: Option<Version>, report: &mut Report) -> bool {
    if combined.version < 2 {
        let found = if combined.version_at.is_empty() {
            "it has no version".to_owned()
        } else {
            format!("version = {}", combined.version)
        };
        report.find(&rules::CONTAINERD_CONFIG_OLD, at, found);
        return false;
    }
    if let Some(containerd) = containerd.filter(|containerd| combined.version > newest(*containerd)) {
        let found = format!("version = {}, and containerd is {containerd}", combined.version);
        report.find(&rules::CONTAINERD_CONFIG_NEW, &combined.version_at, found);
    }
    if let (Some(found), Some(containerd)) = (&combined.refused, containerd) {
        report.find(&rules::CONTAINERD_IMPORT_NEWER, at, format!("{found}; containerd is {containerd}"));
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
    combined: &'a Combined,
    at: &'a str,
    containerd: Option<Version>,
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
        let table = &self.combined.table;
        let proxies = table.get("proxy_plugins").and_then(Value::as_table);
        let text = |proxy: &Value, name: &str| {
            proxy.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let plain = |address: &str| {
            let path = address.strip_prefix("unix://").unwrap_or(address);
            let path: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
            let path = path.join("/");
            path.strip_prefix("var/").filter(|rest| rest.starts_with("run/")).unwrap_or(&path).to_owned()
        };
        let mut names = Vec::new();
        for (name, proxy) in proxies.into_iter().flatten() {
            let (kind, address) = (text(proxy, "type"), text(proxy, "address"));
            if plain(&address) == plain(socket) {
                if kind == "snapshot" || kind == SNAPSHOTTERS {
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

    fn cri(&mut self, names: &[String]) {
        let Combined { table, version, .. } = self.combined;
        let is_two = *version == 2;
        let two = at_path(table, &["plugins", CRI_TWO, "containerd"]);
        let three = at_path(table, &["plugins", CRI_THREE]);
        let two_path = format!("plugins.\"{CRI_TWO}\".containerd");
        let three_path = format!("plugins.\"{CRI_THREE}\"");
        let (own, other, other_path) =
            if is_two { (two, three, &three_path) } else { (three, two, &two_path) };
        // What was moved is still found where it was.
        let path = if is_two || self.combined.is_moved { &two_path } else { &three_path };
        let says = |value: Option<&Value>| {
            value.is_some_and(|value| {
                value.get("snapshotter").is_some() || value.get("disable_snapshot_annotations").is_some()
            })
        };
        if says(other) {
            let found = format!("{other_path}, and the settings are read as version {version}");
            self.report.find(&rules::CRI_MISPLACED, self.at, found);
            if !says(own) {
                return;
            }
        }
        for file in &self.combined.left_behind {
            let found = format!("{two_path} has no runtimes, so that the rest of it is not moved");
            self.report.find(&rules::CRI_LEFT_BEHIND, file, found);
        }
        if !self.combined.left_behind.is_empty() && !says(own) {
            return;
        }
        match own.and_then(|own| own.get("snapshotter")) {
            Some(Value::String(name)) if is_ours(name, names) => {}
            Some(other) => {
                let found = format!("{path}: snapshotter = {}", short(other));
                self.report.find(&rules::CRI_SNAPSHOTTER, self.at, found);
            }
            None => self.missing(&rules::CRI_SNAPSHOTTER, &format!("{path}: snapshotter is not set")),
        }
        self.annotations(own, path, names);
        self.runtimes(names);
        let registry = if is_two { at_path(table, &["plugins", CRI_TWO]) } else { three };
        self.registry(registry.and_then(|plugin| plugin.get("registry")));
    }

    fn annotations(&mut self, images: Option<&Value>, path: &str, names: &[String]) {
        let off = images.and_then(|images| images.get("disable_snapshot_annotations"));
        let is_fit = off.is_none_or(Value::is_bool);
        if off.and_then(Value::as_bool) == Some(false) || (is_fit && self.transfers(images, names)) {
            return;
        }
        if let Some(off) = off {
            let found = format!("{path}: disable_snapshot_annotations = {}", short(off));
            self.report.find(&rules::ANNOTATIONS_OFF, self.at, found);
        } else {
            let found = format!("{path}: disable_snapshot_annotations is not set, which means true");
            self.missing(&rules::ANNOTATIONS_OFF, &found);
        }
    }

    /// Whether the transfer service, which containerd 2.1 and later pull pods' images by, unpacks into the snapshotter
    /// and says which image a layer is of.
    fn transfers(&self, images: Option<&Value>, names: &[String]) -> bool {
        let has_it = self.containerd.is_none_or(|version| version >= Version::new(2, 1, 0));
        if self.combined.version == 2 || !has_it || images.is_some_and(pulls_itself) {
            return false;
        }
        let table = &self.combined.table;
        names.iter().any(|name| {
            let exports = ["proxy_plugins", name, "exports", "enable_remote_snapshot_annotations"];
            let unpacks = at_path(table, &["plugins", TRANSFER, "unpack_config"]).and_then(Value::as_array);
            at_path(table, &exports).and_then(Value::as_str) == Some("true")
                && unpacks
                    .into_iter()
                    .flatten()
                    .any(|unpack| unpack.get("snapshotter").and_then(Value::as_str) == Some(name))
        })
    }

    fn runtimes(&mut self, names: &[String]) {
        let plugin = if self.combined.version == 2 { CRI_TWO } else { CRI_RUNTIME };
        let shown = if self.combined.is_moved { CRI_TWO } else { plugin };
        let runtimes = at_path(&self.combined.table, &["plugins", plugin, "containerd", "runtimes"])
            .and_then(Value::as_table);
        for (name, runtime) in runtimes.into_iter().flatten() {
            let own = runtime.get("snapshotter").and_then(Value::as_str).unwrap_or_default();
            if !own.is_empty() && !is_ours(own, names) {
                let found =
                    format!("plugins.\"{shown}\".containerd.runtimes.{name}: snapshotter = \"{own}\"");
                self.report.find(&rules::RUNTIME_SNAPSHOTTER, self.at, found);
            }
        }
    }

    fn registry(&mut self, registry: Option<&Value>) {
        let get = |name: &str| registry.and_then(|registry| registry.get(name)).filter(|value| is_set(value));
        if get("config_path").is_none() {
            return;
        }
        // 1.x refuses certificates beside it, too; passwords are refused by none.
        let has_certificates = self.combined.version == 2
            && get("configs")
                .and_then(Value::as_table)
                .is_some_and(|hosts| hosts.values().any(|host| host.get("tls").is_some()));
        for (name, is_there) in
            [("mirrors", get("mirrors").is_some()), ("configs.HOST.tls", has_certificates)]
        {
            if is_there {
                let found = format!("config_path and {name} are set below registry");
                self.report.find(&rules::REGISTRY_CONFIG_CLASH, self.at, found);
            }
        }
    }
}

/// Whether a snapshotter's name is ours; where none is known by our socket, of which is told already, by the usual name.
fn is_ours(name: &str, names: &[String]) -> bool {
    names.iter().any(|known| known == name) || (names.is_empty() && name == "stargz")
}

/// Whether CRI pulls images itself instead of by the transfer service (`CheckLocalImagePullConfigs` of containerd;
/// annotations that are on are another reason).
fn pulls_itself(images: &Value) -> bool {
    let is_on = |name: &str| images.get(name).and_then(Value::as_bool) == Some(true);
    let registry = images.get("registry");
    ["use_local_image_pull", "discard_unpacked_layers", "image_pull_with_sync_fs"].into_iter().any(is_on)
        || ["mirrors", "configs", "auths"]
            .into_iter()
            .any(|name| registry.and_then(|registry| registry.get(name)).is_some_and(is_set))
        || images.get("max_concurrent_downloads").and_then(Value::as_integer).is_some_and(|most| most != 3)
}

/// Whether a setting says something.
fn is_set(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.is_empty(),
        Value::Table(table) => !table.is_empty(),
        _ => true,
    }
}
