"""Comparing methods on the same questions: means and paired intervals.

Knows scores of the same queries in the same order. Knows no models and no graphs.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences, with its bootstrap interval."""

    mean: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.low > 0

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def mean_interval(
    scores: Sequence[float], *, level: float = 0.95, resamples: int = 4000, seed: int = 0
) -> Difference:
    """The mean of scores with its percentile bootstrap interval (Efron, 1979).

    Args:
        scores: one a query.
        level: of confidence, between 0 and 1.
        resamples: bootstrap samples.
        seed: of the resampling, so that a report can be made again.

    Raises:
        ValueError: when there is no score.
    """
    if not scores:
        raise ValueError("no scores to average")
    draw, n = random.Random(seed), len(scores)
    means = sorted(sum(draw.choices(scores, k=n)) / n for _ in range(resamples))
    cut = int((1 - level) / 2 * resamples)
    return Difference(sum(scores) / n, means[cut], means[-1 - cut])


def paired_difference(
    ours: Sequence[float], theirs: Sequence[float], *, level: float = 0.95, seed: int = 0
) -> Difference:
    """How much better one method is than another on the same queries, in the scores' unit.

    Args:
        ours, theirs: one score a query, in the same order.
        level: of confidence.
        seed: of the resampling.

    >>> paired_difference([1, 1, 1, 1], [0, 0, 0, 0]).above_zero
    True

    Raises:
        ValueError: when the lengths differ or there is none.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} scores beside {len(theirs)}: not the same queries")
    gains = [a - b for a, b in zip(ours, theirs, strict=True)]
    return mean_interval(gains, level=level, seed=seed)
