"""Traces kept and counted: the TraceStore over SQLite or PostgreSQL.

Knows tables; `reading` is what can be asked of it. One code path for both databases. Knows no
model, no graph and no trainer; a trace carries an adapter's name, nothing more.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import DataError, IntegrityError

from cowest_graph.masking import (
    NotRedacted,
    Redact,
    Redaction,
    ask_in_errors,
    ask_no_more,
    learn_environment,
    redaction_of,
)
from cowest_graph.traces.claims import Claims
from cowest_graph.traces.counts import COUNTS, row_of
from cowest_graph.traces.databases import Database
from cowest_graph.traces.drifts import DriftRun, drifted_since, is_stale, keep_run, moved
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
from cowest_graph.traces.privacy import Clean, Forgetting
from cowest_graph.traces.reading import Reading
from cowest_graph.traces.records import Trace
from cowest_graph.traces.spool import Spool
from cowest_graph.traces.tables import (
    JOURNAL,
    STORE_VERSION,
    TRACES,
    Rows,
    bring_up_to_date,
    has_all,
    put,
    rows_of,
    version_of,
)

if TYPE_CHECKING:
    import datasets

_PROOF = 65536  # characters: a page that happens to have room is no proof


class TraceStore(Forgetting, Reading):
    """Traces in SQLite or PostgreSQL, and the journal of those still in flight.

    Safe for several threads and processes: a call is one transaction, writers wait for each other
    (up to 30 s on SQLite), a killed process leaves whole traces only, and a store opened before a
    fork works on both sides of it. Nothing is held open between calls of an iteration.

    >>> with TraceStore(":memory:") as store:
    ...     store.record(Trace(query="6 + 1?", solo="7"))
    ...     [trace.solo for trace in store]
    ['7']
    """

    def __init__(self, url: str | Path, *, redact: Redact | Redaction | None = None) -> None:
        """Open the store, or make it.

        Args:
            url: `sqlite:///traces.db`, `postgresql+psycopg://user:password@host/database`, a bare
                path (SQLite), or `:memory:`. A new SQLite file is readable by its owner only.
            redact: what texts lose before they are written, here and to any file of the store: a
                function from text to text, names of detectors (`masking.DETECTORS`), or both; see
                docs/privacy.md. The models see the originals.

        Raises:
            ValueError: for a URL of another database, a database that is not ours, or one from a
                newer version; nothing was changed then. One from an older version is brought up to
                date, in one transaction.
            FileNotFoundError: when the folder of a SQLite file is missing.
            ImportError: when PostgreSQL's driver is not installed.
            sqlalchemy.exc.DBAPIError: what the database says, with the store's URL.
        """
        learn_environment()
        self.redaction = redaction_of(redact)
        """What is written of a text."""
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
        if self.redaction.hook is not None:
            ask_in_errors(self.redaction.text)

    def record(self, trace: Trace) -> None:
        """Insert the trace, or replace the one with its key, and forget the journal of that key.

        Raises:
            pydantic.ValidationError: when the trace was made invalid after its construction.
            NotRedacted: when the redact hook fails.
            sqlalchemy.exc.DBAPIError: what the database says; nothing was written then.
        """
        self.record_many([trace])

    def record_many(self, traces: Iterable[Trace]) -> int:
        """Record several traces in one transaction: all of them, or none.

        Many times faster than one after the other, each of which the database makes safe on its
        disk before the next: some hundreds at a time are a good measure, for other writers wait
        meanwhile. What can be done before is done before, so that several processes gain.

        >>> with TraceStore(":memory:") as store:
        ...     store.record_many(Trace(query=f"{n} + 1?") for n in range(3)), len(store)
        (0, 3)

        Args:
            traces: of which the last with a key is kept.

        Returns:
            How many took the place of one that was there.

        Raises:
            pydantic.ValidationError: when a trace was made invalid after its construction.
            NotRedacted: when the redact hook fails.
            sqlalchemy.exc.DBAPIError: what the database says. Nothing was written in either case.
        """
        rows = _rows({each.key: each for each in map(self.redacted, traces)}.values())
        if not rows:
            return 0
        with self._transaction(writes=True) as connection:
            return put(connection, rows)

    def change(self, key: str, changed: Callable[[Trace], Trace]) -> Trace | None:
        """Replace a trace by what is made of it, whatever others wrote meanwhile.

        Args:
            key: of the trace.
            changed: from the trace as it is in the store now; it must be quick, as writers wait.

        Returns:
            What is in the store then; None where there is no such trace.
        """
        with self._transaction(writes=True) as connection:
            data = connection.scalar(sa.select(TRACES.c.data).where(TRACES.c.key == key))
            if data is None:
                return None
            found = self.redacted(changed(Trace.model_validate(data)))
            put(connection, _rows([found]))
            return found

    def keep_drift(self, run: DriftRun) -> None:
        """Keep a time that the strong model was probed; a drift that it found is known from now on.

        Traces from before are stale then (`traces.is_stale`), and calls in flight are forgotten.
        """
        with self._transaction(writes=True) as connection:
            keep_run(connection, run)

    def set_aside(self, key: str) -> bool:
        """Give a stale trace a key of its own, so that its query can be asked anew.

        Returns:
            Whether there was one.
        """
        if not self.drifted():
            return False
        with self._transaction(writes=True) as connection:
            data = connection.scalar(sa.select(TRACES.c.data).where(TRACES.c.key == key))
            old = None if data is None else Trace.model_validate(data)
            if old is None or not is_stale(old, drifted_since(connection)):
                return False
            put(connection, _rows([Clean(moved(connection, old))]))
            return True

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
            self._keep_beside(trace, error)
            return False

    def _keep_beside(self, trace: Trace, error: Exception) -> None:
        try:
            clean = self.redacted(trace)  # what waits is written down, too
        except Exception as refused:
            return self._spool.lose(trace, refused)
        self._spool.keep(clean, error)

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
            ValueError: when it is of nothing, says nothing, or cannot be redacted.
        """
        feedback = self.feedback_redacted(given(**said))
        with self._transaction(writes=True) as connection:
            keep(connection, feedback)
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
        try:
            kept = self.part_redacted(part)
        except NotRedacted:  # counted and logged; the call is made again after a crash
            return
        row = {"trace_key": key, "slot": slot}
        with self._transaction(writes=True) as connection:
            known = sa.select(sa.true()).select_from(JOURNAL).filter_by(**row)
            if connection.scalar(known) is None:
                connection.execute(JOURNAL.insert().values(**row, data=kept))

    def to_jsonl(self, path: str | Path) -> int:
        """Write every trace as one JSON line, in order of creation; the number of traces.

        The file appears when it is whole, readable by its owner only.

        Raises:
            FileNotFoundError: when the folder is missing.
        """
        return write_jsonl(Path(path), self.redacted_ones(self))

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
        return import_rows(str(path), rows, read, self.record_many, skip_bad=skip_bad)

    def to_dataset(self) -> datasets.Dataset:
        """The traces as a `datasets.Dataset`, one row each, in memory.

        Columns are the trace's fields; a reference with several accepted texts stands in
        `references`, since a column holds one type.
        """
        import datasets

        named, rows = features(), [to_row(trace) for trace in self.redacted_ones(self)]
        columns = {name: [row[name] for row in rows] for name in named}
        return datasets.Dataset.from_dict(columns, named)

    def from_dataset(self, rows: datasets.Dataset) -> Imported:
        """Add the traces of a data set made by `to_dataset`, some at a time.

        Raises:
            ValueError: for the first bad row, with its number and the reason; nothing was added.
        """
        numbered = partial(enumerate, rows, start=1)
        return import_rows("data set", numbered, from_row, self.record_many, skip_bad=False)

    def close(self) -> None:
        """Close the database; what was written stays."""
        ask_no_more(self.redaction.text)
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
            whole = version == STORE_VERSION and has_all(connection)
        if not whole and not self._database.read_only:
            with self._transaction(writes=True) as connection:
                bring_up_to_date(connection, version_of(connection, self.url))
        self._database.share()


def _rows(traces: Iterable[Clean]) -> Rows:
    """The one place where traces become rows; their type says that they were redacted."""
    rows: Rows = {}
    for trace in traces:
        for table, new in {**rows_of(trace), COUNTS: [row_of(trace)]}.items():
            rows.setdefault(table, []).extend(new)
    return rows
