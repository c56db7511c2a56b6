"""A strong model probed twice a run: it drifts where it changed, and not where it is noisy."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from cowest_graph import TraceStore, exact_match, metric
from cowest_graph.prompts import Prompts
from cowest_graph.testing import ScriptedModel
from cowest_graph.traces import DriftRun
from trainer.drift import Probing, compared
from trainer.drift.comparing import fewest, told

EXACT = metric(exact_match)
ROWS = [{"query": f"number {n}?", "reference": str(n)} for n in range(20)]


def a_model(noise: float, skill: float, seed: int = 0) -> ScriptedModel:
    """Right on a share of the numbers; now and then it says something else."""
    draw = random.Random(seed)

    def reply(messages: list[Any]) -> str:
        number = int(messages[-1].text.rsplit("number ", 1)[1].rstrip("?"))
        right = (number % 20) < 20 * skill
        if draw.random() < noise:
            return f"Answer: {draw.choice(['7', '8', '9'])}"
        return f"Answer: {number if right else number + 100}"

    return ScriptedModel(reply, model_name="large")


def probing(model: Any, evaluator: Any = EXACT, **more: Any) -> Probing:
    return Probing(model, evaluator, Prompts(), max_concurrency=1, **more)


def runs(store: TraceStore, *models: Any, level: float = 0.01) -> list[DriftRun]:
    found = []
    for model in models:
        run = probing(model).run(ROWS)
        before = store.drift_runs(strong="large", probes=run.probes, limit=1)
        run = compared(run, before[0] if before else None, level=level)
        store.keep_drift(run)
        found.append(run)
    return found


def test_a_model_that_stays_does_not_drift_and_one_that_changes_does() -> None:
    with TraceStore(":memory:") as store:
        same = [a_model(0.1, 0.9, seed) for seed in range(3)]
        first, *rest, changed, after = runs(store, *same, a_model(0.1, 0.4), a_model(0.1, 0.4, 9))
        assert (first.against, first.p_answers, first.drifted) == (None, None, False)
        assert [run.drifted for run in rest] == [False, False]
        assert changed.drifted
        assert changed.against == rest[-1].id
        assert not after.drifted  # what it is now is what the next run is compared with
        assert store.drifted() == {"large": changed.began_at}
        assert [run.id for run in store.drift_runs(strong="large")][:2] == [after.id, changed.id]


def test_without_references_answers_alone_tell() -> None:
    rows = [{"query": row["query"]} for row in ROWS]
    before, now = (probing(a_model(0, skill), None).run(rows) for skill in (1, 0))
    found = compared(now, before)
    assert (found.p_scores, found.drifted) == (None, True)


def test_scores_of_another_evaluator_are_not_compared() -> None:
    def always(*, outputs: Any) -> float:
        return 1.0

    before, now = probing(a_model(0, 1)).run(ROWS), probing(a_model(0, 1), always).run(ROWS)
    assert compared(now, before).p_scores is None


def test_each_probe_is_asked_twice_and_the_second_time_after_all_others() -> None:
    model = a_model(0, 1)
    run = probing(model).run(ROWS)
    asked = [messages[-1].text.rsplit("Question: ", 1)[1] for messages in model.calls]
    assert asked == [row["query"] for row in ROWS] * 2
    assert all(len(probe.answers) == len(probe.scores) == 2 for probe in run.asked)


def test_a_conversation_is_part_of_a_probe() -> None:
    turns = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    model = ScriptedModel(["Answer: x"], model_name="large")
    rows = [{"query": "and then?", "messages": turns}]
    probing(model, None).run(rows)
    assert [m.text for m in model.calls[0]][:2] == ["one", "two"]
    assert probing(model).digest(rows) != probing(model).digest([{"query": "and then?"}])


def test_what_the_endpoint_says_of_itself_is_noticed_at_once() -> None:
    before = DriftRun(strong="large", probes="p", told=["gpt-1", "fp_1"], asked=[])
    now = before.model_copy(update={"id": "b", "told": ["gpt-1", "fp_2"]})
    found = compared(now, before)
    assert (found.noticed, found.drifted) == (["fp_2"], False)
    assert "the endpoint says fp_2, which is new" in told(found, before)


def flaky(dead: Callable[[int], bool]) -> ScriptedModel:
    def reply(messages: list[Any]) -> Any:
        number = int(messages[-1].text.rsplit("number ", 1)[1].rstrip("?"))
        return TimeoutError("no reply") if dead(number) else f"Answer: {number}"

    return ScriptedModel(reply, model_name="large")


def test_a_probe_that_failed_is_left_out_and_too_many_are_no_run() -> None:
    said: list[str] = []
    before, now = (probing(flaky(lambda n: n < 5), say=said.append).run(ROWS) for _ in range(2))
    assert compared(now, before).compared == 15
    assert "10 of 40 calls failed" in said[0]
    with pytest.raises(ConnectionError, match="only 9 of 20 probes were answered 2 times"):
        probing(flaky(lambda n: n < 11), say=said.append).run(ROWS)


def test_a_refused_key_is_told_as_it_is() -> None:
    error = RuntimeError("401")
    error.status_code = 401  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="401"):
        probing(ScriptedModel([error]), say=lambda _: None).run(ROWS)


def test_a_judge_that_fails_leaves_the_answer() -> None:
    def broken(*, outputs: Any) -> float:
        raise TimeoutError("no judge")

    run = probing(a_model(0, 1), broken, say=lambda _: None).run(ROWS)
    assert run.asked[3].answers == ["Answer: 3", "Answer: 3"]
    assert run.asked[3].scores == [None, None]


def test_a_secret_in_an_answer_is_masked_before_it_is_compared() -> None:
    from cowest_graph.masking import learn

    learn("sk-drift-0123456789abc")
    says = ScriptedModel(["Answer: sk-drift-0123456789abc"], model_name="large")
    with TraceStore(":memory:") as store:
        assert not any(run.drifted for run in runs(store, says, says))
        (kept, _) = store.drift_runs(strong="large")
        assert "0123456789" not in kept.model_dump_json()


@pytest.mark.parametrize("level", [0, 1, -0.1])
def test_a_level_that_is_none_is_refused(level: float) -> None:
    with pytest.raises(ValueError, match="must be between 0 and 1"):
        fewest(level)
