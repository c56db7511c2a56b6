"""Objectives: the rows each makes of the same traces, and where each starts."""

from __future__ import annotations

import math

import pytest

from cowest_graph.traces import Trace
from trainer import (
    TrainingJob,
    best_drafts,
    label_noise,
    preferences,
    training_rows,
    unpaired,
)
from trainer.objectives import (
    OBJECTIVES,
    gain_weights,
    kto_weights,
    start_loss,
    weighted_start_loss,
)

LN2 = math.log(2)


def trace(query: str, solo: float | None, *scored: tuple[str, float | None]) -> Trace:
    attempts = [{"index": i, "draft": d, "score": s} for i, (d, s) in enumerate(scored)]
    return Trace(query=query, solo_score=solo, num_drafts=len(attempts), attempts=attempts)


TRACES = [
    trace("both", 5, ("a", 9), ("b", 2), ("c", 7), ("d", 5)),
    trace("all helped", 1, ("e", 4), ("f", 8), ("g", 8)),
    trace("all hurt", 9, ("h", 3)),
    trace("no solo", None, ("i", 3)),
    trace("no score", 5, ("j", None)),
]


def text(messages: list[dict[str, str]]) -> str:
    return messages[0]["content"]


def test_every_scored_draft_teaches_alone_also_of_one_sided_queries() -> None:
    rows = unpaired(TRACES)
    assert [(text(row["completion"]), row["label"]) for row in rows] == [
        ("a", True),
        ("b", False),
        ("c", True),
        ("d", False),  # a tie hurts
        ("e", True),
        ("f", True),
        ("g", True),
        ("h", False),
    ]
    assert (rows.report.helped, rows.report.hurt, rows.report.rows) == (5, 3, 8)
    assert (rows.report.missing_solo, rows.report.missing_scores) == (1, 1)
    assert len(rows.queries) == len(rows)


def test_the_best_draft_is_the_first_of_those_that_helped_most() -> None:
    rows = best_drafts(TRACES)
    assert [text(row["completion"]) for row in rows] == ["a", "f"]
    assert rows.queries == ("both", "all helped")
    assert rows.report.without_help == 3


def test_pairs_carry_their_gains_when_asked() -> None:
    (first, second) = preferences(TRACES, gains=True)
    assert (first["chosen_gain"], first["rejected_gain"]) == (4, -3)
    assert (second["chosen_gain"], second["rejected_gain"]) == (2, 0)
    assert set(preferences(TRACES)[0]) == {"prompt", "chosen", "rejected"}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_each_objective_has_rows_and_a_job(objective: str) -> None:
    rows = training_rows(objective, TRACES)
    assert rows
    job = TrainingJob("m", objective=objective, label_noise=0.1)
    job.resolved(job.recipe)
    assert OBJECTIVES[objective].source


def test_an_unknown_objective_is_told() -> None:
    with pytest.raises(ValueError, match="no objective 'ppo'; there are: dpo, ipo"):
        training_rows("ppo", TRACES)
    with pytest.raises(ValueError, match="no objective 'dop'; the nearest known one is 'dpo'"):
        TrainingJob("m", objective="dop")


def test_conservative_dpo_out_of_two_losses_of_trl_is_its_formula() -> None:
    """The identity in `_conservative`, at margins of all sizes, against Mitchell's formula."""
    for noise in (0.0, 0.1, 0.3, 0.49):
        told = OBJECTIVES["cdpo"].arguments(noise)
        for margin in (-9.0, -0.5, 0.0, 0.7, 12.0):
            up, down = (-math.log(1 / (1 + math.exp(-m))) for m in (margin, -margin))
            robust = ((1 - noise) * up - noise * down) / (1 - 2 * noise)
            ours = told["loss_weights"][0] * up + told["loss_weights"][1] * robust
            assert ours == pytest.approx((1 - noise) * up + noise * down, abs=1e-9)


@pytest.mark.parametrize("noise", [-0.1, 0.5, 1.0])
def test_label_noise_is_a_probability_below_a_half(noise: float) -> None:
    with pytest.raises(ValueError, match="at least 0 and below"):
        TrainingJob("m", objective="robust", label_noise=noise).resolved("dpo")


def test_the_losses_at_margin_0() -> None:
    assert start_loss(["sigmoid"], beta=0.1) == pytest.approx(LN2)
    assert start_loss(["ipo"], beta=0.5) == pytest.approx(1)
    cdpo = OBJECTIVES["cdpo"].arguments(0.2)
    weights = cdpo["loss_weights"]
    found = start_loss(cdpo["loss_type"], beta=0.1, label_smoothing=0.2, weights=weights)
    assert found == pytest.approx(LN2)
    assert start_loss(["sigmoid", "sft"], beta=0.1) is None
    assert weighted_start_loss([2.0, 0.0], [0.0, 5.0]) == pytest.approx(LN2)


def test_the_weights_of_pairs_have_the_mean_1_and_both_sides_of_kto_weigh_the_same() -> None:
    assert gain_weights([1.0, 3.0]) == [0.5, 1.5]
    for helped, hurt in ((10, 40), (40, 10), (7, 7), (3, 0)):
        weights = kto_weights(helped, hurt)
        if helped and hurt:
            desirable = helped * weights["desirable_weight"]
            assert desirable == pytest.approx(hurt * weights["undesirable_weight"])
        assert min(weights.values()) == 1


def test_label_noise_is_told_by_repeated_drafts() -> None:
    steady = [trace("q", 5, ("same", 8), ("same", 8), ("bad", 2))]
    assert label_noise(steady) == 0.0
    assert label_noise(TRACES) is None  # no draft repeats: it cannot be told
    noisy = [trace("q", 5, ("same", 9), ("same", 7), ("bad", 1))]
    noisier = [trace("q", 5, ("same", 9), ("same", 3), ("bad", 4))]
    little, much = label_noise(noisy), label_noise(noisier)
    assert little is not None
    assert much is not None
    assert 0 < little < much < 0.5
