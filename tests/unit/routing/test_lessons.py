"""What traces teach a router, and what it reads off a query and its draft."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hills import calls, collected, routed

from cowest_graph import exact_match, metric
from cowest_graph.routing.answers import options, taken
from cowest_graph.routing.features import Features
from cowest_graph.routing.learning import learnt
from cowest_graph.routing.lessons import Example, Taught, examples
from cowest_graph.routing.policies import explored
from cowest_graph.routing.seen import Seen
from cowest_graph.traces import Attempt, Draw, Exploration, Token

SIMPLE = Seen("How high is Aal? (map 900)", "towns", "Explanation: Aal is 412 high.\nAnswer: 412")
SUM = Seen(
    "How high are Aal and Esk together? (map 901)",
    "towns",
    "Explanation: Aal is 412 high. Esk is 200 high.\nAnswer: 615",
)


def taught(count: int = 120, seed: int = 0) -> Taught:
    return examples(collected(count, seed), evaluator=metric(exact_match))


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
    named = Features(("domain",), ("towns",))
    assert [named.lacking(Seen("a?", domain)) for domain in ("towns", "hills", None)] == [
        None,
        "domain",
        "domain",
    ]


def test_an_answer_that_stands_in_the_notes_is_told_from_one_made_up() -> None:
    table = Features(("draft_shape",)).table([SIMPLE, SUM])
    assert (table[0][4], table[1][4]) == (1.0, 0.0)


def test_a_router_before_the_draft_learns_nothing_from_drafts() -> None:
    query = "Which is a metal?\nA. iron\nB. air"
    seen = Seen(query, None, "Explanation: Iron rusts.\nAnswer: A. iron")
    before, after = Features(("options",)), Features(("options", "draft_shape"))
    bare = replace(seen, draft=None)
    assert (before.table([seen]) == before.table([bare])).all()
    assert not (after.table([seen])[:, :12] == after.table([bare])[:, :12]).all()


def test_options_are_told_from_other_lines() -> None:
    listed = options("Take one.\n(A) iron\n(B) all of the above\nThink first.")
    assert listed == {"A": "iron", "B": "all of the above"}
    assert options("Dear A. Smith\nA. iron") == {}
    assert [taken(said, listed) for said in ("b", "Iron", "B) that", "gold", None)] == [
        "B",
        "A",
        "B",
        None,
        None,
    ]


@pytest.mark.parametrize("groups", [(), ("nonsense",)])
def test_features_that_there_are_not_are_refused(groups: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="there are: query, "):
        Features(groups)


def test_tokens_of_a_trace_are_read_as_log_probabilities() -> None:
    trace = collected(1)[0]
    told = trace.attempts[0].model_copy(update={"tokens": [Token(token="7", logprob=-0.5)]})
    (one,) = examples([trace.model_copy(update={"attempts": [told]})]).examples
    assert one.seen.logprobs == (-0.5,)
