"""train_sft and train_dpo: a job becomes a run folder, a child process, and a registered adapter.

Knows the registry, the run's folder and what a worker's end means. Knows no torch: everything heavy
happens in the child (`trainer.worker`), which gives its memory back by ending.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cowest_graph.adapters import WEIGHTS, AdapterRegistry, base_fingerprint, check_name
from cowest_graph.files import held, replace_file
from cowest_graph.traces import Drafted, Trace
from trainer.checks import HeldOut, dropped, refuse, text_faults, without
from trainer.job import TrainingJob, model_folder
from trainer.objectives import OBJECTIVES
from trainer.presets import Kind
from trainer.rows import Row, Rows, RowsOnDisk, label_noise, rows_hash
from trainer.run.cards import name_base, write_model_card
from trainer.run.child import Progress, run_worker
from trainer.run.processes import command
from trainer.run.resume import run_folder_name, state_of
from trainer.run.space import check_disk, smaller_batches

_TAIL = 25  # lines of the child's output in an error


class TrainingError(RuntimeError):
    """A worker that failed or was killed; its run folder is kept and named in the message."""


def train_sft(
    rows: Iterable[Row],
    job: TrainingJob,
    adapters: AdapterRegistry,
    *,
    start: str | None = None,
    name: str | None = None,
    held_out: Iterable[str] | HeldOut = (),
    drop_bad_rows: bool = False,
    progress: Progress | None = None,
) -> str:
    """Train an adapter on demonstrations, in a child process (paper, section 3.2).

    A run that was killed is resumed when it is asked for again: the same job, the same rows.

    Args:
        rows: from `demonstrations`, or any prompt-completion rows of TRL's.
        job: model, preset and overlays.
        adapters: where the adapter is registered, once it is trained.
        start: an adapter to go on with; None for a new one.
        name: of the new version; None for the registry's next one.
        held_out: queries that must not be trained on, or their hashes (`HeldOut`).
        drop_bad_rows: leave faulty rows out and say how many, instead of refusing all.
        progress: called with every line of the log as it comes: notes and steps (`RunLog`).

    Returns:
        The new version's name.

    Raises:
        ValueError: for no rows, faulty rows, a name that is taken, or another base model than the
            registry's.
        LookupError: when there is no adapter `start`.
        FileNotFoundError: when there is no such model.
        OSError: when the disk is too full for the run.
        TrainingError: when the worker fails or is killed; nothing is registered.
    """
    if start:
        adapters.path(start)
    given = _given(rows, "demonstrations", "nothing to train on")
    asked = _Asked("sft", "sft", job, start, name, held_out, drop_bad_rows)
    return _train(given, adapters, asked, progress)


def train_dpo(
    rows: Iterable[Row],
    job: TrainingJob,
    adapters: AdapterRegistry,
    *,
    start: str | None,
    name: str | None = None,
    held_out: Iterable[str] | HeldOut = (),
    drop_bad_rows: bool = False,
    progress: Progress | None = None,
) -> str:
    """Teach an SFT adapter what helps the strong model, in a child process (paper, section 3.3).

    The job's objective says how: DPO (the paper) or one of its kin, KTO, or SFT on the best
    drafts. Start and reference are the SFT adapter (Algorithm 1, line 26), proven at step 0.
    A run that was killed is resumed when it is asked for again: the same job, the same rows.

    Args:
        rows: what the objective wants (`training_rows` makes it): preference rows, unpaired rows
            or prompt-completion rows of TRL's.
        job: model, preset, objective and overlays; the adapter's shape is that of `start`.
        adapters: where `start` is, and where the result is registered.
        start: the SFT adapter's name.
        name: of the new version; None for the registry's next one.
        held_out: queries that must not be trained on, or their hashes (`HeldOut`).
        drop_bad_rows: leave faulty rows out and say how many, instead of refusing all.
        progress: called with every line of the log as it comes: notes and steps (`RunLog`).

    Returns:
        The new version's name.

    Raises:
        ValueError: for no rows (the message says why there are none), faulty rows, rows of another
            objective, no `start`, a name that is taken, or another base model than the registry's.
        LookupError: when there is no adapter `start`.
        FileNotFoundError: when there is no such model.
        OSError: when the disk is too full for the run.
        TrainingError: when the worker fails or is killed; nothing is registered.
    """
    if not start:
        there_are = ", ".join(adapters.names()) or "none yet: train_sft makes one"
        raise ValueError(
            "DPO needs start=, the name of the SFT adapter that it starts from and has as its "
            f"reference (Algorithm 1, line 26); there are: {there_are}"
        )
    adapters.path(start)
    given = _given(rows, "pairs", "no preference pairs to train on")
    _check_columns(job, given)
    asked = _Asked(job.recipe, job.objective, job, start, name, held_out, drop_bad_rows)
    return _train(given, adapters, asked, progress)


def aimed(job: TrainingJob, traces: Iterable[Trace | Drafted]) -> TrainingJob:
    """The job with what its objective must know of the traces and was not told: their label noise.

    Args:
        job: whose `label_noise` stays, where it is set or the objective asks for none.
        traces: that are trained on.
    """
    if job.label_noise is not None or not OBJECTIVES[job.objective].noisy:
        return job
    return replace(job, label_noise=label_noise(traces))


@dataclass(frozen=True)
class _Asked:
    """What a caller asked for beside the rows."""

    kind: Kind
    objective: str
    job: TrainingJob
    start: str | None
    name: str | None
    held_out: Iterable[str] | HeldOut
    drop_bad_rows: bool


def _train(
    rows: Sequence[Row], adapters: AdapterRegistry, asked: _Asked, progress: Progress | None
) -> str:
    job, start = asked.job, asked.start
    base_hash = _check_target(job, adapters, asked.name)
    job.resolved(asked.kind)  # what a job lacks is told before a process starts
    given, rows = len(rows), _checked(rows, asked, progress)
    check_disk(adapters.folder, model_folder(job.model))
    began = datetime.now(UTC)
    run = _run_folder(rows, adapters, asked, base_hash)
    with _alone(run):
        if not state_of(run)["trained"]:
            _work(run, job, progress)
        card = {
            "kind": asked.kind,
            "objective": asked.objective,
            "base": job.model,
            "base_hash": base_hash,
            "parents": [start] if start else [],
            "rows_hash": rows_hash(rows),
            "left_out": given - len(rows),  # faulty rows; what a tokenizer shows is in the metrics
            "created_at": began.isoformat(),
            "report": rows.report.as_dict() if isinstance(rows, Rows | RowsOnDisk) else None,
            "seed": job.seed,
            # run inside the adapter's folder, which holds the job and its rows
            "command": "python -m trainer.worker job.json --output REBUILT",
            **json.loads((run / "result.json").read_text(encoding="utf-8")),
        }
        return _register(run, card, adapters, asked.name)


def _register(run: Path, card: dict[str, Any], adapters: AdapterRegistry, name: str | None) -> str:
    output = run / "output"
    for file in ("job.json", "rows.jsonl", "log.jsonl"):
        shutil.copyfile(run / file, output / file)
    if not Path(card["base"]).expanduser().is_dir():  # a hub's name says more than a cache's path
        name_base(output, card["base"])
    write_model_card(output, card)
    try:
        version = adapters.add(output, card=card, name=name)
    except (OSError, ValueError) as error:
        raise TrainingError(f"trained, but not registered: {error}; it is in {output}") from error
    shutil.rmtree(run)
    return version


def _given(rows: Iterable[Row], what: str, wrong: str) -> Sequence[Row]:
    given = rows if isinstance(rows, Rows | RowsOnDisk) else list(rows)
    if not given:
        why = (
            f": {given.report}"
            if isinstance(given, Rows | RowsOnDisk)
            else f": the {what} are empty"
        )
        raise ValueError(wrong + why)
    return given


def _checked(rows: Sequence[Row], asked: _Asked, progress: Progress | None) -> Sequence[Row]:
    """The rows without those that can be told to be faulty before a process starts."""
    given = asked.held_out
    held_out = given if isinstance(given, HeldOut) else HeldOut(given)
    queries = rows.queries if isinstance(rows, Rows | RowsOnDisk) else ()
    faults = text_faults(rows, queries=queries, held_out=held_out if len(held_out) else None)
    if not faults:
        return rows
    if not asked.drop_bad_rows:
        refuse(faults)
    kept = without(rows, faults)
    if progress:
        progress({"note": dropped(faults, len(rows))})
    return Rows(kept, rows.report) if isinstance(rows, Rows | RowsOnDisk) else kept


def _check_columns(job: TrainingJob, rows: Sequence[Row]) -> None:
    objective = OBJECTIVES[job.objective]
    needed = {
        "preferences": {"prompt", "chosen", "rejected"},
        "unpaired": {"prompt", "completion", "label"},
        "best_drafts": {"prompt", "completion"},
    }[objective.rows]
    lacking = sorted(needed - rows[0].keys())
    if lacking:
        raise ValueError(
            f"the objective {job.objective!r} needs rows with {', '.join(sorted(needed))}, and "
            f"these lack {', '.join(lacking)}; make them by {objective.rows}(traces)"
        )


def _check_target(job: TrainingJob, adapters: AdapterRegistry, name: str | None) -> str:
    """What would fail at the end is told before training; returns the base model's fingerprint."""
    if name is not None:
        check_name(name)
        if name in adapters:
            raise ValueError(f"the name {name!r} is taken in {adapters.folder}/; choose another")
    ours = base_fingerprint(model_folder(job.model))
    known = {version: adapters.card(version).get("base_hash") for version in adapters}
    if adapters.base is not None:
        known[f"base {adapters.base}"] = base_fingerprint(adapters.base)
    for what, theirs in known.items():
        if theirs and theirs != ours:
            raise ValueError(
                f"{adapters.folder}/ is for another base model ({what} has {theirs[:12]}…) than "
                f"{job.model} ({ours[:12]}…); use a registry of its own for it"
            )
    return ours


