"""What preference training starts from: the SFT adapter, which is also its reference.

Knows trainers of TRL that have a reference (DPO, KTO), and proves it before the first step. Knows
no rows' origin, no registry and no process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.fast.references import allowed_error
from trainer.rows import ROW
from trainer.tuning.steps import as_in_training

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, Trainer

_WITNESS = "witness"
_FIRST = {"no": 1e-4, "bf16": 1e-2, "fp16": 1e-2}  # of the first step, by mixed precision
# Half precisions round a logit by some hundredths, so a sum over T tokens by that times √T, once
# the two sides of a difference were computed in batches of other shapes.
_ROUNDING = 0.05

Losses = Mapping[int, float]


def check_start(
    trainer: Trainer,
    start: Path,
    *,
    losses: Losses | None = None,
    rows: int = 2,
    stored: Sequence[int] | None = None,
) -> dict[str, float]:
    """Prove that training starts from the SFT adapter and has it as reference.

    The SFT adapter is loaded once more from its folder, as a witness beside what is trained. Then
    policy, reference, witness and bare base give the log-probabilities of one batch, each by the
    trainer's own pass over the very same tensors: what is equal then differs by nothing, in any
    precision and at any length. The trainer's loss on that batch is looked at, too. (A loss of
    ln 2 alone proves nothing: a new adapter on the bare base starts there as well.)

    Stored reference log-probabilities are compared with the witness's in the batch in which they
    were computed, for the same reason.

    Args:
        trainer: a `trl.DPOTrainer` or `trl.KTOTrainer` over a `peft.PeftModel`, not yet trained.
        start: the SFT adapter's folder.
        losses: the analytic loss at margin 0, by row number; None where there is none.
        rows: rows that are looked at.
        stored: places in the data set of rows whose stored references were computed in one batch;
            None for the first batch of TRL's own `precompute_ref_log_probs`.

    Returns:
        The step-0 loss, its analytic value, the largest margin, and the mean log-probabilities
        (nats per completion) of policy, reference, SFT adapter and base; where references are
        stored, "stored_margin", the largest margin that they give instead.

    Raises:
        RuntimeError: when one of them is not what it should be.
    """
    import torch

    model, looked_at = trainer.accelerator.unwrap_model(trainer.model), _examples(trainer, rows)
    batch = _collated(trainer, looked_at)
    with _evaluating(model), as_in_training(trainer), torch.no_grad():
        loss = _live_loss(trainer, batch)
        policy, reference = _by_adapter(trainer, "default", batch), _reference(trainer, batch)
        with _witness(model, start):
            sft = _by_adapter(trainer, _WITNESS, batch)
            noise = _noise(trainer, sft, batch)
            off = _stored_error(trainer, stored)
        base = _by_adapter(trainer, None, batch)

    found = {
        "step0_loss": loss.item(),
        "step0_margin": (trainer.beta * (policy - reference)).abs().max().item(),
        "policy_logp": policy.mean().item(),
        "reference_logp": reference.mean().item(),
        "sft_logp": sft.mean().item(),
        "base_logp": base.mean().item(),
    }
    _demand(_equal(policy, sft, noise), "training does not start from the SFT adapter", found)
    _demand(_equal(reference, sft, noise), "the reference is not the SFT adapter", found)
    _demand(not torch.equal(sft, base), f"the adapter in {start} changes nothing", found)
    if off is not None:
        found["stored_error"] = off
        _demand(off <= 1.0, "stored reference log-probabilities are not the adapter's", found)
        del found["stored_error"]
        kept = _kept(looked_at, policy.device)
        found["stored_margin"] = (trainer.beta * (policy - kept)).abs().max().item()
    numbers = [one[ROW] for one in looked_at if ROW in one]
    if losses is not None and numbers:
        near = 1e-4 + torch.finfo(loss.dtype).eps + trainer.beta * 4 * noise.max().item()
        _check_loss(found, sum(losses[number] for number in numbers) / len(numbers), near)
    return found


def _check_loss(found: dict[str, float], analytic: float, near: float) -> None:
    found["step0_analytic"] = analytic
    _demand(_close(found["step0_loss"], analytic, near), "the step-0 loss is off", found)


def first_step_check(
    trainer: Trainer, losses: Losses | None
) -> Callable[[Mapping[str, Any]], None]:
    """A check of the trainer's own first figures, which come from before the first update.

    In a half precision it is a coarse one, as rounding grows with the texts' length: `check_start`
    is what tells one adapter from another.

    Args:
        trainer: watched (`trainer.tuning.steps`), so that the first step's rows are known.
        losses: the analytic loss at margin 0, by row number; None where there is none.
    """
    precision = trainer.accelerator.mixed_precision
    near = _FIRST[precision]
    rough = precision != "no" and bool(getattr(trainer, "precompute_ref_logps", False))
    if precision != "no":
        near = max(near, trainer.beta * _ROUNDING * math.sqrt(_longest(trainer.train_dataset)))

    def check(figures: Mapping[str, Any]) -> None:
        named = ("loss", "rewards/margins", "rewards/chosen", "rewards/rejected")
        seen = {name: float(figures[name]) for name in named if name in figures}
        margin = max((abs(seen[name]) for name in named[1:] if name in seen), default=0.0)
        _demand(margin < near, "the first margins are not 0", seen)
        batches = trainer.data_collator.recent(trainer.args.gradient_accumulation_steps)
        if rough or losses is None or not all(batches) or _uneven(trainer, losses):
            return
        means = [sum(losses[row] for row in rows) / len(rows) for rows in batches]
        expected = sum(means) / len(means)
        _demand(_close(seen["loss"], expected, near), f"the first loss is not {expected}", seen)

    return check


def _uneven(trainer: Trainer, losses: Losses) -> bool:
    """Whether other processes' rows, which are not known here, may start from other losses."""
    differ = max(losses.values()) - min(losses.values()) > 1e-9
    return differ and trainer.args.world_size > 1


