"""A vLLM compile cache on its way into an image and out of it, eagerly and lazily: only what is relocated changes.

The cache is a look-alike of one from a T4 (`cache_trees.py`). What an image does to it: `vllm_compile_cache.py` names
the place where the cache will be, locks and logs are left out, directories that vLLM wants are there, modes are plain.
"""

import json
import shutil

import pytest
from kserve_storage import Storage

import cache_trees
import cache_use
from consumers import image, trees
from consumers.proc import run

HOME = "/home/user/.cache/vllm"
LEFT_OUT = {
    f"{cache_trees.LEGACY}/artifact.lock", f"{cache_trees.LEGACY}/model.tmp", f"{cache_trees.LEGACY}/tmp.pid_12_ab",
    "locks", "vllm.log", "gpu_p2p_access_cache_for_0,1.json",
}
RANK = cache_trees.LEGACY.rpartition("/")[0]
CREATED = {"dummy_cache", f"{RANK}/inductor_cache", f"{RANK}/triton_cache"}


@pytest.fixture(scope="module")
def cache(scratch):
    root = cache_trees.vllm(scratch / "vllm-cache")
    return cache_trees.vllm_litter(root)


def relocated(cache, at=cache_use.AT):
    """The one file whose content changes, with its new content."""
    path = f"{cache_trees.LEGACY}/vllm_compile_cache.py"
    return {path: (cache / path).read_bytes().replace(HOME.encode(), f"{at}/vllm".encode())}


@pytest.fixture(scope="module")
def expected(cache):
    changed = relocated(cache)
    (path,) = changed
    assert HOME.encode() in (cache / path).read_bytes() and HOME.encode() not in changed[path]
    return cache_use.want(cache, "vllm", changed=changed, left_out=LEFT_OUT, created=CREATED)


@pytest.fixture(scope="module", params=["estargz", "tar"])
def pushed(request, starcar, registry, cache, small_model):
    """The small model and the cache in the registry, in either format of layers."""
    ref = registry.ref(f"cache-vllm-{request.param}", "v1")
    return starcar.pack(small_model[0], "--cache", cache, "--layer-format", request.param, tag=ref)


def test_what_is_known_of_it(starcar, cache):
    """Read from the bytes, with the evidence; nothing is run and no GPU is here."""
    found = cache_use.inspected(starcar, cache)
    assert set(found) == {"vllm"}
    identity = found["vllm"]["identity"]
    assert cache_use.values(found["vllm"], "backend") == ["cuda"]
    assert cache_use.values(found["vllm"], "architecture") == ["sm_75"]
    assert cache_use.values(found["vllm"], "gpuName") == ["Tesla T4"]
    assert cache_use.values(found["vllm"], "multiprocessors") == ["40"]
    assert cache_use.values(found["vllm"], "torch") == [cache_trees.TORCH]
    assert cache_use.values(found["vllm"], "triton") == [cache_trees.TRITON]
    assert cache_use.values(found["vllm"], "python") == [cache_trees.PYTHON]
    for entry in identity["architecture"]:
        for evidence in entry["evidence"]:
            data = (cache / evidence["path"]).read_bytes()
            assert b"75" in data[evidence["offset"] : evidence["offset"] + 400], evidence
    left_out = {entry["path"].rstrip("/") for entry in found["vllm"]["leftOut"]}
    assert left_out == LEFT_OUT


def test_eager_unpack(pushed, cache, expected, registry, small_model, node, tmp_path):
    """containerd's overlayfs and umoci give the cache back, and the model is as it is without one."""
    node.pull(pushed.ref)
    root = node.mount(pushed.ref, tmp_path / "overlayfs", "overlayfs")
    unpacked = {"containerd": trees.of_directory(root)}
    run("umount", root)
    layout = tmp_path / "oci"
    run(
        "skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", "--preserve-digests",
        f"docker://{pushed.ref}", f"oci:{layout}:it",
    )
    run("umoci", "unpack", "--image", f"{layout}:it", tmp_path / "bundle")
    unpacked["umoci"] = trees.of_directory(tmp_path / "bundle" / "rootfs")
    for consumer, tree in unpacked.items():
        cache_use.assert_packed(expected, tree, "vllm", f"the cache by {consumer}")
        inside = f"{cache_use.PACKED}/"
        model = {path: record for path, record in trees.under(tree).items() if not f"{path}/".startswith(inside)}
        trees.assert_same(small_model[1], model, f"the model by {consumer}")


