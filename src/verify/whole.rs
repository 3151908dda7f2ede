//! All of an image, read: what `deep` finds in its layers, and what quick looks could not see of them. Must not know how
//! a layer is read.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::Arc,
};

use oci_spec::image::{ImageConfiguration, ImageManifest};

use super::{
    VerifyError,
    against::{Against, InLayer},
    deep::{DeepLayer, LayerToRead, ReadFile, Wanted, read_layers},
    finding::{Findings, Place},
    layer::{Format, LayerView, Traffic, fault},
    media_type::Compression,
    rules,
    shared::Shared,
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

/// What the files of the image hold that somebody wants to compare, by path, as if no layer took a file away.
#[derive(Debug, Default)]
pub(super) struct ReadFiles {
    files: HashMap<String, InLayer>,
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
        mut shared: Option<&mut Shared>,
        findings: &mut Findings,
    ) -> Result<ReadFiles, OciError> {
        let diff_ids = self.config.map(|config| config.rootfs().diff_ids().as_slice()).unwrap_or_default();
        let mut to_read = Vec::new();
        let mut results: Vec<(usize, io::Result<DeepLayer>)> = Vec::new();
        for ((index, layer), descriptor) in layers.iter().enumerate().zip(self.manifest.layers()) {
            let compression = match layer.format {
                Format::Lazy(ref reader) | Format::Unnamed(ref reader) => reader.kind.into(),
                Format::Plain(compression) | Format::Broken(compression) => compression,
                Format::Unknown => continue,
            };
            let annotation = |name: &str| descriptor.annotations().as_ref()?.get(name)?.parse().ok();
            let to_be_read = LayerToRead {
                index,
                content: self.source.content(layer.digest, layer.size)?,
                compression,
                diff_id: diff_ids.get(index).and_then(|text| text.parse().ok()),
                unpacked_size: annotation(UNCOMPRESSED_SIZE_ANNOTATION),
                toc: layer.format.reader(),
                tar_split: layer.tar_split.as_ref().map(|split| split.as_slice()),
                list: layer.nodes.is_none(),
            };
            match shared.as_deref().and_then(|shared| shared.read(&to_be_read)) {
                Some(known) => results.push((index, Ok(known))),
                None => to_read.push(to_be_read),
            }
        }
        self.observer.reading(to_read.iter().map(|layer| layer.content.size()).fold(0, u64::saturating_add));
        let wanted = |path: &str| self.against.map_or(Wanted::No, |against| against.wanted(path));
        let on_bytes = |count: u64| {
            traffic.add(0, count);
            self.observer.hashed(count);
        };
        traffic.add(to_read.len() as u64, 0);
        let read = read_layers(&to_read, self.threads, &wanted, &on_bytes);
        for (layer, result) in to_read.iter().zip(read) {
            if let (Some(shared), Ok(read)) = (shared.as_deref_mut(), &result) {
                shared.keep_read(layer, read);
            }
            results.push((layer.index, result));
        }
        drop(to_read);
        // What a link leads to lies in a layer below it.
        results.sort_by_key(|(index, _)| *index);
        let mut read = ReadFiles::default();
        for (index, result) in results {
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
    let rules: &[_] = if layer.is_for_storage { &[] } else { &[&rules::TAR_SPLIT_DIFFERS] };
    // What nobody reads is not wrong.
    findings.append(deep.findings.without(rules));
    if let Some(lister) = deep.lister {
        layer.nodes = Some(Arc::new(lister.nodes));
        layer.passwd = lister.passwd;
    }
    if matches!(layer.format, Format::Plain(Compression::Gzip) | Format::Broken(Compression::Gzip)) {
        layer.members = deep.members;
    }
    read.add(index, deep.files, deep.links);
}

impl ReadFiles {
    /// Adds those of the next layer, and its hard links: path and target. A link names what is there when it is unpacked,
    /// which later layers may replace.
    fn add(&mut self, layer: usize, files: Vec<ReadFile>, links: Vec<(String, String)>) {
        self.files.extend(files.into_iter().map(|file| (file.path.clone(), (layer, file))));
        for (path, target) in links {
            // What cannot be found must not pass for what a lower layer has there.
            match self.files.get(&target).map(|(_, file)| file.clone()) {
                Some(file) => self.files.insert(path, (layer, file)),
                None => self.files.remove(&path),
            };
        }
    }

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
        Ok(against.compare(tree, &files, findings)?)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use tar::{Builder, EntryType, Header};

    use super::*;
    use crate::{
        blob::MemoryBlob,
        snapshot::{SnapshotOptions, open_with},
        verify::finding::Use,
    };

    /// A layer of files, name and content, and then hard links, name and target.
    fn layer(index: usize, files: &[(&str, &str)], links: &[(&str, &str)]) -> LayerToRead<'static> {
        let mut builder = Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = Header::new_gnu();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
        for (path, target) in links {
            let mut header = Header::new_gnu();
            header.set_size(0);
            header.set_entry_type(EntryType::Link);
            builder.append_link(&mut header, path, target).unwrap();
        }
        LayerToRead {
            index,
            content: Arc::new(MemoryBlob::new(builder.into_inner().unwrap())),
            compression: Compression::None,
            diff_id: None,
            unpacked_size: None,
            toc: None,
            tar_split: None,
            list: true,
        }
    }

    /// What is found in these layers, the snapshot being one file.
    fn found(layers: &[LayerToRead<'_>]) -> Vec<&'static str> {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("config.json"), "{}").unwrap();
        let directory = directory.path().to_str().unwrap();
        let snapshot = open_with(directory, &SnapshotOptions::default(), &|_| None).unwrap();
        let against = Against::new(&snapshot, "models", &[]);
        let (mut read, mut tree, mut findings) = (ReadFiles::default(), Tree::default(), Findings::default());
        let results = read_layers(layers, 2, &|path| against.wanted(path), &|_| {});
        for (layer, result) in layers.iter().zip(results) {
            let result = result.unwrap();
            tree.add(layer.index, &result.lister.unwrap().nodes);
            read.add(layer.index, result.files, result.links);
        }
        read.compare(&against, &tree, &mut findings).unwrap();
        findings.finish(&Use::ALL).iter().map(|found| found.rule.code).collect()
    }

    #[test]
    fn hard_links_are_what_they_named_when_they_were_made() {
        let config = [("models/config.json", "else/where")];
        let good = layer(0, &[("else/where", "{}")], &config);
        let replaced = layer(1, &[("else/where", "[]")], &[]);
        let removed = layer(2, &[("else/.wh.where", "")], &[]);
        assert_eq!(found(&[good, replaced, removed]), [""; 0]);
        // Of a lower layer's file, and by way of another link.
        let lower = layer(0, &[("else/where", "{}")], &[]);
        let upper = layer(1, &[], &[("else/link", "else/where"), ("models/config.json", "else/link")]);
        assert_eq!(found(&[lower, upper]), [""; 0]);
        assert_eq!(found(&[layer(0, &[("else/where", "[]")], &config)]), ["source-differs"]);
        assert_eq!(found(&[layer(0, &[], &config)]), ["source-missing"]);
        let first = layer(0, &[("models/config.json", "{}")], &[]);
        assert_eq!(found(&[first, layer(1, &[], &config)]), ["source-missing"]);
    }
}
