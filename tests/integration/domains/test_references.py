"""Metrics and tests beside those of scikit-learn, SQuAD and scipy, whose import takes seconds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowest_graph.benchmark import mcnemar
from cowest_graph.metrics import accuracy, exact_match, macro_f1, token_f1

LABELS = ["a", "b", "c", "d"]
_PAIRS = st.lists(
    st.tuples(st.sampled_from([*LABELS, None]), st.sampled_from(LABELS)), min_size=1, max_size=30
)
_TEXT = st.text(st.sampled_from("ab the an A.,'-\t é1"), max_size=24)


@settings(deadline=None)
@given(_TEXT, st.lists(_TEXT, min_size=1, max_size=3))
def test_exact_match_and_token_f1_are_squads(prediction: str, references: list[str]) -> None:
    """SQuAD 2.0's script, which transformers ships; v1.1's says 0 where both sides are empty."""
    squad = pytest.importorskip(
        "transformers.data.metrics.squad_metrics", reason="transformers is not installed"
    )
    assert exact_match(prediction, references) == max(
        squad.compute_exact(reference, prediction) for reference in references
    )
    assert token_f1(prediction, references) == pytest.approx(
        max(squad.compute_f1(reference, prediction) for reference in references)
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
