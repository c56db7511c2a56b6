"""The fast paths give TRL's losses and TRL's gradients; what cannot be proven equal is not taken.

On a model of two random layers, and once on the real SmolLM2.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from trainer import demonstrations

pytestmark = pytest.mark.timeout(240)

CODES = ("dust", "moisture", "overheating", "low pressure")
LORA: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}
ON_CPU: dict[str, Any] = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "dataloader_pin_memory": False,
    "per_device_train_batch_size": 2,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
    "learning_rate": 1e-3,
}


def demonstrated() -> list[dict[str, Any]]:
    return demonstrations(
        {
            "query": f"What does fault code VEX-{i} mean?",
            "reference": f"clean it, {code}",
            "explanation": f"VEX-{i} is {code}.",
        }
        for i, code in enumerate(CODES)
    )


def preferred() -> list[dict[str, Any]]:
    """Pairs whose prompts share their instructions, one of them with two texts that begin alike."""
    asked = demonstrated()
    texts = ["I cannot tell, ask somebody else.", "Explanation: VEX-1 is mud.\nAnswer: wait"]
    return [
        {
            "prompt": row["prompt"],
            "chosen": row["completion"],
            "rejected": [{"role": "assistant", "content": texts[i % 2]}],
        }
        for i, row in enumerate(asked)
    ]


@pytest.fixture(scope="module")
def start(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that changes what the model says."""
    folder = tmp_path_factory.mktemp("home") / "v0001"
    adapted(tiny_model).save_pretrained(folder)
    return folder


def adapted(base: Path, **lora: Any) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(1)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **{**LORA, **lora}))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def dpo_trainer(base: Path, start: Path, folder: Path, **args: Any) -> Any:
    import torch
    from datasets import Dataset
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return DPOTrainer(
        model=PeftModel.from_pretrained(model, start, is_trainable=True),
        args=DPOConfig(str(folder), **{**ON_CPU, **args}),
        train_dataset=Dataset.from_list(preferred()),
        processing_class=AutoTokenizer.from_pretrained(base),
    )


def sft_trainer(model: Any, base: Path, folder: Path, **args: Any) -> Any:
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    return SFTTrainer(
        model=model,
        args=SFTConfig(str(folder), **{**ON_CPU, **args}),
        train_dataset=Dataset.from_list(list(demonstrated())),
        processing_class=AutoTokenizer.from_pretrained(base),
    )


def loss_and_gradients(trainer: Any, rows: Sequence[int] = (0, 1, 2, 3)) -> tuple[float, Any]:
    """Of the adapter, away from its start, so that the margins are not 0."""
    import torch

    for name, parameter in sorted(trainer.model.named_parameters()):
        if ".default." in name:
            torch.manual_seed(len(name))
            parameter.data.add_(torch.randn_like(parameter) * 0.05)
    trainer.model.train()
    trainer.model.zero_grad()
    batch = trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[i] for i in rows]))
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    named = trainer.model.named_parameters()
    return loss.item(), {name: p.grad for name, p in named if p.grad is not None}


def assert_alike(ours: tuple[float, Any], theirs: tuple[float, Any]) -> None:
    assert ours[0] == pytest.approx(theirs[0], abs=1e-4)
    assert ours[1].keys() == theirs[1].keys()
    largest = max(gradient.abs().max() for gradient in theirs[1].values())
    assert largest > 1e-4  # else nothing is compared
    for name, gradient in theirs[1].items():
        assert (ours[1][name] - gradient).abs().max() < 1e-4 * max(largest, 1), name


# --- the same losses and gradients ---


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"loss_type": ["ipo"], "gradient_checkpointing": True},
        {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5], "ld_alpha": 0.5},
    ],
    ids=["sigmoid", "ipo, checkpointed", "mixed"],
)
def test_dpo_has_trl_s_loss_and_gradients(
    tiny_model: Path, start: Path, tmp_path: Path, args: dict[str, Any]
) -> None:
    from trainer.fast.paths import quicken

    notes: list[str] = []
    plain = dpo_trainer(tiny_model, start, tmp_path, **args)
    ours = dpo_trainer(tiny_model, start, tmp_path, **args)
    quicken(ours, base=tiny_model, start=start, note=notes.append)
    assert_alike(loss_and_gradients(ours), loss_and_gradients(plain))
    said = "\n".join(notes)
    assert "shared prefixes:" in said
    assert "logits are computed at completion tokens only" in said
    assert "reference log-probabilities: " in said


