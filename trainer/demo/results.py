"""Everything that a run of the demo showed. Knows no model and no rendering."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cowest_graph.benchmark import Difference, paired_difference
from trainer.demo.measuring import Measured, Stated, stated

STRONG = "strong model alone"
WEAK_SFT = "weak model after SFT"
COLLABORATION_SFT = "collaboration, SFT adapter"
WEAK_DPO = "weak model after DPO"
COLLABORATION_DPO = "collaboration, DPO adapter"


@dataclass
class Results:
    """Everything that the report is made of."""

    seed: int
    world: str
    weak: str
    strong: str
    held_out: list[dict[str, Any]]
    measured: list[Measured] = field(default_factory=list)
    pairs: dict[str, int] = field(default_factory=dict)
    traces: int = 0
    collect_seconds: float = 0.0
    curves: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    swap: list[tuple[str, str, str]] = field(default_factory=list)  # version, draft, answer

    def of(self, method: str) -> Measured:
        """One method's measurement."""
        return next(m for m in self.measured if m.method == method)

    def has(self, method: str) -> bool:
        """Whether that method was measured."""
        return any(m.method == method for m in self.measured)

    def difference(self, ours: str, theirs: str) -> Difference:
        """Paired difference in exact match."""
        return paired_difference(self.of(ours).exact, self.of(theirs).exact)

    def stated(self, method: str) -> Stated:
        """What a weak model's drafts state of the facts that are needed."""
        return stated(self.of(method).outputs, self.held_out)

    def changed(self, drafts: str, answers: str) -> tuple[int, int]:
        """How many wrong drafts the strong model put right, and how many right ones it spoiled."""
        both = list(zip(self.of(drafts).exact, self.of(answers).exact, strict=True))
        return sum(b > a for a, b in both), sum(b < a for a, b in both)

    def by_kind(self, method: str) -> dict[str, float]:
        """Mean exact match of every kind of question."""
        found: dict[str, list[float]] = {}
        for row, exact in zip(self.held_out, self.of(method).exact, strict=True):
            found.setdefault(row["kind"], []).append(exact)
        return {kind: sum(scores) / len(scores) for kind, scores in sorted(found.items())}
