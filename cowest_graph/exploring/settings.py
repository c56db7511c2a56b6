"""Which queries of real traffic are answered more than once, how often, and for how much.

Knows rates, chance and bounds. Knows no model and no store.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cowest_graph.evaluators import Evaluator
from cowest_graph.masking import masked_error
from cowest_graph.traces.records import Draw, Exploration, Trace

log = logging.getLogger(__name__)

Rate = float | Callable[[Trace], float]
"""A share of the queries, or a function from the answer's trace to one."""

_CHANCE = random.SystemRandom()  # a host that seeds Python's own generator seeds no draw


@dataclass(frozen=True)
class Explore:
    """A share of the queries that is answered by the strong model alone, too, after the answer.

    >>> Explore(solo=0.05, drafts=0.02).drawn(Trace(query="6 + 1?"), 0.01).drafts.drawn
    True

    Args:
        solo: the share that is answered by the strong model alone.
        drafts: the share that also gets further drafts, refined and scored. One number is drawn a
            query, so that they are among those with a solo answer; where this share is the larger
            one, it is that of the solo answers, too.
        num_drafts: further drafts.
        max_strong_tokens_per_hour: tokens of the strong model, prompts and replies, that all
            processes on a store may spend on exploring in any hour; None for no limit. What it
            refuses has the propensity 0.
        max_tokens: of one reply of the strong model while exploring. With a limit it is needed
            where the model itself has none.
        score_tokens: of one score, at most, counted in the limit: with a limit it is needed where
            the evaluator is a model's; 0 where that is another model.
        evaluator: scores the served answer, the solo answer and the others afterwards; by default
            the graph's own.
        sampling: call arguments of the further drafts (paper: temperature 1).
        at_once: queries that are explored at a time; one beyond has the propensity 0.
        chance: a number from 0 up to 1.

    Raises:
        ValueError: for a share that is not from 0 to 1, or no draft.
    """

    solo: Rate = 0.05
    drafts: Rate = 0.02
    num_drafts: int = 4
    max_strong_tokens_per_hour: int | None = None
    max_tokens: int | None = None
    score_tokens: int | None = None
    evaluator: Evaluator | None = None
    sampling: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 1.0})
    at_once: int = 8
    chance: Callable[[], float] = _CHANCE.random

    def __post_init__(self) -> None:
        for name in ("solo", "drafts"):
            rate = getattr(self, name)
            if not callable(rate) and not 0 <= rate <= 1:
                raise ValueError(f"{name} is {rate}; it is a share of the queries, from 0 to 1")
        for name in ("num_drafts", "at_once", "max_tokens"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name} is {number}; it must be at least 1")
        for name in ("max_strong_tokens_per_hour", "score_tokens"):
            number = getattr(self, name)
            if number is not None and number < 0:
                raise ValueError(f"{name} is {number}; it must be at least 0")

    def rates(self, trace: Trace) -> tuple[float, float]:
        """The propensities of this query: of a solo answer, and of further drafts."""
        drafts = _rate(self.drafts, trace)
        return max(_rate(self.solo, trace), drafts), drafts

    def drawn(
        self, trace: Trace, number: float, *, solo: bool = True, drafts: bool = True
    ) -> Exploration:
        """What a number from 0 up to 1 decides.

        Args:
            trace: of the answer.
            number: drawn for it.
            solo, drafts: whether there is room for them; where there is none, the propensity is 0
                whatever was drawn.
        """
        alone, more = self.rates(trace)
        alone, more = alone if solo else 0.0, more if solo and drafts else 0.0
        return Exploration(
            solo=Draw(drawn=number < alone, propensity=alone),
            drafts=Draw(drawn=number < more, propensity=more),
        )


def _rate(rate: Rate, trace: Trace) -> float:
    """The share as it is for this query; a function that fails explores nothing."""
    if not callable(rate):
        return rate
    try:
        found = float(rate(trace))
    except Exception as error:  # the answer is served all the same
        log.warning("a rate of exploration failed: %s", masked_error(error))
        return 0.0
    return 0.0 if math.isnan(found) else min(1.0, max(0.0, found))
