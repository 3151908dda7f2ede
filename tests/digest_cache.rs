//! Packing again what did not change: nothing is read, and whatever somebody does to a file or to the cache, the image
//! is the one that a pack without a cache makes.
//!
//! That nothing is read is shown by taking the files away after they were looked at: who opens one fails.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;
#[path = "support/ten_shards.rs"]
mod ten_shards;

use std::{fs, os::unix::fs::FileExt as _, path::PathBuf, sync::atomic::Ordering};

use serde_json::Value;
use starcar::{
    digest::Digest,
    digest_cache::{DigestCache, LIMIT_DEFAULT, Usage},
    naming::Naming,
    pack::{Destination, FormatChoice, PackOptions, Prepared, prepare},
    registry::{Registry, RegistryOptions},
    zstd_chunked::Consumers,
};

use support::registry::FakeRegistry;
use ten_shards::{Heard, LAYER, Place, SHARDS, edit_secretly, settle, shard, shard_name};

#[test]
fn packing_again_reads_nothing() {
    let place = Place::new();
    let (first, heard) = place.pack(place.options(), "out");
    assert_eq!(heard.read(), heard.total.load(Ordering::Relaxed));
    assert_eq!((first.digest, heard.known.into_inner().unwrap().len()), (place.expected(), 0));
    let layers = first.layers.len();
    assert_eq!(place.cache.usage().unwrap().entries, layers);

    let prepared = place.prepare();
    fs::rename(place.path("model"), place.path("elsewhere")).unwrap();
    let (again, heard) = place.write(&prepared, "out");
    assert_eq!((again.unwrap().digest, heard.read()), (first.digest, 0));
    assert_eq!(heard.known.lock().unwrap().len(), layers);
    assert!(heard.is_whole());
    // Where a model lies is no part of what it is; a renamed directory changes no file.
    let options =
        PackOptions { snapshot: place.path("elsewhere").to_str().unwrap().into(), ..place.options() };
    let (elsewhere, heard) = place.pack(options, "out");
    assert_eq!(heard.read(), 0);
    assert_eq!(elsewhere.layers.len(), layers);
}

#[test]
fn one_changed_shard_is_the_one_that_is_read() {
    let place = Place::new();
    let (first, _) = place.pack(place.options(), "out");
    fs::write(place.shard(3), shard(99)).unwrap();
    settle();
    let expected = place.expected();
    assert_ne!(expected, first.digest);
    let prepared = place.prepare();
    for entry in fs::read_dir(place.path("model")).unwrap().map(|entry| entry.unwrap().path()) {
        if entry != place.shard(3) {
            fs::remove_file(entry).unwrap();
        }
    }
    let (packed, heard) = place.write(&prepared, "out");
    assert_eq!((packed.unwrap().digest, heard.read()), (expected, LAYER));
    assert!(heard.is_whole());
}

#[test]
fn known_layers_go_to_other_places() {
    let place = Place::new();
    let archive = |name: &str| Destination::Archive { path: place.path(name), tag: "v1".to_owned() };
    // Known from a pack that wrote a layout, from one that wrote none, and from one that knew the layers itself.
    let (first, _) = place.pack(place.options(), "out");
    let (second, heard) = place.pack(place.options(), "second");
    assert_eq!((second.digest, heard.known.lock().unwrap().len()), (first.digest, first.layers.len()));
    let estargz = FormatChoice::Estargz { level: 6 };
    let zstd = |consumers| FormatChoice::ZstdChunked { level: 3, consumers };
    for format in [estargz, zstd(Consumers::Stargz), zstd(Consumers::Both), FormatChoice::Tar] {
        let mut files = Vec::new();
        for (name, digest_cache) in
            [("none", None), ("unknown", Some(place.cache.clone())), ("known", Some(place.cache.clone()))]
        {
            let options = PackOptions { digest_cache, format, ..place.options() };
            let prepared = prepare(options, || unreachable!()).unwrap();
            let heard = Heard::default();
            prepared.write(&[archive(name)], &heard).unwrap();
            assert_eq!(
                heard.known.lock().unwrap().is_empty(),
                name == "none" || (name == "unknown" && format != estargz)
            );
            files.push(fs::read(place.path(name)).unwrap());
        }
        assert!(files[0] == files[1] && files[0] == files[2]);
        place.pack(PackOptions { format, ..place.options() }, "third");
    }
}

