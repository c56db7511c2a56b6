"""Two processes with half of the batch each train what one process trains, and only one writes."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from trainer import TrainingJob, demonstrations
from trainer.run.processes import command

pytestmark = pytest.mark.timeout(240)

ROOT = Path(__file__).parents[2]
CODES = ("dust", "moisture", "overheating", "low pressure", "a loose contact", "a worn bearing")
LORA: dict[str, Any] = {"r": 4, "target_modules": ["q_proj", "v_proj", "down_proj"]}
ONE: dict[str, Any] = {
    "per_device_train_batch_size": 4,
    "max_steps": 3,
    "learning_rate": 1e-2,
    "max_length": 512,
}
# Runs one job after the other: the libraries are imported once.
SEVERAL = (
    "import sys; from trainer.worker import main; sys.exit(max([main([j]) for j in sys.argv[1:]]))"
)


def shown() -> list[dict[str, Any]]:
    """Rows of several lengths, so that the halves of a batch differ in their tokens."""
    return demonstrations(
        {
            "query": f"What does fault code VEX-{i} mean? {'Please. ' * (i % 3)}",
            "reference": f"clean it, {code}",
            "explanation": f"VEX-{i} is {code}. " * (1 + i % 4),
        }
        for i, code in enumerate(CODES * 2)
    )


def preferred() -> list[dict[str, Any]]:
    told = [{"role": "assistant", "content": "I cannot tell, ask somebody else."}]
    return [
        {"prompt": row["prompt"], "chosen": row["completion"], "rejected": told} for row in shown()
    ]


def written(
    folder: Path, kind: str, job: TrainingJob, rows: list[dict[str, Any]], start: Path | None
) -> Path:
    folder.mkdir()
    spec = {"kind": kind, "job": asdict(job), "rows": "rows.jsonl", "start": start and str(start)}
    (folder / "job.json").write_text(json.dumps(spec))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "job.json"


def steps(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if "step" in line]


also = pytest.mark.skipif(
    not os.environ.get("COWEST_ALL_PATHS"),
    reason="by TRL's own paths, too, with COWEST_ALL_PATHS=1 (another half minute)",
)


@pytest.mark.parametrize("fast", [True, pytest.param(False, marks=also)])
def test_two_processes_with_half_the_batch_end_as_one(
    tiny_model: Path, tmp_path: Path, fast: bool
) -> None:
    from safetensors.torch import load_file

    from trainer.worker import main

    one = TrainingJob(
        str(tiny_model), preset="tiny", lora=LORA, args=ONE, precision="fp32", fast_paths=fast
    )
    half = replace(one, args={**ONE, "per_device_train_batch_size": 2}, num_processes=2)
    start = tmp_path / "sft-1" / "output"
    jobs = []
    for processes, job in ((1, one), (2, half)):
        sft = written(tmp_path / f"sft-{processes}", "sft", job, shown(), None)
        dpo = written(tmp_path / f"dpo-{processes}", "dpo", job, preferred(), start)
        jobs.append((sft, dpo))
    assert [main([str(file)]) for file in jobs[0]] == [0, 0]

    modules, here = tmp_path / "modules", tmp_path / "here"
    for folder in (modules, here):
        folder.mkdir()
    (modules / "several.py").write_text(SEVERAL)
    for name in ("trainer", "torch"):  # the user's own, which no process of ours imports
        (here / f"{name}.py").write_text(f"raise SystemExit({name!r})")
    searched = os.pathsep.join([str(ROOT), str(modules)])
    ran = subprocess.run(
        [*command(2), "several", *map(str, jobs[1])],
        env={**os.environ, "PYTHONPATH": searched, "HF_HUB_OFFLINE": "1"},
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]

    for kind in ("sft", "dpo"):
        alone, together = (steps(tmp_path / f"{kind}-{n}") for n in (1, 2))
        assert [line["step"] for line in together] == [1, 2, 3]  # one process writes the log
        for mine, theirs in zip(together, alone, strict=True):
            assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-4)
            assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3)
        name = Path("output") / "adapter_model.safetensors"
        weights, others = (load_file(tmp_path / f"{kind}-{n}" / name) for n in (1, 2))
        assert weights.keys() == others.keys()
        for key, weight in weights.items():
            assert (weight - others[key]).abs().max() < 1e-3, key
        assert (tmp_path / f"{kind}-2" / "result.json").is_file()
