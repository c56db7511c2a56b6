"""A run that was cut off goes on from its last whole checkpoint, to the same weights bit for bit.

On the tiny model; benchmarks/killed_training.py kills the real one at five random moments.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
from faults import collected, demonstrated

from cowest_graph.adapters import AdapterRegistry
from trainer import TrainingError, TrainingJob, train_dpo, training_rows
from trainer.run.resume import last_checkpoint
from trainer.tuning import Run
from trainer.tuning.watch import RunLog

pytestmark = pytest.mark.timeout(240)

LORA: dict[str, Any] = {"r": 4, "target_modules": ["q_proj", "v_proj", "down_proj"]}
STEPS = 7
WEIGHTS = "adapter_model.safetensors"
LITTLE = "5"  # GiB of address space, of which torch itself takes most


@pytest.fixture(scope="module")
def job(tiny_model: Path) -> TrainingJob:
    # 10 rows, 2 at a time: step 5 ends an epoch. LoRA's dropout draws random numbers in SFT.
    args = {"max_steps": STEPS, "per_device_train_batch_size": 2, "learning_rate": 1e-2}
    lora = {**LORA, "lora_dropout": 0.1}
    return TrainingJob(str(tiny_model), preset="tiny", lora=lora, args=args, precision="fp32")


@pytest.fixture(scope="module")
def sft(job: TrainingJob, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sft")
    trained(replace(job, args={**job.args, "max_steps": 3}), "sft", folder)
    return folder / "output"


def trained(job: TrainingJob, kind: str, folder: Path, start: Path | None = None) -> bytes:
    """The adapter's weights, as they are saved."""
    from trainer import backends
    from trainer.worker import recipe

    folder.mkdir(exist_ok=True)
    rows = demonstrated(10) if kind == "sft" else training_rows(kind, collected(10))
    log = RunLog(folder / "log.jsonl")
    recipe(kind)(Run(job, backends.machine(job), folder, log), rows, start)
    return (folder / "output" / WEIGHTS).read_bytes()


@pytest.mark.parametrize("kind", ["sft", "dpo", "kto"])
def test_a_run_resumed_from_its_checkpoint_ends_bit_for_bit_the_same(
    kind: str, job: TrainingJob, sft: Path, tmp_path: Path
) -> None:
    start = None if kind == "sft" else sft
    all_kept = replace(job, args={**job.args, "save_total_limit": None})
    whole = trained(all_kept, kind, tmp_path / "whole", start)
    for step in (3, 6):
        run = tmp_path / f"cut-{step}"
        checkpoint = tmp_path / "whole" / "checkpoints" / f"checkpoint-{step}"
        shutil.copytree(checkpoint, run / "checkpoints" / checkpoint.name)
        assert trained(all_kept, kind, run, start) == whole
        lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
        steps = [line["step"] for line in map(json.loads, lines) if "step" in line]
        assert steps == list(range(step + 1, STEPS + 1))  # not one step is done twice


def test_a_checkpoint_that_was_cut_off_is_removed_and_not_gone_on_with(tmp_path: Path) -> None:
    whole, cut = (tmp_path / "checkpoints" / f"checkpoint-{step}" for step in (9, 10))
    for folder in (whole, cut):
        folder.mkdir(parents=True)
        (folder / WEIGHTS).touch()
    (whole / "complete").touch()
    said: list[str] = []
    assert last_checkpoint(tmp_path, said.append) == str(whole)
    assert not cut.exists()
    assert said == [
        "removed checkpoint-10, which was cut off",
        "resumes after step 9, from checkpoint-9",
    ]


def test_a_killed_worker_leaves_nothing_registered_and_is_gone_on_with(
    job: TrainingJob, sft: Path, tmp_path: Path
) -> None:
    # So many steps that it is killed long before the last one.
    job = replace(job, args={**job.args, "max_steps": 400})
    adapters = AdapterRegistry(tmp_path / "adapters")
    start = adapters.add(sft)
    rows = training_rows("dpo", collected(10))
    undisturbed = trained(job, "dpo", tmp_path / "whole", sft)

    runs = tmp_path / "adapters" / ".runs"
    lines: list[dict[str, Any]] = []

    def kill(line: dict[str, Any]) -> None:
        if line.get("step", 0) >= 45:  # a checkpoint is due at every tenth of the run
            for child in psutil.Process().children():
                child.kill()

    with pytest.raises(TrainingError, match=r"nothing was registered.*killed by SIGKILL") as told:
        train_dpo(rows, job, adapters, start=start, progress=kill)
    assert adapters.names() == [start]
    (run,) = runs.iterdir()
    assert str(run) in str(told.value)
    assert (run / "worker.log").is_file()

    made = train_dpo(rows, job, adapters, start=start, progress=lines.append)
    assert any("resumes after step" in line.get("note", "") for line in lines)
    assert (adapters.path(made) / WEIGHTS).read_bytes() == undisturbed
    assert not list(runs.iterdir())


@pytest.mark.skipif(
    not os.environ.get("COWEST_LITTLE_MEMORY"),
    reason="it fills some GiB and takes a minute: COWEST_LITTLE_MEMORY=1",
)
def test_want_of_memory_is_answered_with_smaller_micro_batches(
    job: TrainingJob, tmp_path: Path
) -> None:
    code = (
        "import json, resource, sys\n"
        "limit = int(sys.argv[4]) << 30; resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "from trainer import *; from cowest_graph.adapters import AdapterRegistry\n"
        "job = TrainingJob.from_json(sys.argv[1]); rows = json.load(open(sys.argv[2]))\n"
        "adapters = AdapterRegistry(sys.argv[3])\n"
        "name = train_sft(rows, job, adapters, progress=lambda line: print(line.get('note')))\n"
        "print(adapters.card(name)['hyperparameters']['args'])\n"
    )
    long = [{"role": "assistant", "content": "Answer: clean part 1. " * 50}]
    rows = [{**row, "completion": long} for row in demonstrated(10)] * 26
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    args = {**job.args, "max_steps": 1, "per_device_train_batch_size": 256}
    greedy = replace(job, args=args, fast_paths=False).to_json()
    given = [greedy, tmp_path / "rows.json", tmp_path / "home", LITTLE]
    ran = subprocess.run(
        [sys.executable, "-c", code, *given],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MALLOC_TOP_PAD_": "131072"},
    )
    assert ran.returncode == 0, ran.stderr
    said = "the memory did not suffice; again with micro-batches of 128, accumulated 2 times"
    assert said in ran.stdout
