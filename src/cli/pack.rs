//! `starcar pack`

mod part;

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{
    CliError, ProgressArguments,
    cache::contract_text,
    destinations::DestinationArguments,
    digest_cache::DigestCacheUse,
    exit_code,
    image_arguments::ImageArguments,
    output,
    plan_text::plan_text,
    progress::Progress,
    provenance::{ProvenanceArguments, told},
    verify::verify_packed,
    written_files,
};
use crate::{
    attach::attach_profile,
    compile_cache::lint::Severity,
    digest::Digest,
    naming::Naming,
    oci::{DEFAULT_TAG, Target, descriptor, variant_tag},
    pack::{Destination, Packed, Part, Prepared, prepare},
    registry::{Reference, Registry},
};

/// Pack a model snapshot into an image, and write or push it
///
/// The manifest's digest, or the index's of several platforms, is the last line on standard output, after a line for each variant; with --format json the JSON document has it.
#[derive(Debug, Args)]
pub(super) struct PackArguments {
    #[command(flatten)]
    image: ImageArguments,

    #[command(flatten)]
    destination: DestinationArguments,
    /// Attach the profile that the image is laid out by to the image, and to each variant, in the registry
    #[arg(long, requires = "push", help_heading = "Destination")]
    attach_profile: bool,
    /// Verify the image where it was brought to, as `starcar verify` does, and let the exit code tell
    #[arg(long, conflicts_with = "dry_run", help_heading = "Destination")]
    verify: bool,
    /// Seal and bring only this share of the layers, as a part: `2/4` is the second of four. `starcar assemble` makes the
    /// image of all parts
    #[arg(long, value_name = "I/N", conflicts_with_all = ["push_by_digest", "verify", "attach_profile", "provenance", "sbom"], help_heading = "Destination")]
    part: Option<Part>,
    /// Print the plan and do nothing
    #[arg(long, conflicts_with_all = ["provenance", "sbom"], help_heading = "Destination")]
    dry_run: bool,
    #[command(flatten)]
    result: ResultArguments,
    #[command(flatten)]
    provenance: ProvenanceArguments,
    #[command(flatten)]
    digest_cache: DigestCacheUse,
    #[command(flatten)]
    progress: ProgressArguments,
}

/// How the result is told.
#[derive(Debug, Args)]
pub(super) struct ResultArguments {
    /// Write digest, sizes and layers to this file as JSON
    #[arg(long, value_name = "FILE", help_heading = "Destination")]
    pub(super) metadata_file: Option<PathBuf>,
    /// How the result is printed: `text` is the digest alone, `json` is what --metadata-file holds
    #[arg(long, value_enum, default_value_t = FormatArgument::Text)]
    format: FormatArgument,
}

