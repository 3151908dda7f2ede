//! What a command can fail with, the exit code that says so and the next step.

use std::{error::Error, io};

use crate::{
    assemble::{AssembleError, PartsError},
    attach::AttachError,
    base::{BASE_DEFAULT, BaseError},
    blob::SourceError,
    compile_cache::{CacheError, host::HostError},
    hub::HubError,
    layer::LayerError,
    oci::OciError,
    pack::{PART_TYPE, PackError},
    profile::{ProfileError, record::RecordError},
    registry::RegistryError,
    replay::ReplayError,
    report::ReportError,
    snapshot::SnapshotError,
    verify::VerifyError,
};

/// Exit codes. They are part of the interface: scripts branch on them.
pub mod exit_code {
    /// Everything was done.
    pub const OK: u8 = 0;
    /// Something failed that has no code of its own.
    pub const FAILURE: u8 = 1;
    /// The arguments are wrong.
    pub const USAGE: u8 = 2;
    /// The snapshot is incomplete, damaged, changing, or cannot be read.
    pub const SNAPSHOT: u8 = 3;
    /// The base cannot be read or used.
    pub const BASE: u8 = 4;
    /// An image in a layout or archive cannot be read or written.
    pub const IMAGE: u8 = 5;
    /// A registry refused or failed.
    pub const REGISTRY: u8 = 6;
    /// A profile cannot be read, written or recorded.
    pub const PROFILE: u8 = 7;
    /// A compile cache cannot be read, or must not be shipped.
    pub const CACHE: u8 = 8;
    /// `starcar verify` found something that is wrong.
    pub const FOUND_ERRORS: u8 = 9;
    /// `starcar verify` found nothing worse than warnings.
    pub const FOUND_WARNINGS: u8 = 10;
    /// `starcar replay` took longer, or fetched more, than it was allowed to.
    pub const OVER_LIMIT: u8 = 11;
    /// `starcar node check` found that something is missing on a node.
    pub const NODE_LACKS: u8 = 12;
    /// `starcar cache check` found that a cache does not fit. Errors have other codes.
    pub const UNFIT: u8 = 1;
    /// `profile diff` found a difference, as `diff` says it. Errors have other codes.
    pub const DIFFERENT: u8 = 1;
    /// `starcar record` cannot run its command, as shells say it.
    pub const NOT_RUNNABLE: u8 = 126;
    /// `starcar record` cannot find its command, as shells say it.
    pub const NOT_FOUND: u8 = 127;
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// Arguments that contradict each other.
    #[error("{0}")]
    Usage(String),
    /// A repository on the hub could not be downloaded.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// Packing failed.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// An image could not be read or pushed.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// A profile could not be read, written or made.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// A profile that is attached to an image could not be had.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A compile cache could not be read.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// What is said to be a compile cache is not there.
    #[error("{0}")]
    NoSuchCache(String),
    /// A host's facts could not be had.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A file of a snapshot could not be compared with an image's.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// An image has no compile caches.
    #[error("{image} has no compile caches that starcar packed{}", variant_names(variants))]
    NoCaches {
        image: String,
        /// GPU targets of its variants.
        variants: Vec<String>,
    },
    /// A start could not be recorded.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A start could not be replayed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// A report could not be made of logs.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The digest cache cannot be shown or cleared. Packing goes on without it.
    #[error("cannot use {what}")]
    DigestCache {
        what: String,
        #[source]
        cause: io::Error,
    },
    /// Parts do not make an image.
    #[error("{problem}")]
    Parts {
        problem: PartsError,
        /// Whether they lie in a registry.
        remote: bool,
    },
    /// Output could not be written.
    #[error("cannot write {what}")]
    Output {
        what: String,
        #[source]
        cause: io::Error,
    },
}

impl From<AssembleError> for CliError {
    fn from(error: AssembleError) -> Self {
        match error {
            AssembleError::Oci(error) => error.into(),
            AssembleError::Pack(error) => error.into(),
            AssembleError::Parts { problem, remote } => Self::Parts { problem, remote },
        }
    }
}

impl From<VerifyError> for CliError {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Oci(error) => error.into(),
            VerifyError::Source(error) => error.into(),
        }
    }
}

