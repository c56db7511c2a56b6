"""Feedback of a trace store as feedback on LangSmith's runs, by LangSmith's own client.

Knows feedback, runs and what LangSmith calls them. Knows no endpoint and no key: the client has
both. Sending twice is sending once, since each piece of feedback keeps its id.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

from cowest_graph.masking import masked_data
from cowest_graph.traces import PAIR, Feedback, Trace, TraceStore

if TYPE_CHECKING:
    from langsmith import Client

GAIN = "cowest_gain"
"""The key of a gain that is sent as feedback."""

_IDS = uuid.UUID("6a3c5d8e-6b0a-4a51-9c39-5b1e40a1d2f7")  # of feedback that has none of its own
_ATTEMPTS = 3  # LangSmith may not have a run yet that has just ended


@dataclass
class Pushed:
    """What became of the feedback.

    Args:
        sent: taken by LangSmith.
        without_run: of a trace that has no run's id, or of one that is no UUID.
        unknown: of a run that LangSmith does not have.
    """

    sent: int = 0
    without_run: int = 0
    unknown: int = 0

    def __str__(self) -> str:
        left = f"{self.without_run} of no run, {self.unknown} of runs that LangSmith does not have"
        return f"sent {self.sent} pieces of feedback; left out: {left}"


def push_feedback(
    store: TraceStore,
    client: Client,
    *,
    project: str | None = None,
    since: datetime | None = None,
    gains: bool = False,
) -> Pushed:
    """Send feedback to LangSmith, on the runs that it is of.

    Args:
        store: with the feedback; what is said of pairs of drafts is left out.
        client: LangSmith's.
        project: where the runs are; newer LangSmith servers want to know.
        since: only what was said from then on.
        gains: also the gains of served answers, with the key `cowest_gain`.

    Raises:
        langsmith.utils.LangSmithError: when LangSmith refuses or cannot be reached; the same again
            sends the rest, and nothing twice.
    """
    pushed, found = Pushed(), _of_runs(store, since, gains)
    if (first := next(found, None)) is None:
        return pushed  # nobody is asked for nothing
    session = client.read_project(project_name=project).id if project else None
    for run_id, said in chain([first], found):
        run = _as_uuid(run_id)
        if run is None:
            pushed.without_run += 1
        elif _taken(client, run, session, said):
            pushed.sent += 1
        else:
            pushed.unknown += 1
    return pushed


def _of_runs(
    store: TraceStore, since: datetime | None, gains: bool
) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Each piece of feedback, in LangSmith's words, with the id of its run."""
    for said in store.feedbacks():
        if said.key == PAIR or (since is not None and said.created_at < since):
            continue
        yield said.run_id or _run_of(store, said), _worded(said)
    if gains:
        for trace in store.query(kind="inference", since=since):
            yield from _gain(trace)


def _run_of(store: TraceStore, said: Feedback) -> str | None:
    trace = store.get(said.trace_key) if said.trace_key else None
    return None if trace is None else trace.run_id


def _worded(said: Feedback) -> dict[str, Any]:
    told = {"source": said.source, "created_at": said.created_at.isoformat()}
    told |= {} if said.trace_key is None else {"trace_key": said.trace_key}
    value = {"value": said.value} if isinstance(said.value, list) else said.value
    return {
        "feedback_id": _as_uuid(said.id) or uuid.uuid5(_IDS, said.id),
        "key": said.key,
        "score": said.score,
        "value": value,
        "comment": said.comment,
        "correction": None if said.correction is None else {"answer": said.correction},
        "source_info": told,
    }


def _gain(trace: Trace) -> Iterator[tuple[str | None, dict[str, Any]]]:
    for attempt in trace.attempts:
        if attempt.gain is not None:
            told = {"source": "cowest", "trace_key": trace.key}
            told |= {"weak_version": attempt.weak_version} if attempt.weak_version else {}
            yield (
                trace.run_id,
                {
                    "feedback_id": uuid.uuid5(_IDS, f"{trace.key}/{attempt.index}"),
                    "key": GAIN,
                    "score": attempt.gain,
                    "source_info": told,
                },
            )


def _taken(client: Client, run: uuid.UUID, session: Any, said: dict[str, Any]) -> bool:
    """Whether LangSmith has the run."""
    from langsmith.utils import LangSmithNotFoundError

    try:
        client.create_feedback(
            run, session_id=session, stop_after_attempt=_ATTEMPTS, **masked_data(said)
        )
    except LangSmithNotFoundError:
        return False
    return True


def _as_uuid(text: str | None) -> uuid.UUID | None:
    try:
        return None if text is None else uuid.UUID(text)
    except ValueError:
        return None
