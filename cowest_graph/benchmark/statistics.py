"""Comparing methods on the same questions: means, paired intervals, exact tests, synergy.

Knows scores and answers of the same queries in the same order. Knows no models and no graphs (see
`benching`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

_ROUNDING = 1e-9  # two sums of the same scores may differ by it


@dataclass(frozen=True)
class Difference:
    """A mean, or the mean of paired differences, with its bootstrap interval."""

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
    return _percentiles(sum(scores) / n, means, level)


def paired_difference(
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    level: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> Difference:
    """How much better one method is than another on the same queries, in the scores' unit.

    Args:
        ours, theirs: one score a query, in the same order.
        level: of confidence.
        resamples: bootstrap samples.
        seed: of the resampling.

    >>> paired_difference([1, 1, 1, 1], [0, 0, 0, 0]).above_zero
    True

    Raises:
        ValueError: when the lengths differ or there is none.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} scores beside {len(theirs)}: not the same queries")
    gains = [a - b for a, b in zip(ours, theirs, strict=True)]
    return mean_interval(gains, level=level, resamples=resamples, seed=seed)


def pooled_difference(
    ours: Sequence[Sequence[float]],
    theirs: Sequence[Sequence[float]],
    *,
    level: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> Difference:
    """A paired difference over several runs: the stratified bootstrap.

    Every run's queries are resampled within that run, with their pairing; the figure is the mean
    of the runs' mean differences. It speaks of these runs on other queries, not of other runs.

    Args:
        ours, theirs: one sequence of scores a run, of the same queries in the same order.
        level: of confidence.
        resamples: bootstrap samples.
        seed: of the resampling.

    >>> pooled_difference([[1, 1], [1, 1]], [[0, 0], [0, 0]]).mean
    1.0

    Raises:
        ValueError: when runs or queries do not match, or there are none.
    """
    runs = list(zip(ours, theirs, strict=True))
    if not runs or any(len(a) != len(b) or not a for a, b in runs):
        raise ValueError("the runs must have scores, and the same queries on both sides")
    gains = [[a - b for a, b in zip(*run, strict=True)] for run in runs]
    draw = random.Random(seed)

    def resampled() -> float:
        return sum(sum(draw.choices(g, k=len(g))) / len(g) for g in gains) / len(gains)

    figure = sum(sum(g) / len(g) for g in gains) / len(gains)
    return _percentiles(figure, sorted(resampled() for _ in range(resamples)), level)


def permutation_p(
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    margin: float = 0.0,
    resamples: int = 9999,
    seed: int = 0,
) -> float:
    """How likely so much of a lead is where there is none: the paired permutation test.

    Under the null hypothesis the two scores of a query may as well be exchanged (Fisher, 1935); p
    is the share of random exchanges whose mean lead is at least as large, one-sided, and never 0.

    Args:
        ours, theirs: one score a query, in the same order.
        margin: the lead that the null hypothesis grants ours, in the scores' unit.
        resamples: exchanges that are drawn.
        seed: of the drawing.

    >>> permutation_p([1] * 8, [0] * 8) < 0.05 < permutation_p([1, 0], [0, 1])
    True

    Raises:
        ValueError: when the lengths differ or there is none.
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"{len(ours)} scores beside {len(theirs)}: not the same queries")
    leads = [a - b - margin for a, b in zip(ours, theirs, strict=True)]
    lead, draw = math.fsum(leads) - _ROUNDING * len(leads), random.Random(seed)
    larger = sum(
        math.fsum(gain if draw.random() < 0.5 else -gain for gain in leads) >= lead
        for _ in range(resamples)
    )
    return (1 + larger) / (1 + resamples)


def told_p(p: float) -> str:
    """A p value as it is written: one that is small is not said to be zero.

    >>> told_p(0.0001), told_p(0.04)
    ('< 0.001', '= 0.040')
    """
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def statistic_interval(
    statistic: Callable[[Sequence[int]], float],
    count: int,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Difference:
    """The percentile bootstrap interval of a figure that is no mean, such as macro-F1.

    Args:
        statistic: the figure on the queries whose positions it is given, repetitions included.
            One that compares two methods on the same positions gives a paired interval.
        count: of queries.
        level: of confidence, between 0 and 1.
        resamples: bootstrap samples.
        seed: of the resampling.

    >>> scores = [0.0, 1.0, 1.0, 1.0]
    >>> statistic_interval(lambda at: sum(scores[i] for i in at) / len(at), 4).mean
    0.75

    Raises:
        ValueError: when there is no query.
    """
    if count < 1:
        raise ValueError("no queries to resample")
    draw, places = random.Random(seed), range(count)
    figures = sorted(statistic(draw.choices(places, k=count)) for _ in range(resamples))
    return _percentiles(statistic(places), figures, level)


@dataclass(frozen=True)
class McNemar:
    """McNemar's exact test of two methods on the same queries."""

    only_ours: int  # queries that ours got right, or right at more seeds
    only_theirs: int
    p: float  # two-sided

    def __str__(self) -> str:
        return f"{self.only_ours} to {self.only_theirs}, p {told_p(self.p)}"


def mcnemar(ours: Sequence[float], theirs: Sequence[float]) -> McNemar:
    """Is one method right more often than the other? The exact two-sided test (McNemar, 1947).

    Under the null hypothesis each query that only one of them got right is a fair coin; p is the
    chance of a split at least as uneven.

    Args:
        ours, theirs: one a query, whether it was right; of several seeds the share that was. A
            query counts once however many seeds it was asked at, which makes this the sign test.

    >>> mcnemar([True] * 6, [False] * 6)
    McNemar(only_ours=6, only_theirs=0, p=0.03125)

    Raises:
        ValueError: when the lengths differ.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} answers beside {len(theirs)}: not the same queries")
    won = sum(a > b for a, b in zip(ours, theirs, strict=True))
    lost = sum(b > a for a, b in zip(ours, theirs, strict=True))
    tail = sum(math.comb(won + lost, k) for k in range(min(won, lost) + 1))
    return McNemar(won, lost, min(1.0, 2 * tail / 2 ** (won + lost)))


@dataclass(frozen=True)
class Synergy:
    """What the draft did to the strong model's answer; every field is a count of queries.

    Rescued and harmed are counted against the strong model alone; copied and overridden against the
    draft's own answer.
    """

    strong_wrong: int  # the strong model alone was wrong
    rescued: int  # … and the collaboration is right
    strong_right: int
    harmed: int  # the strong model alone was right, and the collaboration is wrong
    copied: int  # the collaboration's answer is the draft's
    right_copies: int
    overridden: int  # the draft gave another answer, or none that can be read
    right_overrides: int

    def as_dict(self) -> dict[str, int]:
        """The counts as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"rescued {self.rescued} of {self.strong_wrong} that strong alone got wrong, harmed "
            f"{self.harmed} of {self.strong_right} that it got right; copied the draft "
            f"{self.copied} times ({self.right_copies} right), overrode it {self.overridden} times "
            f"({self.right_overrides} right)"
        )


