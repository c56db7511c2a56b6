"""The choice kept in files: `current.json`, swapped by `os.replace`, and `history.jsonl` beside it.

Knows these two files, also damaged ones. Knows no version's folder and no lock: writers take turns
by `AdapterRegistry`'s.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from cowest_graph.adapters.choices import Choice, Chosen
from cowest_graph.adapters.folders import read_json
from cowest_graph.files import replace_file

REPAIR = "`cowest adapters --repair` (AdapterRegistry.repair) sets it right"


class ChoiceFiles:
    """What is chosen in a folder of adapters, and what was.

    Args:
        folder: the registry's.
    """

    def __init__(self, folder: Path) -> None:
        self._file, self._history = folder / "current.json", folder / "history.jsonl"
        self._cached: tuple[tuple[int, int, int], Chosen] | None = None  # file stamp, choice

    @property
    def chosen(self) -> Chosen:
        """The choice: one stat while nothing changes.

        Raises:
            ValueError: when the file is damaged.
        """
        try:
            stat = os.stat(self._file)
        except FileNotFoundError:
            return Chosen()
        stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        cached = self._cached
        if cached is None or cached[0] != stamp:
            self._cached = cached = (stamp, self.read())
        return cached[1]

    def read(self) -> Chosen:
        """The choice, from the file itself.

        Raises:
            ValueError: when the file is damaged.
        """
        if not self._file.exists():
            return Chosen()
        try:
            return Chosen.from_json(read_json(self._file))
        except ValueError as error:
            raise ValueError(f"{self._file} is damaged ({error}); {REPAIR}") from error

    def write(self, action: str, chosen: Chosen, previous: str | None) -> None:
        """Move the choice, and log it."""
        self.move(chosen)
        self.log(action, chosen.current, previous, chosen)

    def move(self, chosen: Chosen) -> None:
        """Move the choice at once: readers see the old one or the new one."""
        replace_file(self._file, json.dumps(chosen.as_json(), indent=1, ensure_ascii=False))

    def log(self, action: str, version: str | None, previous: str | None, now: Chosen) -> None:
        """Add a line to the history; see `Choice`."""
        line = Choice(
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            action=action,
            version=version,
            previous=previous,
            routes=dict(now.routes),
            shadow=now.shadow,
        )
        begun = "" if self._ends_whole() else "\n"
        with self._history.open("a", encoding="utf-8") as file:
            file.write(begun + json.dumps(line) + "\n")

    def history(self) -> list[Choice]:
        """The lines of the history, the oldest first.

        Raises:
            ValueError: when some are damaged.
        """
        lines, damaged = self.legible()
        if damaged:
            told = ", ".join(map(str, damaged))
            raise ValueError(f"{self._history} is damaged in line {told}; {REPAIR}")
        return lines

    def legible(self) -> tuple[list[Choice], list[int]]:
        """The lines of the history that can be read, and the numbers (from 1) of the others."""
        lines: list[Choice] = []
        damaged = []
        for number, line in enumerate(self._bytes().splitlines(), start=1):
            try:
                content = json.loads(line) if line.strip() else None
            except (json.JSONDecodeError, UnicodeDecodeError):
                content = number
            if isinstance(content, dict) and {"action", "version"} <= set(content):
                lines.append(cast(Choice, content))
            elif content is not None:
                damaged.append(number)
        return lines, damaged

    def numbers(self) -> list[int]:
        """The numbers of all versions named in the history, damaged or not."""
        return [int(number) for number in re.findall(rb'"v(\d+)"', self._bytes())]

    def rewrite(self, lines: Sequence[Choice]) -> str:
        """Put the history aside and write these lines; the name of the file put aside."""
        aside = _put_aside(self._history)
        replace_file(self._history, "".join(json.dumps(line) + "\n" for line in lines))
        return aside

    def put_aside(self) -> str:
        """Rename the choice file; its new name."""
        return _put_aside(self._file)

    def _ends_whole(self) -> bool:
        """Whether no crash has left half a line at the end."""
        try:
            with self._history.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                return file.read() == b"\n"
        except OSError:  # there is none yet, or it is empty
            return True

    def _bytes(self) -> bytes:
        try:
            return self._history.read_bytes()
        except FileNotFoundError:
            return b""


def _put_aside(path: Path) -> str:
    aside = path.with_name(f"{path.name}.damaged-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}")
    path.rename(aside)
    return aside.name