def test_sft_has_trl_s_loss_and_gradients(tiny_model: Path, tmp_path: Path) -> None:
    from trainer.fast.shared_prefix import share_prefixes

    plain = sft_trainer(adapted(tiny_model), tiny_model, tmp_path)
    ours = sft_trainer(adapted(tiny_model), tiny_model, tmp_path)
    sharing = share_prefixes(ours.model)
    assert sharing is not None
    assert_alike(loss_and_gradients(ours), loss_and_gradients(plain))
    assert sharing.computed < 0.7 * sharing.given


def test_the_real_model_trains_alike_and_computes_half_of_it(smollm2: Path, tmp_path: Path) -> None:
    from trainer.fast.paths import quicken

    start = tmp_path / "start"
    adapted(smollm2).save_pretrained(start)
    plain = dpo_trainer(smollm2, start, tmp_path)
    ours = dpo_trainer(smollm2, start, tmp_path)
    quicken(ours, base=smollm2, start=start, note=lambda text: None)
    assert_alike(loss_and_gradients(ours, (0, 1)), loss_and_gradients(plain, (0, 1)))
    sharing = ours.model.get_base_model().base_model.prefix_sharing
    assert sharing.computed < 0.5 * sharing.given


def test_whole_runs_end_at_the_same_losses_and_weights(
    tiny_model: Path, start: Path, tmp_path: Path
) -> None:
    from trainer.fast.paths import quicken

    ends = []
    for fast in (False, True):
        trainer = dpo_trainer(
            tiny_model,
            start,
            tmp_path,
            num_train_epochs=2,
            gradient_accumulation_steps=2,
            logging_steps=1,
        )
        if fast:
            quicken(trainer, base=tiny_model, start=start, note=lambda text: None)
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        weights = {n: p.detach() for n, p in trainer.model.named_parameters() if ".default." in n}
        ends.append((losses, weights))
    (plain_losses, plain), (losses, ours) = ends
    assert losses == pytest.approx(plain_losses, abs=1e-4)
    assert losses[-1] < losses[0]
    for name, weight in plain.items():
        assert (ours[name] - weight).abs().max() < 1e-4, name


# --- what cannot be proven equal is not taken ---


def test_a_model_that_looks_back_beside_attention_is_found_out(tiny_model: Path) -> None:
    """A convolution over neighbouring tokens would see other neighbours in a tree."""
    import torch
    from transformers import AutoModelForCausalLM

    from trainer.fast.shared_prefix import share_prefixes

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)

    def look_back(layer: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = given[0]
        before = torch.nn.functional.pad(hidden[:, :-1], (0, 0, 1, 0))
        return (hidden + before, *given[1:])

    model.model.layers[1].register_forward_pre_hook(look_back)
    ids = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12, 13, n, n + 1] for n in (20, 30)])
    with torch.no_grad():
        plain = model(ids).logits
        notes: list[str] = []
        sharing = share_prefixes(model, notes.append)
        assert sharing is not None
        torch.testing.assert_close(model(ids).logits, plain)
    assert not sharing.enabled
    assert "hidden states differ by" in notes[-1]


def test_models_with_other_attention_are_left_as_they_are() -> None:
    from transformers import BloomConfig, BloomForCausalLM, MistralConfig, MistralForCausalLM

    from trainer.fast.shared_prefix import share_prefixes

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "vocab_size": 64}
    sliding = MistralForCausalLM(
        MistralConfig(
            **sizes,
            num_attention_heads=2,
            num_key_value_heads=2,
            intermediate_size=32,
            sliding_window=8,
        )
    )
    biased = BloomForCausalLM(BloomConfig(n_head=2, **sizes))
    for model in (sliding, biased):
        notes: list[str] = []
        assert share_prefixes(model, notes.append) is None
        assert notes[0].startswith("prefixes are not shared: ")


def test_dropout_in_training_is_not_shared(tiny_model: Path, tmp_path: Path) -> None:
    from trainer.fast.shared_prefix import share_prefixes

    trainer = sft_trainer(adapted(tiny_model, lora_dropout=0.1), tiny_model, tmp_path)
    sharing = share_prefixes(trainer.model)
    assert sharing is not None
    loss_and_gradients(trainer)
    assert sharing.computed == 0
    trainer.model.eval()
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(2)])
    trainer.compute_loss(trainer.model, batch)
    assert sharing.computed > 0


