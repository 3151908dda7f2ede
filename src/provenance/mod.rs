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
    oci::Target,
    pack::{Described, Given, InputBase, Inputs, Packed, RecordedBase, Told},
    registry::Reference,
};

/// What is known of a pack once it is published.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// What only whoever packed knows: the options as a user gave them.
    pub told: &'a Told,
    /// What the images say of themselves.
    pub described: &'a Described,
    /// What was packed.
    pub packed: &'a Packed,
    /// The names that it got.
    pub published: &'a [Published],
}

impl<'a> Facts<'a> {
    fn inputs(&self) -> &'a Inputs {
        &self.packed.inputs
    }

    fn given(&self) -> &'a Given {
        &self.told.given
    }

    /// Repository and commit, where they are known.
    fn hub(&self) -> Option<(&'a str, &'a str)> {
        self.described.repository.as_deref().zip(self.described.revision.as_deref())
    }

    /// The model's name: its repository, or what the user called it.
    fn model(&self) -> &'a str {
        self.described.repository.as_deref().unwrap_or(&self.given().snapshot)
    }

    /// What a base was given as.
    fn base_name(&self, base: &InputBase) -> &'a str {
        let platform = base.platform.to_string();
        let given = self.given().platforms.iter().find(|given| given.platform == platform);
        given.map_or("", |given| &given.base)
    }

    /// A base's name in a registry, where it is an image there, and its digest.
    fn base_reference(&self, base: &InputBase) -> Option<(Reference, Digest)> {
        match self.base_name(base).parse() {
            Ok(Target::Registry(reference)) if base.kind == RecordedBase::Image => {
                Some((reference, base.digest?))
            }
            _ => None,
        }
    }
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
