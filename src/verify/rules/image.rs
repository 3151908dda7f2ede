//! Rules about what KServe and engines find in an image.
//!
//! Source: KServe, `pkg/utils/storage.go`, `pkg/webhook/admission/pod/storage_initializer_injector.go`, and
//! `kserve-storage` for what is downloaded.

use super::{Depth, FETCH, KSERVE, MODELCAR, NONE, Rule, Severity};

/// The rules of this table.
pub(super) const IMAGE_RULES: &[&Rule] = &[
    &ENTRYPOINT_SET,
    &USER_MISSING,
    &USER_NAME,
    &PASSWD_USER,
    &PASSWD_UNREAD,
    &SHELL_MISSING,
    &TOOL_MISSING,
    &MODELS_MISSING,
    &MODELS_SYMLINK,
    &MODELS_KIND,
    &MODELS_EMPTY,
    &MODELS_DIRECTORY_MODE,
    &MODELS_FILE_MODE,
    &MODELS_OWNER,
    &MODELS_SYMLINK_ABSOLUTE,
    &MODELS_SYMLINK_OUTSIDE,
    &MODELS_SYMLINK_DANGLING,
    &MODELS_HARDLINK,
    &MODELS_SPECIAL,
    &FETCH_GZIP,
    &FETCH_ZSTD,
    &FORMAT_LABEL,
    &LABEL_DIFFERS,
    &MODEL_LABEL,
    &OPTIONS_MALFORMED,
    &CACHE_LABEL_MALFORMED,
    &CACHE_MISSING,
    &CACHE_DIFFERS,
    &CACHE_LABEL_DIFFERS,
    &CACHE_UNLABELLED,
];

/// An image with an entrypoint.
pub static ENTRYPOINT_SET: Rule = Rule {
    code: "entrypoint-set",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: MODELCAR,
    description: "an image with an entrypoint",
    consequence: "KServe gives arguments and no command: the entrypoint is run with `sh -c …` as its arguments",
    remedy: "unset it (`ENTRYPOINT []`), or pack with starcar",
};

/// An image that runs as root, or does not say as whom.
pub static USER_MISSING: Rule = Rule {
    code: "user-missing",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: MODELCAR,
    description: "an image that runs as root, or does not say as whom",
    consequence: "Where a policy forbids root, modelcar-init is not started: it has no runAsUser of its own",
    remedy: "set the user to 1010:0",
};

/// An image whose user is a name.
pub static USER_NAME: Rule = Rule {
    code: "user-name",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: MODELCAR,
    description: "an image whose user is a name",
    consequence: "Where a policy forbids root, it is not started: only of a number can be told that it is not root",
    remedy: "set the user to 1010:0",
};

/// A password file that gives the users 1010 or 1000 another group than 0.
pub static PASSWD_USER: Rule = Rule {
    code: "passwd-user",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: MODELCAR,
    description: "a password file that gives the users 1010 or 1000 another group than 0",
    consequence: "KServe sets the user only, so the group comes from here; engines in group 0 are then refused at /proc/PID/root",
    remedy: "take the user out of /etc/passwd, or give it group 0",
};

/// A password file that cannot be read.
pub static PASSWD_UNREAD: Rule = Rule {
    code: "passwd-unread",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: NONE,
    description: "a password file that cannot be read from its layer",
    consequence: "Which groups containers of the image get is not known",
    remedy: "mend what else is found in the layer",
};

/// An image without `sh` in its PATH.
pub static SHELL_MISSING: Rule = Rule {
    code: "shell-missing",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: MODELCAR,
    description: "an image without an `sh` in its PATH that may be executed",
    consequence: "Modelcar containers run `sh -c …`: they do not start",
    remedy: "pack on a base with a shell (--base), or serve with oci+native://",
};

