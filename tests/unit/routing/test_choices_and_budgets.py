"""A choice among drafts, and a budget that is kept: what is taken, what is spent, what is kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hills import collected, drafted_twice, words
from hypothesis import given, settings
from hypothesis import strategies as st

from cowest_graph import exact_match, metric
from cowest_graph.routing import (
    Example,
    Features,
    FollowingRouter,
    Paced,
    Policy,
    Router,
    RouterRegistry,
    Seen,
    Target,
    examples,
    fit_router,
    measured,
)
from cowest_graph.routing.answers import following
from cowest_graph.routing.choosing import came_to, gathered, on_average, picked
from cowest_graph.routing.costing import Length, lengths
from cowest_graph.routing.curves import Outcomes
from cowest_graph.routing.fitting import groups_of
from cowest_graph.routing.models import Scorer
from cowest_graph.traces import Route

SHAPE = Features(("draft_shape",))


def taught(count: int = 120, seed: int = 0) -> list[Example]:
    return examples(drafted_twice(count, seed), evaluator=metric(exact_match)).examples


@pytest.fixture(scope="module")
def fitted() -> Any:
    return fit_router(taught(), Target(share=0.9), drafts=2, features=SHAPE)


# --- a choice ---


def test_the_draft_that_helps_is_taken_wherever_it_stands(fitted: Any) -> None:
    asks, said = "How high are Aal and Esk together?", "Explanation: Aal is 412 high. Esk is"
    full = Seen(asks, "towns", f"{said} 200 high.\nAnswer: 7")
    half = replace(full, draft=f"{said} on the map.\nAnswer: 7")
    paid = replace(fitted.router, policy=replace(fitted.router.policy, price=0.0, nearest=None))
    for drafted, place in (([full, half], 0), ([half, full], 1)):
        taken, route = paid.choose(drafted, "k")
        assert (taken, route.way) == (place, "both")
    one = replace(paid, drafts=1)
    assert one.choose([half, full], "k")[0] == 0  # that there are more is none of its business
    assert paid.choose([replace(half, draft=None), full], "k")[0] == 1  # one is missing
    assert paid.choose([half, half], "k")[0] == 0  # of equals the first


def test_figures_are_of_the_choice_and_constants_of_drafts_that_nobody_chose(fitted: Any) -> None:
    parts = fitted.parts
    found = measured(fitted.router, parts.fit, parts.test, fitted.unit, resamples=100)
    assert found is not None
    assert found.constant["both"][0] == pytest.approx(0.5)
    assert found.router[0] > 0.75  # of two drafts one helps
    assert found.curves["router"].area.low > 0
    assert fitted.card["drafts"] == 2


def test_a_choice_needs_drafts_to_choose_among() -> None:
    single = examples(collected(60), evaluator=metric(exact_match)).examples
    with pytest.raises(ValueError, match="collect with several"):
        fit_router(single, Target(quality=0.9), drafts=3, embed=words)
    with pytest.raises(ValueError, match="decides after the draft"):
        fit_router(taught(), Target(quality=0.9), drafts=2, moment="before", embed=words)


def test_what_chooses_is_kept_and_what_does_not_is_read_by_older_releases(
    fitted: Any, tmp_path: Path
) -> None:
    routers = RouterRegistry(tmp_path)
    again = routers.load(routers.add(fitted.router, fitted.card))
    assert (again.drafts, again.lengths) == (2, fitted.router.lengths)
    spec = (tmp_path / "r0001" / "router.json").read_text()
    assert '"format": 2' in spec
    routers.add(replace(fitted.router, drafts=1), fitted.card)
    assert '"format": 1' in (tmp_path / "r0002" / "router.json").read_text()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1), st.floats(0, 1)), min_size=1))
def test_a_choice_expects_no_less_than_any_draft(rows: list[tuple[str, float, float]]) -> None:
    policy = Policy({"weak": 0.0, "both": 1.0}, price=0.3)
    weak, both = (np.asarray([[row[place]] for row in rows]) for place in (1, 2))
    expected: Any = {"weak": weak, "both": both}
    sets = gathered([row[0] for row in rows], 3)
    taken, ways = picked(policy, expected, sets)
    worth = policy.worth(expected, policy.chosen(expected))
    for row, way, each in zip(taken, ways, sets, strict=True):
        assert worth[row] == max(worth[list(each)])
        assert way == policy.chosen(expected)[row]
    assert [each[0] for each in sets] == picked(replace(policy, price=None), expected, sets)[0]


def test_outcomes_of_choices() -> None:
    scores: Any = {"weak": np.asarray([0.0, 1.0, 0.0]), "both": np.asarray([1.0, 0.0, 1.0])}
    costs: Any = {"weak": np.zeros(3), "both": np.asarray([10.0, 20.0, 30.0])}
    there = Outcomes(scores, costs, ["a", "a", "b"])
    mean = on_average(there, [[0, 1], [2]])
    assert (list(mean.scores["both"]), list(mean.costs["both"])) == ([0.5, 1.0], [15.0, 30.0])
    assert mean.groups == ["a", "b"]
    got, paid = came_to(there, [1, 2], ["weak", "both"])
    assert (list(got), list(paid)) == ([1.0, 1.0], [0.0, 30.0])


# --- a budget ---


def linear(slope: float = 1.0, **more: Any) -> Router:
    """Expects of both what the draft's length says, and of the weak model nothing."""
    shape = len(SHAPE.table([Seen("", draft="")])[0])
    flat = np.zeros((1, shape))
    steep = flat.copy()
    steep[0, 1] = slope  # log1p of the draft's characters
    knots = np.asarray([[0.0, 10.0], [0.0, 1.0]])
    scorers: Any = {
        "weak": Scorer(flat, np.zeros(1), knots, 0.0, 1.0),
        "both": Scorer(steep, np.zeros(1), knots, 0.0, 1.0),
    }
    policy = Policy({"weak": 0.0, "both": 1.0}, price=0.1, quorum=0.0)
    return Router(SHAPE, scorers, policy, **more)


