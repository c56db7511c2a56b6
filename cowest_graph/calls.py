"""Model calls as graph nodes, and what each leaves behind: time, tokens, version, failure.

Knows how to time a chain, note its usage, journal its result and keep its failure. Knows nothing of
which chains there are or in what order they run. Every node here is a chain of Runnables, so that
it is natively sync, async and streaming without being written twice.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.errors import GraphBubbleUp, NodeError
from langgraph.types import Command

from cowest_graph.evaluators import Evaluation, keywords
from cowest_graph.failures import FATAL, NotStored, failure_kind
from cowest_graph.masking import masked_error
from cowest_graph.prompts import text_of
from cowest_graph.replies import as_message
from cowest_graph.state import CallRecord
from cowest_graph.telemetry import observer
from cowest_graph.threads import in_threads

log = logging.getLogger(__name__)

_HANDLED: deque[BaseException] = deque(maxlen=1000)
"""The last errors that a handler took. LangGraph knows those of a pass by `id` alone, and lets a
later error that has the id of one that is gone end the pass without being raised."""

CALL = "cowest_call"
"""The metadata key of a journalled call: its trace's key and its slot."""

Part = dict[str, Any]
"""A finished call as it is journalled: {"text" or "score", "calls"}."""


class Journal(Protocol):
    """Keeps finished calls of traces in flight (see `TraceStore`)."""

    def remember(self, key: str, slot: str, part: Part) -> None:
        """Keep one finished call."""


def model_call(
    chain: Runnable[Any, AIMessage], *, key: str, role: str, journal: Journal | None = None
) -> Runnable[Any, dict[str, Any]]:
    """A node that writes the chain's message to `key` and a record of the call to `calls`.

    Args:
        chain: from the state to a message.
        key: the state key of the message.
        role: draft, refine, solo or shadow.
        journal: where to keep the result; the state then holds `key`, perhaps `index`, and what an
            earlier run `finished`.
    """
    return _call(chain, key, noted(key, role), role, journal)


def evaluation_call(
    evaluator: Runnable[dict[str, Any], Evaluation],
    *,
    of: str,
    key: str,
    journal: Journal | None = None,
) -> Runnable[Any, dict[str, Any]]:
    """A node that writes the score of the message at `of` to `key`; None when there is no score."""

    def given(state: Mapping[str, Any]) -> dict[str, Any]:
        asked = state["asked"]
        return keywords(asked["query"], state[of], asked.get("reference"))

    return _call(in_place(given) | evaluator, key, _scored(key), "evaluate", journal)


def in_place(function: Callable[[Any], Any]) -> Runnable[Any, Any]:
    """A quick function without I/O as a Runnable that async graphs call without a thread.

    As with a `RunnableLambda`, a Runnable that it returns is run in its stead. It is no run of its
    own, though: callbacks and traces show the models, and not what reads and writes beside them.
    """
    return _InPlace(function)


class _InPlace(Runnable[Any, Any]):
    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function
        self.name = function.__name__.strip("<>_") or None

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        found = self._function(input)
        return found.invoke(input, config, **kwargs) if isinstance(found, Runnable) else found

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        found = self._function(input)
        return (
            await found.ainvoke(input, config, **kwargs) if isinstance(found, Runnable) else found
        )


def keep_failure(role: str, key: str, then: str) -> Callable[..., Command[str]]:
    """An error handler that leaves `key` missing and the failure's kind in `calls`.

    A failure that no further call can escape (a refused key, an unknown model) is raised again.

    Args:
        role: of the call that failed.
        key: the state key that stays missing.
        then: the node that goes on; the failed node's own edges are not followed.
    """

    def handle(state: Mapping[str, Any], error: NodeError) -> Command[str]:
        kind = failure_kind(error.error)
        if kind in FATAL:
            raise error.error
        record = _handled(role, error.error)
        return Command(update={key: None, "calls": [record]}, goto=then)

    # LangGraph injects the error by its annotation, which must be the class itself.
    handle.__annotations__["error"] = NodeError
    return handle


def fall_back(
    role: str, then: str, instead: Callable[[Any], dict[str, Any]] = lambda _: {}
) -> Callable[..., Command[str]]:
    """An error handler that keeps the failure's kind in `calls` and lets another node go on.

    Args:
        role: of the call that failed.
        then: the node that goes on.
        instead: from the state to what stands in for the failed call's result.
    """

    def handle(state: Mapping[str, Any], error: NodeError) -> Command[str]:
        record = _handled(role, error.error)
        log.warning("the %s call failed (%s); %s takes over", role, record["failure"], then)
        return Command(update={**instead(state), "calls": [record]}, goto=then)

    handle.__annotations__["error"] = NodeError  # as above
    return handle


def _handled(role: str, error: BaseException) -> CallRecord:
    """The record of a call whose error goes no further; the error is kept, without its frames."""
    record = failed_call(role, error)
    _HANDLED.append(error.with_traceback(None))
    return record


