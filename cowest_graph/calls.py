"""Model calls as graph nodes, and what each leaves behind: time, tokens, version, failure.

Knows how to time a chain, note its usage, journal its result and keep its failure. Knows nothing of
which chains there are or in what order they run. Every node here is a chain of Runnables, so that
it is natively sync, async and streaming without being written twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableBranch, RunnableLambda, RunnablePassthrough
from langgraph.errors import NodeError
from langgraph.types import Command

from cowest_graph.evaluators import Evaluation, keywords
from cowest_graph.failures import FATAL, failure_kind
from cowest_graph.prompts import text_of
from cowest_graph.state import CallRecord

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
        role: draft, refine or solo.
        journal: where to keep the result; the state then holds `key`, perhaps `index`, and what an
            earlier run `finished`.
    """
    made = _timed(chain) | RunnableLambda(_noted(key, role))
    return _journalled(made, key, journal)


def evaluation_call(
    evaluator: Runnable[dict[str, Any], Evaluation],
    *,
    of: str,
    key: str,
    journal: Journal | None = None,
) -> Runnable[Any, dict[str, Any]]:
    """A node that writes the score of the message at `of` to `key`; None when there is no score."""

    def given(state: Mapping[str, Any]) -> dict[str, Any]:
        return keywords(state["query"], state[of], state.get("reference"))

    made = _timed(RunnableLambda(given) | evaluator) | RunnableLambda(_scored(key))
    return _journalled(made, key, journal)


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
        text = f"{type(error.error).__name__}: {error.error}"[:500]
        record = CallRecord(role=role, failure=kind, error=text)
        return Command(update={key: None, "calls": [record]}, goto=then)

    # LangGraph injects the error by its annotation, which must be the class itself.
    handle.__annotations__["error"] = NodeError
    return handle


def slot(state: Mapping[str, Any], key: str) -> str:
    """The journal's name for a key: `solo`, or `draft/3` within the fourth attempt."""
    return key if state.get("index") is None else f"{key}/{state['index']}"


def _timed(chain: Runnable[Any, Any]) -> Runnable[Any, dict[str, Any]]:
    started = RunnablePassthrough.assign(started=RunnableLambda(_now))
    return started | RunnablePassthrough.assign(result=chain)


def _now(_: Any) -> float:
    return time.perf_counter()


def _noted(key: str, role: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def note(state: dict[str, Any]) -> dict[str, Any]:
        message: AIMessage = state["result"]
        about, usage = message.response_metadata, message.usage_metadata
        record = CallRecord(
            role=role,
            model=about.get("model_name"),
            weak_version=about.get("weak_version"),
            input_tokens=usage["input_tokens"] if usage else None,
            output_tokens=usage["output_tokens"] if usage else None,
            seconds=time.perf_counter() - state["started"],
            finish_reason=about.get("finish_reason"),
        )
        return {key: message, "calls": [record]}

    return note


def _scored(key: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def note(state: dict[str, Any]) -> dict[str, Any]:
        said: Evaluation = state["result"]
        record = CallRecord(
            role="evaluate",
            model=said.get("model"),
            input_tokens=said.get("input_tokens"),
            output_tokens=said.get("output_tokens"),
            seconds=time.perf_counter() - state["started"],
            failure=said.get("failure"),
            error=said.get("comment") if said.get("failure") else None,
        )
        return {key: said.get("score"), "calls": [record]}

    return note


def _journalled(
    made: Runnable[Any, dict[str, Any]], key: str, journal: Journal | None
) -> Runnable[Any, dict[str, Any]]:
    if journal is None:
        return made

    def known(state: Mapping[str, Any]) -> bool:
        return slot(state, key) in state["finished"]

    def recall(state: Mapping[str, Any]) -> dict[str, Any]:
        part: Part = state["finished"][slot(state, key)]
        return {key: _value(part), "calls": part["calls"]}

    def remember(state: Mapping[str, Any]) -> dict[str, Any]:
        update: dict[str, Any] = state["made"]
        if update[key] is not None:  # what is missing is asked for again next time
            journal.remember(state["key"], slot(state, key), part_of(update[key], update["calls"]))
        return update

    fresh = RunnablePassthrough.assign(made=made) | RunnableLambda(remember)
    return RunnableBranch((known, RunnableLambda(recall)), fresh)


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
