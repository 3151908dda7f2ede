//! How long a start takes: a model of a node with stargz-snapshotter, and of one that pulls first. Pure arithmetic.
//!
//! The model is that of `docs/snapshotter.md`: what a mount asks for, what a container waits for, how a miss is
//! fetched, when background fetch runs. `docs/measurements.md` says how far it is off.

use super::{Plan, PlanFile, PlannedFile, PlannedLayer};
use crate::{
    layer::Storage,
    profile::{Seconds, TimedRange},
};

/// A link between a node and a registry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// Bytes per second.
    pub bandwidth: f64,
    /// Seconds from a request to the first byte of its answer.
    pub round_trip: f64,
}

/// A node: the snapshotter's configuration, and what the machine takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Node {
    /// Bytes that the snapshotter asks for at least (`[blob] chunk_size`).
    pub unit: u64,
    /// A layer's prefetch of more bytes than this is not waited for (`prefetch_async_size`); 0 waits for all.
    pub prefetch_async_size: u64,
    /// Seconds that a container waits for prefetch (`prefetch_timeout_sec`).
    pub prefetch_timeout: f64,
    /// Seconds after which a request is given up, its body included (`request_timeout_sec`).
    pub request_timeout: f64,
    /// Part of the link that background fetch uses.
    pub background_share: f64,
    /// Round trips that each read of 2 MiB costs beside its bytes: TCP starts anew after each pause.
    pub round_trips_per_piece: f64,
    /// Bytes per second that the snapshotter verifies and writes to its cache.
    pub verify_speed: f64,
    /// Bytes per second that the snapshotter unpacks of compressed chunks.
    pub unpack_speed: f64,
    /// Bytes per second that an eager pull writes when it unpacks layers.
    pub apply_speed: f64,
    /// Seconds that making a container takes when nothing is waited for.
    pub create: f64,
}

impl Default for Node {
    /// The snapshotter as it comes, on the machine of the measurements.
    fn default() -> Self {
        Self {
            unit: 50_000,
            prefetch_async_size: 0,
            prefetch_timeout: 10.0,
            request_timeout: 30.0,
            background_share: 0.5,
            round_trips_per_piece: 1.75,
            verify_speed: 400e6,
            unpack_speed: 100e6,
            apply_speed: 200e6,
            create: 0.3,
        }
    }
}

impl Node {
    /// The configuration that `docs/nodes.md` recommends.
    pub fn recommended() -> Self {
        Self {
            unit: 4 << 20,
            prefetch_async_size: super::ASYNC_PREFETCH_MIN,
            request_timeout: 600.0,
            background_share: 0.6,
            ..Self::default()
        }
    }
}

impl Node {
    /// Seconds to unpack, verify and write `length` bytes of a file.
    fn make(self, planned: &PlannedFile, length: u64) -> f64 {
        let speed = match planned.storage {
            Storage::Stored => self.verify_speed,
            // What is fast to unpack has to be verified all the same.
            Storage::Compressed | Storage::EntropyCoded => self.unpack_speed.min(self.verify_speed),
        };
        number(length) / speed
    }
}

/// How a start goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Seconds from the pull's begin until the container runs.
    pub running: f64,
    /// Seconds from the pull's begin until the last read of the profile is answered.
    pub last_read: f64,
    /// Bytes that the node has fetched by then.
    pub fetched: f64,
}

/// Background fetch begins again when nothing was missed for so many seconds (a constant of the snapshotter).
const SILENCE: f64 = 5.0;
/// The snapshotter reads a member in pieces of this many bytes, one after another.
const PIECE: u64 = 2 << 20;
/// Round trips before the first layer is asked for: the registry's greeting, manifest and config, each on a
/// connection that must be opened first.
const PULL_ROUND_TRIPS: f64 = 5.0;
/// Round trips to resolve a layer: connection, redirect, size, footer, TOC. All layers do so side by side.
const RESOLVE_ROUND_TRIPS: f64 = 5.0;
/// Bytes of TOC for each chunk.
const TOC_BYTES_PER_CHUNK: u64 = 240;

