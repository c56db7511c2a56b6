"""Traces that could not be stored, kept beside the store until it takes them.

Knows traces as JSON lines, a file and a bound. Knows no database: whoever spools says how a trace
is stored.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from cowest_graph.files import held
from cowest_graph.masking import masked
from cowest_graph.traces.records import Trace

log = logging.getLogger(__name__)

_FILE_LIMIT = 64 * 2**20  # bytes
_MEMORY_LIMIT = 1000  # traces, where no file can be written either
_SAY_EVERY = 60.0  # seconds


class Spool:
    """A bounded place for traces whose store is out of order.

    They lie in a file that several processes share; where it cannot be written (a full disk, a
    store without a file), in memory. What comes when both are full is lost, and counted.

    Args:
        path: the file, beside the store; None keeps all in memory.
        file_limit: bytes that the file may have.
        memory_limit: traces that are kept in memory.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        file_limit: int = _FILE_LIMIT,
        memory_limit: int = _MEMORY_LIMIT,
    ) -> None:
        self._path, self._file_limit, self._memory_limit = path, file_limit, memory_limit
        self._waiting: deque[Trace] = deque()
        self._lock = threading.Lock()
        self._said = -_SAY_EVERY
        self.unstored: Counter[str | None] = Counter()
        """Traces of this process that the store did not take at once, by weak version."""
        self.lost: Counter[str | None] = Counter()
        """Those of them that found no place, and are gone."""

    @property
    def pending(self) -> bool:
        """Whether traces wait to be stored."""
        return bool(self._waiting) or (self._path is not None and self._path.exists())

    def keep(self, trace: Trace, error: Exception) -> None:
        """Keep a trace that could not be stored; this never raises.

        Args:
            trace: with its key, so that it is stored once.
            error: what the store said.
        """
        with self._lock:
            self.unstored[trace.weak_version] += 1
            if not self._written(trace):
                self._remembered(trace)
            self._say(error)

    def lose(self, trace: Trace, error: Exception) -> None:
        """Count a trace that no store would take, however often it is offered."""
        self.unstored[trace.weak_version] += 1
        self.lost[trace.weak_version] += 1
        self._say(error)

    def _say(self, error: Exception) -> None:
        now = time.monotonic()
        if now - self._said < _SAY_EVERY:
            return
        self._said = now
        log.error(
            "a trace could not be stored (%s); so far %d had to wait for the store, %d are lost",
            type(error).__name__,
            self.unstored.total(),
            self.lost.total(),
        )

    def drain(self, store: Callable[[Trace], object]) -> None:
        """Store what waits, oldest first; what was stored is not stored again.

        Args:
            store: takes one trace, or raises.

        Raises:
            Exception: what `store` raises; what it did not take waits on.
        """
        with self._lock:
            if self._path is not None and self._path.exists():
                with held(self._path, mode=0o600) as file:
                    _store_lines(file, store)
                    self._path.unlink(missing_ok=True)
            while self._waiting:
                store(self._waiting[0])
                self._waiting.popleft()

    def take_out(
        self, meant: Callable[[Mapping[str, Any]], bool], *, dry_run: bool
    ) -> list[Mapping[str, Any]]:
        """Take traces out of the memory, and not out of the file; what went, as plain data."""
        with self._lock:
            read = [(trace, trace.model_dump(mode="json")) for trace in self._waiting]
            gone: list[Mapping[str, Any]] = [plain for _, plain in read if meant(plain)]
            if not dry_run:
                self._waiting = deque(trace for trace, plain in read if not meant(plain))
        return gone

    def _written(self, trace: Trace) -> bool:
        if self._path is None or self._waiting:  # the order stays
            return False
        line = masked(trace.model_dump_json()).encode() + b"\n"
        try:
            with held(self._path, mode=0o600) as file:
                end = file.seek(0, os.SEEK_END)
                if end + len(line) > self._file_limit:
                    return False
                try:
                    file.write(line)
                    file.flush()
                except OSError:
                    os.ftruncate(file.fileno(), end)  # no half line stays
                    raise
        except OSError:
            return False
        return True

    def _remembered(self, trace: Trace) -> None:
        if len(self._waiting) < self._memory_limit:
            self._waiting.append(trace)
        else:
            self.lost[trace.weak_version] += 1


def _store_lines(file: BinaryIO, store: Callable[[Trace], object]) -> None:
    """Store each line's trace; where one is refused, what is left of the file begins with it."""
    file.seek(0)
    lines = file.read().splitlines(keepends=True)
    for place, line in enumerate(lines):
        try:
            trace = Trace.model_validate_json(line)
        except ValueError:  # torn by a crash
            log.error("a spooled trace is damaged and was left out")
            continue
        try:
            store(trace)
        except Exception:
            rest = b"".join(lines[place:])
            file.seek(0)
            file.write(rest)
            file.truncate(len(rest))
            file.flush()
            raise
