"""File trees as {path: record}, from wherever they come, to compare them.

A record holds type, mode, uid, gid, size, sha256, link and mtime; the size of
anything but a regular file counts as 0. Paths have no leading slash; the root
itself is not in the tree.
"""

import hashlib
import os
import stat
import subprocess
import tarfile

from .proc import Failed

# At the root of a layer, for the snapshotter; a lazy mount does not show them.
FORMAT_FILES = {"stargz.index.json", ".prefetch.landmark", ".no.prefetch.landmark"}
FIELDS = ("type", "mode", "uid", "gid", "size", "sha256", "link", "mtime")


def sha256_of(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def record(type, mode, uid=0, gid=0, size=0, sha256=None, link=None, mtime=0):
    return dict(type=type, mode=mode, uid=uid, gid=gid, size=size, sha256=sha256, link=link, mtime=mtime)


def of_source(directory, prefix="models", mtime=0):
    """The tree that an image of this snapshot must have at /models, its parents included."""
    tree = {prefix: record("dir", 0o755, mtime=mtime)}
    for at, dirs, files in os.walk(directory, followlinks=True):
        rel = os.path.relpath(at, directory)
        base = prefix if rel == "." else f"{prefix}/{rel}"
        for name in dirs:
            tree[f"{base}/{name}"] = record("dir", 0o755, mtime=mtime)
        for name in files:
            full = os.path.join(at, name)
            tree[f"{base}/{name}"] = record(
                "reg", 0o644, size=os.path.getsize(full), sha256=sha256_of(full), mtime=mtime
            )
    return tree


def of_directory(directory):
    """The tree below a directory as it is, without what only the format needs."""
    tree = {}
    kinds = [(stat.S_ISDIR, "dir"), (stat.S_ISREG, "reg"), (stat.S_ISLNK, "symlink")]
    kinds += [(stat.S_ISCHR, "char"), (stat.S_ISBLK, "block"), (stat.S_ISFIFO, "fifo")]
    for at, dirs, files in os.walk(directory):
        for name in dirs + files:
            full = os.path.join(at, name)
            rel = os.path.relpath(full, directory)
            if rel in FORMAT_FILES:
                continue
            s = os.lstat(full)
            kind = next(k for test, k in kinds if test(s.st_mode))
            tree[rel] = record(
                kind,
                stat.S_IMODE(s.st_mode),
                s.st_uid,
                s.st_gid,
                s.st_size if kind == "reg" else 0,
                sha256_of(full) if kind == "reg" else None,
                os.readlink(full) if kind == "symlink" else None,
                int(s.st_mtime),
            )
    return tree


def of_tar(path, tree=None):
    """The tree of a layer blob (gzip, zstd or plain) laid over another, by Python's tarfile."""
    tree = {} if tree is None else tree
    types = {tarfile.DIRTYPE: "dir", tarfile.REGTYPE: "reg", tarfile.AREGTYPE: "reg", tarfile.SYMTYPE: "symlink"}
    with (decompressed(path) if compression(path) else open(path, "rb")) as stream:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for m in tar:
                name = m.name.removeprefix("./").rstrip("/")
                if name in FORMAT_FILES or name in ("", "."):
                    continue
                if m.islnk():
                    tree[name] = tree[m.linkname.removeprefix("./")]
                    continue
                sha = hashlib.file_digest(tar.extractfile(m), "sha256").hexdigest() if m.isreg() else None
                link = m.linkname if m.issym() else None
                size = m.size if m.isreg() else 0
                tree[name] = record(types[m.type], m.mode, m.uid, m.gid, size, sha, link, int(m.mtime))
    return tree


def compression(path):
    """The command that decompresses a blob; None if it is not compressed."""
    with open(path, "rb") as raw:
        start = raw.read(4)
    return "gzip" if start[:2] == b"\x1f\x8b" else "zstd" if start == b"\x28\xb5\x2f\xfd" else None


class decompressed:
    """The output of gzip -dc or zstd -dc; unlike Python's own reader of streams they know many members."""

    def __init__(self, path):
        self.path, self.command = path, compression(path)

    def __enter__(self):
        self.popen = subprocess.Popen([self.command, "-dc"], stdin=open(self.path, "rb"), stdout=subprocess.PIPE)
        return self.popen.stdout

    def __exit__(self, kind, *_):
        self.popen.stdout.read()
        self.popen.stdout.close()
        self.popen.stdin = None
        if self.popen.wait() != 0 and kind is None:
            raise Failed(f"{self.command} -dc {self.path}: exit {self.popen.returncode}")


def of_entries(entries, tree=None):
    """The tree of what the reader command printed for a layer, laid over another."""
    tree = {} if tree is None else tree
    for e in entries:
        if e["path"] and e["path"] not in FORMAT_FILES:
            size = e["size"] if e["type"] == "reg" else 0
            link = e.get("link") if e["type"] == "symlink" else None
            tree[e["path"]] = record(
                e["type"], e["mode"], e["uid"], e["gid"], size, e.get("sha256"), link, e["mtime"]
            )
    return tree


def under(tree, prefix="models"):
    """The part of a tree that is a directory and what is below it."""
    return {p: r for p, r in tree.items() if p == prefix or p.startswith(prefix + "/")}


def differences(want, got, fields=FIELDS):
    """One line for each path and field that differs."""
    out = []
    for path in sorted(set(want) | set(got)):
        if path not in got:
            out.append(f"{path}: missing")
        elif path not in want:
            out.append(f"{path}: should not be there ({got[path]['type']})")
        else:
            for field in fields:
                if want[path][field] != got[path][field]:
                    out.append(f"{path}: {field} is {got[path][field]!r}, should be {want[path][field]!r}")
    return out


def assert_same(want, got, what, fields=FIELDS):
    """Fails with the first differences of two trees."""
    diff = differences(want, got, fields)
    if diff:
        raise Failed(f"{what}: {len(diff)} differences\n" + "\n".join(diff[:40]))
