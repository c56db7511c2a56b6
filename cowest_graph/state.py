"""The graph's state: its keys, their types, and the paper's symbol beside each.

Knows plain data only (text, numbers, messages), so that every checkpointer can store it. Knows no
model, no store and no prompt.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from langchain_core.messages import AIMessage, AnyMessage
from langgraph.channels import EphemeralValue
from langgraph.graph.message import add_messages
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from cowest_graph.conversation import as_messages, parted

Reference = str | list[str]
"""ŷ: the ground truth, or several accepted ones."""


class CallRecord(TypedDict, total=False):
    """One finished or failed model call, as plain data. Missing is None, never 0."""

    role: str  # draft, refine, solo, evaluate, shadow
    model: str | None
    weak_version: str | None  # adapter that wrote a draft
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    fingerprint: str | None
    service_tier: str | None
    seconds: float | None
    finish_reason: str | None
    failure: str | None  # its kind: rate_limit, timeout, server_error, unparsable, …
    error: str | None  # its text


class Asked(TypedDict, total=False):
    """What one pass is about: its own input alone, and nothing of an earlier turn."""

    query: str  # x
    reference: Reference | None  # ŷ
    explanation: str | None  # why the reference is right, where the data says so
    domain: str | None
    history: list[AnyMessage]  # what came before the query; not there where nothing did


class Whose(TypedDict):
    """Whose run a pass belongs to; missing is None."""

    run_id: str | None
    thread_id: str | None
    user: str | None
    tenant: str | None
    tags: list[str]


class Query(BaseModel):
    """What goes into a collaboration: `query`, or `messages` whose last human turn is the query.

    What stands before that turn is the conversation, which both models see.
    Only `messages` stay with a thread. The others live as long as the step that reads them: a
    reference or a query of the last turn is not there in the next.
    """

    query: Annotated[str | None, EphemeralValue] = Field(None, description="The question.")
    messages: Annotated[list[AnyMessage], add_messages] = Field(
        [], description="A conversation; its last human turn is the question."
    )
    reference: Annotated[Reference | None, EphemeralValue] = Field(
        None, description="The ground truth, or several accepted ones, where it is known."
    )
    explanation: Annotated[str | None, EphemeralValue] = Field(
        None, description="Why the reference is right."
    )
    domain: Annotated[str | None, EphemeralValue] = Field(
        None, description="A name kept in the trace."
    )


class Given(TypedDict, total=False):
    """The same as state: what has just come in."""

    query: Annotated[str | None, EphemeralValue]
    messages: Annotated[list[AnyMessage], add_messages]
    reference: Annotated[Reference | None, EphemeralValue]
    explanation: Annotated[str | None, EphemeralValue]
    domain: Annotated[str | None, EphemeralValue]


class Collaboration(Given, total=False):
    """The state of one draft → refine → evaluate pass."""

    asked: Asked  # what this pass is about
    key: str  # of the pass's trace
    whose: Whose  # run it is
    weak_version: str | None  # which adapter of π_w drafts; pinned when the pass begins
    draft: AIMessage | None  # y
    answer: AIMessage | None  # y*
    score: float | None  # E(y*)
    calls: Annotated[list[CallRecord], operator.add]


class Answered(TypedDict, total=False):
    """What a collaboration gives back."""

    messages: Annotated[list[AnyMessage], add_messages]
    draft: AIMessage | None
    answer: AIMessage | None
    score: float | None


class Attempted(TypedDict, total=False):
    """What one of the K attempts gives back: the attempt as plain data."""

    attempts: Annotated[list[dict[str, Any]], operator.add]


class TriedAttempt(Attempted, total=False):
    """The state of one of the K attempts of a collection."""

    asked: Asked
    key: str
    weak_version: str | None
    draft: AIMessage | None  # y
    answer: AIMessage | None  # y*
    score: float | None  # E(y*)
    calls: Annotated[list[CallRecord], operator.add]
    index: int  # in sampling order, from 0
    again: int  # which repetition it is; not there, or 0, for the first
    finished: dict[str, Any]  # slot → part: calls that an interrupted run already paid for


class Collected(TypedDict, total=False):
    """What a collector gives back: the stored trace as plain data, and its key."""

    key: str
    trace: dict[str, Any] | None


class Collection(Given, Attempted, Collected, total=False):
    """The state of Algorithm 1's inner loop for one query: z once, K attempts beside it."""

    asked: Asked
    whose: Whose
    weak_version: str | None
    solo: AIMessage | None  # z
    solo_score: float | None  # E(z)
    scores: dict[str, float | None] | None  # by slot, where all answers are scored at once
    calls: Annotated[list[CallRecord], operator.add]
    finished: dict[str, Any]


class Drafted(TypedDict, total=False):
    """What one of the K drafts of an adaptive collection gives back: an attempt as plain data."""

    drafted: Annotated[list[dict[str, Any]], operator.add]


class TriedDraft(TriedAttempt, Drafted, total=False):
    """The state of one of the K drafts of an adaptive collection."""


class Alone(TypedDict, total=False):
    """What a solo answer of an adaptive collection gives back, as plain data."""

    solos: Annotated[list[dict[str, Any]], operator.add]


class TriedAlone(Alone, total=False):
    """The state of a solo answer of an adaptive collection."""

    asked: Asked
    key: str
    solo: AIMessage | None  # z
    solo_score: float | None  # E(z)
    calls: Annotated[list[CallRecord], operator.add]
    again: int
    finished: dict[str, Any]


class AdaptiveCollection(Given, Attempted, Drafted, Alone, Collected, total=False):
    """The state of an adaptive collection of one query."""

    asked: Asked
    whose: Whose
    weak_version: str | None
    odds: dict[str, Any]  # what was expected of the query when it was begun
    plan: dict[str, Any]  # what is asked next
    finished: dict[str, Any]


def fault(row: Mapping[str, Any]) -> str | None:
    """What is wrong with a row's fields, in a sentence; None when they are as `Query` has them.

    >>> fault({"query": "6 + 1?", "reference": 7})
    'the reference must be a text or a list of texts, not 7'
    """
    query, reference = row.get("query"), row.get("reference")
    if row.get("messages") is not None:
        try:
            query = parted(as_messages(row["messages"]), query)[1]
        except ValueError as error:
            return str(error)
    if not isinstance(query, str) or not query.strip():
        return f"no query; the row has {', '.join(map(repr, row)) or 'no keys'}"
    texts = reference if isinstance(reference, list) else [reference]
    if reference is not None and not (texts and all(isinstance(text, str) for text in texts)):
        return f"the reference must be a text or a list of texts, not {reference!r:.200}"
    named = {name: row.get(name) for name in ("explanation", "domain")}
    for name, value in named.items():
        if value is not None and not isinstance(value, str):
            return f"the {name} must be a text, not {value!r:.200}"
    return None


def references(reference: Reference | None) -> Sequence[str]:
    """The accepted references as a list; empty when there is none."""
    if reference is None:
        return []
    return [reference] if isinstance(reference, str) else list(reference)
