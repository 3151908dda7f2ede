//! All of an image, read: what `deep` finds in its layers, and what quick looks could not see of them. Must not know how
//! a layer is read.

use std::{collections::BTreeMap, io};

use oci_spec::image::{ImageConfiguration, ImageManifest};

use super::{
    VerifyError,
    against::{Against, InLayer},
    deep::{DeepLayer, LayerToRead, Wanted, read_layers},
    finding::{Findings, Place},
    layer::{Format, LayerView, Traffic, fault},
    media_type::Compression,
    tree::Tree,
};
use crate::{
    estargz::UNCOMPRESSED_SIZE_ANNOTATION,
    oci::{ImageSource, OciError},
    progress::Observer,
};

/// An image that is to be read.
pub(super) struct Whole<'a> {
    pub(super) source: &'a dyn ImageSource,
    pub(super) manifest: &'a ImageManifest,
    pub(super) config: Option<&'a ImageConfiguration>,
    /// Threads to use.
    pub(super) threads: usize,
    /// What its files are to be compared with.
    pub(super) against: Option<&'a Against<'a>>,
    pub(super) observer: &'a dyn Observer,
}

/// The files of the image that somebody wants to compare, by layer.
#[derive(Debug, Default)]
pub(super) struct ReadFiles {
    files: Vec<(String, InLayer)>,
    links: Vec<(String, usize, String)>,
}

impl Whole<'_> {
    /// Reads all layers, and fills in what is not known of `layers` yet.
    ///
    /// # Errors
    /// When the place fails for a reason that says nothing of a layer.
    pub(super) fn read(
        &self,
        layers: &mut [LayerView],
        traffic: &Traffic,
        findings: &mut Findings,
    ) -> Result<ReadFiles, OciError> {
        let diff_ids = self.config.map(|config| config.rootfs().diff_ids().as_slice()).unwrap_or_default();
        let mut to_read = Vec::new();
        for ((index, layer), descriptor) in layers.iter().enumerate().zip(self.manifest.layers()) {
            let compression = match layer.format {
                Format::Lazy(_) | Format::Unnamed(_) => Compression::Gzip,
                Format::Plain(compression) | Format::Broken(compression) => compression,
                Format::Unknown => continue,
            };
            let annotation = |name: &str| descriptor.annotations().as_ref()?.get(name)?.parse().ok();
            to_read.push(LayerToRead {
                index,
                content: self.source.content(layer.digest, layer.size)?,
                compression,
                diff_id: diff_ids.get(index).and_then(|text| text.parse().ok()),
                unpacked_size: annotation(UNCOMPRESSED_SIZE_ANNOTATION),
                toc: layer.format.reader(),
                list: layer.nodes.is_none(),
            });
        }
        self.observer.reading(to_read.iter().map(|layer| layer.content.size()).sum());
        let wanted = |path: &str| self.against.map_or(Wanted::No, |against| against.wanted(path));
        let on_bytes = |count: u64| {
            traffic.add(0, count);
            self.observer.hashed(count);
        };
        traffic.add(to_read.len() as u64, 0);
        let results = read_layers(&to_read, self.threads, &wanted, &on_bytes);
        let indices: Vec<usize> = to_read.iter().map(|layer| layer.index).collect();
        drop(to_read);
        let mut read = ReadFiles::default();
        for (index, result) in indices.into_iter().zip(results) {
            let Some(layer) = layers.get_mut(index) else { continue };
            match result {
                Ok(deep) => take(index, deep, layer, &mut read, findings),
                Err(cause) => self.failed(index, layer, cause, findings)?,
            }
        }
        Ok(read)
    }

    fn failed(
        &self,
        index: usize,
        layer: &LayerView,
        cause: io::Error,
        findings: &mut Findings,
    ) -> Result<(), OciError> {
        let Some(rule) = fault(&cause) else {
            return Err(OciError::ReadBlob { place: self.source.place(), digest: layer.digest, cause });
        };
        let place = Place::layer(index, Some(layer.digest));
        if !findings.has_at(rule, &place) {
            findings.add(rule, place, format!("the layer cannot be read: {cause}"));
        }
        Ok(())
    }
}

fn take(index: usize, deep: DeepLayer, layer: &mut LayerView, read: &mut ReadFiles, findings: &mut Findings) {
    findings.append(deep.findings);
    if let Some(lister) = deep.lister {
        layer.nodes = Some(lister.nodes);
        layer.passwd = lister.passwd;
    }
    if matches!(layer.format, Format::Plain(Compression::Gzip) | Format::Broken(Compression::Gzip)) {
        layer.members = deep.members;
    }
    read.files.extend(deep.files.into_iter().map(|file| (file.path.clone(), (index, file))));
    read.links.extend(deep.links.into_iter().map(|(path, target)| (path, index, target)));
}

impl ReadFiles {
    /// Compares them with a snapshot; what upper layers of `tree` take away is not there.
    ///
    /// # Errors
    /// When a file of the snapshot cannot be read.
    pub(super) fn compare(
        self,
        against: &Against<'_>,
        tree: &Tree,
        findings: &mut Findings,
    ) -> Result<(), VerifyError> {
        let is_there = |path: &str, layer: usize| tree.get(path).is_some_and(|placed| placed.layer == layer);
        let files: BTreeMap<String, InLayer> =
            self.files.into_iter().filter(|(path, (layer, _))| is_there(path, *layer)).collect();
        let links: BTreeMap<String, String> = self
            .links
            .into_iter()
            .filter(|(path, layer, _)| is_there(path, *layer))
            .map(|(path, _, target)| (path, target))
            .collect();
        Ok(against.compare(&files, &links, findings)?)
    }
}