def test_lazy_mount(pushed, cache, expected, node, tmp_path):
    """A lazy mount shows the same."""
    root = cache_use.mounted(node, pushed.ref, tmp_path / "lazy").parent
    cache_use.assert_packed(expected, trees.of_directory(root), "vllm", "the lazily mounted cache")
    run("umount", root)


def test_identical_files_are_stored_once(pushed, cache, node, tmp_path, measured):
    """Files of equal bytes, mode and second are one file of several names, lazily too; tar layers hold copies."""
    (layer,) = pushed.kinds("cache")
    linked = not layer["mediaType"].endswith(".tar")
    alike = {}
    for number in range(2, 16):
        path = cache / cache_trees.LEGACY / f"artifact_compile_range_1_2048_subgraph_{number}"
        alike.setdefault(int(path.stat().st_mtime), []).append(path)
    root = cache_use.mounted(node, pushed.ref, tmp_path / "lazy").parent
    packed = root / cache_use.PACKED / "vllm" / cache_trees.LEGACY
    found = {}
    for second, paths in alike.items():
        inodes = {(packed / path.name).stat().st_ino for path in paths}
        links = {(packed / path.name).stat().st_nlink for path in paths}
        found[second] = (len(paths), len(inodes), links)
        for path in paths:
            assert (packed / path.name).read_bytes() == path.read_bytes()
    run("umount", root)
    assert max(count for count, _, _ in found.values()) > 2
    if linked:
        assert all(inodes == 1 and links == {count} for count, inodes, links in found.values()), found
    else:
        assert all(inodes == count and links == {1} for count, inodes, links in found.values()), found
    raw = sum((cache / name).stat().st_size for name in cache_use.files_of(cache))
    measured(f"a layer of {layer['size']} bytes for {raw}")


def test_it_is_a_layer_of_its_own(starcar, registry, pushed, cache, small_model):
    """Above the weights, compressed, all of it before the landmark; the layers below are those without a cache."""
    manifest = registry.manifest(pushed.ref)
    assert [layer["annotations"].get("dev.starcar.layer.kind") for layer in manifest["layers"]][-1] == "cache"
    assert pushed.metadata["layers"][-1]["kind"] == "cache" and len(pushed.kinds("cache")) == 1
    if manifest["layers"][-1]["mediaType"].endswith("+gzip"):
        assert image.TOC_DIGEST in manifest["layers"][-1]["annotations"]
        layer = json.loads(starcar("inspect", pushed.ref, "--format", "json").stdout)["layers"][-1]
        entries = [entry for entry in layer["lazy"]["Ok"]["entries"] if entry["type"] == "reg"]
        names = [entry["path"] for entry in entries if entry["path"].startswith(cache_use.PACKED)]
        assert names and all(entry["prefetched"] for entry in entries if entry["path"] in names)
        assert layer["lazy"]["Ok"]["landmark"]["prefetch"]
        plain = starcar.pack(small_model[0])
        assert [layer["digest"] for layer in plain.metadata["layers"]] == [
            layer["digest"] for layer in pushed.metadata["layers"][:-1]
        ]


def test_labels(registry, pushed, cache):
    """What MCV and KServe's kernel caches look for, and starcar's own account."""
    config = json.loads(registry.blob(pushed.ref, registry.manifest(pushed.ref)["config"]["digest"]))
    labels = config["config"]["Labels"]
    packed = {path for path in cache_use.want(cache, "vllm", left_out=LEFT_OUT)}
    assert int(labels["cache.vllm.image/entry-count"]) > 0
    assert int(labels["cache.vllm.image/cache-size-bytes"]) > 0
    targets = json.loads(labels["cache.vllm.image/summary"])["targets"]
    assert [(target["backend"], target["arch"], target["warp_size"]) for target in targets] == [("cuda", "sm_75", 32)]
    assert labels["cache.vllm.image/format"]
    prefix = "io.kserve.km/"
    mount = {name.removeprefix(prefix): value for name, value in labels.items() if name.startswith(prefix)}
    assert mount == {
        "framework": "vllm", "cache-type": "torch-compile", "cache-hash": cache_trees.LEGACY.split("/")[1],
        "cache-mount-subpath": "torch_compile_cache", "cache-root-env": f"VLLM_CACHE_ROOT={cache_use.AT}/vllm",
    }
    # containerd starts no container of an image with a longer label.
    assert all(len(name) + len(value) <= 4096 for name, value in labels.items())
    (account,) = json.loads((labels | registry.manifest(pushed.ref)["annotations"])["dev.starcar.caches"])
    assert (account["name"], account["kind"], account["directory"]) == ("vllm", "vllm", "compile-cache/vllm")
    assert len(packed) > account["files"] > 17
    assert "VLLM_CACHE_ROOT" in json.dumps(registry.manifest(pushed.ref)["annotations"]["dev.starcar.cache.env"])


