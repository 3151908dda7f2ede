//! One layer, looked at without its weights: whether it is there, how it is compressed, footer, table of contents, and
//! what files it holds. Must not know what the files are for.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use oci_spec::image::Descriptor;

use super::{
    finding::{Findings, Place, Rule},
    media_type::{Compression, LayerType},
    names::clean,
    plain::{self, Listed},
    rules,
    shared::{HELD_MAX, Tables},
    tar_split::SplitView,
    toc::{self, TocView},
    tree::{Node, NodeKind},
    zstd_chunked,
};
use crate::{
    blob::RangeSource,
    digest::Digest,
    estargz::{EstargzReader, ReadError, TOC_DIGEST_ANNOTATION, UNCOMPRESSED_SIZE_ANNOTATION, toc::TocEntry},
    members::MemberKind,
    oci::{ImageSource, OciError, digest_of},
    registry::RegistryError,
    zstd_chunked::STORAGE_PREFIX,
};

/// Names of the formats that nodes can mount.
pub(super) const ESTARGZ: &str = "estargz";
pub(super) const ZSTD_CHUNKED: &str = "zstd:chunked";

/// Bytes of a layer that are looked at to tell how it is compressed.
const HEAD: u64 = 512;

/// What is asked of a place, counted.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl Traffic {
    pub(super) fn add(&self, requests: u64, bytes: u64) {
        self.requests.fetch_add(requests, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Requests and bytes so far.
    pub(super) fn so_far(&self) -> (u64, u64) {
        (self.requests.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

/// Ranges, counted.
struct Counted {
    blob: Box<dyn RangeSource>,
    traffic: Arc<Traffic>,
}

impl RangeSource for Counted {
    fn size(&self) -> u64 {
        self.blob.size()
    }

    fn read_range(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.traffic.add(1, length as u64);
        self.blob.read_range(offset, length)
    }
}

/// What is known of a layer.
#[derive(Clone)]
pub(super) struct LayerView {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) media_type: String,
    pub(super) kind: Option<String>,
    pub(super) format: Format,
    /// Its files; `None` where they were not looked at.
    pub(super) nodes: Option<Arc<Vec<Node>>>,
    /// The content of its password file, where it was read.
    pub(super) passwd: Option<Vec<u8>>,
    /// How many gzip members a layer has that nodes cannot mount, where it was read; 0 where it was not.
    pub(super) members: usize,
    /// Whether its descriptor has annotations for containers-storage.
    pub(super) is_for_storage: bool,
    /// Its compressed tar-split, where all of the layer is read later.
    pub(super) tar_split: Option<Arc<Vec<u8>>>,
    /// Its ranges, where it could be opened.
    pub(super) blob: Option<Arc<dyn RangeSource>>,
}

/// What a layer is.
#[derive(Clone)]
pub(super) enum Format {
    /// eStargz or zstd:chunked that nodes can mount.
    Lazy(Arc<EstargzReader>),
    /// One of the two that could be read, and that nodes cannot mount.
    Unnamed(Arc<EstargzReader>),
    /// Meant to be one of the two, and broken; compressed in that way.
    Broken(Compression),
    /// A tar archive, compressed or not.
    Plain(Compression),
    /// Not there, or not to be understood.
    Unknown,
}

impl Format {
    /// The name that outputs use.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Lazy(reader) | Self::Unnamed(reader) => match reader.kind {
                MemberKind::Gzip => ESTARGZ,
                MemberKind::Zstd => ZSTD_CHUNKED,
            },
            Self::Broken(Compression::Zstd) => "broken zstd:chunked",
            Self::Broken(_) => "broken estargz",
            Self::Plain(compression) => compression.name(),
            Self::Unknown => "unknown",
        }
    }

    /// The table of contents.
    pub(super) fn reader(&self) -> Option<&EstargzReader> {
        match self {
            Self::Lazy(reader) | Self::Unnamed(reader) => Some(reader),
            _ => None,
        }
    }
}