def _run_folder(
    rows: Sequence[Row], adapters: AdapterRegistry, asked: _Asked, base_hash: str
) -> Path:
    """The run's folder: a new one, or the one of the same run that was cut off."""
    start = adapters.path(asked.start).resolve() if asked.start else None
    spec = {
        "kind": asked.kind,
        "job": {**asdict(asked.job), "model": str(model_folder(asked.job.model))},
        "rows": "rows.jsonl",
        "start": str(start) if start else None,
        "drop_bad_rows": asked.drop_bad_rows,
    }
    begun, trained = _file_hash(start / WEIGHTS) if start else None, rows_hash(rows)
    named = run_folder_name(asked.kind, spec=spec, rows=trained, base=base_hash, start=begun)
    run = adapters.folder.resolve() / ".runs" / named
    if (run / "job.json").is_file():
        return run
    run.mkdir(parents=True, exist_ok=True)
    with (run / "rows.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    _write_spec(run, spec)  # last: a run is there when its job is
    return run


def _write_spec(run: Path, spec: Mapping[str, Any]) -> None:
    replace_file(run / "job.json", json.dumps(spec, indent=2, ensure_ascii=False))


@contextmanager
def _alone(run: Path) -> Iterator[None]:
    try:
        with held(run / "launch.lock", patience=1.0):
            yield
    except BlockingIOError:
        raise TrainingError(
            f"another process is at this very run ({run}): the same job on the same rows; "
            "wait for it, or end it"
        ) from None


def _work(run: Path, job: TrainingJob, progress: Progress | None) -> None:
    """Run the worker until it is done; out of memory, again with smaller micro-batches."""
    launcher = command(job.num_processes, job.accelerate)
    started = [*launcher, "trainer.worker", str(run / "job.json")]
    while True:
        for stale in ("error.json", "result.json"):
            (run / stale).unlink(missing_ok=True)
        code = run_worker(run, started, progress)
        if code == 0 and (run / "result.json").is_file():
            return
        if not _smaller(run, progress):
            raise TrainingError(_failure(code, run, started))


def _smaller(run: Path, progress: Progress | None) -> bool:
    """Out of memory: halve the micro-batch in the run's job; False when that cannot help."""
    error = run / "error.json"
    if not error.is_file() or json.loads(error.read_text("utf-8"))["type"] != "OutOfMemory":
        return False
    spec = json.loads((run / "job.json").read_text("utf-8"))
    job = TrainingJob.from_json(json.dumps(spec["job"]))
    changed = smaller_batches(
        job.resolved(spec["kind"])[1], at_least=2 if job.objective == "kto" else 1
    )
    if changed is None:
        return False
    spec["job"]["args"] = {**job.args, **changed}
    _write_spec(run, spec)
    note = {
        "note": "the memory did not suffice; again with micro-batches of "
        f"{changed['per_device_train_batch_size']}, accumulated "
        f"{changed['gradient_accumulation_steps']} times"
    }
    with (run / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(note) + "\n")
    if progress:
        progress(note)
    return True


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _ended(code: int) -> str:
    if code >= 0:
        return f"the worker ended with exit code {code}"
    killed = signal.Signals(-code).name
    why = " (by hand, or by the system, out of memory)" if killed == "SIGKILL" else ""
    return f"the worker was killed by {killed}{why}"


def _failure(code: int, run: Path, command: Sequence[str]) -> str:
    """The error's message: how the worker ended, what it said, and where the rest is."""
    how = _ended(code)
    said = (run / "worker.log").read_text(encoding="utf-8", errors="replace").splitlines()
    error = run / "error.json"
    if error.is_file():
        told = json.loads(error.read_text(encoding="utf-8"))
        how += f": {told['type']}: {told['message']}"
        shown = ""
    else:
        shown = "\n".join(["", *said[-_TAIL:]])
    step = state_of(run)["step"]
    goes_on = f"after step {step}" if step else "from the start"
    return (
        f"training failed, nothing was registered: {how}{shown}\n"
        f"The run is kept in {run} (worker.log, log.jsonl); asked for again, it resumes {goes_on}. "
        f"By hand: {shlex.join(command)}"
    )
