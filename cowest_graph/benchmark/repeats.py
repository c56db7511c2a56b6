"""Whether a model changed between two runs, told from how much it differs from itself.

Knows distances and scores of queries that were asked several times in both runs. Knows no model, no
text and no store.

Each query is asked twice in each run. A model that did not change gives four replies of one and the
same distribution, so that it does not matter which two of them are called the first run: the tests
below exchange them, query by query, and ask how often so much comes of it. That is exact for any
model, any noise and any number of queries, as long as replies to one query do not depend on each
other but through the model.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

Four = tuple[float, float, float, float]
_ROUNDING = 1e-9  # two sums of the same numbers may differ by it
_PAIRINGS = (((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2)))
_HALVES = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))


def changed_p(
    replies: Sequence[Sequence[str]],
    distance: Callable[[str, str], float],
    *,
    resamples: int = 9999,
    seed: int = 0,
) -> float:
    """How likely replies of two runs lie so far apart where the model is the same.

    The statistic is the energy distance (Székely and Rizzo, 2004), summed over the queries: what
    replies of different runs differ by, less what replies of the same run do. p is the share of
    random pairings of each query's four replies that bring as much, and never 0.

    Args:
        replies: four a query: two of the first run, then two of the second.
        distance: of two replies, symmetric, at least 0.
        resamples: pairings of all queries that are drawn.
        seed: of the drawing.

    >>> changed_p([("a", "a", "b", "b")] * 8, lambda x, y: float(x != y)) < 0.01
    True
    >>> changed_p([("a", "b", "b", "a")] * 8, lambda x, y: float(x != y))
    1.0

    Raises:
        ValueError: when there is no query.
    """
    if not replies:
        raise ValueError("no queries to compare")
    # The sum over all six distances is the same for every pairing, so that the statistic falls as
    # the distances within the two pairs rise.
    within = [
        [sum(distance(four[a], four[b]) for a, b in pairing) for pairing in _PAIRINGS]
        for four in replies
    ]
    return _share(
        [-each[0] for each in within], [[-w for w in each] for each in within], resamples, seed
    )


def shifted_p(scores: Sequence[Four], *, resamples: int = 9999, seed: int = 0) -> float:
    """How likely mean scores of two runs differ so much where the model is the same, either way.

    The statistic is the difference of the two runs' mean scores over the queries, without its sign;
    p is the share of random halves of each query's four scores that bring as much, and never 0.

    Args:
        scores: four a query: two of the first run, then two of the second.
        resamples: halves of all queries that are drawn.
        seed: of the drawing.

    >>> shifted_p([(9, 9, 5, 5)] * 8) < 0.01, shifted_p([(9, 5, 9, 5)] * 8)
    (True, 1.0)

    Raises:
        ValueError: when there is no query.
    """
    if not scores:
        raise ValueError("no queries to compare")
    leads = [[2 * (four[a] + four[b]) - sum(four) for a, b in _HALVES] for four in scores]
    return _share([each[0] for each in leads], leads, resamples, seed, both_sides=True)


def _share(
    observed: Sequence[float],
    options: Sequence[Sequence[float]],
    resamples: int,
    seed: int,
    *,
    both_sides: bool = False,
) -> float:
    """The share of random choices, one of each query's options, whose sum is as large."""
    draw, moving = random.Random(seed), [each for each in options if len({*each}) > 1]
    still = sum(each[0] for each in options if len({*each}) == 1)
    bound = _size(sum(observed), both_sides) - _ROUNDING * len(observed)
    larger = sum(
        _size(still + sum(map(draw.choice, moving)), both_sides) >= bound for _ in range(resamples)
    )
    return (1 + larger) / (1 + resamples)


def _size(value: float, both_sides: bool) -> float:
    return abs(value) if both_sides else value