def failed_call(role: str, error: BaseException) -> CallRecord:
    """The record of a call that raised."""
    text = f"{type(error).__name__}: {masked_error(error)}"[:500]
    return CallRecord(role=role, failure=failure_kind(error), error=text)


def seen_failing(
    node: Runnable[Any, Any], see: Callable[[Mapping[str, Any], Exception], None]
) -> Runnable[Any, Any]:
    """The node; a failure is shown to `see` with the state, and raised all the same.

    Not an error handler: with a checkpointer, LangGraph would run the handler again on resumption
    instead of the node that failed.
    """

    def raised(state: Mapping[str, Any]) -> None:
        error: Exception = state["_raised"]
        if not isinstance(error, GraphBubbleUp):  # an interrupt is no failure
            see({key: value for key, value in state.items() if key != "_raised"}, error)
        raise error

    # Not in place: `see` may write to a store, and an event loop shall not wait for that.
    return node.with_fallbacks([in_threads(raised)], exception_key="_raised")


def slot(state: Mapping[str, Any], key: str) -> str:
    """The journal's name for a key: `solo`, or `draft/3` within the fourth attempt.

    What is asked again has another: `score/3~1` is the second score of that attempt.
    """
    name = key if state.get("index") is None else f"{key}/{state['index']}"
    return f"{name}~{state['again']}" if state.get("again") else name


_Note = Callable[[Any, float], dict[str, Any]]  # a result and its seconds as the state's update


def _call(
    chain: Runnable[Any, Any], key: str, note: _Note, role: str, journal: Journal | None
) -> Runnable[Any, dict[str, Any]]:
    """The chain, timed and noted; where an earlier run finished the call, its result instead."""

    def begin(state: Mapping[str, Any]) -> dict[str, Any] | Runnable[Any, dict[str, Any]]:
        part = state["finished"].get(slot(state, key)) if journal is not None else None
        if part and part.get("text") != "":  # an older release journalled empty replies
            return {key: _value(part), "calls": part["calls"]}
        started = time.perf_counter()

        def end(result: Any) -> dict[str, Any]:
            return note(result, time.perf_counter() - started)

        made = chain
        if journal is not None:  # a model may want to know whose call it is (see `batching`)
            made = chain.with_config(metadata={CALL: f"{state['key']}/{slot(state, key)}"})
        timed: Runnable[Any, dict[str, Any]] = made | in_place(end)
        if (watching := observer()) is not None:
            timed = watching.call(timed, role, state)
        return timed if journal is None else timed | in_threads(_keeping(journal, state, key))

    return in_place(begin)


def _keeping(
    journal: Journal, state: Mapping[str, Any], key: str
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def remember(update: dict[str, Any]) -> dict[str, Any]:
        if update[key] is not None:  # what is missing is asked for again next time
            part = part_of(update[key], update["calls"])
            try:
                journal.remember(state["key"], slot(state, key), part)
            except Exception as error:
                raise NotStored(
                    f"a finished call could not be stored: {masked_error(error)}"
                ) from error
        return update

    return remember


def noted(key: str, role: str) -> _Note:
    """From a reply and its seconds to the state's update: the message at `key`, and the call."""

    def note(reply: Any, seconds: float) -> dict[str, Any]:
        message = as_message(reply)
        about, usage = message.response_metadata, message.usage_metadata
        record = CallRecord(
            role=role,
            model=about.get("model_name"),
            weak_version=about.get("weak_version"),
            input_tokens=usage["input_tokens"] if usage else None,
            output_tokens=usage["output_tokens"] if usage else None,
            cached_tokens=(usage.get("input_token_details") or {}).get("cache_read")
            if usage
            else None,
            fingerprint=about.get("system_fingerprint"),
            service_tier=about.get("service_tier"),
            seconds=seconds,
            finish_reason=about.get("finish_reason"),
        )
        return {key: message, "calls": [record]}

    return note


def _scored(key: str) -> _Note:
    def note(said: Evaluation, seconds: float) -> dict[str, Any]:
        return {key: said.get("score"), "calls": [scored(said, seconds)]}

    return note


def scored(said: Evaluation, seconds: float) -> CallRecord:
    """The record of a call that scored."""
    return CallRecord(
        role="evaluate",
        model=said.get("model"),
        input_tokens=said.get("input_tokens"),
        output_tokens=said.get("output_tokens"),
        cached_tokens=said.get("cached_tokens"),
        service_tier=said.get("service_tier"),
        seconds=seconds,
        failure=said.get("failure"),
        error=said.get("comment") if said.get("failure") else None,
    )


def part_of(value: AIMessage | str | float, calls: list[Any]) -> Part:
    """A finished call's result as the journal keeps it."""
    if isinstance(value, AIMessage):
        value = text_of(value)
    return {"text" if isinstance(value, str) else "score": value, "calls": calls}


def _value(part: Part) -> AIMessage | float:
    if "score" in part:
        return float(part["score"])
    version = next((c["weak_version"] for c in part["calls"] if c.get("weak_version")), None)
    return AIMessage(part["text"], response_metadata={"weak_version": version} if version else {})
