//! A container image of a program, in lazily pullable layers: the same bytes for the same program, on every machine.

use std::{
    collections::BTreeMap,
    error::Error,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use starcar::{
    base::Base,
    blob::{FileStamp, Source, Spool},
    digest::Digest,
    estargz::{Estargz, LANDMARK_CONTENT, PREFETCH_LANDMARK},
    layer::{Content, Data, Entry, EntryKind, LayerFormat, SealOptions, SealedLayer, Storage, Workers, seal},
    oci::{ConfigOptions, ImageLayer, Layout, Platform, build_image},
    plan::{CHUNK_SIZE_DEFAULT, chunk_lengths},
};

/// Deflate level of all files.
const LEVEL: u32 = 9;
/// Who runs in the image: the user that the image's config names, by number, with the group that users without a name
/// have on clusters that give each namespace its own.
const PASSWD: &str = "root:x:0:0:root:/:/bin/sh\nstarcar:x:1010:0:starcar:/home/starcar:/bin/sh\n";
const GROUP: &str = "root:x:0:\n";
const USER: u64 = 1010;
/// Where programs look for the authorities that they trust.
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";

/// What goes into the image.
#[derive(Debug, Clone)]
pub(crate) struct ImageOptions {
    /// The program, a static executable.
    pub program: PathBuf,
    /// A static busybox, for the shell that pipelines run.
    pub busybox: Option<PathBuf>,
    /// Authorities to trust, as PEM.
    pub certificates: Option<PathBuf>,
    /// The platform of program and busybox.
    pub platform: Platform,
    /// The program's version.
    pub version: String,
    /// The commit that it was built from.
    pub revision: Option<String>,
    /// Where its source code is.
    pub source: Option<String>,
    /// Time that the image and its files bear, seconds since 1970.
    pub modified: i64,
    /// Threads to use; they decide no byte.
    pub threads: usize,
}

/// Writes the image into the layout in `directory` under `tag`; returns the manifest's digest.
///
/// # Errors
/// When a file cannot be read or the layout not be written.
pub(crate) fn write_image(
    options: &ImageOptions,
    directory: &Path,
    tag: &str,
) -> Result<Digest, Box<dyn Error>> {
    let layout = Layout::create(directory)?;
    let (system, created_by) = system(options)?;
    let program = with_landmark(program(options)?, options);
    let layers = [
        (write_layer(&with_landmark(system, options), &layout, options)?, created_by),
        (write_layer(&program, &layout, options)?, "starcar: /usr/local/bin/starcar".to_owned()),
    ];
    let listed: Vec<ImageLayer<'_>> = layers
        .iter()
        .map(|(sealed, created_by)| ImageLayer {
            sealed,
            created_by: created_by.clone(),
            annotations: sealed.annotations.clone(),
        })
        .collect();
    let labels = labels(options)?;
    let built = build_image(
        &listed,
        &ConfigOptions {
            platform: options.platform.clone(),
            environment: vec![
                "PATH=/usr/local/bin:/bin".to_owned(),
                // A user whom passwd does not know would have `/`, where nothing can be written.
                "HOME=/home/starcar".to_owned(),
            ],
            annotations: labels.clone(),
            labels,
            created: options.modified,
        },
    )?;
    layout.add_blob(&built.config)?;
    layout.add_blob(&built.manifest)?;
    layout.tag(built.descriptor, tag, false)?;
    Ok(built.digest)
}

/// The layer below the program: a shell, a user, a home, authorities to trust.
fn system(options: &ImageOptions) -> Result<(Vec<Entry>, String), Box<dyn Error>> {
    let time = options.modified;
    let mut entries = Vec::new();
    let mut created_by = "starcar: a user and /tmp";
    if let Some(busybox) = &options.busybox {
        let base = Base::from_binary(busybox, &options.platform, time)?;
        entries.extend(base.layers.into_iter().flat_map(|layer| layer.entries));
        created_by = "starcar: busybox, a user and /tmp";
    } else {
        entries.push(Entry::new("tmp", 0o1777, time, EntryKind::Directory));
    }
    let directory = |path: &str| Entry::new(path, 0o755, time, EntryKind::Directory);
    let text = |path: &str, text: Vec<u8>| {
        let content = Content::bytes(text, Storage::Compressed);
        Entry::new(path, 0o644, time, EntryKind::Regular(content))
    };
    entries.push(directory("etc"));
    entries.push(text("etc/group", GROUP.into()));
    entries.push(text("etc/passwd", PASSWD.into()));
    if let Some(certificates) = &options.certificates {
        entries.extend([directory("etc/ssl"), directory("etc/ssl/certs")]);
        entries.push(text(CERTIFICATES, read(certificates)?));
    }
    entries.push(directory("home"));
    let mut home = Entry::new("home/starcar", 0o775, time, EntryKind::Directory);
    home.uid = USER;
    entries.push(home);
    Ok((entries, created_by.to_owned()))
}

fn program(options: &ImageOptions) -> Result<Vec<Entry>, Box<dyn Error>> {
    let path = &options.program;
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    let metadata = File::open(path).and_then(|file| file.metadata()).map_err(named)?;
    if !metadata.is_file() {
        return Err(format!("{} is no regular file", path.display()).into());
    }
    let stamp = FileStamp::of(&metadata);
    let content = Content {
        data: Data::Source { source: Arc::new(Source::Path { path: path.clone(), stamp }), offset: 0 },
        storage: Storage::Compressed,
        chunks: chunk_lengths(stamp.size, CHUNK_SIZE_DEFAULT),
        expected: Vec::new(),
    };
    let directory = |path: &str| Entry::new(path, 0o755, options.modified, EntryKind::Directory);
    Ok(vec![
        directory("usr"),
        directory("usr/local"),
        directory("usr/local/bin"),
        Entry::new("usr/local/bin/starcar", 0o755, options.modified, EntryKind::Regular(content)),
    ])
}

/// All of a layer is prefetched: every start needs all of it.
fn with_landmark(mut entries: Vec<Entry>, options: &ImageOptions) -> Vec<Entry> {
    let content = Content::bytes(vec![LANDMARK_CONTENT], Storage::Stored);
    entries.push(Entry::new(PREFETCH_LANDMARK, 0o644, options.modified, EntryKind::Regular(content)));
    entries
}

fn write_layer(
    entries: &[Entry],
    layout: &Layout,
    options: &ImageOptions,
) -> Result<SealedLayer, Box<dyn Error>> {
    let format: Arc<dyn LayerFormat> = Arc::new(Estargz::new(LEVEL));
    let workers = Workers::new(options.threads)?;
    let spool = Spool::new(std::env::temp_dir(), 0);
    let seal_options = SealOptions { workers: &workers, spool: &spool, on_bytes: &|_| {} };
    let mut writer = layout.blob_writer()?;
    let sealed = seal(entries, &format, &seal_options, Some(&mut writer))?;
    writer.commit(sealed.digest)?;
    Ok(sealed)
}

/// What the image says of itself; of the files that others made, their digests.
fn labels(options: &ImageOptions) -> Result<BTreeMap<String, String>, Box<dyn Error>> {
    let mut labels = BTreeMap::new();
    let mut add = |name: &str, value: Option<String>| {
        labels.extend(value.map(|value| (name.to_owned(), value)));
    };
    let digest = |path: &Option<PathBuf>| -> Result<Option<String>, Box<dyn Error>> {
        path.as_deref().map(|path| Ok(Digest::of(&read(path)?).to_string())).transpose()
    };
    add("org.opencontainers.image.title", Some("starcar".to_owned()));
    add("org.opencontainers.image.description", Some(env!("CARGO_PKG_DESCRIPTION").to_owned()));
    add("org.opencontainers.image.licenses", Some(env!("CARGO_PKG_LICENSE").to_owned()));
    add("org.opencontainers.image.version", Some(options.version.clone()));
    add("org.opencontainers.image.revision", options.revision.clone());
    add("org.opencontainers.image.source", options.source.clone());
    add("dev.starcar.busybox.digest", digest(&options.busybox)?);
    add("dev.starcar.ca-certificates.digest", digest(&options.certificates)?);
    Ok(labels)
}

fn read(path: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()).into())
}
