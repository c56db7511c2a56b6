"""What is learnt, what is promised, and what is drawn: on a world where the right way is known."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hills import collected, words

from cowest_graph import exact_match, metric
from cowest_graph.routing.curves import Curve, Outcomes, compared
from cowest_graph.routing.fitting import Fitted, fit_router, parted
from cowest_graph.routing.lessons import Taught, examples
from cowest_graph.routing.measuring import measured
from cowest_graph.routing.policies import Policy
from cowest_graph.routing.seen import Seen
from cowest_graph.routing.targets import Target, priced

SIMPLE = Seen("How high is Aal? (map 900)", "towns", "Explanation: Aal is 412 high.\nAnswer: 412")
SUM = Seen(
    "How high are Aal and Esk together? (map 901)",
    "towns",
    "Explanation: Aal is 412 high. Esk is 200 high.\nAnswer: 615",
)


def taught(count: int = 120, seed: int = 0) -> Taught:
    return examples(collected(count, seed), evaluator=metric(exact_match))


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return fit_router(taught().examples, Target(quality=0.98), embed=words)


# --- parts ---


def test_a_query_is_in_one_part_in_every_fit() -> None:
    found = taught(200).examples
    parts = parted(found)
    again = parted([*found[50:], *found[:50], *taught(40, seed=9).examples])
    test = {each.group for each in parts.test}
    assert test
    assert test <= {each.group for each in again.test}
    groups = [{each.group for each in part} for part in vars(parts).values()]
    assert not (groups[0] & groups[1])
    assert not (groups[1] & groups[2])
    assert not (groups[0] & groups[2])
    with pytest.raises(ValueError, match="below 1 in all"):
        parted(found, validation=0.5, test=0.5)


# --- what is learnt ---


def test_it_sends_each_query_where_it_belongs(fitted: Fitted) -> None:
    ours = fitted.router
    assert [ours.decide(seen, "k").way for seen in (SIMPLE, SUM)] == ["weak", "both"]
    found = measured(ours, fitted.parts.fit, fitted.parts.test, fitted.unit, resamples=200)
    assert found is not None
    (score, cost), (both, dear) = found.router, found.constant["both"]
    assert score >= 0.98 * both
    assert cost <= 0.6 * dear
    assert found.curves["router"].area.low > 0
    assert json.loads(json.dumps(found.as_dict()))["queries"] == found.queries
    assert measured(ours, [], fitted.parts.test[:1], fitted.unit) is None


def test_before_the_draft_it_reads_the_query_alone() -> None:
    ours = fit_router(taught().examples, Target(quality=0.98), moment="before", embed=words).router
    assert not ours.after_draft
    bare = [replace(seen, draft=None) for seen in (SIMPLE, SUM)]
    assert [ours.decide(seen, "k").way for seen in bare] == ["weak", "both"]


def test_what_it_expects_is_calibrated(fitted: Fitted) -> None:
    seen = [each.seen for each in fitted.parts.test]
    said = fitted.router.expected(seen)["weak"].mean(axis=1)
    truth = np.asarray([each.scores["weak"] for each in fitted.parts.test])
    assert abs(said.mean() - truth.mean()) < 0.15
    assert ((said - truth) ** 2).mean() < 0.5 * truth.var()
    assert ((said >= 0) & (said <= 1)).all()


def test_scores_of_another_range_are_told_in_it() -> None:
    judged = [
        replace(each, scores={way: 1 + 9 * score for way, score in each.scores.items()})
        for each in taught().examples
    ]
    ours = fit_router(judged, Target(share=0.6), embed=words).router
    told = ours.decide(SIMPLE, "k").expected
    assert told["weak"] > 7
    assert told["both"] > 7
    assert told["strong"] == 1.0


def test_unsure_is_both(fitted: Fitted) -> None:
    ours = fitted.router
    other = replace(SIMPLE, query="Quelle hauteur a ce mont?")
    cheap = replace(ours, policy=replace(ours.policy, price=0.5))
    assert cheap.policy.chosen(cheap.expected([other])) == ["weak"]  # by its draft, but
    assert cheap.decide(other, "k").way == "both"  # no such query was learnt from
    assert cheap.decide(SIMPLE, "k").way == "weak"
    assert ours.decide(replace(SIMPLE, draft=None), "k").way == "both"  # taught with drafts
    split = {"weak": np.asarray([[0.9, 0.9, 0.2]]), "both": np.asarray([[0.6, 0.6, 0.6]])}
    policy = Policy({"weak": 0.0, "both": 1.0}, quorum=1.0, price=0.0)
    assert policy.chosen(split) == ["both"]
    assert replace(policy, quorum=0.6).chosen(split) == ["weak"]


def test_too_little_to_learn_from_is_told() -> None:
    with pytest.raises(ValueError, match="chooses between two ways"):
        fit_router(taught(8).examples, Target(quality=0.9), embed=words)
    with pytest.raises(ValueError, match="chooses between two ways"):
        fit_router([], Target(quality=0.9), embed=words)


# --- targets ---


def chances(count: int, seed: int = 0) -> tuple[dict[Any, Any], Outcomes]:
    """A weak model that is right with the chance it expects; both always are."""
    draw = np.random.default_rng(seed)
    chance = draw.random(count)
    weak = (draw.random(count) < chance).astype(float)
    scores = {"weak": weak, "both": np.ones(count)}
    costs = {"weak": np.zeros(count), "both": np.full(count, 100.0)}
    expected = {"weak": chance[:, None], "both": np.ones((count, 1))}
    return expected, Outcomes(scores, costs, [str(n) for n in range(count)])  # type: ignore[arg-type]


POLICY = Policy({"weak": 0.0, "both": 1.0}, quorum=0.0)


def test_quality_is_kept_as_often_as_promised() -> None:
    broken = saved = 0
    fresh, world = chances(20000, seed=99)
    for seed in range(60):
        expected, there = chances(150, seed)
        found = priced(Target(quality=0.95, confidence=0.9), POLICY, expected, there)
        scores, costs = (
            world.of(POLICY.chosen(fresh, price=found.price))
            if found.price is not None
            else world.of(["both"] * 20000)
        )
        broken += scores.mean() < 0.95
        saved += costs.mean() < 100
    assert broken <= 12  # of 60 at 90 %: 6 expected
    assert saved > 40


def test_a_budget_is_met_and_used() -> None:
    expected, there = chances(400)
    for target in (Target(share=0.5), Target(budget=50.0)):
        found = priced(target, POLICY, expected, there)
        assert 45 < found.cost <= 50
        assert found.score > 0.5 * (there.always("weak")[0] + there.always("both")[0])
    dear = Outcomes(there.scores, {w: c + 10 for w, c in there.costs.items()}, there.groups)
    with pytest.raises(ValueError, match="no way costs as little"):
        priced(Target(budget=5.0), POLICY, expected, dear)


def test_a_price_beyond_one_that_failed_is_not_tried() -> None:
    weak = np.asarray([0.0] * 20 + [1.0] * 180)  # what it is surest of is wrong
    both = np.asarray([1.0] * 20 + [1.0, 0.0] * 90)
    there = Outcomes(
        {"weak": weak, "both": both},
        {"weak": np.zeros(200), "both": np.ones(200)},
        [str(n) for n in range(200)],
    )
    expected = {"weak": np.linspace(1, 0, 200)[:, None], "both": np.ones((200, 1))}
    sure = priced(Target(quality=0.98), POLICY, expected, there)  # type: ignore[arg-type]
    assert (sure.kept, sure.spent) == (1.0, 1.0)
    hoped = priced(Target(quality=0.98, confidence=0.5), POLICY, expected, there)  # type: ignore[arg-type]
    assert hoped.spent == 0.0


@pytest.mark.parametrize(
    "wrong",
    [{}, {"quality": 0.9, "share": 0.5}, {"quality": -1.0}, {"share": 0.5, "confidence": 1.0}],
)
def test_an_impossible_target_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        Target(**wrong)


def test_where_nothing_keeps_the_quality_all_goes_both_ways() -> None:
    expected, there = chances(50)
    wrong = Outcomes({**there.scores, "weak": np.zeros(50)}, there.costs, there.groups)
    found = priced(Target(quality=0.99), POLICY, expected, wrong)
    assert (found.kept, found.spent) == (1.0, 1.0)


# --- curves ---


def test_random_mixing_has_no_area_and_an_oracle_has() -> None:
    expected, there = chances(3000)
    draw = np.random.default_rng(1)
    order = draw.random(3000)
    blind = [["both" if at < share else "weak" for at in order] for share in np.linspace(0, 1, 50)]
    curve = Curve.of("chance", there, blind)  # type: ignore[arg-type]
    found = compared(curve, there, resamples=300)
    assert abs(found.area.mean) < 0.02
    assert found.area.low < 0 < found.area.high
    informed = [POLICY.chosen(expected, price=price) for price in POLICY.prices(expected)]
    better = compared(Curve.of("informed", there, informed), there, resamples=300)
    assert better.area.low > 0.05
    assert better.above_everywhere
    assert better.floor > 0
    assert better.recovered is not None
    assert better.recovered.mean > 0.6


def test_a_querys_drafts_are_resampled_together() -> None:
    expected, there = chances(40)
    alone = compared(Curve.of("x", there, [["weak"] * 40, ["both"] * 40]), there, resamples=500)
    repeated = Outcomes(
        {way: np.repeat(each, 5) for way, each in there.scores.items()},
        {way: np.repeat(each, 5) for way, each in there.costs.items()},
        [group for group in there.groups for _ in range(5)],
    )
    kept = {way: np.repeat(each, 5, axis=0) for way, each in expected.items()}
    own = {way: np.asarray(each) for way, each in expected.items()}

    def width(there: Outcomes, expected: Any) -> float:
        policies = [POLICY.chosen(expected, price=p) for p in POLICY.prices(own)]
        found = compared(Curve.of("x", there, policies), there, resamples=500).area
        return found.high - found.low

    assert width(repeated, kept) == pytest.approx(width(there, expected), rel=0.2)
    assert abs(alone.area.mean) < 1e-9


# --- exploring ---


def test_ways_are_drawn_as_often_as_they_say(fitted: Fitted) -> None:
    ours = fitted.router.explores(0.3)
    routes = [ours.decide(SIMPLE, f"{number}") for number in range(3000)]
    shares = Counter(route.way for route in routes)
    chance = {route.way: route.propensity for route in routes}
    assert sum(chance.values()) == pytest.approx(1.0)
    assert all(abs(shares[way] / 3000 - chance[way]) < 0.03 for way in chance)
    assert ours.decide(SIMPLE, "7") == ours.decide(SIMPLE, "7")  # a pass that is resumed
    assert fitted.router.decide(SIMPLE, "7").propensity == 1.0
