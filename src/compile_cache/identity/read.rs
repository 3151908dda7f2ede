//! Reads the files of a cache as far as their budget goes, and hands what stands in them to those who know it. Must
//! not know what a value means.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
};

use super::{
    Attribute, Evidence, budget,
    excerpt::{EXCERPT_MAX, excerpt},
    key_factors,
    patterns::{self, PATTERNS, Sight},
    pickle::{self, Fields},
    scan::{Hit, Scanner},
    settle::Sightings,
    system_info,
};
use crate::{
    blob::FileStamp,
    compile_cache::{CacheError, CacheFile, Kind},
};

/// Bytes of a file's head that are read at once. Most files of a cache have no more, and there can be 200,000.
const HEAD: u64 = 64 << 10;
/// Bytes behind the name of a class in which the fields of its object must come.
const FIELDS: u64 = 4 << 10;
/// Most objects of a file that are looked at.
const OBJECTS_MAX: usize = 16;

/// Whether a file can tell anything. FlashInfer's libraries hold code for more architectures than they were made for
/// here, and its sources name devices in examples; the names of its directories tell.
pub(super) fn worth_reading(kind: Kind, file: &CacheFile) -> bool {
    let flashinfer = kind == Kind::FlashInfer || file.path.contains("/cached_ops/");
    file.stamp.size > 0 && (!flashinfer || file.path.ends_with("/build.ninja"))
}

/// Reads files, one after another.
pub(super) struct Reader {
    allowance: u64,
    scanner: Scanner,
}

impl Reader {
    /// A reader that reads at most `allowance` bytes of each file.
    pub(super) fn new(allowance: u64) -> Self {
        Self { allowance, scanner: Scanner::new(PATTERNS.iter().map(|pattern| pattern.text)) }
    }

    /// Notes what a file tells.
    pub(super) fn look(&mut self, file: &CacheFile, sightings: &mut Sightings) -> Result<(), CacheError> {
        let failed = |cause| CacheError::Read { path: file.source.clone(), cause };
        let mut opened = File::open(&file.source).map_err(failed)?;
        self.contents(&mut opened, file, sightings).map_err(failed)?;
        let stamp = FileStamp::of(&opened.metadata().map_err(failed)?);
        if stamp.is_unchanged_since(&file.stamp) {
            Ok(())
        } else {
            Err(CacheError::Changed { path: file.source.clone() })
        }
    }

    fn contents(&mut self, opened: &mut File, file: &CacheFile, sightings: &mut Sightings) -> io::Result<()> {
        let head = piece(opened, HEAD.min(file.stamp.size))?;
        if let Some(processor) = processor(&head) {
            let found = format!("an ELF library for {processor}");
            let evidence = Evidence { path: file.path.clone(), found, offset: Some(0) };
            sightings.add(Attribute::Processor, processor, evidence);
        }
        let name = file.path.rsplit('/').next().unwrap_or_default();
        if name == key_factors::NAME && file.stamp.size <= key_factors::SIZE_MAX {
            let mut text = head.clone();
            Read::by_ref(opened).take(key_factors::SIZE_MAX).read_to_end(&mut text)?;
            key_factors::note(&text, &file.path, sightings);
        }
        let mut objects = Vec::new();
        for (start, end) in budget::parts(file.stamp.size, self.allowance) {
            let note = |hit: &Hit<'_>| note(hit, &file.path, sightings, &mut objects);
            let from_head = head.get(usize::try_from(start).unwrap_or(usize::MAX)..).unwrap_or_default();
            let rest = start + from_head.len() as u64;
            if rest < end {
                opened.seek(SeekFrom::Start(rest))?;
            }
            let rest = Read::by_ref(opened).take(end.saturating_sub(rest));
            self.scanner.scan(from_head.take(end - start).chain(rest), start, note)?;
        }
        if !objects.is_empty() {
            self.system_info(opened, file, &head, &objects, sightings)?;
        }
        Ok(())
    }

    /// Walks the pickle that the file is, or the pickles in it from where they name the class.
    fn system_info(
        &self,
        opened: &mut File,
        file: &CacheFile,
        head: &[u8],
        objects: &[u64],
        sightings: &mut Sightings,
    ) -> io::Result<()> {
        let start =
            if head.starts_with(system_info::MAGIC) { system_info::MAGIC.len() as u64 + 1 } else { 0 };
        // PROTO, with the protocols that know classes by texts on the stack.
        let is_pickle = head
            .get(usize::try_from(start).unwrap_or_default()..)
            .is_some_and(|head| matches!(head, [0x80, 4 | 5, ..]));
        if is_pickle {
            let fields = pickle::walk(stream(opened, start, self.allowance)?)?;
            if fields != Fields::default() {
                system_info::note(&fields, &file.path, start, sightings);
                return Ok(());
            }
        }
        for &object in objects {
            let fields = pickle::walk_from_the_middle(stream(opened, object, FIELDS)?)?;
            system_info::note(&fields, &file.path, object, sightings);
        }
        Ok(())
    }
}

/// Notes what a text says, and where it leads to a `SystemInfo`.
fn note(hit: &Hit<'_>, path: &str, sightings: &mut Sightings, objects: &mut Vec<u64>) {
    let Some((sights, used)) = patterns::read(hit.text, hit.behind) else { return };
    let mut found = hit.text.to_vec();
    found.extend_from_slice(&hit.behind[..used.min(EXCERPT_MAX)]);
    let evidence = || Evidence { path: path.to_owned(), found: excerpt(&found), offset: Some(hit.offset) };
    for sight in sights {
        match sight {
            Sight::Value(attribute, value) => sightings.add(attribute, value, evidence()),
            Sight::ProcessorCode => sightings.add_processor_code(evidence()),
            Sight::OtherDevice => sightings.other_device = true,
            Sight::SystemInfo if objects.len() < OBJECTS_MAX => objects.push(hit.offset),
            Sight::SystemInfo => {}
        }
    }
}

/// The processor that a shared library is for.
fn processor(head: &[u8]) -> Option<&'static str> {
    // 64 bits, little-endian, version 1; then ET_DYN and the machine: EM_X86_64 or EM_AARCH64.
    match (head.get(..7)?, head.get(16..20)?) {
        (b"\x7fELF\x02\x01\x01", [3, 0, 62, 0]) => Some("x86_64"),
        (b"\x7fELF\x02\x01\x01", [3, 0, 183, 0]) => Some("aarch64"),
        _ => None,
    }
}

/// The next bytes of a file, as many as there are.
fn piece(opened: &mut File, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    Read::by_ref(opened).take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn stream(opened: &mut File, start: u64, length: u64) -> io::Result<impl BufRead> {
    opened.seek(SeekFrom::Start(start))?;
    Ok(BufReader::with_capacity(64 << 10, Read::by_ref(opened).take(length)))
}
