//! The values of stargz-snapshotter's settings, and settings that it does not have. Must not know where they come from.

use toml::{Table, Value};

use super::{finding::Report, rules};
use crate::node::{
    Version,
    keys::{self, Key, MIRROR_KEYS},
    recommended,
};

/// What the snapshotter takes where nothing is set (`fs/config`, `service/resolver`).
const CHUNK_SIZE_DEFAULT: i64 = 50_000;
const MAX_CONCURRENCY_DEFAULT: i64 = 2;
const REQUEST_TIMEOUT_DEFAULT: i64 = 30;
/// Seconds below which a request's limit is short.
const REQUEST_TIMEOUT_SHORT: i64 = 120;
const UNIT_SMALL: i64 = 1 << 20;
const UNIT_LARGE: i64 = 16 << 20;
/// Linux has had FUSE passthrough since then.
const PASSTHROUGH: Version = Version::new(6, 9, 0);

pub(super) fn look(
    table: &Table,
    at: &str,
    kernel: Option<Version>,
    version: Option<Version>,
    report: &mut Report,
) {
    names(table, at, version, report);
    let settings = Settings(table);
    fetching(&settings, at, version, report);
    let on = |path: &str| settings.is_on(path);
    for (path, rule) in [
        ("disable_verification", &rules::VERIFICATION_OFF),
        ("allow_no_verification", &rules::VERIFICATION_OPTIONAL),
        ("blob.check_always", &rules::CHECK_ALWAYS),
    ] {
        if on(path) {
            report.find(rule, at, format!("{path} = true"));
        }
    }
    for path in ["http_cache_type", "filesystem_cache_type"] {
        if settings.value(path).and_then(Value::as_str) == Some("memory") {
            report.find(&rules::CACHE_IN_MEMORY, at, format!("{path} = \"memory\""));
        }
    }
    if on("fuse.passthrough") {
        match kernel {
            Some(kernel) if kernel < PASSTHROUGH => {
                report.find(
                    &rules::PASSTHROUGH_KERNEL,
                    at,
                    format!("fuse.passthrough = true, on Linux {kernel}"),
                );
            }
            Some(_) => report.find(&rules::PASSTHROUGH_CHUNKS, at, "fuse.passthrough = true"),
            None => report.unknown(at, "the kernel's version is not known", "whether passthrough works"),
        }
    }
}

fn fetching(settings: &Settings<'_>, at: &str, version: Option<Version>, report: &mut Report) {
    let number = |path: &str| settings.number(path);
    let set = |path: &str| match number(path) {
        Some(value) => format!("{path} = {value}"),
        None => format!("{path} is not set"),
    };
    if settings.is_on("noprefetch") {
        report.find(&rules::PREFETCH_OFF, at, "noprefetch = true");
    } else {
        if number("prefetch_async_size").is_none_or(|size| size <= 0) {
            report.find(&rules::PREFETCH_WAIT, at, set("prefetch_async_size"));
        }
        let unit = number("blob.chunk_size").filter(|size| *size > 0).unwrap_or(CHUNK_SIZE_DEFAULT);
        match number("blob.prefetch_chunk_size") {
            Some(size) if size > 0 && size < unit => report.find(
                &rules::PREFETCH_PART_SMALL,
                at,
                format!("blob.prefetch_chunk_size = {size}, and units have {unit} bytes"),
            ),
            Some(1..) => {}
            _ => report.find(&rules::PREFETCH_WHOLE, at, set("blob.prefetch_chunk_size")),
        }
    }
    if settings.is_on("no_background_fetch") {
        report.find(&rules::BACKGROUND_FETCH_OFF, at, "no_background_fetch = true");
    } else {
        let tasks = number("max_concurrency").filter(|tasks| *tasks != 0).unwrap_or(MAX_CONCURRENCY_DEFAULT);
        if tasks < recommended::MAX_CONCURRENCY {
            report.find(&rules::CONCURRENCY_LOW, at, set("max_concurrency"));
        }
    }
    match number("blob.chunk_size").filter(|size| *size != 0).unwrap_or(CHUNK_SIZE_DEFAULT) {
        ..UNIT_SMALL => report.find(&rules::UNIT_SMALL, at, set("blob.chunk_size")),
        size if size > UNIT_LARGE => report.find(&rules::UNIT_LARGE, at, set("blob.chunk_size")),
        _ => {}
    }
    timeouts(settings, at, version, report);
}

