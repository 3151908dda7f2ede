"""Every command of README.md, docs/ and the pages of examples/ is run as it stands, in order, on a machine made for its page (docs/sandbox)."""

import json
import os
import re
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml

from consumers import certificates
from docs import pages, sandbox, tables
from docs.standins import standins
import cache_trees
import packing

TOP = Path(__file__).resolve().parents[2]
PAGES = {page.name: page for page in pages.all_pages()}
SHELL = [name for name, page in PAGES.items() if page.shell()]

# What a reader has before the first command, made with the commands that the pages themselves show.
SEED = """
set -e -o pipefail
# busybox for two processors, and the index that its name stands for.
mkdir -p $HOME/base/bin
for applet in sh ln sleep ls mkdir cat cp chmod find sha256sum id test readlink; do ln -s busybox $HOME/base/bin/$applet; done
umoci init --layout $HOME/busybox
for arch in amd64 arm64; do
    if [ $arch = amd64 ]; then cp /bin/busybox $HOME/base/bin/; else cp $TOOLS/arm64/busybox $HOME/base/bin/; fi
    umoci new --image $HOME/busybox:$arch
    umoci insert --image $HOME/busybox:$arch $HOME/base /
    umoci config --image $HOME/busybox:$arch --architecture $arch --config.env PATH=/bin --config.cmd sh
    skopeo --insecure-policy copy oci:$HOME/busybox:$arch docker://docker.io/library/busybox:$arch
done
jq '{schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", manifests: [.manifests[]
    | .platform = {os: "linux", architecture: .annotations["org.opencontainers.image.ref.name"]} | del(.annotations)]}' \
    $HOME/busybox/index.json | /usr/bin/curl -fsS --data-binary @- -X PUT -H 'Content-Type: application/vnd.oci.image.index.v1+json' \
    https://registry-1.docker.io/v2/library/busybox/manifests/1.37
rm -rf $HOME/base $HOME/busybox
mkdir -p $HOME/.cache
cp -a /run/page/vllm $HOME/.cache/vllm
starcar record hf://Qwen/Qwen3-8B --until 'startup complete' --engine vllm -o $HOME/qwen3.json -- vllm serve {model}
starcar pack Qwen/Qwen3-8B --cache $HOME/.cache/vllm --profile $HOME/qwen3.json --attach-profile \
    -t registry.example.com/models/qwen3-8b:v1 --push
cd /run/page/prepared
starcar pack Qwen/Qwen3-8B --cache caches/a100 --cache caches/h100 -t registry.example.com/models/qwen3-8b:v2 --push
cd $HOME
rm -rf $HOME/.cache/starcar
rm -rf $HOME/starcar
mkdir -p /run/page/made
cp -a $HOME /run/page/made/home
cp -a /run/registries /run/page/made/registries
rm -f /run/page/made/registries/*/ready
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory, bin_dir, starcar, authority):
    """What all pages share, and what their readers have."""
    monkeypatch = pytest.MonkeyPatch()
    corp = certificates.Authority(tmp_path_factory.mktemp("corp") / "authority", "corp authority")
    made = sandbox.World(tmp_path_factory.mktemp("docs"), bin_dir, starcar.binary, authority, corp)
    model = made.repositories / "Qwen/Qwen3-8B"
    shutil.copytree(TOP / "examples/tiny-llama", model)
    (model / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    made.vllm = made.dir / "vllm"
    monkeypatch.setattr(cache_trees, "TORCH", "2.14.1+cu128")
    cache_trees.vllm(made.vllm, arch=90, home="/home/you/.cache/vllm")
    prepared = made.dir / "prepared"
    for name, arch in (("a100", 80), ("h100", 90)):
        cache_trees.vllm(prepared / "caches" / name, arch=arch, home="/root/.cache/vllm")
    shutil.copy(corp.cert, prepared / "corp-ca.crt")
    shutil.copytree(model, prepared / "Qwen3-8B")
    for name, log in (
        ("cold", "vllm-gpu-cold"), ("warm", "vllm-gpu-warm"), ("engine", "sglang"), ("engine-2", "vllm-gpu-warm"),
        ("containerd", "containerd"), ("snapshotter", "snapshotter"),
    ):
        shutil.copy(TOP / f"tests/data/report/{log}.log", prepared / f"{name}.log")
    made.prepared = prepared
    monkeypatch.undo()
    job = made.job("seed")
    (job / "page.sh").write_text(SEED)
    done = made.run(job)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{logs(job)}"
    made.seed = job / "made"
    yield made
    if not os.environ.get("E2E_KEEP"):
        shutil.rmtree(made.dir, ignore_errors=True)


@pytest.fixture(scope="module")
def seen():
    """What the pages have called, and which entries of the tables they needed."""
    return {"pages": set(), "called": set(), "exits": set(), "not run": set()}


def logs(job):
    """The last words of what ran beside a page."""
    found = [f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}" for log in sorted(job.glob("*.log"))]
    return "\n".join(each for each in found if each.count("\n") > 1)


def blocks_of(page, seen):
    """[(block, text)] of a page, with the exceptions of the tables applied."""
    chosen = []
    for block in page.shell():
        skipped = [key for key in tables.NOT_RUN if key[0] == page.name and key[1] in block.text]
        if skipped:
            seen["not run"].update(skipped)
            continue
        text = block.text
        if block.language == "console":
            text = "".join(f"{line[2:]}\n" for line in text.splitlines() if line.startswith("$ "))
        for (name, command), (code, _) in tables.EXITS.items():
            if name == page.name and command in text.splitlines():
                seen["exits"].add((name, command))
                ended = f"{{ {command}\n}} && (exit 99) || [[ $? == {code} ]]"
                text = "".join(f"{ended if line == command else line}\n" for line in text.splitlines())
        chosen.append((block, text))
    return chosen


def tutorial(outputs):
    """The layers are FUSE mounts, no layer is stored, and a container read the model."""
    (pull,) = [out for text, out in outputs if "rpull" in text]
    lazy = [line for line in pull.splitlines() if " fuse" in line and "/var/lib/starcar-tutorial/stargz/" in line]
    assert len(lazy) == 6, pull
    assert "MiB" not in pull and re.search(r"^(\d+K|[1-9](\.\d)?M|1\dM)\t/var/lib/starcar-tutorial/stargz$", pull, re.M), pull
    (stored,) = [out for text, out in outputs if text.startswith("ctr content ls")]
    assert len(re.findall(r"^sha256:[0-9a-f]{64}$", stored, re.M)) == 2, stored
    (run,) = [out for text, out in outputs if "ctr run" in text]
    assert "LlamaForCausalLM" in run
    sums = re.findall(r"^([0-9a-f]{64})  (\S+)$", run, re.M)
    assert [name for _, name in sums] == ["/models/model-noise.safetensors", "model/model-noise.safetensors"], run
    assert sums[0][0] == sums[1][0], run
    (replayed,) = [out for text, out in outputs if "starcar replay" in text]
    assert replayed.count("last read ") >= 2, replayed


# What a page must have brought about, beside commands that end well: judged by [(text, output)] of its blocks.
OUTCOMES = {"docs/tutorial.md": tutorial}


@pytest.mark.parametrize("name", SHELL)
def test_commands(world, seen, measured, name):
    page = PAGES[name]
    job = world.job(name)
    blocks = blocks_of(page, seen)
    driver, files = sandbox.script(blocks, page.directory())
    (job / "page.sh").write_text(driver)
    for file, text in files.items():
        (job / file).write_text(text)
    done = world.run(job, fresh=name in tables.FRESH)
    reached = (job / "reached").read_text().strip() if (job / "reached").exists() else "0"
    seen["pages"].add(name)
    if (job / "called").exists():
        seen["called"].update((job / "called").read_text().split())
    if done.returncode != 0 or reached != "end":
        at = blocks[int(reached) - 1][0] if reached.isdigit() and reached != "0" else "before the first block"
        out = job / f"block-{reached}.out"
        said = out.read_text(errors="replace")[-6000:] if out.exists() else ""
        pytest.fail(f"{at}: exit {done.returncode}\n{said}\n{done.stdout}{done.stderr}\n{logs(job)}", pytrace=False)
    for number, (block, _) in enumerate(blocks, 1):
        if block.output:
            printed = (job / f"block-{number}.out").read_text(errors="replace")
            line = pages.unlike(block.output.text, printed)
            assert line is None, f"{block.output}: {line!r} is not printed by {block}, but\n{printed[-4000:]}"
    if name in OUTCOMES:
        OUTCOMES[name]([(block.text, (job / f"block-{number}.out").read_text()) for number, (block, _) in enumerate(blocks, 1)])
    times = [float(line) for line in (job / "times").read_text().split()]
    spent = [after - before for before, after in zip(times, times[1:])]
    if spent:
        slowest = max(range(len(spent)), key=spent.__getitem__)
        measured(f"{len(blocks)} blocks in {times[-1] - times[0]:.1f} s, {spent[slowest]:.1f} s for {blocks[slowest][0]}")
    if not os.environ.get("E2E_KEEP"):
        shutil.rmtree(job, ignore_errors=True)


def test_no_exception_is_stale(seen):
    """Runs last of the pages: what no page needed is to be taken out of the tables."""
    if seen["pages"] != set(SHELL):
        pytest.skip("only some of the pages were run")
    assert seen["called"] == set(standins.TABLE), "stand-ins that no page calls"
    assert seen["not run"] == set(tables.NOT_RUN), "blocks that are not there any more"
    assert seen["exits"] == set(tables.EXITS), "commands that are not there any more"
    assert tables.FRESH <= set(SHELL)


# What a line of an indented block, or of a block of text, may not begin with.
COMMANDS = {
    "apt-get", "cargo", "containerd", "cosign", "cp", "crictl", "ctr", "ctr-remote", "curl", "docker", "export", "jq", "kubectl", "mkdir",
    "podman", "python3", "skopeo", "starcar", "tkn", "vllm",
}
# What a command prints of itself has its synopsis in it.
PRINTED = {"docs/cli.md"}

PARSERS = {"json": json.loads, "toml": tomllib.loads, "yaml": lambda text: list(yaml.safe_load_all(text))}


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if page.blocks])
def test_blocks_parse(name):
    """No block has a language that nothing is done with, and files that are shown are files of their kind."""
    for block in PAGES[name].blocks:
        if block.language in PARSERS:
            try:
                PARSERS[block.language](block.text)
            except Exception as error:  # noqa: BLE001: whatever a parser says
                pytest.fail(f"{block}: {error}", pytrace=False)
        else:
            assert block.language in tables.UNCHECKED | {"sh", "console"}, f"{block}: {block.language}"


@pytest.mark.parametrize("name", PAGES)
def test_no_command_hides(name):
    """Commands stand in blocks that are run, not in indented ones or as text: what cannot be run has its reason in NOT_RUN.
    Benchmarks take minutes and are run by hand."""
    hidden = [line for line in pages.prose(PAGES[name].text).splitlines() if re.match(r" {4}(?!python3 benches/)[a-z]", line)]
    if name not in PRINTED:
        hidden += [line for block in PAGES[name].blocks if block.language in ("text", "") for line in block.text.splitlines() if line.strip()]
    assert not [line for line in hidden if line.split()[0] in COMMANDS], name


@pytest.mark.parametrize("name", PAGES)
def test_links(name):
    """Links within the repository lead to files that exist, and to headings that they have."""
    here = TOP / name
    for target in pages.links(PAGES[name]):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        file = (here.parent / path).resolve() if path else here
        assert file.exists(), f"{name}: {target}"
        assert file.is_relative_to(TOP), f"{name}: {target} leads out of the repository"
        if anchor and file.suffix == ".md":
            assert anchor in pages.anchors(file.read_text()), f"{name}: {target}"


def rust_text():
    """All sources of the command, with the literals that go over several lines joined."""
    text = "\n".join(path.read_text() for path in sorted((TOP / "src").rglob("*.rs")))
    return re.sub(r"\\\n\s*", "", text)


def test_messages_are_printed():
    """What troubleshooting.md quotes of starcar stands in its sources: between the `…`, word for word."""
    text = PAGES["docs/troubleshooting.md"].text
    sources, quoted, ours = rust_text(), [], False
    for line in text.splitlines():
        if line.startswith("## "):
            ours = line.startswith("## starcar: ")
        elif ours and line.startswith("### "):
            quoted += re.findall(r"`([^`]+)`", line)
    assert len(quoted) > 30
    for message in quoted:
        fragments = [each.strip() for each in message.split("…")]
        assert any(len(each) > 8 for each in fragments), message
        for fragment in filter(None, fragments):
            assert fragment in sources, f"{fragment!r} of {message!r} is not in src/"


def test_exit_codes():
    """The page, the sources and `starcar help` have the same codes."""
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGES["docs/exit-codes.md"].text, re.M)}
    source = (TOP / "src/cli/error.rs").read_text()
    known = {int(code) for code in re.findall(r"pub const \w+: u8 = (\d+);", source)}
    assert listed == known - {126, 127}
    said = packing.starcar("--help").stdout
    for code in sorted(listed):
        assert re.search(rf"\b{code}\b", said.partition("Exit codes:")[2]), f"{code} in `starcar help`"


def names_in(layout):
    """The names of all labels and annotations in a layout, and its media types of starcar's own."""
    found = set()

    def look(node):
        if isinstance(node, dict):
            for key, value in node.items():
                if key in ("annotations", "Labels") and value:
                    found.update(value)
                elif key in ("mediaType", "artifactType") and "starcar" in value:
                    found.add(value)
                look(value)
        elif isinstance(node, list):
            for each in node:
                look(each)

    files = [layout / "index.json", *(layout / "blobs/sha256").iterdir()]
    for file in files:
        if file.stat().st_size < 1 << 20:
            try:
                look(json.loads(file.read_bytes()))
            except ValueError:
                pass  # a layer
    return found


