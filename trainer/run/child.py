"""The worker as a child process: started, followed, ended with whoever started it.

Knows processes, their environment and the run's log. Knows no registry and nothing of what is
trained.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Progress = Callable[[dict[str, Any]], None]

_POLL = 0.2  # seconds between two looks at the child

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


def told(say: Callable[[str], None], what: str) -> Progress:
    """A run's progress as sentences: every note, and every twentieth step.

    Args:
        say: gets the sentences.
        what: the run's name in them.
    """

    def hear(line: dict[str, Any]) -> None:
        if "note" in line:
            say(f"{what}: {line['note']}")
        if "step" in line and (line["step"] % 20 == 0 or line["step"] == line.get("steps")):
            say(f"{what}: step {line['step']}/{line.get('steps')}, loss {line['loss']}")

    return hear


def run_worker(run: Path, command: Sequence[str], progress: Progress | None) -> int:
    """Run the worker to its end and hand on its log; it ends with us, whatever ends us.

    Args:
        run: the run's folder; its log may hold lines of an earlier try, which are not handed on.
        command: the command line.
        progress: called with every new line of the log.

    Returns:
        The exit code; below 0 for a signal.
    """
    follow = _Follower(run / "log.jsonl", progress)
    with (run / "worker.log").open("ab") as output:
        child = subprocess.Popen(
            [*command, "--until-eof"],
            stdin=subprocess.PIPE,  # an end of file tells the child that this process is gone
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(os.environ, run),
            start_new_session=True,  # a group of its own, which is ended as a whole
        )
    try:
        while child.poll() is None:
            time.sleep(_POLL)
            follow()
        follow()
    finally:
        _end(child)
    return child.returncode


class _Follower:
    """Hands every whole new line of a growing JSONL file on."""

    def __init__(self, path: Path, progress: Progress | None) -> None:
        self._path, self._progress = path, progress
        self._at = path.stat().st_size if path.is_file() else 0

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


def _environment(ours: Mapping[str, str], run: Path) -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[2])
    paths = [*filter(None, ours.get("PYTHONPATH", "").split(os.pathsep)), root]
    return {
        **_ENVIRONMENT,
        # Unsloth writes the trainers that it compiles here: not into whatever folder this is, and
        # not where a run beside this one reads.
        "UNSLOTH_COMPILE_LOCATION": str(run / "unsloth_compiled_cache"),
        # TensorBoard's curves outlive the run's folder, which goes when its adapter is registered.
        "TENSORBOARD_LOGGING_DIR": str(run.parent.with_name(".curves") / run.name),
        **ours,
        "PYTHONPATH": os.pathsep.join(paths),  # this very package, also where it is not installed
        # The worker's own children (compilers, data loaders), too, find no module in whatever
        # folder this is: see `processes.command`.
        "PYTHONSAFEPATH": "1",
    }
