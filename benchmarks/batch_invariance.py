"""What it would cost to make a row's numbers independent of the rows beside it, in bfloat16.

Linear layers of SmolLM2's shapes: does a row come out the same in a batch of M rows as alone, and
as in a batch that is always filled up to the same M; and how long a step's linear layers take.

    python benchmarks/batch_invariance.py
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import linear

SHAPES = {
    "qkv": (576, 960),
    "o": (576, 576),
    "up": (576, 3072),
    "down": (1536, 576),
    "head": (576, 49152),
}
LAYERS = {"qkv": 30, "o": 30, "up": 30, "down": 30, "head": 1}
ROWS = (1, 2, 5, 8, 16, 32)
FILLED = 32


def seconds(call: Callable[[], object], times: int = 30) -> float:
    """The median of several calls."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return sorted(taken)[times // 2]


def step(weights: dict[str, Tensor], inputs: dict[str, Tensor]) -> None:
    for name, count in LAYERS.items():
        for _ in range(count):
            linear(inputs[name], weights[name])


def measure(dtype: torch.dtype) -> list[dict[str, object]]:
    torch.manual_seed(0)
    weights = {name: torch.randn(out, size).to(dtype) for name, (size, out) in SHAPES.items()}
    inputs = {name: torch.randn(64, size).to(dtype) for name, (size, _) in SHAPES.items()}
    alone = {
        n: torch.cat([linear(x[i : i + 1], weights[n]) for i in range(64)])
        for n, x in inputs.items()
    }
    filled = {n: linear(x[:FILLED], weights[n]) for n, x in inputs.items()}
    lines: list[dict[str, object]] = []
    for rows in ROWS:
        some = {name: x[:rows] for name, x in inputs.items()}
        out = {name: linear(x, weights[name]) for name, x in some.items()}
        # The same rows at another place of a full batch, beside other rows.
        moved = {
            n: linear(torch.cat([x[FILLED:], x[:FILLED]])[FILLED - rows :][:FILLED], weights[n])
            for n, x in inputs.items()
        }
        lines.append(
            {
                "dtype": str(dtype),
                "rows": rows,
                "as_alone": sum(torch.equal(out[n], alone[n][:rows]) for n in SHAPES) / len(SHAPES),
                "as_filled": sum(
                    torch.equal(moved[n][rows:], filled[n][: FILLED - rows]) for n in SHAPES
                )
                / len(SHAPES),
                "step_ms": round(1e3 * seconds(lambda some=some: step(weights, some)), 2),
            }
        )
    return lines


if __name__ == "__main__":
    with torch.inference_mode():
        print(f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads")
        for dtype in (torch.float32, torch.bfloat16):
            for line in measure(dtype):
                print(json.dumps(line))
