//! Hashing parts of a stream on a thread of its own: chunks, or files, each against what should come out. Must not know
//! where the bytes come from.

use std::{
    ops::Range,
    sync::{Arc, mpsc::Receiver},
};

use sha2::{Digest as _, Sha256};

use super::{ReadFile, pieces::Piece};
use crate::{
    digest::Digest,
    verify::{
        finding::{Findings, Place},
        rules,
    },
};

/// What a thread that hashes parts is given.
pub(super) enum Item {
    /// The next bytes of the current part.
    Bytes(Arc<Piece>, Range<usize>),
    /// A part begins. With a size, Git's digest of it is wanted too.
    Begin { git_size: Option<u64> },
    /// The part has ended.
    End(Box<Part>),
}

/// What is to be done with the digest of a part.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// The file's path.
    pub(super) path: String,
    /// Where the part begins in the file, in bytes.
    pub(super) offset: u64,
    /// What the table of contents says of the chunk.
    pub(super) chunk: Option<Digest>,
    /// What it says of the whole file, where the part is that.
    pub(super) whole: Option<Digest>,
    /// The file's size, where the part is all of it and somebody wants to hear of it.
    pub(super) report: Option<u64>,
}

/// What such a thread found out.
#[derive(Default)]
pub(super) struct Hashed {
    pub(super) findings: Findings,
    pub(super) files: Vec<ReadFile>,
}

/// Hashes what `items` hold.
pub(super) fn run(items: &Receiver<Item>, layer: &Place) -> Hashed {
    let mut hashed = Hashed::default();
    let mut sha256 = Sha256::new();
    let mut sha1: Option<sha1::Sha1> = None;
    for item in items {
        match item {
            Item::Bytes(piece, range) => {
                sha256.update(piece.part(&range));
                if let Some(sha1) = &mut sha1 {
                    sha1.update(piece.part(&range));
                }
            }
            Item::Begin { git_size } => {
                sha1 = git_size.map(|size| sha1::Sha1::new_with_prefix(format!("blob {size}\0")));
            }
            Item::End(part) => {
                let digest = Digest::finish(std::mem::take(&mut sha256));
                let git_sha1 = sha1.take().map(|sha1| <[u8; 20]>::from(sha1.finalize()));
                hashed.end(*part, digest, git_sha1, layer);
            }
        }
    }
    hashed
}

impl Hashed {
    fn end(&mut self, part: Part, digest: Digest, git_sha1: Option<[u8; 20]>, layer: &Place) {
        let says =
            |expected: Digest| format!("it has digest {digest}, the table of contents says {expected}");
        let place = || layer.clone().file(&part.path);
        if let Some(expected) = part.chunk.filter(|expected| *expected != digest) {
            self.findings.add(&rules::CHUNK_DIGEST_DIFFERS, place().at(part.offset), says(expected));
        }
        if let Some(expected) = part.whole.filter(|expected| *expected != digest) {
            self.findings.add(&rules::FILE_DIGEST_DIFFERS, place(), says(expected));
        }
        if let Some(size) = part.report {
            self.files.push(ReadFile { path: part.path, size, sha256: digest, git_sha1 });
        }
    }
}
