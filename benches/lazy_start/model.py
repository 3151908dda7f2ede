"""The model of the benchmark and the profile of a start on it, both made up deterministically.

The weights are those of tests/e2e/model_files.py. The profile follows a recorded start of vLLM 0.32 (CPU, default
loader, warm compile cache): which files it opens, in which order, and how long it thinks between them.
"""

import json
import struct

from model_files import MIB, write_model

# Seconds after its start at which the recorded engine, slowed down by strace, opened config.json, and from the last
# small file to the shard index. Without strace the same start took about 0.45 of both.
IMPORT_SECONDS = 16.6
PAUSE_SECONDS = 34.7
READ_BYTES = MIB
MISSING = ["hf_quant_config.json", "sentence_bert_config.json", "modules.json", "added_tokens.json", "params.json"]


def generate(directory, mib, shards, second_format):
    """Writes the model; what it lacks of a real snapshot beside the weights is added."""
    write_model(directory, mib * MIB, shards, seed=20)
    vocabulary = {f"token-{number:06}-of-the-vocabulary": number for number in range(128_000)}
    merges = [[f"part-{number % 997}", f"rest-{number}"] for number in range(90_000)]
    tokenizer = {"version": "1.0", "model": {"type": "BPE", "vocab": vocabulary, "merges": merges}}
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    (directory / "README.md").write_text("---\nlicense: apache-2.0\n---\n" + "# A model\n\nIt says little.\n" * 300)
    (directory / "LICENSE").write_text("Apache License 2.0\n")
    if second_format:
        with open(directory / "pytorch_model.bin", "wb") as out:
            for shard in sorted(directory.glob("*.safetensors")):
                # Other bytes than those of the shards, so that nothing can share them.
                with open(shard, "rb") as file:
                    while block := file.read(8 * MIB):
                        out.write(block[::-1])
    return directory


def tensor_ranges(shard):
    """[offset, length] of the header and then of the tensors, by name, as a loader reads them; large ones in pieces."""
    with open(shard, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    begin = 8 + size
    ranges = [[0, begin]]
    for name in sorted(set(header) - {"__metadata__"}):
        start, end = header[name]["data_offsets"]
        for at in range(start, end, READ_BYTES):
            ranges.append([begin + at, min(READ_BYTES, end - at)])
    return ranges


def profile(directory):
    """A profile in starcar's format."""
    accesses, now = [], IMPORT_SECONDS

    def whole(name, times=1):
        nonlocal now
        path = directory / name
        if not path.exists():
            accesses.append({"at": round(now, 6), "kind": "missing", "path": name})
            return
        for _ in range(times):
            accesses.append({"at": round(now, 6), "kind": "open", "path": name})
            ranges = [[0, path.stat().st_size]]
            accesses.append({"at": round(now, 6), "until": round(now + 1e-4, 6), "kind": "read", "path": name,
                             "ranges": ranges})
            now += 2e-4

    whole("config.json", 3)
    for name in MISSING:
        whole(name)
    for name, times in [("config.json", 2), ("tokenizer_config.json", 3), ("chat_template.jinja", 1),
                        ("tokenizer.json", 2), ("generation_config.json", 1)]:
        whole(name, times)
    now += PAUSE_SECONDS
    whole("model.safetensors.index.json")
    for shard in sorted(directory.glob("*.safetensors")):
        accesses.append({"at": round(now, 6), "kind": "open", "path": shard.name})
        for each in tensor_ranges(shard):
            end = now + each[1] / 1.5e9
            accesses.append({"at": round(now, 6), "until": round(end, 6), "kind": "read", "path": shard.name,
                             "ranges": [each]})
            now = end
    recording = {"source": "written", "engine": {"name": "vllm", "version": "0.32"}, "loader": "default",
                 "model": {"repository": "example/benchmark", "revision": "main"},
                 "host": {"kernel": "", "readAhead": 131072}}
    return {"version": 1, "recordings": [recording], "accesses": accesses}


def ctr_record(profile):
    """The same profile as ctr-remote's record: one object for the first access to each file."""
    paths = dict.fromkeys(f"models/{each['path']}" for each in profile["accesses"] if each["kind"] == "read")
    return "".join(json.dumps({"path": path, "manifestDigest": "sha256:" + "0" * 64, "layerIndex": 0}) + "\n"
                   for path in paths)
