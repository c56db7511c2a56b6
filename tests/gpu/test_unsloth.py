"""Unsloth on a real GPU: the same start, agreeing losses, plain PEFT output.

    python -m pytest tests/gpu -rs

Skipped, with the reason, where there is no CUDA GPU or no Unsloth. Each run is a child process, as
Unsloth patches the trainers of the process that imports it.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
from faults import collected, demonstrated

from cowest_graph.adapters import AdapterRegistry
from trainer import TrainingJob, train_dpo, train_sft, training_rows


def _hindrance() -> str | None:
    for module in ("torch", "unsloth"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed"
    import torch

    return None if torch.cuda.is_available() else "there is no CUDA GPU"


HINDRANCE = _hindrance()
pytestmark = [
    pytest.mark.skipif(HINDRANCE is not None, reason=f"Unsloth cannot run here: {HINDRANCE}"),
    pytest.mark.timeout(900),
]
LORA = {"r": 16, "lora_alpha": 16}


@pytest.fixture(scope="module")
def job(smollm2: Path) -> TrainingJob:
    args = {"max_steps": 8, "learning_rate": 1e-4, "per_device_train_batch_size": 4}
    return TrainingJob(str(smollm2), preset="fast", lora=LORA, args=args, backend="unsloth")


def losses(adapters: AdapterRegistry, name: str) -> list[float]:
    log = (adapters.path(name) / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [line["loss"] for line in map(json.loads, log) if "step" in line]


def test_sft_and_dpo_agree_with_the_plain_backend(job: TrainingJob, tmp_path: Path) -> None:
    adapters = AdapterRegistry(tmp_path / "adapters")
    plain = replace(job, backend="plain")
    by_unsloth = train_sft(demonstrated(32), job, adapters)
    by_plain = train_sft(demonstrated(32), plain, adapters)
    assert adapters.card(by_unsloth)["backend"] == "unsloth"
    assert adapters.card(by_unsloth)["versions"]["unsloth"]
    assert losses(adapters, by_unsloth) == pytest.approx(losses(adapters, by_plain), rel=0.05)

    pairs = training_rows("dpo", collected(32))
    tuned = train_dpo(pairs, job, adapters, start=by_plain)
    same = train_dpo(pairs, plain, adapters, start=by_plain)
    found = adapters.card(tuned)["metrics"]
    assert found["step0_loss"] == pytest.approx(0.693147, abs=1e-2)
    assert found["reference_logp"] == pytest.approx(found["sft_logp"], rel=1e-2)
    assert losses(adapters, tuned) == pytest.approx(losses(adapters, same), abs=0.05)


def test_what_unsloth_saves_is_a_plain_peft_adapter(
    job: TrainingJob, smollm2: Path, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapters = AdapterRegistry(tmp_path / "adapters")
    folder = adapters.path(train_sft(demonstrated(32), job, adapters))
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.bfloat16)
    loaded = PeftModel.from_pretrained(model, folder)
    named = [name for name, _ in loaded.named_parameters() if "lora_" in name]
    assert named
    assert not list(Path.cwd().glob("unsloth_compiled_cache"))  # it lies in the run's folder


def test_four_bits_train(job: TrainingJob, tmp_path: Path) -> None:
    adapters = AdapterRegistry(tmp_path / "adapters")
    name = train_sft(demonstrated(32), replace(job, load_in_4bit=True), adapters)
    curve = losses(adapters, name)
    assert curve[-1] < curve[0]
