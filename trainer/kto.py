"""Preference tuning on single drafts with KTO (Ethayarajh et al. 2024, arXiv:2402.01306).

Knows TRL's `KTOTrainer`; start and reference are the SFT adapter, as in DPO. Knows no registry and
no process around it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.backends import load, named, settings, trl_config
from trainer.checks import examined
from trainer.objectives import kto_weights
from trainer.rows import ROW, Row
from trainer.tuning import Reference, Run, tune


def train(
    run: Run, rows: Sequence[Row], start: Path, *, drop_bad_rows: bool = False
) -> tuple[Any, dict[str, Any]]:
    """Go on with the SFT adapter and save the result to `output` in the run's folder.

    A run that was cut off is resumed from the last whole checkpoint there.

    Args:
        run: job, machine, folder and log; the adapter's shape is that of `start`.
        rows: with "prompt", "completion" and "label" (True: the draft helped).
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
    from transformers import set_seed
    from trl import KTOTrainer

    job, log = run.job, run.log
    set_seed(job.seed)
    _, args = settings(job, "kto", run.machine, run.folder, log.note)
    config = trl_config("kto", args)
    model, tokenizer = load(job, run.machine, lora={}, args=config, start=start)
    kept, measured = examined(
        rows, tokenizer, model, config.max_length, drop=drop_bad_rows, note=log.note
    )
    helped = sum(bool(row["label"]) for row in kept)
    log.note(f"kto continues from the adapter in {start}: {helped} of {len(kept)} drafts helped")
    args = {**kto_weights(helped, len(kept) - helped), **args}
    config.desirable_weight = args["desirable_weight"]
    config.undesirable_weight = args["undesirable_weight"]
    # TRL takes rows in order, and the KL term from a row's neighbours: they should be strangers.
    random.Random(job.seed).shuffle(kept)
    metrics = tune(
        run,
        KTOTrainer,
        model,
        tokenizer,
        kept,
        config,
        reference=Reference(start, losses_at_start(config, kept)),
    )
    return model, {
        "metrics": {**metrics, **measured},
        "hyperparameters": {"preset": job.preset, "objective": "kto", "args": named(args)},
    }


def losses_at_start(config: Any, rows: Sequence[Row]) -> dict[int, float] | None:
    """Each row's loss at step 0, by row number: λ · (1 - σ(0)), as log-ratio and KL are both 0."""
    weight = {True: config.desirable_weight, False: config.undesirable_weight}
    return {row[ROW]: 0.5 * weight[bool(row["label"])] for row in rows}