#[test]
fn a_push_reads_what_the_registry_lacks() {
    let place = Place::new();
    let registry = FakeRegistry::open();
    let (model, elsewhere) = (place.path("model"), place.path("elsewhere"));
    let push = |prepared: &Prepared, name: &str| {
        let heard = Heard::default();
        let destination = Destination::Registry {
            naming: Naming::Move,
            registry: Registry::new(RegistryOptions::default()).unwrap(),
            reference: format!("{}/{name}:v1", registry.address()).parse().unwrap(),
        };
        (prepared.write(&[destination], &heard), heard)
    };
    let (first, heard) = push(&place.prepare(), "models/one");
    let first = first.unwrap();
    assert_eq!((first.digest, heard.read()), (place.expected(), heard.total.into_inner()));

    let prepared = place.prepare();
    fs::rename(&model, &elsewhere).unwrap();
    let (again, heard) = push(&prepared, "models/one");
    assert_eq!((again.unwrap().digest, heard.read()), (first.digest, 0));
    fs::rename(&elsewhere, &model).unwrap();

    // To a registry that has none of it, layers are made of the files, and have the digests that were known.
    let other = FakeRegistry::open();
    let name = format!("{}/models/other:v1", other.address());
    let arguments = ["pack", model.to_str().unwrap(), "--base", "scratch", "--profile", "none"];
    let run = place.starcar(&[&arguments[..], &["-t", &name, "--push"]].concat());
    assert_eq!((run.code, run.stdout.trim_end()), (0, first.digest.to_string().as_str()), "{}", run.stderr);
    assert_eq!(run.stderr.matches("(known)").count(), first.layers.len());
    for layer in first.layers {
        let blob = other.blob("models/other", layer.digest).unwrap();
        assert_eq!((Digest::of(&blob), blob.len() as u64), (layer.digest, layer.size));
    }
}

#[test]
fn whatever_happens_to_a_file_the_image_is_right() {
    let place = Place::new();
    let (first, _) = place.pack(place.options(), "out");
    let path = place.shard(7);
    let other = place.path("other");
    let touch = || fs::File::open(&path).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    let rename = || {
        fs::rename(&path, &other).unwrap();
        fs::rename(&other, &path).unwrap();
    };
    let copy = || {
        fs::copy(&path, &other).unwrap();
        fs::rename(&other, &path).unwrap();
    };
    let edit = || edit_secretly(&path);
    let steps: [(&str, &dyn Fn(), bool); 4] =
        [("touch", &touch, true), ("rename", &rename, true), ("copy", &copy, true), ("edit", &edit, false)];
    for (name, step, same) in steps {
        step();
        settle();
        let (packed, heard) = place.pack(place.options(), "out");
        assert_eq!(packed.digest == first.digest, same, "{name}");
        assert_eq!((packed.digest, heard.read()), (place.expected(), LAYER), "{name}");
        assert_eq!(place.pack(place.options(), "out").1.read(), 0, "{name}");
    }
}

#[test]
fn content_that_no_time_tells_of_is_noticed_before_it_is_in_an_image() {
    let place = Place::new();
    place.pack(place.options(), "out");
    let entries = place.cache.usage().unwrap().entries;
    // The stamps of the pack are from before the edit, so that the cache believes to know the file.
    let prepared = place.prepare();
    edit_secretly(&place.shard(5));
    let (packed, _) = place.write(&prepared, "new");
    let error = packed.unwrap_err().to_string();
    assert!(error.contains(&shard_name(5)) && error.contains("content differs"), "{error}");
    assert!(!place.path("new/index.json").exists());
    // What was wrong is forgotten.
    assert_eq!(place.cache.usage().unwrap().entries, entries - 1);
    settle();
    assert_eq!(place.pack(place.options(), "new").0.digest, place.expected());
}

