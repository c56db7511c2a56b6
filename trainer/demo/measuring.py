"""Methods on held-out questions: what they say, how right it is, what a draft states.

Knows greedy runs of one model or two, and their scores. Knows no training and no report.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_core.prompts import ChatPromptTemplate

from cowest_graph import create_collaboration, exact_match, final_answer, token_f1
from cowest_graph.benchmark import Difference, mean_interval
from cowest_graph.prompts import Prompts, readable, text_of

if TYPE_CHECKING:
    from cowest_graph.graph import ChatModel

Rows = Sequence[Mapping[str, Any]]

# A third of the tokens of the library's own prompts, which is what the stand-in's time goes into on
# a CPU; it answers as well (docs/log.md).
PROMPTS = Prompts(
    solo=ChatPromptTemplate.from_messages([("human", "Answer the question.\n\nQuestion: {query}")]),
    refine=ChatPromptTemplate.from_messages(
        [
            (
                "human",
                "Answer the question; the expert's notes may help.\n\nQuestion: {query}\n\n"
                "Expert:\n{draft}",
            )
        ]
    ),
)
"""The demo's wording."""


@dataclass(frozen=True)
class Measured:
    """One method's scores on the held-out questions, in their order, and what they cost."""

    method: str
    exact: list[float]
    f1: list[float]
    weak_calls: int
    strong_calls: int
    seconds: float | None  # None where it was written together with another method
    outputs: list[str] = field(repr=False, default_factory=list)

    @property
    def interval(self) -> Difference:
        """Mean exact match with its interval."""
        return mean_interval(self.exact)


@dataclass(frozen=True)
class Stated:
    """What drafts state of the facts that their answers need; shares from 0 to 1.

    Args:
        facts: of the needed facts, those that are stated as they are.
        complete: of the drafts, those that state every one.
        left_out: of the drafts, those with the hurried author's words in a fact's place.
    """

    facts: float
    complete: float
    left_out: float


def stated(drafts: Sequence[str], rows: Rows) -> Stated:
    """What drafts say of their rows' "facts", and of what is "unsaid".

    >>> row = {"facts": ["A is 1.", "B is 2."], "unsaid": ["A is listed.", "B is listed."]}
    >>> stated(["A is 1. B is listed.", "B is 2. A is 1."], [row, row])
    Stated(facts=0.75, complete=0.5, left_out=0.5)
    """
    said = [(draft, row) for draft, row in zip(drafts, rows, strict=True)]
    found = [[fact in draft for fact in row["facts"]] for draft, row in said]
    each = [there for row in found for there in row]
    left_out = [any(words in draft for words in row["unsaid"]) for draft, row in said]
    return Stated(
        sum(each) / len(each), sum(map(all, found)) / len(found), sum(left_out) / len(left_out)
    )


def alone(method: str, model: Any, rows: Rows, *, strong: bool = False) -> Measured:
    """One model without the other, asked as it is asked in a collaboration.

    Args:
        method: its name in the table.
        model: weak or strong.
        rows: {"query", "reference"} each.
        strong: whether it is the strong one.
    """
    chain = PROMPTS.solo | model | readable if strong else PROMPTS.draft | model
    started = time.perf_counter()
    said = chain.batch([{"query": row["query"]} for row in rows], {"max_concurrency": len(rows)})
    seconds, n = time.perf_counter() - started, len(rows)
    return scored(method, said, rows, 0 if strong else n, n if strong else 0, seconds)


def together(
    names: tuple[str, str], weak: Any, strong: ChatModel, rows: Rows, prompts: Prompts = PROMPTS
) -> tuple[Measured, Measured]:
    """The weak model alone and the collaboration, of one run: its drafts are what it says alone.

    Args:
        names: of the two in the table.
        weak, strong: the models; the weak one greedy.
        rows: {"query", "reference"} each.
        prompts: the wording.
    """
    graph = create_collaboration(weak, strong, prompts=prompts).compile()
    started = time.perf_counter()
    out = graph.batch([{"query": row["query"]} for row in rows], {"max_concurrency": len(rows)})
    seconds, n = time.perf_counter() - started, len(rows)
    # Written in the same run, so the weak model's own seconds are not known.
    return (
        scored(names[0], [o["draft"] for o in out], rows, n, 0, None),
        scored(names[1], [o["answer"] for o in out], rows, n, n, seconds),
    )


def refined(method: str, strong: ChatModel, drafts: Sequence[str], rows: Rows) -> Measured:
    """The strong model over drafts that are there already."""
    asked = [
        {"query": row["query"], "draft": draft} for row, draft in zip(rows, drafts, strict=True)
    ]
    started = time.perf_counter()
    chain = PROMPTS.refine | strong | readable
    said = chain.batch(asked, {"max_concurrency": len(rows)})
    seconds = time.perf_counter() - started
    return scored(method, said, rows, 0, len(rows), seconds)


def scored(
    method: str, said: Sequence[Any], rows: Rows, weak: int, strong: int, seconds: float | None
) -> Measured:
    """Outputs beside their references.

    Args:
        method: its name in the table.
        said: one message or text a row.
        rows: {"reference"} each.
        weak, strong: calls that were made.
        seconds: that they took; None where unknown.
    """
    answers = [final_answer(message) for message in said]
    references = [row["reference"] for row in rows]
    both = list(zip(answers, references, strict=True))
    return Measured(
        method,
        exact=[exact_match(a, r) for a, r in both],
        f1=[token_f1(a, r) for a, r in both],
        weak_calls=weak,
        strong_calls=strong,
        seconds=seconds,
        outputs=[text_of(message) for message in said],
    )
