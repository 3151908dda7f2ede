"""What is shared: images that differ in their caches alone share every layer of the model, in layouts and registries.

The tag rule: caches for several GPU targets give `TAG-TARGET` for each target, and `TAG` without caches.
"""

import hashlib
import json

import pytest

import cache_trees
import cache_use
from consumers import image, trees

VARIANTS = "dev.starcar.variants"


@pytest.fixture(scope="module")
def caches(scratch):
    """vLLM caches of two GPUs, and real Triton caches for them."""
    work = scratch / "variants"
    made = {}
    for arch in (75, 90):
        vllm = cache_trees.vllm(work / f"vllm-{arch}", arch)
        triton = work / f"triton-{arch}"
        assert not cache_use.fresh_process("compile_triton.py", arch, env={"TRITON_CACHE_DIR": str(triton)})["hit"]
        made[arch] = (vllm, triton)
    return made


def blobs(registry):
    """The digests of everything that a registry holds."""
    return {f"sha256:{path.name}" for path in (registry.root / "docker/registry/v2/blobs/sha256").glob("*/*")}


def digest(registry, name):
    """What a registry has under a name and tag."""
    return f"sha256:{hashlib.sha256(registry.manifest_bytes(registry.ref(*name.split(':')))).hexdigest()}"


def tags(registry, name):
    return set(json.loads(registry.get(f"/v2/{name}/tags/list"))["tags"])


def layers(manifest, cache):
    """The digests of the layers that are caches, or those that are not."""
    kind = "dev.starcar.layer.kind"
    return [layer["digest"] for layer in manifest["layers"] if (layer["annotations"].get(kind) == "cache") is cache]


def packed_names(data):
    """Names below /models/compile-cache of a layer."""
    return {path.split("/")[2] for path in data if path.startswith(f"{cache_use.PACKED}/")}


def test_a_changed_cache_is_all_that_is_pushed(starcar, registry, caches, small_model, image_name):
    """One layer, one manifest and one config for a new cache; nothing of the model is sent again."""
    first = starcar.pack(small_model[0], "--cache", caches[75][0], tag=registry.ref(image_name, "v1"))
    before = blobs(registry)
    (caches[75][0] / "modelinfos/new.json").write_text("{}\n")
    registry.reset()
    second = starcar.pack(small_model[0], "--cache", caches[75][0], tag=registry.ref(image_name, "v2"))
    (caches[75][0] / "modelinfos/new.json").unlink()
    manifest = registry.manifest(second.ref)
    (cache,) = layers(manifest, cache=True)
    assert blobs(registry) - before == {cache, manifest["config"]["digest"], second.digest}
    uploads = [request for request in registry.requests() if request["method"] in ("PUT", "PATCH", "POST")]
    manifests = [request for request in uploads if "/manifests/" in request["path"]]
    ended = [request for request in uploads if request["method"] == "PUT" and "/blobs/uploads/" in request["path"]]
    assert (len(manifests), len(ended)) == (1, 2), uploads
    assert layers(manifest, cache=False) == layers(registry.manifest(first.ref), cache=False)


def test_two_targets_share_the_model(starcar, registry, caches, small_model, image_name, measured):
    """v1 has no cache and names the other two by digest; v1-sm75 and v1-sm90 have theirs."""
    ref = registry.ref(image_name, "v1")
    arguments = [option for pair in caches.values() for cache in pair for option in ("--cache", cache)]
    before = blobs(registry)
    starcar.pack(small_model[0], *arguments, tag=ref)
    assert tags(registry, image_name) == {"v1", "v1-sm75", "v1-sm90"}
    manifests = {tag: registry.manifest(registry.ref(image_name, tag)) for tag in tags(registry, image_name)}
    model = layers(manifests["v1"], cache=False)
    assert not layers(manifests["v1"], cache=True)
    for tag, manifest in manifests.items():
        assert layers(manifest, cache=False) == model
        config = json.loads(registry.blob(registry.ref(image_name, tag), manifest["config"]["digest"]))["config"]
        assert config["Labels"].get("dev.starcar.variant") == (tag.partition("-")[2] or None)
    listed = json.loads(manifests["v1"]["annotations"][VARIANTS])
    assert listed == {target: digest(registry, f"{image_name}:v1-{target}") for target in ("sm75", "sm90")}
    own = {tag: set(layers(manifests[tag], cache=True)) for tag in ("v1-sm75", "v1-sm90")}
    assert len(own["v1-sm75"]) == len(own["v1-sm90"]) == 2 and not own["v1-sm75"] & own["v1-sm90"]
    new = blobs(registry) - before
    sizes = {layer["digest"]: layer["size"] for manifest in manifests.values() for layer in manifest["layers"]}
    of_caches = sum(sizes[layer] for tag in own for layer in own[tag])
    measured(f"{sum(sizes[layer] for layer in model)} bytes of model, {of_caches} of caches")
    # Nothing is there twice: the model's layers, the caches', a manifest and a config for each tag, and a probe.
    assert len(new - set(model)) <= 4 + 3 + 3 + 1
    for tag, arch in (("v1-sm75", 75), ("v1-sm90", 90)):
        found = cache_use.inspected(starcar, registry.ref(image_name, tag))
        assert set(found) == {"vllm", "triton"}
        assert {cache["kind"] for cache in found.values()} == {"vllm", "triton"}
        for cache in found.values():
            assert cache_use.values(cache, "architecture") == [f"sm_{arch}"]


