"""Estimates of the mean gain from draws: unbiased under changing rates, with honest intervals."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowest_graph.exploring import estimates, weighted_mean
from cowest_graph.exploring.means import student
from cowest_graph.traces import Draw, Exploration, Trace

stats = pytest.importorskip("scipy.stats")
RUNS, QUERIES = 2000, 3000


def population(random: Any) -> tuple[np.ndarray, np.ndarray]:
    """Queries of three kinds and their gains, of which the rare kind gains most."""
    kind = random.choice(3, QUERIES, p=[0.6, 0.3, 0.1])
    gain = np.array([-0.5, 0.5, 3.0])[kind] + random.normal(0, 1, QUERIES)
    return kind, gain


TRUTH = 0.6 * -0.5 + 0.3 * 0.5 + 0.1 * 3.0


def by_kind(kind: np.ndarray, gain: np.ndarray, random: Any) -> tuple[np.ndarray, np.ndarray]:
    """Rates by what kind of query it is."""
    rate = np.array([0.05, 0.1, 0.25])[kind]
    return rate, random.random(len(kind)) < rate


def by_what_was_seen(
    kind: np.ndarray, gain: np.ndarray, random: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Rates that follow the gains seen so far: where drafts help, less is explored."""
    rate, drawn = np.empty(len(kind)), np.empty(len(kind), dtype=bool)
    for block in range(0, len(kind), 100):
        here = slice(block, block + 100)
        seen = gain[:block][drawn[:block]]
        base = 0.2 if len(seen) < 10 or seen.mean() < TRUTH else 0.05
        rate[here] = base * np.array([1.0, 0.6, 1.4])[kind[here]]
        drawn[here] = random.random(len(kind[here])) < rate[here]
    return rate, drawn


@pytest.mark.parametrize("rates", [by_kind, by_what_was_seen])
def test_bias_is_below_a_tenth_of_a_standard_error_and_95_of_100_intervals_hold(
    rates: Any,
) -> None:
    random = np.random.default_rng(7)
    found, held, naive = [], 0, []
    for _ in range(RUNS):
        kind, gain = population(random)
        rate, drawn = rates(kind, gain, random)
        told = weighted_mean(gain[drawn].tolist(), rate[drawn].tolist())
        assert told.mean is not None
        assert told.low is not None
        assert told.high is not None
        found.append(told.mean)
        naive.append(gain[drawn].mean())
        held += told.low <= TRUTH <= told.high
    spread = float(np.std(found))
    assert abs(np.mean(found) - TRUTH) < 0.1 * spread
    assert abs(np.mean(naive) - TRUTH) > 0.5 * spread, "the plain mean is wrong here"
    assert 0.93 <= held / RUNS <= 0.97


@given(
    st.lists(st.tuples(st.floats(-10, 10), st.floats(0.01, 1)), min_size=2, max_size=30),
    st.floats(0.1, 1),
)
def test_only_the_chances_relations_count_and_equal_ones_give_the_plain_mean(
    pairs: list[tuple[float, float]], scale: float
) -> None:
    gains, chances = map(list, zip(*pairs, strict=True))
    one, other = weighted_mean(gains, chances), weighted_mean(gains, [c * scale for c in chances])
    assert one.mean == pytest.approx(other.mean, abs=1e-9)
    assert one.se == pytest.approx(other.se, abs=1e-9)
    plain = weighted_mean(gains, [0.5] * len(gains))
    assert plain.mean == pytest.approx(np.mean(gains), abs=1e-9)
    assert plain.se == pytest.approx(np.std(gains, ddof=1) / math.sqrt(len(gains)), abs=1e-9)


def test_students_t_is_scipys() -> None:
    for freedom in (1, 2, 3, 4, 7, 30, 500):
        for level in (0.8, 0.9, 0.95, 0.99):
            exact = stats.t.ppf((1 + level) / 2, freedom)
            assert student(level, freedom) == pytest.approx(exact, rel=0.03)


def test_few_gains_say_little_and_none_nothing() -> None:
    assert weighted_mean([], []).mean is None
    one = weighted_mean([2.0], [0.1])
    assert (one.mean, one.se, one.low) == (2.0, None, None)
    for chances in ([0.0, 1.0], [0.5]):
        with pytest.raises(ValueError, match="chance"):
            weighted_mean([1.0, 2.0], chances)


def asked(number: int, **fields: Any) -> Trace:
    drawn, chance = fields.pop("draw", (True, 0.5))
    draw = Draw(drawn=drawn, propensity=chance)
    score, version = fields.pop("score", 3.0), fields.pop("version", "v1")
    attempts = [{"index": 0, "draft": "y", "answer": "a", "score": score, "weak_version": version}]
    return Trace(
        **{"query": f"q{number}", "kind": "inference", "key": f"k{number}", **fields},
        attempts=attempts,
        exploration=Exploration(solo=draw, drafts=draw),
    )


def test_groups_count_what_was_drawn_what_is_missing_and_what_could_not_be() -> None:
    day = datetime(2026, 11, 26, tzinfo=UTC)
    traces = [
        asked(0, solo_score=1.0, created_at=day),
        asked(1, solo_score=2.0, created_at=day, domain="d"),
        asked(2, created_at=day),  # killed, or not scored yet
        asked(3, draw=(False, 0.5), created_at=day),
        asked(4, draw=(False, 0.0), created_at=day),
        asked(5, solo_score=9.0, draw=(False, 0.5), created_at=day),  # scored for another reason
        asked(6, solo_score=0.0, version="v2", created_at=day),
        Trace(query="a collection", solo_score=1.0),
    ]
    first, second = estimates(traces, "version")
    counts = (first.queries, first.drawn, first.scored, first.unfinished, first.refused)
    assert (first.group, *counts) == ("v1", 5, 3, 2, 1, 1)
    assert first.gain.mean == 1.5
    assert (second.group, second.gain.mean) == ("v2", 3.0)
    assert [each.group for each in estimates(traces, "domain")] == ["d", None]
    assert [each.group for each in estimates(traces, "week")] == ["2026-W48"]
    assert [each.queries for each in estimates(traces)] == [6]
    with pytest.raises(ValueError, match="there are: version, domain, week"):
        estimates(traces, "moon")  # type: ignore[arg-type]


def test_a_weight_of_one_drawn_query_may_be_all_there_is() -> None:
    told = weighted_mean([1.0, 2.0], [1.0, 1e-9])
    assert told.mean == pytest.approx(2.0)
    assert told.high is not None
    assert math.isfinite(told.high)
