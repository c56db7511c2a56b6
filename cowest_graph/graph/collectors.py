"""Collectors that differ in where their traces go and which version drafts, and in nothing else.

Knows what a collection is made with. Knows no rows and no round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cowest_graph.conversation import as_messages
from cowest_graph.evaluators import Evaluator
from cowest_graph.graph.chains import version_of
from cowest_graph.graph.collector import Strategy, create_collector, is_done
from cowest_graph.graph.tracing import ChatModel, Facts
from cowest_graph.prompts import Prompts, draft_prompt
from cowest_graph.traces import Trace, TraceStore, trace_key


@dataclass(frozen=True)
class Collectors:
    """Makes collectors (`create_collector`, whose arguments these are).

    Args:
        weak: π_w; where versions are asked for, one that follows a registry.
        strong: π_s.
        evaluator: E.
        num_drafts: K.
        style, prompts, domain: as in `create_collector`.
        max_concurrency: queries at a time, for whoever runs one.
        strategy: as in `create_collector`.
        logprobs: whether drafts come with their log-probabilities, which routers read.
    """

    weak: ChatModel
    strong: ChatModel
    evaluator: Evaluator
    num_drafts: int = 5
    style: str = "chain_of_thought"
    prompts: Prompts | None = None
    domain: str | None = None
    max_concurrency: int = 8
    strategy: Strategy = "algorithm1"
    logprobs: bool = False

    @property
    def wording(self) -> Prompts:
        """The prompts, or those of the style."""
        return self.prompts or Prompts(draft_prompt(self.style))

    def key(
        self,
        row: Mapping[str, Any],
        traces: TraceStore | None = None,
        *,
        version: str | None = None,
        num_drafts: int | None = None,
    ) -> str:
        """The key of a row's trace.

        Args:
            row: as a collector takes it.
            traces: the store that it is of, where that redacts.
            version: whose drafts it has; None for the version in use.
            num_drafts: K, where it is not that of all.

        Raises:
            ValueError: for a row without a query, or with a field of another type.
        """
        facts = Facts(
            self.weak,
            self.strong,
            self.evaluator,
            self.wording,
            self.style,
            self.domain,
            num_drafts or self.num_drafts,
        )
        given = {**row, "messages": as_messages(row.get("messages") or [])}
        identity = facts.of(facts.asked(given), version or version_of(self.weak))
        return trace_key(**identity) if traces is None else traces.key_of(identity)

    def done(self, trace: Trace | None) -> bool:
        """Whether a collection by this strategy has nothing left to ask for a trace."""
        return trace is not None and is_done(trace, self.strategy, self.num_drafts)

    def collector(
        self,
        traces: TraceStore,
        *,
        version: str | None = None,
        num_drafts: int | None = None,
        sampling: Mapping[str, Any] | None = None,
    ) -> Any:
        """A compiled collector.

        Args:
            traces: where its traces go.
            version: whose drafts are collected; None for the version in use.
            num_drafts: K of this one.
            sampling: call arguments of the drafts.
        """
        return create_collector(
            self.weak if version is None else self.weak.bind(adapter=version),
            self.strong,
            evaluator=self.evaluator,
            traces=traces,
            num_drafts=num_drafts or self.num_drafts,
            style=self.style,
            prompts=self.prompts,
            domain=self.domain,
            sampling={**({"logprobs": True} if self.logprobs else {}), **(sampling or {})} or None,
            strategy=self.strategy,
        ).compile()
