"""What a finished demo's DPO takes, by how its threads wait for each other.

    python benchmarks/claim/dpo_seconds.py runs/s0                  # a folder of `cowest demo`
    python benchmarks/claim/dpo_seconds.py runs/s0 --spins 0 10000

The same pairs from the same adapter, in a copy of the folder's adapters, again for every number of
turns that a thread of one process waits awake (`GOMP_SPINCOUNT`), and as the demo trains: by two
processes of a core each where there are two cores. Losses stand beside the seconds; two processes
share out the rows otherwise, so theirs differ.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from finished import SFT_VERSION, Demo

from cowest_graph import AdapterRegistry
from trainer import TrainingJob, train_dpo
from trainer.demo.run import jobs


def main() -> None:
    """Print a line a way of waiting."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--spins", nargs="+", default=["0", "10000"])
    given = options.parse_args()
    demo = Demo(given.folder, "controls.json")
    _, job = jobs(demo.base, demo.seed)
    batch = job.args["per_device_train_batch_size"] * job.num_processes
    one = replace(job, num_processes=1, args=job.args | {"per_device_train_batch_size": batch})
    for spins in given.spins:
        os.environ["GOMP_SPINCOUNT"] = spins  # the worker takes this process's environment
        measured(demo, one, f"GOMP_SPINCOUNT={spins}")
    os.environ.pop("GOMP_SPINCOUNT")
    measured(demo, job, f"{job.num_processes} processes")
    demo.weak.close()


def measured(demo: Demo, job: TrainingJob, way: str) -> None:
    """Train once, with no reference log-probabilities from before."""
    seen: list[tuple[float, float]] = []
    began = time.perf_counter()

    def progress(line: dict[str, Any]) -> None:
        if "step" in line:
            seen.append((time.perf_counter() - began, line["loss"]))

    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(demo.adapters.path(SFT_VERSION), Path(folder) / SFT_VERSION)
        adapters = AdapterRegistry(folder, base=demo.base)
        train_dpo(demo.pairs(), job, adapters, start=SFT_VERSION, progress=progress)
    seconds, (first, _), (last, loss) = time.perf_counter() - began, seen[0], seen[-1]
    step = (last - first) / (len(seen) - 1)
    print(
        f"{way:24} {seconds:.0f} s: {first:.0f} to the first step's end, {step:.1f} a step, "
        f"loss {loss:.4f} after {len(seen)}",
        flush=True,
    )


if __name__ == "__main__":
    main()
