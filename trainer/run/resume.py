"""Runs that can be resumed: their names, their last whole checkpoint.

Knows folders and files. Knows no torch, no trainer and no registry.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

CHECKPOINTS = "checkpoints"
_COMPLETE = "complete"  # written into a checkpoint when all of it is there


def run_folder_name(kind: str, **identity: Any) -> str:
    """A run's folder name: the same for the same job on the same rows from the same start.

    Args:
        kind: "sft", "dpo" or "kto".
        identity: plain data that decides what is trained.
    """
    told = json.dumps(identity, sort_keys=True, ensure_ascii=False, default=str)
    return f"{kind}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


def mark_complete(checkpoints: Path, step: int) -> None:
    """Say that the checkpoint of this step is whole; one that a kill cut off has no such mark."""
    (checkpoints / f"checkpoint-{step}" / _COMPLETE).touch()


def last_checkpoint(run: Path, note: Callable[[str], None]) -> str | None:
    """The newest whole checkpoint of a run; those that were cut off are removed.

    Args:
        run: the run's folder.
        note: called with what is resumed, and what was removed.

    Returns:
        Its folder; None when there is none.
    """
    whole: list[tuple[int, Path]] = []
    for folder in sorted((run / CHECKPOINTS).glob("checkpoint-*")):
        if (folder / _COMPLETE).is_file():
            whole.append((_step(folder), folder))
        else:
            shutil.rmtree(folder, ignore_errors=True)  # several processes may be at it
            note(f"removed {folder.name}, which was cut off")
    if not whole:
        return None
    step, newest = max(whole)
    note(f"resumes after step {step}, from {newest.name}")
    return str(newest)


def unfinished(runs: Path) -> list[Path]:
    """The runs that were begun and not registered, the newest last.

    Args:
        runs: the folder `.runs` of a registry.
    """
    found = [folder for folder in runs.glob("*") if (folder / "job.json").is_file()]
    return sorted(found, key=lambda folder: folder.stat().st_mtime)


def state_of(run: Path) -> Mapping[str, Any]:
    """How far an unfinished run is: "step" of its last checkpoint (None: none) and "trained"."""
    folders = (run / CHECKPOINTS).glob("checkpoint-*")
    steps = [_step(folder) for folder in folders if (folder / _COMPLETE).is_file()]
    return {"step": max(steps, default=None), "trained": (run / "result.json").is_file()}


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])
