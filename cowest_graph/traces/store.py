"""Traces kept and counted: the TraceStore over SQLite or PostgreSQL.

Knows tables; one code path for both databases. Knows no model, no graph and no trainer; a
trace carries an adapter's name, nothing more.
"""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import DataError, IntegrityError

from cowest_graph.masking import learn_environment, masked_data
from cowest_graph.traces.claims import Claims
from cowest_graph.traces.counts import COUNTS, all_there, fill, row_of, summed
from cowest_graph.traces.databases import Database
from cowest_graph.traces.exchange import (
    Imported,
    features,
    from_row,
    import_rows,
    lines_of,
    to_row,
    write_jsonl,
)
from cowest_graph.traces.feedback import Feedback, given, keep, kept
from cowest_graph.traces.filters import Filter, utc
from cowest_graph.traces.pages import Place, gains_of, page_of
from cowest_graph.traces.records import (
    SCHEMA_VERSION,
    Kind,
    Trace,
)
from cowest_graph.traces.spool import Spool
from cowest_graph.traces.summaries import Summary, Traffic
from cowest_graph.traces.tables import (
    DRAFTED,
    FAILED,
    JOURNAL,
    SHADOWED,
    TRACES,
    bring_up_to_date,
    has_all,
    put,
    version_of,
)

if TYPE_CHECKING:
    import datasets