impl CliError {
    /// For `map_err` on standard output.
    pub(super) fn stdout(cause: io::Error) -> Self {
        Self::Output { what: "to standard output".to_owned(), cause }
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_)
            | Self::Host(_)
            | Self::Profile(ProfileError::Unknown { .. })
            | Self::Hub(
                HubError::Reference { .. }
                | HubError::Environment { .. }
                | HubError::Snapshot(SnapshotError::InvalidGlob { .. }),
            ) => exit_code::USAGE,
            Self::Output { .. }
            | Self::DigestCache { .. }
            | Self::Report(_)
            | Self::Replay(ReplayError::Temporary(_) | ReplayError::Thread(_)) => exit_code::FAILURE,
            Self::Oci(error)
            | Self::Attach(AttachError::Oci(error))
            | Self::Replay(ReplayError::Image(error)) => of_oci(error),
            Self::Parts { remote: true, .. } => exit_code::REGISTRY,
            Self::Replay(_) | Self::Parts { .. } => exit_code::IMAGE,
            Self::Cache(_) | Self::NoSuchCache(_) | Self::NoCaches { .. } => exit_code::CACHE,
            Self::Hub(_) | Self::Source(_) => exit_code::SNAPSHOT,
            Self::Record(RecordError::Spawn { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
                exit_code::NOT_FOUND
            }
            Self::Record(RecordError::Spawn { .. }) => exit_code::NOT_RUNNABLE,
            Self::Profile(_) | Self::Attach(_) | Self::Record(_) => exit_code::PROFILE,
            Self::Pack(error) => match error {
                PackError::Snapshot(SnapshotError::InvalidGlob { .. })
                | PackError::Plan(_)
                | PackError::ModelDirectory { .. }
                | PackError::CacheClash { .. }
                | PackError::CachePlatform { .. }
                | PackError::NoPlatform
                | PackError::CacheInSnapshot { .. }
                | PackError::VariantTag { .. }
                | PackError::NotAPart { .. }
                | PackError::PartInArchive { .. }
                | PackError::CacheDirectory { .. } => exit_code::USAGE,
                PackError::Snapshot(_)
                | PackError::KnownLayer { .. }
                | PackError::Sample { .. }
                | PackError::Whiteout { .. }
                | PackError::Layer(
                    LayerError::Source(_) | LayerError::Damaged { .. } | LayerError::Entry { .. },
                ) => exit_code::SNAPSHOT,
                PackError::Cache(_)
                | PackError::CacheFindings { .. }
                | PackError::CacheLayer(
                    LayerError::Source(_) | LayerError::Damaged { .. } | LayerError::Entry { .. },
                ) => exit_code::CACHE,
                PackError::Base(_) | PackError::PlatformBase { .. } => exit_code::BASE,
                PackError::Layer(LayerError::Write(_) | LayerError::Spool(_))
                | PackError::CacheLayer(LayerError::Write(_) | LayerError::Spool(_))
                | PackError::DiskSpace { .. }
                | PackError::SpoolSpace { .. } => exit_code::IMAGE,
                PackError::Oci(error) => of_oci(error),
                PackError::LayerTooLarge { .. } => exit_code::REGISTRY,
                PackError::Threads(_)
                | PackError::Layer(LayerError::Compress(_))
                | PackError::CacheLayer(LayerError::Compress(_)) => exit_code::FAILURE,
            },
        }
    }

    /// The next step, where the message does not say it already.
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::Pack(PackError::Base(BaseError::Image(_))) => Some(format!(
                "--base takes any image instead of {BASE_DEFAULT}, a static busybox (--base /bin/busybox), \
                 or `scratch`, which is enough where the image is mounted as a volume"
            )),
            Self::Oci(OciError::NotAnImage { kind, .. }) if kind == PART_TYPE => {
                Some("it is a part of an image: `starcar assemble` makes the image of all its parts".to_owned())
            }
            Self::Oci(OciError::NoSuchPlatform { .. })
            | Self::Replay(ReplayError::Image(OciError::NoSuchPlatform { .. })) => {
                Some("--platform OS/ARCH takes one of those that there are".to_owned())
            }
            Self::Pack(PackError::PlatformBase { platform, .. }) => Some(format!(
                "--base {platform}=BASE names one for that platform alone: an image, a static busybox, or `scratch`"
            )),
            Self::Pack(PackError::CachePlatform { .. }) => Some(
                "add the --platform that it is for, or leave it out: engines would try to load what is in it".to_owned(),
            ),
            Self::Pack(PackError::LayerTooLarge { remedy, .. }) | Self::Oci(OciError::BlobTooLarge { remedy, .. }) => {
                Some(remedy.clone())
            }
            Self::Pack(PackError::Oci(OciError::Registry(error))) | Self::Oci(OciError::Registry(error)) => {
                of_registry(error).map(str::to_owned)
            }
            Self::Pack(PackError::Layer(LayerError::Spool(_))) => {
                Some("TMPDIR chooses where temporary files go".to_owned())
            }
            Self::Parts { problem, .. } => of_parts(problem),
            Self::NoCaches { variants, .. } if !variants.is_empty() => {
                Some(format!("name one with its target behind the tag, as in TAG-{}", variants[0]))
            }
            Self::NoCaches { .. } => Some("`starcar pack --cache DIR` packs them".to_owned()),
            Self::Hub(error) => of_hub(error).map(str::to_owned),
            Self::Profile(error) => of_profile(error),
            Self::Attach(AttachError::None { .. }) => Some(
                "`starcar profile attach PROFILE IMAGE` attaches one, and `starcar pack --push --attach-profile` the \
                 one that it lays the image out by"
                    .to_owned(),
            ),
            Self::Record(error) => of_record(error).map(str::to_owned),
            Self::Report(error) => of_report(error).map(str::to_owned),
            Self::Usage(_) => Some("`starcar help` and `starcar help COMMAND` list all options".to_owned()),
            _ => None,
        }
    }
}

