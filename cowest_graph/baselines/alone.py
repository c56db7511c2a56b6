"""One model alone: the weak one, the weak one after SFT, the strong one, directly or with reasons.

Knows one prompt and one call (paper, Table 1, rows "Weak Only" and "Strong Only").
"""

from __future__ import annotations

from langchain_core.prompts import ChatPromptTemplate
from langgraph.graph import END, START, StateGraph

from cowest_graph.baselines.parts import (
    Answered,
    Answering,
    Asked,
    ChatModel,
    Graph,
    Materials,
    answered,
    asking,
)

DIRECT = (
    'Answer the question. Write "Answer:" and the answer in a few words, and nothing else.'
    "\n\n{task}Question: {query}"
)
"""The strong model without a chain of thought."""


def create_alone(model: ChatModel, prompt: ChatPromptTemplate) -> Graph:
    """One call of one model.

    Args:
        model: any chat model.
        prompt: sees {query}.

    Returns:
        An uncompiled graph from {"query"} to {"answer"}.
    """
    graph = StateGraph(Answering, input_schema=Asked, output_schema=Answered)
    graph.add_node("answer", answered(prompt | model))
    graph.add_edge(START, "answer")
    graph.add_edge("answer", END)
    return graph


def weak_alone(materials: Materials) -> Graph:
    """The weak model, asked as in a collaboration."""
    return create_alone(materials.weak, materials.prompts.draft)


def strong_alone(materials: Materials) -> Graph:
    """The strong model, asked for the answer and nothing else."""
    return create_alone(
        materials.strong_direct or materials.free, asking(DIRECT, task=materials.task)
    )


def strong_with_reasons(materials: Materials) -> Graph:
    """The strong model with chain of thought: the solo answer z of the method."""
    return create_alone(materials.strong, materials.prompts.solo)
