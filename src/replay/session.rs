//! One replay from the first request to the last read: who runs when, and what ends all. Must not know requests.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, Scope},
    time::{Duration, Instant},
};

use oci_spec::image::Descriptor;

use super::{
    LAYERS_MAX, Replay, ReplayError, ReplayImage, ReplayOptions,
    background::Background,
    layer::{Layer, Layers, Shared, Stop},
    player::{Played, Score},
    record::{Cause, Fetched, Record, Tally},
    report::{ReplayedLayer, Times},
    start::{PARTS_AT_ONCE, mount, prefetch},
    tasks::Tasks,
    whole::{self, WholeLayer},
};
use crate::{
    blob::Spool,
    digest::Digest,
    estargz::TOC_DIGEST_ANNOTATION,
    oci::{ReadImage, STARCAR_PREFIX, digest_of, read_image},
    profile::Profile,
};

/// Plays a profile's reads against an image and tells how long they took.
///
/// # Errors
/// The image cannot be read, a chunk is not what its layer's table of contents says, or there is no room for what is fetched.
/// What the profile reads and the image does not have is part of the answer.
pub fn replay(
    image: ReplayImage<'_>,
    profile: &Profile,
    options: &ReplayOptions,
) -> Result<Replay, ReplayError> {
    let place = image.source.place();
    let shared = Shared {
        place,
        node: &options.node,
        tasks: Tasks::within(options.max_seconds),
        record: Record::new(),
        helpers: PARTS_AT_ONCE.into(),
    };
    let read = read_image(image.source, &options.platform)?;
    shared.record.documents(&[&read.manifest_bytes, &read.config_bytes]);
    let descriptors = read.manifest.layers();
    if descriptors.len() > LAYERS_MAX {
        return Err(ReplayError::TooManyLayers { place: shared.place, layers: descriptors.len() });
    }
    shared.record.layers(descriptors.len());
    let spool = Spool::new(&options.temporary, 0);
    let session = Session { image, read: &read, shared: &shared, spool: &spool, failure: Mutex::default() };
    let outcome = session.run(profile, options)?;
    Ok(report(shared, &read, outcome, options))
}

/// Layers that are mounted, or prefetched, at a time.
const LAYERS_AT_ONCE: usize = 128;

struct Session<'a> {
    image: ReplayImage<'a>,
    read: &'a ReadImage,
    shared: &'a Shared<'a>,
    spool: &'a Spool,
    /// What failed first.
    failure: Mutex<Option<ReplayError>>,
}

/// Position of the first layer that is pulled whole, and why it is.
type FirstWhole = (usize, String);

/// How far a replay came.
#[derive(Default)]
struct Outcome {
    /// When all layers were mounted or unpacked.
    pulled: Option<f64>,
    /// When the container could be created, and what was fetched until then.
    running: Option<(f64, Fetched)>,
    /// When it was over, and what was fetched until then.
    over: f64,
    tally: Tally,
    played: Played,
    absent: Vec<String>,
    whole: Option<FirstWhole>,
    /// Whether the limit stopped it.
    stopped: bool,
}

