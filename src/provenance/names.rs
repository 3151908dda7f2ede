//! Names as documents that leave this machine have them: no directories, no spaces where URIs have none.

use std::{fmt::Write as _, path::Path};

use crate::{
    base::BaseChoice,
    digest::Digest,
    oci::{DEFAULT_TAG, Selector, Target},
    registry::Reference,
};

/// The last part of a path, of `.` that of the directory's real path. What is no UTF-8 is replaced.
pub fn base_name(path: &Path) -> String {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let real = || path.canonicalize().ok().and_then(|path| name(&path));
    name(path).or_else(real).unwrap_or_else(|| "/".to_owned())
}

/// A name of an image without the directories of a layout or archive.
pub fn shown_target(target: &Target) -> String {
    let with = |kind: &str, path: &Path, selector: &Selector| {
        let path = base_name(path);
        match selector {
            Selector::Only => format!("{kind}:{path}"),
            Selector::Tag(tag) => format!("{kind}:{path}:{tag}"),
            Selector::Digest(digest) => format!("{kind}:{path}@{digest}"),
        }
    };
    match target {
        Target::Layout { path, selector } => with("oci", path, selector),
        Target::Archive { path, selector } => with("oci-archive", path, selector),
        Target::Registry(reference) => reference.to_string(),
    }
}

/// What lies below a model, without the directories of files.
pub fn shown_base(base: &BaseChoice) -> String {
    match base {
        BaseChoice::Scratch => "scratch".to_owned(),
        BaseChoice::Binary(path) => base_name(path),
        BaseChoice::Image(target) => shown_target(target),
    }
}

/// The package URL of an image in a registry.
///
/// Source: package-url specification, type `oci`.
pub(super) fn image_purl(reference: &Reference, digest: Digest) -> String {
    let repository = format!("{}/{}", reference.registry(), reference.repository());
    let name = reference.repository().rsplit('/').next().unwrap_or_default();
    let (name, digest) = (encoded(name, ""), encoded(&digest.to_string(), ""));
    let mut purl = format!("pkg:oci/{name}@{digest}?repository_url={}", encoded(&repository, "/:"));
    // A name by digest alone has no tag; one without either means `latest`.
    let tag = reference.tag().or(reference.digest().is_none().then_some(DEFAULT_TAG));
    if let Some(tag) = tag {
        purl.push_str("&tag=");
        purl.push_str(&encoded(tag, ""));
    }
    purl
}

/// The package URL of a model on the hub.
///
/// Source: package-url specification, type `huggingface`.
pub(super) fn model_purl(repository: &str, revision: &str) -> String {
    format!("pkg:huggingface/{}@{}", encoded(repository, "/"), encoded(revision, ""))
}

/// What `huggingface_hub`'s file system calls a repository at a commit, or a file in it.
///
/// Source: `huggingface_hub`, `hf_file_system.py`.
pub(super) fn hub_uri(repository: &str, revision: &str, path: Option<&str>) -> String {
    let path = path.map(|path| format!("/{}", encoded(path, "/"))).unwrap_or_default();
    format!("hf://{}@{}{path}", encoded(repository, "/"), encoded(revision, ""))
}

/// `text` with everything that is not plain in a URI, nor one of `allowed`, in percent signs and hexadecimal digits.
///
/// Source: RFC 3986, section 2.
pub(super) fn encoded(text: &str, allowed: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        let letter = char::from(byte);
        if byte.is_ascii_alphanumeric() || "-._~".contains(letter) || allowed.contains(letter) {
            encoded.push(letter);
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_do_not_show() {
        for (text, shown) in [
            ("oci:/home/me/images:v1", "oci:images:v1"),
            ("oci-archive:../a/b.tar", "oci-archive:b.tar"),
            ("registry.example.com/a/b:v1", "registry.example.com/a/b:v1"),
        ] {
            assert_eq!(shown_target(&text.parse().unwrap()), shown);
        }
        assert_eq!(shown_base(&"/opt/x/busybox".parse().unwrap()), "busybox");
        assert_eq!(base_name(Path::new("/")), "/");
        assert_ne!(base_name(Path::new(".")), ".");
    }

    #[test]
    fn uris_are_uris() {
        let digest = Digest::of(b"");
        let reference = "registry.example.com:5000/team/model:v1".parse().unwrap();
        assert_eq!(
            image_purl(&reference, digest),
            format!(
                "pkg:oci/model@sha256%3A{}?repository_url=registry.example.com:5000/team/model&tag=v1",
                digest.hex()
            )
        );
        assert_eq!(hub_uri("a/b", "0f", Some("x y/\u{e4}.bin")), "hf://a/b@0f/x%20y/%C3%A4.bin");
        assert_eq!(model_purl("a/b", "0f"), "pkg:huggingface/a/b@0f");
    }
}
