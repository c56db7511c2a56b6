"""The private world and the paired intervals."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowest_graph.benchmark import mean_interval, paired_difference, pooled_difference
from cowest_graph.testing.world import CONDITIONS, PARTS, REMEDIES, questions
from trainer.demo import Results
from trainer.demo.measuring import scored
from trainer.demo.results import COLLABORATION_SFT, STRONG, WEAK_SFT
from trainer.reports.demo import save_report


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


HELD_OUT = [
    {"query": "A and B?", "reference": "3", "kind": "sum", "facts": ["A is 1.", "B is 2."]},
    {"query": "A?", "reference": "1", "kind": "lookup", "facts": ["A is 1."]},
]


def results(*said: tuple[str, list[str]]) -> Results:
    rows = [{**row, "unsaid": ["B is listed."]} for row in HELD_OUT]
    found = Results(0, "<world>", "weak", "strong", rows)
    found.measured += [scored(name, outputs, rows, 2, 0, None) for name, outputs in said]
    return found


DRAFTS = (WEAK_SFT, ["A is 1. B is listed.\nAnswer: 3", "A is 1.\nAnswer: 2"])
ANSWERS = (COLLABORATION_SFT, ["Answer: 4", "Answer: 1"])


def test_the_report_tells_what_drafts_state_and_what_the_strong_model_made_of_them(
    tmp_path: Path,
) -> None:
    found = results((STRONG, ["Answer: unknown"] * 2), DRAFTS, ANSWERS)
    save_report(found, tmp_path)
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["drafts"] == {
        WEAK_SFT: {
            "facts": 2 / 3,
            "complete": 0.5,
            "left_out": 0.5,
            "rescued": 1,
            "harmed": 1,
        }
    }
    assert told["kinds"][COLLABORATION_SFT] == {"lookup": 1.0, "sum": 0.0}
    assert told["differences"][f"{COLLABORATION_SFT} - {WEAK_SFT}"]["mean"] == 0
    page, text = ((tmp_path / name).read_text() for name in ("report.html", "report.md"))
    assert "<world>" not in page
    assert "puts 1 answers right and spoils 1" in text


def test_what_was_not_measured_is_not_compared(tmp_path: Path) -> None:
    save_report(results(DRAFTS), tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["differences"] == {}
