"""The same order found by `cowest loop`: SFT, collect, DPO, and a gate on 150 held-out questions.

    python benchmarks/claim/loop.py runs/loop --seeds 0 1 2

For every seed: the demo's world as files, `cowest.toml` with its recipe, and the verb. What
was decided stands in the folder's cowest-loop/loop.json; the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from cowest_graph import embedded
from cowest_graph.testing.asking import ask
from cowest_graph.testing.instruments import instruments
from trainer.demo.run import FEEDBACK, LORA, TRAIN, jobs

# More held-out questions than the demo's world has, so two parts more, and as many rows a fact.
PARTS, HELD_OUT = 8, 150
ROWS = TRAIN * PARTS // 6
KEPT = ("query", "reference", "explanation")


def main() -> None:
    """Write the files and run the loop, seed by seed."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = options.parse_args()
    for seed in given.seeds:
        folder = given.folder / f"s{seed}"
        written(folder, seed)
        cowest = Path(sys.executable).with_name("cowest")
        command = [str(cowest), "loop", "train.jsonl", "--feedback", "feedback.jsonl"]
        command += ["--held-out", "held_out.jsonl", "--rounds", "1"]
        print(f"seed {seed}: {' '.join(command[1:])}", flush=True)
        subprocess.run(command, cwd=folder, check=True, env=os.environ)


def written(folder: Path, seed: int) -> None:
    """The world's rows and the configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    sft, dpo = jobs(embedded.weak_model(), seed)
    world = instruments(seed, count=PARTS)
    data = ask(world, seed, train=ROWS, feedback=FEEDBACK, held_out=HELD_OUT)
    for name, rows in vars(data).items():
        lines = [json.dumps({key: row[key] for key in KEPT}) + "\n" for row in rows]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    (folder / "cowest.toml").write_text(
        f"""[weak]
max_tokens = 48

[strong]
temperature = 0.0

[evaluator]
kind = "exact_match"

[collect]
domain = "halden-instruments-{seed}"
num_drafts = 5
max_concurrency = 16

[train]
preset = "tiny"
seed = {seed}
num_processes = {sft.num_processes}
sft = {_inline(sft.args)}
dpo = {_inline(dpo.args)}
lora = {_inline(LORA)}
"""
    )


def _inline(values: dict[str, object]) -> str:
    """An inline table of TOML; JSON writes its values alike."""
    pairs = ", ".join(f"{key} = {json.dumps(value)}" for key, value in values.items())
    return "{ " + pairs + " }"


if __name__ == "__main__":
    main()
