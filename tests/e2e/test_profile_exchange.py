"""Profiles against the tools that they are exchanged with: ctr-remote reads our records, and we read its; strace's
logs; the JSON Schema."""

import json
import subprocess

import jsonschema
import pytest

from consumers import image
from consumers.proc import run

from conftest import TOP
from model_files import MIB
from test_memory import peak_memory

# Neither the order of names nor that in which a layer has them.
ORDER = [
    "tokenizer.json",
    "config.json",
    "model-00002-of-00003.safetensors",
    "generation_config.json",
    "model-00001-of-00003.safetensors",
]
EXAMPLE = TOP / "examples/tiny-llama"


@pytest.fixture(scope="session")
def schema():
    document = json.loads((TOP / "docs/profile.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(document)
    return jsonschema.Draft202012Validator(document)


def profile(path, accesses, **members):
    path.write_text(json.dumps({"version": 1, "accesses": accesses, **members}))
    return path


@pytest.fixture
def ordered(tmp_path):
    """A profile that reads ORDER."""
    reads = [{"at": n / 10, "kind": "read", "path": p, "ranges": [[0, 1]]} for n, p in enumerate(ORDER)]
    missing = [{"at": 0, "kind": "missing", "path": "params.json"}]
    return profile(tmp_path / "ordered.json", missing + reads)


def plain_image(tmp_path, registry, name):
    """The example as a plain tar image in the registry, files in the order of their names."""
    layout = tmp_path / "layout"
    run("umoci", "init", "--layout", layout)
    run("umoci", "new", "--image", f"{layout}:v1")
    run("umoci", "insert", "--image", f"{layout}:v1", EXAMPLE, "/models")
    ref = registry.ref(name, "plain")
    run("skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", f"oci:{layout}:v1", f"docker://{ref}")
    return ref


def converted(fresh_node, bin_dir, registry, source, record):
    """The files of the model in the image that ctr-remote converts, as they lie in the layer, and its landmark."""
    target = source.replace(":plain", ":esgz")
    fresh_node.ctr("content", "fetch", "--plain-http", source)
    fresh_node.ctr_remote("image", "convert", "--estargz", "--oci", "--estargz-record-in", record, source, target)
    # Not by `ctr images export`: now and then its archive is cut short.
    fresh_node.ctr("images", "push", "--plain-http", target)
    (descriptor,) = registry.manifest(target)["layers"]
    blob = registry.blob_file(descriptor["digest"])
    entries, summary = image.read_layer(bin_dir, blob, descriptor["annotations"][image.TOC_DIGEST])
    files = [e for e in entries if e["type"] == "reg" and e["path"].startswith("models/") and e["chunks"]]
    files.sort(key=lambda e: e["chunks"][0]["blob"])
    before = [e["path"] for e in files if e["chunks"][0]["blob"] < summary["landmarkAt"]]
    return before, [e["path"] for e in files], summary["landmark"]


def test_ctr_remote_converts_in_our_order(starcar, registry, fresh_node, bin_dir, ordered, tmp_path, image_name):
    record = tmp_path / "record.json"
    starcar("profile", "export", ordered, "--to", "ctr-remote", "-o", record)
    source = plain_image(tmp_path, registry, image_name)
    before, files, landmark = converted(fresh_node, bin_dir, registry, source, record)
    assert landmark.endswith(".prefetch.landmark") and not landmark.endswith(".no.prefetch.landmark")
    assert before == [f"models/{path}" for path in ORDER]
    assert len(files) > len(before)


def test_patterns_become_the_files_of_the_snapshot(
    starcar, registry, fresh_node, bin_dir, tmp_path, image_name
):
    accesses = [
        {"at": 0, "kind": "read", "path": "config.json"},
        {"at": 1, "kind": "read", "glob": "model-*.safetensors"},
        {"at": 2, "kind": "read", "path": "not/there.json"},
    ]
    written = profile(tmp_path / "patterns.json", accesses)
    refused = starcar("profile", "export", written, "--to", "ctr-remote", check=False)
    assert refused.returncode == 7 and "--snapshot" in refused.stderr
    record = tmp_path / "record.json"
    starcar("profile", "export", written, "--to", "ctr-remote", "--snapshot", EXAMPLE, "-o", record)
    source = plain_image(tmp_path, registry, image_name)
    before, _, _ = converted(fresh_node, bin_dir, registry, source, record)
    shards = [f"models/model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    assert before == ["models/config.json", *shards]


def test_a_record_of_ctr_remote_comes_back_as_it_was(starcar, ordered, schema, tmp_path):
    """What its recorder writes, digests and layers included."""
    lines = [
        json.dumps({"path": f"{d}{p}", "manifestDigest": "sha256:" + "0" * 64, "layerIndex": n}, separators=(",", ":"))
        for n, (d, p) in enumerate([("usr/bin/", "sh"), *(("models/", p) for p in ORDER)])
    ]
    record = tmp_path / "its-record.json"
    record.write_text("\n".join(lines) + "\n")
    imported = tmp_path / "imported.json"
    done = starcar("profile", "import", record, "-o", imported)
    assert "1 file outside /models left out" in done.stderr
    schema.validate(json.loads(imported.read_text()))
    ours = starcar("profile", "export", ordered, "--to", "ctr-remote").stdout
    assert starcar("profile", "export", imported, "--to", "ctr-remote").stdout == ours
    assert [json.loads(line)["path"] for line in ours.splitlines()] == [f"models/{p}" for p in ORDER]


def test_strace_of_a_real_program(starcar, schema, tmp_path):
    """Two runs of one program, logged by strace itself, merge to the order of either."""
    model = tmp_path / "models"
    model.mkdir()
    for name in ORDER:
        (model / name).write_bytes(name.encode() * 5000)
    program = tmp_path / "start.py"
    program.write_text(
        "import mmap, os, sys, threading\n"
        f"os.chdir({str(model)!r})\n"
        f"names = {ORDER!r}\n"
        "def read(name):\n"
        "    with open(name, 'rb', buffering=0) as f:\n"
        "        f.read(1000); f.seek(20000); f.read(10)\n"
        "def mapped(name):\n"
        "    with open(name, 'rb') as f:\n"
        "        mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)[0]\n"
        "for name in names[:3]:\n"
        "    t = threading.Thread(target=read, args=(name,)); t.start(); t.join()\n"
        "if os.fork() == 0:\n"
        "    mapped(names[3]); os._exit(0)\n"
        "os.wait()\n"
        "os.path.exists('gone.json'); fd = os.open(names[4], os.O_RDONLY); os.pread(fd, 8, 4096)\n"
    )
    profiles = []
    for number in (1, 2):
        log, out = tmp_path / f"log-{number}", tmp_path / f"run-{number}.json"
        run("strace", "-f", "-ttt", "-y", "-o", log, "/usr/bin/python3", program)
        starcar("profile", "import", log, "--root", model, "-o", out)
        document = json.loads(out.read_text())
        schema.validate(document)
        reads = {}
        for access in document["accesses"]:
            if access["kind"] == "read":
                reads.setdefault(access["path"], []).extend(access["ranges"])
        assert list(reads) == ORDER
        assert sorted(reads[ORDER[0]]) == [[0, 1000], [20000, 10]]
        assert reads[ORDER[3]] == [[0, len(ORDER[3]) * 5000]]
        assert reads[ORDER[4]] == [[4096, 8]]
        assert [a["path"] for a in document["accesses"] if a["kind"] == "missing"] == ["gone.json"]
        profiles.append(out)
    merged = starcar("profile", "merge", *profiles).stdout
    assert merged == starcar("profile", "merge", *reversed(profiles)).stdout
    schema.validate(json.loads(merged))
    path = tmp_path / "merged.json"
    path.write_text(merged)
    exports = {starcar("profile", "export", p, "--to", "ctr-remote").stdout for p in [path, *profiles]}
    assert len(exports) == 1
    assert starcar("profile", "diff", path, profiles[0], "--ignore-times", check=False).returncode == 0


def test_schema_and_reader_agree(starcar, schema, tmp_path):
    """What the reader takes is valid, and what the schema refuses is refused."""
    for path in (TOP / "profiles").glob("*.json"):
        schema.validate(json.loads(path.read_text()))
    good = {"at": 0.5, "until": 1, "kind": "read", "path": "a/b", "ranges": [[0, 1]], "later": {}}
    changes = [
        {},
        {"at": -1},
        {"at": "0"},
        {"at": None},
        {"kind": "write"},
        {"kind": "open"},
        {"path": "/a"},
        {"path": "../a"},
        {"path": "a/../b"},
        {"path": "a//b"},
        {"path": "a/."},
        {"path": ""},
        {"path": "a\0b"},
        {"path": "..."},
        {"path": "a" * 5000},
        {"glob": "*"},
        {"cache": ""},
        {"cache": "a/b"},
        {"cache": "a"},
        {"ranges": [[0]]},
        {"ranges": [[0, 0]]},
        {"ranges": [[-1, 1]]},
        {"ranges": [[0, 1, 2]]},
        {"ranges": [[0, 1.5]]},
        {"comment": 7},
    ]
    for change in changes:
        document = {"version": 1, "accesses": [{**good, **change}]}
        path = tmp_path / "candidate.json"
        path.write_text(json.dumps(document))
        done = starcar("profile", "show", path, check=False)
        assert done.returncode in (0, 7), done.stderr
        assert schema.is_valid(document) == (done.returncode == 0), (change, done.stderr)


def test_memory_of_a_log_of_ten_million_lines(starcar, measured, tmp_path):
    """Streamed through a pipe: distinct files and scattered reads, more than a profile holds."""
    script = (
        "import sys\n"
        "w = sys.stdout.write\n"
        "for n in range(2_500_000):\n"
        "    p = f'/models/{n % 400_000:0100d}'\n"
        "    w(f'7 17{n:08}.000001 openat(AT_FDCWD</>, \"{p}\", O_RDONLY) = 3<{p}>\\n'\n"
        "      f'7 17{n:08}.000002 pread64(3<{p}>, \"x\", 9, {n * 7919 % 1000003 * 1000000}) = 9\\n'\n"
        "      f'7 17{n:08}.000003 read(3<{p}>, \"x\", 9) = 9\\n'\n"
        "      f'7 17{n:08}.000004 newfstatat(AT_FDCWD</>, \"{p}x\", 0x7ffd, 0) = -1 ENOENT (No such file)\\n')\n"
    )
    out = tmp_path / "out.json"
    writer = subprocess.Popen(["/usr/bin/python3", "-c", script], stdout=subprocess.PIPE)
    peak = peak_memory("profile", "import", "-", "-o", out, env={}, stdin=writer.stdout)
    writer.stdout.close()
    assert writer.wait() == 0
    measured(f"10,000,000 lines: {peak / MIB:.1f} MiB")
    assert peak < 500 * MIB
    starcar("profile", "show", out, "-o", tmp_path / "out.svg")