/// An image without one of `ln`, `ls`, `mkdir` and `sleep` in its PATH.
pub static TOOL_MISSING: Rule = Rule {
    code: "tool-missing",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: MODELCAR,
    description: "an image without one of `ln`, `ls`, `mkdir` and `sleep` in its PATH",
    consequence: "Modelcar containers run them: the init container fails, or the modelcar restarts again and again",
    remedy: "pack on a base that has them: a busybox of 1.35 or newer has all",
};

/// An image without /models.
pub static MODELS_MISSING: Rule = Rule {
    code: "models-missing",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: KSERVE,
    description: "an image without /models",
    consequence: "None of KServe's modes finds a model",
    remedy: "pack with the model at /models (--model-dir)",
};

/// /models is a symbolic link.
pub static MODELS_SYMLINK: Rule = Rule {
    code: "models-symlink",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: KSERVE,
    description: "/models is a symbolic link",
    consequence: "Volumes of images do not follow it out of their subPath, and other modes see it in another root",
    remedy: "put the files into a directory /models",
};

/// /models is no directory.
pub static MODELS_KIND: Rule = Rule {
    code: "models-kind",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: KSERVE,
    description: "/models is no directory",
    consequence: "None of KServe's modes finds a model",
    remedy: "put the files into a directory /models",
};

/// /models is empty.
pub static MODELS_EMPTY: Rule = Rule {
    code: "models-empty",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: KSERVE,
    description: "/models is empty",
    consequence: "KServe's init container fails",
    remedy: "pack again with the model at /models",
};

/// A directory of the model that others may not enter.
pub static MODELS_DIRECTORY_MODE: Rule = Rule {
    code: "models-directory-mode",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: KSERVE,
    description: "a directory of the model that others may not enter",
    consequence: "Engines run as users that the image does not know: they are refused",
    remedy: "set the mode to 0755 in the tar, not by a `RUN chmod`, which stores all weights twice",
};

/// A file of the model that others may not read.
pub static MODELS_FILE_MODE: Rule = Rule {
    code: "models-file-mode",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: KSERVE,
    description: "a file of the model that others may not read",
    consequence: "Engines run as users that the image does not know: they are refused",
    remedy: "set the mode to 0644 in the tar, not by a `RUN chmod`, which stores all weights twice",
};

/// Files of the model that do not belong to 0:0.
pub static MODELS_OWNER: Rule = Rule {
    code: "models-owner",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: NONE,
    description: "files of the model that do not belong to 0:0",
    consequence: "Nothing reads them differently, but images that share layers do not share these",
    remedy: "set the owner to 0:0 in the tar",
};

/// An absolute symbolic link below /models.
pub static MODELS_SYMLINK_ABSOLUTE: Rule = Rule {
    code: "models-symlink-absolute",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: KSERVE,
    description: "an absolute symbolic link below /models",
    consequence: "Engines see /models elsewhere, so it leads to a file of theirs or nowhere; KServe's downloader refuses it",
    remedy: "store the file in its place",
};

/// A symbolic link below /models that leads out of it.
pub static MODELS_SYMLINK_OUTSIDE: Rule = Rule {
    code: "models-symlink-outside",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: KSERVE,
    description: "a symbolic link below /models that leads out of it",
    consequence: "Engines see only /models: it leads nowhere",
    remedy: "store the file in its place, as `starcar pack` does with links of the hub's cache",
};

/// A symbolic link below /models to a file that is not there.
pub static MODELS_SYMLINK_DANGLING: Rule = Rule {
    code: "models-symlink-dangling",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: KSERVE,
    description: "a symbolic link below /models to a file that is not there",
    consequence: "Engines do not find the file",
    remedy: "store the file in its place, as `starcar pack` does with links of the hub's cache",
};

/// A hard link below /models, outside of compile caches.
pub static MODELS_HARDLINK: Rule = Rule {
    code: "models-hardlink",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: FETCH,
    description: "a hard link below /models, outside of compile caches",
    consequence: "KServe's downloader fails on it",
    remedy: "store the file twice",
};

