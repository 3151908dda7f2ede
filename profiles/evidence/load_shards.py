"""Walks the shards of a directory as vLLM's default loader and SGLang's do, and copies each tensor.

    load_shards.py vllm DIRECTORY
    load_shards.py sglang DIRECTORY PATH/TO/sglang/srt/model_loader/weight_utils.py

vLLM's loop (safetensors_weights_iterator of model_loader/weight_utils.py, without a load strategy) is repeated here.
SGLang's functions are taken from its source, so that nothing else of it needs to run.
"""

import ast
import glob
import os
import re
import sys

from safetensors.torch import safe_open

engine, folder = sys.argv[1:3]
files = glob.glob(os.path.join(folder, "*.safetensors"))


def vllm():
    def natural(path):
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", os.path.basename(path))]

    for path in sorted(files, key=natural):
        with safe_open(path, framework="pt") as shard:
            for name in shard.keys():
                yield name, shard.get_tensor(name)


def sglang():
    import collections, concurrent.futures, fnmatch, itertools, json, typing  # noqa: E401
    import safetensors.torch, torch, tqdm  # noqa: E401

    wanted = {"filter_duplicate_safetensors_files", "buffered_multi_thread_safetensors_weights_iterator"}
    with open(sys.argv[3]) as source:
        tree = ast.parse(source.read())
    body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in wanted]
    scope = {"BAR_FORMAT": None, "tqdm": tqdm.tqdm, "os": os, "safetensors": safetensors, "torch": torch,
             "collections": collections, "concurrent": concurrent, "fnmatch": fnmatch, "itertools": itertools,
             "json": json, **vars(typing)}
    exec(compile(ast.Module(body, []), sys.argv[3], "exec"), scope)
    kept = scope["filter_duplicate_safetensors_files"](files, folder, "model.safetensors.index.json")
    yield from scope["buffered_multi_thread_safetensors_weights_iterator"](sorted(kept), max_workers=8)


for _, tensor in {"vllm": vllm, "sglang": sglang}[engine]():
    tensor.clone()
