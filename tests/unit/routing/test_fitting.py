"""What is learnt, what is promised, and what is drawn: on a world where the right way is known."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hills import calls, collected, routed, words

from cowest_graph import exact_match, metric
from cowest_graph.routing.curves import Curve, Outcomes, compared
from cowest_graph.routing.features import Features
from cowest_graph.routing.fitting import Fitted, fit_router, parted
from cowest_graph.routing.learning import learnt
from cowest_graph.routing.lessons import Example, Taught, examples
from cowest_graph.routing.measuring import measured
from cowest_graph.routing.policies import Policy, explored
from cowest_graph.routing.registry import FollowingRouter, RouterRegistry
from cowest_graph.routing.router import ARRAYS, SPEC, Router
from cowest_graph.routing.seen import Seen
from cowest_graph.routing.targets import Target, priced
from cowest_graph.traces import Attempt, Draw, Exploration, Token

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


# --- examples ---


def test_a_collection_tells_all_three_ways() -> None:
    found = taught(2)
    simple, half_done = found.examples
    assert simple.scores == {"weak": 1.0, "strong": 0.0, "both": 1.0}
    assert half_done.scores["both"] == 1.0
    assert simple.tokens == {"weak": 0.0, "strong": 60.0, "both": 100.0}
    assert simple.whole
    assert not found.left_out


def test_a_draft_that_nobody_scored_is_missing_and_not_wrong() -> None:
    (unscored, _) = examples(collected(2)).examples
    assert set(unscored.scores) == {"strong", "both"}


def test_a_routed_query_counts_for_those_that_went_elsewhere() -> None:
    weak = Attempt(index=0, draft="Answer: 7", draft_score=1.0)
    both = Attempt(index=0, draft="Answer: 8", answer="Answer: 7", score=1.0)
    found = examples(
        [
            routed("weak", 0.1, "a?", attempts=[weak]),
            routed("strong", 0.2, "b?", solo="Answer: 7", solo_score=1.0),
            routed("both", 0.5, "c?", attempts=[both], calls=calls("solo", 50)),
            routed("both", 1.0, "d?", attempts=[both]),
        ],
        evaluator=metric(exact_match),
    )
    assert [each.scores for each in found.examples] == [
        {"weak": 1.0},
        {"strong": 1.0},
        {"both": 1.0},
    ]
    weights = [
        each.weight(way)
        for each, way in zip(found.examples, ("weak", "strong", "both"), strict=True)
    ]
    assert weights == [10.0, 5.0, 2.0]
    assert not any(each.whole for each in found.examples)
    assert found.left_out == Counter({"routed for certain": 1})


def test_what_chance_chose_counts_by_its_chance_and_what_the_query_chose_not_at_all() -> None:
    both = Attempt(index=0, draft="Answer: 8", answer="Answer: 7", score=1.0)
    drawn = Exploration(
        solo=Draw(drawn=True, propensity=0.25), drafts=Draw(drawn=False, propensity=0.0)
    )
    solo: dict[str, Any] = {"solo": "Answer: 7", "solo_score": 1.0}
    certain = routed("both", 1.0, "a?", attempts=[both], exploration=drawn, **solo)
    unrouted = certain.model_copy(update={"route": None})
    alone = unrouted.model_copy(update={"exploration": None, "attempts": []})  # the draft failed
    found = examples([certain, unrouted, alone], evaluator=metric(exact_match))
    assert [each.scores for each in found.examples] == [
        {"strong": 1.0},
        {"weak": 0.0, "strong": 1.0, "both": 1.0},
    ]
    assert [each.weight("strong") for each in found.examples] == [4.0, 4.0]
    assert [each.weight("both") for each in found.examples] == [1.0, 1.0]
    assert found.left_out == Counter({"no score": 1})


def test_weighting_by_propensities_takes_the_bias_of_a_router_out() -> None:
    """A router that keeps the weak model's failures from being seen, but for exploration."""
    draw, epsilon = random.Random(3), 0.2
    found, plain = [], []
    for number in range(4000):
        hard = number % 2 == 1
        right = float(draw.random() < (0.1 if hard else 0.9))
        taken, chance = explored(
            "both" if hard else "weak", ["weak", "both"], epsilon, draw.random()
        )
        if taken == "weak":
            seen = Seen(f"{number}", None, "Answer: 7")
            one = Example(seen, {"weak": right}, group=f"{number}", weights={"weak": 1 / chance})
            found.append(one)
            plain.append(right)
    weights = [each.weight("weak") for each in found]
    truth = 0.5
    assert abs(np.average(plain) - truth) > 0.25
    assert abs(np.average([e.scores["weak"] for e in found], weights=weights) - truth) < 0.05
    scorer = learnt(found, Features(("query_shape",)), ["weak"]).scorers["weak"]
    said = scorer.expected(Features(("query_shape",)).table([e.seen for e in found]))
    assert abs(np.average(said.mean(axis=1), weights=weights) - truth) < 0.05


# --- features ---


