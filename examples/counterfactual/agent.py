"""A what-if analyst: a question that supposes something, passages, and where the answer stands."""

from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from cowest_graph import create_collaboration
from cowest_graph.domains.retrieval import Lexical
from cowest_graph.metrics import normalize
from cowest_graph.prompts import text_of
from examples.counterfactual.domain import ifqa

Model = Runnable[Any, Any]


class WhatIf(TypedDict):
    """A question and the passages to answer it from."""

    query: str
    passages: list[str] | str


class Analysed(TypedDict, total=False):
    """The answer in a few words, the whole message, and the passage with the answer in it."""

    short: str | None
    answer: AIMessage
    evidence: str | None


class Analysing(WhatIf, Analysed, total=False):
    """The state."""

    kept: list[str]


def create_analyst(
    weak: Model, strong: Model, *, passages: int = 2
) -> StateGraph[Analysing, None, WhatIf, Analysed]:
    """Keep the passages nearest to the question, draft and refine, look for the evidence.

    Args:
        weak: the specialised model.
        strong: the general one.
        passages: how many are shown to the models.

    Returns:
        An uncompiled graph from {"query", "passages"} to {"short", "answer", "evidence"}; evidence
        is None where no passage says the answer, as when it was reasoned out.
    """
    together = create_collaboration(
        weak, strong, prompts=ifqa.prompts(), domain=ifqa.name
    ).compile()
    graph = StateGraph(Analysing, input_schema=WhatIf, output_schema=Analysed)
    graph.add_node("keep", _nearest(passages))
    graph.add_node("answer", RunnableLambda(_in_context) | together.pick(["answer"]))
    graph.add_node("look", _look)
    graph.add_edge(START, "keep")
    graph.add_edge("keep", "answer")
    graph.add_edge("answer", "look")
    graph.add_edge("look", END)
    return graph


def _nearest(count: int) -> Any:
    def keep(state: Analysing) -> dict[str, list[str]]:
        given = state["passages"]
        given = [given] if isinstance(given, str) else given
        if len(given) <= count:
            return {"kept": given}
        found = Lexical(documents=[Document(p) for p in given], k=count).invoke(state["query"])
        return {"kept": [document.page_content for document in found] or given[:count]}

    return keep


def _in_context(state: Analysing) -> dict[str, str]:
    context = "\n".join(state["kept"])
    return {"query": f"{state['query']}\n\nContext: {context}" if context else state["query"]}


def _look(state: Analysing) -> dict[str, str | None]:
    short = ifqa.read(text_of(state["answer"]), state["query"])
    said = normalize(short) if short else ""
    evidence = next((p for p in state["kept"] if said and said in normalize(p)), None)
    return {"short": short, "evidence": evidence}
