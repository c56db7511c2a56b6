"""What a training run would do: rows, tokens, steps, disk; nothing is trained.

Knows a job, rows, a tokenizer and the machine. Loads no weights and starts no process.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cowest_graph.adapters import AdapterRegistry
from trainer import backends
from trainer.checks import (
    Fault,
    HeldOut,
    Tokens,
    dropped,
    refusal,
    stop_tokens,
    text_faults,
    token_faults,
    without,
)
from trainer.job import TrainingJob, model_folder
from trainer.presets import Kind
from trainer.rows import Row, Rows, RowsOnDisk
from trainer.run.space import needed_on_disk, size


@dataclass(frozen=True)
class TrainingPlan:
    """What would run. `refused` says why it would not; None where it would."""

    kind: Kind
    objective: str
    preset: str
    start: str | None
    backend: str
    precision: str
    rows: int
    tokens: int
    longest: int
    micro_batch: int
    accumulation: int
    steps: int
    disk: int
    refused: str | None = None
    notes: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain data; disk in bytes."""
        return {**self.__dict__, "notes": list(self.notes)}

    def __str__(self) -> str:
        lines = [
            f"{self.kind}, objective {self.objective}, preset {self.preset}, "
            + (f"from {self.start}" if self.start else "a new adapter"),
            self.backend,
            self.precision,
            f"rows: {self.rows}, tokens: {self.tokens}, longest text: {self.longest}",
            f"steps: {self.steps}, each {self.micro_batch} × {self.accumulation} rows",
            f"disk: up to {size(self.disk)}",
            *self.notes,
        ]
        return "\n".join([*lines, *([f"REFUSED: {self.refused}"] if self.refused else [])])


def plan_training(
    kind: Kind,
    rows: Sequence[Row],
    job: TrainingJob,
    adapters: AdapterRegistry,
    *,
    start: str | None = None,
    held_out: Iterable[str] | HeldOut = (),
    drop_bad_rows: bool = False,
) -> TrainingPlan:
    """Look at everything that a run would look at before its first step, and count the rest.

    Args:
        kind: the recipe: "sft", or `job.recipe`.
        rows: what would be trained on.
        job: model, preset, objective and overlays.
        adapters: the registry that has `start`.
        start: the adapter that training would continue from.
        held_out: queries that must not be trained on.
        drop_bad_rows: as in `train_dpo`.

    Raises:
        ValueError: for a job that lacks something, arguments that TRL or PEFT do not take, a
            `report_to` whose package is not installed, or a tokenizer without a chat template.
        FileNotFoundError: when there is no such model.
        LookupError: when there is no adapter `start`.
        RuntimeError: when the job asks for Unsloth and it cannot run here.
    """
    if start:
        adapters.path(start)
    folder = model_folder(job.model)
    machine, (_, reason) = backends.machine(job), backends.choose(job)
    notes: list[str] = []
    lora, args = backends.settings(job, kind, machine, folder, notes.append)
    backends.trl_config(kind, args)  # what TRL and PEFT would refuse, they refuse here
    if start is None and machine.backend == "plain":
        backends.lora_config(lora)
    tokens, faults = _measured(rows, folder, args, held_out)
    kept = len(rows) - len({fault.row for fault in faults})
    steps = planned_steps(kept if drop_bad_rows else len(rows), args, job.num_processes)
    refused = _refused(rows, faults, drop_bad_rows)
    if faults and drop_bad_rows:
        notes.append(dropped(faults, len(rows)))
    return TrainingPlan(
        kind=kind,
        objective="sft" if kind == "sft" else job.objective,
        preset=job.preset,
        start=start,
        backend=reason,
        precision=machine.reason,
        rows=kept if drop_bad_rows else len(rows),
        tokens=tokens.tokens,
        longest=tokens.longest,
        micro_batch=int(args.get("per_device_train_batch_size", 8)),
        accumulation=int(args.get("gradient_accumulation_steps", 1)),
        steps=steps,
        disk=needed_on_disk(folder),
        refused=refused,
        notes=tuple(notes),
    )


def planned_steps(rows: int, args: Mapping[str, Any], processes: int = 1) -> int:
    """How many optimizer steps transformers' `Trainer` will take.

    >>> planned_steps(100, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4})
    21

    Args:
        rows: that are trained on.
        args: arguments of TRL's config; 3 epochs where they say nothing.
        processes: that train together.
    """
    if (limit := int(args.get("max_steps", -1))) > 0:
        return limit
    batch = int(args.get("per_device_train_batch_size", 8)) * processes
    batches = math.ceil(rows / batch)
    each = max(1, math.ceil(batches / int(args.get("gradient_accumulation_steps", 1))))
    return math.ceil(each * float(args.get("num_train_epochs", 3)))


def _measured(
    rows: Sequence[Row],
    folder: Path,
    args: Mapping[str, Any],
    held_out: Iterable[str] | HeldOut,
) -> tuple[Tokens, list[Fault]]:
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = AutoConfig.from_pretrained(folder).get_text_config()
    generation = (
        GenerationConfig.from_pretrained(folder)
        if (folder / "generation_config.json").is_file()
        else config
    )
    limit = min(args.get("max_length") or 10**9, config.max_position_embeddings)
    held = held_out if isinstance(held_out, HeldOut) else HeldOut(held_out)
    queries = rows.queries if isinstance(rows, Rows | RowsOnDisk) else ()
    faults = text_faults(rows, queries=queries, held_out=held if len(held) else None)
    measured, cut = token_faults(rows, tokenizer, stop_tokens(generation, tokenizer), limit)
    return measured, [*faults, *cut]


def _refused(rows: Sequence[Row], faults: Sequence[Fault], drop: bool) -> str | None:
    if not rows:
        return "there are no rows" + (
            f": {rows.report}" if isinstance(rows, Rows | RowsOnDisk) else ""
        )
    if not faults:
        return None
    if not drop:
        return refusal(faults)
    try:
        without(rows, faults)
    except ValueError as error:
        return str(error)
    return None