/// A start on a node that mounts the image lazily. `base` is the number of bytes of the base, which is prefetched
/// where that is allowed.
pub fn estimate_lazy(plan: &Plan, files: &[PlanFile], base: u64, link: Link, node: Node) -> Estimate {
    let mut start = Start::new(plan, files, link, node);
    start.pull(base);
    start.prefetch(base);
    let running = start.now;
    start.replay(files);
    Estimate { running, last_read: start.now, fetched: start.fetched }
}

/// A start on a node that pulls and unpacks every layer first.
pub fn estimate_eager(plan: &Plan, files: &[PlanFile], base: u64, link: Link, node: Node) -> Estimate {
    let packed = base + plan.layers.iter().map(layer_bytes).sum::<u64>();
    let unpacked = base + plan.layers.iter().map(unpacked_bytes).sum::<u64>();
    let fetched = number(packed);
    let planned = plan.layers.iter().flat_map(|layer| &layer.files);
    let compressed: u64 = planned.filter(|file| file.storage != Storage::Stored).map(self::unpacked).sum();
    // Layers are downloaded side by side and unpacked one after another: little is unpacked before all are there.
    let running = PULL_ROUND_TRIPS * link.round_trip
        + fetched / link.bandwidth
        + number(unpacked) / node.apply_speed
        + number(compressed) / node.unpack_speed
        + node.create;
    let thinking = reads(plan, files).last().map_or(0.0, |read| read.until.get());
    Estimate { running, last_read: running + thinking, fetched }
}

/// A start as it goes on.
struct Start<'a> {
    plan: &'a Plan,
    link: Link,
    node: Node,
    /// Seconds since the pull began.
    now: f64,
    fetched: f64,
    /// Bytes of all layers of the plan that are not prefetched.
    total: f64,
    /// Seconds that a node takes to unpack, verify and write those.
    total_made: f64,
    /// Part of what is not prefetched that background fetch has brought, 0 to 1.
    background: f64,
    /// When background fetch may begin again.
    quiet_from: f64,
    /// For each file of the input, the chunks that are there because somebody asked for them.
    local: Vec<Vec<bool>>,
    /// For each file of the input that is prefetched, when that ends and which part of the file it brings.
    prefetched: Vec<Option<(f64, f64)>>,
    /// For each file of the input, its place in the plan.
    placed: Vec<Option<&'a PlannedFile>>,
}

impl<'a> Start<'a> {
    fn new(plan: &'a Plan, files: &[PlanFile], link: Link, node: Node) -> Self {
        let mut placed = vec![None; files.len()];
        for planned in plan.layers.iter().flat_map(|layer| &layer.files) {
            placed[planned.index] = Some(planned);
        }
        let left = || plan.layers.iter().flat_map(|layer| &layer.files[layer.prioritized..]);
        Self {
            plan,
            link,
            node,
            now: 0.0,
            fetched: 0.0,
            total: left().map(|file| number(file.stored)).sum(),
            total_made: left().map(|file| node.make(file, unpacked(file))).sum(),
            background: 0.0,
            quiet_from: 0.0,
            local: placed
                .iter()
                .map(|planned| planned.map_or(Vec::new(), |planned| vec![false; planned.chunks.len()]))
                .collect(),
            prefetched: vec![None; files.len()],
            placed,
        }
    }

    /// Manifest, config, and for each layer what a mount reads.
    fn pull(&mut self, base: u64) {
        let tocs: u64 = self
            .plan
            .layers
            .iter()
            .flat_map(|layer| &layer.files)
            .map(|file| TOC_BYTES_PER_CHUNK * file.chunks.len() as u64)
            .sum();
        let layers = number((self.plan.layers.len() + usize::from(base > 0)) as u64);
        let bytes = number(tocs) + number(self.node.unit.min(1 << 20)) * layers;
        let round_trips = PULL_ROUND_TRIPS + RESOLVE_ROUND_TRIPS;
        self.now = round_trips * self.link.round_trip + bytes / self.link.bandwidth;
        self.fetched = bytes;
        self.quiet_from = self.now + SILENCE;
    }

