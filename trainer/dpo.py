"""Preference tuning of the weak model with DPO (paper, section 3.3, Equation 2).

Knows TRL's `DPOTrainer`, and that start and reference are the SFT adapter (Algorithm 1, line 26):
it proves so before the first step. Knows no registry and no process around it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.backends import Machine, configure, load, named, settings
from trainer.job import TrainingJob
from trainer.rows import Row
from trainer.watch import RunLog, check_rows, step_watch, stop_tokens, summary

_TOLERANCE = 1e-4  # of the step-0 loss and margins
_WITNESS = "witness"


def train(
    job: TrainingJob,
    rows: Sequence[Row],
    machine: Machine,
    folder: Path,
    log: RunLog,
    start: Path,
) -> tuple[Any, dict[str, Any]]:
    """Go on with the SFT adapter and save the result to `folder/output`.

    Args:
        job: model, preset and overlays; the adapter's shape is that of `start`.
        rows: preference rows with "prompt", "chosen", "rejected".
        machine: from `backends.machine`.
        folder: the run's folder.
        log: the run's log.
        start: the SFT adapter's folder.

    Returns:
        The trained model, and {"metrics": …, "hyperparameters": …}.

    Raises:
        ValueError: for a setting that TRL does not have, or rows that cannot be trained on.
        RuntimeError: when start or reference is not the SFT adapter.
        ArithmeticError: when the loss stops being a finite number.
    """
    from datasets import Dataset
    from transformers import set_seed
    from trl import DPOConfig, DPOTrainer

    set_seed(job.seed)
    lora, args = settings(job, "dpo", machine, folder, log.note)
    config = configure(DPOConfig, args)
    model, tokenizer = load(job, machine, lora=lora, args=config, start=start)
    log.note(f"DPO goes on with the adapter in {start} and keeps its shape")

    limit = min(config.max_length or 10**9, model.config.max_position_embeddings)
    measured = check_rows(rows, tokenizer, stop_tokens(model, tokenizer), limit)
    log.note(f"{measured['rows']} rows, {measured['tokens']} tokens, longest {measured['longest']}")

    trainer = DPOTrainer(
        model=model,  # no peft_config and no ref_model: TRL then freezes a copy, the adapter "ref"
        args=config,
        train_dataset=Dataset.from_list(list(rows)),
        processing_class=tokenizer,
        callbacks=[step_watch(log, time_limit=job.time_limit, first=first_step_check(config))],
    )
    step0 = check_start(trainer, start)
    log.note("step 0: " + ", ".join(f"{name} {value:.6g}" for name, value in step0.items()))
    trainer.train()
    model.save_pretrained(folder / "output", selected_adapters=["default"])  # else also ref/
    return model, {
        "metrics": {**summary(trainer), **measured, **step0},
        "hyperparameters": {"preset": job.preset, "args": named(args)},
    }


def check_start(trainer: Any, start: Path, *, rows: int = 2) -> dict[str, float]:
    """Prove that DPO starts from the SFT adapter and has it as reference.

    The SFT adapter is loaded once more from its folder, as a witness beside what is trained. Then
    policy, reference, witness and bare base give the log-probabilities of the same texts. (A loss
    of ln 2 alone proves nothing: a new adapter on the bare base starts there too.)

    Args:
        trainer: a `trl.DPOTrainer` over a `peft.PeftModel`, not yet trained.
        start: the SFT adapter's folder.
        rows: pairs that are looked at.

    Returns:
        The step-0 loss and largest margin, and the mean log-probabilities (nats per completion) of
        policy, reference, SFT adapter and base.

    Raises:
        RuntimeError: when one of them is not what it should be.
    """
    import torch

    model = trainer.accelerator.unwrap_model(trainer.model)
    batch = _first_batch(trainer, rows)
    was_training = model.training
    model.eval()
    policy, reference = _logps(model, batch), _reference(trainer, batch)
    model.load_adapter(str(start), _WITNESS)
    sft = _with_adapter(model, _WITNESS, batch)
    model.delete_adapter(_WITNESS)
    base = _with_adapter(model, None, batch)
    model.train(was_training)

    margins = (policy - reference).chunk(2)
    margin = trainer.beta * (margins[0] - margins[1])
    found = {
        "step0_loss": -torch.nn.functional.logsigmoid(margin).mean().item(),
        "step0_margin": margin.abs().max().item(),
        "policy_logp": policy.mean().item(),
        "reference_logp": reference.mean().item(),
        "sft_logp": sft.mean().item(),
        "base_logp": base.mean().item(),
    }
    _demand(_equal(policy, sft), "DPO does not start from the SFT adapter", found)
    _demand(_equal(reference, sft), "DPO's reference is not the SFT adapter", found)
    _demand(not torch.equal(sft, base), f"the adapter in {start} changes nothing", found)
    _demand(found["step0_margin"] < _TOLERANCE, "the step-0 margins are not 0", found)
    _demand(abs(found["step0_loss"] - math.log(2)) < _TOLERANCE, "step 0 is not at ln 2", found)
    return found


def first_step_check(config: Any) -> Callable[[Mapping[str, Any]], None]:
    """A check of the trainer's own first figures, which come from before the first update.

    It sees what `check_start` cannot: a reference stored in another precision than the policy's.

    Args:
        config: the `trl.DPOConfig`; only the plain sigmoid loss has ln 2 at margin 0.
    """

    def check(figures: Mapping[str, Any]) -> None:
        seen = {name: float(figures[name]) for name in ("loss", "rewards/margins")}
        _demand(abs(seen["rewards/margins"]) < _TOLERANCE, "the first margins are not 0", seen)
        if config.loss_type == ["sigmoid"]:
            off = abs(seen["loss"] - math.log(2))
            _demand(off < _TOLERANCE, "the first loss is not at ln 2", seen)

    return check


def _first_batch(trainer: Any, rows: int) -> dict[str, Any]:
    chosen = [trainer.train_dataset[i] for i in range(min(rows, len(trainer.train_dataset)))]
    batch = trainer.data_collator(chosen)
    return {name: value.to(trainer.accelerator.device) for name, value in batch.items()}


def _reference(trainer: Any, batch: Mapping[str, Any]) -> Any:
    """The reference log-probabilities as this trainer will use them, chosen then rejected."""
    import torch

    if trainer.precompute_ref_logps:
        return torch.cat([batch["ref_chosen_logps"], batch["ref_rejected_logps"]])
    reference = trainer.model if trainer.ref_model is None else trainer.ref_model
    return torch.cat(trainer.compute_ref_log_probs(reference, batch))


def _with_adapter(model: Any, name: str | None, batch: Mapping[str, Any]) -> Any:
    from trl.trainer.utils import use_adapter

    with use_adapter(model, name):
        return _logps(model, batch)


def _logps(model: Any, batch: Mapping[str, Any]) -> Any:
    """Summed log-probabilities of the completions, shape (2 × pairs,): chosen, then rejected."""
    import torch
    from trl.trainer.utils import selective_log_softmax

    ids, mask = batch["input_ids"], batch["completion_mask"][:, 1:]
    with torch.no_grad():
        logits = model(
            input_ids=ids, attention_mask=batch["attention_mask"], use_cache=False
        ).logits
        return (selective_log_softmax(logits[:, :-1], ids[:, 1:]) * mask).sum(dim=1)


def _equal(one: Any, other: Any) -> bool:
    import torch

    return bool(torch.allclose(one.float(), other.float(), rtol=1e-4, atol=1e-3))


def _demand(holds: bool, wrong: str, found: Mapping[str, float]) -> None:
    if not holds:
        seen = ", ".join(f"{name} {value:.6f}" for name, value in found.items())
        raise RuntimeError(f"{wrong}: {seen}. Nothing was trained; please report this set-up")
