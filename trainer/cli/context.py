"""What a verb works with: the configuration in use, the rows of a file, how an error is told.

What is in use is kept for the verb that runs (`InUse`), so that errors are told by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer import console
from trainer.cli.advice import advice
from trainer.cli.config import Config


@dataclass
class InUse:
    """The configuration of the verb that runs; the defaults until it is read."""

    config: Config = field(default_factory=Config)

    def told(self, error: BaseException) -> str:
        """What is said of an error."""
        return advice(error, self.config.endpoints())


_in_use: ContextVar[InUse] = ContextVar("in_use")


@contextmanager
def running() -> Iterator[InUse]:
    """Within it one verb runs."""
    token = _in_use.set(InUse())
    try:
        yield _in_use.get()
    finally:
        _in_use.reset(token)


def settings_of(path: Path | None) -> Config:
    """The configuration of `--config`, in use from now on."""
    config = Config.load(path)
    _in_use.get().config = config
    return config


def told(error: BaseException) -> str:
    """What is said of an error, with the endpoints of the configuration in use."""
    return _in_use.get().told(error)


def read_rows(
    path: Path, skip_bad: bool, fields: Mapping[str, str | None] | None = None
) -> list[dict[str, Any]]:
    """The rows of a file; with the flag, malformed ones are told and left out.

    Args:
        path: the file.
        skip_bad: the flag.
        fields: what it calls our fields; None for one that has our name.
    """
    from cowest_graph.collecting import read_queries

    named = {ours: theirs for ours, theirs in (fields or {}).items() if theirs is not None}
    queries, bad = read_queries(path, skip_bad=skip_bad, fields=named)
    for reason in bad:
        console.note(f"left out: {reason}")
    return queries
