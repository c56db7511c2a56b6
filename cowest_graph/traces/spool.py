"""Traces and feedback that could not be stored, kept beside the store until it takes them.

Knows records as JSON lines, a file and a bound. Knows no database: whoever spools says how a record
is stored.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from pydantic import BaseModel

from cowest_graph.files import held
from cowest_graph.masking import masked

log = logging.getLogger(__name__)

_FILE_LIMIT = 64 * 2**20  # bytes
_MEMORY_LIMIT = 1000  # records, where no file can be written either
_SAY_EVERY = 60.0  # seconds

Kept = TypeVar("Kept", bound=BaseModel)


class Spool(Generic[Kept]):
    """A bounded place for records whose store is out of order.

    They lie in a file that several processes share; where it cannot be written (a full disk, a
    store without a file), in memory. What comes when both are full is lost, and counted.

    Args:
        path: the file, beside the store; None keeps all in memory.
        kind: of the records, whose lines are read.
        file_limit: bytes that the file may have.
        memory_limit: records that are kept in memory.
    """

    def __init__(
        self,
        path: Path | None,
        kind: type[Kept],
        *,
        file_limit: int = _FILE_LIMIT,
        memory_limit: int = _MEMORY_LIMIT,
    ) -> None:
        self._path, self._file_limit, self._memory_limit = path, file_limit, memory_limit
        self._kind, self._name = kind, kind.__name__.lower()
        self._waiting: deque[Kept] = deque()
        self._lock = threading.Lock()
        self._said = -_SAY_EVERY
        self.unstored: Counter[str | None] = Counter()
        """Records of this process that the store did not take at once, by weak version."""
        self.lost: Counter[str | None] = Counter()
        """Those of them that found no place, and are gone."""

    @property
    def pending(self) -> bool:
        """Whether records wait to be stored."""
        return bool(self._waiting) or (self._path is not None and self._path.exists())

    def keep(self, record: Kept, error: Exception) -> bool:
        """Keep a record that could not be stored; this never raises.

        Args:
            record: with its key, so that it is stored once.
            error: what the store said.

        Returns:
            Whether there was a place for it.
        """
        with self._lock:
            self.unstored[_version(record)] += 1
            kept = self._written(record) or self._remembered(record)
            self._say(error)
            return kept

    def lose(self, record: Kept, error: Exception) -> None:
        """Count a record that no store would take, however often it is offered."""
        self.unstored[_version(record)] += 1
        self.lost[_version(record)] += 1
        self._say(error)

    def _say(self, error: Exception) -> None:
        now = time.monotonic()
        if now - self._said < _SAY_EVERY:
            return
        self._said = now
        log.error(
            "a %s could not be stored (%s); so far %d had to wait for the store, %d are lost",
            self._name,
            type(error).__name__,
            self.unstored.total(),
            self.lost.total(),
        )

    def drain(self, store: Callable[[Kept], object]) -> None:
        """Store what waits, oldest first; what was stored is not stored again.

        Args:
            store: takes one record, or raises.

        Raises:
            Exception: what `store` raises; what it did not take waits on.
        """
        with self._lock:
            if self._path is not None and self._path.exists():
                with held(self._path, mode=0o600) as file:
                    _store_lines(file, store, self._kind)
                    self._path.unlink(missing_ok=True)
            while self._waiting:
                store(self._waiting[0])
                self._waiting.popleft()

    def take_out(
        self, meant: Callable[[Mapping[str, Any]], bool], *, dry_run: bool
    ) -> list[Mapping[str, Any]]:
        """Take records out of the memory, and not out of the file; what went, as plain data."""
        with self._lock:
            read = [(record, record.model_dump(mode="json")) for record in self._waiting]
            gone: list[Mapping[str, Any]] = [plain for _, plain in read if meant(plain)]
            if not dry_run:
                self._waiting = deque(record for record, plain in read if not meant(plain))
        return gone

    def _written(self, record: Kept) -> bool:
        if self._path is None or self._waiting:  # the order stays
            return False
        line = masked(record.model_dump_json()).encode() + b"\n"
        try:
            with held(self._path, mode=0o600) as file:
                end = file.seek(0, os.SEEK_END)
                if end + len(line) > self._file_limit:
                    return False
                line = _after_a_torn_one(file, end) + line
                try:
                    if file.write(line) < len(line):
                        raise OSError(errno.ENOSPC, "the disk took a part of it")
                except OSError:
                    os.ftruncate(file.fileno(), end)  # no half line stays
                    raise
        except OSError:
            return False
        return True

    def _remembered(self, record: Kept) -> bool:
        if room := len(self._waiting) < self._memory_limit:
            self._waiting.append(record)
        else:
            self.lost[_version(record)] += 1
        return room


def _after_a_torn_one(file: BinaryIO, end: int) -> bytes:
    """What ends the last line, where a crash left half of one."""
    if not end:
        return b""
    file.seek(end - 1)
    return b"" if file.read(1) == b"\n" else b"\n"


def _version(record: BaseModel) -> str | None:
    version: str | None = getattr(record, "weak_version", None)
    return version


def _store_lines(file: BinaryIO, store: Callable[[Kept], object], kind: type[Kept]) -> None:
    """Store each line's record; where one is refused, what is left of the file begins with it."""
    file.seek(0)
    lines = [line for line in file.read().splitlines(keepends=True) if line.strip()]
    for place, line in enumerate(lines):
        try:
            record = kind.model_validate_json(line)
        except ValueError:  # torn by a crash
            log.error("a spooled %s is damaged and was left out", kind.__name__.lower())
            continue
        try:
            store(record)
        except Exception:
            rest = b"".join(lines[place:])
            file.seek(0)
            file.write(rest)
            file.truncate(len(rest))
            file.flush()
            raise
