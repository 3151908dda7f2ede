"""What signatures, provenance and bills of materials are worth: cosign's two versions, and validators of the documents."""

import hashlib
import json
import urllib.request
from pathlib import Path

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1 import statement_pb2
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from ci_systems import Machine
from consumers.proc import run
from model_files import TINY_LLAMA
from packing import sha256_file
from publishing import (  # noqa: F401
    PUBLISH, RELEASES, Cosign, cosign, cosigns, repository, shell_environment, shells, tags, tools,
)


class Published:
    """A model that publish.sh brought to the registry that asks for no password."""

    def __init__(self, root, shells, registry, cosign):
        self.cosign, self.registry, self.name = cosign, registry, f"signed-with-{cosign.release}"
        self.machine = Machine(repository(root), shells(cosign.release))
        self.publish()
        self.out = self.machine.work / "starcar-out"
        self.image = (self.out / "image").read_text().strip()
        self.digest = self.image.partition("@")[2]

    def publish(self, *steps):
        environment = shell_environment(self.registry.ref(self.name, "v1"), self.cosign)
        self.machine.run("publish.sh", ["sh", PUBLISH, *steps], environment)

    def starcar(self, *arguments):
        return run("starcar", *arguments, env=self.machine.base)


@pytest.fixture(scope="module")
def all_published(shells, registry, cosigns, tmp_path_factory):
    return {release: Published(tmp_path_factory.mktemp(release) / "machine", shells, registry, cosigns[release]) for release in RELEASES}


@pytest.fixture(scope="module")
def published(all_published, cosign):
    return all_published[cosign.release]


# Signatures


def put(registry, name, reference, content):
    request = urllib.request.Request(
        f"{registry.url}/v2/{name}/manifests/{reference}", data=content, method="PUT",
        headers={"Content-Type": json.loads(content)["mediaType"]},
    )
    urllib.request.urlopen(request, timeout=60).close()


def test_they_are_for_one_key(published, cosign, shells, tmp_path):
    assert published.digest in cosign.verify(published.image).stdout
    other = Cosign(cosign.release, shells, tmp_path)
    assert cosign.verify(published.image, key=other.pub, check=False).returncode != 0
    for kind in ("slsaprovenance1", "spdxjson"):
        attestation = {"verb": "verify-attestation", "check": False}
        assert cosign.verify(published.image, "--type", kind, **attestation).returncode == 0
        assert cosign.verify(published.image, "--type", kind, key=other.pub, **attestation).returncode != 0
    assert cosign.verify(published.image, "--type", "vuln", verb="verify-attestation", check=False).returncode != 0


def test_they_are_for_one_digest(published, registry, cosign):
    """A manifest with one byte more, to which all that was signed is moved over."""
    content = registry.manifest_bytes(published.image)
    changed = content + b" "
    twin = "sha256:" + hashlib.sha256(changed).hexdigest()
    put(registry, published.name, "changed", changed)
    image = f"{registry.host}/{published.name}@{twin}"
    assert cosign.verify(image, check=False).returncode != 0
    old, new = published.digest.replace(":", "-"), twin.replace(":", "-")
    moved = [tag for tag in tags(registry, published.name) if tag.startswith(old)]
    assert moved
    for tag in moved:
        put(registry, published.name, tag.replace(old, new), registry.manifest_bytes(registry.ref(published.name, tag)))
    for arguments in ({}, {"verb": "verify-attestation"}):
        kind = ["--type", "slsaprovenance1"] if arguments else []
        refused = cosign.verify(image, *kind, check=False, **arguments)
        assert refused.returncode != 0, refused.stdout
    # And nothing of it did harm to the image that is signed.
    cosign.verify(published.image)


def test_a_signed_image_is_mounted_lazily(published, registry, fresh_node, tmp_path):
    """Signing adds to the repository and changes no byte of the image."""
    ref = registry.ref(published.name, "v1")
    fresh_node.rpull(ref)
    target = fresh_node.mount(ref, tmp_path / "mounted", "stargz")
    for file in filter(Path.is_file, TINY_LLAMA.iterdir()):
        assert (target / "models" / file.name).read_bytes() == file.read_bytes()
    layers = {layer["digest"] for layer in registry.manifest(ref)["layers"]}
    assert fresh_node.lazy_mounts() and not layers & fresh_node.stored()


def test_what_a_copy_takes_along(published, second_registry, cosign):
    """Signatures of cosign 3 are referrers, which `copy --referrers` takes along. Those of cosign 2 are tags of their own,
    which its own `copy` knows."""
    to, there = second_registry.ref("copied", "v1"), f"{second_registry.host}/copied@{published.digest}"
    published.starcar("copy", published.image, to)
    assert cosign.verify(there, check=False).returncode != 0, "signatures are not part of the image"
    published.starcar("copy", "--referrers", published.image, to)
    assert (cosign.verify(there, check=False).returncode == 0) == (cosign.release == "sid")
    if cosign.release == "trixie":
        cosign("copy", "--force", published.image, to)
        cosign.verify(there)
        cosign.verify(there, "--type", "slsaprovenance1", verb="verify-attestation")


