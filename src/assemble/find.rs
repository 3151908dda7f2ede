//! Where the parts of an image are: by their tags, in the places that are named, or in those that the image goes to. Must
//! not know what is in a part.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use super::{
    AssembleError, PartsError,
    read::{FoundPart, Place, Seen, read},
};
use crate::{
    oci::{self, DEFAULT_TAG, Layout, OciError, REF_NAME_ANNOTATION, RegistryImage, Selector, Target},
    pack::{
        Destination, Part,
        part::{part_reference, stem},
    },
    registry::{Reference, Registry, RegistryError},
};

/// Parts that were found.
pub(super) struct Found {
    pub(super) parts: Vec<FoundPart>,
    /// Their plans, and how much of them was read.
    pub(super) seen: Seen,
    /// Where they were looked for, for messages.
    pub(super) place: String,
    /// How a part is brought there, for messages.
    pub(super) make: String,
    pub(super) remote: bool,
}

/// Where parts are looked for.
enum Somewhere {
    /// The parts of the image with this tag, or of the only one, in a layout.
    Layout(std::path::PathBuf, Option<String>),
    /// The parts of the image of this name.
    Registry(Reference),
    /// One part.
    One(Target),
}

/// Opens a client for registries.
pub(super) type Open<'a> = &'a dyn Fn() -> Result<Registry, OciError>;

/// Finds the parts in `sources`, or where they are brought to by the workers if none is named.
/// `wants_inputs` says whether what they were made of is wanted.
pub(super) fn find(
    sources: &[Target],
    destinations: &[Destination],
    count: Option<u16>,
    wants_inputs: bool,
    open: Open<'_>,
) -> Result<Found, AssembleError> {
    let named: Vec<Somewhere> = sources.iter().map(somewhere).collect();
    let are_named = !named.is_empty();
    let places = if are_named { named } else { nearest(destinations) };
    let describe = |place: &Somewhere| match place {
        Somewhere::Layout(path, None) => format!("oci:{}", path.display()),
        Somewhere::Layout(path, Some(tag)) => format!("oci:{}:{tag}", path.display()),
        Somewhere::Registry(reference) => name(reference),
        Somewhere::One(target) => target.to_string(),
    };
    let make = match places.first() {
        Some(Somewhere::Registry(reference)) => format!("-t {} --push", name(reference)),
        Some(place @ Somewhere::Layout(..)) => format!("-o {}", describe(place)),
        _ => "-o oci:DIR".to_owned(),
    };
    let place = places.iter().map(describe).collect::<Vec<_>>().join(", ");
    let remote = places.iter().any(|place| matches!(place, Somewhere::Registry(_)));
    let mut found = Found { parts: Vec::new(), seen: Seen::new(wants_inputs), place, make, remote };
    for place in &places {
        if found.seen.is_enough() {
            break;
        }
        match place {
            // A layout that nobody has begun has no parts. One that is named and not there was mistyped.
            Somewhere::Layout(path, _) if !are_named && !path.exists() => {}
            Somewhere::Layout(path, tag) => found.in_layout(path, tag.as_deref(), count)?,
            Somewhere::Registry(reference) => found.in_registry(&open()?, reference, count)?,
            Somewhere::One(target) => {
                let source: Arc<dyn oci::ImageSource> = Arc::from(oci::open(target, open)?);
                let place = match target {
                    Target::Layout { path, selector: Selector::Tag(tag) } => {
                        Place::Layout { path: path.clone(), tag: tag.clone() }
                    }
                    Target::Registry(reference) => Place::Registry(reference.clone()),
                    _ => Place::Other,
                };
                let part = read(source, place, &mut found.seen)?;
                found.parts.push(part);
            }
        }
    }
    // Where a layout is named without a tag, its parts say the image's.
    if let Some(Somewhere::Layout(path, None)) = places.first() {
        let of_part = found.parts.iter().find_map(|part| part.place.tag_in(path));
        if let Some((stem, _)) = of_part.as_deref().and_then(Part::of_tag) {
            found.make = format!("-o oci:{}:{stem}", path.display());
        }
    }
    Ok(found)
}

/// What a source means: a part, or the name of an image whose parts are looked for.
fn somewhere(target: &Target) -> Somewhere {
    match target {
        Target::Layout { path, selector: Selector::Only } => Somewhere::Layout(path.clone(), None),
        Target::Layout { path, selector: Selector::Tag(tag) } if Part::of_tag(tag).is_none() => {
            Somewhere::Layout(path.clone(), Some(tag.clone()))
        }
        Target::Registry(reference) => {
            let is_one = reference.digest().is_some()
                || reference.tag().is_some_and(|tag| Part::of_tag(tag).is_some());
            if is_one { Somewhere::One(target.clone()) } else { Somewhere::Registry(reference.clone()) }
        }
        one => Somewhere::One(one.clone()),
    }
}

