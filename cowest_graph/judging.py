"""One call of a judge for several answers to the same query, and whether it can be relied on.

Knows the prompt, how its reply is read, and how judgements are compared. Knows no graph and no
store; a single answer is judged by `evaluators.judge`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from statistics import fmean
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda

from cowest_graph.evaluators import Evaluation, model_name, parse_score
from cowest_graph.masking import learn_from, masked_error
from cowest_graph.prompts import JUDGE, text_of
from cowest_graph.replies import EmptyReply, as_message
from cowest_graph.state import references

_RUBRIC = str(JUDGE.messages[0].prompt.template).split("\n\n")[1]  # type: ignore[union-attr]

TOGETHER = ChatPromptTemplate.from_messages(
    [
        (
            "human",
            "Score how correct each of several outputs is, each on its own, from 1 to 10, given "
            "the ground truth.\n\n" + _RUBRIC + "\n\n"
            "Question: {query}\n\nGround truth: {reference}\n\n{outputs}\n\n"
            "Reply with {count} integers from 1 to 10, one an output in their order, separated by "
            "commas, and nothing else.",
        )
    ]
)
"""The judge's prompt for several outputs; its rubric is that for one."""

_AGAIN = "Those were not {count} scores. Reply with {count} integers from 1 to 10, with commas."

Asked = Sequence[dict[str, Any]]
"""The three keywords of each answer (`evaluators.keywords`), all of one query."""


class Together(RunnableLambda[Any, Any]):
    """An evaluator of several answers to one query: of a list of them, or of one by itself.

    A collection by Algorithm 1 asks it once a query, of all answers; whoever has one answer gives
    that one.
    """


def judge_together(model: Runnable[LanguageModelInput, Any]) -> Together:
    """A judge of several answers to one query in one call.

    A reply that has not as many scores as there are answers is asked for once more; then all of
    them are missing, with failure `unparsable`. Tokens stand at the first answer. One answer alone
    is judged by this prompt, too.

    >>> from cowest_graph.evaluators import keywords
    >>> from cowest_graph.testing import ScriptedModel
    >>> asked = [keywords("1 + 1?", AIMessage(said), "2") for said in ("2", "3")]
    >>> [each["score"] for each in judge_together(ScriptedModel(["10, 1"])).invoke(asked)]
    [10.0, 1.0]

    Args:
        model: any LangChain chat model.
    """
    learn_from(model)
    ask = model | RunnableLambda(_said)

    def judged(asked: Asked | Mapping[str, Any]) -> Any:  # evaluations, or the chain for them
        if isinstance(asked, Mapping):
            alone = [dict(asked)]
            return RunnableLambda(lambda _: alone) | chain | RunnableLambda(_first)
        if not asked:
            return []
        if not references(asked[0]["reference_outputs"]["reference"]):
            return [Evaluation(score=None, comment="no reference") for _ in asked]
        messages = _messages(asked)

        def read(first: AIMessage) -> Any:
            if parse_scores(text_of(first), len(asked)) is not None:
                return _evaluations([first], len(asked))
            again = [*messages, first, HumanMessage(_AGAIN.format(count=len(asked)))]
            return RunnableLambda(lambda _: again) | ask | RunnableLambda(partial(both, first))

        def both(first: AIMessage, second: AIMessage) -> list[Evaluation]:
            return _evaluations([first, second], len(asked))

        return RunnableLambda(lambda _: messages) | ask | RunnableLambda(read)

    chain = Together(judged)
    chain.name = f"judge together:{model_name(model) or 'model'}"
    return chain


def _first(found: list[Evaluation]) -> Evaluation:
    return found[0]


def parse_scores(text: str, count: int) -> list[int] | None:
    """So many scores, with commas, spaces or line breaks between; None for anything else.

    >>> parse_scores("7, 10", 2), parse_scores("1. 7\\n2. 10", 2), parse_scores("7", 2)
    ([7, 10], None, None)
    """
    parts = [part for part in re.split(r"[,;\s]+", text.strip().strip("[]().")) if part]
    scores = [parse_score(part) for part in parts]
    found = [score for score in scores if score is not None]
    return found if len(found) == len(scores) == count else None


