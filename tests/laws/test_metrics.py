"""Laws of the metrics: worked cases and intervals; see also test_references.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowest_graph.benchmark import (
    mcnemar,
    mean_interval,
    paired_difference,
    statistic_interval,
    synergy,
)
from cowest_graph.metrics import accuracy, exact_match, macro_f1, token_f1

LABELS = ["a", "b", "c", "d"]
_PAIRS = st.lists(
    st.tuples(st.sampled_from([*LABELS, None]), st.sampled_from(LABELS)), min_size=1, max_size=30
)


def test_worked_cases() -> None:
    assert exact_match("The Beatles!", ["beatles"]) == 1
    assert token_f1("4 hours later", ["4 hours", "4"]) == pytest.approx(0.8)
    # a: hit 1 of 2 predicted and 2 true: 0.5; b: hit 1 of 2 predicted and 1 true: 2/3; c: 0
    predictions = ["a", "b", "b", "a", None]
    references = ["a", "a", "b", "c", "c"]
    assert accuracy(predictions, references) == pytest.approx(2 / 5)
    assert macro_f1(predictions, references, ["a", "b", "c"]) == pytest.approx((0.5 + 2 / 3) / 3)


@given(_PAIRS)
def test_an_interval_of_a_mean_is_the_same_either_way(rows: list[tuple[str | None, str]]) -> None:
    scores = [float(p == r) for p, r in rows]
    found = statistic_interval(
        lambda at: sum(scores[i] for i in at) / len(at), len(scores), resamples=20, seed=3
    )
    again = mean_interval(scores, resamples=20, seed=3)
    assert (found.mean, found.low, found.high) == pytest.approx((again.mean, again.low, again.high))
    assert found.low <= found.high


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_synergy_adds_up_to_the_difference_of_the_scores(
    rows: list[tuple[bool, bool, bool]],
) -> None:
    solo, together, same = ([bool(r[i]) for r in rows] for i in range(3))
    found = synergy(solo, together, same)
    assert found.rescued - found.harmed == sum(together) - sum(solo)
    assert found.strong_wrong + found.strong_right == len(rows)
    assert found.copied + found.overridden == len(rows)
    assert found.right_copies + found.right_overrides == sum(together)


def test_a_method_is_no_better_than_itself() -> None:
    scores = [0.0, 1.0, 1.0, 0.0]
    same = paired_difference(scores, scores)
    assert (same.mean, same.low, same.high) == (0, 0, 0)
    assert mcnemar([True, False], [True, False]).p == 1
