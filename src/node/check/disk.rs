//! Room for what is fetched. Must not know what is fetched.

use super::{finding::Report, host::Host, rules};

/// Bytes below which there is little room for any model.
const LOW: u64 = 20 << 30;
/// `f_type` of tmpfs (`linux/magic.h`).
const TMPFS: u64 = 0x0102_1994;
/// Bytes of a unit where nothing is set, and of a chunk as starcar makes them.
const UNIT_DEFAULT: u64 = 50_000;
const CHUNK: u64 = 4 << 20;

/// Looks at the file system of the directory `root`. Of a model of so many bytes every byte is kept as it came, in units,
/// and as chunks of files.
pub(super) fn look(host: &Host, root: &str, unit: Option<u64>, model: Option<u64>, report: &mut Report) {
    let at = host.shown(root);
    let (found, room, kind) = match host.room(root) {
        Ok(found) => found,
        Err(cause) => return report.unknown(at, cause, "how much room there is for layers"),
    };
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    let gib = |bytes: u64| format!("{}.{} GiB", bytes >> 30, ((bytes % (1 << 30)) * 10) >> 30);
    let place =
        if found == root { String::new() } else { format!(" ({found}; the directory is not there yet)") };
    report.fact("room for layers", format!("{} at {root}{place}", gib(free)));
    if kind == TMPFS {
        report.find(&rules::CACHE_TMPFS, &at, format!("the file system is tmpfs{place}"));
    }
    match model.map(|model| (model, model.saturating_mul(2))) {
        Some((_, needed)) if free < needed => {
            report.find(
                &rules::CACHE_ROOM,
                &at,
                format!("{} are free{place}, and {} are needed", gib(free), gib(needed)),
            );
        }
        None if free < LOW => {
            report.find(&rules::CACHE_ROOM_LOW, &at, format!("{} are free{place}", gib(free)));
        }
        _ => {}
    }
    // Some file systems make inodes as they need them and say 0.
    if let Some(model) = model.filter(|_| room.f_files > 0) {
        let unit = unit.filter(|unit| *unit > 0).unwrap_or(UNIT_DEFAULT);
        let files = model.div_ceil(unit).saturating_add(model.div_ceil(CHUNK));
        if room.f_favail < files {
            report.find(
                &rules::CACHE_FILES,
                &at,
                format!("{} inodes are free, and {files} are needed", room.f_favail),
            );
        }
    }
}
