"""The fast paths of a run: which of them it can take, each proven equal, all of them optional.

Knows what TRL's trainers can leave out on the way to the same loss. Knows no rows and no recipe;
what a path does is in `shared_prefix` and `reference`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.fast.references import references, store_references
from trainer.fast.shared_prefix import share_prefixes

if TYPE_CHECKING:
    from transformers import Trainer, TrainingArguments

Note = Callable[[str], None]


def quicken(
    trainer: Trainer, *, base: Path | None = None, start: Path | None = None, note: Note
) -> list[int] | None:
    """Let a trainer take the fast paths that it can take; losses and gradients stay the same.

    Shared prefixes are computed once (on a CPU), logits only where a completion token is, and DPO's
    reference log-probabilities once for all epochs and runs.

    Args:
        trainer: a trainer of TRL's (SFT, DPO or KTO) over a `peft.PeftModel`, not yet trained.
        base: the base model's folder; with `start`, DPO's references are stored.
        start: the SFT adapter's folder, which is the reference.
        note: told what is done, and what cannot be done and why.

    Returns:
        The places of rows whose references were computed in one batch (`check_start` asks); None
        where none were stored here.
    """
    if precomputed := _precomputed_roughly(trainer):
        note(precomputed)
        return None
    if trainer.accelerator.device.type == "cpu":
        share_prefixes(trainer.accelerator.unwrap_model(trainer.model), note)
    else:  # an H200 trained at 0.47 of TRL's own speed: a kernel for every segment and layer
        note("prefixes are not shared: on a GPU, small kernels cost more than they save")
    if not hasattr(trainer, "compute_ref_log_probs"):  # SFT: TRL's default loss does it already
        return None
    logits_on_completions(trainer, note)
    if base and start and (hindrance := _no_store(trainer)) is None:
        return store_references(trainer, references(base, start, *_precision_path(trainer)), note)
    if base and start:
        note(f"reference log-probabilities are not stored: {hindrance}")
    return None


def _precomputed_roughly(trainer: Trainer) -> str | None:
    """Why no fast path is taken: in a half precision another path has other last bits than those
    of references that are there already."""
    if not getattr(trainer, "precompute_ref_logps", False):
        return None
    if trainer.accelerator.mixed_precision == "no":
        return None
    return (
        "no fast path is taken: TRL has precomputed the reference log-probabilities, and "
        f"in {trainer.accelerator.mixed_precision} the policy's must be computed the same way; "
        "leave precompute_ref_log_probs out to store them by the fast path"
    )


_FEW_ROWS, _SMALL_CHUNK = 4, 64


def chunks_for(rows: int, device: str) -> int | None:
    """Let TRL's SFT loss go over completion tokens in chunks that few short rows can fill.

    It rounds their number up to whole chunks of 256, and computes each twice: of two rows of thirty
    tokens that is four times too many logits. Must come before the trainer is made.

    Args:
        rows: in a micro-batch.
        device: "cpu" or "cuda".

    Returns:
        Tokens in a chunk; None where TRL has no such chunks.
    """
    from trl.trainer import sft_trainer

    if (own := _own_chunk()) is None:
        return None
    chunk = _SMALL_CHUNK if device == "cpu" and rows <= _FEW_ROWS else own
    sft_trainer._CHUNKED_LM_HEAD_CHUNK_SIZE = chunk
    return chunk


@cache
def _own_chunk() -> int | None:
    """TRL's own, as it was before anything was set here."""
    from trl.trainer import sft_trainer

    return getattr(sft_trainer, "_CHUNKED_LM_HEAD_CHUNK_SIZE", None)


def logits_on_completions(trainer: Trainer, note: Note = lambda text: None) -> bool:
    """Compute logits at completion tokens only, and in pieces: TRL's own path, which it keeps for
    machines with liger-kernel though it is plain PyTorch.

    Args:
        trainer: a `trl.DPOTrainer` or `trl.KTOTrainer`.
        note: called with one sentence.

    Returns:
        Whether the trainer does so now.
    """
    from trl.models.utils import _ForwardRedirection

    if trainer.use_liger_kernel:
        return True
    if hindrance := _whole_logits(trainer):
        note(f"logits are computed everywhere: {hindrance}")
        return False
    trainer.use_liger_kernel = True
    trainer._forward_redirection = _ForwardRedirection()  # DDP and FSDP go through the wrapper
    note("logits are computed at completion tokens only")
    return True


def _whole_logits(trainer: Trainer) -> str | None:
    """What needs the logits of all tokens; the conditions are TRL's own for its path."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    model = trainer.accelerator.unwrap_model(trainer.model)
    if getattr(trainer, "use_weighting", False):
        return "use_weighting weighs by them"
    if trainer.compute_metrics is not None:
        return "compute_metrics reads them"
    if getattr(trainer, "aux_loss_enabled", False):
        return "the model is a mixture of experts with a loss of its own"
    if isinstance(model.get_output_embeddings(), BaseTunerLayer):
        return "the adapter sits on the output layer, too"
    return None


def _no_store(trainer: Trainer) -> str | None:
    """Why reference log-probabilities are computed in every step instead; None to store them."""
    if not hasattr(trainer, "precompute_ref_logps"):
        return "they are DPO's"
    if trainer.precompute_ref_logps:
        return "TRL has precomputed them already"
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return "the model is sharded only when training begins"
    if not trainer.use_liger_kernel:
        return "they would come from another precision path than the policy's"
    planned = _planned_rows(trainer.args, len(trainer.train_dataset))
    if planned < len(trainer.train_dataset):
        return f"only {planned} of {len(trainer.train_dataset)} rows are trained on"
    return None


def _planned_rows(args: TrainingArguments, rows: int) -> int:
    if args.max_steps <= 0:
        return int(rows * max(args.num_train_epochs, 1))
    a_step = args.per_device_train_batch_size * args.gradient_accumulation_steps
    return int(args.max_steps * a_step * args.world_size)


def _precision_path(trainer: Trainer) -> tuple[object, ...]:
    """Whatever else decides the references' last bits, and which texts they are of."""
    import torch
    import transformers

    args, model = trainer.args, trainer.accelerator.unwrap_model(trainer.model)
    precision = "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32"
    kind = trainer.accelerator.device.type
    limits = (args.max_length, args.truncation_mode, args.ld_alpha)
    versions = (torch.__version__, transformers.__version__)
    return (kind, precision, str(model.dtype), limits, versions)
