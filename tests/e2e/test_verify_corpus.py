"""`starcar verify` on images with one defect each: every defect is found, by its own code, by the cheapest mode that can
see it, and nothing else is found. Images with which nothing is wrong have no findings."""

import functools
import json
import re
import shutil
import subprocess
import tarfile
import urllib.request

import pytest

import broken_images
from broken_images import CASES, DEEP, QUICK, sound
from consumers.shelf import Shelf
from packing import STARCAR, TOP, clean_env

RULE = re.compile(
    r'code: "(?P<code>[a-z-]+)",\s*severity: Severity::(?P<severity>\w+),\s*depth: Depth::(?P<depth>\w+),\s*breaks: (?P<breaks>\w+),')
USES = {
    "EVERY": {"lazy", "modelcar", "native", "fetch"}, "KSERVE": {"modelcar", "native", "fetch"}, "LAZY": {"lazy"},
    "MODELCAR": {"modelcar"}, "FETCH": {"fetch"}, "NONE": set(),
}
EXIT = {"error": 9, "warning": 10, "note": 0}
# What only a mode that reads little has to say.
QUICK_ONLY = {"layer-unread"}
# Modes of which a corpus of images shows nothing.
OTHER_MODES = {"Against": "needs a snapshot to compare with", "Rebuild": "needs a snapshot to pack again"}
WITHOUT_CASE = {
    "tag-latest": "a layout's image has no tag: test_tag_latest asks a registry",
    "ranges-ignored": "a layout has no server: test_ranges_ignored asks one",
}


@functools.cache
def rules():
    """{code: {severity, depth, breaks}} of the rules' tables."""
    found = {}
    for path in sorted((TOP / "src/verify/rules").glob("*.rs")):
        for rule in RULE.finditer(path.read_text()):
            assert rule["code"] not in found, rule["code"]
            found[rule["code"]] = {
                "severity": rule["severity"].lower(), "depth": rule["depth"], "breaks": USES[rule["breaks"]]}
    return found


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    """layouts(name) -> the layout of a case, or of a sound image; each is written once."""
    root = tmp_path_factory.mktemp("corpus")

    @functools.cache
    def write(name):
        image = CASES[name].make() if name in CASES else getattr(sound, name)()
        image.write(root / name)
        return root / name

    yield write
    shutil.rmtree(root)


@pytest.fixture
def verify(tmp_path):
    """verify(image, *arguments) -> (exit status, the JSON document)."""
    def run(image, *arguments):
        done = subprocess.run(
            [str(STARCAR), "verify", "--format", "json", *arguments, str(image)], capture_output=True, text=True,
            timeout=300, stdin=subprocess.DEVNULL, env=clean_env({"XDG_CACHE_HOME": tmp_path}),
        )
        assert done.returncode in (0, 9, 10), f"{done.args} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.returncode, json.loads(done.stdout)
    return run


def codes(document):
    return {finding["code"] for finding in document["findings"]}


def worst(document):
    order = list(EXIT)
    return EXIT[min((finding["severity"] for finding in document["findings"]), key=order.index, default="note")]


def wanted(document):
    return {verdict["use"] for verdict in document["verdicts"] if verdict["wanted"]}


def assert_consistent(status, document):
    """Exit code, severities and verdicts follow from the findings and their rules."""
    assert status == worst(document)
    works = {verdict["use"]: verdict for verdict in document["verdicts"]}
    assert set(works) == USES["EVERY"]
    for finding in document["findings"]:
        rule = rules()[finding["code"]]
        assert set(finding["breaks"]) == rule["breaks"]
        assert finding["depth"] == rule["depth"].lower()
        demoted = rule["breaks"] and not rule["breaks"] & wanted(document)
        assert finding["severity"] == ("note" if demoted else rule["severity"]), finding
        assert finding["message"] and finding["consequence"] and finding["remedy"]
        for use in rule["breaks"]:
            assert works[use]["works"] in ("no", "partly"), (finding["code"], works[use])
            assert any(f"({finding['code']})" in reason for reason in works[use]["reasons"]), (finding["code"], works[use])
    for use in works.values():
        # Nothing is said to work or not to work without a word on why.
        assert bool(use["reasons"]) == (use["works"] != "yes"), use


def check(case, status, document, expected):
    found = codes(document)
    assert expected <= found, f"{sorted(expected - found)} not found, but {json.dumps(document['findings'], indent=1)}"
    more = found - expected - case.also
    assert not more, f"{sorted(more)} found as well: {[f for f in document['findings'] if f['code'] in more]}"
    assert_consistent(status, document)
    if case.exit is not None and expected:
        assert status == case.exit
    elif expected:
        severities = [rules()[code]["severity"] for code in found]
        assert status == min((EXIT[each] for each in severities), key=[9, 10, 0].index)