@pytest.mark.parametrize("user", ["0:0", "1010:0"])
def test_the_snippet_in_a_container(pushed, starcar, cache, node, tmp_path, user):
    """busybox in a container with nothing else, the model read-only at /mnt/models: the cache is writable, and again
    when the container is started a second time."""
    text = cache_use.snippet(starcar, pushed.ref)
    assert "--model /mnt/models" in text and "VLLM_FORCE_AOT_LOAD=1" in text
    rootfs = tmp_path / "rootfs"
    for name in ("bin", "mnt/models", "proc", "dev", "sys", "tmp"):
        (rootfs / name).mkdir(parents=True)
    (rootfs / "tmp").chmod(0o1777)
    shutil.copy("/bin/busybox", rootfs / "bin/busybox")
    for name in ("sh", "cp", "mkdir", "find", "sed"):
        (rootfs / "bin" / name).symlink_to("busybox")
    (rootfs / "snippet.sh").write_text(text)
    models = cache_use.mounted(node, pushed.ref, tmp_path / "lazy")
    for _ in range(2):
        _, out = node.run(
            "engine", rootfs, "sh", "-euc", '. /snippet.sh; echo "at $VLLM_CACHE_ROOT"', rootfs=True, user=user,
            binds=[(models, "/mnt/models", "ro")],
        )
        # busybox tells others than root that files are theirs now; GNU's cp does not.
        said = [line for line in out.splitlines() if not (user != "0:0" and "can't preserve ownership" in line)]
        assert said == [f"at {cache_use.AT}/vllm"]
    run("umount", models.parent)
    copied = rootfs / cache_use.AT.strip("/") / "vllm"
    owner = tuple(map(int, user.split(":")))
    expected = cache_use.want(cache, "vllm", changed=relocated(cache), left_out=LEFT_OUT, created=CREATED)
    tree = {f"{cache_use.PACKED}/vllm/{path}": record for path, record in trees.of_directory(copied).items()}
    assert {(record["uid"], record["gid"]) for record in tree.values()} == {owner}
    fields = [field for field in trees.FIELDS if field not in ("uid", "gid")]
    cache_use.assert_packed(expected, tree, "vllm", "the copied cache", fields)


@pytest.mark.parametrize("pushed", ["tar"], indirect=True)
def test_kserve_fetches_it(pushed, cache, expected, tmp_path, monkeypatch):
    """KServe's fetch mode, which knows no hard links and reads tar layers alone."""
    monkeypatch.setenv("KSERVE_OCI_INSECURE_REGISTRY", "true")
    monkeypatch.setenv("KSERVE_OCI_DOCKER_CONFIG", str(tmp_path / "no-docker-config.json"))
    Storage.download(f"oci://{pushed.ref}", str(tmp_path / "fetched"))
    tree = {f"models/{path}": record for path, record in trees.of_directory(tmp_path / "fetched").items()}
    cache_use.assert_packed(expected, tree, "vllm", "the fetched cache", ("type", "size", "sha256"))


def test_another_place_is_written_into_it(starcar, pushed, cache, node, tmp_path):
    """--at, other than what it was packed for."""
    models = cache_use.mounted(node, pushed.ref, tmp_path / "lazy")
    at = tmp_path / "elsewhere"
    exported = cache_use.sourced(cache_use.snippet(starcar, pushed.ref, at, models), tmp_path / "work")
    run("umount", models.parent)
    assert exported == {"VLLM_CACHE_ROOT": f"{at}/vllm"}
    ((path, data),) = relocated(cache, at).items()
    assert (at / "vllm" / path).read_bytes() == data


