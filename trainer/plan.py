"""What a training run would do: rows, tokens, steps, memory, time; nothing is trained.

Knows a job, rows, a tokenizer and the machine. Loads no weights and starts no process.
"""

from __future__ import annotations

import math
import time
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
from trainer.rows import Row, Rows
from trainer.run.space import (
    Memory,
    estimate_memory,
    free_memory,
    needed_on_disk,
    size,
    weight_shapes,
)

_SHARE = 0.4  # of the matmul rate that training reached here, on tiny models and long rows alike


@dataclass(frozen=True)
class Plan:
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
    memory: Memory
    free_memory: int | None
    disk: int
    seconds: float | None
    seconds_by: str
    refused: str | None = None
    notes: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain data; memory and disk in bytes."""
        return {**self.__dict__, "memory": self.memory.as_dict(), "notes": list(self.notes)}

    def __str__(self) -> str:
        free = "" if self.free_memory is None else f" of {size(self.free_memory)} that are free"
        took = "not known" if self.seconds is None else duration(self.seconds)
        lines = [
            f"{self.kind}, objective {self.objective}, preset {self.preset}, "
            + (f"from {self.start}" if self.start else "a new adapter"),
            self.backend,
            self.precision,
            f"rows: {self.rows}, tokens: {self.tokens}, longest text: {self.longest}",
            f"steps: {self.steps}, each {self.micro_batch} × {self.accumulation} rows",
            f"memory: about {self.memory}{free}",
            f"disk: up to {size(self.disk)}",
            f"time: {took} ({self.seconds_by})",
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
) -> Plan:
    """Look at everything that a run would look at before its first step, and estimate the rest.

    Args:
        kind: the recipe: "sft", or `job.recipe`.
        rows: what would be trained on.
        job: model, preset, objective and overlays.
        adapters: the registry; earlier runs on the same base say how fast this machine trains.
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
    batch = int(args.get("per_device_train_batch_size", 8))
    times = int(args.get("gradient_accumulation_steps", 1))
    steps = planned_steps(kept if drop_bad_rows else len(rows), args, job.num_processes)
    memory = estimate_memory(
        folder,
        lora,
        args,
        kind=kind,
        precision=machine.precision,
        longest=min(tokens.longest, int(args.get("max_length") or tokens.longest)),
        load_in_4bit=job.load_in_4bit,
    )
    free = _free(machine.device)
    if free is not None and memory.total > free:
        notes.append("WARNING: the memory may not suffice; micro-batches will be halved if so")
    refused = _refused(rows, faults, drop_bad_rows)
    if faults and drop_bad_rows:
        notes.append(dropped(faults, len(rows)))
    trained = tokens.tokens * steps * batch * times * job.num_processes / max(1, len(rows))
    seconds, by = _seconds(kind, trained, folder, args, adapters, machine)
    return Plan(
        kind=kind,
        objective="sft" if kind == "sft" else job.objective,
        preset=job.preset,
        start=start,
        backend=reason,
        precision=machine.reason,
        rows=kept if drop_bad_rows else len(rows),
        tokens=tokens.tokens,
        longest=tokens.longest,
        micro_batch=batch,
        accumulation=times,
        steps=steps,
        memory=memory,
        free_memory=free,
        disk=needed_on_disk(folder),
        seconds=seconds,
        seconds_by=by,
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


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(40), duration(600), duration(9000)
    ('about 40 s', 'about 10 min', 'about 2.5 h')
    """
    if seconds < 120:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 7200 else f"about {seconds / 3600:.1f} h"


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
    queries = rows.queries if isinstance(rows, Rows) else ()
    faults = text_faults(rows, queries=queries, held_out=held if len(held) else None)
    measured, cut = token_faults(rows, tokenizer, stop_tokens(generation, tokenizer), limit)
    return measured, [*faults, *cut]


def _refused(rows: Sequence[Row], faults: Sequence[Fault], drop: bool) -> str | None:
    if not rows:
        return "there are no rows" + (f": {rows.report}" if isinstance(rows, Rows) else "")
    if not faults:
        return None
    if not drop:
        return refusal(faults)
    try:
        without(rows, faults)
    except ValueError as error:
        return str(error)
    return None


def _free(device: str) -> int | None:
    if device != "cuda":
        return free_memory()
    import torch

    return int(torch.cuda.mem_get_info()[0])


def _seconds(
    kind: Kind,
    tokens: float,
    folder: Path,
    args: Mapping[str, Any],
    adapters: AdapterRegistry,
    machine: backends.Machine,
) -> tuple[float | None, str]:
    """Seconds of training: by the last run of this kind on this machine, or by its matmul rate."""
    for name in reversed(adapters.names()):
        card: Mapping[str, Any] = adapters.card(name)
        metrics = card.get("metrics") or {}
        took, seen, done = (metrics.get(n) for n in ("train_seconds", "tokens", "epochs"))
        same = (card.get("kind"), card.get("device"), card.get("precision")) == (
            kind,
            machine.device,
            machine.precision,
        )
        if same and took and seen and done:
            return tokens / (seen * done / took), f"by {name}: {seen * done / took:.0f} tokens/s"
    parameters = sum(math.prod(shape) for shape in weight_shapes(folder).values())
    passes = 4 + 2 * bool(args.get("gradient_checkpointing")) + 2 * (kind != "sft")
    rate = _matmul_rate(machine)
    said = f"by a matmul rate of {rate / 1e9:.0f} GFLOP/s, {_SHARE:.0%} of it reached; a guess"
    return tokens * parameters * passes / (rate * _SHARE), said


def _matmul_rate(machine: backends.Machine) -> float:
    """FLOP/s of a square product, in the run's precision on the run's device."""
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    side = 8192 if machine.device == "cuda" else 768
    one = torch.randn(side, side, device=machine.device).to(dtype[machine.precision])
    best = math.inf
    for _ in range(4):
        began = time.perf_counter()
        (one @ one).sum().item()  # the item waits for the device
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best
