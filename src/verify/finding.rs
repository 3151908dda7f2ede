//! What verifying says of an image: findings, each of a rule, with its place. Must not know how they come about.

use std::{collections::HashMap, fmt};

use serde::{Serialize, Serializer};

use crate::digest::Digest;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing that the image is verified for suffers.
    Note,
    /// The image works, but not as well, or not everywhere.
    Warning,
    /// The image does not work, or is not what it says.
    Error,
}

impl Severity {
    /// The name that outputs use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// A way in which an image is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    /// Containers start before the image is pulled: stargz-snapshotter.
    Lazy,
    /// `KServe`'s `oci://`: a container of the image serves its files to the engine's.
    Modelcar,
    /// `KServe`'s `oci+native://`: a volume of the image.
    Native,
    /// `KServe`'s `oci+fetch://`: its storage initializer downloads the image.
    Fetch,
}

impl Use {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Lazy, Self::Modelcar, Self::Native, Self::Fetch];

    /// The name that options and outputs use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lazy => "lazy",
            Self::Modelcar => "modelcar",
            Self::Native => "native",
            Self::Fetch => "fetch",
        }
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What has to be read to see something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// Documents, footers and tables of contents.
    Quick,
    /// All of the image.
    Deep,
    /// All of the image and the snapshot that it was packed from.
    Against,
    /// The snapshot, packed again.
    Rebuild,
}

impl Depth {
    /// The name that outputs use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Deep => "deep",
            Self::Against => "against",
            Self::Rebuild => "rebuild",
        }
    }
}

/// A rule: something that can be wrong with an image.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name: stable, in small letters and hyphens.
    pub code: &'static str,
    /// How bad it is where one of [`Self::breaks`] is wanted, or where it breaks none in particular.
    pub severity: Severity,
    /// What has to be read to see it.
    pub depth: Depth,
    /// Uses that it makes impossible.
    pub breaks: &'static [Use],
    /// What it finds, in one line.
    pub description: &'static str,
    /// What follows from it.
    pub consequence: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

/// Where something was found; nothing of it is known where it is about the whole image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// Platforms of the images of an index that it was found in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
    /// Number of the layer, the lowest is 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<usize>,
    /// Digest of the layer's blob.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Path of the file in the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Byte in the file, or in the layer's blob where no file is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

impl Place {
    /// A layer, by its index among the manifest's.
    pub fn layer(index: usize, digest: Option<Digest>) -> Self {
        Self { layer: Some(index + 1), digest, ..Self::default() }
    }

    /// The same place, in a file.
    #[must_use]
    pub fn file(mut self, path: impl Into<String>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// The same place, at a byte.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        parts.extend((!self.platforms.is_empty()).then(|| self.platforms.join(" and ")));
        parts.extend(self.layer.map(|number| format!("layer {number}")));
        parts.extend(self.file.as_ref().map(|file| file.escape_debug().to_string()));
        parts.extend(self.offset.map(|offset| format!("byte {offset}")));
        if parts.is_empty() { f.write_str("image") } else { f.write_str(&parts.join(", ")) }
    }
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: &'static Rule,
    /// How bad it is for what the image is verified for.
    pub severity: Severity,
    /// Where.
    pub place: Place,
    /// What is wrong here.
    pub message: String,
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Document<'a> {
            code: &'a str,
            severity: Severity,
            depth: Depth,
            #[serde(flatten)]
            place: &'a Place,
            message: &'a str,
            consequence: &'a str,
            remedy: &'a str,
            breaks: &'a [Use],
        }
        let document = Document {
            code: self.rule.code,
            severity: self.severity,
            depth: self.rule.depth,
            place: &self.place,
            message: &self.message,
            consequence: self.rule.consequence,
            remedy: self.rule.remedy,
            breaks: self.rule.breaks,
        };
        document.serialize(serializer)
    }
}

/// Findings of one rule in one layer that are told; the rest are counted.
pub const SHOWN_MAX: usize = 10;

/// Collects findings. A damaged table of contents has as many as it has entries: so many are kept of each rule in each
/// layer, and the last says how many more there are.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    found: Vec<Finding>,
    /// How many there were of each rule in each layer, and how many of them are kept.
    counts: HashMap<Key, usize>,
    kept: HashMap<Key, usize>,
}

