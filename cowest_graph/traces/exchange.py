"""Traces in other places: JSON lines, and `datasets`.

Knows files and rows, good and bad ones. Knows no database: whoever imports says where to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from cowest_graph.files import write_lines
from cowest_graph.masking import masked
from cowest_graph.traces.records import Attempt, Call, Trace

if TYPE_CHECKING:
    import datasets

_PORTION = 200  # traces that are added in one go: other writers come in between
_BOM = b"\xef\xbb\xbf"

Numbered = Iterator[tuple[int, Any]]


class BadRow(NamedTuple):
    """A row that could not be read, and why."""

    file: str
    line: int
    """Counted from 1."""
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.reason}"


@dataclass(frozen=True)
class Imported:
    """What an import did: how many traces were added, and the rows that were not."""

    added: int = 0
    """Traces, new or in the place of one with the same key."""
    bad: list[BadRow] = field(default_factory=list)
    replaced: int = 0
    """Those of them that took the place of one that was there."""


def import_rows(
    name: str,
    rows: Callable[[], Numbered],
    read: Callable[[Any], Trace],
    put: Callable[[list[Trace]], int],
    *,
    skip_bad: bool,
) -> Imported:
    """Read all rows once to see that they are good, then once more to add them in portions.

    Args:
        name: of the source, for what is said of a bad row.
        rows: gives the rows with their numbers, each time anew.
        read: a row as a trace.
        put: adds some traces; how many of them took the place of others.
        skip_bad: leave bad rows out instead of refusing all.

    Raises:
        ValueError: for the first bad row; nothing was added.
    """
    bad: list[BadRow] = []
    for number, row in rows():
        try:
            read(row)
        except (ValidationError, RecursionError) as error:
            bad.append(BadRow(name, number, _reason(error)))
            if not skip_bad:
                raise ValueError(f"{bad[0]}; nothing was added") from None
    wrong = {row.line for row in bad}
    good = (read(row) for number, row in rows() if number not in wrong)
    added = replaced = 0
    while portion := list(islice(good, _PORTION)):
        replaced += put(portion)
        added += len(portion)
    return Imported(added, bad, replaced)


def lines_of(path: Path) -> Callable[[], Numbered]:
    """The lines of a file with their numbers, without blank ones and a byte order mark."""

    def rows() -> Numbered:
        with open(path, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                text = line.removeprefix(_BOM) if number == 1 else line
                if text.strip():
                    yield number, text

    return rows


def write_jsonl(path: Path, traces: Iterable[Trace]) -> int:
    """Write a file of JSON lines that appears when it is whole; the number of traces."""
    return write_lines(path, (masked(trace.model_dump_json()) for trace in traces))


def _reason(error: ValidationError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    # A key that could not be told follows from another error; the input itself may be private.
    found = [each for each in error.errors() if each["type"] != "default_factory_not_called"]
    return "; ".join(f"{'.'.join(map(str, each['loc'])) or 'row'}: {each['msg']}" for each in found)


# Data sets ----------------------------------------------------------------------------------------

_AS_JSON = ("history", "exploration", "route")  # tool calls and free names fit no column


def to_row(trace: Trace) -> dict[str, Any]:
    """A trace as a row of a data set."""
    row = trace.model_dump()
    several = isinstance(trace.reference, list)
    row["references"] = trace.reference if several else None
    row["reference"] = None if several else trace.reference
    for name in _AS_JSON:
        if row[name] is not None:
            row[name] = json.dumps(row[name], ensure_ascii=False)
    return row


def from_row(row: Mapping[str, Any]) -> Trace:
    """The trace of such a row."""
    fields = dict(row)
    if (several := fields.pop("references", None)) is not None:
        fields["reference"] = several
    for name in _AS_JSON:
        if isinstance(told := fields.get(name), str):
            fields[name] = json.loads(told)
    return Trace.model_validate(fields)


def features() -> datasets.Features:
    """The columns' types, so that an empty store and a column of None have them too."""
    import datasets

    text, number, whole = (datasets.Value(name) for name in ("string", "float64", "int64"))
    call = dict.fromkeys(Call.model_fields, text)
    call |= dict.fromkeys(("input_tokens", "output_tokens", "cached_tokens"), whole)
    call |= {"seconds": number}
    attempt = dict.fromkeys(Attempt.model_fields, text)
    token = {"token": text, "logprob": number, "id": whole}
    attempt |= dict.fromkeys(("score", "gain", "score_se", "gain_se"), number)
    attempt |= {"index": whole, "same_as": whole, "calls": [call], "tokens": [token]}
    shadow = {"weak_version": text, "draft": text, "calls": [call]}
    trace = dict.fromkeys([*Trace.model_fields, "references"], text)
    trace |= {"schema_version": whole, "num_drafts": whole, "solo_score": number}
    trace |= {"solo_score_se": number}
    trace |= {"created_at": datasets.Value("timestamp[us, tz=UTC]"), "references": [text]}
    trace |= {"draft_prompt": [{"role": text, "content": text}], "tags": [text]}
    return datasets.Features(trace | {"attempts": [attempt], "calls": [call], "shadow": shadow})