/// Limits of requests: of each host that has its own, and of all others.
fn timeouts(settings: &Settings<'_>, at: &str, version: Option<Version>, report: &mut Report) {
    let is_short = |seconds: i64| (1..REQUEST_TIMEOUT_SHORT).contains(&seconds);
    let for_all = settings.number("resolver.request_timeout_sec").filter(|seconds| *seconds > 0);
    let mut hosts_of_their_own = 0;
    for (registry, mirror) in mirrors(settings.0) {
        match mirror.get("request_timeout_sec").and_then(Value::as_integer).filter(|seconds| *seconds != 0) {
            Some(seconds) if is_short(seconds) => report.find(
                &rules::REQUEST_TIMEOUT_SHORT,
                at,
                format!("resolver.host.\"{registry}\".mirrors: request_timeout_sec = {seconds}"),
            ),
            Some(_) => hosts_of_their_own += 1,
            None => {}
        }
    }
    // Versions without the setting for all can be told for each host alone.
    let has_for_all = version.is_none_or(|version| keys::knows(version, "resolver.request_timeout_sec"));
    if !has_for_all && hosts_of_their_own > 0 {
        return;
    }
    if is_short(for_all.unwrap_or(REQUEST_TIMEOUT_DEFAULT)) {
        let found = match for_all {
            Some(seconds) => format!("resolver.request_timeout_sec = {seconds}"),
            None => "resolver.request_timeout_sec is not set".to_owned(),
        };
        report.find(&rules::REQUEST_TIMEOUT_SHORT, at, found);
    }
}

/// The entries of `resolver.host.*.mirrors`, with their registries.
pub(super) fn mirrors(table: &Table) -> impl Iterator<Item = (&str, &Table)> {
    let hosts = table.get("resolver").and_then(|resolver| resolver.get("host")).and_then(Value::as_table);
    hosts.into_iter().flatten().flat_map(|(registry, host)| {
        let mirrors = host.get("mirrors").and_then(Value::as_array);
        mirrors.into_iter().flatten().filter_map(move |mirror| Some((registry.as_str(), mirror.as_table()?)))
    })
}

/// A look at settings that were parsed.
struct Settings<'a>(&'a Table);

impl Settings<'_> {
    fn value(&self, path: &str) -> Option<&Value> {
        match path.split_once('.') {
            Some((table, name)) => self.0.get(table)?.get(name),
            None => self.0.get(path),
        }
    }

    fn number(&self, path: &str) -> Option<i64> {
        self.value(path)?.as_integer()
    }

    fn is_on(&self, path: &str) -> bool {
        self.value(path).and_then(Value::as_bool) == Some(true)
    }
}

/// Settings that there are not, that came later, or that have values of another kind.
fn names(table: &Table, at: &str, version: Option<Version>, report: &mut Report) {
    let mut one = |path: &str, value: &Value, key: Option<&Key>| match key {
        None => {
            let remedy =
                suggestion(path).unwrap_or_else(|| rules::SNAPSHOTTER_SETTING_UNKNOWN.remedy.to_owned());
            // What it says is not repeated: it may be a password.
            report.find_with(&rules::SNAPSHOTTER_SETTING_UNKNOWN, at, format!("{path} is set"), remedy);
        }
        Some(key) if !key.kind.fits(value) => report.find_with(
            &rules::SNAPSHOTTER_SETTING_KIND,
            at,
            format!("{path} = {}", short(value)),
            format!("give {path} {}", key.kind.name()),
        ),
        Some(key) => {
            if let (Some(version), Some(since)) = (version, key.since)
                && version < since
            {
                report.find_with(
                    &rules::SNAPSHOTTER_SETTING_NEW,
                    at,
                    format!("{path} = {}, and stargz-snapshotter is {version}", short(value)),
                    format!("update stargz-snapshotter to {since} or later, or remove {path}"),
                );
            }
        }
    };
    for (name, value) in table {
        match value {
            Value::Table(inner) => {
                for (inner_name, value) in inner {
                    let path = format!("{name}.{inner_name}");
                    if path != "resolver.host" {
                        one(&path, value, keys::key(&path));
                    }
                }
            }
            value => one(name, value, keys::key(name)),
        }
    }
    for (registry, mirror) in mirrors(table) {
        for (name, value) in mirror.iter().filter(|(name, _)| *name != "header") {
            let key = MIRROR_KEYS.iter().find(|key| key.path == name);
            one(&format!("resolver.host.\"{registry}\".mirrors.{name}"), value, key);
        }
    }
}

/// Where a setting of that name is.
fn suggestion(path: &str) -> Option<String> {
    let plain = |text: &str| {
        text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
    };
    let name = path.rsplit('.').next().unwrap_or(path);
    let known = keys::KEYS
        .iter()
        .find(|key| plain(key.path.rsplit('.').next().unwrap_or(key.path)) == plain(name))?;
    Some(match known.path.split_once('.') {
        Some((table, name)) => format!("its name is {name}, below [{table}]"),
        None => format!("its name is {}, before the first table", known.path),
    })
}

/// A value, cut short.
pub(super) fn short(value: &Value) -> String {
    const MOST: usize = 60;

    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        Some((index, _)) => format!("{}…", text.get(..index).unwrap_or_default()),
        None => text,
    }
}
