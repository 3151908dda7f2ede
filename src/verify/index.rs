//! An index: whether it is one, whether what it lists is there and is what it says, and what its images come to together.
//! Must not know what is wrong with an image.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;
use serde_json::Value;

use super::{
    Verification, VerifyError, VerifyOptions,
    finding::{Depth, Finding, Findings, Place, Rule, Severity, Use},
    rules,
    shared::Shared,
    verdict::{Verdict, Works, judge},
    verify_image,
};
use crate::{
    digest::Digest,
    oci::{ImageSource, ListedImage, OciError, RootDocument, listed_images},
    progress::Observer,
    registry::RegistryError,
};

/// The image of one platform, as part of an index. What was found in it is among the index's findings.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlatformVerification {
    /// The platform that the index lists the image for; the digest of its manifest where it states none.
    pub platform: String,
    /// Digest of the manifest.
    pub digest: Option<Digest>,
    /// Bytes of all layers.
    pub size: u64,
    /// Digests of the layers, the lowest first.
    pub layers: Vec<Digest>,
    /// Whether each use of the image works.
    pub verdicts: Vec<Verdict>,
    /// How bad the worst finding is; `None` if there is none.
    pub worst: Option<Severity>,
}

/// Verifies the images that the index `root` lists, reading what they share once.
///
/// # Errors
/// As [`super::verify`].
pub(super) fn verify(
    source: &dyn ImageSource,
    root: &RootDocument,
    options: &VerifyOptions,
    observer: &dyn Observer,
) -> Result<Verification, VerifyError> {
    let mut own = Findings::default();
    super::check_name(source, &mut own);
    let listed = read_index(source, root, &mut own);
    let mut shared = Shared::default();
    let mut images: Vec<(String, Verification)> = Vec::new();
    let (mut requests, mut bytes) = (1, root.bytes.len() as u64);
    for image in &listed {
        let platform = image.name();
        if !image.is_image() {
            requests += 1;
            let (rule, message) = match entry(source, image) {
                Ok(document) => (&rules::INDEX_ENTRY_UNREAD, format!("it is {:?}", document.media_type)),
                // Whoever copies or pulls an index asks for all of it.
                Err(error) => match fault(&error) {
                    Some(rule) => (rule, error.to_string()),
                    None => return Err(error.into()),
                },
            };
            own.add(rule, on(&platform), message);
            continue;
        }
        if image.platform.is_none() {
            own.add(&rules::INDEX_PLATFORM_MISSING, on(&platform), "the index states no platform for it");
        }
        let (document, asked) = (entry(source, image), image.platform.as_ref());
        let mut verified = verify_image(source, document, asked, options, Some(&mut shared), observer)?;
        verified.digest = image.descriptor.digest().as_ref().parse().ok();
        requests += verified.requests;
        bytes += verified.bytes;
        images.push((platform, verified));
    }
    let is_deep = options.depth() >= Depth::Deep;
    let uses = if options.uses.is_empty() { Use::ALL.to_vec() } else { options.uses.clone() };
    let own = own.finish(&uses);
    let mut merged = Merged { findings: own.clone(), in_layers: HashMap::new() };
    for (platform, image) in &mut images {
        merged.add(std::mem::take(&mut image.findings), platform);
    }
    let mut findings = merged.findings;
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let verdicts = match images.as_slice() {
        [] => judge(&[], false, is_deep, &own, &uses),
        images => together(images, &own),
    };
    let mut seen = HashSet::new();
    let layers: Vec<_> = images
        .iter()
        .flat_map(|(_, image)| &image.layers)
        .filter(|layer| seen.insert(layer.digest))
        .cloned()
        .collect();
    Ok(Verification {
        image: source.place(),
        digest: Some(root.digest),
        depth: options.depth(),
        size: layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add),
        requests,
        bytes,
        layers,
        verdicts,
        worst: findings.iter().map(|finding| finding.severity).max(),
        findings,
        platforms: images
            .into_iter()
            .map(|(platform, image)| PlatformVerification {
                platform,
                digest: image.digest,
                size: image.size,
                layers: image.layers.iter().map(|layer| layer.digest).collect(),
                verdicts: image.verdicts,
                worst: image.worst,
            })
            .collect(),
    })
}

/// A place in an index: the image for a platform.
fn on(platform: &str) -> Place {
    Place { platforms: vec![platform.to_owned()], ..Place::default() }
}

