"""Running pushes: each with a state of its own, and what a registry then holds and a log tells."""

import base64
import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
from pathlib import Path

from packing import STARCAR, clean_env

MIB = 1 << 20
# Bytes that a pack sends to a registry that it does not know, to find out what nodes will be able to read.
PROBE = 64
# Secrets that nothing else in an output or a file can look like. The hash is bcrypt's of PASSWORD, of cost 4.
USER, PASSWORD, IDENTITY = "e2e", "hunter2-e2e-Pa55:w0rd", "hunter2-e2e-identity-t0ken"
HTPASSWD = f"{USER}:$2b$04$abcdefghijklmnopqrstuujrZnX4Q5YrsJ6Q9RtECpWEt/RPbWqD6\n"
# What would bring certificates, credentials or proxies of whoever runs the tests.
FOREIGN = re.compile(r"(?i)(http|https|all|no)_proxy|SSL_CERT_(FILE|DIR)|REGISTRY_AUTH_FILE|DOCKER_CONFIG")


class State:
    """All directories that a starcar may write to or learn from, empty at first."""

    def __init__(self, directory):
        self.dir = Path(directory)
        self.home, self.cache, self.tmp = (self.dir / name for name in ("home", "cache", "tmp"))
        for each in (self.home, self.cache, self.tmp):
            each.mkdir(parents=True)
        self.count = 0

    def env(self, changes=None):
        env = {name: value for name, value in clean_env().items() if not FOREIGN.fullmatch(name)}
        places = {"HOME": self.home, "XDG_CACHE_HOME": self.cache, "XDG_CONFIG_HOME": self.home / ".config",
                  "XDG_RUNTIME_DIR": self.home / "run", "TMPDIR": self.tmp}
        return env | {name: str(value) for name, value in (places | (changes or {})).items()}

    def start(self, *arguments, env=None, prefix=()):
        """Starts a starcar; its output goes to files, so that nothing waits for a reader."""
        self.count += 1
        out, err = self.dir / f"{self.count}.stdout", self.dir / f"{self.count}.stderr"
        with open(out, "wb") as out_file, open(err, "wb") as err_file:
            process = subprocess.Popen(
                [*map(str, prefix), str(STARCAR), *map(str, arguments)], env=self.env(env), cwd=self.tmp,
                stdin=subprocess.DEVNULL, stdout=out_file, stderr=err_file,
            )
        process.out, process.err, process.begin = out, err, time.monotonic()
        return process

    def run(self, *arguments, env=None, prefix=(), status=0, timeout=300):
        """Runs a starcar to its end, which must be with `status`."""
        return finish(self.start(*arguments, env=env, prefix=prefix), status, timeout)


class Done:
    """A starcar that has ended."""

    def __init__(self, process):
        self.status, self.seconds = process.returncode, time.monotonic() - process.begin
        self.stdout, self.stderr = process.out.read_text(), process.err.read_text()
        self.digest = self.stdout.rstrip("\n").rpartition("\n")[2]

    @property
    def words(self):
        """What was said, for a person, of a failure: each line that begins with `error`."""
        return [line for line in self.stderr.splitlines() if line.startswith("error")]


def finish(process, status=0, timeout=300):
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise AssertionError(f"not within {timeout} s: {process.args}\n{process.err.read_text()[-8000:]}") from None
    done = Done(process)
    said = f"{process.args} exited with {done.status}\n{done.stdout[-4000:]}\n{done.stderr[-8000:]}"
    assert "panicked" not in done.stderr, said
    assert done.status == status, said
    if status == 0 and process.args[1:2] in (["pack"], ["push"]):
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", done.digest), said
    return done


def killed_at(process, moment):
    """Kills a process with SIGKILL as soon as `moment()` is true; whether it was alive then."""
    while process.poll() is None and not moment():
        time.sleep(0.005)
    alive = process.poll() is None
    process.kill()
    process.wait()
    return alive


def check_image(registry, ref, digest):
    """The registry has the image with that digest, and every blob of it in full; the size of all of its blobs."""
    manifest = json.loads(registry.manifest_bytes(f"{ref.rpartition(':')[0]}@{digest}"))
    assert registry.manifest(ref) == manifest, f"{ref} is another image"
    blobs = {each["digest"]: each["size"] for each in [manifest["config"], *manifest["layers"]]}
    name = ref.removeprefix(registry.host + "/").rpartition(":")[0]
    for each, size in blobs.items():
        # The registry has verified the digest when it took the blob.
        assert registry.blob_file(each).stat().st_size == size
        link = registry.root / f"docker/registry/v2/repositories/{name}/_layers/sha256/{each.partition(':')[2]}/link"
        assert link.is_file(), f"{name} does not have {each}"
    return sum(blobs.values())


def layout_size(layout, digest):
    """Bytes of an image's blobs, its manifest left out."""
    manifest = json.loads((Path(layout) / "blobs/sha256" / digest.partition(":")[2]).read_text())
    return sum(each["size"] for each in [manifest["config"], *manifest["layers"]])


