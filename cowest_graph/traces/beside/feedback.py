"""What people say of a trace, late and more than once: kept beside the traces, never in them.

Knows the table of feedback. Knows no judge, and decides nothing: a score counts as the user of
`preferences` says.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat, JsonValue

from cowest_graph.masking import masked_data
from cowest_graph.traces.tables import METADATA, RUNS

PAIR = "pair"
"""The key of feedback on a preference pair; its value is made by `wrong_pair`."""

FEEDBACK = sa.Table(  # no foreign key: it may come before its trace, and outlives its replacement
    "cowest_feedback",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("trace_key", sa.Text, index=True),
    sa.Column("run_id", sa.Text, index=True),
    sa.Column("key", sa.Text, nullable=False, index=True),
    sa.Column("score", sa.Double),
    sa.Column("value", sa.JSON(none_as_null=True)),
    sa.Column("comment", sa.Text),
    sa.Column("correction", sa.Text),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
)


class Feedback(BaseModel):
    """One thing that somebody said of a trace (LangSmith's words).

    Args:
        trace_key, run_id: what it is said of, one of them at least.
        key: what is judged, as `thumbs` or `correctness`.
        score: as a number; None where there is none.
        value: anything else that is JSON.
        comment: in words.
        correction: the answer as it should have been.
        source: who says it; the latest of a source and key counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    trace_key: str | None = None
    run_id: str | None = None
    key: str = Field(min_length=1)
    score: FiniteFloat | None = None
    value: JsonValue = None
    comment: str | None = None
    correction: str | None = None
    source: str = Field(default="app", min_length=1)
    created_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))


def given(**said: Any) -> Feedback:
    """Feedback that says something, of something.

    Raises:
        ValueError: when it is of nothing, or says nothing.
    """
    if said.get("trace_key") is None and said.get("run_id") is None:
        raise ValueError("feedback is of a trace: give trace_key=, or run_id= of the graph's run")
    if all(said.get(name) is None for name in ("score", "value", "comment", "correction")):
        raise ValueError("this feedback says nothing: give score=, value=, comment= or correction=")
    return Feedback(**said)


def keep(connection: sa.Connection, feedback: Feedback) -> None:
    """Add it once; what is there stays."""
    known = sa.select(sa.true()).where(FEEDBACK.c.id == feedback.id)
    if connection.scalar(known) is None:  # one that had to wait may be offered again
        connection.execute(FEEDBACK.insert().values(**masked_data(feedback.model_dump())))


def kept(
    connection: sa.Connection, *, trace_key: str | None, run_id: str | None, key: str | None
) -> list[Feedback]:
    """All of it, the oldest first; of a trace also what was said of its run."""
    wanted = sa.select(FEEDBACK).order_by(FEEDBACK.c.created_at, FEEDBACK.c.id)
    if trace_key is not None:
        runs = sa.select(RUNS.c.run_id).where(RUNS.c.trace_key == trace_key)
        runs = runs.where(RUNS.c.run_id.is_not(None))
        of_run = sa.and_(FEEDBACK.c.trace_key.is_(None), FEEDBACK.c.run_id.in_(runs))
        wanted = wanted.where(sa.or_(FEEDBACK.c.trace_key == trace_key, of_run))
    if run_id is not None:
        wanted = wanted.where(FEEDBACK.c.run_id == run_id)
    if key is not None:
        wanted = wanted.where(FEEDBACK.c.key == key)
    rows = connection.execute(wanted).mappings()
    return [Feedback.model_validate(_in_utc(row)) for row in rows]


def latest(said: Iterable[Feedback]) -> list[Feedback]:
    """What counts: the last that each source said of each key; of a pair or of one of several
    answers, the last of that one."""
    last = dict[tuple[Any, ...], Feedback]()
    for each in said:
        of = (_pair_of(each), _answer_of(each))
        place = (each.trace_key or each.run_id, each.key, each.source, *of)
        last.pop(place, None)
        last[place] = each
    return list(last.values())


def wrong_pair(chosen: int, rejected: int, *, wrong: bool = True) -> dict[str, JsonValue]:
    """The value of feedback on a pair: the two attempts' indices, and whether it is wrong."""
    return {"chosen": chosen, "rejected": rejected, "wrong": wrong}


def wrong_pairs(said: Iterable[Feedback]) -> set[tuple[str, int, int]]:
    """The pairs that are marked wrong: trace key, index of the chosen and of the rejected draft."""
    found = set[tuple[str, int, int]]()
    for each in latest(said):
        pair = _pair_of(each)
        if pair is None or each.trace_key is None or not isinstance(each.value, Mapping):
            continue
        (found.add if each.value.get("wrong") else found.discard)((each.trace_key, *pair))
    return found


def of_answer(index: int | None) -> dict[str, JsonValue]:
    """The value of feedback on one answer: an attempt's index, or None for the solo answer."""
    return {"solo": True} if index is None else {"attempt": index}


def _answer_of(said: Feedback) -> tuple[str, int] | None:
    """Which answer it is about; None where it does not say."""
    if not isinstance(said.value, Mapping):
        return None
    solo, index = said.value.get("solo"), said.value.get("attempt")
    if isinstance(index, int):
        return "attempt", index
    return ("solo", 0) if solo is True else None


def _pair_of(said: Feedback) -> tuple[int, int] | None:
    """The indices of the two attempts that it is about; None where it is about something else."""
    if said.key != PAIR or not isinstance(said.value, Mapping):
        return None
    chosen, rejected = said.value.get("chosen"), said.value.get("rejected")
    if not isinstance(chosen, int) or not isinstance(rejected, int):
        return None
    return chosen, rejected


def _in_utc(row: Mapping[Any, Any]) -> dict[str, Any]:
    at = row["created_at"]
    return {**row, "created_at": at.replace(tzinfo=UTC) if at.tzinfo is None else at}
