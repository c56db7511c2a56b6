"""The private world and the paired intervals."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowest_graph.benchmark import mean_interval, paired_difference, pooled_difference
from cowest_graph.testing.world import CONDITIONS, PARTS, REMEDIES, questions


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_code_is_in_two_parts_and_no_held_out_phrasing_is_taught(seed: int) -> None:
    data = questions(seed)
    codes = [{row["code"] for row in part} for part in (data.train, data.feedback, data.held_out)]
    assert len(set.union(*codes)) == sum(len(part) for part in codes)
    taught = {row["query"].replace(row["code"], "") for row in data.train}
    unseen = {row["query"].replace(row["code"], "") for row in data.held_out}
    assert not taught & unseen
    assert (len(data.train), len(data.feedback), len(data.held_out)) == (256, 16, 36)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_symbol_is_taught(seed: int) -> None:
    symbols = {symbol for row in questions(seed).train for symbol in row["code"].split("-")}
    assert symbols == {*PARTS, *CONDITIONS, *REMEDIES}


def test_the_seed_decides_everything() -> None:
    assert questions(5) == questions(5)
    assert questions(5) != questions(6)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_the_interval_holds_the_mean(scores: list[float]) -> None:
    found = mean_interval(scores, resamples=200)
    assert found.low - 1e-9 <= found.mean <= found.high + 1e-9


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20))
def test_a_paired_difference_changes_its_sign_with_its_sides(pairs: list) -> None:
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    assert paired_difference(ours, theirs).mean == pytest.approx(
        -paired_difference(theirs, ours).mean
    )


def test_pairing_sees_what_separate_means_do_not() -> None:
    theirs = [0.0, 1.0] * 20
    ours = [score + 0.1 for score in theirs]
    assert paired_difference(ours, theirs).above_zero


def test_a_pooled_difference_counts_every_run_alike_and_keeps_queries_in_their_runs() -> None:
    # 40 queries of no gain and 4 of a whole one: the runs' mean is a half, the queries' a tenth.
    found = pooled_difference([[0.0] * 40, [1.0] * 4], [[0.0] * 40, [0.0] * 4])
    assert (found.mean, found.low, found.high) == (0.5, 0.5, 0.5)
    one = [0.0, 1.0, 1.0, 0.0, 1.0]
    alone = paired_difference(one, [0.0] * 5)
    assert pooled_difference([one], [[0.0] * 5]) == alone
    several = pooled_difference([one] * 9, [[0.0] * 5] * 9)
    assert several.high - several.low < alone.high - alone.low
    with pytest.raises(ValueError, match="same queries"):
        pooled_difference([[1.0]], [[1.0, 0.0]])


def test_other_queries_are_refused() -> None:
    with pytest.raises(ValueError, match="not the same queries"):
        paired_difference([1.0], [1.0, 0.0])
