//! Background fetch: all files of all layers, a few requests at a time over all layers together, whenever nothing prioritised
//! runs. Must not know profiles.
//!
//! Source: stargz-snapshotter, `fs/layer/layer.go` (`backgroundFetch`) and `task/task.go`, as `docs/snapshotter.md` tells it.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    layer::{Layer, Shared, Stop},
    ranges::Span,
    record::Cause,
};
use crate::digest::Digest;

/// How long a worker sleeps at most before it looks whether the start is over.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is left to be fetched.
#[derive(Default)]
pub(super) struct Background<'a> {
    state: Mutex<State<'a>>,
    changed: Condvar,
}

#[derive(Default)]
struct State<'a> {
    /// Chunks that are on their way, each layer as many as there are processors; they take turns.
    ring: VecDeque<Job<'a>>,
    /// Chunks that were fetched and wait for being verified.
    fetched: VecDeque<Job<'a>>,
}

/// A chunk of a layer, and the reads that it still needs.
struct Job<'a> {
    rest: Arc<Rest<'a>>,
    member: usize,
    pieces: VecDeque<Span>,
}

/// What is left of a layer.
struct Rest<'a> {
    layer: Arc<Layer<'a>>,
    /// Files by place in an order that a hash decides, and the next of their chunks.
    cursor: Mutex<(Vec<usize>, usize, usize)>,
}

impl<'a> Background<'a> {
    /// A layer was mounted.
    pub(super) fn add(&self, layer: &Arc<Layer<'a>>, processors: usize) {
        let Some(content) = layer.content.get() else { return };
        let mut order: Vec<usize> = (0..content.files.len()).collect();
        // A node's order is that of a map, so random; this one is as good and the same in every replay.
        order.sort_by_cached_key(|index| {
            content.files.get(*index).map(|file| *Digest::of(file.path.as_bytes()).as_bytes())
        });
        let rest = Arc::new(Rest { layer: Arc::clone(layer), cursor: Mutex::new((order, 0, 0)) });
        let jobs: Vec<Job<'a>> = (0..processors).filter_map(|_| Job::next(&rest)).collect();
        self.lock().ring.extend(jobs);
        self.changed.notify_all();
    }