impl ResultArguments {
    /// Writes the file and prints the result: the digest of what is there must be known even where the file cannot be written.
    pub(super) fn tell(&self, text: &str, json: &str) -> Result<(), CliError> {
        let written = self.metadata_file.as_deref().map_or(Ok(()), |path| written_files::write(path, json));
        let printed = output::data(match self.format {
            FormatArgument::Text => text,
            FormatArgument::Json => json,
        });
        written.and(printed)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArgument {
    Text,
    Json,
}

/// Packs, and returns the exit code.
pub(super) fn run(arguments: &PackArguments) -> Result<u8, CliError> {
    let to = &arguments.destination;
    let references = to.references()?;
    let reference = references.first();
    check_destinations(arguments, reference)?;
    arguments.provenance.check(arguments.result.metadata_file.as_deref(), &to.output)?;
    if arguments.part.is_some() && to.naming.is_no_clobber() {
        return Err(CliError::Usage(
            "--part goes not with --no-clobber: a part replaces an earlier part; give it to `starcar assemble`".to_owned(),
        ));
    }
    let progress = Progress::new(&arguments.progress);
    let mut options = arguments.image.options()?;
    let is_told = arguments.provenance.is_wanted() || arguments.part.is_some();
    let given = is_told.then(|| arguments.image.given(&options)).transpose()?;
    let images = to.output.iter().filter_map(Target::path);
    let documents = arguments.provenance.paths().chain(arguments.result.metadata_file.as_deref());
    options.files.own_places = images.chain(documents).map(ToOwned::to_owned).collect();
    let outline = if arguments.dry_run || arguments.part.is_some() {
        arguments.image.outline(&mut options, &progress)?
    } else {
        arguments.image.download(&mut options, &progress)?;
        None
    };
    arguments.digest_cache.apply(&mut options)?;
    // One client, so that the base's registry and the image's share logins where they are one.
    let open = arguments.image.registry.shared();
    let prepared = prepare(options, &open)?;
    if !arguments.progress.quiet {
        say(&prepared, |line| progress.line(line));
    }
    if let Some(part) = arguments.part {
        let part = prepared.part(part)?;
        return part::run(arguments, part, given, outline.as_ref(), &references, &open, &progress);
    }
    if arguments.dry_run {
        references.iter().try_for_each(|reference| prepared.check_sizes(reference))?;
        return output::data(&plan_text(&prepared)).map(|()| exit_code::OK);
    }

    let destinations = to.destinations(&references, to.naming.naming(), &open)?;
    if let Some((place, size)) = prepared.spooled(&destinations).filter(|_| !arguments.progress.quiet) {
        let (size, place) = (output::size(size), place.display());
        progress.line(&format!("compressed weights, about {size}, are kept in {place} until they are sent"));
    }
    let packed = prepared.write(&destinations, &progress)?;
    for reference in references.iter().filter(|_| arguments.attach_profile) {
        attach(&open()?, &prepared, reference, &packed)?;
    }
    progress.finish();
    if !arguments.progress.quiet {
        say_caches(&destinations, &packed);
    }
    let reported = report(&arguments.result, &to.tag, &packed);
    let documented = given.map_or(Ok(()), |given| {
        let told = told(given, &prepared);
        arguments.provenance.write(&told, &prepared.described(), &packed, &destinations)
    });
    reported.and(documented)?;
    if arguments.verify {
        return verify_packed(&destinations, &packed, &open, arguments.progress.quiet);
    }
    Ok(exit_code::OK)
}

/// Attaches the profile to the images that were pushed.
fn attach(
    registry: &Registry,
    prepared: &Prepared,
    reference: &Reference,
    packed: &Packed,
) -> Result<(), CliError> {
    let Some(profile) = prepared.profile() else { return Ok(()) };
    for image in packed.variants.iter().map(|variant| &variant.image).chain([packed]) {
        let image = descriptor(image.digest, image.size, &image.media_type)?;
        attach_profile(registry, reference, &image, profile)?;
    }
    Ok(())
}

/// Parts of a cache left out that are named before they are only counted: there may be a lock for each kernel.
const LEFT_OUT_SHOWN: usize = 5;

/// Says what is left out, and what the user should know.
pub(super) fn say(prepared: &Prepared, line: impl Fn(&str)) {
    for left_out in &prepared.snapshot.left_out {
        line(&format!("left out {left_out}"));
    }
    for cache in &prepared.caches.caches {
        let name = &cache.record.name;
        let left_out = &cache.examined.tree.left_out;
        for left_out in left_out.iter().take(LEFT_OUT_SHOWN) {
            line(&format!("left out {name}/{}: {}", left_out.path, left_out.reason));
        }
        if left_out.len() > LEFT_OUT_SHOWN {
            line(&format!("left out {} more of {name}", left_out.len() - LEFT_OUT_SHOWN));
        }
        for finding in &cache.examined.findings {
            let text = format!("{name} cache: {finding}");
            if finding.severity >= Severity::Warning { output::warning(&text) } else { line(&text) }
        }
    }
    prepared.warnings.iter().for_each(|warning| output::warning(warning));
}

/// Says what the serving side must do so that the caches are used, of the image where it is: in a registry if it was
/// pushed, and under its digest where it has no tag there.
pub(super) fn say_caches(destinations: &[Destination], packed: &Packed) {
    let pushed = destinations.iter().find(|one| matches!(one, Destination::Registry { .. }));
    let place = pushed.or(destinations.first());
    let name = |target: Option<&str>, digest: Digest| match place {
        Some(Destination::Registry { reference, naming: Naming::Digest, .. }) => {
            format!("{}/{}@{digest}", reference.registry(), reference.repository())
        }
        Some(Destination::Registry { reference, .. }) => {
            let tag = variant_tag(reference.tag().unwrap_or(DEFAULT_TAG), target);
            format!("{}/{}:{tag}", reference.registry(), reference.repository())
        }
        Some(Destination::Layout { path, tag, .. }) => {
            format!("oci:{}:{}", path.display(), variant_tag(tag, target))
        }
        Some(Destination::Archive { path, tag }) => {
            format!("oci-archive:{}:{}", path.display(), variant_tag(tag, target))
        }
        None => "this image".to_owned(),
    };
    let variants = packed.variants.iter().map(|variant| (Some(variant.target.as_str()), &variant.image));
    for (target, packed) in std::iter::once((None, packed)).chain(variants) {
        let with_caches = || packed.images().filter(|image| !image.caches.is_empty());
        let Some(first) = with_caches().next() else { continue };
        // Platforms that have the same caches are told of once.
        let is_one = with_caches().all(|image| image.caches == first.caches);
        for image in with_caches().take(if is_one { 1 } else { usize::MAX }) {
            let name = name(target, packed.digest);
            let name = match &image.platform {
                Some(platform) if !is_one => format!("{name} ({platform})"),
                _ => name,
            };
            output::words(contract_text(&image.caches, &name).trim_end());
        }
    }
}

pub(super) fn report(result: &ResultArguments, tags: &[String], packed: &Packed) -> Result<(), CliError> {
    let as_json = || -> Result<String, CliError> {
        let json_error =
            |error: serde_json::Error| CliError::Output { what: "metadata".to_owned(), cause: error.into() };
        let mut value = serde_json::to_value(packed).map_err(json_error)?;
        // The names that build tools read from BuildKit's metadata file.
        value["containerimage.digest"] = packed.digest.to_string().into();
        if !tags.is_empty() {
            value["image.name"] = tags.join(",").into();
        }
        let mut text = serde_json::to_string_pretty(&value).map_err(json_error)?;
        text.push('\n');
        Ok(text)
    };
    let mut lines: Vec<String> = packed
        .variants
        .iter()
        .map(|variant| format!("{} {}", variant.target, variant.image.digest))
        .collect();
    lines.push(packed.digest.to_string());
    result.tell(&lines.join("\n"), &as_json()?)
}

fn check_destinations(arguments: &PackArguments, reference: Option<&Reference>) -> Result<(), CliError> {
    let usage = |text: &str| Err(CliError::Usage(text.to_owned()));
    let to = &arguments.destination;
    if !arguments.dry_run {
        to.check_any()?;
    }
    if arguments.attach_profile && arguments.image.has_no_profile() {
        return usage("--attach-profile goes not with --profile none");
    }
    if arguments.dry_run
        && (arguments.result.format == FormatArgument::Json || arguments.result.metadata_file.is_some())
    {
        return usage(
            "--dry-run prints the plan as text and writes no file; `starcar plan --format json` prints it as JSON",
        );
    }
    to.check_outputs()?;
    let is_latest = to.naming.naming() != Naming::Digest
        && reference.is_some_and(|reference| matches!(reference.tag(), None | Some("latest")));
    if to.push && is_latest && !arguments.progress.quiet {
        output::warning(
            "without a tag, or with `latest`, Kubernetes asks the registry at every start; name a version",
        );
    }
    Ok(())
}
