//! A profile as JSON: read within bounds, written so that a diff can be read. The format is described in
//! `docs/profile-format.md`.

use std::{collections::BTreeMap, fmt::Write as _, fs::File, io::Read, path::Path};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{
    Access, AccessKind, ByteRange, Profile, ProfileError, Recording, Target, Tree, Unknown, UnknownValue,
    json::{Items, Members},
};

/// The version of the format that is read and written.
pub const VERSION: u64 = 1;
/// Length in bytes of the largest profile that is read.
pub const BYTES_MAX: usize = 64 << 20;
/// Number of accesses of the largest profile that is read.
pub const ACCESSES_MAX: usize = 500_000;
/// Length in bytes of the accesses that recordings, imports and merges make; the rest is for what they say of
/// themselves.
pub(super) const ACCESSES_TEXT_MAX: usize = BYTES_MAX - (6 << 20);
/// Number of byte ranges of all accesses together.
pub(super) const RANGES_MAX: usize = 1_000_000;
/// Number of accesses with a pattern: each is matched with every file.
const GLOBS_MAX: usize = 1000;
/// Length in bytes of one access.
const ACCESS_BYTES_MAX: usize = 1 << 20;
/// Number of recordings, and of lines of evidence.
pub(super) const RECORDINGS_MAX: usize = 256;
/// Length in bytes of one recording.
const RECORDING_BYTES_MAX: usize = 16 << 10;
/// Length of a path or a glob in bytes; Linux takes no longer paths.
const PATH_MAX: usize = 4096;

impl Profile {
    /// Reads the profile in a file.
    ///
    /// # Errors
    /// [`ProfileError`]: unreadable, no profile, another version, or larger than [`BYTES_MAX`] or [`ACCESSES_MAX`].
    pub fn open(path: &Path) -> Result<Self, ProfileError> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|cause| ProfileError::File { path: path.into(), cause })?;
        let mut text = Vec::new();
        // One byte more than is allowed tells a file that is too large, whatever its metadata says.
        file.take(BYTES_MAX as u64 + 1)
            .read_to_end(&mut text)
            .map_err(|cause| ProfileError::File { path: path.into(), cause })?;
        Self::parse(&name, &text)
    }

    /// Parses a profile; `name` is what errors call it.
    ///
    /// # Errors
    /// See [`Profile::open`].
    pub fn parse(name: &str, text: &[u8]) -> Result<Self, ProfileError> {
        if text.len() > BYTES_MAX {
            return Err(too_large(name, format!("it has more than {BYTES_MAX} bytes")));
        }
        let invalid = |reason: String| ProfileError::Format { name: name.to_owned(), reason };
        let text = std::str::from_utf8(text).map_err(|_| invalid("it is not UTF-8".to_owned()))?;
        let mut members = match serde_json::from_str::<Members<'_>>(text) {
            Ok(members) => members.0,
            Err(error) if text.trim_start().starts_with('{') && text.contains("\"manifestDigest\"") => {
                return Err(invalid(format!(
                    "it looks like a record of ctr-remote, which `starcar profile import` takes ({error})"
                )));
            }
            Err(error) => return Err(invalid(error.to_string())),
        };
        check_version(name, members.remove("version"))?;

        let comment = member(&mut members, "comment").map_err(invalid)?;
        let evidence =
            items(&mut members, "evidence", RECORDINGS_MAX, RECORDING_BYTES_MAX).map_err(invalid)?;
        let recordings: Vec<Recording> =
            items(&mut members, "recordings", RECORDINGS_MAX, RECORDING_BYTES_MAX).map_err(invalid)?;
        let accesses =
            members.remove("accesses").ok_or_else(|| invalid("it has no `accesses`".to_owned()))?;
        let accesses = parse_accesses(name, text, accesses)?;
        let mut profile = Self { comment, evidence, recordings, accesses, unknown: unknown(members) };
        // Stable: accesses of one time stay as they are written.
        profile.accesses.sort_by_key(|access| access.at);
        Ok(profile)
    }

    /// The profile as JSON: members in a fixed order, one access on each line.
    pub fn to_json(&self) -> String {
        let mut text = format!("{{\n  \"version\": {VERSION}");
        if let Some(comment) = &self.comment {
            let _ = write!(text, ",\n  \"comment\": {}", json(comment));
        }
        if !self.evidence.is_empty() {
            let _ = write!(text, ",\n  \"evidence\": {}", lines(self.evidence.iter().map(json)));
        }
        for (name, value) in &self.unknown {
            let _ = write!(text, ",\n  {}: {}", json(name), value.0.get());
        }
        let _ = write!(text, ",\n  \"recordings\": {}", lines(self.recordings.iter().map(json)));
        let _ = write!(text, ",\n  \"accesses\": {}\n}}\n", lines(self.accesses.iter().map(access_json)));
        text
    }
}

