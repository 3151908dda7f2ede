"""Run in a fresh process: Triton compiles a kernel for a GPU that need not be here; prints one JSON object.

    compile_triton.py ARCHITECTURE
"""

import json
import sys
import time

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.cache import get_cache_manager


@triton.jit
def add(a, b, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(a + at, mask=at < n) + tl.load(b + at, mask=at < n), mask=at < n)


hits = []
triton.knobs.compilation.listener = lambda **told: hits.append(told["cache_hit"])
signature = {"a": "*fp32", "b": "*fp32", "out": "*fp32", "n": "i32", "BLOCK": "constexpr"}
before = time.monotonic()
kernel = triton.compile(
    ASTSource(fn=add, signature=signature, constexprs={"BLOCK": 128}), target=GPUTarget("cuda", int(sys.argv[1]), 32)
)
seconds = time.monotonic() - before
(hit,) = hits

# What else uses Triton's cache puts files and groups into it in the same way, as launchers do.
manager = get_cache_manager("5a" * 32)
group = manager.get_group("launcher.json")
if group is None:
    names = {name: manager.put(f"{name}\n".encode(), name) for name in ("launcher.c", "launcher.so", "launcher.json")}
    manager.put_group("launcher.json", names)
print(json.dumps({"hit": hit, "seconds": seconds, "group": group, "triton": triton.__version__}))
