"""The gate lets nothing through by luck, and what is missing decides nothing."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import permutation_test

from cowest_graph.benchmark import permutation_p
from trainer.gate import Gate, Verdict

_SCORES = st.lists(
    st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0])),
    min_size=2,
    max_size=9,
)


@given(_SCORES, st.sampled_from([-0.5, 0.0, 0.25]))
def test_p_is_that_of_all_exchanges(pairs: list[tuple[float, float]], margin: float) -> None:
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    leads = [a - b - margin for a, b in pairs]
    exact = permutation_test(
        (leads, [0.0] * len(leads)),
        lambda a, b: sum(a) - sum(b),
        permutation_type="samples",
        alternative="greater",
        n_resamples=10_000,  # above 2^9: every exchange once
    ).pvalue
    assert permutation_p(ours, theirs, margin=margin) == pytest.approx(exact, abs=0.025)


@given(_SCORES)
def test_who_passes_does_not_pass_the_other_way_round(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    both = Gate().verdict(ours, theirs).passed, Gate().verdict(theirs, ours).passed
    assert both != (True, True)
    if ours == theirs:
        assert both == (False, False)


def test_few_wins_are_luck_and_many_are_not() -> None:
    for won, passed in ((4, False), (5, True)):  # one half to the fifth is below 0.05
        assert Gate().verdict([1.0] * won + [0.0] * 40, [0.0] * (won + 40)).passed is passed


def test_what_is_missing_on_one_side_is_left_out_on_both() -> None:
    ours = [1.0, None, 1.0, 0.0] * 5
    theirs = [0.0, 1.0, None, 0.0] * 5
    verdict = Gate().verdict(ours, theirs)
    assert (verdict.queries, verdict.missing) == (10, 10)
    assert (verdict.candidate, verdict.current) == (0.5, 0.0)
    silent = Gate().verdict([None], [1.0])
    assert (silent.passed, silent.candidate, silent.p) == (False, None, None)
    assert "none of the 1 held-out queries" in str(silent)


def test_a_margin_below_0_lets_what_is_hardly_worse_through() -> None:
    ours, theirs = [1.0] * 99 + [0.0], [1.0] * 100
    assert not Gate().verdict(ours, theirs).passed
    assert Gate(margin=-0.05).verdict(ours, theirs).passed
    assert not Gate(margin=-0.05).verdict([0.0] * 10 + ours[10:], theirs).passed


def test_a_verdict_survives_json() -> None:
    for verdict in (Gate().verdict([1.0] * 9, [0.0] * 9), Gate().verdict([None], [None])):
        assert Verdict.from_dict(json.loads(json.dumps(verdict.as_dict()))) == verdict


def test_bad_settings_and_unequal_lists_are_refused() -> None:
    with pytest.raises(ValueError, match="confidence is 1"):
        Gate(confidence=1)
    with pytest.raises(ValueError, match=r"longer|shorter"):
        Gate().verdict([1.0], [])
    with pytest.raises(ValueError, match="not the same queries"):
        permutation_p([], [])
