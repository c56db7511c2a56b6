"""What preference training starts from is told apart in every precision, at any length.

On a model of two random layers; the same check on the real SmolLM2 is in test_training.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(240)

LN2 = math.log(2)
PRECISIONS = ("fp32", "bf16", "fp16")
LENGTHS = (10, 800)  # tokens of a completion


def lora_model(base: Path, dtype: str, seed: int) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype))
    torch.manual_seed(seed)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"])
    return get_peft_model(model, config)


@pytest.fixture(scope="module")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The SFT adapter, another one, and the first with 0.9 of its weights."""
    import torch

    folder = tmp_path_factory.mktemp("adapters")
    for name, seed, scale in (("sft", 1, 1.0), ("foreign", 2, 1.0), ("scaled", 1, 0.9)):
        model = lora_model(tiny_model, "float32", seed)
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.05)
                parameter.data.mul_(scale)
        model.save_pretrained(folder / name)
    return {name: folder / name for name in ("sft", "foreign", "scaled")}


Make = Callable[..., Any]


@pytest.fixture(
    params=[(p, n) for p in PRECISIONS for n in LENGTHS], ids=lambda of: f"{of[0]}-{of[1]}"
)
def make(
    request: pytest.FixtureRequest, tiny_model: Path, adapters: dict[str, Path], tmp_path: Path
) -> Make:
    """Makes a DPO trainer in a precision, over texts of unequal lengths; which adapter it starts
    from is the caller's to say, None for a new one on the bare base."""
    precision, length = request.param
    dtype = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[precision]

    def trainer(start: str | None = "sft", reference: str | None = None, **args: Any) -> Any:
        import torch
        from datasets import Dataset
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from trl import DPOConfig, DPOTrainer

        from trainer.tuning.steps import watched

        model = lora_model(tiny_model, dtype, 3)
        bare = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=getattr(torch, dtype))
        if start is not None:
            model = PeftModel.from_pretrained(bare, adapters[start], is_trainable=True)
        other = None
        if reference == "base":
            other = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=getattr(torch, dtype))
        config = DPOConfig(
            str(tmp_path),
            use_cpu=True,
            bf16=precision == "bf16",
            fp16=False,  # a CPU has no mixed precision of this kind: its weights are in it
            max_length=None,
            gradient_checkpointing=False,
            dataloader_pin_memory=False,
            per_device_train_batch_size=2,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            **args,
        )
        made = watched(DPOTrainer)(
            model=model,
            ref_model=other,
            args=config,
            train_dataset=Dataset.from_list(pairs(length)),
            processing_class=AutoTokenizer.from_pretrained(tiny_model),
        )
        if reference in adapters:
            copy = dict(made.model.named_parameters())
            there = lora_state(adapters[reference])
            for name, tensor in there.items():
                copy[name.replace(".weight", ".ref.weight")].data.copy_(tensor)
        return made

    return trainer


def lora_state(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "adapter_model.safetensors"))


def pairs(tokens: int) -> list[dict[str, str]]:
    """Rows whose completions have about so many tokens, each another number of them."""
    return [
        {
            "prompt": f"What does fault code VEX-{i} mean? " * (i + 1),
            "chosen": "".join(chr(97 + (i + k * k) % 26) for k in range(tokens - 3 * i)),
            "rejected": "".join(chr(65 + (i + k * 7) % 26) for k in range(tokens - i)),
        }
        for i in range(3)
    ]


def refused(trainer: Any, start: Path) -> str:
    from trainer.tuning.start import check_start

    with pytest.raises(RuntimeError) as error:
        check_start(trainer, start, losses=None)
    return str(error.value).split(":")[0]


def test_a_right_start_has_no_margin_at_all(make: Make, adapters: dict[str, Path]) -> None:
    from trainer.tuning.start import check_start

    found = check_start(make(), adapters["sft"], losses=None)
    assert found["step0_margin"] == 0
    assert found["step0_loss"] == pytest.approx(LN2, abs=5e-4)  # fp16 has no nearer number
    assert found["policy_logp"] == found["reference_logp"] == found["sft_logp"]
    assert found["base_logp"] != found["sft_logp"]


@pytest.mark.parametrize("start", [None, "foreign", "scaled"])
def test_another_start_is_found(make: Make, adapters: dict[str, Path], start: str | None) -> None:
    trainer = make(start)
    assert refused(trainer, adapters["sft"]) == "training does not start from the SFT adapter"


@pytest.mark.parametrize("reference", ["base", "foreign", "scaled"])
def test_another_reference_is_found(make: Make, adapters: dict[str, Path], reference: str) -> None:
    trainer = make(reference=reference)
    assert refused(trainer, adapters["sft"]) == "the reference is not the SFT adapter"


def test_stored_references_pass_and_foreign_ones_are_found(
    make: Make, adapters: dict[str, Path], tmp_path: Path
) -> None:
    from trainer.fast.references import References, store_references
    from trainer.tuning.start import check_start

    right = make()
    batch = store_references(right, References(tmp_path / "right.json"))
    found = check_start(right, adapters["sft"], losses=None, stored=batch)
    assert found["step0_loss"] == pytest.approx(LN2, abs=5e-4)
    assert found["stored_margin"] < 1

    wrong, scaled = make(), make("scaled")
    store_references(scaled, References(tmp_path / "scaled.json"))
    wrong.train_dataset = scaled.train_dataset
    wrong.precompute_ref_logps = True
    with pytest.raises(RuntimeError, match="stored reference log-probabilities are not"):
        check_start(wrong, adapters["sft"], losses=None, stored=batch)


def test_what_trl_precomputes_passes(make: Make, adapters: dict[str, Path]) -> None:
    from trainer.tuning.start import check_start

    found = check_start(make(precompute_ref_log_probs=True), adapters["sft"], losses=None)
    assert found["step0_margin"] == 0
