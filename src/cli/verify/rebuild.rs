//! `starcar verify --rebuild`: packs the snapshot again, as the image says that it was packed, into nowhere.

use std::{collections::BTreeMap, num::NonZero, path::Path, thread::available_parallelism};

use clap::Args;

use crate::{
    base::BaseChoice,
    cli::{CliError, image_arguments::open_profile, parse},
    compile_cache::AT_DEFAULT,
    digest::Digest,
    hub::SCHEME,
    oci::{ImageSource, OciError, Platform, STARCAR_PREFIX, is_index, read_image},
    pack::{
        CacheOption, CacheOptions, FormatChoice, ModelDirectory, PackOptions, Packed, PlatformOptions,
        RecordedBase, RecordedOptions, prepare, recorded_profile,
    },
    plan::{CHUNK_SIZE_DEFAULT, Compression, MAX_LAYERS_DEFAULT, Nodes, Prefetch},
    profile::{self, Profile},
    progress::Unobserved,
    registry::Registry,
    snapshot::SnapshotOptions,
};

/// What packing again takes that the image does not hold.
#[derive(Debug, Args)]
pub(super) struct RebuildArguments {
    /// Pack this snapshot again as the image was packed, and compare the digests; the layers are hashed and
    /// written nowhere
    #[arg(long, value_name = "SNAPSHOT")]
    rebuild: Option<String>,
    /// The base that the image was packed on, where it is no image in a registry
    #[arg(long, value_name = "BASE", requires = "rebuild")]
    base: Option<BaseChoice>,
    /// The profiles that the image was laid out by, where they are not built in (repeatable)
    #[arg(long, value_name = "PROFILE", requires = "rebuild")]
    profile: Vec<String>,
    /// The compile caches that the image was packed with, in the same order (repeatable)
    #[arg(long, value_name = "[KIND[@TARGET]=]DIR", value_parser = parse::cache, requires = "rebuild")]
    cache: Vec<CacheOption>,
}

/// The revision that was packed, where `snapshot` is a place that has several.
pub(super) fn revision(snapshot: &str, annotations: &BTreeMap<String, String>) -> Option<String> {
    let path = Path::new(snapshot);
    let names_its_own = snapshot.starts_with(SCHEME) && snapshot.contains('@');
    let has_several = !names_its_own && (!path.is_dir() || path.join("snapshots").is_dir());
    annotations.get(&format!("{STARCAR_PREFIX}model.revision")).filter(|_| has_several).cloned()
}

