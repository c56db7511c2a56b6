"""A candidate's drafts beside the answers: written in the background, kept, and never used.

Knows threads and their number, and what to do with a draft that came too late or not at all. Knows
no graph; the answer never waits for anything here, and nothing here can make it fail.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from typing import Any

from langchain_core.runnables import Runnable

from cowest_graph.calls import failed_call
from cowest_graph.masking import masked_error
from cowest_graph.prompts import text_of
from cowest_graph.state import Asked
from cowest_graph.telemetry import carried
from cowest_graph.traces import TraceStore
from cowest_graph.traces.records import Call, Shadow, Trace

log = logging.getLogger(__name__)

_RUNNING: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


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
        self._drafting, self._traces, self._limit = drafting, traces, limit
        self._places = threading.Semaphore(limit)

    def record(self, trace: Trace, version: str, asked: Asked) -> None:
        """Keep the trace now, and what the candidate would have drafted when it is there.

        Args:
            trace: of the answer.
            version: the candidate's.
            asked: what was asked, with the conversation before it.
        """
        if not self._places.acquire(blocking=False):
            error = f"{self._limit} shadow drafts were under way already"
            skipped = Call(role="shadow", weak_version=version, failure="skipped", error=error)
            self._traces.offer(_shadowed(trace, version, None, [skipped]))
            return
        try:
            self._traces.offer(trace)
            name = f"cowest-shadow-{trace.key[:8]}"
            thread = threading.Thread(
                target=carried(self._follow), args=(trace, version, asked), name=name, daemon=True
            )
            thread.start()
            _RUNNING.add(thread)
        except BaseException:
            self._places.release()
            raise

    def _follow(self, trace: Trace, version: str, asked: Asked) -> None:
        try:
            self._traces.offer(self._drafted(trace, version, asked))
        except Exception as error:  # a store that is gone, say: the answer's own trace is kept
            log.warning("the shadow draft of %s was not kept: %s", version, masked_error(error))
        finally:
            self._places.release()

    def _drafted(self, trace: Trace, version: str, asked: Asked) -> Trace:
        state = {"asked": asked, "weak_version": version, "key": trace.key}
        try:
            said = self._drafting.invoke(state, {"run_name": "shadow", "tags": ["cowest:shadow"]})
        except Exception as error:
            return _shadowed(trace, version, None, [failed_call("shadow", error)])
        return _shadowed(trace, version, text_of(said["draft"]), said["calls"])


def wait_for_shadows(timeout: float | None = None) -> int:
    """Wait for this process's shadow drafts, before it ends or its store is closed.

    Args:
        timeout: seconds, at most; None waits for all.

    Returns:
        How many are still under way.
    """
    until = None if timeout is None else time.monotonic() + timeout
    for thread in list(_RUNNING):
        thread.join(None if until is None else max(0.0, until - time.monotonic()))
    return sum(thread.is_alive() for thread in list(_RUNNING))


def _shadowed(trace: Trace, version: str, draft: str | None, calls: list[Any]) -> Trace:
    made = [Call.model_validate(call) for call in calls]
    return trace.model_copy(
        update={"shadow": Shadow(weak_version=version, draft=draft, calls=made)}
    )
