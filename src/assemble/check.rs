//! Whether parts make an image: all are there, all are of one plan, and each layer is in one of them. Pure. Must not know
//! where parts lie.

use std::collections::{BTreeMap, BTreeSet};

use super::{PartsError, differences::differences, read::FoundPart};
use crate::{
    digest::Digest,
    layer::SealedLayer,
    pack::{
        Part,
        blueprint::{ImageFacts, ImagesFacts, LayerFacts},
        part::{PartLayer, PartPlan},
    },
};

/// Most bytes that the documents of all images may have together.
const DOCUMENTS_MAX: u64 = 256 << 20;
/// What a layer costs in them beside its texts.
const LAYER_COST: u64 = 512;
/// What a text costs beside its bytes.
const TEXT_COST: u64 = 64;

/// Parts that make an image.
pub(super) struct Agreed<'a> {
    pub(super) plan: &'a PartPlan,
    /// Each part once, in their order.
    pub(super) parts: Vec<&'a FoundPart>,
    /// All layers, in the plan's order.
    pub(super) sealed: Vec<SealedLayer>,
}

/// What an error says of where parts are.
pub(super) struct Said<'a> {
    pub(super) place: &'a str,
    pub(super) make: &'a str,
}

/// Makes sure that `found` are all parts of one image; `count` is how many there should be, where that is known.
pub(super) fn agree<'a>(
    found: &'a [FoundPart],
    plans: &'a BTreeMap<Digest, PartPlan>,
    count: Option<u16>,
    said: &Said<'_>,
) -> Result<Agreed<'a>, PartsError> {
    let place = || said.place.to_owned();
    let counts: BTreeSet<u16> = found.iter().map(|part| part.part.of()).chain(count).collect();
    let Some(of) = counts.first().copied().filter(|_| counts.len() == 1) else {
        return Err(if counts.is_empty() {
            let make = command(said, "1/N");
            PartsError::None { place: place(), make }
        } else {
            PartsError::Counts { place: place(), found: counts.into_iter().collect() }
        });
    };
    let one_plan = same_plan(found, plans)?;
    let parts = once(found)?;
    let present: BTreeSet<u16> = parts.iter().map(|part| part.part.index()).collect();
    let missing: Vec<u16> = (1..=of).filter(|index| !present.contains(index)).collect();
    if let Some(first) = missing.first() {
        let make = command(said, &format!("{first}/{of}"));
        return Err(PartsError::Missing { missing, of, place: place(), make });
    }
    let Some(plan) = one_plan else {
        return Err(PartsError::None { place: place(), make: command(said, "1/N") });
    };
    same_files(&parts)?;
    Ok(Agreed { plan, sealed: layers(plan, parts.iter().flat_map(|part| &part.layers))?, parts })
}

fn command(said: &Said<'_>, part: &str) -> String {
    format!("starcar pack SNAPSHOT … --part {part} {}", said.make)
}

/// The plan of all parts. Of several plans that of most parts is taken to be the one that is meant.
fn same_plan<'a>(
    found: &[FoundPart],
    plans: &'a BTreeMap<Digest, PartPlan>,
) -> Result<Option<&'a PartPlan>, PartsError> {
    let mut of_plan: BTreeMap<Digest, Vec<&FoundPart>> = BTreeMap::new();
    for part in found {
        of_plan.entry(part.plan_digest).or_default().push(part);
    }
    let first = |parts: &[&FoundPart]| parts.iter().map(|part| part.part).min();
    let meant = of_plan.values().max_by_key(|parts| (parts.len(), std::cmp::Reverse(first(parts))));
    let Some(&with) = meant.and_then(|parts| parts.iter().min_by_key(|part| part.part)) else {
        return Ok(None);
    };
    let plan = plans.get(&with.plan_digest);
    let odd = found.iter().filter(|part| part.plan_digest != with.plan_digest).min_by_key(|part| part.part);
    let Some(odd) = odd else { return Ok(plan) };
    let differences = match (plans.get(&odd.plan_digest), plan) {
        (Some(odd), Some(plan)) => differences(odd, plan),
        // Of many plans, not all are kept.
        _ => vec!["and others are of more plans than two".to_owned()],
    };
    let (part, name, other) = (odd.part, odd.name.clone(), with.part);
    Err(PartsError::OtherPlan { part, name, other, differences })
}

