"""Held-out queries are asked of the strong model alone once, whatever is stopped or fails."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage

from cowest_graph import TraceStore, exact_match
from cowest_graph.graph import Collectors
from cowest_graph.testing import ScriptedModel
from trainer.gate import held_out_scores

ROWS = [{"query": f"ask {n}", "reference": "right"} for n in range(4)]


class Weak(ScriptedModel):
    """Drafts with its version's name."""

    def _reply(self, messages: list[BaseMessage], arguments: dict[str, Any]) -> Any:
        said = AIMessage(f"I am {arguments['adapter']}. Answer: right")
        return super()._reply([*messages, said], arguments)


class Strong:
    """Says something else each time that it is asked alone, and may be silent then."""

    def __init__(self) -> None:
        self.alone = self.judged = 0
        self.silent = False
        self.model = ScriptedModel(self._reply)

    def _reply(self, messages: list[BaseMessage]) -> Any:
        if "I am" in messages[-1].text:
            return "Answer: right"
        if self.silent:
            return TimeoutError("no answer")
        self.alone += 1
        return f"Answer: guess {self.alone}"

    def evaluator(self, outputs: dict[str, Any], reference_outputs: dict[str, Any]) -> float:
        self.judged += "guess" in outputs["text"]
        return float(exact_match(outputs["answer"], [reference_outputs["reference"]]))


@pytest.fixture
def strong() -> Strong:
    return Strong()


def collectors(strong: Strong) -> Collectors:
    weak = Weak(lambda messages: messages[-1].text)
    return Collectors(weak, strong.model, strong.evaluator, style="answer")


def ask(version: str, beside: str, of: Collectors, store: TraceStore, rows: Any = ROWS) -> Any:
    return held_out_scores(version, rows, of, store, beside=beside, say=lambda text: None)


def solos(store: TraceStore, version: str) -> dict[str, tuple[str | None, float | None]]:
    return {t.query: (t.solo, t.solo_score) for t in store.select(weak_version=version)}


def test_two_versions_share_what_the_strong_model_says_alone(strong: Strong) -> None:
    of = collectors(strong)
    with TraceStore(":memory:") as store:
        assert ask("one", "two", of, store) == ask("two", "one", of, store) == [1.0] * 4
        assert (strong.alone, strong.judged) == (4, 4)
        assert solos(store, "one") == solos(store, "two")
        (paid,) = [t.calls for t in store.select(weak_version="one") if t.query == "ask 0"]
        (taken,) = [t.calls for t in store.select(weak_version="two") if t.query == "ask 0"]
        assert ([c.role for c in paid], taken) == (["solo", "evaluate"], [])
        assert all(t.complete and t.attempts[0].gain == 1.0 for t in store)
        before = len(strong.model.calls)
        ask("one", "two", of, store)
        ask("two", "one", of, store)
        assert (len(strong.model.calls), store.finished(of.key(ROWS[0], version="two"))) == (
            before,
            {},
        )


def test_an_answer_of_its_own_stays_with_its_own_score(strong: Strong) -> None:
    of = collectors(strong)
    with TraceStore(":memory:") as store:
        own = of.key(ROWS[0], version="two", num_drafts=1)
        store.remember(own, "solo", {"text": "Answer: right", "calls": []})
        ask("one", "two", of, store)
        ask("two", "one", of, store)
        assert solos(store, "two")["ask 0"] == ("Answer: right", 1.0)
        assert solos(store, "one")["ask 0"][1] == 0.0
        assert strong.alone == 4


def test_stopped_between_score_and_answer_it_takes_both(strong: Strong) -> None:
    of = collectors(strong)
    with TraceStore(":memory:") as store:
        ask("one", "two", of, store)
        own = of.key(ROWS[0], version="two", num_drafts=1)
        store.remember(own, "solo_score", {"score": 0.0, "calls": []})
        ask("two", "one", of, store)
        assert solos(store, "one") == solos(store, "two")
        assert (strong.alone, strong.judged) == (4, 4)


def test_an_answer_that_failed_is_asked_for_by_the_other_and_given_back(strong: Strong) -> None:
    of = collectors(strong)
    strong.silent = True
    with TraceStore(":memory:") as store:
        assert ask("one", "two", of, store) == [1.0] * 4
        assert {t.solo for t in store} == {None}
        strong.silent = False
        ask("two", "one", of, store)
        ask("one", "two", of, store)
        assert solos(store, "one") == solos(store, "two")
        assert (strong.alone, all(t.complete for t in store)) == (4, True)


def test_a_row_that_cannot_be_asked_keeps_the_others_from_nothing(strong: Strong) -> None:
    of = collectors(strong)
    rows = [ROWS[0], {"query": " ", "reference": "right"}]
    with TraceStore(":memory:") as store:
        assert ask("one", "two", of, store, rows) == [1.0, None]
        assert ask("two", "one", of, store, rows) == [1.0, None]
        assert strong.alone == 1
