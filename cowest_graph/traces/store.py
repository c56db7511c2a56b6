"""Traces kept and counted: the TraceStore over SQLite or PostgreSQL.

Knows tables; `reading` is what can be asked of it. One code path for both databases. Knows no
model, no graph and no trainer; a trace carries an adapter's name, nothing more.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from cowest_graph.masking import (
    NotRedacted,
    Redact,
    Redaction,
    ask_in_errors,
    ask_no_more,
    learn_environment,
    redaction_of,
)
from cowest_graph.traces.beside.claims import Claims
from cowest_graph.traces.beside.feedback import Feedback
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
from cowest_graph.traces.offering import Offering, rows_to_store
from cowest_graph.traces.records import Trace
from cowest_graph.traces.spool import Spool
from cowest_graph.traces.tables import (
    JOURNAL,
    STORE_VERSION,
    bring_up_to_date,
    has_all,
    put,
    version_of,
)

if TYPE_CHECKING:
    import datasets

_PROOF = 65536  # characters: a page that happens to have room is no proof


class TraceStore(Offering):
    """Traces in SQLite or PostgreSQL, and the journal of those still in flight.

    Safe for several threads and processes: a call is one transaction, writers wait for each other
    (up to 30 s on SQLite), a killed process leaves whole traces only, and a store opened before a
    fork works on both sides of it. Nothing is held open between calls of an iteration.

    >>> with TraceStore(":memory:") as store:
    ...     store.record(Trace(query="6 + 1?", solo="7"))
    ...     [trace.solo for trace in store]
    ['7']
    """

    def __init__(
        self,
        url: str | Path,
        *,
        redact: Redact | Redaction | None = None,
        spool: str | Path | None = None,
    ) -> None:
        """Open the store, or make it.

        Args:
            url: `sqlite:///traces.db`, `postgresql+psycopg://user:password@host/database`, a bare
                path (SQLite), or `:memory:`. A new SQLite file is readable by its owner only.
            redact: what texts lose before they are written, here and to any file of the store: a
                function from text to text, names of detectors (`masking.DETECTORS`), or both; see
                docs/privacy.md. The models see the originals.
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
        self.redaction = redaction_of(redact)
        """What is written of a text."""
        self._database = Database(url)
        self.url = self._database.url
        """The store's URL, without its password."""
        self._place = Path(spool).expanduser().absolute() if spool else None
        beside = partial(_beside, self._place) if self._place else self._database.beside
        self._spool = Spool(beside("spool.jsonl"), Trace)
        self._feedback_spool = Spool(beside("feedback.jsonl"), Feedback)
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
        rows = rows_to_store({each.key: each for each in map(self.redacted, traces)}.values())
        if not rows:
            return 0
        with self._transaction(writes=True) as connection:
            return put(connection, rows)

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


def _beside(place: Path, ending: str) -> Path:
    return place.with_name(f"{place.name}.{ending}")
