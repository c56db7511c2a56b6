"""Preference tuning of the weak model with DPO (paper, section 3.3, Equation 2) and its kin.

Knows TRL's `DPOTrainer`, and that start and reference are the SFT adapter (Algorithm 1, line 26).
Knows no registry and no process around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.backends import load, named, settings, trl_config
from trainer.checks import examined
from trainer.job import TrainingJob, model_folder
from trainer.objectives import (
    OBJECTIVES,
    doubt_weights,
    gain_weights,
    start_loss,
    weighted_start_loss,
)
from trainer.rows import ROW, Row
from trainer.tuning import Reference, Run, tune
from trainer.tuning.weighted import weighted


def train(
    run: Run, rows: Sequence[Row], start: Path, *, drop_bad_rows: bool = False
) -> tuple[Any, dict[str, Any]]:
    """Go on with the SFT adapter and save the result to `output` in the run's folder.

    A run that was cut off is resumed from the last whole checkpoint there.

    Args:
        run: job, machine, folder and log; the adapter's shape is that of `start`.
        rows: preference rows with "prompt", "chosen", "rejected".
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

    job, log = run.job, run.log
    set_seed(job.seed)
    _, args = settings(job, "dpo", run.machine, run.folder, log.note)
    config = trl_config("dpo", args)
    model, tokenizer = load(job, run.machine, lora={}, args=config, start=start)
    log.note(f"{job.objective} continues from the adapter in {start} and keeps its shape")

    kept, measured = examined(
        rows, tokenizer, model, config.max_length, drop=drop_bad_rows, note=log.note
    )
    kept = with_gains(job, kept)
    metrics = tune(
        run,
        trainer_class(job),
        model,
        tokenizer,
        kept,
        config,
        reference=Reference(start, losses_at_start(config, kept), base=model_folder(job.model)),
    )
    return model, {
        "metrics": {**metrics, **measured},
        "hyperparameters": {"preset": job.preset, "objective": job.objective, "args": named(args)},
    }


def trainer_class(job: TrainingJob) -> Any:
    """The trainer for the job's objective: TRL's own, or one that weighs pairs."""
    from trl import DPOTrainer

    wanted = OBJECTIVES[job.objective]
    return weighted(DPOTrainer) if wanted.gains or wanted.doubts else DPOTrainer


def with_gains(job: TrainingJob, rows: list[Row]) -> list[Row]:
    """The rows with the columns "weight" and "offset", where the objective reads gains or doubts.

    Raises:
        ValueError: when a row does not carry its gains, or its doubt.
    """
    if OBJECTIVES[job.objective].doubts:
        return _with_doubts(rows)
    if not OBJECTIVES[job.objective].gains:
        return rows
    if lacking := [row[ROW] for row in rows if not {"chosen_gain", "rejected_gain"} <= row.keys()]:
        raise ValueError(
            f"the objective {job.objective!r} needs the drafts' gains, and {len(lacking)} rows "
            f"have none (the first is row {lacking[0]}); make them by "
            "preferences(traces, gains=True)"
        )
    gaps = [row["chosen_gain"] - row["rejected_gain"] for row in rows]
    weighted = job.objective == "weighted"  # else the gain is a margin
    return [
        {**row, "weight": scaled if weighted else 1.0, "offset": 0.0 if weighted else scaled}
        for row, scaled in zip(rows, gain_weights(gaps), strict=True)
    ]


def _with_doubts(rows: list[Row]) -> list[Row]:
    if lacking := [row[ROW] for row in rows if "doubt" not in row]:
        raise ValueError(
            f"the objective 'certain' needs the chance that a pair is the wrong way round, and "
            f"{len(lacking)} rows have none (the first is row {lacking[0]}); make them by "
            "preferences(traces, doubts=True)"
        )
    weights = doubt_weights([row["doubt"] for row in rows])
    return [{**row, "weight": one, "offset": 0.0} for row, one in zip(rows, weights, strict=True)]


def losses_at_start(config: Any, rows: Sequence[Row]) -> dict[int, float] | None:
    """Each row's analytic loss when its margin is 0, by row number; None where there is none."""
    if "weight" in rows[0]:
        return {row[ROW]: weighted_start_loss([row["weight"]], [row["offset"]]) for row in rows}
    alike = start_loss(
        config.loss_type,
        beta=config.beta,
        label_smoothing=config.label_smoothing,
        weights=config.loss_weights,
    )
    if alike is None or config.use_weighting:
        return None
    return {row[ROW]: alike for row in rows}