def test_the_variants_are_as_packed_alone(starcar, registry, caches, small_model, node, image_name, tmp_path):
    """A variant is lazily mounted as any image is, with the caches of its target and no other."""
    ref = registry.ref(image_name, "v1")
    arguments = [option for pair in caches.values() for cache in pair for option in ("--cache", cache)]
    starcar.pack(small_model[0], *arguments, tag=ref)
    for arch in (75, 90):
        root = cache_use.mounted(node, f"{ref}-sm{arch}", tmp_path / str(arch)).parent
        tree = trees.of_directory(root)
        cache_use.run("umount", root)
        assert packed_names(tree) == {"vllm", "triton"}
        name = "artifact_compile_range_1_2048_subgraph_0"
        packed = tree[f"{cache_use.PACKED}/vllm/{cache_trees.LEGACY}/{name}"]
        assert packed["sha256"] == trees.sha256_of(caches[arch][0] / cache_trees.LEGACY / name)
    root = cache_use.mounted(node, ref, tmp_path / "plain").parent
    tree = trees.of_directory(root)
    cache_use.run("umount", root)
    trees.assert_same(small_model[1], trees.under(tree), "the image without caches")


def test_variants_in_a_layout(starcar, caches, small_model, tmp_path):
    """The same tags in a layout, over the same blobs; the image without caches says where they are."""
    layout = image.Layout(tmp_path / "layout")
    options = ["--base", "/bin/busybox", "-o", f"oci:{layout.dir}:v1"]
    starcar("pack", small_model[0], "--cache", caches[75][0], "--cache", caches[90][0], *options)
    found = {
        descriptor["annotations"]["org.opencontainers.image.ref.name"]: layout.json(descriptor["digest"])
        for descriptor in layout.index()["manifests"]
    }
    assert set(found) == {"v1", "v1-sm75", "v1-sm90"}
    model = layers(found["v1"], cache=False)
    assert all(layers(manifest, cache=False) == model for manifest in found.values())
    for tag in ("v1-sm75", "v1-sm90"):
        (layer,) = layers(found[tag], cache=True)
        assert packed_names(trees.of_tar(layout.blob(layer))) == {"vllm"}
        assert "VLLM_CACHE_ROOT" in cache_use.snippet(starcar, f"oci:{layout.dir}:{tag}")
    done = starcar("cache", "env", f"oci:{layout.dir}:v1", check=False)
    assert done.returncode == 8 and "sm75, sm90" in done.stderr and not done.stdout, done.stdout + done.stderr


def test_one_target_is_one_image(starcar, registry, caches, small_model, image_name):
    """Caches of one target, of whatever kinds, make no variants."""
    starcar.pack(
        small_model[0], "--cache", caches[75][0], "--cache", caches[75][1], tag=registry.ref(image_name, "v1")
    )
    assert tags(registry, image_name) == {"v1"}
    manifest = registry.manifest(registry.ref(image_name, "v1"))
    assert len(layers(manifest, cache=True)) == 2 and VARIANTS not in manifest["annotations"]


@pytest.mark.parametrize("kind", ["vllm", "artifacts", "generic"])
def test_the_user_may_name_the_target(starcar, registry, small_model, image_name, tmp_path, kind):
    """Caches that do not tell their targets are told them."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kernel.bin").write_bytes(cache_trees.noise(name, 1000))
    starcar.pack(
        small_model[0], "--cache", f"{kind}@sm80={tmp_path}/a", "--cache", f"{kind}@sm90={tmp_path}/b",
        tag=registry.ref(image_name, "v1"),
    )
    assert tags(registry, image_name) == {"v1", "v1-sm80", "v1-sm90"}
    for tag, name in (("v1-sm80", "a"), ("v1-sm90", "b")):
        (layer,) = layers(registry.manifest(registry.ref(image_name, tag)), cache=True)
        tree = trees.of_tar(registry.blob_file(layer))
        path = f"{cache_use.PACKED}/{kind}/kernel.bin"
        assert tree[path]["sha256"] == trees.sha256_of(tmp_path / name / "kernel.bin")