/// What the index lists; what is wrong with the document itself is a finding.
fn read_index(source: &dyn ImageSource, root: &RootDocument, findings: &mut Findings) -> Vec<ListedImage> {
    let here = Place::default;
    let value: Value = serde_json::from_slice(&root.bytes).unwrap_or_default();
    if let Some(stated) = value.get("mediaType").and_then(Value::as_str)
        && stated != root.media_type
    {
        let message = format!("the index says that it is {stated:?}, it is stored as {:?}", root.media_type);
        findings.add(&rules::MANIFEST_MEDIA_TYPE, here(), message);
    }
    if value.is_object() && value.get("schemaVersion").and_then(Value::as_u64) != Some(2) {
        let stated = value.get("schemaVersion").unwrap_or(&Value::Null);
        findings.add(&rules::SCHEMA_VERSION, here(), format!("the index's schemaVersion is {stated}"));
    }
    let listed = match listed_images(root, &source.place()) {
        Ok(listed) => listed,
        Err(error) => {
            let reason = match error {
                OciError::Document { reason, .. } => reason,
                error => error.to_string(),
            };
            findings.add(&rules::MANIFEST_MALFORMED, here(), format!("the index is none: {reason}"));
            return Vec::new();
        }
    };
    if listed.is_empty() {
        findings.add(&rules::INDEX_EMPTY, here(), "the index lists no image");
    }
    listed
}

/// The manifest of an entry.
fn entry(source: &dyn ImageSource, image: &ListedImage) -> Result<RootDocument, OciError> {
    let descriptor = &image.descriptor;
    let place = source.place();
    let digest = crate::oci::digest_of(descriptor, &place)?;
    let bytes = source.manifest(descriptor)?;
    if bytes.len() as u64 != descriptor.size() {
        let reason = format!("it has {} bytes, its descriptor says {}", bytes.len(), descriptor.size());
        return Err(OciError::DamagedBlob { place, digest, reason });
    }
    Ok(RootDocument { bytes, media_type: descriptor.media_type().to_string(), digest })
}

/// The rule that failing to read what an index lists speaks of; `None` where that says nothing of the entry.
pub(super) fn fault(error: &OciError) -> Option<&'static Rule> {
    match error {
        OciError::MissingBlob { .. } | OciError::Registry(RegistryError::NotFound { .. }) => {
            Some(&rules::INDEX_ENTRY_MISSING)
        }
        OciError::DamagedBlob { .. }
        | OciError::Document { what: "descriptor", .. }
        | OciError::Registry(RegistryError::DigestMismatch { .. } | RegistryError::SizeMismatch { .. }) => {
            Some(&rules::INDEX_ENTRY_DAMAGED)
        }
        _ => None,
    }
}

/// Findings of all images, and where those in layers are, by all but the layer's number.
struct Merged {
    findings: Vec<Finding>,
    in_layers: HashMap<(&'static str, Severity, Place, String), usize>,
}

impl Merged {
    /// Adds the findings of a platform's image. What was found in a layer of another platform's before is told once.
    fn add(&mut self, found: Vec<Finding>, platform: &str) {
        for mut finding in found {
            if finding.place.digest.is_some() {
                let place = Place { layer: None, ..finding.place.clone() };
                let key = (finding.rule.code, finding.severity, place, finding.message.clone());
                let at = *self.in_layers.entry(key).or_insert(self.findings.len());
                if let Some(known) = self.findings.get_mut(at) {
                    // An index may list several images for one platform.
                    if !known.place.platforms.iter().any(|known| known == platform) {
                        known.place.platforms.push(platform.to_owned());
                    }
                    continue;
                }
            }
            finding.place.platforms.push(platform.to_owned());
            self.findings.push(finding);
        }
    }
}

/// Whether each use works on all platforms; where they differ, it works in part. What is wrong with the index itself,
/// `own`, is wrong on all.
fn together(images: &[(String, Verification)], own: &[Finding]) -> Vec<Verdict> {
    let mut by_use: BTreeMap<Use, Vec<(&str, &Verdict)>> = BTreeMap::new();
    for (platform, image) in images {
        for verdict in &image.verdicts {
            by_use.entry(verdict.way).or_default().push((platform, verdict));
        }
    }
    let mut all: Vec<Verdict> = by_use
        .into_values()
        .filter_map(|mut verdicts| {
            // Of images for several consumers not each is for each use.
            if verdicts.iter().any(|(_, verdict)| verdict.wanted) {
                verdicts.retain(|(_, verdict)| verdict.wanted);
            }
            let ((_, first), rest) = verdicts.split_first()?;
            if rest.iter().all(|(_, other)| other.works == first.works && other.reasons == first.reasons) {
                return Some((*first).clone());
            }
            let works = if rest.iter().all(|(_, other)| other.works == first.works) {
                first.works
            } else {
                Works::Partly
            };
            let reasons = verdicts.iter().flat_map(|(platform, verdict)| {
                verdict.reasons.iter().map(move |reason| format!("{platform}: {reason}"))
            });
            let wanted = verdicts.iter().any(|(_, verdict)| verdict.wanted);
            Some(Verdict { works, reasons: reasons.collect(), wanted, ..(*first).clone() })
        })
        .collect();
    for verdict in &mut all {
        for finding in own.iter().filter(|finding| finding.rule.breaks.contains(&verdict.way)) {
            verdict.works = Works::No;
            verdict.reasons.push(format!("{} ({})", finding.message, finding.rule.code));
        }
    }
    all
}
