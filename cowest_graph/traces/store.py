"""Traces kept and counted: the TraceStore over SQLite or PostgreSQL.

Knows tables; `reading` is what can be asked of it. One code path for both databases. Knows no
model, no graph and no trainer; a trace carries an adapter's name, nothing more.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import DataError, IntegrityError

from cowest_graph.masking import learn_environment, masked_data
from cowest_graph.traces.claims import Claims
from cowest_graph.traces.corrections import joined
from cowest_graph.traces.counts import COUNTS, row_of
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
from cowest_graph.traces.feedback import Feedback, given, keep
from cowest_graph.traces.reading import Reading
from cowest_graph.traces.records import (
    SCHEMA_VERSION,
    Trace,
)
from cowest_graph.traces.spending import Spending, settle
from cowest_graph.traces.spool import Spool
from cowest_graph.traces.tables import (
    JOURNAL,
    TRACES,
    bring_up_to_date,
    data_of,
    has_all,
    put,
    version_of,
)

if TYPE_CHECKING:
    import datasets

_PROOF = 65536  # characters: a page that happens to have room is no proof
_REFUSALS = (DataError, IntegrityError, ValueError)  # of the record itself: it would wait for ever


class TraceStore(Reading):
    """Traces in SQLite or PostgreSQL, and the journal of those still in flight.

    Safe for several threads and processes: a call is one transaction, writers wait for each other
    (up to 30 s on SQLite), a killed process leaves whole traces only, and a store opened before a
    fork works on both sides of it. Nothing is held open between calls of an iteration.

    >>> with TraceStore(":memory:") as store:
    ...     store.record(Trace(query="6 + 1?", solo="7"))
    ...     [trace.solo for trace in store]
    ['7']
    """

    def __init__(self, url: str | Path, *, spool: str | Path | None = None) -> None:
        """Open the store, or make it.

        Args:
            url: `sqlite:///traces.db`, `postgresql+psycopg://user:password@host/database`, a bare
                path (SQLite), or `:memory:`. A new SQLite file is readable by its owner only.
            spool: where traces and feedback wait while the database is gone, as the beginning of
                two files' names; beside a SQLite file by default. Without one, as for PostgreSQL,
                they wait in memory, and a process that is killed then loses them.

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
        beside = partial(_beside, spool) if spool else self._database.beside
        self._spool = Spool(beside("spool.jsonl"), Trace)
        self._feedback_spool = Spool(beside("feedback.jsonl"), Feedback)
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
            self.take_in()
            return self._record_or_lose(trace)
        except Exception as error:
            self._spool.keep(trace, error)
            return False

    def admit(self, trace: Trace, budget: str, draw: Callable[[Spending | None], Trace]) -> Trace:
        """Offer a trace as it is made of what is left of a budget, in one transaction.

        Args:
            trace: as it would be kept were nothing drawn.
            budget: its name.
            draw: gives the trace as it is to be kept, and reserves; it is called with None where
                the store fails, and nothing can be reserved.

        Returns:
            The trace as it was kept, here or in the spool.
        """
        try:
            self.take_in()
            with self._transaction(writes=True) as connection:
                drawn = draw(Spending(connection, budget))
                self._record(connection, drawn)
            return drawn
        except Exception as error:
            drawn = draw(None)
            if isinstance(error, _REFUSALS):
                self._spool.lose(drawn, error)
            else:
                self._spool.keep(drawn, error)
            return drawn

    def settle(self, reservation: str, tokens: int) -> None:
        """Count what was used of a budget instead of what was reserved (`Spending.reserve`).

        Raises:
            sqlalchemy.exc.DBAPIError: what the database says; what was reserved stays counted.
        """
        with self._transaction(writes=True) as connection:
            settle(connection, reservation, tokens)

    def amend(self, trace: Trace, change: Callable[[Trace], Trace]) -> bool:
        """Change a trace that was offered, in one transaction with reading it; one that is gone
        meanwhile stays gone. Where the store fails, it waits in the spool with the change.

        Args:
            trace: as it was offered.
            change: from the trace that is stored to what it should be.

        Returns:
            Whether it is in the store now.
        """
        try:
            self.take_in()
            with self._transaction(writes=True) as connection:
                data = connection.scalar(data_of(trace.key))
                if data is not None:
                    self._record(connection, change(Trace.model_validate(data)))
                return data is not None
        except Exception as error:
            self._spool.keep(change(trace), error)
            return False

    def take_in(self) -> None:
        """Store what waits in the spool: traces and feedback that found the store out of order.

        Raises:
            Exception: what the store says; what it did not take waits on.
        """
        if self._spool.pending:
            self._spool.drain(self._take_late)
        if self._feedback_spool.pending:
            self._feedback_spool.drain(self._keep_feedback)

    def _take_late(self, trace: Trace) -> None:
        """Record a trace that had to wait; what was added to it meanwhile stays."""
        known = self.get(trace.key)
        self._record_or_lose(trace if known is None else joined(known, trace))

    def _keep_feedback(self, feedback: Feedback) -> None:
        with self._transaction(writes=True) as connection:
            keep(connection, feedback)

    def _record_or_lose(self, trace: Trace) -> bool:
        """Record it, unless the trace itself is what the store refuses: it would wait for ever."""
        try:
            self.record(trace)
        except _REFUSALS as error:
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

    def feedback(self, **said: Any) -> Feedback:
        """Keep what somebody says of a trace; late, repeated, or before the trace has arrived.

        Nothing is overwritten: of a source and key the latest counts (`traces.latest`). While the
        database is gone it waits in the spool, as traces do.

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
            Exception: what the database says, where there is no place in the spool, either.
        """
        feedback = given(**said)
        try:
            self._keep_feedback(feedback)
        except Exception as error:
            if isinstance(error, _REFUSALS) or not self._feedback_spool.keep(feedback, error):
                raise
            return feedback
        with suppress(Exception):  # what does not fit in now waits on
            self.take_in()
        return feedback

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


def _beside(place: str | Path, ending: str) -> Path:
    return Path(f"{place}.{ending}").expanduser().absolute()
