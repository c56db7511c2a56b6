"""Runs of a probe set against a strong model, and which of them showed that it had changed.

Knows their table, and what a confirmed drift makes stale. Knows no model and no test: whoever asks
the probes compares, and keeps what came of it.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat

from cowest_graph.masking import masked_data
from cowest_graph.traces.beside.feedback import FEEDBACK
from cowest_graph.traces.drafted import Drafted
from cowest_graph.traces.records import Trace, _Text
from cowest_graph.traces.tables import JOURNAL, METADATA, TRACES

DRIFTS = sa.Table(
    "cowest_drifts",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("strong", sa.Text, index=True),
    sa.Column("probes", sa.Text, nullable=False),
    sa.Column("drifted", sa.Boolean, nullable=False),
    sa.Column("data", sa.JSON, nullable=False),  # the whole run
)

Drifted = Mapping[str | None, datetime]
"""By a strong model's name, when a run began that found it changed."""


class Probe(BaseModel):
    """What was said to one probe, each time that it was asked; what failed is None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    query: _Text
    answers: list[_Text | None]
    scores: list[FiniteFloat | None]


class DriftRun(BaseModel):
    """One time that a probe set was asked of a strong model alone.

    Args:
        id: of the run.
        began_at: when, in UTC; what was collected before it is stale where it found a drift.
        strong: the strong model's name, as traces have it.
        probes: a digest of the probes and of how they were asked; equal ones can be compared.
        evaluator: the evaluator's name; scores of another one are not compared.
        told: what the endpoint says it runs: names of models, and their fingerprints.
        asked: the probes with what was said.
        against: the run that it was compared with; None for a first one.
        compared: probes that were answered each time in both runs.
        p_answers, p_scores: of the tests; None where nothing could be compared.
        noticed: what the endpoint says and did not say in that run.
        drifted: whether a test found the strong model changed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    began_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    strong: str | None
    probes: str
    evaluator: str | None = None
    told: list[str] = []
    asked: list[Probe]
    against: str | None = None
    compared: int = 0
    p_answers: float | None = None
    p_scores: float | None = None
    noticed: list[str] = []
    drifted: bool = False


def is_stale(trace: Trace | Drafted, drifted: Drifted) -> bool:
    """Whether a trace is from before its strong model was found changed."""
    since = drifted.get(trace.strong)
    return since is not None and trace.created_at < since


def keep_run(connection: sa.Connection, run: DriftRun) -> None:
    """Add a run. Where it found a drift, calls in flight are forgotten: the old model made them."""
    data = masked_data(run.model_dump(mode="json"))
    columns = {"strong": data["strong"], "probes": run.probes, "drifted": run.drifted}
    row = {"id": run.id, "began_at": run.began_at.astimezone(UTC), **columns, "data": data}
    connection.execute(DRIFTS.insert().values(**row))
    if run.drifted:
        connection.execute(JOURNAL.delete())


def runs_of(
    connection: sa.Connection, *, strong: str | None, probes: str | None, limit: int | None
) -> list[DriftRun]:
    """The runs of a strong model and a probe set, the newest first."""
    newest = (DRIFTS.c.began_at.desc(), DRIFTS.c.id.desc())
    wanted = sa.select(DRIFTS.c.data).order_by(*newest).limit(limit)
    wanted = wanted.where(DRIFTS.c.strong.is_not_distinct_from(strong))
    if probes is not None:
        wanted = wanted.where(DRIFTS.c.probes == probes)
    return [DriftRun.model_validate(data) for data in connection.scalars(wanted)]


def drifted_since(connection: sa.Connection) -> dict[str | None, datetime]:
    """When each strong model was last found changed; nothing of those that never were."""
    last = sa.func.max(DRIFTS.c.began_at).label("at")
    found = sa.select(DRIFTS.c.strong, last).where(DRIFTS.c.drifted).group_by(DRIFTS.c.strong)
    return {row.strong: _in_utc(row.at) for row in connection.execute(found)}


def moved(connection: sa.Connection, trace: Trace) -> Trace:
    """The trace under a key of its own, with what was said of it; its key is free then.

    The caller records it. What is in flight under the old key stays there.
    """
    key = f"{trace.key}-until-{trace.created_at:%Y%m%dT%H%M%S%f}"
    connection.execute(FEEDBACK.update().filter_by(trace_key=trace.key).values(trace_key=key))
    connection.execute(TRACES.delete().filter_by(key=trace.key))
    return trace.model_copy(update={"key": key})


def _in_utc(at: Any) -> datetime:
    time = datetime.fromisoformat(at) if isinstance(at, str) else at
    found: datetime = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    return found
