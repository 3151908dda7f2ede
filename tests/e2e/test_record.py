"""`starcar record` around real readers: the profile says what they read, no more and no less, and no mount is left."""

import json
import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import numpy
import pytest
from safetensors.numpy import safe_open, save_file

from packing import STARCAR, clean_env, starcar

PAGE = 4096
SHARD = "model-00001-of-00002.safetensors"
OTHER_SHARD = "model-00002-of-00002.safetensors"


def mounts():
    """Where something of starcar's is mounted."""
    lines = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [line[4] for line in lines if "starcar" in line[line.index("-") + 2:]]


@pytest.fixture(autouse=True)
def no_mount_is_left():
    before = mounts()
    yield
    deadline = time.monotonic() + 5
    while mounts() != before and time.monotonic() < deadline:
        time.sleep(0.1)
    left = [path for path in mounts() if path not in before]
    for path in left:
        subprocess.run(["umount", "-l", path], check=False)
    assert not left


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Two shards of four tensors of 1 MiB and odd sizes, and two small files; read by other users, too."""
    directory = Path(tempfile.mkdtemp(prefix="starcar-e2e-"))
    directory.chmod(0o755)
    generator = numpy.random.default_rng(5)
    for number, name in enumerate((SHARD, OTHER_SHARD)):
        save_file({f"layer.{number}.{part}": generator.integers(0, 9, size, dtype=numpy.uint8)
                   for part, size in zip("abcd", (1 << 20, 1_000_001, 5, 1 << 20))}, directory / name)
    weight_map = {f"layer.{number}.{part}": name
                  for number, name in enumerate((SHARD, OTHER_SHARD)) for part in "abcd"}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (directory / "config.json").write_text('{"architectures": []}')
    for path in directory.iterdir():
        path.chmod(0o644)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def place():
    """A directory for mounts and outputs, outside of pytest's own, which others may not enter."""
    directory = Path(tempfile.mkdtemp(prefix="starcar-e2e-"))
    directory.chmod(0o777)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


class Recorded:
    def __init__(self, path):
        self.document = json.loads(Path(path).read_text())
        self.accesses = self.document["accesses"]

    def of(self, kind, cache=None):
        return [access for access in self.accesses if access["kind"] == kind and access.get("cache") == cache]

    def ranges(self, path, cache=None):
        """What was read of a file: (begin, end), joined and sorted."""
        return joined((begin, begin + length) for access in self.of("read", cache) if access["path"] == path
                      for begin, length in access["ranges"])

    def paths(self, kind, cache=None):
        return {access["path"] for access in self.of(kind, cache)}

    def content(self):
        """All but the times."""
        return sorted((kind, path, tuple(self.ranges(path)) if kind == "read" else ())
                      for kind in ("open", "missing", "read") for path in self.paths(kind))


def joined(ranges):
    result = []
    for begin, end in sorted(ranges):
        if result and begin <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((begin, end))
    return result


