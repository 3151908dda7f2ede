//! Logs of `strace -f -ttt -y`: what the calls in them mean for the files of a start. A mapped file counts as read
//! where and when it was mapped, because page faults are not in a log.

use std::{collections::HashMap, io::BufRead};

use super::{
    Imported, counted,
    descriptors::{Descriptors, File},
    lines::Lines,
    roots::{Elsewhere, Roots, normal},
    strace_line::{Call, Line, UNFINISHED, What, descriptor, member, number, parse, string},
};
use crate::profile::{
    ByteRange, Event, EventKind, Folder, Profile, ProfileError, Recording, Seconds, Source,
};

/// Files whose sizes and other names are remembered.
const FILES_MAX: usize = 50_000;
/// Calls that may be unfinished at a time.
const UNFINISHED_MAX: usize = 10_000;
/// Length in bytes of the beginning of an unfinished call.
const UNFINISHED_BYTES_MAX: usize = 8 << 10;
/// Earliest time that is one since 1970, in microseconds: what is less counts from something else, as with `-r`.
const EPOCH_MIN: u64 = 100_000_000 * 1_000_000;

pub(super) fn import(
    name: &str,
    mut lines: Lines<impl BufRead>,
    roots: &Roots,
    recording: &Recording,
) -> Result<Imported, ProfileError> {
    let mut log = Log::new(roots);
    while let Some(line) = lines.next().map_err(|cause| ProfileError::File { path: name.into(), cause })? {
        log.line(line);
    }
    if log.start.is_none() && log.relative > 0 {
        return Err(ProfileError::Import {
            name: name.to_owned(),
            reason: "its times do not count from 1970".to_owned(),
            hint: Some("record with -ttt in place of -r: `strace -f -ttt -y -o LOG COMMAND`".to_owned()),
        });
    }
    if log.start.is_none() {
        return Err(ProfileError::Import {
            name: name.to_owned(),
            reason: "no line of it is one of `strace -f -ttt -y`".to_owned(),
            hint: Some("record with `strace -f -ttt -y -o LOG COMMAND`".to_owned()),
        });
    }
    let lacks_paths = log.lacks_paths();
    let folded = log.folder.finish();
    if folded.accesses.is_empty() {
        if lacks_paths && log.elsewhere.likeliest().is_empty() {
            return Err(ProfileError::Import {
                name: name.to_owned(),
                reason: format!("nothing in it lies below {}", roots.names()),
                hint: Some("record with -y, so that relative paths are known".to_owned()),
            });
        }
        return Err(nothing_found(name, roots, &log.elsewhere));
    }
    let mut notes = Vec::new();
    if lacks_paths {
        notes.push(
            "the log has no paths of descriptors: what was opened relative to a directory is lost; record with -y"
                .to_owned(),
        );
    }
    if log.relative > 0 {
        notes.push(format!(
            "{} with times that do not count from 1970 left out",
            counted(log.relative, "line")
        ));
    }
    if log.foreign > 0 {
        notes.push(format!("{} not written by `strace -ttt`", counted(log.foreign, "line")));
    }
    if lines.overlong > 0 {
        notes.push(format!("{} too long to be looked at", counted(lines.overlong, "line")));
    }
    if let Some(cause) = &lines.cut {
        notes.push(format!("the compressed log ends early ({cause}); what came before it was taken"));
    }
    if folded.dropped > 0 {
        notes.push(format!(
            "{} of more files than a profile holds left out",
            counted(folded.dropped, "event")
        ));
    }
    if folded.tolerance > 0 {
        notes.push(format!("very scattered reads: gaps of up to {} bytes count as read", folded.tolerance));
    }
    let mut evidence = "a log of strace".to_owned();
    if log.mapped {
        evidence.push_str(": mapped files count as read where they were mapped, when they were mapped");
    }
    Ok(Imported {
        profile: Profile {
            evidence: vec![evidence],
            recordings: vec![Recording { source: Some(Source::Strace), ..recording.clone() }],
            accesses: folded.accesses,
            ..Profile::default()
        },
        notes,
    })
}

