"""Self-Refine: one model answers, criticises itself, and revises (Madaan et al., 2023).

Knows the loop and its end: no fault found, nothing changed, or four rounds (paper, Appendix B.3).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from langchain_core.prompts import ChatPromptTemplate
from langgraph.graph import END, START, StateGraph

from cowest_graph.baselines.parts import (
    Answered,
    Answering,
    Asked,
    Chain,
    ChatModel,
    Graph,
    Materials,
    State,
    answered,
    asking,
    written,
)
from cowest_graph.calls import in_place
from cowest_graph.prompts import FORMAT

FEEDBACK = (
    "Here are a question and your answer to it. Say in one or two sentences what is wrong with the "
    "answer. If nothing is wrong with it, reply with the one word CORRECT.\n\n"
    "{task}Question: {query}\n\nYour answer:\n{answer}"
)
REVISE = (
    "Improve your answer to a question by the criticism of it. " + FORMAT + "\n\n"
    "{task}Question: {query}\n\nYour answer:\n{answer}\n\nCriticism: {feedback}"
)

_FINE = re.compile(r"^\W*(?:(?:the|your) answer is |it is |this is )?correct\W*(?:$|[.!,\n])", re.I)


class Refining(Answering, total=False):
    """The state of the loop."""

    feedback: str
    round: int  # revisions so far
    before: str  # the answer that was revised


def create_self_refine(
    model: ChatModel,
    first: ChatPromptTemplate,
    *,
    critic: ChatModel | None = None,
    rounds: int = 4,
    task: str = "",
) -> Graph:
    """Answer, criticise, revise, until no fault is found or a revision changes nothing.

    Args:
        model: answers and revises.
        first: the prompt of the first answer; sees {query}.
        critic: the same model without a forced format; `model` when None.
        rounds: revisions at most; the paper's 4.
        task: told before the query when criticising and revising.

    Returns:
        An uncompiled graph from {"query"} to {"answer"}.

    Raises:
        ValueError: for fewer than one round.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; Self-Refine needs at least one")
    graph = StateGraph(Refining, input_schema=Asked, output_schema=Answered)
    graph.add_node("answer", answered(first | model))
    feedback = _shown | asking(FEEDBACK, task=task) | (critic or model)
    graph.add_node("criticise", written(feedback, "feedback"))
    graph.add_node("revise", answered(_shown | asking(REVISE, task=task) | model))
    graph.add_node("keep", lambda state: {"before": state["answer"].text})
    graph.add_node("count", lambda state: {"round": state.get("round", 0) + 1})
    graph.add_edge(START, "answer")
    graph.add_edge("answer", "criticise")
    graph.add_conditional_edges("criticise", _go_on, ["keep", END])
    graph.add_edge("keep", "revise")
    graph.add_edge("revise", "count")
    graph.add_conditional_edges("count", _again(rounds), ["criticise", END])
    return graph


def weak_self_refine(materials: Materials) -> Graph:
    """Self-Refine of the weak model."""
    return create_self_refine(
        materials.weak, materials.prompts.draft, task=materials.weak_task or materials.task
    )


def strong_self_refine(materials: Materials) -> Graph:
    """Self-Refine of the strong model."""
    return create_self_refine(
        materials.strong, materials.prompts.solo, critic=materials.free, task=materials.task
    )


def _show(state: State) -> dict[str, str]:
    return {
        "query": state["query"],
        "answer": state["answer"].text,
        "feedback": state.get("feedback", ""),
    }


_shown: Chain = in_place(_show)


def _go_on(state: State) -> str:
    return END if _FINE.match(state["feedback"]) else "keep"


def _again(rounds: int) -> Callable[[State], str]:
    """On to the next round, unless it was the last, or the criticism changed nothing."""

    def again(state: State) -> str:
        unchanged = state["answer"].text == state["before"]
        return END if unchanged or state["round"] >= rounds else "criticise"

    return again
