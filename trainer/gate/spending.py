"""A permutation test with several looks: when a lead is sure, or hopeless, before the end.

A group-sequential test (Lan and DeMets 1983, Biometrika 70, 659-663). Until the share t of the
budget is asked, at most α·t³ of the level α is spent (Kim and DeMets 1987, Biometrika 74, 149-154:
close to O'Brien and Fleming's boundary, so that nearly all of α is left for the last look). What is
spent is counted among random exchanges of the pairs' sides (Fisher 1935; the same exchanges at
every look), so that no distribution is assumed: the pair as it was seen is one among equals, and it
is among the at most α(R+1) of R+1 that some look rejects with a chance of at most α.

A look stops without hope where the predictive probability of a lead at the end is small
(Spiegelhalter, Freedman and Blackburn 1986, Controlled Clinical Trials 7, 8-17): the rest is
foreseen by what was seen, with a flat prior of the mean. Exchanges that would have stopped so
spend nothing later, which gives most of the power back.

Knows leads and looks. Knows no model, no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy

_EXPONENT = 3
_ROUNDING = 1e-9  # two sums of the same leads may differ by it
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Spending:
    """The test's settings.

    Args:
        level: α, the chance that no lead passes for one, over all looks.
        futility: the predictive probability below which a look stops; 0 for never.
        resamples: R, random exchanges.
        seed: of the exchanges.
    """

    level: float
    futility: float
    resamples: int
    seed: int

    def look(self, portions: Sequence[Sequence[float]], shares: Sequence[float]) -> Look:
        """Judge what was seen so far.

        Args:
            portions: the leads that came between one look and the next, this look's last; none of
                missing scores.
            shares: of the budget, what was asked until each look; 1 at the end.
        """
        return Look(self, portions, shares)


class Look:
    """What a look sees: the observed sums beside their exchanges, at this and at earlier looks."""

    def __init__(
        self, test: Spending, portions: Sequence[Sequence[float]], shares: Sequence[float]
    ) -> None:
        """Draw the exchanges; the observed one is the first."""
        import numpy

        draw = numpy.random.default_rng(test.seed)
        sums, squares = numpy.zeros(test.resamples + 1), 0.0
        self._test, self._shares = test, shares
        self._sums: list[numpy.ndarray[Any, Any]] = []
        self._hopeless: list[numpy.ndarray[Any, Any]] = []
        for leads, share in zip(portions, shares, strict=True):
            signs = draw.choice([-1.0, 1.0], (test.resamples + 1, len(leads)))
            signs[0] = 1.0
            sums = sums + signs @ numpy.asarray(leads, float)
            squares += math.fsum(lead * lead for lead in leads)
            self._sums.append(sums)
            self._hopeless.append(self._without_hope(sums, squares, share))

    @property
    def passed(self) -> bool:
        """Whether the lead is sure by now."""
        return self._rejected(self._allowed(self._test.level))

    @property
    def hopeless(self) -> bool:
        """Whether this look gives the lead up."""
        return bool(self._hopeless[-1][0])

    def p(self) -> float:
        """The smallest level at which this look, or one before it, would have been sure.

        As a look has been sure at level α with a chance of at most α where there is no lead, it is
        valid at whichever look one stops (a repeated p value: Jennison and Turnbull 1984).
        """
        count = self._test.resamples + 1
        low, high = 0, count
        if self.passed:  # so that the p value and the verdict never disagree
            high = self._allowed(self._test.level)
        else:
            low = self._allowed(self._test.level)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._rejected(middle) else (middle, high)
        return high / count

    def _allowed(self, level: float) -> int:
        return int(level * (self._test.resamples + 1) + _ROUNDING)

    def _rejected(self, whole: int) -> bool:
        """Whether the observed sums are rejected, where so many may be over all looks."""
        import numpy

        alive, spent = numpy.ones(self._test.resamples + 1, bool), 0
        for sums, hopeless, share in zip(self._sums, self._hopeless, self._shares, strict=True):
            most = int(whole * share**_EXPONENT + _ROUNDING) - spent
            rejected = alive & (sums > _above(sums[alive], most))
            if rejected[0]:
                return True
            spent += int(rejected.sum())
            alive &= ~(rejected | hopeless)
        return False

    def _without_hope(self, sums: Any, squares: float, share: float) -> Any:
        import numpy

        if share >= 1 or not self._test.futility:
            return numpy.zeros(len(sums), bool)
        spread = math.sqrt(squares) or 1.0  # no lead either way: z is 0
        wanted = _NORMAL.inv_cdf(1 - self._test.level)
        hope = (sums / spread / math.sqrt(share) - wanted) * math.sqrt(share / (1 - share))
        return hope < _NORMAL.inv_cdf(self._test.futility)


def _above(values: Any, most: int) -> float:
    """What at most so many of the values are above; equal values are above it, or not, together."""
    import numpy

    if most <= 0 or not len(values):
        return math.inf
    if most >= len(values):
        return -math.inf
    place = len(values) - 1 - most
    return float(numpy.partition(values, place)[place]) + _ROUNDING * 10
