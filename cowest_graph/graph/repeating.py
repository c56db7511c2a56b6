"""Scores that are asked again: of pairs whose order chance may have given.

Knows scores of one query and the noise of a score. Knows no model, no graph and no trace.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

SURE = 1.64
"""Standard errors between the scores of a pair from which on its order is sure: right in 19 of 20
cases, where nothing is known before."""


class Doubt:
    """Which scores of a query to ask again.

    Args:
        scores: of each draft that was asked, by its index; those of the solo answer by None.
        noise: standard deviation of one score; None where it is not known.
        sure: as `SURE`.
    """

    def __init__(
        self,
        scores: Mapping[int | None, Sequence[float]],
        noise: float | None,
        *,
        sure: float = SURE,
    ) -> None:
        self._noise, self._sure = noise, sure
        self._times = {index: len(found) for index, found in scores.items() if found}
        self._mean = {i: statistics.fmean(found) for i, found in scores.items() if found}

    def next(self, most: int) -> list[int]:
        """The drafts that are asked again; none where all is clear.

        A pair teaches an order, from which the solo answer's own noise has gone: the pairs that
        Algorithm 1 would make are looked at. Of those whose order is not sure, the one that is
        nearest to it is asked for, as the hopeless ones would take everything; of its two drafts,
        the one that was scored less often.

        Args:
            most: repetitions of the query, in all.
        """
        spent = sum(self._times.values()) - len(self._times)
        if self._noise is None:  # one repetition a query, until enough of them tell what it is
            return [pair[0] for pair in self._pairs()[:1]] if most and not spent else []
        if not self._noise or spent >= most:
            return []
        open_ = [pair for pair in self._pairs() if self._clear(*pair) < self._sure]
        if not open_:
            return []
        pair = max(open_, key=lambda pair: self._clear(*pair))
        return [min(pair, key=lambda index: self._times[index])]

    def _pairs(self) -> list[tuple[int, int]]:
        asked = sorted(index for index in self._mean if index is not None)
        solo = self._mean.get(None, math.inf)
        helped = [index for index in asked if self._mean[index] > solo]
        hurt = [index for index in asked if self._mean[index] <= solo]
        return [*zip(helped, hurt, strict=False)] if None in self._mean else []

    def _clear(self, chosen: int, rejected: int) -> float:
        error = math.sqrt(1 / self._times[chosen] + 1 / self._times[rejected])
        gap = self._mean[chosen] - self._mean[rejected]
        return gap / (float(self._noise or 0) * error)


def mean_of(scores: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return statistics.fmean(scores) if scores else None


def error_of(scores: Sequence[float]) -> float | None:
    """The standard error of the mean; None below two scores."""
    return statistics.stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else None