/// The rule that a failed read speaks of; `None` where it says nothing of the layer, as when a network is down.
pub(super) fn fault(error: &io::Error) -> Option<&'static Rule> {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<RegistryError>()) {
        Some(RegistryError::NotFound { .. }) => Some(&rules::LAYER_MISSING),
        // 416: the range that was asked for lies behind the blob's end.
        Some(RegistryError::SizeMismatch { .. } | RegistryError::Server { status: 416, .. }) => {
            Some(&rules::LAYER_SIZE)
        }
        Some(RegistryError::RangeIgnored { .. }) => Some(&rules::RANGES_IGNORED),
        Some(_) => None,
        None => (error.kind() == io::ErrorKind::UnexpectedEof).then_some(&rules::LAYER_SIZE),
    }
}

/// Looks at the layer that is the `index`th of the manifest; `is_deep` says that all of it is read later.
///
/// # Errors
/// When the place fails for a reason that says nothing of the layer.
pub(super) fn look(
    source: &dyn ImageSource,
    index: usize,
    descriptor: &Descriptor,
    traffic: &Arc<Traffic>,
    is_deep: bool,
    tables: &Tables,
) -> Result<(LayerView, Findings), OciError> {
    let place = source.place();
    let digest = digest_of(descriptor, &place)?;
    let annotations = || descriptor.annotations().iter().flatten();
    let annotation = |name: &str| descriptor.annotations().as_ref()?.get(name).cloned();
    let media_type = descriptor.media_type().to_string();
    let mut looked = Look {
        findings: Findings::default(),
        here: Place::layer(index, Some(digest)),
        stated: LayerType::of(&media_type),
        annotation: &annotation,
        is_deep,
        tables,
        key: (digest, descriptor.size()),
    };
    let mut view = LayerView {
        digest,
        size: descriptor.size(),
        media_type,
        kind: annotation(&format!("{}layer.kind", crate::oci::STARCAR_PREFIX)),
        format: Format::Unknown,
        nodes: None,
        passwd: None,
        members: 0,
        is_for_storage: annotations().any(|(name, _)| name.starts_with(STORAGE_PREFIX)),
        tar_split: None,
        blob: None,
    };
    let blob = match source.blob(digest, descriptor.size()) {
        Ok(blob) => Arc::new(Counted { blob, traffic: Arc::clone(traffic) }),
        Err(error @ OciError::MissingBlob { .. }) => {
            looked.add(&rules::LAYER_MISSING, error.to_string());
            return Ok((view, looked.findings));
        }
        Err(error @ OciError::DamagedBlob { .. }) => {
            looked.add(&rules::LAYER_SIZE, error.to_string());
            return Ok((view, looked.findings));
        }
        Err(error) => return Err(error),
    };
    if let Err(cause) = looked.fill(&mut view, &*blob) {
        let Some(rule) = fault(&cause) else { return Err(OciError::ReadBlob { place, digest, cause }) };
        looked.add(rule, format!("the layer cannot be read: {cause}"));
        return Ok((view, looked.findings));
    }
    view.blob = Some(blob);
    Ok((view, looked.findings))
}

/// A table of contents that was opened, and what is wrong with it alone. All layers of the same blob share it.
#[derive(Clone)]
pub(super) struct Table {
    reader: Arc<EstargzReader>,
    nodes: Arc<Vec<Node>>,
    findings: Findings,
}

impl Table {
    fn of(reader: EstargzReader, layer: &Place) -> Self {
        let toc = TocView {
            entries: &reader.toc.entries,
            toc_offset: reader.toc_offset,
            kind: reader.kind,
            legacy: reader.is_legacy,
        };
        let mut findings = Findings::default();
        toc::check(toc, layer, &mut findings);
        Self { nodes: Arc::new(nodes(&reader.toc.entries)), reader: Arc::new(reader), findings }
    }
}

/// A layer while it is looked at.
struct Look<'a> {
    findings: Findings,
    here: Place,
    stated: Option<LayerType>,
    /// The descriptor's annotations, by name.
    annotation: &'a dyn Fn(&str) -> Option<String>,
    /// Whether all of the layer is read later, and its files listed then.
    is_deep: bool,
    /// What was opened before.
    tables: &'a Tables,
    /// Digest and size of the blob.
    key: (Digest, u64),
}

