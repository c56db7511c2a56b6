"""What preference training starts from: the SFT adapter, which is also its reference.

Knows trainers of TRL that have a reference (DPO, KTO), and proves it before the first step. Knows
no rows' origin, no registry and no process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainer.steps import ROW, as_in_training

_WITNESS = "witness"
_TOLERANCE = {"no": 1e-4, "bf16": 1e-2, "fp16": 1e-2}  # by accelerate's mixed precision

Losses = Mapping[int, float]


def check_start(
    trainer: Any, start: Path, *, losses: Losses | None = None, rows: int = 2
) -> dict[str, float]:
    """Prove that training starts from the SFT adapter and has it as reference.

    The SFT adapter is loaded once more from its folder, as a witness beside what is trained. Then
    policy, reference, witness and bare base give the log-probabilities of the same texts, and the
    trainer its loss. (A loss of ln 2 alone proves nothing: a new adapter on the bare base starts
    there too.)

    Args:
        trainer: a `trl.DPOTrainer` or `trl.KTOTrainer` over a `peft.PeftModel`, not yet trained.
        start: the SFT adapter's folder.
        losses: the analytic loss at margin 0, by row number; None where there is none.
        rows: rows that are looked at.

    Returns:
        The step-0 loss, its analytic value, the largest margin, and the mean log-probabilities
        (nats per completion) of policy, reference, SFT adapter and base.

    Raises:
        RuntimeError: when one of them is not what it should be.
    """
    import torch

    model, looked_at = trainer.accelerator.unwrap_model(trainer.model), _examples(trainer, rows)
    texts = [text for one in looked_at for text in _texts(one)]
    with _evaluating(model), as_in_training(trainer), torch.no_grad():
        batch = _collated(trainer, looked_at)
        loss = float(trainer.compute_loss(trainer.model, dict(batch)))
        reference = _reference(trainer, batch, looked_at)
        policy = _logps(trainer, texts)
        model.load_adapter(str(start), _WITNESS)
        sft = _with_adapter(trainer, model, _WITNESS, texts)
        model.delete_adapter(_WITNESS)
        base = _with_adapter(trainer, model, None, texts)

    found = {
        "step0_loss": loss,
        "step0_margin": (trainer.beta * (policy - reference)).abs().max().item(),
        "policy_logp": policy.mean().item(),
        "reference_logp": reference.mean().item(),
        "sft_logp": sft.mean().item(),
        "base_logp": base.mean().item(),
    }
    near = _TOLERANCE[trainer.accelerator.mixed_precision]
    _demand(_equal(policy, sft, near), "training does not start from the SFT adapter", found)
    _demand(_equal(reference, sft, near), "the reference is not the SFT adapter", found)
    _demand(not torch.equal(sft, base), f"the adapter in {start} changes nothing", found)
    _demand(found["step0_margin"] < near, "the step-0 margins are not 0", found)
    numbers = [one[ROW] for one in looked_at if ROW in one]
    if losses is not None and numbers:
        found["step0_analytic"] = sum(losses[number] for number in numbers) / len(numbers)
        _demand(_close(loss, found["step0_analytic"], near), "the step-0 loss is off", found)
    return found


def first_step_check(trainer: Any, losses: Losses | None) -> Callable[[Mapping[str, Any]], None]:
    """A check of the trainer's own first figures, which come from before the first update.

    Args:
        trainer: watched (`trainer.steps`), so that the first step's rows are known.
        losses: the analytic loss at margin 0, by row number; None where there is none.
    """
    near = _TOLERANCE[trainer.accelerator.mixed_precision]

    def check(figures: Mapping[str, Any]) -> None:
        named = ("loss", "rewards/margins", "rewards/chosen", "rewards/rejected")
        seen = {name: float(figures[name]) for name in named if name in figures}
        margin = max((abs(seen[name]) for name in named[1:] if name in seen), default=0.0)
        _demand(margin < near, "the first margins are not 0", seen)
        batches = trainer.data_collator.recent(trainer.args.gradient_accumulation_steps)
        if losses is None or not all(batches) or _uneven(trainer, losses):
            return
        means = [sum(losses[row] for row in rows) / len(rows) for rows in batches]
        expected = sum(means) / len(means)
        _demand(_close(seen["loss"], expected, near), f"the first loss is not {expected}", seen)

    return check


def _uneven(trainer: Any, losses: Losses) -> bool:
    """Whether other processes' rows, which are not known here, may start from other losses."""
    differ = max(losses.values()) - min(losses.values()) > 1e-9
    return differ and trainer.args.world_size > 1


def _examples(trainer: Any, rows: int) -> list[dict[str, Any]]:
    return [trainer.train_dataset[i] for i in range(min(rows, len(trainer.train_dataset)))]


def _collated(trainer: Any, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    batch = trainer.data_collator(examples)
    return {name: value.to(trainer.accelerator.device) for name, value in batch.items()}


def _texts(example: Mapping[str, Any]) -> list[tuple[list[int], list[int]]]:
    """Prompt and completion, as token ids, of each text of a row."""
    parts = [f"{part}_ids" for part in ("completion", "chosen", "rejected")]
    return [(example["prompt_ids"], example[part]) for part in parts if part in example]


def _reference(
    trainer: Any, batch: Mapping[str, Any], examples: Sequence[Mapping[str, Any]]
) -> Any:
    """The reference log-probabilities as this trainer will use them, in the order of `_texts`."""
    import torch

    if trainer.precompute_ref_logps:
        names = ("ref_logps", "ref_chosen_logps", "ref_rejected_logps")
        stored = [float(one[n]) for one in examples for n in names if n in one]
        return torch.tensor(stored, device=trainer.accelerator.device)
    model = trainer.model if trainer.ref_model is None else trainer.ref_model
    several = trainer.compute_ref_log_probs(model, batch)
    if "ref_rejected_logps" in batch or "label" not in batch:  # DPO: chosen and rejected
        return torch.stack(list(several), dim=1).flatten()
    return several[0]  # KTO: the completions, then the texts of its KL term


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _with_adapter(trainer: Any, model: Any, name: str | None, texts: Any) -> Any:
    from trl.trainer.utils import use_adapter

    with use_adapter(model, name):
        return _logps(trainer, texts)


def _logps(trainer: Any, texts: Sequence[tuple[list[int], list[int]]]) -> Any:
    """Summed log-probabilities of completions, one after the other: shape (texts,)."""
    import torch

    sums = []
    for prompt, completion in texts:
        ids = torch.tensor([[*prompt, *completion]], device=trainer.accelerator.device)
        logits = trainer.model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
        chosen = logits.float().log_softmax(-1).gather(1, ids[0, len(prompt) :, None])
        sums.append(chosen.sum())
    return torch.stack(sums)


def _equal(one: Any, other: Any, near: float) -> bool:
    import torch

    return bool(torch.allclose(one.float(), other.float(), rtol=near, atol=10 * near))


def _close(one: float, other: float, near: float) -> bool:
    return math.isclose(one, other, rel_tol=near, abs_tol=near)


def _demand(holds: bool, wrong: str, found: Mapping[str, float]) -> None:
    if not holds:
        seen = ", ".join(f"{name} {value:.6f}" for name, value in found.items())
        raise RuntimeError(f"{wrong}: {seen}. Nothing was trained; please report this set-up")