def test_a_bare_torch_compile_cache(starcar, cache, small_model):
    """The directory that vLLM's documentation tells to copy goes to its place below the root."""
    packed = starcar.pack(small_model[0], "--cache", cache / "torch_compile_cache")
    tree = trees.of_tar(packed.layout.layers()[-1][1])
    left_out = {path.partition("/")[2] for path in LEFT_OUT if path.startswith("torch_compile_cache/")}
    changed = {path.partition("/")[2]: data for path, data in relocated(cache).items()}
    expected = cache_use.want(
        cache / "torch_compile_cache", "vllm", "torch_compile_cache", changed, left_out, created=CREATED
    )
    cache_use.assert_packed(expected, tree, "vllm", "the bare cache")


def test_ahead_of_time(starcar, small_model, tmp_path):
    """vLLM wants inductor_cache beside the ranks, and fails on a read-only mount without it."""
    root = cache_trees.vllm_aot(tmp_path / "aot", ranks=2)
    found = cache_use.inspected(starcar, root)["vllm"]
    said = {"python": "3.12.9", "gpuName": "Tesla T4", "backend": "cuda", "torch": cache_trees.TORCH}
    assert {fact: cache_use.values(found, fact) for fact in said} == {fact: [value] for fact, value in said.items()}
    packed = starcar.pack(small_model[0], "--cache", f"vllm={root}")
    tree = trees.of_tar(packed.layout.layers()[-1][1])
    entry = f"{cache_trees.AOT}/{'ab' * 32}"
    expected = cache_use.want(root, "vllm", created={"dummy_cache", f"{entry}/inductor_cache"})
    cache_use.assert_packed(expected, tree, "vllm", "the ahead-of-time cache")
    assert tree[f"{cache_use.PACKED}/vllm/{entry}/rank_0_0/model"]["mode"] == 0o644


def test_mixed_ranks_are_found(starcar, small_model, tmp_path):
    """Two ranks that were compiled on different GPUs are no cache for either."""
    root = cache_trees.vllm_aot(tmp_path / "aot", ranks=1)
    other = cache_trees.vllm_aot(tmp_path / "other", ranks=2, gpu_name=cache_trees.GPUS[90][0])
    entry = f"{cache_trees.AOT}/{'ab' * 32}"
    shutil.copytree(other / entry / "rank_1_0", root / entry / "rank_1_0")
    findings = cache_use.inspected(starcar, root)["vllm"]["findings"]
    assert any(finding["severity"] in ("warning", "error") for finding in findings), findings
    output = ["--base", "scratch", "-o", f"oci:{tmp_path}/image"]
    done = starcar("pack", small_model[0], "--cache", root, "--strict", *output, check=False)
    assert done.returncode == 8, done.stderr


def test_unknown_trees_are_refused(starcar, small_model, tmp_path):
    """A directory that is no cache is packed only where the user says that it is one."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/todo.txt").write_text("not a cache\n")
    arguments = ["pack", small_model[0], "--base", "scratch", "-o", f"oci:{tmp_path}/image", "--cache"]
    done = starcar(*arguments, tmp_path / "notes", check=False)
    assert done.returncode == 8 and "generic" in done.stderr, done.stderr
    assert not (tmp_path / "image/index.json").exists()
    starcar(*arguments, f"generic={tmp_path}/notes")
    tree = trees.of_tar(image.Layout(tmp_path / "image").layers()[-1][1])
    cache_use.assert_packed(cache_use.want(tmp_path / "notes", "generic"), tree, "generic", "the generic tree")


@pytest.mark.parametrize(
    ("facts", "fits"),
    [
        (["--gpu", "sm_75", "--python", "3.12.9"], True),
        (["--gpu", "T4", "--torch", "2.9.1", "--tp", "1"], True),
        (["--gpu", "T4", "--tp", "2"], False),
        (["--gpu", "sm_90"], False),
        (["--gpu", "A100"], False),
        (["--python", "3.11"], False),
        (["--torch", "2.10.0"], False),
        (["--triton", "3.6.0"], False),
    ],
)
def test_check(starcar, cache, facts, fits):
    """Whether it is of use elsewhere is told without that GPU."""
    done = starcar("cache", "check", cache, *facts, check=False)
    assert done.returncode == (0 if fits else 1), done.stdout + done.stderr