impl RebuildArguments {
    /// What packing again makes; `None` if that is not asked for. `path` is where the image lies on this disk, if it does;
    /// `fetch` brings a snapshot on the hub there.
    pub(super) fn run(
        &self,
        source: &dyn ImageSource,
        path: Option<&Path>,
        platform: Option<&Platform>,
        fetch: &dyn Fn(&str, &mut SnapshotOptions) -> Result<String, CliError>,
        registry: impl Fn() -> Result<Registry, OciError>,
    ) -> Result<Option<Packed>, CliError> {
        let Some(snapshot) = &self.rebuild else { return Ok(None) };
        let usage = |text: String| CliError::Usage(format!("--rebuild: {text}"));
        let root = source.root_document()?;
        if platform.is_none() && is_index(&root.media_type) {
            return Err(usage(
                "one image is packed again, and this is an index: name its --platform".to_owned(),
            ));
        }
        let image = read_image(source, &platform.cloned().unwrap_or_default())?;
        let annotations: BTreeMap<String, String> =
            image.manifest.annotations().clone().unwrap_or_default().into_iter().collect();
        let recorded = RecordedOptions::read(&annotations)
            .map_err(|reason| {
                usage(format!("what {} says of how it was packed is damaged: {reason}", source.place()))
            })?
            .ok_or_else(|| usage(format!("{} does not say how it was packed", source.place())))?;
        let own = |name: &str| annotations.get(&format!("{STARCAR_PREFIX}{name}"));
        let directory: ModelDirectory = match own("model.directory").map(|text| text.parse()) {
            Some(Ok(directory)) => directory,
            _ => return Err(usage("the image does not say where its model lies".to_owned())),
        };
        let mut options = PackOptions {
            snapshot: snapshot.clone(),
            files: SnapshotOptions {
                revision: revision(snapshot, &annotations),
                own_places: path.map(Path::to_owned).into_iter().collect(),
                ..SnapshotOptions::default()
            },
            platforms: vec![PlatformOptions {
                platform: Platform::of_config(&image.config),
                base: self.base(recorded.base, &annotations).map_err(usage)?,
            }],
            index: None,
            model_directory: directory,
            format: FormatChoice::Tar,
            compression: Compression::Auto,
            compress_weights: false,
            prefetch: Prefetch::Auto,
            nodes: Nodes::Default,
            profile: self.profile(recorded_profile(&annotations))?,
            profile_is_specific: false,
            caches: CacheOptions { caches: self.cache.clone(), at: AT_DEFAULT.to_owned(), strict: false },
            chunk_size: CHUNK_SIZE_DEFAULT,
            max_layers: MAX_LAYERS_DEFAULT,
            threads: available_parallelism().map_or(1, NonZero::get),
            modified: 0,
            temporary: std::env::temp_dir(),
            digest_cache: None,
            verify_sources: true,
        };
        recorded.apply(&mut options);
        options.snapshot = fetch(snapshot, &mut options.files)?;
        let mut packed = prepare(options, registry)?.write(&[], &Unobserved)?;
        if let Some(target) = own("variant") {
            let index = packed.variants.iter().position(|variant| variant.target == *target);
            let index = index.ok_or_else(|| {
                usage(format!("the image is the variant for {target}: name the --cache of each target"))
            })?;
            packed = packed.variants.swap_remove(index).image;
        }
        // For several consumers there is an image for each; any has the layers that this one should have.
        let same = packed.platforms.iter().position(|one| one.digest == image.digest).unwrap_or(0);
        Ok(Some(if packed.platforms.is_empty() { packed } else { packed.platforms.swap_remove(same) }))
    }

    fn base(&self, kind: RecordedBase, annotations: &BTreeMap<String, String>) -> Result<BaseChoice, String> {
        if let Some(base) = &self.base {
            return Ok(base.clone());
        }
        let recorded = |name: &str| annotations.get(&format!("org.opencontainers.image.base.{name}"));
        match (kind, recorded("name"), recorded("digest")) {
            (RecordedBase::Scratch, ..) => Ok(BaseChoice::Scratch),
            (RecordedBase::Image, Some(name), Some(digest)) => {
                // The tag may be another image's by now.
                let repository = name.split('@').next().unwrap_or(name);
                let repository = match repository.rsplit_once(':') {
                    Some((repository, tag)) if !tag.contains('/') => repository,
                    _ => repository,
                };
                format!("{repository}@{digest}")
                    .parse()
                    .map(BaseChoice::Image)
                    .map_err(|error: OciError| error.to_string())
            }
            (RecordedBase::Binary, ..) => {
                Err("the image was packed on a binary, which --base must name".to_owned())
            }
            (RecordedBase::Image, ..) => {
                Err("the image was packed on one that is in no registry, which --base must name".to_owned())
            }
        }
    }

    fn profile(&self, digest: Option<Digest>) -> Result<Option<Profile>, CliError> {
        let Some(digest) = digest else { return Ok(None) };
        let has_it = |profile: &Profile| Digest::of(profile.to_json().as_bytes()) == digest;
        if self.profile.is_empty() {
            // Packing merges what it is given, be it one.
            let built_in = profile::built_in_names().filter_map(|name| Profile::built_in(name)?.ok());
            let found = built_in.filter_map(|profile| profile::merge(vec![profile]).ok()).find(has_it);
            return found.map(Some).ok_or_else(|| {
                let text =
                    format!("the image was laid out by the profile {digest}, which --profile must name");
                CliError::Usage(format!("--rebuild: {text}"))
            });
        }
        let profiles = self.profile.iter().map(|name| open_profile(name)).collect::<Result<Vec<_>, _>>()?;
        let merged = profile::merge(profiles)?;
        if has_it(&merged) {
            return Ok(Some(merged));
        }
        let text = format!("--rebuild: the image was laid out by the profile {digest}, which this is not");
        Err(CliError::Usage(text))
    }
}
