"""Rounds that learn from what was served, with scripted models and recorded recipes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage
from pydantic import Field

from cowest_graph import AdapterRegistry, Trace, TraceStore, exact_match, metric
from cowest_graph.graph import Collectors
from cowest_graph.testing import ScriptedModel
from cowest_graph.traces import Draw, Exploration
from trainer.job import TrainingJob
from trainer.traffic import SOURCES, Traffic, TrafficLoop, traffic_of


class Weak(ScriptedModel):
    """Answers rightly once it has learnt."""

    skilled: set[str] = Field(default_factory=set)

    def _reply(self, messages: list[BaseMessage], arguments: dict[str, Any]) -> Any:
        right = arguments.get("adapter") in self.skilled
        said = AIMessage("Answer: right" if right else "Answer: wrong")
        return super()._reply([*messages, said], arguments)


class World:
    """A store with traffic, a registry, and recipes whose adapters have learnt or not."""

    def __init__(self, folder: Path, source: Path) -> None:
        self.folder, self.source = folder, source
        self.store = TraceStore(folder / "traces.db")
        self.adapters = AdapterRegistry(folder / "adapters")
        self.weak = Weak(lambda messages: messages[-1].text, seed=0)
        self.learnt: list[tuple[str, str | None, list[str]]] = []
        self.teaches = {"sft", "dpo"}

    def serve(
        self, number: int, *, thumb: float | None = None, correction: str | None = None
    ) -> None:
        answer = "right" if thumb else "wrong"
        tried = [answer, "wrong", "right"]
        drawn = Draw(drawn=True, propensity=0.1)
        trace = Trace(
            query=f"ask {number}",
            reference="gold, which nobody reads",
            kind="inference",
            key=f"key-{number}",
            run_id=f"run-{number}",
            solo="Answer: wrong",
            exploration=Exploration(solo=drawn, drafts=drawn),
            attempts=[
                {"index": i, "draft": f"Answer: {text}", "answer": f"Answer: {text}"}
                for i, text in enumerate(tried)
            ],
        )
        self.store.record(trace)
        said = {"trace_key": trace.key, "key": "thumbs"}
        if thumb is not None:
            self.store.feedback(**said, score=thumb)
        if correction is not None:
            self.store.feedback(**said, correction=correction)

    def _train(self, kind: str) -> Any:
        def train(rows: Sequence[Any], job: Any, adapters: Any, **given: Any) -> str:
            asked = [str(row["prompt"][-1]["content"]) for row in rows]
            assert not [
                text
                for text in asked
                for row in self.traffic.held_out
                if row["query"] in text.split("\n")
            ]
            self.learnt.append((kind, given["start"], asked))
            if kind in self.teaches:
                self.weak.skilled.add(given["name"])
            return str(self.adapters.add(self.source, name=given["name"]))

        return train

    @property
    def traffic(self) -> Traffic:
        return traffic_of(self.store)

    def loop(self) -> TrafficLoop:
        strong = ScriptedModel(
            lambda m: "Answer: right" if "right" in m[-1].text else "Answer: wrong"
        )
        return TrafficLoop(
            Collectors(self.weak, strong, metric(exact_match), num_drafts=2, style="answer"),
            self.store,
            self.adapters,
            lambda kind: TrainingJob("m", preset="tiny"),
            self.folder / "loop",
            say=lambda text: None,
            sft=self._train("sft"),
            dpo=self._train("dpo"),
        )


@pytest.fixture
def world(tmp_path: Path, peft_folder: Path) -> Any:
    made = World(tmp_path, peft_folder)
    yield made
    made.store.close()


def test_thumbs_and_corrections_teach_and_what_is_held_out_judges(world: World) -> None:
    for number in range(40):
        world.serve(number, thumb=1.0 if number % 2 else 0.0)
    for number in range(0, 12, 2):
        world.store.feedback(run_id=f"run-{number}", key="fix", correction="right")
    traffic = world.traffic
    assert traffic.taught
    assert traffic.traces
    assert traffic.held_out
    assert {str(row["reference"]) for row in traffic.held_out} == {"['right']"}
    sft, dpo = world.loop().learn(traffic)
    assert sft.promoted, "it answers what people said is right"
    assert [kind for kind, _, _ in world.learnt] == ["sft", "dpo"]
    assert world.learnt[1][1] == sft.candidate, "pairs go on from the corrections"
    assert dpo.verdict is not None
    again = world.loop().learn(traffic)
    assert again == [sft, dpo]
    assert len(world.learnt) == 2, "the same traffic is learnt from once"


def test_every_pair_is_traced_to_its_calls_its_propensity_and_its_feedback(world: World) -> None:
    for number in range(40):
        world.serve(number, thumb=1.0)
    world.store.feedback(run_id="run-0", key="fix", correction="right")
    world.adapters.add(world.source, name="served")
    world.adapters.promote("served")
    traffic = world.traffic
    loop = world.loop()
    (*_, dpo) = loop.learn(traffic)
    (path,) = loop.folder.glob(f"*/{SOURCES}")
    sources = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(sources) == len(world.learnt[-1][2]) == len(traffic.traces)
    for each in sources:
        trace = world.store.get(each["trace_key"])
        assert trace is not None
        assert trace.attempts[each["chosen"]].answer == "Answer: right"
        assert trace.attempts[each["rejected"]].answer == "Answer: wrong"
        assert (each["solo_propensity"], each["drafts_propensity"]) == (0.1, 0.1)
        known = {said.id for said in world.store.feedbacks(trace_key=each["trace_key"])}
        assert set(each["feedback"]) == known != set()
    assert "pairs" in dpo.note or "pair" in dpo.note


def test_without_anything_to_judge_by_it_does_not_begin(world: World) -> None:
    for number in range(10):
        world.serve(number)
    assert world.traffic.held_out == ()
    with pytest.raises(ValueError, match="nothing for the gate to ask"):
        world.loop().learn(world.traffic)


def test_without_an_adapter_or_a_correction_it_says_so(world: World) -> None:
    for number in range(20):
        world.serve(number, thumb=1.0)
    with pytest.raises(ValueError, match="no adapter to start from"):
        world.loop().learn(world.traffic)


def test_who_is_held_out_stays_so(world: World) -> None:
    for number in range(30):
        world.serve(number, thumb=1.0)
    before = {row["query"] for row in world.traffic.held_out}
    for number in range(30, 60):
        world.serve(number, thumb=1.0)
    after = world.traffic
    assert before < {row["query"] for row in after.held_out}
    assert before.isdisjoint(trace.query for trace in after.traces)
    with pytest.raises(ValueError, match="between 0 and 1"):
        traffic_of(world.store, share=1.0)