def test_each_version_reads_what_it_knows(all_published, cosigns):
    """cosign 3 reads the tags of cosign 2, which knows nothing of referrers."""
    old, new = all_published["trixie"], all_published["sid"]
    cosigns["sid"].verify(old.image, key=cosigns["trixie"].pub)
    cosigns["sid"].verify(old.image, "--type", "spdxjson", verb="verify-attestation", key=cosigns["trixie"].pub)
    assert cosigns["trixie"].verify(new.image, key=cosigns["sid"].pub, check=False).returncode != 0


def test_they_lie_beside_profiles(published, registry, cosign):
    """Where there is no referrers API, profiles and cosign 3's signatures are listed under one tag. Neither may lose the other's."""
    work = published.machine.work
    published.starcar("profile", "attach", work / "profile.json", published.image)
    cosign.verify(published.image)
    # Signed once more, with the profile there.
    published.publish("sign", "check")
    listed = json.loads(registry.manifest_bytes(registry.ref(published.name, published.digest.replace(":", "-"))))["manifests"]
    kinds = [each.get("artifactType", "") for each in listed]
    assert any("profile" in kind for kind in kinds)
    assert len(kinds) > 1 or cosign.release == "trixie"
    published.starcar("pack", work / "tiny-llama", "--base", "scratch", "--profile", f"from:{published.image}", "-q", "-o",
                      f"oci:{work.parent / 'again.oci'}")


# The documents


def test_the_statement_is_of_in_totos_types(published):
    statement = json.loads((published.out / "provenance.json").read_text())
    # A field that the types do not have is an error.
    parsed = json_format.ParseDict(statement, statement_pb2.Statement())
    Statement.copy_from_pb(parsed).validate()
    assert (parsed.type, parsed.predicate_type) == ("https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1")
    (subject,) = parsed.subject
    assert dict(subject.digest) == {"sha256": published.digest.removeprefix("sha256:")}
    assert subject.name == published.image.partition("@")[0]

    predicate = json_format.ParseDict(statement["predicate"], provenance_pb2.Provenance())
    definition = predicate.buildDefinition if hasattr(predicate, "buildDefinition") else predicate.build_definition
    materials = definition.resolved_dependencies
    for each in materials:
        ResourceDescriptor.copy_from_pb(each).validate()
    # What SLSA requires.
    assert definition.build_type.startswith("https://") and len(definition.external_parameters)
    assert predicate.run_details.builder.id.startswith("https://")

    found = {each.name: each.digest["sha256"] for each in materials}
    for file in filter(Path.is_file, TINY_LLAMA.iterdir()):
        assert found.pop(file.name) == sha256_file(file)
    assert found.pop("profile.json") == sha256_file(published.machine.work / "profile.json")
    # All profiles merged, which no file is.
    assert set(found) <= {"profile"}, found


@pytest.mark.parametrize("change", [
    lambda statement: statement.update(subjects=[]),
    lambda statement: statement["predicate"].update(buildDefinitions={}),
    lambda statement: statement["predicate"]["runDetails"]["builder"].update(version="0.1"),
])
def test_the_types_are_strict(all_published, change):
    statement = json.loads((all_published["sid"].out / "provenance.json").read_text())
    change(statement)
    with pytest.raises(json_format.ParseError):
        json_format.ParseDict(statement, statement_pb2.Statement())
        json_format.ParseDict(statement["predicate"], provenance_pb2.Provenance())


def test_the_attested_predicate_is_what_was_written(published, cosign):
    """cosign makes the statement anew around the predicate; what it says of the build stays."""
    ours = json.loads((published.out / "provenance.json").read_text())["predicate"]
    theirs = cosign.statement(published.image, "slsaprovenance1")["predicate"]
    assert theirs["buildDefinition"] == ours["buildDefinition"]
    assert theirs["runDetails"]["builder"] == ours["runDetails"]["builder"]
    bill = json.loads((published.out / "sbom.spdx.json").read_text())
    assert cosign.statement(published.image, "spdxjson")["predicate"] == bill


def test_the_bill_of_materials_is_spdx(all_published, tmp_path):
    published = all_published["trixie"]
    document = parse_file(str(published.out / "sbom.spdx.json"))
    assert validate_full_spdx_document(document) == []
    sums = {each.name: {sum.value for sum in each.checksums} for each in document.packages}
    for file in filter(Path.is_file, TINY_LLAMA.iterdir()):
        assert sha256_file(file) in sums[file.name]
    # The validator is awake.
    broken = json.loads((published.out / "sbom.spdx.json").read_text())
    broken["packages"][0]["downloadLocation"] = "somewhere"
    (tmp_path / "broken.spdx.json").write_text(json.dumps(broken))
    assert validate_full_spdx_document(parse_file(str(tmp_path / "broken.spdx.json")))
