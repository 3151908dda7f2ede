//! The in-toto statement with SLSA provenance.
//!
//! Source: in-toto attestation framework, `spec/v1/statement.md` and `resource_descriptor.md`; SLSA v1.0, "Provenance".

use serde_json::{Value, json};

use super::{
    Facts,
    names::{hub_uri, image_purl},
    object, text,
};
use crate::{
    digest::Digest,
    pack::{InputBase, InputFile},
    profile,
};

/// Type of the statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// Type of its predicate.
pub const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
/// What kind of build it is: docs/provenance.md says what its parameters mean.
pub const BUILD_TYPE: &str = "https://starcar.dev/provenance/pack/v1";
/// The builder where nobody says which it is.
pub const BUILDER_UNKNOWN: &str = "https://starcar.dev/builder/unknown";

/// Who packed.
#[derive(Debug, Clone, Copy)]
pub struct Builder<'a> {
    /// The platform that ran starcar, a URI.
    pub id: &'a str,
    /// What it calls the run, where it says so.
    pub invocation: Option<&'a str>,
}

/// The statement about a pack: JSON, the same bytes for the same facts.
pub fn statement(facts: &Facts<'_>, builder: Builder<'_>) -> String {
    let subject: Vec<Value> = facts
        .published
        .iter()
        .map(|published| json!({ "name": published.name, "digest": { "sha256": published.digest.hex() } }))
        .collect();
    let metadata = builder.invocation.map(|invocation| json!({ "invocationId": invocation }));
    text(json!({
        "_type": STATEMENT_TYPE,
        "subject": subject,
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": parameters(facts),
                "resolvedDependencies": dependencies(facts),
            },
            "runDetails": object([
                ("builder", Some(json!({
                    "id": builder.id,
                    "version": { "starcar": env!("CARGO_PKG_VERSION") },
                }))),
                ("metadata", metadata),
            ]),
        },
    }))
}

/// What was asked for.
fn parameters(facts: &Facts<'_>) -> Value {
    let Facts { described, .. } = facts;
    let given = facts.given();
    let profiles: Vec<&str> = match given.profiles.as_slice() {
        [] if described.profile.is_some() => vec![profile::DEFAULT],
        all => all.iter().map(|profile| profile.name.as_str()).collect(),
    };
    // What an image says of the options itself; of the base it says only the kind, which `platforms` says better.
    let mut recorded = described.options.as_ref().and_then(super::json);
    if let Some(Value::Object(fields)) = &mut recorded {
        fields.remove("base");
        fields.retain(|_, value| !value.is_null());
    }
    object([
        ("snapshot", Some(given.snapshot.clone().into())),
        ("revision", given.revision.clone().map(Value::from)),
        ("platforms", super::json(&given.platforms)),
        ("modelDirectory", described.model_directory.clone().map(Value::from)),
        ("layerFormat", described.layer_format.clone().map(Value::from)),
        ("profiles", Some(profiles.into())),
        ("caches", super::json(&given.caches)),
        ("strict", Some(given.strict.into())),
        ("options", recorded),
    ])
}

/// Everything that went in.
fn dependencies(facts: &Facts<'_>) -> Vec<Value> {
    let inputs = facts.inputs();
    let hub = facts.hub();
    // An address of `hf://` would be taken for the public hub's.
    let public = hub.filter(|_| facts.given().is_public_hub);
    let mut all = Vec::new();
    if let Some((repository, revision)) = hub {
        let uri = public.map(|(repository, revision)| hub_uri(repository, revision, None));
        all.push(object([
            ("name", Some(repository.into())),
            ("uri", uri.map(Value::from)),
            ("digest", Some(json!({ "gitCommit": revision }))),
        ]));
    }
    all.extend(inputs.model.iter().map(|file| {
        // A directory may hold a changed copy of a file: it is the repository's where its digest was compared.
        let hub = public.filter(|_| file.verified);
        let uri = hub.map(|(repository, revision)| hub_uri(repository, revision, Some(&file.path)));
        resource(&file.path, uri, file.digest)
    }));
    all.extend(inputs.bases.iter().filter_map(|one| base(facts, one)));
    for given in &facts.given().profiles {
        if let Some(digest) = given.digest {
            all.push(resource(&given.name, None, digest));
        }
    }
    if let Some(profile) = facts.described.profile {
        all.push(resource("profile", None, profile));
    }
    for cache in &inputs.caches {
        let file = |file: &InputFile| {
            let name = format!("{}/{}", cache.record.directory, file.path);
            let mut resource = resource(&name, None, file.digest);
            // Caches of several targets have the same names, in variants of their own.
            if let Some(target) = &cache.record.target {
                resource["annotations"] = json!({ "target": target });
            }
            resource
        };
        all.extend(cache.files.iter().map(file));
    }
    all
}

fn resource(name: &str, uri: Option<String>, digest: Digest) -> Value {
    object([
        ("name", Some(name.into())),
        ("uri", uri.map(Value::from)),
        ("digest", Some(json!({ "sha256": digest.hex() }))),
    ])
}

/// A base; an image whose digest is not known would say nothing.
fn base(facts: &Facts<'_>, base: &InputBase) -> Option<Value> {
    let digest = base.digest?;
    let uri = facts.base_reference(base).map(|(reference, digest)| image_purl(&reference, digest));
    let mut resource = resource(facts.base_name(base), uri, digest);
    resource["annotations"] = json!({ "platform": base.platform.to_string() });
    Some(resource)
}
