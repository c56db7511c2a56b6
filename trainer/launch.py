"""train_sft and train_dpo: a job becomes a run folder, a child process, and a registered adapter.

Knows the registry, processes and files. Knows no torch: everything heavy happens in the child
(`trainer.worker`), which gives its memory back by ending.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cowest_graph.adapters import AdapterRegistry, base_fingerprint
from trainer.job import Kind, TrainingJob, model_folder
from trainer.rows import Row, Rows, rows_hash

Progress = Callable[[dict[str, Any]], None]

_POLL = 0.2  # seconds between two looks at the child
_TAIL = 25  # lines of the child's output in an error

# The child's environment, where the user's does not say otherwise. A training step on a CPU takes
# and gives back hundreds of MB: glibc would return them to the kernel and fault every page again.
_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
    # Threads that spin while they wait make a step 4 to 10 times slower where the cores are shared.
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONHASHSEED": "0",
    "PYTHONUNBUFFERED": "1",
}


class TrainingError(RuntimeError):
    """A worker that failed or was killed; its run folder is kept and named in the message."""


def train_sft(
    rows: Iterable[Row],
    job: TrainingJob,
    adapters: AdapterRegistry,
    *,
    name: str | None = None,
    progress: Progress | None = None,
) -> str:
    """Train a new adapter on demonstrations, in a child process (paper, section 3.2).

    Args:
        rows: from `demonstrations`, or any prompt-completion rows of TRL's.
        job: model, preset and overlays.
        adapters: where the adapter is registered, once it is trained.
        name: of the new version; None for the registry's next one.
        progress: called with every line of the log as it comes: notes and steps (`RunLog`).

    Returns:
        The new version's name.

    Raises:
        ValueError: for no rows, a name that is taken, or another base model than the registry's.
        FileNotFoundError: when there is no such model.
        TrainingError: when the worker fails or is killed; nothing is registered.
    """
    given = _given(rows, "demonstrations", "nothing to train on")
    return _train("sft", given, job, adapters, None, name, progress)


def train_dpo(
    rows: Iterable[Row],
    job: TrainingJob,
    adapters: AdapterRegistry,
    *,
    start: str | None,
    name: str | None = None,
    progress: Progress | None = None,
) -> str:
    """Teach an SFT adapter what helps the strong model, in a child process (paper, section 3.3).

    Start and reference are the SFT adapter (Algorithm 1, line 26), which is proven at step 0.

    Args:
        rows: from `preferences`, or any preference rows of TRL's.
        job: model, preset and overlays; the adapter's shape is that of `start`.
        adapters: where `start` is, and where the result is registered.
        start: the SFT adapter's name.
        name: of the new version; None for the registry's next one.
        progress: called with every line of the log as it comes: notes and steps (`RunLog`).

    Returns:
        The new version's name.

    Raises:
        ValueError: for no pairs (the message says why there are none), no `start`, a name that is
            taken, or another base model than the registry's.
        LookupError: when there is no adapter `start`.
        FileNotFoundError: when there is no such model.
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
    return _train("dpo", given, job, adapters, start, name, progress)


def _train(
    kind: Kind,
    rows: Sequence[Row],
    job: TrainingJob,
    adapters: AdapterRegistry,
    start: str | None,
    name: str | None,
    progress: Progress | None,
) -> str:
    base_hash = _check_target(job, adapters, name)
    began = datetime.now(UTC)
    run = _run_folder(kind, rows, job, adapters, start)
    _work(run, progress)
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    output = run / "output"
    for file in ("job.json", "rows.jsonl", "log.jsonl"):
        shutil.copyfile(run / file, output / file)
    card = {
        "kind": kind,
        "base": job.model,
        "base_hash": base_hash,
        "parents": [start] if start else [],
        "rows_hash": rows_hash(rows),
        "created_at": began.isoformat(),
        "report": rows.report.as_dict() if isinstance(rows, Rows) else None,
        "seed": job.seed,
        # run inside the adapter's folder, which holds the job and its rows
        "command": "python -m trainer.worker job.json --output REBUILT",
        **result,
    }
    try:
        version = adapters.add(output, card=card, name=name)
    except (OSError, ValueError) as error:
        raise TrainingError(f"trained, but not registered: {error}; it is in {output}") from error
    shutil.rmtree(run)
    return version


