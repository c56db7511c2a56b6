"""Preference tuning on single drafts with KTO (Ethayarajh et al. 2024, arXiv:2402.01306).

Knows TRL's `KTOTrainer`; start and reference are the SFT adapter, as in DPO. Knows no registry and
no process around it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.backends import Machine, configure, load, named, settings
from trainer.checks import examined
from trainer.job import TrainingJob
from trainer.objectives import kto_weights
from trainer.processes import save_adapter
from trainer.resume import last_checkpoint
from trainer.rows import Row
from trainer.speed import quicken
from trainer.start import check_start, first_step_check
from trainer.steps import ROW, watched
from trainer.watch import RunLog, step_watch, summary


def train(
    job: TrainingJob,
    rows: Sequence[Row],
    machine: Machine,
    folder: Path,
    log: RunLog,
    start: Path,
    *,
    drop_bad_rows: bool = False,
) -> tuple[Any, dict[str, Any]]:
    """Go on with the SFT adapter and save the result to `folder/output`.

    A run that was cut off goes on from the last whole checkpoint in `folder`.

    Args:
        job: model, preset and overlays; the adapter's shape is that of `start`.
        rows: with "prompt", "completion" and "label" (True: the draft helped).
        machine: from `backends.machine`.
        folder: the run's folder.
        log: the run's log.
        start: the SFT adapter's folder.
        drop_bad_rows: leave faulty rows out, instead of refusing all.

    Returns:
        The trained model, and {"metrics": …, "hyperparameters": …}.

    Raises:
        ValueError: for a setting that TRL does not have, or rows that cannot be trained on.
        RuntimeError: when start or reference is not the SFT adapter.
        ArithmeticError: when the loss stops being a finite number, or explodes.
        OutOfMemory: when a micro-batch does not fit.
    """
    from datasets import Dataset
    from transformers import set_seed
    from trl import KTOConfig, KTOTrainer

    set_seed(job.seed)
    _, args = settings(job, "kto", machine, folder, log.note)
    helped = sum(bool(row["label"]) for row in rows)
    args = {**kto_weights(helped, len(rows) - helped), **args}
    config = configure(KTOConfig, args)
    model, tokenizer = load(job, machine, lora={}, args=config, start=start)
    log.note(f"kto goes on with the adapter in {start}: {helped} of {len(rows)} drafts helped")

    kept, measured = examined(
        rows, tokenizer, model, config.max_length, drop=drop_bad_rows, note=log.note
    )
    # TRL takes rows in order, and the KL term from a row's neighbours: they should be strangers.
    random.Random(job.seed).shuffle(kept)
    trainer = watched(KTOTrainer)(
        model=model,  # no peft_config and no ref_model: TRL then freezes a copy, the adapter "ref"
        args=config,
        train_dataset=Dataset.from_list(kept),
        processing_class=tokenizer,
    )
    if job.fast_paths and machine.backend == "plain":
        quicken(trainer, note=log.note)
    losses = losses_at_start(config, kept)
    step0 = check_start(trainer, start, losses=losses)
    log.note("step 0: " + ", ".join(f"{name} {value:.6g}" for name, value in step0.items()))
    trainer.add_callback(
        step_watch(
            log,
            time_limit=job.time_limit,
            first=first_step_check(trainer, losses),
            rows=trainer.data_collator.rows,
        )
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(folder, log.note))
    save_adapter(trainer, folder / "output")
    return model, {
        "metrics": {**summary(trainer), **measured, **step0},
        "hyperparameters": {"preset": job.preset, "objective": "kto", "args": named(args)},
    }


def losses_at_start(config: Any, rows: Sequence[Row]) -> dict[int, float] | None:
    """Each row's loss at step 0, by row number: λ · (1 - σ(0)), as log-ratio and KL are both 0."""
    weight = {True: config.desirable_weight, False: config.undesirable_weight}
    return {row[ROW]: 0.5 * weight[bool(row["label"])] for row in rows}