def synergy(
    solo: Sequence[bool],
    together: Sequence[bool],
    same: Sequence[bool],
) -> Synergy:
    """Decompose a collaboration's score into what the draft rescued and what it harmed.

    Args:
        solo: one a query, whether the strong model alone was right.
        together: whether the collaboration was.
        same: whether the collaboration's answer is the draft's.

    >>> print(synergy([False, True], [True, True], [True, False]))
    rescued 1 of 1 that strong alone got wrong, harmed 0 of 1 that it got right; copied the draft \
1 times (1 right), overrode it 1 times (1 right)

    Raises:
        ValueError: when the lengths differ.
    """
    if not len(solo) == len(together) == len(same):
        raise ValueError(
            f"{len(solo)}, {len(together)} and {len(same)} answers: not the same queries"
        )
    rows = list(zip(solo, together, same, strict=True))
    return Synergy(
        strong_wrong=sum(not s for s, _, _ in rows),
        rescued=sum(not s and t for s, t, _ in rows),
        strong_right=sum(s for s, _, _ in rows),
        harmed=sum(s and not t for s, t, _ in rows),
        copied=sum(c for _, _, c in rows),
        right_copies=sum(c and t for _, t, c in rows),
        overridden=sum(not c for _, _, c in rows),
        right_overrides=sum(not c and t for _, t, c in rows),
    )


def _percentiles(figure: float, resampled: Sequence[float], level: float) -> Difference:
    cut = int((1 - level) / 2 * len(resampled))
    return Difference(figure, resampled[cut], resampled[-1 - cut])
