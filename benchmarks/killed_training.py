"""Training killed at random moments, and gone on with, ends with the same adapter bit for bit.

    python benchmarks/killed_training.py [--kills 5] [--kind sft|dpo|kto] [--steps 20] [--seed 0]

SmolLM2-135M-Instruct on the CPU, LoRA on its last two layers, short rows. First a run that nobody
disturbs. Then the same job on the same rows in another folder: after the first step of each try, at
a random moment, the worker is killed by SIGKILL, and the same call is made again, until it ends.
Prints the step after which each try was killed and what it went on from; exit code 1 when the two
adapters differ in a single bit.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from faults import collected, demonstrated

from cowest_graph import AdapterRegistry
from cowest_graph.embedded import weak_model
from trainer import (
    TrainingError,
    TrainingJob,
    train_dpo,
    train_sft,
    training_rows,
)

LORA = {"r": 4, "target_modules": ["q_proj", "v_proj", "down_proj"]}
Train = Callable[[AdapterRegistry, Callable[[dict[str, Any]], None]], str]


def main() -> int:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--kills", type=int, default=5)
    given.add_argument("--kind", choices=("sft", "dpo", "kto"), default="dpo")
    given.add_argument("--steps", type=int, default=20)
    given.add_argument("--seed", type=int, default=0)
    given.add_argument("--model", help="a model's folder; SmolLM2-135M-Instruct by default")
    given.add_argument("--layers", type=int, nargs="+", default=[28, 29], help="with adapters")
    given.add_argument("--within", type=float, default=3.0, help="seconds after a try's first step")
    asked = given.parse_args()
    model = asked.model or str(weak_model())
    with tempfile.TemporaryDirectory() as home:
        train, start = planned(asked.kind, model, asked.layers, asked.steps, Path(home))
        began = time.perf_counter()
        whole = hashed(train, registry(Path(home) / "whole", start), lambda line: None)
        print(f"undisturbed: {time.perf_counter() - began:.0f} s, adapter {whole[:16]}")
        disturbed = registry(Path(home) / "disturbed", start)
        dice = random.Random(asked.seed)
        kills = 0
        while True:
            watch = Killer(dice.uniform(0, asked.within) if kills < asked.kills else None)
            try:
                ended = hashed(train, disturbed, watch)
                break
            except TrainingError as error:
                if "SIGKILL" not in str(error):
                    raise
                kills += 1
                print(
                    f"kill {kills}: {watch.delay:.2f} s into it, at step {watch.step}{watch.said}"
                )
        print(f"went on to the end{watch.said}, adapter {ended[:16]}")
        print(f"{kills} kills; the adapters are {'the same' if ended == whole else 'DIFFERENT'}")
        return 0 if ended == whole and kills == asked.kills else 1


class Killer:
    """Kills this process's child a while after its first step; follows how far it came."""

    def __init__(self, delay: float | None) -> None:
        self.delay = delay
        self.step: int | None = None
        self.said = ""

    def __call__(self, line: dict[str, Any]) -> None:
        """Look at one line of the log."""
        if "goes on after" in str(line.get("note")):
            self.said = f" ({line['note']})"
        if "step" not in line:
            return
        if self.step is None and self.delay is not None:
            threading.Timer(self.delay, self.kill).start()
        self.step = line["step"]

    def kill(self) -> None:
        """SIGKILL, as the system does it for want of memory."""
        for child in psutil.Process().children(recursive=True):
            child.kill()


def hashed(train: Train, adapters: AdapterRegistry, watch: Any) -> str:
    name = train(adapters, watch)
    weights = adapters.path(name) / "adapter_model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def registry(folder: Path, start: Path | None) -> AdapterRegistry:
    adapters = AdapterRegistry(folder)
    if start is not None:
        adapters.add(start, name="start")
    return adapters


def planned(
    kind: str, model: str, layers: list[int], steps: int, home: Path
) -> tuple[Train, Path | None]:
    """What is trained, and the SFT adapter that it starts from."""
    args = {"max_steps": steps, "learning_rate": 1e-3, "num_train_epochs": 1}
    shape = {**LORA, "layers_to_transform": layers}
    job = TrainingJob(model, preset="tiny", lora=shape, args=args)
    shown = demonstrated(64)
    if kind == "sft":
        return lambda adapters, watch: train_sft(shown, job, adapters, progress=watch), None
    first = AdapterRegistry(home / "first")
    few = TrainingJob(model, preset="tiny", lora=job.lora, args={**args, "max_steps": 4})
    start = first.path(train_sft(shown, few, first))
    objective = "dpo" if kind == "dpo" else "kto"
    tuned = TrainingJob(model, preset="tiny", objective=objective, args=args)
    rows = training_rows(objective, collected(64))
    return (
        lambda adapters, watch: train_dpo(rows, tuned, adapters, start="start", progress=watch),
        start,
    )


if __name__ == "__main__":
    sys.exit(main())
