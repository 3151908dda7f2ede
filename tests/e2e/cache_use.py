"""Using the caches of an image as a serving container does: mounted, copied and exported by the printed snippet."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

from consumers import trees
from consumers.proc import Failed, run

# Where an image holds its caches, and where a snippet puts them if not told.
PACKED = "models/compile-cache"
AT = "/tmp/compile-cache"
HERE = Path(__file__).resolve().parent


def want(directory, name, inner="", changed=None, left_out=(), created=()):
    """The tree that an image must hold at /models/compile-cache/<name> for the cache in a directory.

    `changed` maps the path in the cache of a file that is relocated to its new content. What is left out is told by
    path; `created` are directories that the image has and the cache has not.
    """
    changed, prefix = changed or {}, f"{PACKED}/{name}"
    base = f"{prefix}/{inner}".rstrip("/")
    tree = {}
    for at, dirs, files in os.walk(directory):
        rel = os.path.relpath(at, directory)
        for entry in dirs + files:
            path = entry if rel == "." else f"{rel}/{entry}"
            if path in left_out or any(path.startswith(f"{gone}/") for gone in left_out):
                continue
            found = os.lstat(os.path.join(at, entry))
            if stat.S_ISDIR(found.st_mode):
                tree[f"{base}/{path}"] = trees.record("dir", 0o755, mtime=int(found.st_mtime))
                continue
            data = changed.get(path, Path(at, entry).read_bytes())
            mode = 0o755 if found.st_mode & 0o100 or entry.endswith(".so") else 0o644
            tree[f"{base}/{path}"] = trees.record(
                "reg", mode, size=len(data), sha256=sha256(data), mtime=int(found.st_mtime)
            )
    for path in created:
        tree[f"{prefix}/{path}"] = trees.record("dir", 0o755, mtime=None)
    return tree


def assert_packed(expected, tree, name, what, fields=trees.FIELDS):
    """The part of an image's tree below /models/compile-cache/<name> is what was expected.

    The times of directories that no cache has are starcar's to choose.
    """
    prefix = f"{PACKED}/{name}/"
    got = {path: record for path, record in tree.items() if path.startswith(prefix)}
    for path, record in expected.items():
        if record["mtime"] is None and path in got:
            got[path] = {**got[path], "mtime": None}
    known = [path for path in got if any(p.startswith(f"{path}/") for p in expected) and path not in expected]
    trees.assert_same(expected, {path: record for path, record in got.items() if path not in known}, what, fields)


def sha256(data):
    return trees.hashlib.sha256(data).hexdigest()


def inspected(starcar, what, *options):
    """{name: cache} of starcar cache inspect."""
    done = starcar("cache", "inspect", what, "--format", "json", *options)
    return {cache["name"]: cache for cache in json.loads(done.stdout)["caches"]}


def values(cache, fact):
    """The values that a cache's identity gives for a fact, without their evidence."""
    return [entry["value"] for entry in cache["identity"].get(fact, [])]


def snippet(starcar, ref, at=None, mounted_at=None):
    """What starcar cache env prints for sh."""
    options = (["--at", at] if at else []) + (["--mounted-at", mounted_at] if mounted_at else [])
    return starcar("cache", "env", ref, *options).stdout


def sourced(text, directory):
    """Runs a snippet with busybox and nothing else in PATH; gives what it exported. It must have no complaints."""
    directory.mkdir(parents=True, exist_ok=True)
    applets = directory / "applets"
    if not applets.exists():
        applets.mkdir()
        for name in run("/bin/busybox", "--list").stdout.split():
            (applets / name).symlink_to("/bin/busybox")
    script = directory / "snippet.sh"
    script.write_text(text)
    done = subprocess.run(
        ["/bin/busybox", "sh", "-euc", f". {script}\nenv -0 >{directory}/exported"],
        env={"PATH": str(applets), "HOME": "/nonexistent"}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=120, check=False,
    )
    if done.returncode != 0 or done.stderr:
        raise Failed(f"busybox sh: exit {done.returncode}\n{text}\n{done.stdout}{done.stderr}")
    pairs = (entry.split("=", 1) for entry in (directory / "exported").read_text().split("\0") if entry)
    return {name: value for name, value in pairs if name not in ("PATH", "HOME", "PWD", "SHLVL", "OLDPWD", "_")}


def mounted(node, ref, target, snapshotter="stargz-still"):
    """/models of a lazily pulled image."""
    node.rpull(ref, snapshotter)
    return node.mount(ref, target, snapshotter) / "models"


def fresh_process(script, *arguments, env, timeout=300):
    """What one of the scripts beside this file prints in a process that inherits nothing."""
    done = subprocess.run(
        [sys.executable, HERE / script, *map(str, arguments)], env={"PATH": "/usr/bin:/bin", **env},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False,
    )
    if done.returncode != 0:
        raise Failed(f"{script}: exit {done.returncode}\n{done.stderr[-6000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def files_of(directory):
    """{path: mtime in nanoseconds} of all files below a directory."""
    return {
        path.relative_to(directory).as_posix(): path.stat().st_mtime_ns
        for path in sorted(Path(directory).rglob("*"))
        if path.is_file()
    }