    /// All layers prefetch side by side; the container waits for those that are not too large to wait for.
    fn prefetch(&mut self, base: u64) {
        let begin = self.now;
        let mut waited: f64 =
            if base > 0 { self.link.round_trip + number(base) / self.link.bandwidth } else { 0.0 };
        let layers: Vec<(u64, &PlannedLayer)> = self
            .plan
            .layers
            .iter()
            .filter(|layer| layer.prioritized > 0)
            .map(|layer| (layer.files[..layer.prioritized].iter().map(|file| file.stored).sum(), layer))
            .collect();
        let mut end = begin;
        let mut brought = number(base);
        for (size, layer) in &layers {
            let unpack: f64 = layer.files[..layer.prioritized]
                .iter()
                .map(|file| self.node.make(file, unpacked(file)))
                .sum();
            // They share the link until the smaller ones are there.
            let before: u64 = layers.iter().map(|(other, _)| *other.min(size)).sum();
            let done = self.link.round_trip + (number(base) + number(before)) / self.link.bandwidth + unpack;
            // What had arrived when the request was given up stays.
            let share = (self.node.request_timeout / done).min(1.0);
            let done = done.min(self.node.request_timeout);
            brought += number(*size) * share;
            for file in &layer.files[..layer.prioritized] {
                self.prefetched[file.index] = Some((begin + done, share));
            }
            if self.node.prefetch_async_size == 0 || *size <= self.node.prefetch_async_size {
                waited = waited.max(done);
            }
            end = end.max(begin + done);
        }
        self.fetched += brought;
        self.quiet_from = self.quiet_from.max(end + SILENCE);
        self.now = begin + waited.min(self.node.prefetch_timeout) + self.node.create;
    }

    /// The reads of the profile, with the pauses between them.
    fn replay(&mut self, files: &[PlanFile]) {
        let mut thought = 0.0;
        for read in reads(self.plan, files) {
            let at = read.at.get();
            self.pass((at - thought).max(0.0));
            thought = thought.max(at);
            let Some(planned) = self.placed[read.file] else { continue };
            let before = self.now;
            for chunk in chunks_of(planned, read.offset, read.end) {
                self.chunk(planned, chunk);
            }
            // What the engine did with the bytes while it read them took its time too.
            let busy = read.until.get() - thought;
            if busy > self.now - before {
                self.pass(busy - (self.now - before));
            }
            thought = thought.max(read.until.get());
        }
    }

    /// Time passes in which nothing is missed.
    fn pass(&mut self, seconds: f64) {
        let end = self.now + seconds;
        let working = end - self.now.max(self.quiet_from);
        let missing = self.total * (1.0 - self.background);
        if working > 0.0 && missing > 0.0 {
            let bytes = (working * self.background_speed()).min(missing);
            self.background += bytes / self.total;
            self.fetched += bytes;
        }
        self.now = end;
    }

    fn background_speed(&self) -> f64 {
        (self.node.background_share * self.link.bandwidth).min(self.total / self.total_made)
    }

    /// A chunk is read.
    fn chunk(&mut self, planned: &PlannedFile, chunk: usize) {
        if self.local[planned.index][chunk] {
            return;
        }
        self.local[planned.index][chunk] = true;
        let missing = match self.prefetched[planned.index] {
            // A read that misses while prefetch runs fetches for itself; both end at about the same time.
            Some((end, share)) => {
                self.now = self.now.max(end);
                1.0 - share
            }
            // Background fetch brought this chunk or it did not; on average it brought a part of it.
            None => 1.0 - self.background,
        };
        if missing <= 1e-9 {
            return;
        }
        let length = planned.chunks[chunk];
        let share = number(length) / number(planned.chunks.iter().sum::<u64>().max(1));
        let stored = number(planned.stored) * share;
        let pieces = (stored / number(PIECE)).ceil().max(1.0);
        let took = pieces * self.node.round_trips_per_piece * self.link.round_trip
            + stored / self.link.bandwidth
            + self.node.make(planned, length);
        self.now += took * missing;
        self.fetched += stored * missing;
        self.quiet_from = self.now + SILENCE;
    }
}

/// A read of a profile.
#[derive(Debug, Clone, Copy)]
struct Read {
    at: Seconds,
    until: Seconds,
    file: usize,
    offset: u64,
    end: u64,
}