def sparse_model(directory, size, shards):
    """A model whose weights are holes: they are read, hashed and sent as any, and take no room and no time to make."""
    directory.mkdir()
    (directory / "config.json").write_text('{"model_type": "llama"}')
    for number in range(1, shards + 1):
        data = size // shards - 8 - 120
        header = json.dumps({"w": {"dtype": "U8", "shape": [data], "data_offsets": [0, data]}}).encode()
        with open(directory / f"model-{number:05}-of-{shards:05}.safetensors", "wb") as file:
            file.write((120).to_bytes(8, "little") + header.ljust(120))
            file.truncate(size // shards)
    return directory


TRACED = "read,pread64,readv,preadv,preadv2,sendfile,copy_file_range,splice,mmap,io_uring_setup"
CALL = re.compile(r"(\w+)\((.*)\)\s+= (\d+|0x[0-9a-f]+|-1 .*|\?.*)$")


def traced(directory):
    """The command line before a command that makes strace write what each of its threads reads."""
    directory.mkdir(parents=True)
    return ["strace", "-ff", "-qq", "-y", "-s", "0", "-e", f"trace={TRACED}", "-o", directory / "thread"]


def weights_read(directory):
    """{shard: bytes} of all that a traced command read of files called *.safetensors; a mapping counts in full."""
    found, calls = {}, 0
    for path in directory.iterdir():
        for line in path.read_text().splitlines():
            at = CALL.match(line)
            if not at:
                continue
            name, arguments, result = at.groups()
            assert name != "io_uring_setup", "what io_uring reads cannot be seen by strace"
            calls += 1
            # sendfile and its like name the source second; whatever moves bytes out of a shard counts.
            for shard in re.findall(r"\d+<([^>]*\.safetensors)>", arguments):
                size = int(arguments.split(", ")[1]) if name == "mmap" else int(result) if result.isdigit() else 0
                found[Path(shard).name] = found.get(Path(shard).name, 0) + size
    assert calls > 10, "strace saw nothing"
    return found


def spellings(secret):
    """A secret as it is, and as base64 has it alone or behind a user's name, at each of the three alignments."""
    found = {secret}
    for before in ("", f"{USER}:", "x", "xx"):
        coded = base64.b64encode(f"{before}{secret}".encode()).decode().rstrip("=")
        # The first and the last characters depend on what lies beside.
        skip = -(-len(before) * 4 // 3)
        found |= {coded[skip + 2 : -2], coded[skip + 2 : -2].replace("+", "-").replace("/", "_")}
    return {each for each in found if len(each) >= 8}


def assert_no_secrets(state, secrets, ignore=()):
    """No secret is in any output of the starcars of a state, nor in any file that they left, in any spelling."""
    wanted = {each.encode(): secret for secret in secrets for each in spellings(secret)}
    looked = 0
    for path in state.dir.rglob("*"):
        if path.is_file() and not any(path.is_relative_to(place) for place in ignore):
            looked += 1
            content = path.read_bytes()
            for each, secret in wanted.items():
                assert each not in content, f"{path} has {secret!r} as {each!r}"
    assert looked, "nothing was looked at"


def docker_config(directory, config):
    """A directory for DOCKER_CONFIG; returns what to set."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config))
    return {"DOCKER_CONFIG": directory}


def auth(user, password):
    """The `auth` value of an entry in a configuration file."""
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def helper(directory, name, answers):
    """docker-credential-NAME with these answers ({server: (user, secret)}); returns a PATH, and the file where it
    writes what it was asked."""
    directory.mkdir(parents=True, exist_ok=True)
    script, asked = directory / f"docker-credential-{name}", directory / f"{name}.asked"
    cases = "".join(
        f"  {server!r}) echo '{json.dumps({'ServerURL': server, 'Username': user, 'Secret': secret})}' ;;\n"
        for server, (user, secret) in answers.items()
    )
    script.write_text(
        "#!/bin/sh\nread -r server\n" f"echo \"$1 $server\" >>'{asked}'\n" 'case "$server" in\n' f"{cases}"
        "  *) echo 'credentials not found in native keychain'; exit 1 ;;\nesac\n"
    )
    script.chmod(0o755)
    return f"{directory}:{os.environ['PATH']}", asked


def with_hosts(directory, **hosts):
    """The command line before a command that sees these names in its /etc/hosts, and nobody else does.

    A registry on a name of its own gets HTTPS as any other; one on a loopback address would get plain HTTP.
    """
    file = directory / "hosts"
    file.write_text("127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in hosts.items()))
    for command in ("unshare", "mount"):
        assert shutil.which(command), f"{command} is not installed"
    return ["unshare", "-m", "--propagation", "private", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', file]


def http_status(registry, path, method="GET"):
    try:
        registry.get(path, method=method)
        return 200
    except urllib.error.HTTPError as error:
        return error.code
