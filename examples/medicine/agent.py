"""A tutor for medical exams: it retrieves notes, answers with both models, and cites its notes."""

import re
from collections.abc import Callable
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from cowest_graph import Prompts, create_collaboration
from cowest_graph.prompts import text_of
from examples.medicine.domain import medmcqa

Model = Runnable[Any, Any]


class Asked(TypedDict):
    """A question with its options (see `cowest_graph.domains.options`)."""

    query: str


class Taught(TypedDict, total=False):
    """The tutor's answer, the letter in it, and the notes that it rests on."""

    answer: AIMessage
    letter: str | None
    citations: list[str]


class Teaching(Asked, Taught, total=False):
    """The state: with the notes found."""

    notes: list[str]


def create_tutor(
    weak: Model,
    strong: Model,
    retriever: Runnable[str, list[Document]],
    *,
    prompts: Prompts | None = None,
) -> StateGraph[Teaching, None, Asked, Taught]:
    """Retrieve notes, draft and refine an answer with them in view, cite.

    Args:
        weak: the specialised model.
        strong: the general one.
        retriever: over notes, such as `cowest_graph.domains.retrieval.Hybrid`.
        prompts: your own wording; the domain's by default.

    Returns:
        An uncompiled graph from {"query"} to {"answer", "letter", "citations"}.
    """
    together = create_collaboration(
        weak, strong, prompts=prompts or medmcqa.prompts(), domain=medmcqa.name
    ).compile()
    graph = StateGraph(Teaching, input_schema=Asked, output_schema=Taught)
    graph.add_node("search", RunnableLambda(lambda s: s["query"]) | retriever | _noted)
    graph.add_node("answer", RunnableLambda(_with_notes) | together.pick(["answer"]))
    graph.add_node("cite", _cite)
    graph.add_edge(START, "search")
    graph.add_edge("search", "answer")
    graph.add_edge("answer", "cite")
    graph.add_edge("cite", END)
    return graph


def _noted(found: list[Document]) -> dict[str, list[str]]:
    return {"notes": [document.page_content for document in found]}


def _with_notes(state: Teaching) -> dict[str, str]:
    notes = "\n".join(f"[{n}] {note}" for n, note in enumerate(state["notes"], start=1))
    asked = f"{state['query']}\n\nNotes, to be cited by number:\n{notes}"
    return {"query": asked if notes else state["query"]}


def _cite(state: Teaching) -> dict[str, Any]:
    text, notes = text_of(state["answer"]), state["notes"]
    numbers = dict.fromkeys(int(number) for number in re.findall(r"\[(\d+)\]", text))
    cited = [notes[n - 1] for n in numbers if 0 < n <= len(notes)]  # a number may be made up
    # A model that cites nothing still used what it was shown: the note nearest to its words.
    cited = cited or sorted(notes, key=_shared_with(text))[-1:]
    return {"letter": medmcqa.read(text, state["query"]), "citations": cited}


def _shared_with(text: str) -> Callable[[str], int]:
    words = set(re.findall(r"\w{4,}", text.lower()))
    return lambda note: len(words & set(re.findall(r"\w{4,}", note.lower())))
