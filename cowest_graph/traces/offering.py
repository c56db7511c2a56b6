"""Writing while something else goes on: offers that never fail, changes, budgets, late feedback.

Knows the spool, and what is kept beside a trace. The store of whole traces is `TraceStore`, which
this is a part of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DataError, IntegrityError

from cowest_graph.traces.beside.corrections import joined
from cowest_graph.traces.beside.drifts import DriftRun, drifted_since, is_stale, keep_run, moved
from cowest_graph.traces.beside.feedback import Feedback, given, keep
from cowest_graph.traces.beside.spending import Spending, settle
from cowest_graph.traces.counts import COUNTS, row_of
from cowest_graph.traces.privacy import Clean, Forgetting
from cowest_graph.traces.reading import Reading
from cowest_graph.traces.records import Trace
from cowest_graph.traces.tables import Rows, data_of, put, rows_of

if TYPE_CHECKING:
    from cowest_graph.traces.spool import Spool

_REFUSALS = (DataError, IntegrityError, ValueError)  # of the record itself: it would wait for ever


class Offering(Forgetting, Reading):
    """What a TraceStore is given beside whole traces."""

    _spool: Spool[Trace]
    _feedback_spool: Spool[Feedback]

    def record(self, trace: Trace) -> None:
        """Insert the trace (see `TraceStore`)."""
        raise NotImplementedError

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
            self._keep_beside(trace, error)
            return False

    def _keep_beside(self, trace: Trace, error: Exception) -> None:
        try:
            clean = self.redacted(trace)  # what waits is written down, too
        except Exception as refused:
            return self._spool.lose(trace, refused)
        self._spool.keep(clean, error)
        return None

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
                put(connection, rows_to_store([self.redacted(drawn)]))
            return drawn
        except Exception as error:
            drawn = draw(None)
            if isinstance(error, _REFUSALS):
                self._spool.lose(drawn, error)
            else:
                self._keep_beside(drawn, error)
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
            return self.change(trace.key, change) is not None
        except Exception as error:
            self._keep_beside(change(trace), error)
            return False

    def change(self, key: str, changed: Callable[[Trace], Trace]) -> Trace | None:
        """Replace a trace by what is made of it, whatever others wrote meanwhile.

        Args:
            key: of the trace.
            changed: from the trace as it is in the store now; it must be quick, as writers wait.

        Returns:
            What is in the store then; None where there is no such trace.
        """
        with self._transaction(writes=True) as connection:
            data = connection.scalar(data_of(key))
            if data is None:
                return None
            found = self.redacted(changed(Trace.model_validate(data)))
            put(connection, rows_to_store([found]))
            return found

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

    def feedback(self, **said: Any) -> Feedback:
        """Keep what somebody says of a trace; late, repeated, or before the trace has arrived.

        Nothing is overwritten: of a source and key the latest counts (`traces.latest`). While the
        database is gone it waits in the spool, as traces do.

        >>> from cowest_graph import TraceStore
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
            Exception: what the database says, where there is no place in the spool, either.
        """
        feedback = self.feedback_redacted(given(**said))
        try:
            self._keep_feedback(feedback)
        except Exception as error:
            if isinstance(error, _REFUSALS) or not self._feedback_spool.keep(feedback, error):
                raise
            return feedback
        with suppress(Exception):  # what does not fit in now waits on
            self.take_in()
        return feedback

    def keep_drift(self, run: DriftRun) -> None:
        """Keep a time that the strong model was probed; a drift that it found is known from now on.

        Traces from before are stale then (`traces.is_stale`), and calls in flight are forgotten.
        """
        with self._transaction(writes=True) as connection:
            keep_run(connection, DriftRun.model_validate(self.part_redacted(run.model_dump())))

    def set_aside(self, key: str) -> bool:
        """Give a stale trace a key of its own, so that its query can be asked anew.

        Returns:
            Whether there was one.
        """
        if not self.drifted():
            return False
        with self._transaction(writes=True) as connection:
            data = connection.scalar(data_of(key))
            old = None if data is None else Trace.model_validate(data)
            if old is None or not is_stale(old, drifted_since(connection)):
                return False
            put(connection, rows_to_store([Clean(moved(connection, old))]))
            return True


def rows_to_store(traces: Iterable[Clean]) -> Rows:
    """The one place where traces become rows; their type says that they were redacted."""
    rows: Rows = {}
    for trace in traces:
        for table, new in {**rows_of(trace), COUNTS: [row_of(trace)]}.items():
            rows.setdefault(table, []).extend(new)
    return rows
