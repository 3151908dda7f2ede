//! The kernel, the snapshotter and its settings.

use std::{io::Write, thread};

use crate::harness::{Case, SNAPSHOTTER, SNAPSHOTTER_SOCKET, try_all};

#[test]
fn what_the_kernel_lacks_is_found() {
    let cases: &[Case] = &[
        (|node| node.replace("proc/filesystems", "fuse", "fuseblk"), &["fuse-missing"]),
        (|node| node.replace("proc/filesystems", "overlay", "aufs"), &["overlay-missing"]),
        (|node| node.remove("dev/fuse"), &["fuse-device-missing"]),
        (|node| node.remove("usr/bin/fusermount3"), &["fusermount-missing"]),
        (|node| node.append(SNAPSHOTTER, "[fuse]\npassthrough = true"), &["passthrough-kernel"]),
        (
            |node| {
                node.append(SNAPSHOTTER, "[fuse]\npassthrough = true");
                node.write("proc/sys/kernel/osrelease", "6.9.0");
            },
            &["passthrough-chunks"],
        ),
    ];
    try_all("2.x", &[], cases);
}

#[test]
fn what_is_wrong_with_the_snapshotter_is_found() {
    let cases: &[Case] = &[
        (|node| node.remove(SNAPSHOTTER_SOCKET), &["snapshotter-socket-missing"]),
        (|node| drop(node.listen(SNAPSHOTTER_SOCKET)), &["snapshotter-socket-stale"]),
        (
            |node| {
                node.remove(SNAPSHOTTER_SOCKET);
                node.write(SNAPSHOTTER_SOCKET, "");
            },
            &["snapshotter-socket-other"],
        ),
        (
            |node| {
                let listener = node.listen(SNAPSHOTTER_SOCKET);
                thread::spawn(move || {
                    listener.accept().unwrap().0.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
                });
            },
            &["snapshotter-socket-other"],
        ),
        (|node| node.replace("proc/100/limits", "1048576", "1024"), &["snapshotter-files-limit"]),
        (|node| node.remove(SNAPSHOTTER), &["snapshotter-config-missing"]),
        (|node| node.append(SNAPSHOTTER, "[blob"), &["snapshotter-config-malformed"]),
        // The process reads another file than the usual one.
        (
            |node| node.write("proc/100/cmdline", "containerd-stargz-grpc\0-config\0/none.toml\0"),
            &["snapshotter-config-missing"],
        ),
    ];
    try_all("2.x", &[], cases);
}

#[test]
fn settings_of_the_snapshotter_are_judged() {
    let cases: &[Case] = &[
        (
            |node| node.replace(SNAPSHOTTER, "chunk_size = 4194304", "chunk_size = \"4MiB\""),
            &["snapshotter-setting-kind", "unit-small"],
        ),
        (|node| node.prepend(SNAPSHOTTER, "no_prefetch = true"), &["snapshotter-setting-unknown"]),
        (
            |node| {
                node.replace(SNAPSHOTTER, "prefetch_async_size = 16777216", "prefetch_async_sizes = 16777216")
            },
            &["snapshotter-setting-unknown", "prefetch-wait"],
        ),
        // Below the last table it belongs to that table.
        (|node| node.append(SNAPSHOTTER, "noprefetch = true"), &["snapshotter-setting-unknown"]),
        (|node| node.prepend(SNAPSHOTTER, "noprefetch = true"), &["prefetch-off"]),
        (|node| node.prepend(SNAPSHOTTER, "no_background_fetch = true"), &["background-fetch-off"]),
        (|node| node.replace(SNAPSHOTTER, "\nprefetch_async_size = 16777216", ""), &["prefetch-wait"]),
        (|node| node.replace(SNAPSHOTTER, "\nprefetch_chunk_size = 67108864", ""), &["prefetch-whole"]),
        (
            |node| {
                node.replace(SNAPSHOTTER, "prefetch_chunk_size = 67108864", "prefetch_chunk_size = 1048576")
            },
            &["prefetch-part-small"],
        ),
        (|node| node.replace(SNAPSHOTTER, "\nchunk_size = 4194304", ""), &["unit-small"]),
        (
            |node| {
                node.replace(
                    SNAPSHOTTER,
                    "prefetch_chunk_size = 67108864",
                    "prefetch_chunk_size = 134217728",
                );
                node.replace(SNAPSHOTTER, "\nchunk_size = 4194304", "\nchunk_size = 33554432");
            },
            &["unit-large"],
        ),
        (|node| node.replace(SNAPSHOTTER, "max_concurrency = 4", ""), &["concurrency-low"]),
        (
            |node| node.replace(SNAPSHOTTER, "request_timeout_sec = 600", "request_timeout_sec = 60"),
            &["request-timeout-short"],
        ),
        (|node| node.replace(SNAPSHOTTER, "\nrequest_timeout_sec = 600", ""), &["request-timeout-short"]),
        (
            |node| {
                node.append(SNAPSHOTTER, "[[resolver.host.r.mirrors]]\nhost = \"r\"\nrequest_timeout_sec = 5")
            },
            &["request-timeout-short"],
        ),
        (
            |node| node.append(SNAPSHOTTER, "[[resolver.host.r.mirrors]]\nhost = \"r\"\ninsecur = true"),
            &["snapshotter-setting-unknown"],
        ),
        (|node| node.prepend(SNAPSHOTTER, "disable_verification = true"), &["verification-off"]),
        (|node| node.prepend(SNAPSHOTTER, "allow_no_verification = true"), &["verification-optional"]),
        (|node| node.replace(SNAPSHOTTER, "[blob]", "[blob]\ncheck_always = true"), &["check-always"]),
        (|node| node.prepend(SNAPSHOTTER, "http_cache_type = \"memory\""), &["cache-in-memory"]),
    ];
    try_all("2.x", &[], cases);
    let old: &[Case] = &[(|_| {}, &["snapshotter-setting-new"])];
    try_all("2.x", &["--snapshotter-version", "0.17.0"], old);
}