def _given(rows: Iterable[Row], what: str, wrong: str) -> Sequence[Row]:
    given = rows if isinstance(rows, Rows) else list(rows)
    if not given:
        why = f": {given.report}" if isinstance(given, Rows) else f": the {what} are empty"
        raise ValueError(wrong + why)
    return given


def _check_target(job: TrainingJob, adapters: AdapterRegistry, name: str | None) -> str:
    """What would fail at the end is told before training; returns the base model's fingerprint."""
    if name is not None and name in adapters:
        raise ValueError(f"the name {name!r} is taken in {adapters.folder}/; choose another one")
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
    kind: Kind,
    rows: Sequence[Row],
    job: TrainingJob,
    adapters: AdapterRegistry,
    start: str | None,
) -> Path:
    run = adapters.folder.resolve() / ".runs" / f"{kind}-{uuid.uuid4().hex[:8]}"
    run.mkdir(parents=True)
    spec = {
        "kind": kind,
        "job": {**asdict(job), "model": str(model_folder(job.model))},
        "rows": "rows.jsonl",
        "start": str(adapters.path(start).resolve()) if start else None,
    }
    (run / "job.json").write_text(json.dumps(spec, indent=2, ensure_ascii=False), "utf-8")
    with (run / "rows.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return run


def _work(run: Path, progress: Progress | None) -> None:
    """Run the worker to its end and hand on its log; it ends with us, whatever ends us."""
    command = [sys.executable, "-m", "trainer.worker", str(run / "job.json")]
    follow = _Follower(run / "log.jsonl", progress)
    with (run / "worker.log").open("wb") as output:
        child = subprocess.Popen(
            [*command, "--until-eof"],
            stdin=subprocess.PIPE,  # an end of file tells the child that this process is gone
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(os.environ),
            start_new_session=True,  # a group of its own, which is ended as a whole
        )
    try:
        while child.poll() is None:
            time.sleep(_POLL)
            follow()
        follow()
    finally:
        _end(child)
    if child.returncode != 0 or not (run / "result.json").is_file():
        raise TrainingError(_failure(child.returncode, run, command))


class _Follower:
    """Hands every whole new line of a growing JSONL file on."""

    def __init__(self, path: Path, progress: Progress | None) -> None:
        self._path, self._progress, self._at = path, progress, 0

    def __call__(self) -> None:
        if self._progress is None or not self._path.is_file():
            return
        with self._path.open("rb") as file:
            file.seek(self._at)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._at += len(whole)
        for line in whole.splitlines():
            self._progress(json.loads(line))


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child's whole group; returns when it is gone."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        if child.poll() is None:
            os.killpg(child.pid, sent)
            try:
                child.wait(timeout=5)
            except subprocess.TimeoutExpired:
                continue
    if child.stdin:
        child.stdin.close()


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    root = str(Path(__file__).resolve().parent.parent)
    paths = [*filter(None, ours.get("PYTHONPATH", "").split(os.pathsep)), root]
    return {
        **_ENVIRONMENT,
        **ours,
        "PYTHONPATH": os.pathsep.join(paths),  # this very package, also where it is not installed
    }


def _failure(code: int | None, run: Path, command: Sequence[str]) -> str:
    """The error's message: how the worker ended, what it said, and where the rest is."""
    if code is not None and code < 0:
        killed = signal.Signals(-code).name
        how = f"the worker was killed by {killed}"
        how += " (by hand, or by the system for want of memory)" if killed == "SIGKILL" else ""
    else:
        how = f"the worker ended with exit code {code}"
    said = (run / "worker.log").read_text(encoding="utf-8", errors="replace").splitlines()
    error = run / "error.json"
    if error.is_file():
        told = json.loads(error.read_text(encoding="utf-8"))
        how += f": {told['type']}: {told['message']}"
        shown = ""
    else:
        shown = "\n".join(["", *said[-_TAIL:]])
    return (
        f"training failed, nothing was registered: {how}{shown}\n"
        f"The run is kept in {run} (worker.log, log.jsonl); again: {shlex.join(command)}"
    )
