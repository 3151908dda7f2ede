//! stargz-snapshotter: its process, its socket, its settings.

use std::io;

use super::{
    Places,
    finding::Report,
    host::{Host, Process},
    rules, settings,
    wire::Connection,
};
use crate::node::Version;

/// Files that the snapshotter should be allowed to have open.
const FILES: u64 = 65_536;

pub(super) fn look(
    host: &Host,
    places: &Places,
    kernel: Option<Version>,
    version: Option<Version>,
    report: &mut Report,
) -> Option<toml::Table> {
    socket(host, &places.snapshotter_socket, report);
    if let Some(process) = &places.snapshotter {
        limits(host, process, report);
    }
    let path = &places.snapshotter_config;
    let at = host.shown(path);
    let text = match host.read(path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            report.find(&rules::SNAPSHOTTER_CONFIG_MISSING, at, "there is none");
            return Some(toml::Table::new());
        }
        Err(cause) => {
            report.unknown(at, cause, "how the snapshotter is set");
            return None;
        }
    };
    match text.parse::<toml::Table>() {
        Ok(table) => {
            settings::look(&table, &at, kernel, version, report);
            Some(table)
        }
        Err(error) => {
            report.find(&rules::SNAPSHOTTER_CONFIG_MALFORMED, at, malformed(&text, &error));
            None
        }
    }
}

/// What a parser says of a text, without what stands there: it may be a password.
pub(super) fn malformed(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let words = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
    match before {
        Some(before) => format!("line {}: {words}", before.matches('\n').count() + 1),
        None => words,
    }
}

fn socket(host: &Host, path: &str, report: &mut Report) {
    let at = host.shown(path);
    match host.connect(path) {
        Ok(stream) => match Connection::begin(stream) {
            Ok(_) => report.fact("snapshotter", format!("listens on {path}")),
            Err(cause) if cause.kind() == io::ErrorKind::TimedOut => {
                report.find(
                    &rules::SNAPSHOTTER_SOCKET_STALE,
                    at,
                    "connections are taken, and no answer comes",
                );
            }
            Err(cause) => report.find(
                &rules::SNAPSHOTTER_SOCKET_OTHER,
                at,
                format!("who listens is no gRPC server: {cause}"),
            ),
        },
        Err(cause) => match cause.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                report.find(&rules::SNAPSHOTTER_SOCKET_MISSING, at, "there is no such socket");
            }
            io::ErrorKind::ConnectionRefused => {
                report.find(&rules::SNAPSHOTTER_SOCKET_STALE, at, "connections are refused");
            }
            io::ErrorKind::WouldBlock => {
                report.find(&rules::SNAPSHOTTER_SOCKET_STALE, at, "connections wait, and nobody takes them");
            }
            io::ErrorKind::Unsupported => {
                report.find(&rules::SNAPSHOTTER_SOCKET_OTHER, at, "it is no socket");
            }
            _ => report.unknown(at, cause, "whether the snapshotter answers"),
        },
    }
}

fn limits(host: &Host, process: &Process, report: &mut Report) {
    let path = format!("/proc/{}/limits", process.pid);
    let at = host.shown(&path);
    let text = match host.read(&path) {
        Ok(text) => text,
        Err(cause) => return report.unknown(at, cause, "how many files the snapshotter may open"),
    };
    let soft = text.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    match soft {
        Some("unlimited") => {}
        Some(number) => match number.parse::<u64>() {
            Ok(limit) if limit < FILES => {
                report.find(&rules::SNAPSHOTTER_FILES_LIMIT, at, format!("{limit} open files"));
            }
            Ok(_) => {}
            Err(error) => report.unknown(at, error, "how many files the snapshotter may open"),
        },
        None => {
            report.unknown(at, "it has no line `Max open files`", "how many files the snapshotter may open");
        }
    }
}