fn too_large(name: &str, reason: String) -> ProfileError {
    ProfileError::TooLarge { name: name.to_owned(), reason }
}

fn check_version(name: &str, version: Option<&RawValue>) -> Result<(), ProfileError> {
    match version {
        Some(version) if version.get() == VERSION.to_string() => Ok(()),
        Some(version) => Err(ProfileError::Version {
            name: name.to_owned(),
            // A broken file may have anything there.
            version: version.get().chars().take(40).collect(),
        }),
        None => Err(ProfileError::Format { name: name.to_owned(), reason: "it has no `version`".to_owned() }),
    }
}

/// Takes a member out of `members` and parses it; `Err` has the reason.
fn member<T: DeserializeOwned>(
    members: &mut BTreeMap<String, &RawValue>,
    name: &str,
) -> Result<Option<T>, String> {
    match members.remove(name) {
        None => Ok(None),
        Some(raw) => match serde_json::from_str(raw.get()) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(format!("`{name}`: {}", without_position(&error))),
        },
    }
}

/// The message of an error whose line and column mean nothing, because a part of the file was parsed.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

fn items<T: DeserializeOwned>(
    members: &mut BTreeMap<String, &RawValue>,
    name: &str,
    count: usize,
    bytes: usize,
) -> Result<Vec<T>, String> {
    let Some(raw) = members.remove(name) else { return Ok(Vec::new()) };
    let items = Items::parse(raw.get(), count).map_err(|reason| format!("`{name}`: {reason}"))?;
    items
        .into_iter()
        .map(|item| {
            if item.get().len() > bytes {
                return Err(format!("`{name}` has an item of more than {bytes} bytes"));
            }
            serde_json::from_str(item.get())
                .map_err(|error| format!("`{name}`: {}", without_position(&error)))
        })
        .collect()
}

