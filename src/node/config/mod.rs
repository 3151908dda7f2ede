//! The settings that were measured best, as files for the versions that a node has. Must not know where they are
//! written to.
//!
//! Sources: the configuration types of stargz-snapshotter (see `keys`), containerd 1.6, 1.7 and 2.4 (`docs/cri`,
//! `docs/hosts.md`, the server's configuration), `containers-storage.conf(5)`.

mod containerd;
mod hosts;
mod snapshotter;
mod storage;
mod unit;

use super::{CONTAINERD_CONFIG, SNAPSHOTTER_CONFIG, SNAPSHOTTER_ROOT, STORAGE_CONFIG, Version};

pub use self::hosts::{Mirror, RegistryHosts};

/// What settings are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// stargz-snapshotter.
    Snapshotter,
    /// containerd.
    Containerd,
    /// CRI-O, with stargz-store.
    Crio,
    /// podman.
    Podman,
    /// Units of systemd.
    Systemd,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Snapshotter, Self::Containerd, Self::Crio, Self::Podman, Self::Systemd];
}

/// Where the snapshotter gets passwords of private registries from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// root's `~/.docker/config.json`, which needs no setting.
    Docker,
    /// What kubelet sends with its requests.
    Cri,
    /// Secrets of the cluster, by a kubeconfig.
    Kubeconfig,
}

/// What the node has, and what it shall do.
#[derive(Debug, Clone)]
pub struct ConfigOptions {
    /// The programs to write settings for.
    pub targets: Vec<Target>,
    /// Version of stargz-snapshotter.
    pub snapshotter: Version,
    /// Version of containerd.
    pub containerd: Version,
    /// Registries with mirrors, without TLS or with peculiarities.
    pub registries: Vec<RegistryHosts>,
    /// Where passwords come from.
    pub credentials: Credentials,
    /// Absolute path of the directory where the snapshotter keeps layers, of letters, digits and `._-+@/`.
    pub root: String,
}

impl Default for ConfigOptions {
    fn default() -> Self {
        Self {
            targets: Target::ALL.to_vec(),
            snapshotter: Version::new(0, 18, 2),
            containerd: Version::new(2, 0, 0),
            registries: Vec::new(),
            credentials: Credentials::Docker,
            root: SNAPSHOTTER_ROOT.to_owned(),
        }
    }
}

impl ConfigOptions {
    fn has(&self, target: Target) -> bool {
        self.targets.contains(&target)
    }
}

/// A file of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    /// Its absolute path.
    pub path: String,
    /// What it says; the first line is a comment with the path.
    pub text: String,
}

impl ConfigFile {
    fn new(path: impl Into<String>, text: &str) -> Self {
        let path = path.into();
        Self { text: format!("# {path}\n{text}"), path }
    }
}

/// The files that the options ask for, in the order in which they are best written.
pub fn files(options: &ConfigOptions) -> Vec<ConfigFile> {
    let mut files = Vec::new();
    if options.has(Target::Snapshotter) {
        files.push(ConfigFile::new(
            SNAPSHOTTER_CONFIG,
            &snapshotter::text(options, snapshotter::Program::Snapshotter),
        ));
    }
    if options.has(Target::Systemd) && (options.has(Target::Snapshotter) || options.has(Target::Containerd)) {
        files.extend(unit::snapshotter(options));
    }
    if options.has(Target::Containerd) {
        files.push(ConfigFile::new(CONTAINERD_CONFIG, &containerd::text(options)));
        files.extend(options.registries.iter().map(hosts::file));
    }
    if options.has(Target::Crio) {
        files.push(ConfigFile::new(
            "/etc/stargz-store/config.toml",
            &snapshotter::text(options, snapshotter::Program::Store),
        ));
        if options.has(Target::Systemd) {
            files.push(unit::store());
        }
    }
    if options.has(Target::Crio) || options.has(Target::Podman) {
        files.push(ConfigFile::new(STORAGE_CONFIG, &storage::text(options)));
    }
    // systemd alone is asked for by who has the rest.
    if options.targets == [Target::Systemd] {
        files.extend(unit::snapshotter(options));
    }
    files
}

