//! Plays a profile's reads, pauses included, against mounted layers. Must not know where bytes come from.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::{
    ReplayError,
    layer::{Layers, Shared, Stop},
    record::Cause,
    report::{Chunks, Milestone, SlowRead},
};
use crate::profile::{FileUse, Profile, Seconds, Tree, resolve};

/// Reads that the report names.
const SLOWEST: usize = 10;
/// Waits that are kept for the picture.
const WAITS_MAX: usize = 20_000;
/// A read that takes less is none that anybody waits for, in seconds.
const WAIT_MIN: f64 = 0.001;
/// Requests in a row that bring nothing to a read before it is given up.
const TRIES: usize = 3;
/// Endings of files that hold weights.
const WEIGHTS: [&str; 7] = [".safetensors", ".gguf", ".bin", ".pt", ".pth", ".ckpt", ".npz"];

/// The milestone that every read moves on.
const LAST_READ: &str = "lastRead";

/// A read that will be played.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Read {
    at: Seconds,
    until: Seconds,
    /// Position of the layer, and of the file in it.
    file: (usize, usize),
    offset: u64,
    end: u64,
}

/// What a profile reads of an image.
pub(super) struct Score {
    reads: Vec<Read>,
    /// Paths that the profile reads and no lazy layer has.
    pub(super) absent: Vec<String>,
    /// Accesses of compile caches, which are not played.
    pub(super) of_caches: usize,
    /// The end of the last pause.
    end: Seconds,
}

/// What came of playing.
#[derive(Default)]
pub(super) struct Played {
    pub(super) milestones: Vec<Milestone>,
    pub(super) waited: f64,
    pub(super) reads: u64,
    pub(super) bytes: u64,
    pub(super) slowest: Vec<SlowRead>,
    pub(super) chunks: Chunks,
    /// When reads waited, seconds from the start, and for which layer.
    pub(super) waits: Vec<(usize, f64, f64)>,
}

impl Score {
    /// The reads of `profile` on the files that `layers` have below `directory`, a path without a slash at its ends.
    pub(super) fn new(profile: &Profile, layers: &Layers<'_>, directory: &str) -> Self {
        // Of a file that several layers have, the uppermost counts.
        let mut places: HashMap<&str, (usize, usize)> = HashMap::new();
        for (position, content) in
            layers.iter().enumerate().filter_map(|(at, layer)| Some((at, layer.content.get()?)))
        {
            for (index, file) in content.files.iter().enumerate() {
                let below = if directory.is_empty() {
                    Some(file.path.as_str())
                } else {
                    below(&file.path, directory)
                };
                if let Some(path) = below {
                    places.insert(path, (position, index));
                }
            }
        }
        let size = |(layer, file): (usize, usize)| {
            layers
                .get(layer)
                .and_then(|layer| layer.content.get()?.files.get(file))
                .map_or(0, |file| file.size)
        };
        let mut files: Vec<(&str, (usize, usize))> = places.into_iter().collect();
        files.sort_unstable();
        let named: Vec<(&str, u64)> = files.iter().map(|(path, place)| (*path, size(*place))).collect();
        let found = resolve(profile, &Tree::Model, &named);
        let used =
            files.iter().zip(&found.uses).filter_map(|((_, place), usage)| Some((*place, usage.as_ref()?)));
        let of_caches = profile.accesses.iter().filter(|access| access.tree != Tree::Model).count();
        let end =
            profile.accesses.iter().map(|access| access.until.unwrap_or(access.at)).max().unwrap_or_default();
        Self { reads: in_order(used), absent: found.absent, of_caches, end }
    }

    /// Plays the reads. Pauses and the engine's own work are scaled by `scale`.
    /// When it ends early, `played` has what came before.
    pub(super) fn play(
        &self,
        layers: &Layers<'_>,
        shared: &Shared<'_>,
        scale: f64,
        played: &mut Played,
    ) -> Result<(), Stop> {
        let mut thought = 0.0;
        let record = &shared.record;
        // When the engine is done with what it had to do; reads that are late do not make it catch up.
        let mut done = record.now();
        for read in &self.reads {
            let pause = (read.at.get() - thought).max(0.0) * scale;
            thought = f64::max(thought, read.at.get());
            let wake = done + pause;
            sleep(wake - record.now(), shared)?;
            let from = record.now();
            read.play(layers, shared, played)?;
            let until = record.now();
            let busy = (read.until.get() - thought).max(0.0) * scale;
            thought = f64::max(thought, read.until.get());
            done = until.max(wake + busy);
            played.note(read, layers, from, until);
        }
        if self.reads.is_empty() {
            // Nothing that is mounted is read: what is left of the start is its pauses.
            sleep(self.end.get() * scale, shared)?;
        }
        Ok(())
    }
}

