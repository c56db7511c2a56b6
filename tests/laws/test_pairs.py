"""The pairing laws of Algorithm 1, on any scores, any sampling order, anything missing."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from cowest_graph.traces import Attempt, Trace
from trainer.rows import preferences

SCORES = st.none() | st.sampled_from([0.0, 0.1, 0.3, 1.0, 5.0]) | st.floats(-1e6, 1e6)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    scores = draw(st.lists(SCORES, max_size=8))
    gone = draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    order = draw(st.permutations(range(len(scores))))  # the order in which they finished
    number = draw(st.integers(0, 10**6))
    return Trace(
        query=f"query {number}",
        solo_score=draw(SCORES),
        kind=draw(st.sampled_from(["collection", "collection", "inference"])),
        draft_prompt=[{"role": "user", "content": f"query {number}"}],
        attempts=[
            Attempt(index=i, draft=None if gone[i] else f"{i}", score=scores[i]) for i in order
        ],
    )


def content(row: dict[str, list[dict[str, str]]], part: str) -> int:
    """The attempt a text came from: drafts in these tests are their own index."""
    return int(row[part][0]["content"])


@given(traces())
def test_chosen_helped_and_rejected_hurt(trace: Trace) -> None:
    by_index = {attempt.index: attempt for attempt in trace.attempts}
    for row in preferences([trace]):
        chosen, rejected = (by_index[content(row, part)] for part in ("chosen", "rejected"))
        assert trace.solo_score is not None
        assert chosen.score is not None
        assert rejected.score is not None
        assert chosen.score > trace.solo_score
        assert rejected.score <= trace.solo_score


@given(traces())
def test_as_many_pairs_as_the_smaller_side_in_sampling_order(trace: Trace) -> None:
    usable = [
        (attempt.index, attempt.score > trace.solo_score)
        for attempt in sorted(trace.attempts, key=lambda attempt: attempt.index)
        if attempt.draft is not None and attempt.score is not None and trace.solo_score is not None
    ]
    helped = [index for index, better in usable if better]
    hurt = [index for index, better in usable if not better]
    expected = list(zip(helped, hurt, strict=False))
    rows = preferences([trace])
    assert [(content(r, "chosen"), content(r, "rejected")) for r in rows] == expected
    assert len(rows) == rows.report.pairs <= min(rows.report.helped, rows.report.hurt)


def _told(trace: Trace) -> bool:
    """Whether the gain of a draft is known."""
    return any(each.draft is not None and each.gain is not None for each in trace.attempts)


@given(st.lists(traces(), max_size=5))
def test_traces_do_not_mix_and_the_report_adds_up(several: Sequence[Trace]) -> None:
    together = preferences(several)
    alone = [preferences([trace]) for trace in several]
    assert list(together) == [row for rows in alone for row in rows]
    report = together.report.as_dict()
    assert report == {name: sum(rows.report.as_dict()[name] for rows in alone) for name in report}
    collected = [trace for trace in several if trace.kind == "collection" or _told(trace)]
    assert report["traces"] == len(several)
    assert report["attempts"] == sum(len(trace.attempts) for trace in collected)
    unscored = sum(
        attempt.draft is not None and attempt.score is not None and trace.solo_score is None
        for trace in collected
        for attempt in trace.attempts
    )
    used = report["helped"] + report["hurt"]
    assert report["attempts"] == (
        used + report["missing_drafts"] + report["missing_scores"] + unscored
    )


@given(traces())
def test_a_missing_solo_score_makes_no_pair(trace: Trace) -> None:
    assert not preferences([trace.model_copy(update={"solo_score": None})])
