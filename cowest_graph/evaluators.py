"""Evaluators: who scores an answer, in LangSmith's keywords.

Knows judges, metrics, and how scores are read. Knows no graph, store or training. Whatever cannot
be scored is None with the kind of failure beside it, never a number: a solo answer scored 0 by a
failed call would make every draft look helpful.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.runnables import Runnable, RunnableBranch, RunnableLambda, RunnablePassthrough
from pydantic import BaseModel
from typing_extensions import TypedDict

from cowest_graph.masking import learn_from, masked_error
from cowest_graph.metrics import exact_match, token_f1
from cowest_graph.prompts import JUDGE, JUDGE_AGAIN, final_answer, text_of
from cowest_graph.replies import EmptyReply, as_message
from cowest_graph.state import Reference, references


class Evaluation(TypedDict, total=False):
    """What an evaluator says of one answer."""

    score: float | None
    comment: str | None
    failure: str | None  # why there is no score
    model: str | None
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    service_tier: str | None


Evaluator: TypeAlias = Runnable[Any, Any] | Callable[..., Any]
"""A Runnable over a dict of the three keywords, or a function of any of them."""

_KEYWORDS = ("inputs", "outputs", "reference_outputs")
# Around the number only what quotes or emphasises it: "-5", ".5", "<3" and "5+" are no scores.
_MARKS = r"[\s*_`\"'“”()\[\]#]*"
_SCORE = re.compile(
    rf"{_MARKS}(?:score{_MARKS}[:=]?{_MARKS})?(10|[1-9])(?:\.0+)?(?:\s*/\s*10)?{_MARKS}[.!]?{_MARKS}",
    re.IGNORECASE | re.ASCII,
)


def keywords(query: str, answer: BaseMessage, reference: Reference | None) -> dict[str, Any]:
    """The three keyword arguments that an evaluator is called with.

    Returns:
        inputs: {"query"}; outputs: {"answer": the short answer or None when it cannot be read,
        "text": the whole message}; reference_outputs: {"reference": str, list of str, or None}.
    """
    return {
        "inputs": {"query": query},
        "outputs": {"answer": final_answer(answer), "text": text_of(answer)},
        "reference_outputs": {"reference": reference},
    }


def as_evaluator(evaluator: Evaluator) -> Runnable[dict[str, Any], Evaluation]:
    """Any evaluator as a Runnable from the three keywords to an `Evaluation`.

    Args:
        evaluator: a Runnable that takes a dict with inputs, outputs and reference_outputs, or a
            plain or async function of any of these keywords. It may return a number, a bool, None,
            or a dict with `score` and perhaps `comment` (LangSmith's and openevals' shape).

    Raises:
        TypeError: when a function takes none of the three keywords.
    """
    if not isinstance(evaluator, Runnable):
        evaluator = _called_with_keywords(evaluator)
    return evaluator | RunnableLambda(_evaluation)


def _called_with_keywords(function: Callable[..., Any]) -> Runnable[Any, Any]:
    parameters = inspect.signature(function).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    names = [name for name in _KEYWORDS if takes_all or name in parameters]
    if not names:
        raise TypeError(
            f"evaluator {function!r} takes {list(parameters)}; it must take some of the keywords "
            f"{', '.join(_KEYWORDS)}"
        )
    # An async function stays one; a plain one is run in a thread by async graphs.
    if inspect.iscoroutinefunction(function):

        async def score_async(given: dict[str, Any]) -> Any:
            return await function(**{name: given[name] for name in names})

        return RunnableLambda(score_async)
    return RunnableLambda(lambda given: function(**{name: given[name] for name in names}))


def _evaluation(result: Any) -> Evaluation:
    if isinstance(result, BaseModel):  # LangSmith's EvaluationResult, say
        result = result.model_dump()
    if not isinstance(result, Mapping):
        result = {"score": result}
    said = cast(Evaluation, {name: result.get(name) for name in Evaluation.__annotations__})
    score = result.get("score")
    if score is None:  # unscored on purpose, or with its failure beside it
        return said
    if (number := _number(score)) is not None:
        return {**said, "score": number}
    comment = f"not a score: {masked_error(repr(score))[:200]}"
    return {**said, "score": None, "failure": "unparsable", "comment": comment}


def _number(score: Any) -> float | None:
    """A finite number: Python's, numpy's, a tensor of one; never a text that looks like one."""
    if isinstance(score, str | bytes) or not hasattr(score, "__float__"):
        return None
    try:
        number = float(score)
    except (
        TypeError,
        ValueError,
        OverflowError,
        RuntimeError,
    ):  # of several elements, or too large
        return None
    return number if math.isfinite(number) else None


def evaluator_name(evaluator: Evaluator | None) -> str | None:
    """The name that traces know an evaluator by; None when there is none."""
    if evaluator is None:
        return None
    if isinstance(evaluator, Runnable):
        return evaluator.get_name()
    return getattr(evaluator, "__name__", type(evaluator).__name__)


def best_score(evaluator: Evaluator | None) -> float | None:
    """The highest score that an evaluator of this house gives; None where it is not known.

    >>> best_score(METRICS["token_f1"])
    1.0
    """
    name = evaluator_name(evaluator) or ""
    if name.startswith(("judge:", "judge together:")):
        return 10.0
    return 1.0 if evaluator in METRICS.values() or name in METRICS else None


def metric(score: Callable[[str | None, Sequence[str]], float]) -> Evaluator:
    """A metric of the short answer against the references as an evaluator.

    An answer that cannot be read is wrong (the metric sees None); a missing reference gives no
    score.

    Args:
        score: such as `exact_match` or `token_f1`.

    >>> from cowest_graph.metrics import exact_match
    >>> as_evaluator(metric(exact_match)).invoke({
    ...     "inputs": {"query": "1 + 1?"},
    ...     "outputs": {"answer": "2", "text": "Answer: 2"},
    ...     "reference_outputs": {"reference": ["2", "two"]},
    ... })["score"]
    1.0
    """

    def evaluate(*, outputs: dict[str, Any], reference_outputs: dict[str, Any]) -> Evaluation:
        accepted = references(reference_outputs["reference"])
        if not accepted:
            return Evaluation(score=None, comment="no reference")
        return Evaluation(score=score(outputs["answer"], accepted))

    evaluate.__name__ = getattr(score, "__name__", "metric")
    return evaluate


METRICS: dict[str, Evaluator] = {"exact_match": metric(exact_match), "token_f1": metric(token_f1)}
"""Metric evaluators by the names that a configuration may use; accuracy is exact match averaged."""


def judge(model: Runnable[LanguageModelInput, Any]) -> Runnable[dict[str, Any], Evaluation]:
    """The paper's evaluator E (Figure 7): a model scores from 1 to 10, seeing the reference.

    A garbled reply is answered once with a corrective turn; a second one is missing, with failure
    `unparsable`. Errors of the endpoint are raised.

    Args:
        model: any LangChain chat model; the paper takes the strong model itself.
    """
    learn_from(model)
    ask = JUDGE | model | RunnableLambda(_said)
    ask_again = RunnableLambda(_corrective_turn) | model | RunnableLambda(_said)
    first = RunnablePassthrough.assign(replies=ask | _listed)
    second = RunnablePassthrough.assign(replies=RunnableLambda(_both(ask_again)))
    score = first | RunnableBranch((_readable, RunnablePassthrough()), second) | _judged
    chain = RunnableLambda(_facts) | RunnableBranch((_without_reference, _no_reference), score)
    chain.name = f"judge:{model_name(model) or 'model'}"
    return chain


def parse_score(text: str) -> int | None:
    """The integer from 1 to 10 that a judge's reply consists of; None when it is anything else.

    >>> parse_score(" 7 "), parse_score("Score: 10/10"), parse_score("7 or 8"), parse_score("-5")
    (7, 10, None, None)
    """
    found = _SCORE.fullmatch(text.strip())
    return int(found.group(1)) if found else None


def _facts(given: dict[str, Any]) -> dict[str, Any]:
    accepted = references(given["reference_outputs"]["reference"])
    return {
        "query": given["inputs"]["query"],
        "reference": " or ".join(accepted),
        "output": given["outputs"]["text"],
    }


def _without_reference(facts: dict[str, Any]) -> bool:
    return not facts["reference"]


def _no_reference(_: dict[str, Any]) -> Evaluation:
    return Evaluation(score=None, comment="no reference")


def _said(reply: Any) -> AIMessage:
    """A judge's reply; an empty one is a garbled one, and asked for again."""
    try:
        return as_message(reply)
    except EmptyReply:
        return reply if isinstance(reply, AIMessage) else AIMessage("")