def test_annotations(tmp_path, pack, base_image):
    """annotations.md lists the names that images have, no more and no less."""
    documented = set(re.findall(r"^\| `([^`]+)` \|", PAGES["docs/annotations.md"].text, re.M))
    model = tmp_path / "hub/models--acme--tiny"
    commit = "b968826d9c46dd6066d109eabc6255188de91218"
    shutil.copytree(TOP / "examples/tiny-llama", model / "snapshots" / commit)
    (model / "refs").mkdir()
    (model / "refs/main").write_text(commit)
    for name, arch in (("a", 80), ("h", 90)):
        cache_trees.vllm(tmp_path / name, arch=arch)
        kernel = tmp_path / f"triton-{name}" / ("A2" * 26)
        kernel.mkdir(parents=True)
        target = {"backend": "cuda", "arch": arch, "warp_size": 32}
        (kernel / "add.json").write_text(json.dumps({"name": "add", "target": target, "triton_version": "3.9.0"}))
        (kernel / "add.cubin").write_bytes(b"\x7fELF" + cache_trees.noise(arch, 4096))
        (kernel / "__grp__add.json").write_text(json.dumps({"child_paths": {"add.json": str(kernel / "add.json")}}))
    caches = [word for name in "ah" for word in ("--cache", tmp_path / name, "--cache", tmp_path / f"triton-{name}")]
    layout = tmp_path / "variants"
    packing.pack(model, layout, *caches, "--profile", "vllm-default", env={"STARCAR_DIGEST_CACHE": ""})
    packing.pack(
        model, tmp_path / "both", "--layer-format", "zstd:chunked", "--consumer", "both", "--cache", tmp_path / "a", "--cache", tmp_path / "triton-a"
    )
    profile = tmp_path / "profile.json"
    shutil.copy(TOP / "profiles/generic.json", profile)
    done = packing.starcar("profile", "attach", profile, f"oci:{layout}:latest")
    assert done.returncode == 0, done.stderr
    based = pack(model, output=tmp_path / "based", base=base_image).layout.dir
    found = names_in(layout) | names_in(tmp_path / "both") | names_in(based)
    assert found - documented == set(), "names that annotations.md lacks"
    assert documented - found == set(), "names that no image has"