fn variant_names(targets: &[String]) -> String {
    match targets {
        [] => String::new(),
        targets => format!("; they are in its variants for {}", targets.join(", ")),
    }
}

/// The next step where parts make no image.
fn of_parts(problem: &PartsError) -> Option<String> {
    let others = "with the options of the other parts";
    match problem {
        PartsError::None { make, .. } => Some(format!("`{make}` makes one; each of N workers makes another")),
        PartsError::Missing { make, missing, .. } if missing.len() == 1 => {
            Some(format!("`{make}` makes it, {others}"))
        }
        PartsError::Missing { make, .. } => Some(format!("`{make}` makes the first of them, {others}")),
        PartsError::Counts { .. } => Some("--parts N takes those of one of them".to_owned()),
        PartsError::Names { .. } => Some("name one of them, as oci:DIR:TAG".to_owned()),
        PartsError::OtherPlan { part, .. } | PartsError::Twice { part, .. } => Some(format!(
            "`starcar pack SNAPSHOT … --part {part}` makes the part again, {others} and the same files; a part of an \
             earlier attempt is replaced by it"
        )),
        PartsError::Version { part, .. } => Some(format!(
            "use that version, or make the parts again with this one: `starcar pack SNAPSHOT … --part {part}`"
        )),
        PartsError::OtherFile { first_part, second_part, .. } => Some(format!(
            "give all workers the same revision, and make part {first_part} or part {second_part} again"
        )),
        PartsError::Damaged { part, .. } | PartsError::OtherLayers { part, .. } => {
            Some(format!("`starcar pack SNAPSHOT … --part {part}` makes the part again, {others}"))
        }
        PartsError::Untold { part, .. } | PartsError::OtherGiven { part, .. } => Some(format!(
            "`starcar pack SNAPSHOT … --part {part}` makes the part again, {others} and under the same names; without \
             --provenance and --sbom the image is assembled of these"
        )),
        PartsError::NotAPart { .. } | PartsError::Layer { .. } | PartsError::Documents { .. } => None,
    }
}

/// The next step after the hub failed.
fn of_hub(error: &HubError) -> Option<&'static str> {
    match error {
        HubError::Network { .. } | HubError::Server { status: 500.., .. } | HubError::RateLimited { .. } => {
            Some(
                "run the same command again: it goes on where this one ended; HF_HUB_OFFLINE=1 takes what the cache has",
            )
        }
        HubError::Server { .. } => {
            Some("check the name and HF_ENDPOINT; a mirror or a proxy may have answered in the hub's place")
        }
        HubError::Protocol { .. } => Some(
            "run it again; if it stays, a mirror (HF_ENDPOINT) or a proxy (HTTPS_PROXY) may have answered in the hub's \
             place",
        ),
        HubError::Setup(_) => {
            Some("check HTTPS_PROXY and SSL_CERT_FILE, which every connection is set up by")
        }
        HubError::Cache { source, .. } if !is_full(source) => None,
        HubError::DiskSpace { .. } | HubError::Cache { .. } => {
            Some("run the same command again when there is room: it goes on where this one ended")
        }
        HubError::Reference { .. } => Some("`starcar help pack` says what a snapshot can be"),
        _ => None,
    }
}

