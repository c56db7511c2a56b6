"""What noise does to pairs, at equal calls: Algorithm 1, only its sure pairs, and repeated scores.

    python benchmarks/rounds/noise.py

Simulated queries (`cowest_graph.testing.noisy`): their drafts truly differ by a standard deviation
of 1, scores by chance as much as is told. A pair is inverted where the rejected draft is truly the
better one; a call is one refinement or solo answer with its score.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import hypot, sqrt
from statistics import NormalDist, fmean

from cowest_graph.graph.repeating import Doubt
from cowest_graph.testing.noisy import Drawn, draw_queries

CALLS, AGAIN, SURE = 60_000, 8, 0.9


def main() -> None:
    """Print the table."""
    print(f"{CALLS} calls each, K = 5, at most {AGAIN} repeats a query, sure from {SURE}")
    print("| noise | way | pairs | inverted | share | of Algorithm 1's |")
    print("|---|---|---|---|---|---|")
    for noise in (0.5, 1.0, 2.0):
        plain = draw_queries(CALLS, noise=noise, seed=1)
        again = draw_queries(
            CALLS, noise=noise, again=lambda s, n=noise: Doubt(s, n).next(AGAIN), seed=2
        )
        first = 0.0
        for way, drawn, least in (
            ("Algorithm 1", plain, 0.0),
            ("Algorithm 1, sure pairs", plain, SURE),
            ("repeats", again, 0.0),
            ("repeats, sure pairs", again, SURE),
        ):
            wrong = [inverted for one in drawn for inverted in _pairs(one, noise, least)]
            share = fmean(wrong)
            first = first or share
            told = f"{len(wrong)} | {sum(wrong)} | {share:.3f} | {share / first:.2f}"
            print(f"| {noise:g} | {way} | {told} |")


def _pairs(drawn: Drawn, noise: float, least: float) -> Iterator[bool]:
    """Of each pair, by index, that is sure enough: whether it is inverted."""
    mean = {index: fmean(scores) for index, scores in drawn.scores.items()}
    drafts = sorted(index for index in mean if index is not None)
    helped = [index for index in drafts if mean[index] > mean[None]]
    hurt = [index for index in drafts if mean[index] <= mean[None]]
    for one, other in zip(helped, hurt, strict=False):
        error = noise * hypot(*(1 / sqrt(len(drawn.scores[index])) for index in (one, other)))
        if NormalDist().cdf((mean[one] - mean[other]) / error) >= least:
            yield drawn.true[one] < drawn.true[other]


if __name__ == "__main__":
    main()
