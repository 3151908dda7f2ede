//! A push of one blob to a registry that disturbs it.

use std::{
    sync::{Arc, LazyLock, mpsc},
    thread,
    time::Duration,
};

use starcar::{
    blob::{BlobContent, MemoryBlob},
    digest::Digest,
    registry::{Reference, Registry, RegistryError, RegistryOptions, TlsOptions},
};

use crate::support::words::words;
pub(crate) use crate::support::{noise::noise, registry::*};

/// Bytes of the blob that is pushed and pulled.
pub(crate) const SIZE: u64 = 2_000_000;
/// What a push may send where it can go on in the middle of a blob.
pub(crate) const ONCE: u64 = SIZE / 10 * 11;
/// What a push may send where half of the blob is lost.
pub(crate) const HALF_AGAIN: u64 = SIZE / 10 * 16;
/// What a push may send where all of the blob is lost.
pub(crate) const TWICE: u64 = SIZE / 10 * 21;

pub(crate) const REPOSITORY: &str = "ns/repo";
pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const MANIFEST: &[u8] = br#"{"schemaVersion":2,"layers":[]}"#;

/// The blob; every part of it is different.
pub(crate) static BYTES: LazyLock<Arc<[u8]>> =
    LazyLock::new(|| noise(usize::try_from(SIZE).unwrap(), 1).into());

pub(crate) fn digest() -> Digest {
    static DIGEST: LazyLock<Digest> = LazyLock::new(|| Digest::of(&BYTES));
    *DIGEST
}

/// A registry, and how it is talked to.
pub(crate) struct Trial {
    pub(crate) fake: FakeRegistry,
    pub(crate) options: RegistryOptions,
    pub(crate) dir: tempfile::TempDir,
}

impl Trial {
    pub(crate) fn new(fake: FakeOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authfile = dir.path().join("auth.json");
        std::fs::write(&authfile, "{}").unwrap();
        let options = RegistryOptions {
            authfile: Some(authfile),
            retries: 3,
            stall: Duration::from_secs(10),
            tls: TlsOptions::default(),
            ..RegistryOptions::default()
        };
        Self { fake: FakeRegistry::start(fake), options, dir }
    }

    pub(crate) fn faults(faults: impl Into<Vec<Fault>>) -> Self {
        Self::new(FakeOptions { faults: faults.into(), ..FakeOptions::default() })
    }

    pub(crate) fn auth(auth: Auth) -> Self {
        Self::new(FakeOptions { auth, ..FakeOptions::default() })
    }

    /// Changes how the registry is talked to.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut RegistryOptions)) -> Self {
        change(&mut self.options);
        self
    }

    /// Logs in with a user's name and password.
    pub(crate) fn password(self, user: &str, password: &str) -> Self {
        let auth = base64(format!("{user}:{password}").as_bytes());
        self.entry(&serde_json::json!({ "auth": auth }))
    }

    /// Writes the registry's entry in the auth file.
    pub(crate) fn entry(self, entry: &serde_json::Value) -> Self {
        let auths = serde_json::json!({ "auths": { self.fake.address(): entry } });
        std::fs::write(self.dir.path().join("auth.json"), auths.to_string()).unwrap();
        self
    }

    pub(crate) fn client(&self) -> Registry {
        Registry::new(self.options.clone()).unwrap()
    }

    pub(crate) fn target(&self) -> Reference {
        format!("{}/{REPOSITORY}:v1", self.fake.address()).parse().unwrap()
    }

    /// Pushes the blob, with a new client.
    pub(crate) fn push(&self) -> Result<(), RegistryError> {
        let blob: Arc<dyn BlobContent> = Arc::new(MemoryBlob::new(Arc::clone(&BYTES)));
        self.in_time(move |client, target| client.push_blobs(target, &[blob], &|_, _| {}))
    }

    /// Pushes several blobs side by side, each as long as the one of [`Self::push`], with a new client.
    pub(crate) fn push_many(&self, count: u8) -> Result<(), RegistryError> {
        let blob = |number| {
            let mut bytes = BYTES.to_vec();
            bytes[0] = number;
            Arc::new(MemoryBlob::new(bytes)) as Arc<dyn BlobContent>
        };
        let blobs: Vec<_> = (0..count).map(blob).collect();
        self.in_time(move |client, target| client.push_blobs(target, &blobs, &|_, _| {}))
    }

    /// Does something with a new client, and gives up on one that hangs.
    #[track_caller]
    pub(crate) fn in_time<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Registry, &Reference) -> T + Send + 'static,
    ) -> T {
        let (client, target) = (self.client(), self.target());
        let (sender, result) = mpsc::channel();
        thread::spawn(move || sender.send(work(&client, &target)).ok());
        let Ok(result) = result.recv_timeout(Duration::from_secs(20)) else {
            panic!(
                "the client hangs or panicked
{}",
                self.log()
            );
        };
        result
    }

    /// Pushes the blob, which arrives whole, with so many bytes received at most.
    #[track_caller]
    pub(crate) fn arrives(&self, most: u64) {
        if let Err(error) = self.push() {
            panic!("{}\n{}", words(&error), self.log());
        }
        let stored = self.fake.blob(REPOSITORY, digest());
        assert!(stored.is_some_and(|stored| *stored == **BYTES), "{}", self.log());
        assert!(self.fake.uploaded() <= most, "{}", self.log());
    }

    /// Pushes the blob in vain: what the user is told, with a name for what differs from run to run. The
    /// registry has nothing then.
    #[track_caller]
    pub(crate) fn fails(&self) -> String {
        let error = self.push().unwrap_err();
        assert_eq!((self.fake.blobs(), self.fake.tags(REPOSITORY).len()), (0, 0), "{}", self.log());
        self.said(&error)
    }

    /// An error with its causes, with a name for what differs from run to run.
    pub(crate) fn said(&self, error: &RegistryError) -> String {
        words(error)
            .replace(self.fake.address(), "REGISTRY")
            .replace(&digest().to_string(), "DIGEST")
            .replace(&self.dir.path().display().to_string(), "DIR")
    }

    /// The requests, for a test's message.
    pub(crate) fn log(&self) -> String {
        let line = |seen: Seen| {
            let query = seen.query.replace(&digest().to_string(), "DIGEST");
            let range = seen.content_range.or(seen.range).unwrap_or_default();
            let (at, status, body) = (seen.at.as_millis(), seen.status, seen.body);
            let (method, host, path) = (seen.method, seen.host, seen.path);
            format!("{at:>5} ms {method} {host}{path}?{query} {range} {body} bytes: {status}\n")
        };
        self.fake.seen().into_iter().map(line).collect()
    }
}