impl<'a> Session<'a> {
    fn run(&self, profile: &Profile, options: &ReplayOptions) -> Result<Outcome, ReplayError> {
        let (layers, tocs, whole) = self.lazy_layers()?;
        let background = Background::default();
        let mut outcome = Outcome { whole, ..Outcome::default() };
        let ended = thread::scope(|scope| {
            let ended = self
                .start(scope, &layers, &tocs, &background, &mut outcome)
                .and_then(|()| self.play(&layers, profile, options, &mut outcome));
            outcome.over = self.shared.record.now();
            outcome.tally = self.shared.record.tally();
            let is_ok = ended.is_ok();
            self.note(ended);
            self.finish(&background);
            is_ok
        });
        if let Some(failure) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(failure);
        }
        if !ended && !self.shared.tasks.is_expired() {
            return Err(ReplayError::Thread(std::io::Error::other("the replay ended without a reason")));
        }
        outcome.stopped = !ended;
        outcome.played.sort();
        if outcome.stopped {
            self.shared.record.warning(format!(
                "the replay was stopped after {:.3} s, its limit: times that it did not reach are that one",
                outcome.over
            ));
        }
        Ok(outcome)
    }

    fn finish(&self, background: &Background<'_>) {
        self.shared.tasks.end();
        background.end();
    }

    /// Keeps the first failure, which ends everything. What fails when the start is over is no part of it.
    fn note(&self, result: Result<(), Stop>) {
        if let Err(Stop::Failed(error)) = result {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            if !self.shared.tasks.is_over() {
                failure.get_or_insert(error);
                self.shared.tasks.end();
            }
        }
    }

    /// The layers that a node tries to mount: the lowest ones up to the first that names no table of contents; their tables'
    /// digests, and what ends them.
    fn lazy_layers(&self) -> Result<(Layers<'a>, Vec<Digest>, Option<FirstWhole>), ReplayError> {
        let (mut layers, mut tocs) = (Vec::new(), Vec::new());
        for (index, descriptor) in self.read.manifest.layers().iter().enumerate() {
            let Some(toc) = annotation(descriptor, TOC_DIGEST_ANNOTATION) else {
                return Ok((
                    layers,
                    tocs,
                    Some((index, "its descriptor names no table of contents".to_owned())),
                ));
            };
            let toc: Digest = match toc.parse() {
                Ok(toc) => toc,
                Err(error) => return Ok((layers, tocs, Some((index, format!("{error}"))))),
            };
            let digest = digest_of(descriptor, &self.shared.place)?;
            let size = descriptor.size();
            let wire = self.image.wire(digest, size)?;
            let file = self.spool.temporary_file().map_err(ReplayError::Temporary)?;
            layers.push(Arc::new(Layer::new(index, (digest, size), wire, file, self.shared)));
            tocs.push(toc);
        }
        Ok((layers, tocs, None))
    }

    /// Mounts, pulls and prefetches until the container could be created.
    fn start<'scope, 'env: 'scope>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        layers: &'env Layers<'a>,
        tocs: &'env [Digest],
        background: &'env Background<'a>,
        outcome: &mut Outcome,
    ) -> Result<(), Stop>
    where
        'a: 'env,
    {
        let node = self.shared.node;
        if !node.no_background_fetch {
            self.spawn(scope, "replay-fetch", node.max_concurrency, || {
                move || self.note(background.fetch(self.shared))
            })?;
            self.spawn(scope, "replay-verify", node.processors, || {
                move || self.note(background.verify(self.shared))
            })?;
        }
        let (mounted, mounts) = mpsc::channel();
        let queue =
            Arc::new(Mutex::new(Queue { mounts: layers.iter().zip(tocs), prefetches: VecDeque::new() }));
        self.spawn(scope, "replay-layer", layers.len().min(LAYERS_AT_ONCE), || {
            let (mounted, queue) = (mounted.clone(), Arc::clone(&queue));
            move || {
                let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
                loop {
                    let mount = lock().mounts.next();
                    let Some((layer, toc)) = mount else { break };
                    match self.mount(layer, *toc) {
                        Ok(None) => {
                            background.add(layer, node.processors);
                            lock().prefetches.push_back(layer);
                            let _ = mounted.send((layer.index, None));
                        }
                        Ok(reason) => {
                            layer.release();
                            let _ = mounted.send((layer.index, reason));
                        }
                        Err(stop) => self.note(Err(stop)),
                    }
                }
                // Whoever listens waits for all mounts, and for nothing that follows them.
                drop(mounted);
                loop {
                    let prefetched = lock().prefetches.pop_front();
                    let Some(layer) = prefetched else { break };
                    self.note(prefetch(layer, self.shared));
                    // A prefetch that failed ends the wait as well, but not before it is known to have failed.
                    layer.release();
                }
            }
        })?;
        drop(mounted);
        // Those that fail send nothing, so that the channel ends early.
        for (index, reason) in mounts {
            let Some(reason) = reason else { continue };
            if outcome.whole.as_ref().is_none_or(|(first, _)| index < *first) {
                // What lies above is pulled whole: nobody fetches it lazily, or waits for that.
                layers.iter().skip(index).for_each(|layer| layer.abandon());
                outcome.whole = Some((index, reason));
            }
        }
        if self.shared.tasks.is_over() {
            return Err(Stop::Cancelled);
        }
        if let Some((first, _)) = &outcome.whole {
            self.pull_whole(*first)?;
        }
        outcome.pulled = Some(self.shared.record.now());
        self.wait_for_prefetch(layers);
        if self.shared.tasks.is_over() {
            return Err(Stop::Cancelled);
        }
        outcome.running = Some((self.shared.record.now(), self.shared.record.tally().total));
        Ok(())
    }

    /// Mounts a layer; says why where it is none to be mounted lazily.
    fn mount(&self, layer: &Layer<'_>, toc: Digest) -> Result<Option<String>, Stop> {
        match mount(layer, toc, self.shared) {
            Ok(mounted) => Ok(mounted.err()),
            Err(Stop::Late(_)) => {
                Ok(Some(format!("its mount took longer than {} s", self.shared.node.request_timeout)))
            }
            // Known to be pulled whole for what lies below.
            Err(Stop::Cancelled) if layer.is_abandoned() => Ok(Some("it was given up".to_owned())),
            Err(stop) => Err(stop),
        }
    }

    /// Starts threads that all do the same, as many as are to be had: fewer are slower, and only none is a failure.
    fn spawn<'scope, 'env: 'scope, W: FnOnce() + Send + 'scope>(
        &self,
        scope: &'scope Scope<'scope, 'env>,
        name: &str,
        count: usize,
        work: impl Fn() -> W,
    ) -> Result<(), Stop> {
        for started in 0..count {
            let spawned = thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, work());
            match spawned {
                Ok(_) => {}
                Err(cause) if started == 0 => return Err(Stop::Failed(ReplayError::Thread(cause))),
                Err(cause) => {
                    self.shared.record.warning(format!(
                        "only {started} of {count} threads could be started ({cause}): a node is not so limited"
                    ));
                    break;
                }
            }
        }
        Ok(())
    }

    /// What a node does before it creates a container: it waits for the prefetch of all layers side by side.
    fn wait_for_prefetch(&self, layers: &Layers<'_>) {
        let _check = self.shared.tasks.prioritised();
        let timeout =
            Duration::try_from_secs_f64(self.shared.node.prefetch_timeout).unwrap_or(Duration::ZERO);
        let deadline = Instant::now().checked_add(timeout).unwrap_or_else(Instant::now);
        let late: Vec<String> = layers
            .iter()
            .filter(|layer| !layer.wait_released(deadline))
            .map(|layer| (layer.index + 1).to_string())
            .collect();
        if !late.is_empty() && !self.shared.tasks.is_over() {
            self.shared.record.warning(format!(
                "the container waited {} s for the prefetch of layer {}, in vain (prefetch_timeout_sec)",
                self.shared.node.prefetch_timeout,
                late.join(", ")
            ));
        }
    }

    fn pull_whole(&self, first: usize) -> Result<(), Stop> {
        let diff_ids = self.read.config.rootfs().diff_ids();
        let mut layers = Vec::new();
        for (index, descriptor) in self.read.manifest.layers().iter().enumerate().skip(first) {
            let digest = digest_of(descriptor, &self.shared.place).map_err(ReplayError::from)?;
            let diff_id = diff_ids.get(index).and_then(|text| text.parse().ok());
            layers.push(WholeLayer { index, digest, size: descriptor.size(), diff_id });
        }
        whole::pull(self.image.source, &layers, self.spool, self.shared)
    }

    fn play(
        &self,
        layers: &Layers<'a>,
        profile: &Profile,
        options: &ReplayOptions,
        outcome: &mut Outcome,
    ) -> Result<(), Stop> {
        let lazy = outcome.whole.as_ref().map_or(layers.len(), |(first, _)| *first);
        let lazy: Layers<'a> = layers.iter().take(lazy).map(Arc::clone).collect();
        let score = Score::new(profile, &lazy, &options.model_directory);
        if score.of_caches > 0 {
            self.shared
                .record
                .warning(format!("{} accesses of compile caches are not played", score.of_caches));
        }
        let played = score.play(&lazy, self.shared, options.think_scale, &mut outcome.played);
        outcome.absent = score.absent;
        played
    }
}