_PAGE = 100  # traces read in one go
_PROOF = 65536  # characters: a page that happens to have room is no proof
_FILLED = 500  # traces of an older release that are counted in one go


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
        self.claims = Claims(self._database)
        """Who is at work on which trace."""
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
            self._record(connection, trace)

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

    def prove_writable(self) -> None:
        """Write to the store and take it back, as a collection must be able to before it pays.

        Raises:
            PermissionError: for a file or a place that can only be read.
            sqlalchemy.exc.DBAPIError: what the database says, such as that the disk is full.
        """
        key = f"proof-{uuid.uuid4().hex}"
        self.remember(key, "proof", {"text": "x" * _PROOF, "calls": []})
        with self._transaction(writes=True) as connection:
            connection.execute(JOURNAL.delete().filter_by(trace_key=key))

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
        return self.query(domain=domain, weak_version=weak_version, kind=kind)

    def query(
        self,
        *,
        newest_first: bool = False,
        limit: int | None = None,
        after: Place | None = None,
        **wanted: Any,
    ) -> Iterator[Trace]:
        """The traces that are wanted, in order of creation, a page at a time.

        >>> with TraceStore(":memory:") as store:
        ...     store.record(Trace(query="6 + 1?", thread_id="t1", user="ada"))
        ...     [trace.query for trace in store.query(thread_id="t1", failure=False)]
        ['6 + 1?']

        Args:
            newest_first: in the other order.
            limit: traces, at most.
            after: `created_at` and `key` of a trace; what follows it, whether it is still there.
            wanted: fields of `traces.Filter`: kind, domain, weak_version, run_id, thread_id, user,
                tenant, tag, since, until, min_score, max_score, min_gain, max_gain, failure, text.

        Raises:
            TypeError: for a filter that there is not.
        """
        conditions = Filter(**wanted).conditions()
        if wanted.get("failure") is not None:
            self._count()
        return self._pages(conditions, newest_first, limit, after)

    def _pages(
        self,
        wanted: list[sa.ColumnElement[bool]],
        newest_first: bool,
        limit: int | None,
        after: Place | None,
    ) -> Iterator[Trace]:
        left = limit
        while left is None or left > 0:
            size = _PAGE if left is None else min(_PAGE, left)
            with self._transaction() as connection:
                page = page_of(
                    connection, wanted, after=after, newest_first=newest_first, size=size
                )
            yield from page
            if len(page) < size:
                return
            after = (page[-1].created_at, page[-1].key)
            left = None if left is None else left - len(page)

    def feedback(self, **said: Any) -> Feedback:
        """Keep what somebody says of a trace; late, repeated, or before the trace has arrived.

        Nothing is overwritten: of a source and key the latest counts (`traces.latest`).

        >>> with TraceStore(":memory:") as store:
        ...     said = store.feedback(run_id="run-1", key="thumbs", score=1)
        ...     [(each.key, each.score) for each in store.feedbacks(run_id="run-1")]
        [('thumbs', 1.0)]

        Args:
            said: fields of `traces.Feedback`: trace_key or run_id; key; score, value, comment or
                correction; source.

        Returns:
            It, as it was kept.

        Raises:
            ValueError: when it is of nothing, or says nothing.
        """
        feedback = given(**said)
        with self._transaction(writes=True) as connection:
            keep(connection, feedback)
        return feedback

    def feedbacks(
        self, *, trace_key: str | None = None, run_id: str | None = None, key: str | None = None
    ) -> list[Feedback]:
        """What was said, the oldest first; of a trace, also what was said of its run.

        Args:
            trace_key, run_id, key: only of these; None is any.
        """
        with self._transaction() as connection:
            return kept(connection, trace_key=trace_key, run_id=run_id, key=key)

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
        """Counts over all traces: helped, hurt, missing, failed, and means by weak version.

        They are kept beside the traces. What an older release stored is counted at the first call,
        some traces at a time.
        """
        self._count()
        with self._transaction() as connection:
            total = summed(connection)
        return total

    def traffic(self) -> dict[str | None, Traffic]:
        """What each weak version did, counted by the database; None is a model without versions."""
        found = defaultdict[str | None, Traffic](Traffic)
        with self._transaction() as connection:
            for row in connection.execute(DRAFTED):
                each = found[row.weak_version]
                each.drafts, each.scored = row.drafts, row.scored
                each.mean_score, each.mean_gain = row.mean_score, row.mean_gain
                each.last_used = utc(row.last_used)
            for row in connection.execute(SHADOWED):
                each = found[row.weak_version]
                each.shadow_drafts = row.drafts
                used = [time for time in (each.last_used, utc(row.last_used)) if time]
                each.last_used = max(used, default=None)
            for row in connection.execute(FAILED):
                found[row.weak_version].failures[f"{row.role}: {row.failure}"] = row.times
        for version, times in self._spool.unstored.items():
            found[version].unstored, found[version].lost = times, self._spool.lost[version]
        return dict(found)

    def gains(
        self, weak_version: str | None, *, newest: int = 2000
    ) -> list[tuple[datetime, float]]:
        """The gains of a version's drafts and when they were drafted, of its newest traces."""
        with self._transaction() as connection:
            return gains_of(connection, weak_version, newest)

    def to_jsonl(self, path: str | Path) -> int:
        """Write every trace as one JSON line, in order of creation; the number of traces.

        The file appears when it is whole, readable by its owner only.

        Raises:
            FileNotFoundError: when the folder is missing.
        """
        return write_jsonl(Path(path), self)

    def from_jsonl(self, path: str | Path, *, skip_bad: bool = False) -> Imported:
        """Add the traces of a JSONL file; a known key is replaced.

        The whole file is read before the first trace is added, then some traces at a time, so that
        other writers come in between. An import that was killed is made whole by the same again.

        Args:
            path: the file; blank lines are passed over.
            skip_bad: load the good rows and report the bad ones, instead of refusing the file.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: for the first bad row, with file, line and reason; nothing was added.
        """
        rows, read = lines_of(Path(path)), Trace.model_validate_json
        return import_rows(str(path), rows, read, self._put, skip_bad=skip_bad)

    def to_dataset(self) -> datasets.Dataset:
        """The traces as a `datasets.Dataset`, one row each, in memory.

        Columns are the trace's fields; a reference with several accepted texts stands in
        `references`, since a column holds one type.
        """
        import datasets

        named, rows = features(), [to_row(trace) for trace in self]
        columns = {name: [row[name] for row in rows] for name in named}
        return datasets.Dataset.from_dict(columns, named)

    def from_dataset(self, rows: datasets.Dataset) -> Imported:
        """Add the traces of a data set made by `to_dataset`, some at a time.

        Raises:
            ValueError: for the first bad row, with its number and the reason; nothing was added.
        """
        numbered = partial(enumerate, rows, start=1)
        return import_rows("data set", numbered, from_row, self._put, skip_bad=False)

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
            whole = version == SCHEMA_VERSION and has_all(connection)
        if not whole and not self._database.read_only:
            with self._transaction(writes=True) as connection:
                bring_up_to_date(connection, version_of(connection, self.url))
        self._database.share()

    def _put(self, portion: list[Trace]) -> int:
        """Add some traces in one transaction; how many keys were there already."""
        keys = [trace.key for trace in portion]
        known = sa.select(sa.func.count()).select_from(TRACES).where(TRACES.c.key.in_(keys))
        with self._transaction(writes=True) as connection:
            before = connection.scalar(known) or 0
            for trace in portion:
                self._record(connection, trace)
        return before

    def _record(self, connection: sa.Connection, trace: Trace) -> None:
        """The one place where a trace becomes rows; no secret that is known becomes one."""
        # Validated anew: its lists may have been changed since.
        trace = Trace.model_validate(masked_data(trace.model_dump()))
        put(connection, trace)
        connection.execute(COUNTS.insert(), row_of(trace))

    def _count(self) -> None:
        """Count what an older release stored, some traces at a time."""
        while not self._database.read_only and self._fill():
            pass

    def _fill(self) -> int:
        with self._transaction() as connection:
            if all_there(connection):
                return 0
        with self._transaction(writes=True) as connection:
            return fill(connection, _FILLED)