def _listed(reply: AIMessage) -> list[AIMessage]:
    return [reply]


def _corrective_turn(facts: dict[str, Any]) -> list[BaseMessage]:
    asked = JUDGE.invoke(facts).to_messages()
    return [*asked, facts["replies"][-1], HumanMessage(JUDGE_AGAIN)]


def _both(ask_again: Runnable[Any, AIMessage]) -> Callable[[dict[str, Any]], Runnable[Any, Any]]:
    def again(facts: dict[str, Any]) -> Runnable[Any, list[AIMessage]]:
        return ask_again | RunnableLambda(lambda reply: [*facts["replies"], reply])

    return again


def _readable(facts: dict[str, Any]) -> bool:
    return parse_score(text_of(facts["replies"][-1])) is not None


def _judged(facts: dict[str, Any]) -> Evaluation:
    replies: list[AIMessage] = facts["replies"]
    said = text_of(replies[-1])
    score = parse_score(said)
    usage = [reply.usage_metadata for reply in replies if reply.usage_metadata]
    counted = len(usage) == len(replies)
    return Evaluation(
        score=None if score is None else float(score),
        comment=None if score is not None else f"the judge said {masked_error(said)[:200]!r}",
        failure=None if score is not None else "unparsable",
        model=replies[-1].response_metadata.get("model_name"),
        input_tokens=sum(u["input_tokens"] for u in usage) if counted else None,
        output_tokens=sum(u["output_tokens"] for u in usage) if counted else None,
        cached_tokens=_cached(usage) if counted else None,
        service_tier=replies[-1].response_metadata.get("service_tier"),
    )


def _cached(usage: Sequence[UsageMetadata]) -> int | None:
    """Of the tokens read, those of a prefix cache; None where the endpoint tells of none."""
    told = [(each.get("input_token_details") or {}).get("cache_read") for each in usage]
    known = [number for number in told if number is not None]
    return sum(known) if known else None


def model_name(model: Any) -> str | None:
    """The name that a chat model goes by; None when it has none."""
    for attribute in ("model_name", "model_id", "model"):
        if isinstance(name := getattr(model, attribute, None), str) and name:
            return name
    inner = getattr(model, "bound", None)
    return model_name(inner) if inner is not None else None