def _examples(trainer: Trainer, rows: int) -> list[dict[str, Any]]:
    return [trainer.train_dataset[i] for i in range(min(rows, len(trainer.train_dataset)))]


def _collated(trainer: Trainer, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    batch = trainer.data_collator(examples)
    return {name: value.to(trainer.accelerator.device) for name, value in batch.items()}


def _texts(several: Sequence[Any]) -> Any:
    """What TRL returns of a batch, as one tensor: DPO's chosen and rejected texts, KTO's
    completions and those of its KL term."""
    import torch

    return torch.cat([one for one in several if one is not None]).float()


def _by_adapter(trainer: Trainer, name: str | None, batch: Mapping[str, Any]) -> Any:
    """Summed log-probabilities of the batch's texts under one adapter; None is the bare base."""
    from trl.trainer.utils import use_adapter

    model = trainer.accelerator.unwrap_model(trainer.model)
    with _as_it_is(trainer), use_adapter(model, name):
        return _texts(trainer.compute_ref_log_probs(model, batch))


def _reference(trainer: Trainer, batch: Mapping[str, Any]) -> Any:
    """The same of the reference that this trainer itself would ask."""
    model = trainer.model if trainer.ref_model is None else trainer.ref_model
    return _texts(trainer.compute_ref_log_probs(model, batch))


@contextmanager
def _as_it_is(trainer: Trainer) -> Iterator[None]:
    """TRL's pass for references takes the model as it is, where a reference model is given; without
    one it would move to the adapter "ref" by itself."""
    given = trainer.ref_model
    trainer.ref_model = trainer.model
    try:
        yield
    finally:
        trainer.ref_model = given


@contextmanager
def _witness(model: PreTrainedModel, start: Path) -> Iterator[None]:
    """The SFT adapter once more, from its folder, in the precision of the one that is trained."""
    model.load_adapter(str(start), _WITNESS)
    trained = dict(model.named_parameters())
    for name, parameter in model.named_parameters():
        twin = trained.get(name.replace(f".{_WITNESS}.", ".default."))
        if f".{_WITNESS}." in name and twin is not None:
            parameter.data = parameter.data.to(twin.dtype)
    try:
        yield
    finally:
        model.delete_adapter(_WITNESS)


def _live_loss(trainer: Trainer, batch: Mapping[str, Any]) -> Any:
    """The trainer's loss against the reference itself, though its log-probabilities be stored."""
    stored = getattr(trainer, "precompute_ref_logps", None)
    if stored:
        trainer.precompute_ref_logps = False
    try:
        return trainer.compute_loss(trainer.model, dict(batch))
    finally:
        if stored:
            trainer.precompute_ref_logps = stored


def _stored_error(trainer: Trainer, stored: Sequence[int] | None) -> float | None:
    """How far stored references are from the witness's, in what may be; None where none are.

    Below 1 they are equal.
    """
    if not getattr(trainer, "precompute_ref_logps", False):
        return None
    args, dataset = trainer.args, trainer.train_dataset
    if stored is None:
        size = args.precompute_ref_batch_size or args.per_device_train_batch_size
        stored = range(min(size, len(dataset)))
    examples = [dataset[place] for place in stored]
    kept = _kept(examples, trainer.accelerator.device)
    batch = _collated(trainer, examples)
    sft = _by_adapter(trainer, _WITNESS, batch)
    return float(((kept - sft).abs() / allowed_error(sft, _noise(trainer, sft, batch))).max())


def _noise(trainer: Trainer, sft: torch.Tensor, batch: Any) -> Any:
    """What the same pass differs by when it is made again, which a GPU's atomics make it do."""
    again = sft if sft.device.type == "cpu" else _by_adapter(trainer, _WITNESS, batch)
    return (sft - again).abs()


def _kept(examples: Sequence[Mapping[str, Any]], device: torch.device) -> Any:
    """The stored references, in the order of `_texts`."""
    import torch

    stored = ("ref_chosen_logps", "ref_rejected_logps", "ref_logps", "ref_KL_logps")
    names = [name for name in stored if name in examples[0]]
    return torch.tensor([float(one[name]) for name in names for one in examples], device=device)


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _equal(one: torch.Tensor, other: torch.Tensor, noise: torch.Tensor) -> bool:
    return bool(((one - other).abs() <= allowed_error(other, noise)).all())


def _longest(dataset: Any) -> int:
    """Tokens of the longest completion."""
    parts = ("completion_ids", "chosen_ids", "rejected_ids")
    names = [name for name in parts if name in dataset.column_names]
    return max((len(ids) for name in names for ids in dataset[name]), default=1)


def _close(one: float, other: float, near: float) -> bool:
    return math.isclose(one, other, rel_tol=near, abs_tol=near)


def _demand(holds: bool, wrong: str, found: Mapping[str, float]) -> None:
    if not holds:
        seen = ", ".join(f"{name} {value:.6f}" for name, value in found.items())
        raise RuntimeError(f"{wrong}: {seen}. Nothing was trained; please report this set-up")