/// A device, pipe or other special file below /models.
pub static MODELS_SPECIAL: Rule = Rule {
    code: "models-special",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: FETCH,
    description: "a device, pipe or other special file below /models",
    consequence: "No loader reads it, KServe's downloader fails, and it is no part of a model",
    remedy: "leave it out",
};

/// Layers of several gzip members (eStargz).
pub static FETCH_GZIP: Rule = Rule {
    code: "fetch-gzip",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: FETCH,
    description: "layers of several gzip members (eStargz)",
    consequence: "KServe's downloader stops at the end of the first member: the download fails",
    remedy: "pack another image with --layer-format tar for oci+fetch://",
};

/// Layers compressed with zstd.
pub static FETCH_ZSTD: Rule = Rule {
    code: "fetch-zstd",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: FETCH,
    description: "layers compressed with zstd (zstd:chunked among them)",
    consequence: "KServe's downloader does not know zstd",
    remedy: "pack another image with --layer-format tar for oci+fetch://",
};

/// An image whose layers are not of the format that its label states.
pub static FORMAT_LABEL: Rule = Rule {
    code: "format-label",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: NONE,
    description: "an image whose layers are not of the format that its label states",
    consequence: "Tools that go by the label take the image for what it is not",
    remedy: "pack the image again",
};

/// A label that says something else than the annotation of the same name.
pub static LABEL_DIFFERS: Rule = Rule {
    code: "label-differs",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: NONE,
    description: "a label that says something else than the annotation of the same name",
    consequence: "Which of them is right cannot be told",
    remedy: "pack the image again",
};

/// A label that says that the model is where nothing is.
pub static MODEL_LABEL: Rule = Rule {
    code: "model-label",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: NONE,
    description: "a label that says that the model is where nothing is",
    consequence: "Tools that go by the label do not find the model",
    remedy: "pack the image again",
};

/// An annotation that should say how the image was packed and cannot be understood.
pub static OPTIONS_MALFORMED: Rule = Rule {
    code: "options-malformed",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: NONE,
    description: "an annotation that should say how the image was packed and cannot be understood",
    consequence: "--rebuild cannot pack the image again, and --against does not know which files were left out",
    remedy: "pack the image again",
};

/// Labels of compile caches that cannot be understood.
pub static CACHE_LABEL_MALFORMED: Rule = Rule {
    code: "cache-label-malformed",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: NONE,
    description: "labels of compile caches that cannot be understood",
    consequence: "`starcar cache env` and `cache check` refuse the image, and engines compile again",
    remedy: "pack the image again",
};

/// A compile cache that the labels name and the layers do not have.
pub static CACHE_MISSING: Rule = Rule {
    code: "cache-missing",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: NONE,
    description: "a compile cache that the labels name and the layers do not have",
    consequence: "The copy at the start of the engine fails, and it compiles again",
    remedy: "pack the image again with --cache",
};

/// A compile cache of another number or size of files than the labels say.
pub static CACHE_DIFFERS: Rule = Rule {
    code: "cache-differs",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: NONE,
    description: "a compile cache of another number or size of files than the labels say",
    consequence: "The labels are another cache's: engines may compile again, or load code that was not checked",
    remedy: "pack the image again with --cache",
};

/// Labels for KServe's kernel caches that do not agree with starcar's record of the cache.
pub static CACHE_LABEL_DIFFERS: Rule = Rule {
    code: "cache-label-differs",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: NONE,
    description: "labels for KServe's kernel caches that do not agree with starcar's record of the cache",
    consequence: "Tools that choose nodes by them choose wrongly",
    remedy: "pack the image again with --cache",
};

/// A layer that is said to hold a compile cache of which the labels know nothing.
pub static CACHE_UNLABELLED: Rule = Rule {
    code: "cache-unlabelled",
    severity: Severity::Note,
    depth: Depth::Quick,
    breaks: NONE,
    description: "a layer that is said to hold a compile cache of which the labels know nothing",
    consequence: "Nobody is told to use it",
    remedy: "pack the image again with --cache",
};
