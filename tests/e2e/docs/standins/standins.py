"""Programs that the pages call and that cannot run in a test. Each checks what it is told and does what follows next needs.

TABLE is the whole list, with the reason for each. A stand-in that no page calls any more fails the test.
"""

import os
import re
import shutil
import sys
import tarfile
from pathlib import Path

TABLE = {
    "apt-get": "there is no network; the names of packages are checked, and what is installed is there already",
    "cargo": "starcar is built once, before the tests; `run` and `install` give that binary",
    "curl": "there is no network; a release of stargz-snapshotter is answered, its binary the one that tests/e2e/setup builds",
    "containerd-stargz-grpc": "no module has it as a command; tests/e2e/setup builds the same library (tests/e2e/README.md)",
    "kubectl": "there is no cluster; what would be applied is parsed as YAML and its objects are looked at",
    "vllm": "there is no GPU and no engine here; it reads the model as an engine does and says what vLLM says",
}

# What the pages install, all in Debian 12.
PACKAGES = {
    "apache2-utils", "build-essential", "busybox-static", "ca-certificates", "containerd", "curl", "docker-registry", "fuse3", "jq",
    "openssl", "podman", "python3", "runc", "skopeo", "stargz-snapshotter", "strace",
}
SOCKET = "/run/containerd-stargz-grpc/containerd-stargz-grpc.sock"


def refuse(message):
    """Ends the page's test."""
    sys.exit(f"stand-in: {message}: {' '.join(sys.argv[1:])}")


def option(arguments, name, default=None):
    """The value of `--name VALUE` or `--name=VALUE`."""
    for at, word in enumerate(arguments):
        if word in (f"-{name}", f"--{name}") and at + 1 < len(arguments):
            return arguments[at + 1]
        if word.startswith((f"-{name}=", f"--{name}=")):
            return word.partition("=")[2]
    return default


def apt_get(arguments):
    words = [word for word in arguments if not word.startswith("-")]
    if words == ["update"]:
        return
    if words[:1] != ["install"] or not {"-y", "--yes"} & set(arguments):
        refuse("only `update` and `install -y` are known")
    unknown = set(words[1:]) - PACKAGES
    if unknown:
        refuse(f"no such packages: {sorted(unknown)}")


def cargo(arguments):
    if not Path("Cargo.toml").is_file():
        refuse("not in a checkout of starcar")
    starcar = os.environ["STARCAR"]
    words = [word for word in arguments if word != "--locked"]
    if words[:3] == ["run", "--release", "--"]:
        os.execv(starcar, ["starcar", *words[3:]])
    if words == ["install", "--path", "."]:
        target = Path.home() / ".cargo/bin/starcar"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.symlink_to(starcar)
    elif words == ["build", "--release"]:
        target = Path("target/release/starcar")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.symlink_to(starcar)
    elif words != ["test"]:
        refuse("not known")


RELEASE = re.compile(
    r"https://github\.com/containerd/stargz-snapshotter/releases/download/(v[\d.]+)/stargz-snapshotter-\1-linux-amd64\.tar\.gz"
)


def curl(arguments):
    urls = [word for word in arguments if word.startswith("http")]
    if not any(RELEASE.fullmatch(url) for url in urls):
        if any("example.com" not in url and "localhost" not in url and "127.0.0.1" not in url for url in urls):
            refuse("that is not reachable")
        os.execv("/usr/bin/curl", ["curl", *arguments])
    out = option(arguments, "o") or refuse("-o FILE is missing")
    with tarfile.open(out, "w:gz") as tar:
        tar.add("/run/standins/containerd-stargz-grpc", "containerd-stargz-grpc", filter=_program)
        tar.add(shutil.which("ctr-remote"), "ctr-remote")


def _program(member):
    """Where it is unpacked it must still find what it stands for."""
    member.type, member.linkname = tarfile.SYMTYPE, f"{os.environ['HERE']}/standins/standin"
    return member


def containerd_stargz_grpc(arguments):
    directory = Path("/etc/containerd-stargz-grpc")
    config = Path(option(arguments, "config", directory / "config.toml"))
    if not config.exists():
        config = Path("/run/no-snapshotter-config.toml")
        config.touch()
    address = option(arguments, "address", SOCKET)
    root = option(arguments, "root", "/var/lib/containerd-stargz-grpc")
    Path(address).unlink(missing_ok=True)
    snapshotter = f"{os.environ['TOOLS']}/snapshotter"
    os.execv(snapshotter, [snapshotter, "-address", address, "-root", root, "-config", str(config)])


def kubectl(arguments):
    words = [word for word in arguments if not word.startswith("-")]
    verb = words[0] if words else ""
    if verb in ("get", "describe", "logs", "wait", "rollout", "delete", "port-forward", "cp"):
        return
    if verb == "create" and words[1:2] in (["secret"], ["namespace"], ["configmap"]):
        return
    if verb not in ("apply", "create", "diff"):
        refuse("not known")
    file = option(arguments, "f") or option(arguments, "filename") or option(arguments, "k") or refuse("-f is missing")
    # The one library that is not Python's own; the interpreter was started without it for its speed.
    import site
    site.main()
    import yaml

    text = sys.stdin.read() if file == "-" else Path(file).read_text()
    objects = [each for each in yaml.safe_load_all(text) if each is not None]
    if not objects:
        refuse("nothing to apply")
    for each in objects:
        if not isinstance(each, dict):
            refuse(f"no object of Kubernetes, but {each!r}")
        for every in each["items"] if each.get("kind") == "List" else [each]:
            name = every.get("metadata", {}).get("name", "")
            if not every.get("apiVersion") or not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", str(name)):
                refuse(f"no object of Kubernetes: {every!r}")
            print(f"{every['kind'].lower()}/{name} created")


def vllm(arguments):
    if arguments[:1] != ["serve"] or len(arguments) < 2:
        refuse("only `vllm serve MODEL` is known")
    model = Path(arguments[1])
    print("INFO 11-22 03:00:00 [api_server.py:1] vLLM API server (a stand-in)", flush=True)
    for missing in ("generation_config.json", "hf_quant_config.json", "config.json"):
        if (model / missing).exists():
            (model / missing).read_bytes()
    for file in sorted([*model.glob("*.json"), *model.glob("*.safetensors")]):
        file.read_bytes()
    cache = Path.home() / ".cache/vllm"
    if not cache.exists():
        # A first start compiles and keeps the outcome.
        shutil.copytree("/run/page/vllm", cache)
    for file in sorted(cache.rglob("*")):
        if file.is_file():
            file.read_bytes()
    print("INFO:     Application startup complete.", flush=True)


def main():
    name, arguments = sys.argv[1], sys.argv[2:]
    with open("/run/page/called", "a", encoding="utf-8") as called:
        called.write(f"{name}\n")
    globals()[name.replace("-", "_")](arguments)


if __name__ == "__main__":
    main()
