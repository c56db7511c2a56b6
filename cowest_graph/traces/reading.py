"""Reading a store: traces by filters, feedback, journals, and what is counted over them.

Knows queries and pages; writes nothing but counts that an older release did not keep. The store
that writes is `TraceStore`, which this is a part of.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from cowest_graph.traces.beside.corrections import taught
from cowest_graph.traces.beside.drifts import DRIFTS, DriftRun, drifted_since, runs_of
from cowest_graph.traces.beside.feedback import Feedback, kept, latest
from cowest_graph.traces.counts import all_there, fill, summed
from cowest_graph.traces.drafted import Drafted
from cowest_graph.traces.filters import Filter, utc
from cowest_graph.traces.pages import Place, drafted_page, gains_of, page_of
from cowest_graph.traces.records import Kind, Trace
from cowest_graph.traces.summaries import Summary, Traffic
from cowest_graph.traces.tables import DRAFTED, FAILED, JOURNAL, SHADOWED, TRACES, data_of

if TYPE_CHECKING:
    from cowest_graph.traces.databases import Database
    from cowest_graph.traces.spool import Spool

_PAGE = 100  # traces read in one go
_DRAFTED = 500  # of which only what pairs need is kept
_FILLED = 500  # traces of an older release that are counted in one go


class Reading:
    """What a TraceStore can be asked."""

    _database: Database
    _spool: Spool[Trace]
    _counted = False

    def get(self, key: str) -> Trace | None:
        """The trace with this key; None when there is none."""
        with self._transaction() as connection:
            data = connection.scalar(data_of(key))
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

        >>> from cowest_graph import TraceStore
        >>> with TraceStore(":memory:") as store:
        ...     store.record(Trace(query="6 + 1?", thread_id="t1", user="ada"))
        ...     [trace.query for trace in store.query(thread_id="t1", failure=False)]
        ['6 + 1?']

        Args:
            newest_first: in the other order.
            limit: traces, at most.
            after: `created_at` and `key` of a trace; what follows it, whether it is still there.
            wanted: fields of `traces.Filter`: kind, domain, weak_version, evaluator, run_id,
                thread_id, user, tenant, tag, since, until, min_score, max_score, min_gain,
                max_gain, failure, text.

        Raises:
            TypeError: for a filter that there is not.
        """
        conditions = Filter(**wanted).conditions()
        if wanted.get("failure") is not None:
            self._count()
        return self._pages(conditions, newest_first, limit, after)

    def drafted(self, **wanted: Any) -> Iterator[Drafted]:
        """What pairs need of the traces that are wanted, in order of creation, and nothing else.

        As `query`, and three times as fast: for stores of hundreds of thousands of traces.

        Args:
            wanted: fields of `traces.Filter`.
        """
        conditions, after, more = Filter(**wanted).conditions(), None, True
        while more:
            with self._transaction() as connection:
                page, after = drafted_page(connection, conditions, after=after, size=_DRAFTED)
            yield from page
            more = after is not None

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

    def feedbacks(
        self, *, trace_key: str | None = None, run_id: str | None = None, key: str | None = None
    ) -> list[Feedback]:
        """What was said, the oldest first; of a trace, also what was said of its run.

        Args:
            trace_key, run_id, key: only of these; None is any.
        """
        with self._transaction() as connection:
            return kept(connection, trace_key=trace_key, run_id=run_id, key=key)

    def drifted(self) -> dict[str | None, datetime]:
        """When each strong model was last found changed; nothing of those that never were."""
        with self._transaction() as connection:
            if self._database.read_only and not sa.inspect(connection).has_table(DRIFTS.name):
                return {}  # of an older release
            return drifted_since(connection)

    def drift_runs(
        self, *, strong: str | None, probes: str | None = None, limit: int | None = None
    ) -> list[DriftRun]:
        """The times that a strong model was probed, the newest first.

        Args:
            strong: its name.
            probes: the digest of a probe set; None is any.
            limit: runs, at most.
        """
        with self._transaction() as connection:
            return runs_of(connection, strong=strong, probes=probes, limit=limit)

    def corrections(self) -> Iterator[dict[str, Any]]:
        """Answers as people say they should have been, as rows for `trainer.demonstrations`.

        Yields:
            "query", "messages" (the conversation before it), "reference" and "explanation" as the
            correction says them, and where it is from: "trace_key" and "feedback" (its id). Of each
            trace, key and source the latest; one whose trace is not there waits.
        """
        for said in latest(self.feedbacks()):
            if said.correction is None:
                continue
            of_run = self.query(run_id=said.run_id, limit=1) if said.run_id else ()
            found = self.get(said.trace_key) if said.trace_key else next(iter(of_run), None)
            if found is not None:
                yield {**taught(found, said.correction), "feedback": said.id}

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

    def _transaction(self, *, writes: bool = False) -> AbstractContextManager[sa.Connection]:
        return self._database.transaction(writes=writes)

    def _count(self) -> None:
        """Count what an older release stored, some traces at a time; then never again, as none
        opens a store of this one."""
        while not (self._counted or self._database.read_only):
            self._counted = not self._fill()

    def _fill(self) -> int:
        with self._transaction() as connection:
            if all_there(connection):
                return 0
        with self._transaction(writes=True) as connection:
            return fill(connection, _FILLED)
