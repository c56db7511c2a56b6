"""The child process that trains: `python -m trainer.worker job.json [--output FOLDER]`.

Knows the order in which things must be imported, runs one recipe, and leaves its result or its
error as a file. Knows no registry: an adapter is registered by whoever started it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.run.processes import is_main

_PATIENCE = 30.0  # seconds to wait for a worker whose parent was killed


def main(arguments: list[str] | None = None) -> int:
    """Run one training job; the exit code is 0 only when `result.json` is written.

    Args:
        arguments: the command line without the program's name; None for this process's.
    """
    parser = argparse.ArgumentParser(prog="python -m trainer.worker", description=__doc__)
    parser.add_argument("job", type=Path, help="job.json, beside its rows.jsonl")
    parser.add_argument("--output", type=Path, help="the run's folder; default: the job's folder")
    parser.add_argument("--until-eof", action="store_true", help="end when stdin is closed")
    given = parser.parse_args(arguments)
    folder: Path = given.output or given.job.parent
    folder.mkdir(parents=True, exist_ok=True)
    if given.until_eof:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        result = run(given.job, folder)
    except Exception as error:
        # An earlier try's result would say that this one went well.
        (folder / "result.json").unlink(missing_ok=True)
        if is_main() or not (folder / "error.json").exists():
            _write(folder / "error.json", {"type": type(error).__name__, "message": str(error)})
        traceback.print_exc()
        return 1
    if is_main():
        _write(folder / "result.json", result)  # the very last thing: it says that all went well
    return 0


def run(job_file: Path, folder: Path) -> dict[str, Any]:
    """Train what the job says; the adapter lies in `folder/output` afterwards.

    Args:
        job_file: {"kind": "sft", "dpo" or "kto", "job": a TrainingJob, "rows": a JSONL file beside
            it, "start": an adapter's folder or null, "drop_bad_rows": true or false}.
        folder: where log.jsonl, checkpoints/ and output/ go; checkpoints there are resumed from.

    Returns:
        Plain data: backend, machine, metrics, hyperparameters, versions, seconds.
    """
    from cowest_graph.files import held

    if not is_main():  # one of several processes; the first holds the lock
        return _run(job_file, folder)
    # A killed parent's worker may still be at its end.
    with held(folder / "worker.lock", patience=_PATIENCE):
        return _run(job_file, folder)


def _run(job_file: Path, folder: Path) -> dict[str, Any]:
    from trainer import backends
    from trainer.job import TrainingJob
    from trainer.tuning import Run
    from trainer.tuning.watch import RunLog

    began = time.monotonic()
    spec = json.loads(job_file.read_text(encoding="utf-8"))
    job = TrainingJob.from_json(json.dumps(spec["job"]))
    log = RunLog(folder / "log.jsonl" if is_main() else Path(os.devnull))
    backend, reason = backends.choose(job)
    log.note(reason)
    backends.prepare(backend, spec["kind"])  # before anything imports transformers, TRL or PEFT
    machine = backends.machine(job)
    log.note(machine.reason)
    lines = (job_file.parent / spec["rows"]).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    _, result = recipe(spec["kind"])(
        Run(job, machine, folder, log),
        rows,
        Path(spec["start"]) if spec.get("start") else None,
        drop_bad_rows=bool(spec.get("drop_bad_rows")),
    )
    return {
        **result,
        "backend": machine.backend,
        "device": machine.device,
        "precision": machine.precision,
        "versions": backends.versions(machine.backend),
        "seconds": round(time.monotonic() - began, 3),
    }


def recipe(kind: str) -> Callable[..., tuple[Any, dict[str, Any]]]:
    """The recipe's function; each brings its own trainer of TRL's."""
    if kind == "sft":
        from trainer import sft

        return sft.train
    if kind == "kto":
        from trainer import kto

        return kto.train
    from trainer import dpo

    return dpo.train


def _end_with_parent() -> None:
    # The parent holds the other end open and never writes: an end of file means that it is gone.
    # Read below Python's buffers: their lock would abort the interpreter's normal end.
    while os.read(0, 1):
        pass
    os._exit(1)


def _write(path: Path, content: dict[str, Any]) -> None:
    from cowest_graph.files import replace_file

    replace_file(path, json.dumps(content, indent=2, ensure_ascii=False, default=str))


if __name__ == "__main__":
    sys.exit(main())
