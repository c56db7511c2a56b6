"""The part of a run that SFT, DPO and KTO share: a TRL trainer, watched, checked, run and saved.

Knows no objective: the caller says which trainer, and what every row's loss at the start must be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.backends import Machine
from trainer.fast.paths import quicken
from trainer.job import TrainingJob
from trainer.rows import Row
from trainer.run.processes import save_adapter
from trainer.run.resume import last_checkpoint
from trainer.tuning.start import check_start, first_step_check
from trainer.tuning.steps import watched
from trainer.tuning.watch import RunLog, step_watch, summary

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers import PreTrainedTokenizerBase as Tokenizer


@dataclass(frozen=True)
class Run:
    """What stays the same from a run's beginning to its end.

    Attributes:
        job: model, preset, objective and overlays.
        machine: from `backends.machine`.
        folder: where log.jsonl, checkpoints/ and output/ are.
        log: the run's log.
    """

    job: TrainingJob
    machine: Machine
    folder: Path
    log: RunLog


@dataclass(frozen=True)
class Reference:
    """Where preference tuning starts, which is also what it is held against.

    Attributes:
        start: the SFT adapter's folder.
        losses: each row's analytic loss at margin 0, by row number; None where there is none.
        base: the base model's folder, to store the reference's log-probabilities for other epochs
            and runs; None to compute them in every step.
    """

    start: Path
    losses: Mapping[int, float] | None
    base: Path | None = None


def tune(
    run: Run,
    trainer_class: Any,
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    rows: Sequence[Row],
    config: Any,
    reference: Reference | None = None,
) -> dict[str, Any]:
    """Train on the rows and save the adapter to `output` in the run's folder.

    A run that was cut off is resumed from the last whole checkpoint there. With a reference, the
    trainer is given neither `peft_config` nor `ref_model`: TRL then freezes a copy of the adapter.

    Args:
        run: for its time limit, and whether its fast paths are wanted.
        trainer_class: TRL's, or a subclass.
        model: the base with the adapter that is trained.
        tokenizer: its tokenizer.
        rows: as `checks.examined` left them.
        config: the trainer's arguments.
        reference: for preference tuning; None for SFT.

    Returns:
        The run's metrics, with those of step 0 where there is a reference.

    Raises:
        RuntimeError: when start or reference is not the SFT adapter.
        ArithmeticError: when the loss stops being a finite number, or explodes.
        OutOfMemory: when a micro-batch does not fit.
    """
    from datasets import Dataset

    trainer = watched(trainer_class)(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(list(rows)),
        processing_class=tokenizer,
    )
    job, log = run.job, run.log
    stored = None
    if job.fast_paths and run.machine.backend == "plain":
        stored = quicken(
            trainer,
            base=reference.base if reference else None,
            start=reference.start if reference else None,
            note=log.note,
        )
    step0: dict[str, Any] = {}
    first = None
    if reference is not None:
        step0 = check_start(trainer, reference.start, losses=reference.losses, stored=stored)
        log.note("step 0: " + ", ".join(f"{name} {value:.6g}" for name, value in step0.items()))
        first = first_step_check(trainer, reference.losses)
    trainer.add_callback(
        step_watch(log, time_limit=job.time_limit, first=first, rows=trainer.data_collator.rows)
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(run.folder, log.note))
    save_adapter(trainer, run.folder / "output")
    return {**summary(trainer), **step0}
