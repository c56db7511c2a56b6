"""SKR: the strong model retrieves only where its own knowledge fails (Wang et al., 2023).

Knows the nearest-neighbour variant: training queries near this one, which the model answered
beforehand with and without passages, vote on whether to retrieve.
"""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.documents import Document
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable
from langgraph.graph import END, START, StateGraph

from cowest_graph.baselines.parts import (
    Answered,
    Asked,
    ChatModel,
    Graph,
    Materials,
    Retrieving,
    State,
    answer_with_passages,
    answered,
    needed,
    retrieved,
    tried,
)
from cowest_graph.calls import in_place
from cowest_graph.domains import Example

NEIGHBOURS = 3


class Knowing(Retrieving, total=False):
    """The state: whether queries like this one needed passages."""

    known: bool


def create_skr(
    strong: ChatModel,
    retriever: Runnable[str, list[Document]],
    neighbours: Runnable[str, list[Document]],
    solo: ChatPromptTemplate,
    *,
    task: str = "",
) -> Graph:
    """Ask the neighbours, then answer alone or with passages.

    Args:
        strong: π_s.
        retriever: over passages.
        neighbours: a retriever over training queries whose metadata has `known`, whether the model
            did without passages (see `self_knowledge`).
        solo: the prompt without passages; sees {query}.
        task: told before the query beside passages.

    Returns:
        An uncompiled graph from {"query"} to {"answer"}.
    """
    graph = StateGraph(Knowing, input_schema=Asked, output_schema=Answered)
    voting = in_place(lambda state: state["query"]) | neighbours | in_place(_vote)
    graph.add_node("recall", voting)
    graph.add_node("retrieve", retrieved(retriever))
    graph.add_node("answer_with_passages", answered(answer_with_passages(strong, task)))
    graph.add_node("answer_alone", answered(solo | strong))
    graph.add_edge(START, "recall")
    graph.add_conditional_edges("recall", _branch, ["answer_alone", "retrieve"])
    graph.add_edge("retrieve", "answer_with_passages")
    graph.add_edge("answer_with_passages", END)
    graph.add_edge("answer_alone", END)
    return graph


def skr_of(materials: Materials) -> Graph:
    """SKR, its self-knowledge collected on some training queries first."""
    retriever = needed(materials, "retriever", "SKR")
    near = needed(materials, "similar", "SKR")
    known = self_knowledge(materials, retriever)
    if not known:  # nothing was answered either way: it cannot do without
        known = [Document(page_content=materials.examples[0].query, metadata={"known": False})]
    neighbours = near(known, min(NEIGHBOURS, len(known)))
    return create_skr(
        materials.strong, retriever, neighbours, materials.prompts.solo, task=materials.task
    )


def self_knowledge(
    materials: Materials, retriever: Runnable[str, list[Document]]
) -> list[Document]:
    """Training queries, and whether the strong model did as well without passages as with them.

    Args:
        materials: strong model, examples, score and how many examples to try.
        retriever: over passages; a query's own passages are not shown to it.

    Returns:
        One document a query, with `known` in its metadata; none for a query that was answered
        wrong both ways, or whose call failed.

    Raises:
        ValueError: when there are no examples.
    """
    examples: Sequence[Example] = needed(materials, "examples", "SKR")
    chosen = list(examples)[: materials.probes]
    asked = [{"query": example.query} for example in chosen]
    alone = tried(materials.prompts.solo | materials.strong, asked, materials.config)
    finding = retrieved(retriever).batch(asked, materials.config)
    shown = [{**query, **found} for query, found in zip(asked, finding, strict=True)]
    answering = answer_with_passages(materials.strong, materials.task)
    helped = tried(answering, shown, materials.config)
    found: list[Document] = []
    for example, without, with_them in zip(chosen, alone, helped, strict=True):
        if without is None or with_them is None:
            continue
        scores = [materials.score(said.text, example) for said in (without, with_them)]
        if max(scores) > 0:
            known = {"known": scores[0] >= scores[1]}
            found.append(Document(page_content=example.query, metadata=known))
    return found


def _vote(found: list[Document]) -> dict[str, bool]:
    return {"known": 2 * sum(bool(each.metadata["known"]) for each in found) > len(found)}


def _branch(state: State) -> str:
    return "answer_alone" if state["known"] else "retrieve"
