"""The mean gain over all traffic, from the share of it that was drawn.

Knows traces, draws and weights. Knows no store and no model.

A query is drawn with a chance that is known and may change from one to the next, also by what was
seen before. Each drawn gain is weighted by one over its chance, and the weights are normalised by
their own sum (Hájek, 1971): the mean over all queries that could be drawn, whatever the rates were.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from cowest_graph.traces.records import Draw, Trace

By = Literal["version", "domain", "week"]


@dataclass(frozen=True)
class Mean:
    """A weighted mean with its standard error and interval; None where too few say anything."""

    mean: float | None
    se: float | None
    low: float | None
    high: float | None
    effective: float
    """As many equally weighted gains would be as uncertain (Kish)."""


@dataclass(frozen=True)
class Estimate:
    """The mean gain of one group of queries.

    Args:
        group: what they have in common; None is none.
        queries: that could be drawn.
        drawn: that were.
        scored: of those, with a gain.
        unfinished: of those, without one: killed, failed, or not scored (yet).
        refused: queries that could not be drawn: the estimate does not speak of them.
        gain: their mean gain.
    """

    group: str | None
    queries: int
    drawn: int
    scored: int
    unfinished: int
    refused: int
    gain: Mean

    def as_dict(self) -> dict[str, Any]:
        """It as plain data."""
        told = asdict(self)
        return {**told, **told.pop("gain")} | {"mean": self.gain.mean}

    def __str__(self) -> str:
        name = self.group or "(none)"
        counts = f"{self.queries} queries, {self.drawn} drawn, {self.scored} scored"
        left = f", {self.unfinished} unfinished" if self.unfinished else ""
        left += f"; {self.refused} more could not be drawn" if self.refused else ""
        gain = self.gain
        if gain.mean is None:
            return f"{name}: no gain is known ({counts}{left})"
        if gain.low is None or gain.high is None:
            return f"{name}: {gain.mean:+.3f} ({counts}{left})"
        return (
            f"{name}: {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}], standard error "
            f"{gain.se:.3f} ({counts}{left})"
        )


@dataclass
class _Group:
    queries: int = 0
    drawn: int = 0
    refused: int = 0
    gains: list[float] = field(default_factory=list)
    chances: list[float] = field(default_factory=list)

    def add(self, trace: Trace, draw: Draw) -> None:
        if not draw.propensity:
            self.refused += 1
            return
        self.queries += 1
        self.drawn += draw.drawn
        gain = trace.gain(trace.attempts[0]) if draw.drawn and trace.attempts else None
        if gain is not None:
            self.gains.append(gain)
            self.chances.append(draw.propensity)

    def estimate(self, group: str | None, level: float) -> Estimate:
        scored = len(self.gains)
        return Estimate(
            group,
            self.queries,
            self.drawn,
            scored,
            self.drawn - scored,
            self.refused,
            weighted_mean(self.gains, self.chances, level=level),
        )


def estimates(
    traces: Iterable[Trace],
    by: By | Callable[[Trace], str | None] | None = None,
    *,
    level: float = 0.95,
) -> list[Estimate]:
    """The mean gain of served drafts, group by group, from the queries that were drawn.

    Traces without a draw are passed over. What was drawn and has no score is taken for missing by
    accident, as a killed process leaves it; the number is told.

    Args:
        traces: of real traffic; a `TraceStore` gives them when it is iterated.
        by: version, domain, ISO week as 2026-W48, or a function from a trace to its group; None
            for all of them together.
        level: of the interval.

    Returns:
        One estimate a group, in the groups' order.

    Raises:
        ValueError: for another `by`.
    """
    name = _grouping(by)
    found: defaultdict[str | None, _Group] = defaultdict(_Group)
    for trace in traces:
        if trace.exploration is not None:
            found[name(trace)].add(trace, trace.exploration.solo)
    order = sorted(found, key=lambda each: (each is None, each or ""))
    return [found[each].estimate(each, level) for each in order]


def weighted_mean(gains: Sequence[float], chances: Sequence[float], *, level: float = 0.95) -> Mean:
    """The mean of all, from those that were drawn with these chances (Hájek's ratio).

    The variance is the linearised one, each deviation divided by the share of the weight that it
    leaves to the others (as HC2 does for a regression), and the interval is Student's with as many
    degrees of freedom as the weights are worth.

    >>> weighted_mean([1.0, 3.0], [0.1, 0.1]).mean
    2.0

    Args:
        gains: of those that were drawn.
        chances: of each of them to be drawn, above 0.
        level: of the interval.

    Raises:
        ValueError: for another number of chances, or one that is not above 0 and at most 1.
    """
    if len(gains) != len(chances):
        raise ValueError(f"{len(gains)} gains and {len(chances)} chances")
    if not all(0 < chance <= 1 for chance in chances):
        raise ValueError("a chance of what was drawn is above 0, and at most 1")
    if not gains:
        return Mean(None, None, None, None, 0.0)
    weights = [1 / chance for chance in chances]
    total = math.fsum(weights)
    mean = math.fsum(w * gain for w, gain in zip(weights, gains, strict=True)) / total
    effective = total**2 / math.fsum(w * w for w in weights)
    if len(gains) < 2:
        return Mean(mean, None, None, None, effective)
    squares = (
        (w / total * (gain - mean)) ** 2 / (1 - w / total)
        for w, gain in zip(weights, gains, strict=True)
    )
    se = math.sqrt(math.fsum(squares))
    far = student(level, max(effective - 1, 1.0)) * se
    return Mean(mean, se, mean - far, mean + far, effective)


def student(level: float, freedom: float) -> float:
    """How many standard errors the two-sided interval of Student's t reaches.

    From 3 degrees of freedom on the expansion by Cornish and Fisher (Abramowitz and Stegun,
    26.7.5), which is right to 1 %; below, the exact values of 1 and of 2, the wider one between.
    """
    p = (1 + level) / 2
    if freedom < 2:
        return math.tan(math.pi * (p - 0.5))
    if freedom < 3:
        return (2 * p - 1) / math.sqrt(2 * p * (1 - p))
    z = statistics.NormalDist().inv_cdf(p)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))


def _grouping(by: By | Callable[[Trace], str | None] | None) -> Callable[[Trace], str | None]:
    if callable(by):
        return by
    if by is None:
        return lambda trace: "all"
    ways: dict[str, Callable[[Trace], str | None]] = {
        "version": lambda trace: trace.attempts[0].weak_version if trace.attempts else None,
        "domain": lambda trace: trace.domain,
        "week": lambda trace: "{}-W{:02}".format(*trace.created_at.isocalendar()),
    }
    if by not in ways:
        raise ValueError(f"gains by {by!r}; there are: {', '.join(ways)}")
    return ways[by]
