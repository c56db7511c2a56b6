"""Which pairs may be the wrong way round, since strong model and evaluator speak by chance, too.

Knows pairs and the noise of a score. Knows no format of rows.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from cowest_graph.traces import score_noise, scorings_of
from trainer.rows.pairs import Pairs

if TYPE_CHECKING:
    from cowest_graph.traces import Drafted, Trace
    from trainer.rows.pairs import Pair

_NORMAL = statistics.NormalDist()


def doubt(pair: Pair, noise: float) -> float:
    """The chance that a pair is the wrong way round: Φ(-g / (σ √(1/n + 1/m))).

    It is that of a normal error with a flat prior, for a gap g between means of n and m scores. The
    solo score is in both gains, and does not count.

    Args:
        pair: of one query.
        noise: σ, the standard deviation of one score (`traces.score_noise`).
    """
    if not noise:
        return 0.0
    times = [scorings_of(pair.trace, each) for each in (pair.chosen, pair.rejected)]
    error = noise * math.sqrt(sum(1 / each for each in times))
    return _NORMAL.cdf(-(pair.chosen_gain - pair.rejected_gain) / error)


def doubting(traces: Sequence[Trace | Drafted]) -> Callable[[Pair], float]:
    """`doubt` by the noise that these traces tell.

    Where no score was repeated, the spread of a query's scores stands for it: noise is a part of
    that, so that no pair is taken for surer than it is.
    """
    noise = score_noise(traces)
    return partial(doubt, noise=_spread(traces) if noise is None else noise)


def _spread(traces: Iterable[Trace | Drafted]) -> float:
    """The standard deviation of the scores of a query's drafts, pooled; 0 where each has one."""
    squares, freedom = 0.0, 0
    for trace in traces:
        scores = [a.score for a in trace.attempts if a.score is not None and a.same_as is None]
        if len(scores) > 1:
            squares += statistics.variance(scores) * (len(scores) - 1)
            freedom += len(scores) - 1
    return math.sqrt(squares / freedom) if freedom else 0.0


def label_noise(traces: Iterable[Trace | Drafted]) -> float | None:
    """ε: the probability that a preference is the wrong way round, by how scores repeat.

    Where the weak model wrote the same draft twice for a query, or a score was asked for again, the
    scores differ by the noise of strong model and judge alone. Their pooled variance σ² gives the
    noise of a difference of two scores, and each pair's chance of being the wrong way round
    (`doubt`). ε is its mean over all pairs.

    Args:
        traces: collection traces.

    Returns:
        ε from 0 to below 0.5; None when nothing repeats or there is no pair.
    """
    known = list(traces)
    noise, pairs = score_noise(known), list(Pairs(known))
    if noise is None or not pairs:
        return None
    return min(statistics.fmean(doubt(pair, noise) for pair in pairs), 0.499)
