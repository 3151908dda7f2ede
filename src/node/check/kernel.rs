//! What the kernel and the system have: FUSE, overlayfs, fusermount3.

use std::io;

use super::{finding::Report, host::Host, rules};
use crate::node::Version;

/// Where fusermount3 may lie.
const FUSERMOUNT: [&str; 4] =
    ["/usr/bin/fusermount3", "/bin/fusermount3", "/usr/local/bin/fusermount3", "/usr/bin/fusermount"];

pub(super) fn look(host: &Host, report: &mut Report) -> Option<Version> {
    let version = version(host, report);
    match host.read("/proc/filesystems") {
        Ok(text) => {
            let has = |name: &str| text.lines().any(|line| line.split_whitespace().next_back() == Some(name));
            let at = host.shown("/proc/filesystems");
            if !has("fuse") {
                report.find(&rules::FUSE_MISSING, &at, "fuse is not listed");
            }
            if !has("overlay") {
                report.find(&rules::OVERLAY_MISSING, &at, "overlay is not listed");
            }
        }
        Err(cause) => report.unknown(
            host.shown("/proc/filesystems"),
            cause,
            "whether the kernel has FUSE and overlayfs",
        ),
    }
    match host.find("/dev/fuse") {
        Ok(()) => {}
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            report.find(&rules::FUSE_DEVICE_MISSING, host.shown("/dev/fuse"), "there is none");
        }
        Err(cause) => report.unknown(host.shown("/dev/fuse"), cause, "whether the device is there"),
    }
    fusermount(host, report);
    version
}

fn version(host: &Host, report: &mut Report) -> Option<Version> {
    let at = host.shown("/proc/sys/kernel/osrelease");
    match host.read("/proc/sys/kernel/osrelease") {
        Ok(text) => {
            report.fact("kernel", format!("Linux {}", text.trim()));
            let version = of_release(text.trim());
            if version.is_none() {
                report.unknown(at, "it is no version", "how old the kernel is");
            }
            version
        }
        Err(cause) => {
            report.unknown(at, cause, "how old the kernel is");
            None
        }
    }
}

/// The first three numbers of a release. What comes after them differs: `6.1.0-18-amd64`, `5.14.0_1.el9`,
/// `6.6.87.2-microsoft-standard-WSL2`.
fn of_release(release: &str) -> Option<Version> {
    let numbers = release.split(|letter: char| !letter.is_ascii_digit() && letter != '.').next()?;
    let numbers: Vec<&str> = numbers.trim_end_matches('.').split('.').take(3).collect();
    numbers.join(".").parse().ok()
}

fn fusermount(host: &Host, report: &mut Report) {
    let mut failed = None;
    for path in FUSERMOUNT {
        match host.find(path) {
            Ok(()) => return,
            Err(cause) if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(cause) => failed = Some((path, cause)),
        }
    }
    match failed {
        Some((path, cause)) => report.unknown(host.shown(path), cause, "whether fusermount3 is installed"),
        None => report.find(&rules::FUSERMOUNT_MISSING, host.shown(FUSERMOUNT[0]), "there is none"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_kernels_are_read() {
        for (release, expected) in [
            ("6.1.0-18-amd64", Some(Version::new(6, 1, 0))),
            ("5.14.0_1.el9", Some(Version::new(5, 14, 0))),
            ("6.6.87.2-microsoft-standard-WSL2", Some(Version::new(6, 6, 87))),
            ("6.9", Some(Version::new(6, 9, 0))),
            ("6.12.0.-x", Some(Version::new(6, 12, 0))),
            ("rolling", None),
            ("", None),
        ] {
            assert_eq!(of_release(release), expected, "{release}");
        }
    }
}
