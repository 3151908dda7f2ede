"""Profiles that hang on images: found by the referrers API, or by a tag where a registry has none."""

import hashlib
import json
import shutil

import pytest

from model_files import MIB, write_model
from pushing import State, check_image, http_status

ACCEPT = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def model(tmp_path):
    yield write_model(tmp_path / "model", 24 * MIB, shards=3, seed=4)
    shutil.rmtree(tmp_path / "model")


@pytest.fixture
def profile(tmp_path, model):
    """Another order than the natural one; returns a function that writes one, by the order of shards."""
    names = sorted(path.name for path in model.glob("*.safetensors"))

    def write(*order):
        path = tmp_path / f"profile-{'-'.join(map(str, order))}.json"
        order = ["config.json", *(names[number] for number in order)]
        accesses = [{"at": at, "kind": "read", "path": name} for at, name in enumerate(order, 1)]
        path.write_text(json.dumps({"version": 1, "accesses": accesses}))
        return path

    return write


def pushed(state, model, ref, *arguments):
    return state.run("pack", model, "--base", "scratch", "--push", "-t", ref, *arguments).digest


def referrers(registry, name, digest):
    """The descriptors of what refers to an image, as the registry's kind has it: by the API, or by the tag."""
    path = f"/v2/{name}/referrers/{digest}" if registry.api else f"/v2/{name}/manifests/{digest.replace(':', '-')}"
    index = json.loads(registry.get(path, headers={"Accept": ACCEPT}))
    assert index["schemaVersion"] == 2 and index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    return index["manifests"]


def attached(registry, name, descriptor, digest):
    """The content of an artifact that refers to `digest`, its descriptor checked against what it describes."""
    content = registry.get(f"/v2/{name}/manifests/{descriptor['digest']}", headers={"Accept": ACCEPT})
    assert len(content) == descriptor["size"]
    assert "sha256:" + hashlib.sha256(content).hexdigest() == descriptor["digest"]
    manifest = json.loads(content)
    assert manifest["subject"]["digest"] == digest
    assert manifest["mediaType"] == descriptor["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert manifest.get("artifactType", manifest["config"]["mediaType"]) == descriptor["artifactType"]
    (layer,) = manifest["layers"]
    blob = registry.get(f"/v2/{name}/blobs/{layer['digest']}")
    assert len(blob) == layer["size"]
    # An OCI 1.1 client asks for the subject's size too.
    subject = registry.get(f"/v2/{name}/manifests/{digest}", headers={"Accept": ACCEPT})
    assert manifest["subject"]["size"] == len(subject)
    assert registry.get(f"/v2/{name}/blobs/{manifest['config']['digest']}")
    return json.loads(blob)


def test_an_attached_profile(referring_registry, model, state, profile):
    registry, ref = referring_registry, referring_registry.ref("team/model", "v1")
    digest = pushed(state, model, ref)
    state.run("profile", "attach", profile(2, 0, 1), ref)
    (descriptor,) = referrers(registry, "team/model", digest)
    assert "profile" in descriptor["artifactType"]
    found = attached(registry, "team/model", descriptor, digest)
    assert [each["path"] for each in found["accesses"]] == [
        each["path"] for each in json.loads(profile(2, 0, 1).read_text())["accesses"]
    ]
    # The image is what it was.
    check_image(registry, ref, digest)
    tag = digest.replace(":", "-")
    assert (http_status(registry, f"/v2/team/model/manifests/{tag}") == 404) == registry.api


def test_attaching_again_and_another(referring_registry, model, state, profile):
    registry, ref = referring_registry, referring_registry.ref("team/model")
    digest = pushed(state, model, ref)
    for _ in range(2):
        state.run("profile", "attach", profile(2, 0, 1), ref)
    assert len(referrers(registry, "team/model", digest)) == 1
    state.run("profile", "attach", profile(1, 2, 0), f"{ref.rpartition(':')[0]}@{digest}")
    both = referrers(registry, "team/model", digest)
    assert len(both) == 2
    orders = [attached(registry, "team/model", each, digest)["accesses"][1]["path"] for each in both]
    assert sorted(orders) == sorted(path.name for path in model.glob("*.safetensors"))[1:]


def test_a_profile_from_an_image_lays_out_the_next(referring_registry, model, state, profile):
    registry, ref = referring_registry, referring_registry.ref("team/model", "v1")
    natural = pushed(state, model, ref, "--profile", "none")
    file = profile(2, 1, 0)
    by_file = pushed(state, model, registry.ref("team/by-file"), "--profile", file)
    assert by_file != natural
    state.run("profile", "attach", file, ref)
    assert pushed(state, model, registry.ref("team/model", "v2"), "--profile", f"from:{ref}") == by_file
    # Whoever has nothing but the name of the image gets the same.
    assert pushed(State(state.dir / "another"), model, registry.ref("team/model", "v3"), "--profile", f"from:{ref}") == by_file


def test_debians_registry_has_the_tag_scheme(debian_registry, model, state, profile):
    debian_registry.api, ref = False, debian_registry.ref("team/model", "v1")
    digest = pushed(state, model, ref)
    file = profile(2, 0, 1)
    state.run("profile", "attach", file, ref)
    (descriptor,) = referrers(debian_registry, "team/model", digest)
    attached(debian_registry, "team/model", descriptor, digest)
    by_file = pushed(state, model, debian_registry.ref("team/by-file"), "--profile", file)
    assert pushed(state, model, debian_registry.ref("team/model", "v2"), "--profile", f"from:{ref}") == by_file


def test_what_cannot_be_attached_or_found(referring_registry, model, state, profile, tmp_path):
    ref = referring_registry.ref("team/model")
    done = state.run("profile", "attach", profile(0, 1, 2), ref, status=6)
    assert len(done.words) == 1 and ref in done.stderr, done.stderr
    digest = pushed(state, model, ref)
    broken = tmp_path / "broken.json"
    broken.write_text("[]")
    assert str(broken) in state.run("profile", "attach", broken, ref, status=7).stderr
    done = state.run("plan", model, "--base", "scratch", "--profile", f"from:{ref}", status=7)
    assert ref in done.stderr, "an image without a profile is named"
    check_image(referring_registry, ref, digest)
