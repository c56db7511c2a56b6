"""Which traces are wanted, as SQL conditions.

Knows the tables' columns. Opens no database.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from cowest_graph.traces.counts import COUNTS
from cowest_graph.traces.records import Kind
from cowest_graph.traces.tables import ATTEMPTS, RUNS, TAGS, TRACES


@dataclass(frozen=True, kw_only=True)
class Filter:
    """What a trace must be; None is anything.

    Args:
        kind, domain, weak_version, evaluator: as the trace has them.
        run_id, thread_id, user, tenant: of the run (see `Trace`).
        tag: one of its tags.
        since, until: when it was made; since is within, until is not. A time without a zone is UTC.
        min_score, max_score: of an attempt.
        min_gain, max_gain: of an attempt, the same one where scores are given, too.
        failure: a kind of failure that a call of it had; True is any, False is none.
        text: within the query, whatever its case.

    Raises:
        TypeError: for a field of another name.
    """

    kind: Kind | None = None
    domain: str | None = None
    weak_version: str | None = None
    evaluator: str | None = None
    run_id: str | None = None
    thread_id: str | None = None
    user: str | None = None
    tenant: str | None = None
    tag: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    min_score: float | None = None
    max_score: float | None = None
    min_gain: float | None = None
    max_gain: float | None = None
    failure: str | bool | None = None
    text: str | None = None

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """As SQL, each of them to be met."""
        found = [*self._times()]
        found += self._equal(TRACES, "kind", "domain", "weak_version", "evaluator")
        if of_run := self._equal(RUNS, "run_id", "thread_id", "user", "tenant"):
            found.append(TRACES.c.key.in_(sa.select(RUNS.c.trace_key).where(*of_run)))
        if self.tag is not None:
            tagged = sa.select(TAGS.c.trace_key).where(TAGS.c.tag == self.tag)
            found.append(TRACES.c.key.in_(tagged))
        if of_attempt := self._ranges():
            tried = sa.select(ATTEMPTS.c.trace_key).where(ATTEMPTS.c.trace_key == TRACES.c.key)
            found.append(tried.where(*of_attempt).exists())  # a page ends with its last trace
        if self.text is not None:
            found.append(TRACES.c.query.icontains(self.text, autoescape=True))
        if self.failure is not None:
            found.append(self._failed(self.failure))
        return found

    def _equal(self, table: sa.Table, *names: str) -> list[sa.ColumnElement[bool]]:
        wanted = {name: getattr(self, name) for name in names}
        return [table.c[name] == value for name, value in wanted.items() if value is not None]

    def _times(self) -> list[sa.ColumnElement[bool]]:
        found: list[sa.ColumnElement[bool]] = []
        if self.since is not None:
            found.append(TRACES.c.created_at >= utc(self.since))
        if self.until is not None:
            found.append(TRACES.c.created_at < utc(self.until))
        return found

    def _ranges(self) -> list[sa.ColumnElement[bool]]:
        found: list[sa.ColumnElement[bool]] = []
        for name in ("score", "gain"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low is not None:
                found.append(ATTEMPTS.c[name] >= low)
            if high is not None:
                found.append(ATTEMPTS.c[name] <= high)
        return found

    def _failed(self, failure: str | bool) -> Any:
        failed = sa.select(COUNTS.c.trace_key).where(COUNTS.c.trace_key == TRACES.c.key)
        failed = failed.where(COUNTS.c.failures.is_not(None))
        if isinstance(failure, str):
            failed = failed.where(COUNTS.c.failures.contains(json.dumps(failure), autoescape=True))
        return ~failed.exists() if failure is False else failed.exists()


def utc(time: datetime) -> datetime:
    """The same time in UTC, which one without a zone is in."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
