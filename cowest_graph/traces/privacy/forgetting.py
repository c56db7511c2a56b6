"""Forgetting: all that a store holds of a person, a thread or a run, and what is older than it may.

Knows a store's tables and the spools beside it. Knows no adapter: what it returns tells the texts
by which `cowest forget` finds those that were trained on them.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from cowest_graph.traces.beside.claims import CLAIMS
from cowest_graph.traces.beside.feedback import FEEDBACK, Feedback
from cowest_graph.traces.privacy.erasing import erase, secure
from cowest_graph.traces.privacy.redacting import Redacting
from cowest_graph.traces.privacy.spools import Meant, take_out
from cowest_graph.traces.records import Kind, Trace
from cowest_graph.traces.tables import JOURNAL, RUNS, TRACES

if TYPE_CHECKING:
    from cowest_graph.traces.databases import Database
    from cowest_graph.traces.spool import Spool

_PORTION = 500  # traces that are removed in one go: other writers come in between
_Named = Mapping[str, frozenset[str]]  # field → the forms that a name may be stored in


@dataclass(frozen=True)
class Forgotten:
    """What was removed, or would be; all but the texts are counts."""

    traces: int = 0
    journal: int = 0
    """Finished calls of traces that were never whole."""
    feedback: int = 0
    claims: int = 0
    spooled: int = 0
    """Lines of the spools beside the store, and what waits in this process."""
    queries: frozenset[str] = field(default=frozenset(), repr=False)
    """As they were stored: what was trained on them is found by these."""
    keys: frozenset[str] = field(default=frozenset(), repr=False)
    left: str | None = None
    """What is still to be done so that no byte is left in the database; None for nothing."""

    def as_dict(self) -> dict[str, Any]:
        """The counts as plain data; no text."""
        names = ("traces", "journal", "feedback", "claims", "spooled")
        return {name: getattr(self, name) for name in names} | {"left": self.left}

    def __str__(self) -> str:
        return (
            f"{self.traces} traces, {self.feedback} feedback, {self.journal} finished calls of "
            f"traces in flight, {self.claims} claims, {self.spooled} spooled"
        )


@dataclass(frozen=True)
class Pruned:
    """What was removed for its age, or would be."""

    traces: int = 0
    feedback: int = 0
    journal: int = 0
    spooled: int = 0
    left: str | None = None
    """What is still to be done so that no byte is left in the database; None for nothing."""

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return dict(vars(self))

    def __str__(self) -> str:
        return (
            f"{self.traces} traces, {self.feedback} feedback, {self.journal} finished calls of "
            f"traces in flight, {self.spooled} spooled"
        )


class Forgetting(Redacting):
    """What a TraceStore can be told to forget."""

    _database: Database
    _spool: Spool[Trace]
    _feedback_spool: Spool[Feedback]
    _place: Path | None

    def forget(
        self,
        *,
        thread_id: str | None = None,
        user: str | None = None,
        run_id: str | None = None,
        key: str | None = None,
        queries: frozenset[str] = frozenset(),
        derived: bool = True,
        patience: float = 30.0,
        dry_run: bool = False,
    ) -> Forgotten:
        """Remove all that the store holds of a user, a thread, a run or a trace, byte by byte.

        Traces with their attempts and counts, journals, claims, feedback and what waits in the
        spools, also where only feedback has arrived so far. On SQLite no byte is left in the file
        and its log, on PostgreSQL the tables are rewritten (`VACUUM FULL`); `left` says what could
        not be done. What another process has in flight is recorded after this: stop it first, or
        forget again. Killed in the middle, the same again makes it whole.

        >>> from cowest_graph import Trace, TraceStore
        >>> with TraceStore(":memory:") as store:
        ...     store.record(Trace(query="6 + 1?", user="ada"))
        ...     store.forget(user="ada").traces, len(store)
        (1, 0)

        Args:
            thread_id, user, run_id, key: what is forgotten is all of these.
            queries: forget the traces of these queries as well, as another store's `Forgotten` has
                them.
            derived: forget traces that are nobody's and have a query of a forgotten trace, too:
                what a replay or a collection made of it.
            patience: seconds that readers are waited for at the end.
            dry_run: count, and change nothing.

        Raises:
            ValueError: when nothing is named, or a name that is stored redacted may be several's.
            sqlalchemy.exc.DBAPIError: what the database says.
        """
        wanted = {"thread_id": thread_id, "user": user, "run_id": run_id, "key": key}
        named = {name: self._forms(name, told) for name, told in wanted.items() if told is not None}
        if not named and not queries:
            raise ValueError("nothing to forget is named: give thread_id=, user=, run_id= or key=")
        waiting = self._from_spools(_meant(named), dry_run) if named else []
        traces = self._found(named, queries, derived)
        keys = frozenset(traces) | {_key_of(line) for line in waiting if line}
        if set(named) == {"key"}:
            keys |= named["key"]  # a trace in flight, or one that only feedback has arrived of
        told = {run for _, run in traces.values()} | {line.get("run_id") for line in waiting}
        if set(named) == {"run_id"}:
            told |= named["run_id"]
        runs = self._left_by(keys, {run for run in told if run is not None})
        counts = dict.fromkeys(("traces", "journal", "feedback", "claims"), 0)
        for portion in _portions(keys):
            self._remove(portion, counts, dry_run)
        for portion in _portions(runs):
            counts["feedback"] += self._change(FEEDBACK, _of_run_alone(portion), dry_run)
        said = self._from_spools(_about(keys, runs), dry_run)
        return Forgotten(
            **counts,
            spooled=len(waiting) + len(said),
            queries=queries.union(query for query, _ in traces.values()),
            keys=keys,
            left=None if dry_run else erase(self._database, patience=patience),
        )

    def prune(
        self,
        older_than: timedelta,
        *,
        kind: Kind | None = None,
        vacuum: bool = False,
        dry_run: bool = False,
    ) -> Pruned:
        """Remove traces, feedback and journals that are older, some at a time.

        Other processes write between two portions. The room is used again; the file becomes smaller
        with `vacuum`, which on PostgreSQL locks the tables meanwhile.

        Args:
            older_than: by when a trace was made, and feedback was given.
            kind: only collections, or only inference, with their feedback; None is either.
            vacuum: make the database smaller at the end, and leave no byte.
            dry_run: count, and change nothing.

        Raises:
            ValueError: for a time that is not positive.
            sqlalchemy.exc.DBAPIError: what the database says; what was removed stays removed.
        """
        if older_than <= timedelta(0):
            raise ValueError(f"older_than is {older_than}; give a time that has passed")
        until = datetime.now(UTC) - older_than
        old = TRACES.c.created_at < until
        wanted = old if kind is None else sa.and_(old, TRACES.c.kind == kind)
        counts = dict.fromkeys(("traces", "journal", "feedback", "claims"), 0)
        if dry_run:
            self._remove(sa.select(TRACES.c.key).where(wanted), counts, dry_run)
        for portion in () if dry_run else self._oldest(wanted):
            self._remove(portion, counts, dry_run)
        spooled = 0
        if kind is None:
            counts["feedback"] += self._change(FEEDBACK, _old(FEEDBACK, until), dry_run)
            counts["journal"] += self._change(JOURNAL, _old(JOURNAL, until), dry_run)
            spooled = len(self._from_spools(_before(until), dry_run))
        del counts["claims"]
        left = None if dry_run else erase(self._database, rewrite=vacuum)
        return Pruned(**counts, spooled=spooled, left=left)

    def _forms(self, field: str, name: str) -> frozenset[str]:
        """A name as it was stored, with redaction and before there was any."""
        kept = name if field == "key" else self.named(field, name)
        if kept == name or getattr(self.redaction.hook, "distinct", False):
            return frozenset({name, kept})
        raise ValueError(
            f"{field} is stored redacted, as {kept!r}, and so may others' be; give thread_id=, "
            f"run_id= or key=, or {kept!r} itself, to forget all that are stored so"
        )

    def _found(
        self, named: _Named, queries: frozenset[str], derived: bool
    ) -> dict[str, tuple[str, str | None]]:
        """The traces that are meant: key → query and run."""
        found = dict[str, tuple[str, str | None]]()
        of = [RUNS.c[name].in_(forms) for name, forms in named.items() if name != "key"]
        if "key" in named:
            of.append(TRACES.c.key.in_(named["key"]))
        with self._database.transaction() as connection:
            if of:
                found |= _traces(connection, *of)
            asked = queries.union(query for query, _ in found.values())
            for portion in _portions(asked) if derived or queries else ():
                theirs = [TRACES.c.query.in_(portion), RUNS.c.user.is_(None)]
                found |= _traces(connection, *theirs, RUNS.c.thread_id.is_(None))
        return found

    def _left_by(self, keys: Container[str], runs: set[str]) -> set[str]:
        """The runs of which nothing is left when these traces are gone."""
        with self._database.transaction() as connection:
            for portion in _portions(runs):
                of = sa.select(RUNS.c.run_id, RUNS.c.trace_key).where(RUNS.c.run_id.in_(portion))
                stay = {row.run_id for row in connection.execute(of) if row.trace_key not in keys}
                runs = runs - stay
        return runs

    def _remove(self, keys: Any, counts: dict[str, int], dry_run: bool) -> None:
        """Remove these traces and all that is kept beside them, and count it."""
        wanted = {
            "journal": (JOURNAL, JOURNAL.c.trace_key.in_(keys)),
            "claims": (CLAIMS, CLAIMS.c.trace_key.in_(keys)),
            "feedback": (FEEDBACK, FEEDBACK.c.trace_key.in_(keys)),
            "traces": (TRACES, TRACES.c.key.in_(keys)),  # and, by cascade, all that is of them
        }
        with self._database.transaction(writes=not dry_run) as connection:
            for name, (table, condition) in wanted.items():
                counts[name] += _changed(connection, table, condition, dry_run)

    def _change(self, table: sa.Table, wanted: Any, dry_run: bool) -> int:
        with self._database.transaction(writes=not dry_run) as connection:
            return _changed(connection, table, wanted, dry_run)

    def _oldest(self, wanted: Any) -> Iterator[list[str]]:
        """Keys of what is to be removed, until there are none; who waits to write comes in."""
        page = sa.select(TRACES.c.key).where(wanted).order_by(TRACES.c.created_at, TRACES.c.key)
        while True:
            with self._database.transaction() as connection:
                keys = list(connection.scalars(page.limit(_PORTION)))
            if not keys:
                return
            began = time.monotonic()
            yield keys
            time.sleep(time.monotonic() - began)

    def _from_spools(self, meant: Meant, dry_run: bool) -> list[Mapping[str, Any]]:
        gone = take_out(self._place or self._database.file, meant, dry_run=dry_run)
        for spool in (self._spool, self._feedback_spool):
            gone += spool.take_out(meant, dry_run=dry_run)
        return gone


def _traces(connection: sa.Connection, *wanted: Any) -> dict[str, tuple[str, str | None]]:
    of = sa.select(TRACES.c.key, TRACES.c.query, RUNS.c.run_id).join_from(
        TRACES, RUNS, isouter=True
    )
    return {row.key: (row.query, row.run_id) for row in connection.execute(of.where(*wanted))}


def _changed(connection: sa.Connection, table: sa.Table, wanted: Any, dry_run: bool) -> int:
    if dry_run:
        number = sa.select(sa.func.count()).select_from(table).where(wanted)
        return connection.scalar(number) or 0
    secure(connection)
    return connection.execute(table.delete().where(wanted)).rowcount


def _old(table: sa.Table, until: datetime) -> Any:
    return table.c.created_at < until


def _of_run_alone(runs: list[str]) -> Any:
    return sa.and_(FEEDBACK.c.run_id.in_(runs), FEEDBACK.c.trace_key.is_(None))


def _portions(names: Iterable[str]) -> Iterator[list[str]]:
    left = iter(sorted(names))
    while portion := list(islice(left, _PORTION)):
        yield portion


# Lines of spools ----------------------------------------------------------------------------------


def _key_of(line: Mapping[str, Any]) -> str:
    """The key of a trace, or of the one that feedback is of."""
    return str(line["trace_key"] if "trace_key" in line else line.get("key"))


def _meant(named: _Named) -> Meant:
    def meant(line: Mapping[str, Any]) -> bool:
        told = {**line, "key": _key_of(line)}
        return all(told.get(name) in forms for name, forms in named.items())

    return meant


def _about(keys: Container[str], runs: Container[Any]) -> Meant:
    def about(line: Mapping[str, Any]) -> bool:
        if line.get("trace_key", "") is None:  # feedback of a run
            return line.get("run_id") in runs
        return _key_of(line) in keys

    return about


def _before(until: datetime) -> Meant:
    def before(line: Mapping[str, Any]) -> bool:
        try:
            return datetime.fromisoformat(str(line.get("created_at"))) < until
        except (TypeError, ValueError):
            return False

    return before
