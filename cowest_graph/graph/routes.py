"""Which way a query goes, as nodes and edges: the weak model alone, the strong one alone, or both.

Knows a router by what it decides (`routing.seen.Router`), and what is shown where the draft is the
answer. Knows no features and no learning.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Protocol, cast

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableParallel
from langgraph.graph import START

from cowest_graph.calls import failed_call, in_place, model_call
from cowest_graph.graph.chains import AnyGraph, Chain, Update, chained
from cowest_graph.graph.streaming import hidden, shown
from cowest_graph.graph.tracing import State, logprobs, text
from cowest_graph.masking import masked_error
from cowest_graph.routing.seen import Choosing, Router, Seen, drafts_of
from cowest_graph.state import Collaboration
from cowest_graph.threads import in_threads
from cowest_graph.traces import Route

log = logging.getLogger(__name__)

_RAISED = "_raised"  # where the error of a draft beside the first one is told


class Routed(Collaboration, total=False):
    """The state of a pass that has more than one way to go."""

    route: dict[str, Any] | None  # `traces.Route` as plain data
    others: list[AIMessage] | None  # other drafts, which were not taken


class Add(Protocol):
    """Adds a node that calls a model."""

    def __call__(
        self, name: str, chain: Chain, key: str, role: str, handler: Any = None, *, wrap: Any = None
    ) -> None:
        """The node's name, its chain, the state key of its message, and the call's role.

        `wrap` makes another node of the one that calls the model.
        """


def sampling_of(router: Router | None) -> dict[str, Any] | None:
    """What the weak model is asked for beside its draft."""
    return {"logprobs": True} if router is not None and router.logprobs else None


def drafts_beside(
    router: Router | None, drafting: Callable[[dict[str, Any] | None], Chain]
) -> Callable[[Chain], Chain] | None:
    """What makes the node of the draft one that draws all drafts a router wants, side by side.

    Args:
        router: who decides.
        drafting: the weak model's chain, from what it is asked for beside its draft.

    Returns:
        None where one draft is all.
    """
    wanted = 1 if router is None or not router.after_draft else drafts_of(router)
    if router is not None and router.after_draft and router.second:
        wanted = max(wanted, 2)
    if wanted == 1:
        return None
    # A greedy draft would be the same each time.
    sampling = {"temperature": 1.0, **(sampling_of(router) or {})}
    sampled = hidden(drafting(sampling), told=False)
    more: Any = {f"draft_{number}": _another(sampled, number) for number in range(1, wanted)}
    return lambda node: RunnableParallel({"draft": node, **more}) | in_place(_drawn)


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
        chained(graph, START, "begin", "draft", "route")
        _branch(graph, weak="keep", strong="alone", both="refine")
        chained(graph, "keep", then)
        return
    telling = shown(drafting(None), "answering with the draft") | in_place(_marked)
    add("draft_alone", telling, "draft", "draft", by_strong, wrap=_answering)
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
        drafts = [state.get("draft"), *(state.get("others") or [])]
        seen = _seen(state["asked"], drafts)
        try:
            taken, route = _decided(router, seen, state["key"])
            others = [each for place, each in enumerate(drafts) if place != taken]
            chosen = {"draft": drafts[taken], "others": others} if taken else {}
            return {"route": route.model_dump(), **chosen}
        except Exception as error:  # no answer is lost because nobody knew how to save on it
            log.warning("the router failed (%s); both models answer", masked_error(error))
            both = {"way": "both", "propensity": 1.0, "router": None, "expected": {}}
            return {"route": both, "calls": [failed_call("route", error)]}

    return in_threads(decide)  # an embedding takes its time


def _decided(router: Router, seen: list[Seen], key: str) -> tuple[int, Route]:
    if drafts_of(router) > 1:
        return cast(Choosing, router).choose(seen, key)
    return 0, router.decide(seen[0], key)


def _seen(asked: Mapping[str, Any], drafts: list[AIMessage | None]) -> list[Seen]:
    """The query with each of its drafts, and the next one to compare it with."""
    beside = [*drafts[1:], *drafts[:1]] if len(drafts) > 1 else [None]
    return [
        Seen(
            query=asked["query"],
            domain=asked.get("domain"),
            draft=text(draft),
            logprobs=logprobs(draft),
            second=text(other),
        )
        for draft, other in zip(drafts, beside, strict=True)
    ]


def _another(drafting: Chain, number: int) -> Chain:
    """One more draft; where it fails, it is missing."""
    # An index of its own moves the seed, so that no two are one text.
    sampled = in_place(lambda state: {**state, "index": number}) | drafting
    missing = in_place(
        lambda state: {"draft": None, "calls": [failed_call("draft", state[_RAISED])]}
    )
    node = model_call(sampled, key="draft", role="draft")
    return node.with_fallbacks([missing], exception_key=_RAISED)


def _drawn(updates: Mapping[str, Update]) -> Update:
    """One update of the first draft's and the others'."""
    first, *more = updates.values()
    others = [each["draft"] for each in more if each["draft"] is not None]
    return {
        **first,
        "others": others,
        "calls": [c for each in updates.values() for c in each["calls"]],
    }


def _answering(node: Chain) -> Chain:
    return node | in_place(_as_answer)


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