    /// Fetches until the start is over.
    pub(super) fn fetch(&self, shared: &Shared<'_>) -> Result<(), Stop> {
        loop {
            let Some(mut job) = self.take(shared, |state| &mut state.ring) else { return Ok(()) };
            let Some(number) = shared.tasks.quiet() else { return Ok(()) };
            if let Some(piece) = job.pieces.front().copied() {
                match job.rest.layer.fetch(piece, Cause::Background, Some(number)) {
                    Ok(()) => {
                        job.pieces.pop_front();
                    }
                    // It is its turn again when nothing prioritised runs.
                    Err(Stop::Cancelled | Stop::Late(_)) => {
                        self.lock().ring.push_front(job);
                        continue;
                    }
                    Err(failed @ Stop::Failed(_)) => return Err(failed),
                }
            }
            let mut state = self.lock();
            if job.pieces.is_empty() {
                state.fetched.push_back(job);
            } else {
                state.ring.push_back(job);
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Verifies what was fetched until the start is over.
    pub(super) fn verify(&self, shared: &Shared<'_>) -> Result<(), Stop> {
        while let Some(job) = self.take(shared, |state| &mut state.fetched) {
            if let Some(content) = job.rest.layer.content.get() {
                job.rest.layer.verify(content, job.member, Cause::Background)?;
            }
            if let Some(next) = Job::next(&job.rest) {
                self.lock().ring.push_back(next);
                self.changed.notify_all();
            }
        }
        Ok(())
    }

    /// The next job of a queue; `None` when the start is over.
    fn take(
        &self,
        shared: &Shared<'_>,
        queue: for<'b> fn(&'b mut State<'a>) -> &'b mut VecDeque<Job<'a>>,
    ) -> Option<Job<'a>> {
        let mut state = self.lock();
        loop {
            if shared.tasks.is_over() {
                return None;
            }
            while let Some(job) = queue(&mut state).pop_front() {
                // What is left of a layer that is pulled whole falls away when its turn comes.
                if !job.rest.layer.is_abandoned() {
                    return Some(job);
                }
            }
            state = self.changed.wait_timeout(state, PATIENCE).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Wakes who waits for jobs.
    pub(super) fn end(&self) {
        drop(self.lock());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Job<'a> {
    /// The next chunk of a layer that is not there.
    fn next(rest: &Arc<Rest<'a>>) -> Option<Self> {
        let content = rest.layer.content.get()?;
        let mut cursor = rest.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        let (order, place, chunk) = &mut *cursor;
        loop {
            let file = content.files.get(*order.get(*place)?)?;
            let Some((_, member)) = file.chunks.get(*chunk) else {
                (*place, *chunk) = (*place + 1, 0);
                continue;
            };
            *chunk += 1;
            if content.members.get(*member).is_some_and(|member| member.made_by().is_none()) {
                let pieces = content.pieces(file, *member).collect();
                return Some(Self { rest: Arc::clone(rest), member: *member, pieces });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use super::*;
    use crate::{
        base::BaseChoice,
        blob::Spool,
        compile_cache::AT_DEFAULT,
        estargz::EstargzReader,
        naming::Naming,
        oci::{Platform, digest_of, open, read_image},
        pack::{
            CacheOptions, Destination, FormatChoice, ModelDirectory, PackOptions, PlatformOptions, prepare,
        },
        plan::{CHUNK_SIZE_MIN, Compression, MAX_LAYERS_DEFAULT, Nodes, Prefetch},
        progress::Unobserved,
        replay::{
            NodeSettings, ReplayImage,
            content::Content,
            record::{Fetched, Record},
            tasks::Tasks,
        },
        snapshot::SnapshotOptions,
    };

    /// Packs a model of some chunks into a layout.
    fn pack(directory: &std::path::Path) -> std::path::PathBuf {
        let model = directory.join("model");
        fs::create_dir(&model).unwrap();
        fs::write(model.join("config.json"), "{}").unwrap();
        let bytes: Vec<u8> =
            (0..700_000_u32).map(|index| index.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        for name in ["a.dat", "b.dat"] {
            fs::write(model.join(name), &bytes).unwrap();
        }
        let options = PackOptions {
            snapshot: model.to_str().unwrap().to_owned(),
            files: SnapshotOptions::default(),
            platforms: vec![PlatformOptions { platform: Platform::default(), base: BaseChoice::Scratch }],
            index: None,
            model_directory: ModelDirectory::default(),
            format: FormatChoice::Estargz { level: 1 },
            compression: Compression::Store,
            compress_weights: false,
            prefetch: Prefetch::None,
            nodes: Nodes::Default,
            profile: None,
            profile_is_specific: false,
            caches: CacheOptions { caches: Vec::new(), at: AT_DEFAULT.to_owned(), strict: false },
            chunk_size: CHUNK_SIZE_MIN,
            max_layers: MAX_LAYERS_DEFAULT,
            threads: 1,
            modified: 0,
            temporary: std::env::temp_dir(),
            digest_cache: None,
            verify_sources: false,
        };
        let path = directory.join("layout");
        let destination =
            Destination::Layout { path: path.clone(), tag: "v1".to_owned(), naming: Naming::Move };
        let prepared = prepare(options, || unreachable!("no registry")).unwrap();
        prepared.write(&[destination], &Unobserved).unwrap();
        path
    }

    #[test]
    fn all_of_a_layer_comes_and_is_verified() {
        let directory = tempfile::tempdir().unwrap();
        let target = format!("oci:{}:v1", pack(directory.path()).display()).parse().unwrap();
        let source = open(&target, || unreachable!("no registry")).unwrap();
        let image = read_image(&*source, &Platform::default()).unwrap();
        let descriptor = image.manifest.layers().iter().max_by_key(|layer| layer.size()).unwrap();
        let (digest, size) = (digest_of(descriptor, "test").unwrap(), descriptor.size());
        let node = NodeSettings::default();
        let shared = Shared {
            place: "test".to_owned(),
            node: &node,
            tasks: Tasks::default(),
            record: Record::new(),
            helpers: 0.into(),
        };
        shared.record.layers(1);
        let wire = ReplayImage { source: &*source, registry: None }.wire(digest, size).unwrap();
        let file = Spool::new(directory.path(), 0).temporary_file().unwrap();
        let layer = Arc::new(Layer::new(0, (digest, size), wire, file, &shared));
        // Not by a mount, after which the background would be silent for five seconds.
        let reader = EstargzReader::open(&*source.blob(digest, size).unwrap(), None).unwrap();
        layer.content.set(Content::of(&reader, size).unwrap()).unwrap();
        let background = Background::default();
        background.add(&layer, 2);
        let members = &layer.content.get().unwrap().members;
        assert!(members.len() > 8, "{}", members.len());
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| assert!(background.fetch(&shared).is_ok()));
            }
            scope.spawn(|| assert!(background.verify(&shared).is_ok()));
            while members.iter().any(|member| member.made_by().is_none()) {
                thread::sleep(Duration::from_millis(1));
            }
            shared.tasks.end();
            background.end();
        });
        assert!(members.iter().all(|member| member.made_by() == Some(Cause::Background)));
        let Fetched { requests, bytes } = shared.record.tally().layers[0][Cause::Background.index()];
        assert!(requests >= 1 && bytes > 1_400_000 && bytes < 2 * size, "{requests} {bytes} of {size}");

        // A layer that is pulled whole after all gets nothing.
        let shared = Shared {
            place: "test".to_owned(),
            node: &node,
            tasks: Tasks::default(),
            record: Record::new(),
            helpers: 0.into(),
        };
        shared.record.layers(1);
        let wire = ReplayImage { source: &*source, registry: None }.wire(digest, size).unwrap();
        let file = Spool::new(directory.path(), 0).temporary_file().unwrap();
        let layer = Arc::new(Layer::new(0, (digest, size), wire, file, &shared));
        layer.content.set(Content::of(&reader, size).unwrap()).unwrap();
        let background = Background::default();
        background.add(&layer, 2);
        layer.abandon();
        assert!(layer.wait_released(std::time::Instant::now()));
        assert!(matches!(layer.fetch(Span::new(0, 1), Cause::Prefetch, None), Err(Stop::Cancelled)));
        thread::scope(|scope| {
            let fetching = scope.spawn(|| assert!(background.fetch(&shared).is_ok()));
            while !background.lock().ring.is_empty() {
                thread::sleep(Duration::from_millis(1));
            }
            shared.tasks.end();
            background.end();
            fetching.join().unwrap();
        });
        assert_eq!(shared.record.tally().total.bytes, 0);
    }
}
