"""Asking a strong model alone a set of probes, each of them twice.

Knows chains, evaluators and rows. Knows no store and no test: `comparing` has that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig, RunnableLambda

from cowest_graph.benchmark.ledger import digest
from cowest_graph.calls import evaluation_call, model_call
from cowest_graph.conversation import as_data, as_messages, parted
from cowest_graph.evaluators import Evaluator, as_evaluator, evaluator_name, model_name
from cowest_graph.failures import FATAL, failure_kind
from cowest_graph.graph import ChatModel, solo_chain
from cowest_graph.masking import masked_error
from cowest_graph.prompts import Prompts, text_of
from cowest_graph.traces import DriftRun, Probe

TIMES = 2  # that each probe is asked: a model is compared with itself before it is with another

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Probing:
    """What probes are asked with.

    Args:
        strong: π_s.
        evaluator: E, which scores answers that have a reference; None for no scores.
        prompts: whose wording of the solo answer is used.
        max_concurrency: probes at a time.
        say: told of what failed.
    """

    strong: ChatModel
    evaluator: Evaluator | None
    prompts: Prompts
    max_concurrency: int = 8
    say: Callable[[str], None] = print

    def digest(self, rows: Sequence[Row]) -> str:
        """What runs must have in common to be compared: the probes, and the words around them."""
        wording = as_data(self.prompts.messages("solo", {"query": ""}))
        return digest(*map(repr, wording), *(repr(_plain(row)) for row in rows))

    def run(self, rows: Sequence[Row]) -> DriftRun:
        """Ask all probes once, and then all of them again, so that the two times lie apart.

        Args:
            rows: {"query", perhaps "reference" and "messages"} each, as `collecting.read_queries`
                reads them.

        Raises:
            ConnectionError: when fewer than half of the probes were answered each time.
            Exception: a failure that no further call can escape, as the client raised it.
        """
        named = {"strong": model_name(self.strong), "evaluator": evaluator_name(self.evaluator)}
        run = DriftRun(**named, probes=self.digest(rows), asked=[])
        times = [self._asked(rows) for _ in range(TIMES)]
        asked = [_probe(row["query"], each) for row, *each in zip(rows, *times, strict=True)]
        self._check(asked, [said["error"] for each in times for said in each if said["error"]])
        told = {name for each in times for said in each for name in said["told"]}
        return run.model_copy(update={"asked": asked, "told": sorted(told)})

    def _check(self, asked: Sequence[Probe], failed: Sequence[str]) -> None:
        """Tell of failures, and refuse a run that has too many of them."""
        if failed:
            self.say(f"{len(failed)} of {TIMES * len(asked)} calls failed; the last: {failed[-1]}")
        whole = sum(None not in probe.answers for probe in asked)
        if 2 * whole < len(asked):
            raise ConnectionError(
                f"only {whole} of {len(asked)} probes were answered {TIMES} times: this run is not "
                f"kept; the last failure: {failed[-1]}"
            )

    def _asked(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        states = [{"asked": _asked_of(row), "finished": {}} for row in rows]
        config = RunnableConfig(max_concurrency=self.max_concurrency)
        found = RunnableLambda(self._one).batch(states, config, return_exceptions=True)
        for each in found:
            if isinstance(each, Exception) and failure_kind(each) in FATAL:
                raise each
        nothing: dict[str, Any] = {"answer": None, "score": None, "told": []}
        return [
            {**nothing, "error": str(masked_error(each))} if isinstance(each, Exception) else each
            for each in found
        ]

    def _one(self, state: dict[str, Any], config: RunnableConfig) -> dict[str, Any]:
        """One answer, its score, and what the endpoint said of itself."""
        node = model_call(solo_chain(self.strong, self.prompts), key="solo", role="solo")
        said = node.invoke(state, config)
        (call,) = said["calls"]
        told = [call[name] for name in ("model", "fingerprint") if call.get(name)]
        found = {"answer": text_of(said["solo"]), "score": None, "told": told, "error": None}
        if self.evaluator is None:
            return found
        scoring = evaluation_call(as_evaluator(self.evaluator), of="solo", key="score")
        try:
            scored = scoring.invoke({**state, "solo": said["solo"]}, config)
        except Exception as error:
            if failure_kind(error) in FATAL:
                raise
            return {**found, "error": str(masked_error(error))}  # the answer stands
        return {**found, "score": scored["score"]}


def _probe(query: str, times: Sequence[Mapping[str, Any]]) -> Probe:
    answers, scores = ([said[name] for said in times] for name in ("answer", "score"))
    return Probe(query=query, answers=answers, scores=scores)


def _asked_of(row: Row) -> dict[str, Any]:
    history, query = parted(as_messages(row.get("messages") or []), row["query"])
    return {"query": query, "reference": row.get("reference"), "history": history}


def _plain(row: Row) -> list[Any]:
    return [row["query"], row.get("reference"), row.get("messages") or []]
