"""Rows in a file instead of in memory: as many as a store of a million traces gives.

Knows JSON lines and where each begins. Knows no trace and no format of rows.
"""

from __future__ import annotations

import json
import tempfile
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar, overload

Report = TypeVar("Report")


class RowsOnDisk(Sequence[dict[str, Any]], Generic[Report]):
    """Rows in a file without a name, which is gone with them; each is read when it is asked for.

    Sixteen bytes of memory a row. The file is where temporary files are (`TMPDIR`).

    >>> rows = RowsOnDisk([({"prompt": []}, "6 + 1?")], lambda: "1 row")
    >>> rows[0], list(rows.queries), rows.report
    ({'prompt': []}, ['6 + 1?'], '1 row')

    Args:
        rows: each with its query, so that held-out ones are found.
        report: what became of what was given; asked when all rows are there.
    """

    def __init__(
        self, rows: Iterable[tuple[dict[str, Any], str]], report: Callable[[], Report]
    ) -> None:
        self._file, self._lock = tempfile.TemporaryFile(), threading.Lock()  # noqa: SIM115
        self._starts, place = array("Q"), 0
        self._rows = array("Q")  # where the query ends, and the row begins
        for row, query in rows:
            told, text = (json.dumps(each).encode() for each in (query, row))
            self._starts.append(place)
            self._rows.append(place + len(told))
            place += self._file.write(told + text)
        self._starts.append(place)
        self.report: Report = report()
        self.sources: tuple[dict[str, Any], ...] = ()

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, number: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, number: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, number: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        place = range(len(self))[number]  # counted from the end, too
        row: dict[str, Any] = self._read(self._rows[place], self._starts[place + 1])
        return row

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[number] for number in range(len(self)))

    @property
    def queries(self) -> Sequence[str]:
        """Of each row."""
        return _Queries(self)

    def query(self, number: int) -> str:
        """Of one row."""
        place = range(len(self))[number]
        found: str = self._read(self._starts[place], self._rows[place])
        return found

    def _read(self, start: int, end: int) -> Any:
        with self._lock:
            self._file.seek(start)
            return json.loads(self._file.read(end - start))


class _Queries(Sequence[str]):
    def __init__(self, of: RowsOnDisk[Any]) -> None:
        self._of = of

    def __len__(self) -> int:
        return len(self._of)

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number: int | slice) -> str | list[str]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        return self._of.query(number)