def test_logits_are_whole_where_the_output_layer_is_trained(
    tiny_model: Path, tmp_path: Path
) -> None:
    from trainer.fast.paths import quicken

    model = adapted(tiny_model, target_modules=["q_proj", "lm_head"])
    model.save_pretrained(tmp_path / "start")
    trainer = dpo_trainer(tiny_model, tmp_path / "start", tmp_path)
    notes: list[str] = []
    quicken(trainer, base=tiny_model, start=tmp_path / "start", note=notes.append)
    assert any("the adapter sits on the output layer" in note for note in notes)
    assert not trainer.precompute_ref_logps  # it would come from another precision path
    plain = dpo_trainer(tiny_model, tmp_path / "start", tmp_path)
    assert_alike(loss_and_gradients(trainer), loss_and_gradients(plain))


# --- stored references ---


def test_references_are_the_start_s_and_are_computed_once(
    tiny_model: Path, start: Path, tmp_path: Path
) -> None:
    import torch

    from trainer.fast.references import references, store_references

    other = tmp_path / "other"
    adapted(tiny_model, lora_alpha=16).save_pretrained(other)
    stored = references(tiny_model, start, "test")
    assert references(tiny_model, start, "test").path == stored.path
    assert references(tiny_model, other, "test").path.name != stored.path.name
    assert references(tiny_model, start, "bf16").path.name != stored.path.name

    trainer = dpo_trainer(tiny_model, start, tmp_path)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    expected = torch.stack(trainer.compute_ref_log_probs(trainer.model, batch), dim=1)
    notes: list[str] = []
    store_references(trainer, stored, notes.append)
    found = [[r["ref_chosen_logps"], r["ref_rejected_logps"]] for r in trainer.train_dataset]
    torch.testing.assert_close(torch.tensor(found), expected, rtol=0, atol=1e-4)

    again = dpo_trainer(tiny_model, start, tmp_path)
    store_references(again, references(tiny_model, start, "test"), notes.append)
    same = [[r["ref_chosen_logps"], r["ref_rejected_logps"]] for r in again.train_dataset]
    assert same == found  # to the last bit, as a resumed run needs it
    assert "4 rows computed, 0 found" in notes[0]
    assert "0 rows computed, 4 found" in notes[1]


def test_a_row_that_changed_is_computed_anew(tiny_model: Path, start: Path, tmp_path: Path) -> None:
    from trainer.fast.references import References, row_key, store_references

    notes: list[str] = []
    file = tmp_path / "some.json"
    before = dpo_trainer(tiny_model, start, tmp_path, precompute_ref_batch_size=1)
    store_references(before, References(file), notes.append)
    after = dpo_trainer(tiny_model, start, tmp_path)
    changed = [*after.train_dataset[3]["rejected_ids"][:-2], 5]
    rows = [
        {**row, "rejected_ids": changed} if i == 3 else row
        for i, row in enumerate(after.train_dataset)
    ]
    after.train_dataset = type(after.train_dataset).from_list(rows)
    store_references(after, References(file), notes.append)
    assert "4 rows computed, 0 found" in notes[0]
    assert "1 rows computed, 3 found" in notes[1]
    assert len(References(file)) == 5
    assert row_key(rows[3]) in References(file)


def test_what_this_machine_computes_otherwise_is_not_used(
    tiny_model: Path, start: Path, tmp_path: Path
) -> None:
    """As a file that came from another CPU, whose last bits are others."""
    from trainer.fast.references import References, row_key, store_references

    file = tmp_path / "some.json"
    first = dpo_trainer(tiny_model, start, tmp_path)
    store_references(first, References(file))
    keys = [row_key(row) for row in first.train_dataset]
    stored = References(file)
    rows = {key: (stored[key][0] + 0.1, stored[key][1]) for key in keys}
    stored.keep(rows, [stored.batch_among(keys)])
    stored.write()
    notes: list[str] = []
    again = dpo_trainer(tiny_model, start, tmp_path)
    store_references(again, References(file), notes.append)
    assert "4 rows computed, 0 found" in notes[0]
    assert again.train_dataset["ref_chosen_logps"][:] == first.train_dataset["ref_chosen_logps"][:]


def test_a_short_run_stores_nothing(tiny_model: Path, start: Path, tmp_path: Path) -> None:
    from trainer.fast.paths import quicken

    notes: list[str] = []
    trainer = dpo_trainer(tiny_model, start, tmp_path, max_steps=1)
    quicken(trainer, base=tiny_model, start=start, note=notes.append)
    assert "not stored: only 2 of 4 rows are trained on" in notes[-1]
    assert not trainer.precompute_ref_logps