/// The reads of all files of a plan, by time.
fn reads(plan: &Plan, files: &[PlanFile]) -> Vec<Read> {
    let mut reads: Vec<(usize, Read)> = plan
        .layers
        .iter()
        .flat_map(|layer| &layer.files)
        .filter_map(|planned| files[planned.index].usage.as_ref().map(|usage| (planned.index, usage)))
        .flat_map(|(file, usage)| {
            usage.reads.iter().map(move |TimedRange { at, until, range }| {
                (usage.place, Read { at: *at, until: *until, file, offset: range.offset, end: range.end() })
            })
        })
        .collect();
    reads.sort_by_key(|(place, read)| (read.at, *place, read.offset));
    reads.into_iter().map(|(_, read)| read).collect()
}

/// The chunks of a file that hold some of the bytes from `offset` to `end`.
fn chunks_of(planned: &PlannedFile, offset: u64, end: u64) -> impl Iterator<Item = usize> {
    let mut position = 0;
    planned.chunks.iter().enumerate().filter_map(move |(index, length)| {
        let start = position;
        position += length;
        (start < end && offset < position).then_some(index)
    })
}

fn unpacked(planned: &PlannedFile) -> u64 {
    planned.chunks.iter().sum()
}

fn layer_bytes(layer: &PlannedLayer) -> u64 {
    layer.files.iter().map(|file| file.stored).sum()
}

fn unpacked_bytes(layer: &PlannedLayer) -> u64 {
    layer.files.iter().map(unpacked).sum()
}

/// Bytes as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "an estimate does not need the 53rd bit")]
fn number(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        plan::{CHUNK_SIZE_DEFAULT, Compression, Nodes, PlanOptions, Prefetch, plan},
        profile::{ByteRange, FileUse},
    };

    const LINK: Link = Link { bandwidth: 22e6, round_trip: 0.05 };

    /// Four shards of 300 MB that are read after 23 s, and a small file.
    fn files() -> Vec<PlanFile> {
        let file = |path: &str, size: u64, place: usize, at: u64| {
            let at = Seconds::from_micros(at);
            let read = TimedRange { at, until: at, range: ByteRange { offset: 0, length: size } };
            PlanFile {
                path: path.into(),
                size,
                weights: place > 0,
                header: None,
                sample: None,
                usage: Some(FileUse { place, first: at, reads: vec![read] }),
            }
        };
        let shard = |number: usize| file(&format!("{number}.safetensors"), 300_000_000, number, 23_000_000);
        std::iter::once(file("config.json", 1000, 0, 10_000_000)).chain((1..5).map(shard)).collect()
    }

    fn estimate(prefetch: Prefetch, node: Node) -> Estimate {
        let options = PlanOptions {
            compression: Compression::Auto,
            compress_weights: false,
            prefetch,
            nodes: Nodes::Default,
            chunk_size: CHUNK_SIZE_DEFAULT,
            max_layers: 100,
            base_layers: 1,
            other_layers: 0,
            base_prefetched: 0,
        };
        let files = files();
        estimate_lazy(&plan(&files, &options).unwrap(), &files, 0, LINK, node)
    }

    #[test]
    fn what_was_measured_has_its_order() {
        let (default, tuned) = (Node::default(), Node::recommended());
        let small = estimate(Prefetch::Small, default);
        let all = estimate(Prefetch::All, default);
        let tuned = estimate(Prefetch::All, tuned);
        // A default node waits for its ten seconds, and gives the requests up after thirty.
        assert!((10.0..12.0).contains(&all.running) && small.running < 2.0 && tuned.running < 2.0);
        assert!(tuned.last_read < all.last_read && all.last_read < small.last_read);
        // Nothing is faster than the link, and nothing comes twice.
        let bytes = 1_200_001_000.0;
        for one in [small, all, tuned] {
            assert!(one.last_read > bytes / LINK.bandwidth, "{one:?}");
            assert!((bytes..bytes * 1.01).contains(&one.fetched), "{one:?}");
        }
        let files = files();
        let eager = estimate_eager(&Plan { layers: Vec::new() }, &files, 1_200_000_000, LINK, default);
        assert!((eager.running - (5.0 * 0.05 + 1.2e9 / 22e6 + 6.0 + 0.3)).abs() < 0.1, "{eager:?}");
    }
}
