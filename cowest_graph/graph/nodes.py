"""The nodes of a collection that call a model: draft, refine, solo, evaluate.

Knows how each is made, journalled and kept when it fails. Knows no order and no edge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langgraph.types import RetryPolicy

from cowest_graph.calls import evaluation_call, keep_failure, model_call
from cowest_graph.graph.chains import (
    AnyGraph,
    Chain,
    drafting_chain,
    refining_chain,
    solo_chain,
)
from cowest_graph.graph.tracing import Facts
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

    @property
    def _strong(self) -> tuple[Any, Any]:
        return self.facts.strong, self.facts.prompts

    def _model(self, graph: AnyGraph, name: str, key: str, chain: Chain, then: str) -> None:
        node = model_call(chain, key=key, role=name, journal=self.traces)
        self._add(graph, name, node, keep_failure(name, key, then))

    def _add(self, graph: AnyGraph, name: str, node: Chain, handler: Any) -> None:
        graph.add_node(name, node, error_handler=handler, retry_policy=self.retry)
