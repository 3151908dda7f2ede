//! The image's bill of materials.
//!
//! Source: SPDX 2.3 specification and its JSON schema. Files are packages with the purpose `FILE` (clause 7.24): the
//! `files` section asks for a SHA-1 of each, which would cost a pass over all weights and tell nobody anything.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat};
use serde_json::{Value, json};

use super::{
    Facts,
    names::{encoded, hub_uri, image_purl, model_purl},
    object, text,
};
use crate::{
    digest::Digest,
    pack::{InputBase, InputCache, InputFile, Packed, RecordedBase},
    registry::Reference,
};

/// What is not known, in SPDX's words.
const UNKNOWN: &str = "NOASSERTION";
/// The document itself.
const DOCUMENT: &str = "SPDXRef-DOCUMENT";
const MODEL: &str = "SPDXRef-Model";

/// The bill of materials of a pack: SPDX 2.3 as JSON, the same bytes for the same facts.
pub fn sbom(facts: &Facts<'_>) -> String {
    let packed = facts.packed;
    let mut bill = Bill { facts, packages: Vec::new(), relationships: Vec::new() };
    bill.model();
    for (number, base) in (1..).zip(&facts.inputs().bases) {
        bill.base(&base_id(number), base);
    }
    for (number, cache) in (1..).zip(&facts.inputs().caches) {
        bill.cache(number, cache);
    }
    let mut images = BTreeMap::new();
    bill.image("SPDXRef-Image", packed, None, &mut images);
    for (number, variant) in (1..).zip(&packed.variants) {
        let id = format!("SPDXRef-Variant-{number}");
        bill.image(&id, &variant.image, Some(&variant.target), &mut images);
        bill.relate(&id, "VARIANT_OF", "SPDXRef-Image");
    }
    let Bill { packages, relationships, .. } = bill;
    let created = DateTime::from_timestamp(facts.described.created, 0).unwrap_or_default();
    let mut document = object([
        ("spdxVersion", Some("SPDX-2.3".into())),
        ("dataLicense", Some("CC0-1.0".into())),
        ("SPDXID", Some(DOCUMENT.into())),
        ("name", Some(facts.model().into())),
        (
            "creationInfo",
            Some(json!({
                "created": created.to_rfc3339_opts(SecondsFormat::Secs, true),
                "creators": [format!("Tool: starcar-{}", env!("CARGO_PKG_VERSION"))],
            })),
        ),
        ("packages", Some(packages.into())),
        ("relationships", Some(relationships.into())),
        ("hasExtractedLicensingInfos", extracted(facts)),
    ]);
    // It has to be another one for each document: the digest of all the rest.
    let digest = Digest::of(text(document.clone()).as_bytes());
    document["documentNamespace"] = format!("https://starcar.dev/spdx/{}", digest.hex()).into();
    text(document)
}

/// Licences that are not on SPDX's list.
fn extracted(facts: &Facts<'_>) -> Option<Value> {
    let references =
        facts.told.licence.as_ref().map(|licence| &licence.references).filter(|all| !all.is_empty())?;
    let infos = references.iter().map(|reference| {
        let place = reference.link.as_deref().unwrap_or("the model's repository");
        object([
            ("licenseId", Some(reference.id.clone().into())),
            ("name", Some(reference.name.clone().into())),
            (
                "extractedText",
                Some(
                    format!("The model card names the licence {:?}; its text: {place}", reference.name)
                        .into(),
                ),
            ),
        ])
    });
    Some(infos.collect())
}

fn base_id(number: usize) -> String {
    format!("SPDXRef-Base-{number}")
}

fn cache_id(number: usize) -> String {
    format!("SPDXRef-Cache-{number}")
}

/// What one package is.
#[derive(Default)]
struct Package<'a> {
    name: &'a str,
    version: Option<&'a str>,
    file_name: Option<&'a str>,
    location: Option<String>,
    purpose: &'a str,
    digest: Option<Digest>,
    licence: Option<&'a str>,
    purl: Option<String>,
    comment: Option<String>,
}

struct Bill<'a> {
    facts: &'a Facts<'a>,
    packages: Vec<Value>,
    relationships: Vec<Value>,
}

