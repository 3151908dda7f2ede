//! The container image of starcar itself, made by `examples/container_image.rs`: the same bytes everywhere.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../examples/container-image/image.rs"]
mod image;
mod support;

use std::{
    fs,
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use image::{ImageOptions, write_image};
use serde_json::Value;
use starcar::oci::Platform;
use support::noise::noise;

struct Place(tempfile::TempDir);

impl Place {
    /// Files with these bytes and a mode that depends on who made them.
    fn new(mode: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut busybox = vec![0; 120];
        busybox[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (busybox[18], busybox[32], busybox[54], busybox[56], busybox[64]) = (62, 64, 56, 1, 1);
        busybox.extend(b"\0ln\0ls\0mkdir\0sh\0sleep\0");
        let program = [noise(5_000_000, 7), vec![0; 1_000_000]].concat();
        for (name, bytes) in [
            ("busybox", busybox),
            ("starcar", program),
            ("ca.pem", b"-----BEGIN CERTIFICATE-----\n".to_vec()),
        ] {
            let path = directory.path().join(name);
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn options(&self, threads: usize) -> ImageOptions {
        ImageOptions {
            program: self.path("starcar"),
            busybox: Some(self.path("busybox")),
            certificates: Some(self.path("ca.pem")),
            platform: Platform::default(),
            version: "0".to_owned(),
            revision: Some("c0ffee".to_owned()),
            source: None,
            modified: 1_700_000_000,
            threads,
        }
    }
}

fn document(layout: &Path, digest: &str) -> Value {
    let path = layout.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn the_same_program_gives_the_same_image() {
    let mut digests = Vec::new();
    for (mode, threads) in [(0o755, 1), (0o600, 3)] {
        let place = Place::new(mode);
        let digest = write_image(&place.options(threads), &place.path("image"), "v1").unwrap().to_string();
        digests.push(digest);
    }
    assert_eq!(digests[0], digests[1]);
    assert_eq!(digests[0], include_str!("golden/container-image").trim_end());
}

#[test]
fn what_is_in_it() {
    let place = Place::new(0o644);
    let layout = place.path("image");
    let digest = write_image(&place.options(2), &layout, "v1").unwrap().to_string();
    let manifest = document(&layout, &digest);
    let config = document(&layout, manifest["config"]["digest"].as_str().unwrap());
    let run = &config["config"];
    assert_eq!((run["User"].as_str(), run["Entrypoint"].as_str()), (Some("1010:0"), None));
    assert_eq!(run["Cmd"], serde_json::json!(["sh"]));
    let environment = run["Env"].as_array().unwrap();
    assert!(environment.contains(&"HOME=/home/starcar".into()), "{environment:?}");
    assert_eq!(run["Labels"]["org.opencontainers.image.revision"], "c0ffee");
    assert!(run["Labels"]["dev.starcar.ca-certificates.digest"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(config["created"], "2023-11-14T22:13:20Z");

    let mut found = Vec::new();
    for layer in manifest["layers"].as_array().unwrap() {
        assert!(layer["annotations"]["containerd.io/snapshot/stargz/toc.digest"].is_string(), "{layer}");
        let blob = layer["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let blob = fs::File::open(layout.join("blobs/sha256").join(blob)).unwrap();
        let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(blob));
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let header = entry.header();
            let (mode, owner) = (header.mode().unwrap(), header.uid().unwrap());
            let is_file = header.entry_type().is_file();
            assert_eq!(header.gid().unwrap(), 0);
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            if path == "usr/local/bin/starcar" {
                assert!(content == fs::read(place.path("starcar")).unwrap());
            }
            found.push((path, mode, owner, is_file));
        }
    }
    for wanted in [
        ("bin/busybox", 0o755, 0, true),
        ("bin/sh", 0o777, 0, false),
        ("tmp/", 0o1777, 0, false),
        ("etc/passwd", 0o644, 0, true),
        ("etc/ssl/certs/ca-certificates.crt", 0o644, 0, true),
        ("home/starcar/", 0o775, 1010, false),
        ("usr/local/bin/starcar", 0o755, 0, true),
    ] {
        let is_wanted =
            |one: &&(String, u32, u64, bool)| one.0.trim_end_matches('/') == wanted.0.trim_end_matches('/');
        let one = found.iter().find(is_wanted).unwrap_or_else(|| panic!("{wanted:?} is not in {found:?}"));
        assert_eq!((one.1, one.2, one.3), (wanted.1, wanted.2, wanted.3), "{wanted:?}");
    }
}

#[test]
fn what_is_left_out_is_not_there() {
    let place = Place::new(0o755);
    let options = ImageOptions { busybox: None, certificates: None, ..place.options(1) };
    let digest = write_image(&options, &place.path("image"), "v1").unwrap().to_string();
    let manifest = document(&place.path("image"), &digest);
    let labels = manifest["annotations"].as_object().unwrap();
    assert!(labels.keys().all(|name| !name.starts_with("dev.starcar.")), "{labels:?}");
    let missing = ImageOptions { program: place.path("none"), ..options.clone() };
    let error = write_image(&missing, &place.path("image"), "v1").unwrap_err().to_string();
    assert!(error.contains("none"), "{error}");
    let directory = ImageOptions { program: place.path("image"), ..options };
    assert!(write_image(&directory, &place.path("image"), "v1").is_err());
}