@pytest.mark.parametrize("name", CASES)
def test_quick(name, layouts, verify):
    case = CASES[name]
    status, document = verify(f"oci:{layouts(name)}:v1", *case.arguments)
    assert document["depth"] == QUICK
    check(case, status, document, case.codes if case.depth == QUICK else set())
    if case.depth == DEEP:
        assert not case.codes & codes(document), "the case belongs to the quick mode"


@pytest.mark.parametrize("name", CASES)
def test_deep(name, layouts, verify):
    case = CASES[name]
    status, document = verify(f"oci:{layouts(name)}:v1", "--deep", *case.arguments)
    check(case, status, document, case.codes - QUICK_ONLY)


@pytest.mark.parametrize("arguments", [(), ("--deep",)], ids=["quick", "deep"])
@pytest.mark.parametrize("name, expected", {
    "estargz": {"lazy": "yes", "modelcar": "yes", "native": "yes", "fetch": "no"},
    "zstd_chunked": {"lazy": "yes", "modelcar": "yes", "native": "yes", "fetch": "no"},
    "zstd_chunked_with_frames": {"lazy": "yes", "modelcar": "yes", "native": "yes", "fetch": "no"},
    "zstd_storage": {"lazy": "no", "modelcar": "yes", "native": "yes", "fetch": "no"},
    "tar": {"lazy": "no", "modelcar": "yes", "native": "yes", "fetch": "yes"},
}.items())
def test_nothing_is_found_in_sound_images(name, expected, arguments, layouts, verify):
    status, document = verify(f"oci:{layouts(name)}:v1", *arguments)
    assert (status, document["findings"]) == (0, [])
    assert {verdict["use"]: verdict["works"] for verdict in document["verdicts"]} == expected
    assert_consistent(status, document)
    # The note is the least: there is not even that.
    assert verify(f"oci:{layouts(name)}:v1", *arguments, "--fail-on", "note")[0] == 0


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_plain_images_are_not_lazy_and_nothing_else(name, layouts, verify):
    status, document = verify(f"oci:{layouts(name)}:v1", "--deep")
    assert (status, codes(document)) == (10, {"image-not-lazy"})
    works = {verdict["use"]: verdict["works"] for verdict in document["verdicts"]}
    assert works == {"lazy": "no", "modelcar": "yes", "native": "yes", "fetch": "yes" if name == "gzip" else "no"}


def test_places_are_told(layouts, verify):
    """Layer, file and offset of a finding."""
    manifest = json.loads(_blob(layouts("chunk-too-long"), None).read_text())
    _, document = verify(f"oci:{layouts('chunk-too-long')}:v1")
    (finding,) = document["findings"]
    assert (finding["layer"], finding["file"], finding["offset"]) == (3, sound.WEIGHTS, 200_000)
    assert finding["digest"] == manifest["layers"][2]["digest"]
    _, document = verify(f"oci:{layouts('field-mode-differs')}:v1", "--deep")
    (finding,) = document["findings"]
    assert (finding["layer"], finding["file"]) == (2, sound.CONFIG)
    assert "666" in finding["message"] and "644" in finding["message"]


@pytest.mark.parametrize("level, status", [("error", 0), ("warning", 10), ("note", 10), ("never", 0)])
def test_fail_on(level, status, layouts, verify):
    assert verify(f"oci:{layouts('landmark-both')}:v1", "--fail-on", level)[0] == status


def test_every_rule_has_a_case():
    with_case = set().union(*(case.codes for case in CASES.values()))
    assert with_case <= set(rules()), f"no rules: {sorted(with_case - set(rules()))}"
    without = {code for code, rule in rules().items() if rule["depth"] not in OTHER_MODES} - with_case
    assert without == set(WITHOUT_CASE), "the list of rules without a case, and why, is out of date"


def test_cases_are_in_the_mode_of_their_rules():
    for case in CASES.values():
        assert {rules()[code]["depth"].lower() for code in case.codes} == {case.depth}, case.name


def test_every_field_is_malformed_and_differs():
    """Each field of the table of contents in turn, as stargz-snapshotter's docs/estargz.md lists them."""
    fields = "name type size modtime linkName mode uid gid userName groupName offset devMajor devMinor xattrs digest " \
        "chunkOffset chunkSize chunkDigest innerOffset"
    for field in fields.lower().split():
        assert CASES[f"field-{field}-of-wrong-type"].depth == QUICK
        # Chunks meet in one place: sizes and offsets differ together.
        differs = "chunksize" if field == "chunkoffset" else field
        assert CASES[f"field-{differs}-differs"].depth == DEEP


# From other places than layouts.


def _blob(layout, digest):
    digest = digest or json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    return layout / "blobs" / "sha256" / digest.removeprefix("sha256:")


def send(registry, method, path, data=b"", media_type="application/octet-stream"):
    request = urllib.request.Request(registry.url + path, method=method, data=data, headers={"Content-Type": media_type})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.headers


