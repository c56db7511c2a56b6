"""SuperICL: the small model's prediction in the large one's context (Xu et al., 2024).

Knows shots: training examples with what the weak model said of them, how sure it was, and what is
right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from langchain_core.messages import AIMessage
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
    confidence,
    needed,
    tried,
)
from cowest_graph.calls import in_place
from cowest_graph.domains import Example
from cowest_graph.prompts import FORMAT, Prompts, final_answer
from cowest_graph.state import references

_WHO = "SuperICL"

WITH_PREDICTIONS = (
    "A small model trained for this task predicts an answer and says how sure it is. Keep its "
    "prediction or overrule it. " + FORMAT + "\n\n{task}{shots}Question: {query}\n{predicted}"
)


@dataclass(frozen=True)
class Shot:
    """One training example as it is shown."""

    query: str
    predicted: str | None
    confidence: float  # in (0, 1]
    reference: str

    def __str__(self) -> str:
        said = _prediction(self.predicted, self.confidence)
        return f"Question: {self.query}\n{said}\nAnswer: {self.reference}\n\n"


def create_super_icl(
    weak: ChatModel,
    strong: ChatModel,
    prompts: Prompts,
    shots: Sequence[Shot],
    *,
    task: str = "",
    read: Callable[[str, str], str | None] = lambda text, query: final_answer(text),
) -> Graph:
    """Predict with the weak model, decide with the strong one.

    Args:
        weak: π_w after SFT; its endpoint must answer `logprobs=True`.
        strong: π_s.
        prompts: their draft prompt is what the weak model is asked.
        shots: shown before the query.
        task: told before the query.
        read: the prediction in (text, query), as in the shots.

    Returns:
        An uncompiled graph from {"query"} to {"draft", "answer"}. Invoking it raises ValueError
        when the weak model gives no log-probabilities.
    """
    shown = "".join(str(shot) for shot in shots)
    asked = in_place(lambda state: _asked(state, shown, read))
    deciding: Chain = asked | asking(WITH_PREDICTIONS, task=task) | strong
    graph = StateGraph(Answering, input_schema=Asked, output_schema=Answered)
    graph.add_node("draft", answered(prompts.draft | weak.bind(logprobs=True), "draft"))
    graph.add_node("decide", answered(deciding))
    graph.add_edge(START, "draft")
    graph.add_edge("draft", "decide")
    graph.add_edge("decide", END)
    return graph


def super_icl_of(materials: Materials) -> Graph:
    """SuperICL; the shots are some training queries that the weak model predicts first."""
    examples: Sequence[Example] = needed(materials, "examples", _WHO)
    known = [example for example in examples if references(example.reference)]
    shots = predicted_shots(materials, known[: max(1, materials.probes // 2)])
    return create_super_icl(
        materials.weak,
        materials.strong,
        materials.prompts,
        shots,
        task=materials.task,
        read=materials.read,
    )


def predicted_shots(materials: Materials, examples: Sequence[Example]) -> list[Shot]:
    """Training examples with the weak model's predictions; none where its call failed.

    Raises:
        ValueError: when the weak model gives no log-probabilities.
    """
    chain = materials.prompts.draft | materials.weak.bind(logprobs=True)
    asked = [{"query": example.query} for example in examples]
    said: list[AIMessage | None] = tried(chain, asked, materials.config)
    return [
        Shot(
            example.query,
            materials.read(message.text, example.query),
            confidence(message, _WHO),
            references(example.reference)[0],
        )
        for example, message in zip(examples, said, strict=True)
        if message is not None
    ]


def _asked(state: State, shots: str, read: Callable[[str, str], str | None]) -> dict[str, str]:
    draft: AIMessage = state["draft"]
    said = read(str(draft.text), state["query"])
    predicted = _prediction(said, confidence(draft, _WHO))
    return {"query": state["query"], "shots": shots, "predicted": predicted}


def _prediction(answer: str | None, sure: float) -> str:
    if answer is None:
        return "Small model: no prediction"
    return f"Small model: {answer} (confidence: {sure:.2f})"
