"""Metrics and tests beside scikit-learn's and scipy's; their import takes seconds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowest_graph.benchmark import mcnemar
from cowest_graph.metrics import accuracy, macro_f1

LABELS = ["a", "b", "c", "d"]
_PAIRS = st.lists(
    st.tuples(st.sampled_from([*LABELS, None]), st.sampled_from(LABELS)), min_size=1, max_size=30
)


@settings(deadline=None)
@given(_PAIRS)
def test_macro_f1_and_accuracy_are_those_of_scikit_learn(
    rows: list[tuple[str | None, str]],
) -> None:
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    said = [p for p, _ in rows]
    true = [r for _, r in rows]
    readable = ["?" if p is None else p for p in said]  # unparsable: a class outside the set
    expected = sklearn.f1_score(true, readable, labels=LABELS, average="macro", zero_division=0)
    assert macro_f1(said, true, LABELS) == pytest.approx(expected)
    assert accuracy(said, true) == pytest.approx(sklearn.accuracy_score(true, readable))


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40))
def test_mcnemar_is_the_exact_binomial_test(rows: list[tuple[bool, bool]]) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    found = mcnemar([a for a, _ in rows], [b for _, b in rows])
    split = found.only_ours + found.only_theirs
    expected = stats.binomtest(found.only_ours, split, 0.5).pvalue if split else 1.0
    assert found.p == pytest.approx(expected)