fn parse_accesses(name: &str, text: &str, raw: &RawValue) -> Result<Vec<Access>, ProfileError> {
    let items = Items::parse(raw.get(), ACCESSES_MAX).map_err(|reason| match reason {
        super::json::ItemsError::TooMany => too_large(
            name,
            format!("it has more than {ACCESSES_MAX} accesses; recordings and imports fold theirs"),
        ),
        super::json::ItemsError::Json(reason) => {
            ProfileError::Format { name: name.to_owned(), reason: format!("`accesses`: {reason}") }
        }
    })?;
    let mut accesses = Vec::with_capacity(items.len());
    let (mut ranges, mut globs) = (0, 0);
    for item in items {
        let access = parse_access(item.get()).map_err(|reason| {
            // The item is a part of the text, so its address tells where it lies.
            let offset = (item.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
            let line = 1 + text.get(..offset).map_or(0, |before| before.matches('\n').count());
            ProfileError::Format {
                name: name.to_owned(),
                reason: format!("the access at line {line}: {reason}"),
            }
        })?;
        ranges += access.ranges.len();
        globs += usize::from(matches!(access.target, Target::Glob(_)));
        if globs > GLOBS_MAX {
            return Err(too_large(name, format!("it has more than {GLOBS_MAX} patterns")));
        }
        if ranges > RANGES_MAX {
            return Err(too_large(name, format!("its accesses have more than {RANGES_MAX} ranges")));
        }
        accesses.push(access);
    }
    Ok(accesses)
}

fn parse_access(text: &str) -> Result<Access, String> {
    if text.len() > ACCESS_BYTES_MAX {
        return Err(format!("it has more than {ACCESS_BYTES_MAX} bytes"));
    }
    let mut members = serde_json::from_str::<Members<'_>>(text).map_err(|error| without_position(&error))?.0;
    let at = member(&mut members, "at")?.ok_or("it has no `at`")?;
    let until = member(&mut members, "until")?;
    if until.is_some_and(|until| until < at) {
        return Err("`until` is before `at`".to_owned());
    }
    let kind = match member::<String>(&mut members, "kind")?.as_deref() {
        Some("open") => AccessKind::Open,
        Some("missing") => AccessKind::Missing,
        Some("read") => AccessKind::Read,
        Some(other) => {
            return Err(format!("`kind` is {}, not open, read or missing", json(&shortened(other))));
        }
        None => return Err("it has no `kind`".to_owned()),
    };
    let tree = match member::<String>(&mut members, "cache")? {
        None => Tree::Model,
        Some(name) if name.is_empty() || name.contains(['/', '\0']) => {
            return Err("`cache` is no name".to_owned());
        }
        Some(name) => Tree::Cache(name),
    };
    let target = match (member::<String>(&mut members, "path")?, member::<String>(&mut members, "glob")?) {
        (Some(path), None) => {
            check_path(&path).map_err(|reason| format!("`path` {} {reason}", json(&shortened(&path))))?;
            Target::Path(path)
        }
        (None, Some(glob)) => {
            check_path(&glob).map_err(|reason| format!("`glob` {} {reason}", json(&shortened(&glob))))?;
            super::resolve::matcher(&glob)
                .map_err(|error| format!("`glob` {}: {error}", json(&shortened(&glob))))?;
            Target::Glob(glob)
        }
        _ => return Err("it must have either `path` or `glob`".to_owned()),
    };
    let pairs: Vec<(u64, u64)> = member(&mut members, "ranges")?.unwrap_or_default();
    if kind != AccessKind::Read && !pairs.is_empty() {
        return Err("only a read has `ranges`".to_owned());
    }
    let ranges = pairs
        .into_iter()
        .map(|(offset, length)| match offset.checked_add(length) {
            Some(end) if length > 0 && i64::try_from(end).is_ok() => Ok(ByteRange { offset, length }),
            _ => Err(format!("the range [{offset}, {length}] is no part of a file")),
        })
        .collect::<Result<_, _>>()?;
    let comment = member(&mut members, "comment")?;
    Ok(Access { at, until, kind, tree, target, ranges, comment, unknown: unknown(members) })
}

/// Whether a path, or a glob, stays inside a tree; `Err` says why not.
pub(super) fn check_path(path: &str) -> Result<(), &'static str> {
    if path.is_empty() || path.len() > PATH_MAX {
        return Err("is empty or too long");
    }
    if path.contains('\0') {
        return Err("contains a NUL");
    }
    if path.starts_with('/') {
        return Err("is absolute; paths are relative to the model or the cache");
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("has an empty part, `.` or `..`");
    }
    Ok(())
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

fn unknown(members: BTreeMap<String, &RawValue>) -> Unknown {
    members.into_iter().map(|(name, raw)| (name, UnknownValue(raw.to_owned()))).collect()
}

/// JSON of a value that cannot fail: no maps with other keys than strings, no failing `Serialize`.
fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn access_json(access: &Access) -> String {
    let mut text = format!("{{\"at\": {}", json(&access.at));
    if let Some(until) = access.until {
        let _ = write!(text, ", \"until\": {}", json(&until));
    }
    let _ = write!(text, ", \"kind\": \"{}\"", access.kind.name());
    if let Tree::Cache(name) = &access.tree {
        let _ = write!(text, ", \"cache\": {}", json(name));
    }
    let _ = match &access.target {
        Target::Path(path) => write!(text, ", \"path\": {}", json(path)),
        Target::Glob(glob) => write!(text, ", \"glob\": {}", json(glob)),
    };
    if !access.ranges.is_empty() {
        let ranges: Vec<String> =
            access.ranges.iter().map(|range| format!("[{}, {}]", range.offset, range.length)).collect();
        let _ = write!(text, ", \"ranges\": [{}]", ranges.join(", "));
    }
    if let Some(comment) = &access.comment {
        let _ = write!(text, ", \"comment\": {}", json(comment));
    }
    for (name, value) in &access.unknown {
        let _ = write!(text, ", {}: {}", json(name), value.0.get());
    }
    text.push('}');
    text
}

/// A JSON array with one item on each line.
fn lines(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.map(|item| format!("\n    {item}")).collect();
    if items.is_empty() { "[]".to_owned() } else { format!("[{}\n  ]", items.join(",")) }
}

#[cfg(test)]
mod tests;
