"""Make the stand-in's skill again: practice rows, SFT, one GGUF file.

    python benchmarks/stand_in/make.py --out stand-in
    … --out stand-in --start v0001 --again comparing --rows 2400 --rate 1e-3 --seed 2
    … --out stand-in --start v0002 --again adding --rows 2400 --rate 1e-3 --seed 3
    … --out stand-in --start v0003 --again sums --rows 1800 --rate 1.2e-3 --seed 4
    … --out stand-in --between v0003 v0004
    … --out stand-in --start between-v0003-v0004 --again days --rows 2400 --rate 8e-4 --seed 5
    python benchmarks/stand_in/score.py --lora stand-in/note-reader.gguf

Takes 55 minutes on two cores with fast bf16. Prints the hashes of the rows and of the file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tempfile
from pathlib import Path

from notes import AGAIN, SKILLS, practice

from cowest_graph import AdapterRegistry, embedded
from cowest_graph.adapters import CONFIG, WEIGHTS
from cowest_graph.weak.llama import base_shape, convert_lora
from trainer import TrainingJob, train_sft

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main() -> None:
    """Train, or mix what is trained, and write the file."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, default=Path("stand-in"))
    options.add_argument("--rows", type=int, default=8000)
    options.add_argument("--rate", type=float, default=1.5e-3)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--processes", type=int, default=2, help="a core each")
    options.add_argument("--start", help="a version to go on with")
    options.add_argument("--again", choices=list(AGAIN), help="the skills that are hard")
    options.add_argument("--between", nargs=2, help="two versions, one trained on from the other")
    given = options.parse_args()
    adapters = AdapterRegistry(given.out / "adapters", base=embedded.weak_model())
    version = between(adapters, *given.between) if given.between else trained(adapters, given)
    file = given.out / "note-reader.gguf"
    shape_of = base_shape(embedded.packaged_weights())
    convert_lora(adapters.path(version), file, shape_of, compact=True)
    told = hashlib.sha256(file.read_bytes()).hexdigest()
    print(f"{version}: {file}, {file.stat().st_size / 1e6:.1f} MB, SHA-256 {told}")


def trained(adapters: AdapterRegistry, given: argparse.Namespace) -> str:
    """A version that has practised."""
    rows = practice(given.rows, given.seed, given.again)
    print(f"{len(rows)} rows of {len(SKILLS)} skills, SHA-256 {digest(rows)}", flush=True)
    shape = {"r": 16, "lora_alpha": 32, "target_modules": LINEAR}
    job = TrainingJob(
        str(embedded.weak_model()),
        preset="tiny",
        lora={} if given.start else shape | {"layers_to_transform": list(range(8, 30))},
        args={
            "learning_rate": given.rate,
            "num_train_epochs": 1,
            "per_device_train_batch_size": 16 // given.processes,
            "warmup_steps": 15,
            "save_steps": 100,
        },
        seed=given.seed,
        num_processes=given.processes,
    )
    taught = [_taught(row) for row in rows]
    return train_sft(taught, job, adapters, start=given.start, progress=_told)


def between(adapters: AdapterRegistry, earlier: str, later: str) -> str:
    """Half-way from a version to one that was trained on from it: the mean of their weights.

    What the last practice taught at the price of another skill is kept in part, and so is the other
    skill (Wortsman et al., 2022, robust fine-tuning).
    """
    from safetensors.torch import load_file, save_file

    ours, theirs = (load_file(adapters.path(name) / WEIGHTS) for name in (earlier, later))
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(adapters.path(later) / CONFIG, Path(folder, CONFIG))
        mean = {name: 0.5 * ours[name].float() + 0.5 * theirs[name].float() for name in ours}
        save_file(mean, Path(folder, WEIGHTS))
        return adapters.add(folder, name=f"between-{earlier}-{later}")


def digest(rows: list[dict[str, str]]) -> str:
    """Of all practice rows."""
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _taught(row: dict[str, str]) -> dict[str, object]:
    return {
        "prompt": [{"role": "user", "content": row["prompt"]}],
        "completion": [{"role": "assistant", "content": row["completion"]}],
    }


def _told(line: dict[str, object]) -> None:
    if "note" in line:
        print(line["note"], flush=True)
    elif int(str(line.get("step", 1))) % 20 == 0:
        print(
            f"step {line['step']}/{line['steps']}, loss {line['loss']:.4f}, "
            f"{line['seconds']:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