/// A rule's code and a layer's number.
type Key = (&'static str, Option<usize>);

impl Findings {
    /// Adds a finding.
    pub fn add(&mut self, rule: &'static Rule, place: Place, message: impl Into<String>) {
        let key = (rule.code, place.layer);
        *self.counts.entry(key).or_default() += 1;
        let kept = self.kept.entry(key).or_default();
        if *kept < SHOWN_MAX {
            *kept += 1;
            self.found.push(Finding { rule, severity: rule.severity, place, message: message.into() });
        }
    }

    /// Adds all of `other`.
    pub fn append(&mut self, other: Self) {
        for finding in other.found {
            let key = (finding.rule.code, finding.place.layer);
            let kept = self.kept.entry(key).or_default();
            if *kept < SHOWN_MAX {
                *kept += 1;
                self.found.push(finding);
            }
        }
        for (key, count) in other.counts {
            *self.counts.entry(key).or_default() += count;
        }
    }

    /// The same findings, in the layer of another index.
    #[must_use]
    pub(super) fn in_layer(&self, index: usize) -> Self {
        let moved = |layer: Option<usize>| layer.map(|_| index + 1);
        let keys = |counts: &HashMap<Key, usize>| {
            counts.iter().map(|((code, layer), count)| ((*code, moved(*layer)), *count)).collect()
        };
        let place = |place: &Place| Place { layer: moved(place.layer), ..place.clone() };
        Self {
            found: self.found.iter().map(|one| Finding { place: place(&one.place), ..one.clone() }).collect(),
            counts: keys(&self.counts),
            kept: keys(&self.kept),
        }
    }

    /// All but those of `rules`.
    #[must_use]
    pub(super) fn without(mut self, rules: &[&'static Rule]) -> Self {
        self.found.retain(|finding| !rules.contains(&finding.rule));
        let is_other = |key: &Key, _: &mut usize| rules.iter().all(|rule| rule.code != key.0);
        self.counts.retain(is_other);
        self.kept.retain(is_other);
        self
    }

    /// Whether something of `rule` was found.
    pub fn has(&self, rule: &'static Rule) -> bool {
        self.found.iter().any(|finding| finding.rule == rule)
    }

    /// Whether something of `rule` was found in that place.
    pub fn has_at(&self, rule: &'static Rule, place: &Place) -> bool {
        self.found.iter().any(|finding| finding.rule == rule && finding.place == *place)
    }

    /// The findings for an image that is wanted for `uses`, the worst first, then from the lowest layer to the
    /// topmost. What breaks only other uses is a note.
    pub fn finish(mut self, uses: &[Use]) -> Vec<Finding> {
        for finding in &mut self.found {
            let breaks = finding.rule.breaks;
            if !breaks.is_empty() && breaks.iter().all(|broken| !uses.contains(broken)) {
                finding.severity = Severity::Note;
            }
        }
        // The last of each that has more than are kept: reading backwards, the first that is met.
        self.counts.retain(|_, count| *count > SHOWN_MAX);
        for finding in self.found.iter_mut().rev() {
            if self.counts.is_empty() {
                break;
            }
            if let Some(count) = self.counts.remove(&(finding.rule.code, finding.place.layer)) {
                let more = count - SHOWN_MAX;
                finding.message = format!("{}; and {more} more like this", finding.message);
            }
        }
        // Stable: findings of one layer stay in the order in which its checks ran.
        self.found.sort_by_key(|finding| (std::cmp::Reverse(finding.severity), finding.place.layer));
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::rules;

    #[test]
    fn the_rest_of_many_is_counted() {
        let mut findings = Findings::default();
        for number in 0..SHOWN_MAX + 7 {
            let place = Place::layer(0, None).file(format!("models/{number}"));
            findings.add(&rules::CHUNK_GAP, place, "a gap");
        }
        findings.add(&rules::CHUNK_GAP, Place::layer(1, None), "another gap");
        let found = findings.finish(&[Use::Lazy]);
        assert_eq!(found.len(), SHOWN_MAX + 1);
        assert_eq!(found[SHOWN_MAX - 1].message, "a gap; and 7 more like this");
        assert_eq!(found[SHOWN_MAX].message, "another gap");
    }

    #[test]
    fn what_two_threads_found_is_counted_together() {
        let found = |count: usize| {
            let mut findings = Findings::default();
            for _ in 0..count {
                findings.add(&rules::CHUNK_GAP, Place::layer(0, None), "a gap");
            }
            findings
        };
        let mut findings = found(SHOWN_MAX - 1);
        findings.append(found(SHOWN_MAX + 3));
        let finished = findings.finish(&[Use::Lazy]);
        assert_eq!(finished.len(), SHOWN_MAX);
        assert!(finished[SHOWN_MAX - 1].message.ends_with(&format!("and {} more like this", SHOWN_MAX + 2)));
    }

    #[test]
    fn what_breaks_only_what_nobody_wants_is_a_note() {
        let find = |uses: &[Use]| {
            let mut findings = Findings::default();
            findings.add(&rules::ENTRYPOINT_SET, Place::default(), "it is set");
            findings.finish(uses)[0].severity
        };
        assert_eq!(find(&[Use::Native]), Severity::Note);
        assert_eq!(find(&[Use::Native, Use::Modelcar]), Severity::Error);
    }

    #[test]
    fn places_are_told_from_large_to_small() {
        assert_eq!(Place::default().to_string(), "image");
        let place = Place::layer(1, None).file("models/a\nb").at(7);
        assert_eq!(place.to_string(), "layer 2, models/a\\nb, byte 7");
    }
}