/// Where workers bring parts that are given the same destinations: a layout that has some, or else the first registry.
fn nearest(destinations: &[Destination]) -> Vec<Somewhere> {
    let layouts = destinations.iter().filter_map(|destination| match destination {
        Destination::Layout { path, tag, .. } => Some((path, tag)),
        _ => None,
    });
    let registry = destinations.iter().find_map(|destination| match destination {
        Destination::Registry { reference, .. } => Some(Somewhere::Registry(reference.clone())),
        _ => None,
    });
    let has_parts = |path: &Path, tag: &str| {
        let tags = Layout::open(path).and_then(|layout| tags(&layout)).unwrap_or_default();
        tags.iter().any(|one| Part::of_tag(one).is_some_and(|(found, _)| found == stem(tag)))
    };
    let mut layouts = layouts.peekable();
    let first = layouts.peek().map(|(path, tag)| Somewhere::Layout((*path).clone(), Some((*tag).clone())));
    let with_parts = layouts
        .find(|(path, tag)| has_parts(path, tag))
        .map(|(path, tag)| Somewhere::Layout(path.clone(), Some(tag.clone())));
    with_parts.or(registry).or(first).into_iter().collect()
}

impl Found {
    fn wrong(&self, problem: PartsError) -> AssembleError {
        AssembleError::Parts { problem, remote: self.remote }
    }

    fn in_layout(&mut self, path: &Path, tag: Option<&str>, count: Option<u16>) -> Result<(), AssembleError> {
        let place = || format!("oci:{}", path.display());
        let all = tags(&Layout::open(path)?)?;
        let parts = all.iter().filter_map(|text| Some((text, Part::of_tag(text)?)));
        let wanted = tag.map(stem);
        let parts: Vec<(&String, &str, Part)> = parts
            .map(|(text, (stem, part))| (text, stem, part))
            .filter(|(_, stem, _)| wanted.as_deref().is_none_or(|wanted| wanted == *stem))
            .filter(|(_, _, part)| count.is_none_or(|count| count == part.of()))
            .collect();
        let names: BTreeSet<&str> = parts.iter().map(|(_, stem, _)| *stem).collect();
        if names.len() > 1 {
            let names = names.into_iter().map(str::to_owned).collect();
            return Err(self.wrong(PartsError::Names { place: place(), names }));
        }
        self.check_count(&place(), parts.iter().map(|(_, _, part)| *part))?;
        for (text, _, _) in parts {
            if self.seen.is_enough() {
                break;
            }
            let target = Target::Layout { path: path.to_owned(), selector: Selector::Tag(text.clone()) };
            let no_registry = || Err(OciError::Platform("a layout is no registry".to_owned()));
            let source = Arc::from(oci::open(&target, no_registry)?);
            let place = Place::Layout { path: path.to_owned(), tag: text.clone() };
            self.parts.push(read(source, place, &mut self.seen)?);
        }
        Ok(())
    }

    fn in_registry(
        &mut self,
        registry: &Registry,
        reference: &Reference,
        count: Option<u16>,
    ) -> Result<(), AssembleError> {
        let stem = stem(reference.tag().unwrap_or(DEFAULT_TAG));
        let parts: Vec<Part> = if let Some(of) = count {
            (1..=of).filter_map(|index| Part::new(index, of).ok()).collect()
        } else {
            let of_image =
                |text: &str| Part::of_tag(text).filter(|(found, _)| *found == stem).map(|(_, part)| part);
            let tags = registry.tags(reference, &|text| of_image(text).is_some()).map_err(OciError::from)?;
            let parts: BTreeSet<Part> = tags.iter().filter_map(|text| of_image(text)).collect();
            self.check_count(&name(reference), parts.iter().copied())?;
            parts.into_iter().collect()
        };
        for part in parts {
            if self.seen.is_enough() {
                break;
            }
            let reference = part_reference(reference, part);
            let source = Arc::new(RegistryImage::new(registry.clone(), reference.clone()));
            let place = Place::Registry(reference);
            match read(source, place, &mut self.seen) {
                Ok(part) => self.parts.push(part),
                // Which are missing is told of all at once.
                Err(AssembleError::Oci(OciError::Registry(RegistryError::NotFound { .. }))) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Parts of an earlier attempt may lie beside those that are wanted.
    fn check_count(&self, place: &str, parts: impl Iterator<Item = Part>) -> Result<(), AssembleError> {
        let counts: BTreeSet<u16> = parts.map(Part::of).collect();
        if counts.len() < 2 {
            return Ok(());
        }
        let (place, found) = (place.to_owned(), counts.into_iter().collect());
        Err(self.wrong(PartsError::Counts { place, found }))
    }
}

/// All tags of a layout.
fn tags(layout: &Layout) -> Result<Vec<String>, OciError> {
    if !layout.root().join("index.json").exists() {
        return Ok(Vec::new());
    }
    let entries = layout.manifests()?;
    let name = |entry: &oci_spec::image::Descriptor| {
        entry.annotations().as_ref().and_then(|all| all.get(REF_NAME_ANNOTATION)).cloned()
    };
    Ok(entries.iter().filter_map(name).collect())
}

/// A reference as it is written.
fn name(reference: &Reference) -> String {
    let tag = reference.tag().unwrap_or(DEFAULT_TAG);
    format!("{}/{}:{tag}", reference.registry(), reference.repository())
}
