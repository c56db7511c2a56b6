"""The nodes of a collection that call a model: draft, refine, solo, evaluate, judge.

Knows how each is made, journalled and kept when it fails. Knows no order and no edge.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage
from langgraph.types import RetryPolicy

from cowest_graph.calls import CALL, evaluation_call, in_place, keep_failure, model_call, scored
from cowest_graph.evaluators import Evaluation, keywords
from cowest_graph.failures import NotStored
from cowest_graph.graph.chains import (
    AnyGraph,
    Chain,
    Update,
    drafting_chain,
    refining_chain,
    solo_chain,
)
from cowest_graph.graph.tracing import Facts, State
from cowest_graph.judging import Together
from cowest_graph.masking import masked_error
from cowest_graph.telemetry import observer
from cowest_graph.threads import in_threads
from cowest_graph.traces import TraceStore


@dataclass(frozen=True)
class Nodes:
    """Adds nodes to a graph; a call that fails leaves its key missing, and `then` goes on.

    Args:
        facts: of the collection.
        traces: where finished calls are journalled.
        scoring: the evaluator as a Runnable (`as_evaluator`).
        sampling: call arguments of the drafts.
        retry: policy for failed calls.
    """

    facts: Facts
    traces: TraceStore
    scoring: Chain
    sampling: Mapping[str, Any] | None = None
    retry: RetryPolicy | None = None

    def draft(self, graph: AnyGraph, then: str) -> None:
        """The node `draft`, which writes y."""
        chain = drafting_chain(self.facts.weak, self.facts.prompts, self.sampling)
        self._model(graph, "draft", "draft", chain, then)

    def refine(self, graph: AnyGraph, then: str) -> None:
        """The node `refine`, which writes y* as `answer`."""
        self._model(graph, "refine", "answer", refining_chain(*self._strong), then)

    def solo(self, graph: AnyGraph, then: str) -> None:
        """The node `solo`, which writes z."""
        self._model(graph, "solo", "solo", solo_chain(*self._strong), then)

    def evaluate(self, graph: AnyGraph, name: str, of: str, key: str, then: str) -> None:
        """A node of this name, which writes the score of what is at `of` to `key`."""
        node = evaluation_call(self.scoring, of=of, key=key, journal=self.traces)
        self._add(graph, name, node, keep_failure("evaluate", key, then))

    def judge(self, graph: AnyGraph, together: Together, then: str) -> None:
        """The node `judge`, which writes the scores of all answers by their slots, in one call.

        It waits for everything that is under way.
        """
        node = in_place(_judging(together, self.traces))
        handler = keep_failure("evaluate", "scores", then)
        graph.add_node("judge", node, error_handler=handler, retry_policy=self.retry, defer=True)

    @property
    def _strong(self) -> tuple[Any, Any]:
        return self.facts.strong, self.facts.prompts

    def _model(self, graph: AnyGraph, name: str, key: str, chain: Chain, then: str) -> None:
        node = model_call(chain, key=key, role=name, journal=self.traces)
        self._add(graph, name, node, keep_failure(name, key, then))

    def _add(self, graph: AnyGraph, name: str, node: Chain, handler: Any) -> None:
        graph.add_node(name, node, error_handler=handler, retry_policy=self.retry)


def _slot(texts: Sequence[str]) -> str:
    """What the call is known by: of other answers it is another one."""
    return f"scores/{hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]}"


def _judging(together: Together, traces: TraceStore) -> Callable[[State], Update | Chain]:
    def judge(state: State) -> Update | Chain:
        return _judged(together, traces, state)

    return judge


def _judged(together: Together, traces: TraceStore, state: State) -> Update | Chain:
    """Scores by slot: those that an earlier run paid for, and the others in one call."""
    answers = {f"score/{each['index']}": each["answer"] for each in state["attempts"]}
    answers |= {"solo_score": None if state.get("solo") is None else state["solo"].text}
    there = {slot: said for slot, said in answers.items() if said}
    paid = {slot: state["finished"][slot] for slot in there if slot in state["finished"]}
    known = {slot: part["score"] for slot, part in paid.items()}
    calls = [call for part in paid.values() for call in part["calls"]]
    texts = [*dict.fromkeys(said for slot, said in there.items() if slot not in known)]
    if not texts:
        return {"scores": known, "calls": calls}
    asked, started = state["asked"], time.perf_counter()
    given = [keywords(asked["query"], AIMessage(each), asked.get("reference")) for each in texts]

    def end(found: list[Evaluation]) -> Update:
        record = scored(found[0], time.perf_counter() - started)
        by_text = {each: said.get("score") for each, said in zip(texts, found, strict=True)}
        fresh = {slot: by_text[said] for slot, said in there.items() if slot not in known}
        return {"scores": {**known, **fresh}, "calls": [*calls, record]}

    def remember(update: Update) -> Update:
        record = update["calls"][-1:]
        for slot in there:
            if slot not in known and update["scores"][slot] is not None:
                try:
                    part = {"score": update["scores"][slot], "calls": record}
                    traces.remember(state["key"], slot, part)
                except Exception as error:
                    told = f"a finished call could not be stored: {masked_error(error)}"
                    raise NotStored(told) from error
                record = []  # it was one call
        return update

    named = together.with_config(metadata={CALL: f"{state['key']}/{_slot(texts)}"})
    timed: Chain = in_place(lambda _: given) | named | in_place(end)
    if (watching := observer()) is not None:
        timed = watching.call(timed, "evaluate", state)
    return timed | in_threads(remember)
