"""A candidate's drafts beside the answers: written in the background, kept, and never used.

Knows what to do with a draft that came too late or not at all. Knows no graph; the answer never
waits for anything here, and nothing here can make it fail.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from langchain_core.runnables import Runnable

from cowest_graph.calls import failed_call
from cowest_graph.masking import masked_error
from cowest_graph.prompts import text_of
from cowest_graph.state import Asked
from cowest_graph.telemetry import carried
from cowest_graph.threads import Background, wait_for_background
from cowest_graph.traces import TraceStore
from cowest_graph.traces.records import Call, Shadow, Trace

log = logging.getLogger(__name__)

wait_for_shadows = wait_for_background


class Shadows:
    """Drafts with a candidate once an answer is recorded, and adds them to its trace.

    Each is written on a thread of its own, after the answer's trace is in the store, so that it
    takes no compute from the draft that is waited for. A process that ends does not wait for them;
    `wait_for_shadows` does.

    Args:
        drafting: a node from the state to its `draft` and `calls`.
        traces: where the traces are kept.
        limit: shadow drafts at a time; beyond it one is left out, and the trace says so.
    """

    def __init__(self, drafting: Runnable[Any, Any], traces: TraceStore, *, limit: int = 8) -> None:
        self._drafting, self._traces = drafting, traces
        self._background = Background("cowest-shadow", limit)

    def record(
        self, trace: Trace, version: str, asked: Asked, keep: Callable[[Trace], Trace]
    ) -> None:
        """Keep the trace now, and what the candidate would have drafted when it is there.

        Args:
            trace: of the answer.
            version: the candidate's.
            asked: what was asked, with the conversation before it.
            keep: keeps a trace, and returns it as it was kept.
        """
        if not self._background.take():
            error = f"{self._background.limit} shadow drafts were under way already"
            skipped = Call(role="shadow", weak_version=version, failure="skipped", error=error)
            keep(trace.model_copy(update={"shadow": _shadow(version, None, [skipped])}))
            return
        try:
            kept = keep(trace)
        except BaseException:
            self._background.leave()
            raise
        follow = carried(partial(self._follow, kept, version, asked))
        self._background.start(follow, trace.key[:8])

    def _follow(self, trace: Trace, version: str, asked: Asked) -> None:
        try:
            shadow = self._drafted(version, asked, trace.key)
            self._traces.amend(trace, lambda kept: kept.model_copy(update={"shadow": shadow}))
        except Exception as error:  # a store that is gone, say: the answer's own trace is kept
            log.warning("the shadow draft of %s was not kept: %s", version, masked_error(error))

    def _drafted(self, version: str, asked: Asked, key: str) -> Shadow:
        state = {"asked": asked, "weak_version": version, "key": key}
        try:
            said = self._drafting.invoke(state, {"run_name": "shadow", "tags": ["cowest:shadow"]})
        except Exception as error:
            return _shadow(version, None, [failed_call("shadow", error)])
        return _shadow(version, text_of(said["draft"]), said["calls"])


def _shadow(version: str, draft: str | None, calls: list[Any]) -> Shadow:
    made = [Call.model_validate(call) for call in calls]
    return Shadow(weak_version=version, draft=draft, calls=made)
