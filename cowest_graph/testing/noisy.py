"""A population of queries whose scores are known but for chance: what noise does to pairs.

Knows true scores, and draws scores around them. Knows no model and no text: who decides what is
asked sees scores alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Scores = Mapping[int | None, Sequence[float]]
Again = Callable[[Scores], Sequence[int]]
"""From the scores so far (those of the solo answer by None) to the drafts that are asked again."""


@dataclass(frozen=True)
class Drawn:
    """One query: the scores that were drawn, and the true ones.

    Args:
        scores: by draft, the solo answer's by None.
        true: the same, without chance.
    """

    scores: Scores
    true: Mapping[int | None, float]

    @property
    def calls(self) -> int:
        """Refinements and solo answers, each with its score."""
        return sum(map(len, self.scores.values()))


def draw_queries(
    calls: int, *, noise: float, again: Again | None = None, num_drafts: int = 5, seed: int = 0
) -> list[Drawn]:
    """Queries, until their calls are used up.

    Queries differ in how hard they are by a standard deviation of 1, their drafts as much again.

    Args:
        calls: refinements and solo answers in all, each with its score.
        noise: standard deviation of one score.
        again: which scores are repeated.
        num_drafts: K.
        seed: of everything that is drawn.

    >>> len(draw_queries(60, noise=1.0))
    10
    """
    draw = random.Random(seed)
    found: list[Drawn] = []
    spent = 0
    while spent < calls:
        found.append(_query(draw, noise, again, num_drafts))
        spent += found[-1].calls
    return found


def _query(draw: random.Random, noise: float, again: Again | None, num_drafts: int) -> Drawn:
    alone = draw.gauss()
    true: dict[int | None, float] = {None: alone}
    true |= {index: draw.gauss(alone) for index in range(num_drafts)}
    scores = {index: [draw.gauss(true[index], noise)] for index in true}
    while again is not None and (asked := again(scores)):
        for index in asked:
            scores[index].append(draw.gauss(true[index], noise))
    return Drawn(scores, true)
