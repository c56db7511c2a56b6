"""What is watched before and during training: the rows' tokens, the losses, the time.

Knows tokenizers, chat templates and transformers' callbacks; writes a run's log as JSON lines.
Knows no recipe, no model loading and no adapters.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

_NAMED = 5  # rows that an error names one by one


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


def check_rows(
    rows: Sequence[Mapping[str, Any]], tokenizer: Any, stops: Collection[int], limit: int
) -> dict[str, int]:
    """Measure every row's tokens before training, so that nothing is cut away in silence.

    Args:
        rows: TRL rows with "prompt", and "completion" or "chosen" and "rejected".
        tokenizer: with a chat template.
        stops: ids of the tokens that end a turn.
        limit: tokens that prompt and completion may have together.

    Returns:
        The number of rows, of tokens in all, and of the longest text's tokens.

    Raises:
        ValueError: when there is no chat template; a text is longer than the limit; the prompt
            alone is not how the whole text begins (training would differ from serving); or a
            completion does not end with exactly one end-of-turn token.
    """
    if not tokenizer.chat_template:
        raise ValueError(
            "the model's tokenizer has no chat template, and the rows are messages; "
            "take an instruction-tuned model, or put a chat_template.jinja into its folder"
        )
    wrong: list[str] = []
    total = longest = 0
    for number, row in enumerate(rows, start=1):
        prompt = _tokens(tokenizer, row["prompt"], add_generation_prompt=True)
        for part in ("completion", "chosen", "rejected"):
            if part not in row:
                continue
            whole = _tokens(tokenizer, [*row["prompt"], *row[part]])
            total, longest = total + len(whole), max(longest, len(whole))
            if found := _fault(tokenizer, prompt, whole, stops, limit):
                wrong.append(f"row {number} ({_query(row)!r}), {part}: {found}")
    if wrong:
        more = f"\n… and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise ValueError(
            f"{len(wrong)} texts cannot be trained on as they are:\n"
            + "\n".join(wrong[:_NAMED])
            + more
        )
    return {"rows": len(rows), "tokens": total, "longest": longest}


def stop_tokens(model: Any, tokenizer: Any) -> set[int]:
    """The ids of the tokens at which generation stops, by the model's own configuration."""
    named = getattr(model.generation_config, "eos_token_id", None)
    several = named if isinstance(named, list) else [named]
    return {i for i in (*several, tokenizer.eos_token_id) if i is not None}


def step_watch(
    log: RunLog,
    *,
    time_limit: float | None = None,
    first: Callable[[Mapping[str, Any]], None] | None = None,
) -> Any:
    """A `transformers.TrainerCallback` that logs every step and ends what should not go on.

    A loss (or, unless fp16 scales it, a gradient) that is not finite raises ArithmeticError with
    the step; after `time_limit` seconds training ends with the step it is at.

    Args:
        log: where the steps are written.
        time_limit: seconds from the first step on; None for no limit.
        first: called with the first step's figures, before any later step; it may raise.
    """
    from transformers import TrainerCallback

    class StepWatch(TrainerCallback):  # type: ignore[misc]  # transformers has no types here
        began = math.inf

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.began = time.monotonic()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if not logs or "loss" not in logs:  # the last log is a summary
                return
            figures = {key: float(value) for key, value in logs.items()}
            log.step(step=state.global_step, steps=state.max_steps, **_finite(figures))
            for name in ("loss",) if args.fp16 else ("loss", "grad_norm"):
                if not math.isfinite(figures.get(name, 0.0)):
                    raise ArithmeticError(
                        f"the {name} is {figures[name]} at step {state.global_step} of "
                        f"{state.max_steps}; lower the learning rate, or take precision='fp32'"
                    )
            if first and state.global_step == 1:
                first(figures)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if time_limit is None or time.monotonic() - self.began < time_limit:
                return
            if state.global_step < state.max_steps:
                log.note(
                    f"stopped by the time limit of {time_limit:g} s after step "
                    f"{state.global_step} of {state.max_steps}"
                )
            control.should_training_stop = True

    return StepWatch()


def summary(trainer: Any) -> dict[str, Any]:
    """What a finished trainer's own log says: first and last loss, steps, seconds of training."""
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    last = trainer.state.log_history[-1] if trainer.state.log_history else {}
    return {
        "steps": trainer.state.global_step,
        "steps_planned": trainer.state.max_steps,
        "first_loss": steps[0]["loss"] if steps else None,
        "last_loss": steps[-1]["loss"] if steps else None,
        "mean_loss": last.get("train_loss"),
        "train_seconds": last.get("train_runtime"),
    }


def _fault(
    tokenizer: Any, prompt: list[int], whole: list[int], stops: Collection[int], limit: int
) -> str | None:
    if len(whole) > limit:
        return f"{len(whole)} tokens are more than the {limit} that max_length or the model allows"
    if whole[: len(prompt)] != prompt:
        return "the chat template writes the prompt otherwise alone than before a completion"
    said = whole[len(prompt) :]
    ends = [at for at, token in enumerate(said) if token in stops]
    if len(ends) != 1:
        return f"{len(ends)} end-of-turn tokens in the completion, and there must be exactly one"
    if rest := tokenizer.decode(said[ends[0] + 1 :]).strip():
        return f"text after the end-of-turn token: {rest[:40]!r}"
    return None


def _tokens(tokenizer: Any, messages: Any, **options: Any) -> list[int]:
    encoded = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **options)
    return list(encoded["input_ids"])


def _query(row: Mapping[str, Any]) -> str:
    text = str(row["prompt"][-1]["content"])
    return text if len(text) <= 60 else text[:57] + "…"


def _finite(figures: Mapping[str, float]) -> dict[str, float | str]:
    # JSON has no NaN: written as text, it stays readable for every parser.
    return {k: v if math.isfinite(v) else str(v) for k, v in figures.items()}
