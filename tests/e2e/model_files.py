"""Models made on the spot: safetensors shards of any size with the statistics of trained bf16 weights.

The same arguments give the same bytes with one version of numpy. Nothing here compares them with stored digests.
"""

import json
import shutil
from pathlib import Path

import numpy

MIB = 1 << 20
TINY_LLAMA = Path(__file__).resolve().parents[2] / "examples" / "tiny-llama"
TENSOR_BYTES = 64 * MIB
POOL_VALUES = 16 * MIB

_pools = {}


def _pool(seed):
    """bf16 values drawn from N(0, 0.02); slices of it, rolled, make up every tensor of one model."""
    if seed not in _pools:
        _pools.clear()
        values = numpy.random.default_rng(seed).standard_normal(POOL_VALUES, dtype=numpy.float32)
        values *= numpy.float32(0.02)
        _pools[seed] = (values.view(numpy.uint32) >> 16).astype("<u2")
    return _pools[seed]


def write_safetensors(path, size, seed=0, prefix="model.layers.0"):
    """Write a valid safetensors file of exactly `size` bytes; returns the names of its tensors."""
    pool = _pool(seed)
    shift = numpy.random.default_rng([seed, *Path(path).name.encode()])
    count = max(1, -(-size // TENSOR_BYTES))
    names = [f"{prefix}.part_{index:03}.weight" for index in range(count)]
    # The header's length depends on the offsets it states: reserve room for the longest, pad with spaces.
    room = (64 + sum(len(name) + 100 for name in names) + 7) // 8 * 8
    data = size - 8 - room
    assert data > 0 and data % 2 == 0, f"a safetensors file of {size} bytes has no room for bf16 data"
    header, begin, lengths = {"__metadata__": {"format": "pt"}}, 0, []
    for index, name in enumerate(names):
        end = data if index == count - 1 else begin + TENSOR_BYTES
        header[name] = {"dtype": "BF16", "shape": [(end - begin) // 2], "data_offsets": [begin, end]}
        lengths.append(end - begin)
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    with open(path, "wb") as out:
        out.write(room.to_bytes(8, "little") + text.ljust(room))
        for length in lengths:
            left = length // 2
            while left:
                start = int(shift.integers(0, POOL_VALUES))
                piece = pool[start : start + left]
                out.write(piece.data)
                left -= len(piece)
    assert Path(path).stat().st_size == size
    return names


def write_model(directory, size, shards=4, seed=0):
    """A model directory: the tiny Llama's small files and `shards` shards of `size` bytes together."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for small in sorted(TINY_LLAMA.iterdir()):
        if not small.name.endswith(".safetensors") and small.name != "model.safetensors.index.json":
            shutil.copyfile(small, directory / small.name)
    weight_map, each = {}, size // shards // 2 * 2
    for number in range(1, shards + 1):
        name = f"model-{number:05}-of-{shards:05}.safetensors"
        for tensor in write_safetensors(directory / name, each, seed, f"model.layers.{number - 1}"):
            weight_map[tensor] = name
    index = {"metadata": {"total_size": each * shards}, "weight_map": dict(sorted(weight_map.items()))}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return directory


def tree(directory):
    """Relative path to content of every regular file below `directory`, symlinks followed."""
    directory = Path(directory)
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
