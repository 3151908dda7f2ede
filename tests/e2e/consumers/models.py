"""Model snapshots to pack: plain directories with real safetensors headers."""

import hashlib
import json
import os
import struct

MIB = 1 << 20
_block = {}


def noise(seed, size, at=0):
    """size bytes that no two (seed, MiB) have in common and that do not compress."""
    base = _block.get(seed)
    if base is None:
        _block.clear()
        base = _block[seed] = hashlib.shake_128(str(seed).encode()).digest(MIB)
    out = bytearray()
    while len(out) < size:
        index, skip = divmod(at + len(out), MIB)
        piece = struct.pack("<Q", index) + base[8:]
        out += piece[skip : skip + size - len(out)]
    return bytes(out)


def write_noise(path, size, seed=None, mode="wb"):
    """A file of noise."""
    seed = path.name if seed is None else seed
    with open(path, mode) as f:
        for at in range(0, size, 8 * MIB):
            f.write(noise(seed, min(8 * MIB, size - at), at))
    return path


def write_safetensors(path, size):
    """A valid safetensors file of exactly size bytes (128 at least)."""
    assert size >= 128, size
    # The header is padded with spaces to 120 bytes, as the format allows.
    data = size - 8 - 120
    header = json.dumps({"w": {"dtype": "U8", "shape": [data], "data_offsets": [0, data]}}).encode()
    assert len(header) <= 120, header
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", 120) + header.ljust(120))
    write_noise(path, data, mode="ab")
    assert os.path.getsize(path) == size
    return path


def small_files(directory):
    """What lies beside the weights in a snapshot."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16"}
    (directory / "config.json").write_text(json.dumps(config, indent=2))
    (directory / "generation_config.json").write_text('{"eos_token_id": 2}\n')
    vocab = {f"<token {i}>": i for i in range(20_000)}
    (directory / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": vocab}}))
    (directory / "tokenizer_config.json").write_text('{"model_max_length": 4096}\n')
    (directory / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    return directory


def model(directory, weights=32 * MIB, shards=2):
    """A snapshot with this many bytes of weights in as many shards."""
    small_files(directory)
    index = {"metadata": {"total_size": weights}, "weight_map": {}}
    for i in range(1, shards + 1):
        name = f"model-{i:05d}-of-{shards:05d}.safetensors"
        write_safetensors(directory / name, weights // shards)
        index["weight_map"][f"w{i}"] = name
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    return directory