impl Bill<'_> {
    fn package(&mut self, id: &str, package: Package<'_>) {
        let checksum = |digest: Digest| json!([{ "algorithm": "SHA256", "checksumValue": digest.hex() }]);
        let reference = |purl: String| {
            json!([{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": purl,
            }])
        };
        self.packages.push(object([
            ("SPDXID", Some(id.into())),
            ("name", Some(package.name.into())),
            ("versionInfo", package.version.map(Value::from)),
            ("packageFileName", package.file_name.map(Value::from)),
            ("downloadLocation", Some(package.location.unwrap_or_else(|| UNKNOWN.to_owned()).into())),
            ("filesAnalyzed", Some(false.into())),
            ("primaryPackagePurpose", Some(package.purpose.into())),
            ("checksums", package.digest.map(checksum)),
            ("licenseConcluded", Some(UNKNOWN.into())),
            ("licenseDeclared", Some(package.licence.unwrap_or(UNKNOWN).into())),
            ("copyrightText", Some(UNKNOWN.into())),
            ("externalRefs", package.purl.map(reference)),
            ("comment", package.comment.map(Value::from)),
        ]));
    }

    fn relate(&mut self, from: &str, kind: &str, to: &str) {
        self.relationships.push(json!({
            "spdxElementId": from,
            "relationshipType": kind,
            "relatedSpdxElement": to,
        }));
    }

    fn model(&mut self) {
        let facts = self.facts;
        let public = facts.hub().filter(|_| facts.given().is_public_hub);
        self.package(
            MODEL,
            Package {
                name: facts.model(),
                version: facts.described.revision.as_deref(),
                location: public.map(|(repository, revision)| {
                    format!("git+https://huggingface.co/{}@{revision}", encoded(repository, "/"))
                }),
                purpose: "OTHER",
                licence: facts.told.licence.as_ref().map(|licence| licence.expression.as_str()),
                purl: public.map(|(repository, revision)| model_purl(repository, revision)),
                comment: public.map(|(repository, revision)| hub_uri(repository, revision, None)),
                ..Package::default()
            },
        );
        self.files(MODEL, &facts.inputs().model);
    }

    fn files(&mut self, of: &str, files: &[InputFile]) {
        for (number, file) in (1_usize..).zip(files) {
            let id = format!("{of}-File-{number}");
            let was = format!("packed with other paths in it; before: SHA256 {}", file.digest.hex());
            self.package(
                &id,
                Package {
                    name: &file.path,
                    file_name: Some(&file.path),
                    purpose: "FILE",
                    digest: Some(file.packed()),
                    comment: file.relocated.map(|_| was),
                    ..Package::default()
                },
            );
            self.relate(of, "CONTAINS", &id);
        }
    }

    fn base(&mut self, id: &str, base: &InputBase) {
        let facts = self.facts;
        let reference = facts.base_reference(base);
        let is_image = base.kind == RecordedBase::Image;
        let version = base.digest.filter(|_| is_image).map(|digest| digest.to_string());
        self.package(
            id,
            Package {
                name: facts.base_name(base),
                version: version.as_deref(),
                purpose: if is_image { "CONTAINER" } else { "APPLICATION" },
                digest: base.digest,
                purl: reference.map(|(reference, digest)| image_purl(&reference, digest)),
                comment: Some(format!("the layers below the model on {}", base.platform)),
                ..Package::default()
            },
        );
    }

    fn cache(&mut self, number: usize, cache: &InputCache) {
        let id = cache_id(number);
        let record = &cache.record;
        let target = record.target.as_ref().map(|target| format!(" for {target}")).unwrap_or_default();
        self.package(
            &id,
            Package {
                name: &format!("{} compile cache{target}", record.name),
                purpose: "OTHER",
                comment: Some(format!("in {} below the model's directory", record.directory)),
                ..Package::default()
            },
        );
        self.files(&id, &cache.files);
    }

    /// An image, or an index and its images, of a target if it is a variant; `known` are those that are in the document, by
    /// digest: variants may be the same image.
    fn image(
        &mut self,
        id: &str,
        packed: &Packed,
        target: Option<&str>,
        known: &mut BTreeMap<Digest, String>,
    ) {
        let facts = self.facts;
        let names: Vec<&str> = facts
            .published
            .iter()
            .filter(|published| published.digest == packed.digest)
            .map(|published| published.name.as_str())
            .collect();
        // A name without a tag was pushed by its digest alone, and means no `latest`.
        let parse = |name: &&str| {
            let has_tag = name.rsplit('/').next().is_some_and(|last| last.contains(':'));
            let by_digest = format!("{name}@{}", packed.digest);
            let text = if has_tag { *name } else { by_digest.as_str() };
            text.parse::<Reference>().ok()
        };
        let reference = names.iter().find_map(parse);
        // What tells the images of an index, and of its variants, from each other.
        let whom = [packed.platform.as_deref(), packed.consumer, target];
        let whom: Vec<&str> = whom.into_iter().flatten().collect();
        let inner = [&[facts.model()], whom.as_slice()].concat().join(", ");
        self.package(
            id,
            Package {
                name: names.first().copied().unwrap_or(&inner),
                version: Some(&packed.digest.to_string()),
                purpose: "CONTAINER",
                digest: Some(packed.digest),
                purl: reference.map(|reference| image_purl(&reference, packed.digest)),
                comment: (!whom.is_empty()).then(|| format!("for {}", whom.join(", "))),
                ..Package::default()
            },
        );
        if !names.is_empty() {
            self.relate(DOCUMENT, "DESCRIBES", id);
        }
        known.entry(packed.digest).or_insert_with(|| id.to_owned());
        if !packed.platforms.is_empty() {
            for (number, image) in (1_usize..).zip(&packed.platforms) {
                let inner = if let Some(inner) = known.get(&image.digest) {
                    inner.clone()
                } else {
                    let inner = format!("{id}-{number}");
                    self.image(&inner, image, target, known);
                    inner
                };
                self.relate(id, "CONTAINS", &inner);
            }
            return;
        }
        self.relate(id, "CONTAINS", MODEL);
        for (number, base) in (1..).zip(&facts.inputs().bases) {
            if packed.platform.as_deref().is_none_or(|platform| platform == base.platform.to_string()) {
                self.relate(id, "CONTAINS", &base_id(number));
            }
        }
        for (number, cache) in (1..).zip(&facts.inputs().caches) {
            if packed.caches.contains(&cache.record) {
                self.relate(id, "CONTAINS", &cache_id(number));
            }
        }
    }
}
