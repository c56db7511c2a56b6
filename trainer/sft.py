"""Supervised fine-tuning of the weak model on demonstrations (paper, section 3.2, Equation 1).

Knows TRL's `SFTTrainer`. Knows no DPO, no registry and no process around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.backends import Machine, configure, load, named, settings
from trainer.job import TrainingJob
from trainer.rows import Row
from trainer.watch import RunLog, check_rows, step_watch, stop_tokens, summary


def train(
    job: TrainingJob, rows: Sequence[Row], machine: Machine, folder: Path, log: RunLog
) -> tuple[Any, dict[str, Any]]:
    """Train a new adapter and save it to `folder/output`.

    Args:
        job: model, preset and overlays.
        rows: prompt-completion rows; the loss is on the completions alone (TRL's default).
        machine: from `backends.machine`.
        folder: the run's folder.
        log: the run's log.

    Returns:
        The trained model, and {"metrics": …, "hyperparameters": …}.

    Raises:
        ValueError: for a setting that TRL or PEFT does not have, or rows that cannot be trained on.
        ArithmeticError: when the loss stops being a finite number.
    """
    from datasets import Dataset
    from transformers import set_seed
    from trl import SFTConfig, SFTTrainer

    set_seed(job.seed)  # before the adapter's first weights are drawn
    lora, args = settings(job, "sft", machine, folder, log.note)
    config = configure(SFTConfig, args)
    model, tokenizer = load(job, machine, lora=lora, args=config)

    limit = min(config.max_length or 10**9, model.config.max_position_embeddings)
    measured = check_rows(rows, tokenizer, stop_tokens(model, tokenizer), limit)
    log.note(f"{measured['rows']} rows, {measured['tokens']} tokens, longest {measured['longest']}")

    trainer = SFTTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(list(rows)),
        processing_class=tokenizer,
        callbacks=[step_watch(log, time_limit=job.time_limit)],
    )
    trainer.train()
    model.save_pretrained(folder / "output", selected_adapters=["default"])
    return model, {
        "metrics": {**summary(trainer), **measured},
        "hyperparameters": {"preset": job.preset, "lora": lora, "args": named(args)},
    }
