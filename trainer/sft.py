"""Supervised fine-tuning of the weak model on demonstrations (paper, section 3.2, Equation 1).

Knows TRL's `SFTTrainer`; with a start it goes on with an adapter, as rejection sampling does. Knows
no DPO, no registry and no process around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.backends import load, named, settings, trl_config
from trainer.checks import examined
from trainer.fast.paths import chunks_for
from trainer.rows import Row
from trainer.tuning import Run, tune


def train(
    run: Run, rows: Sequence[Row], start: Path | None = None, *, drop_bad_rows: bool = False
) -> tuple[Any, dict[str, Any]]:
    """Train an adapter and save it to `output` in the run's folder.

    A run that was cut off is resumed from the last whole checkpoint there.

    Args:
        run: job, machine, folder and log.
        rows: prompt-completion rows; the loss is on the completions alone (TRL's default).
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
    from trl import SFTTrainer

    job, log = run.job, run.log
    set_seed(job.seed)  # before the adapter's first weights are drawn
    lora, args = settings(job, "sft", run.machine, run.folder, log.note)
    config = trl_config("sft", args)
    model, tokenizer = load(job, run.machine, lora=lora, args=config, start=start)
    if start:
        log.note(f"SFT continues from the adapter in {start} and keeps its shape")

    kept, measured = examined(
        rows, tokenizer, model, config.max_length, drop=drop_bad_rows, note=log.note
    )
    chunks_for(config.per_device_train_batch_size, run.machine.device)
    metrics = tune(run, SFTTrainer, model, tokenizer, kept, config)
    shape = {} if start else {"lora": lora}
    return model, {
        "metrics": {**metrics, **measured},
        "hyperparameters": {"preset": job.preset, **shape, "args": named(args)},
    }
