"""Run in a fresh process: compiles a small model with torch Inductor and prints what it took, as one JSON object.

    compile_inductor.py [--artifacts-to FILE] [--artifacts-from FILE] [--aot-to FILE]
"""

import argparse
import json
import time

started = time.monotonic()
import torch  # noqa: E402
from torch._dynamo.utils import counters  # noqa: E402

parser = argparse.ArgumentParser()
parser.add_argument("--artifacts-to", help="where to save torch.compiler.save_cache_artifacts")
parser.add_argument("--artifacts-from", help="what to give to torch.compiler.load_cache_artifacts first")
parser.add_argument("--aot-to", help="where to save a function that was compiled ahead of time")
options = parser.parse_args()


class Block(torch.nn.Module):
    """A feed-forward block of a transformer."""

    def __init__(self, width=96):
        super().__init__()
        self.up = torch.nn.Linear(width, 4 * width)
        self.down = torch.nn.Linear(4 * width, width)
        self.norm = torch.nn.LayerNorm(width)

    def forward(self, x):
        return self.norm(x + self.down(torch.nn.functional.gelu(self.up(x))))


def doubled(x):
    return x * 2


torch.manual_seed(0)
model = torch.nn.Sequential(Block(), Block()).eval()
imported = time.monotonic()
with torch.no_grad():
    if options.artifacts_from:
        with open(options.artifacts_from, "rb") as file:
            assert torch.compiler.load_cache_artifacts(file.read()), "torch could not load the artifacts"
    before = time.monotonic()
    output = torch.compile(model)(torch.linspace(0, 1, 8 * 96).reshape(8, 96))
    after = time.monotonic()
counted = {name: dict(counters[name]) for name in ("inductor", "aot_autograd")}
if options.artifacts_to:
    data, _ = torch.compiler.save_cache_artifacts()
    with open(options.artifacts_to, "wb") as file:
        file.write(data)
if options.aot_to:
    compiled = torch.compile(doubled, fullgraph=True).aot_compile(((torch.ones(8, 4),), {}))
    compiled.save_compiled_function(options.aot_to)
print(
    json.dumps(
        {
            "imports": imported - started,
            "compile": after - before,
            "counters": counted,
            "sum": float(output.double().abs().sum()),
            "torch": torch.__version__,
        }
    )
)