impl Look<'_> {
    fn add(&mut self, rule: &'static Rule, message: impl Into<String>) {
        self.findings.add(rule, self.here.clone(), message);
    }

    /// Finds out what the layer is and what files it has.
    fn fill(&mut self, view: &mut LayerView, blob: &dyn RangeSource) -> io::Result<()> {
        (view.format, view.nodes) = self.open(blob)?;
        if let Some(reader) = view.format.reader() {
            let split = self.tar_split(reader, view.is_for_storage, blob)?;
            view.tar_split = split.filter(|_| self.is_deep).map(Arc::new);
        }
        match &view.format {
            Format::Plain(compression) | Format::Broken(compression) if !self.is_deep => {
                let listed = plain::list(blob, *compression, &self.here, &mut self.findings)?;
                // What is too large can be listed by whoever reads all of it.
                if let Some(Listed { lister, members }) = listed {
                    let is_held = self.tables.take(lister.nodes.len());
                    view.nodes = is_held.then(|| Arc::new(lister.nodes));
                    view.passwd = lister.passwd;
                    view.members = members;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Footer, table of contents, or the first bytes where there are none.
    fn open(&mut self, blob: &dyn RangeSource) -> io::Result<(Format, Option<Arc<Vec<Node>>>)> {
        // Whoever looks at the same blob meanwhile waits, and has what is found here.
        let slot = self.tables.slot(self.key);
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let table = match &*slot {
            Some(table) => table.clone(),
            None => match EstargzReader::open(blob, None) {
                Err(ReadError::Read { cause, .. }) => return Err(cause),
                Err(ReadError::NotEstargz) => return Ok((self.plain(blob)?, None)),
                Err(error) => {
                    self.broken(&error);
                    return Ok((Format::Broken(self.head(blob)?), None));
                }
                Ok(reader) if !self.tables.take(reader.toc.entries.len()) => {
                    let message = format!("with those of other layers it has more than {HELD_MAX} entries");
                    self.add(&rules::TOC_UNREADABLE, message);
                    return Ok((Format::Broken(self.head(blob)?), None));
                }
                Ok(reader) => slot.insert(Table::of(reader, &self.here)).clone(),
            },
        };
        drop(slot);
        let reader = table.reader;
        self.compression(reader.kind.into());
        if reader.trailing > 0 {
            let message = format!("{} bytes follow the JSON", reader.trailing);
            self.add(&rules::TOC_TRAILING, message);
        }
        if reader.is_legacy {
            self.add(
                &rules::FOOTER_LEGACY,
                "the layer ends in the footer of stargz, which came before eStargz",
            );
        }
        if let Some(table) = &reader.table {
            zstd_chunked::check(table, self.annotation, &self.here, &mut self.findings);
        }
        self.findings.append(table.findings.in_layer(self.here.layer.unwrap_or(1).saturating_sub(1)));
        self.unpacked_size(&reader.toc.entries);
        let format = if self.annotation(&reader) { Format::Lazy(reader) } else { Format::Unnamed(reader) };
        Ok((format, Some(table.nodes)))
    }

    /// Checks the tar-split where the descriptor is for containers-storage; its compressed bytes, for who reads all.
    fn tar_split(
        &mut self,
        reader: &EstargzReader,
        is_for_storage: bool,
        blob: &dyn RangeSource,
    ) -> io::Result<Option<Vec<u8>>> {
        let Some(table) = &reader.table else { return Ok(None) };
        let annotation = self.annotation;
        let view = SplitView { toc: &reader.toc, table, blob, annotation, layer: &self.here };
        if is_for_storage {
            return view.check(&mut self.findings);
        }
        if self.is_deep { view.find() } else { Ok(None) }
    }

    /// Whether the descriptor names this table of contents.
    fn annotation(&mut self, reader: &EstargzReader) -> bool {
        match (self.annotation)(TOC_DIGEST_ANNOTATION).map(|text| (text.parse::<Digest>(), text)) {
            None => {
                let name = match reader.kind {
                    MemberKind::Gzip => "eStargz",
                    MemberKind::Zstd => ZSTD_CHUNKED,
                };
                let message = format!("the layer is {name}, its descriptor does not say so");
                self.add(&rules::TOC_ANNOTATION_MISSING, message);
                false
            }
            Some((Err(_), text)) => {
                self.add(&rules::TOC_ANNOTATION_MALFORMED, format!("the annotation is {text:?}"));
                false
            }
            Some((Ok(expected), _)) if expected != reader.toc_digest => {
                let message = format!("it has digest {}, the descriptor says {expected}", reader.toc_digest);
                self.add(&rules::TOC_DIGEST, message);
                false
            }
            Some(_) => true,
        }
    }

    fn unpacked_size(&mut self, entries: &[TocEntry]) {
        let Some(text) = (self.annotation)(UNCOMPRESSED_SIZE_ANNOTATION) else {
            self.add(
                &rules::SIZE_ANNOTATION_MISSING,
                "the descriptor does not state the layer's unpacked size",
            );
            return;
        };
        // Each file has a header of 512 bytes in front of it.
        let least: u64 = entries
            .iter()
            .filter(|entry| entry.entry_type != "chunk")
            .fold(0, |sum: u64, entry| sum.saturating_add(entry.size).saturating_add(512));
        match text.parse::<u64>() {
            Err(_) => self.add(&rules::SIZE_ANNOTATION_MALFORMED, format!("the annotation is {text:?}")),
            Ok(size) if size < least => {
                let message = format!("the annotation says {size} bytes, the files alone take {least}");
                self.add(&rules::SIZE_ANNOTATION_MALFORMED, message);
            }
            Ok(_) => {}
        }
    }

    fn broken(&mut self, error: &ReadError) {
        let rule = match error {
            ReadError::ExternalToc => &rules::TOC_EXTERNAL,
            ReadError::TocOutside { .. } => &rules::FOOTER_OFFSET,
            ReadError::TocName { .. } => &rules::TOC_NAME,
            ReadError::TocVersion { .. } => &rules::TOC_VERSION,
            _ => &rules::TOC_UNREADABLE,
        };
        self.add(rule, error.to_string());
    }

    /// A layer without a footer.
    fn plain(&mut self, blob: &dyn RangeSource) -> io::Result<Format> {
        let compression = self.head(blob)?;
        if (self.annotation)(TOC_DIGEST_ANNOTATION).is_none() {
            return Ok(Format::Plain(compression));
        }
        let name = if compression == Compression::Zstd { "a zstd:chunked" } else { "an eStargz" };
        let message = format!("the layer does not end in {name} footer, its descriptor names a TOC");
        self.add(&rules::FOOTER_MISSING, message);
        Ok(Format::Broken(compression))
    }

    /// How the layer is compressed, by its first bytes.
    fn head(&mut self, blob: &dyn RangeSource) -> io::Result<Compression> {
        let size = blob.size().min(HEAD);
        let head = blob.read_range(0, usize::try_from(size).map_err(io::Error::other)?)?;
        let compression = Compression::of(&head);
        self.compression(compression);
        Ok(compression)
    }

    fn compression(&mut self, found: Compression) {
        if let Some(stated) = self.stated.filter(|stated| stated.compression != found) {
            let message =
                format!("it is {}, its media type says {}", found.name(), stated.compression.name());
            // Of Docker's name for tar containerd looks at the first bytes.
            let as_tar = stated.compression == Compression::None && !stated.is_docker;
            self.add(if as_tar { &rules::LAYER_NOT_TAR } else { &rules::LAYER_COMPRESSION }, message);
        }
    }
}

/// The files that a table of contents lists.
fn nodes(entries: &[TocEntry]) -> Vec<Node> {
    entries
        .iter()
        .filter(|entry| entry.entry_type != "chunk")
        .map(|entry| Node {
            path: clean(&entry.name),
            kind: match entry.entry_type.as_str() {
                "dir" => NodeKind::Directory,
                "reg" => NodeKind::Regular { size: entry.size },
                "symlink" => NodeKind::Symlink { target: entry.link_name.clone() },
                "hardlink" => NodeKind::Hardlink { target: clean(&entry.link_name) },
                _ => NodeKind::Special,
            },
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
        })
        .collect()
}

/// Names of layers' formats and how often each occurs, as in `4 estargz, 1 tar+gzip`.
pub(super) fn formats(layers: &[LayerView]) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for layer in layers {
        let place = *places.entry(layer.format.name()).or_insert(counts.len());
        match counts.get_mut(place) {
            Some((_, count)) => *count += 1,
            None => counts.push((layer.format.name(), 1)),
        }
    }
    counts.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
}
