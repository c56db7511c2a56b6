"""What is watched during training: the losses, the gradients, the time, the checkpoints.

Knows transformers' callbacks; writes a run's log as JSON lines. Knows no recipe, no model loading
and no adapters.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.run.processes import any_process
from trainer.run.resume import mark_complete
from trainer.tuning.steps import named_rows

_SAVE_EVERY = 60.0  # seconds after which a checkpoint is due, beside those by steps


class RunLog:
    """A run's log: one JSON object a line, flushed, so that it can be followed from outside.

    A line is a note (`{"note": …, "seconds": …}`) or a step (`{"step": …, "steps": …, "loss": …,
    "learning_rate": …, "grad_norm": …, "seconds": …}` and what TRL reports beside them, under
    TRL's names). `seconds` counts from the log's making.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._began = time.monotonic()

    def note(self, text: str) -> None:
        """Write down what was decided, and why."""
        self._write({"note": text})

    def step(self, **values: Any) -> None:
        """Write down one step's figures."""
        self._write(values)

    def _write(self, line: Mapping[str, Any]) -> None:
        seconds = round(time.monotonic() - self._began, 3)
        self._file.write(json.dumps({**line, "seconds": seconds}, ensure_ascii=False) + "\n")
        self._file.flush()


def step_watch(
    log: RunLog,
    *,
    time_limit: float | None = None,
    first: Callable[[Mapping[str, Any]], None] | None = None,
    rows: Callable[[int], Sequence[int]] = lambda _: (),
) -> Any:
    """A `transformers.TrainerCallback` that logs every step and ends what should not go on.

    A loss (or, unless fp16 scales it, a gradient) that is not finite raises ArithmeticError with
    the step and its rows; after `time_limit` seconds training ends with the step it is at. Where
    checkpoints are kept, one is also due a minute after the last.

    Args:
        log: where the steps are written.
        time_limit: seconds from the first step on; None for no limit.
        first: called with the first step's figures, before any later step; it may raise.
        rows: gives the rows of the last micro-batches, by how many.
    """
    from transformers import TrainerCallback

    class StepWatch(TrainerCallback):  # type: ignore[misc]  # transformers has no types here
        began = saved = math.inf

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.began = self.saved = time.monotonic()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if not logs or "loss" not in logs:  # the last log is a summary
                return
            figures = {key: float(value) for key, value in logs.items()}
            if state.is_world_process_zero:
                log.step(step=state.global_step, steps=state.max_steps, **_finite(figures))
            for name in ("loss",) if args.fp16 else ("loss", "grad_norm"):
                if not math.isfinite(figures.get(name, 0.0)):
                    blamed = named_rows(rows(args.gradient_accumulation_steps))
                    raise ArithmeticError(
                        f"the {name} is {figures[name]} at step {state.global_step} of "
                        f"{state.max_steps}, which trained on {blamed}; lower the learning rate, "
                        "look at those rows, or take precision='fp32'"
                    )
            if first and state.global_step == 1:
                first(figures)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            now = time.monotonic()
            keeps = str(args.save_strategy) != "SaveStrategy.NO"
            if keeps and any_process(now - self.saved > _SAVE_EVERY):
                control.should_save = True
            if time_limit is None or not any_process(now - self.began >= time_limit):
                return
            if state.global_step < state.max_steps and state.is_world_process_zero:
                log.note(
                    f"stopped by the time limit of {time_limit:g} s after step "
                    f"{state.global_step} of {state.max_steps}"
                )
            control.should_training_stop = True

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.saved = time.monotonic()
            if state.is_world_process_zero:
                mark_complete(Path(args.output_dir), state.global_step)

    return StepWatch()


def summary(trainer: Any) -> dict[str, Any]:
    """What a finished trainer's own log says: first and last loss, steps, seconds of training."""
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    last = trainer.state.log_history[-1] if trainer.state.log_history else {}
    return {
        "steps": trainer.state.global_step,
        "steps_planned": trainer.state.max_steps,
        "epochs": trainer.state.epoch,
        "first_loss": steps[0]["loss"] if steps else None,
        "last_loss": steps[-1]["loss"] if steps else None,
        "mean_loss": last.get("train_loss"),
        "train_seconds": last.get("train_runtime"),
    }


def _finite(figures: Mapping[str, float]) -> dict[str, float | str]:
    # JSON has no NaN: written as text, it stays readable for every parser.
    return {k: v if math.isfinite(v) else str(v) for k, v in figures.items()}