/// Each part once: one that was made twice is the same.
fn once(found: &[FoundPart]) -> Result<Vec<&FoundPart>, PartsError> {
    let mut parts: BTreeMap<Part, &FoundPart> = BTreeMap::new();
    for part in found {
        let first = *parts.entry(part.part).or_insert(part);
        if first.layers != part.layers {
            let (first, second) = (first.name.clone(), part.name.clone());
            return Err(PartsError::Twice { part: part.part, first, second });
        }
    }
    Ok(parts.into_values().collect())
}

/// What workers know of a file's content must not contradict what others know. A worker looks at its own files alone.
fn same_files(parts: &[&FoundPart]) -> Result<(), PartsError> {
    // SHA-256 and Git's ids cannot be compared with each other.
    let kind = |digest: &str| digest.split_once(':').map_or(String::new(), |(kind, _)| kind.to_owned());
    let mut known: BTreeMap<(&str, String), (&str, Part)> = BTreeMap::new();
    for part in parts {
        for (path, digest) in
            part.known_digests.iter().flat_map(|(path, all)| all.iter().map(move |digest| (path, digest)))
        {
            let (first, first_part) =
                *known.entry((path, kind(digest))).or_insert((digest.as_str(), part.part));
            if first != digest {
                return Err(PartsError::OtherFile {
                    path: path.clone(),
                    first: first.to_owned(),
                    first_part,
                    second: digest.clone(),
                    second_part: part.part,
                });
            }
        }
    }
    Ok(())
}

/// The layers in the plan's order: each has to be in one part, which means that each file is packed once.
pub(super) fn layers<'a>(
    plan: &PartPlan,
    all: impl Iterator<Item = &'a PartLayer>,
) -> Result<Vec<SealedLayer>, PartsError> {
    let mut of_index: BTreeMap<usize, Vec<SealedLayer>> = BTreeMap::new();
    for layer in all {
        of_index.entry(layer.index).or_default().extend(layer.sealed());
    }
    let mut sealed = Vec::new();
    for (index, layer) in plan.image.layers.iter().enumerate() {
        let mut found = of_index.remove(&index).unwrap_or_default();
        match (found.pop(), found.len()) {
            (Some(one), 0) => sealed.push(one),
            (None, _) => return Err(PartsError::Layer { title: layer.title.clone(), times: 0 }),
            (Some(_), more) => return Err(PartsError::Layer { title: layer.title.clone(), times: more + 1 }),
        }
    }
    if let Some((index, found)) = of_index.into_iter().next() {
        return Err(PartsError::Layer { title: format!("number {index}"), times: found.len() });
    }
    let size = documents_size(plan, &sealed);
    if size > DOCUMENTS_MAX {
        return Err(PartsError::Documents { size, max: DOCUMENTS_MAX });
    }
    Ok(sealed)
}

/// About how many bytes the documents of all images have: each image repeats what is said of its layers, so a small plan
/// may make large ones.
fn documents_size(plan: &PartPlan, sealed: &[SealedLayer]) -> u64 {
    let length = |texts: &mut dyn Iterator<Item = &String>| {
        texts.map(|text| text.len() as u64 + TEXT_COST).fold(0, u64::saturating_add)
    };
    let texts =
        |all: &BTreeMap<String, String>| length(&mut all.iter().flat_map(|(name, value)| [name, value]));
    let of_layer = |(layer, sealed): (&LayerFacts, &SealedLayer)| {
        let said = length(&mut layer.files.iter().chain([&layer.title, &layer.created_by]));
        said.saturating_add(texts(&sealed.annotations)).saturating_add(LAYER_COST)
    };
    let of_layers: Vec<u64> = plan.image.layers.iter().zip(sealed).map(of_layer).collect();
    let of_image = |facts: &ImageFacts| {
        let layers = facts.layers.iter().filter_map(|index| of_layers.get(*index));
        let layers = layers.copied().fold(0, u64::saturating_add);
        layers.saturating_add(texts(&facts.labels)).saturating_add(texts(&facts.annotations))
    };
    let names = plan.image.targets.len() as u64 + 1;
    let of_platform = |images: &ImagesFacts| {
        let of_images = images.of_targets.iter().chain([&images.plain]).map(of_image);
        let environment = length(&mut images.environment.iter()).saturating_mul(names);
        of_images.fold(environment, u64::saturating_add)
    };
    let of_indexes = texts(&plan.image.index_annotations).saturating_mul(names);
    plan.image.images.iter().map(of_platform).fold(of_indexes, u64::saturating_add)
}