/// Changes a recipe so that nothing but its digest is wrong.
fn falsify(place: &Place, layer: Digest) {
    for path in place.recipes() {
        let mut bytes = fs::read(&path).unwrap();
        let found = bytes.windows(32).rposition(|window| window == layer.as_bytes());
        let Some(position) = found else { continue };
        bytes[position] ^= 1;
        let checked = bytes.len() - 32;
        let checksum = Digest::of(&bytes[..checked]);
        bytes[checked..].copy_from_slice(checksum.as_bytes());
        fs::write(&path, bytes).unwrap();
        return;
    }
    panic!("the cache does not know {layer}");
}

#[test]
fn a_cache_that_is_wrong_is_found_out() {
    let place = Place::new();
    let (first, _) = place.pack(place.options(), "out");
    let layer = first.layers[4].digest;
    falsify(&place, layer);
    let (packed, _) = place.write(&place.prepare(), "new");
    let error = packed.unwrap_err().to_string();
    assert!(error.contains(&layer.to_string()) && error.contains("model-0000"), "{error}");
    assert_eq!(place.pack(place.options(), "new").0.digest, first.digest);

    falsify(&place, layer);
    let verify = PackOptions { verify_sources: true, ..place.options() };
    let (verified, heard) = place.pack(verify.clone(), "out");
    assert_eq!((verified.digest, heard.read()), (first.digest, heard.total.into_inner()));
    let warnings = heard.warnings.into_inner().unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains(&layer.to_string()), "{warnings:?}");
    let (again, heard) = place.pack(verify, "out");
    assert_eq!((again.digest, heard.warnings.into_inner().unwrap().len()), (first.digest, 0));
    assert_eq!(place.pack(place.options(), "out").1.read(), 0);
}

#[test]
fn verifying_mends_a_layout() {
    let place = Place::new();
    let (first, _) = place.pack(place.options(), "out");
    let blob = place.path("out/blobs/sha256").join(first.layers[2].digest.hex());
    let damage = || {
        let file = fs::OpenOptions::new().write(true).open(&blob).unwrap();
        file.write_all_at(b"damage", 1000).unwrap();
    };
    for digest_cache in [Some(place.cache.clone()), None] {
        damage();
        let options = PackOptions { verify_sources: true, digest_cache, ..place.options() };
        // `pack` looks at all blobs.
        assert_eq!(place.pack(options, "out").0.digest, first.digest);
    }
}

#[test]
fn damaged_recipes_are_none() {
    let place = Place::new();
    let (first, _) = place.pack(place.options(), "out");
    for (number, path) in place.recipes().into_iter().enumerate() {
        let bytes = fs::read(&path).unwrap();
        match number % 4 {
            0 => fs::write(&path, &bytes[..bytes.len() / 2]).unwrap(),
            1 => fs::write(&path, "").unwrap(),
            2 => fs::write(&path, vec![0xff; bytes.len()]).unwrap(),
            _ => {
                fs::remove_file(&path).unwrap();
                fs::create_dir(&path).unwrap();
            }
        }
    }
    let (packed, heard) = place.pack(place.options(), "new");
    assert_eq!((packed.digest, heard.read()), (first.digest, heard.total.into_inner()));
}

