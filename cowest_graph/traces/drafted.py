"""What pairs need of a trace, read three times as fast as all of it.

Knows a few fields of traces, by the names that they have there. Knows no store and no pair. What
was stored was a `Trace` then: nothing of it is checked again but these fields' types.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from cowest_graph.traces.records import Exploration, Kind, left_unasked


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Made(_Part):
    """Of a `Call`, what tells whether it was made."""

    role: str
    failure: str | None = None


class Tried(_Part):
    """Of an `Attempt`, what pairs need."""

    index: int
    draft: str | None = None
    answer: str | None = None
    score: float | None = None
    gain: float | None = None
    score_se: float | None = None
    same_as: int | None = None
    weak_version: str | None = None
    calls: list[Made] = []


class Drafted(_Part):
    """Of a `Trace`, what pairs need.

    >>> from cowest_graph.traces import Trace
    >>> trace = Trace(query="6 + 1?", solo_score=4, attempts=[{"index": 0, "score": 9}])
    >>> drafted = Drafted.model_validate_json(trace.model_dump_json())
    >>> drafted.gain(drafted.attempts[0])
    5.0
    """

    key: str
    kind: Kind = "collection"
    query: str
    style: str = "chain_of_thought"
    created_at: datetime
    strong: str | None = None
    weak_version: str | None = None
    solo_score: float | None = None
    solo_score_se: float | None = None
    stopped: str | None = None
    run_id: str | None = None
    exploration: Exploration | None = None
    calls: list[Made] = []
    draft_prompt: list[dict[str, str]] = []
    attempts: list[Tried] = []

    def gain(self, attempt: Tried) -> float | None:
        """Δ, as the trace had it."""
        return attempt.gain

    @property
    def unasked(self) -> list[Tried]:
        """As of a `Trace`."""
        return [attempt for attempt in self.attempts if self.stopped and left_unasked(attempt)]

    @property
    def solo_unasked(self) -> bool:
        """As of a `Trace`."""
        return bool(self.stopped) and not any(call.role == "solo" for call in self.calls)