def test_what_is_missing_is_no_number() -> None:
    features = Features(("logprobs", "agreement"))
    (without,) = features.table([Seen("a?", draft="b")])
    (surely,) = features.table([Seen("a?", draft="b", logprobs=(0.0, 0.0), second="c")])
    assert without[0] == without[5] == 1.0
    assert surely[0] == surely[5] == 0.0
    assert features.lacking(Seen("a?")) == "draft"
    assert features.lacking(Seen("a?", draft="b")) == "logprobs"
    assert features.lacking(Seen("a?", draft="b", logprobs=(0.0,), second="c")) is None


def test_an_answer_that_stands_in_the_notes_is_told_from_one_made_up() -> None:
    table = Features(("draft_shape",)).table([SIMPLE, SUM])
    assert (table[0][4], table[1][4]) == (1.0, 0.0)


@pytest.mark.parametrize("groups", [(), ("nonsense",)])
def test_features_that_there_are_not_are_refused(groups: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="there are: query, "):
        Features(groups)


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
    other = Seen("Quelle est la capitale de la France", "towns", "Answer: Paris")
    assert not ours.near([other])[0]
    assert ours.decide(other, "k").way == "both"
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
    assert better.lowest.low > 0
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


# --- kept ---


def test_a_version_decides_as_it_did_before_it_was_kept(fitted: Fitted, tmp_path: Path) -> None:
    routers = RouterRegistry(tmp_path / "routers")
    name = routers.add(fitted.router, fitted.card)
    again = routers.load(name, embed=words)
    for seen in (SIMPLE, SUM):
        ours, theirs = fitted.router.decide(seen, "k"), again.decide(seen, "k")
        assert ours.way == theirs.way
        assert theirs.router == name == "r0001"
        assert ours.expected == pytest.approx(theirs.expected)
    card = routers.card(name)
    assert card["queries"]["test"] > 0
    assert card["target"]["quality"] == 0.98
    assert not {each.suffix for each in routers.path(name).iterdir()} - {".json", ".safetensors"}


def test_promote_then_rollback_is_identity(fitted: Fitted, tmp_path: Path) -> None:
    routers = RouterRegistry(tmp_path)
    first, second = (routers.add(fitted.router, fitted.card) for _ in range(2))
    assert (first, second, routers.current) == ("r0001", "r0002", None)
    routers.promote(first)
    routers.promote(second)
    assert routers.rollback() == first == routers.current
    routers.promote("none")
    assert routers.current is None
    with pytest.raises(LookupError, match="there are: r0001, r0002"):
        routers.promote("r0009")
    with pytest.raises(LookupError):
        routers.promote("../r0001")
    with pytest.raises(ValueError, match="taken"):
        routers.add(fitted.router, fitted.card, name="r0001")
    with pytest.raises(ValueError, match="cannot name"):
        routers.add(fitted.router, fitted.card, name="../x")


def test_a_running_graph_follows_the_choice(fitted: Fitted, tmp_path: Path) -> None:
    routers = RouterRegistry(tmp_path)
    following = FollowingRouter(routers, after_draft=True, embed=words)
    assert following.decide(SIMPLE, "k").way == "both"
    routers.promote(routers.add(fitted.router, fitted.card))
    assert following.decide(SIMPLE, "k").way == "weak"
    other = fit_router(taught().examples, Target(quality=0.98), moment="before", embed=words)
    routers.promote(routers.add(other.router, other.card))
    assert following.decide(SIMPLE, "k").way == "both"  # decides at another moment
    routers.rollback()
    assert following.decide(SIMPLE, "k").router == "r0001"


def test_a_damaged_version_is_told_and_never_chosen(fitted: Fitted, tmp_path: Path) -> None:
    routers = RouterRegistry(tmp_path)
    name = routers.add(fitted.router, fitted.card)
    folder = routers.path(name)
    spec, arrays = (folder / SPEC).read_text(), (folder / ARRAYS).read_bytes()

    def changed(**parts: Any) -> None:
        (folder / SPEC).write_text(json.dumps({**json.loads(spec), **parts}))

    def cut() -> None:
        (folder / ARRAYS).write_bytes(arrays[: len(arrays) // 2])

    for damage in (
        lambda: changed(format=99),
        lambda: changed(policy={"costs": {"weak": 0.0}, "fallback": "both"}),
        lambda: changed(features={"groups": ["query_shape"], "domains": [], "embedding": "x"}),
        lambda: (folder / SPEC).write_text("{"),
        cut,
    ):
        (folder / SPEC).write_text(spec)
        (folder / ARRAYS).write_bytes(arrays)
        damage()
        with pytest.raises(ValueError, match="no router that can be read"):
            Router.load(folder)
        with pytest.raises(ValueError):
            routers.promote(name)
    assert routers.current is None


def test_tokens_of_a_trace_are_read_as_log_probabilities() -> None:
    trace = collected(1)[0]
    told = trace.attempts[0].model_copy(update={"tokens": [Token(token="7", logprob=-0.5)]})
    (one,) = examples([trace.model_copy(update={"attempts": [told]})]).examples
    assert one.seen.logprobs == (-0.5,)
