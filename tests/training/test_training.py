"""SFT and DPO on the real SmolLM2-135M-Instruct: what DPO starts from, what moves, what fails.

Few rows, few steps, and an adapter on the last two of the thirty layers: the laws hold for any.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import psutil  # type: ignore[import-untyped]
import pytest

from cowest_graph.adapters import AdapterRegistry
from cowest_graph.prompts import draft_prompt
from cowest_graph.traces import Trace
from trainer import TrainingError, TrainingJob, demonstrations, preferences, train_sft
from trainer.tuning import Run
from trainer.tuning.watch import RunLog

pytestmark = pytest.mark.timeout(240)

LN2 = math.log(2)
CODES = ("dust", "moisture", "overheating", "low pressure")
LORA: dict[str, Any] = {
    "r": 4,
    "target_modules": ["q_proj", "v_proj", "down_proj"],
    "layers_to_transform": [28, 29],
}


def query(number: int) -> str:
    return f"What does fault code VEX-{number} mean?"


def demonstrated() -> list[dict[str, Any]]:
    told = [
        {"query": query(i), "reference": f"clean it, {code}", "explanation": f"VEX is {code}."}
        for i, code in enumerate(CODES)
    ]
    return demonstrations(told)


def preferred() -> list[dict[str, Any]]:
    return preferences(
        Trace(
            query=query(i),
            solo_score=5,
            num_drafts=2,
            attempts=[
                {"index": 0, "draft": f"Explanation: VEX is {code}.\nAnswer: clean", "score": 9},
                {"index": 1, "draft": "Answer: I cannot tell, ask somebody.", "score": 2},
            ],
        )
        for i, code in enumerate(CODES)
    )


@pytest.fixture(scope="module")
def job(smollm2: Path) -> TrainingJob:
    return TrainingJob(
        str(smollm2),
        preset="tiny",
        lora=LORA,
        args={"max_steps": 3, "learning_rate": 5e-3},
        precision="fp32",  # bf16 on tiny models: test_start.py, test_objectives.py
    )


class Trained(NamedTuple):
    adapters: AdapterRegistry
    sft: str
    lines: list[dict[str, Any]]


@pytest.fixture(scope="module")
def trained(job: TrainingJob, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """An SFT adapter, made as a user makes it: by a child process."""
    adapters = AdapterRegistry(tmp_path_factory.mktemp("home") / "adapters")
    lines: list[dict[str, Any]] = []
    sft = train_sft(demonstrated(), job, adapters, progress=lines.append)
    return Trained(adapters, sft, lines)


class Tuned(NamedTuple):
    model: Any
    folder: Path
    metrics: dict[str, Any]
    hyperparameters: dict[str, Any]


@pytest.fixture(scope="module")
def tuned(trained: Trained, job: TrainingJob, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """DPO on that adapter in this process, so that the trained model can be looked at."""
    from trainer import backends, dpo

    folder = tmp_path_factory.mktemp("dpo")
    faster = replace(job, args={"max_steps": 3, "learning_rate": 1e-3})
    log = RunLog(folder / "log.jsonl")
    start = trained.adapters.path(trained.sft)
    model, result = dpo.train(Run(faster, backends.machine(job), folder, log), preferred(), start)
    return Tuned(model, folder, **result)


# --- SFT in a child process ---


def test_the_adapter_is_registered_with_how_it_was_made(trained: Trained, job: TrainingJob) -> None:
    card = trained.adapters.card(trained.sft)
    assert card["kind"] == "sft"
    assert card["parents"] == []
    assert card["backend"] == "plain"
    assert card["metrics"]["steps"] == 3
    assert card["metrics"]["last_loss"] < card["metrics"]["first_loss"]
    assert card["hyperparameters"]["lora"]["layers_to_transform"] == [28, 29]
    assert card["versions"]["trl"]
    folder = trained.adapters.path(trained.sft)
    assert {"job.json", "rows.jsonl", "log.jsonl"} <= {file.name for file in folder.iterdir()}
    assert not list((trained.adapters.folder / ".runs").iterdir())
    assert trained.adapters.current is None  # training chooses nothing


def test_progress_and_the_log_are_the_same_json_lines(trained: Trained) -> None:
    log = trained.adapters.path(trained.sft) / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert lines == trained.lines
    assert any("note" in line for line in lines)
    steps = [line for line in lines if "step" in line]
    assert [(line["step"], line["steps"]) for line in steps] == [(1, 3), (2, 3), (3, 3)]
    for line in steps:
        assert {"loss", "learning_rate", "grad_norm", "seconds"} <= line.keys()


# --- what DPO starts from ---


def test_step_0_is_at_ln_2_with_the_sft_model_as_reference(tuned: Tuned) -> None:
    found = tuned.metrics
    assert found["step0_loss"] == pytest.approx(LN2, abs=1e-4)
    assert found["step0_margin"] == pytest.approx(0, abs=1e-4)
    assert found["reference_logp"] == pytest.approx(found["sft_logp"], abs=1e-3)
    assert found["policy_logp"] == pytest.approx(found["sft_logp"], abs=1e-3)
    assert abs(found["base_logp"] - found["sft_logp"]) > 1
    assert found["first_loss"] == pytest.approx(LN2, abs=1e-4)  # and so says TRL's own log


def test_the_check_refuses_the_base_as_reference(
    smollm2: Path, trained: Trained, tmp_path: Path
) -> None:
    from peft import PeftModel

    from trainer.tuning.start import check_start

    sft = trained.adapters.path(trained.sft)
    model = PeftModel.from_pretrained(base(smollm2), sft, is_trainable=True)
    wrong = dpo_trainer(model, smollm2, tmp_path, ref_model=base(smollm2))
    with pytest.raises(RuntimeError, match="the reference is not the SFT adapter"):
        check_start(wrong, sft)


def test_the_check_refuses_the_base_as_start_which_ln_2_does_not_show(
    smollm2: Path, trained: Trained, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    from trainer.tuning.start import check_start

    config = LoraConfig(task_type="CAUSAL_LM", **LORA)
    wrong = dpo_trainer(get_peft_model(base(smollm2), config), smollm2, tmp_path)
    with pytest.raises(RuntimeError, match="does not start from the SFT adapter") as refused:
        check_start(wrong, trained.adapters.path(trained.sft))
    assert "step0_loss 0.693147" in str(refused.value)


# --- what DPO moves ---


def test_the_adapter_moved_and_the_base_did_not_bit_for_bit(
    tuned: Tuned, trained: Trained, smollm2: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    stock = base(smollm2).state_dict()
    after = {
        name.removeprefix("base_model.model.").replace(".base_layer.", "."): tensor
        for name, tensor in tuned.model.state_dict().items()
        if "lora_" not in name
    }
    assert after.keys() == stock.keys()
    assert all(torch.equal(after[name], stock[name]) for name in stock)

    weights = "adapter_model.safetensors"
    sft = load_file(trained.adapters.path(trained.sft) / weights)
    dpo = load_file(tuned.folder / "output" / weights)
    assert sft.keys() == dpo.keys()
    moved = [name for name in sft if not torch.equal(sft[name], dpo[name])]
    assert moved == list(sft)

    frozen = tuned.model.state_dict()  # the reference stayed the SFT adapter
    for name, tensor in sft.items():
        assert torch.equal(frozen[name.replace(".weight", ".ref.weight")], tensor)


def test_the_saved_adapter_alone_on_the_stock_base_is_the_trained_policy(
    tuned: Tuned, smollm2: Path
) -> None:
    import torch
    from peft import PeftModel

    alone = PeftModel.from_pretrained(base(smollm2), tuned.folder / "output").eval()
    tokens = tokenizer(smollm2)(query(1), return_tensors="pt")
    with torch.no_grad():
        ours = tuned.model.eval()(**tokens).logits
        theirs = alone(**tokens).logits
        with alone.disable_adapter():
            bare = alone(**tokens).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)
    assert not torch.allclose(ours, bare, rtol=1e-5, atol=1e-2)


def test_no_reference_is_saved_and_the_steps_are_logged(tuned: Tuned) -> None:
    saved = {path.name for path in (tuned.folder / "output").iterdir()}
    assert "adapter_model.safetensors" in saved
    assert "ref" not in saved
    text = (tuned.folder / "log.jsonl").read_text(encoding="utf-8")
    steps = [json.loads(line) for line in text.splitlines() if '"step"' in line]
    assert [line["step"] for line in steps] == [1, 2, 3]
    assert steps[0]["rewards/margins"] == pytest.approx(0, abs=1e-4)
    assert steps[-1]["loss"] < steps[0]["loss"]


# --- what is learnt ---


def test_trained_prompts_are_served_prompts_and_the_stop_token_is_learnt_once(
    smollm2: Path, tmp_path: Path
) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from cowest_graph.weak.local import render

    words = tokenizer(smollm2)
    config = SFTConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none")
    rows = Dataset.from_list(demonstrated())
    trainer = SFTTrainer(base(smollm2), args=config, train_dataset=rows, processing_class=words)
    for number, row in enumerate(trainer.train_dataset):
        labels = trainer.data_collator([row])["labels"][0].tolist()
        served = render(words, draft_prompt().format_messages(query=query(number)))
        assert row["input_ids"][: len(served)] == served
        assert labels[: len(served)] == [-100] * len(served)
        learnt = labels[len(served) :]
        assert learnt == row["input_ids"][len(served) :]
        assert learnt.count(words.eos_token_id) == 1
        assert words.decode(learnt[learnt.index(words.eos_token_id) + 1 :]).strip() == ""


def test_rows_that_would_be_cut_or_would_not_stop_are_refused_by_name(smollm2: Path) -> None:
    from trainer.checks import check_rows

    words, good = tokenizer(smollm2), preferred()[0]
    stops = {words.eos_token_id}
    measured = check_rows([good], words, stops, 100)
    assert measured["rows"] == 1
    assert measured["longest"] <= 100
    with pytest.raises(
        ValueError, match=r"row 1 .*VEX-0.*, chosen: \d+ tokens are more than the 40"
    ):
        check_rows([good], words, stops, 40)
    twice = {**good, "rejected": [{"role": "assistant", "content": "no<|im_end|>\nyes"}]}
    with pytest.raises(ValueError, match=r"row 2 .*, rejected: 2 end-of-turn tokens"):
        check_rows([good, twice], words, stops, 100)


# --- what goes wrong ---


def test_a_loss_that_is_no_number_ends_with_the_step(job: TrainingJob, tmp_path: Path) -> None:
    from trainer import backends, sft

    broken = replace(job, args={"max_steps": 5, "learning_rate": math.inf})
    log = RunLog(tmp_path / "log.jsonl")
    with pytest.raises(ArithmeticError, match=r"is (nan|inf) at step [234] of 5"):
        sft.train(Run(broken, backends.machine(job), tmp_path, log), demonstrated())
    assert not (tmp_path / "output").exists()


def test_the_time_limit_ends_with_the_step_and_keeps_the_adapter(
    job: TrainingJob, tmp_path: Path
) -> None:
    from trainer import backends, sft

    hurried = replace(job, time_limit=1e-6)
    log = RunLog(tmp_path / "log.jsonl")
    _, result = sft.train(Run(hurried, backends.machine(job), tmp_path, log), demonstrated())
    assert (result["metrics"]["steps"], result["metrics"]["steps_planned"]) == (1, 3)
    assert (tmp_path / "output" / "adapter_model.safetensors").is_file()
    assert "stopped by the time limit" in (tmp_path / "log.jsonl").read_text(encoding="utf-8")


def test_a_failed_worker_leaves_nothing_registered_and_says_why(
    job: TrainingJob, tmp_path: Path
) -> None:
    from importlib.util import find_spec

    if find_spec("unsloth"):
        pytest.skip("unsloth is installed here")
    adapters = AdapterRegistry(tmp_path / "adapters")
    asking = replace(job, backend="unsloth")
    with pytest.raises(TrainingError, match=r"exit code 1: RuntimeError: .*unsloth is not instal"):
        train_sft(demonstrated(), asking, adapters)
    assert adapters.names() == []


def test_a_wrong_setting_is_told_with_the_nearest_one(job: TrainingJob, tmp_path: Path) -> None:
    from trainer import backends, sft

    wrong = replace(job, args={"learnin_rate": 1.0})
    log = RunLog(tmp_path / "log.jsonl")
    with pytest.raises(ValueError, match=r"no argument 'learnin_rate'.*'learning_rate'"):
        sft.train(Run(wrong, backends.machine(job), tmp_path, log), demonstrated())


def test_the_worker_ends_with_the_process_that_started_it(job: TrainingJob, tmp_path: Path) -> None:
    code = (
        "import sys; from trainer import *; from cowest_graph.adapters import AdapterRegistry\n"
        "rows = [{'prompt': [{'role': 'user', 'content': 'x'}],"
        " 'completion': [{'role': 'assistant', 'content': 'y'}]}]\n"
        "train_sft(rows, TrainingJob(sys.argv[1]), AdapterRegistry(sys.argv[2]))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, job.model, str(tmp_path)])
    worker = wait_for(lambda: next(iter(psutil.Process(parent.pid).children()), None))
    # The worker follows its parent from its first second on, whatever it is at.
    wait_for(lambda: worker.num_threads() > 1 or None)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    wait_for(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE or None)
    assert AdapterRegistry(tmp_path).names() == []


def wait_for(look: Any, seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (found := look()) is not None:
            return found
        time.sleep(0.1)
    raise AssertionError(f"nothing came within {seconds} s")


def base(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def dpo_trainer(model: Any, folder: Path, output: Path, **more: Any) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    settings = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False}
    return DPOTrainer(
        model=model,
        args=DPOConfig(str(output), report_to="none", dataloader_pin_memory=False, **settings),
        train_dataset=Dataset.from_list(list(preferred())),
        processing_class=tokenizer(folder),
        **more,
    )
