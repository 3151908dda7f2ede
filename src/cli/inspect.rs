//! `starcar inspect`

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};

use super::{
    CliError, RegistryArguments,
    output::{self, count, escaped, size, table},
    platforms::asked,
};
use crate::{
    inspect::{IndexInspection, InspectedLayer, Inspection, LazyLayer, inspect, inspect_index},
    oci::{self, Platform, STARCAR_PREFIX, Target},
    zstd_chunked::ZSTD_ENTRY_ANNOTATION,
};

/// Show what an image is made of, without reading its weights
#[derive(Debug, Args)]
pub(super) struct InspectArguments {
    /// The image: a name in a registry, oci:DIR[:tag] or oci-archive:FILE[:tag]
    image: Target,
    /// Platform to look at, of an image for several [default: what the index lists]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// How the answer is printed
    #[arg(long, value_enum, default_value_t = FormatArgument::Table)]
    format: FormatArgument,
    #[command(flatten, next_help_heading = "Registry")]
    registry: RegistryArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArgument {
    Table,
    Json,
}

pub(super) fn run(arguments: &InspectArguments) -> Result<(), CliError> {
    let source = oci::open(&arguments.image, || arguments.registry.open())?;
    if arguments.platform.is_none()
        && let Some(index) = inspect_index(&*source)?
    {
        return match arguments.format {
            FormatArgument::Table => output::data(&index_text(&index)),
            FormatArgument::Json => output::json(&index),
        };
    }
    let inspection = inspect(&*source, &asked(&*source, arguments.platform.as_ref())?)?;
    match arguments.format {
        FormatArgument::Table => output::data(&text(&inspection)),
        FormatArgument::Json => output::json(&inspection),
    }
}

fn text(image: &Inspection) -> String {
    let or_none =
        |words: &Option<Vec<String>>| words.as_ref().map_or("none".to_owned(), |words| words.join(" "));
    let mut rows = vec![
        vec!["image".to_owned(), image.name.clone()],
        vec!["digest".to_owned(), image.digest.to_string()],
        vec!["platform".to_owned(), image.platform.clone()],
        vec!["size".to_owned(), format!("{} in {}", size(image.size), count(image.layers.len(), "layer"))],
        vec!["user".to_owned(), image.user.clone().unwrap_or_else(|| "none".to_owned())],
        vec!["entrypoint".to_owned(), or_none(&image.entrypoint)],
        vec!["command".to_owned(), or_none(&image.cmd)],
    ];
    rows.extend(image.labels.iter().map(|(name, value)| vec![name.clone(), value.clone()]));
    rows.extend(variants(&image.annotations));
    let mut text = table(&rows);
    for (index, layer) in image.layers.iter().enumerate() {
        text.push('\n');
        text.push_str(&layer_text(index + 1, layer));
    }
    text
}

fn index_text(index: &IndexInspection) -> String {
    let images = count(index.images.len(), "image");
    let layers = count(index.layers.len(), "layer");
    let mut rows = vec![
        vec!["image".to_owned(), index.name.clone()],
        vec!["digest".to_owned(), index.digest.to_string()],
        vec![
            "index".to_owned(),
            format!("{images}, {} in {layers}, {} of them in all images", size(index.size), index.shared()),
        ],
    ];
    rows.extend(variants(&index.annotations));
    let mut text = table(&rows);
    text.push('\n');
    let images: Vec<Vec<String>> = index
        .images
        .iter()
        .map(|image| {
            let layers = count(image.layers.len(), "layer");
            vec![
                image.platform.clone().unwrap_or_else(|| "no platform".to_owned()),
                image.digest.to_string(),
                if image.absent { "absent".to_owned() } else { format!("{} in {layers}", size(image.size)) },
                // One of two images of a platform, over the same layers.
                match image.annotations.get(ZSTD_ENTRY_ANNOTATION.0) {
                    Some(value) if value == ZSTD_ENTRY_ANNOTATION.1 => "for podman and CRI-O".to_owned(),
                    _ => String::new(),
                },
            ]
        })
        .collect();
    text.push_str(&table(&images));
    text.push('\n');
    let rows: Vec<Vec<String>> = index
        .layers
        .iter()
        .map(|layer| {
            let mut platforms = layer.platforms.clone();
            platforms.dedup();
            vec![
                layer.kind.clone().unwrap_or_else(|| "layer".to_owned()),
                size(layer.size),
                platforms.join(", "),
                layer.title.clone().unwrap_or_default(),
            ]
        })
        .collect();
    text.push_str(&table(&rows));
    text.push_str("\n--platform OS/ARCH shows what one of the images is made of\n");
    text
}

/// The images for one GPU target each that an image without a target lists, a row for each.
fn variants(annotations: &BTreeMap<String, String>) -> Vec<Vec<String>> {
    let Some(json) = annotations.get(&format!("{STARCAR_PREFIX}variants")) else { return Vec::new() };
    match serde_json::from_str::<BTreeMap<String, String>>(json) {
        Ok(digests) => digests
            .into_iter()
            .map(|(target, digest)| vec![format!("variant for {target}"), digest])
            .collect(),
        // Another program's; what is not understood is shown as it is.
        Err(_) => vec![vec!["variants".to_owned(), json.clone()]],
    }
}

fn layer_text(number: usize, layer: &InspectedLayer) -> String {
    let kind = layer.kind.as_deref().unwrap_or("layer");
    let title = layer.title.as_deref().unwrap_or_default();
    let (kind, title) = (escaped(kind), escaped(title));
    let head = format!("layer {number}: {kind} {title}\n  {} {}\n", layer.digest, size(layer.size));
    match &layer.lazy {
        Err(reason) => format!("{head}  not lazily pullable: {}\n", escaped(reason)),
        Ok(lazy) => head + &lazy_text(lazy),
    }
}

fn lazy_text(layer: &LazyLayer) -> String {
    let landmark = match &layer.landmark {
        None => "no landmark".to_owned(),
        Some(landmark) if landmark.prefetch => format!("prefetches {}", size(landmark.offset)),
        Some(_) => "prefetches nothing".to_owned(),
    };
    let head = format!("  lazily pullable, {landmark}, {}\n", count(layer.chunks, "chunk"));
    let rows: Vec<Vec<String>> = layer
        .entries
        .iter()
        .map(|entry| {
            vec![
                format!("  {}", entry.offset.map_or_else(|| "-".to_owned(), |offset| offset.to_string())),
                entry.entry_type.clone(),
                if entry.entry_type == "reg" { size(entry.size) } else { "-".to_owned() },
                entry.chunks.to_string(),
                if entry.prefetched { "prefetched" } else { "" }.to_owned(),
                entry.path.escape_debug().to_string(),
            ]
        })
        .collect();
    let header = ["  offset", "type", "size", "chunks", "", "path"].map(str::to_owned).to_vec();
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
    head + &table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_listed() {
        let of = |json: &str| {
            let annotation = (format!("{STARCAR_PREFIX}variants"), json.to_owned());
            table(&variants(&BTreeMap::from([annotation])))
        };
        assert_eq!(
            of(r#"{"sm90":"sha256:bb","cpu":"sha256:aa"}"#),
            "variant for cpu   sha256:aa\nvariant for sm90  sha256:bb\n"
        );
        assert_eq!(of("{}"), "");
        assert_eq!(of("[\u{1b}]"), "variants  [\\u{1b}]\n");
        assert_eq!(variants(&BTreeMap::new()), [] as [Vec<String>; 0]);
    }
}
