"""Rounds that teach, test and promote, with scripted models and recorded recipes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage

from cowest_graph import AdapterRegistry, TraceStore, exact_match, metric
from cowest_graph.graph import Collectors
from cowest_graph.testing import ScriptedModel
from cowest_graph.traces import DriftRun
from trainer.course import Course
from trainer.gate import SequentialGate
from trainer.job import TrainingJob
from trainer.loop import Loop, Round

ROWS = [{"query": f"learn {n}", "reference": "right"} for n in range(3)]
HELD_OUT = [{"query": f"ask {n}", "reference": "right"} for n in range(11)]


class Weak(ScriptedModel):
    """Answers as many held-out queries as its version can; sampled drafts are right in turn."""

    skills: dict[str, int]

    def _reply(self, messages: list[BaseMessage], arguments: dict[str, Any]) -> Any:
        text = messages[-1].text
        if "ask" in text and arguments["temperature"] == 0:
            number = int(text.split()[-1])
            right = number < self.skills[arguments["adapter"]]
        else:
            right = arguments.get("seed", 0) % 2 == 0
        said = AIMessage("Answer: right" if right else "Answer: wrong")
        return super()._reply([*messages, said], arguments)


class World:
    """Models, a registry and recipes whose adapters have the skills that are given."""

    def __init__(self, folder: Path, source: Path, *skills: int) -> None:
        self.folder, self.source = folder, source
        self.adapters = AdapterRegistry(folder / "adapters")
        self.weak = Weak(lambda messages: messages[-1].text, skills={"base": 0}, seed=0)
        self.skills = self.weak.skills
        self.strong = ScriptedModel(self._refined)
        self.learnt: list[tuple[str, str | None, list[str]]] = []
        self.said: list[str] = []
        self.stop: Callable[[], bool] = lambda: False
        self.silent: set[str] = set()
        self.opened: list[str] = []
        self._skills = skills

    def _refined(self, messages: list[BaseMessage]) -> Any:
        text = messages[-1].text
        if any(query in text for query in self.silent):
            return TimeoutError("no answer")
        return "Answer: right" if "Answer: right" in text else "Answer: wrong"

    def _train(self, kind: str) -> Callable[..., str]:
        def train(
            rows: Sequence[Any], job: Any, adapters: Any, *, name: str, start: str | None, **_: Any
        ) -> str:
            asked = [str(row["prompt"][-1]["content"]) for row in rows]
            self.skills[name] = self._skills[len(self.learnt)]
            self.learnt.append((kind, start, asked))
            return self.adapters.add(self.source, name=name)

        return train

    def _store(self, url: str) -> TraceStore:
        self.opened.append(url)
        return TraceStore(url)

    def _say(self, text: str) -> None:
        if self.stop():
            raise KeyboardInterrupt
        self.said.append(text)

    def run(
        self,
        *,
        rows: Any = ROWS,
        held_out: Any = HELD_OUT,
        loop: dict[str, Any] | None = None,
        **asked: Any,
    ) -> list[Round]:
        with TraceStore(f"sqlite:///{self.folder / 'traces.db'}") as traces:
            return Loop(
                Collectors(
                    self.weak, self.strong, metric(exact_match), num_drafts=2, style="answer"
                ),
                traces,
                self.adapters,
                lambda kind: TrainingJob("m", preset="tiny"),
                self.folder / "loop",
                store=self._store,
                say=self._say,
                sft=self._train("sft"),
                dpo=self._train("dpo"),
                **(loop or {}),
            ).run(rows, held_out, **asked)

    @property
    def calls(self) -> int:
        return len(self.weak.calls) + len(self.strong.calls)


@pytest.fixture
def world(tmp_path: Path, peft_folder: Path) -> Callable[..., World]:
    def made(*skills: int, name: str = "world") -> World:
        (folder := tmp_path / name).mkdir()
        return World(folder, peft_folder, *skills)

    return made


def test_what_is_better_is_served_and_what_is_not_ends_the_loop(
    world: Callable[..., World],
) -> None:
    this = world(5, 10, 10)
    sft, first, second = this.run(rounds=5)
    assert [sft.promoted, first.promoted, second.promoted] == [True, True, False]
    assert [sft.current, first.current, second.current] == ["base", sft.candidate, first.candidate]
    assert [first.start, second.start] == [sft.candidate, first.candidate]
    assert this.adapters.current == first.candidate
    assert first.verdict is not None
    assert (first.verdict.candidate, first.verdict.current) == (10 / 11, 5 / 11)
    assert set(this.opened) == {f"sqlite:///{this.folder / 'loop' / 'gate.db'}"}
    kinds = [(kind, start) for kind, start, _ in this.learnt]
    assert kinds == [("sft", None), ("dpo", sft.candidate), ("dpo", first.candidate)]
    assert "no further round: the same drafts would teach the same" in this.said


def test_alignment_goes_on_from_an_sft_adapter_that_is_not_served(
    world: Callable[..., World],
) -> None:
    this = world(0, 10)
    sft, dpo = this.run(rounds=1)
    assert (sft.promoted, dpo.promoted) == (False, True)
    assert (dpo.start, dpo.current) == (sft.candidate, "base")
    assert this.adapters.current == dpo.candidate


def test_it_starts_from_the_adapter_in_use_or_the_one_that_is_named(
    world: Callable[..., World], peft_folder: Path
) -> None:
    for start in (None, "mine"):
        this = world(9, name=str(start))
        this.adapters.add(peft_folder, name="mine")
        this.skills["mine"] = 2
        if start is None:
            this.adapters.promote("mine")
        (only,) = this.run(start=start)
        assert (only.number, only.start) == (1, "mine")
        assert only.current == ("mine" if start is None else "base")


def test_what_is_held_out_is_never_learnt(world: Callable[..., World]) -> None:
    this = world(5, 10)
    this.run(rows=[*ROWS, {"query": "ASK  3", "reference": "right"}, HELD_OUT[5]])
    assert "2 of 5 rows are held out: they are not learnt from" in this.said
    learnt = [query for _, _, asked in this.learnt for query in asked]
    assert len(learnt) == 6
    assert all("learn" in query for query in learnt)


def test_a_held_out_query_counts_once(world: Callable[..., World]) -> None:
    this = world(3, 3)
    (sft, _) = this.run(held_out=[*HELD_OUT, {"query": "ask  1", "reference": "right"}] * 2)
    assert "13 of 24 held-out queries are there before: left out" in this.said
    assert sft.verdict is not None
    assert (sft.verdict.queries, sft.promoted) == (11, False)


def test_an_adapter_that_learnt_what_is_held_out_is_no_start(
    world: Callable[..., World],
) -> None:
    this = world(9)
    mine = this.adapters.path(this.adapters.add(this.source, name="mine"))
    rows = [{"prompt": [{"role": "user", "content": f"Ask {n}"}]} for n in (3, 99)]
    (mine / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(ValueError, match="mine was trained on 1 rows whose query is held out"):
        this.run(start="mine")
    assert this.calls == 0


def test_drafts_are_collected_on_the_feedback_queries(world: Callable[..., World]) -> None:
    this = world(5, 10)
    feedback = [{"query": "try 1", "reference": "right"}, HELD_OUT[7]]
    this.run(feedback=feedback)
    (_, _, shown), (_, _, paired) = this.learnt
    assert all("learn" in query for query in shown)
    assert [query.split()[-2:] for query in paired] == [["try", "1"]]
    with pytest.raises(ValueError, match="other feedback queries; give"):
        this.run()


def test_stopped_anywhere_it_goes_on_and_pays_for_nothing_twice(
    world: Callable[..., World],
) -> None:
    whole = world(5, 10, 10, name="whole")
    expected, moments = whole.run(rounds=3), len(whole.said)
    this = world(5, 10, 10, name="stopped")
    stops = 0
    for moment in range(1, moments, 4):
        left = iter([False] * moment + [True])
        this.stop = lambda left=left: next(left, False)  # type: ignore[misc]
        try:
            found = this.run(rounds=3)
        except KeyboardInterrupt:
            stops += 1
    assert stops > 3
    this.stop = lambda: False
    found = this.run(rounds=3)
    assert found == expected
    assert this.calls == whole.calls
    assert this.learnt == whole.learnt
    assert len(this.adapters.history()) == len(whole.adapters.history()) == 2
    calls = this.calls
    this.adapters.rollback()  # somebody's decision, which the same command leaves alone
    assert this.run(rounds=3) == expected
    assert (this.calls, this.adapters.current) == (calls, expected[0].candidate)


def test_a_gate_that_is_sure_asks_no_further_also_when_it_was_stopped(
    world: Callable[..., World],
) -> None:
    asked = [{"query": f"ask {n}", "reference": "right"} for n in range(40)]
    gate = {"gate": SequentialGate(batch=8)}
    whole = world(40, name="whole")
    (expected,) = whole.run(held_out=asked, loop=gate, rounds=0)
    assert expected.verdict is not None
    assert (expected.promoted, expected.verdict.decision) == (True, "passed")
    count = expected.verdict.asked
    assert count is not None
    assert count < 40
    # Two drafts and two answers a query, and the strong model alone once.
    assert (len(whole.weak.calls), len(whole.strong.calls)) == (2 * count, 3 * count)
    this = world(40, name="stopped")
    for moment in (3, 9, 12):
        left = iter([False] * moment + [True])
        this.stop = lambda left=left: next(left, False)  # type: ignore[misc]
        with pytest.raises(KeyboardInterrupt):
            this.run(held_out=asked, loop=gate, rounds=0)
    this.stop = lambda: False
    assert this.run(held_out=asked, loop=gate, rounds=0) == [expected]
    assert this.calls == whole.calls


def test_stopped_between_a_promotion_and_its_record_it_promotes_once(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    this = world(5)
    promote = this.adapters.promote

    def stopped(name: str) -> None:
        promote(name)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(this.adapters, "promote", stopped)
        with pytest.raises(KeyboardInterrupt):
            this.run(rounds=0)
    (sft,) = this.run(rounds=0)
    assert (sft.promoted, this.adapters.current) == (True, sft.candidate)
    assert len(this.adapters.history()) == 1


def test_a_verdict_that_lacks_answers_is_open(world: Callable[..., World]) -> None:
    this = world(6, 7)
    this.silent = {"ask 2", "ask 3", "ask 4"}
    (sft, dpo) = this.run()
    assert sft.verdict is not None
    assert sft.verdict.missing == 3
    lacking = [line for line in this.said if "3 of 11 queries lack calls that failed" in line]
    assert lacking[1].startswith(f"gate, {sft.candidate}: ")
    assert not sft.promoted
    this.silent = set()
    (sft, dpo) = this.run()
    assert sft.verdict is not None
    assert (sft.verdict.missing, sft.promoted, dpo.promoted) == (0, True, False)
    assert len(this.learnt) == 2


def test_drafts_that_all_help_teach_nothing_and_may_tomorrow(world: Callable[..., World]) -> None:
    this = world(5, 10)
    this.weak.seed = None  # both drafts of a query are right
    (_, dpo) = this.run(rounds=2)
    assert (dpo.candidate, dpo.verdict, dpo.promoted) == (None, None, False)
    assert "nothing to train on: 0 pairs" in str(dpo)
    kept = json.loads((this.folder / "loop" / "loop.json").read_text(encoding="utf-8"))
    assert [each["number"] for each in kept["rounds"]] == [0]


def test_a_round_asks_what_was_two_sided_and_says_why_it_is_the_last(
    world: Callable[..., World],
) -> None:
    this = world(5, 10, 10)
    rows = [{"query": f"learn {n}", "reference": "right"} for n in range(5)]
    loop = {"course": Course(queries_a_round=2)}
    (_, first, second) = this.run(rows=rows, rounds=2, loop=loop)
    asked = [[query.split()[-1] for query in queries] for _, _, queries in this.learnt[1:]]
    assert asked == [["0", "1"], ["0", "1"]]  # both were two-sided, and are hard still
    assert "the last round: the gate did not let it pass" in second.note
    assert "the last round" not in first.note
    other = world(5, name="few")
    (_, dpo) = other.run(rounds=3, loop={"course": Course(min_pairs=9)})
    assert (dpo.candidate, "too few pairs to train on, 3 of at least 9" in dpo.note) == (None, True)


def test_a_folder_of_another_loop_is_refused(world: Callable[..., World]) -> None:
    this = world(5, 10)
    this.run()
    with pytest.raises(ValueError, match=r"with other rows, feedback queries; give a new --out"):
        this.run(rows=ROWS[:2])
    with pytest.raises(ValueError, match=r"with other held-out queries"):
        this.run(held_out=HELD_OUT[:9])
    with pytest.raises(ValueError, match=r"no held-out queries"):
        this.run(held_out=[])
    with pytest.raises(ValueError, match=r"no rows to learn from: 1 given"):
        this.run(rows=HELD_OUT[:1])
    with pytest.raises(LookupError, match="nobody"):
        this.run(start="nobody")
    with pytest.raises(ValueError, match="no adapter to start from, and no SFT"):
        world(name="other").run(rows=[{"query": "learn", "reference": None}])


def test_after_a_drift_a_new_round_begins_from_what_is_in_use(
    world: Callable[..., World],
) -> None:
    this = world(5, 10, 10, 11)
    before = this.run(rounds=1)
    assert [each.promoted for each in before] == [True, True]
    calls = this.calls
    assert this.run(rounds=1) == before
    assert this.calls == calls  # decided, and not asked again
    with TraceStore(f"sqlite:///{this.folder / 'traces.db'}") as traces:
        known = len(traces)
        traces.keep_drift(DriftRun(strong="scripted", probes="p", asked=[], drifted=True))
    (only,) = this.run(rounds=1)
    assert (only.number, only.start) == (1, before[-1].candidate)
    assert only.candidate not in {each.candidate for each in before}
    assert any("the strong model has changed since" in said for said in this.said)
    state = json.loads((this.folder / "loop" / "loop.json").read_text())
    assert [each["number"] for each in state["before"]] == [0, 1]
    assert this.opened[-1] != this.opened[0]  # the gate's old answers are no measure
    with TraceStore(f"sqlite:///{this.folder / 'traces.db'}") as traces:
        assert len(traces) == known + len(ROWS)  # by the version that is in use now
    calls = this.calls
    assert this.run(rounds=1) == [only]
    assert this.calls == calls