/// The error of a recording in which nothing lies below a root.
pub(super) fn nothing_found(name: &str, roots: &Roots, elsewhere: &Elsewhere) -> ProfileError {
    let likeliest = elsewhere.likeliest();
    let hint = match likeliest.as_slice() {
        [] => "name the directory of the model with --root".to_owned(),
        directories => {
            format!(
                "name the directory of the model with --root; files were read in {}",
                directories.join(", ")
            )
        }
    };
    let reason = format!("nothing in it lies below {}", roots.names());
    ProfileError::Import { name: name.to_owned(), reason, hint: Some(hint) }
}

/// A log that is being read.
struct Log<'a> {
    roots: &'a Roots,
    folder: Folder,
    descriptors: Descriptors,
    /// Sizes that the log tells: a mapping may be longer than its file.
    sizes: HashMap<File, u64>,
    /// Files of a tree by the path behind links under which a descriptor shows them.
    other_names: HashMap<String, File>,
    /// Beginnings of calls, by thread.
    unfinished: HashMap<u64, (u64, String)>,
    /// Time of the first line.
    start: Option<u64>,
    elsewhere: Elsewhere,
    mapped: bool,
    /// Successful opens that show a path, as with `-y`, and those that show none.
    opens: (u64, u64),
    /// Lines whose time does not count from 1970.
    relative: u64,
    /// Lines that are not strace's.
    foreign: u64,
}

impl<'a> Log<'a> {
    fn new(roots: &'a Roots) -> Self {
        Self {
            roots,
            folder: Folder::new(),
            descriptors: Descriptors::default(),
            sizes: HashMap::new(),
            other_names: HashMap::new(),
            unfinished: HashMap::new(),
            start: None,
            elsewhere: Elsewhere::default(),
            mapped: false,
            opens: (0, 0),
            relative: 0,
            foreign: 0,
        }
    }

    /// Whether the log was written without `-y`.
    fn lacks_paths(&self) -> bool {
        self.opens.0 == 0 && self.opens.1 > 0
    }

    fn line(&mut self, line: &[u8]) {
        let Some(Line { pid, at, what }) = std::str::from_utf8(line).ok().and_then(parse) else {
            self.foreign += u64::from(!line.trim_ascii().is_empty());
            return;
        };
        if at < EPOCH_MIN {
            self.relative += 1;
            return;
        }
        let start = *self.start.get_or_insert(at);
        match what {
            What::Call { name, text } => {
                let now = Now { pid, at: Seconds::from_micros(at.saturating_sub(start)) };
                if let Some(beginning) = text.strip_suffix(UNFINISHED) {
                    let begun = format!("{name}({}", beginning.trim_end());
                    if begun.len() <= UNFINISHED_BYTES_MAX && self.unfinished.len() < UNFINISHED_MAX {
                        self.unfinished.insert(pid, (at, begun));
                    } else {
                        self.unfinished.remove(&pid);
                    }
                } else if is_of_interest(name)
                    && let Some(call) = Call::parse(text)
                {
                    self.call(now, name, &call);
                }
            }
            What::Resumed { name, text } => {
                let Some((at, begun)) = self.unfinished.remove(&pid) else { return };
                let whole = format!("{begun}{text}");
                if let Some((begun, rest)) = whole.split_once('(')
                    && begun == name
                    && is_of_interest(name)
                    && let Some(call) = Call::parse(rest)
                {
                    // A read begins when it is asked for.
                    let now = Now { pid, at: Seconds::from_micros(at.saturating_sub(start)) };
                    self.call(now, name, &call);
                }
            }
            What::Exit => {
                self.unfinished.remove(&pid);
                self.descriptors.exit(pid);
            }
            What::Other => {}
        }
    }

