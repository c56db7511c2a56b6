"""A dry run says what the run then does, and starts nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cowest_graph.adapters import AdapterRegistry
from trainer import TrainingJob, demonstrations
from trainer.plan import plan_training
from trainer.rows import Rows
from trainer.tuning import Run
from trainer.watch import RunLog

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def job(tiny_model: Path) -> TrainingJob:
    args = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 3,
    }
    return TrainingJob(str(tiny_model), preset="tiny", args=args, precision="fp32")


def shown(rows: int) -> Rows:
    return demonstrations(
        {"query": f"What does fault {i} mean?", "reference": f"clean part {i}"} for i in range(rows)
    )


def test_steps_and_tokens_are_those_of_the_run(job: TrainingJob, tmp_path: Path) -> None:
    from trainer import backends, sft

    plan = plan_training("sft", shown(7), job, AdapterRegistry(tmp_path / "adapters"))
    log = RunLog(tmp_path / "log.jsonl")
    _, result = sft.train(Run(job, backends.machine(job), tmp_path, log), shown(7))
    metrics = result["metrics"]
    assert plan.refused is None
    assert plan.steps == metrics["steps"] == metrics["steps_planned"]
    assert (plan.rows, plan.tokens) == (metrics["rows"], metrics["tokens"])
    assert plan.longest == metrics["longest"]
    assert plan.memory.total > 0
    assert plan.seconds is not None


def test_a_plan_starts_nothing_and_says_what_would_be_refused(
    job: TrainingJob, tmp_path: Path
) -> None:
    adapters = AdapterRegistry(tmp_path / "adapters")
    held = ["What does fault 3 mean?"]
    plan = plan_training("sft", shown(5), job, adapters, held_out=held)
    assert plan.refused is not None
    assert "row 4" in plan.refused
    assert "REFUSED: 1 row (1 held out)" in str(plan)
    dropped = plan_training("sft", shown(5), job, adapters, held_out=held, drop_bad_rows=True)
    assert (dropped.refused, dropped.rows) == (None, 4)
    nothing = plan_training("sft", shown(0), job, adapters)
    assert "there are no rows" in str(nothing.refused)
    assert not (tmp_path / "adapters").exists()


def test_what_the_machine_cannot_do_is_told_by_the_plan_too(
    job: TrainingJob, tmp_path: Path
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    four = replace(job, load_in_4bit=True)
    with pytest.raises(RuntimeError, match="asks for load_in_4bit, but"):
        plan_training("sft", shown(2), four, AdapterRegistry(tmp_path / "adapters"))
