"""Who says which draft is better: a model that reads the draft alone, without collaboration.

Knows one question, whether an answer is correct, and the probability of "Yes". Knows no reference:
feedback from a model is all that RLWF and RLAIF have (see `rlwf`, `rlaif`).
"""

from __future__ import annotations

import math
import re
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable

from cowest_graph.baselines.parts import ChatModel, asking, token_logprobs
from cowest_graph.calls import in_place
from cowest_graph.evaluators import Evaluation

CORRECT = (
    "{task}Question: {query}\n\nProposed answer:\n{output}\n\n"
    "Is the proposed answer correct? Reply with Yes or No and nothing else."
)
_SAID = re.compile(r"^\W*(yes|no)\b", re.I)


def correctness(model: ChatModel, who: str, *, task: str = "") -> Runnable[dict[str, Any], Any]:
    """An evaluator: how sure the model is that an answer is correct, in [0, 1].

    The probability of its first word is read where the endpoint gives log-probabilities; otherwise
    "Yes" is 1 and "No" is 0. Another reply is missing, with failure `unparsable`.

    Args:
        model: any chat model, without a forced format.
        who: names the evaluator in traces.
        task: told before the query.
    """
    asked = in_place(_facts) | asking(CORRECT, task=task)
    chain = asked | model.bind(logprobs=True, max_tokens=3) | in_place(_judged)
    chain.name = who
    return chain


def _facts(given: dict[str, Any]) -> dict[str, str]:
    return {"query": given["inputs"]["query"], "output": given["outputs"]["text"]}


def _judged(message: AIMessage) -> Evaluation:
    usage = message.usage_metadata
    about = Evaluation(
        model=message.response_metadata.get("model_name"),
        input_tokens=usage["input_tokens"] if usage else None,
        output_tokens=usage["output_tokens"] if usage else None,
    )
    said = _SAID.match(message.text)
    if said is None:
        comment = f"neither Yes nor No: {message.text[:80]!r}"
        return {**about, "score": None, "failure": "unparsable", "comment": comment}
    sure = _probability(message)
    return {**about, "score": sure if said.group(1).lower() == "yes" else 1 - sure}


def _probability(message: AIMessage) -> float:
    """Of the word that was said: of its first token, where it has several."""
    try:
        tokens = token_logprobs(message, "a labeller")
    except ValueError:
        return 1.0
    worded = ((re.sub(r"[^a-z]", "", token.lower()), logprob) for token, logprob in tokens)
    return math.exp(next((p for word, p in worded if word), tokens[0][1]))