/// Whether there was no room for what was written.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn of_profile(error: &ProfileError) -> Option<String> {
    match error {
        ProfileError::Import { hint, .. } => hint.clone(),
        ProfileError::Pattern { .. } => {
            Some("--snapshot SNAPSHOT puts files in the place of patterns".to_owned())
        }
        ProfileError::Format { .. } => Some(
            "`starcar profile import` makes profiles of logs of strace and records of ctr-remote".to_owned(),
        ),
        _ => None,
    }
}

/// What a container needs for FUSE.
const CONTAINER: &str = "a container needs `--device /dev/fuse --cap-add SYS_ADMIN`";

fn of_record(error: &RecordError) -> Option<&'static str> {
    let forbidden = |cause: &io::Error| {
        cause.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error())
            || cause.to_string().contains("not permitted")
    };
    match error {
        RecordError::NoDevice(cause) if forbidden(cause) => Some(CONTAINER),
        RecordError::NoFusermount if rustix::process::geteuid().is_root() => Some(CONTAINER),
        // What fusermount3 says.
        RecordError::Mount { cause, .. } if cause.to_string().contains("user_allow_other") => {
            Some("a line `user_allow_other` in /etc/fuse.conf permits --allow-other; root needs none")
        }
        RecordError::Mount { cause, .. } if forbidden(cause) => Some(CONTAINER),
        RecordError::Mount { cause, .. }
            if !matches!(
                cause.kind(),
                io::ErrorKind::PermissionDenied
                    | io::ErrorKind::ReadOnlyFilesystem
                    | io::ErrorKind::NotFound
                    | io::ErrorKind::NotADirectory
            ) =>
        {
            None
        }
        RecordError::NoDevice(cause) if cause.kind() == io::ErrorKind::NotFound => Some(
            "`modprobe fuse` loads the driver; a container needs `--device /dev/fuse --cap-add SYS_ADMIN`",
        ),
        RecordError::NoDevice(_) => Some("this user needs leave to read and write /dev/fuse"),
        RecordError::NoFusermount => Some("install the package fuse3"),
        RecordError::Mount { .. } | RecordError::Place { .. } => {
            Some("--mount DIR, and --cache DIR:/MOUNT, take any empty directory of one's own")
        }
        RecordError::StillMounted(_) => {
            Some("`fusermount3 -u -z DIR`, or as root `umount -l DIR`, takes it away")
        }
        RecordError::NotReady(_) => Some("the profile has what was read until then; --timeout takes more"),
        RecordError::NotReadyAtEnd => Some(
            "compare --until or --until-http with what the command says; a profile of it says `endedEarly`",
        ),
        RecordError::Overlap(..) => Some("--cache DIR:/MOUNT mounts a cache elsewhere"),
        _ => None,
    }
}

/// The next step where logs tell nothing.
fn of_report(error: &ReportError) -> Option<&'static str> {
    match error {
        ReportError::Nothing { .. } => Some(
            "understood are logs of vLLM (0.6 and later) and SGLang, of containerd, the kubelet and `kubectl get events`, and \
             of stargz-snapshotter; give the whole log, from the engine's first line on",
        ),
        ReportError::NoSuchStart { .. } => Some("--start all shows every start of a log"),
        _ => None,
    }
}

/// The next step after a registry failed.
fn of_registry(error: &RegistryError) -> Option<&'static str> {
    match error {
        RegistryError::Network { action, .. }
        | RegistryError::Stalled { action, .. }
        | RegistryError::RateLimited { action, .. }
        | RegistryError::Server { action, status: 500.., .. }
            if action.starts_with("push blob") =>
        {
            Some("run the same command again: what the registry has is not sent again")
        }
        _ => None,
    }
}

fn of_oci(error: &OciError) -> u8 {
    match error {
        OciError::Target { .. }
        | OciError::Platform(_)
        | OciError::NoSuchPlatform { .. }
        | OciError::Registry(RegistryError::AuthFile { .. } | RegistryError::Certificate { .. }) => {
            exit_code::USAGE
        }
        // The files that are packed: no registry is to blame.
        OciError::Registry(RegistryError::Source { source, .. })
            if source.get_ref().is_some_and(<dyn Error + Send + Sync>::is::<SourceError>) =>
        {
            exit_code::SNAPSHOT
        }
        OciError::ReadBlob { cause, .. }
            if cause.get_ref().is_some_and(<dyn Error + Send + Sync>::is::<RegistryError>) =>
        {
            exit_code::REGISTRY
        }
        OciError::Registry(_) | OciError::TagTaken { .. } | OciError::BlobTooLarge { .. } => {
            exit_code::REGISTRY
        }
        _ => exit_code::IMAGE,
    }
}