    fn call(&mut self, now: Now, name: &str, call: &Call<'_>) {
        match name {
            "open" => self.open(now, "", call.argument(0), call.argument(1), call),
            "openat" | "openat2" => {
                self.open(now, call.argument(0), call.argument(1), call.argument(2), call);
            }
            "access" | "stat" | "lstat" | "readlink" => {
                self.look_up(now, "", call.argument(0), call.argument(1), call);
            }
            "newfstatat" | "fstatat64" => {
                self.look_up(now, call.argument(0), call.argument(1), call.argument(2), call);
            }
            "statx" => self.look_up(now, call.argument(0), call.argument(1), call.argument(4), call),
            "faccessat" | "faccessat2" | "readlinkat" => {
                self.look_up(now, call.argument(0), call.argument(1), "", call);
            }
            "fstat" => self.look_up(now, call.argument(0), "\"\"", call.argument(1), call),
            "close" | "dup" | "dup2" | "dup3" | "fcntl" | "lseek" => self.descriptor_call(now, name, call),
            "clone" | "clone3" | "fork" | "vfork" => {
                let shares = call.arguments.iter().any(|argument| argument.contains("CLONE_FILES"));
                if let Some(child) = call.returned().filter(|child| *child > 0) {
                    self.descriptors.start(now.pid, child, shares);
                }
            }
            "mmap" => self.map(now, call),
            _ => self.transfer(now, name, call),
        }
    }

    /// Calls that move bytes.
    fn transfer(&mut self, now: Now, name: &str, call: &Call<'_>) {
        let Some(length) = call.returned().filter(|length| *length > 0) else { return };
        // `[4096] => [8192]` is an offset that the call moves; NULL is the descriptor's own.
        let pointed = |text: &str| number(text.trim_start_matches('['));
        let (from, offset) = match name {
            "pread64" | "preadv" | "preadv2" => (call.argument(0), number(call.argument(3))),
            "sendfile" => (call.argument(1), pointed(call.argument(2))),
            "copy_file_range" | "splice" => (call.argument(0), pointed(call.argument(1))),
            _ => (call.argument(0), None),
        };
        let Some(open) = self.opened(now.pid, from) else { return };
        let start = offset.unwrap_or_else(|| {
            let position = open.position.get();
            open.position.set(position.saturating_add(length));
            position
        });
        if !matches!(name, "write" | "writev") {
            self.read(now, &open.file, start, length);
        }
    }

    fn map(&mut self, now: Now, call: &Call<'_>) {
        let (Some(length), Some(offset)) = (number(call.argument(1)), number(call.argument(5))) else {
            return;
        };
        if call.argument(2) == "PROT_NONE" || call.returned().is_none() {
            return;
        }
        let Some(open) = self.opened(now.pid, call.argument(4)) else { return };
        self.mapped = true;
        self.read(now, &open.file, offset, length);
    }

    fn read(&mut self, now: Now, file: &File, start: u64, length: u64) {
        let size = self.sizes.get(file).copied().unwrap_or(i64::MAX.unsigned_abs());
        let end = start.saturating_add(length).min(size);
        if start < end {
            self.event(now, file, EventKind::Read(ByteRange::between(start, end)));
        }
    }

    fn descriptor_call(&mut self, now: Now, name: &str, call: &Call<'_>) {
        let (Some(number), Some(returned)) = (descriptor(call.argument(0)).0, call.returned()) else {
            return;
        };
        match name {
            "close" => self.descriptors.close(now.pid, number),
            "lseek" => {
                if let Some(open) = self.opened(now.pid, call.argument(0)) {
                    open.position.set(returned);
                }
            }
            "fcntl" if !call.argument(1).starts_with("F_DUPFD") => {}
            _ => self.descriptors.duplicate(now.pid, number, returned),
        }
    }

