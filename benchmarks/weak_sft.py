"""A weak model after SFT on a domain's whole training split, beside the floor it must beat.

    python benchmarks/weak_sft.py --domain examples.ethics.banking:banking77 --epochs 3

Trains SmolLM2-135M (LoRA on all linear layers of all its blocks), prints accuracy and macro-F1 on
the dev split with 95 % bootstrap intervals. Killed, the same command goes on. `--processes 2` gives
the same losses (within 4e-5) on two cores. `--start ADAPTER` goes on with an adapter; `--score
ADAPTER` trains nothing, of several it scores the mean of their changes. `benchmarks/floors.py`
prints the floors.
"""

from __future__ import annotations

import argparse
import hashlib
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from floors import scores

from cowest_graph import AdapterRegistry, LocalWeak, embedded
from cowest_graph.domains import Domain, Example, distinct, without_duplicates
from trainer import TrainingJob, demonstrations, train_sft
from trainer.cli.models import attribute

_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--domain", default="examples.ethics.banking:banking77")
    options.add_argument("--out", type=Path, default=Path("weak-sft"))
    options.add_argument("--epochs", type=float, default=3)
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--rate", type=float, default=1e-3)
    options.add_argument("--lowest", type=int, default=0, help="layer that has an adapter")
    options.add_argument("--rows", type=int, help="of the training split; all without it")
    options.add_argument(
        "--balanced", action="store_true", help="repeat rows until every label has as many"
    )
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--processes", type=int, default=1, help="each with a part of --batch")
    options.add_argument("--start", type=Path, help="an adapter's folder to go on with")
    options.add_argument("--score", type=Path, nargs="+", help="adapters; nothing is trained")
    options.add_argument("--weights", type=float, nargs="+", help="of their mean; equal without")
    given = options.parse_args()
    if given.batch % given.processes:
        options.error(f"--batch {given.batch} does not divide by --processes {given.processes}")
    domain = attribute(given.domain)
    adapters = AdapterRegistry(given.out / "adapters", base=embedded.weak_model())
    scored = _mean(given.score, given.weights, given.out) if given.score else None
    _score(domain, adapters, _known(adapters, scored) or _train(domain, adapters, given))


def _train(domain: Domain, adapters: AdapterRegistry, given: argparse.Namespace) -> str:
    train, _ = without_duplicates(distinct(domain.load("train")), domain.load("dev"))
    train = train[: given.rows]
    if given.balanced:
        train = _balanced(train, given.seed)
    taught = [example.as_row() for example in train]
    rows = demonstrations(taught, style=domain.style, prompt=domain.prompts(domain.style).draft)
    layers = list(range(given.lowest, 30))
    start = _known(adapters, given.start)
    job = TrainingJob(
        str(embedded.weak_model()),
        preset="tiny",
        seed=given.seed,
        num_processes=given.processes,
        lora={} if start else {"target_modules": _LINEAR, "layers_to_transform": layers},
        args={
            "num_train_epochs": given.epochs,
            "per_device_train_batch_size": given.batch // given.processes,
            "learning_rate": given.rate,
            "warmup_steps": 20,
            "save_steps": 100,
        },
    )
    kind = f"{len(rows)}x{given.epochs:g}-b{given.batch}-{given.rate:g}"
    kind += "-balanced" * given.balanced + f"-s{given.seed}" * bool(given.seed)
    kind += f"-above{given.lowest}" * bool(given.lowest)
    name = f"{domain.name}-{kind}" + (f"-from-{start}" if start else "")
    if name in adapters:
        return name
    print(f"SFT on {rows.report}", flush=True)
    return train_sft(rows, job, adapters, start=start, name=name, progress=_told)


def _balanced(train: list[Example], seed: int) -> list[Example]:
    """Every row, and of the rarer labels some again, until all labels are as frequent."""
    of: dict[str, list[Example]] = {}
    for example in train:
        of.setdefault(str(example.reference), []).append(example)
    most = max(map(len, of.values()))
    draw = random.Random(seed)
    return [
        example
        for rows in of.values()
        for example in rows * (most // len(rows)) + draw.sample(rows, most % len(rows))
    ]


def _known(adapters: AdapterRegistry, folder: Path | None) -> str | None:
    if folder is None:
        return None
    return folder.name if folder.name in adapters else adapters.add(folder, name=folder.name)


def _mean(folders: list[Path], weights: list[float] | None, out: Path) -> Path:
    """The adapter whose change of the weights is the mean of others' (Wortsman et al., 2022)."""
    if len(folders) == 1:
        return folders[0]
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    weights = weights or [1 / len(folders)] * len(folders)
    names = [f"part{number}" for number in range(len(folders))]
    base = AutoModelForCausalLM.from_pretrained(embedded.weak_model())
    model = PeftModel.from_pretrained(base, folders[0], adapter_name=names[0])
    for name, folder in zip(names[1:], folders[1:], strict=True):
        model.load_adapter(folder, name)
    mean = "mean-of-" + _digest([*(f.name for f in folders), *weights])
    model.add_weighted_adapter(names, weights, mean, combination_type="cat")
    model.save_pretrained(out, selected_adapters=[mean])
    return out / mean


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(str(parts).encode()).hexdigest()[:8]


def _told(line: Mapping[str, Any]) -> None:
    if "note" in line:
        print(line["note"], flush=True)
    elif line.get("step", 1) % 50 == 0:
        said = f"step {line['step']}/{line['steps']}, loss {line['loss']:.4f}"
        print(f"{said}, {line['seconds']:.0f} s", flush=True)


def _score(domain: Domain, adapters: AdapterRegistry, name: str) -> None:
    test = domain.load("dev")
    prompt = domain.prompts(domain.style).draft
    with LocalWeak(
        embedded.weak_model(), adapters=adapters, temperature=0, max_tokens=40, max_batch_size=32
    ) as weak:
        asked = [prompt.format_messages(query=example.query) for example in test]
        said = weak.bind(adapter=name).batch(asked, {"max_concurrency": 32})
    labels = [domain.read(answer, each.query) for answer, each in zip(said, test, strict=True)]
    unreadable = labels.count(None)
    print(f"{name}: {scores(domain, labels, test)}, {unreadable} unreadable", flush=True)


if __name__ == "__main__":
    main()
