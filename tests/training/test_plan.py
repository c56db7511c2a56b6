"""A dry run says what the run then does, and starts nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cowest_graph.adapters import AdapterRegistry
from trainer import TrainingJob, demonstrations
from trainer.cli import run
from trainer.plan import plan_training
from trainer.presets import Kind
from trainer.rows import Rows
from trainer.tuning import Run
from trainer.tuning.watch import RunLog

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
    assert plan.disk > 0


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


@pytest.mark.parametrize("kind", ["sft", "dpo", "kto"])
def test_the_plan_builds_the_arguments_of_the_run(
    kind: Kind, job: TrainingJob, tmp_path: Path
) -> None:
    from transformers.integrations import get_available_reporting_integrations
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    adapters = AdapterRegistry(tmp_path / "adapters")
    there = get_available_reporting_integrations()
    lacking = next(name for name in INTEGRATION_TO_CALLBACK if name not in there)
    for args, told in (
        ({"learnin_rate": 1.0}, "Config has no argument 'learnin_rate'.*'learning_rate'"),
        ({"logging_dir": "curves"}, "Config has no argument 'logging_dir'"),
        ({"save_strategy": "sometimes"}, "sometimes"),
        ({"warmup_steps": "few"}, "Config does not take these arguments: .*str"),
        ({"report_to": lacking}, f"report_to is '{lacking}', which does not work here .*install"),
        ({"report_to": ["nobody"]}, r"report_to is \['nobody'\].* not supported"),
    ):
        wrong = replace(job, args={**job.args, **args})
        with pytest.raises(ValueError, match=told):
            plan_training(kind, shown(3), wrong, adapters)
    shape = replace(job, lora={"rank": 4})
    with pytest.raises(ValueError, match="LoraConfig has no argument 'rank'"):
        plan_training("sft", shown(3), shape, adapters)


def test_the_dry_run_ends_with_an_error_s_code(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, settings = tmp_path / "rows.jsonl", tmp_path / "cowest.toml"
    rows.write_text(json.dumps({"query": "VEX?", "reference": "dust"}))
    for kind, args, code in (("sft", "max_steps = 1", 0), ("sft", 'logging_dir = "curves"', 1)):
        settings.write_text(
            f'[weak]\nmodel = "{tiny_model}"\n[adapters]\nfolder = "{tmp_path}/adapters"\n'
            f'[train]\npreset = "tiny"\nprecision = "fp32"\n[train.{kind}]\n{args}\n'
        )
        told = run(["train", kind, str(rows), "--dry-run", "--config", str(settings)])
        assert bool(told) == bool(code), capsys.readouterr()
    assert "SFTConfig has no argument 'logging_dir'" in capsys.readouterr().err


def test_what_the_machine_cannot_do_is_told_by_the_plan_too(
    job: TrainingJob, tmp_path: Path
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    four = replace(job, load_in_4bit=True)
    with pytest.raises(RuntimeError, match="asks for load_in_4bit, but"):
        plan_training("sft", shown(2), four, AdapterRegistry(tmp_path / "adapters"))
