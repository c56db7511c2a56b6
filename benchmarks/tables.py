"""The tables of docs/results: every method on four domains, with the stand-in models or yours.

    python benchmarks/tables.py --out bench                      # a sample that fits two CPU cores
    python benchmarks/tables.py --out bench --full --config my.toml   # whole splits, on a GPU

Runs `cowest bench` a domain, then `cowest report` into docs/results. Killed, the same command goes
on where it was. The small size: SmolLM2-135M as weak model with LoRA on the MLPs of its upper 15
layers, one epoch, at most three minutes a training run; the stand-in as strong model. `--adapter
DOMAIN=FOLDER` gives a domain's weak model an adapter of `benchmarks/weak_sft.py` instead.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOMAINS = {
    "prosocial": "examples.ethics.domain:prosocial",
    "medmcqa": "examples.medicine.domain:medmcqa",
    "banking77": "examples.ethics.banking:banking77",
    "ifqa": "examples.counterfactual.domain:ifqa",
}
SMALL = {"limit": 20, "train-rows": 256, "feedback": 10, "drafts": 4, "probes": 4}
# Fewer: the stand-in writes its longest answers here.
FEWER = {"ifqa": {"limit": 6, "feedback": 3, "drafts": 3, "probes": 2}}
FULL = {"limit": 0, "train-rows": 0, "feedback": 1000, "concurrency": 64}
ENVIRONMENT = {
    "COWEST_TRAIN_PRESET": "tiny",
    "COWEST_TRAIN_TIME_LIMIT": "180",
    "COWEST_TRAIN_SFT": json.dumps({"num_train_epochs": 1}),
    "COWEST_TRAIN_LORA": json.dumps(
        {
            "target_modules": ["gate_proj", "up_proj", "down_proj"],
            "layers_to_transform": list(range(15, 30)),
        }
    ),
    "COWEST_WEAK_MAX_TOKENS": "96",
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, default=Path("bench"))
    options.add_argument("--domains", nargs="+", choices=DOMAINS, default=list(DOMAINS))
    options.add_argument("--full", action="store_true")
    options.add_argument("--config")
    options.add_argument("--adapter", nargs="+", metavar="DOMAIN=FOLDER", default=[])
    given = options.parse_args()
    config = ["--config", given.config] if given.config else []
    adapters = dict(pair.split("=", 1) for pair in given.adapter)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if not given.full:
        environment = {**ENVIRONMENT, **environment}
    for name in given.domains:
        out = given.out / name
        if not (out / "bench.json").exists():
            size = FULL if given.full else {**SMALL, **FEWER.get(name, {})}
            sized = [word for key, value in size.items() for word in (f"--{key}", str(value))]
            words = ["bench", "--domain", DOMAINS[name], "--out", str(out), *sized, *config]
            if name in adapters:
                words += ["--adapter", f"sft={adapters[name]}"]
            subprocess.run(
                [sys.executable, "-m", "trainer.cli", *words], env=environment, check=True
            )
    report = ["report", str(given.out), "--out", "docs/results", "--name", "bench"]
    subprocess.run([sys.executable, "-m", "trainer.cli", *report], env=environment, check=True)


if __name__ == "__main__":
    main()