def pages(ranges, size):
    return joined((begin // PAGE * PAGE, min(-(-end // PAGE) * PAGE, size)) for begin, end in ranges)


def python(script, executable=sys.executable):
    return [executable, "-c", textwrap.dedent(script)]


def record(model, place, *command, options=(), code=0, env=None):
    profile = place / "profile.json"
    run = starcar("record", model, "-o", profile, "--mount", place / "model", *options, "--", *command, env=env)
    assert run.returncode == code, run.stderr
    assert not (place / "model").exists()
    return run, Recorded(profile)


def start(model, place, *command, options=(), **keywords):
    return subprocess.Popen(
        [STARCAR, "record", model, "-o", place / "profile.json", "--mount", place / "model", *options, "--", *command],
        env=clean_env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **keywords)


def wait_for(condition, what, patience=20):
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience} s for {what}"
        time.sleep(0.02)


# ---- what is read is what is written down


def test_reads_are_recorded_byte_by_byte(model, place):
    size = (model / SHARD).stat().st_size
    generator = random.Random(3)
    wanted = [(generator.randrange(size + 100), generator.choice([1, 7, 511, 4096, 70_001])) for _ in range(200)]
    wanted.append((0, 1 << 21))
    script = f"""
        import os
        for path, reads in (({SHARD!r}, {wanted[:-1]!r}), ({OTHER_SHARD!r}, {wanted[-1:]!r})):
            file = os.open(os.environ["STARCAR_MODEL"] + "/" + path, os.O_RDONLY)
            for offset, length in reads:
                os.pread(file, length, offset)
    """
    _, profile = record(model, place, *python(script))
    expected = [(offset, min(offset + length, size)) for offset, length in wanted if offset < size]
    assert profile.ranges(SHARD) == joined(expected[:-1])
    assert profile.ranges(OTHER_SHARD) == joined(expected[-1:])
    assert profile.paths("open") == {SHARD, OTHER_SHARD}
    times = [access["at"] for access in profile.accesses]
    assert times == sorted(times) and 0 <= times[0] and times[-1] < 60


@pytest.mark.parametrize("flags", ["MAP_SHARED", "MAP_PRIVATE"])
def test_touched_pages_of_mappings_are_recorded(model, place, flags):
    size = (model / SHARD).stat().st_size
    touched = sorted(random.Random(4).sample(range(size), 60)) + [size - 1]
    script = f"""
        import mmap, os
        file = os.open(os.environ["STARCAR_MODEL"] + "/{SHARD}", os.O_RDONLY)
        memory = mmap.mmap(file, 0, flags=mmap.{flags}, prot=mmap.PROT_READ)
        print(sum(memory[position] for position in {touched!r}))
    """
    run, profile = record(model, place, *python(script))
    content = (model / SHARD).read_bytes()
    assert int(run.stdout) == sum(content[position] for position in touched)
    assert profile.ranges(SHARD) == pages([(position, position + 1) for position in touched], size)
    host = profile.document["recordings"][0]["host"]
    assert host == {"kernel": os.uname().release, "readAhead": 0}


def test_safetensors_reads_one_tensor(model, place):
    script = f"""
        import os
        from safetensors.numpy import safe_open
        with safe_open(os.environ["STARCAR_MODEL"] + "/{SHARD}", framework="numpy") as file:
            print(int(file.get_tensor("layer.0.b").sum()))
    """
    run, profile = record(model, place, *python(script))
    with safe_open(model / SHARD, framework="numpy") as file:
        assert int(run.stdout) == int(file.get_tensor("layer.0.b").sum())
    content = (model / SHARD).read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    tensor = [begin + offset for offset in json.loads(content[8:begin])["layer.0.b"]["data_offsets"]]
    assert profile.ranges(SHARD) == pages([(0, begin), tuple(tensor)], len(content))
    assert profile.ranges(OTHER_SHARD) == []


@pytest.mark.parametrize("way", ["mmap", "pread"])
def test_processes_that_share_the_work(model, place, way):
    script = f"""
        import mmap, multiprocessing, os
        def work(part):
            file = os.open(os.environ["STARCAR_MODEL"] + "/{SHARD}", os.O_RDONLY)
            size = os.fstat(file).st_size
            quarter = size // 4 // {PAGE} * {PAGE}
            begin = part * quarter
            length = quarter // 2
            if "{way}" == "pread":
                return sum(os.pread(file, length, begin))
            return sum(mmap.mmap(file, 0, prot=mmap.PROT_READ)[begin:begin + length])
        if __name__ == "__main__":
            with multiprocessing.get_context("fork").Pool(4) as pool:
                print(sum(pool.map(work, range(4), chunksize=1)))
    """
    run, profile = record(model, place, *python(script))
    content = (model / SHARD).read_bytes()
    quarter = len(content) // 4 // PAGE * PAGE
    expected = [(part * quarter, part * quarter + quarter // 2) for part in range(4)]
    assert int(run.stdout) == sum(sum(content[begin:end]) for begin, end in expected)
    if way == "mmap":
        expected = pages(expected, len(content))
    assert profile.ranges(SHARD) == joined(expected)


def test_two_recordings_agree(model, place):
    script = f"""
        import os
        from safetensors.numpy import load_file
        model = os.environ["STARCAR_MODEL"]
        open(model + "/config.json").read()
        os.path.exists(model + "/params.json")
        for name in ({SHARD!r}, {OTHER_SHARD!r}):
            load_file(model + "/" + name)
    """
    first, second = (record(model, place, *python(script))[1] for _ in range(2))
    assert first.content() == second.content()
    assert first.ranges(SHARD) == [(0, (model / SHARD).stat().st_size)]
    assert first.paths("missing") == {"params.json"}


def test_read_ahead_is_coarser_and_said(model, place):
    script = f"""
        import mmap, os
        file = os.open(os.environ["STARCAR_MODEL"] + "/{SHARD}", os.O_RDONLY)
        mmap.mmap(file, 0, prot=mmap.PROT_READ)[1_000_000]
    """
    _, profile = record(model, place, *python(script), options=["--read-ahead", "64KiB"])
    ((begin, end),) = profile.ranges(SHARD)
    assert begin <= 1_000_000 < end and PAGE < end - begin <= 128 << 10
    assert profile.document["recordings"][0]["host"]["readAhead"] == 64 << 10


def test_only_the_files_of_the_image_are_there(model, place):
    source = place / "source"
    shutil.copytree(model, source)
    (source / "sub").mkdir()
    (source / "sub/extra.json").write_text("{}")
    (source / "sub/private.json").write_text("{}")
    (source / "link.json").symlink_to("config.json")
    (source / ".cache").mkdir()
    (source / ".cache/litter").write_text("")
    run, profile = record(source, place, "sh", "-c", "cd {model} && find . -type f -printf '%P %m %U %T@\\n' | sort;"
                          " test -e .cache; cat nope; touch config.json; echo x > new; ls -l link.json sub",
                          options=["--exclude", "sub/private.json"])
    lines = run.stdout.splitlines()
    names = ["config.json", "link.json", SHARD, OTHER_SHARD, "model.safetensors.index.json", "sub/extra.json"]
    assert [line.split()[0] for line in lines[:6]] == names
    assert all(line.endswith(" 644 0 0.0000000000") for line in lines[:6])
    assert lines[6].startswith("-rw-r--r--")
    assert profile.paths("missing") == {".cache", "nope", "new"}
    assert run.stderr.count("Read-only file system") == 2


# ---- caches


def test_caches(model, place):
    cache, other = place / "kernels", place / "more/kernels"
    for directory in (cache, other):
        (directory / "a").mkdir(parents=True)
        (directory / "a/kernel.bin").write_bytes(b"k" * 10_000)
    (cache / "latest").symlink_to("a/kernel.bin")
    script = f"""
        import os
        assert len(open("{cache}/latest").read(5000)) == 5000
        assert len(open("{place}/elsewhere/a/kernel.bin", "rb", 0).read(77)) == 77
        assert not os.path.exists("{cache}/a/other.bin")
        try:
            open("{cache}/new", "w")
        except OSError as error:
            assert error.errno == 30, error
        else:
            raise AssertionError("written")
    """
    options = ["--cache", cache, "--cache", f"{other}:{place}/elsewhere"]
    # The working directory lies in the cache: it must be left for the mount.
    profile = place / "profile.json"
    run = starcar("record", model, "-o", profile, "--mount", place / "model", *options, "--", *python(script), cwd=cache)
    assert run.returncode == 0, run.stderr
    profile = Recorded(profile)
    assert profile.ranges("a/kernel.bin", "kernels") == [(0, 8192)]
    assert profile.ranges("a/kernel.bin", "kernels-2") == [(0, 77)]
    assert profile.paths("missing", "kernels") == {"a/other.bin", "new"}
    assert "opened nothing of the model" in run.stderr
    assert not (place / "elsewhere").exists()
    (cache / "new").write_text("writable again")


# ---- ends


def test_exit_codes_are_passed_on(model, place):
    assert record(model, place, "sh", "-c", "exit 3", code=3)[0].stderr.count("exit code 3") == 1
    record(model, place, "sh", "-c", "kill -9 $$", code=137)
    for command, code in (("/nonexistent/command", 127), (str(model / "config.json"), 126)):
        run = starcar("record", model, "-o", place / "other.json", "--mount", place / "model", "--", command)
        assert run.returncode == code and "cannot run" in run.stderr, run.stderr
        assert not (place / "other.json").exists() and not (place / "model").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_a_signalled_recorder_unmounts(model, place, number):
    process = start(model, place, "sh", "-c", f"head -c 100 {{model}}/{SHARD} > {place}/out; exec sleep 100")
    wait_for(lambda: (place / "out").exists() and (place / "out").stat().st_size == 100, "the command's read")
    assert mounts() == [str(place / "model")]
    begin = time.monotonic()
    process.send_signal(number)
    _, words = process.communicate(timeout=20)
    assert process.returncode == 128 + number, words
    assert time.monotonic() - begin < 5
    assert not mounts() and not (place / "model").exists()
    assert Recorded(place / "profile.json").ranges(SHARD) == [(0, 100)]


def test_a_killed_recorder_is_unmounted_by_its_watchdog(model, place):
    process = start(model, place, "sh", "-c", "cat {model}/config.json; exec sleep 5")
    wait_for(mounts, "the mount")
    wait_for(lambda: process.stdout.read(1), "the command")
    process.kill()
    process.wait()
    wait_for(lambda: not mounts(), "the watchdog")
    wait_for(lambda: not (place / "model").exists(), "the watchdog")


def test_a_command_that_ignores_sigterm_is_killed(model, place):
    process = start(model, place, *python("""
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("ignoring", flush=True)
        time.sleep(100)
    """))
    process.stdout.readline()
    process.terminate()
    time.sleep(0.5)
    assert process.poll() is None and mounts()
    # Asking twice is asking for it.
    process.terminate()
    process.wait(timeout=5)
    assert process.returncode == 128 + signal.SIGTERM
    assert not mounts()


def test_children_that_stay_do_not_keep_the_mount(model, place):
    script = f"""
        import os, subprocess, sys, time
        subprocess.Popen([sys.executable, "-c", "import sys, time; f = open(sys.argv[1]); time.sleep(3)",
                          os.environ["STARCAR_MODEL"] + "/config.json"], start_new_session=True)
        time.sleep(0.5)
    """
    _, profile = record(model, place, *python(script))
    assert profile.paths("open") == {"config.json"}


def test_a_closed_terminal(model, place):
    child, terminal = pty.fork()
    if child == 0:
        os.execve(STARCAR, ["starcar", "record", str(model), "-o", str(place / "profile.json"), "--mount",
                            str(place / "model"), "--", "sh", "-c", "cat {model}/config.json; sleep 100"], clean_env())
    wait_for(mounts, "the mount")
    wait_for(lambda: b"architectures" in os.read(terminal, 1000), "the command")
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    assert not mounts()
    assert Recorded(place / "profile.json").paths("open") == {"config.json"}


@pytest.mark.parametrize("reads", [False, True])
def test_the_terminal_is_shared(model, place, reads):
    """Ctrl-C ends the command once, whether it has read from the terminal or not."""
    script = f"""
        import sys, time
        if {reads}:
            print("got", input(), flush=True)
        try:
            print("here", flush=True)
            time.sleep(100)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            time.sleep(0.5)
            sys.exit(9)
    """
    child, terminal = pty.fork()
    if child == 0:
        os.execve(STARCAR, ["starcar", "record", str(model), "-o", str(place / "profile.json"), "--mount",
                            str(place / "model"), "--", *python(script)], clean_env())
    text = b""

    def says(words):
        nonlocal text
        if words not in text:
            text += os.read(terminal, 1000)
        return words in text

    if reads:
        wait_for(mounts, "the mount")
        os.write(terminal, b"a line\n")
        wait_for(lambda: says(b"got a line"), "the line")
    wait_for(lambda: says(b"here"), "the command")
    os.write(terminal, b"\x03")
    wait_for(lambda: says(b"interrupted"), "the interrupt")
    while True:
        try:
            if not os.read(terminal, 1000):
                break
        except OSError:
            break
    _, status = os.waitpid(child, 0)
    # Where the command has the terminal, starcar never hears of the interrupt.
    assert os.waitstatus_to_exitcode(status) == (9 if reads else 130)
    os.close(terminal)


# ---- conditions

LATE = f"""
    import os, sys, time
    model = os.environ["STARCAR_MODEL"]
    open(model + "/config.json").read()
    os.write(2, b"server is ready\\nand more\\n")
    time.sleep(float(sys.argv[1]) if len(sys.argv) > 1 else 100)
    open(model + "/{SHARD}").close()
    print("late")
    sys.exit(4)
"""


def test_until_a_line(model, place):
    run, profile = record(model, place, *python(LATE), options=["--until", "^server.*ready$"])
    assert profile.paths("open") == {"config.json"}
    assert "server is ready\nand more\n" in run.stderr and run.stdout == ""


def test_until_a_line_and_leave_running(model, place):
    command = [*python(LATE), "1"]
    process = start(model, place, *command, options=["--until", "ready", "--leave-running"])
    wait_for((place / "profile.json").exists, "the profile")
    assert process.poll() is None and mounts()
    out, words = process.communicate(timeout=20)
    assert process.returncode == 4 and out == "late\n", words
    assert Recorded(place / "profile.json").paths("open") == {"config.json"}


def test_until_a_server_answers(model, place):
    script = f"""
        import http.server, os, time
        open(os.environ["STARCAR_MODEL"] + "/config.json").read()
        begin = time.monotonic()
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200 if time.monotonic() - begin > 1.5 and self.path == "/health" else 503)
                self.end_headers()
        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        open("{place}/port.new", "w").write(str(server.server_port))
        server.serve_forever()
    """
    # The port must be known beforehand.
    import socket
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = script.replace('("127.0.0.1", 0)', f'("127.0.0.1", {port})')
    _, profile = record(model, place, *python(script), options=["--until-http", f"http://127.0.0.1:{port}/health"])
    assert profile.paths("open") == {"config.json"}


def test_timeouts(model, place):
    begin = time.monotonic()
    record(model, place, "sleep", "100", options=["--timeout", "500ms"])
    run, _ = record(model, place, "sleep", "100", options=["--timeout", "500ms", "--until", "never"], code=7)
    assert "not ready after 0.5 s" in run.stderr
    assert time.monotonic() - begin < 10
    run, _ = record(model, place, "true", options=["--until", "never"], code=7)
    assert "ended before it was ready" in run.stderr


# ---- users, places, refusals


@pytest.fixture
def nobody(place):
    """What runs a command without root; /dev/fuse is opened for it, as distributions do."""
    mode = os.stat("/dev/fuse").st_mode & 0o777
    os.chmod("/dev/fuse", 0o666)
    shutil.copy(STARCAR, place / "starcar")

    def run(*arguments, env=None):
        return subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", place / "starcar", *map(str, arguments)],
            env=clean_env({"TMPDIR": place, "HOME": place} | (env or {})), cwd="/", text=True, capture_output=True,
            stdin=subprocess.DEVNULL, timeout=60)

    yield run
    os.chmod("/dev/fuse", mode)


def test_without_root(model, place, nobody):
    cache = place / "cache"
    cache.mkdir()
    (cache / "kernel").write_text("kernel")
    os.chown(cache, 65534, 65534)
    script = f"""
        import mmap, os
        model = os.environ["STARCAR_MODEL"]
        assert os.geteuid() == 65534
        file = os.open(model + "/{SHARD}", os.O_RDONLY)
        mmap.mmap(file, 0, prot=mmap.PROT_READ)[0]
        assert open("{cache}/kernel").read() == "kernel"
        print(model)
    """
    run = nobody("record", model, "-o", place / "profile.json", "--cache", cache, "--",
                 *python(script, "/usr/bin/python3"))
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(f"{place}/starcar-model-")
    profile = Recorded(place / "profile.json")
    assert profile.ranges(SHARD) == [(0, PAGE)] and profile.ranges("kernel", "cache") == [(0, 6)]
    assert not list(place.glob("starcar-model-*")) and not mounts()

    run = nobody("record", model, "-o", place / "p.json", "--", "true", env={"FUSERMOUNT_PATH": "/nonexistent"})
    assert run.returncode == 7 and "fusermount3 is not installed" in run.stderr and "fuse3" in run.stderr, run.stderr
    run = nobody("record", model, "-o", place / "p.json", "--allow-other", "--", "true")
    assert run.returncode == 7 and "user_allow_other" in run.stderr, run.stderr
    os.chmod("/dev/fuse", 0o600)
    run = nobody("record", model, "-o", place / "p.json", "--", "true")
    assert run.returncode == 7 and "/dev/fuse" in run.stderr, run.stderr


def test_allow_other(model, place):
    command = ["setpriv", "--reuid=65534", "--clear-groups", "cat", "{model}/config.json"]
    record(model, place, *command, code=1)
    run, _ = record(model, place, *command, options=["--allow-other"])
    assert run.stdout == (model / "config.json").read_text()


def test_two_recorders_at_once(model, place):
    (place / "cache").mkdir()
    first = start(model, place, "sleep", "100", options=["--cache", place / "cache"])
    wait_for(lambda: len(mounts()) == 2, "the mounts")
    run = starcar("record", model, "-o", place / "b.json", "--cache", place / "cache", "--", "true")
    assert run.returncode == 7 and "another recording" in run.stderr, run.stderr
    run = starcar("record", model, "-o", place / "b.json", "--", "ls", "{model}")
    assert run.returncode == 0, run.stderr
    first.terminate()
    first.wait(timeout=20)


def test_refusals(model, place):
    def refused(*options, words, code=2):
        run = starcar("record", model, *options, "--", "true")
        assert run.returncode == code and words in run.stderr, run.stderr

    text = place / "text"
    text.write_text("not a profile")
    refused("-o", text, words="no profile")
    assert text.read_text() == "not a profile"
    refused("-o", "-", words="standard output")
    refused("-o", place / "no/profile.json", words="cannot write")
    output = ["-o", place / "p.json"]
    refused(*output, "--leave-running", words="--until")
    refused(*output, "--until-http", "https://localhost/", words="http://")
    refused(*output, "--until", "(", words="regex")
    refused(*output, "--mount", place, words="not empty", code=7)
    refused(*output, "--cache", model, words="lie in each other", code=7)
    refused(*output, "--cache", place, words="mounted read-only")
    refused(*output, "--cache", place / "none", words="cannot open the cache", code=7)