    fn open(&mut self, now: Now, directory: &str, path: &str, flags: &str, call: &Call<'_>) {
        if let (Some(_), shown) = descriptor(call.result) {
            let count = if shown.is_some() { &mut self.opens.0 } else { &mut self.opens.1 };
            *count += 1;
        }
        let Some(path) = absolute(directory, path) else { return };
        let file = self.file(&path);
        if call.not_found() {
            if let Some(file) = file {
                self.event(now, &file, EventKind::Missing);
            }
            return;
        }
        let (Some(number), shown) = descriptor(call.result) else { return };
        self.descriptors.close(now.pid, number);
        if ["O_DIRECTORY", "O_PATH", "O_WRONLY"].iter().any(|flag| flags.contains(flag)) {
            return;
        }
        let file = file.or_else(|| self.file(&normal(shown.as_deref()?)));
        let Some(file) = file else {
            self.elsewhere.note(&path);
            return;
        };
        if let Some(shown) = shown
            && shown != path
            && self.other_names.len() < FILES_MAX
            && self.roots.find(&shown).is_none()
        {
            self.other_names.insert(shown, file.clone());
        }
        self.event(now, &file, EventKind::Open);
        self.descriptors.open(now.pid, number, file);
    }

    fn look_up(&mut self, now: Now, directory: &str, path: &str, answer: &str, call: &Call<'_>) {
        let file = match absolute(directory, path) {
            Some(path) => self.file(&path),
            None => None,
        };
        let Some(file) = file else { return };
        if call.not_found() {
            self.event(now, &file, EventKind::Missing);
        } else if answer.contains("S_IFREG")
            && let Some(size) = member(answer, "st_size").or_else(|| member(answer, "stx_size"))
            && (self.sizes.len() < FILES_MAX || self.sizes.contains_key(&file))
        {
            self.sizes.insert(file, size);
        }
    }

    /// The file of a tree that has an absolute path.
    fn file(&self, path: &str) -> Option<File> {
        match self.roots.find(path) {
            Some((tree, path)) => Some(File { tree: tree.clone(), path: path.to_owned() }),
            None => self.other_names.get(path).cloned(),
        }
    }

    fn opened(&mut self, pid: u64, argument: &str) -> Option<std::rc::Rc<super::descriptors::Open>> {
        let (number, path) = descriptor(argument);
        let file = match path {
            // A path outside the roots: not ours, whatever the number stood for.
            Some(path) => Some(self.file(&path)?),
            None => None,
        };
        self.descriptors.find(pid, number?, file)
    }

    fn event(&mut self, now: Now, file: &File, kind: EventKind) {
        self.folder.event(&Event { at: now.at, tree: &file.tree, path: &file.path, kind });
    }
}

/// Who calls when.
#[derive(Clone, Copy)]
struct Now {
    pid: u64,
    at: Seconds,
}

/// The absolute path that a call means; an empty path is the directory argument itself.
fn absolute(directory: &str, path: &str) -> Option<String> {
    let path = string(path)?;
    if path.starts_with('/') {
        return Some(normal(&path).into_owned());
    }
    let directory = descriptor(directory).1?;
    Some(normal(&format!("{directory}/{path}")).into_owned())
}

fn is_of_interest(name: &str) -> bool {
    matches!(
        name,
        "open"
            | "openat"
            | "openat2"
            | "access"
            | "faccessat"
            | "faccessat2"
            | "stat"
            | "lstat"
            | "fstat"
            | "newfstatat"
            | "fstatat64"
            | "statx"
            | "readlink"
            | "readlinkat"
            | "close"
            | "dup"
            | "dup2"
            | "dup3"
            | "fcntl"
            | "lseek"
            | "clone"
            | "clone3"
            | "fork"
            | "vfork"
            | "mmap"
            | "read"
            | "readv"
            | "pread64"
            | "preadv"
            | "preadv2"
            | "sendfile"
            | "copy_file_range"
            | "splice"
            | "write"
            | "writev"
    )
}