impl Read {
    fn play(&self, layers: &Layers<'_>, shared: &Shared<'_>, played: &mut Played) -> Result<(), Stop> {
        let Some(layer) = layers.get(self.file.0) else { return Ok(()) };
        let Some(content) = layer.content.get() else { return Ok(()) };
        let Some(file) = content.files.get(self.file.1) else { return Ok(()) };
        for member in file.members(self.offset, self.end) {
            let made = content.members.get(member).and_then(super::content::Member::made_by);
            match made {
                Some(Cause::Prefetch) => played.chunks.prefetched += 1,
                Some(Cause::Background) => played.chunks.background += 1,
                Some(_) => played.chunks.read_before += 1,
                None => played.chunks.missed += 1,
            }
            if made.is_some() {
                continue;
            }
            // A request that took too long fails a node's read; the replay says so and goes on.
            // What came of it stays, so that the next one has less to ask for; one that brings nothing may never bring more.
            let mut in_vain = 0;
            while let Err(stop) = layer.make(content, file, member, Cause::Read) {
                let Stop::Late(some) = stop else { return Err(stop) };
                in_vain = if some { 0 } else { in_vain + 1 };
                if in_vain >= TRIES {
                    return Err(Stop::Failed(ReplayError::GivenUp {
                        place: shared.place.clone(),
                        digest: layer.digest,
                        path: file.path.clone(),
                        requests: in_vain,
                        timeout: shared.node.request_timeout,
                    }));
                }
                shared.record.warning(format!(
                    "a read of {} took longer than a request may ({} s, request_timeout_sec): on a node it fails",
                    file.path, shared.node.request_timeout
                ));
            }
        }
        played.reads += 1;
        played.bytes += self.end - self.offset;
        Ok(())
    }
}

impl Played {
    /// The lists in the order of the report.
    pub(super) fn sort(&mut self) {
        self.milestones.sort_by_key(|milestone| milestone.name == LAST_READ);
        self.slowest.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        self.slowest.truncate(SLOWEST);
    }

    fn note(&mut self, read: &Read, layers: &Layers<'_>, from: f64, until: f64) {
        let path = layers
            .get(read.file.0)
            .and_then(|layer| Some(layer.content.get()?.files.get(read.file.1)?.path.as_str()))
            .unwrap_or_default();
        let took = until - from;
        self.waited += took;
        if took >= WAIT_MIN {
            if self.waits.len() < WAITS_MAX {
                self.waits.push((read.file.0, from, until));
            }
            self.slowest.push(SlowRead {
                path: path.to_owned(),
                offset: read.offset,
                length: read.end - read.offset,
                layer: read.file.0,
                at: from,
                seconds: took,
            });
            if self.slowest.len() >= 16 * SLOWEST {
                self.slowest.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
                self.slowest.truncate(SLOWEST);
            }
        }
        let weights = WEIGHTS.iter().any(|ending| path.ends_with(ending));
        let mut reached = |name: &'static str, again: bool| {
            let milestone = Milestone { name, profile: read.at, seconds: until };
            match self.milestones.iter_mut().find(|milestone| milestone.name == name) {
                None => self.milestones.push(milestone),
                Some(known) if again => *known = milestone,
                Some(_) => {}
            }
        };
        reached("firstRead", false);
        if weights {
            reached("firstWeight", false);
        }
        reached(LAST_READ, true);
    }
}

/// The reads of files, by time; at one time in the order of the files' first accesses.
fn in_order<'a>(used: impl Iterator<Item = ((usize, usize), &'a FileUse)>) -> Vec<Read> {
    let mut reads: Vec<(usize, Read)> = used
        .flat_map(|(file, usage)| {
            usage.reads.iter().map(move |read| {
                let (offset, end) = (read.range.offset, read.range.end());
                (usage.place, Read { at: read.at, until: read.until, file, offset, end })
            })
        })
        .collect();
    // Stable: ranges of one access stay as they are written.
    reads.sort_by_key(|(place, read)| (read.at, *place));
    reads.into_iter().map(|(_, read)| read).collect()
}

/// The part of `path` below a directory.
fn below<'a>(path: &'a str, directory: &str) -> Option<&'a str> {
    path.strip_prefix(directory)?.strip_prefix('/')
}

/// Sleeps for so many seconds, unless the start is over before.
fn sleep(seconds: f64, shared: &Shared<'_>) -> Result<(), Stop> {
    const STEP: Duration = Duration::from_millis(100);

    if seconds > 0.0 {
        let length = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        let begun = Instant::now();
        while let Some(left) = length.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
            if shared.tasks.is_over() {
                break;
            }
            std::thread::sleep(left.min(STEP));
        }
    }
    if shared.tasks.is_over() { Err(Stop::Cancelled) } else { Ok(()) }
}
