"""Traces kept and counted: the TraceStore over SQLite or PostgreSQL, JSONL and `datasets`.

Knows tables and files; one code path for both databases. Knows no model, no graph and no trainer; a
trace carries an adapter's name, nothing more.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.exc import DataError, IntegrityError

from cowest_graph.databases import Database
from cowest_graph.masking import learn_environment, masked, masked_data
from cowest_graph.records import (
    SCHEMA_VERSION,
    Attempt,
    Call,
    Kind,
    Shadow,
    Token,
    Trace,
    trace_key,
)
from cowest_graph.spool import Spool
from cowest_graph.summaries import Summary, Traffic, VersionSummary
from cowest_graph.trace_tables import (
    DRAFTED,
    FAILED,
    JOURNAL,
    SHADOWED,
    TRACES,
    bring_up_to_date,
    put,
    version_of,
)

if TYPE_CHECKING:
    import datasets

__all__ = [
    "SCHEMA_VERSION",
    "Attempt",
    "BadRow",
    "Call",
    "Imported",
    "Kind",
    "Shadow",
    "Summary",
    "Token",
    "Trace",
    "TraceStore",
    "Traffic",
    "VersionSummary",
    "trace_key",
]

_Scored = tuple[float | None, float | None]  # an attempt's score and gain


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
    bad: list[BadRow] = field(default_factory=list)


_PAGE = 100  # traces read in one go


class TraceStore:
    """Traces in SQLite or PostgreSQL, and the journal of those still in flight.

    Safe for several threads and processes: a call is one transaction, writers wait for each other
    (up to 30 s on SQLite), a killed process leaves whole traces only, and a store opened before a
    fork works on both sides of it. Nothing is held open between calls of an iteration.

    >>> with TraceStore(":memory:") as store:
    ...     store.record(Trace(query="6 + 1?", solo="7"))
    ...     [trace.solo for trace in store]
    ['7']
    """

    def __init__(self, url: str | Path) -> None:
        """Open the store, or make it.

        Args:
            url: `sqlite:///traces.db`, `postgresql+psycopg://user:password@host/database`, a bare
                path (SQLite), or `:memory:`. A new SQLite file is readable by its owner only.

        Raises:
            ValueError: for a URL of another database, a database that is not ours, or one from a
                newer version; nothing was changed then. One from an older version is brought up to
                date, in one transaction.
            FileNotFoundError: when the folder of a SQLite file is missing.
            ImportError: when PostgreSQL's driver is not installed.
            sqlalchemy.exc.DBAPIError: what the database says, with the store's URL.
        """
        learn_environment()
        self._database = Database(url)
        self.url = self._database.url
        """The store's URL, without its password."""
        self._spool = Spool(self._database.beside("spool.jsonl"))
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise

    def record(self, trace: Trace) -> None:
        """Insert the trace, or replace the one with its key, and forget the journal of that key.

        Raises:
            pydantic.ValidationError: when the trace was made invalid after its construction.
            sqlalchemy.exc.DBAPIError: what the database says; nothing was written then.
        """
        with self._transaction(writes=True) as connection:
            put(connection, trace)

    def offer(self, trace: Trace) -> bool:
        """Record the trace, or spool it where the store fails; what is served goes on.

        The spool is a file beside a SQLite store (`traces.db.spool.jsonl`, 64 MiB), or memory
        (1,000 traces) where there is no place for a file. It is stored, in order and once, as soon
        as the store takes a trace again. `traffic` tells how many had to wait and how many were
        lost; the log says it once a minute.

        Returns:
            Whether it is in the store now.
        """
        try:
            if self._spool.pending:
                self._spool.drain(self._record_or_lose)
            return self._record_or_lose(trace)
        except Exception as error:
            self._spool.keep(trace, error)
            return False

    def _record_or_lose(self, trace: Trace) -> bool:
        """Record it, unless the trace itself is what the store refuses: it would wait for ever."""
        try:
            self.record(trace)
        except (DataError, IntegrityError, ValueError) as error:
            self._spool.lose(trace, error)
            return False
        return True

    def get(self, key: str) -> Trace | None:
        """The trace with this key; None when there is none."""
        with self._transaction() as connection:
            data = connection.scalar(sa.select(TRACES.c.data).where(TRACES.c.key == key))
        return None if data is None else Trace.model_validate(data)

    def __contains__(self, key: object) -> bool:
        with self._transaction() as connection:
            found = connection.scalar(sa.select(sa.true()).where(TRACES.c.key == key))
        return found is not None

    def __len__(self) -> int:
        with self._transaction() as connection:
            return connection.scalar(sa.select(sa.func.count()).select_from(TRACES)) or 0

    def __bool__(self) -> bool:
        return True  # a store without traces is still a store

    def __iter__(self) -> Iterator[Trace]:
        return self.select()

    def select(
        self,
        *,
        domain: str | None = None,
        weak_version: str | None = None,
        kind: Kind | None = None,
    ) -> Iterator[Trace]:
        """The traces in order of creation, a page at a time, so that memory stays small.

        Args:
            domain: only of this domain; None is any.
            weak_version: only with this adapter; None is any.
            kind: only collections, or only inference; None is either.
        """
        filters = {"domain": domain, "weak_version": weak_version, "kind": kind}
        wanted = [TRACES.c[name] == value for name, value in filters.items() if value is not None]
        page = self._page(wanted, None)
        while page:
            yield from page
            page = self._page(wanted, page[-1])

    def remember(self, key: str, slot: str, part: Mapping[str, Any]) -> None:
        """Keep one finished call of a trace in flight, so that it is not paid for twice.

        The first write of a slot wins: what a call returned may already have been built upon.

        Args:
            key: the trace's key.
            slot: which call, as `solo`, `solo_score`, `draft/3`.
            part: its result as JSON-able data; NaN is none.

        Raises:
            ValueError: when `part` is not JSON-able.
        """
        try:
            json.dumps(dict(part), allow_nan=False)  # PostgreSQL knows no NaN
        except (TypeError, ValueError) as error:
            raise ValueError(f"the part {slot!r} cannot be kept as JSON: {error}") from None
        row = {"trace_key": key, "slot": slot}
        with self._transaction(writes=True) as connection:
            known = sa.select(sa.true()).select_from(JOURNAL).filter_by(**row)
            if connection.scalar(known) is None:
                kept = masked_data(dict(part))
                connection.execute(JOURNAL.insert().values(**row, data=kept))

    def finished(self, key: str) -> dict[str, dict[str, Any]]:
        """The journal of a trace in flight: slot → part. Empty once the trace is recorded."""
        rows = sa.select(JOURNAL.c.slot, JOURNAL.c.data).filter_by(trace_key=key)
        with self._transaction() as connection:
            return {row.slot: row.data for row in connection.execute(rows.order_by("slot"))}

    def summary(self) -> Summary:
        """Counts over all traces: helped, hurt, missing, failed, and means by weak version."""
        total, attempts = Summary(), defaultdict[str | None, list[_Scored]](list)
        for trace in self:
            total.traces += 1
            total.incomplete += not trace.complete
            total.failures.update(call.failure for call in trace.failures if call.failure)
            _count_attempts(total, trace)
            total.by_weak_version.setdefault(trace.weak_version, VersionSummary()).traces += 1
            attempts[trace.weak_version] += [(each.score, each.gain) for each in trace.attempts]
        for version, summary in total.by_weak_version.items():
            summary.mean_score = _mean(score for score, _ in attempts[version])
            summary.mean_gain = _mean(gain for _, gain in attempts[version])
        return total

    def traffic(self) -> dict[str | None, Traffic]:
        """What each weak version did, counted by the database; None is a model without versions."""
        found = defaultdict[str | None, Traffic](Traffic)
        with self._transaction() as connection:
            for row in connection.execute(DRAFTED):
                each = found[row.weak_version]
                each.drafts, each.scored = row.drafts, row.scored
                each.mean_score, each.mean_gain = row.mean_score, row.mean_gain
                each.last_used = _utc(row.last_used)
            for row in connection.execute(SHADOWED):
                each = found[row.weak_version]
                each.shadow_drafts = row.drafts
                used = [time for time in (each.last_used, _utc(row.last_used)) if time]
                each.last_used = max(used, default=None)
            for row in connection.execute(FAILED):
                found[row.weak_version].failures[f"{row.role}: {row.failure}"] = row.times
        for version, times in self._spool.unstored.items():
            found[version].unstored, found[version].lost = times, self._spool.lost[version]
        return dict(found)

    def to_jsonl(self, path: str | Path) -> int:
        """Write every trace as one JSON line, in order of creation; the number of traces.

        The file appears when it is whole, readable by its owner only.

        Raises:
            FileNotFoundError: when the folder is missing.
        """
        path, written = Path(path), 0
        part = path.with_name(path.name + ".part")
        opened = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(opened, "w", encoding="utf-8", newline="\n") as lines:
            for written, trace in enumerate(self, start=1):  # noqa: B007
                lines.write(masked(trace.model_dump_json()) + "\n")
        os.replace(part, path)
        return written

    def from_jsonl(self, path: str | Path, *, skip_bad: bool = False) -> Imported:
        """Add the traces of a JSONL file in one transaction; a known key is replaced.

        Other writers wait meanwhile.

        Args:
            path: the file; blank lines are passed over.
            skip_bad: load the good rows and report the bad ones, instead of refusing the file.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: for the first bad row, with file, line and reason; nothing was added.
        """
        with open(path, "rb") as lines:
            numbered = ((n, line) for n, line in enumerate(lines, start=1) if line.strip())
            return self._import(str(path), numbered, Trace.model_validate_json, skip_bad=skip_bad)

    def to_dataset(self) -> datasets.Dataset:
        """The traces as a `datasets.Dataset`, one row each, in memory.

        Columns are the trace's fields; a reference with several accepted texts stands in
        `references`, since a column holds one type.
        """
        import datasets

        features, rows = _features(), [_to_row(trace) for trace in self]
        columns = {name: [row[name] for row in rows] for name in features}
        return datasets.Dataset.from_dict(columns, features)

    def from_dataset(self, rows: datasets.Dataset) -> Imported:
        """Add the traces of a data set made by `to_dataset`, in one transaction.

        Raises:
            ValueError: for the first bad row, with its number and the reason; nothing was added.
        """
        return self._import("data set", enumerate(rows, start=1), _from_row, skip_bad=False)

    def close(self) -> None:
        """Close the database; what was written stays."""
        self._database.close()

    def __enter__(self) -> TraceStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"TraceStore({self.url!r})"

    def _transaction(self, *, writes: bool = False) -> AbstractContextManager[sa.Connection]:
        return self._database.transaction(writes=writes)

    def _set_up(self) -> None:
        with self._transaction() as connection:
            version = version_of(connection, self.url)
        if version != SCHEMA_VERSION:
            with self._transaction(writes=True) as connection:
                bring_up_to_date(connection, version_of(connection, self.url))
        self._database.share()

    def _page(self, wanted: list[sa.ColumnElement[bool]], last: Trace | None) -> list[Trace]:
        order = sa.tuple_(TRACES.c.created_at, TRACES.c.key)
        page = sa.select(TRACES.c.data).where(*wanted).order_by(*order.clauses).limit(_PAGE)
        if last is not None:
            page = page.where(order > (last.created_at, last.key))
        with self._transaction() as connection:
            return [Trace.model_validate(data) for data in connection.scalars(page)]

    def _import(
        self,
        name: str,
        rows: Iterable[tuple[int, Any]],
        read: Callable[[Any], Trace],
        *,
        skip_bad: bool,
    ) -> Imported:
        added, bad = 0, list[BadRow]()
        with self._transaction(writes=True) as connection:
            for number, row in rows:
                try:
                    put(connection, read(row))
                except ValidationError as error:
                    bad.append(BadRow(name, number, _reason(error)))
                    if not skip_bad:
                        raise ValueError(f"{bad[0]}; nothing was added") from None
                else:
                    added += 1
        return Imported(added, bad)


