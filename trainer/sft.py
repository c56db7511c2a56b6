"""Supervised fine-tuning of the weak model on demonstrations (paper, section 3.2, Equation 1).

Knows TRL's `SFTTrainer`; with a start it goes on with an adapter, as rejection sampling does. Knows
no DPO, no registry and no process around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.backends import Machine, configure, load, named, settings
from trainer.checks import examined
from trainer.job import TrainingJob
from trainer.rows import Row
from trainer.tuning import tune
from trainer.watch import RunLog


def train(
    job: TrainingJob,
    rows: Sequence[Row],
    machine: Machine,
    folder: Path,
    log: RunLog,
    start: Path | None = None,
    *,
    drop_bad_rows: bool = False,
) -> tuple[Any, dict[str, Any]]:
    """Train an adapter and save it to `folder/output`.

    A run that was cut off goes on from the last whole checkpoint in `folder`.

    Args:
        job: model, preset and overlays.
        rows: prompt-completion rows; the loss is on the completions alone (TRL's default).
        machine: from `backends.machine`.
        folder: the run's folder.
        log: the run's log.
        start: an adapter's folder to go on with; None for a new adapter.
        drop_bad_rows: leave faulty rows out, instead of refusing all.

    Returns:
        The trained model, and {"metrics": …, "hyperparameters": …}.

    Raises:
        ValueError: for a setting that TRL or PEFT does not have, or rows that cannot be trained on.
        ArithmeticError: when the loss stops being a finite number, or explodes.
        OutOfMemory: when a micro-batch does not fit.
    """
    from transformers import set_seed
    from trl import SFTConfig, SFTTrainer

    set_seed(job.seed)  # before the adapter's first weights are drawn
    lora, args = settings(job, "sft", machine, folder, log.note)
    config = configure(SFTConfig, args)
    model, tokenizer = load(job, machine, lora=lora, args=config, start=start)
    if start:
        log.note(f"SFT goes on with the adapter in {start} and keeps its shape")

    kept, measured = examined(
        rows, tokenizer, model, config.max_length, drop=drop_bad_rows, note=log.note
    )
    metrics = tune(
        SFTTrainer,
        model,
        tokenizer,
        kept,
        config,
        job=job,
        machine=machine,
        folder=folder,
        log=log,
    )
    shape = {} if start else {"lora": lora}
    return model, {
        "metrics": {**metrics, **measured},
        "hyperparameters": {"preset": job.preset, **shape, "args": named(args)},
    }
