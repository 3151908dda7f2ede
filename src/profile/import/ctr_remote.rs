//! Records of ctr-remote: JSON objects one after another, a file each, in the order of first accesses. There are
//! no times and no byte ranges in them.

use std::{
    collections::HashSet,
    io::{self, BufRead},
};

use serde::Deserialize;

use super::{
    Imported, counted,
    roots::{Elsewhere, Roots, normal},
};
use crate::profile::{
    ACCESSES_MAX, Access, AccessKind, Profile, ProfileError, Recording, Seconds, Source, Target, Unknown,
};

/// Longest object; a path has at most 4096 bytes.
const OBJECT_MAX: usize = 64 << 10;
/// Bytes of all paths together.
const PATHS_MAX: usize = 32 << 20;
/// Time between two files. It is not real: it keeps the order where times decide, and is said to be invented.
const STEP: u64 = 1000;

#[derive(Deserialize)]
struct Entry {
    path: String,
}

pub(super) fn import(
    name: &str,
    stream: impl BufRead,
    roots: &Roots,
    recording: &Recording,
) -> Result<Imported, ProfileError> {
    let refuse = |reason: String| ProfileError::Import { name: name.to_owned(), reason, hint: None };
    let mut objects = Objects { stream, object: Vec::new(), count: 0 };
    let (mut accesses, mut seen) = (Vec::new(), HashSet::new());
    let (mut outside, mut text) = (0, 0);
    let mut elsewhere = Elsewhere::default();
    loop {
        let object = match objects.next() {
            Ok(Some(object)) => object,
            Ok(None) => break,
            Err(ObjectError::Read(cause)) => return Err(ProfileError::File { path: name.into(), cause }),
            Err(ObjectError::Form(reason)) => {
                return Err(refuse(format!("its entry {}: {reason}", objects.count + 1)));
            }
        };
        let entry: Entry = serde_json::from_slice(object)
            .map_err(|error| refuse(format!("its entry {}: {error}", objects.count)))?;
        let path = normal(&entry.path);
        let Some((tree, path)) = roots.find(&path) else {
            outside += 1;
            elsewhere.note(&path);
            continue;
        };
        let key = (tree.clone(), path.to_owned());
        if seen.contains(&key) {
            continue;
        }
        text += path.len();
        if seen.len() == ACCESSES_MAX || text > PATHS_MAX {
            return Err(ProfileError::TooLarge {
                name: name.to_owned(),
                reason: format!("it names more than {ACCESSES_MAX} files, or {PATHS_MAX} bytes of paths"),
            });
        }
        accesses.push(Access {
            at: Seconds::from_micros(accesses.len() as u64 * STEP),
            until: None,
            kind: AccessKind::Read,
            tree: tree.clone(),
            target: Target::Path(path.to_owned()),
            ranges: Vec::new(),
            comment: None,
            unknown: Unknown::new(),
        });
        seen.insert(key);
    }
    if accesses.is_empty() {
        return Err(super::strace::nothing_found(name, roots, &elsewhere));
    }
    let mut notes = Vec::new();
    if outside > 0 {
        notes.push(format!("{} outside {} left out", counted(outside, "file"), roots.names()));
    }
    let evidence = "a record of ctr-remote: the order is real, times are 1 ms a file, and what was read of a file \
                    is not known";
    Ok(Imported {
        profile: Profile {
            evidence: vec![evidence.to_owned()],
            recordings: vec![Recording { source: Some(Source::CtrRemote), ..recording.clone() }],
            accesses,
            ..Profile::default()
        },
        notes,
    })
}

/// Cuts a stream into JSON objects.
struct Objects<R> {
    stream: R,
    object: Vec<u8>,
    count: u64,
}

enum ObjectError {
    Read(io::Error),
    Form(String),
}

impl<R: BufRead> Objects<R> {
    /// The next object; `None` at the end of the stream.
    fn next(&mut self) -> Result<Option<&[u8]>, ObjectError> {
        self.object.clear();
        let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
        loop {
            let buffer = match self.stream.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ObjectError::Read(error)),
            };
            if buffer.is_empty() {
                return match depth {
                    0 => Ok(None),
                    _ => Err(ObjectError::Form("it is cut off".to_owned())),
                };
            }
            let mut used = 0;
            for &byte in buffer {
                used += 1;
                if depth == 0 && byte.is_ascii_whitespace() {
                    continue;
                }
                if depth == 0 && byte != b'{' {
                    return Err(ObjectError::Form("it is no JSON object".to_owned()));
                }
                if self.object.len() == OBJECT_MAX {
                    return Err(ObjectError::Form(format!("it has more than {OBJECT_MAX} bytes")));
                }
                self.object.push(byte);
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' if quoted => escaped = true,
                    b'"' => quoted = !quoted,
                    b'{' if !quoted => depth += 1,
                    b'}' if !quoted => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    self.stream.consume(used);
                    self.count += 1;
                    return Ok(Some(&self.object));
                }
            }
            self.stream.consume(used);
        }
    }
}