/// `text` as TOML writes it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::SNAPSHOTTER_SOCKET;

    fn table(file: &ConfigFile) -> toml::Table {
        assert!(file.text.starts_with(&format!("# {}\n", file.path)), "{}", file.text);
        assert!(file.text.ends_with('\n') && !file.text.contains("\n\n\n"), "{}", file.text);
        file.text.parse().unwrap_or_else(|error| panic!("{}: {error}\n{}", file.path, file.text))
    }

    fn of<'a>(files: &'a [ConfigFile], path: &str) -> &'a ConfigFile {
        files.iter().find(|file| file.path == path).unwrap()
    }

    #[test]
    fn all_files_of_all_versions_are_toml() {
        let registries = [
            "docker.io=mirror.example.com,http://10.0.0.1:5000",
            "[::1]:5000",
            "123.dkr.ecr.eu-west-1.amazonaws.com",
        ];
        let registries: Vec<RegistryHosts> =
            registries.iter().map(|text| RegistryHosts::parse(text, false).unwrap()).collect();
        for snapshotter in ["0.9.0", "0.12.1", "0.18.1", "0.18.2", "0.19.1", "1.0"] {
            for containerd in ["1.6", "1.7", "2.x", "2.4"] {
                for credentials in [Credentials::Docker, Credentials::Cri, Credentials::Kubeconfig] {
                    let options = ConfigOptions {
                        snapshotter: snapshotter.parse().unwrap(),
                        containerd: containerd.parse().unwrap(),
                        registries: registries.clone(),
                        credentials,
                        ..ConfigOptions::default()
                    };
                    let files = files(&options);
                    for file in files.iter().filter(|file| !file.path.contains("systemd")) {
                        table(file);
                    }
                    let mut paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
                    paths.sort_unstable();
                    paths.dedup();
                    assert_eq!(paths.len(), files.len());
                }
            }
        }
    }

    #[test]
    fn only_settings_that_a_version_has_are_set() {
        for (version, has) in [("0.9.0", false), ("0.18.1", false), ("0.18.2", true), ("0.19.1", true)] {
            let options = ConfigOptions {
                snapshotter: version.parse().unwrap(),
                registries: vec![RegistryHosts::parse("registry.example.com", false).unwrap()],
                ..ConfigOptions::default()
            };
            let files = files(&options);
            let table = table(of(&files, SNAPSHOTTER_CONFIG));
            assert_eq!(table.contains_key("prefetch_async_size"), has, "{version}");
            assert_eq!(table["resolver"].get("request_timeout_sec").is_some(), has, "{version}");
            // What older versions can be told for one registry at a time.
            let mirror =
                table["resolver"].get("host").map(|hosts| &hosts["registry.example.com"]["mirrors"][0]);
            assert_eq!(
                mirror.map(|mirror| mirror["request_timeout_sec"].as_integer()),
                (!has).then_some(Some(600))
            );
            assert!(of(&files, SNAPSHOTTER_CONFIG).text.contains("prefetch_async_size"));
        }
    }

    #[test]
    fn containerd_is_told_in_its_own_version() {
        for (version, expected, images) in [
            ("1.6", 2, "io.containerd.grpc.v1.cri"),
            ("1.7", 2, "io.containerd.grpc.v1.cri"),
            ("2.x", 3, "io.containerd.cri.v1.images"),
            ("2.4", 3, "io.containerd.cri.v1.images"),
        ] {
            let options = ConfigOptions { containerd: version.parse().unwrap(), ..ConfigOptions::default() };
            let table = table(of(&files(&options), CONTAINERD_CONFIG));
            assert_eq!(table["version"].as_integer(), Some(expected));
            let images = &table["plugins"][images];
            let images = images.get("containerd").unwrap_or(images);
            assert_eq!(images["snapshotter"].as_str(), Some("stargz"));
            assert_eq!(images["disable_snapshot_annotations"].as_bool(), Some(false));
            let proxy = &table["proxy_plugins"]["stargz"];
            assert_eq!(proxy["address"].as_str(), Some(SNAPSHOTTER_SOCKET));
            assert_eq!(proxy.get("exports").is_some(), version != "1.6");
        }
    }

    #[test]
    fn registries_are_in_both_programs_settings() {
        let registry =
            RegistryHosts::parse("docker.io=mirror.example.com,http://10.0.0.1:5000", false).unwrap();
        let plain = RegistryHosts::parse("registry.local:5000", true).unwrap();
        let options = ConfigOptions { registries: vec![registry, plain], ..ConfigOptions::default() };
        let files = files(&options);
        let hosts = &table(of(&files, SNAPSHOTTER_CONFIG))["resolver"]["host"];
        assert_eq!(hosts["docker.io"]["mirrors"][0]["host"].as_str(), Some("mirror.example.com"));
        assert_eq!(hosts["docker.io"]["mirrors"][0].get("insecure"), None);
        assert_eq!(hosts["docker.io"]["mirrors"][1]["insecure"].as_bool(), Some(true));
        assert_eq!(hosts["registry.local:5000"]["mirrors"][0]["insecure"].as_bool(), Some(true));
        let docker = table(of(&files, "/etc/containerd/certs.d/docker.io/hosts.toml"));
        assert_eq!(docker["server"].as_str(), Some("https://registry-1.docker.io"));
        assert!(docker["host"].get("http://10.0.0.1:5000").is_some());
        let plain = table(of(&files, "/etc/containerd/certs.d/registry.local:5000/hosts.toml"));
        assert_eq!(plain["server"].as_str(), Some("http://registry.local:5000"));
    }

    #[test]
    fn registries_that_answer_no_multiple_ranges_are_asked_for_one() {
        for (host, expected) in [
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", true),
            ("ghcr.io", true),
            ("registry.example.com", false),
        ] {
            let registries = vec![RegistryHosts::parse(host, false).unwrap()];
            let options = ConfigOptions { registries, ..ConfigOptions::default() };
            let table = table(of(&files(&options), SNAPSHOTTER_CONFIG));
            assert_eq!(table["blob"].get("force_single_range_mode").is_some(), expected, "{host}");
        }
    }

    #[test]
    fn podman_alone_gets_no_store() {
        let options = ConfigOptions { targets: vec![Target::Podman], ..ConfigOptions::default() };
        let found = files(&options);
        let table = table(of(&found, STORAGE_CONFIG));
        assert_eq!(found.len(), 1);
        assert_eq!(
            table["storage"]["options"]["pull_options"]["enable_partial_images"].as_str(),
            Some("true")
        );
        assert!(table["storage"]["options"].get("additionallayerstores").is_none());
        let options = ConfigOptions { targets: vec![Target::Crio], ..ConfigOptions::default() };
        assert!(files(&options).iter().any(|file| file.text.contains("\nadditionallayerstores = ")));
    }
}
