//! How two plans differ, in words for the user: options first, then what the image says of itself, then files, then how
//! they lie. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    oci::STARCAR_PREFIX,
    pack::{
        blueprint::{Blueprint, ImagesFacts},
        part::{FileFacts, PartPlan},
    },
};

/// Differences that are told.
const SHOWN: usize = 8;

/// How `this` differs from `other`.
pub(super) fn differences(this: &PartPlan, other: &PartPlan) -> Vec<String> {
    let mut all = of_options(&this.image, &other.image);
    all.extend(of_images(&this.image, &other.image));
    all.extend(of_files(&this.files, &other.files));
    if all.is_empty() {
        all.extend(of_layers(this, other));
    }
    if all.is_empty() {
        all.push("what the images say of themselves differs".to_owned());
    }
    if all.len() > SHOWN {
        let more = all.len() - SHOWN;
        all.truncate(SHOWN);
        all.push(format!("and {more} more"));
    }
    all
}

fn annotations(image: &Blueprint) -> Option<&BTreeMap<String, String>> {
    image.images.first().map(|images| &images.plain.annotations)
}

/// The options that an image records.
fn options(image: &Blueprint) -> BTreeMap<String, Value> {
    let text = annotations(image).and_then(|all| all.get(&format!("{STARCAR_PREFIX}pack.options")));
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

fn of_options(this: &Blueprint, other: &Blueprint) -> Vec<String> {
    let (this, other) = (options(this), options(other));
    let names: BTreeSet<&String> = this.keys().chain(other.keys()).collect();
    let text = |value: Option<&Value>| value.map_or_else(|| "not set".to_owned(), ToString::to_string);
    names
        .into_iter()
        .filter(|name| this.get(*name) != other.get(*name))
        .map(|name| format!("option {name}: {}, not {}", text(this.get(name)), text(other.get(name))))
        .collect()
}

fn of_images(this: &Blueprint, other: &Blueprint) -> Vec<String> {
    let mut found = Vec::new();
    let kinds = |image: &Blueprint| {
        let kind = |images: &ImagesFacts| match images.consumer {
            Some(consumer) => format!("{} for {}", images.platform, consumer.name()),
            None => images.platform.to_string(),
        };
        image.images.iter().map(kind).collect::<Vec<_>>().join(", ")
    };
    let mut differ = |what: &str, this: String, other: String| {
        if this != other {
            found.push(format!("{what}: {this}, not {other}"));
        }
    };
    differ("platforms", kinds(this), kinds(other));
    differ("targets", this.targets.join(", "), other.targets.join(", "));
    differ("time", this.created.to_string(), other.created.to_string());
    let empty = BTreeMap::new();
    let (own, others) = (annotations(this).unwrap_or(&empty), annotations(other).unwrap_or(&empty));
    let names: BTreeSet<&String> = own.keys().chain(others.keys()).collect();
    for name in names {
        let short = name.strip_prefix(STARCAR_PREFIX).unwrap_or(name);
        // Options were told one by one; commands for caches follow from the caches.
        if matches!(short, "pack.options" | "cache.env" | "cache.setup") {
            continue;
        }
        let text =
            |all: &BTreeMap<String, String>| all.get(name).cloned().unwrap_or_else(|| "not set".to_owned());
        differ(short, text(own), text(others));
    }
    let caches = |image: &Blueprint| {
        let all = image.images.iter().flat_map(|images| images.of_targets.iter().chain([&images.plain]));
        let records = all.flat_map(|facts| &facts.caches);
        let names: BTreeSet<String> = records
            .map(|record| format!("{} ({} files, {} bytes)", record.name, record.files, record.size))
            .collect();
        names.into_iter().collect::<Vec<_>>().join(", ")
    };
    differ("compile caches", caches(this), caches(other));
    found
}

fn of_files(this: &[FileFacts], other: &[FileFacts]) -> Vec<String> {
    let by_name = |files: &'_ [FileFacts]| -> BTreeMap<(Option<String>, String), FileFacts> {
        files.iter().map(|file| ((file.cache.clone(), file.path.clone()), file.clone())).collect()
    };
    let (this, other) = (by_name(this), by_name(other));
    let mut found = Vec::new();
    for (name, file) in &this {
        let path = &file.path;
        let Some(with) = other.get(name) else {
            found.push(format!("{path} is in this one alone"));
            continue;
        };
        if file.size != with.size {
            found.push(format!("size of {path}: {}, not {}", file.size, with.size));
        } else if file.start != with.start {
            found.push(format!("content of {path}: its start has digest {}, not {}", file.start, with.start));
        }
        if file.modified != with.modified {
            let text = |time: Option<i64>| time.map_or_else(|| "none".to_owned(), |time| time.to_string());
            found.push(format!(
                "time of change of {path}: {}, not {}",
                text(file.modified),
                text(with.modified)
            ));
        }
    }
    let lacks = other.iter().filter(|(name, _)| !this.contains_key(*name));
    found.extend(lacks.map(|(_, file)| format!("{} is not in this one", file.path)));
    found
}

fn of_layers(this: &PartPlan, other: &PartPlan) -> Vec<String> {
    let (own, others) = (this.image.layers.len(), other.image.layers.len());
    if own != others {
        return vec![format!("number of layers: {own}, not {others}")];
    }
    let layers = this.image.layers.iter().zip(&this.layouts).zip(&other.layouts);
    layers
        .filter(|((_, own), other)| own != other)
        .map(|((layer, _), _)| format!("the layer of {} is laid out differently", layer.title))
        .collect()
}
