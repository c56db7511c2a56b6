"""Scores that are asked again: where a gain is so near 0 that chance may have given it its sign.

Knows scores of one query and the noise of a score. Knows no model, no graph and no trace.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

_SURE = 1.64  # standard errors between a gain and 0: its sign is right in 19 of 20 cases


class Doubt:
    """Which scores of a query to ask again.

    Args:
        scores: of each draft that was asked, by its index; those of the solo answer by None.
        noise: standard deviation of one score; None where it is not known.
        sure: standard errors that a gain must be from 0.
    """

    def __init__(
        self,
        scores: Mapping[int | None, Sequence[float]],
        noise: float | None,
        *,
        sure: float = _SURE,
    ) -> None:
        self._scores, self._noise, self._sure = scores, noise, sure

    def next(self, most: int) -> list[tuple[int | None, int]]:
        """What is asked again, and which repetition that is; nothing where all is clear.

        The drafts that pairs are made of are looked at (Algorithm 1, by index). Of the one whose
        gain is the least clear, whichever score is known worse is asked: the solo answer's where it
        was scored no more often, as every gain is taken from it.

        Args:
            most: repetitions of the query, in all.
        """
        spent = sum(len(scores) - 1 for scores in self._scores.values() if scores)
        alone = self._scores.get(None)
        if not alone or not self._noise or spent >= most:
            return []
        unclear = {index: self._clear(index) for index in self._paired()}
        if not unclear or min(unclear.values()) >= self._sure:
            return []
        worst = min(unclear, key=lambda index: (unclear[index], index))
        index = None if len(alone) <= len(self._scores[worst]) else worst
        return [(index, len(self._scores[index]))]

    def _paired(self) -> list[int]:
        helped: list[int] = []
        hurt: list[int] = []
        for index in sorted(i for i in self._scores if i is not None and self._scores[i]):
            (helped if self._gain(index) > 0 else hurt).append(index)
        return [index for pair in zip(helped, hurt, strict=False) for index in pair]

    def _gain(self, index: int) -> float:
        return math.fsum(self._scores[index]) / len(self._scores[index]) - math.fsum(
            self._scores[None]
        ) / len(self._scores[None])

    def _clear(self, index: int) -> float:
        error = math.sqrt(1 / len(self._scores[index]) + 1 / len(self._scores[None]))
        return abs(self._gain(index)) / (float(self._noise or 0) * error)


def mean_of(scores: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return statistics.fmean(scores) if scores else None


def error_of(scores: Sequence[float]) -> float | None:
    """The standard error of the mean; None below two scores."""
    return statistics.stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else None