def push(registry, layout, name, tag="v1"):
    """Pushes the image of a layout as it is; what is not there is not pushed. What a registry would not take is put into
    its storage afterwards."""
    listed = json.loads((layout / "index.json").read_text())["manifests"][0]
    data = _blob(layout, listed["digest"]).read_bytes()
    manifest = json.loads(data)
    for descriptor in [manifest["config"], *manifest["layers"]]:
        stored = _blob(layout, descriptor["digest"])
        # The registry takes a manifest when all of its blobs are there, and a blob when its digest is right.
        whole = stored.read_bytes() if stored.is_file() else b""
        digest = broken_images.writer.digest_of(whole)
        location = send(registry, "POST", f"/v2/{name}/blobs/uploads/")["Location"].removeprefix(registry.url)
        send(registry, "PUT", f"{location}{'&' if '?' in location else '?'}digest={digest}", whole)
        if digest != descriptor["digest"]:
            _replace(registry, name, digest, descriptor["digest"], stored.is_file())
    send(registry, "PUT", f"/v2/{name}/manifests/{tag}", data, listed["mediaType"])
    for descriptor in manifest["layers"]:
        if not _blob(layout, descriptor["digest"]).is_file():
            _link(registry, name, descriptor["digest"]).unlink()
    return f"{registry.host}/{name}:{tag}"


def _link(registry, name, digest):
    value = digest.removeprefix("sha256:")
    return registry.root / f"docker/registry/v2/repositories/{name}/_layers/sha256/{value}/link"


def _replace(registry, name, actual, stated, exists):
    """Makes a blob that was pushed be found under another digest."""
    blobs = registry.root / "docker/registry/v2/blobs/sha256"
    source, target = (blobs / value[7:9] / value[7:] / "data" for value in (actual, stated))
    target.parent.mkdir(parents=True, exist_ok=True)
    if exists or not target.exists():
        shutil.copyfile(source, target)
    link = _link(registry, name, stated)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.write_text(stated)


IN_REGISTRY = [
    "layer-missing", "layer-size-too-large", "layer-size-too-small", "layer-cut-short", "docker-image", "docker-manifest",
    "layer-docker-type", "footer-magic", "toc-external", "toc-annotation-of-another-table", "config-damaged",
    "shell-missing-of-tar", "base-not-lazy", "zstd-footer-magic", "zstd-toc-frame-too-long",
]


@pytest.mark.parametrize("name", IN_REGISTRY)
def test_in_a_registry(name, layouts, verify, fresh_registry):
    case = CASES[name]
    status, document = verify(push(fresh_registry, layouts(name), f"corpus/{name}"), "--plain-http", *case.arguments)
    check(case, status, document, case.codes)


@pytest.mark.parametrize("name", ["blob-digest", "chunk-bytes", "field-mode-differs", "tar-cut-short"])
def test_in_a_registry_deep(name, layouts, verify, fresh_registry):
    case = CASES[name]
    ref = push(fresh_registry, layouts(name), f"corpus/{name}")
    status, document = verify(ref, "--plain-http", "--deep")
    check(case, status, document, case.codes)


def test_sound_image_in_a_registry(layouts, verify, registry):
    """Without a finding, and without the weights."""
    ref = push(registry, layouts("estargz"), "corpus/sound")
    registry.reset()
    status, document = verify(ref, "--plain-http")
    assert (status, document["findings"]) == (0, [])
    manifest = registry.manifest(ref)
    sent = registry.bytes_served()
    # Footers, tables, documents and the password file.
    assert sent < manifest["layers"][2]["size"] / 10, sent
    assert document["requests"] <= 2 + 3 * len(manifest["layers"])


def test_ranges_ignored(layouts, verify):
    """What is in the layers is not told where no part of them can be had."""
    shelf = Shelf(layouts("estargz").parent, ranges=False)
    status, document = verify(shelf.ref("estargz"), "--plain-http")
    shelf.stop()
    assert (status, codes(document)) == (9, {"ranges-ignored"})
    assert_consistent(status, document)


def test_tag_latest(layouts, verify, registry):
    push(registry, layouts("estargz"), "corpus/latest", "latest")
    for ref in (f"{registry.host}/corpus/latest", f"{registry.host}/corpus/latest:latest"):
        status, document = verify(ref, "--plain-http")
        assert (status, codes(document)) == (0, {"tag-latest"})


@pytest.mark.parametrize("name", ["estargz", "layer-missing", "toc-no-json", "entry-duplicate", "shell-missing-of-tar"])
def test_in_an_archive(name, layouts, verify, tmp_path):
    with tarfile.open(tmp_path / "image.tar", "w") as archive:
        for path in sorted(layouts(name).rglob("*")):
            archive.add(path, path.relative_to(layouts(name)), recursive=False)
    status, document = verify(f"oci-archive:{tmp_path}/image.tar:v1")
    if name in CASES:
        check(CASES[name], status, document, CASES[name].codes)
    else:
        assert (status, document["findings"]) == (0, [])
