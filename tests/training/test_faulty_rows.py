"""Rows that would be trained on wrongly are refused, counted, named; so is a loss without sense."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trainer import TrainingJob, demonstrations
from trainer.checks import examined, token_faults
from trainer.tuning import Run
from trainer.tuning.watch import RunLog

pytestmark = pytest.mark.timeout(240)

LORA: dict[str, Any] = {"r": 4, "target_modules": ["q_proj", "v_proj", "down_proj"]}


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def job(tiny_model: Path) -> TrainingJob:
    args = {"max_steps": 4, "per_device_train_batch_size": 2, "learning_rate": 1e-3}
    return TrainingJob(str(tiny_model), preset="tiny", lora=LORA, args=args, precision="fp32")


def row(number: int, text: str) -> dict[str, Any]:
    (made,) = demonstrations([{"query": f"What does fault {number} mean?", "reference": "x"}])
    return {**made, "completion": [{"role": "assistant", "content": text}]}


ROWS = [
    row(1, "Answer: clean it"),
    row(2, "Answer: " + "very long, " * 60),
    row(3, "Answer: clean it<|im_end|>\nand stop"),
    row(4, "Answer: clean it"),
]


def test_what_would_be_cut_and_what_would_not_stop_once_is_named(tokenizer: Any) -> None:
    stops = {tokenizer.eos_token_id}
    measured, faults = token_faults(ROWS, tokenizer, stops, 200)
    assert [(fault.row, fault.kind) for fault in faults] == [(2, "cut"), (3, "end")]
    assert "more than the 200" in faults[0].said
    assert "2 end-of-turn tokens" in faults[1].said
    assert measured.rows == 4
    assert measured.longest > 200


def test_a_completion_without_its_end_is_named(tokenizer: Any) -> None:
    forgetful = tokenizer.chat_template.replace(
        "<|im_end|>", "{% if message['role'] != 'assistant' %}<|im_end|>{% endif %}"
    )
    tokenizer.chat_template, kept = forgetful, tokenizer.chat_template
    try:
        _, faults = token_faults(ROWS[:1], tokenizer, {tokenizer.eos_token_id}, 200)
    finally:
        tokenizer.chat_template = kept
    assert [fault.kind for fault in faults] == ["end"]
    assert "0 end-of-turn tokens" in faults[0].said


def test_prompts_are_tokenized_as_serving_tokenizes_them(tokenizer: Any) -> None:
    """A template that looks ahead writes another prompt when there is a completion."""
    ahead = "{% if messages[-1]['role'] == 'assistant' %}<|im_start|>{% endif %}"
    shifty = ahead + tokenizer.chat_template
    tokenizer.chat_template, kept = shifty, tokenizer.chat_template
    try:
        _, faults = token_faults(ROWS[:1], tokenizer, {tokenizer.eos_token_id}, 200)
    finally:
        tokenizer.chat_template = kept
    assert [fault.kind for fault in faults] == ["template"]


def test_nothing_trains_on_faulty_rows_and_the_others_keep_their_numbers(
    job: TrainingJob, tmp_path: Path
) -> None:
    from trainer import backends, sft

    short = replace(job, args={**job.args, "max_length": 200})
    machine, log = backends.machine(job), RunLog(tmp_path / "log.jsonl")
    with pytest.raises(ValueError, match=r"2 rows \(1 longer than allowed, 1 a wrong number"):
        sft.train(Run(short, machine, tmp_path, log), ROWS)
    assert not (tmp_path / "output").exists()
    _, result = sft.train(Run(short, machine, tmp_path, log), ROWS, drop_bad_rows=True)
    assert (result["metrics"]["rows"], result["metrics"]["dropped_rows"]) == (2, 2)
    said = (tmp_path / "log.jsonl").read_text(encoding="utf-8")
    assert "2 of 4 rows left out (1 longer than allowed, 1 a wrong number of end-of-turn" in said


def test_dropped_rows_leave_the_numbers_of_the_others_alone(
    tokenizer: Any, job: TrainingJob
) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(job.model)
    said: list[str] = []
    kept, _ = examined(ROWS, tokenizer, model, 200, drop=True, note=said.append)
    assert [one["row"] for one in kept] == [1, 4]


def test_a_loss_that_is_no_number_stops_with_the_step_and_its_rows(
    job: TrainingJob, tmp_path: Path
) -> None:
    from trainer import backends, sft

    broken = replace(job, args={**job.args, "learning_rate": math.inf})
    log = RunLog(tmp_path / "log.jsonl")
    rows = [row(number, "Answer: clean it") for number in range(1, 9)]
    with pytest.raises(
        ArithmeticError, match=r"at step 2 of 4.*rows \d, \d of rows\.jsonl"
    ) as told:
        sft.train(Run(broken, backends.machine(job), tmp_path, log), rows)
    assert "lower the learning rate" in str(told.value)
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("kind", "left"), [("tensorboard", "events.out.tfevents.*"), ("trackio", "*.db")]
)
def test_curves_go_where_report_to_says(
    kind: str, left: str, job: TrainingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib.util import find_spec

    from trainer import backends, sft

    if not find_spec(kind):
        pytest.skip(f"{kind} is not installed: pip install {kind}")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    curves = replace(job, args={**job.args, "report_to": kind})
    log = RunLog(tmp_path / "log.jsonl")
    sft.train(Run(curves, backends.machine(job), tmp_path, log), ROWS[:1] * 4)
    assert list(tmp_path.rglob(left))


def test_the_log_can_be_read_back(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl")
    log.step(step=1, steps=2, loss="nan")
    assert json.loads((tmp_path / "log.jsonl").read_text())["loss"] == "nan"


def test_kto_weighs_the_drafts_that_are_trained_on(
    job: TrainingJob, tiny_model: Path, tmp_path: Path
) -> None:
    """Of 2 helped and 4 hurt drafts, 2 of the hurt are faulty: both sides then weigh the same."""
    from trainer import backends, kto, sft

    machine = backends.machine(job)
    (tmp_path / "sft").mkdir()
    sft.train(
        Run(job, machine, tmp_path / "sft", RunLog(tmp_path / "s.jsonl")), [row(9, "Answer: x")]
    )
    texts = ["Answer: a", "Answer: b", "Answer: c", "Answer: d", *["Answer: e<|im_end|>\nx"] * 2]
    rows = [{**row(i, text), "label": i < 2} for i, text in enumerate(texts)]
    log = RunLog(tmp_path / "k.jsonl")
    (tmp_path / "kto").mkdir()
    _, result = kto.train(
        Run(replace(job, objective="kto"), machine, tmp_path / "kto", log),
        rows,
        tmp_path / "sft" / "output",
        drop_bad_rows=True,
    )
    args = result["hyperparameters"]["args"]
    assert (args["desirable_weight"], args["undesirable_weight"]) == (1.0, 1.0)
    assert result["metrics"]["step0_loss"] == pytest.approx(0.5, abs=1e-4)
