//! Documents about an image that was packed: what it was made of and by whom ([`statement`]), and what is in it
//! ([`sbom`]). From facts to JSON: must not read files, know registries or print.
//!
//! Both are the same for the same facts, byte by byte: nothing in them is a time of this run, a random number or a path
//! of this machine.

mod licence;
mod names;
mod spdx;
mod statement;

use serde::Serialize;
use serde_json::{Map, Value};

pub use self::{
    licence::{Licence, LicenceReference},
    names::{base_name, shown_base, shown_target},
    spdx::sbom,
    statement::{BUILD_TYPE, BUILDER_UNKNOWN, Builder, PREDICATE_TYPE, STATEMENT_TYPE, statement},
};
use crate::{
    digest::Digest,
    pack::{Inputs, PackOptions, Packed},
    profile::Profile,
};

/// What is known of a pack once it is published.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The options as a user gave them, where the packer knows only what came of them.
    pub given: &'a Given,
    /// How it was packed.
    pub options: &'a PackOptions,
    /// The model, `org/name`, where it is known.
    pub repository: Option<&'a str>,
    /// Its commit, where it is known.
    pub revision: Option<&'a str>,
    /// Its licence, where its model card names one.
    pub licence: Option<&'a Licence>,
    /// What was packed.
    pub packed: &'a Packed,
    /// The names that it got.
    pub published: &'a [Published],
}

impl<'a> Facts<'a> {
    fn inputs(&self) -> &'a Inputs {
        &self.packed.inputs
    }

    fn profile(&self) -> Option<&'a Profile> {
        self.options.profile.as_ref()
    }

    /// The model's name: its repository, or what the user called it.
    fn model(&self) -> &'a str {
        self.repository.unwrap_or(&self.given.snapshot)
    }
}

/// Options as they were given, without directories and secrets.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// The snapshot: a name on the hub, or the last part of a path.
    pub snapshot: String,
    /// The revision that was asked for.
    pub revision: Option<String>,
    /// The profiles in their order; empty for the one that is used without any.
    pub profiles: Vec<GivenProfile>,
    /// Whether the hub is the public one, whose addresses are known.
    pub is_public_hub: bool,
}

/// A profile as it was given.
#[derive(Debug, Clone)]
pub struct GivenProfile {
    /// Its name: a built-in's, an image's, or the last part of a path.
    pub name: String,
    /// SHA-256 of the file, if it is one.
    pub digest: Option<Digest>,
}

/// A name of an image that was packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The name: `registry/repository:tag`, or `oci:DIR:tag` with the last part of the directory's path.
    pub name: String,
    /// Digest of its manifest, or index.
    pub digest: Digest,
}

/// An object of those fields that have a value.
fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(fields.collect::<Map<_, _>>())
}

/// A value as JSON; `None` where it cannot be expressed, which numbers and texts always can.
fn json(value: impl Serialize) -> Option<Value> {
    serde_json::to_value(value).ok()
}

/// A document as text: keys in order, for people to read, with an end of line.
fn text(mut document: Value) -> String {
    // Sorted in so many words: another crate may switch serde_json to keeping the order of insertion.
    document.sort_all_objects();
    format!("{document:#}\n")
}
