"""What both graphs are made of: the chains that draft, refine and answer alone.

Knows prompts, models and versions. Knows no trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.graph import StateGraph

from cowest_graph.calls import in_place, model_call
from cowest_graph.graph.asking import asked_after
from cowest_graph.graph.tracing import ChatModel, State
from cowest_graph.masking import learn_from
from cowest_graph.prompts import HISTORY, Prompts, readable, text_of
from cowest_graph.replies import as_message
from cowest_graph.threads import concurrent, in_threads

Chain = Runnable[Any, Any]
Update = dict[str, Any]
AnyGraph = StateGraph[Any, Any, Any, Any]


def learn_secrets(*models: Any) -> None:
    """The secrets of these models, so that none is stored or told."""
    for model in models:
        learn_from(model)


def chained(graph: AnyGraph, *nodes: str) -> None:
    """An edge from each node to the next."""
    for here, there in pairwise(nodes):
        graph.add_edge(here, there)


def version_of(weak: ChatModel) -> str | None:
    """The adapter a call of this model would use: a bound one, or what it says itself."""
    bound: str | None = setting_of(weak, "adapter")
    return bound or getattr(weak, "version", None)


def chosen_version(weak: ChatModel, config: RunnableConfig) -> str | None:
    """The adapter for one pass: of a candidate, where the pass's thread falls into its share."""
    bound: str | None = setting_of(weak, "adapter")
    choose = getattr(weak, "choose", None)
    if bound is not None or choose is None:
        return version_of(weak)
    thread = config.get("configurable", {}).get("thread_id")
    chosen: str | None = choose(None if thread is None else str(thread))
    return chosen


def setting_of(model: ChatModel, name: str) -> Any:
    """A call argument that was bound to the model, or else its field of that name, or None."""
    bound = getattr(model, "kwargs", {}).get(name)
    return getattr(model, name, None) if bound is None else bound


def drafting_chain(
    weak: ChatModel, prompts: Prompts, sampling: Mapping[str, Any] | None = None
) -> Chain:
    """The weak model's draft of what was asked, by the version that is chosen for it."""
    model = concurrent(weak)

    def pinned(state: State) -> Chain:
        arguments = dict(sampling or {})
        if state.get("weak_version") is not None:
            arguments["adapter"] = state["weak_version"]
        seed = arguments.get("seed", setting_of(weak, "seed"))
        if seed is not None and state.get("index"):  # one seed would draw K equal drafts
            arguments["seed"] = seed + state["index"]
        asked = asking(prompts, "draft", weak)
        return asked | (model.bind(**arguments) if arguments else model)

    return in_place(pinned)


def refining_chain(strong: ChatModel, prompts: Prompts) -> Chain:
    """The strong model's answer to what was asked, with the draft before it."""
    return asking(prompts, "refine", strong) | concurrent(strong) | in_place(read_reply)


def solo_chain(strong: ChatModel, prompts: Prompts) -> Chain:
    """The strong model's answer without a draft."""
    return asking(prompts, "solo", strong) | concurrent(strong) | in_place(read_reply)


def asking(prompts: Prompts, name: str, model: ChatModel) -> Chain:
    """What a model is asked: the prompt, after what of the conversation it can take."""
    template = getattr(prompts, name)

    def seen(state: State) -> dict[str, Any]:
        values: dict[str, Any] = {"query": state["asked"]["query"]}
        if name == "refine":
            values["draft"] = text_of(state["draft"])
        if history := state["asked"].get("history"):
            values[HISTORY] = history
        return values

    def worded(values: dict[str, Any]) -> Chain:
        # Counting tokens takes its time; a single query has nothing to count.
        return in_threads(fitted) if HISTORY in values else empty

    def fitted(values: dict[str, Any]) -> list[BaseMessage]:
        history = values.pop(HISTORY)
        return asked_after(prompts, name, values, history, model)

    empty = template.partial(**{HISTORY: []}) if HISTORY in template.input_variables else template
    return in_place(seen) | in_place(worded)


def shadowing_chain(drafting: Chain) -> Chain:
    """A draft that is recorded and never used."""
    return model_call(drafting, key="draft", role="shadow")


def read_reply(reply: Any) -> AIMessage:
    """The reply as one message that can be read."""
    return readable(as_message(reply))
