"""Every objective starts where its paper says, from and against the SFT adapter.

On a model of two random layers; DPO on the real SmolLM2 is in test_training.py.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cowest_graph.traces import Trace
from trainer import TrainingJob, demonstrations, training_rows
from trainer.objectives import OBJECTIVES
from trainer.tuning import Run
from trainer.tuning.watch import RunLog

pytestmark = pytest.mark.timeout(240)

LN2 = math.log(2)
NOISE = 0.1
LORA: dict[str, Any] = {"r": 4, "target_modules": ["q_proj", "v_proj", "down_proj"]}
GAPS = (4.0, 6.0, 2.0, 8.0, 4.0)  # of the chosen draft's score over the rejected one's

# What the papers' formulas give at margin 0, beta 0.1; by hand, not by the code under test.
ANALYTIC = {
    "dpo": LN2,
    "ipo": 25.0,  # (0 - 1 / (2 · 0.1))²
    "cdpo": LN2,  # (1 - ε) ln 2 + ε ln 2
    "robust": LN2,  # ((1 - ε) ln 2 - ε ln 2) / (1 - 2ε)
    "kto": 0.5,  # 1 - σ(0), both sides weighing the same
}


def traces() -> list[Trace]:
    return [
        Trace(
            query=f"What does fault code VEX-{i} mean?",
            solo_score=2,
            num_drafts=2,
            attempts=[
                {"index": 0, "draft": f"It is fault {i}: clean it.", "score": 2 + gap},
                {"index": 1, "draft": "I cannot tell, ask somebody else.", "score": 2},
            ],
        )
        for i, gap in enumerate(GAPS)
    ]


@pytest.fixture(scope="module")
def job(tiny_model: Path) -> TrainingJob:
    # The loader's workers would not matter here; two steps of two pairs do.
    args = {"max_steps": 2, "per_device_train_batch_size": 2, "learning_rate": 1e-3}
    return TrainingJob(
        str(tiny_model), preset="tiny", label_noise=NOISE, lora=LORA, args=args, precision="fp32"
    )


@pytest.fixture(scope="module")
def sft(job: TrainingJob, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from trainer import backends, sft

    folder = tmp_path_factory.mktemp("sft")
    rows = demonstrations(
        {"query": f"What does fault code VEX-{i} mean?", "reference": f"fault {i}, clean it"}
        for i in range(6)
    )
    args = {**job.args, "learning_rate": 1e-1, "max_steps": 4}
    log = RunLog(folder / "log.jsonl")
    sft.train(Run(replace(job, args=args), backends.machine(job), folder, log), rows)
    return folder / "output"


def tuned(job: TrainingJob, sft: Path, folder: Path) -> dict[str, Any]:
    from trainer import backends, dpo, kto

    folder.mkdir(exist_ok=True)
    recipe = kto if job.recipe == "kto" else dpo
    rows = training_rows(job.objective, traces())
    log = RunLog(folder / "log.jsonl")
    _, result = recipe.train(Run(job, backends.machine(job), folder, log), rows, sft)
    return result["metrics"]


def steps(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if "step" in line]


WAYS = [(True, "fp32"), (False, "bf16"), (True, "bf16")]
CASES = [
    *((objective, False, "fp32") for objective in OBJECTIVES if objective != "sft_best"),
    *((objective, *way) for objective in ("dpo", "ipo", "weighted", "kto") for way in WAYS[::2]),
]
REST = [
    (objective, *way)
    for objective in OBJECTIVES
    for way in WAYS
    if objective != "sft_best" and (objective, *way) not in CASES
]
rest = pytest.mark.skipif(
    not os.environ.get("COWEST_ALL_OBJECTIVES"),
    reason="the other combinations take half a minute more: COWEST_ALL_OBJECTIVES=1",
)


@pytest.mark.parametrize(
    ("objective", "stored", "precision"),
    [*CASES, *(pytest.param(*case, marks=rest) for case in REST)],
)
def test_step_0_is_where_the_paper_says_from_and_against_the_sft_adapter(
    objective: str, stored: bool, precision: str, job: TrainingJob, sft: Path, tmp_path: Path
) -> None:
    near = {"fp32": 1e-4, "bf16": 1e-2}[precision]
    args = {**job.args, "precompute_ref_log_probs": stored}
    this = replace(job, objective=objective, precision=precision, args=args)
    found = tuned(this, sft, tmp_path)
    expected = ANALYTIC.get(objective) or found["step0_analytic"]
    assert found["step0_loss"] == pytest.approx(expected, rel=near, abs=near)
    assert found["step0_margin"] < near
    assert found["policy_logp"] == pytest.approx(found["sft_logp"], rel=near)
    assert found["reference_logp"] == pytest.approx(found["sft_logp"], rel=near)
    assert abs(found["base_logp"] - found["sft_logp"]) > 1
    first = steps(tmp_path)[0]  # and so says the trainer's own log of its first step
    assert first["rewards/margins"] == pytest.approx(0, abs=near)
    if objective in ANALYTIC:
        assert first["loss"] == pytest.approx(expected, rel=near, abs=near)
    assert (tmp_path / "output" / "adapter_model.safetensors").is_file()
