"""The collaboration's own calls as an exploration makes them again.

Knows the nodes, and what is known of the models' limits. Knows no draw and no trace.
"""

from __future__ import annotations

import json
from typing import Any

from langchain_core.runnables import Runnable

from cowest_graph.calls import evaluation_call, model_call
from cowest_graph.evaluators import as_evaluator, evaluator_name, model_name
from cowest_graph.exploring import Explore, Explorer
from cowest_graph.exploring.explorer import Tools
from cowest_graph.graph.chains import (
    drafting_chain,
    learn_secrets,
    refining_chain,
    setting_of,
    solo_chain,
)
from cowest_graph.graph.tracing import ChatModel, Facts, attempt_of
from cowest_graph.traces import TraceStore

_REPLY = ("max_completion_tokens", "max_tokens", "max_output_tokens", "num_predict")


def explorer_of(facts: Facts, explore: Explore, traces: TraceStore | None) -> Explorer:
    """What explores the queries of a graph.

    Args:
        facts: of the graph.
        explore: what is drawn, and for how much.
        traces: where its traces go.

    Raises:
        ValueError: without a store, for two evaluators, or for a limit that could not be kept.
    """
    if traces is None:
        raise ValueError("explore needs traces=: what is drawn is kept with the answer's trace")
    if explore.evaluator is not None and facts.evaluator is not None:
        raise ValueError(
            "explore has an evaluator and the graph has one: scores of two evaluators make no "
            "gain, give one of them"
        )
    evaluator = explore.evaluator or facts.evaluator
    learn_secrets(explore.evaluator)
    limited = explore.max_strong_tokens_per_hour is not None
    most = explore.max_tokens
    strong = facts.strong if most is None else facts.strong.bind(max_tokens=most)
    scoring = None if evaluator is None else as_evaluator(evaluator)
    drafting = drafting_chain(facts.weak, facts.prompts, explore.sampling)
    tools = Tools(
        solo=model_call(solo_chain(strong, facts.prompts), key="solo", role="solo"),
        draft=model_call(drafting, key="draft", role="draft"),
        refine=model_call(refining_chain(strong, facts.prompts), key="answer", role="refine"),
        score_solo=scoring and evaluation_call(scoring, of="solo", key="solo_score"),
        score=scoring and evaluation_call(scoring, of="answer", key="score"),
        attempt_of=attempt_of,
        prompts=facts.prompts,
        evaluator=evaluator_name(explore.evaluator),
        reply_tokens=_reply_tokens(strong) if limited else 0,
        extra_tokens=_extra_tokens(strong),
        score_tokens=_score_tokens(explore, evaluator) if limited else 0,
        budget=f"explore:{model_name(facts.strong) or ''}",
    )
    return Explorer(explore, tools, traces)


def _reply_tokens(strong: ChatModel) -> int:
    for name in _REPLY:
        if isinstance(number := setting_of(strong, name), int) and number > 0:
            return number
    raise ValueError(
        "max_strong_tokens_per_hour needs to know how long a reply may be, and the strong model "
        "does not say: give it max_tokens, or Explore(max_tokens=…)"
    )


def _extra_tokens(strong: ChatModel) -> int:
    """Tools and schemas that are bound to a model are part of each prompt; a token is a byte, at
    least."""
    bound: dict[str, Any] = getattr(strong, "kwargs", {})
    return len(json.dumps(bound, default=str, ensure_ascii=False).encode())


def _score_tokens(explore: Explore, evaluator: Any) -> int:
    if explore.score_tokens is not None:
        return explore.score_tokens
    if isinstance(evaluator, Runnable):
        raise ValueError(
            "the evaluator may ask the strong model, and max_strong_tokens_per_hour needs to know "
            "for how much: give Explore(score_tokens=…), 0 where it asks another model"
        )
    return 0
