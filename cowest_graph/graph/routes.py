"""Which way a query goes, as nodes and edges: the weak model alone, the strong one alone, or both.

Knows a router by what it decides (`routing.seen.Router`), and what is shown where the draft is the
answer. Knows no features and no learning.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Protocol

from langchain_core.messages import AIMessage
from langgraph.graph import START

from cowest_graph.calls import failed_call, fall_back, in_place, model_call
from cowest_graph.graph.chains import AnyGraph, Chain, Update, chained
from cowest_graph.graph.streaming import hidden, shown
from cowest_graph.graph.tracing import State, logprobs, text
from cowest_graph.masking import masked_error
from cowest_graph.routing.seen import Router, Seen
from cowest_graph.state import Collaboration
from cowest_graph.threads import in_threads

log = logging.getLogger(__name__)


class Routed(Collaboration, total=False):
    """The state of a pass that has more than one way to go."""

    route: dict[str, Any] | None  # `traces.Route` as plain data
    second: AIMessage | None  # another draft, never used but to be compared


class Add(Protocol):
    """Adds a node that calls a model."""

    def __call__(
        self, name: str, chain: Chain, key: str, role: str, handler: Any = None, *, also: Any = None
    ) -> None:
        """The node's name, its chain, the state key of its message, and the call's role."""


def sampling_of(router: Router | None) -> dict[str, Any] | None:
    """What the weak model is asked for beside its draft."""
    return {"logprobs": True} if router is not None and router.logprobs else None


def add_routes(
    graph: AnyGraph,
    router: Router,
    add: Add,
    drafting: Callable[[dict[str, Any] | None], Chain],
    then: str,
    by_strong: Any,
) -> None:
    """The node that decides, and the edges of the three ways, between "begin" and `then`.

    Args:
        graph: with the nodes begin, draft, refine and alone.
        router: who decides.
        add: for nodes that call a model.
        drafting: the weak model's chain, from what it is asked for beside its draft.
        then: where every way leads.
        by_strong: the error handler of a draft that is to be the answer.
    """
    graph.add_node("route", _deciding(router))
    chained(graph, "refine", then)
    if router.after_draft:
        graph.add_node("keep", in_place(_kept))
        chained(graph, START, "begin", "draft", "second" if router.second else "route")
        if router.second:
            _add_second(graph, drafting({"temperature": 1.0}))  # a greedy one would agree always
        _branch(graph, weak="keep", strong="alone", both="refine")
        chained(graph, "keep", then)
        return
    telling = shown(drafting(None), "answering with the draft") | in_place(_marked)
    add("draft_alone", telling, "draft", "draft", by_strong, also=in_place(_as_answer))
    chained(graph, START, "begin", "route")
    chained(graph, "draft", "refine")
    _branch(graph, weak="draft_alone", strong="alone", both="draft")
    chained(graph, "draft_alone", then)


def _branch(graph: AnyGraph, **nodes: str) -> None:
    def way(state: State) -> str:
        found: str = state["route"]["way"]
        return found

    paths: dict[Hashable, str] = dict(nodes.items())
    graph.add_conditional_edges("route", way, paths)


def _deciding(router: Router) -> Chain:
    def decide(state: State) -> Update:
        draft, asked = state.get("draft"), state["asked"]
        seen = Seen(
            query=asked["query"],
            domain=asked.get("domain"),
            draft=text(draft),
            logprobs=logprobs(draft),
            second=text(state.get("second")),
        )
        try:
            return {"route": router.decide(seen, state["key"]).model_dump()}
        except Exception as error:  # no answer is lost because nobody knew how to save on it
            log.warning("the router failed (%s); both models answer", masked_error(error))
            both = {"way": "both", "propensity": 1.0, "router": None, "expected": {}}
            return {"route": both, "calls": [failed_call("route", error)]}

    return in_threads(decide)  # an embedding takes its time


def _add_second(graph: AnyGraph, drafting: Chain) -> None:
    """A second draft after the first one; where it fails, it is missing."""
    # An index of its own moves the seed, so that the two are not one text.
    sampled = in_place(lambda state: {**state, "index": 1}) | drafting
    node = model_call(hidden(sampled), key="second", role="draft")
    graph.add_node("second", node, error_handler=fall_back("draft", "route"))
    chained(graph, "second", "route")


def _marked(draft: AIMessage) -> AIMessage:
    return draft.model_copy(
        update={"response_metadata": {**draft.response_metadata, "way": "weak"}}
    )


def _as_answer(update: Mapping[str, Any]) -> Update:
    return {**update, "answer": update["draft"]}


def _kept(state: State) -> Update:
    """The draft as the answer: a message of its own, so that it is streamed, and as a whole."""
    draft: AIMessage = state["draft"]
    about = {name: each for name, each in draft.response_metadata.items() if name != "logprobs"}
    version = about.get("weak_version") or state.get("weak_version")
    about |= {"trace_key": state["key"], "weak_version": version, "way": "weak"}
    fresh = {"id": f"cowest-{uuid.uuid4().hex}", "response_metadata": about}
    return {"answer": draft.model_copy(update=fresh)}