def _reason(error: ValidationError) -> str:
    # A key that could not be told follows from another error; the input itself may be private.
    found = [each for each in error.errors() if each["type"] != "default_factory_not_called"]
    return "; ".join(f"{'.'.join(map(str, each['loc'])) or 'row'}: {each['msg']}" for each in found)


def _count_attempts(total: Summary, trace: Trace) -> None:
    gains = [attempt.gain for attempt in trace.attempts if attempt.gain is not None]
    total.attempts += len(trace.attempts)
    total.helped += sum(gain > 0 for gain in gains)
    total.hurt += sum(gain <= 0 for gain in gains)
    total.ties += sum(gain == 0 for gain in gains)
    if trace.kind == "collection":  # inference has no evaluator: nothing is missing there
        scores = [trace.solo_score, *(attempt.score for attempt in trace.attempts)]
        total.missing_scores += scores.count(None)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


# Data sets ----------------------------------------------------------------------------------------


def _to_row(trace: Trace) -> dict[str, Any]:
    row = trace.model_dump()
    several = isinstance(trace.reference, list)
    row["references"] = trace.reference if several else None
    row["reference"] = None if several else trace.reference
    return row


def _from_row(row: Mapping[str, Any]) -> Trace:
    fields = dict(row)
    if (several := fields.pop("references", None)) is not None:
        fields["reference"] = several
    return Trace.model_validate(fields)


def _features() -> datasets.Features:
    """The columns' types, so that an empty store and a column of None have them too."""
    import datasets

    text, number, whole = (datasets.Value(name) for name in ("string", "float64", "int64"))
    call = dict.fromkeys(Call.model_fields, text)
    call |= {"input_tokens": whole, "output_tokens": whole, "seconds": number}
    attempt = dict.fromkeys(Attempt.model_fields, text)
    token = {"token": text, "logprob": number, "id": whole}
    attempt |= {"index": whole, "score": number, "gain": number, "calls": [call]}
    attempt |= {"tokens": [token]}
    shadow = {"weak_version": text, "draft": text, "calls": [call]}
    trace = dict.fromkeys([*Trace.model_fields, "references"], text)
    trace |= {"schema_version": whole, "num_drafts": whole, "solo_score": number}
    trace |= {"created_at": datasets.Value("timestamp[us, tz=UTC]"), "references": [text]}
    trace |= {"draft_prompt": [{"role": text, "content": text}]}
    return datasets.Features(trace | {"attempts": [attempt], "calls": [call], "shadow": shadow})
