//! One replay from the first request to the last read: who runs when, and what ends all. Must not know requests.

use std::{
    collections::BTreeMap,
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
    start::{mount, prefetch},
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
    let shared = Shared { place, node: &options.node, tasks: Tasks::default(), record: Record::new() };
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

struct Outcome {
    seconds: Times,
    at_running: Fetched,
    tally: Tally,
    played: Played,
    absent: Vec<String>,
    whole: Option<FirstWhole>,
}

impl<'a> Session<'a> {
    fn run(&self, profile: &Profile, options: &ReplayOptions) -> Result<Outcome, ReplayError> {
        let (layers, tocs, mut why) = self.lazy_layers()?;
        let background = Background::default();
        let outcome = thread::scope(|scope| {
            let outcome = self
                .start(scope, &layers, &tocs, &background, &mut why)
                .and_then(|running| self.play(&layers, running, why, profile, options));
            if let Err(stop) = outcome {
                self.note(Err(stop));
                self.finish(&background);
                return None;
            }
            self.finish(&background);
            outcome.ok()
        });
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (outcome, failure) {
            (Some(outcome), None) => Ok(outcome),
            (_, Some(failure)) => Err(failure),
            (None, None) => {
                Err(ReplayError::Thread(std::io::Error::other("the replay ended without a reason")))
            }
        }
    }

    fn finish(&self, background: &Background<'_>) {
        self.shared.tasks.end();
        background.end();
    }

    /// Keeps the first failure, which ends everything.
    fn note(&self, result: Result<(), Stop>) {
        if let Err(Stop::Failed(error)) = result {
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            self.shared.tasks.end();
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

    /// Mounts, pulls and prefetches until the container could be created. Returns when that was, and when all was mounted.
    fn start<'scope, 'env: 'scope>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        layers: &'env Layers<'a>,
        tocs: &'env [Digest],
        background: &'env Background<'a>,
        why: &mut Option<FirstWhole>,
    ) -> Result<(f64, f64), Stop>
    where
        'a: 'env,
    {
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send + 'scope>| {
            let spawned = thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, work);
            spawned.map(|_| ()).map_err(|cause| Stop::Failed(ReplayError::Thread(cause)))
        };
        let node = self.shared.node;
        if !node.no_background_fetch {
            for _ in 0..node.max_concurrency {
                spawn("replay-fetch", Box::new(|| self.note(background.fetch(self.shared))))?;
            }
            for _ in 0..node.processors {
                spawn("replay-verify", Box::new(|| self.note(background.verify(self.shared))))?;
            }
        }
        let (mounted, mounts) = mpsc::channel();
        for (layer, toc) in layers.iter().zip(tocs) {
            let mounted = mounted.clone();
            spawn(
                "replay-layer",
                Box::new(move || match mount(layer, *toc, self.shared) {
                    Ok(Ok(())) => {
                        background.add(layer, node.processors);
                        let _ = mounted.send((layer.index, None));
                        // Whoever listens waits for all mounts, and for nothing that follows them.
                        drop(mounted);
                        self.note(prefetch(layer, self.shared));
                    }
                    Ok(Err(reason)) => {
                        layer.release();
                        let _ = mounted.send((layer.index, Some(reason)));
                    }
                    Err(Stop::Late) => {
                        layer.release();
                        let reason = format!("its mount took longer than {} s", node.request_timeout);
                        let _ = mounted.send((layer.index, Some(reason)));
                    }
                    Err(stop) => self.note(Err(stop)),
                }),
            )?;
        }
        drop(mounted);
        // Those that fail send nothing, so that the channel ends early.
        for (index, reason) in mounts {
            let Some(reason) = reason else { continue };
            if why.as_ref().is_none_or(|(first, _)| index < *first) {
                *why = Some((index, reason));
            }
        }
        if self.shared.tasks.is_over() {
            return Err(Stop::Cancelled);
        }
        if let Some((first, _)) = why {
            self.pull_whole(*first)?;
        }
        let pulled = self.shared.record.now();
        self.wait_for_prefetch(layers);
        Ok((pulled, self.shared.record.now()))
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
        (pulled, running): (f64, f64),
        whole: Option<FirstWhole>,
        profile: &Profile,
        options: &ReplayOptions,
    ) -> Result<Outcome, Stop> {
        let at_running = self.shared.record.tally().total;
        let lazy = whole.as_ref().map_or(layers.len(), |(first, _)| *first);
        let lazy: Layers<'a> = layers.iter().take(lazy).map(Arc::clone).collect();
        let score = Score::new(profile, &lazy, &options.model_directory);
        if score.of_caches > 0 {
            self.shared
                .record
                .warning(format!("{} accesses of compile caches are not played", score.of_caches));
        }
        let played = score.play(&lazy, self.shared, options.think_scale)?;
        let tally = self.shared.record.tally();
        let seconds = Times { pulled, running, last_read: played.last_read };
        Ok(Outcome { seconds, at_running, tally, played, absent: score.absent, whole })
    }
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
    Replay {
        image: place,
        digest: read.digest,
        profile: options.profile_names.clone(),
        think_scale: options.think_scale,
        node: options.node.clone(),
        seconds: outcome.seconds,
        milestones: played.milestones,
        waited: played.waited,
        reads: played.reads,
        read_bytes: played.bytes,
        total,
        at_running: outcome.at_running,
        documents,
        chunks: played.chunks,
        layers,
        slowest: played.slowest,
        absent: outcome.absent,
        warnings,
        requests,
        waits: played.waits,
    }
}