def asked(lengths_: list[int]) -> list[Seen]:
    return [Seen("how high?", draft="x" * each) for each in lengths_]


def ways_of(paced: Paced, seen: list[Seen]) -> list[str]:
    return [paced.decide(each, str(n)).way for n, each in enumerate(seen)]


def test_a_fixed_price_spends_what_comes_and_a_paced_one_what_it_may() -> None:
    draw = np.random.default_rng(0)
    better = asked(draw.integers(400, 900, 300).tolist())  # worth more than the price, all of them
    router = linear()
    assert [router.decide(each, "k").way for each in better] == ["both"] * 300
    ways = ways_of(Paced(router, share=0.3), better)
    assert abs(ways.count("both") / 300 - 0.3) < 0.04
    best = {id(each) for each in sorted(better, key=lambda each: -len(each.draft or ""))[:90]}
    sent = [id(each) in best for each, way in zip(better, ways, strict=True) if way == "both"]
    assert sum(sent) > 0.7 * len(sent)  # and it spends it where most is expected


def test_nothing_is_spent_that_brings_nothing() -> None:
    assert ways_of(Paced(linear(slope=0.0), share=0.5), asked([50] * 40)) == ["weak"] * 40
    worse = linear()
    flipped = replace(worse, scorers={"weak": worse.scorers["both"], "both": worse.scorers["weak"]})
    assert ways_of(Paced(flipped, share=0.5), asked([50] * 40)).count("weak") == 40


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 2000), min_size=1, max_size=60),
    st.floats(0.05, 1.0),
    st.floats(0.0, 3.0),
)
def test_spending_is_never_further_ahead_than_the_burst(
    drafts: list[int], share: float, burst: float
) -> None:
    ways = ways_of(Paced(linear(), share=share, burst=burst), asked(drafts))
    spent = np.cumsum([way == "both" for way in ways])
    assert (spent <= share * np.arange(1, len(ways) + 1) + burst + 1e-9).all()


