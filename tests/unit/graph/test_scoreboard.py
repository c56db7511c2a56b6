"""The table's arithmetic where something is missing: unreadable answers, failed queries, tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cowest_graph.benchmark.ledger import Said
from cowest_graph.benchmark.scoreboard import compare, decompose, outcomes, standing
from cowest_graph.domains import Domain

DOMAIN = Domain(
    "colours",
    {"dev": [{"q": f"{n}?", "a": "red" if n % 2 else "blue"} for n in range(4)]},
    lambda row: {"query": row["q"], "reference": row["a"]},
    labels=("red", "blue", "green"),
)
EXAMPLES = DOMAIN.load("dev")


def said(*answers: str | None, draft: str | None = None) -> list[Said]:
    return [
        Said(e.key, None if a is None else f"Answer: {a}", draft and f"Answer: {draft}")
        for e, a in zip(EXAMPLES, answers, strict=True)
    ]


def test_an_unreadable_answer_is_wrong_and_a_failed_query_is_left_out() -> None:
    found = outcomes(DOMAIN, EXAMPLES, said("blue", "purple", None, "red"), seed=0)
    row = standing(DOMAIN, "m", "f", found, failed=1, resamples=40)
    assert (row.scored, row.failed, row.unreadable) == (3, 1, 1)
    assert row.scores["accuracy"].mean == pytest.approx(2 / 3)
    # blue: 1 of 1; red: 1 hit, 1 said, 2 true; green: nowhere
    assert row.scores["macro_f1"].mean == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert row.cost.seconds == 0
    with pytest.raises(ValueError, match="no query was answered"):
        standing(DOMAIN, "m", "f", {})


def test_two_methods_are_compared_where_both_answered() -> None:
    ours = outcomes(DOMAIN, EXAMPLES, said("blue", None, "blue", "red"), seed=0)
    theirs = outcomes(DOMAIN, EXAMPLES, said("red", "red", "blue", "blue"), seed=0)
    differences, test = compare(DOMAIN, ours, theirs, resamples=40)
    assert differences["accuracy"].mean == pytest.approx(2 / 3)
    scores = [standing(DOMAIN, "m", "f", side, resamples=1).scores for side in (ours, theirs)]
    gain = scores[0]["macro_f1"].mean - scores[1]["macro_f1"].mean
    assert differences["macro_f1"].mean != 0
    assert gain != differences["macro_f1"].mean  # one of theirs was not answered by ours
    assert test is not None
    assert (test.only_ours, test.only_theirs) == (2, 0)


def test_the_interval_of_macro_f1_holds_the_figure_where_labels_are_many() -> None:
    labels = tuple(f"l{n}" for n in range(40))
    rows = [{"q": label, "a": label} for label in labels]
    many = replace(DOMAIN, labels=labels, data={"dev": rows})
    examples = many.load("dev")
    perfect = [Said(e.key, f"Answer: {e.query}") for e in examples]
    half = [*perfect[:20], *(Said(e.key, "Answer: l0") for e in examples[20:])]
    right, partly = (outcomes(many, examples, each, seed=0) for each in (perfect, half))
    whole = standing(many, "m", "f", right, resamples=200).scores["macro_f1"]
    assert (whole.low, whole.mean, whole.high) == (1.0, 1.0, 1.0)
    found = compare(many, right, partly, resamples=200)[0]["macro_f1"]
    assert found.low < found.mean < found.high


def test_any_of_several_references_is_right_for_macro_f1_too() -> None:
    assert DOMAIN.macro_f1(["blue"], [["red", "blue"]]) == DOMAIN.macro_f1(["blue"], ["blue"])


def test_a_query_counts_once_however_many_seeds_asked_it() -> None:
    right, wrong = said("blue", "red", "blue", "red"), said("green", "green", "green", "green")
    tests = []
    for seeds in (1, 4):
        sides = [
            {p: o for s in range(seeds) for p, o in outcomes(DOMAIN, EXAMPLES, each, s).items()}
            for each in (right, wrong)
        ]
        tests.append(compare(DOMAIN, *sides, resamples=1)[1])
    assert tests[0] == tests[1]


def test_without_a_common_query_there_is_no_comparison() -> None:
    ours = outcomes(DOMAIN, EXAMPLES, said("blue", None, None, None), seed=0)
    theirs = outcomes(DOMAIN, EXAMPLES, said(None, "red", None, None), seed=0)
    assert compare(DOMAIN, ours, theirs) == ({}, None)


def test_a_graded_metric_has_a_difference_and_no_exact_test() -> None:
    graded = replace(DOMAIN, labels=(), metrics={"closeness": lambda answer, accepted: 0.9})
    found = outcomes(graded, EXAMPLES, said("a", "b", "c", "d", draft="d"), seed=0)
    differences, test = compare(graded, found, found, resamples=10)
    assert (list(differences), test) == (["closeness"], None)
    assert decompose(graded, found, found) is None


def test_what_cannot_be_read_is_no_copy() -> None:
    solo = outcomes(DOMAIN, EXAMPLES, said("red", "red", "red", "red"), seed=0)
    vague = outcomes(DOMAIN, EXAMPLES, said("hm", "hm", "red", "blue", draft="hm"), seed=0)
    found = decompose(DOMAIN, vague, solo)
    assert found is not None
    assert (found.copied, found.overridden, found.right_overrides) == (0, 4, 0)
    assert (found.rescued, found.harmed) == (0, 2)
    assert decompose(DOMAIN, solo, solo) is None  # no drafts