#[test]
fn the_limit_is_kept() {
    let place = Place::new();
    let first = place.pack(place.options(), "out").0.digest;
    let of_one = place.cache.usage().unwrap().bytes / place.cache.usage().unwrap().entries as u64;
    for limit in [of_one * 6, 0] {
        let cache = DigestCache::new(place.path(&limit.to_string()), limit);
        let options = PackOptions { digest_cache: Some(cache.clone()), ..place.options() };
        assert_eq!(place.pack(options, "out").0.digest, first);
        let usage = cache.usage().unwrap();
        assert!(usage.bytes <= limit && (limit == 0) == (usage == Usage::default()), "{usage:?}");
    }
}

#[test]
fn a_cache_that_cannot_be_used_is_a_warning() {
    let place = Place::new();
    // Not even root can write to one, or have the other.
    for directory in [PathBuf::from("/proc/starcar"), place.path("model/config.json/x")] {
        let cache = DigestCache::new(directory, LIMIT_DEFAULT);
        let (packed, heard) = place.pack(PackOptions { digest_cache: Some(cache), ..place.options() }, "out");
        assert_eq!(packed.digest, place.expected());
        let warnings = heard.warnings.into_inner().unwrap();
        assert!(warnings.len() == 1 && warnings[0].contains("digest cache"), "{warnings:?}");
    }
}

#[test]
fn processes_share_a_cache_and_a_layout() {
    let place = Place::new();
    let expected = place.expected().to_string();
    let model = place.path("model");
    let out = format!("oci:{}", place.path("out").display());
    std::thread::scope(|scope| {
        let place = &place;
        for worker in 0..4 {
            let (expected, model, out) = (&expected, &model, &out);
            scope.spawn(move || {
                for _ in 0..3 {
                    let run = place.starcar(&[
                        "pack",
                        model.to_str().unwrap(),
                        "--base",
                        "scratch",
                        "--profile",
                        "none",
                        "-o",
                        out,
                    ]);
                    assert_eq!((run.code, run.stdout.trim_end()), (0, expected.as_str()), "{}", run.stderr);
                    if worker == 3 {
                        assert_eq!(place.starcar(&["digest-cache", "clear"]).code, 0);
                    }
                }
            });
        }
    });
    assert_eq!(place.pack(place.options(), "out").0.digest.to_string(), expected);
}

#[test]
fn the_command_says_what_is_known_and_kept() {
    let place = Place::new();
    let model = place.path("model");
    let out = format!("oci:{}", place.path("out").display());
    let pack = |more: &[&str]| {
        let arguments = ["pack", model.to_str().unwrap(), "--base", "scratch", "-o", &out];
        let run = place.starcar(&[&arguments, more].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        (run.stdout, run.stderr.matches("(known)").count())
    };
    let info = || -> Value {
        serde_json::from_str(&place.starcar(&["digest-cache", "info", "--format", "json"]).stdout).unwrap()
    };
    assert_eq!(info()["entries"], 0);
    let (digest, known) = pack(&["--no-digest-cache"]);
    assert_eq!((known, info()["entries"].as_u64()), (0, Some(0)));
    assert_eq!(pack(&[]), (digest.clone(), 0));
    let layers = usize::try_from(info()["entries"].as_u64().unwrap()).unwrap();
    assert!(layers > SHARDS);
    assert_eq!(pack(&[]), (digest.clone(), layers));
    assert_eq!(pack(&["--verify-sources"]), (digest.clone(), 0));
    assert_eq!(pack(&["--no-digest-cache"]), (digest.clone(), 0));
    assert_eq!(info()["limit"], LIMIT_DEFAULT);
    assert_eq!(info()["path"], place.cache.directory().to_str().unwrap());
    let text = place.starcar(&["digest-cache", "info"]).stdout;
    assert!(text.contains(&format!("layers  {layers}\n")) && text.contains("1.0 GiB"), "{text}");
    let cleared = place.starcar(&["digest-cache", "clear"]).stdout;
    assert!(cleared.starts_with(&format!("forgot {layers} layers, freed ")), "{cleared}");
    assert_eq!(pack(&[]), (digest, 0));
}