def test_many_threads_spend_one_budget() -> None:
    paced, seen = Paced(linear(), share=0.25), asked([500 + n for n in range(200)])
    with ThreadPoolExecutor(16) as pool:
        ways = [route.way for route in pool.map(lambda each: paced.decide(each, "k"), seen)]
    assert ways.count("both") <= 0.25 * 200 + 2


def test_a_query_that_nobody_is_sure_of_is_paid_for_by_the_others() -> None:
    far = replace(linear(), policy=replace(linear().policy, nearest=0.5), known=np.eye(256)[:1])
    paced = Paced(far, share=0.5)
    assert ways_of(paced, asked([500] * 10)) == ["both"] * 10  # nothing like them was learnt from
    paced.router = linear()
    assert ways_of(paced, asked([500] * 6)).count("both") == 0


def test_a_version_that_takes_over_is_paced_too(fitted: Any, tmp_path: Path) -> None:
    routers = RouterRegistry(tmp_path)
    paced = Paced(FollowingRouter(routers, after_draft=True), share=0.5)
    assert paced.decide(asked([500])[0], "k") == Route(way="both")
    for _ in range(2):
        routers.promote(routers.add(replace(linear(), known=None), fitted.card))
    seen = asked([500 + n for n in range(20)])
    routes = [paced.decide(each, "k") for each in seen]
    assert {route.router for route in routes} == {"r0002"}
    assert [route.way for route in routes].count("both") <= 0.5 * 20 + 2
    routers.rollback()
    assert paced.decide(seen[0], "k").router == "r0001"


def test_a_longer_text_costs_more() -> None:
    found = [
        Example(
            Seen("q", draft="x" * n), {"weak": 0.0, "both": 1.0}, {"weak": 0.0, "both": 50.0 + n}
        )
        for n in (10, 20, 30)
    ]
    told = lengths(found, ["weak", "both"], "tokens", {"weak": 0.0, "both": 1.0})
    assert told == {"both": Length(21.0, pytest.approx(1 / 70))}
    router = linear(lengths=told)
    assert router.costs(asked([81]))["both"] == pytest.approx([1 + 69 / 70])  # 90 characters
    assert router.costs(asked([81]))["weak"] == [0.0]


def test_what_no_budget_can_be_is_told() -> None:
    for wrong in ({"share": 0.0}, {"share": 1.2}, {"share": 0.5, "burst": -1.0}):
        with pytest.raises(ValueError, match=r"it is above 0|at least"):
            Paced(linear(), **wrong)
    assert isinstance(Paced(linear(), share=0.5).decide(Seen("x"), "k"), Route)


# --- what follows from what was said ---


@given(st.integers(2, 10**6), st.integers(2, 10**6))
def test_what_follows_from_two_numbers_is_seen_wherever_they_stand(one: int, other: int) -> None:
    both = f"One is {one:,} high. The other is {other} high."
    for query, said in ((f"{one} and {other}?", "so"), ("How many?", both)):
        for place, value in ((2, one + other), (3, abs(one - other)), (4, one * other)):
            told = following(Seen(query, draft=f"Explanation: {said}\nAnswer: {value}"))
            assert told[place] == 1.0 or one == other
            assert told[0] == 0.0
    wrong = following(Seen("?", draft=f"{both}\nAnswer: {2 * max(one, other) + 1}"))
    assert wrong[1:4] == [0.0, 0.0, 0.0]


@given(st.text(max_size=60), st.text(max_size=60))
def test_anything_can_be_read(query: str, draft: str) -> None:
    told = following(Seen(query, draft=draft))
    assert len(told) == len(following(Seen("", draft=None))) == 15
    assert set(told) <= {0.0, 1.0}


def test_it_is_read_where_most_drafts_answer_with_a_number() -> None:
    kind = "arithmetic"
    assert kind in groups_of(taught(20), "after").groups
    assert kind not in groups_of(taught(20), "before").groups
    words_ = [replace(e, seen=replace(e.seen, draft="Answer: iron")) for e in taught(20)]
    assert kind not in groups_of(words_, "after").groups
