//! The tar-split of a layer for containers-storage: its place, its digest, and whether it lists the files that the table of
//! contents lists. Must not know the layer's tar stream, which `deep` compares with what the tar-split makes.
//!
//! Source: `go.podman.io/storage`, `pkg/chunked`, for what podman and CRI-O ask of it.

use std::{collections::HashMap, io};

use super::{
    finding::{Findings, Place, Rule},
    rules,
};
use crate::{
    blob::RangeSource,
    digest::Digest,
    estargz::toc::Toc,
    zstd_chunked::{
        Part, SKIPPABLE_HEADER, SplitReader, TAR_SPLIT_CHECKSUM_ANNOTATION, TAR_SPLIT_POSITION_ANNOTATION,
        Table, footer::Span, frame_content,
    },
};

/// Most compressed bytes that are read.
const COMPRESSED_MAX: u64 = 32 << 20;

/// A layer that has a tar-split, or should have one.
pub(super) struct SplitView<'a> {
    pub(super) toc: &'a Toc,
    pub(super) table: &'a Table,
    pub(super) blob: &'a dyn RangeSource,
    /// The descriptor's annotations, by name.
    pub(super) annotation: &'a dyn Fn(&str) -> Option<String>,
    pub(super) layer: &'a Place,
}

impl SplitView<'_> {
    /// Checks the tar-split of a layer whose descriptor is for containers-storage, and gives its compressed bytes where
    /// they are those of the table of contents.
    ///
    /// # Errors
    /// When the layer cannot be read.
    pub(super) fn check(&self, findings: &mut Findings) -> io::Result<Option<Vec<u8>>> {
        let mut add = |rule: &'static Rule, message: String| findings.add(rule, self.layer.clone(), message);
        let Some(text) = (self.annotation)(TAR_SPLIT_POSITION_ANNOTATION) else {
            add(&rules::TAR_SPLIT_MISSING, format!("there is no {TAR_SPLIT_POSITION_ANNOTATION}"));
            return Ok(None);
        };
        let Some(span) = Span::parse(&text) else {
            add(
                &rules::TAR_SPLIT_PLACE,
                format!("{TAR_SPLIT_POSITION_ANNOTATION} is {text:?}, no three numbers"),
            );
            return Ok(None);
        };
        if !self.is_inside(span.offset, span.compressed) {
            let message = format!("{text} does not lie between the table of contents and the footer");
            add(&rules::TAR_SPLIT_PLACE, message);
            return Ok(None);
        }
        if self.table.footer.tar_split.is_some_and(|other| other != span) {
            add(&rules::TAR_SPLIT_PLACE, format!("the annotation says {text}, the footer another place"));
        }
        if span.compressed > COMPRESSED_MAX {
            let message = format!("it takes {} bytes, more than {COMPRESSED_MAX}", span.compressed);
            add(&rules::TAR_SPLIT_DAMAGED, message);
            return Ok(None);
        }
        let Some(compressed) = self.read(span.offset, Some(span.compressed))? else {
            let message =
                format!("there is no skippable frame of {} bytes at {}", span.compressed, span.offset);
            add(&rules::TAR_SPLIT_PLACE, message);
            return Ok(None);
        };
        let digest = Digest::of(&compressed).to_string();
        let mut is_right = true;
        if self.toc.tar_split_digest.is_empty() {
            add(&rules::TAR_SPLIT_MISSING, "the table of contents does not give its digest".to_owned());
        } else if self.toc.tar_split_digest != digest {
            let stated = self.toc.tar_split_digest.escape_debug();
            let message = format!("it has digest {digest}, the table of contents says {stated}");
            add(&rules::TAR_SPLIT_DIGEST, message);
            is_right = false;
        }
        let checksum = (self.annotation)(TAR_SPLIT_CHECKSUM_ANNOTATION);
        if let Some(stated) = checksum.filter(|stated| *stated != digest) {
            let message = format!("it has digest {digest}, {TAR_SPLIT_CHECKSUM_ANNOTATION} is {stated:?}");
            add(&rules::TAR_SPLIT_DIGEST, message);
        }
        if !is_right {
            return Ok(None);
        }
        match self.files(&compressed, findings) {
            Ok(length) if length == span.uncompressed => {}
            Ok(length) => {
                let message = format!("it has {length} bytes, the annotation says {}", span.uncompressed);
                findings.add(&rules::TAR_SPLIT_DAMAGED, self.layer.clone(), message);
            }
            Err(reason) => {
                findings.add(&rules::TAR_SPLIT_DAMAGED, self.layer.clone(), reason);
                return Ok(None);
            }
        }
        Ok(Some(compressed))
    }

    /// The compressed bytes of the tar-split that the table of contents speaks of, where it lies behind that. Descriptors
    /// for stargz-snapshotter do not name it; so a layer with descriptors for both is read once.
    ///
    /// # Errors
    /// When the layer cannot be read.
    pub(super) fn find(&self) -> io::Result<Option<Vec<u8>>> {
        let offset = self.toc_end().saturating_add(SKIPPABLE_HEADER as u64);
        if self.toc.tar_split_digest.is_empty() || !self.is_inside(offset, 1) {
            return Ok(None);
        }
        let found = self.read(offset, None)?;
        Ok(found.filter(|compressed| Digest::of(compressed).to_string() == self.toc.tar_split_digest))
    }

    /// Where the frame of the table of contents ends.
    fn toc_end(&self) -> u64 {
        let length = self.table.footer.compressed.max(self.table.frame_content.unwrap_or_default());
        self.table.footer.toc_offset.saturating_add(length)
    }

    /// Whether a frame with so many bytes of content that begin at `offset` lies behind the table of contents.
    fn is_inside(&self, offset: u64, length: u64) -> bool {
        let begin = offset.checked_sub(SKIPPABLE_HEADER as u64);
        let end = offset.checked_add(length).filter(|_| length > 0);
        begin.is_some_and(|begin| begin >= self.toc_end())
            && end.is_some_and(|end| end <= self.table.footer_offset)
    }

    /// The content that begins at `offset` of a skippable frame; `None` where there is none, or none of `length`.
    fn read(&self, offset: u64, length: Option<u64>) -> io::Result<Option<Vec<u8>>> {
        let Some(begin) = offset.checked_sub(SKIPPABLE_HEADER as u64) else { return Ok(None) };
        let wanted = length.unwrap_or_default().saturating_add(SKIPPABLE_HEADER as u64);
        let mut bytes = self.blob.read_range(begin, usize::try_from(wanted).map_err(io::Error::other)?)?;
        let Some(content) = frame_content(&bytes) else { return Ok(None) };
        if length.is_some() {
            let content = (length == Some(content)).then(|| bytes.split_off(SKIPPABLE_HEADER));
            return Ok(content);
        }
        if content > COMPRESSED_MAX || !self.is_inside(offset, content) {
            return Ok(None);
        }
        let content = usize::try_from(content).map_err(io::Error::other)?;
        self.blob.read_range(offset, content).map(Some)
    }

    /// Compares names and sizes with those of the table of contents, letter by letter. Gives the length of the tar-split.
    fn files(&self, compressed: &[u8], findings: &mut Findings) -> Result<u64, String> {
        let entries = self.toc.entries.iter().filter(|entry| entry.entry_type != "chunk");
        let mut listed: HashMap<&str, u64> = entries.map(|entry| (entry.name.as_str(), entry.size)).collect();
        let mut add = |name: &str, message: String| {
            findings.add(&rules::TAR_SPLIT_FILES, self.layer.clone().file(name), message);
        };
        let mut reader = SplitReader::new(compressed)?;
        while let Some(part) = reader.next()? {
            let Part::Entry { name, size, .. } = part else { continue };
            match listed.remove(name.as_str()) {
                None => add(&name, "the tar-split has it, the table of contents does not list it".to_owned()),
                Some(other) if other != size => {
                    add(
                        &name,
                        format!("it has {size} bytes in the tar-split, {other} in the table of contents"),
                    );
                }
                Some(_) => {}
            }
        }
        let mut missing: Vec<&str> = listed.into_keys().collect();
        missing.sort_unstable();
        for name in missing {
            add(name, "the tar-split does not have it".to_owned());
        }
        Ok(reader.length())
    }
}