/// What threads of layers have left to do.
struct Queue<I, L> {
    mounts: I,
    prefetches: VecDeque<L>,
}

fn annotation<'a>(descriptor: &'a Descriptor, name: &str) -> Option<&'a str> {
    descriptor.annotations().as_ref()?.get(name).map(String::as_str)
}

fn report(shared: Shared<'_>, read: &ReadImage, outcome: Outcome, options: &ReplayOptions) -> Replay {
    let Shared { place, record, .. } = shared;
    let (requests, warnings) = record.finish();
    let Tally { total, documents, layers } = outcome.tally;
    let layers = read.manifest.layers().iter().zip(layers).enumerate();
    let layers = layers.filter_map(|(index, (descriptor, causes))| {
        let whole = outcome.whole.as_ref().filter(|(first, _)| index >= *first).map(|(first, reason)| {
            if index == *first { reason.clone() } else { format!("it lies above layer {}", first + 1) }
        });
        let mut total = Fetched::default();
        for fetched in &causes {
            total.add(*fetched);
        }
        let causes: BTreeMap<Cause, Fetched> =
            Cause::ALL.into_iter().zip(causes).filter(|(_, fetched)| fetched.requests > 0).collect();
        let title = annotation(descriptor, &format!("{STARCAR_PREFIX}layer.title")).map(str::to_owned);
        // It was read before.
        let digest = digest_of(descriptor, &place).ok()?;
        Some(ReplayedLayer { digest, size: descriptor.size(), title, whole, total, causes })
    });
    let layers = layers.collect();
    let played = outcome.played;
    let (running, at_running) = outcome.running.unwrap_or((outcome.over, total));
    let pulled = outcome.pulled.unwrap_or(outcome.over);
    Replay {
        image: place,
        digest: read.digest,
        profile: options.profile_names.clone(),
        think_scale: options.think_scale,
        node: options.node.clone(),
        seconds: Times { pulled, running, last_read: outcome.over },
        milestones: played.milestones,
        waited: played.waited,
        reads: played.reads,
        read_bytes: played.bytes,
        total,
        at_running,
        documents,
        chunks: played.chunks,
        layers,
        slowest: played.slowest,
        absent: outcome.absent,
        stopped: outcome.stopped,
        warnings,
        requests,
        waits: played.waits,
    }
}
