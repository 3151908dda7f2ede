"""Where consumers judge an image otherwise than starcar, and why: {consumer: {why: cases}}. The tests fail on what is
missing here, and on what no longer differs.

reader: stargz-snapshotter's own readers, v0.19.1 with its memory store and v0.10.1 with its database, against the verdict
on `lazy`. fetch: kserve-storage against the verdict on `fetch`. containerd: a pull onto overlayfs, against findings that
break every use.
"""

TABLE_ALONE = "The reader does not compare the table with tar headers: it shows what the table says, and eager pulls show the other."
NO_TOC = "containerd does not look at the table of contents: it unpacks the tar stream, which is sound."

DISAGREEMENTS = {
    "reader": {
        TABLE_ALONE: [
            "entry-missing-in-tar", "entry-missing-in-table", "field-name-differs", "field-type-differs",
            "field-linkname-differs", "field-mode-differs", "field-uid-differs", "field-gid-differs",
            "field-devmajor-differs", "field-devminor-differs", "field-xattrs-differs", "field-hardlink-differs",
            "field-xattrs-lacks-one", "toc-not-last", "zstd-entry-missing-in-tar", "zstd-entry-behind-the-table",
        ],
        "The reader never sees the layer's digest, and the chunks that it reads are right.": ["blob-digest"],
        "The reader stops reading a member where the chunk ends, before the member's checksum.": ["member-checksum"],
        "The reader reads no tar header.": ["tar-header-checksum"],
        "Go's JSON puts U+FFFD in place of what is not UTF-8, so that the file has another name.": ["toc-no-text"],
        "Nobody looks at the version.": ["toc-version"],
        "The fields of Go's table are signed, and nobody asks for the size of a file with none.":
            ["field-uid-negative", "field-size-negative"],
        "The reader cleans the name and shows the file where that leads; it does not leave the layer.":
            ["entry-name-leads-outside"],
        "The reader shows the name, which no system call can be given.": ["entry-name-with-zero"],
        "The reader passes over an entry without a name.": ["entry-name-empty"],
        "The readers show one of the two files and do not say which.": ["entry-duplicate", "entry-duplicate-by-other-name"],
        "The reader takes the chunk for one of the directory in front of it, and nobody reads that.": ["chunk-orphan"],
        "The reader shows a link to nowhere.": ["symlink-without-target"],
        "The reader checks chunks, and no file's own digest.": ["entry-digest-of-only-chunk"],
        "The reader shows a second name of the directory, which no kernel allows on a disk.": ["hardlink-of-directory"],
        "The reader shows the file as a directory, too.": ["parent-is-a-file"],
        "The reader lists the file below the link, where no path leads to it.": ["parent-is-a-link"],
        "The reader takes a chunk for one of the file in front of it, whatever it is called.": ["chunk-of-another-file"],
        "`VerifyTOC` wants each member to hold one chunk; the snapshotter, since 0.13, does not ask it.":
            ["members-shared", "zstd-frames-shared"],
        "The reader knows a footer of zstd:chunked by its magic alone.": ["zstd-footer-kind", "zstd-footer-frame"],
        "The reader goes by the footer, and never sees the header of the table's frame.":
            ["zstd-toc-frame-header", "zstd-toc-frame-too-long", "zstd-toc-frame-too-short"],
        "The reader reads from where chunks begin, and never comes to what lies between them and the table.":
            ["zstd-garbage-before-the-table"],
        "The reader's decoder passes over the frame that is skipped, and goes on with the next.":
            ["zstd-offset-of-a-skipped-frame"],
        "The tests' reader takes a second landmark for an error; the library takes one of them.": ["landmark-both"],
    },
    "fetch": {
        "The downloader does not check diffIDs: the files are right.": ["diff-id-of-a-plain-layer"],
        "The downloader succeeds as root; an engine of another user cannot read the file.": ["models-file-mode-of-tar"],
        "The downloader brings the link, which leads nowhere.": ["models-symlink-dangling-of-tar"],
        "kserve-storage knows files with holes.": ["tar-sparse-of-old"],
        "Python's tarfile passes over what it does not know.": ["tar-kind"],
        "Python's gzip passes over what follows the tar stream's end.": ["garbage-behind-gzip"],
    },
    "containerd": {
        NO_TOC: [
            "entry-missing-in-tar", "field-name-differs", "field-size-differs", "field-type-differs",
            "field-linkname-differs", "field-mode-differs", "field-uid-differs", "field-gid-differs",
            "field-devmajor-differs", "field-devminor-differs", "field-xattrs-differs", "field-hardlink-differs",
            "field-uid-of-64-bits", "field-xattrs-lacks-one", "entry-name-empty", "entry-name-with-zero", "entry-type", "entry-type-empty",
            "symlink-without-target", "hardlink-without-target", "size-impossible", "zstd-size-impossible",
            "zstd-entry-missing-in-tar",
        ],
        "containerd tells manifests by their fields, not by their type; registries refuse the type.":
            ["manifest-of-unknown-type"],
        "containerd does not look at schemaVersion; registries refuse the manifest.":
            ["schema-version", "schema-version-missing", "index-schema-version"],
        "containerd pulls nothing and says nothing.": ["index-empty"],
        "containerd unpacks an image without files; there is nothing to serve in it.": ["manifest-no-layers"],
        "containerd has no limit of its own; CRI-O refuses more than 128 layers.": ["layers-129"],
        "containerd believes the index, and the container's programs do not run.": ["platform-of-index"],
        "containerd was not asked for that platform.": ["platform-asked-for"],
    },
}


def apply(cases):
    """Writes them into the cases."""
    for consumer, reasons in DISAGREEMENTS.items():
        for why, names in reasons.items():
            for name in names:
                assert consumer not in cases[name].differ, (consumer, name)
                cases[name].differ[consumer] = why


def markdown(cases):
    """The table of them for docs/verify.md."""
    titles = {"reader": "stargz-snapshotter's readers", "fetch": "kserve-storage", "containerd": "containerd, eager pull"}
    lines = ["| consumer | images with | starcar says | why it differs |", "|---|---|---|---|"]
    for consumer, reasons in DISAGREEMENTS.items():
        for why, names in reasons.items():
            codes = sorted(set().union(*(cases[name].codes for name in names)))
            shown = ", ".join(f"`{code}`" for code in codes)
            defects = "; ".join(cases[name].doc.rstrip(".") for name in names[:2]) + ("; …" if names[2:] else "")
            lines.append(f"| {titles[consumer]} | {defects} | {shown} | {why} |")
    return "\n".join(lines)