@dataclass(frozen=True)
class Reliability:
    """How a judge of several answers agrees with one that sees each alone.

    Args:
        answers: that all judgements have a score for.
        missing: answers that lack one.
        apart: how far the two are from each other, in the mean.
        repeat: how far two judgements of the same answer alone are from each other.
        order: share of two answers to a query, told apart alone, that have the same order together;
            None where none are told apart.
    """

    answers: int
    missing: int
    apart: float
    repeat: float
    order: float | None

    def reliable(self, margin: float = 0.5) -> bool:
        """Whether it is off by no more than a judge alone is off itself, and a margin in scores."""
        few = self.missing <= 0.05 * (self.answers + self.missing)
        return bool(self.answers) and few and self.apart <= self.repeat + margin

    def __str__(self) -> str:
        order = "-" if self.order is None else f"{self.order:.2f}"
        return (
            f"{self.answers} answers ({self.missing} without a score): together and alone differ "
            f"by {self.apart:.2f} in the mean, alone and alone by {self.repeat:.2f}; the same "
            f"order: {order}"
        )


def reliability(
    alone: Runnable[dict[str, Any], Evaluation],
    together: Runnable[Asked, list[Evaluation]],
    queries: Sequence[Asked],
) -> Reliability:
    """Judge answers together once and each alone twice, and compare.

    Args:
        alone: a judge of one answer (`as_evaluator(judge(model))`).
        together: `judge_together(model)`.
        queries: the answers of each, as `keywords`.
    """
    apart: list[float] = []
    repeat: list[float] = []
    order: list[bool] = []
    for asked in queries:
        whole = _whole(alone, together, asked)
        apart += [abs(ours - first) for ours, first, _ in whole]
        repeat += [abs(first - second) for _, first, second in whole]
        for (ours, *theirs), (other, *others) in combinations(whole, 2):
            if sum(theirs) != sum(others):
                order.append((ours - other) * (sum(theirs) - sum(others)) > 0)
    missing = sum(map(len, queries)) - len(apart)
    mean, noise = (fmean(each) if each else 0.0 for each in (apart, repeat))
    return Reliability(len(apart), missing, mean, noise, fmean(order) if order else None)


def _whole(
    alone: Runnable[dict[str, Any], Evaluation],
    together: Runnable[Asked, list[Evaluation]],
    asked: Asked,
) -> list[tuple[float, float, float]]:
    """The scores of each answer, together, alone and alone again, where all three are there."""
    ours = [said.get("score") for said in together.invoke(asked)]
    first, second = ([alone.invoke(one).get("score") for one in asked] for _ in range(2))
    return [
        (a, b, c)
        for a, b, c in zip(ours, first, second, strict=True)
        if a is not None and b is not None and c is not None
    ]


def _messages(asked: Asked) -> list[BaseMessage]:
    texts = [str(one["outputs"]["text"]) for one in asked]
    outputs = "\n\n".join(f"Output {n}:\n{text}" for n, text in enumerate(texts, start=1))
    return TOGETHER.invoke(
        {
            "query": asked[0]["inputs"]["query"],
            "reference": " or ".join(references(asked[0]["reference_outputs"]["reference"])),
            "outputs": outputs,
            "count": len(asked),
        }
    ).to_messages()


def _said(reply: Any) -> AIMessage:
    try:
        return as_message(reply)
    except EmptyReply:
        return reply if isinstance(reply, AIMessage) else AIMessage("")


def _evaluations(replies: Sequence[AIMessage], count: int) -> list[Evaluation]:
    said = text_of(replies[-1])
    scores = parse_scores(said, count)
    model = replies[-1].response_metadata.get("model_name")
    if scores is None:
        comment = f"the judge said {masked_error(said)[:200]!r}"
        found = [
            Evaluation(score=None, failure="unparsable", comment=comment, model=model)
            for _ in range(count)
        ]
    else:
        found = [Evaluation(score=float(score), model=model) for score in scores]
    usage = [reply.usage_metadata for reply in replies if reply.usage_metadata]
    if len(usage) == len(replies):
        found[0]["input_tokens"] = sum(each["input_tokens"] for each in usage)
        found[0]["output_tokens"] = sum(each["output_tokens"] for each in usage)
    return found
