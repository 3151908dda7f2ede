//! `--provenance` and `--sbom` of `starcar pack` and `starcar assemble`: what is recorded of the arguments, and when the documents are written.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{CliError, written_files};
use crate::{
    naming::Naming,
    oci::{DEFAULT_TAG, Target, variant_tag},
    pack::{Described, Destination, Given, Packed, Prepared, Told},
    provenance::{BUILDER_UNKNOWN, Builder, Facts, Licence, Published, base_name, sbom, statement},
};

/// The hub whose addresses everybody knows.
const PUBLIC_HUB: &str = "https://huggingface.co";
/// Bytes of a model card that are read: front matter comes first.
const MODEL_CARD_MAX: u64 = 256 << 10;

/// Documents about the image.
#[derive(Debug, Args)]
pub(super) struct ProvenanceArguments {
    /// Write an in-toto statement with SLSA provenance to this file: what was packed, and the digest of everything that
    /// went in (docs/provenance.md)
    #[arg(long, value_name = "FILE", help_heading = "Provenance")]
    provenance: Option<PathBuf>,
    /// Write a bill of materials to this file: SPDX 2.3 as JSON
    #[arg(long, value_name = "FILE", help_heading = "Provenance")]
    sbom: Option<PathBuf>,
    /// Who runs starcar, as a URI for the provenance
    #[arg(long, value_name = "URI", default_value = BUILDER_UNKNOWN, value_parser = uri, requires = "provenance", help_heading = "Provenance")]
    builder_id: String,
    /// What the builder calls this run, for the provenance; it is another one for each run, so the file is as well
    #[arg(long, value_name = "ID", value_parser = invocation, requires = "provenance", help_heading = "Provenance")]
    invocation_id: Option<String>,
}

/// Longest name of a builder or run, in bytes.
const NAME_MAX: usize = 2_048;

/// A URI with a scheme.
///
/// Source: RFC 3986, section 3.
fn uri(text: &str) -> Result<String, String> {
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.chars().all(|letter| letter.is_ascii_alphanumeric() || "+-.".contains(letter))
    };
    let rest = text.split_once(':').filter(|(scheme, _)| is_scheme(scheme)).map(|(_, rest)| rest);
    let is_plain = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic());
    match rest {
        Some(rest) if text.len() <= NAME_MAX && is_plain(rest) => Ok(text.to_owned()),
        _ => Err("expected a URI, as in https://ci.example.com/runner".to_owned()),
    }
}

fn invocation(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > NAME_MAX || text.chars().any(char::is_control) {
        return Err("expected a name or an address on one line".to_owned());
    }
    Ok(text.to_owned())
}

impl ProvenanceArguments {
    /// Whether a document is asked for.
    pub(super) fn is_wanted(&self) -> bool {
        self.provenance.is_some() || self.sbom.is_some()
    }

    /// The documents that are asked for.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.provenance.as_deref().into_iter().chain(self.sbom.as_deref())
    }

    /// Makes sure that the documents can be written: hours of packing should not end in a name that cannot be. Nor must
    /// they, and the file that tells of the result, replace each other.
    pub(super) fn check(&self, metadata_file: Option<&Path>, outputs: &[Target]) -> Result<(), CliError> {
        let documents = [("--provenance", self.provenance.as_deref()), ("--sbom", self.sbom.as_deref())];
        for (option, path) in documents {
            if let Some(path) = path.filter(|path| path.exists() && !path.is_file() && !path.is_dir()) {
                return Err(CliError::Usage(format!(
                    "{option}: {} is no regular file, and another cannot be written whole",
                    path.display()
                )));
            }
        }
        let documents = documents.into_iter().chain([("--metadata-file", metadata_file)]);
        let mut named: Vec<(&str, PathBuf)> = outputs.iter().flat_map(files_of).collect();
        for (option, path) in documents {
            written_files::check_writable(option, path)?;
            named.extend(path.map(|path| (option, path.to_owned())));
        }
        written_files::apart(&named)
    }

    /// Writes the documents about an image that has its names.
    pub(super) fn write(
        &self,
        told: &Told,
        described: &Described,
        packed: &Packed,
        destinations: &[Destination],
    ) -> Result<(), CliError> {
        let published = published(packed, destinations);
        let facts = Facts { told, described, packed, published: &published };
        if let Some(path) = &self.provenance {
            let builder = Builder { id: &self.builder_id, invocation: self.invocation_id.as_deref() };
            written_files::write(path, &statement(&facts, builder))?;
        }
        if let Some(path) = &self.sbom {
            written_files::write(path, &sbom(&facts))?;
        }
        Ok(())
    }
}

/// What documents are told that the image does not say. What was `given` is remembered before the snapshot is brought here.
pub(super) fn told(given: Given, prepared: &Prepared) -> Told {
    let licence = model_card(&prepared.snapshot.root).as_deref().and_then(Licence::of_model_card);
    Told { given, licence }
}

/// Whether the hub is the one whose addresses everybody knows. Another's is recorded nowhere: it may have a name and
/// password in it.
pub(super) fn is_public_hub() -> bool {
    let endpoint = std::env::var("HF_ENDPOINT").unwrap_or_default();
    matches!(endpoint.trim().trim_end_matches('/'), "" | PUBLIC_HUB)
}

/// The files by which an image on disk is found, with the option that names them.
fn files_of(output: &Target) -> Vec<(&'static str, PathBuf)> {
    let files = match output {
        Target::Layout { path, .. } => ["index.json", "oci-layout"].map(|name| path.join(name)).to_vec(),
        Target::Archive { path, .. } => vec![path.clone()],
        Target::Registry(_) => Vec::new(),
    };
    files.into_iter().map(|path| ("--output", path)).collect()
}

/// The beginning of a model card; `None` where there is none that can be read.
fn model_card(snapshot: &Path) -> Option<String> {
    let path = snapshot.join("README.md");
    if !fs::metadata(&path).ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MODEL_CARD_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The names that images got, each once: first those of the image, then those of its variants.
fn published(packed: &Packed, destinations: &[Destination]) -> Vec<Published> {
    let variants =
        packed.variants.iter().map(|variant| (Some(variant.target.as_str()), variant.image.digest));
    let mut published = Vec::new();
    for (target, digest) in std::iter::once((None, packed.digest)).chain(variants) {
        for destination in destinations {
            let name = match destination {
                Destination::Layout { path, tag, .. } => {
                    format!("oci:{}:{}", base_name(path), variant_tag(tag, target))
                }
                Destination::Archive { path, tag } => {
                    format!("oci-archive:{}:{}", base_name(path), variant_tag(tag, target))
                }
                Destination::Registry { reference, naming, .. } => {
                    let repository = format!("{}/{}", reference.registry(), reference.repository());
                    match naming {
                        Naming::Digest => repository,
                        Naming::Move | Naming::Keep => {
                            let tag = reference.tag().unwrap_or(DEFAULT_TAG);
                            format!("{repository}:{}", variant_tag(tag, target))
                        }
                    }
                }
            };
            let one = Published { name, digest };
            if !published.contains(&one) {
                published.push(one);
            }
        }
    }
    published
}
